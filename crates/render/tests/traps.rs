//! Each trap of the stack that is a value, by name: what is set so that nobody steps into it.

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

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use support::{GITOPS, fleet, must, object, objects, one_machine, tree};
use undercroft_lend::{accounts::Accounts, consent::PublicKey};
use undercroft_model::inventory::{GPU_PROFILE_LABEL, LONGHORN_DISK_ANNOTATION};
use undercroft_render::{Locked, Problem, RenderInput, Tree, render, yaml};

fn k3s() -> Tree {
    tree(&fleet("k3s", GITOPS), false)
}

fn kubeadm() -> Tree {
    tree(&fleet("kubeadm", GITOPS), false)
}

/// What rendering says to a value that a user sets over ours.
fn overridden(component: &str, over: Value) -> Vec<Problem> {
    let inventory = fleet("k3s", GITOPS);
    render(&RenderInput {
        inventory: &inventory,
        lock: &support::lock_for(&inventory),
        apps: &[],
        overrides: &BTreeMap::from([(component.to_owned(), over)]),
        dev: None,
        standing: None,
    })
    .err()
    .unwrap_or_default()
}

fn codes(problems: &[Problem]) -> Vec<&'static str> {
    problems.iter().map(|p| p.code).collect()
}

#[test]
fn hubbles_certificates_are_never_made_by_helm() {
    for (name, tree) in support::trees() {
        let cilium = must(&tree, "cilium");
        assert_eq!(
            cilium["hubble"]["tls"]["auto"]["method"], "cronJob",
            "{name}"
        );
    }
    // The chart's own default is the trap, so that taking our value away is found as well.
    let by_helm = json!({ "hubble": { "tls": { "auto": { "method": "helm" } } } });
    assert_eq!(codes(&overridden("cilium", by_helm)), ["drift"]);
    let taken_away = json!({ "hubble": { "tls": { "auto": { "method": null } } } });
    assert_eq!(codes(&overridden("cilium", taken_away)), ["drift"]);
    let by_cert_manager = json!({ "hubble": { "tls": { "auto": { "method": "certmanager" } } } });
    assert_eq!(
        codes(&overridden("cilium", by_cert_manager)),
        Vec::<&str>::new()
    );
}

#[test]
fn cilium_reaches_the_api_without_kube_proxy_and_without_asking_the_cluster() {
    let cilium = must(&k3s(), "cilium");
    assert_eq!(cilium["kubeProxyReplacement"], true);
    assert_eq!(cilium["k8sServiceHost"], "127.0.0.1");
    assert_eq!(cilium["k8sServicePort"], 6444);
    let cilium = must(&kubeadm(), "cilium");
    assert_eq!(cilium["kubeProxyReplacement"], true);
    assert_eq!(cilium["k8sServiceHost"], "10.20.0.10");
    assert_eq!(cilium["k8sServicePort"], 6443);
    assert_eq!(
        codes(&overridden("cilium", json!({ "k8sServiceHost": "auto" }))),
        ["drift"]
    );
}

#[test]
fn ciliums_pods_have_the_clusters_own_network() {
    let inventory = fleet("k3s", GITOPS);
    let ipam = &must(&k3s(), "cilium")["ipam"];
    assert_eq!(ipam["mode"], "cluster-pool");
    assert_eq!(
        ipam["operator"]["clusterPoolIPv4PodCIDRList"],
        json!([inventory.kubernetes.pod_cidr.to_string()])
    );
    assert_eq!(ipam["operator"]["clusterPoolIPv4MaskSize"], 24);
}

#[test]
fn one_machine_has_one_operator() {
    assert_eq!(
        must(&tree(&one_machine(), false), "cilium")["operator"]["replicas"],
        1
    );
    assert_eq!(must(&k3s(), "cilium")["operator"]["replicas"], 2);
}

#[test]
fn cilium_keeps_away_from_the_overlays_interface() {
    let devices = must(&k3s(), "cilium")["devices"].clone();
    for device in devices.as_array().unwrap() {
        let pattern = device.as_str().unwrap();
        let prefix = pattern.trim_end_matches('+');
        assert!(
            !prefix.is_empty() && !"tailscale0".starts_with(prefix),
            "{pattern}"
        );
    }
    let policy = object(&k3s(), "CiliumL2AnnouncementPolicy", "lan").unwrap();
    for pattern in policy["spec"]["interfaces"].as_array().unwrap() {
        let prefix = pattern
            .as_str()
            .unwrap()
            .trim_start_matches('^')
            .trim_end_matches(".*");
        assert!(
            !prefix.is_empty() && !"tailscale0".starts_with(prefix),
            "{pattern}"
        );
    }
}

