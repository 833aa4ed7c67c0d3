//! Whether a machine can be what is planned for it, by what it says of itself: the one rule, for a plan that is made by
//! its installer's report as for an inspection under its approved key.

use crate::{InstallerReport, PlannedDisk, ReportedDisk, System};

/// What a machine lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misfit<'a> {
    /// It is another kind of machine than its system is built for.
    System {
        /// What it is.
        found: System,
        /// What it is to be.
        wanted: System,
    },
    /// It has too little memory.
    Memory {
        /// What it has, in MiB.
        found_mb: u64,
        /// What it needs, in MiB.
        wanted_mb: u64,
    },
    /// A disk is one that it hasn't, or not once, or is too small.
    Disk(&'a PlannedDisk, DiskMisfit<'a>),
}

/// Why a disk isn't the one that is planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskMisfit<'a> {
    /// None has its identity.
    Missing,
    /// Several have it: so many, the first two of them named.
    Ambiguous(usize, &'a ReportedDisk, &'a ReportedDisk),
    /// The one that has it is too small.
    TooSmall(&'a ReportedDisk),
}

/// All that a machine lacks, in the order in which it is worth knowing.
pub fn misfits<'a>(
    system: System,
    memory_mb_min: u64,
    disks: &'a [PlannedDisk],
    found: &'a InstallerReport,
) -> Vec<Misfit<'a>> {
    let mut misfits = Vec::new();
    if found.system != system {
        misfits.push(Misfit::System {
            found: found.system,
            wanted: system,
        });
    }
    if found.memory_mb < memory_mb_min {
        misfits.push(Misfit::Memory {
            found_mb: found.memory_mb,
            wanted_mb: memory_mb_min,
        });
    }
    for disk in disks {
        if let Err(misfit) = the_disk(disk, &found.disks) {
            misfits.push(Misfit::Disk(disk, misfit));
        }
    }
    misfits
}

/// The one disk that has the planned identity and is large enough.
///
/// # Errors
/// When none has it, or several have, or it is too small.
pub fn the_disk<'a>(
    planned: &PlannedDisk,
    found: &'a [ReportedDisk],
) -> Result<&'a ReportedDisk, DiskMisfit<'a>> {
    let identity = &planned.identity;
    let mut matching = found
        .iter()
        .filter(|disk| identity.matches(disk.serial.as_deref(), disk.wwn.as_deref()));
    match (matching.next(), matching.next()) {
        (None, _) => Err(DiskMisfit::Missing),
        (Some(first), Some(second)) => {
            Err(DiskMisfit::Ambiguous(matching.count() + 2, first, second))
        }
        (Some(disk), None) if disk.size_bytes < planned.size_bytes_min => {
            Err(DiskMisfit::TooSmall(disk))
        }
        (Some(disk), None) => Ok(disk),
    }
}
