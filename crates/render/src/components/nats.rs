//! NATS with JetStream: the message system that lending runs on.
//!
//! Nobody is anonymous and no password is kept anywhere: who may do what follows from the
//! certificate of the client, which cert-manager makes.

use serde_json::{Map, Value, json};

use super::common::{
    CLUSTER_ISSUER, has_longhorn, has_prometheus, late_kind, pod_security, resources,
    storage_class, storage_component,
};
use super::longhorn::SINGLE_REPLICA;
use crate::{Chart, Component, Context, ManifestObject};

const NAMESPACE: &str = "nats";
/// Secret with the servers' certificate.
const SERVER_TLS: &str = "nats-server-tls";
/// Servers of a cluster: JetStream keeps three copies, and one may be away.
const SERVERS: u32 = 3;
/// Account of the cluster's own programs, beside lending's.
const APPS_ACCOUNT: &str = "APPS";
const SYSTEM_ACCOUNT: &str = "SYS";

pub(super) fn nats(cx: &Context<'_>) -> Component {
    let mut requires = vec!["cert-manager"];
    requires.extend(storage_component(cx));
    Component {
        namespace_labels: pod_security("baseline"),
        chart: Some(Chart {
            release: "nats",
            values: values(cx),
            known: include_str!("values/nats.paths"),
        }),
        manifests: certificates(cx),
        requires,
        after: vec!["prometheus"],
        ..Component::new(
            "nats",
            "The message system that lending runs on.",
            NAMESPACE,
        )
    }
}

/// The identities that the cluster's own programs have: name of the client certificate, account.
fn identities<'a>(cx: &Context<'a>) -> Vec<(&'static str, &'a str)> {
    let mut identities = vec![("admin", SYSTEM_ACCOUNT), ("apps", APPS_ACCOUNT)];
    let lending = &cx.inventory.lending;
    if lending.enabled {
        identities.push(("gateway", &lending.account));
    }
    identities
}

/// The name that a client's certificate carries and that NATS knows it by.
fn identity_host(name: &str) -> String {
    format!("{name}.client.{NAMESPACE}")
}

/// Whether there are enough nodes for a cluster of NATS.
fn clustered(cx: &Context<'_>) -> bool {
    cx.cluster_nodes().count() >= SERVERS as usize
}

fn values(cx: &Context<'_>) -> Value {
    let clustered = clustered(cx);
    // A cluster of NATS keeps three copies of a stream; Longhorn's would make nine of them.
    let class = if clustered && has_longhorn(cx) {
        SINGLE_REPLICA
    } else {
        storage_class(cx)
    };
    let mut accounts: Map<String, Value> = Map::new();
    for (name, account) in identities(cx) {
        let mut entry = json!({ "users": [{ "user": identity_host(name) }] });
        if account != SYSTEM_ACCOUNT
            && let Value::Object(entry) = &mut entry
        {
            entry.insert("jetstream".to_owned(), "enabled".into());
        }
        accounts.insert(account.to_owned(), entry);
    }
    let tls = json!({ "enabled": true, "secretName": SERVER_TLS });
    let mut values = json!({
        "tlsCA": { "enabled": true, "secretName": SERVER_TLS },
        "config": {
            "cluster": {
                "enabled": clustered,
                "replicas": SERVERS,
                "tls": tls,
                "routeURLs": { "k8sClusterDomain": cx.inventory.kubernetes.cluster_domain },
            },
            "jetstream": {
                "enabled": true,
                "fileStore": { "pvc": { "size": "20Gi", "storageClassName": class } },
            },
            "nats": {
                "tls": {
                    "enabled": true,
                    "secretName": SERVER_TLS,
                    "merge": { "verify_and_map": true },
                },
            },
            "merge": { "accounts": accounts, "system_account": SYSTEM_ACCOUNT },
        },
        "container": { "merge": { "resources": resources("100m", "256Mi", "1Gi") } },
        // A shell with the servers' rights isn't kept running for nothing.
        "natsBox": { "enabled": false },
        "promExporter": {
            "enabled": has_prometheus(cx),
            "podMonitor": { "enabled": has_prometheus(cx) },
        },
        "podTemplate": {
            "topologySpreadConstraints": {
                "kubernetes.io/hostname": { "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway" },
            },
        },
    });
    if published(cx) {
        // Lenders' PCs are outside of the cluster.
        crate::values::merge(
            &mut values,
            &json!({ "service": { "merge": { "spec": { "type": "LoadBalancer" } } } }),
        );
    }
    values
}

/// Whether NATS has an address on the LAN.
fn published(cx: &Context<'_>) -> bool {
    let addresses = &cx.inventory.kubernetes.load_balancer_cidrs;
    cx.inventory.lending.enabled && !addresses.is_empty() && !cx.is_dev()
}

/// The host in a URL such as `tls://nats.example:4222`.
fn host_of(url: &str) -> Option<&str> {
    let rest = url.split_once("://")?.1;
    let host = rest.split(['/', '?', '#']).next()?;
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    (!host.is_empty()).then_some(host)
}

fn certificates(cx: &Context<'_>) -> Vec<ManifestObject> {
    let domain = &cx.inventory.kubernetes.cluster_domain;
    let mut names = vec![
        "nats".to_owned(),
        format!("nats.{NAMESPACE}"),
        format!("nats.{NAMESPACE}.svc"),
        format!("nats.{NAMESPACE}.svc.{domain}"),
        format!("*.nats-headless.{NAMESPACE}.svc.{domain}"),
        "*.nats-headless".to_owned(),
    ];
    let mut addresses = Vec::new();
    let lending = &cx.inventory.lending;
    if lending.enabled
        && let Some(host) = lending.nats_url.as_deref().and_then(host_of)
    {
        // A certificate has a name and an address in different places.
        match host.parse::<std::net::Ipv4Addr>() {
            Ok(address) => addresses.push(address.to_string()),
            Err(_) => names.push(host.to_owned()),
        }
    }
    let server = certificate(
        SERVER_TLS,
        &names,
        &addresses,
        &["server auth", "client auth"],
    );
    let mut manifests = vec![
        ManifestObject::new("certificates.yaml", server)
            .comment("The servers' certificate, for clients and among each other."),
    ];
    for (name, account) in identities(cx) {
        let object = certificate(
            &format!("nats-{name}-tls"),
            &[identity_host(name)],
            &[],
            &["client auth"],
        );
        manifests.push(
            ManifestObject::new("certificates.yaml", object)
                .comment(format!("Who holds this one acts in the account {account}.")),
        );
    }
    manifests
}

fn certificate(secret: &str, names: &[String], addresses: &[String], usages: &[&str]) -> Value {
    let mut spec = json!({
        "secretName": secret,
        "dnsNames": names,
        "usages": usages,
        "privateKey": { "algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always" },
        "issuerRef": { "name": CLUSTER_ISSUER, "kind": "ClusterIssuer", "group": "cert-manager.io" },
    });
    if !addresses.is_empty()
        && let Value::Object(spec) = &mut spec
    {
        spec.insert("ipAddresses".to_owned(), json!(addresses));
    }
    json!({
        "apiVersion": "cert-manager.io/v1",
        "kind": "Certificate",
        "metadata": { "name": secret, "namespace": NAMESPACE, "annotations": late_kind() },
        "spec": spec,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_a_url_is_read() {
        assert_eq!(host_of("tls://nats.example:4222"), Some("nats.example"));
        assert_eq!(host_of("nats://10.0.0.4"), Some("10.0.0.4"));
        assert_eq!(host_of("nats://"), None);
        assert_eq!(host_of("nats.example"), None);
    }
}
