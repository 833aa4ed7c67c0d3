//! The cluster's steps against real SSH servers, a real kube-apiserver and real members of etcd.
//!
//! What isn't here, the test plays through the API: kubelets, the controllers of DaemonSets and
//! Deployments, and Argo CD. The unit that joins a machine is played by writing what it leaves.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that can't go on stops"
)]

#[path = "../kube_common/mod.rs"]
mod kube_common;
mod kwok;
mod machines;
#[path = "../namespace_common/mod.rs"]
mod namespace_common;
#[path = "../members_common/no_facilities.rs"]
mod no_facilities;
mod observed;

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::PermissionsExt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use kube_common::free_port;
use machines::{FOUNDER, SECOND, Site, inside, lone_etcd, register};
use serde_json::{Value, json};
use undercroft_kube::{Apply, Manifest, parse};
use undercroft_metal::world::{BootstrapItem, ClusterParts};
use undercroft_model::{
    Action, BootstrapPart, ClusterRole, Evidence, Failure, FailureKind, Outcome, Work,
};
use undercroft_steps::NodeSeen;

fn evidence(outcome: Outcome) -> Evidence {
    match outcome {
        Outcome::Done { evidence } => evidence,
        other => panic!("{other:?}"),
    }
}

fn failure(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Failed { failure } => failure,
        other => panic!("{other:?}"),
    }
}

fn join(role: ClusterRole, replaces: bool) -> Action {
    Action::JoinCluster { role, replaces }
}

fn ready() -> Action {
    Action::AwaitReady {
        labels: BTreeMap::from([("undercroft.dev/class".into(), "gpu".into())]),
        annotations: BTreeMap::new(),
        taints: vec!["gpu=yes:NoSchedule".into()],
    }
}

fn part(part: BootstrapPart) -> Action {
    Action::Bootstrap { part }
}

#[tokio::test]
async fn machines_found_a_cluster_and_join_it_one_by_one() {
    if !inside("machines_found_a_cluster_and_join_it_one_by_one") {
        return;
    }
    let mut site = Site::new(ClusterParts::default()).await;
    let probed = site.probe("control-01", Action::FoundCluster).await;
    assert_eq!(probed, Outcome::NotDone);
    site.start("control-01", Action::FoundCluster, Work::Act);
    site.unit_started("control-01").await;
    site.play_join("control-01").await;
    let Evidence::Joined {
        boot_id,
        etcd_voters,
        ..
    } = evidence(site.ended().await)
    else {
        panic!("not founded");
    };
    assert_eq!((boot_id.as_str(), etcd_voters), ("boot-of-control-01", 1));
    // What a controller that died in between finds.
    let probed = site.probe("control-01", Action::FoundCluster).await;
    assert!(matches!(evidence(probed), Evidence::Joined { .. }));

    // The API is away for a moment while the second server joins.
    site.start("control-02", join(ClusterRole::Server, false), Work::Act);
    site.unit_started("control-02").await;
    let env = site
        .machine("control-02")
        .join("run/undercroft/cluster/join.env");
    let mode = fs::metadata(&env).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(
        fs::read_to_string(env).unwrap(),
        format!("UNDERCROFT_SERVER=https://{FOUNDER}:{}\n", site.api.port)
    );
    site.api.stop_kube();
    site.api.start_kube();
    site.api.wait_ready().await;
    site.play_join("control-02").await;
    let joined = evidence(site.ended().await);
    assert!(
        matches!(joined, Evidence::Joined { etcd_voters: 2, .. }),
        "{joined:?}"
    );

    // An agent that was installed anew: what the cluster knew of it is forgotten first.
    register(&site.api, "gpu-01", "a-boot-of-long-ago").await;
    let probed = site.probe("gpu-01", join(ClusterRole::Agent, true)).await;
    assert_eq!(probed, Outcome::NotDone);
    site.start("gpu-01", join(ClusterRole::Agent, true), Work::Act);
    site.unit_started("gpu-01").await;
    assert_eq!(site.api.cluster().node("gpu-01").await.unwrap(), None);
    site.play_join("gpu-01").await;
    let joined = evidence(site.ended().await);
    assert!(
        matches!(joined, Evidence::Joined { etcd_voters: 0, .. }),
        "{joined:?}"
    );
    // The server that answers is told to it, since the founder needn't be the one.
    let env = site
        .machine("gpu-01")
        .join("run/undercroft/cluster/join.env");
    assert_eq!(
        fs::read_to_string(env).unwrap(),
        format!("UNDERCROFT_SERVER=https://{FOUNDER}:{}\n", site.api.port)
    );

    assert_eq!(site.probe("gpu-01", ready()).await, Outcome::NotDone);
    site.start("gpu-01", ready(), Work::Act);
    set_ready(&site, "gpu-01").await;
    let Evidence::Ready {
        kubelet_version, ..
    } = evidence(site.ended().await)
    else {
        panic!("not ready");
    };
    assert_eq!(kubelet_version, "v1.34.4");
    let node = site.api.cluster().node("gpu-01").await.unwrap().unwrap();
    assert_eq!(node.labels["undercroft.dev/class"], "gpu");
    assert!(node.taints.contains(&"gpu=yes:NoSchedule".to_owned()));
    // After a power cut the Node still says Ready; the machine's own boot tells better.
    fs::write(site.machine("gpu-01").join("boot_id"), "the-next-boot\n").unwrap();
    assert_eq!(site.probe("gpu-01", ready()).await, Outcome::NotDone);
}

