//! The server of lending in the cluster: what it is given, what it may do, and what the inventory has to say for it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    clippy::string_slice,
    reason = "tests, which read files and the environment; the crate itself is pure"
)]

mod support;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use support::{GITOPS, fleet, lock_for, object, one_machine, tree};
use undercroft_lend::fleet::{FleetFile, LendingFleet};
use undercroft_model::{System, inventory::Inventory};
use undercroft_render::{Lock, Locked, Tree, yaml};

const NAME: &str = "lending-server";

fn k3s() -> Tree {
    tree(&fleet("k3s", GITOPS), false)
}

fn deployment(tree: &Tree) -> Value {
    object(tree, "Deployment", NAME).unwrap()
}

fn pod(tree: &Tree) -> Value {
    deployment(tree)["spec"]["template"].clone()
}

fn args(tree: &Tree) -> Vec<String> {
    let container = &pod(tree)["spec"]["containers"][0];
    let args = container["args"].as_array().unwrap().iter();
    args.map(|arg| arg.as_str().unwrap().to_owned()).collect()
}

fn value_of(args: &[String], option: &str) -> String {
    let at = args.iter().position(|arg| arg == option).unwrap();
    args[at + 1].clone()
}

#[test]
fn the_server_goes_by_the_inventory_and_begins_anew_with_another() {
    let inventory = fleet("k3s", GITOPS);
    let config = object(&k3s(), "ConfigMap", NAME).unwrap();
    let text = config["data"]["lending.json"].as_str().unwrap();
    let read = FleetFile::read(text.as_bytes()).unwrap();
    let known = LendingFleet::of(&inventory).unwrap();
    assert_eq!(format!("{read:?}"), format!("{known:?}"));
    assert_eq!((known.devices.len(), known.submitters.len()), (1, 1));
    let digest =
        |tree: &Tree| pod(tree)["metadata"]["annotations"]["undercroft.dev/config-digest"].clone();
    assert_eq!(digest(&k3s()), digest(&k3s()));
    let mut other = inventory;
    other.lending.lease_s = 61;
    assert_ne!(digest(&tree(&other, false)), digest(&k3s()));
}

#[test]
fn its_pod_may_do_nothing_but_call_nats() {
    for tree in [k3s(), tree(&fleet("kubeadm", GITOPS), false)] {
        let spec = &deployment(&tree)["spec"];
        assert_eq!(spec["strategy"], json!({ "type": "Recreate" }));
        assert_eq!(spec["replicas"], 1);
        let pod = &spec["template"]["spec"];
        assert_eq!(pod["automountServiceAccountToken"], false);
        // What Pod Security calls "restricted", though the namespace asks for less.
        let all = &pod["securityContext"];
        assert_eq!(all["runAsNonRoot"], true);
        assert_eq!(all["seccompProfile"]["type"], "RuntimeDefault");
        let own = &pod["containers"][0]["securityContext"];
        assert_eq!(own["allowPrivilegeEscalation"], false);
        assert_eq!(own["readOnlyRootFilesystem"], true);
        assert_eq!(own["capabilities"]["drop"], json!(["ALL"]));
        let resources = &pod["containers"][0]["resources"];
        for key in ["cpu", "memory"] {
            assert!(resources["requests"][key].is_string(), "{key}");
        }
        assert!(resources["limits"]["memory"].is_string());
        // Nobody but Prometheus connects to it.
        let policy = object(&tree, "NetworkPolicy", NAME).unwrap();
        assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress"]));
        assert_eq!(
            policy["spec"]["ingress"][0]["from"][0]["namespaceSelector"]["matchLabels"],
            json!({ "kubernetes.io/metadata.name": "monitoring" })
        );
    }
}