#[test]
fn load_balancers_have_addresses_and_room_to_announce_them() {
    let tree = k3s();
    let cilium = must(&tree, "cilium");
    assert_eq!(cilium["l2announcements"]["enabled"], true);
    assert!(cilium["k8sClientRateLimit"]["qps"].as_u64().unwrap() > 10);
    assert!(cilium["k8sClientRateLimit"]["burst"].as_u64().unwrap() > 20);
    let pool = object(&tree, "CiliumLoadBalancerIPPool", "lan").unwrap();
    assert_eq!(pool["spec"]["blocks"], json!([{ "cidr": "10.20.3.0/24" }]));
    // 10.20.3.255 is the broadcast address of the nodes' 10.20.0.0/22.
    assert_eq!(pool["spec"]["allowFirstLastIPs"], "No");
    // The Ingress' Service waits for the pool: in a later wave it would wait for ever.
    let annotations = pool["metadata"]["annotations"].as_object().unwrap();
    assert!(!annotations.contains_key("argocd.argoproj.io/sync-wave"));
    assert!(
        annotations["argocd.argoproj.io/sync-options"]
            .as_str()
            .unwrap()
            .contains("SkipDryRunOnMissingResource=true")
    );
    // Without networks for them there is neither.
    let none = tree_of_one();
    assert_eq!(must(&none, "cilium")["l2announcements"]["enabled"], false);
    assert!(object(&none, "CiliumLoadBalancerIPPool", "lan").is_none());
}

fn tree_of_one() -> Tree {
    tree(&one_machine(), false)
}

#[test]
fn pages_need_an_address() {
    let text = GITOPS.to_owned();
    let mut inventory = fleet("k3s", &text);
    inventory.kubernetes.load_balancer_cidrs.clear();
    let problems =
        support::try_tree(&inventory, &support::lock_for(&inventory), false).unwrap_err();
    assert_eq!(
        codes(&problems),
        ["no-ingress-address", "no-headscale-address"]
    );
}

#[test]
fn the_gateway_api_whose_definitions_nobody_brings_stays_off() {
    for (name, tree) in support::trees() {
        let cilium = must(&tree, "cilium");
        assert_eq!(cilium["gatewayAPI"]["enabled"], false, "{name}");
        assert!(
            !tree
                .files
                .values()
                .any(|f| f.contains("gateway.networking.k8s.io")),
            "{name}"
        );
    }
    assert_eq!(must(&k3s(), "cilium")["ingressController"]["enabled"], true);
    assert_eq!(
        must(&tree_of_one(), "cilium")["ingressController"]["enabled"],
        false
    );
}

#[test]
fn argo_cd_leaves_ciliums_identities_alone_and_not_its_endpoint_slice() {
    let argo = must(&k3s(), "argo-cd");
    let exclusions = argo["configs"]["cm"]["resource.exclusions"]
        .as_str()
        .unwrap();
    let exclusions = yaml::parse(exclusions).unwrap();
    let kinds: BTreeSet<&str> = exclusions
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|e| e["kinds"].as_array().unwrap())
        .map(|k| k.as_str().unwrap())
        .collect();
    assert!(kinds.contains("CiliumIdentity"));
    assert!(!kinds.contains("EndpointSlice"));
    let cm = &argo["configs"]["cm"];
    assert_eq!(cm["timeout.reconciliation"], "180s");
    assert_eq!(cm["application.resourceTrackingMethod"], "annotation");
    assert!(cm["resource.customizations.health.argoproj.io_Application"].is_string());
    assert!(cm["resource.customizations.health.cert-manager.io_ClusterIssuer"].is_string());
}

/// argo-cd#27917: from 3.4 on an Application whose sync failed can be called healthy, and the
/// next wave begins. The check of Applications' health asks for the last sync's success too.
#[test]
fn a_wave_waits_for_the_sync_itself() {
    let argo = must(&k3s(), "argo-cd");
    let lua = argo["configs"]["cm"]["resource.customizations.health.argoproj.io_Application"]
        .as_str()
        .unwrap();
    for part in ["operationState", "Succeeded", "Synced", "health"] {
        assert!(lua.contains(part), "{part} in {lua}");
    }
}