async fn set_ready(site: &Site, machine: &str) {
    let status = json!({ "conditions": [{
        "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "posting ready",
        "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z",
    }]});
    site.api.set_status("v1/Node", None, machine, status).await;
}

/// What a join that was cut off has brought about is the machine's own, and not what it was before.
#[tokio::test]
async fn a_join_that_was_cut_off_is_gone_on_with() {
    if !inside("a_join_that_was_cut_off_is_gone_on_with") {
        return;
    }
    let mut site = Site::new(ClusterParts::default()).await;
    site.play_join("control-01").await;
    register(&site.api, "gpu-01", "boot-of-gpu-01").await;
    let uid = |node: Option<NodeSeen>| node.unwrap().uid;
    let before = uid(site.api.cluster().node("gpu-01").await.unwrap());
    let state = site.machine("gpu-01").join("var/lib/undercroft/cluster");
    fs::create_dir_all(&state).unwrap();
    fs::write(state.join("began"), "").unwrap();
    site.start("gpu-01", join(ClusterRole::Agent, true), Work::Act);
    site.unit_started("gpu-01").await;
    let after = uid(site.api.cluster().node("gpu-01").await.unwrap());
    assert_eq!(before, after, "the Node of this very boot was deleted");
    site.play_join("gpu-01").await;
    evidence(site.ended().await);

    // A server whose member has been added, and that was cut off then.
    let state = site
        .machine("control-02")
        .join("var/lib/undercroft/cluster");
    fs::create_dir_all(&state).unwrap();
    fs::write(state.join("began"), "").unwrap();
    site.play_join("control-02").await;
    fs::remove_file(state.join("joined")).unwrap();
    fs::write(site.machine("control-02").join("unit"), "failed\n").unwrap();
    site.start("control-02", join(ClusterRole::Server, true), Work::Act);
    site.unit_started("control-02").await;
    fs::write(state.join("joined"), "").unwrap();
    let joined = evidence(site.ended().await);
    assert!(
        matches!(joined, Evidence::Joined { etcd_voters: 2, .. }),
        "{joined:?}"
    );

    // One that has lost all that it had, unseen, is no new member: nobody said that it may be one.
    fs::remove_dir_all(&state).unwrap();
    fs::write(site.machine("control-02").join("unit"), "inactive\n").unwrap();
    site.start("control-02", join(ClusterRole::Server, false), Work::Act);
    let lost = failure(site.ended().await);
    assert_eq!(lost.kind, FailureKind::Permanent, "{lost:?}");
    assert!(lost.message.contains("holds nothing of it"), "{lost:?}");
    assert!(lost.hint.unwrap().contains("--reinstall"));
}

