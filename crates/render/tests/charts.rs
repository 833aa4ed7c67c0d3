//! The real charts, rendered by the real Helm with our values: what comes out is what we mean.
//!
//! Helm is taken from `UNDERCROFT_PEERS` or `.cache/peers` (`cargo xtask peers`), the charts from
//! `UNDERCROFT_CHARTS`, unpacked into `NAME-VERSION` each. What isn't there is skipped openly.

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

use serde_json::{Value, json};
use support::{
    CHARTS,
    helm::{NAMESPACES, kinds, named, ours, render},
};
use undercroft_render::{Tree, yaml};

fn k3s() -> Tree {
    support::tree(&support::fleet("k3s", support::GITOPS), false)
}

/// A chart that comes out different each time never comes to rest under Argo CD: made-up
/// passwords and certificates are the usual reason.
#[test]
fn every_chart_comes_out_the_same_twice() {
    let mut seen = std::collections::BTreeSet::new();
    for (name, tree) in support::trees() {
        for chart in CHARTS {
            let Some(values) = support::values(&tree, chart.component) else {
                continue;
            };
            if !seen.insert((chart.component, values.to_string())) {
                continue;
            }
            let (_, namespace) = NAMESPACES
                .iter()
                .find(|(c, _)| *c == chart.component)
                .unwrap();
            let Some(first) = render(chart.component, namespace, &values) else {
                continue;
            };
            let again = render(chart.component, namespace, &values).unwrap();
            assert!(!first.is_empty(), "{name}: {}", chart.component);
            assert_eq!(first, again, "{name}: {}", chart.component);
        }
    }
}

/// The other way round: with the chart's own method the certificates do differ, so that the test
/// above would find them.
#[test]
fn hubbles_certificates_made_by_helm_would_be_found() {
    let mut values = support::must(&k3s(), "cilium");
    values["hubble"]["tls"]["auto"]["method"] = json!("helm");
    let Some(first) = render("cilium", "kube-system", &values) else {
        return;
    };
    let again = render("cilium", "kube-system", &values).unwrap();
    assert_ne!(first, again);
    assert!(
        first
            .iter()
            .any(|o| o["metadata"]["name"] == "hubble-server-certs")
    );
}

#[test]
fn cilium_is_as_the_cluster_needs_it() {
    let Some(objects) = ours(&k3s(), "cilium") else {
        return;
    };
    let secrets: Vec<&Value> = kinds(&objects, "Secret")
        .map(|o| &o["metadata"]["name"])
        .collect();
    assert!(secrets.is_empty(), "{secrets:?}");
    let config = &named(&objects, "ConfigMap", "cilium-config")["data"];
    for (key, value) in [
        ("kube-proxy-replacement", "true"),
        ("ipam", "cluster-pool"),
        ("cluster-pool-ipv4-cidr", "10.42.0.0/16"),
        ("cluster-pool-ipv4-mask-size", "24"),
        ("enable-l2-announcements", "true"),
        ("devices", "en+ eth+ bond+"),
        ("k8s-client-qps", "50"),
        ("k8s-client-burst", "100"),
        ("enable-hubble", "true"),
        ("enable-ingress-controller", "true"),
    ] {
        assert_eq!(config[key], value, "{key}");
    }
    assert_eq!(config["enable-gateway-api"], Value::Null);
    let agent =
        &named(&objects, "DaemonSet", "cilium")["spec"]["template"]["spec"]["containers"][0];
    let env = |name: &str| {
        let all = agent["env"].as_array().unwrap();
        all.iter().find(|e| e["name"] == name).unwrap()["value"].clone()
    };
    assert_eq!(env("KUBERNETES_SERVICE_HOST"), "127.0.0.1");
    assert_eq!(env("KUBERNETES_SERVICE_PORT"), "6444");
    // A job that removes itself would be brought back by Argo CD for ever.
    let mut jobs = kinds(&objects, "Job");
    assert!(jobs.all(|job| job["spec"]["ttlSecondsAfterFinished"] == Value::Null));
    // The address of the Ingress leads nowhere without this one, which Argo CD must not exclude.
    named(&objects, "EndpointSlice", "cilium-ingress");
}