#[test]
fn the_server_of_argo_cd_has_tls_where_nothing_else_gives_it() {
    let params =
        |tree: &Tree| must(tree, "argo-cd")["configs"]["params"]["server.insecure"].clone();
    assert_eq!(params(&k3s()), true);
    assert_eq!(params(&tree_of_one()), false);
}

#[test]
fn what_would_take_the_cluster_with_it_is_never_pruned() {
    for tree in [k3s(), kubeadm()] {
        for name in ["cilium", "longhorn", "argo-cd"] {
            let file = format!("gitops/applications/{name}.yaml");
            let application = yaml::parse(&tree.files[&file]).unwrap();
            let sync = &application["spec"]["syncPolicy"];
            assert_ne!(sync["automated"]["prune"], true, "{name}");
            let options = sync["syncOptions"].as_array().unwrap();
            assert!(
                options.contains(&json!("ServerSideApply=true")),
                "{name}: {options:?}"
            );
        }
    }
}

#[test]
fn longhorn_comes_up_under_argo_cd_with_the_inventorys_disks() {
    let longhorn = must(&k3s(), "longhorn");
    assert_eq!(longhorn["preUpgradeChecker"]["jobEnabled"], false);
    let settings = &longhorn["defaultSettings"];
    assert_eq!(settings["createDefaultDiskLabeledNodes"], true);
    assert_eq!(
        settings["nodeDrainPolicy"],
        "block-if-contains-last-replica"
    );
    assert_eq!(longhorn["persistence"]["reclaimPolicy"], "Retain");
    assert_eq!(longhorn["persistence"]["defaultClass"], true);
    // A soft taint keeps nothing away, and Longhorn refuses words that it doesn't know.
    assert_eq!(
        settings["taintToleration"],
        "cellar.example/gpu=yes:NoSchedule;node-role.kubernetes.io/control-plane:NoSchedule"
    );
}

/// The servers are there before any agent, and what they need runs in spite of their taints.
#[test]
fn the_bootstrap_needs_no_agent() {
    let taint = "node-role.kubernetes.io/control-plane";
    for tree in [k3s(), kubeadm()] {
        let cilium = must(&tree, "cilium");
        let argo = must(&tree, "argo-cd");
        for tolerations in [
            &cilium["operator"]["tolerations"],
            &cilium["certgen"]["tolerations"],
            &cilium["hubble"]["relay"]["tolerations"],
            &argo["global"]["tolerations"],
        ] {
            let all = tolerations.as_array().unwrap();
            assert!(all.iter().any(|t| t["key"] == taint), "{tolerations}");
        }
        let operator = cilium["operator"]["tolerations"].as_array().unwrap();
        let keys: Vec<&Value> = operator.iter().map(|t| &t["key"]).collect();
        assert!(keys.contains(&&json!("node.kubernetes.io/not-ready")));
    }
    // Where servers have none, the chart's own list stays.
    assert!(
        must(&tree_of_one(), "cilium")["operator"]
            .get("tolerations")
            .is_none()
    );
}

#[test]
fn a_volume_has_no_more_replicas_than_there_are_nodes_for_them() {
    let replicas = |keep: &[&str]| {
        let mut inventory = fleet("k3s", GITOPS);
        for (name, node) in &mut inventory.nodes {
            if !keep.contains(&name.as_str()) {
                node.longhorn = None;
            }
        }
        let longhorn = must(&tree(&inventory, false), "longhorn");
        let class = &longhorn["persistence"]["defaultClassReplicaCount"];
        assert_eq!(class, &longhorn["defaultSettings"]["defaultReplicaCount"]);
        class.as_u64().unwrap()
    };
    assert_eq!(replicas(&["slices-01"]), 1);
    assert_eq!(replicas(&["slices-01", "control-01"]), 2);
    assert_eq!(
        replicas(&["slices-01", "control-01", "control-02", "control-03"]),
        3
    );
}