/// A kubelet registers when it starts. Nobody but the one who starts it brings a deleted Node back.
#[tokio::test]
async fn a_node_that_somebody_has_deleted_comes_back() {
    if !inside("a_node_that_somebody_has_deleted_comes_back") {
        return;
    }
    let mut site = Site::new(ClusterParts::default()).await;
    site.play_join("control-01").await;
    site.play_join("gpu-01").await;
    site.api.cluster().forget_node("gpu-01").await.unwrap();
    // Whoever waits for it to be Ready finds out, looking and doing.
    let lost = failure(site.probe("gpu-01", ready()).await);
    assert_eq!(lost.kind, FailureKind::PreconditionLost, "{lost:?}");
    site.start("gpu-01", ready(), Work::Act);
    let lost = failure(site.ended().await);
    assert_eq!(lost.kind, FailureKind::PreconditionLost, "{lost:?}");
    let agent = || join(ClusterRole::Agent, false);
    assert_eq!(site.probe("gpu-01", agent()).await, Outcome::NotDone);
    site.start("gpu-01", agent(), Work::Act);
    site.unit_started("gpu-01").await;
    let restarted = fs::read_to_string(site.machine("gpu-01").join("restarted")).unwrap();
    assert!(restarted.contains("k3s.service"), "{restarted}");
    site.play_join("gpu-01").await;
    evidence(site.ended().await);
}

/// Two clusters of one fleet have the same authority: it comes from the fleet's secrets.
#[tokio::test]
async fn a_fleet_that_is_split_is_refused() {
    if !inside("a_fleet_that_is_split_is_refused") {
        return;
    }
    let mut site = Site::new(parts()).await;
    site.play_join("control-01").await;
    let probed = site.probe("control-01", part(BootstrapPart::Network)).await;
    assert_eq!(probed, Outcome::NotDone);
    let (_etcd, port) = lone_etcd(&site.machine("control-02"));
    site.api.stop_kube();
    site.api.etcd_port = port;
    site.api.bind = SECOND;
    site.api.start_kube();
    site.api.wait_ready().await;
    let split = failure(site.probe("control-01", part(BootstrapPart::Network)).await);
    assert_eq!(split.kind, FailureKind::Refused, "{split:?}");
    assert!(
        split
            .message
            .contains("control-02 answers for another cluster than control-01"),
        "{split:?}"
    );
}

#[tokio::test]
async fn a_second_cluster_and_a_join_that_fails_are_told() {
    if !inside("a_second_cluster_and_a_join_that_fails_are_told") {
        return;
    }
    let mut site = Site::new(ClusterParts::default()).await;
    let other = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 3), site.api.port)).unwrap();
    site.start("control-01", Action::FoundCluster, Work::Act);
    let refused = failure(site.ended().await);
    assert_eq!(refused.kind, FailureKind::Refused, "{refused:?}");
    assert!(refused.message.contains("control-02"), "{refused:?}");
    assert!(!site.machine("control-01").join("started").exists());
    drop(other);

    site.start("control-01", Action::FoundCluster, Work::Act);
    site.unit_started("control-01").await;
    let folder = site.machine("control-01");
    fs::create_dir_all(folder.join("run/undercroft")).unwrap();
    let said = r#"{"state": "failed", "reason": "this machine has no token for the cluster"}"#;
    fs::write(folder.join("run/undercroft/cluster.json"), said).unwrap();
    fs::write(folder.join("unit"), "failed\n").unwrap();
    let failed = failure(site.ended().await);
    assert!(failed.message.contains("no token"), "{failed:?}");
    assert!(failed.hint.unwrap().contains("journalctl"));

    // A machine that doesn't answer is no machine that isn't in.
    fs::write(folder.join("wrapper"), "#!/bin/sh\nexit 7\n").unwrap();
    let failed = failure(site.probe("control-01", Action::FoundCluster).await);
    assert_eq!(failed.kind, FailureKind::Transient, "{failed:?}");
    assert_eq!(failed.command.unwrap().exit_code, Some(7));
}

