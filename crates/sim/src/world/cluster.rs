//! The cluster's steps: what they do, what they wait for, and what its machines do by themselves.

use undercroft_engine::Order;
use undercroft_model::{
    Action, BootstrapPart, ClusterNode, ClusterObservation, ClusterRole, Evidence, FailureKind,
    OpId, Outcome,
};

use super::{Ev, Sabotage, SimWorld, Stage, Turn, command::CONNECT_MS_MAX, ground::Answer};
use crate::{
    cluster::{Cluster, Registered},
    faults::FaultKind,
    fleet::boot_id,
    machine::{Kube, Running},
};

/// How often a step looks again at what it waits for, in milliseconds.
const LOOK_MS: u64 = 5000;
/// How long a look waits for the cluster's API, in milliseconds.
const API_WAIT_MS: u64 = 90_000;
/// How long a kubelet or etcd waits before it asks again, in milliseconds.
const ASK_AGAIN_MS: u64 = 10_000;
/// The longest that the API is away for a while, in milliseconds.
const API_DOWN_MS_MAX: u64 = 10 * 60_000;
/// The longest that something takes until it is healthy when it isn't at first, in milliseconds.
const UNHEALTHY_MS_MAX: u64 = 25 * 60_000;
/// From the beginning of a step that only waits for the cluster, the longest until its machine
/// loses its power, in milliseconds.
const POWER_LOST_MS_MAX: u64 = 5 * 60_000;
/// The version that everything has.
const VERSION: &str = "v1.34.2+k3s1";

impl SimWorld {
    /// Whether a machine's part of Kubernetes runs and the others reach it.
    fn is_healthy(&self, node: u32) -> bool {
        let machine = usize::try_from(node)
            .ok()
            .and_then(|n| self.machines.get(n));
        machine.is_some_and(|m| m.kube == Kube::Up && m.is_connected(self.clock.now_ms()))
    }

    /// Whether the cluster's API answers.
    pub(crate) fn api_answers(&self) -> bool {
        self.cluster.founded
            && self.clock.now_ms() >= self.cluster.down_until_ms
            && self.cluster.has_quorum(|member| self.is_healthy(member))
    }

    /// The boot of a machine's own system, whether anybody reaches it or not.
    fn own_boot(&self, node: u32) -> Option<u64> {
        match &self.machines.get(usize::try_from(node).ok()?)?.running {
            Running::System { boot, .. } => Some(*boot),
            _ => None,
        }
    }

    fn is_joined(&self, node: u32) -> bool {
        let registered = self.cluster.nodes.get(&node).map(|known| known.boot);
        let machine = self.machines.get(node as usize);
        let server = machine.is_some_and(|m| m.spec.role == Some(ClusterRole::Server));
        let votes = self.cluster.members.get(&node).copied();
        registered.is_some()
            && registered == self.own_boot(node)
            && self.is_healthy(node)
            && votes.unwrap_or(!server)
    }

    /// Whether Kubernetes calls a machine Ready.
    pub(crate) fn is_ready(&self, node: u32) -> bool {
        let now_ms = self.clock.now_ms();
        let known = self.cluster.nodes.get(&node);
        self.is_joined(node)
            && self.cluster.has(BootstrapPart::Network, now_ms)
            && known.is_some_and(|known| known.labelled && now_ms >= known.ready_from_ms)
    }

    /// What a look at the API shows, where it answers.
    pub(crate) fn look_at_cluster(&self) -> Option<ClusterObservation> {
        if !self.api_answers() {
            return None;
        }
        let now_ms = self.clock.now_ms();
        let node = |node: &u32, known: &Registered| {
            let name = &self.machines.get(usize::try_from(*node).ok()?)?.spec.name;
            let seen = ClusterNode {
                boot_id: boot_id(known.boot),
                ready: self.is_ready(*node),
                as_planned: known.labelled,
                etcd_voter: self.cluster.members.get(node).copied().unwrap_or(false)
                    && self.is_healthy(*node),
                kubelet_version: VERSION.to_owned(),
            };
            Some((name.clone(), seen))
        };
        Some(ClusterObservation {
            version: VERSION.to_owned(),
            nodes: self
                .cluster
                .nodes
                .iter()
                .filter_map(|(place, known)| node(place, known))
                .collect(),
            parts: BootstrapPart::ALL
                .into_iter()
                .filter(|part| self.cluster.has(*part, now_ms))
                .collect(),
        })
    }

