//! What counts at the end of a rehearsal: who is as it should be, who can't be, and why.

use std::collections::{BTreeMap, BTreeSet};

use undercroft_model::{Action, NodeName, NodePlan};

use super::Checked;
use crate::{checkers::Rule, state::RehearsalState};

impl RehearsalState<'_> {
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
        let kept = self.shared.borrow().journal.is_kept();
        let proved = if kept {
            self.read(|folded| folded.view.installed().clone())?
        } else {
            BTreeMap::new()
        };
        // What no run has proved is proved by the next, and nothing else is done to it.
        let again = |(name, node): (&NodeName, &NodePlan)| {
            let was_proved = proved.get(name).is_some_and(|before| before.proved_up);
            let mut steps = node.steps.iter().filter_map(|id| plan.step(*id));
            let only_proves = steps.all(|step| matches!(step.action, Action::Prove { .. }));
            (converged.contains(name) && (was_proved || !only_proves)).then(|| name.clone())
        };
        if let Some(name) = plan.nodes.iter().find_map(again) {
            let message = format!("{name} is as it should be, and is planned for again");
            return self.broken(Rule::EmptyReplan, message);
        }
        Ok(())
    }

    /// Whether everything is up that can be, so that nobody would try any longer.
    pub(super) fn is_settled(&self) -> bool {
        let after_faults = self.runs.last().is_some_and(|run| run.after_faults);
        let now_ms = self.world.now_ms();
        after_faults
            && (0u32..).zip(&self.world.machines).all(|(place, machine)| {
                let up = machine.runs_target() && machine.is_connected(now_ms);
                (up && self.has_its_part(place) != Some(false))
                    || machine.is_lost()
                    || self.is_blocked(&machine.spec.name)
            })
    }
}
