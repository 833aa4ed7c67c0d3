//! Laying out and mounting the disks.

use undercroft_model::{
    Action, Evidence, Failure, FailureKind, PlannedDisk, Work, inventory::Layout,
};

use undercroft_steps::{find_disk, script_devices, script_wipes_what_is_planned};

use super::{
    Done, Job, Stop, copy,
    inspect::ask,
    installer::{Installer, exit, refused, values},
};
use undercroft_journal::TimelineSource;

/// The mount point of the new system.
const MOUNT_POINT: &str = "/mnt";

/// A disko script.
#[derive(Debug, Clone, Copy)]
pub(super) struct Script<'a> {
    /// Its store path.
    pub(super) path: &'a str,
    /// The devices that it makes anew, as it names them, where that is known.
    pub(super) devices: Option<&'a [String]>,
}

/// Lays out the disks; a probe mounts them if they are laid out by this plan already.
pub(super) async fn partition(
    job: &Job<'_>,
    disks: &[PlannedDisk],
    layout: Layout,
    disko_script: Option<Script<'_>>,
    work: Work,
) -> Done {
    let installer = Installer::of(job)?;
    // Only what the plan says will be lost is handed to anything that writes.
    let wiped: Vec<&PlannedDisk> = disks
        .iter()
        .filter(|disk| job.step.destroys.contains(&disk.identity))
        .collect();
    if work == Work::Act {
        // The identity was compared when the machine was inspected; between then and now somebody
        // may have pulled a disk. The programs on the machine compare it once more.
        let found = ask(&installer).await?;
        for disk in disks {
            find_disk(disk, &found.disks)?;
        }
    }
    match (disko_script, wiped.as_slice()) {
        (Some(script), wiped) => with_disko(job, &installer, script, wiped, work).await,
        (None, [disk]) => own_layout(job, &installer, disk, layout, work).await,
        (None, several) => Err(Stop::new(
            FailureKind::Permanent,
            format!(
                "the plan lays out {} disks, and Undercroft's own layouts are for one",
                several.len()
            ),
        )),
    }
}

async fn own_layout(
    job: &Job<'_>,
    installer: &Installer<'_>,
    disk: &PlannedDisk,
    layout: Layout,
    work: Work,
) -> Done {
    let guid = disk.table_guid.to_string();
    let mut words = vec!["/undercroft/partition"];
    // All that the plan knows of the disk, so that the machine compares the same.
    for (flag, value) in [
        ("--serial", &disk.identity.serial),
        ("--wwn", &disk.identity.wwn),
    ] {
        if let Some(value) = value {
            words.extend([flag, value]);
        }
    }
    if words.len() == 1 {
        let message = "the planned disk has no identity";
        return Err(Stop::new(FailureKind::Refused, message));
    }
    words.extend(["--layout", layout.as_str(), "--disk-guid", &guid]);
    if work == Work::Probe {
        words.push("--probe");
    }
    let output = installer.run(&words).await?;
    match output.code {
        exit::DONE => {
            let wiped = values(&output.stdout).get("state") == Some(&"created");
            if wiped {
                job.note(
                    TimelineSource::Controller,
                    format!("the disk with {} was wiped and laid out", disk.identity),
                );
            }
            Ok(Evidence::Partitioned {
                boot_id: installer.boot_id(),
                wiped,
            })
        }
        exit::NOT_YET if work == Work::Probe => Err(Stop::NotDone),
        _ => Err(refused(&output).into()),
    }
}

/// What became of a disko layout.
enum Committed {
    /// Every disk has its GUID and the new system is mounted.
    Mounted,
    /// Every disk has its GUID.
    Unmounted,
    /// Some disk hasn't its GUID.
    No,
}

/// Where the modules of an encrypted layout look for the disk's key while the disks are laid out:
/// `undercroft.disks.encryptionKeyFile` in nix/modules/disks.nix.
const ENCRYPTION_KEY_PATH: &str = "/run/undercroft/disk.key";

/// Writes what comes on standard input to a file. umask first: a key is never readable by others,
/// not even while it is written, nor where a file of that name was before.
const WRITE_KEY: &str = "umask 077; mkdir -p \"${1%/*}\" && rm -f \"$1\" && cat >\"$1\"";