#[test]
fn there_is_exactly_one_default_storage_class() {
    for (name, tree) in support::trees() {
        let mut classes: Vec<Value> = support::objects(&tree)
            .into_iter()
            .filter(|o| o["kind"] == "StorageClass")
            .collect();
        if support::values(&tree, "longhorn").is_some() {
            let Some(objects) = ours(&tree, "longhorn") else {
                return;
            };
            // Longhorn's own is in a ConfigMap, from which its driver makes the object.
            let storage = named(&objects, "ConfigMap", "longhorn-storageclass");
            classes
                .push(yaml::parse(storage["data"]["storageclass.yaml"].as_str().unwrap()).unwrap());
        }
        let is_default = |class: &&Value| {
            class["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"]
                == "true"
        };
        let defaults: Vec<&Value> = classes.iter().filter(is_default).collect();
        // On a PC k3s brings its own.
        let wanted = usize::from(name != "dev");
        assert_eq!(defaults.len(), wanted, "{name}: {defaults:?}");
        if let Some(class) = defaults.first() {
            assert_eq!(class["reclaimPolicy"], "Retain", "{name}");
        }
    }
}

#[test]
fn longhorn_takes_the_inventorys_disks_alone() {
    let Some(objects) = ours(&k3s(), "longhorn") else {
        return;
    };
    let settings = named(&objects, "ConfigMap", "longhorn-default-setting");
    let settings = yaml::parse(settings["data"]["default-setting.yaml"].as_str().unwrap()).unwrap();
    assert_eq!(settings["create-default-disk-labeled-nodes"], true);
    assert_eq!(
        settings["node-drain-policy"],
        "block-if-contains-last-replica"
    );
    assert_eq!(
        settings["taint-toleration"],
        "cellar.example/gpu=yes:NoSchedule;node-role.kubernetes.io/control-plane:NoSchedule"
    );
    assert_eq!(settings["default-replica-count"], "3");
    let names: Vec<String> = kinds(&objects, "Job")
        .map(|o| o["metadata"]["name"].to_string())
        .collect();
    assert!(
        !names.iter().any(|n| n.contains("pre-upgrade")),
        "{names:?}"
    );
}

