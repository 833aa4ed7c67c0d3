//! What the journal says of the fleet: a fold of its records, for status, events and recovery.
//!
//! The fold is total. It takes any records in any order without a panic, ignores what it can't
//! place, and counts that in [`FleetView::unplaced`]; folding a journal in two parts gives what
//! folding it whole gives.

mod fold;
mod node;

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    Entry, Installed, NodeName, OpId, Plan, PlanId, RunEnd, Step, StepId, SystemTarget, Updates,
};

pub use node::{Current, Failed, NodeStatus, NodeView, Phase, Quarantine, Waits};

/// The latest run of the accepted plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RunView {
    /// Which run of this plan it is, from 1.
    pub number: u32,
    /// The version of the controller.
    pub undercroft: String,
    /// When it began, in milliseconds since the Unix epoch.
    pub started_wall_ms: u64,
    /// When it ended, in milliseconds since the Unix epoch.
    pub ended_wall_ms: Option<u64>,
    /// How it ended. `None`: it is under way, or its controller died.
    pub end: Option<RunEnd>,
    /// Whether more machines have failed than the plan allows.
    pub rollout_stopped: bool,
}

/// The machines of the accepted plan, counted by where they stand.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema,
)]
pub struct Counts {
    /// Those on which an operation runs.
    pub running: usize,
    /// Those that wait: for their turn, for a resource, for the next try.
    pub waiting: usize,
    /// Those whose steps are all done.
    pub done: usize,
    /// Those that failed.
    pub failed: usize,
    /// Those that failed because they aren't who they should be, or would lose what they must not.
    pub quarantined: usize,
}

/// What the journal says of the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct FleetView {
    /// The fleet's name.
    pub fleet: Option<String>,
    /// The accepted plan.
    pub plan_id: Option<PlanId>,
    /// How many plans were accepted.
    pub plans: u32,
    /// The latest run of it.
    pub run: Option<RunView>,
    /// The machines of the accepted plan.
    pub nodes: BTreeMap<NodeName, NodeView>,
    /// The number of the entry that comes next.
    pub next_seq: u64,
    /// When the last entry was made, in milliseconds since the Unix epoch.
    pub last_wall_ms: Option<u64>,
    /// Records that the fold could not place. Always 0 in a journal of Undercroft's.
    pub unplaced: u64,
    /// The accepted plan, whole: what a machine's steps are, and what they wait for.
    plan: Option<Arc<Plan>>,
    /// The number of the entry that holds the accepted plan.
    plan_seq: Option<u64>,
    /// The id that the next operation may have.
    next_op: u64,
    /// What was installed by all plans so far.
    installed: BTreeMap<NodeName, Installed>,
    /// How far the latest update is.
    #[serde(default)]
    updates: Updates,
    /// The machines that were refused by the latest plan that had them.
    refused: BTreeMap<NodeName, RefusedNode>,
}

/// A machine that was refused by the latest plan that had it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RefusedNode {
    /// Why.
    pub reason: String,
    /// The digest of the inventory that the plan was made from.
    pub inventory_digest: String,
    /// The system that it was to get.
    pub target: Option<SystemTarget>,
}

impl FleetView {
    /// Folds a journal, the oldest entry first.
    pub fn fold<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Self {
        let mut view = Self::default();
        for entry in entries {
            view.apply(entry);
        }
        view
    }

    /// The accepted plan, to be shared.
    pub fn shared_plan(&self) -> Option<&Arc<Plan>> {
        self.plan.as_ref()
    }

    /// The accepted plan.
    pub fn plan(&self) -> Option<&Plan> {
        self.plan.as_deref()
    }

    /// The number of the entry that holds the accepted plan: whoever goes on with it needs none before.
    pub fn plan_seq(&self) -> Option<u64> {
        self.plan_seq
    }

    /// The id that the next operation may have: above all that the journal names.
    pub fn next_op(&self) -> OpId {
        OpId(self.next_op)
    }

    /// What was installed on the machines, or was under way to be, by all plans so far: what a
    /// planner must know to recognise its own work.
    pub fn installed(&self) -> &BTreeMap<NodeName, Installed> {
        &self.installed
    }

    /// How far the latest update is, and which systems machines have left by themselves.
    pub fn updates(&self) -> &Updates {
        &self.updates
    }

    /// The machines that were refused by the latest plan that had them, so that only a person takes them up
    /// again.
    pub fn refused(&self) -> &BTreeMap<NodeName, RefusedNode> {
        &self.refused
    }

    /// Whether there is an accepted plan with machines that aren't done, so that the next `up` goes
    /// on with it.
    pub fn unfinished(&self) -> bool {
        self.plan.is_some()
            && self
                .nodes
                .values()
                .any(|node| node.status != NodeStatus::Done)
    }

    /// The first step of another machine that a machine's next step waits for, where it waits for
    /// one: of those that must succeed, or of those that must be settled and can still be done.
    pub fn waits_on(&self, node: &NodeName) -> Option<&Step> {
        let plan = self.plan.as_deref()?;
        let next = plan.step(self.nodes.get(node)?.current.as_ref()?.step)?;
        let needed = next.after.iter().filter(|id| !self.is_done(plan, **id));
        let settled = next.after_settled.iter().filter(|id| {
            let other = plan.step(**id).and_then(|step| self.nodes.get(&step.node));
            !self.is_done(plan, **id) && other.is_some_and(|other| other.failed.is_none())
        });
        needed.chain(settled).find_map(|id| plan.step(*id))
    }

    fn is_done(&self, plan: &Plan, id: StepId) -> bool {
        let Some((view, planned)) = plan
            .step(id)
            .and_then(|step| Some((self.nodes.get(&step.node)?, plan.nodes.get(&step.node)?)))
        else {
            return false;
        };
        let done = usize::try_from(view.steps_done).unwrap_or(usize::MAX);
        planned.steps.iter().take(done).any(|step| *step == id)
    }

    /// Whether a controller began a run and didn't end it: it runs now, or it died.
    pub fn in_flight(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.end.is_none())
    }

    /// How long the latest run took, or has taken by its last entry, in milliseconds.
    pub fn took_ms(&self) -> u64 {
        self.run.as_ref().map_or(0, |run| {
            let end = run
                .ended_wall_ms
                .or(self.last_wall_ms)
                .unwrap_or(run.started_wall_ms);
            end.saturating_sub(run.started_wall_ms)
        })
    }

    /// The machines, counted.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for node in self.nodes.values() {
            let field = match node.status {
                NodeStatus::Running => &mut counts.running,
                NodeStatus::Planned | NodeStatus::Waiting => &mut counts.waiting,
                NodeStatus::Done => &mut counts.done,
                NodeStatus::Failed => &mut counts.failed,
                NodeStatus::Quarantined => &mut counts.quarantined,
            };
            *field += 1;
        }
        counts
    }
}
