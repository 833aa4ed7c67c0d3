//! Headscale inside the cluster, for fleets that place it there.
//!
//! The cluster forms over the LAN without it. Its keys are made at its first start and stay on
//! its volume.
//!
//! It has an address of its own on the LAN and ends TLS itself. Clients upgrade their connection to
//! `tailscale-control-protocol` by a POST, which no Ingress of Cilium's passes on: its operator lets
//! Envoy upgrade to `websocket` alone, and Envoy answers 403 (cilium, operator/pkg/model/translation/
//! envoy_http_connection_manager.go). The certificate is Let's Encrypt's, by Headscale itself: every
//! client takes that, while the cluster's own authority is known to no phone and no PC.

use serde_json::{Value, json};
use undercroft_model::inventory::OverlayKind;

use super::common::{claim_template, pod_security, resources, storage_class, storage_component};
use crate::{Component, Context, DevUse, ManifestObject, Problem};

const NAME: &str = "headscale";
const PORT: u16 = 8080;
const METRICS_PORT: u16 = 9090;
/// Where its database and keys lie.
const DATA: &str = "/var/lib/headscale";

pub(super) fn headscale(cx: &Context<'_>) -> Result<Component, Vec<Problem>> {
    let overlay = &cx.inventory.network.overlay;
    if overlay.kind != OverlayKind::Headscale {
        return Err(vec![
            Problem::new(
                "headscale-without-overlay",
                "the component headscale is chosen, and network.overlay.kind isn't \"headscale\"",
            )
            .in_inventory(&["gitops", "components"])
            .hint("Set network.overlay.kind = \"headscale\", or take the component out."),
        ]);
    }
    let Some(url) = &overlay.server_url else {
        return Err(vec![
            Problem::new(
                "headscale-without-url",
                "the component headscale needs network.overlay.server_url",
            )
            .in_inventory(&["network", "overlay"])
            .hint("Set it to the URL at which clients reach the server."),
        ]);
    };
    if overlay.derp {
        return Err(vec![
            Problem::new(
                "headscale-derp",
                "network.overlay.derp is true, and Headscale in the cluster relays for nobody",
            )
            .in_inventory(&["network", "overlay", "derp"])
            .hint("Take it out; or run Headscale on a machine of the fleet, with network.overlay.server_node, and take the component out."),
        ]);
    }
    let endpoint = Endpoint::of(url)?;
    if cx.inventory.kubernetes.load_balancer_cidrs.is_empty() && !cx.is_dev() {
        return Err(vec![
            Problem::new(
                "no-headscale-address",
                "the component headscale needs an address, and kubernetes.load_balancer_cidrs has none",
            )
            .in_inventory(&["gitops", "components"])
            .hint("Set kubernetes.load_balancer_cidrs to a part of the nodes' network that no machine uses; or name a machine of the fleet in network.overlay.server_node, and take the component out."),
        ]);
    }
    let image = cx.image(NAME)?;
    let manifests = vec![
        ManifestObject::new("config.yaml", config(cx, url, &endpoint)),
        ManifestObject::new("headscale.yaml", service()),
        ManifestObject::new("headscale.yaml", address(&endpoint)).comment(
            "Its own address on the LAN, to which the name in server_url leads. An Ingress of Cilium's can't stand before it.",
        ),
        ManifestObject::new("headscale.yaml", stateful_set(cx, &image))
            .comment("One server with SQLite: Headscale can't run as several."),
    ];
    Ok(Component {
        namespace_labels: pod_security("restricted"),
        manifests,
        requires: storage_component(cx),
        dev: DevUse::LeftOut("a PC is a client of the overlay and never its server"),
        ..Component::new(NAME, "The overlay's control server.", NAME)
    })
}

/// Where clients reach it, from its URL.
struct Endpoint<'a> {
    host: &'a str,
    port: u16,
    tls: bool,
}

impl<'a> Endpoint<'a> {
    fn of(url: &'a str) -> Result<Self, Vec<Problem>> {
        let wrong = |message: String, hint: &str| {
            vec![
                Problem::new("headscale-url", message)
                    .in_inventory(&["network", "overlay", "server_url"])
                    .hint(hint),
            ]
        };
        let form = "Write https://HOST, where HOST is a name that leads to Headscale's address.";
        let (scheme, rest) = url
            .split_once("://")
            .ok_or_else(|| wrong(format!("{url:?} is no URL"), form))?;
        let tls = scheme == "https";
        let authority = rest.split('/').next().unwrap_or(rest);
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (
                host,
                port.parse()
                    .map_err(|_| wrong(format!("{url:?} has no port that is one"), form))?,
            ),
            None => (authority, if tls { 443 } else { 80 }),
        };
        if tls && port != 443 {
            return Err(wrong(
                format!("Headscale in the cluster can't have a certificate at port {port}"),
                "Let's Encrypt looks at port 443 alone (RFC 8737): leave the port out; or run Headscale on a machine of the fleet, with network.overlay.server_node.",
            ));
        }
        Ok(Self { host, port, tls })
    }
}

