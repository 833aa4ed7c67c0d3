//! Emptying a machine for an update, and opening it for pods again.

use undercroft_model::{ClosedBy, Evidence, Failure, FailureKind, Work};

use super::{
    ask::{ClusterAnswer, ClusterAsk, PodKind, PodName, PodSeen},
    step::ClusterStep,
    talk::{Halt, Talk, Way, nothing},
};

/// The most pods that a message names.
const NAMED_MAX: usize = 4;

/// Closes the machine for further pods and evicts those that run there, again and again until none is left: a budget
/// that allows no eviction now may in a moment.
pub(super) fn drain(cx: &ClusterStep<'_>, talk: &mut Talk<'_>) -> Way<Evidence> {
    let node = talk.node()?.ok_or_else(unknown)?;
    let closed_by = node.closed_by();
    if cx.work == Work::Probe && closed_by.is_none() {
        return Err(Halt::NotDone("it takes pods".to_owned()));
    }
    // Also where a run before this one has closed it: what this step can't bring to an end it opens again.
    talk.next.closed = closed_by == Some(ClosedBy::Update);
    if closed_by.is_none() {
        talk.done(ClusterAsk::Close)?;
        talk.next.closed = true;
    }
    let pods = talk.pods()?;
    if let Some(lone) = named(pods, PodKind::Lone) {
        return Err(Halt::Failed(would_be_lost(&lone)));
    }
    let kept = pods.iter().filter(|seen| seen.kind == PodKind::Kept);
    let kept: Vec<PodName> = kept.map(|seen| seen.pod.clone()).collect();
    let ending = named(pods, PodKind::Ending);
    if kept.is_empty() && ending.is_none() {
        return Ok(Evidence::Drained {
            evicted: talk.known.evicted,
        });
    }
    if cx.work == Work::Probe {
        return Err(Halt::NotDone("pods still run there".to_owned()));
    }
    let mut refused = Vec::new();
    if !kept.is_empty() {
        let evictions = match talk.ask(ClusterAsk::Evict { pods: kept })? {
            ClusterAnswer::Evicted(evictions) => evictions,
            answer => return Err(nothing(answer)),
        };
        for eviction in evictions {
            match &eviction.refused {
                None => talk.next.evicted = talk.next.evicted.saturating_add(1),
                Some(why) => refused.push(format!("{}: {why}", eviction.pod)),
            }
        }
    }
    let missing = match (refused.is_empty(), ending) {
        (false, _) => format!("not evicted: {}", some_of(refused)),
        (true, Some(ending)) => format!("still ending: {ending}"),
        (true, None) => "its pods are ending".to_owned(),
    };
    Err(Halt::wait(missing, not_empty))
}

/// Opens the machine for pods again, unless somebody else has closed it.
pub(super) fn release(cx: &ClusterStep<'_>, talk: &mut Talk<'_>) -> Way<Evidence> {
    let node = talk.node()?.ok_or_else(unknown)?;
    match node.closed_by() {
        Some(ClosedBy::Update) if cx.work == Work::Probe => {
            Err(Halt::NotDone("it takes no pods".to_owned()))
        }
        Some(ClosedBy::Update) => {
            talk.done(ClusterAsk::Open)?;
            Ok(Evidence::Released {
                still_closed: false,
            })
        }
        closed_by => Ok(Evidence::Released {
            still_closed: closed_by.is_some(),
        }),
    }
}

/// The pods of a kind, where there are any.
fn named(pods: &[PodSeen], kind: PodKind) -> Option<String> {
    let of_kind = pods.iter().filter(|seen| seen.kind == kind);
    let names: Vec<String> = of_kind.map(|seen| seen.pod.to_string()).collect();
    (!names.is_empty()).then(|| some_of(names))
}

fn some_of(mut names: Vec<String>) -> String {
    let more = names.len().saturating_sub(NAMED_MAX);
    names.truncate(NAMED_MAX);
    match more {
        0 => names.join(", "),
        more => format!("{}, and {more} more", names.join(", ")),
    }
}

fn unknown() -> Halt {
    Halt::Failed(
        Failure::new(FailureKind::Permanent, "the cluster doesn't know its Node")
            .with_hint("`kubectl get nodes` shows those that it knows; `undercroft up` lets a machine join again."),
    )
}

fn would_be_lost(lone: &str) -> Failure {
    Failure::new(
        FailureKind::Permanent,
        format!("nobody would make these pods anew elsewhere: {lone}"),
    )
    .with_hint("Delete them, or let a Deployment or a Job keep them.")
}

fn not_empty(missing: &str) -> Failure {
    Failure::new(
        FailureKind::Transient,
        format!("the machine couldn't be emptied: {missing}"),
    )
    .with_hint("`kubectl get poddisruptionbudgets --all-namespaces` shows which allows none; `drain_s` under [fleet.timeouts] is how long it is waited for.")
}