/// Gives the installer the keys with which the disks are encrypted: those that the command line
/// names, or the one that the fleet's secrets hold. Where they lie comes back.
async fn deliver_keys(job: &Job<'_>, installer: &Installer<'_>) -> Result<Vec<String>, Stop> {
    let mut delivered = Vec::new();
    for key in &job.shared.parts.options.disk_keys {
        let path = key.path_on_machine.as_str();
        let words = ["sh", "-c", WRITE_KEY, "undercroft", path];
        let output = installer.run_with_file(&words, &key.file).await?;
        if output.code != exit::DONE {
            return Err(refused(&output).into());
        }
        delivered.push(path.to_owned());
    }
    let encrypted = matches!(
        &job.step.action,
        Action::Partition {
            layout: Layout::ZfsEncrypted,
            ..
        }
    );
    let Some(source) = job
        .shared
        .parts
        .encryption_keys
        .as_ref()
        .filter(|_| encrypted)
    else {
        return Ok(delivered);
    };
    let key = source(job.name())?;
    let words = ["sh", "-c", WRITE_KEY, "undercroft", ENCRYPTION_KEY_PATH];
    let output = installer.run_with_secret(&words, &key).await?;
    if output.code != exit::DONE {
        return Err(refused(&output).into());
    }
    delivered.push(ENCRYPTION_KEY_PATH.to_owned());
    Ok(delivered)
}

/// Takes the keys away again. The installer lies in memory, so that they end with it at the
/// latest; nothing that runs there later needs them.
async fn forget_keys(installer: &Installer<'_>, paths: &[String]) -> Result<(), Stop> {
    if paths.is_empty() {
        return Ok(());
    }
    let mut words = vec!["rm", "-f", "--"];
    words.extend(paths.iter().map(String::as_str));
    let output = installer.run(&words).await?;
    if output.code == exit::DONE {
        Ok(())
    } else {
        Err(refused(&output).into())
    }
}

/// Copies the disko script to the installer and runs it there.
async fn run_script(job: &Job<'_>, installer: &Installer<'_>, script: &str) -> Result<(), Stop> {
    copy::push(
        job,
        installer.connection(),
        script,
        copy::Destination::Installer,
        None,
    )
    .await?;
    let output = installer.run(&[script]).await?;
    if output.code == exit::DONE {
        return Ok(());
    }
    Err(Stop::Failed(
        Failure::new(
            FailureKind::Permanent,
            format!("the disko script failed with exit code {}", output.code),
        )
        .with_command(output.failed_command()),
    ))
}

/// Runs a disko script, and then gives every table its GUID: as with Undercroft's own layouts it
/// is written last, so that a disk that has it is never wiped again.
async fn with_disko(
    job: &Job<'_>,
    installer: &Installer<'_>,
    script: Script<'_>,
    wiped: &[&PlannedDisk],
    work: Work,
) -> Done {
    let found = ask(installer).await?;
    let mut tables = Vec::new();
    for disk in wiped {
        tables.push((find_disk(disk, &found.disks)?, disk.table_guid.to_string()));
    }
    let evidence = |wiped| Evidence::Partitioned {
        boot_id: installer.boot_id(),
        wiped,
    };
    match committed(installer, &tables).await? {
        Committed::Mounted => return Ok(evidence(false)),
        Committed::Unmounted => {
            return Err(Stop::Failed(
                Failure::new(
                    FailureKind::Permanent,
                    "the disks were laid out by this plan and aren't mounted, and a disko script can only wipe them again",
                )
                .with_hint("Mount them at /mnt by hand and run the command again, or plan with --reinstall to wipe them."),
            ));
        }
        Committed::No if work == Work::Probe => return Err(Stop::NotDone),
        Committed::No => {}
    }
    lays_out_what_is_planned(installer, script, &tables).await?;
    spares_other_pools(installer, &tables).await?;
    let keys = deliver_keys(job, installer).await?;
    let ended = run_script(job, installer, script.path).await;
    // Whatever became of the script; its own failure says more than one to clean up.
    let forgotten = forget_keys(installer, &keys).await;
    ended?;
    forgotten?;
    for (device, guid) in &tables {
        let option = format!("--disk-guid={guid}");
        let output = installer.run(&["sgdisk", &option, device]).await?;
        if output.code != exit::DONE {
            return Err(refused(&output).into());
        }
    }
    match committed(installer, &tables).await? {
        Committed::Mounted => Ok(evidence(true)),
        Committed::Unmounted | Committed::No => Err(Stop::new(
            FailureKind::Permanent,
            format!(
                "the disko script ended well, and nothing is mounted at {MOUNT_POINT} or a disk has no GPT"
            ),
        )),
    }
}

