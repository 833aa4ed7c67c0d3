//! The rendered tree of the basement, kept by a real Argo CD: its controller and its repository
//! server, with git over HTTP, Helm and Redis, on a real kube-apiserver.
//!
//! There are no kubelets and no controllers here: the test plays what they would report. Charts are
//! stand-ins of the same names and versions.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that can't go on stops"
)]

mod charts;
#[path = "../../../metal/tests/kube_common/mod.rs"]
mod kube_common;
mod site;
mod web;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use kube::core::DynamicObject;
use serde_json::{Value, json};
use site::{APPLICATION, ARGOCD, CONFIG_MAP, Site, settled, text};

/// The key of stand-in charts in which their values are.
const VALUES: &str = "/data/values";

/// The names of the Applications up to a wave, and the root's.
fn up_to(site: &Site, wave: i64) -> BTreeSet<String> {
    let mut names = BTreeSet::from(["root".to_owned()]);
    for object in site.objects() {
        let at = object
            .object
            .pointer("/metadata/annotations/argocd.argoproj.io~1sync-wave")
            .and_then(Value::as_str)
            .map_or(0, |text| text.parse().unwrap());
        if object.kind() == "Application" && at <= wave {
            names.insert(object.name().to_owned());
        }
    }
    names
}

/// Waits until the root waits for an Application, and sees to it that there is none of a later
/// wave.
async fn held_by(site: &Site, name: &str, wave: i64) {
    let waits = format!("argoproj.io/Application/{name}");
    let there = site
        .wait(&format!("the root waits for {name}"), |applications| {
            let message = text(&applications["root"], "/status/operationState/message");
            message.starts_with("waiting for healthy state") && message.contains(&waits)
        })
        .await;
    let names: BTreeSet<String> = there.into_keys().collect();
    assert_eq!(names, up_to(site, wave), "held by {name}");
}

async fn play_cilium(site: &Site) {
    let set = site.get("apps/v1/DaemonSet", "kube-system", "cilium").await;
    let generation = set.unwrap().metadata.generation;
    let status = json!({
        "observedGeneration": generation,
        "currentNumberScheduled": 1, "desiredNumberScheduled": 1, "updatedNumberScheduled": 1,
        "numberAvailable": 1, "numberMisscheduled": 0, "numberReady": 1,
    });
    site.server
        .set_status("apps/v1/DaemonSet", Some("kube-system"), "cilium", status)
        .await;
}

/// Says of an object what cert-manager says.
async fn play_cert_manager(site: &Site, kind: &str, namespace: Option<&str>, name: &str) {
    let status = json!({ "conditions": [{
        "type": "Ready", "status": "True", "reason": "Played", "message": "it is as it should be",
    }] });
    let kind = format!("cert-manager.io/v1/{kind}");
    site.server.set_status(&kind, namespace, name, status).await;
}

/// Every object of cert-manager's kinds that a component brings.
fn certificates(site: &Site, component: &str) -> Vec<(String, Option<String>, String)> {
    let folder = site
        .fleet
        .join(format!("gitops/components/{component}/manifests"));
    let mut files = Vec::new();
    kube_common::walk(&folder, &mut files);
    let mut found = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for object in undercroft_kube::parse("", &text).unwrap() {
            if object.api_version().starts_with("cert-manager.io/") {
                let namespace = object.object.pointer("/metadata/namespace");
                let namespace = namespace.and_then(Value::as_str).map(str::to_owned);
                found.push((
                    object.kind().to_owned(),
                    namespace,
                    object.name().to_owned(),
                ));
            }
        }
    }
    assert!(!found.is_empty(), "{component} has no certificates");
    found
}

fn all_settled(applications: &BTreeMap<String, DynamicObject>, names: &BTreeSet<String>) -> bool {
    applications.keys().eq(names) && applications.values().all(settled)
}

