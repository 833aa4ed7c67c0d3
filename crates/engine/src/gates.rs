//! Steps that wait for others to be settled: done, or out of the question in this run.

use std::sync::Arc;

use undercroft_model::{Plan, StepId};
use undercroft_planner::Dependents;

/// For every step, how many of the steps in its `after_settled` are still to be settled.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gates {
    /// Steps that wait for a step to be settled.
    dependents: Arc<Dependents>,
    settled: Vec<bool>,
    open: Vec<u32>,
}

impl Gates {
    pub(crate) fn new(plan: &Plan) -> Self {
        let dependents = Dependents::new(plan.steps.len(), || {
            plan.steps.iter().flat_map(|step| {
                let needed = step.after_settled.iter();
                needed.map(|needed| (*needed, step.id))
            })
        });
        let open = plan.steps.iter().map(|step| step.after_settled.len());
        let open = open.map(|open| u32::try_from(open).unwrap_or(u32::MAX));
        let open = open.collect();
        Self {
            dependents: Arc::new(dependents),
            settled: vec![false; plan.steps.len()],
            open,
        }
    }

    /// Whether a step waits for no other to be settled.
    pub(crate) fn is_open(&self, step: StepId) -> bool {
        self.open.get(step.index()).is_some_and(|open| *open == 0)
    }

    /// Whether a step is settled; an unknown one is.
    pub(crate) fn is_settled(&self, step: StepId) -> bool {
        self.settled
            .get(step.index())
            .is_none_or(|settled| *settled)
    }

    /// Settles a step, or makes it unsettled again. Gives the steps that wait for nothing any more.
    pub(crate) fn set(&mut self, step: StepId, settled: bool) -> Vec<StepId> {
        let mut opened = Vec::new();
        let Some(was) = self.settled.get_mut(step.index()) else {
            return opened;
        };
        if *was == settled {
            return opened;
        }
        *was = settled;
        for dependent in self.dependents.of(step) {
            let Some(open) = self.open.get_mut(dependent.index()) else {
                continue;
            };
            if settled {
                *open = open.saturating_sub(1);
                if *open == 0 {
                    opened.push(*dependent);
                }
            } else {
                *open = open.saturating_add(1);
            }
        }
        opened
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_is_settled_twice_counts_once() {
        let mut gates = Gates {
            dependents: Arc::new(Dependents::new(3, || {
                [(StepId(0), StepId(2)), (StepId(1), StepId(2))].into_iter()
            })),
            settled: vec![false; 3],
            open: vec![0, 0, 2],
        };
        assert!(gates.is_open(StepId(0)) && !gates.is_open(StepId(2)));
        assert_eq!(gates.set(StepId(0), true), []);
        assert_eq!(gates.set(StepId(0), true), []);
        assert!(!gates.is_open(StepId(2)));
        assert_eq!(gates.set(StepId(1), true), [StepId(2)]);
        assert!(gates.is_open(StepId(2)));
        gates.set(StepId(0), false);
        assert!(!gates.is_open(StepId(2)));
        assert!(!gates.is_open(StepId(9)), "an unknown step never begins");
    }
}
