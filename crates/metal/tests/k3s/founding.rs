//! A cluster's life: founded, joined by two servers and an agent, restarted, and one server of it
//! installed anew.

use undercroft_model::{Action, ClusterRole, Evidence, FailureKind, Outcome, Work};

use crate::{
    fleet::{Fleet, LIMIT},
    inside,
    members_common::until,
};

const DATA: &str = "/var/lib/rancher/k3s/server";

fn join(role: ClusterRole, replaces: bool) -> Action {
    Action::JoinCluster { role, replaces }
}

#[track_caller]
fn voters(outcome: &Outcome) -> u32 {
    let Outcome::Done {
        evidence: Evidence::Joined { etcd_voters, .. },
    } = outcome
    else {
        panic!("{outcome:?}");
    };
    *etcd_voters
}

/// What k3s logs of flags that it doesn't know or won't know for long, and of its schedule.
/// Kubernetes has deprecations of its own in the same log.
#[track_caller]
fn no_complaints(log: &str) {
    let complaint = log.lines().find(|line| {
        let words = [
            "flag provided but not defined",
            "unknown flag",
            "Incorrect Usage",
            "expected exactly 5 fields",
        ];
        words.iter().any(|words| line.contains(words))
            || (line.starts_with("time=") && line.to_lowercase().contains("deprecated"))
    });
    assert_eq!(complaint, None);
}

/// What the founder was given is what the cluster runs on.
fn the_cluster_has_our_secrets(fleet: &Fleet) {
    let founder = fleet.machine("control-01");
    let served = founder.says("curl --silent --insecure https://127.0.0.1:6443/cacerts");
    assert_eq!(served, fleet.secret("k3s/tls/server-ca.crt"));
    let placed = [
        ("tls/server-ca", "k3s/tls/server-ca"),
        ("tls/client-ca", "k3s/tls/client-ca"),
        ("tls/request-header-ca", "k3s/tls/request-header-ca"),
        ("tls/etcd/server-ca", "k3s/tls/etcd-server-ca"),
        ("tls/etcd/peer-ca", "k3s/tls/etcd-peer-ca"),
    ];
    for (file, secret) in placed {
        for kind in ["crt", "key"] {
            let kept = founder.says(&format!("cat {DATA}/{file}.{kind}"));
            assert_eq!(kept, fleet.secret(&format!("{secret}.{kind}")), "{file}");
        }
    }
    let key = founder.says(&format!("cat {DATA}/tls/service.key"));
    assert_eq!(key, fleet.secret("k3s/tls/service.key"));
    // The token that k3s would give out itself.
    let token = founder.says(&format!("cat {DATA}/token"));
    assert_eq!(token.trim(), fleet.secret("k3s/server_token"));
    let agent_token = founder.run(&format!("cat {DATA}/agent-token"));
    if agent_token.status.success() {
        let agent_token = String::from_utf8(agent_token.stdout).unwrap();
        assert_eq!(agent_token.trim(), fleet.secret("k3s/agent_token"));
    }
    // Kubernetes' secrets are encrypted with the key that we gave.
    let config = founder.says(&format!("cat {DATA}/cred/encryption-config.json"));
    assert_eq!(config, fleet.secret("k3s/encryption-config.json"));
    founder.says("k3s kubectl create secret generic told --from-literal=word=of-nobody");
    let stored = founder.says(&format!(
        "cd {DATA}/tls/etcd && etcdctl --endpoints https://127.0.0.1:2379 --cacert server-ca.crt \
         --cert client.crt --key client.key get /registry/secrets/default/told | tr -d '\\000'"
    ));
    assert!(stored.contains("k8s:enc:aescbc:v1:aescbckey:"), "{stored}");
    assert!(!stored.contains("of-nobody"), "{stored}");
    // Where Cilium finds the API, on servers as on agents.
    founder.says("curl --silent --insecure --output /dev/null https://127.0.0.1:6444/version");
    // Nobody but root reads what its administrator has.
    let mode = founder.says("stat -c %a /etc/rancher/k3s/k3s.yaml");
    assert_eq!(mode.trim(), "600");
}

