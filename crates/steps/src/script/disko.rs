//! Laying out the disks with a script of disko's.
//!
//! Its tables get their GUIDs when everything is made, so that a disk that has its GUID is never wiped again. Several
//! tables can't get theirs at once: first all of them are marked as made, and only then named. Whoever comes back to tables
//! of which each is named or marked goes on from there; where one is named and another is as it came, nothing is wiped,
//! as the script would wipe both. What is laid out and not mounted any longer is mounted by disko's other script.

use undercroft_model::{
    Evidence, Failure, FailureKind, MachineUuid, PlannedDisk, ReportedDisk, Work,
};

use super::{
    Script,
    dialogue::{Halt, Machine, Way, done, ended, unexpected},
};
use crate::{
    ask::{Answer, Ask, MOUNT_POINT, Table},
    disko::{Scripts, script_devices, script_wipes_what_is_planned},
    exit::code,
    inspect::find_disk,
};

/// What became of a layout.
enum Laid {
    /// Every table has its GUID.
    Out {
        /// Whether the new system is mounted.
        mounted: bool,
    },
    /// Every table has its GUID or is marked as made.
    Made,
    /// No table has its GUID.
    Not,
    /// Some table has its GUID, and another is as it came.
    InPart {
        /// The device that is laid out.
        laid: String,
        /// The one that isn't.
        other: String,
    },
}

/// The GUID that marks a table as made until all of a machine's tables are: the final one with its first byte inverted.
fn mark(guid: MachineUuid) -> MachineUuid {
    let mut bytes = guid.0;
    if let Some(first) = bytes.first_mut() {
        *first = !*first;
    }
    MachineUuid(bytes)
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
        match (look(&tables, machine)?, self.work) {
            (Laid::Out { mounted: true }, _) => Ok(evidence(false)),
            (Laid::Out { mounted: false }, Work::Act) => {
                mount(scripts, &tables, machine)?;
                Ok(evidence(false))
            }
            (Laid::InPart { laid, other }, _) => Err(Halt::Failed(
                Failure::new(
                    FailureKind::Refused,
                    format!(
                        "{laid} was laid out by this plan and {other} wasn't, and the disko script would wipe both"
                    ),
                )
                .with_hint("Nothing was written. Where nothing on them is to be kept, plan with --reinstall to lay out both."),
            )),
            // A script is first copied to the machine, which takes longer than a look may.
            (Laid::Out { mounted: false } | Laid::Made | Laid::Not, Work::Probe) => {
                Err(Halt::NotDone)
            }
            (Laid::Made, Work::Act) => {
                name(&tables, machine)?;
                match look(&tables, machine)? {
                    Laid::Out { mounted: true } => {}
                    Laid::Out { mounted: false } => mount(scripts, &tables, machine)?,
                    _ => return Err(nothing_mounted()),
                }
                Ok(evidence(true))
            }
            (Laid::Not, Work::Act) => {
                lays_out_what_is_planned(scripts, &tables, machine)?;
                spares_other_pools(&tables, machine)?;
                run(scripts.lay_out, machine)?;
                let marked: Vec<Table> = tables
                    .iter()
                    .map(|table| Table {
                        device: table.device.clone(),
                        guid: mark(table.guid),
                    })
                    .collect();
                name(&marked, machine)?;
                name(&tables, machine)?;
                match look(&tables, machine)? {
                    Laid::Out { mounted: true } => Ok(evidence(true)),
                    _ => Err(nothing_mounted()),
                }
            }
        }
    }
}

/// Mounts what is laid out.
fn mount(scripts: Scripts<'_>, tables: &[Table], machine: &mut Machine<'_>) -> Way<()> {
    let Some(script) = scripts.mount else {
        return Err(Halt::Failed(
            Failure::new(
                FailureKind::Permanent,
                "the disks were laid out by this plan and aren't mounted, and the disko script can only wipe them again",
            )
            .with_hint("Mount them at /mnt by hand and run the command again, or plan with --reinstall to wipe them."),
        ));
    };
    lays_out_what_is_planned(scripts, tables, machine)?;
    run(script, machine)?;
    match look(tables, machine)? {
        Laid::Out { mounted: true } => Ok(()),
        _ => Err(nothing_mounted()),
    }
}

fn name(tables: &[Table], machine: &mut Machine<'_>) -> Way<()> {
    machine.done(|| Ask::NameTables {
        tables: tables.to_vec(),
    })
}

fn nothing_mounted() -> Halt {
    Halt::failed(
        FailureKind::Permanent,
        format!(
            "the disko script ended well, and nothing is mounted at {MOUNT_POINT} or a disk has no GPT"
        ),
    )
}

/// How far the tables are, by their GUIDs.
fn look(tables: &[Table], machine: &mut Machine<'_>) -> Way<Laid> {
    let ended = machine.ended(|| Ask::Tables {
        devices: tables.iter().map(|table| table.device.clone()).collect(),
    })?;
    if ended.code != code::DONE {
        return Err(unexpected(ended));
    }
    let mut lines = ended.stdout.lines().map(str::trim);
    let (mut laid, mut made, mut other) = (None, false, None);
    for table in tables {
        let shown = lines.next().unwrap_or_default();
        let is = |guid: MachineUuid| shown.eq_ignore_ascii_case(&guid.to_string());
        if is(table.guid) {
            laid.get_or_insert(&table.device);
        } else if is(mark(table.guid)) {
            made = true;
        } else {
            other.get_or_insert(&table.device);
        }
    }
    let mounted = lines.next() == Some("mounted");
    Ok(match (laid, other) {
        (Some(laid), Some(other)) => Laid::InPart {
            laid: laid.clone(),
            other: other.clone(),
        },
        (_, None) if made => Laid::Made,
        (_, None) => Laid::Out { mounted },
        (None, Some(_)) => Laid::Not,
    })
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
