//! A fleet becomes a cluster.

use std::time::{Duration, Instant};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use undercroft_model::{Action, Evidence, Failure, FailureKind, Outcome, Work};

use crate::{
    fleet::{Fleet, LIMIT, MACHINES},
    inside,
    members_common::until,
};

/// etcdctl with the certificates that the controller and the snapshots' unit use.
const ETCDCTL: &str = "cd /etc/kubernetes/pki/etcd && etcdctl --endpoints https://127.0.0.1:2379 --cacert ca.crt --cert server.crt --key server.key";

fn founds(action: &Action) -> bool {
    matches!(action, Action::FoundCluster)
}

fn joins(action: &Action) -> bool {
    matches!(action, Action::JoinCluster { .. })
}

fn is_ready(action: &Action) -> bool {
    matches!(action, Action::AwaitReady { .. })
}

#[track_caller]
fn voters(outcome: Outcome, boot: &str) -> u32 {
    match outcome {
        Outcome::Done {
            evidence:
                Evidence::Joined {
                    boot_id,
                    etcd_voters,
                    ..
                },
        } if boot_id == boot => etcd_voters,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn failure(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Failed { failure } => failure,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_real_kubeadm_founds_a_cluster_and_machines_join_it() {
    if !inside("founding::the_real_kubeadm_founds_a_cluster_and_machines_join_it").await {
        return;
    }
    let mut fleet = Fleet::boot();
    let probed = fleet.carry_out("head-01", founds, Work::Probe).await;
    assert_eq!(probed, Outcome::NotDone);
    let founded = fleet.carry_out("head-01", founds, Work::Act).await;
    assert_eq!(voters(founded, "boot-of-head-01"), 1);
    authorities_are_the_secrets(&fleet, "head-01");
    Box::pin(the_api_answers_to_every_name(&fleet, "head-01")).await;
    secrets_are_encrypted_in_etcd(&fleet);
    let founder = fleet.machine("head-01");
    let said = founder.says(
        "kubectl --kubeconfig /etc/undercroft/kubeconfig -n kube-system get deployment,daemonset -o name",
    );
    assert_eq!(said, "deployment.apps/coredns\n");

    Box::pin(another_clusters_hash_is_refused(&mut fleet)).await;
    Box::pin(a_join_is_cut_off(&fleet, "head-02")).await;
    power_is_lost(&fleet, "head-02");
    let joined = Box::pin(joins_in_the_end(&mut fleet, "head-02")).await;
    assert_eq!(voters(joined, "boot-of-head-02"), 2);
    authorities_are_the_secrets(&fleet, "head-02");
    Box::pin(the_api_answers_to_every_name(&fleet, "head-02")).await;
    no_token_stays(&fleet, "head-02");

    Box::pin(a_token_that_has_expired_is_said_to_have(&fleet)).await;
    Box::pin(a_join_is_cut_off(&fleet, "h100-01")).await;
    let joined = fleet.carry_out("h100-01", joins, Work::Act).await;
    assert_eq!(voters(joined, "boot-of-h100-01"), 0);
    no_token_stays(&fleet, "h100-01");
    for machine in MACHINES {
        let ready = fleet.carry_out(machine, is_ready, Work::Act).await;
        assert!(matches!(ready, Outcome::Done { .. }), "{ready:?}");
        let probed = fleet.carry_out(machine, is_ready, Work::Probe).await;
        assert!(matches!(probed, Outcome::Done { .. }), "{probed:?}");
    }
    Box::pin(a_server_leaves_and_joins_again(&mut fleet)).await;
}

/// Joins, and does so again as the engine would: for five seconds after a member has come back, etcd
/// takes no other out (etcd, server/etcdserver/server.go, `HealthInterval`).
async fn joins_in_the_end(fleet: &mut Fleet, machine: &str) -> Outcome {
    let end = Instant::now() + LIMIT;
    loop {
        let outcome = fleet.carry_out(machine, joins, Work::Act).await;
        let again = matches!(
            &outcome,
            Outcome::Failed { failure } if failure.kind == FailureKind::Transient
        );
        if !again || Instant::now() > end {
            return outcome;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// A machine joins, and its unit is killed at the moment at which kubeadm is done: the cluster
/// knows the machine, and the machine doesn't know that it does.
async fn a_join_is_cut_off(fleet: &Fleet, machine: &str) {
    let token = fleet
        .machine("head-01")
        .says("kubeadm token create --ttl 5m");
    let machine = fleet.machine(machine);
    let kubeadm = machine.folder.join("bin/kubeadm");
    let real = std::fs::read_link(&kubeadm).unwrap();
    machine.says(&format!(
        "rm {0}; printf '#!/bin/sh\\n{1} \"$@\" || exit\\n[ $1 != join ] || kill -KILL $PPID\\n' >{0}; chmod 755 {0}",
        kubeadm.display(),
        real.display()
    ));
    machine.says(&format!(
        "umask 077; echo UNDERCROFT_TOKEN={} >/run/undercroft/cluster/join.env; systemctl restart --no-block undercroft-cluster-join.service",
        token.trim()
    ));
    let unit = machine.folder.join("unit");
    until(LIMIT, "the unit is killed", || {
        std::fs::read_to_string(&unit).unwrap() == "failed\n"
    })
    .await;
    machine.says(&format!(
        "rm {0}; ln -s {1} {0}; test -e /etc/kubernetes/kubelet.conf -a ! -e /var/lib/undercroft/cluster/joined",
        kubeadm.display(),
        real.display()
    ));
}

/// What a machine does that comes up again: nothing of its memory is left, and systemd starts what
/// is wanted at boot.
fn power_is_lost(fleet: &Fleet, machine: &str) {
    let machine = fleet.machine(machine);
    machine.says("systemctl stop kubelet; kill -KILL $(cat /run/pods/*.pid); rm -rf /run/pods /run/undercroft");
    machine.says("mkdir -p /run/undercroft/cluster; systemctl start kubelet");
}

/// A machine whose secrets are of another cluster doesn't trust this one.
async fn another_clusters_hash_is_refused(fleet: &mut Fleet) {
    let hash = "/run/secrets/kubeadm/ca_cert_hash";
    let machine = fleet.machine("head-02");
    machine.says(&format!(
        "cp {hash} /run/kept; printf sha256:%064d 0 >{hash}"
    ));
    let failed = failure(fleet.carry_out("head-02", joins, Work::Act).await);
    for part in [
        "kubeadm join failed with exit code 1",
        "are pinned",
        "kubeadm/ca_cert_hash",
        "undercroft secrets check",
    ] {
        assert!(failed.message.contains(part), "{failed:?}");
    }
    let machine = fleet.machine("head-02");
    machine.says(&format!("cp /run/kept {hash}"));
    // It was no member at any time.
    assert_eq!(members(fleet), 1);
}

/// How many members etcd has.
fn members(fleet: &Fleet) -> usize {
    let listed = fleet
        .machine("head-01")
        .says(&format!("{ETCDCTL} member list"));
    listed.lines().count()
}

/// What waited too long is refused within the time that discovery has.
async fn a_token_that_has_expired_is_said_to_have(fleet: &Fleet) {
    let founder = fleet.machine("head-01");
    let token = founder.says("kubeadm token create --ttl 1s");
    let token = token.trim();
    let (id, _) = token.split_once('.').unwrap();
    until(Duration::from_secs(60), "a token expires", || {
        !founder.says("kubeadm token list").contains(id)
    })
    .await;
    let machine = fleet.machine("h100-01");
    // Not the five minutes that kubeadm gives it.
    let join = "/etc/undercroft/kubeadm/join.json";
    machine.says(&format!(
        "cp {join} /run/kept; jq '. + {{timeouts: {{discovery: \"3s\"}}}}' /run/kept >{join}"
    ));
    let joined = machine.run(&format!(
        "UNDERCROFT_TOKEN={token} bash {}/join.sh",
        machine.folder.display()
    ));
    assert_eq!(joined.status.code(), Some(1));
    let reason = machine.says("jq -r .reason /run/undercroft/cluster.json");
    assert!(
        reason.contains("could not find a JWS signature"),
        "{reason}"
    );
    assert!(reason.contains("the token has expired"), "{reason}");
    assert!(!reason.contains(token), "{reason}");
    machine.says(&format!("cp /run/kept {join}"));
}

/// What let the machine in isn't left on it, nor in what its unit has said.
fn no_token_stays(fleet: &Fleet, machine: &str) {
    let machine = fleet.machine(machine);
    let left = machine.run(
        "ls /run/undercroft/cluster/join.env /run/undercroft/cluster/join.yaml /etc/kubernetes/bootstrap-kubelet.conf 2>/dev/null",
    );
    assert_eq!(String::from_utf8_lossy(&left.stdout), "");
    let said = std::fs::read_to_string(machine.folder.join("unit.log")).unwrap();
    let tokens = said
        .split(|c: char| c.is_whitespace() || c == '"')
        .filter(|word| {
            word.split_once('.').is_some_and(|(id, secret)| {
                let plain = |text: &str| {
                    text.bytes()
                        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
                };
                (id.len(), secret.len()) == (6, 16) && plain(id) && plain(secret)
            })
        });
    assert_eq!(tokens.count(), 0, "{said}");
}

/// What `cluster-leave` takes away is all that kubeadm would stumble over, and its member of etcd,
/// though the cluster has forgotten the machine.
async fn a_server_leaves_and_joins_again(fleet: &mut Fleet) {
    fleet
        .machine("head-01")
        .says("kubectl --kubeconfig /etc/undercroft/kubeconfig delete node head-02");
    fleet.machine("head-02").leave();
    assert_eq!(members(fleet), 1);
    let joined = fleet.carry_out("head-02", joins, Work::Act).await;
    assert_eq!(voters(joined, "boot-of-head-02"), 2);
}

/// The API's certificate is good for every name and address that the inventory gives it.
async fn the_api_answers_to_every_name(fleet: &Fleet, machine: &str) {
    let address = fleet.address(machine);
    let kubeconfig = fleet
        .machine(machine)
        .says("cat /etc/undercroft/kubeconfig");
    let kubeconfig = Kubeconfig::from_yaml(&kubeconfig).unwrap();
    let options = KubeConfigOptions::default();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .unwrap();
    config.cluster_url = format!("https://{address}:6443").parse().unwrap();
    let servers = ["10.44.0.11", "10.44.0.12", "10.44.0.13"];
    let names = ["api.hall-4.example", "api.overlay.example"];
    let inside = ["kubernetes.default.svc.cluster.local", "10.96.0.1"];
    for name in servers.iter().chain(&names).chain(&inside) {
        config.tls_server_name = Some((*name).to_owned());
        let client = Client::try_from(config.clone()).unwrap();
        let version = client.apiserver_version().await;
        let version = version.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(version.git_version, "v1.34.4");
    }
    config.tls_server_name = Some("api.elsewhere.example".to_owned());
    let client = Client::try_from(config).unwrap();
    assert!(client.apiserver_version().await.is_err());
}

/// What etcd holds of a secret isn't the secret.
fn secrets_are_encrypted_in_etcd(fleet: &Fleet) {
    let server = fleet.machine("head-01");
    server.says(
        "kubectl --kubeconfig /etc/undercroft/kubeconfig create secret generic kept --from-literal=word=swordfish",
    );
    let kept = server.run(&format!("{ETCDCTL} get /registry/secrets/default/kept"));
    let kept = String::from_utf8_lossy(&kept.stdout).into_owned();
    assert!(kept.contains("k8s:enc:secretbox:v1:key1:"), "{kept}");
    assert!(!kept.contains("swordfish"), "{kept}");
}

/// kubeadm took the authorities that were made before the cluster, and prints the hash that joining
/// machines have in their secrets.
fn authorities_are_the_secrets(fleet: &Fleet, machine: &str) {
    let server = fleet.machine(machine);
    for (secret, file) in [
        ("ca.crt", "ca.crt"),
        ("ca.key", "ca.key"),
        ("front-proxy-ca.crt", "front-proxy-ca.crt"),
        ("front-proxy-ca.key", "front-proxy-ca.key"),
        ("etcd-ca.crt", "etcd/ca.crt"),
        ("etcd-ca.key", "etcd/ca.key"),
        ("sa.pub", "sa.pub"),
        ("sa.key", "sa.key"),
    ] {
        assert_eq!(
            server.says(&format!("cat /etc/kubernetes/pki/{file}")),
            fleet.secret(&format!("kubeadm/pki/{secret}")),
            "{machine}: {file}"
        );
    }
    let command = server.says("kubeadm token create --ttl 2s --print-join-command");
    let hash = fleet.secret("kubeadm/ca_cert_hash");
    assert!(
        command.contains(&format!("--discovery-token-ca-cert-hash {hash}")),
        "{command}: {hash}"
    );
}
