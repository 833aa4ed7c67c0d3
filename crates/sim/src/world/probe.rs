//! Probes: whether a step is done, without changing anything but what is mounted.

use undercroft_engine::Order;
use undercroft_model::{Action, Evidence, FailureKind, OpId, Outcome};

use super::{SimWorld, command::CONNECT_MS_MAX};
use crate::machine::Running;

impl SimWorld {
    pub(super) fn probe(&mut self, op: OpId, node: u32, order: &Order) {
        let Some(step) = order.planned() else {
            return;
        };
        match &step.action {
            Action::NetworkBoot => self.probe_report(op, node),
            Action::Approve { .. } => self.probe_approval(op, node, order),
            Action::Prove { .. } | Action::Reboot { .. } => self.await_return(op, node),
            Action::FoundCluster
            | Action::JoinCluster { .. }
            | Action::AwaitReady { .. }
            | Action::Bootstrap { .. } => self.cluster_probe(op, node, &step.action),
            Action::Inspect { .. }
            | Action::Partition { .. }
            | Action::CopyClosure { .. }
            | Action::Install { .. } => self.begin_script(op, node, order),
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
}
