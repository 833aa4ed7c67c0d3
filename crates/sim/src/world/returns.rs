//! Looks at a machine's address: whether it has come back from its reboot, and what it runs.

use std::rc::Rc;

use undercroft_model::{Action, Evidence, FailureKind, OpId, Outcome, Work};
use undercroft_steps::{InstalledLook, LOOK_MS_MAX, Look, Looked, Return};

use super::{
    Ev, Sabotage, SimWorld, Stage,
    command::{nobody_answers, other_key},
};
use crate::{fleet::boot_id, machine::Running};

/// How often a machine is looked at again that shows a foreign key, in milliseconds.
const LOOK_AGAIN_MS: u64 = 10_000;
/// The time before a step's limit at which it gives up, in milliseconds.
const MARGIN_MS: u64 = 3000;

impl SimWorld {
    /// A machine is on its way: it is looked at whenever something about it has changed, until a limit.
    pub(super) fn await_return(&mut self, op: OpId, node: u32) {
        let now_ms = self.now_ms();
        let machine = self.machine(node);
        machine.waiting.retain(|o| *o != op);
        machine.waiting.push(op);
        let Some(known) = self.ops.get_mut(&op) else {
            return;
        };
        known.stage = Stage::AwaitReturn;
        let step = known.order.planned().map(|step| &step.action);
        let acts = matches!(step, Some(Action::Reboot { .. })) && known.order.work == Work::Act;
        let left_ms = (known.started_ms + known.order.timeout_ms)
            .saturating_sub(MARGIN_MS)
            .saturating_sub(now_ms);
        let wait_ms = if acts {
            left_ms
        } else {
            left_ms.min(LOOK_MS_MAX)
        };
        known.until_ms = now_ms + wait_ms;
        self.clock.after(wait_ms, Ev::Look(op));
        self.look_for(op);
    }

    /// What the controller sees who asks at a machine's address under that key.
    fn look_under(&mut self, node: u32, key: &str) -> Look {
        let now_ms = self.now_ms();
        let machine = self.machine(node);
        if !machine.is_connected(now_ms) {
            return Err(nobody_answers());
        }
        match (machine.shown_key(now_ms), &machine.running) {
            (None, _) => Err(nobody_answers()),
            (Some(shown), Running::System { boot, system, .. }) if shown == key => {
                Ok(InstalledLook {
                    boot_id: boot_id(*boot),
                    booted_system: system.clone(),
                    current_system: system.clone(),
                })
            }
            (Some(shown), _) => Err(other_key(shown)),
        }
    }

    /// Whether somebody has reported in under that fingerprint as the machine.
    fn is_claimed(&mut self, node: u32, shown: &str) -> bool {
        let machine = self.machine(node);
        let forged = machine.forged.as_ref().map(|r| r.fingerprint.as_str());
        match &machine.running {
            Running::Installer(instance) if instance.reported => {
                instance.fingerprint() == shown || forged == Some(shown)
            }
            _ => forged == Some(shown),
        }
    }

    /// Whoever waits for a machine's return, or asks what it runs, looks.
    pub(super) fn look_for(&mut self, op: OpId) {
        let Some(known) = self.ops.get(&op) else {
            return;
        };
        if !matches!(known.stage, Stage::AwaitReturn) {
            return;
        }
        let (node, order) = (known.node, Rc::clone(&known.order));
        let (until_ms, since_ms) = (known.until_ms, known.foreign_since_ms);
        let Some(action) = order.planned().map(|step| &step.action) else {
            return;
        };
        let (key, toplevel) = match action {
            Action::Reboot {
                host_key_fingerprint: key,
            } => (key, None),
            Action::Prove {
                toplevel,
                host_key_fingerprint: key,
            } => (key, Some(toplevel)),
            _ => return,
        };
        let look = self.look_under(node, key);
        let now_ms = self.now_ms();
        let mut awaited = Return::from(order.facts.report.as_ref()).since(since_ms);
        let shown = look.as_ref().err().and_then(|silent| silent.shown.clone());
        let claimed = shown.is_some_and(|shown| self.is_claimed(node, &shown));
        let looked = match (toplevel, order.work) {
            (Some(toplevel), _) => awaited.proved(&look, toplevel, key),
            (None, Work::Act) => awaited.told_to_reboot(&look, now_ms, |_| claimed),
            (None, Work::Probe) => awaited.probed(&look),
        };
        let looked = self.believed_look(node, action, looked);
        if let Some(known) = self.ops.get_mut(&op) {
            known.foreign_since_ms = awaited.foreign_since_ms();
        }
        match looked {
            Looked::Done(evidence) => self.done(op, 0, evidence),
            Looked::Failed(failure) => self.reply(op, 0, Outcome::Failed { failure }),
            // Asked whether it is there, it says so.
            Looked::InInstaller => self.reply(op, 0, Outcome::NotDone),
            Looked::Again if now_ms >= until_ms => self.gives_up(op, &awaited, look, toplevel),
            Looked::Again => {
                if look.as_ref().is_err_and(|silent| silent.shown.is_some()) {
                    let again_ms = LOOK_AGAIN_MS.min(until_ms - now_ms);
                    self.clock.after(again_ms, Ev::Look(op));
                }
            }
        }
    }

    fn gives_up(&mut self, op: OpId, awaited: &Return<'_>, look: Look, toplevel: Option<&String>) {
        let acts = self
            .ops
            .get(&op)
            .is_some_and(|known| known.order.work == Work::Act);
        let failure = match (toplevel, acts, look) {
            (None, true, look) => awaited.has_not_returned(&look),
            (None, false, Err(last)) => awaited.not_found(*last),
            (Some(_), _, Err(last)) => last.of_look(),
            (_, _, Ok(_)) => {
                let message = "a machine that answers was looked at in vain";
                return self.fail(op, 0, FailureKind::Ambiguous, message);
            }
        };
        self.reply(op, 0, Outcome::Failed { failure });
    }

    /// What the controller makes of a look.
    fn believed_look(&mut self, node: u32, action: &Action, looked: Looked) -> Looked {
        let Running::System { boot, .. } = self.machine(node).running else {
            return looked;
        };
        if !self.is_sabotaged(Sabotage::CallsAnythingUp) {
            return looked;
        }
        Looked::Done(match action {
            Action::Prove {
                toplevel,
                host_key_fingerprint,
            } => Evidence::Up {
                boot_id: boot_id(boot),
                booted_system: toplevel.clone(),
                host_key_fingerprint: host_key_fingerprint.clone(),
            },
            _ => Evidence::Rebooted {
                boot_id: boot_id(boot),
            },
        })
    }
}
