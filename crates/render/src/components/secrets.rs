//! Where the cluster's secrets come from: sealed secrets or a Vault. With SOPS nothing runs in
//! the cluster: the bootstrap delivers the secrets that Undercroft knows by name.

use serde_json::{Value, json};
use undercroft_model::{
    inventory,
    objects::{
        GRAFANA_PASSWORD_KEY, GRAFANA_SECRET, GRAFANA_USER_KEY, LENDING_SERVER_KEY,
        LENDING_SERVER_SECRET, NATS_NAMESPACE,
    },
};

use super::common::{MONITORING, late_kind_in_wave, pod_security, resources};
use crate::{Chart, Component, Context, ManifestObject, ObjectId, Problem};

const EXTERNAL_SECRETS: &str = "external-secrets";
/// Name of the store that ExternalSecrets refer to.
const STORE: &str = "vault";

pub(super) fn sealed_secrets() -> Component {
    Component {
        chart: Some(Chart {
            release: "sealed-secrets",
            values: json!({
                // Where `kubeseal` looks by itself, with the namespace.
                "fullnameOverride": "sealed-secrets-controller",
                "resources": resources("10m", "64Mi", "128Mi"),
            }),
            known: include_str!("values/sealed-secrets.paths"),
        }),
        owns: vec![ObjectId::cluster(
            "apiextensions.k8s.io",
            "CustomResourceDefinition",
            "sealedsecrets.bitnami.com",
        )],
        ..Component::new(
            "sealed-secrets",
            "Secrets that stand in the repository encrypted, and only this cluster can open.",
            "kube-system",
        )
    }
}

pub(super) fn external_secrets(cx: &Context<'_>) -> Result<Component, Vec<Problem>> {
    let Some(url) = &cx.inventory.secrets.vault_url else {
        return Err(vec![
            Problem::new(
                "no-vault-url",
                "secrets.backend is \"vault\" without secrets.vault_url",
            )
            .in_inventory(&["secrets", "backend"])
            .hint("Set secrets.vault_url to the URL of the Vault or OpenBao server."),
        ]);
    };
    Ok(Component {
        namespace_labels: pod_security("restricted"),
        chart: Some(Chart {
            release: EXTERNAL_SECRETS,
            values: json!({
                "installCRDs": true,
                "resources": resources("10m", "64Mi", "256Mi"),
                "webhook": { "resources": resources("10m", "32Mi", "128Mi") },
                "certController": { "resources": resources("10m", "64Mi", "256Mi") },
            }),
            known: include_str!("values/external-secrets.paths"),
        }),
        manifests: manifests(cx, url),
        owns: vec![ObjectId::cluster(
            "apiextensions.k8s.io",
            "CustomResourceDefinition",
            "externalsecrets.external-secrets.io",
        )],
        ..Component::new(
            EXTERNAL_SECRETS,
            "Secrets that are fetched from a Vault.",
            EXTERNAL_SECRETS,
        )
    })
}

fn manifests(cx: &Context<'_>, url: &str) -> Vec<ManifestObject> {
    let mut manifests = vec![
        ManifestObject::new(
            "store.yaml",
            json!({
                "apiVersion": "external-secrets.io/v1",
                "kind": "ClusterSecretStore",
                "metadata": { "name": STORE, "annotations": late_kind_in_wave(1) },
                "spec": {
                    "provider": {
                        "vault": {
                            "server": url,
                            "path": "secret",
                            "version": "v2",
                            "auth": {
                                "kubernetes": {
                                    "mountPath": "kubernetes",
                                    "role": EXTERNAL_SECRETS,
                                    "serviceAccountRef": {
                                        "name": EXTERNAL_SECRETS,
                                        "namespace": EXTERNAL_SECRETS,
                                    },
                                },
                            },
                        },
                    },
                },
            }),
        )
        .comment(
            "The Vault trusts the operator's ServiceAccount, so that no token is kept anywhere.",
        ),
    ];
    if cx.wants(inventory::Component::Grafana) {
        manifests.push(ManifestObject::new(
            "grafana.yaml",
            external(
                GRAFANA_SECRET,
                MONITORING,
                "grafana/admin",
                &[GRAFANA_USER_KEY, GRAFANA_PASSWORD_KEY],
            ),
        ));
    }
    if cx.wants(inventory::Component::LendingServer) && !cx.is_dev() {
        manifests.push(ManifestObject::new(
            "lending.yaml",
            external(
                LENDING_SERVER_SECRET,
                NATS_NAMESPACE,
                "lending/server",
                &[LENDING_SERVER_KEY],
            ),
        ));
    }
    manifests
}

/// An ExternalSecret whose keys are those of one entry of the Vault.
fn external(name: &str, namespace: &str, entry: &str, keys: &[&str]) -> Value {
    let data: Vec<Value> = keys
        .iter()
        .map(|key| json!({ "secretKey": key, "remoteRef": { "key": entry, "property": key } }))
        .collect();
    json!({
        "apiVersion": "external-secrets.io/v1",
        "kind": "ExternalSecret",
        "metadata": { "name": name, "namespace": namespace, "annotations": late_kind_in_wave(1) },
        "spec": {
            "refreshInterval": "1h",
            "secretStoreRef": { "name": STORE, "kind": "ClusterSecretStore" },
            "target": { "name": name },
            "data": data,
        },
    })
}
