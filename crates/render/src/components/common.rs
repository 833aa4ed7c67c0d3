//! What several components have in common.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use undercroft_model::inventory::{self, Role, Taint};

use crate::Context;

/// Name of the Ingress class that Cilium brings.
pub(super) const INGRESS_CLASS: &str = "cilium";
/// Name of the issuer that signs the cluster's own certificates; cert-manager's component makes it.
pub(super) const CLUSTER_ISSUER: &str = "cluster-ca";
pub(super) use undercroft_model::objects::MONITORING_NAMESPACE as MONITORING;

/// The label of a namespace by which Kubernetes holds its pods to a Pod Security Standard.
pub(super) fn pod_security(level: &str) -> BTreeMap<&'static str, String> {
    [("pod-security.kubernetes.io/enforce", level.to_owned())].into()
}

/// Name of the one default StorageClass.
pub(super) fn storage_class(cx: &Context<'_>) -> &'static str {
    if has_longhorn(cx) {
        "longhorn"
    } else {
        "local-path"
    }
}

/// Whether Longhorn is in this tree.
pub(super) fn has_longhorn(cx: &Context<'_>) -> bool {
    !cx.is_dev() && cx.inventory.has_longhorn()
}

/// The component that a volume needs. On a PC k3s brings its own storage.
pub(super) fn storage_component(cx: &Context<'_>) -> Vec<&'static str> {
    if cx.is_dev() {
        Vec::new()
    } else {
        vec![storage_class(cx)]
    }
}

/// The storage of a PersistentVolumeClaim, as a StatefulSet's template has it.
pub(super) fn claim_template(class: &str, size: &str) -> Value {
    json!({
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": class,
            "resources": { "requests": { "storage": size } },
        }
    })
}

/// Requests and a limit of memory. Processors have no limit: it would only slow them down.
pub(super) fn resources(cpu: &str, memory: &str, memory_limit: &str) -> Value {
    json!({
        "requests": { "cpu": cpu, "memory": memory },
        "limits": { "memory": memory_limit },
    })
}

/// The toleration that a pod needs to run in spite of a taint.
pub(super) fn toleration(taint: &Taint) -> Value {
    let Taint { key, value, effect } = taint;
    if value.is_empty() {
        json!({ "key": key, "operator": "Exists", "effect": effect })
    } else {
        json!({ "key": key, "operator": "Equal", "value": value, "effect": effect })
    }
}

/// The taints that keep pods away from the nodes that a test picks, each once.
pub(super) fn taints_of(cx: &Context<'_>, wanted: impl Fn(&inventory::Node) -> bool) -> Vec<Taint> {
    let mut taints = BTreeSet::new();
    for (_, node) in cx.cluster_nodes().filter(|(_, node)| wanted(node)) {
        taints.extend(
            node.taints
                .iter()
                .filter_map(|text| Taint::parse(text))
                .filter(Taint::repels),
        );
    }
    taints.into_iter().collect()
}

/// Tolerations for what must be able to run on the nodes that a test picks.
pub(super) fn tolerations(cx: &Context<'_>, wanted: impl Fn(&inventory::Node) -> bool) -> Value {
    taints_of(cx, wanted).iter().map(toleration).collect()
}

/// Tolerations for what must run before there is any agent: whatever taints the inventory gives
/// the servers. Neither distribution gives them one by itself, as the inventory's list is theirs.
pub(super) fn server_tolerations(cx: &Context<'_>) -> Value {
    tolerations(cx, |node| node.role == Role::Server)
}

/// Whether the tree publishes pages under `gitops.ingress_domain`.
pub(super) fn ingress_domain<'a>(cx: &Context<'a>) -> Option<&'a str> {
    if cx.is_dev() {
        return None;
    }
    cx.inventory.gitops.ingress_domain.as_deref()
}

/// Annotations by which cert-manager makes the certificate of an Ingress, where it is there.
pub(super) fn ingress_annotations(cx: &Context<'_>) -> Value {
    if cx.wants(inventory::Component::CertManager) {
        json!({ "cert-manager.io/cluster-issuer": CLUSTER_ISSUER })
    } else {
        json!({})
    }
}

/// Annotation for an object whose kind another part of the same Application brings: without it
/// Argo CD's dry run of the first sync fails on the kind that isn't there yet.
pub(super) fn late_kind() -> Value {
    json!({ "argocd.argoproj.io/sync-options": "SkipDryRunOnMissingResource=true" })
}

/// The same, applied only when everything of the Application that stands in an earlier wave is
/// healthy: for objects that an admission webhook of their own controller checks.
pub(super) fn late_kind_in_wave(wave: u32) -> Value {
    json!({
        "argocd.argoproj.io/sync-options": "SkipDryRunOnMissingResource=true",
        "argocd.argoproj.io/sync-wave": wave.to_string(),
    })
}

/// Whether Prometheus is in this tree.
pub(super) fn has_prometheus(cx: &Context<'_>) -> bool {
    cx.wants(inventory::Component::Prometheus)
}

/// How many replicas a stateless service has: two where there are nodes to put them on.
pub(super) fn replicas(cx: &Context<'_>) -> u32 {
    match cx.cluster_nodes().count() {
        0 | 1 => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_tolerates_a_taint_by_its_value_or_by_its_key() {
        let taint = Taint::parse("basement.example/training=yes:NoSchedule").unwrap();
        assert_eq!(
            toleration(&taint),
            json!({ "key": "basement.example/training", "operator": "Equal", "value": "yes", "effect": "NoSchedule" })
        );
        let bare = Taint::parse("dedicated:NoExecute").unwrap();
        assert_eq!(
            toleration(&bare),
            json!({ "key": "dedicated", "operator": "Exists", "effect": "NoExecute" })
        );
    }
}