/// A server that has joined has its cluster, also while its API is away.
#[tokio::test]
async fn no_cluster_is_founded_beside_a_member_that_is_silent() {
    if !inside("no_cluster_is_founded_beside_a_member_that_is_silent") {
        return;
    }
    let mut site = Site::new(ClusterParts::default()).await;
    let state = site
        .machine("control-02")
        .join("var/lib/undercroft/cluster");
    fs::create_dir_all(&state).unwrap();
    fs::write(state.join("joined"), "").unwrap();
    let limit = Duration::from_secs(8);
    site.start_within("control-01", Action::FoundCluster, Work::Act, limit);
    let refused = failure(site.ended().await);
    assert_eq!(refused.kind, FailureKind::Refused, "{refused:?}");
    assert!(
        refused.message.contains("control-02 is a member"),
        "{refused:?}"
    );
    assert!(!site.machine("control-01").join("started").exists());
}

/// A founder whose API takes connections and says nothing costs each look one wait, and not one for each ask.
#[tokio::test]
async fn a_server_that_answers_is_asked_for_the_rest_of_a_round() {
    if !inside("a_server_that_answers_is_asked_for_the_rest_of_a_round") {
        return;
    }
    let mut site = Site::with_api_at(SECOND, ClusterParts::default(), free_port()).await;
    let silent = TcpListener::bind((FOUNDER, site.api.port)).unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    // It ends with the process.
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for connection in silent.incoming() {
            counted.fetch_add(1, Ordering::SeqCst);
            open.push(connection);
        }
    });
    for machine in ["control-01", "control-02"] {
        site.play_join(machine).await;
    }
    // Its Node, and then etcd's members.
    let probed = site
        .probe("control-02", join(ClusterRole::Server, false))
        .await;
    assert!(
        matches!(evidence(probed), Evidence::Joined { etcd_voters: 2, .. }),
        "{asked:?}"
    );
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

const NETWORK: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: ciliumnodes.cilium.io}
spec:
  group: cilium.io
  scope: Cluster
  names: {kind: CiliumNode, plural: ciliumnodes, singular: ciliumnode, listKind: CiliumNodeList}
  versions:
  - {name: v2, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: cilium, namespace: kube-system}
spec:
  selector: {matchLabels: {k8s-app: cilium}}
  template:
    metadata: {labels: {k8s-app: cilium}}
    spec: {hostNetwork: true, containers: [{name: agent, image: example.org/cilium}]}
";

const ROOT: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: applications.argoproj.io}
spec:
  group: argoproj.io
  scope: Namespaced
  names: {kind: Application, plural: applications, singular: application, listKind: ApplicationList}
  versions:
  - name: v1alpha1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
---
apiVersion: v1
kind: Namespace
metadata: {name: argocd}
";

fn workload(kind: &str, namespace: &str, name: &str) -> Manifest {
    let mut object = json!({
        "apiVersion": "apps/v1", "kind": kind,
        "metadata": { "name": name, "namespace": namespace },
        "spec": {
            "replicas": 1,
            "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": { "app": name } },
                "spec": { "containers": [{ "name": "a", "image": "example.org/a" }] },
            },
        },
    });
    if kind == "StatefulSet" {
        object["spec"]["serviceName"] = json!("none");
    }
    Manifest::new("test", object).unwrap()
}

fn objects(manifests: Vec<Manifest>) -> BootstrapItem {
    BootstrapItem::Objects {
        manifests,
        namespace: "default".to_owned(),
    }
}

fn manifest(object: Value) -> Manifest {
    Manifest::new("test", object).unwrap()
}

const ARGOCD: [(&str, &str); 4] = [
    ("StatefulSet", "argocd-application-controller"),
    ("Deployment", "argocd-repo-server"),
    ("Deployment", "argocd-server"),
    ("Deployment", "argocd-redis"),
];

fn parts() -> ClusterParts {
    parts_with(Arc::new(Mutex::new("a-word-nobody-may-see".to_owned())))
}