    /// Looks again later.
    fn wait(&mut self, op: OpId) {
        self.clock.after(LOOK_MS, Ev::Arrived(op));
    }

    /// A step of the cluster has arrived, or looks again at what it waits for.
    pub(super) fn cluster_act(&mut self, op: OpId, node: u32, order: &Order) {
        let Some(action) = order.planned().map(|step| step.action.clone()) else {
            return;
        };
        let first = match self.ops.get_mut(&op) {
            Some(known) => {
                let first = matches!(known.stage, Stage::Going);
                known.stage = Stage::Clustering;
                first
            }
            None => return,
        };
        if first && self.cluster.founded && self.hit(node, FaultKind::ApiDown) {
            let for_ms = self.chance_between(LOOK_MS, API_DOWN_MS_MAX);
            self.cluster.down_until_ms = self.now_ms() + for_ms;
        }
        if first && !action.makes_member() {
            self.power_may_fail(node, POWER_LOST_MS_MAX, None);
            self.disk_may_be_lost(node);
            let known = self.cluster.nodes.contains_key(&node);
            if known && self.hit(node, FaultKind::NodeDeleted) {
                self.cluster.nodes.remove(&node);
            }
        }
        let asks_it = matches!(action, Action::AwaitReady { .. });
        if first && asks_it && self.answer(node) == Answer::Foreign {
            let failure = Self::foreign();
            return self.reply(op, 0, Outcome::Failed { failure });
        }
        if let Some(failure) = self.lost_ground(node, &action) {
            return self.reply(op, 0, Outcome::Failed { failure });
        }
        match action {
            Action::FoundCluster => self.join(op, node, first, false),
            Action::JoinCluster { replaces, .. } => self.join(op, node, first, replaces),
            Action::AwaitReady { .. } => self.await_ready(op, node),
            Action::Bootstrap { part } => self.bring_in(op, node, part),
            _ => {}
        }
    }

