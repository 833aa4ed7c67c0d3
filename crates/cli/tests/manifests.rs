//! Every manifest that `undercroft render` makes of the examples, judged by a real kube-apiserver:
//! applied server-side with strict field validation under the name that Argo CD will use, twice. What
//! `undercroft dev config` makes of one for a PC is judged too.
//!
//! The API server knows the kinds of Kubernetes' own; for others their CustomResourceDefinitions
//! have to be at hand, in `UNDERCROFT_SCHEMAS` or `UNDERCROFT_CRDS`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that can't go on stops"
)]

#[path = "../../metal/tests/kube_common/mod.rs"]
mod kube_common;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use kube_common::{ApiServer, crd_files, walk};
use tempfile::TempDir;
use undercroft_kube::{Applied, Apply, Cluster, KubeError, Manifest, parse};

/// The examples with a cluster.
const EXAMPLES: [&str; 3] = ["basement", "kubeadm", "workshop"];

/// For whom a tree is rendered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tree {
    /// The fleet's cluster.
    Fleet,
    /// A PC's own cluster.
    Pc,
}

impl Tree {
    /// The words of the command that renders it, and the folder that it is rendered into.
    fn command(self) -> (&'static [&'static str], &'static str) {
        match self {
            Self::Fleet => (&["render"], "gitops"),
            Self::Pc => (&["dev", "config"], "dev"),
        }
    }
}

/// What is judged: each example's tree, and what a PC gets of the largest.
fn trees() -> impl Iterator<Item = (&'static str, Tree)> {
    let fleets = EXAMPLES.map(|example| (example, Tree::Fleet));
    fleets.into_iter().chain([("basement", Tree::Pc)])
}
/// Where what names no namespace goes; the rendered tree names them all.
const NAMESPACE: &str = "default";

fn copy(from: &Path, to: &Path) {
    let mut files = Vec::new();
    walk(from, &mut files);
    for file in files {
        let to = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(file, to).unwrap();
    }
}

/// Adds the server of lending, which an example can't have: its image is somebody's own.
fn with_lending_server(inventory: &Path) {
    let text = fs::read_to_string(inventory).unwrap();
    let with = text
        .replace("  \"nats\",\n", "  \"nats\",\n  \"lending-server\",\n")
        .replace(
            "[lending]\n",
            "[lending]\nserver_key = \"UCZ6VTJTIM5TDNJFENIQGLE3HZ5C46VHOOGV33G7BXLMMJUAQU6ANX4L\"\n\
         server_image = \"registry.basement.example/lending-server\"\n",
        );
    assert!(with.len() > text.len() + 100);
    fs::write(inventory, with).unwrap();
}

/// An example in a folder of its own, rendered, and all objects of its tree with their files.
fn rendered(example: &str, tree: Tree) -> (TempDir, Vec<Manifest>) {
    let (words, folder) = tree.command();
    let dir = tempfile::tempdir().unwrap();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    copy(&examples.join(example), dir.path());
    if (example, tree) == ("basement", Tree::Fleet) {
        with_lending_server(&dir.path().join("undercroft.toml"));
    }
    let output = Command::new(env!("CARGO_BIN_EXE_undercroft"))
        .args(words)
        .arg(dir.path())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{example}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut files = Vec::new();
    walk(&dir.path().join(folder), &mut files);
    files.sort();
    let is_manifest = |file: &PathBuf| {
        let name = file.file_name().unwrap().to_string_lossy();
        // Values aren't objects, the order of the bootstrap is Undercroft's own, and k3d reads its
        // file itself.
        name.ends_with(".yaml") && !["values.yaml", "order.yaml", "k3d.yaml"].contains(&&*name)
    };
    let mut manifests = Vec::new();
    for file in files.iter().filter(|file| is_manifest(file)) {
        let origin = file.strip_prefix(dir.path()).unwrap().display().to_string();
        manifests.extend(parse(&origin, &fs::read_to_string(file).unwrap()).unwrap());
    }
    assert!(
        manifests.len() > 10,
        "{example}: {} objects",
        manifests.len()
    );
    // Namespaces first, as the bootstrap has it.
    manifests.sort_by_key(|manifest| manifest.kind() != "Namespace");
    (dir, manifests)
}

fn crds() -> Vec<Manifest> {
    let mut crds = BTreeMap::new();
    for file in crd_files() {
        let text = fs::read_to_string(&file).unwrap();
        for crd in parse(&file.display().to_string(), &text).unwrap() {
            if crd.kind() == "CustomResourceDefinition" {
                crds.insert(crd.name().to_owned(), crd);
            }
        }
    }
    crds.into_values().collect()
}

async fn cluster_with_crds(server: &ApiServer) -> Cluster {
    let cluster = server.cluster();
    let crds = crds();
    cluster
        .apply_all(&crds, NAMESPACE, Apply::Always)
        .await
        .unwrap();
    cluster
}

