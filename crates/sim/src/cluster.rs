//! The simulated cluster as it is: who is a member of etcd, whose kubelet has registered, what was
//! brought in.

use std::collections::BTreeMap;

use undercroft_model::BootstrapPart;

/// A Node object.
#[derive(Debug, Clone)]
pub(crate) struct Registered {
    /// The boot whose kubelet has registered.
    pub(crate) boot: u64,
    /// From when on its kubelet calls itself Ready, if the pods have a network.
    pub(crate) ready_from_ms: u64,
    /// Whether it has its labels, annotations and taints.
    pub(crate) labelled: bool,
}

/// The cluster, from the moment at which it is founded.
#[derive(Debug, Default)]
pub(crate) struct Cluster {
    /// Whether somebody has founded it.
    pub(crate) founded: bool,
    /// The members of etcd, and whether they vote yet.
    pub(crate) members: BTreeMap<u32, bool>,
    /// The Node objects.
    pub(crate) nodes: BTreeMap<u32, Registered>,
    /// The parts that were brought in, and from when on each is healthy.
    pub(crate) parts: BTreeMap<BootstrapPart, u64>,
    /// Until when its API doesn't answer although it could.
    pub(crate) down_until_ms: u64,
}

impl Cluster {
    /// Whether etcd has a majority of its votes, where those members are healthy.
    pub(crate) fn has_quorum(&self, is_healthy: impl Fn(u32) -> bool) -> bool {
        let voters = self.members.iter().filter(|(_, votes)| **votes);
        let (healthy, all) = voters.fold((0usize, 0usize), |(healthy, all), (member, _)| {
            (healthy + usize::from(is_healthy(*member)), all + 1)
        });
        healthy * 2 > all
    }

    /// Whether a new member may come: all members vote and are healthy.
    pub(crate) fn takes_members(&self, is_healthy: impl Fn(u32) -> bool) -> bool {
        self.members
            .iter()
            .all(|(member, votes)| *votes && is_healthy(*member))
    }

    /// Whether a part is healthy.
    pub(crate) fn has(&self, part: BootstrapPart, now_ms: u64) -> bool {
        self.parts.get(&part).is_some_and(|from| now_ms >= *from)
    }

    /// The number of members that vote.
    pub(crate) fn voters(&self) -> u32 {
        let voters = self.members.values().filter(|votes| **votes).count();
        u32::try_from(voters).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_of_the_votes_is_a_quorum() {
        let mut cluster = Cluster::default();
        assert!(!cluster.has_quorum(|_| true), "nobody votes");
        cluster.members = BTreeMap::from([(0, true)]);
        assert!(cluster.has_quorum(|_| true));
        cluster.members.insert(1, false);
        assert!(cluster.has_quorum(|m| m == 0), "a learner has no vote");
        assert!(!cluster.takes_members(|_| true), "one learner at a time");
        cluster.members.insert(1, true);
        assert!(!cluster.has_quorum(|m| m == 0));
        assert!(cluster.takes_members(|_| true) && !cluster.takes_members(|m| m == 0));
        cluster.members.insert(2, true);
        assert!(cluster.has_quorum(|m| m != 2));
        assert_eq!(cluster.voters(), 3);
    }
}
