//! What follows from a plan's shape alone: which step is whose, and who waits for whom.

use undercroft_model::{Plan, StepId};
use undercroft_planner::Dependents;

use crate::schedule::NodeIndex;

/// A plan's steps by place, so that no event looks a machine up by its name.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    /// For each step, its machine and its place among the machine's steps.
    places: Vec<(u32, u32)>,
    /// Where each machine's steps begin in `steps`, and at the end where the last one's end.
    starts: Vec<usize>,
    /// The machines' steps, in the order of the plan's names.
    steps: Vec<StepId>,
    /// Steps of other machines that wait for a step.
    dependents: Dependents,
}

impl Shape {
    pub(crate) fn new(plan: &Plan) -> Self {
        let mut places = vec![(0, 0); plan.steps.len()];
        let mut starts = Vec::with_capacity(plan.nodes.len().saturating_add(1));
        let mut steps = Vec::with_capacity(plan.steps.len());
        for (index, node) in (0u32..).zip(plan.nodes.values()) {
            starts.push(steps.len());
            for (position, step) in (0u32..).zip(&node.steps) {
                if let Some(place) = places.get_mut(step.index()) {
                    *place = (index, position);
                }
            }
            steps.extend_from_slice(&node.steps);
        }
        starts.push(steps.len());
        let dependents = Dependents::new(plan.steps.len(), || {
            plan.steps.iter().flat_map(|step| {
                // The order within a machine is the cursor's business.
                let others =
                    |id: &StepId| plan.step(*id).is_some_and(|other| other.node != step.node);
                let needed = step.after.iter().copied().filter(others);
                needed.map(|needed| (needed, step.id))
            })
        });
        Self {
            places,
            starts,
            steps,
            dependents,
        }
    }

    /// A step's machine, and its place among the machine's steps.
    pub(crate) fn place(&self, step: StepId) -> Option<(NodeIndex, usize)> {
        let (node, position) = *self.places.get(step.index())?;
        Some((usize::try_from(node).ok()?, usize::try_from(position).ok()?))
    }

    /// A step's machine.
    pub(crate) fn node(&self, step: StepId) -> Option<NodeIndex> {
        self.place(step).map(|(node, _)| node)
    }

    /// A machine's steps, in order.
    pub(crate) fn steps(&self, node: NodeIndex) -> &[StepId] {
        let range = self
            .starts
            .get(node)
            .zip(node.checked_add(1).and_then(|next| self.starts.get(next)));
        range
            .and_then(|(from, to)| self.steps.get(*from..*to))
            .unwrap_or_default()
    }

    /// Steps of other machines that wait for a step.
    pub(crate) fn dependents(&self, step: StepId) -> &[StepId] {
        self.dependents.of(step)
    }
}
