//! The critical path: what the end waited for.

use serde::{Deserialize, Serialize};
use undercroft_model::{Resource, StepId};

use super::spans::{Spans, place};
use crate::shared::Span;

/// A part of the critical path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PathSegment {
    /// What was done: a step's verb, or `wait` between two tries.
    pub what: String,
    /// How many machines did it, one after the other.
    pub times: u32,
    /// How long that took, in milliseconds.
    pub took_ms: u64,
}

/// Goes back from what ended last: each operation began when the one before it on the same machine
/// ended, or when another machine gave back what it needed.
pub(super) fn critical(spans: &Spans<'_>) -> (Vec<PathSegment>, Option<u32>) {
    let mut before: Vec<Option<usize>> = Vec::with_capacity(spans.spans.len());
    let mut latest: Vec<Option<usize>> = vec![None; spans.state.world.machines.len()];
    let mut released: Vec<(Resource, u64, usize)> = Vec::new();
    // For each run, where its steps were done.
    let plans = spans.state.plans.iter();
    let mut done: Vec<Vec<Option<usize>>> =
        plans.map(|plan| vec![None; plan.steps.len()]).collect();
    for (at, span) in spans.spans.iter().enumerate() {
        let latest = latest.get_mut(place(span.node));
        before.push(latest.and_then(|latest| latest.replace(at)));
        if let Some(resource) = spans.step(span).and_then(|s| s.resource) {
            released.push((resource, span.end_ms, at));
        }
        let run = usize::try_from(span.run).ok();
        let done = run.and_then(|run| done.get_mut(run)?.get_mut(span.step.index()));
        if let (true, Some(done)) = (span.done, done) {
            *done = Some(at);
        }
    }
    released.sort_unstable();
    let released = |resource: Resource, at_ms: u64| {
        let after = released.partition_point(|(r, ms, _)| (*r, *ms) <= (resource, at_ms));
        let (r, ms, at) = released.get(after.checked_sub(1)?)?;
        ((*r, *ms) == (resource, at_ms)).then_some(*at)
    };
    let done = |run: u32, step: StepId| *done.get(usize::try_from(run).ok()?)?.get(step.index())?;
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
    let mut segments: Vec<PathSegment> = Vec::new();
    while let Some(span) = spans.spans.get(at) {
        let verb = spans.step(span).map_or("?", |s| s.action.verb());
        push(&mut segments, verb, span.end_ms - span.start_ms);
        let own = before.get(at).copied().flatten();
        let freed = spans
            .step(span)
            .and_then(|s| s.resource)
            .and_then(|resource| released(resource, span.start_ms))
            .filter(|place| *place < at);
        let freed = freed.or_else(|| stood_on(spans, span, at, done));
        let own_span = own.and_then(|place| spans.spans.get(place));
        let follows = |s: &Span| s.end_ms == span.start_ms;
        match (own, freed) {
            (Some(own), _) if own_span.is_some_and(follows) => at = own,
            (_, Some(freed)) => at = freed,
            (Some(own), None) => {
                let since = own_span.map_or(0, |s| s.end_ms);
                push(&mut segments, "wait", span.start_ms.saturating_sub(since));
                at = own;
            }
            (None, None) => break,
        }
    }
    segments.reverse();
    (segments, Some(node))
}

/// The step of another machine that an operation stood on and that ended as it began, among those before it.
fn stood_on(
    spans: &Spans<'_>,
    span: &Span,
    at: usize,
    done: impl Fn(u32, StepId) -> Option<usize>,
) -> Option<usize> {
    let step = spans.step(span)?;
    let needed = step.after.iter().chain(&step.after_settled);
    needed
        .filter_map(|id| done(span.run, *id))
        .filter(|place| *place < at)
        .find(|place| {
            let ended = spans.spans.get(*place).map(|needed| needed.end_ms);
            ended == Some(span.start_ms)
        })
}

/// Adds a segment before the others, or to the last one where it is of the same kind.
fn push(segments: &mut Vec<PathSegment>, what: &str, took_ms: u64) {
    match segments.last_mut() {
        Some(segment) if segment.what == what => {
            segment.times += 1;
            segment.took_ms += took_ms;
        }
        _ => segments.push(PathSegment {
            what: what.to_owned(),
            times: 1,
            took_ms,
        }),
    }
}
