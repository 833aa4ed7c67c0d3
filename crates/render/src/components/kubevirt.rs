//! KubeVirt: virtual machines as pods.

use serde_json::json;

use super::common::{late_kind_in_wave, pod_security};
use crate::{Component, Context, DevUse, HealthCheck, ManifestObject, ObjectId, Problem};

const NAME: &str = "kubevirt";

/// The condition `Available` of the KubeVirt object, by which its operator says that it is done.
const AVAILABLE: &str = r#"local hs = { status = "Progressing", message = "Waiting for KubeVirt's operator" }
if obj.status ~= nil and obj.status.conditions ~= nil then
  for _, condition in ipairs(obj.status.conditions) do
    if condition.type == "Available" and condition.status == "True" then
      hs.status = "Healthy"
      hs.message = condition.message
    elseif condition.type == "Degraded" and condition.status == "True" then
      hs.status = "Degraded"
      hs.message = condition.message
      return hs
    end
  end
end
return hs
"#;

pub(super) fn kubevirt(cx: &Context<'_>) -> Result<Component, Vec<Problem>> {
    let version = cx.version(NAME)?;
    let operator = format!(
        "https://github.com/kubevirt/kubevirt/releases/download/{version}/kubevirt-operator.yaml"
    );
    Ok(Component {
        namespace_labels: pod_security("privileged"),
        manifests: vec![
            ManifestObject::new(
                "kustomization.yaml",
                json!({
                    "apiVersion": "kustomize.config.k8s.io/v1beta1",
                    "kind": "Kustomization",
                    "resources": [operator, "kubevirt.yaml"],
                    // The namespace is the tree's, with its labels.
                    "patches": [{
                        "target": { "kind": "Namespace", "name": NAME },
                        "patch": format!("$patch: delete\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: {NAME}\n"),
                    }],
                }),
            )
            .comment("KubeVirt publishes its operator as one file of manifests for each version."),
            ManifestObject::new(
                "kubevirt.yaml",
                json!({
                    "apiVersion": "kubevirt.io/v1",
                    "kind": "KubeVirt",
                    "metadata": {
                        "name": NAME,
                        "namespace": NAME,
                        "annotations": late_kind_in_wave(1),
                    },
                    "spec": {
                        "imagePullPolicy": "IfNotPresent",
                        "workloadUpdateStrategy": { "workloadUpdateMethods": ["LiveMigrate"] },
                    },
                }),
            ),
        ],
        health: vec![HealthCheck {
            group: "kubevirt.io",
            kind: "KubeVirt",
            lua: AVAILABLE,
        }],
        owns: vec![ObjectId::cluster(
            "apiextensions.k8s.io",
            "CustomResourceDefinition",
            "kubevirts.kubevirt.io",
        )],
        dev: DevUse::LeftOut("a laptop has no room for machines in its containers"),
        ..Component::new(NAME, "Virtual machines as pods.", NAME)
    })
}
