//! The simulated cluster as it is: who is a member of etcd, whose kubelet has registered, what was
//! brought in.

use std::collections::BTreeMap;

use undercroft_model::BootstrapPart;

/// How long Kubernetes goes on calling a machine Ready whose kubelet is silent, in milliseconds: the node controller's
/// grace period (`--node-monitor-grace-period`, 40 s until Kubernetes 1.31).
pub(crate) const STALE_READY_MS: u64 = 40_000;

/// A Node object.
#[derive(Debug, Clone)]
pub(crate) struct Registered {
    /// The boot whose kubelet has registered.
    pub(crate) boot: u64,
    /// From when on its kubelet calls itself Ready, if the pods have a network.
    pub(crate) ready_from_ms: u64,
    /// When its kubelet fell silent last.
    pub(crate) silent_since_ms: u64,
    /// Whether it has its labels, annotations and taints.
    pub(crate) labelled: bool,
}

/// A member of etcd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Member {
    /// It was added, as a learner, and has not started.
    Added,
    /// It learns.
    Learns,
    /// It votes.
    Votes,
}

/// The cluster, from the moment at which it is founded.
#[derive(Debug, Default)]
pub(crate) struct Cluster {
    /// Whether somebody has founded it.
    pub(crate) founded: bool,
    /// The members of etcd.
    pub(crate) members: BTreeMap<u32, Member>,
    /// The Node objects.
    pub(crate) nodes: BTreeMap<u32, Registered>,
    /// The parts that were brought in, and from when on each is healthy.
    pub(crate) parts: BTreeMap<BootstrapPart, u64>,
    /// Until when its API doesn't answer although it could.
    pub(crate) down_until_ms: u64,
}

impl Cluster {
    /// Whether etcd has a majority of its votes, where those members are healthy, leaving one out.
    fn majority(&self, without: Option<u32>, is_healthy: impl Fn(u32) -> bool) -> bool {
        let voters = self.members.iter();
        let voters = voters.filter(|(member, of)| Some(**member) != without && of.votes());
        let (healthy, all) = voters.fold((0usize, 0usize), |(healthy, all), (member, _)| {
            (healthy + usize::from(is_healthy(*member)), all + 1)
        });
        healthy * 2 > all
    }

    /// Whether etcd has a majority of its votes, where those members are healthy.
    pub(crate) fn has_quorum(&self, is_healthy: impl Fn(u32) -> bool) -> bool {
        self.majority(None, is_healthy)
    }

    /// Whether it would have one without a member.
    pub(crate) fn spares(&self, member: u32, is_healthy: impl Fn(u32) -> bool) -> bool {
        self.majority(Some(member), is_healthy)
    }

    /// Whether that machine may come to etcd: all other members vote and are healthy.
    pub(crate) fn takes(&self, node: u32, is_healthy: impl Fn(u32) -> bool) -> bool {
        self.members
            .iter()
            .all(|(member, of)| *member == node || (of.votes() && is_healthy(*member)))
    }

    /// Whether a machine is a member that votes.
    pub(crate) fn votes(&self, node: u32) -> bool {
        self.members.get(&node).is_some_and(|of| of.votes())
    }

    /// Whether a part is healthy.
    pub(crate) fn has(&self, part: BootstrapPart, now_ms: u64) -> bool {
        self.parts.get(&part).is_some_and(|from| now_ms >= *from)
    }

    /// The number of members that vote.
    pub(crate) fn voters(&self) -> u32 {
        let voters = self.members.values().filter(|of| of.votes()).count();
        u32::try_from(voters).unwrap_or(u32::MAX)
    }
}

impl Member {
    fn votes(self) -> bool {
        self == Self::Votes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_of_the_votes_is_a_quorum() {
        let mut cluster = Cluster::default();
        assert!(!cluster.has_quorum(|_| true), "nobody votes");
        cluster.members = BTreeMap::from([(0, Member::Votes)]);
        assert!(cluster.has_quorum(|_| true));
        for of in [Member::Added, Member::Learns] {
            cluster.members.insert(1, of);
            assert!(cluster.has_quorum(|m| m == 0), "a learner has no vote");
            assert!(!cluster.takes(2, |_| true), "one learner at a time");
            assert!(cluster.takes(1, |_| true), "it is that learner itself");
        }
        cluster.members.insert(1, Member::Votes);
        assert!(!cluster.has_quorum(|m| m == 0));
        assert!(cluster.takes(2, |_| true) && !cluster.takes(2, |m| m == 0));
        assert!(cluster.spares(1, |m| m == 0) && !cluster.spares(1, |m| m == 1));
        cluster.members.insert(2, Member::Votes);
        assert!(cluster.has_quorum(|m| m != 2));
        assert_eq!(cluster.voters(), 3);
    }
}
