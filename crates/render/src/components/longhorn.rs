//! Longhorn: replicated volumes on the nodes' disks.

use serde_json::{Value, json};

use super::common::{pod_security, taints_of, tolerations};
use crate::{Chart, Component, Context, DevUse, ManifestObject, ObjectId};

/// StorageClass with one replica, for software that keeps copies itself.
pub(super) const SINGLE_REPLICA: &str = "longhorn-single";

pub(super) fn longhorn(cx: &Context<'_>) -> Component {
    Component {
        namespace_labels: pod_security("privileged"),
        chart: Some(Chart {
            release: "longhorn",
            values: values(cx),
            known: include_str!("values/longhorn.paths"),
        }),
        manifests: vec![single_replica()],
        prune: false,
        owns: vec![
            ObjectId::cluster("storage.k8s.io", "StorageClass", "longhorn"),
            ObjectId::cluster("storage.k8s.io", "CSIDriver", "driver.longhorn.io"),
        ],
        dev: DevUse::LeftOut("the nodes of k3d have no disks of their own"),
        ..Component::new(
            "longhorn",
            "Replicated volumes on the nodes' disks.",
            "longhorn-system",
        )
    }
}

fn values(cx: &Context<'_>) -> Value {
    let replicas = cx.longhorn_replicas();
    let storage = u32::try_from(cx.storage_nodes().count()).unwrap_or(u32::MAX);
    let controllers = storage.clamp(1, 3);
    // Volumes may be used on every node, so that its parts must run on every node.
    let everywhere = tolerations(cx, |_| true);
    let taints = taints_of(cx, |_| true);
    let taints: Vec<String> = taints.iter().map(ToString::to_string).collect();
    json!({
        // The check is a Helm hook that runs before the ServiceAccount that it needs is there
        // (longhorn.io, "Install with Argo CD").
        "preUpgradeChecker": { "jobEnabled": false },
        "persistence": {
            "defaultClass": true,
            "defaultClassReplicaCount": replicas,
            "defaultFsType": "ext4",
            // A claim that was deleted by mistake leaves its volume.
            "reclaimPolicy": "Retain",
        },
        "csi": {
            "kubeletRootDir": "/var/lib/kubelet",
            "attacherReplicaCount": controllers,
            "provisionerReplicaCount": controllers,
            "resizerReplicaCount": controllers,
            "snapshotterReplicaCount": controllers,
        },
        "defaultSettings": {
            // Disks are those of the inventory, by label and annotation of each node; without this
            // every node's root filesystem would become one.
            "createDefaultDiskLabeledNodes": true,
            "defaultReplicaCount": replicas,
            "nodeDrainPolicy": "block-if-contains-last-replica",
            "replicaAutoBalance": "best-effort",
            "taintToleration": taints.join(";"),
            "upgradeChecker": false,
            "allowCollectingLonghornUsageMetrics": false,
        },
        "longhornManager": { "tolerations": everywhere },
        "longhornDriver": { "tolerations": everywhere },
        // Its page knows no passwords, so that it is reached by `kubectl port-forward` alone.
        "longhornUI": { "replicas": 1 },
        "ingress": { "enabled": false },
    })
}

fn single_replica() -> ManifestObject {
    ManifestObject::new(
        "storage-class.yaml",
        json!({
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": { "name": SINGLE_REPLICA },
            "provisioner": "driver.longhorn.io",
            "allowVolumeExpansion": true,
            "reclaimPolicy": "Retain",
            "volumeBindingMode": "WaitForFirstConsumer",
            "parameters": {
                "numberOfReplicas": "1",
                "dataLocality": "best-effort",
                "staleReplicaTimeout": "30",
                "fsType": "ext4",
            },
        }),
    )
    .comment("For software that keeps copies of its data itself, such as a NATS cluster.")
}
