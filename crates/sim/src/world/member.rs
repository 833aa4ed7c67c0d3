//! The cluster's steps: their scripts are driven as the real world drives them, and answered by the simulated cluster.
//!
//! The asks of one round are put at the same moment, so that a step of a large fleet costs few events; what comes by
//! itself is looked at again after a while.

use std::{rc::Rc, sync::Arc};

use undercroft_engine::Order;
use undercroft_model::{
    Action, BootstrapPart, ClusterRole, Evidence, Failure, FailureKind, NodeName, OpId, Outcome,
    Work, inventory::Distribution,
};
use undercroft_steps::{
    ApplicationSeen, ClusterAnswer, ClusterAsk, ClusterNext, ClusterStep, EtcdMember, EtcdMembers,
    JoinStatus, JoinUnit, NodeSeen, OtherServer, Rollout, SecretSeen, Workload,
};

use super::{
    Ev, Sabotage, SimWorld, Stage, Turn,
    cluster::{UNHEALTHY_MS_MAX, VERSION},
    ground::Answer,
};
use crate::{
    cluster::{Cluster, Member},
    faults::FaultKind,
    fleet::{boot_id, hex_of},
    machine::Kube,
};

/// How often a step looks again at what it waits for, in milliseconds.
const LOOK_MS: u64 = 5000;
/// The longest that the API is away for a while, in milliseconds.
const API_DOWN_MS_MAX: u64 = 10 * 60_000;
/// From the beginning of a step that only waits for the cluster, the longest until its machine
/// loses its power, in milliseconds.
const POWER_LOST_MS_MAX: u64 = 5 * 60_000;

impl SimWorld {
    /// A step of the cluster's, or a probe of it, begins.
    pub(super) fn begin_cluster_step(&mut self, op: OpId, node: u32, order: &Order) {
        let Some(action) = order.planned().map(|step| &step.action) else {
            return;
        };
        if let Some(known) = self.ops.get_mut(&op) {
            known.stage = Stage::Clustering;
        }
        if order.work == Work::Act {
            if self.cluster.founded && self.hit(node, FaultKind::ApiDown) {
                let for_ms = self.chance_between(LOOK_MS, API_DOWN_MS_MAX);
                self.cluster.down_until_ms = self.now_ms() + for_ms;
            }
            if !action.makes_member() {
                self.power_may_fail(node, POWER_LOST_MS_MAX, None);
                self.disk_may_be_lost(node);
                let known = self.cluster.nodes.contains_key(&node);
                if known && self.hit(node, FaultKind::NodeDeleted) {
                    self.cluster.nodes.remove(&node);
                }
            }
            if let Some(evidence) = self.claimed(node, action) {
                self.check_claim(node, &evidence);
                return self.done(op, 0, evidence);
            }
        }
        self.cluster_goes_on(op);
    }

