//! Laying out the disks with a script of disko's.
//!
//! Its tables get their GUIDs last, as with Undercroft's own layouts, so that a disk that has its GUID is never wiped
//! again; what is laid out and not mounted any longer is mounted by disko's other script.

use undercroft_model::{Evidence, Failure, FailureKind, PlannedDisk, ReportedDisk, Work};

use super::{Halt, Machine, Script, Way, done, ended, unexpected};
use crate::{
    ask::{Answer, Ask, MOUNT_POINT, Table},
    disko::{script_devices, script_wipes_what_is_planned},
    exit::code,
    inspect::find_disk,
};

/// The scripts that disko makes of a configuration.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scripts<'a> {
    /// Wipes, makes and mounts.
    pub(super) lay_out: &'a str,
    /// Mounts alone.
    pub(super) mount: Option<&'a str>,
    /// The devices that are made anew, as the scripts name them, where that is known.
    pub(super) devices: Option<&'a [String]>,
}

/// What became of a layout.
enum Committed {
    /// Every table has its GUID and the new system is mounted.
    Mounted,
    /// Every table has its GUID.
    Unmounted,
    /// Some table hasn't its GUID.
    No,
}

impl Script<'_> {
    pub(super) fn with_disko(
        &self,
        scripts: Scripts<'_>,
        wiped: &[&PlannedDisk],
        found: &[ReportedDisk],
        machine: &mut Machine<'_>,
    ) -> Way<Evidence> {
        let mut tables = Vec::with_capacity(wiped.len());
        for disk in wiped {
            tables.push(Table {
                device: find_disk(disk, found)?,
                guid: disk.table_guid,
            });
        }
        let evidence = |wiped| Evidence::Partitioned {
            boot_id: self.boot_id(),
            wiped,
        };
        match (committed(&tables, machine)?, scripts.mount) {
            (Committed::Mounted, _) => Ok(evidence(false)),
            (Committed::Unmounted, None) => Err(Halt::Failed(
                Failure::new(
                    FailureKind::Permanent,
                    "the disks were laid out by this plan and aren't mounted, and a disko script can only wipe them again",
                )
                .with_hint("Mount them at /mnt by hand and run the command again, or plan with --reinstall to wipe them."),
            )),
            (Committed::Unmounted, Some(mount)) => {
                lays_out_what_is_planned(scripts, &tables, machine)?;
                run(mount, machine)?;
                match committed(&tables, machine)? {
                    Committed::Mounted => Ok(evidence(false)),
                    _ => Err(nothing_mounted()),
                }
            }
            (Committed::No, _) if self.work == Work::Probe => Err(Halt::NotDone),
            (Committed::No, _) => {
                lays_out_what_is_planned(scripts, &tables, machine)?;
                spares_other_pools(&tables, machine)?;
                run(scripts.lay_out, machine)?;
                for table in &tables {
                    machine.done(|| Ask::NameTable(table.clone()))?;
                }
                match committed(&tables, machine)? {
                    Committed::Mounted => Ok(evidence(true)),
                    _ => Err(nothing_mounted()),
                }
            }
        }
    }
}

fn nothing_mounted() -> Halt {
    Halt::failed(
        FailureKind::Permanent,
        format!(
            "the disko script ended well, and nothing is mounted at {MOUNT_POINT} or a disk has no GPT"
        ),
    )
}

fn committed(tables: &[Table], machine: &mut Machine<'_>) -> Way<Committed> {
    let ended = machine.ended(|| Ask::Committed {
        tables: tables.to_vec(),
    })?;
    match ended.code {
        code::DONE => Ok(Committed::Mounted),
        code::NOT_MOUNTED_YET => Ok(Committed::Unmounted),
        code::NOT_YET => Ok(Committed::No),
        _ => Err(unexpected(ended)),
    }
}

/// Runs a script with the disks' keys at hand.
fn run(script: &str, machine: &mut Machine<'_>) -> Way<()> {
    machine.done(|| Ask::GiveDiskKeys)?;
    let path = || script.to_owned();
    let brought = machine.ask(|| Ask::BringScript { path: path() })?;
    let ran = match brought {
        Answer::Done => Some(machine.ask(|| Ask::RunScript { path: path() })?),
        _ => None,
    };
    // Whatever became of the script; its own failure says more than one to clean up.
    let taken = machine.ask(|| Ask::TakeDiskKeys)?;
    match ran {
        Some(answer) => {
            let ended = ended(answer)?;
            if ended.code != code::DONE {
                let message = format!("the disko script failed with exit code {}", ended.code);
                let failure = Failure::new(FailureKind::Permanent, message);
                return Err(failure.with_command(ended.failed_command()).into());
            }
        }
        None => super::copy::brought(brought)?,
    }
    done(taken)
}

/// The disks were found by their identities, and the script has names of its own for what it wipes: that both mean the
/// same is seen on the machine before it runs.
fn lays_out_what_is_planned(
    scripts: Scripts<'_>,
    tables: &[Table],
    machine: &mut Machine<'_>,
) -> Way<()> {
    let named = script_devices(scripts.devices)?;
    let ended = machine.ended(|| Ask::Resolve {
        names: named.to_vec(),
    })?;
    if ended.code != code::DONE {
        return Err(unexpected(ended));
    }
    let resolved: Vec<String> = ended.stdout.lines().map(str::to_owned).collect();
    let wiped: Vec<String> = tables.iter().map(|table| table.device.clone()).collect();
    Ok(script_wipes_what_is_planned(named, &resolved, &wiped)?)
}

/// Where disko wipes a disk that has a pool's label, or the rest of one, it clears that pool's label by its name (disko's
/// disk-deactivate.jq), and ZFS takes whichever disk that name leads to. A disk that isn't wiped and has a pool of such
/// a name would lose it.
fn spares_other_pools(tables: &[Table], machine: &mut Machine<'_>) -> Way<()> {
    let ended = machine.ended(|| Ask::OtherPools {
        devices: tables.iter().map(|table| table.device.clone()).collect(),
    })?;
    match ended.code {
        code::DONE => Ok(()),
        10 => {
            let mut told = ended.stdout.trim().splitn(3, ' ');
            let mut next = || told.next().unwrap_or("?");
            let (kept, wiped, pool) = (next(), next(), next());
            Err(Halt::Failed(
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
        _ => Err(unexpected(ended)),
    }
}