/// With a password that may be changed.
fn parts_with(password: Arc<Mutex<String>>) -> ClusterParts {
    let mut network = parse("network", NETWORK).unwrap();
    network.push(workload("Deployment", "kube-system", "cilium-operator"));
    let mut argocd = parse("argocd", ROOT).unwrap();
    argocd.extend(ARGOCD.map(|(kind, name)| workload(kind, "argocd", name)));
    let root = manifest(json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Application",
        "metadata": { "name": "root", "namespace": "argocd" }, "spec": { "project": "fleet" },
    }));
    let secret = move || {
        manifest(json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": { "name": "fleet-repository", "namespace": "argocd" },
            "stringData": { "password": password.lock().unwrap().as_str() },
        }))
    };
    ClusterParts {
        items: vec![
            (BootstrapPart::Network, objects(network)),
            (BootstrapPart::ArgoCd, objects(argocd)),
            (BootstrapPart::RootApp, objects(vec![root])),
        ],
        secrets: Some(Arc::new(move || Ok(vec![secret()]))),
        ..ClusterParts::default()
    }
}

const APPLICATION: &str = "argoproj.io/v1alpha1/Application";

/// What a controller says of a workload whose one pod is ready.
fn available() -> Value {
    json!({
        "observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1,
        "readyReplicas": 1,
    })
}

/// A pod that a controller has made and a scheduler has bound.
fn pod(name: &str, labels: Value, node: &str) -> Manifest {
    manifest(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "kube-system", "labels": labels },
        "spec": { "nodeName": node, "containers": [{ "name": "a", "image": "example.org/a" }] },
    }))
}

async fn make(site: &Site, object: &Manifest) {
    let made = site.api.cluster().apply(object, "", Apply::Always).await;
    made.unwrap();
}

async fn bring_in_network(site: &mut Site) -> Outcome {
    site.start("control-01", part(BootstrapPart::Network), Work::Act);
    let system = Some("kube-system");
    site.api
        .set_status("apps/v1/Deployment", system, "cilium-operator", available())
        .await;
    make(
        site,
        &pod("cilium-x", json!({ "k8s-app": "cilium" }), "control-01"),
    )
    .await;
    let ready = json!({ "conditions": [{ "type": "Ready", "status": "True" }] });
    site.api
        .set_status("v1/Pod", system, "cilium-x", ready)
        .await;
    site.ended().await
}

async fn bring_in_secrets(site: &mut Site) -> Outcome {
    // Argo CD's namespace comes with the tree.
    let namespace = manifest(json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "argocd" },
    }));
    make(site, &namespace).await;
    site.start("control-01", part(BootstrapPart::Secrets), Work::Act);
    site.ended().await
}

async fn bring_in_argocd(site: &mut Site) -> Outcome {
    site.start("control-01", part(BootstrapPart::ArgoCd), Work::Act);
    for (kind, name) in ARGOCD {
        let kind = format!("apps/v1/{kind}");
        site.api
            .set_status(&kind, Some("argocd"), name, available())
            .await;
    }
    site.ended().await
}

async fn play_synced(site: &Site) {
    let synced = json!({
        "sync": { "status": "Synced", "revision": "3f2a91c8d0aa" },
        "health": { "status": "Healthy" }, "operationState": { "phase": "Succeeded" },
    });
    site.api
        .set_status(APPLICATION, Some("argocd"), "root", synced)
        .await;
}

