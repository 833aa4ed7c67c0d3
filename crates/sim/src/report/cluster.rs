//! What became of the cluster, and when.

use serde::{Deserialize, Serialize};
use undercroft_model::{Action, BootstrapPart, ClusterRole};

use super::Spans;

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
    pub moments: Vec<Moment>,
}

/// Something that happened to the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Moment {
    /// What.
    pub what: String,
    /// When, in milliseconds from the start.
    pub at_ms: u64,
}

pub(super) fn cluster(spans: &Spans<'_>, start_ms: u64) -> Option<ClusterReport> {
    let run = spans.run;
    let machines = || (0u32..).zip(&run.world.machines);
    let members = machines().filter(|(_, m)| m.spec.role.is_some()).count();
    if members == 0 {
        return None;
    }
    let last = |wanted: &dyn Fn(&Action) -> bool| {
        let ends = spans
            .spans
            .iter()
            .filter(|span| span.done && spans.step(span).is_some_and(|step| wanted(&step.action)));
        ends.map(|span| span.end_ms).max()
    };
    let joins = |as_role: ClusterRole| move |action: &Action| matches!(action, Action::JoinCluster { role, .. } if *role == as_role);
    let part = |wanted: BootstrapPart| move |action: &Action| matches!(action, Action::Bootstrap { part } if *part == wanted);
    let moments: [(&str, Option<u64>); 8] = [
        ("the API answers", last(&|a| *a == Action::FoundCluster)),
        (
            "the pods have a network",
            last(&part(BootstrapPart::Network)),
        ),
        ("the last server votes", last(&joins(ClusterRole::Server))),
        (
            "the last agent has joined",
            last(&joins(ClusterRole::Agent)),
        ),
        (
            "the last machine is Ready",
            last(&|a| matches!(a, Action::AwaitReady { .. })),
        ),
        ("the secrets are there", last(&part(BootstrapPart::Secrets))),
        ("Argo CD is healthy", last(&part(BootstrapPart::ArgoCd))),
        (
            "the root application is synced",
            last(&part(BootstrapPart::RootApp)),
        ),
    ];
    let mut moments: Vec<Moment> = moments
        .into_iter()
        .filter_map(|(what, at_ms)| {
            Some(Moment {
                what: what.to_owned(),
                at_ms: at_ms?.saturating_sub(start_ms),
            })
        })
        .collect();
    moments.sort_by_key(|moment| moment.at_ms);
    Some(ClusterReport {
        members,
        ready: machines()
            .filter(|(place, m)| m.spec.role.is_some() && run.world.is_ready(*place))
            .count(),
        synced: run
            .inventory
            .gitops
            .repository
            .as_ref()
            .map(|_| run.is_brought_in()),
        moments,
    })
}
