//! The cluster as it is, and what its machines do by themselves.

use undercroft_model::{BootstrapPart, ClusterNode, ClusterObservation, ClusterRole};
use undercroft_steps::JoinUnit;

use super::{Sabotage, SimWorld, Turn};
use crate::{
    cluster::{Member, Registered, STALE_READY_MS},
    faults::FaultKind,
    fleet::boot_id,
    machine::{Kube, Running},
};

/// How long a kubelet or etcd waits before it asks again, in milliseconds.
const ASK_AGAIN_MS: u64 = 10_000;
/// The longest that something takes until it is healthy when it isn't at first, in milliseconds.
pub(super) const UNHEALTHY_MS_MAX: u64 = 25 * 60_000;
/// The version that everything has.
pub(super) const VERSION: &str = "v1.34.2+k3s1";

impl SimWorld {
    /// Whether a machine's part of Kubernetes runs and the others reach it.
    pub(super) fn is_healthy(&self, node: u32) -> bool {
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
    pub(super) fn own_boot(&self, node: u32) -> Option<u64> {
        match &self.machines.get(usize::try_from(node).ok()?)?.running {
            Running::System { boot, .. } => Some(*boot),
            _ => None,
        }
    }

    /// Whether a machine is in the cluster, in the boot that it is in, and votes where it is a server.
    pub(super) fn is_joined(&self, node: u32) -> bool {
        let registered = self.cluster.nodes.get(&node).map(|known| known.boot);
        let machine = self.machines.get(node as usize);
        let server = machine.is_some_and(|m| m.spec.role == Some(ClusterRole::Server));
        registered.is_some()
            && registered == self.own_boot(node)
            && self.is_healthy(node)
            && (!server || self.cluster.votes(node))
    }

    /// Whether Kubernetes calls a Node Ready: its kubelet says so, or has said so a moment ago.
    pub(super) fn is_called_ready(&self, node: u32, known: &Registered) -> bool {
        let now_ms = self.clock.now_ms();
        let said_ms = match self.is_healthy(node) {
            true if self.own_boot(node) == Some(known.boot) => now_ms,
            _ => known.silent_since_ms,
        };
        let network_ms = self.cluster.parts.get(&BootstrapPart::Network);
        now_ms < said_ms.saturating_add(STALE_READY_MS)
            && said_ms >= known.ready_from_ms
            && network_ms.is_some_and(|from_ms| said_ms >= *from_ms)
    }

    /// Nobody hears of a machine's kubelet from now on.
    pub(super) fn kubelet_falls_silent(&mut self, node: u32) {
        let now_ms = self.now_ms();
        if self.is_healthy(node)
            && let Some(known) = self.cluster.nodes.get_mut(&node)
        {
            known.silent_since_ms = now_ms;
        }
    }

    /// Whether a machine is Ready, as it should be, in the boot that it is in.
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
                etcd_voter: self.cluster.votes(*node) && self.is_healthy(*node),
                kubelet_version: VERSION.to_owned(),
                closed_by: None,
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

    /// A machine's part of Kubernetes starts: it draws its images first.
    pub(super) fn start_kube(&mut self, node: u32) {
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
        if server && !self.machine(node).root.datastore {
            if !self.enter_etcd(node) {
                return self.soon(node, ASK_AGAIN_MS, Turn::KubeUp);
            }
            if self.cluster.members.get(&node) == Some(&Member::Added)
                && self.hit(node, FaultKind::PowerLoss)
            {
                // It was added, and never started.
                return self.power_cut(node, None);
            }
            self.machine(node).root.datastore = true;
            self.note(node, || "is a member of etcd".to_owned());
        }
        self.machine(node).kube = Kube::Up;
        if let Some(member) = self.cluster.members.get_mut(&node)
            && *member != Member::Votes
        {
            *member = Member::Learns;
            let catch_up = self.profile.etcd_catch_up;
            let catch_up_ms = catch_up.draw(&mut self.machine(node).rng);
            self.soon(node, catch_up_ms, Turn::EtcdVotes);
        }
        self.register(node);
    }

    /// A server's etcd is founded, or added to the others'. Gives whether it was.
    fn enter_etcd(&mut self, node: u32) -> bool {
        let founds = self.machine(node).spec.founds || self.is_sabotaged(Sabotage::FoundsAgain);
        if founds {
            let before = self.cluster.founded;
            self.shared.borrow_mut().checkers.on_founded(node, before);
            self.cluster.founded = true;
            self.cluster.members.insert(node, Member::Votes);
            return true;
        }
        let blind = self.is_sabotaged(Sabotage::JoinsBlindly);
        let whole = self.cluster.takes(node, |member| self.is_healthy(member));
        if !(blind || self.api_answers() && whole) {
            return false;
        }
        // What was added by a join that was cut off is gone on with.
        if !self.cluster.members.contains_key(&node) {
            self.shared.borrow_mut().checkers.on_member(node, whole);
            self.cluster.members.insert(node, Member::Added);
        }
        true
    }

    pub(super) fn etcd_votes(&mut self, node: u32) {
        if let Some(member) = self.cluster.members.get_mut(&node) {
            *member = Member::Votes;
        }
    }

    /// A kubelet registers with the API, as soon as that answers.
    pub(super) fn register(&mut self, node: u32) {
        let Some(boot) = self.own_boot(node) else {
            return;
        };
        // One that was stopped while it waited for the API: the one that starts in its place registers.
        if self.machine(node).kube != Kube::Up {
            return;
        }
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
            silent_since_ms: 0,
            labelled: false,
        });
        known.boot = boot;
        known.ready_from_ms = ready_from_ms;
        self.machine(node).root.entered = true;
        self.note(node, || "its kubelet has registered".to_owned());
        self.join_may_end(node);
    }

    /// The unit that joins a machine ends when its kubelet has registered.
    pub(super) fn join_may_end(&mut self, node: u32) {
        let registered = self.cluster.nodes.get(&node).map(|known| known.boot);
        let machine = self.machine(node);
        let here =
            matches!(&machine.running, Running::System { boot, .. } if Some(*boot) == registered);
        if here && machine.kube == Kube::Up && machine.unit == JoinUnit::Activating {
            machine.unit = JoinUnit::Active;
            machine.root.joined = true;
        }
    }
}
