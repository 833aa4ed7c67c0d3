//! cert-manager, with an authority of the cluster's own.

use serde_json::{Value, json};

use super::common::{CLUSTER_ISSUER, late_kind_in_wave, pod_security, resources};
use crate::{Chart, Component, Context, HealthCheck, ManifestObject, ObjectId};

const NAMESPACE: &str = "cert-manager";
const API: &str = "cert-manager.io/v1";
/// Where the authority's own key comes from.
const ROOT_ISSUER: &str = "cluster-root";
/// Ten years in hours: those who trust the authority do so by its certificate.
const AUTHORITY_LIFETIME: &str = "87600h";

/// A kind whose condition `Ready` says whether it is healthy. Argo CD brings the same for
/// Certificate and Issuer; ClusterIssuer is said here so that a wave can wait for it.
const READY: &str = r#"local hs = { status = "Progressing", message = "Waiting for cert-manager" }
if obj.status ~= nil and obj.status.conditions ~= nil then
  for _, condition in ipairs(obj.status.conditions) do
    if condition.type == "Ready" then
      hs.message = condition.message
      if condition.status == "True" then
        hs.status = "Healthy"
      elseif condition.status == "False" then
        hs.status = "Degraded"
      end
    end
  end
end
return hs
"#;

pub(super) fn cert_manager(cx: &Context<'_>) -> Component {
    Component {
        namespace_labels: pod_security("restricted"),
        chart: Some(Chart {
            release: "cert-manager",
            values: values(),
            known: include_str!("values/cert-manager.paths"),
        }),
        manifests: manifests(cx),
        health: vec![HealthCheck {
            group: "cert-manager.io",
            kind: "ClusterIssuer",
            lua: READY,
        }],
        owns: vec![ObjectId::cluster(
            "apiextensions.k8s.io",
            "CustomResourceDefinition",
            "certificates.cert-manager.io",
        )],
        ..Component::new(
            "cert-manager",
            "TLS certificates, with an authority of the cluster's own.",
            NAMESPACE,
        )
    }
}

fn values() -> Value {
    json!({
        // Without `keep`, taking the chart away would take every certificate with it.
        "crds": { "enabled": true, "keep": true },
        "global": { "leaderElection": { "namespace": NAMESPACE } },
        "resources": resources("10m", "64Mi", "256Mi"),
        "webhook": { "resources": resources("10m", "32Mi", "128Mi") },
        "cainjector": { "resources": resources("10m", "64Mi", "512Mi") },
    })
}

/// A self-signed authority and the issuer that signs with it. Its key is made in the cluster and
/// stays there.
fn manifests(cx: &Context<'_>) -> Vec<ManifestObject> {
    let fleet = &cx.inventory.fleet.name;
    vec![
        ManifestObject::new(
            "authority.yaml",
            json!({
                "apiVersion": API,
                "kind": "ClusterIssuer",
                "metadata": { "name": ROOT_ISSUER, "annotations": late_kind_in_wave(1) },
                "spec": { "selfSigned": {} },
            }),
        )
        .comment("These come after cert-manager itself is healthy, whose webhook checks them."),
        ManifestObject::new(
            "authority.yaml",
            json!({
                "apiVersion": API,
                "kind": "Certificate",
                "metadata": {
                    "name": CLUSTER_ISSUER,
                    "namespace": NAMESPACE,
                    "annotations": late_kind_in_wave(1),
                },
                "spec": {
                    "isCA": true,
                    "commonName": format!("{fleet} cluster CA"),
                    "secretName": CLUSTER_ISSUER,
                    "duration": AUTHORITY_LIFETIME,
                    "privateKey": { "algorithm": "ECDSA", "size": 256, "rotationPolicy": "Never" },
                    "issuerRef": { "name": ROOT_ISSUER, "kind": "ClusterIssuer", "group": "cert-manager.io" },
                },
            }),
        ),
        ManifestObject::new(
            "authority.yaml",
            json!({
                "apiVersion": API,
                "kind": "ClusterIssuer",
                "metadata": { "name": CLUSTER_ISSUER, "annotations": late_kind_in_wave(1) },
                "spec": { "ca": { "secretName": CLUSTER_ISSUER } },
            }),
        ),
    ]
}