    fn join(&mut self, op: OpId, node: u32, first: bool, replaces: bool) {
        match self.answer(node) {
            Answer::System => {}
            Answer::Nobody => return self.wait(op),
            Answer::Foreign => {
                let failure = Self::foreign();
                return self.reply(op, 0, Outcome::Failed { failure });
            }
        }
        if let Some(failure) = self.lost_membership(node) {
            return self.reply(op, 0, Outcome::Failed { failure });
        }
        if self.is_joined(node) || self.is_sabotaged(Sabotage::CallsAnythingReady) {
            if self.hit(node, FaultKind::SshDies) {
                let message = "the connection was lost";
                return self.fail(op, 0, FailureKind::Ambiguous, message);
            }
            let evidence = self.joined_evidence(node);
            return self.done(op, 0, evidence);
        }
        if replaces {
            self.replace(node);
        }
        if self.machine(node).kube == Kube::Off {
            let founds = self.machine(node).spec.founds;
            if founds && self.cluster.founded && !self.machine(node).root.datastore {
                let message = "another server answers for a cluster already";
                return self.fail(op, 0, FailureKind::Refused, message);
            }
            let member = self.cluster.members.contains_key(&node);
            if member
                && !self.machine(node).root.datastore
                && !self.is_sabotaged(Sabotage::JoinsBlindly)
            {
                if self.api_answers() && !replaces {
                    let message = "etcd has a member that the machine was";
                    return self.fail(op, 0, FailureKind::Permanent, message);
                }
                return self.wait(op);
            }
            if first && !founds && self.hit(node, FaultKind::TokenRefused) {
                let message = "the servers don't know its token";
                return self.fail(op, 0, FailureKind::Permanent, message);
            }
            if founds || self.may_begin_to_join(node) {
                self.start_kube(node);
            }
        } else if first && self.api_answers() && !self.cluster.nodes.contains_key(&node) {
            self.start_kubelet_anew(node);
        }
        self.wait(op);
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

    /// What the cluster knows of a machine as it was before it was installed anew is removed.
    fn replace(&mut self, node: u32) {
        let begun = self.machine(node).root.datastore || self.machine(node).root.joined;
        let blind = self.is_sabotaged(Sabotage::RemovesWhatJoins);
        if !self.api_answers() || (begun && !blind) || self.is_sabotaged(Sabotage::ReplacesNobody) {
            return;
        }
        if self.cluster.members.contains_key(&node) {
            let mut rest = self.cluster.members.clone();
            rest.remove(&node);
            let rest = Cluster {
                members: rest,
                ..Cluster::default()
            };
            let whole = rest.has_quorum(|member| self.is_healthy(member));
            if !whole {
                return;
            }
            let mut shared = self.shared.borrow_mut();
            shared.checkers.on_member_removed(node, whole);
            if begun {
                let name = self
                    .machines
                    .get(node as usize)
                    .map(|m| m.spec.name.clone());
                name.inspect(|name| shared.checkers.on_member_lost(name, "removed as it joins"));
            }
            drop(shared);
            self.cluster.members.remove(&node);
            self.note(node, || "its former member of etcd was removed".to_owned());
        }
        self.cluster.nodes.remove(&node);
    }

    /// Whether a machine may begin: a server only while etcd is whole and nobody else is on the way.
    fn may_begin_to_join(&mut self, node: u32) -> bool {
        if self.is_sabotaged(Sabotage::JoinsBlindly) {
            return true;
        }
        if !self.api_answers() {
            return false;
        }
        let machine = self.machine(node);
        if machine.spec.role != Some(ClusterRole::Server) || machine.root.datastore {
            return true;
        }
        let on_the_way = (0u32..).zip(&self.machines).any(|(other, m)| {
            other != node
                && m.spec.role == Some(ClusterRole::Server)
                && m.kube != Kube::Off
                && !m.root.datastore
        });
        let whole = self.cluster.takes_members(|member| self.is_healthy(member));
        whole && !on_the_way
    }

    fn joined_evidence(&mut self, node: u32) -> Evidence {
        let boot = self.own_boot(node).unwrap_or(0);
        let server = self.machine(node).spec.role == Some(ClusterRole::Server);
        Evidence::Joined {
            boot_id: boot_id(boot),
            uid: crate::fleet::hex_of(u64::from(node) ^ 0x0d1d, 32),
            etcd_voters: if server {
                self.cluster.voters().max(1)
            } else {
                0
            },
        }
    }

    fn await_ready(&mut self, op: OpId, node: u32) {
        if self.api_answers()
            && let Some(known) = self.cluster.nodes.get_mut(&node)
        {
            known.labelled = true;
        }
        let anything = self.is_sabotaged(Sabotage::CallsAnythingReady);
        if (self.api_answers() && self.is_ready(node)) || anything {
            let evidence = self.ready_evidence(node);
            return self.done(op, 0, evidence);
        }
        self.wait(op);
    }

    fn ready_evidence(&self, node: u32) -> Evidence {
        Evidence::Ready {
            boot_id: boot_id(self.own_boot(node).unwrap_or(0)),
            kubelet_version: VERSION.to_owned(),
        }
    }

    fn bring_in(&mut self, op: OpId, node: u32, part: BootstrapPart) {
        if !self.api_answers() {
            return self.wait(op);
        }
        let now_ms = self.now_ms();
        if self.cluster.has(part, now_ms) {
            return self.done(op, 0, brought_in(part));
        }
        if !self.cluster.parts.contains_key(&part) {
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
            let from_ms = if never { u64::MAX } else { now_ms + takes_ms };
            self.cluster.parts.insert(part, from_ms);
            self.shared.borrow_mut().checkers.on_part(part);
            self.note(node, || format!("{part} is brought in"));
        }
        self.wait(op);
    }

    /// Whether a step of the cluster is done.
    pub(super) fn cluster_probe(&mut self, op: OpId, node: u32, action: &Action) {
        let joins = action.makes_member();
        if joins || matches!(action, Action::AwaitReady { .. }) {
            match self.answer(node) {
                Answer::System => {}
                Answer::Nobody => {
                    let message = "nobody answers at the address";
                    return self.fail(op, CONNECT_MS_MAX, FailureKind::Transient, message);
                }
                Answer::Foreign => {
                    let failure = Self::foreign();
                    return self.reply(op, 0, Outcome::Failed { failure });
                }
            }
        }
        if (!joins || self.machine(node).root.joined) && !self.api_answers() {
            let message = "the cluster's API doesn't answer";
            return self.fail(op, API_WAIT_MS, FailureKind::Transient, message);
        }
        let lost = if joins {
            self.lost_membership(node)
        } else {
            self.lost_ground(node, action)
        };
        if let Some(failure) = lost {
            return self.reply(op, 0, Outcome::Failed { failure });
        }
        let now_ms = self.now_ms();
        let evidence = match action {
            Action::FoundCluster | Action::JoinCluster { .. } if self.is_joined(node) => {
                self.joined_evidence(node)
            }
            Action::AwaitReady { .. } if self.is_ready(node) => self.ready_evidence(node),
            Action::Bootstrap { part } if self.cluster.has(*part, now_ms) => brought_in(*part),
            _ => return self.reply(op, 0, Outcome::NotDone),
        };
        self.done(op, 0, evidence);
    }

    /// A machine's part of Kubernetes starts: it draws its images first.
    fn start_kube(&mut self, node: u32) {
        let start = self.profile.kube_start;
        let mut start_ms = start.draw(&mut self.machine(node).rng);
        if self.hit(node, FaultKind::SlowPull) {
            start_ms *= self.chance_between(3, 12);
        }
        self.machine(node).kube = Kube::Starting;
        self.soon(node, start_ms, Turn::KubeUp);
        self.power_may_fail(node, start_ms * 2, None);
    }

    /// A machine that is a member comes back into its cluster by itself.
    pub(super) fn kube_comes_back(&mut self, node: u32) {
        let machine = self.machine(node);
        if machine.root.joined || machine.root.datastore {
            machine.kube = Kube::Starting;
            let start = self.profile.kube_restart;
            let start_ms = start.draw(&mut self.machine(node).rng);
            self.soon(node, start_ms, Turn::KubeUp);
        }
    }

    pub(super) fn kube_up(&mut self, node: u32) {
        let server = self.machine(node).spec.role == Some(ClusterRole::Server);
        if server && !self.machine(node).root.datastore && !self.enter_etcd(node) {
            return self.soon(node, ASK_AGAIN_MS, Turn::KubeUp);
        }
        self.machine(node).kube = Kube::Up;
        if self.cluster.members.get(&node) == Some(&false) {
            let catch_up = self.profile.etcd_catch_up;
            let catch_up_ms = catch_up.draw(&mut self.machine(node).rng);
            self.soon(node, catch_up_ms, Turn::EtcdVotes);
        }
        self.register(node);
    }

    /// A server's etcd is founded, or added to the others'. Gives whether it was.
    fn enter_etcd(&mut self, node: u32) -> bool {
        let (founds, place) = (self.machine(node).spec.founds, node);
        let founds = founds || self.is_sabotaged(Sabotage::FoundsAgain);
        if founds {
            let before = self.cluster.founded;
            self.shared.borrow_mut().checkers.on_founded(place, before);
            self.cluster.founded = true;
            self.cluster.members.insert(node, true);
        } else {
            let blind = self.is_sabotaged(Sabotage::JoinsBlindly);
            let whole = self.cluster.takes_members(|member| self.is_healthy(member));
            if !(blind || self.api_answers() && whole) {
                return false;
            }
            self.shared.borrow_mut().checkers.on_member(place, whole);
            self.cluster.members.insert(node, false);
        }
        self.machine(node).root.datastore = true;
        self.note(node, || "is a member of etcd".to_owned());
        true
    }

    pub(super) fn etcd_votes(&mut self, node: u32) {
        if let Some(votes) = self.cluster.members.get_mut(&node) {
            *votes = true;
        }
    }

    /// A kubelet registers with the API, as soon as that answers.
    pub(super) fn register(&mut self, node: u32) {
        let Some(boot) = self.own_boot(node) else {
            return;
        };
        if !self.api_answers() {
            return self.soon(node, ASK_AGAIN_MS, Turn::Register);
        }
        let ready = self.profile.node_ready;
        let mut ready_ms = ready.draw(&mut self.machine(node).rng);
        if self.hit(node, FaultKind::NotReadyFlap) {
            ready_ms += self.chance_between(0, UNHEALTHY_MS_MAX);
        }
        let ready_from_ms = self.now_ms() + ready_ms;
        let known = self.cluster.nodes.entry(node).or_insert(Registered {
            boot,
            ready_from_ms,
            labelled: false,
        });
        known.boot = boot;
        known.ready_from_ms = ready_from_ms;
        self.machine(node).root.joined = true;
        self.note(node, || "its kubelet has registered".to_owned());
    }
}

fn brought_in(part: BootstrapPart) -> Evidence {
    let shown = match part {
        BootstrapPart::Network => "cilium 1/1 ready",
        BootstrapPart::Secrets => "all of them are there",
        BootstrapPart::ArgoCd => "its four deployments are available",
        BootstrapPart::RootApp => "Synced and Healthy",
    };
    Evidence::Bootstrapped {
        part,
        shown: shown.to_owned(),
    }
}
