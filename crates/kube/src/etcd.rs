//! The members of etcd, as `etcdctl` on a server tells of them.

use serde_json::Value;
use undercroft_steps::{EtcdMember, EtcdMembers};

use super::apply::text_at;

/// Reads what `etcdctl member list -w json` and, where it was asked,
/// `etcdctl endpoint health --cluster -w json` have printed. `None` where the first is no list
/// of members.
pub fn etcd_members(list: &str, health: Option<&str>) -> Option<EtcdMembers> {
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
                name: text_at(member, "/name"),
                peer_urls: urls(member, "peerURLs"),
                is_learner: member.get("isLearner").and_then(Value::as_bool) == Some(true),
                client_urls,
                healthy,
            })
        })
        .collect::<Option<Vec<_>>>()?;
    Some(EtcdMembers { members })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"{"header":{"cluster_id":1,"member_id":2,"raft_term":2},"members":[
        {"ID":10276657743932975437,"name":"control-01-5e1a33c0","peerURLs":["https://10.0.0.1:2380"],"clientURLs":["https://10.0.0.1:2379"]},
        {"ID":2,"name":"control-02-00c0ffee","peerURLs":["https://10.0.0.2:2380"],"clientURLs":["https://10.0.0.2:2379"]},
        {"ID":3,"peerURLs":["https://10.0.0.3:2380"],"isLearner":true}]}"#;

    #[test]
    fn members_are_read_with_their_health() {
        let health = r#"[{"endpoint":"https://10.0.0.1:2379","health":true,"took":"2ms"},
            {"endpoint":"https://10.0.0.2:2379","health":false,"error":"context deadline exceeded"}]"#;
        let members = etcd_members(LIST, Some(health)).unwrap();
        let seen: Vec<_> = members.members.iter().map(|m| m.healthy).collect();
        assert_eq!(seen, [Some(true), Some(false), Some(false)]);
        let learners: Vec<_> = members.members.iter().map(|m| m.is_learner).collect();
        assert_eq!(learners, [false, false, true]);
        assert_eq!(members.voters(), 2);
        assert_eq!(members.members[0].id, 0x8e9e_05c5_2164_694d);
        assert!(etcd_members("{}", None).is_none());
        assert!(etcd_members("no", None).is_none());
    }
}
