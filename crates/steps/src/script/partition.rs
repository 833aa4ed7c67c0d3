//! Laying out and mounting the disks.

use undercroft_model::{Evidence, FailureKind, PlannedDisk, Work, inventory::Layout};

use super::{
    Script,
    dialogue::{Halt, Machine, Way, unexpected},
};
use crate::{
    ask::Ask,
    disko::Scripts,
    exit::{code, value},
    inspect::find_disks,
};

impl Script<'_> {
    /// Lays out the disks; a probe mounts them if they are laid out by this plan already.
    pub(super) fn partition(
        &self,
        disks: &[PlannedDisk],
        layout: Layout,
        scripts: Option<Scripts<'_>>,
        machine: &mut Machine<'_>,
    ) -> Way<Evidence> {
        // Only what the plan says will be lost is handed to anything that writes.
        let wiped: Vec<&PlannedDisk> = disks
            .iter()
            .filter(|disk| self.step.destroys.contains(&disk.identity))
            .collect();
        // The identity was compared when the machine was inspected; between then and now somebody may have pulled a
        // disk. The programs on the machine compare it once more.
        let found = match (self.work, scripts) {
            (Work::Probe, None) => None,
            _ => Some(&machine.described()?.disks),
        };
        if let (Work::Act, Some(found)) = (self.work, found) {
            find_disks(disks, found)?;
        }
        match (scripts, found, wiped.as_slice()) {
            (Some(scripts), Some(found), wiped) => self.with_disko(scripts, wiped, found, machine),
            (_, _, [disk]) => self.own_layout(disk, layout, machine),
            (_, _, several) => Err(Halt::failed(
                FailureKind::Permanent,
                format!(
                    "the plan lays out {} disks, and Undercroft's own layouts are for one",
                    several.len()
                ),
            )),
        }
    }

    fn own_layout(
        &self,
        disk: &PlannedDisk,
        layout: Layout,
        machine: &mut Machine<'_>,
    ) -> Way<Evidence> {
        if disk.identity.serial.is_none() && disk.identity.wwn.is_none() {
            let message = "the planned disk has no identity";
            return Err(Halt::failed(FailureKind::Refused, message));
        }
        let look_only = self.work == Work::Probe;
        let ended = machine.ended(|| Ask::LayOut {
            disk: disk.clone(),
            layout,
            look_only,
        })?;
        match ended.code {
            code::DONE => Ok(Evidence::Partitioned {
                boot_id: self.boot_id(),
                wiped: value(&ended.stdout, "state") == Some("created"),
            }),
            code::NOT_YET if look_only => Err(Halt::NotDone),
            _ => Err(unexpected(ended)),
        }
    }
}
