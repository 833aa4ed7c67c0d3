//! What counts at the end of a rehearsal: who is as it should be, who can't be, and why.

use std::collections::BTreeSet;

use undercroft_model::{BootstrapPart, NodeName};
use undercroft_planner::NodeStatus;

use super::{Checked, Run};
use crate::checkers::Rule;

impl Run<'_> {
    /// The last word: who is up, who can't be, and that nothing is left to do.
    pub(super) fn judge(&mut self) -> Checked<()> {
        let now_ms = self.world.now_ms();
        let failed = self.failed_since(0);
        let mut converged = BTreeSet::new();
        let mut late = None;
        let mut silent = None;
        for (place, machine) in (0u32..).zip(&self.world.machines) {
            let name = &machine.spec.name;
            let up = machine.runs_target() && machine.is_connected(now_ms);
            let part = self.has_its_part(place);
            if up && part != Some(false) {
                if part == Some(true) {
                    converged.insert(name.clone());
                }
            } else if !machine.is_lost() && !self.is_blocked(name) {
                let words = if up {
                    "up without its part in the cluster"
                } else {
                    machine.running.words()
                };
                late = late.or_else(|| Some((name.clone(), words)));
            } else if !failed.contains(name)
                && !self.is_explained(name)
                && !self.shared.borrow().checkers.is_held_back(place)
            {
                silent = silent.or_else(|| Some(name.clone()));
            }
        }
        if let Some((name, words)) = late {
            return self.broken(
                Rule::Liveness,
                format!("{name} could be as it should, and is {words} when all is over"),
            );
        }
        if let Some(name) = silent {
            let message = format!("{name} is not up, and nothing says why");
            return self.broken(Rule::FailureReported, message);
        }
        let plan = self.replan()?;
        if let Some(name) = plan.nodes.keys().find(|name| converged.contains(*name)) {
            let message = format!("{name} is as it should be, and is planned for again");
            return self.broken(Rule::EmptyReplan, message);
        }
        Ok(())
    }

    /// Whether everything is up that can be, so that nobody would try any longer.
    pub(super) fn is_settled(&self) -> bool {
        let calm = self.runs.last().is_some_and(|run| run.calm);
        let now_ms = self.world.now_ms();
        calm && (0u32..).zip(&self.world.machines).all(|(place, machine)| {
            let up = machine.runs_target() && machine.is_connected(now_ms);
            (up && self.has_its_part(place) != Some(false))
                || machine.is_lost()
                || self.is_blocked(&machine.spec.name)
        })
    }

    /// Whether a machine that is up has its part in the cluster: it is Ready, and what it founds is
    /// brought in whole. `None` where it has none and nobody could give it one, because the founder
    /// is broken for good.
    pub(crate) fn has_its_part(&self, place: u32) -> Option<bool> {
        let machine = usize::try_from(place).ok()?;
        let machine = self.world.machines.get(machine)?;
        if machine.spec.role.is_none() {
            return Some(true);
        }
        let has = self.world.is_ready(place) && (!machine.spec.founds || self.is_brought_in());
        let founder = self.world.machines.iter().find(|m| m.spec.founds);
        let sound = founder
            .is_some_and(|founder| !(founder.is_lost() || self.is_blocked(&founder.spec.name)));
        (has || sound).then_some(has)
    }

    /// Whether all that the inventory asks for is in the cluster and healthy.
    pub(crate) fn is_brought_in(&self) -> bool {
        let wanted: &[BootstrapPart] = if self.inventory.gitops.repository.is_some() {
            &BootstrapPart::ALL
        } else {
            &[BootstrapPart::Network]
        };
        let now_ms = self.world.now_ms();
        wanted
            .iter()
            .all(|part| self.world.cluster.has(*part, now_ms))
    }

    /// Whether the planner says that the inventory stands in a machine's way.
    fn is_blocked(&self, name: &NodeName) -> bool {
        self.last_report
            .as_ref()
            .and_then(|report| report.nodes.get(name))
            .is_some_and(|node| matches!(node.status, NodeStatus::Blocked { .. }))
    }

    /// Whether the last plan says why a machine is left alone.
    fn is_explained(&self, name: &NodeName) -> bool {
        self.last_report
            .as_ref()
            .and_then(|report| report.nodes.get(name))
            .is_some_and(|node| !node.status.is_planned())
    }
}
