//! What a member of the cluster stands on, and how it comes out that it is gone.
//!
//! The real world finds out the same, by the same looks: what answers at the machine's address, the
//! cluster's Node of it, etcd's list of members, the objects that were brought in.

use undercroft_model::{Action, BootstrapPart, ClusterRole, Failure, FailureKind};

use super::{Sabotage, SimWorld};
use crate::machine::Running;

/// What answers at a machine's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Its own system.
    System,
    /// Something under another host key: another machine, or its installer.
    Foreign,
    /// Nobody.
    Nobody,
}

impl SimWorld {
    pub(super) fn answer(&mut self, node: u32) -> Answer {
        let now_ms = self.now_ms();
        let machine = self.machine(node);
        if !machine.is_connected(now_ms) {
            return Answer::Nobody;
        }
        if now_ms < machine.hijacked_until_ms {
            return Answer::Foreign;
        }
        match &machine.running {
            Running::System { key, .. } if *key == machine.spec.host_key => Answer::System,
            Running::System { .. } | Running::Installer(_) => Answer::Foreign,
            _ => Answer::Nobody,
        }
    }

    /// What a step that asks the machine itself makes of another key than its own.
    pub(super) fn foreign() -> Failure {
        let message = "the machine shows another host key than the one made for it";
        Failure::new(FailureKind::Refused, message)
    }

    /// What a step of a member's has lost of what it stands on, as far as a look at the cluster
    /// shows. Nothing is lost of a cluster that doesn't answer: it can't be looked at.
    pub(super) fn lost_ground(&mut self, node: u32, action: &Action) -> Option<Failure> {
        if !self.api_answers() || self.is_sabotaged(Sabotage::WaitsForTheDeleted) {
            return None;
        }
        let before = match action {
            Action::AwaitReady { .. } if self.machine(node).spec.founds => BootstrapPart::Secrets,
            Action::AwaitReady { .. } => BootstrapPart::Network,
            Action::Bootstrap { part } => *part,
            _ => return None,
        };
        let lost = |message: String| Some(Failure::new(FailureKind::PreconditionLost, message));
        if !self.cluster.nodes.contains_key(&node) {
            return lost("the cluster doesn't know its Node any more".to_owned());
        }
        if self.lost_member(node) {
            return lost("etcd has no member of it any more".to_owned());
        }
        let mut earlier = BootstrapPart::ALL.into_iter().filter(|p| *p < before);
        let missing = earlier.find(|part| !self.cluster.parts.contains_key(part));
        missing.and_then(|part| lost(format!("{part} was brought in, and is gone")))
    }

    /// What a join makes of a server that was taken out of etcd: what it holds can't come back.
    pub(super) fn lost_membership(&mut self, node: u32) -> Option<Failure> {
        (self.api_answers() && self.lost_member(node)).then(|| {
            let message = "it has joined, and etcd has no member of it any more";
            Failure::new(FailureKind::Permanent, message)
        })
    }

    /// Whether a server that has joined is no member of etcd any more.
    pub(super) fn lost_member(&mut self, node: u32) -> bool {
        let known = self.cluster.members.contains_key(&node);
        let machine = self.machine(node);
        machine.spec.role == Some(ClusterRole::Server) && machine.root.joined && !known
    }
}
