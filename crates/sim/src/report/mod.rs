//! What a person wants to know before touching hardware.

mod cluster;
mod path;
mod spans;
mod text;
mod timeline;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use undercroft_model::{Record, Resource, RunEnd, Work};
use undercroft_planner::NodeStatus;
use undercroft_simkit::Faults;

use self::spans::{Spans, place};
use crate::{faults::FaultKind, machine::Machine, options::RehearseOptions, state::RehearsalState};

pub use cluster::{ClusterReport, Milestone};
pub use path::PathSegment;
pub use timeline::ClassTimeline;

/// What a rehearsal has shown, in figures. [`Display`](std::fmt::Display) gives it as text for a
/// terminal of 80 columns or more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RehearsalReport {
    /// The fleet's name.
    pub fleet: String,
    /// The number of machines.
    pub nodes: usize,
    /// Machines that run what they should when all is over.
    pub up: usize,
    /// What became of the cluster; `None` where there is none.
    pub cluster: Option<ClusterReport>,
    /// The name of the profile that durations come from.
    pub profile: String,
    /// The seed.
    pub seed: u64,
    /// How much went wrong.
    pub faults: Faults,
    /// From the first run's begin to the last one's end, in milliseconds.
    pub total_ms: u64,
    /// The runs of the command that it took.
    pub runs: Vec<RunReport>,
    /// How long each kind of step takes.
    pub phases: Vec<PhaseReport>,
    /// How the limits of concurrency were used.
    pub limits: Vec<LimitReport>,
    /// The chain of steps that the end waited for, from the first to the last.
    pub critical_path: Vec<PathSegment>,
    /// The machine at the end of that chain.
    pub last_node: Option<String>,
    /// What each class of machines does when.
    pub timeline: Vec<ClassTimeline>,
    /// What people have to do.
    pub people: PeopleReport,
    /// The disks that are wiped: machine, and serials or WWNs as the plan names them.
    pub wipes: BTreeMap<String, Vec<String>>,
    /// What went wrong, by kind.
    #[serde(rename = "mishaps")]
    pub fault_counts: Vec<FaultCount>,
    /// Machines whose part of a run ended without success, with the last reason.
    pub failures: Vec<FailedNode>,
    /// How often a machine's steps began again.
    pub restarts: usize,
    /// How often the controller was killed and started again.
    pub controller_restarts: u32,
    /// Reports of installers that were not trusted.
    pub quarantined: usize,
    /// Machines that a person had to switch off and on, and why.
    #[serde(rename = "hands")]
    pub site_visits: Vec<SiteVisit>,
    /// Milliseconds in which the operator's machine sent something.
    pub uplink_busy_ms: u64,
    /// Those of them in which its uplink, not the machines, set the pace.
    pub uplink_shared_ms: u64,
}

/// One run of the command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RunReport {
    /// How it ended; `None` where a broken rule ended the rehearsal.
    pub end: Option<RunEnd>,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// Whether it went on with the plan before it.
    pub resumed: bool,
}

/// How long one kind of step takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PhaseReport {
    /// The step's verb.
    pub phase: String,
    /// How often it was done, or found to be done by a probe.
    pub done: usize,
    /// How many tries didn't succeed: failures, time limits, deaths of the controller.
    pub not_done: usize,
    /// Of the tries that succeeded, the middle one's time in milliseconds.
    pub p50_ms: u64,
    /// Of the tries that succeeded, the time that nine in ten keep within, in milliseconds.
    pub p90_ms: u64,
    /// Of the tries that succeeded, the longest, in milliseconds.
    pub ms_max: u64,
}

/// How a limit was used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct LimitReport {
    /// What is limited.
    pub resource: Resource,
    /// How many may hold it at once.
    pub limit: u32,
    /// The most that did.
    pub peak: u32,
    /// The time that machines spent waiting for it, added up, in milliseconds.
    pub waited_ms: u64,
    /// Machines that ever waited for it.
    pub waited_nodes: usize,
}

/// What people have to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PeopleReport {
    /// The people that the rehearsal reckons with.
    pub people: usize,
    /// Fingerprints to read and approve.
    pub approvals: u32,
    /// Machines to switch on by hand.
    pub buttons: u32,
    /// The time that this takes, added up, in milliseconds.
    pub took_ms: u64,
}

/// One kind of fault, and how often it happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct FaultCount {
    /// What.
    pub kind: FaultKind,
    /// How often.
    pub times: usize,
    /// The machines, the first few.
    pub nodes: Vec<String>,
}

/// A machine whose part of a run ended without success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct FailedNode {
    /// The machine.
    pub node: String,
    /// The step's verb.
    pub phase: String,
    /// Why.
    pub reason: String,
    /// Whether it came up later.
    pub up_later: bool,
}

