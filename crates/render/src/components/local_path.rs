//! Local Path Provisioner: volumes on a node's own filesystem, for clusters whose nodes give
//! Longhorn no disk. On a PC k3s brings the same by itself.

use serde_json::{Value, json};

use super::common::{has_longhorn, pod_security, server_tolerations};
use crate::{Component, Context, ManifestObject, ObjectId, Problem};

pub(super) const NAME: &str = "local-path";
const NAMESPACE: &str = "local-path-storage";
const ACCOUNT: &str = "local-path-provisioner";
/// Where volumes lie on a node.
const PATH: &str = "/var/lib/local-path";
/// The image of the pods that make and remove a volume's folder.
const HELPER_IMAGE: &str = "busybox:1.37";

pub(super) fn local_path(cx: &Context<'_>) -> Result<Component, Vec<Problem>> {
    let image = cx.image(NAME)?;
    Ok(Component {
        namespace_labels: pod_security("privileged"),
        manifests: manifests(cx, &image),
        owns: vec![ObjectId::cluster("storage.k8s.io", "StorageClass", NAME)],
        ..Component::new(
            NAME,
            if has_longhorn(cx) {
                "Volumes on a node's own filesystem, from before Longhorn came."
            } else {
                "Volumes on a node's own filesystem, as no node gives Longhorn a disk."
            },
            NAMESPACE,
        )
    })
}

fn manifests(cx: &Context<'_>, image: &str) -> Vec<ManifestObject> {
    let metadata = json!({ "name": ACCOUNT, "namespace": NAMESPACE });
    let subject = json!([{ "kind": "ServiceAccount", "name": ACCOUNT, "namespace": NAMESPACE }]);
    let rbac = "rbac.authorization.k8s.io";
    let file = "local-path.yaml";
    vec![
        ManifestObject::new(
            file,
            json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata }),
        ),
        ManifestObject::new(
            file,
            json!({
                "apiVersion": format!("{rbac}/v1"),
                "kind": "ClusterRole",
                "metadata": { "name": ACCOUNT },
                "rules": [
                    { "apiGroups": [""], "resources": ["nodes", "persistentvolumeclaims", "configmaps", "pods", "pods/log"], "verbs": ["get", "list", "watch"] },
                    { "apiGroups": [""], "resources": ["persistentvolumes"], "verbs": ["get", "list", "watch", "create", "patch", "update", "delete"] },
                    { "apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"] },
                    { "apiGroups": ["storage.k8s.io"], "resources": ["storageclasses"], "verbs": ["get", "list", "watch"] },
                ],
            }),
        ),
        ManifestObject::new(
            file,
            json!({
                "apiVersion": format!("{rbac}/v1"),
                "kind": "ClusterRoleBinding",
                "metadata": { "name": ACCOUNT },
                "roleRef": { "apiGroup": rbac, "kind": "ClusterRole", "name": ACCOUNT },
                "subjects": subject,
            }),
        ),
        ManifestObject::new(
            file,
            json!({
                "apiVersion": format!("{rbac}/v1"),
                "kind": "Role",
                "metadata": metadata,
                "rules": [{ "apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch", "create", "patch", "update", "delete"] }],
            }),
        ),
        ManifestObject::new(
            file,
            json!({
                "apiVersion": format!("{rbac}/v1"),
                "kind": "RoleBinding",
                "metadata": metadata,
                "roleRef": { "apiGroup": rbac, "kind": "Role", "name": ACCOUNT },
                "subjects": subject,
            }),
        ),
        ManifestObject::new(file, config()),
        ManifestObject::new(file, deployment(cx, image)),
        ManifestObject::new(
            file,
            json!({
                "apiVersion": "storage.k8s.io/v1",
                "kind": "StorageClass",
                "metadata": {
                    "name": NAME,
                    // Where Longhorn came later, new volumes go to it.
                    "annotations": {
                        "storageclass.kubernetes.io/is-default-class": (!has_longhorn(cx)).to_string(),
                    },
                },
                "provisioner": "rancher.io/local-path",
                "reclaimPolicy": "Retain",
                "volumeBindingMode": "WaitForFirstConsumer",
            }),
        )
        .comment(if has_longhorn(cx) {
            "For the volumes that were made before Longhorn came."
        } else {
            "The one default StorageClass of a cluster without Longhorn."
        }),
    ]
}

/// The provisioner's configuration: where volumes lie, and what makes and removes one.
fn config() -> Value {
    let paths = json!({
        "nodePathMap": [{ "node": "DEFAULT_PATH_FOR_NON_LISTED_NODES", "paths": [PATH] }],
    });
    let helper = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "helper-pod" },
        "spec": {
            "priorityClassName": "system-node-critical",
            "tolerations": [{ "operator": "Exists" }],
            "containers": [{
                "name": "helper-pod",
                "image": HELPER_IMAGE,
                "imagePullPolicy": "IfNotPresent",
            }],
        },
    });
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": "local-path-config", "namespace": NAMESPACE },
        "data": {
            "config.json": format!("{paths:#}\n"),
            "helperPod.yaml": format!("{helper:#}\n"),
            "setup": "#!/bin/sh\nset -eu\nmkdir -m 0777 -p \"$VOL_DIR\"\n",
            "teardown": "#!/bin/sh\nset -eu\nrm -rf \"$VOL_DIR\"\n",
        },
    })
}

fn deployment(cx: &Context<'_>, image: &str) -> Value {
    let labels = json!({ "app.kubernetes.io/name": ACCOUNT });
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": ACCOUNT, "namespace": NAMESPACE, "labels": labels },
        "spec": {
            "replicas": 1,
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": {
                    "serviceAccountName": ACCOUNT,
                    "tolerations": server_tolerations(cx),
                    "containers": [{
                        "name": "provisioner",
                        "image": image,
                        "command": [
                            "local-path-provisioner", "start",
                            "--config", "/etc/config/config.json",
                        ],
                        "env": [{
                            "name": "POD_NAMESPACE",
                            "valueFrom": { "fieldRef": { "fieldPath": "metadata.namespace" } },
                        }],
                        "resources": { "requests": { "cpu": "10m", "memory": "32Mi" }, "limits": { "memory": "128Mi" } },
                        "volumeMounts": [{ "name": "config", "mountPath": "/etc/config/" }],
                    }],
                    "volumes": [{ "name": "config", "configMap": { "name": "local-path-config" } }],
                },
            },
        },
    })
}