#[test]
fn there_is_always_one_default_storage_class_and_every_claim_names_it() {
    for (name, tree) in support::trees() {
        let class = match name {
            "dev" | "one machine" => "local-path",
            _ => "longhorn",
        };
        let prometheus = must(&tree, "prometheus");
        let claim =
            &prometheus["prometheus"]["prometheusSpec"]["storageSpec"]["volumeClaimTemplate"];
        assert_eq!(claim["spec"]["storageClassName"], class, "{name}");
        assert_eq!(
            must(&tree, "grafana")["persistence"]["storageClassName"],
            class,
            "{name}"
        );
        assert_eq!(
            must(&tree, "loki")["singleBinary"]["persistence"]["storageClass"],
            class,
            "{name}"
        );
        let own = objects(&tree)
            .into_iter()
            .filter(|o| o["kind"] == "StorageClass")
            .filter(|o| {
                o["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"]
                    == "true"
            })
            .count();
        let chart = usize::from(support::values(&tree, "longhorn").is_some());
        // On a PC it is the one that k3s brings.
        assert_eq!(own + chart, usize::from(name != "dev"), "{name}");
    }
}

#[test]
fn every_card_is_shared_as_its_class_says() {
    let inventory = fleet("k3s", GITOPS);
    let values = must(&k3s(), "nvidia-device-plugin");
    let map = values["config"]["map"].as_object().unwrap();
    let mut profiles = BTreeSet::new();
    for (name, node) in &inventory.nodes {
        let label = inventory.node_labels(name).remove(GPU_PROFILE_LABEL);
        assert_eq!(label.is_some(), node.gpu.is_some(), "{name}");
        if let Some(profile) = label {
            assert!(map.contains_key(&profile), "{name} asks for {profile}");
            profiles.insert(profile);
        }
    }
    let config = |name: &str| yaml::parse(map[name].as_str().unwrap()).unwrap();
    let sliced = config("time-slicing-4");
    assert_eq!(
        sliced["sharing"]["timeSlicing"]["failRequestsGreaterThanOne"],
        true
    );
    assert_eq!(
        sliced["sharing"]["timeSlicing"]["resources"][0]["replicas"],
        4
    );
    assert!(sliced["sharing"].get("mps").is_none());
    let instances = config("mig-single");
    assert_eq!(instances["flags"]["migStrategy"], "single");
    assert!(
        instances.get("sharing").is_none(),
        "MPS can't share what MIG divided"
    );
    assert_eq!(
        config("mps-8")["sharing"]["mps"]["resources"][0]["replicas"],
        8
    );
    // A node that no label tells anything gets a whole card for each pod.
    assert_eq!(values["config"]["default"], "exclusive");
    assert!(config("exclusive").get("sharing").is_none());
    assert_eq!(profiles.len(), 3);
}

#[test]
fn containers_get_their_cards_by_the_names_that_the_host_gives_them() {
    let tree = k3s();
    let values = must(&tree, "nvidia-device-plugin");
    assert_eq!(values["runtimeClassName"], "nvidia-cdi");
    assert_eq!(values["deviceListStrategy"], "envvar");
    assert_eq!(values["deviceIDStrategy"], "uuid");
    assert_eq!(values["nfd"]["enabled"], false);
    let class = object(&tree, "RuntimeClass", "nvidia-cdi").unwrap();
    assert_eq!(class["handler"], "nvidia-cdi");
}

#[test]
fn components_for_hardware_are_only_where_the_hardware_is() {
    let one = tree_of_one();
    for absent in ["nvidia-device-plugin", "longhorn"] {
        assert!(support::values(&one, absent).is_none(), "{absent}");
    }
    assert!(object(&one, "DaemonSet", "hat-device-plugin").is_none());
    // None is published yet, so that the boards' plugin waits for a lock file that names one.
    assert!(object(&k3s(), "DaemonSet", "hat-device-plugin").is_none());
    let mut lock = support::lock_for(&fleet("k3s", GITOPS));
    let locked = Locked {
        image: Some("registry.cellar.example/hat-device-plugin".to_owned()),
        version: "0.1.0".to_owned(),
        digest: Some("sha256:00".to_owned()),
        ..Locked::default()
    };
    lock.components
        .insert("hat-device-plugin".to_owned(), locked);
    let with = support::try_tree(&fleet("k3s", GITOPS), &lock, false).unwrap();
    let set = object(&with, "DaemonSet", "hat-device-plugin").unwrap();
    let pod = &set["spec"]["template"]["spec"];
    assert_eq!(
        pod["containers"][0]["image"],
        "registry.cellar.example/hat-device-plugin:0.1.0@sha256:00"
    );
    let terms = &pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        ["nodeSelectorTerms"];
    assert_eq!(
        terms[0]["matchExpressions"][0]["key"],
        "undercroft.dev/hat.hailo-8"
    );
}