fn metadata(name: &str) -> Value {
    json!({ "name": name, "namespace": NAME, "labels": labels() })
}

fn labels() -> Value {
    json!({ "app.kubernetes.io/name": NAME })
}

/// Its configuration, as nix/modules/overlay/headscale.nix has it for a machine's: without a domain of
/// the overlay's own, machines have no names in it.
fn config(cx: &Context<'_>, url: &str, endpoint: &Endpoint<'_>) -> Value {
    let overlay = &cx.inventory.network.overlay;
    let mut config = json!({
        "server_url": url,
        "listen_addr": format!("0.0.0.0:{PORT}"),
        "metrics_listen_addr": format!("0.0.0.0:{METRICS_PORT}"),
        "noise": { "private_key_path": format!("{DATA}/noise_private.key") },
        "prefixes": { "v4": overlay.cidr.to_string(), "allocation": "sequential" },
        "derp": {
            "server": { "enabled": false },
            "urls": ["https://controlplane.tailscale.com/derpmap/default"],
            "auto_update_enabled": true,
            "update_frequency": "3h",
        },
        "disable_check_updates": true,
        "database": {
            "type": "sqlite",
            "sqlite": { "path": format!("{DATA}/db.sqlite"), "write_ahead_log": true },
        },
        "dns": {
            "magic_dns": overlay.base_domain.is_some(),
            "base_domain": overlay.base_domain.as_deref().unwrap_or_default(),
            "override_local_dns": false,
        },
        "unix_socket": format!("{DATA}/headscale.sock"),
        "policy": { "mode": "database" },
    });
    if endpoint.tls
        && let Value::Object(config) = &mut config
    {
        config.insert("tls_letsencrypt_hostname".to_owned(), endpoint.host.into());
        config.insert(
            "tls_letsencrypt_challenge_type".to_owned(),
            "TLS-ALPN-01".into(),
        );
        config.insert(
            "tls_letsencrypt_cache_dir".to_owned(),
            format!("{DATA}/cache").into(),
        );
    }
    // JSON is YAML; printing it can't fail, and the plain form is the fallback.
    let text = crate::yaml::print(&config).unwrap_or_else(|_| config.to_string());
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata("headscale-config"),
        "data": { "config.yaml": text },
    })
}

fn service() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(NAME),
        "spec": {
            "selector": labels(),
            "ports": [
                { "name": "http", "port": 80, "targetPort": "http" },
                { "name": "metrics", "port": METRICS_PORT, "targetPort": "metrics" },
            ],
        },
    })
}

/// The Service that has an address.
fn address(endpoint: &Endpoint<'_>) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata("headscale-lan"),
        "spec": {
            "type": "LoadBalancer",
            "selector": labels(),
            "ports": [{
                "name": if endpoint.tls { "https" } else { "http" },
                "port": endpoint.port,
                "targetPort": "http",
            }],
        },
    })
}

fn stateful_set(cx: &Context<'_>, image: &str) -> Value {
    let mut claim = claim_template(storage_class(cx), "1Gi");
    if let Value::Object(claim) = &mut claim {
        // The API server fills the first two in, and Argo CD would find that a difference.
        claim.insert("apiVersion".to_owned(), "v1".into());
        claim.insert("kind".to_owned(), "PersistentVolumeClaim".into());
        claim.insert("metadata".to_owned(), json!({ "name": "data" }));
    }
    json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata(NAME),
        "spec": {
            "serviceName": NAME,
            "replicas": 1,
            "selector": { "matchLabels": labels() },
            "volumeClaimTemplates": [claim],
            "template": {
                "metadata": { "labels": labels() },
                "spec": {
                    "automountServiceAccountToken": false,
                    "securityContext": {
                        "runAsNonRoot": true,
                        "runAsUser": 65532,
                        "runAsGroup": 65532,
                        "fsGroup": 65532,
                        "seccompProfile": { "type": "RuntimeDefault" },
                    },
                    "containers": [{
                        "name": NAME,
                        "image": image,
                        "args": ["serve"],
                        "ports": [
                            { "name": "http", "containerPort": PORT },
                            { "name": "metrics", "containerPort": METRICS_PORT },
                        ],
                        // With TLS the server answers nobody who doesn't name it, as a probe doesn't.
                        "readinessProbe": { "tcpSocket": { "port": "http" } },
                        "livenessProbe": {
                            "httpGet": { "path": "/metrics", "port": "metrics" },
                            "initialDelaySeconds": 30,
                        },
                        "resources": resources("10m", "64Mi", "256Mi"),
                        "securityContext": {
                            "allowPrivilegeEscalation": false,
                            "readOnlyRootFilesystem": true,
                            "capabilities": { "drop": ["ALL"] },
                        },
                        "volumeMounts": [
                            { "name": "config", "mountPath": "/etc/headscale", "readOnly": true },
                            { "name": "data", "mountPath": DATA },
                        ],
                    }],
                    "volumes": [{ "name": "config", "configMap": { "name": "headscale-config" } }],
                },
            },
        },
    })
}
