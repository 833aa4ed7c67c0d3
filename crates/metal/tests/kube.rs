//! The client of the cluster's API against a real kube-apiserver: what is applied, what is refused
//! and in whose name, and what an API that goes away and comes back does to it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that can't go on stops"
)]

mod kube_common;

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use kube_common::{ApiServer, Authority, READY_WAIT};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use undercroft_kube::{
    Access, Applied, Apply, Cluster, Helm, HelmChart, KubeError, Manifest, parse,
};
use undercroft_model::{ClosedBy, FailureKind, inventory, objects::CLOSED_ANNOTATION};
use undercroft_secrets::Vault;
use undercroft_secrets::keys::{Consent, IdentitySource};
use undercroft_steps::{NodeWants, PodKind, PodName, WorkloadKind};
use undercroft_testkit::{OrSkip as _, charts, peer, repository, skip};

fn manifest(object: Value) -> Manifest {
    Manifest::new("test", object).unwrap()
}

fn config_map(data: Value) -> Manifest {
    manifest(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "a", "namespace": "default" }, "data": data,
    }))
}

fn node(name: &str) -> Manifest {
    manifest(json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name } }))
}

const CRD_AND_ONE: &str = "
apiVersion: example.org/v1
kind: Widget
metadata: {name: one}
spec: {size: 1}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.org}
spec:
  group: example.org
  scope: Namespaced
  names: {kind: Widget, plural: widgets, singular: widget, listKind: WidgetList}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties: {spec: {type: object, properties: {size: {type: integer}}}}
---
apiVersion: v1
kind: Namespace
metadata: {name: made-first, labels: {made: first}}
---
# What says nothing has no owner: it counts as there all the same.
apiVersion: v1
kind: ServiceAccount
metadata: {name: bare, namespace: made-first}
";

#[tokio::test]
async fn objects_are_applied_in_order_and_a_second_apply_changes_nothing() {
    let Some(server) = ApiServer::start().await else {
        return;
    };
    let cluster = server.cluster();
    assert!(cluster.version().await.unwrap().starts_with("v1."));
    let objects = parse("widgets.yaml", CRD_AND_ONE).unwrap();
    // Before its CRD the kind is unknown, which is told from an object that is wrong.
    let error = cluster
        .apply(&objects[0], "made-first", Apply::Always)
        .await
        .unwrap_err();
    assert!(matches!(error, KubeError::UnknownKind { .. }), "{error}");
    assert_eq!(error.into_failure().kind, FailureKind::Transient);

    let first = cluster
        .apply_all(&objects, "made-first", Apply::Always)
        .await
        .unwrap();
    let second = cluster
        .apply_all(&objects, "made-first", Apply::Always)
        .await
        .unwrap();
    // The CRD's own controller writes its status between the two, and the name's label, which the
    // API server gives a new Namespace, is taken off the applier's fields by the second.
    assert_eq!(first[0], second[0]);
    let third = cluster
        .apply_all(&objects, "made-first", Apply::Always)
        .await
        .unwrap();
    assert_eq!(second, third);
    let left = cluster
        .apply_all(&objects, "made-first", Apply::WhereAbsent)
        .await
        .unwrap();
    assert_eq!(left, vec![Applied::WasThere; objects.len()]);
    assert!(cluster.knows_crd("widgets.example.org").await.unwrap());
    assert!(!cluster.knows_crd("others.example.org").await.unwrap());

    // A misspelt field is refused, in kinds of Kubernetes' own and in others.
    let misspelt = manifest(json!({
        "apiVersion": "example.org/v1", "kind": "Widget",
        "metadata": { "name": "one" }, "spec": { "sise": 1 },
    }));
    for wrong in [config_map(json!({ "a": 1 })), misspelt] {
        let error = cluster
            .apply(&wrong, "made-first", Apply::Always)
            .await
            .unwrap_err();
        assert!(matches!(error, KubeError::Invalid { .. }), "{error}");
        assert_eq!(error.into_failure().kind, FailureKind::Permanent);
    }
}