#[test]
fn a_node_says_which_disks_longhorn_may_take() {
    let inventory = fleet("k3s", GITOPS);
    let node = "slices-01".parse().unwrap();
    let annotations = inventory.node_annotations(&node);
    let disks: Value = serde_json::from_str(&annotations[LONGHORN_DISK_ANNOTATION]).unwrap();
    assert_eq!(disks[0]["path"], "/var/lib/longhorn");
    assert_eq!(disks[0]["storageReserved"], 161_061_273_600_u64);
}

#[test]
fn no_password_is_made_by_a_chart_or_stands_in_a_value() {
    for (name, tree) in support::trees() {
        let grafana = must(&tree, "grafana");
        assert_eq!(
            grafana["admin"]["existingSecret"], "grafana-admin",
            "{name}"
        );
        assert_eq!(grafana["persistence"]["lookupVolumeName"], false, "{name}");
        assert!(
            !objects(&tree).iter().any(|o| o["kind"] == "Secret"),
            "{name}"
        );
    }
}

#[test]
fn what_isnt_there_isnt_watched() {
    for tree in [k3s(), kubeadm()] {
        let values = must(&tree, "prometheus");
        for absent in [
            "kubeProxy",
            "kubeEtcd",
            "kubeControllerManager",
            "kubeScheduler",
            "nodeExporter",
            "grafana",
        ] {
            assert_eq!(values[absent]["enabled"], false, "{absent}");
        }
        // Every machine is watched, those outside of the cluster too.
        let machines = object(&tree, "ScrapeConfig", "machines").unwrap();
        let text = machines.to_string();
        assert!(
            text.contains("10.20.2.1:9101") && text.contains("\"phones-01\""),
            "{text}"
        );
    }
}

#[test]
fn loki_has_a_schema_and_no_gigabytes_of_cache() {
    let loki = must(&k3s(), "loki");
    assert_eq!(loki["deploymentMode"], "Monolithic");
    assert_eq!(loki["loki"]["schemaConfig"]["configs"][0]["schema"], "v13");
    assert_eq!(loki["chunksCache"]["enabled"], false);
    for other in ["read", "write", "backend"] {
        assert_eq!(loki[other]["replicas"], 0, "{other}");
    }
}

#[test]
fn lenders_are_confined_to_their_account_and_nobody_is_anonymous() {
    let tree = k3s();
    let nats = must(&tree, "nats");
    // Lent PCs have keys and no certificates, and a port asks all for a certificate or none.
    let by_key = &nats["config"]["nats"]["tls"]["merge"];
    assert_eq!(by_key, &json!({ "timeout": 5 }));
    let by_certificate = &nats["config"]["websocket"]["tls"]["merge"];
    assert_eq!(by_certificate, &json!({ "verify_and_map": true }));
    let accounts = nats["config"]["merge"]["accounts"].as_object().unwrap();
    let inventory = fleet("k3s", GITOPS);
    let server = inventory.lending.server_key.clone().map(PublicKey);
    assert_eq!(accounts["LEND"], Accounts::of(&inventory, server).account());
    let users = accounts["LEND"]["users"].as_array().unwrap();
    assert_eq!(users.len(), 3);
    for user in users {
        // The server's alone may do everything.
        let is_server = user["nkey"] == json!(inventory.lending.server_key);
        assert_eq!(user.get("permissions").is_none(), is_server, "{user}");
        assert!(user.get("user").is_none(), "{user}");
    }
    // A name without a password counts where its certificate is asked for, and nowhere else.
    for account in ["APPS", "SYS"] {
        for user in accounts[account]["users"].as_array().unwrap() {
            assert_eq!(user["allowed_connection_types"], json!(["WEBSOCKET"]));
        }
    }
    assert!(nats["config"]["merge"].get("no_auth_user").is_none());
    assert_eq!(
        nats["config"]["jetstream"]["merge"]["sync_interval"],
        "always"
    );
    let certificate = object(&tree, "Certificate", "nats-server-tls").unwrap();
    let names = certificate["spec"]["dnsNames"].as_array().unwrap();
    assert!(names.contains(&json!("nats.cellar.example")));
    // Without lending there is no such account.
    let without = must(&tree_of_one(), "nats");
    assert!(without["config"]["merge"]["accounts"].get("LEND").is_none());
    assert!(without["config"].get("websocket").is_none());
    assert_eq!(
        without["config"]["nats"]["tls"]["merge"]["verify_and_map"],
        true
    );
    let apps = &without["config"]["merge"]["accounts"]["APPS"]["users"];
    assert_eq!(apps, &json!([{ "user": "apps.client.nats" }]));
}

