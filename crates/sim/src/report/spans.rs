//! How long each operation took, with the plans that they belong to.

use std::sync::Arc;

use undercroft_model::{Plan, Step, StepId};

use crate::{shared::Span, state::RehearsalState};

/// The operations of a rehearsal, in the order in which they were started.
pub(crate) struct Spans<'a> {
    pub(crate) spans: &'a [Span],
    pub(crate) state: &'a RehearsalState<'a>,
    /// For each run, whether a step is its machine's last.
    last: Vec<Vec<bool>>,
}

impl<'a> Spans<'a> {
    pub(super) fn new(spans: &'a [Span], state: &'a RehearsalState<'a>) -> Self {
        let last = |plan: &Arc<Plan>| {
            let mut last = vec![false; plan.steps.len()];
            for step in plan.nodes.values().filter_map(|node| node.steps.last()) {
                if let Some(last) = last.get_mut(step.index()) {
                    *last = true;
                }
            }
            last
        };
        let last = state.plans.iter().map(last).collect();
        Self { spans, state, last }
    }

    /// The step of a span, in the plan of its run.
    pub(crate) fn step(&self, span: &Span) -> Option<&Step> {
        let plan = self.state.plans.get(usize::try_from(span.run).ok()?)?;
        plan.step(StepId(span.step.0))
    }

    /// Whether a span is of its machine's last step.
    pub(crate) fn is_last(&self, span: &Span) -> bool {
        let run = usize::try_from(span.run).ok();
        let last = run.and_then(|run| self.last.get(run)?.get(span.step.index()));
        last.copied().unwrap_or(false)
    }
}

/// A machine's place in what is kept for each machine.
pub(super) fn place(node: u32) -> usize {
    usize::try_from(node).unwrap_or(usize::MAX)
}
