//! What a plan's steps of the cluster must be.

use std::collections::BTreeSet;

use undercroft_model::{
    Action, BootstrapPart, ClusterPlan, ClusterRole, NodeState, Resource, Severity, Step, StepId,
};

use super::Linter;
use crate::plan::SERVER_JOINS_MAX;

/// The steps of the cluster by what they do.
#[derive(Default)]
struct Parts<'a> {
    found: Option<&'a Step>,
    network: Option<&'a Step>,
    joins: Vec<(&'a Step, ClusterRole, bool)>,
}

impl<'a> Linter<'a> {
    /// One founder, the network before anybody joins, servers one by one and before agents, and
    /// Argo CD after all of them.
    pub(super) fn cluster(&mut self) {
        let plan = self.plan;
        let steps: Vec<&Step> = plan
            .steps
            .iter()
            .filter(|step| step.action.is_of_cluster())
            .collect();
        let Some(cluster) = &plan.cluster else {
            for step in steps {
                self.at(step, "it is about a cluster, and the plan names none");
            }
            return;
        };
        if !cluster.servers.contains_key(&cluster.founder) {
            let message = format!(
                "{} founds the cluster, and is none of its servers",
                cluster.founder
            );
            self.add(Severity::Error, message);
        }
        let limit = plan.limits.concurrency.get(&Resource::ServerJoin);
        if limit != Some(&SERVER_JOINS_MAX) {
            let message = "servers don't join one by one: etcd takes one new member at a time";
            self.add(Severity::Error, message);
        }
        let mut parts = Parts::default();
        for step in steps {
            self.role(cluster, step, &mut parts);
        }
        self.order(&parts);
        self.replaced(&parts);
    }

    /// Who may do what, and what it holds.
    fn role(&mut self, cluster: &ClusterPlan, step: &'a Step, parts: &mut Parts<'a>) {
        let founds = step.node == cluster.founder;
        match &step.action {
            Action::FoundCluster | Action::Bootstrap { .. } if !founds => {
                let message = format!(
                    "{} is the founder's part, and {} is the founder",
                    step.action.verb(),
                    cluster.founder
                );
                self.at(step, message);
            }
            Action::JoinCluster { .. } if founds => {
                self.at(step, "the founder joins no cluster: it founds it");
            }
            Action::JoinCluster { role, .. }
                if cluster.servers.contains_key(&step.node) != (*role == ClusterRole::Server) =>
            {
                self.at(step, format!("it joins as {role}, which it isn't"));
            }
            _ => {}
        }
        let holds = match &step.action {
            Action::FoundCluster
            | Action::JoinCluster {
                role: ClusterRole::Server,
                ..
            } => Some(Resource::ServerJoin),
            Action::JoinCluster {
                role: ClusterRole::Agent,
                ..
            } => Some(Resource::AgentJoin),
            _ => None,
        };
        if holds.is_some() && step.resource != holds {
            self.at(step, "it joins without holding its turn to");
        }
        let opens_alone = matches!(step.action, Action::Drain | Action::Release);
        if step.requires < NodeState::Up && !opens_alone {
            self.at(step, "it is about the cluster before its machine is up");
        }
        match &step.action {
            Action::FoundCluster => {
                if let Some(first) = parts.found.replace(step) {
                    let message = format!("step {} founds a cluster already", first.id.0);
                    self.at(step, message);
                }
            }
            Action::Bootstrap {
                part: BootstrapPart::Network,
            } => parts.network = Some(step),
            Action::JoinCluster { role, replaces } => parts.joins.push((step, *role, *replaces)),
            _ => {}
        }
    }

    /// The network before anybody joins, servers before agents, everybody before Argo CD.
    fn order(&mut self, parts: &Parts<'a>) {
        let server_joins: BTreeSet<StepId> = parts
            .joins
            .iter()
            .filter(|(_, role, _)| *role == ClusterRole::Server)
            .map(|(step, _, _)| step.id)
            .collect();
        for (step, role, _) in &parts.joins {
            if let Some(network) = parts.network
                && !step.after.contains(&network.id)
            {
                let message = format!(
                    "it joins before step {} has brought in the network of the pods",
                    network.id.0
                );
                self.at(step, message);
            }
            let settled: BTreeSet<StepId> = step.after_settled.iter().copied().collect();
            if *role == ClusterRole::Agent
                && let Some(server) = server_joins.difference(&settled).next()
            {
                let message = format!("it joins before the server of step {}", server.0);
                self.at(step, message);
            }
        }
        let plan = self.plan;
        let ready = |step: &&Step| matches!(step.action, Action::AwaitReady { .. });
        let members: BTreeSet<StepId> = plan
            .steps
            .iter()
            .filter(ready)
            .map(|step| step.id)
            .collect();
        // Argo CD comes after its secrets, by its machine's own order.
        let first = plan.steps.iter().find(|step| {
            matches!(
                step.action,
                Action::Bootstrap {
                    part: BootstrapPart::Secrets
                }
            )
        });
        if let Some(first) = first {
            let own = plan.nodes.get(&first.node).map(|node| &node.steps);
            let known: BTreeSet<StepId> = first
                .after_settled
                .iter()
                .chain(own.into_iter().flatten())
                .copied()
                .collect();
            if let Some(member) = members.difference(&known).next() {
                let message = format!("it doesn't wait for step {} to be settled", member.0);
                self.at(first, message);
            }
        }
        let argocd = plan.steps.iter().any(|step| {
            matches!(
                step.action,
                Action::Bootstrap {
                    part: BootstrapPart::ArgoCd | BootstrapPart::RootApp
                }
            )
        });
        if argocd && first.is_none() {
            let message = "Argo CD is brought in without the cluster's secrets";
            self.add(Severity::Error, message);
        }
    }

    /// Of the servers that are wiped, each is begun only when the one before it votes again.
    fn replaced(&mut self, parts: &Parts<'a>) {
        let plan = self.plan;
        let mut before: Option<&Step> = None;
        for (join, role, replaces) in &parts.joins {
            if *role != ClusterRole::Server || !replaces {
                continue;
            }
            let steps = plan.nodes.get(&join.node).map(|node| node.steps.as_slice());
            let first = steps.and_then(|steps| plan.step(*steps.first()?));
            let last = steps.and_then(|steps| plan.step(*steps.last()?));
            if let (Some(before), Some(first)) = (before, first)
                && !first.after.contains(&before.id)
            {
                let message = format!(
                    "it takes a server from etcd while {} may not be back in it",
                    before.node
                );
                self.at(first, message);
            }
            before = last;
        }
    }
}