    /// A step of the cluster's looks again, and asks as much as it can.
    pub(super) fn cluster_goes_on(&mut self, op: OpId) {
        let now_ms = self.now_ms();
        let Some(known) = self.ops.get_mut(&op) else {
            return;
        };
        if !matches!(known.stage, Stage::Clustering) {
            return;
        }
        let (node, order) = (known.node, Rc::clone(&known.order));
        let elapsed_ms = now_ms - known.started_ms;
        let mut script = std::mem::take(&mut known.script);
        let plan = &order.plan;
        let (Some(step), Some(planned), Some(cluster)) =
            (order.planned(), plan.nodes.get(&order.node), &plan.cluster)
        else {
            return;
        };
        let cx = ClusterStep {
            step,
            node: planned,
            plan: cluster,
            members: &order.members,
            work: order.work,
            timeout_ms: order.timeout_ms,
        };
        loop {
            match script.next(&cx, elapsed_ms) {
                ClusterNext::Ask(ask) => {
                    self.cluster_asks(node, &order);
                    let answer = self.cluster_answer(node, &cx, &ask);
                    script.tell(answer.unwrap_or_else(ClusterAnswer::Nothing));
                }
                ClusterNext::Wait(_) => {
                    let left_ms = cx.wait_ms_max().saturating_sub(elapsed_ms);
                    self.clock.after(LOOK_MS.min(left_ms), Ev::Cluster(op));
                    break;
                }
                ClusterNext::Done(evidence) => {
                    self.check_claim(node, &evidence);
                    self.done(op, 0, evidence);
                    break;
                }
                ClusterNext::NotDone(_) => {
                    self.reply(op, 0, Outcome::NotDone);
                    break;
                }
                ClusterNext::Failed(failure) => {
                    self.reply(op, 0, Outcome::Failed { failure });
                    break;
                }
            }
        }
        if let Some(known) = self.ops.get_mut(&op) {
            known.script = script;
        }
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "in tests something is taken away here")]
    fn cluster_asks(&mut self, _node: u32, _order: &Order) {}

    /// What the controller says is compared with how it is.
    fn check_claim(&mut self, node: u32, evidence: &Evidence) {
        let now_ms = self.now_ms();
        let is_boot = |said: &str| {
            let boot = self.own_boot(node);
            boot.is_some_and(|boot| boot_id(boot) == said)
        };
        let truth = match evidence {
            Evidence::Joined { boot_id, .. } => self.is_joined(node) && is_boot(boot_id),
            Evidence::Ready { boot_id, .. } => {
                let mut known = self.cluster.nodes.get(&node).into_iter();
                // It may have lost its power a moment ago.
                let here = self.own_boot(node).is_none() || is_boot(boot_id);
                here && known.any(|known| known.labelled && self.is_called_ready(node, known))
            }
            Evidence::Bootstrapped { part, .. } => self.cluster.has(*part, now_ms),
            _ => true,
        };
        let mut shared = self.shared.borrow_mut();
        match evidence {
            Evidence::Bootstrapped { part, .. } => shared.checkers.on_part_claim(*part, truth),
            Evidence::Joined { .. } => shared.checkers.on_member_claim(node, false, truth),
            _ => shared.checkers.on_member_claim(node, true, truth),
        }
    }

    /// A step of the cluster's puts a question, or does something.
    fn cluster_answer(
        &mut self,
        node: u32,
        cx: &ClusterStep<'_>,
        ask: &ClusterAsk,
    ) -> Result<ClusterAnswer, Failure> {
        match ask {
            ClusterAsk::Status => {
                self.reach(node)?;
                Ok(ClusterAnswer::Status(self.join_status(node, cx)))
            }
            ClusterAsk::OpenApis => Ok(ClusterAnswer::Open(self.open_apis(cx))),
            ClusterAsk::OtherServers => Ok(ClusterAnswer::Others(self.other_servers(cx))),
            ClusterAsk::Api => self.reach_api().map(|()| ClusterAnswer::Done),
            ClusterAsk::Node => {
                self.reach_api()?;
                Ok(ClusterAnswer::Node(self.node_seen(node, cx).map(Arc::new)))
            }
            ClusterAsk::Members => {
                if !self.is_sabotaged(Sabotage::JoinsBlindly) {
                    self.reach_api()?;
                }
                Ok(ClusterAnswer::Members(self.members_seen()))
            }
            ClusterAsk::ReadyPod { .. }
            | ClusterAsk::Rollout(_)
            | ClusterAsk::Crd { .. }
            | ClusterAsk::RootApplication
            | ClusterAsk::Secrets => {
                self.reach_api()?;
                Ok(self.part_seen(ask))
            }
            // No pods are simulated.
            ClusterAsk::Pods => Ok(ClusterAnswer::Pods(Vec::new())),
            ClusterAsk::Evict { .. } => Ok(ClusterAnswer::Evicted(Vec::new())),
            ClusterAsk::RemoveMember { .. }
            | ClusterAsk::ForgetNode
            | ClusterAsk::StopKubelet
            | ClusterAsk::RestartKubelet
            | ClusterAsk::HandOver
            | ClusterAsk::StartJoin
            | ClusterAsk::Dress { .. }
            | ClusterAsk::Close
            | ClusterAsk::Open
            | ClusterAsk::BringIn { .. } => {
                self.cluster_changes(node, cx, ask)?;
                if self.hit(node, FaultKind::SshDies) {
                    return Err(transient("the connection was lost"));
                }
                Ok(ClusterAnswer::Done)
            }
        }
    }

    /// What the API says of what was brought in.
    fn part_seen(&self, ask: &ClusterAsk) -> ClusterAnswer {
        let now_ms = self.clock.now_ms();
        match ask {
            ClusterAsk::Rollout(workload) => ClusterAnswer::Rollout(self.rollout(*workload)),
            ClusterAsk::Crd { name } => ClusterAnswer::There(match part_of(name) {
                // Its operator makes it once it runs.
                BootstrapPart::Network => self.cluster.has(BootstrapPart::Network, now_ms),
                part => self.cluster.parts.contains_key(&part),
            }),
            ClusterAsk::RootApplication => ClusterAnswer::Application(self.root_application()),
            ClusterAsk::Secrets => {
                let part = BootstrapPart::Secrets;
                ClusterAnswer::Secrets(vec![SecretSeen {
                    shown: "Secret argocd/fleet-repository".to_owned(),
                    is_ours: self.cluster.parts.contains_key(&part),
                    is_current: self.cluster.has(part, now_ms),
                }])
            }
            _ => ClusterAnswer::There(self.cluster.has(BootstrapPart::Network, now_ms)),
        }
    }

    fn cluster_changes(
        &mut self,
        node: u32,
        cx: &ClusterStep<'_>,
        ask: &ClusterAsk,
    ) -> Result<(), Failure> {
        match ask {
            ClusterAsk::RemoveMember { id, .. } => {
                self.reach_api()?;
                self.member_removed(node, cx, *id);
            }
            ClusterAsk::ForgetNode => {
                self.reach_api()?;
                if !self.is_sabotaged(Sabotage::ReplacesNobody) {
                    self.cluster.nodes.remove(&node);
                }
            }
            ClusterAsk::RestartKubelet => {
                self.reach(node)?;
                self.start_kubelet_anew(node);
            }
            ClusterAsk::HandOver => {
                if !self.is_sabotaged(Sabotage::JoinsBlindly) {
                    self.reach_api()?;
                }
                self.reach(node)?;
            }
            ClusterAsk::StartJoin => {
                self.reach(node)?;
                self.start_join(node, cx);
            }
            ClusterAsk::Dress { .. } => {
                self.reach_api()?;
                let Some(known) = self.cluster.nodes.get_mut(&node) else {
                    return Err(transient("there is no such Node"));
                };
                known.labelled = true;
            }
            ClusterAsk::BringIn { part } => {
                self.reach_api()?;
                self.bring_in(node, *part);
            }
            // What its containers are runs on, and nobody else needs its kubelet.
            _ => self.reach(node)?,
        }
        Ok(())
    }

    /// A connection to a machine's own system.
    fn reach(&mut self, node: u32) -> Result<(), Failure> {
        match self.answer(node) {
            Answer::System => Ok(()),
            Answer::Nobody => Err(transient("nobody answers at the address")),
            Answer::Foreign => Err(Failure::new(
                FailureKind::Refused,
                "the machine shows another host key than the one made for it",
            )),
        }
    }

    fn reach_api(&self) -> Result<(), Failure> {
        if self.api_answers() {
            Ok(())
        } else {
            Err(transient("no server answers for the cluster"))
        }
    }

    fn join_status(&mut self, node: u32, cx: &ClusterStep<'_>) -> JoinStatus {
        let boot = self.own_boot(node).unwrap_or(0);
        let lies = self.is_sabotaged(Sabotage::RemovesWhatJoins)
            && cx.step.node == self.machine(node).spec.name;
        let machine = self.machine(node);
        let (unit, root) = (machine.unit, &machine.root);
        JoinStatus {
            boot_id: boot_id(boot),
            joined: root.joined && !lies,
            begun: (root.began || root.joined) && !lies,
            entered: root.entered,
            unit,
            reason: (unit == JoinUnit::Failed)
                .then(|| "the servers don't know its token".to_owned()),
        }
    }

    /// The other servers of the plan, and their places.
    fn others(&self, cx: &ClusterStep<'_>) -> Vec<(NodeName, u32)> {
        let names = cx.plan.servers.keys();
        let others = names.filter(|name| **name != cx.step.node);
        others
            .filter_map(|name| Some((name.clone(), *self.places.get(name)?)))
            .collect()
    }

    fn open_apis(&self, cx: &ClusterStep<'_>) -> Vec<NodeName> {
        let mut others = self.others(cx);
        others.retain(|(_, place)| self.api_answers() && self.is_healthy(*place));
        others.into_iter().map(|(name, _)| name).collect()
    }

    fn other_servers(&mut self, cx: &ClusterStep<'_>) -> Vec<OtherServer> {
        let blind = self.is_sabotaged(Sabotage::JoinsBlindly);
        let mut others = self.others(cx);
        others.retain(|_| !blind);
        others
            .into_iter()
            .map(|(name, place)| OtherServer {
                status: (self.answer(place) == Answer::System).then(|| self.join_status(place, cx)),
                name,
            })
            .collect()
    }

    fn node_seen(&self, node: u32, cx: &ClusterStep<'_>) -> Option<NodeSeen> {
        let waits = matches!(cx.step.action, Action::AwaitReady { .. });
        let Some(known) = self.cluster.nodes.get(&node) else {
            // What was there once is waited for.
            return (waits && self.is_sabotaged(Sabotage::WaitsForTheDeleted)).then(|| NodeSeen {
                boot_id: boot_id(self.own_boot(node).unwrap_or(0)),
                ..NodeSeen::default()
            });
        };
        let mut seen = NodeSeen {
            uid: hex_of(u64::from(node) ^ 0x0d1d, 32),
            boot_id: boot_id(known.boot),
            kubelet_version: VERSION.to_owned(),
            ready: self.is_called_ready(node, known),
            ..NodeSeen::default()
        };
        if let (
            true,
            Action::AwaitReady {
                labels,
                annotations,
                taints,
            },
        ) = (known.labelled, &cx.step.action)
        {
            seen.labels.clone_from(labels);
            seen.annotations.clone_from(annotations);
            seen.taints.clone_from(taints);
        }
        Some(seen)
    }

    fn members_seen(&self) -> EtcdMembers {
        let blind = self.is_sabotaged(Sabotage::JoinsBlindly);
        let members = self.cluster.members.iter();
        let members = members.filter_map(|(place, of)| {
            let spec = &self.machines.get(*place as usize)?.spec;
            let started = *of != Member::Added;
            Some(EtcdMember {
                id: u64::from(*place) + 1,
                name: if started {
                    spec.name.to_string()
                } else {
                    String::new()
                },
                client_urls: Vec::new(),
                peer_urls: vec![format!("https://{}:2380", spec.address)],
                is_learner: *of != Member::Votes && !blind,
                healthy: Some(blind || (started && self.is_healthy(*place))),
            })
        });
        EtcdMembers {
            members: members.collect(),
        }
    }

    /// What the workloads of a part say: all of them the same.
    fn rollout(&self, workload: Workload) -> Option<Rollout> {
        let part = part_of(workload.name);
        self.cluster.parts.get(&part).map(|from_ms| Rollout {
            kind: workload.kind,
            generation: 1,
            observed_generation: 1,
            wanted: 1,
            updated: 1,
            available: i64::from(self.clock.now_ms() >= *from_ms),
            stalled: None,
        })
    }

    fn root_application(&self) -> Option<ApplicationSeen> {
        let from_ms = self.cluster.parts.get(&BootstrapPart::RootApp)?;
        let healthy = self.clock.now_ms() >= *from_ms;
        let (sync, health) = if healthy {
            ("Synced", "Healthy")
        } else {
            ("OutOfSync", "Progressing")
        };
        Some(ApplicationSeen {
            sync: sync.to_owned(),
            health: health.to_owned(),
            ..ApplicationSeen::default()
        })
    }

    /// A member is taken off etcd's list for what its machine was before.
    fn member_removed(&mut self, node: u32, cx: &ClusterStep<'_>, id: u64) {
        let Some(member) = id.checked_sub(1).and_then(|id| u32::try_from(id).ok()) else {
            return;
        };
        if self.is_sabotaged(Sabotage::ReplacesNobody) {
            return;
        }
        let whole = self.cluster.spares(member, |m| self.is_healthy(m));
        let name = self.name(member);
        let root = &self.machine(member).root;
        // kubeadm takes away what it began, and begins anew.
        let keeps = cx.plan.distribution != Distribution::Kubeadm;
        let holds = root.joined || root.entered || (root.datastore && keeps);
        let mut shared = self.shared.borrow_mut();
        shared.checkers.on_member_removed(member, whole);
        if holds {
            shared.checkers.on_member_lost(&name, "removed as it joins");
        }
        drop(shared);
        self.cluster.members.remove(&member);
        self.note(node, || "its former member of etcd was removed".to_owned());
    }

    /// The unit that joins the machine is started.
    fn start_join(&mut self, node: u32, cx: &ClusterStep<'_>) {
        let founds = matches!(cx.step.action, Action::FoundCluster);
        let machine = self.machine(node);
        let (server, joined) = (
            machine.spec.role == Some(ClusterRole::Server),
            machine.root.joined,
        );
        if server && !founds && !joined {
            let settled = self.cluster.takes(node, |member| self.is_healthy(member));
            let mut others = self.others(cx).into_iter();
            let beside = others.find(|(_, place)| {
                self.answer(*place) == Answer::System && {
                    let other = self.machine(*place);
                    other.unit == JoinUnit::Activating && !other.root.joined
                }
            });
            let mut shared = self.shared.borrow_mut();
            shared
                .checkers
                .on_server_told(node, settled, beside.map(|(name, _)| name));
        }
        let kubeadm = cx.plan.distribution == Distribution::Kubeadm;
        let machine = self.machine(node);
        let anew = kubeadm && machine.root.began && !machine.root.entered;
        machine.root.began = true;
        machine.unit = JoinUnit::Activating;
        if !founds && !joined {
            let refused = self.hit(node, FaultKind::TokenRefused);
            let machine = self.machine(node);
            machine.token_refused |= refused;
            if machine.token_refused {
                machine.unit = JoinUnit::Failed;
                return;
            }
        }
        if anew && self.machine(node).root.datastore {
            // `kubeadm reset`
            self.machine(node).root.datastore = false;
            self.machine(node).kube = Kube::Off;
            if founds && self.cluster.members.keys().all(|member| *member == node) {
                self.cluster = Cluster::default();
            }
        }
        if self.machine(node).kube == Kube::Off {
            self.start_kube(node);
        } else {
            self.join_may_end(node);
        }
    }

    /// A kubelet registers when it starts, and never again.
    fn start_kubelet_anew(&mut self, node: u32) {
        if self.machine(node).kube != Kube::Up || self.is_sabotaged(Sabotage::WaitsForTheDeleted) {
            return;
        }
        self.machine(node).kube = Kube::Starting;
        let start = self.profile.kube_restart;
        let start_ms = start.draw(&mut self.machine(node).rng);
        self.soon(node, start_ms, Turn::KubeUp);
    }

    /// What of a part isn't there is brought in.
    fn bring_in(&mut self, node: u32, part: BootstrapPart) {
        if self.cluster.parts.contains_key(&part) {
            return;
        }
        let (spread, fault) = match part {
            BootstrapPart::Network => (self.profile.network_ready, FaultKind::NetworkSlow),
            BootstrapPart::Secrets => (self.profile.ssh, FaultKind::ApiDown),
            BootstrapPart::ArgoCd => (self.profile.argocd_ready, FaultKind::ArgoDegraded),
            BootstrapPart::RootApp => (self.profile.root_synced, FaultKind::SyncRetries),
        };
        let mut takes_ms = spread.draw(&mut self.machine(node).rng);
        if part != BootstrapPart::Secrets && self.hit(node, fault) {
            takes_ms += self.chance_between(0, UNHEALTHY_MS_MAX);
        }
        let never = self.is_sabotaged(Sabotage::NetworkNeverReady);
        let from_ms = if never {
            u64::MAX
        } else {
            self.now_ms() + takes_ms
        };
        self.cluster.parts.insert(part, from_ms);
        self.shared.borrow_mut().checkers.on_part(part);
        self.note(node, || format!("{part} is brought in"));
    }

    /// What a controller claims that calls anything ready.
    fn claimed(&self, node: u32, action: &Action) -> Option<Evidence> {
        if !self.is_sabotaged(Sabotage::CallsAnythingReady) {
            return None;
        }
        let boot_id = boot_id(self.own_boot(node).unwrap_or(0));
        match action {
            Action::AwaitReady { .. } => Some(Evidence::Ready {
                boot_id,
                kubelet_version: VERSION.to_owned(),
            }),
            action if action.makes_member() => Some(Evidence::Joined {
                boot_id,
                uid: hex_of(u64::from(node) ^ 0x0d1d, 32),
                etcd_voters: self.cluster.voters().max(1),
            }),
            _ => None,
        }
    }
}

fn transient(message: &str) -> Failure {
    Failure::new(FailureKind::Transient, message)
}

/// The part that a workload or a CRD belongs to.
fn part_of(name: &str) -> BootstrapPart {
    if name.contains("argo") {
        BootstrapPart::ArgoCd
    } else {
        BootstrapPart::Network
    }
}
