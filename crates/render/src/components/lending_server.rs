//! The server of lending, beside NATS.
//!
//! It has no volume: what counts lies in JetStream, so that its pod may be begun anew on any node. Two of them at once
//! would do no harm, and no good either. It goes by a file that is made of the inventory as the flake makes it for a
//! machine; its image is the flake's too, pushed to where the inventory says.

use serde_json::{Value, json};
use undercroft_lend::fleet::{FleetFile, LendingFleet};
use undercroft_model::{
    System,
    inventory::SecretsBackend,
    objects::{LENDING_SERVER_KEY, LENDING_SERVER_SECRET, NATS_NAMESPACE as NAMESPACE},
};

use super::{
    common::{MONITORING, has_prometheus, late_kind, pod_security, resources},
    nats::{self, SERVER_TLS},
};
use crate::{Component, Context, DevUse, ManifestObject, Problem, digest};

pub(super) const NAME: &str = "lending-server";
const METRICS_PORT: u16 = 9109;
/// Where its files lie, read only: what the inventory says, its key, and the authority that signed NATS' certificate.
const CONFIG: &str = "/etc/undercroft/config";
const KEY: &str = "/etc/undercroft/key";
const CA: &str = "/etc/undercroft/ca";
/// Name of the file that the inventory's word lies in.
const CONFIG_FILE: &str = "lending.json";
/// The most that content may take in JetStream, in GiB: below the volume of each of NATS' servers.
const CONTENT_GIB: u32 = 8;
/// Nobody, as distroless images call themselves.
const USER: u32 = 65532;

pub(super) fn lending_server(cx: &Context<'_>) -> Result<Component, Vec<Problem>> {
    let fleet = checked(cx)?;
    let image = cx.image(NAME)?;
    let file = file(&fleet);
    let mut manifests = vec![
        ManifestObject::new("config.yaml", config(&file)).comment(
            "What the inventory says of lending: public keys and limits, and nothing secret.",
        ),
        ManifestObject::new("lending-server.yaml", deployment(cx, &image, &file)),
        ManifestObject::new("lending-server.yaml", service()),
        ManifestObject::new("lending-server.yaml", network_policy(cx)).comment(
            "It calls NATS and is called by nobody but Prometheus, whom it asks for no password.",
        ),
    ];
    if has_prometheus(cx) {
        manifests.push(ManifestObject::new("monitoring.yaml", monitor()));
        manifests.push(ManifestObject::new("monitoring.yaml", rules()));
    }
    Ok(Component {
        namespace_labels: pod_security("baseline"),
        manifests,
        requires: vec![nats::NAME],
        after: vec!["prometheus", "external-secrets", "sealed-secrets"],
        dev: DevUse::LeftOut("work is handed out by the fleet's own cluster"),
        ..Component::new(NAME, "Hands work out to lent PCs.", NAMESPACE)
    })
}

/// What the server goes by, where the inventory has all that it takes.
fn checked(cx: &Context<'_>) -> Result<LendingFleet, Vec<Problem>> {
    let lending = &cx.inventory.lending;
    let problem = |code, message: &str, keys: &[&str], hint: String| {
        vec![
            Problem::new(code, format!("the component {NAME} {message}"))
                .in_inventory(keys)
                .hint(hint),
        ]
    };
    let listed = ["gitops", "components"];
    let Ok(fleet) = LendingFleet::of(cx.inventory) else {
        return Err(problem(
            "lending-server-without-lending",
            "is chosen, and lending.enabled is false",
            &listed,
            "Set lending.enabled = true, or take the component out.".to_owned(),
        ));
    };
    let mut problems = Vec::new();
    if lending.server_key.is_none() {
        let first = match cx.inventory.secrets.backend {
            SecretsBackend::Vault => {
                "Make one with `undercroft lend key`, put it into the Vault as `server.nk` of `lending/server`, and set lending.server_key to what that prints."
            }
            SecretsBackend::Sops | SecretsBackend::SealedSecrets => {
                "`undercroft secrets init` makes one; set lending.server_key to its public half, which `undercroft secrets list --public` prints."
            }
        };
        problems.extend(problem(
            "lending-server-without-key",
            "needs lending.server_key, or NATS refuses it",
            &["lending"],
            first.to_owned(),
        ));
    }
    if lending.server_image.is_none() && cx.locked(NAME).is_none() {
        problems.extend(problem(
            "lending-server-without-image",
            "needs lending.server_image, as no image of it is published",
            &["lending"],
            "Build the flake's `lending-server-image`, push it to a registry that the nodes reach, and set lending.server_image to where it is, without a tag.".to_owned(),
        ));
    }
    if problems.is_empty() {
        Ok(fleet)
    } else {
        Err(problems)
    }
}