#[tokio::test]
async fn argo_cd_keeps_a_cluster_by_the_rendered_tree() {
    let Some(mut site) = Site::new().await else {
        return;
    };
    let site = &mut site;
    site.edit("apps/web/page.yaml", |_| {
        "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: page }\ndata: { text: first }\n".into()
    });
    site.edit("values/loki.yaml", |_| {
        "loki:\n  limits_config:\n    retention_period: 240h\n".into()
    });
    site.push("An app and a value of my own");
    site.play_garbage_collector();
    site.bootstrap().await;
    let adopted = adopted(site).await;
    waves(site).await;
    assert_eq!(adopted, self::adopted(site).await, "restarted by Argo CD");
    values_reach_the_charts(site).await;
    the_bootstraps_probe_reads_it(site).await;
    nothing_more_is_done(site).await;
    a_raised_version_is_waited_for(site).await;
    what_strays_is_put_right(site).await;
    an_app_keeps_out_of_components(site).await;
    a_wrong_version_can_be_mended(site).await;
    a_component_goes(site).await;
}

/// What must not change when Argo CD takes over what the bootstrap has made: a new generation is a
/// rollout.
async fn adopted(site: &Site) -> (Option<String>, Option<i64>) {
    let set = site.get("apps/v1/DaemonSet", "kube-system", "cilium").await;
    let metadata = set.unwrap().metadata;
    (metadata.uid, metadata.generation)
}

async fn waves(site: &Site) {
    held_by(site, "cilium", 0).await;
    play_cilium(site).await;
    held_by(site, "cert-manager", 2).await;
    for (kind, namespace, name) in certificates(site, "cert-manager") {
        play_cert_manager(site, &kind, namespace.as_deref(), &name).await;
    }
    held_by(site, "nats", 4).await;
    for (kind, namespace, name) in certificates(site, "nats") {
        play_cert_manager(site, &kind, namespace.as_deref(), &name).await;
    }
    let names = up_to(site, i64::MAX);
    assert!(names.contains("web"));
    site.wait("everything is synced and healthy", |applications| {
        all_settled(applications, &names)
    })
    .await;
}

async fn values_reach_the_charts(site: &Site) {
    let loki = site
        .get(CONFIG_MAP, "monitoring", "loki-values")
        .await
        .unwrap();
    assert!(text(&loki, VALUES).contains("retention_period: 240h"));
    let page = site.get(CONFIG_MAP, "web", "page").await.unwrap();
    assert_eq!(text(&page, "/data/text"), "first");
}

async fn the_bootstraps_probe_reads_it(site: &Site) {
    let root = site.cluster.application(ARGOCD, "root").await.unwrap();
    let said = format!("{:?}", root.unwrap().health());
    assert!(said.starts_with("Good(\"synced to "), "{said}");
}

fn annotations(object: &DynamicObject) -> BTreeMap<String, String> {
    object.metadata.annotations.clone().unwrap_or_default()
}

/// Has Argo CD look at everything anew, and waits until it has and all is settled.
async fn look_again(site: &Site) -> BTreeMap<String, DynamicObject> {
    const REFRESH: &str = "argocd.argoproj.io/refresh";
    let before = site.applications().await;
    for name in before.keys() {
        let refresh = json!({ "metadata": { "annotations": { REFRESH: "hard" } } });
        site.meddle(APPLICATION, ARGOCD, name, refresh).await;
    }
    let looked = |object: &DynamicObject| text(object, "/status/reconciledAt").to_owned();
    site.wait("Argo CD has looked again", |applications| {
        applications.iter().all(|(name, object)| {
            let asked = annotations(object).contains_key(REFRESH);
            !asked && settled(object) && looked(object) > looked(&before[name])
        })
    })
    .await
}

/// Looks at everything anew until one finds nothing more to do: the root may have found its last
/// wave missing when it had just been made.
const LOOKS_MAX: usize = 6;