#[test]
fn namespaces_hold_their_pods_to_a_standard() {
    let tree = k3s();
    let level = |name: &str| {
        let namespace = object(&tree, "Namespace", name).unwrap_or_else(|| panic!("{name}"));
        namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"].clone()
    };
    for (name, wanted) in [
        ("argocd", "baseline"),
        ("monitoring", "baseline"),
        ("alloy", "privileged"),
        ("longhorn-system", "privileged"),
        ("nvidia-device-plugin", "privileged"),
        ("cert-manager", "restricted"),
        ("headscale", "restricted"),
        ("nats", "baseline"),
    ] {
        assert_eq!(level(name), wanted, "{name}");
    }
}

#[test]
fn secrets_come_from_where_the_inventory_says() {
    let has = |tree: &Tree, name: &str| support::values(tree, name).is_some();
    for (name, tree) in support::trees() {
        assert_eq!(has(&tree, "external-secrets"), name == "vault", "{name}");
        assert_eq!(has(&tree, "sealed-secrets"), name == "sealed", "{name}");
        let store = object(&tree, "ClusterSecretStore", "vault");
        assert_eq!(store.is_some(), name == "vault", "{name}");
    }
}

/// Clients upgrade to `tailscale-control-protocol`, which no Ingress of Cilium's passes on.
#[test]
fn headscale_has_an_address_and_a_certificate_of_its_own() {
    for tree in [k3s(), kubeadm()] {
        assert!(object(&tree, "Ingress", "headscale").is_none());
        let service = object(&tree, "Service", "headscale-lan").unwrap();
        assert_eq!(service["spec"]["type"], "LoadBalancer");
        assert_eq!(service["spec"]["ports"][0]["port"], 443);
        let config = object(&tree, "ConfigMap", "headscale-config").unwrap();
        let config = yaml::parse(config["data"]["config.yaml"].as_str().unwrap()).unwrap();
        assert_eq!(
            config["tls_letsencrypt_hostname"],
            "headscale.cellar.example"
        );
        assert_eq!(config["tls_letsencrypt_challenge_type"], "TLS-ALPN-01");
    }
    let mut inventory = fleet("k3s", GITOPS);
    inventory.network.overlay.server_url = Some("https://headscale.cellar.example:8443".to_owned());
    let refused = |inventory| {
        codes(&support::try_tree(inventory, &support::lock_for(inventory), false).unwrap_err())
    };
    assert_eq!(refused(&inventory), ["headscale-url"]);
    let mut inventory = fleet(
        "k3s",
        &GITOPS.replace("ingress_domain = \"apps.cellar.example\"", ""),
    );
    inventory.kubernetes.load_balancer_cidrs.clear();
    assert_eq!(refused(&inventory), ["no-headscale-address"]);
}

/// The overlay is the same, whether its server is a machine or in the cluster
/// (nix/modules/overlay/headscale.nix): no names without a domain of theirs, and a relay where one is
/// asked for.
#[test]
fn headscale_in_the_cluster_is_what_the_inventory_says_of_the_overlay() {
    let dns = |inventory: &undercroft_model::inventory::Inventory| {
        let tree = support::tree(inventory, false);
        let config = object(&tree, "ConfigMap", "headscale-config").unwrap();
        let config = yaml::parse(config["data"]["config.yaml"].as_str().unwrap()).unwrap();
        (
            config["dns"]["magic_dns"].clone(),
            config["dns"]["base_domain"].clone(),
        )
    };
    let mut inventory = fleet("k3s", GITOPS);
    assert_eq!(dns(&inventory), (true.into(), "net.cellar.example".into()));
    inventory.network.overlay.base_domain = None;
    assert_eq!(dns(&inventory), (false.into(), "".into()));
    inventory.network.overlay.derp = true;
    let refused = support::try_tree(&inventory, &support::lock_for(&inventory), false).unwrap_err();
    assert_eq!(codes(&refused), ["headscale-derp"]);
}
