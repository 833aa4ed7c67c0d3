//! How long a plan takes when nothing goes wrong.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
};

use crate::dependents::Dependents;
use undercroft_model::{Action, BootstrapPart, NodeName, Plan, Resource, Step, StepId};

/// The rate at which a closure is taken to be copied, in bytes a second: a gigabit network's, with
/// a disk that keeps up.
const COPY_BYTES_PER_S: u64 = 80_000_000;

/// The size that a closure is taken to have where it isn't known, in bytes.
const CLOSURE_BYTES: u64 = 2_000_000_000;

/// A system shares most of its closure with the one before it: one part in so many is taken to be new.
const CHANGED_SHARE: u64 = 4;

/// How long a step typically takes, in milliseconds. These are guesses of the order of magnitude,
/// for ordinary servers; a rehearsal gives a distribution.
pub fn typical_ms(step: &Step) -> u64 {
    match &step.action {
        Action::NetworkBoot => 90_000,
        Action::Approve { .. } => 10_000,
        Action::Inspect { .. } => 3_000,
        Action::Partition { .. } => 15_000,
        Action::CopyClosure { closure_bytes, .. } => {
            let bytes = closure_bytes.unwrap_or(CLOSURE_BYTES);
            2_000 + bytes.saturating_mul(1000) / COPY_BYTES_PER_S
        }
        Action::Install { .. } => 20_000,
        Action::Reboot { .. } => 90_000,
        Action::Fetch { closure_bytes, .. } => {
            let bytes = closure_bytes.unwrap_or(CLOSURE_BYTES) / CHANGED_SHARE;
            2_000 + bytes.saturating_mul(1000) / COPY_BYTES_PER_S
        }
        Action::Drain => 60_000,
        Action::Stage { .. } => 10_000,
        Action::Restart { .. } => 90_000,
        Action::Confirm { .. } => 600_000,
        Action::Release => 3_000,
        Action::Prove { .. } => 3_000,
        Action::FoundCluster => 60_000,
        Action::JoinCluster { .. } => 45_000,
        Action::AwaitReady { .. } => 20_000,
        Action::Bootstrap { part } => match part {
            BootstrapPart::Network => 90_000,
            BootstrapPart::Secrets => 3_000,
            BootstrapPart::ArgoCd => 90_000,
            BootstrapPart::RootApp => 600_000,
        },
    }
}

/// How long a plan takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Estimate {
    /// From the first step's start to the last one's end, in milliseconds.
    pub total_ms: u64,
    /// When each machine is done, in milliseconds from the start.
    pub done_ms: BTreeMap<NodeName, u64>,
    /// The machine that is done last.
    pub last: Option<NodeName>,
}

/// Plays a plan through with given times, under its limits: each step begins when the steps before
/// it are done and its resource is free, the lowest step first.
pub fn estimate(plan: &Plan, duration_ms: impl Fn(&Step) -> u64) -> Estimate {
    let before = |step: &Step| step.after.len() + step.after_settled.len();
    let mut open: Vec<usize> = plan.steps.iter().map(before).collect();
    let dependents = Dependents::new(plan.steps.len(), || {
        plan.steps.iter().flat_map(|step| {
            let before = step.after.iter().chain(&step.after_settled);
            before.map(|before| (*before, step.id))
        })
    });
    let mut ends_node = vec![false; plan.steps.len()];
    for last in plan.nodes.values().filter_map(|node| node.steps.last()) {
        if let Some(ends_node) = ends_node.get_mut(last.index()) {
            *ends_node = true;
        }
    }
    let mut free: BTreeMap<Resource, u32> = plan.limits.concurrency.clone();
    let mut waiting: BTreeMap<Resource, BTreeSet<StepId>> = BTreeMap::new();
    let mut ends: BinaryHeap<Reverse<(u64, StepId)>> = BinaryHeap::new();
    let mut ready: Vec<StepId> = plan
        .steps
        .iter()
        .filter(|step| step.after.is_empty() && step.after_settled.is_empty())
        .map(|step| step.id)
        .collect();
    let mut done_ms: Vec<(NodeName, u64)> = Vec::new();
    let mut total_ms = 0;
    let mut last = None;
    let mut now = 0u64;
    loop {
        for step in ready.drain(..).filter_map(|id| plan.step(id)) {
            if let Some(resource) = step.resource {
                match free.get_mut(&resource) {
                    Some(free) if *free > 0 => *free -= 1,
                    _ => {
                        waiting.entry(resource).or_default().insert(step.id);
                        continue;
                    }
                }
            }
            ends.push(Reverse((now.saturating_add(duration_ms(step)), step.id)));
        }
        let Some(Reverse((at, id))) = ends.pop() else {
            break;
        };
        now = at;
        let Some(step) = plan.step(id) else { continue };
        if let Some(resource) = step.resource {
            if let Some(free) = free.get_mut(&resource) {
                *free += 1;
            }
            let next = waiting.get_mut(&resource).and_then(BTreeSet::pop_first);
            ready.extend(next);
        }
        for dependent in dependents.of(id) {
            if let Some(open) = open.get_mut(dependent.index()) {
                *open = open.saturating_sub(1);
                if *open == 0 {
                    ready.push(*dependent);
                }
            }
        }
        if ends_node.get(id.index()) == Some(&true) {
            done_ms.push((step.node.clone(), now));
            if now >= total_ms {
                total_ms = now;
                last = Some(step.node.clone());
            }
        }
    }
    Estimate {
        total_ms,
        done_ms: done_ms.into_iter().collect(),
        last,
    }
}

#[cfg(test)]
mod tests;
