//! The members of etcd, and what may be done to them.
//!
//! A majority is more than half of the members that vote, whether they run or not: one that was added and has not started
//! counts, and so does one that can't be reached. A learner has no vote (etcd's documentation, "Runtime reconfiguration"
//! and "Learner").

use std::net::Ipv4Addr;

use undercroft_model::NodeName;

/// A member of etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdMember {
    /// Its number.
    pub id: u64,
    /// Its name: the node's with kubeadm, the node's and a suffix with k3s. Empty while it has
    /// been added and has not started.
    pub name: String,
    /// Where it answers, with scheme and port.
    pub client_urls: Vec<String>,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Whether it only learns, and doesn't vote yet.
    pub is_learner: bool,
    /// Whether it answered when it was asked; `None` where it wasn't.
    pub healthy: Option<bool>,
}

impl EtcdMember {
    /// Whether the member runs on the machine with that name and address.
    pub(crate) fn is_of(&self, node: &NodeName, address: Ipv4Addr) -> bool {
        let node = node.as_str();
        let host = |url: &String| {
            let rest = url.split_once("://").map_or("", |(_, rest)| rest);
            rest.rsplit_once(':')
                .is_some_and(|(host, _)| host.parse() == Ok(address))
        };
        // k3s' suffix is eight hexadecimal digits; a node's own name may begin as another's.
        let named = self.name == node
            || self.name.strip_prefix(node).is_some_and(|rest| {
                rest.len() == 9
                    && rest.starts_with('-')
                    && rest.chars().skip(1).all(|c| c.is_ascii_hexdigit())
            });
        named || self.peer_urls.iter().any(host)
    }

    /// Its name, or its address while it has none.
    pub(crate) fn shown(&self) -> String {
        if self.name.is_empty() {
            self.peer_urls.join(", ")
        } else {
            self.name.clone()
        }
    }

    /// Whether it has started: until then it has no name.
    fn has_started(&self) -> bool {
        !self.name.is_empty()
    }

    /// Whether it votes: it has started, and learns no longer.
    pub fn votes(&self) -> bool {
        self.has_started() && !self.is_learner
    }

    /// Whether it was seen to answer. One that has not started, or wasn't asked, was not.
    pub fn answers(&self) -> bool {
        self.has_started() && self.healthy == Some(true)
    }
}

/// All members.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EtcdMembers {
    /// The members, as etcd lists them.
    pub members: Vec<EtcdMember>,
}

impl EtcdMembers {
    /// The member that is the machine with that name and address.
    pub fn of(&self, node: &NodeName, address: Ipv4Addr) -> Option<&EtcdMember> {
        self.members.iter().find(|m| m.is_of(node, address))
    }

    /// How many vote.
    pub fn voters(&self) -> u32 {
        let voters = self.members.iter().filter(|m| m.votes());
        u32::try_from(voters.count()).unwrap_or(u32::MAX)
    }

    /// Why the machine with that name and address may not join now, or nothing where it may. What
    /// it is itself is no reason: it may have begun.
    pub(crate) fn unsettled(&self, node: &NodeName, address: Ipv4Addr) -> Option<String> {
        let others = self.members.iter().filter(|m| !m.is_of(node, address));
        others.into_iter().find_map(|member| {
            let shown = member.shown();
            if !member.has_started() {
                Some(format!(
                    "the member at {shown} was added and has not started"
                ))
            } else if member.is_learner {
                Some(format!("the member {shown} doesn't vote yet"))
            } else if !member.answers() {
                Some(format!("the member {shown} isn't healthy"))
            } else {
                None
            }
        })
    }

    /// Whether etcd would keep its quorum without one member: whether those of the members that
    /// stay and answer are a majority of all that stay and count.
    pub(crate) fn keeps_quorum_without(&self, id: u64) -> bool {
        let stay = self.members.iter().filter(|m| m.id != id && !m.is_learner);
        let (all, answer) = stay.fold((0usize, 0usize), |(all, answer), member| {
            (all + 1, answer + usize::from(member.answers()))
        });
        answer > all / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NodeName {
        NodeName::new(text).unwrap()
    }

    fn address(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, last)
    }

