//! The device plugin for AI boards, on the nodes that have one.
//!
//! It is there as soon as the lock file names an image for it; none is published yet.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::common::{pod_security, resources, tolerations};
use crate::{Component, Context, DevUse, ManifestObject, Problem};

pub(super) const NAME: &str = "hat-device-plugin";

pub(super) fn hat_device_plugin(cx: &Context<'_>) -> Result<Component, Vec<Problem>> {
    let image = cx.image(NAME)?;
    Ok(Component {
        // It talks to the kubelet's socket and looks at the host's devices.
        namespace_labels: pod_security("privileged"),
        manifests: vec![ManifestObject::new(
            "daemon-set.yaml",
            daemon_set(cx, &image),
        )],
        after: vec!["node-feature-discovery"],
        dev: DevUse::LeftOut("k3d's nodes have no AI boards"),
        ..Component::new(NAME, "The device plugin for AI boards.", NAME)
    })
}

/// A term for each kind of board that a node of the cluster has: one of them is enough.
fn node_terms(cx: &Context<'_>) -> Vec<Value> {
    let labels: BTreeSet<String> = cx
        .cluster_nodes()
        .flat_map(|(_, node)| node.hats.iter().map(|hat| hat.label()))
        .collect();
    labels
        .into_iter()
        .map(|label| {
            json!({
                "matchExpressions": [{ "key": label, "operator": "In", "values": ["true"] }],
            })
        })
        .collect()
}

fn daemon_set(cx: &Context<'_>, image: &str) -> Value {
    let labels = json!({ "app.kubernetes.io/name": NAME });
    json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": { "name": NAME, "namespace": NAME, "labels": labels },
        "spec": {
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": {
                    "priorityClassName": "system-node-critical",
                    "automountServiceAccountToken": false,
                    "affinity": {
                        "nodeAffinity": {
                            "requiredDuringSchedulingIgnoredDuringExecution": {
                                "nodeSelectorTerms": node_terms(cx),
                            },
                        },
                    },
                    "tolerations": tolerations(cx, |node| !node.hats.is_empty()),
                    "containers": [{
                        "name": NAME,
                        "image": image,
                        "resources": resources("10m", "16Mi", "64Mi"),
                        "securityContext": { "privileged": true },
                        "volumeMounts": [
                            { "name": "plugins", "mountPath": "/var/lib/kubelet/device-plugins" },
                            { "name": "dev", "mountPath": "/dev" },
                            { "name": "sys", "mountPath": "/sys", "readOnly": true },
                            { "name": "cdi", "mountPath": "/var/run/cdi" },
                        ],
                    }],
                    "volumes": [
                        { "name": "plugins", "hostPath": { "path": "/var/lib/kubelet/device-plugins" } },
                        { "name": "dev", "hostPath": { "path": "/dev" } },
                        { "name": "sys", "hostPath": { "path": "/sys" } },
                        { "name": "cdi", "hostPath": { "path": "/var/run/cdi", "type": "DirectoryOrCreate" } },
                    ],
                },
            },
        },
    })
}