#[test]
fn every_file_that_it_is_told_of_is_brought_and_no_other() {
    let tree = k3s();
    let pod = &pod(&tree)["spec"];
    let args = args(&tree);
    let mut told = BTreeSet::new();
    for option in ["--config", "--key", "--ca"] {
        let path = value_of(&args, option);
        let (folder, file) = path.rsplit_once('/').unwrap();
        let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap();
        let mount = mounts.iter().find(|m| m["mountPath"] == folder).unwrap();
        assert_eq!(mount["readOnly"], true, "{path}");
        let volumes = pod["volumes"].as_array().unwrap();
        let volume = volumes.iter().find(|v| v["name"] == mount["name"]).unwrap();
        match volume.get("secret") {
            Some(secret) => {
                let items = secret["items"].as_array().unwrap();
                assert_eq!(items.len(), 1, "{path}");
                assert_eq!(items[0]["path"], file);
                // The kubelet adds the group's right to read, and the command takes a key of root's that its group
                // alone can read.
                assert_eq!(secret["defaultMode"], 0o440);
                told.insert((
                    secret["secretName"].as_str().unwrap().to_owned(),
                    items[0]["key"].as_str().unwrap().to_owned(),
                ));
            }
            None => {
                let name = volume["configMap"]["name"].as_str().unwrap();
                let config = object(&tree, "ConfigMap", name).unwrap();
                assert!(config["data"][file].is_string(), "{path}");
            }
        }
    }
    let told: Vec<(&str, &str)> = told.iter().map(|(n, k)| (n.as_str(), k.as_str())).collect();
    assert_eq!(
        told,
        [
            ("lending-server", "server.nk"),
            ("nats-server-tls", "ca.crt")
        ]
    );
}

#[test]
fn it_calls_nats_by_a_name_of_its_certificate_and_keeps_as_many_copies_as_there_are_servers() {
    let tree = k3s();
    let url = value_of(&args(&tree), "--nats");
    let host = url.strip_prefix("tls://").unwrap();
    let (host, port) = host.rsplit_once(':').unwrap();
    assert_eq!(port, "4222");
    let certificate = object(&tree, "Certificate", "nats-server-tls").unwrap();
    let names = certificate["spec"]["dnsNames"].as_array().unwrap();
    assert!(names.contains(&json!(host)), "{host} in {names:?}");
    assert_eq!(certificate["metadata"]["namespace"], "nats");
    assert_eq!(deployment(&tree)["metadata"]["namespace"], "nats");
    assert_eq!(value_of(&args(&tree), "--replicas"), "3");
    let mut small = fleet("k3s", GITOPS);
    small.nodes.retain(|name, _| {
        name.as_str().starts_with("control-01") || name.as_str().starts_with("slices")
    });
    let small = support::tree(&small, false);
    assert_eq!(value_of(&args(&small), "--replicas"), "1");
    let nats = support::must(&small, "nats");
    assert_eq!(nats["config"]["cluster"]["enabled"], false);
}

#[test]
fn it_is_watched_where_there_is_who_watches() {
    let tree = k3s();
    let service = object(&tree, "Service", NAME).unwrap();
    let port = &service["spec"]["ports"][0];
    let monitor = object(&tree, "ServiceMonitor", NAME).unwrap();
    assert_eq!(monitor["spec"]["endpoints"][0]["port"], port["name"]);
    let container = &pod(&tree)["spec"]["containers"][0];
    let at = value_of(&args(&tree), "--metrics");
    assert_eq!(
        at.rsplit_once(':').unwrap().1,
        container["ports"][0]["containerPort"].to_string()
    );
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        assert_eq!(container[probe]["httpGet"]["port"], "metrics", "{probe}");
    }
    // Its absence from NATS is no reason to begin it anew.
    assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/livez");
    assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/readyz");
    assert!(object(&tree, "PrometheusRule", NAME).is_some());
    let without = fleet("k3s", &GITOPS.replace("\"prometheus\", ", ""));
    let without = support::tree(&without, false);
    for kind in ["ServiceMonitor", "PrometheusRule"] {
        assert!(object(&without, kind, NAME).is_none(), "{kind}");
    }
    let policy = object(&without, "NetworkPolicy", NAME).unwrap();
    assert_eq!(policy["spec"]["ingress"], json!([]));
}

