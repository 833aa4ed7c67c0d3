//! Losses that a test aims at one step of one machine: what the step stands on is taken away while it
//! is under way.

use undercroft_engine::Order;
use undercroft_model::{BootstrapPart, Work};
use undercroft_steps::JoinUnit;

use super::{Ev, SimWorld, Turn};
use crate::{
    cluster::Cluster,
    machine::{Kube, Root, Running, Table},
};

/// How long what comes back by itself is away, in milliseconds.
const AWAY_MS: u64 = 5 * 60_000;

/// How long nobody reaches the others of a machine that has left its cluster, in milliseconds: longer than all tries of its
/// step.
const OTHERS_AWAY_MS: u64 = 60 * 60_000;

/// What is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Power, for half a minute.
    Power,
    /// Power, until a person comes.
    PowerForGood,
    /// The network, for a while.
    Network,
    /// The address: another machine answers there for a while.
    Address,
    /// What is on its disks, and its power for half a minute.
    Disks,
    /// What it holds of its cluster, while nobody reaches any other machine for an hour: somebody has told it to leave.
    ClusterUnseen,
    /// The system that it runs: it is started from the network.
    System,
    /// What was mounted in its installer.
    Mounts,
    /// Every approval.
    Approvals,
    /// Its Node.
    Node,
    /// Its member of etcd.
    Member,
    /// The cluster's API, for a while.
    Api,
    /// Something that was brought into the cluster.
    Part(BootstrapPart),
}

impl Loss {
    pub(crate) const ALL: [Self; 15] = [
        Self::Power,
        Self::PowerForGood,
        Self::Network,
        Self::Address,
        Self::Disks,
        Self::System,
        Self::Mounts,
        Self::Approvals,
        Self::Node,
        Self::Member,
        Self::Api,
        Self::Part(BootstrapPart::Network),
        Self::Part(BootstrapPart::Secrets),
        Self::Part(BootstrapPart::ArgoCd),
        Self::Part(BootstrapPart::RootApp),
    ];
}

/// One loss, aimed at the first try of one step.
#[derive(Debug, Clone)]
pub(crate) struct TargetedLoss {
    pub(crate) node: &'static str,
    pub(crate) verb: &'static str,
    /// How long after the try has begun, in milliseconds.
    pub(crate) delay_ms: u64,
    /// Before which of its asks, from 0, rather than after some time.
    pub(crate) before_ask: Option<usize>,
    /// How much it has asked.
    asked: usize,
    pub(crate) loss: Loss,
    /// What is lost after it.
    pub(crate) then: Option<Box<TargetedLoss>>,
    /// Whether it has happened, and there was something to lose.
    pub(crate) happened: bool,
    /// Whether it has happened, or had nothing to take.
    pub(crate) is_over: bool,
    /// The machine, once its step has begun.
    armed_for: Option<u32>,
}

impl TargetedLoss {
    pub(crate) fn new(node: &'static str, verb: &'static str, delay_ms: u64, loss: Loss) -> Self {
        Self {
            node,
            verb,
            delay_ms,
            before_ask: None,
            asked: 0,
            loss,
            then: None,
            happened: false,
            is_over: false,
            armed_for: None,
        }
    }

    /// A loss at the moment between two asks of a step of the cluster's.
    pub(crate) fn before_ask(
        node: &'static str,
        verb: &'static str,
        ask: usize,
        loss: Loss,
    ) -> Self {
        Self {
            before_ask: Some(ask),
            ..Self::new(node, verb, 0, loss)
        }
    }
}

impl SimWorld {
    /// An operation is started: perhaps the one that a loss is aimed at.
    pub(super) fn arm_loss(&mut self, node: u32, order: &Order) {
        let verb = order.planned().map(|step| step.action.verb());
        let Some(target) = &mut self.targeted_loss else {
            return;
        };
        let here = order.node.as_str() == target.node && verb == Some(target.verb);
        if here && order.work == Work::Act && target.armed_for.is_none() {
            target.armed_for = Some(node);
            if target.before_ask.is_none() {
                self.clock.after(target.delay_ms, Ev::TargetedLoss);
            }
        }
    }

