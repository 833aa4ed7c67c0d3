//! Comparing a machine with the inventory.

use std::fmt::Write;

use undercroft_model::{
    Evidence, Failure, FailureKind, InstallerReport, PlannedDisk, ReportedDisk, System,
};
use undercroft_netboot::timeline::MarkKind;

use super::{
    Done, Job,
    installer::{Installer, exit, refused},
};
use undercroft_journal::TimelineSource;
use undercroft_process::clock::wall_ms_now;

/// Compares the machine with the plan. It changes nothing, so that it is its own probe.
pub(super) async fn inspect(
    job: &Job<'_>,
    disks: &[PlannedDisk],
    system: System,
    memory_mb_min: u64,
) -> Done {
    let installer = Installer::of(job)?;
    if let Some(approval) = &job.order.facts.approval
        && approval.expires_wall_ms <= wall_ms_now()
    {
        return Err(Failure::new(
            FailureKind::PreconditionLost,
            "the approval ran out before the first connection was made",
        )
        .into());
    }
    let found = ask(&installer).await?;
    job.mark(
        TimelineSource::Ssh,
        MarkKind::SshReached,
        "connected under the approved key",
    );
    let same_uuid = match (job.node.uuid, found.uuid) {
        (Some(wanted), Some(shown)) => wanted == shown,
        _ => true,
    };
    if !same_uuid || !found.macs.iter().any(|mac| job.node.macs.contains(mac)) {
        let macs: Vec<String> = found.macs.iter().map(ToString::to_string).collect();
        let uuid = found
            .uuid
            .map_or("none".to_owned(), |uuid| uuid.to_string());
        return Err(Failure::new(
            FailureKind::Refused,
            format!(
                "another machine answers: it has the UUID {uuid} and the Ethernet addresses {}",
                macs.join(", ")
            ),
        )
        .into());
    }
    if found.system != system {
        return Err(Failure::new(
            FailureKind::Permanent,
            format!(
                "the machine is {}, and its system was built for {system}",
                found.system
            ),
        )
        .with_hint("Correct `system` in the machine's class.")
        .into());
    }
    if found.memory_mb < memory_mb_min {
        return Err(Failure::new(
            FailureKind::Permanent,
            format!(
                "the machine has {} MiB of memory, and {memory_mb_min} MiB are needed",
                found.memory_mb
            ),
        )
        .into());
    }
    let disk_paths = disks
        .iter()
        .map(|disk| find(disk, &found.disks))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Evidence::Inspected {
        boot_id: installer.boot_id(),
        disk_paths,
    })
}

/// Asks the machine what it is.
pub(super) async fn ask(installer: &Installer<'_>) -> Result<InstallerReport, Failure> {
    let output = installer.run(&["/undercroft/inspect"]).await?;
    if output.code != exit::DONE {
        return Err(refused(&output));
    }
    serde_json::from_str(&output.stdout).map_err(|e| {
        Failure::new(
            FailureKind::Permanent,
            format!("the installer's description of the machine can't be understood: {e}"),
        )
        .with_command(output.failed_command())
    })
}

/// The device of the one disk that has the planned identity.
pub(super) fn find(planned: &PlannedDisk, found: &[ReportedDisk]) -> Result<String, Failure> {
    let matching: Vec<&ReportedDisk> = found
        .iter()
        .filter(|disk| {
            planned
                .identity
                .matches(disk.serial.as_deref(), disk.wwn.as_deref())
        })
        .collect();
    match matching.as_slice() {
        [disk] if disk.size_bytes < planned.size_bytes_min => Err(Failure::new(
            FailureKind::Permanent,
            format!(
                "the {} disk with {} ({}) has {} bytes, and {} are needed",
                planned.role, planned.identity, disk.path, disk.size_bytes, planned.size_bytes_min
            ),
        )),
        [disk] => Ok(disk.path.clone()),
        [] => Err(Failure::new(
            FailureKind::Refused,
            format!(
                "no disk with {} for {}; the machine has {}",
                planned.identity,
                planned.role,
                list(found)
            ),
        )
        .with_hint(
            "Nothing was written. Correct the disk's identity in the inventory, or the cabling.",
        )),
        several => Err(Failure::new(
            FailureKind::Refused,
            format!("{} disks have {}", several.len(), planned.identity),
        )
        .with_hint("Give the disk's WWN in the inventory as well.")),
    }
}

fn list(disks: &[ReportedDisk]) -> String {
    if disks.is_empty() {
        return "no disk at all".to_owned();
    }
    let mut text = String::new();
    for disk in disks {
        if !text.is_empty() {
            text.push_str(", ");
        }
        let serial = disk.serial.as_deref().unwrap_or("none");
        // Writing to a string can't fail.
        let _ = write!(text, "{} (serial {serial}", disk.path);
        if let Some(wwn) = &disk.wwn {
            let _ = write!(text, ", WWN {wwn}");
        }
        let _ = write!(text, ", {} bytes)", disk.size_bytes);
    }
    undercroft_process::printable(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use undercroft_model::{DiskIdentity, MachineUuid};

    fn disk(path: &str, serial: Option<&str>, size_bytes: u64) -> ReportedDisk {
        ReportedDisk {
            path: path.into(),
            serial: serial.map(str::to_owned),
            wwn: None,
            size_bytes,
            model: None,
            transport: None,
        }
    }

    fn planned() -> PlannedDisk {
        PlannedDisk {
            identity: DiskIdentity {
                serial: Some("S1".into()),
                wwn: None,
            },
            role: "root".into(),
            size_bytes_min: 100,
            table_guid: MachineUuid([1; 16]),
        }
    }

    #[test]
    fn the_disk_is_found_by_its_identity_and_by_nothing_else() {
        let disks = [
            disk("/dev/vda", Some("S2"), 500),
            disk("/dev/vdb", Some("S1"), 500),
        ];
        assert_eq!(find(&planned(), &disks).unwrap(), "/dev/vdb");
    }

    #[test]
    fn a_wrong_a_small_and_a_doubled_disk_are_told_apart() {
        let wrong = find(&planned(), &[disk("/dev/vda", Some("S2"), 500)]).unwrap_err();
        assert_eq!(wrong.kind, FailureKind::Refused);
        insta::assert_snapshot!(wrong.message, @"no disk with serial S1 for root; the machine has /dev/vda (serial S2, 500 bytes)");
        let small = find(&planned(), &[disk("/dev/vda", Some("S1"), 99)]).unwrap_err();
        assert_eq!(small.kind, FailureKind::Permanent);
        insta::assert_snapshot!(small.message, @"the root disk with serial S1 (/dev/vda) has 99 bytes, and 100 are needed");
        let twice = [
            disk("/dev/vda", Some("S1"), 500),
            disk("/dev/vdb", Some("S1"), 500),
        ];
        assert_eq!(
            find(&planned(), &twice).unwrap_err().kind,
            FailureKind::Refused
        );
        assert_eq!(
            find(&planned(), &[]).unwrap_err().kind,
            FailureKind::Refused
        );
    }
}