/// The text of its file.
fn file(fleet: &LendingFleet) -> String {
    // It is made of texts and numbers, so that writing it can't fail; an empty one is refused by whoever reads it.
    let mut text = serde_json::to_string_pretty(&FleetFile::of(fleet)).unwrap_or_default();
    text.push('\n');
    text
}

fn metadata(name: &str) -> Value {
    json!({ "name": name, "namespace": NAMESPACE, "labels": labels() })
}

fn labels() -> Value {
    json!({ "app.kubernetes.io/name": NAME })
}

fn config(file: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(NAME),
        "data": { CONFIG_FILE: file },
    })
}

/// The words after the command's name. A test runs the command with them.
fn args(cx: &Context<'_>) -> Vec<String> {
    let replicas = nats::replicas(cx);
    let args = [
        "lend",
        "server",
        "--json",
        "--config",
        &format!("{CONFIG}/{CONFIG_FILE}"),
        "--nats",
        &nats::inner_url(cx),
        "--key",
        &format!("{KEY}/{LENDING_SERVER_KEY}"),
        "--ca",
        &format!("{CA}/ca.crt"),
        "--replicas",
        &replicas.to_string(),
        "--content-gib",
        &CONTENT_GIB.to_string(),
        "--metrics",
        &format!("0.0.0.0:{METRICS_PORT}"),
        "--metrics-beyond-loopback",
    ];
    args.map(str::to_owned).into()
}

/// What Kubernetes calls the processors that the image is for: the founder's, as the flake makes an image for one kind.
fn architecture(cx: &Context<'_>) -> &'static str {
    let founder = cx.inventory.kubernetes.founder.as_ref();
    let founder = founder.and_then(|name| cx.inventory.nodes.get(name));
    match founder.map(|node| node.system) {
        Some(System::Aarch64Linux) => "arm64",
        _ => "amd64",
    }
}

fn deployment(cx: &Context<'_>, image: &str, file: &str) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(NAME),
        "spec": {
            "replicas": 1,
            // The next one begins when the last has ended.
            "strategy": { "type": "Recreate" },
            "selector": { "matchLabels": labels() },
            "template": {
                "metadata": {
                    "labels": labels(),
                    // The file is read once: another inventory is another pod.
                    "annotations": { "undercroft.dev/config-digest": digest(file.as_bytes()) },
                },
                "spec": {
                    "automountServiceAccountToken": false,
                    "enableServiceLinks": false,
                    "nodeSelector": { "kubernetes.io/arch": architecture(cx) },
                    "securityContext": {
                        "runAsNonRoot": true,
                        "runAsUser": USER,
                        "runAsGroup": USER,
                        "fsGroup": USER,
                        "seccompProfile": { "type": "RuntimeDefault" },
                    },
                    "containers": [container(cx, image)],
                    "volumes": volumes(),
                },
            },
        },
    })
}

fn container(cx: &Context<'_>, image: &str) -> Value {
    let probe = |path: &str, period_s: u32, failures: u32| {
        json!({
            "httpGet": { "path": path, "port": "metrics" },
            "periodSeconds": period_s,
            "timeoutSeconds": 5,
            "failureThreshold": failures,
        })
    };
    json!({
        "name": NAME,
        "image": image,
        "args": args(cx),
        "ports": [{ "name": "metrics", "containerPort": METRICS_PORT }],
        // It listens when it has read what JetStream keeps, which has five minutes.
        "startupProbe": probe("/livez", 5, 60),
        // NATS' absence is no reason to begin it anew: it comes back by itself, and isn't ready until then.
        "livenessProbe": probe("/livez", 20, 3),
        "readinessProbe": probe("/readyz", 10, 3),
        "resources": resources("20m", "64Mi", "512Mi"),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
        },
        "volumeMounts": [
            { "name": "config", "mountPath": CONFIG, "readOnly": true },
            { "name": "key", "mountPath": KEY, "readOnly": true },
            { "name": "ca", "mountPath": CA, "readOnly": true },
        ],
    })
}