    /// Members that vote and answer, as k3s names them.
    fn members(number: u8) -> EtcdMembers {
        let members = (1..=number).map(|n| EtcdMember {
            id: n.into(),
            name: format!("control-0{n}-5e1a33c{n}"),
            client_urls: vec![format!("https://10.0.0.{n}:2379")],
            peer_urls: vec![format!("https://10.0.0.{n}:2380")],
            is_learner: false,
            healthy: Some(true),
        });
        EtcdMembers {
            members: members.collect(),
        }
    }

    #[test]
    fn a_member_is_its_machines_by_name_or_by_address() {
        let members = members(1);
        assert!(members.members[0].is_of(&name("control-01"), address(9)));
        assert!(members.members[0].is_of(&name("other"), address(1)));
        assert!(!members.members[0].is_of(&name("control-0"), address(10)));
        assert!(members.of(&name("control-02"), address(2)).is_none());
    }

    #[test]
    fn whoever_does_not_vote_or_answer_keeps_others_out() {
        let mut all = members(3);
        let unsettled = |all: &EtcdMembers| all.unsettled(&name("control-04"), address(4));
        assert_eq!(unsettled(&all), None);
        all.members[2].is_learner = true;
        assert!(unsettled(&all).unwrap().contains("doesn't vote yet"));
        // A learner that is the machine itself is its own half join.
        assert_eq!(all.unsettled(&name("control-03"), address(3)), None);
        all.members[2].is_learner = false;
        all.members[1].healthy = Some(false);
        assert!(unsettled(&all).unwrap().contains("isn't healthy"));
        // What wasn't asked was not seen to be well.
        all.members[1].healthy = None;
        assert!(unsettled(&all).unwrap().contains("isn't healthy"));
        all.members[1].name.clear();
        let said = unsettled(&all).unwrap();
        assert!(said.contains("https://10.0.0.2:2380"), "{said}");
        assert!(said.contains("has not started"), "{said}");
    }

    /// Each row: how many members there are, which of them are ill, which have not started, which
    /// learn, which is taken away, and whether the rest keeps its quorum.
    #[test]
    fn a_member_is_removed_only_where_the_rest_is_a_majority() {
        for (number, ill, unstarted, learning, removed, keeps) in [
            (3, &[2][..], &[][..], &[][..], 2, true),
            (3, &[2, 3], &[], &[], 2, false),
            (1, &[], &[], &[], 1, false),
            (2, &[2], &[], &[], 2, true),
            // A member that never started counts, and has no vote to give.
            (3, &[2], &[3], &[], 2, false),
            (4, &[2], &[3], &[], 2, true),
            // Learners neither count nor vote.
            (3, &[2], &[], &[3], 2, true),
            (3, &[2, 3], &[], &[3], 2, true),
            (3, &[1], &[], &[2], 2, false),
            (5, &[4, 5], &[], &[], 4, true),
            (5, &[3, 4, 5], &[], &[], 5, false),
        ] {
            let mut all = members(number);
            for member in &mut all.members {
                let is = |of: &[u64]| of.contains(&member.id);
                member.healthy = Some(!is(ill) && !is(unstarted));
                member.is_learner = is(learning);
                if is(unstarted) {
                    member.name.clear();
                }
            }
            let shown = format!("{number}: {ill:?} {unstarted:?} {learning:?} {removed}");
            assert_eq!(all.keeps_quorum_without(removed), keeps, "{shown}");
        }
        let mut unasked = members(3);
        unasked.members[0].healthy = None;
        unasked.members[1].healthy = None;
        assert!(
            !unasked.keeps_quorum_without(3),
            "nobody was seen to answer"
        );
    }

    #[test]
    fn only_who_has_started_and_learns_no_longer_votes() {
        let mut all = members(3);
        assert_eq!(all.voters(), 3);
        all.members[0].is_learner = true;
        all.members[1].name.clear();
        assert_eq!(all.voters(), 1);
    }
}