#[tokio::test]
async fn what_others_own_is_a_conflict_with_their_name_and_is_left_as_it_is() {
    let Some(server) = ApiServer::start().await else {
        return;
    };
    let cluster = server.cluster();
    // Somebody else's object, made by plain creation under another manager's name.
    let theirs = config_map(json!({ "key": "theirs" }));
    apply_as(&server, "helm", &theirs.object).await;
    let ours = config_map(json!({ "key": "ours" }));
    for apply in [Apply::Always, Apply::WhereAbsent] {
        let error = cluster.apply(&ours, "default", apply).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "ConfigMap default/a has fields that others own: .data.key (helm)"
        );
        let failure = error.into_failure();
        assert_eq!(failure.kind, FailureKind::Permanent);
        assert!(failure.hint.unwrap().contains("two owners"));
    }
    // The same value is no conflict: it has two owners from then on.
    cluster
        .apply(&theirs, "default", Apply::WhereAbsent)
        .await
        .unwrap();
    let again = cluster.apply(&theirs, "default", Apply::WhereAbsent).await;
    assert_eq!(again.unwrap(), Applied::WasThere);
}

#[tokio::test]
async fn an_api_that_goes_away_is_waited_for_and_another_clusters_is_refused() {
    let Some(mut server) = ApiServer::start().await else {
        return;
    };
    let cluster = server.cluster();
    cluster
        .apply(&config_map(json!({ "a": "1" })), "default", Apply::Always)
        .await
        .unwrap();
    server.stop_kube();
    let error = cluster.ready().await.unwrap_err();
    assert!(error.is_passing(), "{error}");
    assert!(
        error.to_string().contains(&server.port.to_string()),
        "{error}"
    );
    let until = Instant::now() + READY_WAIT;
    let waiting = tokio::spawn(async move {
        let wanted = config_map(json!({ "a": "1" }));
        Cluster::persist(until, || {
            cluster.apply(&wanted, "default", Apply::WhereAbsent)
        })
        .await
    });
    server.start_kube();
    assert_eq!(waiting.await.unwrap().unwrap(), Applied::WasThere);

    // The same address with another authority: another cluster's server.
    let foreign = SecretString::from(Authority::new().kubeconfig(server.port));
    let foreign = Access::of_kubeconfig(&foreign).unwrap();
    let ours = Access::of_kubeconfig(&SecretString::from(server.kubeconfig())).unwrap();
    assert_ne!(foreign.ca_fingerprint(), ours.ca_fingerprint());
    let cluster = Cluster::at(&foreign, Ipv4Addr::LOCALHOST.into(), server.port).unwrap();
    let error = cluster.ready().await.unwrap_err();
    assert!(matches!(error, KubeError::OtherCluster { .. }), "{error}");
    assert_eq!(error.into_failure().kind, FailureKind::Refused);
}

#[tokio::test]
async fn a_node_is_dressed_and_forgotten() {
    let Some(server) = ApiServer::start().await else {
        return;
    };
    let cluster = server.cluster();
    let labels = BTreeMap::from([(
        "node.longhorn.io/create-default-disk".into(),
        "config".into(),
    )]);
    let annotations =
        BTreeMap::from([("node.longhorn.io/default-disks-config".into(), "[]".into())]);
    let taints = ["gpu=yes:NoSchedule".to_owned()];
    let wants = NodeWants {
        labels: &labels,
        annotations: &annotations,
        taints: &taints,
    };
    let missing = cluster.dress("gpu-01", &wants).await.unwrap_err();
    assert!(missing.is_passing(), "{missing}");
    assert_eq!(cluster.node("gpu-01").await.unwrap(), None);

    let mut made = node("gpu-01");
    made.object["spec"] = json!({ "taints": [{ "key": "theirs", "effect": "NoExecute" }] });
    apply_as(&server, "kubelet", &made.object).await;
    for _ in 0..2 {
        cluster.dress("gpu-01", &wants).await.unwrap();
        let seen = cluster.node("gpu-01").await.unwrap().unwrap();
        assert!(seen.carries(&wants), "{seen:?}");
        assert!(!seen.ready && seen.boot_id.is_empty());
        assert!(seen.taints.contains(&"theirs:NoExecute".to_owned()));
        // The API server adds one for a Node that isn't ready.
        assert_eq!(
            seen.taints.iter().filter(|t| t.starts_with("gpu")).count(),
            1
        );
    }
    // The inventory gives it another value: a Node has one taint of a key and an effect.
    let taints = [
        "gpu=no:NoSchedule".to_owned(),
        "idle=:NoSchedule".to_owned(),
    ];
    let wants = NodeWants {
        taints: &taints,
        ..wants
    };
    cluster.dress("gpu-01", &wants).await.unwrap();
    let seen = cluster.node("gpu-01").await.unwrap().unwrap();
    assert!(seen.carries(&wants), "{seen:?}");
    assert!(!seen.taints.contains(&"gpu=yes:NoSchedule".to_owned()));
    assert!(seen.taints.contains(&"theirs:NoExecute".to_owned()));
    let password = manifest(json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": { "name": "gpu-01.node-password.k3s", "namespace": "kube-system" },
    }));
    cluster
        .apply(&password, "kube-system", Apply::Always)
        .await
        .unwrap();
    for _ in 0..2 {
        cluster.forget_node("gpu-01").await.unwrap();
        assert_eq!(cluster.nodes().await.unwrap(), []);
    }
    let again = cluster.apply(&password, "kube-system", Apply::WhereAbsent);
    assert!(
        matches!(again.await.unwrap(), Applied::Sent { .. }),
        "the password is still there"
    );
    let set = WorkloadKind::DaemonSet;
    let absent = cluster.rollout(set, "kube-system", "cilium").await;
    assert_eq!(absent.unwrap(), None);
    let absent = cluster.application("argocd", "root").await;
    assert_eq!(absent.unwrap(), None);
}