    /// A step of the cluster's is about to ask: perhaps what a loss is aimed at.
    pub(super) fn cluster_asks(&mut self, node: u32, order: &Order) {
        let verb = order.planned().map(|step| step.action.verb());
        let Some(target) = &mut self.targeted_loss else {
            return;
        };
        if order.work != Work::Act || target.armed_for != Some(node) || verb != Some(target.verb) {
            return;
        }
        let now = target.before_ask == Some(target.asked) && !target.is_over;
        target.asked += 1;
        if now {
            self.inject_loss();
        }
    }

    /// Whether the cluster stays one, or is gone whole, without what is on a machine's disks: without
    /// its majority, and not gone, it is beyond anybody's repair.
    fn can_spare(&self, node: u32) -> bool {
        match self.cluster.members.get(&node) {
            None => true,
            Some(_) => self.cluster.voters() >= 3 || self.cluster.members.len() == 1,
        }
    }

    pub(super) fn inject_loss(&mut self) {
        let Some(target) = self.targeted_loss.clone() else {
            return;
        };
        let Some(node) = target.armed_for else {
            return;
        };
        self.note(node, || format!("LOSS: {:?}", target.loss));
        let happened = self.take_away(node, target.loss);
        if let Some(target) = &mut self.targeted_loss {
            target.happened = happened;
            target.is_over = true;
            if let Some(then) = target.then.take() {
                *target = *then;
            }
        }
    }

    /// Takes something from a machine, or from the cluster. Gives whether there was anything to take.
    fn take_away(&mut self, node: u32, loss: Loss) -> bool {
        let now_ms = self.now_ms();
        match loss {
            Loss::Power | Loss::PowerForGood => {
                let ran = self.machine(node).running != Running::Off;
                self.cut(node);
                if loss == Loss::Power {
                    self.soon(node, 30_000, Turn::PowerBack);
                }
                ran
            }
            Loss::Network => {
                self.network_lost(node, AWAY_MS);
                true
            }
            Loss::Address => {
                self.machine(node).hijacked_until_ms = now_ms + AWAY_MS;
                true
            }
            Loss::Disks if !self.can_spare(node) => false,
            Loss::ClusterUnseen => {
                self.cluster_may_be_gone(node);
                let others_have_it = self.cluster.founded;
                let machine = self.machine(node);
                // Only a person can say who is to found, and who to join.
                machine.lost_disk = others_have_it;
                let had = std::mem::take(&mut machine.root.joined);
                machine.root.began = false;
                machine.root.entered = false;
                machine.root.datastore = false;
                machine.kube = Kube::Off;
                machine.unit = JoinUnit::Inactive;
                let others = (0u32..).zip(&self.machines).map(|(place, _)| place);
                let others: Vec<u32> = others.filter(|place| *place != node).collect();
                for place in others {
                    self.network_lost(place, OTHERS_AWAY_MS);
                }
                had
            }
            Loss::Disks => {
                self.take_disks(node);
                true
            }
            Loss::System => {
                self.cut(node);
                self.machine(node).network_once = true;
                self.power_on(node);
                true
            }
            Loss::Mounts => match &mut self.machine(node).running {
                Running::Installer(instance) => std::mem::take(&mut instance.mounted),
                _ => false,
            },
            Loss::Approvals => !std::mem::take(&mut self.approvals).is_empty(),
            Loss::Node => self.cluster.nodes.remove(&node).is_some(),
            // Without a majority of the others nothing is left that could be mended.
            Loss::Member if self.cluster.voters() < 3 => false,
            Loss::Member => self.cluster.members.remove(&node).is_some(),
            Loss::Api => {
                self.cluster.down_until_ms = now_ms + AWAY_MS;
                self.cluster.founded
            }
            Loss::Part(part) => self.cluster.parts.remove(&part).is_some(),
        }
    }

    /// All that the cluster was goes with its only member.
    fn cluster_may_be_gone(&mut self, node: u32) {
        if self.cluster.members.len() == 1 && self.cluster.members.contains_key(&node) {
            self.cluster = Cluster::default();
        }
    }

    fn take_disks(&mut self, node: u32) {
        self.cut(node);
        self.cluster_may_be_gone(node);
        let machine = self.machine(node);
        machine.lost_disk = machine.ever_up;
        let lost = machine.lost_disk;
        machine.root = Root::empty();
        for disk in &mut machine.disks {
            disk.table = Table::Foreign;
        }
        self.disk_lost |= lost;
        self.shared.borrow_mut().checkers.on_disk_lost(node);
        self.soon(node, 30_000, Turn::PowerBack);
    }
}