/// A machine that a person had to go to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SiteVisit {
    /// The machine.
    pub node: String,
    /// Why.
    pub why: String,
}

/// Machines that a fault names.
const FAULT_NODES_MAX: usize = 8;

pub(crate) fn build(state: &RehearsalState<'_>, options: &RehearseOptions) -> RehearsalReport {
    let shared = state.shared.borrow();
    let spans = Spans::new(&shared.spans, state);
    let name = |node: u32| {
        state
            .world
            .machines
            .get(place(node))
            .map_or_else(String::new, |m| m.spec.name.to_string())
    };
    let start_ms = state.runs.first().map_or(0, |r| r.start_ms);
    let end_ms = state.runs.last().map_or(0, |r| r.end_ms);
    let now_ms = state.world.now_ms();
    let (uplink_busy_ms, uplink_shared_ms) = state.world.uplink_ms();
    let (critical_path, last) = path::critical(&spans);
    let count = |wanted: fn(&Record) -> bool| {
        shared
            .notable
            .iter()
            .filter(|(_, record)| wanted(record))
            .count()
    };
    RehearsalReport {
        fleet: state.inventory.fleet.name.clone(),
        nodes: state.world.machines.len(),
        up: up(state, now_ms).count(),
        cluster: cluster::cluster(&spans, start_ms),
        profile: options.profile.name.clone(),
        seed: options.seed,
        faults: options.faults,
        total_ms: end_ms.saturating_sub(start_ms),
        runs: runs(state),
        phases: phases(&spans),
        limits: limits(&spans),
        critical_path,
        last_node: last.map(name),
        timeline: timeline::class_timelines(&spans, start_ms, end_ms),
        people: people(state),
        wipes: wipes(state),
        fault_counts: fault_counts(shared.dice.injected(), name),
        failures: failures(state, &shared.notable, now_ms),
        restarts: count(|r| matches!(r, Record::NodeRestarted { .. })),
        controller_restarts: shared.kills,
        quarantined: count(|r| matches!(r, Record::Quarantined { .. })),
        site_visits: site_visits(state, name),
        uplink_busy_ms,
        uplink_shared_ms,
    }
}

/// The machines that run what they should.
fn up<'s>(state: &'s RehearsalState<'_>, now_ms: u64) -> impl Iterator<Item = &'s Machine> {
    let machines = state.world.machines.iter();
    machines.filter(move |m| m.runs_target() && m.is_connected(now_ms))
}

fn runs(state: &RehearsalState<'_>) -> Vec<RunReport> {
    let runs = state.runs.iter();
    runs.map(|run| RunReport {
        end: run.end,
        took_ms: run.end_ms.saturating_sub(run.start_ms),
        resumed: run.resumed,
    })
    .collect()
}

fn people(state: &RehearsalState<'_>) -> PeopleReport {
    let manual_work = state.world.manual_work;
    PeopleReport {
        people: state.world.people(),
        approvals: manual_work.approvals,
        buttons: manual_work.buttons,
        took_ms: manual_work.person_ms,
    }
}

fn site_visits(state: &RehearsalState<'_>, name: impl Fn(u32) -> String) -> Vec<SiteVisit> {
    let visits = state.site_visits.iter();
    visits
        .map(|(node, why)| SiteVisit {
            node: name(*node),
            why: (*why).to_owned(),
        })
        .collect()
}

/// The value below which so many in a hundred lie (nearest rank).
fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(0)
}

fn phases(spans: &Spans<'_>) -> Vec<PhaseReport> {
    // There are a dozen verbs, in the order in which they came first.
    let mut phases: Vec<(&str, Vec<u64>, usize, usize)> = Vec::new();
    for span in spans.spans {
        let Some(step) = spans.step(span) else {
            continue;
        };
        let verb = step.action.verb();
        if !phases.iter().any(|(known, ..)| *known == verb) {
            phases.push((verb, Vec::new(), 0, 0));
        }
        let phase = phases.iter_mut().find(|(known, ..)| *known == verb);
        let Some((_, acts, probed, not_done)) = phase else {
            continue;
        };
        match (span.work, span.done) {
            (Work::Act, true) => acts.push(span.end_ms - span.start_ms),
            (Work::Act, false) => *not_done += 1,
            (Work::Probe, true) => *probed += 1,
            (Work::Probe, false) => {}
        }
    }
    phases
        .into_iter()
        .map(|(verb, mut acts, probed, not_done)| {
            acts.sort_unstable();
            PhaseReport {
                phase: verb.to_owned(),
                done: acts.len() + probed,
                not_done,
                p50_ms: percentile(&acts, 50),
                p90_ms: percentile(&acts, 90),
                ms_max: acts.last().copied().unwrap_or(0),
            }
        })
        .collect()
}

