//! What became of the cluster, and when.

use serde::{Deserialize, Serialize};
use undercroft_model::{Action, BootstrapPart, ClusterRole};

use super::spans::Spans;

/// What became of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ClusterReport {
    /// Machines that are to be in it.
    pub members: usize,
    /// Those of them that Kubernetes calls Ready when all is over.
    pub ready: usize,
    /// Whether Argo CD is synced with all that it brings; `None` where none was asked for.
    pub synced: Option<bool>,
    /// What happened when, in order.
    #[serde(rename = "moments")]
    pub milestones: Vec<Milestone>,
}

/// Something that happened to the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Milestone {
    /// What.
    pub what: String,
    /// When, in milliseconds from the start.
    pub at_ms: u64,
}

/// What is told of a cluster: when the last of each kind of step was done.
const MILESTONES: [&str; 8] = [
    "the API answers",
    "the pods have a network",
    "the last server votes",
    "the last agent has joined",
    "the last machine is Ready",
    "the secrets are there",
    "Argo CD is healthy",
    "the root application is synced",
];

/// Which of the milestones an action's end is.
fn milestone(action: &Action) -> Option<usize> {
    Some(match action {
        Action::FoundCluster => 0,
        Action::JoinCluster { role, .. } => match role {
            ClusterRole::Server => 2,
            ClusterRole::Agent => 3,
        },
        Action::AwaitReady { .. } => 4,
        Action::Bootstrap { part } => match part {
            BootstrapPart::Network => 1,
            BootstrapPart::Secrets => 5,
            BootstrapPart::ArgoCd => 6,
            BootstrapPart::RootApp => 7,
        },
        _ => return None,
    })
}

pub(super) fn cluster(spans: &Spans<'_>, start_ms: u64) -> Option<ClusterReport> {
    let state = spans.state;
    let machines = || (0u32..).zip(&state.world.machines);
    let members = machines().filter(|(_, m)| m.spec.role.is_some()).count();
    if members == 0 {
        return None;
    }
    let mut last: [Option<u64>; MILESTONES.len()] = [None; MILESTONES.len()];
    for span in spans.spans.iter().filter(|span| span.done) {
        let milestone = spans.step(span).and_then(|step| milestone(&step.action));
        if let Some(last) = milestone.and_then(|milestone| last.get_mut(milestone)) {
            *last = (*last).max(Some(span.end_ms));
        }
    }
    let milestones = MILESTONES.into_iter().zip(last);
    let mut milestones: Vec<Milestone> = milestones
        .filter_map(|(what, at_ms)| {
            Some(Milestone {
                what: what.to_owned(),
                at_ms: at_ms?.saturating_sub(start_ms),
            })
        })
        .collect();
    milestones.sort_by_key(|milestone| milestone.at_ms);
    Some(ClusterReport {
        members,
        ready: machines()
            .filter(|(place, m)| m.spec.role.is_some() && state.world.is_ready(*place))
            .count(),
        synced: state
            .inventory
            .gitops
            .repository
            .as_ref()
            .map(|_| state.is_brought_in()),
        milestones,
    })
}