fn volumes() -> Value {
    // Read by root's group alone: the kubelet gives it to the pod's, and nobody else can read the key.
    const GROUP_READS: u32 = 0o440;
    json!([
        { "name": "config", "configMap": { "name": NAME } },
        {
            "name": "key",
            "secret": {
                "secretName": LENDING_SERVER_SECRET,
                "defaultMode": GROUP_READS,
                "items": [{ "key": LENDING_SERVER_KEY, "path": LENDING_SERVER_KEY }],
            },
        },
        // The Secret has NATS' own key too, which isn't brought here.
        {
            "name": "ca",
            "secret": {
                "secretName": SERVER_TLS,
                "defaultMode": GROUP_READS,
                "items": [{ "key": "ca.crt", "path": "ca.crt" }],
            },
        },
    ])
}

fn service() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(NAME),
        "spec": {
            "selector": labels(),
            "ports": [{ "name": "metrics", "port": METRICS_PORT, "targetPort": "metrics" }],
        },
    })
}

fn network_policy(cx: &Context<'_>) -> Value {
    let from = json!({ "namespaceSelector": {
        "matchLabels": { "kubernetes.io/metadata.name": MONITORING },
    } });
    let allowed = has_prometheus(cx).then(|| {
        json!({
            "from": [from],
            "ports": [{ "protocol": "TCP", "port": "metrics" }],
        })
    });
    let allowed: Vec<Value> = allowed.into_iter().collect();
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(NAME),
        "spec": {
            "podSelector": { "matchLabels": labels() },
            "policyTypes": ["Ingress"],
            "ingress": allowed,
        },
    })
}

fn late(name: &str) -> Value {
    json!({
        "name": name,
        "namespace": NAMESPACE,
        "labels": labels(),
        "annotations": late_kind(),
    })
}

fn monitor() -> Value {
    json!({
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": late(NAME),
        "spec": {
            "selector": { "matchLabels": labels() },
            "endpoints": [{ "port": "metrics" }],
        },
    })
}

/// What somebody should be told of: docs/lend-server.md has what each means.
fn rules() -> Value {
    let rule = |alert: &str, expr: &str, lasts: &str, severity: &str, summary: &str| {
        json!({
            "alert": alert,
            "expr": expr,
            "for": lasts,
            "labels": { "severity": severity },
            "annotations": { "summary": summary },
        })
    };
    let here = format!("namespace=\"{NAMESPACE}\",job=\"{NAME}\"");
    let rules = [
        rule(
            "LendingServerDown",
            &format!("absent(up{{{here}}} == 1)"),
            "5m",
            "warning",
            "No server of lending runs: PCs go on until their leases run out, and nothing is handed out.",
        ),
        rule(
            "LendingServerWithoutNats",
            "undercroft_lend_connected == 0",
            "2m",
            "warning",
            "The server of lending has no connection to NATS.",
        ),
        rule(
            "LendingStoreUnsure",
            "increase(undercroft_lend_stored_total{how=\"unknown\"}[10m]) > 5",
            "5m",
            "warning",
            "NATS doesn't say whether it has stored what the server of lending asked for: it is slow, or lacks servers.",
        ),
        rule(
            "LendingJobsGivenUp",
            "delta(undercroft_lend_jobs{state=\"dead\"}[1h]) > 0",
            "0m",
            "info",
            "Lent jobs were given up: `undercroft lend jobs` says why.",
        ),
        rule(
            "LendingNobodyLends",
            "undercroft_lend_jobs{state=\"queued\"} > 0 and on (pod) undercroft_lend_devices == 0",
            "30m",
            "info",
            "Jobs wait, and no PC lends.",
        ),
        rule(
            "LendingResultsRefused",
            "increase(undercroft_lend_refused_total{reason=~\"holding|digest|no-output\"}[1h]) > 10",
            "0m",
            "info",
            "Results are refused again and again: a PC lies, or restarts without end. The server's log names it.",
        ),
    ];
    json!({
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": late(NAME),
        "spec": { "groups": [{ "name": NAME, "rules": rules }] },
    })
}
