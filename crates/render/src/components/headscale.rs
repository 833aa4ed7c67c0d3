//! Headscale inside the cluster, for fleets that place it there.
//!
//! The cluster forms over the LAN without it. Its keys are made at its first start and stay on
//! its volume.

use serde_json::{Value, json};
use undercroft_model::inventory::OverlayKind;

use super::common::{
    INGRESS_CLASS, claim_template, ingress_annotations, ingress_domain, pod_security, resources,
    storage_class, storage_component,
};
use crate::{Component, Context, DevUse, Manifest, Problem};

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
    let image = super::image(cx, NAME)?;
    let mut manifests = vec![
        Manifest::new("config.yaml", config(cx, url)),
        Manifest::new("headscale.yaml", service()),
        Manifest::new("headscale.yaml", stateful_set(cx, &image))
            .comment("One server with SQLite: Headscale can't run as several."),
    ];
    if ingress_domain(cx).is_some()
        && let Some(host) = url.split_once("://").map(|(_, rest)| rest)
    {
        let host = host.split([':', '/']).next().unwrap_or(host);
        manifests.push(Manifest::new("headscale.yaml", ingress(cx, host)));
    }
    Ok(Component {
        namespace_labels: pod_security("restricted"),
        manifests,
        requires: storage_component(cx),
        after: vec!["cert-manager"],
        dev: DevUse::LeftOut("a PC is a client of the overlay and never its server"),
        ..Component::new(NAME, "The overlay's control server.", NAME)
    })
}

fn metadata(name: &str) -> Value {
    json!({ "name": name, "namespace": NAME, "labels": labels() })
}

fn labels() -> Value {
    json!({ "app.kubernetes.io/name": NAME })
}

fn config(cx: &Context<'_>, url: &str) -> Value {
    let overlay = &cx.inventory.network.overlay;
    let fleet = &cx.inventory.fleet.name;
    let config = json!({
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
            "magic_dns": true,
            "base_domain": overlay.base_domain.clone().unwrap_or_else(|| format!("{fleet}.internal")),
            "override_local_dns": false,
        },
        "unix_socket": format!("{DATA}/headscale.sock"),
        "policy": { "mode": "database" },
    });
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
                        "readinessProbe": { "httpGet": { "path": "/health", "port": "http" } },
                        "livenessProbe": {
                            "httpGet": { "path": "/health", "port": "http" },
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

fn ingress(cx: &Context<'_>, host: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {
            "name": NAME,
            "namespace": NAME,
            "labels": labels(),
            "annotations": ingress_annotations(cx),
        },
        "spec": {
            "ingressClassName": INGRESS_CLASS,
            "tls": [{ "hosts": [host], "secretName": "headscale-tls" }],
            "rules": [{
                "host": host,
                "http": {
                    "paths": [{
                        "path": "/",
                        "pathType": "Prefix",
                        "backend": { "service": { "name": NAME, "port": { "name": "http" } } },
                    }],
                },
            }],
        },
    })
}