fn limits(spans: &Spans<'_>) -> Vec<LimitReport> {
    let shared = spans.state.shared.borrow();
    let Some(plan) = spans.state.plans.first() else {
        return Vec::new();
    };
    let mut waits: BTreeMap<Resource, (u64, usize)> = BTreeMap::new();
    let mut free_since = vec![0; spans.state.world.machines.len()];
    let mut done: Vec<Option<u64>> = vec![None; plan.steps.len()];
    for span in spans.spans.iter().filter(|span| span.done && span.run == 0) {
        if let Some(done) = done.get_mut(span.step.index()) {
            *done = Some(span.end_ms);
        }
    }
    for span in spans.spans {
        let free = free_since.get_mut(place(span.node));
        let since_ms = free.map_or(0, |free| std::mem::replace(free, span.end_ms));
        let step = spans.step(span);
        let resource = step.and_then(|step| step.resource);
        // Who waits for other machines' steps doesn't wait for the resource yet.
        let needed = step
            .into_iter()
            .flat_map(|s| s.after.iter().chain(&s.after_settled));
        let needed_ms = needed.filter_map(|id| *done.get(id.index())?).max();
        let since_ms = since_ms.max(needed_ms.unwrap_or(0));
        let wait_ms = span.start_ms.saturating_sub(since_ms);
        if let Some(resource) = resource
            && wait_ms > 0
            && span.run == 0
        {
            let (waited, nodes) = waits.entry(resource).or_default();
            *waited += wait_ms;
            *nodes += 1;
        }
    }
    Resource::ALL
        .into_iter()
        .filter_map(|resource| {
            let (waited_ms, waited_nodes) = waits.get(&resource).copied().unwrap_or_default();
            Some(LimitReport {
                resource,
                limit: *plan.limits.concurrency.get(&resource)?,
                peak: shared.checkers.peaks().get(&resource).copied().unwrap_or(0),
                waited_ms,
                waited_nodes,
            })
        })
        .collect()
}

fn wipes(state: &RehearsalState<'_>) -> BTreeMap<String, Vec<String>> {
    let Some(plan) = state.plans.first() else {
        return BTreeMap::new();
    };
    plan.steps
        .iter()
        .filter(|step| !step.destroys.is_empty())
        .map(|step| {
            let disks = step.destroys.iter().map(ToString::to_string).collect();
            (step.node.to_string(), disks)
        })
        .collect()
}

fn fault_counts(
    injected: &[(u64, Option<u32>, FaultKind)],
    name: impl Fn(u32) -> String,
) -> Vec<FaultCount> {
    let mut kinds: BTreeMap<FaultKind, FaultCount> = BTreeMap::new();
    for (_, node, kind) in injected {
        let fault = kinds.entry(*kind).or_insert_with(|| FaultCount {
            kind: *kind,
            times: 0,
            nodes: Vec::new(),
        });
        fault.times += 1;
        if let Some(node) = node.map(&name)
            && fault.nodes.len() < FAULT_NODES_MAX
            && !fault.nodes.contains(&node)
        {
            fault.nodes.push(node);
        }
    }
    kinds.into_values().collect()
}

fn failures(state: &RehearsalState<'_>, notable: &[(u64, Record)], now_ms: u64) -> Vec<FailedNode> {
    let up: BTreeSet<&str> = up(state, now_ms).map(|m| m.spec.name.as_str()).collect();
    let mut last: BTreeMap<&str, FailedNode> = BTreeMap::new();
    for (_, record) in notable {
        let Record::NodeFailed {
            node,
            step,
            failure,
        } = record
        else {
            continue;
        };
        let planned = state
            .plans
            .iter()
            .rev()
            .find_map(|plan| plan.step(*step).filter(|s| s.node == *node));
        last.insert(
            node.as_str(),
            FailedNode {
                node: node.to_string(),
                phase: planned.map_or("?", |s| s.action.verb()).to_owned(),
                reason: failure.message.clone(),
                up_later: up.contains(node.as_str()),
            },
        );
    }
    let blocked = state.last_report.iter().flat_map(|report| &report.nodes);
    for (node, report) in blocked {
        if let NodeStatus::Blocked { reasons } = &report.status {
            last.entry(node.as_str()).or_insert_with(|| FailedNode {
                node: node.to_string(),
                phase: "plan".to_owned(),
                reason: reasons.join("; "),
                up_later: false,
            });
        }
    }
    last.into_values().collect()
}
