//! Whether a disko script lays out the disks that are to be wiped, and none else.

use undercroft_model::{Failure, FailureKind};

/// The scripts that disko makes of a configuration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scripts<'a> {
    /// Wipes, makes and mounts.
    pub(crate) lay_out: &'a str,
    /// Mounts alone.
    pub(crate) mount: Option<&'a str>,
    /// The devices that are made anew, as the scripts name them, where that is known.
    pub(crate) devices: Option<&'a [String]>,
}

/// The devices that a disko script says that it makes anew.
///
/// # Errors
/// When that isn't known: a script of which that can't be told isn't run.
pub(crate) fn script_devices(named: Option<&[String]>) -> Result<&[String], Failure> {
    named.filter(|named| !named.is_empty()).ok_or_else(|| {
        Failure::new(
            FailureKind::Permanent,
            "it can't be told which disks the disko script makes anew, so it isn't run",
        )
        .with_hint(
            "Let the flake declare them as `disko.devices.disk`; with --store-paths, name them with --disko-devices.",
        )
    })
}

/// Compares what a disko script makes anew with what the plan wipes. `named` is how the script names its devices,
/// `resolved` where these names lead on the machine, in the same order, and `wiped` the devices of the planned disks as
/// they were found by their identities.
///
/// # Errors
/// When the script would make another disk anew, or leaves one out.
pub(crate) fn script_wipes_what_is_planned(
    named: &[String],
    resolved: &[String],
    wiped: &[String],
) -> Result<(), Failure> {
    let refused = |message: String| {
        Failure::new(FailureKind::Refused, message).with_hint(
            "Nothing was written. Let the configuration name its disks as the inventory does: the devices of `disko.devices.disk` by their serial numbers or WWNs, below /dev/disk/by-id.",
        )
    };
    if named.len() != resolved.len() {
        return Err(refused(format!(
            "the disko script names {} devices, and {} of them were found on the machine",
            named.len(),
            resolved.len()
        )));
    }
    for (name, device) in named.iter().zip(resolved) {
        if !wiped.contains(device) {
            return Err(refused(format!(
                "the disko script would make {name} anew, which is {device} on this machine, and the plan wipes only {}",
                list(wiped)
            )));
        }
    }
    match wiped.iter().find(|device| !resolved.contains(device)) {
        Some(device) => Err(refused(format!(
            "the plan lays out {device}, and the disko script doesn't: it names {}",
            list(named)
        ))),
        None => Ok(()),
    }
}

fn list(devices: &[String]) -> String {
    if devices.is_empty() {
        return "no disk".to_owned();
    }
    devices.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn a_script_that_makes_another_disk_anew_is_refused() {
        let by_id = ["/dev/disk/by-id/ata-S1", "/dev/disk/by-id/ata-S2"];
        for (named, resolved, wiped, good) in [
            (&by_id[..1], &["/dev/sda"][..], &["/dev/sda"][..], true),
            (
                &by_id,
                &["/dev/sdb", "/dev/sda"],
                &["/dev/sda", "/dev/sdb"],
                true,
            ),
            // The first disk of the machine isn't the one that is meant.
            (&["/dev/sda"], &["/dev/sda"], &["/dev/sdb"], false),
            // One more than is planned, one less, and one that leads nowhere.
            (&by_id, &["/dev/sda", "/dev/sdb"], &["/dev/sda"], false),
            (&by_id[..1], &["/dev/sda"], &["/dev/sda", "/dev/sdb"], false),
            (
                &by_id[..1],
                &["/dev/disk/by-id/ata-S1"],
                &["/dev/sda"],
                false,
            ),
            (&by_id, &["/dev/sda"], &["/dev/sda"], false),
            (&by_id[..1], &["/dev/sda"], &[], false),
        ] {
            let (named, resolved, wiped) = (strings(named), strings(resolved), strings(wiped));
            let verdict = script_wipes_what_is_planned(&named, &resolved, &wiped);
            assert_eq!(verdict.is_ok(), good, "{named:?} {resolved:?} {wiped:?}");
            if let Err(failure) = verdict {
                assert_eq!(failure.kind, FailureKind::Refused);
            }
        }
    }

    #[test]
    fn a_script_of_which_nothing_is_known_is_not_run() {
        assert_eq!(
            script_devices(None).unwrap_err().kind,
            FailureKind::Permanent
        );
        assert!(script_devices(Some(&[])).is_err());
        let known = strings(&["/dev/sda"]);
        assert_eq!(script_devices(Some(&known)).unwrap(), known);
    }
}