#[test]
fn it_comes_after_nats_and_what_has_its_key() {
    let wave = |tree: &Tree, name: &str| -> i64 {
        let end = format!("/apps/{name}.yaml");
        let found = tree.files.iter().find(|(path, text)| {
            path.ends_with(&end)
                || (text.contains("kind: Application") && text.contains(&format!("name: {name}\n")))
        });
        let (_, text) = found.unwrap_or_else(|| panic!("{name}"));
        let application = text
            .split("\n---\n")
            .map(|document| yaml::parse(document).unwrap())
            .find(|object| object["metadata"]["name"] == name)
            .unwrap();
        let wave = &application["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"];
        wave.as_str().unwrap().parse().unwrap()
    };
    let tree = k3s();
    assert!(wave(&tree, NAME) > wave(&tree, "nats"));
    assert!(wave(&tree, NAME) > wave(&tree, "prometheus"));
    let vault = format!(
        "{GITOPS}\n[secrets]\nbackend = \"vault\"\nvault_url = \"https://vault.cellar.example\"\n"
    );
    let vault = support::tree(&fleet("k3s", &vault), false);
    assert!(wave(&vault, NAME) > wave(&vault, "external-secrets"));
    let secret = object(&vault, "ExternalSecret", NAME).unwrap();
    assert_eq!(secret["metadata"]["namespace"], "nats");
    assert_eq!(
        secret["spec"]["data"][0],
        json!({ "secretKey": "server.nk", "remoteRef": { "key": "lending/server", "property": "server.nk" } })
    );
    // A PC's own cluster hands nothing out.
    let dev = support::tree(&fleet("k3s", GITOPS), true);
    assert!(object(&dev, "Deployment", NAME).is_none());
}

#[test]
fn its_image_is_where_the_inventory_says_and_of_the_locked_version() {
    let image = |inventory: &Inventory, lock: &Lock| {
        let tree = support::try_tree(inventory, lock, false).unwrap();
        let pod = pod(&tree)["spec"].clone();
        (
            pod["containers"][0]["image"].as_str().unwrap().to_owned(),
            pod["nodeSelector"]["kubernetes.io/arch"].clone(),
        )
    };
    let mut inventory = fleet("k3s", GITOPS);
    let mut lock = lock_for(&inventory);
    let version = env!("CARGO_PKG_VERSION");
    let here = "registry.cellar.example/lending-server";
    let plain = format!("{here}:{version}");
    assert_eq!(image(&inventory, &lock), (plain, json!("amd64")));
    // What `undercroft update` noted stays.
    let noted = Locked {
        image: Some(here.to_owned()),
        version: "0.2.0".to_owned(),
        digest: Some("sha256:00".to_owned()),
        ..Locked::default()
    };
    lock.components.insert(NAME.to_owned(), noted);
    lock.complete_for(&inventory);
    let pinned = format!("{here}:0.2.0@sha256:00");
    assert_eq!(image(&inventory, &lock).0, pinned);
    // In another registry it is another image, until its digest was noted there.
    let there = "other.example/lending-server";
    inventory.lending.server_image = Some(there.to_owned());
    lock.complete_for(&inventory);
    assert_eq!(image(&inventory, &lock).0, format!("{there}:{version}"));
    let founder = inventory.kubernetes.founder.clone().unwrap();
    inventory.nodes.get_mut(&founder).unwrap().system = System::Aarch64Linux;
    assert_eq!(image(&inventory, &lock).1, "arm64");
}

#[test]
fn what_it_needs_of_the_inventory_is_said() {
    let codes = |change: &dyn Fn(&mut Inventory)| -> Vec<&'static str> {
        let mut inventory = fleet("k3s", GITOPS);
        change(&mut inventory);
        let lock = lock_for(&inventory);
        let problems = support::try_tree(&inventory, &lock, false).unwrap_err();
        problems.iter().map(|problem| problem.code).collect()
    };
    assert_eq!(
        codes(&|i| i.lending.enabled = false),
        ["lending-server-without-lending"]
    );
    assert_eq!(
        codes(&|i| {
            i.lending.server_key = None;
            i.lending.server_image = None;
        }),
        ["lending-server-without-key", "lending-server-without-image"]
    );
    assert_eq!(
        codes(&|i| i.gitops.components.retain(|c| c.as_str() != "nats")),
        ["missing-component"]
    );
    // Who doesn't ask for it has none.
    assert!(object(&tree(&one_machine(), false), "Deployment", NAME).is_none());
}
