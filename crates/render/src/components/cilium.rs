//! Cilium: the network of the pods, addresses for load balancers, Hubble.

use serde_json::{Value, json};
use undercroft_model::inventory::POD_NODE_PREFIX;

use super::common::{INGRESS_CLASS, ingress_domain, late_kind, replicas, server_tolerations};
use crate::{Chart, Component, Context, ManifestObject, ObjectId, Problem};

/// Names of network cards on the machines' LAN, as Cilium writes patterns. Predictable names
/// begin with `en`, those of containers and of kernels without them with `eth`. The overlay's
/// `tailscale0` must never be among them: its packets carry marks that Cilium uses too.
const DEVICES: [&str; 3] = ["en+", "eth+", "bond+"];
/// The same as regular expressions, for the announcements.
const DEVICE_PATTERNS: [&str; 3] = ["^en.*", "^eth.*", "^bond.*"];
/// Taints that the chart lets its operator tolerate (cilium 1.20.0, values.yaml).
const OPERATOR_TOLERATED: [&str; 4] = [
    "node-role.kubernetes.io/control-plane",
    "node-role.kubernetes.io/master",
    "node.kubernetes.io/not-ready",
    "node.cloudprovider.kubernetes.io/uninitialized",
];
/// Requests a second of each agent to the API. Each service that is announced costs a renewal of
/// its lease every few seconds, which Cilium's default of 10 doesn't leave room for
/// (docs.cilium.io, "L2 Announcements", "Sizing client rate limit").
const API_REQUESTS_PER_S: u32 = 50;
/// Requests at once before that rate holds.
const API_REQUESTS_BURST: u32 = 100;

pub(super) fn cilium(cx: &Context<'_>) -> Result<Component, Vec<Problem>> {
    let kubernetes = &cx.inventory.kubernetes;
    let ingress = ingress_domain(cx);
    if let Some(domain) = ingress
        && kubernetes.load_balancer_cidrs.is_empty()
    {
        return Err(vec![
            Problem::new(
                "no-ingress-address",
                format!(
                    "pages under {domain} need an address, and kubernetes.load_balancer_cidrs has none"
                ),
            )
            .in_inventory(&["gitops", "ingress_domain"])
            .hint("Set kubernetes.load_balancer_cidrs to a part of the nodes' network that no machine uses, or take gitops.ingress_domain out."),
        ]);
    }
    Ok(Component {
        chart: Some(Chart {
            release: "cilium",
            values: values(cx),
            known: include_str!("values/cilium.paths"),
        }),
        manifests: manifests(cx),
        prune: false,
        owns: vec![
            ObjectId::namespaced("apps", "DaemonSet", "kube-system", "cilium"),
            ObjectId::namespaced("apps", "Deployment", "kube-system", "cilium-operator"),
            ObjectId::namespaced("", "ConfigMap", "kube-system", "cilium-config"),
            ObjectId::cluster("", "Namespace", "cilium-secrets"),
            ObjectId::cluster("networking.k8s.io", "IngressClass", INGRESS_CLASS),
        ],
        ..Component::new(
            "cilium",
            "The network of the pods, addresses for load balancers, and Hubble, which shows the traffic.",
            "kube-system",
        )
    })
}

