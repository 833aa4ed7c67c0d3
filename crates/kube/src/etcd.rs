//! The members of etcd, as `etcdctl` on a server tells of them.

use serde_json::Value;

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
    pub fn is_of(&self, node: &str, address: &str) -> bool {
        let host = |url: &String| {
            let rest = url.split_once("://").map_or("", |(_, rest)| rest);
            rest.rsplit_once(':')
                .is_some_and(|(host, _)| host == address)
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
    pub fn shown(&self) -> String {
        if self.name.is_empty() {
            self.peer_urls.join(", ")
        } else {
            self.name.clone()
        }
    }

    /// Its number as etcdctl takes it.
    pub fn hex_id(&self) -> String {
        format!("{:x}", self.id)
    }
}

/// All members.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EtcdMembers {
    /// The members, as etcd lists them.
    pub members: Vec<EtcdMember>,
}

impl EtcdMembers {
    /// Reads what `etcdctl member list -w json` and, where it was asked,
    /// `etcdctl endpoint health --cluster -w json` have printed. `None` where the first is no list
    /// of members.
    pub fn parse(list: &str, health: Option<&str>) -> Option<Self> {
        let list: Value = serde_json::from_str(list.trim()).ok()?;
        let health: Option<Vec<Value>> =
            health.map(|text| serde_json::from_str(text.trim()).unwrap_or_default());
        let urls = |member: &Value, key: &str| -> Vec<String> {
            let urls = member.get(key).and_then(Value::as_array);
            let urls = urls.into_iter().flatten();
            urls.filter_map(|url| url.as_str().map(str::to_owned))
                .collect()
        };
        let members = list.get("members")?.as_array()?;
        let members = members
            .iter()
            .map(|member| {
                let client_urls = urls(member, "clientURLs");
                let healthy = health.as_ref().map(|health| {
                    health.iter().any(|one| {
                        let endpoint = one.get("endpoint").and_then(Value::as_str);
                        one.get("health").and_then(Value::as_bool) == Some(true)
                            && client_urls.iter().any(|url| endpoint == Some(url.as_str()))
                    })
                });
                Some(EtcdMember {
                    id: member.get("ID")?.as_u64()?,
                    name: super::apply::text_at(member, "/name"),
                    peer_urls: urls(member, "peerURLs"),
                    is_learner: member.get("isLearner").and_then(Value::as_bool) == Some(true),
                    client_urls,
                    healthy,
                })
            })
            .collect::<Option<Vec<_>>>()?;
        Some(Self { members })
    }

    /// How many vote.
    pub fn voters(&self) -> u32 {
        let voters = self
            .members
            .iter()
            .filter(|m| !m.is_learner && !m.name.is_empty());
        u32::try_from(voters.count()).unwrap_or(u32::MAX)
    }

    /// Why the machine with that name and address may not join now, or nothing where it may. What
    /// it is itself is no reason: it may have begun.
    pub fn unsettled(&self, node: &str, address: &str) -> Option<String> {
        let others = self.members.iter().filter(|m| !m.is_of(node, address));
        others.into_iter().find_map(|member| {
            let shown = member.shown();
            if member.name.is_empty() {
                Some(format!(
                    "the member at {shown} was added and has not started"
                ))
            } else if member.is_learner {
                Some(format!("the member {shown} doesn't vote yet"))
            } else if member.healthy == Some(false) {
                Some(format!("the member {shown} isn't healthy"))
            } else {
                None
            }
        })
    }

    /// Whether etcd would keep its quorum without one member: whether the healthy members that
    /// stay are a majority of all that stay.
    pub fn keeps_quorum_without(&self, id: u64) -> bool {
        let stay = self.members.iter().filter(|m| m.id != id && !m.is_learner);
        let (all, healthy) = stay.fold((0usize, 0usize), |(all, healthy), member| {
            (
                all + 1,
                healthy + usize::from(member.healthy != Some(false)),
            )
        });
        all > 0 && healthy > all / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"{"header":{"cluster_id":1,"member_id":2,"raft_term":2},"members":[
        {"ID":10276657743932975437,"name":"control-01-5e1a33c0","peerURLs":["https://10.0.0.1:2380"],"clientURLs":["https://10.0.0.1:2379"]},
        {"ID":2,"name":"control-02-00c0ffee","peerURLs":["https://10.0.0.2:2380"],"clientURLs":["https://10.0.0.2:2379"]},
        {"ID":3,"name":"control-03-0badcafe","peerURLs":["https://10.0.0.3:2380"],"clientURLs":["https://10.0.0.3:2379"],"isLearner":true}]}"#;

    fn members(sick: &[u64]) -> EtcdMembers {
        let mut members = EtcdMembers::parse(LIST, Some("[]")).unwrap();
        for member in &mut members.members {
            member.healthy = Some(!sick.contains(&member.id));
        }
        members
    }

    #[test]
    fn members_are_read_with_their_health() {
        let health = r#"[{"endpoint":"https://10.0.0.1:2379","health":true,"took":"2ms"},
            {"endpoint":"https://10.0.0.2:2379","health":false,"error":"context deadline exceeded"}]"#;
        let members = EtcdMembers::parse(LIST, Some(health)).unwrap();
        let seen: Vec<_> = members.members.iter().map(|m| m.healthy).collect();
        assert_eq!(seen, [Some(true), Some(false), Some(false)]);
        assert_eq!(members.voters(), 2);
        assert_eq!(members.members[0].hex_id(), "8e9e05c52164694d");
        assert!(members.members[0].is_of("control-01", "10.9.9.9"));
        assert!(!members.members[0].is_of("control-0", "10.0.0.10"));
        assert!(members.members[0].is_of("other", "10.0.0.1"));
        assert!(EtcdMembers::parse("{}", None).is_none());
        assert!(EtcdMembers::parse("no", None).is_none());
    }

    #[test]
    fn a_learner_and_a_sick_member_keep_others_out() {
        let mut all = members(&[]);
        let unsettled = |all: &EtcdMembers| all.unsettled("control-04", "10.0.0.4");
        assert!(
            unsettled(&all)
                .unwrap()
                .contains("control-03-0badcafe doesn't vote")
        );
        // A learner that is the machine itself is its own half join.
        assert_eq!(all.unsettled("control-03", "10.0.0.3"), None);
        all.members[2].is_learner = false;
        assert_eq!(unsettled(&all), None);
        all.members[1].healthy = Some(false);
        assert!(unsettled(&all).unwrap().contains("isn't healthy"));
        all.members[1].name.clear();
        assert!(unsettled(&all).unwrap().contains("https://10.0.0.2:2380"));
    }

    #[test]
    fn a_member_is_removed_only_where_the_rest_is_a_majority() {
        let three = |sick: &[u64]| {
            let mut members = members(sick);
            members.members[2].is_learner = false;
            members
        };
        assert!(three(&[2]).keeps_quorum_without(2));
        assert!(!three(&[2, 3]).keeps_quorum_without(2));
        let mut one = three(&[]);
        one.members.truncate(1);
        let id = one.members[0].id;
        assert!(!one.keeps_quorum_without(id));
    }
}