/// Argo CD comes to rest.
async fn nothing_more_is_done(site: &Site) {
    let mut done = Vec::new();
    for _ in 0..LOOKS_MAX {
        let applications = look_again(site).await;
        let of = |object| text(object, "/status/operationState/finishedAt").to_owned();
        let finished: Vec<String> = applications.values().map(of).collect();
        if done.last() == Some(&finished) {
            return;
        }
        done.push(finished);
    }
    panic!("Argo CD syncs again and again: {done:?}");
}

/// Sets a component's version, as somebody does by hand where there is no newer one to be found.
fn set_version(site: &Site, component: &str, version: &str) {
    site.edit("undercroft.lock", |text| {
        let head = format!("[components.{component}]\n");
        let (before, after) = text.split_once(&head).unwrap();
        let (others, rest) = after.split_once("\nversion = ").unwrap();
        let (_, rest) = rest.split_once('\n').unwrap();
        format!("{before}{head}{others}\nversion = {version:?}\n{rest}")
    });
}

/// The version of a component's chart, as its Application has it now.
fn version_of(applications: &BTreeMap<String, DynamicObject>, name: &str) -> String {
    text(&applications[name], "/spec/sources/0/targetRevision").to_owned()
}

/// Waits until every Application of the tree is synced and healthy, the root to the newest commit,
/// and returns them.
async fn all_is_well(site: &Site, what: &str) -> BTreeMap<String, DynamicObject> {
    let names = up_to(site, i64::MAX);
    let head = site.head();
    site.wait(what, |applications| {
        let root = applications.get("root");
        let at_head = root.is_some_and(|root| text(root, "/status/sync/revisions/0") == head);
        at_head && all_settled(applications, &names)
    })
    .await
}

/// The network's new version has to be healthy before what comes later gets its own. What Argo CD
/// knows of it right after the change is about the old one.
async fn a_raised_version_is_waited_for(site: &Site) {
    let old = version_of(&site.applications().await, "grafana");
    set_version(site, "cilium", "1.20.1");
    set_version(site, "grafana", "12.99.0");
    site.push("Newer versions");
    let applications = site
        .wait("the root waits for the new network", |applications| {
            let message = text(&applications["root"], "/status/operationState/message");
            version_of(applications, "cilium") == "1.20.1"
                && text(&applications["cilium"], "/status/health/status") == "Progressing"
                && message.contains("argoproj.io/Application/cilium")
        })
        .await;
    assert_eq!(version_of(&applications, "grafana"), old);
    play_cilium(site).await;
    let applications = all_is_well(site, "the new versions are there").await;
    assert_eq!(version_of(&applications, "grafana"), "12.99.0");
}

async fn what_strays_is_put_right(site: &Site) {
    let stray = json!({ "data": { "text": "changed by hand" } });
    site.meddle(CONFIG_MAP, "web", "page", stray).await;
    site.wait_for("the page is as it was", || async {
        let page = site.get(CONFIG_MAP, "web", "page").await?;
        (text(&page, "/data/text") == "first").then_some(())
    })
    .await;
    site.delete(CONFIG_MAP, "monitoring", "grafana-values")
        .await;
    site.wait_for("what was deleted is back", || async {
        site.get(CONFIG_MAP, "monitoring", "grafana-values").await
    })
    .await;
    site.edit("apps/web/note.yaml", |_| {
        "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: note }\n".into()
    });
    site.push("A note");
    site.wait_for("the note is there", || site.get(CONFIG_MAP, "web", "note"))
        .await;
    fs::remove_file(site.fleet.join("apps/web/note.yaml")).unwrap();
    site.push("No note");
    site.wait_for("the note is gone", || async {
        site.get(CONFIG_MAP, "web", "note")
            .await
            .is_none()
            .then_some(())
    })
    .await;
    all_is_well(site, "the app is as the repository has it").await;
}