fn values(cx: &Context<'_>) -> Value {
    let kubernetes = &cx.inventory.kubernetes;
    let (api_host, api_port) = cx.api_for_nodes();
    let announced = !cx.is_dev() && !kubernetes.load_balancer_cidrs.is_empty();
    let operators = if cx.is_dev() { 1 } else { replicas(cx) };
    let mut values = json!({
        "kubeProxyReplacement": true,
        // Never `auto`: it asks the cluster while the chart is rendered, which Argo CD can't.
        "k8sServiceHost": api_host,
        "k8sServicePort": api_port,
        "k8sClientRateLimit": {
            "qps": API_REQUESTS_PER_S,
            "burst": API_REQUESTS_BURST,
        },
        "ipam": {
            "mode": "cluster-pool",
            "operator": {
                "clusterPoolIPv4PodCIDRList": [kubernetes.pod_cidr.to_string()],
                "clusterPoolIPv4MaskSize": POD_NODE_PREFIX.max(kubernetes.pod_cidr.prefix_len()),
            },
        },
        "devices": DEVICES,
        "operator": { "replicas": operators, "rollOutPods": true },
        "rollOutCiliumPods": true,
        "l2announcements": { "enabled": announced },
        // Ingress is part of Kubernetes. The Gateway API needs definitions of its own, and Cilium's
        // operator restarts without end where they are missing.
        "ingressController": {
            "enabled": ingress_domain(cx).is_some(),
            "default": ingress_domain(cx).is_some(),
            "loadbalancerMode": "shared",
        },
        "gatewayAPI": { "enabled": false },
        "prometheus": { "enabled": true },
        "hubble": {
            "enabled": true,
            "relay": { "enabled": true, "rollOutPods": true },
            "ui": { "enabled": true, "rollOutPods": true },
            "peerService": { "clusterDomain": kubernetes.cluster_domain },
            "metrics": { "enabled": ["dns", "drop", "tcp", "flow"] },
            // Certificates that Helm makes are new at every rendering: Argo CD would see them
            // change for ever and restart Hubble each time. A job in the cluster makes them here.
            "tls": { "auto": { "enabled": true, "method": "cronJob" } },
        },
        // The job that makes them must not remove itself, or Argo CD would bring it back for ever.
        "certgen": { "ttlSecondsAfterFinished": null },
    });
    if let Value::Array(servers) = server_tolerations(cx)
        && !servers.is_empty()
    {
        tolerate(&mut values, &servers);
    }
    values
}

/// Lets everything that a server without agents needs run in spite of the servers' taints. The
/// agent tolerates everything by itself.
fn tolerate(values: &mut Value, servers: &[Value]) {
    // A list replaces the chart's, so that its own come first.
    let own = OPERATOR_TOLERATED.map(|key| json!({ "key": key, "operator": "Exists" }));
    let operator: Vec<Value> = own.iter().chain(servers).cloned().collect();
    crate::values::merge(
        values,
        &json!({
            "operator": { "tolerations": operator },
            "certgen": { "tolerations": servers },
            "hubble": {
                "relay": { "tolerations": servers },
                "ui": { "tolerations": servers },
            },
        }),
    );
}

/// The pools and the announcements. They stand in no sync wave: with pages published, Cilium's own
/// Service waits for an address from the pool, and an earlier wave would wait for that Service.
fn manifests(cx: &Context<'_>) -> Vec<ManifestObject> {
    let cidrs = &cx.inventory.kubernetes.load_balancer_cidrs;
    if cx.is_dev() || cidrs.is_empty() {
        return Vec::new();
    }
    let blocks: Vec<Value> = cidrs
        .iter()
        .map(|cidr| json!({ "cidr": cidr.to_string() }))
        .collect();
    vec![
        ManifestObject::new(
            "load-balancer.yaml",
            json!({
                "apiVersion": "cilium.io/v2",
                "kind": "CiliumLoadBalancerIPPool",
                "metadata": { "name": "lan", "annotations": late_kind() },
                "spec": { "blocks": blocks, "allowFirstLastIPs": "No" },
            }),
        )
        .comment(
            "Addresses for services of type LoadBalancer, from kubernetes.load_balancer_cidrs. The first \
             and the last address of a network stay free: cut out of the nodes' network, the last may be \
             its broadcast address.",
        ),
        ManifestObject::new(
            "load-balancer.yaml",
            json!({
                "apiVersion": "cilium.io/v2alpha1",
                "kind": "CiliumL2AnnouncementPolicy",
                "metadata": { "name": "lan", "annotations": late_kind() },
                "spec": {
                    "loadBalancerIPs": true,
                    "externalIPs": false,
                    "interfaces": DEVICE_PATTERNS,
                    "nodeSelector": { "matchLabels": { "kubernetes.io/os": "linux" } },
                },
            }),
        )
        .comment("One node at a time answers on the LAN for each of these addresses."),
    ]
}
