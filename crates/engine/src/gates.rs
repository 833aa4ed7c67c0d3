//! Steps that wait for others to be settled: done, or out of the question in this run.

use std::{collections::BTreeMap, sync::Arc};

use undercroft_model::{Plan, StepId};

/// For every step, how many of the steps in its `after_settled` are still to be settled.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gates {
    /// Steps that wait for a step to be settled.
    dependents: Arc<BTreeMap<StepId, Vec<StepId>>>,
    settled: Vec<bool>,
    open: Vec<u32>,
}

impl Gates {
    pub(crate) fn new(plan: &Plan) -> Self {
        let mut dependents: BTreeMap<StepId, Vec<StepId>> = BTreeMap::new();
        let mut open = vec![0u32; plan.steps.len()];
        for (step, open) in plan.steps.iter().zip(&mut open) {
            for needed in &step.after_settled {
                *open = open.saturating_add(1);
                dependents.entry(*needed).or_default().push(step.id);
            }
        }
        Self {
            dependents: Arc::new(dependents),
            settled: vec![false; plan.steps.len()],
            open,
        }
    }

    /// Whether a step waits for no other to be settled.
    pub(crate) fn is_open(&self, step: StepId) -> bool {
        self.open.get(slot(step)).is_some_and(|open| *open == 0)
    }

    /// Whether a step is settled; an unknown one is.
    pub(crate) fn is_settled(&self, step: StepId) -> bool {
        self.settled.get(slot(step)).is_none_or(|settled| *settled)
    }

    /// Settles a step, or makes it unsettled again. Gives the steps that wait for nothing any more.
    pub(crate) fn set(&mut self, step: StepId, settled: bool) -> Vec<StepId> {
        let mut opened = Vec::new();
        let Some(was) = self.settled.get_mut(slot(step)) else {
            return opened;
        };
        if *was == settled {
            return opened;
        }
        *was = settled;
        for dependent in self.dependents.get(&step).into_iter().flatten() {
            let Some(open) = self.open.get_mut(slot(*dependent)) else {
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

/// Where a step stands in the lists that have a place for each.
pub(crate) fn slot(step: StepId) -> usize {
    usize::try_from(step.0).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_is_settled_twice_counts_once() {
        let mut gates = Gates {
            dependents: Arc::new(BTreeMap::from([
                (StepId(0), vec![StepId(2)]),
                (StepId(1), vec![StepId(2)]),
            ])),
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
