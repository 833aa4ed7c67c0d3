//! The rules of the cluster: its order, and the votes of its etcd.

use std::collections::BTreeSet;

use undercroft_engine::Order;
use undercroft_model::{Action, BootstrapPart, ClusterRole, NodeName, Plan, StepId, Work};

use super::{Checkers, Rule};
use crate::fleet::Spec;

/// What has truly happened to the cluster.
#[derive(Debug, Default)]
pub(super) struct Watch {
    founder: Option<u32>,
    parts: BTreeSet<BootstrapPart>,
    joined: BTreeSet<u32>,
}

impl Watch {
    pub(super) fn new(specs: &[Spec]) -> Self {
        let founder = (0u32..).zip(specs).find(|(_, spec)| spec.founds);
        Self {
            founder: founder.map(|(place, _)| place),
            ..Self::default()
        }
    }
}

impl Checkers {
    /// An act of the cluster is started.
    pub(super) fn check_cluster(&mut self, order: &Order, action: &Action) {
        match action {
            Action::JoinCluster { role, .. } => self.check_join(order, *role),
            Action::Bootstrap { part } => self.check_bootstrap(order, *part),
            _ => {}
        }
    }

    fn check_join(&mut self, order: &Order, role: ClusterRole) {
        let networked = self.cluster.parts.contains(&BootstrapPart::Network);
        self.require(networked, Rule::JoinOrder, || {
            format!("{} joins before the network of the pods", order.node)
        });
        let plan = &order.plan;
        let joins_as_server = |id: &StepId| {
            matches!(
                plan.step(*id).map(|step| &step.action),
                Some(Action::JoinCluster {
                    role: ClusterRole::Server,
                    ..
                })
            )
        };
        match role {
            ClusterRole::Server => {
                let beside = self.ops.iter().find(|(op, live)| {
                    **op != order.op
                        && live.work == Work::Act
                        && live.started_ms.is_some()
                        && joins_as_server(&live.step)
                });
                let beside = beside.map(|(op, _)| *op);
                self.require(beside.is_none(), Rule::JoinOrder, || {
                    format!(
                        "{} joins while {beside:?} brings another server in",
                        order.node
                    )
                });
            }
            ClusterRole::Agent => {
                let early = plan
                    .steps
                    .iter()
                    .filter(|step| joins_as_server(&step.id))
                    .find(|step| !self.is_settled(step.id, &step.node))
                    .map(|step| step.node.clone());
                self.require(early.is_none(), Rule::JoinOrder, || {
                    format!("{} joins before the server {early:?}", order.node)
                });
            }
        }
    }

    fn check_bootstrap(&mut self, order: &Order, part: BootstrapPart) {
        if part == BootstrapPart::Network {
            return;
        }
        let before = BootstrapPart::ALL.into_iter().filter(|other| *other < part);
        let missing = before
            .filter(|other| !self.cluster.parts.contains(other))
            .last();
        self.require(missing.is_none(), Rule::BootstrapOrder, || {
            format!("{part} is brought in before {missing:?}")
        });
        if part != BootstrapPart::Secrets {
            // Who is tried anew by a later run holds up nothing that was begun before.
            return;
        }
        let plan: &Plan = &order.plan;
        let early = plan
            .steps
            .iter()
            .filter(|step| matches!(step.action, Action::AwaitReady { .. }))
            .find(|step| !self.is_settled(step.id, &step.node))
            .map(|step| step.node.clone());
        self.require(early.is_none(), Rule::BootstrapOrder, || {
            format!("{part} is brought in before {early:?} is Ready")
        });
    }

    /// Whether a step is done, or its machine gets no further in this run.
    fn is_settled(&self, step: StepId, node: &NodeName) -> bool {
        let done = usize::try_from(step.0)
            .ok()
            .and_then(|place| self.steps.get(place))
            .is_some_and(|step| step.done);
        let ended = self
            .places
            .get(node)
            .and_then(|place| self.nodes.get(usize::try_from(*place).ok()?))
            .is_some_and(|node| node.failed || (self.stopped && !node.begun));
        done || ended
    }

    /// A server has founded a cluster. `before`: there was one already.
    pub(crate) fn on_founded(&mut self, node: u32, before: bool) {
        let meant = self.cluster.founder == Some(node);
        self.require(meant && !before, Rule::OneCluster, || {
            let nth = if before { "second" } else { "first" };
            format!("the machine in place {node} founds a {nth} cluster")
        });
    }

    /// A server's etcd is added to the others'. `whole`: all of them are healthy and vote.
    pub(crate) fn on_member(&mut self, node: u32, whole: bool) {
        self.require(whole, Rule::EtcdQuorum, || {
            format!("the machine in place {node} comes to an etcd that isn't whole")
        });
    }

    /// We take a member of etcd from the others.
    pub(crate) fn on_member_lost(&mut self, node: &NodeName, how: &str) {
        self.broken(
            Rule::EtcdQuorum,
            format!("{node} is a member of etcd and is {how}"),
        );
    }

    /// A part of the bootstrap is brought in.
    pub(crate) fn on_part(&mut self, part: BootstrapPart) {
        self.cluster.parts.insert(part);
    }

    /// The controller is told that a machine is joined, or Ready.
    pub(crate) fn on_member_claim(&mut self, node: u32, ready: bool, truth: bool) {
        let joined = self.cluster.joined.contains(&node);
        self.require(truth && (joined || !ready), Rule::ReadyIsTrue, || {
            let what = if ready { "Ready" } else { "joined" };
            format!("the machine in place {node} is called {what} and isn't")
        });
        self.cluster.joined.insert(node);
    }
}