#[tokio::test]
async fn a_node_is_closed_emptied_as_budgets_allow_and_opened_again() {
    let Some(server) = ApiServer::start().await else {
        return;
    };
    let cluster = server.cluster();
    let owner = json!({ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "1", "controller": true });
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "web-1", "namespace": "default", "labels": { "app": "web" }, "ownerReferences": [owner] },
        "spec": { "nodeName": "gpu-01", "containers": [{ "name": "web", "image": "example.org/web" }] },
    });
    let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "default", "namespace": "default" } });
    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": { "name": "web", "namespace": "default" },
        "spec": { "minAvailable": 1, "selector": { "matchLabels": { "app": "web" } } },
    });
    let made = node("gpu-01");
    for object in [made.object, account, pod, budget] {
        cluster
            .apply(&manifest(object), "default", Apply::Always)
            .await
            .unwrap();
    }
    let ready =
        json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] });
    server
        .set_status("v1/Pod", Some("default"), "web-1", ready)
        .await;

    cluster.close_node("gpu-01").await.unwrap();
    // What the inventory asks for is put on meanwhile, and takes the mark off no Node.
    let (none, taints) = (BTreeMap::new(), []);
    let wants = NodeWants {
        labels: &none,
        annotations: &none,
        taints: &taints,
    };
    cluster.dress("gpu-01", &wants).await.unwrap();
    let seen = cluster.node("gpu-01").await.unwrap().unwrap();
    assert_eq!(seen.closed_by(), Some(ClosedBy::Update));

    let pods = cluster.pods_on("gpu-01").await.unwrap();
    assert_eq!(pods.len(), 1);
    assert_eq!(pods[0].kind, PodKind::Kept);
    let names = [pods[0].pod.clone()];
    let refused = cluster.evict(&names).await.unwrap();
    assert!(
        refused[0]
            .refused
            .as_ref()
            .is_some_and(|why| why.contains("disruption")),
        "{refused:?}"
    );
    // Another pod of that name isn't meant; the API server counts what it refuses for that all the same.
    let other = PodName {
        uid: "another".to_owned(),
        ..names[0].clone()
    };
    let allows = json!({
        "observedGeneration": 1, "disruptionsAllowed": 2, "currentHealthy": 3, "desiredHealthy": 1, "expectedPods": 3,
    });
    server
        .set_status(
            "policy/v1/PodDisruptionBudget",
            Some("default"),
            "web",
            allows,
        )
        .await;
    let not_it = cluster.evict(&[other]).await.unwrap();
    assert!(not_it[0].refused.is_some(), "{not_it:?}");
    let evicted = cluster.evict(&names).await.unwrap();
    assert_eq!(evicted[0].refused, None);
    let pods = cluster.pods_on("gpu-01").await.unwrap();
    assert!(
        pods.iter().all(|seen| seen.kind == PodKind::Ending),
        "{pods:?}"
    );

    cluster.open_node("gpu-01").await.unwrap();
    let seen = cluster.node("gpu-01").await.unwrap().unwrap();
    assert_eq!(seen.closed_by(), None);
    assert!(!seen.annotations.contains_key(CLOSED_ANNOTATION));
    // What somebody else has closed stays so.
    let theirs = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "gpu-01" }, "spec": { "unschedulable": true } });
    apply_as(&server, "kubectl", &theirs).await;
    cluster.open_node("gpu-01").await.unwrap();
    let seen = cluster.node("gpu-01").await.unwrap().unwrap();
    assert_eq!(seen.closed_by(), Some(ClosedBy::Others));
}

/// The published chart's archive, as its repository's index names it.
const CILIUM_DIGEST: &str =
    "sha256:c5f013912360d1a334f44ef25f36da59ba3414cdb48f466ee12d0c4fdff27883";