#[tokio::test]
async fn the_network_secrets_argo_cd_and_the_root_application_are_brought_in() {
    if !inside("the_network_secrets_argo_cd_and_the_root_application_are_brought_in") {
        return;
    }
    let password = Arc::new(Mutex::new("a-word-nobody-may-see".to_owned()));
    let mut site = Site::new(parts_with(Arc::clone(&password))).await;
    site.play_join("control-01").await;
    let probed = site.probe("control-01", part(BootstrapPart::Network)).await;
    assert_eq!(probed, Outcome::NotDone);

    let network = evidence(bring_in_network(&mut site).await);
    assert!(
        matches!(&network, Evidence::Bootstrapped { shown, .. } if shown == "Cilium is ready on control-01"),
        "{network:?}"
    );
    let probed = site.probe("control-01", part(BootstrapPart::Network)).await;
    assert!(matches!(probed, Outcome::Done { .. }), "{probed:?}");

    // Secrets stand before Argo CD.
    let secrets = evidence(bring_in_secrets(&mut site).await);
    assert!(
        matches!(&secrets, Evidence::Bootstrapped { shown, .. } if shown == "1 objects"),
        "{secrets:?}"
    );
    let argocd = evidence(bring_in_argocd(&mut site).await);
    assert!(
        matches!(argocd, Evidence::Bootstrapped { .. }),
        "{argocd:?}"
    );

    // The founder goes away while the root application syncs, and another server answers.
    site.start("control-01", part(BootstrapPart::RootApp), Work::Act);
    let syncing = json!({ "sync": { "status": "OutOfSync" }, "health": { "status": "Missing" } });
    site.api
        .set_status(APPLICATION, Some("argocd"), "root", syncing)
        .await;
    site.api.stop_kube();
    site.api.bind = SECOND;
    site.api.start_kube();
    site.api.wait_ready().await;
    play_synced(&site).await;
    let Evidence::Bootstrapped { shown, .. } = evidence(site.ended().await) else {
        panic!("not synced");
    };
    assert_eq!(shown, "synced to 3f2a91c, healthy");

    // A second run finds all of it, and touches nothing.
    for each in BootstrapPart::ALL {
        let probed = site.probe("control-01", part(each)).await;
        assert!(matches!(probed, Outcome::Done { .. }), "{each}: {probed:?}");
    }
    // What later parts stand on is taken away: each of them goes back for it.
    for (gone, kind, namespace, name) in [
        (
            BootstrapPart::Network,
            "Deployment",
            "kube-system",
            "cilium-operator",
        ),
        (
            BootstrapPart::ArgoCd,
            "StatefulSet",
            "argocd",
            "argocd-application-controller",
        ),
    ] {
        site.api
            .remove(&format!("apps/v1/{kind}"), namespace, name)
            .await;
        for later in BootstrapPart::ALL.into_iter().filter(|part| *part > gone) {
            let lost = failure(site.probe("control-01", part(later)).await);
            let said = format!("{gone} was brought in, and the {kind} {name} isn't there any more");
            assert_eq!(
                (lost.kind, lost.message),
                (FailureKind::PreconditionLost, said),
                "{later}"
            );
        }
        let again = workload(kind, namespace, name);
        make(&site, &again).await;
        let status = format!("apps/v1/{kind}");
        site.api
            .set_status(&status, Some(namespace), name, available())
            .await;
    }
    // What was rotated reaches the cluster.
    *password.lock().unwrap() = "another-that-nobody-may-see".to_owned();
    let secrets = || part(BootstrapPart::Secrets);
    let probed = site.probe("control-01", secrets()).await;
    assert_eq!(probed, Outcome::NotDone);
    site.start("control-01", secrets(), Work::Act);
    evidence(site.ended().await);
    let probed = site.probe("control-01", secrets()).await;
    assert!(matches!(probed, Outcome::Done { .. }), "{probed:?}");
    let told = format!("{:?}", site.told.lock().unwrap());
    assert!(!told.contains("nobody-may-see"));
}

#[tokio::test]
async fn an_object_that_somebody_else_keeps_is_a_failure_with_their_name() {
    if !inside("an_object_that_somebody_else_keeps_is_a_failure_with_their_name") {
        return;
    }
    let mut site = Site::new(parts()).await;
    site.play_join("control-01").await;
    let mut theirs = workload("Deployment", "kube-system", "cilium-operator").object;
    theirs["spec"]["replicas"] = json!(2);
    let resource = kube::core::ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk(
        "apps",
        "v1",
        "Deployment",
    ));
    let api: kube::Api<kube::core::DynamicObject> =
        kube::Api::namespaced_with(site.api.client(), "kube-system", &resource);
    let params = kube::api::PatchParams::apply("helm");
    api.patch(
        "cilium-operator",
        &params,
        &kube::api::Patch::Apply(&theirs),
    )
    .await
    .unwrap();
    site.start("control-01", part(BootstrapPart::Network), Work::Act);
    let conflict = failure(site.ended().await);
    assert_eq!(conflict.kind, FailureKind::Permanent, "{conflict:?}");
    assert_eq!(
        conflict.message,
        "Deployment kube-system/cilium-operator has fields that others own: .spec.replicas (helm)"
    );
}
