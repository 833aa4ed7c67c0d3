//! Comparing a machine with the plan: whether it is the machine, runs what was built, has the memory
//! and the disks.

use std::fmt::Write;

use undercroft_model::{
    DiskMisfit, Evidence, Failure, FailureKind, InstallerReport, Misfit, NodePlan, NotTheMachine,
    PlannedDisk, ReportedDisk, System, misfits, text::visible, the_disk,
};

/// What a machine must be.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The machine.
    pub node: &'a NodePlan,
    /// The disks that it must have.
    pub disks: &'a [PlannedDisk],
    /// What it must be able to run.
    pub system: System,
    /// The least memory, in MiB.
    pub memory_mb_min: u64,
}

/// What an inspection proves, by what the machine shows of itself over a connection that is pinned to
/// an approved key.
///
/// # Errors
/// What isn't as planned.
pub fn inspect(
    wanted: Wanted<'_>,
    boot_id: String,
    found: &InstallerReport,
) -> Result<Evidence, Failure> {
    if let Some(why) = wanted.node.identity().refute(found.uuid, &found.macs) {
        return Err(other_machine(why, found));
    }
    let misfits = misfits(wanted.system, wanted.memory_mb_min, wanted.disks, found);
    if let Some(misfit) = misfits.first() {
        return Err(failure(*misfit, &found.disks));
    }
    let disk_paths = find_disks(wanted.disks, &found.disks)?;
    Ok(Evidence::Inspected {
        boot_id,
        disk_paths,
    })
}

fn failure(misfit: Misfit<'_>, found: &[ReportedDisk]) -> Failure {
    match misfit {
        Misfit::System { found, wanted } => Failure::new(
            FailureKind::Permanent,
            format!("the machine is {found}, and its system was built for {wanted}"),
        )
        .with_hint("Correct `system` in the machine's class."),
        Misfit::Memory {
            found_mb,
            wanted_mb,
        } => Failure::new(
            FailureKind::Permanent,
            format!("the machine has {found_mb} MiB of memory, and {wanted_mb} MiB are needed"),
        ),
        Misfit::Disk(planned, misfit) => disk_failure(planned, misfit, found),
    }
}

fn other_machine(why: NotTheMachine, found: &InstallerReport) -> Failure {
    let macs: Vec<String> = found.macs.iter().map(ToString::to_string).collect();
    let uuid = found
        .uuid
        .map_or("none".to_owned(), |uuid| uuid.to_string());
    Failure::new(
        FailureKind::Refused,
        format!(
            "another machine answers: it {why}; it has the UUID {uuid} and the Ethernet addresses {}",
            macs.join(", ")
        ),
    )
}

/// The devices of all planned disks, in their order.
///
/// # Errors
/// As [`find_disk`].
pub(crate) fn find_disks(
    planned: &[PlannedDisk],
    found: &[ReportedDisk],
) -> Result<Vec<String>, Failure> {
    planned.iter().map(|disk| find_disk(disk, found)).collect()
}

/// The device of the one disk that has the planned identity and is large enough.
///
/// # Errors
/// When none has it, or several have, or it is too small.
pub(crate) fn find_disk(planned: &PlannedDisk, found: &[ReportedDisk]) -> Result<String, Failure> {
    the_disk(planned, found)
        .map(|disk| disk.path.clone())
        .map_err(|misfit| disk_failure(planned, misfit, found))
}

fn disk_failure(planned: &PlannedDisk, misfit: DiskMisfit<'_>, found: &[ReportedDisk]) -> Failure {
    match misfit {
        DiskMisfit::TooSmall(disk) => Failure::new(
            FailureKind::Permanent,
            format!(
                "the {} disk with {} ({}) has {} bytes, and {} are needed",
                planned.role, planned.identity, disk.path, disk.size_bytes, planned.size_bytes_min
            ),
        ),
        DiskMisfit::Missing => Failure::new(
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
        ),
        DiskMisfit::Ambiguous(number, ..) => Failure::new(
            FailureKind::Refused,
            format!("{number} disks have {}", planned.identity),
        )
        .with_hint(
            "Give both `serial` and `wwn` of the disk in the inventory where both tell them apart, or take one of them out.",
        ),
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
    // What a machine says of itself ends up on a terminal.
    visible(&text.replace('\r', ""))
}

#[cfg(test)]
mod tests;
