//! What several components have in common.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use undercroft_model::inventory::{self, Role};

use crate::Context;

/// Name of the Ingress class that Cilium brings.
pub(super) const INGRESS_CLASS: &str = "cilium";
/// Name of the issuer that signs the cluster's own certificates; cert-manager's component makes it.
pub(super) const CLUSTER_ISSUER: &str = "cluster-ca";
/// Namespace of everything that watches the cluster.
pub(super) const MONITORING: &str = "monitoring";

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

/// One taint, as the inventory writes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Taint {
    key: String,
    value: String,
    effect: String,
}

impl Taint {
    /// Reads `KEY=VALUE:EFFECT` or `KEY:EFFECT`; the inventory has checked the form.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (left, effect) = text.rsplit_once(':')?;
        let (key, value) = left.split_once('=').unwrap_or((left, ""));
        Some(Self {
            key: key.to_owned(),
            value: value.to_owned(),
            effect: effect.to_owned(),
        })
    }

    /// Whether it keeps pods away; `PreferNoSchedule` only makes them rather go elsewhere.
    fn repels(&self) -> bool {
        self.effect != "PreferNoSchedule"
    }

    /// The toleration that a pod needs to run in spite of it.
    pub(super) fn toleration(&self) -> Value {
        if self.value.is_empty() {
            json!({ "key": self.key, "operator": "Exists", "effect": self.effect })
        } else {
            json!({
                "key": self.key,
                "operator": "Equal",
                "value": self.value,
                "effect": self.effect,
            })
        }
    }

    /// The taint as `kubectl taint` writes it.
    pub(super) fn text(&self) -> String {
        if self.value.is_empty() {
            format!("{}:{}", self.key, self.effect)
        } else {
            format!("{}={}:{}", self.key, self.value, self.effect)
        }
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
    taints_of(cx, wanted)
        .iter()
        .map(Taint::toleration)
        .collect()
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
    fn taints_are_read_as_the_inventory_writes_them() {
        let taint = Taint::parse("basement.example/training=yes:NoSchedule").unwrap();
        assert_eq!(
            taint.toleration(),
            json!({ "key": "basement.example/training", "operator": "Equal", "value": "yes", "effect": "NoSchedule" })
        );
        assert_eq!(taint.text(), "basement.example/training=yes:NoSchedule");
        let bare = Taint::parse("dedicated:NoExecute").unwrap();
        assert_eq!(
            bare.toleration(),
            json!({ "key": "dedicated", "operator": "Exists", "effect": "NoExecute" })
        );
        assert_eq!(bare.text(), "dedicated:NoExecute");
        assert!(!Taint::parse("a:PreferNoSchedule").unwrap().repels());
    }
}
