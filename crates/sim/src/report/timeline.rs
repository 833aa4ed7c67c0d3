//! What each class of machines does when.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use undercroft_model::Action;

use super::spans::Spans;

/// Columns of a row.
pub(super) const TIMELINE_COLUMNS: u64 = 56;

/// A class of machines over time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ClassTimeline {
    /// The class.
    pub class: String,
    /// How many machines it has.
    pub nodes: usize,
    /// One character for each stretch of time: what the machine in the middle of the class does.
    /// `.` it waits, `n` boots from the network, `a` is approved and inspected, `p` is partitioned,
    /// `c` gets its closure, `i` is installed, `r` reboots and is proved, `u` is up and waits for
    /// others, `j` joins the cluster and gets Ready, `b` brings something into it, `#` is at its end.
    pub cells: String,
    /// When its last machine was at its end, in milliseconds from the start.
    pub end_ms: u64,
}

/// Letters in the order of a bring-up; after each step there may be a wait.
const LETTERS: [char; 19] = [
    '.', 'n', '.', 'a', '.', 'p', '.', 'c', '.', 'i', '.', 'r', '.', 'u', 'j', 'u', 'b', 'u', '#',
];
const UP: usize = 13;
const END: usize = 18;

fn rank(action: &Action) -> usize {
    match action {
        Action::NetworkBoot => 1,
        Action::Approve { .. } | Action::Inspect { .. } => 3,
        Action::Partition { .. } => 5,
        Action::CopyClosure { .. } | Action::Fetch { .. } => 7,
        Action::Install { .. } | Action::Drain | Action::Stage { .. } => 9,
        Action::Reboot { .. }
        | Action::Prove { .. }
        | Action::Restart { .. }
        | Action::Confirm { .. } => 11,
        Action::FoundCluster
        | Action::JoinCluster { .. }
        | Action::AwaitReady { .. }
        | Action::Release => 14,
        Action::Bootstrap { .. } => 16,
    }
}

pub(super) fn class_timelines(spans: &Spans<'_>, start_ms: u64, end_ms: u64) -> Vec<ClassTimeline> {
    let total_ms = end_ms.saturating_sub(start_ms).max(1);
    let machines = &spans.state.world.machines;
    let mut classes: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for (node, machine) in (0u32..).zip(machines) {
        classes.entry(&machine.spec.class).or_default().push(node);
    }
    // For each machine, what begins when.
    let mut changes: Vec<Vec<(u64, usize)>> = vec![Vec::new(); machines.len()];
    for span in spans.spans {
        let (Some(step), Some(changes)) = (
            spans.step(span),
            usize::try_from(span.node)
                .ok()
                .and_then(|node| changes.get_mut(node)),
        ) else {
            continue;
        };
        let proved = span.done && matches!(step.action, Action::Prove { .. });
        let rank = rank(&step.action);
        changes.push((span.start_ms, rank));
        // Where it didn't work, the machine waits where it was before.
        let then = if span.done { rank + 1 } else { rank - 1 };
        let then = match (proved, span.done && spans.is_last(span)) {
            (_, true) => END,
            (true, false) => UP,
            (false, false) => then,
        };
        changes.push((span.end_ms, then));
    }
    classes
        .into_iter()
        .map(|(class, nodes)| {
            let mut cursors: Vec<(usize, usize)> = vec![(0, 0); nodes.len()];
            let mut last_up_ms = start_ms;
            let cells = (0..TIMELINE_COLUMNS)
                .map(|column| {
                    let at_ms = start_ms + total_ms * (2 * column + 1) / (2 * TIMELINE_COLUMNS);
                    let mut counts = [0usize; LETTERS.len()];
                    for (node, (cursor, rank)) in nodes.iter().zip(&mut cursors) {
                        let changes = usize::try_from(*node).ok().and_then(|n| changes.get(n));
                        while let Some((since_ms, now)) = changes.and_then(|c| c.get(*cursor))
                            && *since_ms <= at_ms
                        {
                            *rank = *now;
                            *cursor += 1;
                        }
                        if let Some(count) = counts.get_mut(*rank) {
                            *count += 1;
                        }
                    }
                    middle(&counts, nodes.len())
                })
                .collect();
            for node in &nodes {
                let changes = usize::try_from(*node).ok().and_then(|n| changes.get(n));
                let up = changes.and_then(|c| c.iter().rev().find(|(_, rank)| *rank == END));
                last_up_ms = last_up_ms.max(up.map_or(0, |(at, _)| *at));
            }
            ClassTimeline {
                class: class.to_owned(),
                nodes: nodes.len(),
                cells,
                end_ms: last_up_ms.saturating_sub(start_ms),
            }
        })
        .collect()
}

/// What the machine in the middle does, where all are put in the order of a bring-up.
fn middle(counts: &[usize; LETTERS.len()], nodes: usize) -> char {
    let mut before = 0;
    for (count, letter) in counts.iter().zip(LETTERS) {
        before += count;
        if before * 2 > nodes {
            return letter;
        }
    }
    '.'
}