/// Cilium with the values of the rendered example.
fn cilium(digest: &str) -> HelmChart {
    HelmChart {
        name: "cilium".to_owned(),
        repository: "https://helm.cilium.io".to_owned(),
        version: "1.20.0".to_owned(),
        digest: Some(digest.to_owned()),
        release: "cilium".to_owned(),
        namespace: "kube-system".to_owned(),
        values: include_str!("../../../examples/basement/gitops/components/cilium/values.yaml")
            .to_owned(),
    }
}

#[tokio::test]
async fn the_chart_of_the_network_is_rendered_and_applied_twice() {
    let (Some(charts), Some(program)) = (charts().or_skip(), peer("helm").or_skip()) else {
        return;
    };
    if !charts.join("cilium-1.20.0.tgz").is_file() {
        skip("cilium-1.20.0.tgz isn't in UNDERCROFT_CHARTS");
        return;
    }
    let helm = Helm::new(program, charts);
    let another = format!("sha256:{}", "0".repeat(64));
    let error = helm.render(&cilium(&another), "v1.34.4").await.unwrap_err();
    assert!(error.to_string().contains(&another), "{error}");
    assert_eq!(error.into_failure().kind, FailureKind::Permanent);

    let Some(server) = ApiServer::start().await else {
        return;
    };
    let cluster = server.cluster();
    let version = cluster.version().await.unwrap();
    let objects = helm.render(&cilium(CILIUM_DIGEST), &version).await.unwrap();
    let has = |kind: &str, name: &str| objects.iter().any(|o| o.kind() == kind && o.name() == name);
    assert!(has("DaemonSet", "cilium") && has("Deployment", "cilium-operator"));
    assert!(has("ConfigMap", "cilium-config"));

    let first = cluster.apply_all(&objects, "kube-system", Apply::Always);
    let first = first.await.unwrap();
    assert_eq!(first.len(), objects.len());
    let left = cluster.apply_all(&objects, "kube-system", Apply::WhereAbsent);
    assert_eq!(left.await.unwrap(), vec![Applied::WasThere; objects.len()]);
    let second = cluster.apply_all(&objects, "kube-system", Apply::Always);
    let second = second.await.unwrap();
    for ((object, first), second) in objects.iter().zip(first).zip(second) {
        // The API server's own controllers write to it between the two.
        if object.kind() != "Namespace" {
            assert_eq!(first, second, "{}", object.shown());
        }
    }
}

/// Applies an object under another manager's name.
async fn apply_as(server: &ApiServer, manager: &str, object: &Value) {
    let client = server.client();
    let text = |path: &str| object.pointer(path).and_then(Value::as_str);
    let resource = kube::core::ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk(
        "",
        "v1",
        text("/kind").unwrap(),
    ));
    let api: kube::Api<kube::core::DynamicObject> = match text("/metadata/namespace") {
        Some(namespace) => kube::Api::namespaced_with(client, namespace, &resource),
        None => kube::Api::all_with(client, &resource),
    };
    let params = kube::api::PatchParams::apply(manager);
    let patch = kube::api::Patch::Apply(object);
    let name = text("/metadata/name").unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    while let Err(error) = api.patch(name, &params, &patch).await {
        assert!(Instant::now() < until, "{error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// k3s names one file to the API server twice: as what it signs service accounts' tokens with, and
/// as what it knows them by. The second reads fewer forms of a key than the first.
#[tokio::test]
async fn the_api_server_reads_k3s_signing_key_for_both_of_its_uses() {
    let Some(mut server) = ApiServer::start().await else {
        return;
    };
    let example = repository().join("examples/basement/undercroft.toml");
    let parsed = inventory::parse("undercroft.toml", &std::fs::read(example).unwrap());
    let mut inventory = parsed.inventory.unwrap();
    inventory.secrets.operators.clear();
    let dir = tempfile::tempdir().unwrap();
    let identities = IdentitySource {
        state_dir: dir.path().join("state"),
        identity_files: vec![],
        well_known: false,
    };
    let vault = Vault::open(dir.path(), &inventory, identities)
        .unwrap()
        .agreeing(Consent::Given);
    vault.init(1_795_397_506).unwrap();
    let key = vault.get("k3s/tls/service.key").unwrap().unwrap();
    server.stop_kube();
    for file in ["sa.key", "sa.pub"] {
        std::fs::write(server.dir.path().join(file), key.expose_secret()).unwrap();
    }
    server.start_kube();
    server.wait_ready().await;
}
