//! The cluster's part of a plan: who founds it, who joins it and when, and what is brought into it.

use std::collections::{BTreeMap, BTreeSet};

use undercroft_model::{
    Action, BootstrapPart, ClusterPlan, ClusterRole, GitopsSource, NodeName, NodePlan, NodeState,
    Observation, Resource, Step, StepId,
    inventory::{Distribution, Inventory},
};

use crate::{
    NodeReport, NodeStatus, PlanOptions,
    chain::{self, Draft},
    install::SystemToInstall,
    members::{other_members, role, stays_member},
    report::Block,
};

/// What to do where there is no cluster to join.
const NEXT_FOUNDER: &str = "bring its founder up first: `undercroft plan` says what it lacks";

/// What a machine's Node must carry, as the inventory says it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeWants {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Taints, as `key=value:Effect` or `key:Effect`.
    pub taints: Vec<String>,
}

/// The labels, annotations and taints that a machine's Node must carry; nothing where it is no part
/// of the cluster.
pub fn node_wants(inventory: &Inventory, name: &NodeName) -> NodeWants {
    let node = inventory.nodes.get(name);
    let member = node.filter(|node| role(inventory, node).is_some());
    NodeWants {
        labels: inventory.node_labels(name),
        annotations: inventory.node_annotations(name),
        taints: member.map_or_else(Vec::new, |node| node.taints.clone()),
    }
}

/// The cluster as a plan's steps know it.
pub(crate) fn cluster_of(
    inventory: &Inventory,
    founder: NodeName,
    members: BTreeSet<NodeName>,
) -> ClusterPlan {
    let kubernetes = &inventory.kubernetes;
    let address = |name: &NodeName| inventory.nodes.get(name).map(|node| node.address);
    let servers = inventory.servers().into_iter();
    ClusterPlan {
        distribution: kubernetes.distribution,
        version: kubernetes.version.clone(),
        servers: servers
            .filter_map(|name| Some((name.clone(), address(name)?)))
            .collect(),
        members,
        founder,
        gitops: inventory
            .gitops
            .repository
            .as_ref()
            .map(|repository| GitopsSource {
                repository: repository.clone(),
                revision: inventory.gitops.revision.clone(),
                path: inventory.gitops.path.clone(),
            }),
    }
}

/// What the cluster's steps are appended to.
pub(crate) struct Drafting<'a> {
    pub(crate) inventory: &'a Inventory,
    pub(crate) observation: &'a Observation,
    pub(crate) options: &'a PlanOptions,
    /// Machines that run what they should, and have no steps yet: what was delivered to each, and
    /// how often it was installed anew.
    pub(crate) running: BTreeMap<NodeName, (SystemToInstall, u32)>,
    pub(crate) nodes: &'a mut BTreeMap<NodeName, NodePlan>,
    pub(crate) reports: &'a mut BTreeMap<NodeName, NodeReport>,
    pub(crate) steps: &'a mut Vec<Step>,
}

/// What the founder's steps are for the others.
enum Founder {
    /// The cluster is there with its network: nobody needs to wait.
    Done,
    /// Its network is there once this step is done.
    Step(StepId),
    /// It won't be there by this plan, for that reason.
    Missing(String),
}

