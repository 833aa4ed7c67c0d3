//! The critical path: what the end waited for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use undercroft_model::{Resource, StepId};

use super::Spans;
use crate::shared::Span;

/// A part of the critical path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Leg {
    /// What was done: a step's verb, or `wait` between two tries.
    pub what: String,
    /// How many machines did it, one after the other.
    pub times: u32,
    /// How long that took, in milliseconds.
    pub took_ms: u64,
}

/// Goes back from what ended last: each operation began when the one before it on the same machine
/// ended, or when another machine gave back what it needed.
pub(super) fn critical(spans: &Spans<'_>) -> (Vec<Leg>, Option<u32>) {
    let mut before: Vec<Option<usize>> = Vec::with_capacity(spans.spans.len());
    let mut latest: BTreeMap<u32, usize> = BTreeMap::new();
    let mut released: BTreeMap<(Resource, u64), usize> = BTreeMap::new();
    let mut done: BTreeMap<(u32, StepId), usize> = BTreeMap::new();
    for (place, span) in spans.spans.iter().enumerate() {
        before.push(latest.insert(span.node, place));
        if let Some(resource) = spans.step(span).and_then(|s| s.resource) {
            released.insert((resource, span.end_ms), place);
        }
        if span.done {
            done.insert((span.run, span.step), place);
        }
    }
    // The machine that was at its end last; where none was, what ended last.
    let last = spans
        .spans
        .iter()
        .enumerate()
        .max_by_key(|(place, span)| (span.done && spans.is_last(span), span.end_ms, *place));
    let Some((mut at, span)) = last else {
        return (Vec::new(), None);
    };
    let node = span.node;
    let mut legs: Vec<Leg> = Vec::new();
    while let Some(span) = spans.spans.get(at) {
        let verb = spans.step(span).map_or("?", |s| s.action.verb());
        push(&mut legs, verb, span.end_ms - span.start_ms);
        let own = before.get(at).copied().flatten();
        let freed = spans
            .step(span)
            .and_then(|s| s.resource)
            .and_then(|resource| released.get(&(resource, span.start_ms)).copied())
            .filter(|place| *place < at);
        // Another machine's step that it stood on.
        let needed = spans.step(span).and_then(|step| {
            let needed = step.after.iter().chain(&step.after_settled);
            needed
                .filter_map(|id| done.get(&(span.run, *id)).copied())
                .filter(|place| *place < at)
                .find(|place| {
                    let ended = spans.spans.get(*place).map(|needed| needed.end_ms);
                    ended == Some(span.start_ms)
                })
        });
        let freed = freed.or(needed);
        let own_span = own.and_then(|place| spans.spans.get(place));
        let follows = |s: &Span| s.end_ms == span.start_ms;
        match (own, freed) {
            (Some(own), _) if own_span.is_some_and(follows) => at = own,
            (_, Some(freed)) => at = freed,
            (Some(own), None) => {
                let since = own_span.map_or(0, |s| s.end_ms);
                push(&mut legs, "wait", span.start_ms.saturating_sub(since));
                at = own;
            }
            (None, None) => break,
        }
    }
    legs.reverse();
    (legs, Some(node))
}

/// Adds a leg before the others, or to the last one where it is of the same kind.
fn push(legs: &mut Vec<Leg>, what: &str, took_ms: u64) {
    match legs.last_mut() {
        Some(leg) if leg.what == what => {
            leg.times += 1;
            leg.took_ms += took_ms;
        }
        _ => legs.push(Leg {
            what: what.to_owned(),
            times: 1,
            took_ms,
        }),
    }
}