/// Applies everything, and gives the resource versions of what was taken and the kinds that the
/// cluster doesn't know.
async fn apply(
    cluster: &Cluster,
    manifests: &[Manifest],
) -> (BTreeMap<String, String>, BTreeSet<String>) {
    let (mut taken, mut unknown, mut refused) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
    for manifest in manifests {
        match cluster.apply(manifest, NAMESPACE, Apply::Always).await {
            Ok(Applied::Sent { resource_version }) => {
                taken.insert(manifest.shown(), resource_version);
            }
            Ok(Applied::WasThere) => panic!("{} was not sent", manifest.shown()),
            Err(KubeError::UnknownKind { .. }) => {
                let kind = format!("{} of {}", manifest.kind(), manifest.api_version());
                unknown.insert(kind);
            }
            Err(error) => refused.push(format!("{}: {error}", manifest.origin)),
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    (taken, unknown)
}

#[tokio::test]
async fn every_rendered_manifest_is_taken_by_the_api_server_as_it_is() {
    let mut unknown = BTreeSet::new();
    for (example, tree) in trees() {
        let Some(server) = ApiServer::start().await else {
            return;
        };
        let cluster = cluster_with_crds(&server).await;
        let (_dir, manifests) = rendered(example, tree);
        let (first, not_known) = apply(&cluster, &manifests).await;
        // What the API server itself adds to a new object is taken off the applier's fields by the
        // second; from then on nothing changes.
        let (second, _) = apply(&cluster, &manifests).await;
        let (third, _) = apply(&cluster, &manifests).await;
        assert_eq!(second, third, "{example} {tree:?}");
        // Without the folder of CRDs it is what Kubernetes and Argo CD know themselves.
        assert!(first.len() >= 5, "{example}: {first:?}");
        if (example, tree) == ("basement", Tree::Fleet) {
            for kind in ["Deployment", "Service", "ConfigMap", "NetworkPolicy"] {
                let ours = format!("{kind} nats/lending-server");
                assert!(first.contains_key(&ours), "{ours}: {first:?}");
            }
        }
        println!(
            "{example} {tree:?}: {} of {} objects taken",
            first.len(),
            manifests.len()
        );
        unknown.extend(not_known);
    }
    for kind in unknown {
        println!("not judged, for want of its CRD: {kind}");
    }
}

#[tokio::test]
async fn a_misspelt_field_in_the_tree_would_be_refused() {
    let Some(server) = ApiServer::start().await else {
        return;
    };
    let cluster = cluster_with_crds(&server).await;
    let (_dir, manifests) = rendered("basement", Tree::Fleet);
    let mut misspelt = 0;
    for manifest in &manifests {
        if manifest.kind() == "Namespace" {
            cluster
                .apply(manifest, NAMESPACE, Apply::Always)
                .await
                .unwrap();
        }
        let mut wrong = manifest.clone();
        let Some(spec) = wrong.object.get_mut("spec").and_then(|s| s.as_object_mut()) else {
            continue;
        };
        spec.insert("misspelt".to_owned(), serde_json::json!("x"));
        match cluster.apply(&wrong, NAMESPACE, Apply::Always).await {
            Err(KubeError::Invalid { message, .. }) => {
                assert!(message.contains("misspelt"), "{message}");
                misspelt += 1;
            }
            Err(KubeError::UnknownKind { .. }) => {}
            other => panic!("{}: {other:?}", manifest.shown()),
        }
    }
    let judged = crds()
        .iter()
        .any(|crd| crd.name() == "applications.argoproj.io");
    if judged {
        assert!(misspelt > 5, "only {misspelt} were refused");
    }
}

/// A kind that nothing here can judge is said so for everybody to see.
#[test]
fn every_kind_of_the_tree_can_be_judged_here() {
    let known: BTreeSet<(String, String)> = crds()
        .iter()
        .map(|crd| {
            let text = |path: &str| crd.object.pointer(path).unwrap().as_str().unwrap();
            (
                text("/spec/group").to_owned(),
                text("/spec/names/kind").to_owned(),
            )
        })
        .collect();
    let mut missing = BTreeSet::new();
    for (example, tree) in trees() {
        let (_dir, manifests) = rendered(example, tree);
        for manifest in manifests {
            let group = manifest
                .api_version()
                .split_once('/')
                .map_or("", |(g, _)| g);
            let own = !group.contains('.') || group.ends_with(".k8s.io");
            let kind = (group.to_owned(), manifest.kind().to_owned());
            if !own && !known.contains(&kind) {
                missing.insert(format!("{} ({group})", manifest.kind()));
            }
        }
    }
    if !missing.is_empty() {
        let missing: Vec<String> = missing.into_iter().collect();
        println!(
            "SKIPPED: no CRD is at hand for {}; put them into a folder and name it in UNDERCROFT_CRDS",
            missing.join(", ")
        );
    }
}
