//! NATS with JetStream: the message system that lending runs on.
//!
//! Nobody is anonymous and no password is kept anywhere. The cluster's own programs are known by their certificates,
//! which cert-manager makes; those who lend, bring work or hand it out by their keys, as outside of the cluster. A port
//! either asks everybody for a certificate or nobody, so that with lending the cluster's programs have one of their own.

use serde_json::{Map, Value, json};
use undercroft_lend::{accounts::Accounts, consent::PublicKey};
use undercroft_model::objects::NATS_NAMESPACE as NAMESPACE;

use super::common::{
    CLUSTER_ISSUER, has_longhorn, has_prometheus, late_kind, pod_security, resources,
    storage_class, storage_component,
};
use super::longhorn::SINGLE_REPLICA;
use crate::{Chart, Component, Context, ManifestObject};

pub(super) const NAME: &str = "nats";
/// Secret with the servers' certificate, and that of the authority that signed it.
pub(super) const SERVER_TLS: &str = "nats-server-tls";
const PORT: u16 = 4222;
/// Servers of a cluster: JetStream keeps three copies, and one may be away.
const SERVERS: u32 = 3;
/// How long a client's handshake may take, in seconds.
const TLS_S: u32 = 5;
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
        ..Component::new(NAME, "The message system that lending runs on.", NAMESPACE)
    }
}

/// The identities that the cluster's own programs have: name of the client certificate, account.
const IDENTITIES: [(&str, &str); 2] = [("admin", SYSTEM_ACCOUNT), ("apps", APPS_ACCOUNT)];

/// Where the cluster's own programs reach it.
pub(super) fn inner_url(cx: &Context<'_>) -> String {
    let domain = &cx.inventory.kubernetes.cluster_domain;
    format!("tls://{NAME}.{NAMESPACE}.svc.{domain}:{PORT}")
}

/// On how many servers a stream is kept.
pub(super) fn replicas(cx: &Context<'_>) -> u32 {
    if clustered(cx) { SERVERS } else { 1 }
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
    let lends = cx.inventory.lending.enabled;
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
                    "merge": if lends { json!({ "timeout": TLS_S }) } else { by_certificate() },
                },
            },
            "merge": { "accounts": accounts(cx), "system_account": SYSTEM_ACCOUNT },
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
    if lends {
        crate::values::merge(
            &mut values,
            &json!({ "config": {
                // What was acknowledged outlives a power cut of the whole room, too: as it comes, NATS syncs every
                // two minutes.
                "jetstream": { "merge": { "sync_interval": "always" } },
                "websocket": {
                    "enabled": true,
                    "tls": { "enabled": true, "secretName": SERVER_TLS, "merge": by_certificate() },
                },
            } }),
        );
    }
    if published(cx) {
        // Lenders' PCs are outside of the cluster.
        crate::values::merge(
            &mut values,
            &json!({ "service": { "merge": { "spec": { "type": "LoadBalancer" } } } }),
        );
    }
    values
}

/// A port at which a client is who its certificate says.
fn by_certificate() -> Value {
    json!({ "verify_and_map": true })
}

/// Who may connect, and to what.
fn accounts(cx: &Context<'_>) -> Map<String, Value> {
    let lending = &cx.inventory.lending;
    let mut accounts = Map::new();
    for (name, account) in IDENTITIES {
        let mut user = json!({ "user": identity_host(name) });
        if lending.enabled
            && let Value::Object(user) = &mut user
        {
            // Where nobody is asked for a certificate, whoever says this name would be believed.
            user.insert("allowed_connection_types".to_owned(), json!(["WEBSOCKET"]));
        }
        let mut entry = json!({ "users": [user] });
        if account != SYSTEM_ACCOUNT
            && let Value::Object(entry) = &mut entry
        {
            entry.insert("jetstream".to_owned(), "enabled".into());
        }
        accounts.insert(account.to_owned(), entry);
    }
    if lending.enabled {
        let server = lending.server_key.clone().map(PublicKey);
        let lent = Accounts::of(cx.inventory, server).account();
        accounts.insert(lending.account.clone(), lent);
    }
    accounts
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
    for (name, account) in IDENTITIES {
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
