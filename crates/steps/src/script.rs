//! Each step on an installer as a script: what to ask next, by what was answered so far.
//!
//! A script is a function of the answers. It is run from its beginning each time, takes the answers one after the
//! other, and stops at the first thing that wasn't asked yet. So it reads as what happens, holds no state, and goes on
//! the same in every world.

mod copy;
mod dialogue;
mod disko;
mod install;
mod partition;

use undercroft_model::{Action, Evidence, Failure, FailureKind, NodePlan, Step, Work};

use self::dialogue::{Halt, Machine, Way, done};
use crate::{
    ask::{Answer, Ask},
    disko::Scripts,
    inspect::{Wanted, inspect},
    pin::Pinned,
};

/// The most that one step asks: a look at each of some dozen disks, and a few rounds of a copy, many times over. A script
/// that asks for more is at fault.
pub const ASKS_MAX: usize = 256;

/// What a step wants next.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// This is to be asked.
    Ask(Ask),
    /// The machine is on its way into its own system: it is looked at until
    /// [`Return`](crate::Return) knows what has become of it.
    AwaitReturn,
    /// It is done.
    Done(Evidence),
    /// A probe has found that it isn't done.
    NotDone,
    /// It failed.
    Failed(Failure),
}

/// A step on an installer, or a probe of it.
#[derive(Debug, Clone, Copy)]
pub struct Script<'a> {
    step: &'a Step,
    node: &'a NodePlan,
    work: Work,
    boot_id: &'a str,
}

impl<'a> Script<'a> {
    /// A step of a machine's on the installer that was approved.
    pub fn new(step: &'a Step, node: &'a NodePlan, work: Work, pinned: Pinned<'a>) -> Self {
        Self {
            step,
            node,
            work,
            boot_id: &pinned.report.boot_id,
        }
    }

    /// What comes next after those answers to what was asked before. `None` where the step isn't one on an installer.
    pub fn next(&self, answers: &[Answer]) -> Option<Next> {
        if answers.len() >= ASKS_MAX {
            let message = "the step asks without an end: a fault in Undercroft itself";
            let failure = Failure::new(FailureKind::Permanent, message);
            return Some(Next::Failed(failure));
        }
        let mut machine = Machine::new(answers);
        let way = match &self.step.action {
            Action::Inspect {
                disks,
                system,
                memory_mb_min,
            } => {
                let wanted = Wanted {
                    node: self.node,
                    disks,
                    system: *system,
                    memory_mb_min: *memory_mb_min,
                };
                self.inspect(wanted, &mut machine)
            }
            Action::Partition {
                disks,
                layout,
                disko_script,
                disko_mount_script,
                disko_devices,
            } => {
                let scripts = disko_script.as_deref().map(|lay_out| Scripts {
                    lay_out,
                    mount: disko_mount_script.as_deref(),
                    devices: disko_devices.as_deref(),
                });
                self.partition(disks, *layout, scripts, &mut machine)
            }
            Action::CopyClosure {
                toplevel,
                closure_bytes,
            } => self.copy(toplevel, *closure_bytes, &mut machine),
            Action::Install { toplevel, .. } => self.install(toplevel, &mut machine),
            Action::Reboot { .. } if self.work == Work::Act => {
                return Some(match leave(&mut machine) {
                    Ok(()) => Next::AwaitReturn,
                    Err(halt) => halt.into(),
                });
            }
            // A probe of it looks for the machine, wherever it is.
            Action::Reboot { .. }
            | Action::NetworkBoot
            | Action::Approve { .. }
            | Action::Prove { .. }
            | Action::Fetch { .. }
            | Action::Drain
            | Action::Stage { .. }
            | Action::Restart { .. }
            | Action::Confirm { .. }
            | Action::Release
            | Action::FoundCluster
            | Action::JoinCluster { .. }
            | Action::AwaitReady { .. }
            | Action::Bootstrap { .. } => return None,
        };
        Some(match way {
            Ok(evidence) => Next::Done(evidence),
            Err(halt) => halt.into(),
        })
    }

    fn boot_id(&self) -> String {
        self.boot_id.to_owned()
    }

    /// It changes nothing, so that it is its own probe.
    fn inspect(&self, wanted: Wanted<'_>, machine: &mut Machine<'_>) -> Way<Evidence> {
        let found = machine.described()?;
        Ok(inspect(wanted, self.boot_id(), found)?)
    }
}

/// Leaves the installer for the system on the disk.
fn leave(machine: &mut Machine<'_>) -> Way<()> {
    machine.done(|| Ask::OfferDisk)?;
    machine.done(|| Ask::Finish)?;
    match machine.ask(|| Ask::Reboot)? {
        // A connection that the reboot itself has cut off is no failure: what counts is whether the machine comes
        // back.
        Answer::Nothing(unanswered) if unanswered.failure.kind == FailureKind::Ambiguous => Ok(()),
        answer => done(answer),
    }
}

impl From<Halt> for Next {
    fn from(halt: Halt) -> Self {
        match halt {
            Halt::Ask(ask) => Self::Ask(ask),
            Halt::NotDone => Self::NotDone,
            Halt::Failed(failure) => Self::Failed(failure),
        }
    }
}