/// k3s itself turns away who expects another cluster behind an address.
fn a_token_of_another_cluster_is_refused(fleet: &Fleet) {
    let machine = fleet.machine("control-02");
    let token = fleet.secret("k3s/server_token");
    let (_, login) = token.split_once("::").unwrap();
    let other = format!("K10{}::{login}", "0".repeat(64));
    machine.says(&format!("printf %s '{other}' >/run/other-token"));
    let address = fleet.address("control-01");
    let output = machine.run(&format!(
        "timeout 60 k3s server --disable-agent --data-dir /run/elsewhere \
         --server https://{address}:6443 --token-file /run/other-token 2>&1"
    ));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("CA hash does not match"), "{said}");
    machine.says("rm -rf /run/elsewhere /run/other-token");
}

fn cluster_uid(fleet: &Fleet, server: &str) -> String {
    let it = fleet.machine(server);
    it.says("k3s kubectl get namespace kube-system -o 'jsonpath={.metadata.uid}'")
}

#[tokio::test]
async fn machines_found_a_cluster_join_it_and_come_back() {
    if !inside("founding::machines_found_a_cluster_join_it_and_come_back") {
        return;
    }
    let mut fleet = Fleet::boot();
    let found = Action::FoundCluster;
    assert_eq!(fleet.probe("control-01", &found).await, Outcome::NotDone);
    let founded = fleet.bring_in("control-01", &found).await;
    assert_eq!(voters(&founded), 1);
    the_cluster_has_our_secrets(&fleet);
    a_token_of_another_cluster_is_refused(&fleet);

    let server = join(ClusterRole::Server, false);
    for (machine, count) in [("control-02", 2), ("control-03", 3)] {
        assert_eq!(fleet.probe(machine, &server).await, Outcome::NotDone);
        let joined = fleet.bring_in(machine, &server).await;
        assert_eq!(voters(&joined), count, "{machine}");
    }
    let agent = join(ClusterRole::Agent, false);
    let joined = fleet.bring_in("gpu-01", &agent).await;
    assert_eq!(voters(&joined), 0);
    let password = "k3s kubectl --namespace kube-system get secret gpu-01.node-password.k3s";
    fleet.machine("control-01").says(password);
    for machine in ["control-01", "control-02", "control-03"] {
        no_complaints(&fleet.machine(machine).service_log());
    }

    // The founder starts again as what it is.
    let uid = cluster_uid(&fleet, "control-01");
    let founder = fleet.machine("control-01");
    founder.says("systemctl stop k3s.service && systemctl start --no-block k3s.service");
    fleet.api_is_ready("control-01").await;
    assert_eq!(cluster_uid(&fleet, "control-01"), uid);
    let back = fleet.probe("control-01", &found).await;
    assert_eq!(voters(&back), 3);
    let founder = fleet.machine("control-01");
    let saved = founder.says("k3s etcd-snapshot save 2>&1");
    let kept = founder.says(&format!("ls {DATA}/db/snapshots"));
    assert!(kept.contains("on-demand"), "{kept}: {saved}");

    // A server that was installed anew comes back as another member of the same cluster.
    let gone = fleet.machine("control-03");
    gone.leave();
    gone.says("test ! -e /var/lib/rancher/k3s -a ! -e /etc/rancher/k3s/k3s.yaml");
    let again = fleet
        .bring_in("control-03", &join(ClusterRole::Server, true))
        .await;
    assert_eq!(voters(&again), 3);
    assert_eq!(cluster_uid(&fleet, "control-03"), uid);

    // A founder that has lost its data founds no second cluster, whoever starts it.
    let founder = fleet.machine("control-01");
    founder.leave();
    fleet.start("control-01", &found, Work::Act);
    let Outcome::Failed { failure } = fleet.ended().await else {
        panic!("a second cluster was founded");
    };
    assert_eq!(failure.kind, FailureKind::Refused, "{failure:?}");
    let founder = fleet.machine("control-01");
    founder.says("systemctl restart --no-block undercroft-cluster-join.service");
    until(LIMIT, "a refusal of the machine's own", || {
        let said = founder.run("cat /run/undercroft/cluster.json");
        String::from_utf8_lossy(&said.stdout).contains("answers for a cluster already")
    })
    .await;
    assert!(!founder.run(&format!("test -e {DATA}")).status.success());
}
