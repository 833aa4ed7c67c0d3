//! Probes: whether a step is done, without changing anything but what is mounted.

use undercroft_engine::Order;
use undercroft_model::{Action, Evidence, FailureKind, InstallerReport, OpId, Outcome};
use undercroft_steps::AwaitedReport;

use super::{SimWorld, command::CONNECT_MS_MAX};
use crate::machine::has_its_key;

impl SimWorld {
    pub(super) fn probe(&mut self, op: OpId, node: u32, order: &Order) {
        let Some(step) = order.planned() else {
            return;
        };
        match &step.action {
            Action::NetworkBoot => self.probe_report(op, node, order),
            Action::Approve { .. } => self.probe_approval(op, node, order),
            Action::Prove { .. } | Action::Reboot { .. } => self.await_return(op, node),
            Action::Fetch { .. }
            | Action::Drain
            | Action::Stage { .. }
            | Action::Restart { .. }
            | Action::Confirm { .. }
            | Action::Release => self.has_no_updates(op),
            Action::FoundCluster
            | Action::JoinCluster { .. }
            | Action::AwaitReady { .. }
            | Action::Bootstrap { .. } => self.begin_cluster_step(op, node, order),
            Action::Inspect { .. }
            | Action::Partition { .. }
            | Action::CopyClosure { .. }
            | Action::Install { .. } => self.begin_script(op, node, order),
        }
    }

    /// A rehearsal begins with machines that are switched off, and asks for no update.
    pub(super) fn has_no_updates(&mut self, op: OpId) {
        let message = "the simulated machines aren't updated";
        self.fail(op, 0, undercroft_model::FailureKind::Permanent, message);
    }

    fn probe_report(&mut self, op: OpId, node: u32, order: &Order) {
        let Some(planned) = order.plan.nodes.get(&order.node) else {
            return;
        };
        let now_ms = self.now_ms();
        let machine = self.machine(node);
        // Who is at work there can't be told apart from the machine.
        let heard = [machine.heard_report(now_ms), machine.forged.clone()];
        let awaited = AwaitedReport::of_any_boot(planned.identity());
        let known = order.facts.report.as_ref();
        match awaited.choose(heard.iter().flatten(), known, has_its_key) {
            Some(report) => {
                let report = Box::new(report.clone());
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
        let Some(planned) = order.plan.nodes.get(&order.node) else {
            return;
        };
        let awaited = AwaitedReport::of_any_boot(planned.identity());
        let takes =
            |report: &InstallerReport| awaited.refuses(report, has_its_key(report)).is_none();
        let forged = machine.forged.as_ref().is_some_and(takes);
        let own = machine.heard_report(now_ms).filter(takes);
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