#[test]
fn the_device_plugin_runs_where_cards_are() {
    let Some(objects) = ours(&k3s(), "nvidia-device-plugin") else {
        return;
    };
    let sets: Vec<&Value> = kinds(&objects, "DaemonSet").collect();
    assert_eq!(
        sets.len(),
        3,
        "the plugin, its discovery and the MPS server"
    );
    for set in sets {
        let pod = &set["spec"]["template"]["spec"];
        assert_eq!(pod["runtimeClassName"], "nvidia-cdi");
        let terms = &pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
            ["nodeSelectorTerms"];
        assert_eq!(terms.as_array().unwrap().len(), 1);
        let keys: Vec<&Value> = terms[0]["matchExpressions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| &e["key"])
            .collect();
        assert_eq!(
            keys,
            [
                "feature.node.kubernetes.io/pci-10de.present",
                "nvidia.com/device-plugin.config"
            ]
        );
        let tolerations = pod["tolerations"].as_array().unwrap();
        assert!(tolerations.iter().any(|t| t["key"] == "cellar.example/gpu"));
    }
    let config = named(&objects, "ConfigMap", "nvidia-device-plugin-configs");
    assert_eq!(config["data"].as_object().unwrap().len(), 4);
    assert!(
        !objects
            .iter()
            .any(|o| o["metadata"]["name"] == "nvidia-device-plugin-node-feature-discovery-worker"),
        "a second node feature discovery"
    );
}

#[test]
fn loki_is_one_process_without_caches() {
    let Some(objects) = ours(&k3s(), "loki") else {
        return;
    };
    let sets: Vec<&Value> = kinds(&objects, "StatefulSet")
        .map(|o| &o["metadata"]["name"])
        .collect();
    assert_eq!(sets, ["loki"]);
    assert_eq!(kinds(&objects, "Deployment").count(), 0);
    assert_eq!(kinds(&objects, "DaemonSet").count(), 0);
    let config = yaml::parse(
        named(&objects, "ConfigMap", "loki")["data"]["config.yaml"]
            .as_str()
            .unwrap(),
    )
    .unwrap();
    assert_eq!(config["schema_config"]["configs"][0]["schema"], "v13");
    assert_eq!(config["common"]["replication_factor"], 1);
    assert_eq!(config["compactor"]["retention_enabled"], true);
    assert_eq!(config["limits_config"]["retention_period"], "744h");
    // Grafana and Alloy send to this Service.
    named(&objects, "Service", "loki");
}

#[test]
fn grafana_takes_its_password_from_the_secret() {
    let Some(objects) = ours(&k3s(), "grafana") else {
        return;
    };
    let secrets: Vec<&Value> = kinds(&objects, "Secret")
        .map(|o| &o["metadata"]["name"])
        .collect();
    assert!(secrets.is_empty(), "{secrets:?}");
    let text = named(&objects, "Deployment", "grafana").to_string();
    assert!(text.contains("\"grafana-admin\""));
    let claim = named(&objects, "PersistentVolumeClaim", "grafana");
    assert_eq!(claim["spec"]["storageClassName"], "longhorn");
}

#[test]
fn prometheus_watches_what_there_is() {
    let Some(objects) = ours(&k3s(), "prometheus") else {
        return;
    };
    let monitors: Vec<String> = kinds(&objects, "ServiceMonitor")
        .map(|o| o["metadata"]["name"].as_str().unwrap().to_owned())
        .collect();
    for absent in [
        "kube-proxy",
        "kube-etcd",
        "kube-scheduler",
        "kube-controller-manager",
        "node-exporter",
    ] {
        assert!(!monitors.iter().any(|m| m.contains(absent)), "{monitors:?}");
    }
    assert_eq!(
        kinds(&objects, "DaemonSet").count(),
        0,
        "the machines run the node exporter"
    );
    let server = kinds(&objects, "Prometheus").next().unwrap();
    for selector in [
        "serviceMonitorSelector",
        "podMonitorSelector",
        "ruleSelector",
        "scrapeConfigSelector",
    ] {
        assert_eq!(server["spec"][selector], json!({}), "{selector}");
    }
    named(&objects, "Service", "kube-prometheus-stack-prometheus");
    named(&objects, "Service", "kube-prometheus-stack-alertmanager");
    let dashboards = kinds(&objects, "ConfigMap")
        .filter(|o| o["metadata"]["labels"]["grafana_dashboard"] == "1")
        .count();
    assert!(dashboards > 10, "{dashboards}");
    assert!(
        !kinds(&objects, "Deployment")
            .any(|o| o["metadata"]["name"] == "kube-prometheus-stack-grafana")
    );
}

#[test]
fn nats_knows_its_clients_by_their_keys_and_the_clusters_own_by_their_certificates() {
    let Some(objects) = ours(&k3s(), "nats") else {
        return;
    };
    let text = named(&objects, "ConfigMap", "nats-config")["data"]["nats.conf"]
        .as_str()
        .unwrap()
        .to_owned();
    for part in [
        "\"verify_and_map\": true",
        "\"user\": \"apps.client.nats\"",
        "\"nkey\": \"UCZ6VTJTIM5TDNJFENIQGLE3HZ5C46VHOOGV33G7BXLMMJUAQU6ANX4L\"",
        "\"sync_interval\": \"always\"",
        "\"allowed_connection_types\"",
        "\"system_account\": \"SYS\"",
        "\"ca_file\": \"/etc/nats-ca-cert/ca.crt\"",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let set = named(&objects, "StatefulSet", "nats");
    assert_eq!(set["spec"]["replicas"], 3);
    assert_eq!(
        set["spec"]["volumeClaimTemplates"][0]["spec"]["storageClassName"],
        "longhorn-single"
    );
    let container = &set["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["resources"]["requests"]["memory"], "256Mi");
    assert_eq!(
        named(&objects, "Service", "nats")["spec"]["type"],
        "LoadBalancer"
    );
    assert_eq!(kinds(&objects, "Deployment").count(), 0);
}

#[test]
fn argo_cd_is_behind_the_ingress_and_takes_the_control_plane_where_it_must() {
    let Some(objects) = ours(&k3s(), "argo-cd") else {
        return;
    };
    let ingress = named(&objects, "Ingress", "argocd-server");
    assert_eq!(ingress["spec"]["ingressClassName"], "cilium");
    assert_eq!(
        ingress["spec"]["rules"][0]["host"],
        "argocd.apps.cellar.example"
    );
    let params = &named(&objects, "ConfigMap", "argocd-cmd-params-cm")["data"];
    assert_eq!(params["server.insecure"], "true");
    assert_eq!(params["controller.diff.server.side"], "true");
    // No Secret of the chart has data of its own: the keys are made in the cluster.
    for secret in kinds(&objects, "Secret") {
        assert!(
            secret["data"].is_null() && secret["stringData"].is_null(),
            "{secret}"
        );
    }
    let kubeadm = support::tree(&support::fleet("kubeadm", support::GITOPS), false);
    let objects = ours(&kubeadm, "argo-cd").unwrap();
    for kind in ["Deployment", "StatefulSet", "Job"] {
        for object in kinds(&objects, kind) {
            let tolerations = object["spec"]["template"]["spec"]["tolerations"].as_array();
            assert!(
                tolerations.is_some_and(|all| all
                    .iter()
                    .any(|t| t["key"] == "node-role.kubernetes.io/control-plane")),
                "{}",
                object["metadata"]["name"]
            );
        }
    }
}

#[test]
fn alloy_reads_the_logs_of_every_node() {
    let Some(objects) = ours(&k3s(), "alloy") else {
        return;
    };
    let set = named(&objects, "DaemonSet", "alloy");
    let pod = &set["spec"]["template"]["spec"];
    let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap();
    assert!(mounts.iter().any(|m| m["mountPath"] == "/var/log"));
    let env = pod["containers"][0]["env"].as_array().unwrap();
    let host = env.iter().find(|e| e["name"] == "HOSTNAME").unwrap();
    assert_eq!(host["valueFrom"]["fieldRef"]["fieldPath"], "spec.nodeName");
    let config = named(&objects, "ConfigMap", "alloy")["data"]["config.alloy"]
        .as_str()
        .unwrap();
    assert!(config.contains("http://loki.monitoring.svc:3100/loki/api/v1/push"));
    assert_eq!(kinds(&objects, "CustomResourceDefinition").count(), 0);
}

#[test]
fn node_feature_discovery_labels_by_vendor() {
    let Some(objects) = ours(&k3s(), "node-feature-discovery") else {
        return;
    };
    let config = named(&objects, "ConfigMap", "node-feature-discovery-worker-conf");
    let config = yaml::parse(config["data"]["nfd-worker.conf"].as_str().unwrap()).unwrap();
    assert_eq!(
        config["sources"]["pci"]["deviceLabelFields"],
        json!(["vendor"])
    );
    assert_eq!(
        kinds(&objects, "Job").count(),
        0,
        "no hook that Argo CD would run"
    );
}

/// Components whose pods our own monitors pick, with the namespace that they run in.
const WATCHED: &[(&str, &str)] = &[
    ("argo-cd", "argocd"),
    ("cert-manager", "cert-manager"),
    ("cilium", "kube-system"),
    ("longhorn", "longhorn-system"),
];

/// Whether a pod template has all labels, and a port of the name.
fn serves(object: &Value, labels: &Value, port: &str) -> bool {
    let template = &object["spec"]["template"];
    let has_labels = labels
        .as_object()
        .unwrap()
        .iter()
        .all(|(key, value)| template["metadata"]["labels"][key] == *value);
    let containers = template["spec"]["containers"].as_array();
    has_labels
        && containers.is_some_and(|all| {
            all.iter()
                .flat_map(|c| c["ports"].as_array().into_iter().flatten())
                .any(|p| p["name"] == port)
        })
}

#[test]
fn every_monitor_of_ours_finds_pods_with_its_port() {
    let tree = k3s();
    let monitors: Vec<Value> = support::objects(&tree)
        .into_iter()
        .filter(|o| o["kind"] == "PodMonitor")
        .collect();
    assert_eq!(monitors.len(), 5);
    for (component, namespace) in WATCHED {
        let Some(objects) = ours(&tree, component) else {
            return;
        };
        let of_it = monitors
            .iter()
            .filter(|m| m["spec"]["namespaceSelector"]["matchNames"][0] == *namespace);
        for monitor in of_it {
            let labels = &monitor["spec"]["selector"]["matchLabels"];
            for endpoint in monitor["spec"]["podMetricsEndpoints"].as_array().unwrap() {
                let port = endpoint["port"].as_str().unwrap();
                assert!(
                    objects.iter().any(|o| serves(o, labels, port)),
                    "{}: no pod with {labels} and the port {port}",
                    monitor["metadata"]["name"]
                );
            }
        }
    }
}

/// The servers' certificate has every name by which a server or a client calls one.
#[test]
fn nats_servers_call_each_other_by_names_of_their_certificate() {
    let tree = k3s();
    let Some(objects) = ours(&tree, "nats") else {
        return;
    };
    let certificate = support::object(&tree, "Certificate", "nats-server-tls").unwrap();
    let names = certificate["spec"]["dnsNames"].as_array().unwrap();
    let text = named(&objects, "ConfigMap", "nats-config")["data"]["nats.conf"]
        .as_str()
        .unwrap();
    let mut routes = 0;
    let urls = text.split('"').filter(|part| part.contains("-headless"));
    for route in urls {
        let (_, host) = route.split_once("://").unwrap();
        let host = host.split(':').next().unwrap();
        let (_, domain) = host.split_once('.').unwrap();
        assert!(
            names.contains(&json!(format!("*.{domain}"))),
            "{host}: {names:?}"
        );
        routes += 1;
    }
    assert_eq!(routes, 3, "{text}");
}