/// Where a script's names lead on this machine, a line each. A name that leads nowhere stays itself, and is no disk that
/// was found.
const RESOLVE: &str = "for name; do readlink -f -- \"$name\" || printf '%s\\n' \"$name\"; done";

/// The disks were found by their identities, and the script has names of its own for what it wipes: that both mean the
/// same is seen on the machine before it runs.
async fn lays_out_what_is_planned(
    installer: &Installer<'_>,
    script: Script<'_>,
    tables: &[(String, String)],
) -> Result<(), Stop> {
    let named = script_devices(script.devices)?;
    let mut words = vec!["sh", "-c", RESOLVE, "undercroft"];
    words.extend(named.iter().map(String::as_str));
    let output = installer.run(&words).await?;
    if output.code != exit::DONE {
        return Err(refused(&output).into());
    }
    let resolved: Vec<String> = output.stdout.lines().map(str::to_owned).collect();
    let wiped: Vec<String> = tables.iter().map(|(device, _)| device.clone()).collect();
    Ok(script_wipes_what_is_planned(named, &resolved, &wiped)?)
}

/// Where disko wipes a disk that has a pool's label, or the rest of one, it clears that pool's label
/// by its name (disko's disk-deactivate.jq), and ZFS takes whichever disk that name leads to. A disk
/// that isn't wiped and has a pool of such a name would lose it.
async fn spares_other_pools(
    installer: &Installer<'_>,
    tables: &[(String, String)],
) -> Result<(), Stop> {
    let mut words = vec!["sh", "-c", include_str!("other-pools.sh"), "undercroft"];
    words.extend(tables.iter().map(|(device, _)| device.as_str()));
    let output = installer.run(&words).await?;
    match output.code {
        exit::DONE => Ok(()),
        10 => {
            let told = output.stdout.trim();
            let mut told = told.splitn(3, ' ');
            let mut next = || told.next().unwrap_or("?");
            let (kept, wiped, pool) = (next(), next(), next());
            Err(Stop::Failed(
                Failure::new(
                    FailureKind::Refused,
                    format!(
                        "{kept}, which isn't wiped, has a ZFS pool named {pool}, and {wiped}, which is, has a trace of one: disko clears pools by name, and could clear the one on {kept}"
                    ),
                )
                .with_hint(format!(
                    "Unplug the disk that is to be kept while this machine is installed, or clear the trace on the other by hand, as `zpool labelclear -f {wiped}` does."
                )),
            ))
        }
        _ => Err(refused(&output).into()),
    }
}

async fn committed(
    installer: &Installer<'_>,
    tables: &[(String, String)],
) -> Result<Committed, Failure> {
    // Positional arguments: device, GUID, device, GUID, …
    let look = "while [ $# -gt 1 ]; do
    [ \"$(blkid -p -s PTUUID -o value \"$1\" 2>/dev/null | tr A-F a-f)\" = \"$2\" ] || exit 10
    shift 2
done
while read -r _ at _; do [ \"$at\" = /mnt ] && exit 0; done </proc/mounts
exit 11";
    let mut words = vec!["sh", "-c", look, "undercroft"];
    for (device, guid) in tables {
        words.extend([device.as_str(), guid.as_str()]);
    }
    let output = installer.run(&words).await?;
    match output.code {
        0 => Ok(Committed::Mounted),
        11 => Ok(Committed::Unmounted),
        10 => Ok(Committed::No),
        _ => Err(refused(&output)),
    }
}