impl Drafting<'_> {
    /// Appends the cluster's steps to the machines' own.
    pub(crate) fn extend(&mut self) -> Option<ClusterPlan> {
        let kubernetes = &self.inventory.kubernetes;
        if kubernetes.distribution == Distribution::None || self.options.inspect_only {
            return None;
        }
        let wanted = |state| self.options.until.is_none_or(|until| until >= state);
        if !wanted(NodeState::Joined) {
            let reason = "only the machines themselves were asked for".to_owned();
            self.joiners()
                .iter()
                .for_each(|name| self.leave_out(name, &reason));
            return None;
        }
        let founder = kubernetes.founder.clone()?;
        let joiners = self.joiners();
        let founds = joiners.contains(&founder);
        let mut seen_by: Vec<(NodeName, StepId, StepId)> = Vec::new();
        let network = if founds {
            self.found(&founder, &mut seen_by)
        } else {
            self.founder_elsewhere(&founder)
        };
        let servers: BTreeSet<&NodeName> = self.inventory.servers().into_iter().collect();
        let (first, then): (Vec<NodeName>, Vec<NodeName>) = joiners
            .into_iter()
            .filter(|name| *name != founder)
            .partition(|name| servers.contains(name));
        let mut server_joins = Vec::new();
        let mut replaced: Option<StepId> = None;
        for name in &first {
            if let Some((join, ready)) =
                self.join(name, ClusterRole::Server, &network, &founder, &[])
            {
                self.one_server_at_a_time(name, ready, &mut replaced);
                server_joins.push(join);
                seen_by.push((name.clone(), join, ready));
            }
        }
        for name in &then {
            let role = ClusterRole::Agent;
            if let Some((join, ready)) = self.join(name, role, &network, &founder, &server_joins) {
                seen_by.push((name.clone(), join, ready));
            }
        }
        if founds {
            self.bring_in(&founder, &seen_by);
        }
        (!seen_by.is_empty()).then(|| {
            let members = self.members_beside(&founder);
            cluster_of(self.inventory, founder, members)
        })
    }

    /// Servers that may hold their part of a cluster while the founder holds none. To ask for one to be wiped is a
    /// person's word that it holds nothing.
    fn members_beside(&self, founder: &NodeName) -> BTreeSet<NodeName> {
        other_members(self.inventory, self.observation, founder)
            .filter(|name| !self.options.reinstall.contains(*name))
            .cloned()
            .collect()
    }

    /// The machines that are to have a part in the cluster by this plan.
    fn joiners(&self) -> Vec<NodeName> {
        let joins = |name: &NodeName| {
            let node = self.inventory.nodes.get(name)?;
            let report = self.reports.get(name)?;
            role(self.inventory, node)?;
            report.status.takes_part().then_some(())
        };
        let names = self.inventory.nodes.keys();
        names
            .filter(|name| joins(name).is_some())
            .cloned()
            .collect()
    }

    fn leave_out(&mut self, name: &NodeName, reason: &str) {
        if let Some(node) = self.nodes.get_mut(name) {
            for state in [NodeState::Joined, NodeState::Ready] {
                node.not_applicable.insert(state, reason.to_owned());
            }
        }
        if let Some(report) = self.reports.get_mut(name) {
            if report.status == NodeStatus::Join {
                // There is nothing else to do with it.
                let why = format!("it can't take its part in the cluster: {reason}");
                *report = NodeReport::blocked(vec![Block::new(why, NEXT_FOUNDER)]);
            } else {
                report.notes.push(format!("it doesn't join: {reason}"));
            }
        }
    }

    /// What the others wait for where the founder has no steps in this plan.
    fn founder_elsewhere(&self, founder: &NodeName) -> Founder {
        let seen = self.observation.cluster.as_ref();
        if seen.is_some_and(|seen| seen.parts.contains(&BootstrapPart::Network)) {
            return Founder::Done;
        }
        let why = match self.reports.get(founder).map(|report| &report.status) {
            Some(NodeStatus::Blocked { .. }) => "is blocked",
            Some(NodeStatus::Unreachable { .. }) => "doesn't answer",
            Some(NodeStatus::Quarantined { .. }) => "is quarantined",
            Some(NodeStatus::Differs { .. }) => "runs another system",
            Some(_) => "isn't ready",
            None => "was not asked for",
        };
        Founder::Missing(format!(
            "no cluster with a network answers, and {founder}, which founds it, {why}"
        ))
    }

    fn found(
        &mut self,
        founder: &NodeName,
        joined: &mut Vec<(NodeName, StepId, StepId)>,
    ) -> Founder {
        let timeouts = &self.inventory.fleet.timeouts;
        let (join_s, network_s) = (timeouts.join_s, timeouts.network_s);
        let found = self.append(
            founder,
            Draft {
                action: Action::FoundCluster,
                reaches: NodeState::Joined,
                timeout_s: join_s,
                resource: Some(Resource::ServerJoin),
            },
        );
        // Servers of an earlier cluster that are wiped by this plan must have left it before another is founded. Where
        // the cluster stands its servers are wiped one after the other, each once it has the one before it again.
        let servers = self.inventory.servers().into_iter();
        let wiped: Vec<StepId> = servers
            .filter(|_| self.founds_anew(founder))
            .filter(|name| *name != founder && self.options.reinstall.contains(*name))
            .filter_map(|name| self.nodes.get(name)?.steps.first().copied())
            .collect();
        if let Some(step) = self.step(found) {
            step.after_settled = wiped;
        }
        let network = self.append(
            founder,
            Draft {
                action: Action::Bootstrap {
                    part: BootstrapPart::Network,
                },
                reaches: NodeState::Networked,
                timeout_s: network_s,
                resource: None,
            },
        );
        let ready = self.ready(founder);
        joined.push((founder.clone(), found, ready));
        Founder::Step(network)
    }

    fn join(
        &mut self,
        name: &NodeName,
        role: ClusterRole,
        network: &Founder,
        founder: &NodeName,
        after_settled: &[StepId],
    ) -> Option<(StepId, StepId)> {
        if let Founder::Missing(reason) = network {
            self.leave_out(name, &reason.clone());
            return None;
        }
        let replaces = self.replaces(name, role, founder);
        let join = self.append(
            name,
            Draft {
                action: Action::JoinCluster { role, replaces },
                reaches: NodeState::Joined,
                timeout_s: self.inventory.fleet.timeouts.join_s,
                resource: Some(match role {
                    ClusterRole::Server => Resource::ServerJoin,
                    ClusterRole::Agent => Resource::AgentJoin,
                }),
            },
        );
        let tokens = self.inventory.kubernetes.distribution == Distribution::Kubeadm;
        if let Some(step) = self.step(join) {
            if let Founder::Step(network) = network {
                step.after.push(*network);
            }
            step.after_settled = after_settled.to_vec();
            step.delivers_secrets = tokens;
        }
        if let (Founder::Step(_), Some(report)) = (network, self.reports.get_mut(name)) {
            report
                .waits_on
                .push(format!("{founder}'s API and the network of the pods"));
        }
        if let (false, Some(report)) = (after_settled.is_empty(), self.reports.get_mut(name)) {
            report
                .waits_on
                .push("the other servers, as far as they can join".to_owned());
        }
        let ready = self.ready(name);
        Some((join, ready))
    }

    /// Whether the cluster may know a machine as it was before it was installed anew. A member that
    /// stays one comes back as what it was, and a cluster that is founded anew knows nobody.
    fn replaces(&self, name: &NodeName, role: ClusterRole, founder: &NodeName) -> bool {
        let before = self.observation.installed.get(name);
        let seen = self.observation.cluster.as_ref();
        let known = self.options.reinstall.contains(name)
            || before.is_some_and(|before| before.member || before.generation > 0)
            || seen.is_some_and(|seen| seen.nodes.contains_key(name));
        // An agent has nothing to lose: what was there before it was installed is never itself.
        let agent = self.is_installed(name) && role == ClusterRole::Agent;
        known && !self.founds_anew(founder) && (agent || !self.stays(name))
    }

    /// Whether the founder begins another cluster, rather than looking after the one that it has.
    fn founds_anew(&self, founder: &NodeName) -> bool {
        self.is_installed(founder) && !self.stays(founder)
    }

    fn is_installed(&self, name: &NodeName) -> bool {
        let report = self.reports.get(name);
        report.is_some_and(|report| report.status.is_installed())
    }

    fn stays(&self, name: &NodeName) -> bool {
        let reinstall = self.options.reinstall.contains(name);
        let installs = self.is_installed(name).then_some(reinstall);
        stays_member(self.inventory, self.observation, name, installs)
    }

    /// A server that is wiped is begun only when the one before it votes again.
    fn one_server_at_a_time(
        &mut self,
        name: &NodeName,
        ready: StepId,
        replaced: &mut Option<StepId>,
    ) {
        let first = self
            .nodes
            .get(name)
            .and_then(|node| node.steps.first().copied());
        let replaces = self.nodes.get(name).is_some_and(|node| {
            node.steps.iter().any(|id| {
                matches!(
                    self.step_of(*id).map(|step| &step.action),
                    Some(Action::JoinCluster { replaces: true, .. })
                )
            })
        });
        if !replaces {
            return;
        }
        if let (Some(before), Some(step)) = (*replaced, first.and_then(|id| self.step(id))) {
            step.after.push(before);
        }
        *replaced = Some(ready);
    }

    fn ready(&mut self, name: &NodeName) -> StepId {
        let wants = node_wants(self.inventory, name);
        self.append(
            name,
            Draft {
                action: Action::AwaitReady {
                    labels: wants.labels,
                    annotations: wants.annotations,
                    taints: wants.taints,
                },
                reaches: NodeState::Ready,
                timeout_s: self.inventory.fleet.timeouts.ready_s,
                resource: None,
            },
        )
    }

    /// Secrets, Argo CD and the root application, once everybody who can be is there.
    fn bring_in(&mut self, founder: &NodeName, members: &[(NodeName, StepId, StepId)]) {
        let timeouts = &self.inventory.fleet.timeouts;
        if let Some(reason) = self.why_no_argo_cd() {
            return self.leave_out_argo_cd(founder, reason);
        }
        let drafts = [
            (
                BootstrapPart::Secrets,
                NodeState::SecretsReady,
                timeouts.secrets_s,
            ),
            (
                BootstrapPart::ArgoCd,
                NodeState::ArgoCdReady,
                timeouts.argocd_s,
            ),
            (BootstrapPart::RootApp, NodeState::Synced, timeouts.sync_s),
        ];
        for (part, reaches, timeout_s) in drafts {
            if self.options.until.is_some_and(|until| until < reaches) {
                if let Some(node) = self.nodes.get_mut(founder) {
                    let reason = "no more was asked for".to_owned();
                    node.not_applicable.insert(reaches, reason);
                }
                continue;
            }
            let id = self.append(
                founder,
                Draft {
                    action: Action::Bootstrap { part },
                    reaches,
                    timeout_s,
                    resource: None,
                },
            );
            // The steps after the first come after it anyway.
            if part == BootstrapPart::Secrets {
                self.wait_for_others(founder, id, members);
            }
        }
    }

    fn why_no_argo_cd(&self) -> Option<&'static str> {
        let until = self.options.until;
        if self.inventory.gitops.repository.is_none() {
            Some("`gitops.repository` isn't set: no Argo CD is brought in")
        } else if until.is_some_and(|until| until < NodeState::SecretsReady) {
            Some("no Argo CD was asked for")
        } else {
            None
        }
    }

    fn leave_out_argo_cd(&mut self, founder: &NodeName, reason: &str) {
        if let Some(node) = self.nodes.get_mut(founder) {
            for state in [
                NodeState::SecretsReady,
                NodeState::ArgoCdReady,
                NodeState::Synced,
            ] {
                node.not_applicable.insert(state, reason.to_owned());
            }
        }
        if let Some(report) = self.reports.get_mut(founder) {
            report.notes.push(reason.to_owned());
        }
    }

    /// Lets the step that brings the secrets in wait until every other machine has joined that can.
    fn wait_for_others(
        &mut self,
        founder: &NodeName,
        secrets: StepId,
        members: &[(NodeName, StepId, StepId)],
    ) {
        let others = members.iter().filter(|(name, _, _)| name != founder);
        let others: Vec<StepId> = others.map(|(_, _, ready)| *ready).collect();
        let waits = !others.is_empty();
        if let Some(step) = self.step(secrets) {
            step.delivers_secrets = true;
            step.after_settled = others;
        }
        if waits && let Some(report) = self.reports.get_mut(founder) {
            report
                .waits_on
                .push("every machine that can join, before Argo CD".to_owned());
        }
    }

    /// Appends a step to a machine's own. A machine that runs already may have done it.
    fn append(&mut self, name: &NodeName, draft: Draft) -> StepId {
        let runs = self
            .reports
            .get(name)
            .is_some_and(|report| report.status == NodeStatus::Join);
        if let Some((delivery, generation)) = self.running.remove(name)
            && let Some(node) = self.inventory.nodes.get(name)
        {
            let (inventory, steps) = (self.inventory, &mut *self.steps);
            let planned = chain::build_running(inventory, name, node, &delivery, generation, steps);
            self.nodes.insert(name.clone(), planned);
        }
        let (steps, node) = (&mut *self.steps, self.nodes.get_mut(name));
        chain::append(self.inventory, name, node, draft, runs, steps)
    }

    fn step(&mut self, id: StepId) -> Option<&mut Step> {
        self.steps.get_mut(usize::try_from(id.0).ok()?)
    }

    fn step_of(&self, id: StepId) -> Option<&Step> {
        self.steps.get(usize::try_from(id.0).ok()?)
    }
}