/// What only Argo CD can see, such as an object that a chart or a kustomization makes, it refuses.
async fn an_app_keeps_out_of_components(site: &Site) {
    site.edit("apps/web/stray.yaml", |_| {
        "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: stray, namespace: kube-system }\n"
            .into()
    });
    site.push("An object in the network's namespace");
    site.wait("the app's sync is refused", |applications| {
        let web = &applications["web"];
        let said = format!(
            "{} {}",
            web.data["status"]["conditions"], web.data["status"]["operationState"]
        );
        said.contains("namespace kube-system is not permitted in project 'apps'")
    })
    .await;
    assert!(site.get(CONFIG_MAP, "kube-system", "stray").await.is_none());
    fs::remove_file(site.fleet.join("apps/web/stray.yaml")).unwrap();
    site.push("Without it");
    all_is_well(site, "the app is right again").await;
}

/// A version that doesn't exist holds up its wave; the commit that mends it isn't kept out by the
/// sync that waits.
async fn a_wrong_version_can_be_mended(site: &Site) {
    set_version(site, "loki", "404.0.0");
    site.push_without("A version that nobody has published", "loki");
    site.wait("the root has met the wrong version", |applications| {
        let loki = text(&applications["loki"], "/status/sync/status");
        version_of(applications, "loki") == "404.0.0" && loki == "Unknown"
    })
    .await;
    set_version(site, "loki", "18.99.0");
    site.push("One that somebody has");
    let applications = all_is_well(site, "the right version is there").await;
    assert_eq!(version_of(&applications, "loki"), "18.99.0");
}

/// What holds nothing goes with its Application. What holds data stays, and its Application with it,
/// until a person deletes that; the tree comes to rest either way.
async fn a_component_goes(site: &Site) {
    site.edit("undercroft.toml", |text| {
        text.replace("  \"nats\",\n", "")
            .replace("  \"longhorn\",\n", "")
            .replace("  \"alloy\",\n", "")
    });
    let moved = ["loki", "grafana", "prometheus"].map(|name| format!("--moved={name}"));
    let mut words = vec!["--leave=nats", "--leave=longhorn", "--yes"];
    words.extend(moved.iter().map(String::as_str));
    site.push_with("Without Alloy, NATS and Longhorn", &words);
    site.wait_for("the other volumes' provisioner is there", || {
        site.get(
            "apps/v1/Deployment",
            "local-path-storage",
            "local-path-provisioner",
        )
    })
    .await;
    let status = json!({
        "observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1,
        "availableReplicas": 1,
        "conditions": [{ "type": "Available", "status": "True" }],
    });
    let namespace = Some("local-path-storage");
    site.server
        .set_status(
            "apps/v1/Deployment",
            namespace,
            "local-path-provisioner",
            status,
        )
        .await;
    let names = up_to(site, i64::MAX);
    let head = site.head();
    site.wait("the tree has come to rest without them", |applications| {
        let root = &applications["root"];
        !applications.contains_key("alloy")
            && names.iter().all(|name| applications.contains_key(name))
            && text(root, "/status/sync/status") == "Synced"
            && text(root, "/status/operationState/syncResult/revisions/0") == head
    })
    .await;
    assert!(
        site.get(CONFIG_MAP, "monitoring", "alloy-values")
            .await
            .is_none()
    );
    let applications = site.applications().await;
    for (name, namespace) in [("nats", "nats"), ("longhorn", "longhorn-system")] {
        let kept = site
            .get(CONFIG_MAP, namespace, &format!("{name}-values"))
            .await;
        assert!(kept.is_some(), "the objects of {name} have gone");
        let application = &applications[name].metadata;
        assert_eq!(application.deletion_timestamp, None, "{name}");
    }
    // Longhorn's chart has a hook of deletion, so that the controller gives its Application a
    // finalizer and would run the hook. Nothing has.
    let uninstall = site.get("batch/v1/Job", "longhorn-system", "longhorn-uninstall");
    assert!(uninstall.await.is_none());
    let namespaces = site.api("v1/Namespace", None);
    assert!(namespaces.get_opt("nats").await.unwrap().is_some());
}
