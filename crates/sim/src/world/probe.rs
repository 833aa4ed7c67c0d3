//! Probes: whether a step is done, without changing anything but what is mounted.

use undercroft_engine::Order;
use undercroft_model::{Action, Evidence, Failure, FailureKind, OpId, Outcome, PlannedDisk};

use super::{SimWorld, Stage, command::CONNECT_MS_MAX};
use crate::{
    fleet::boot_id,
    machine::{Instance, Loader, Running},
};

impl SimWorld {
    pub(super) fn probe(&mut self, op: OpId, node: u32, order: &Order) {
        let Some(step) = order.planned() else {
            return;
        };
        match &step.action {
            Action::NetworkBoot => self.probe_report(op, node),
            Action::Approve { .. } => self.probe_approval(op, node, order),
            Action::Prove {
                toplevel,
                host_key_fingerprint,
            } => self.prove(op, node, toplevel, host_key_fingerprint),
            Action::Reboot {
                host_key_fingerprint,
            } => self.probe_return(op, node, order, host_key_fingerprint),
            Action::FoundCluster
            | Action::JoinCluster { .. }
            | Action::AwaitReady { .. }
            | Action::Bootstrap { .. } => self.cluster_probe(op, node, &step.action),
            Action::Inspect { .. }
            | Action::Partition { .. }
            | Action::CopyClosure { .. }
            | Action::Install { .. } => {
                let outcome = match self.contact(node, order) {
                    Err((after_ms, failure)) => {
                        return self.reply(op, after_ms, Outcome::Failed { failure });
                    }
                    Ok(instance) => self.probe_installer(node, &instance, order, &step.action),
                };
                self.reply(op, 0, outcome);
            }
        }
    }

    fn probe_installer(
        &mut self,
        node: u32,
        instance: &Instance,
        order: &Order,
        action: &Action,
    ) -> Outcome {
        let boot_id = instance.boot_id();
        if matches!(action, Action::Inspect { .. }) {
            return match self.inspected(node, instance, order) {
                Ok(evidence) => Outcome::Done { evidence },
                Err(failure) => Outcome::Failed { failure },
            };
        }
        if let Action::Partition { disks, .. } = action {
            return self.probe_layout(node, boot_id, disks);
        }
        if !instance.mounted {
            let failure = Failure::new(FailureKind::PreconditionLost, "nothing is mounted at /mnt");
            return Outcome::Failed { failure };
        }
        let root = &self.machine(node).root;
        match action {
            Action::CopyClosure { toplevel, .. } if root.closure.as_ref() == Some(toplevel) => {
                let closure_bytes = root.copied_bytes;
                Outcome::Done {
                    evidence: Evidence::Copied {
                        boot_id,
                        closure_bytes,
                    },
                }
            }
            Action::Install {
                toplevel,
                host_key_fingerprint,
            } if root.profile.as_ref() == Some(toplevel)
                && root.host_key.as_ref() == Some(host_key_fingerprint)
                && root.loader == Loader::Whole =>
            {
                Outcome::Done {
                    evidence: Evidence::Installed {
                        boot_id,
                        default_entry: "nixos-generation-1.conf".to_owned(),
                    },
                }
            }
            _ => Outcome::NotDone,
        }
    }

    fn probe_layout(&mut self, node: u32, boot_id: String, disks: &[PlannedDisk]) -> Outcome {
        if let Err(failure) = self.devices(node, disks) {
            return Outcome::Failed { failure };
        }
        let machine = self.machine(node);
        // While an orphaned command still works on the disks, they are not done.
        if machine.command.is_some() || !machine.is_laid_out(disks) {
            return Outcome::NotDone;
        }
        if let Running::Installer(instance) = &mut machine.running {
            instance.mounted = true;
        }
        Outcome::Done {
            evidence: Evidence::Partitioned {
                boot_id,
                wiped: false,
            },
        }
    }

    fn probe_report(&mut self, op: OpId, node: u32) {
        let now_ms = self.now_ms();
        let machine = self.machine(node);
        let report = match &machine.running {
            Running::Installer(instance) if machine.is_connected(now_ms) => {
                Some(machine.report(instance))
            }
            // Who is at work there can't be told apart from the machine.
            _ => machine.forged.clone(),
        };
        match report {
            Some(report) => {
                let report = Box::new(report);
                self.done(op, 0, Evidence::Seen { report });
            }
            None => self.reply(op, 0, Outcome::NotDone),
        }
    }

    fn probe_approval(&mut self, op: OpId, node: u32, order: &Order) {
        let wall_ms = self.now().wall_ms;
        let Some(report) = &order.facts.report else {
            let message = "the machine has not reported in";
            return self.fail(op, 0, FailureKind::PreconditionLost, message);
        };
        // Whichever of those who claim to be the machine was approved.
        let now_ms = self.now_ms();
        let machine = self.machine(node);
        let (connected, forged) = (machine.is_connected(now_ms), machine.forged.is_some());
        let own = match &machine.running {
            Running::Installer(instance) if connected && instance.reported => {
                Some(machine.report(instance))
            }
            _ => None,
        };
        let good = |fingerprint: &String| {
            self.approvals
                .get(fingerprint)
                .filter(|approval| approval.is_good_at(wall_ms))
                .cloned()
        };
        let heard = own.is_some() || forged;
        if let Some(approval) = good(&report.fingerprint) {
            let report = None;
            return self.done(op, 0, Evidence::Approved { approval, report });
        }
        if let Some(own) = own
            && let Some(approval) = good(&own.fingerprint)
        {
            let report = Some(Box::new(own));
            return self.done(op, 0, Evidence::Approved { approval, report });
        }
        // An approval is worth waiting for only while an installer that asks for it is heard.
        if heard {
            self.reply(op, 0, Outcome::NotDone);
        } else {
            let message = "no installer reports in any longer";
            self.fail(op, CONNECT_MS_MAX, FailureKind::Transient, message);
        }
    }

    fn probe_return(&mut self, op: OpId, node: u32, order: &Order, key: &str) {
        let now_ms = self.now_ms();
        let machine = self.machine(node);
        if !machine.is_connected(now_ms) {
            return self.await_return(op, node);
        }
        let foreign = "the machine shows another host key than the one made for it";
        if now_ms < machine.hijacked_until_ms {
            return self.fail(op, 0, FailureKind::Refused, foreign);
        }
        match machine.running.clone() {
            Running::System {
                boot, key: shown, ..
            } if shown == key => {
                let boot_id = boot_id(boot);
                self.done(op, 0, Evidence::Rebooted { boot_id });
            }
            Running::System { .. } => self.fail(op, 0, FailureKind::Refused, foreign),
            Running::Installer(instance) => {
                let same = order
                    .facts
                    .report
                    .as_ref()
                    .is_some_and(|report| report.boot_id == instance.boot_id());
                if same {
                    self.reply(op, 0, Outcome::NotDone);
                } else {
                    let message = "another boot of the installer answers";
                    self.fail(op, 0, FailureKind::PreconditionLost, message);
                }
            }
            _ => self.await_return(op, node),
        }
    }

    /// A machine that is on its way isn't a machine that is lost: the probe waits for it, until its
    /// time limit.
    fn await_return(&mut self, op: OpId, node: u32) {
        self.machine(node).waiting.push(op);
        if let Some(known) = self.ops.get_mut(&op) {
            known.stage = Stage::AwaitReturn;
        }
    }
}
