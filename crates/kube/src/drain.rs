//! Emptying a Node: closing it for further pods, evicting those that run there, opening it again.

use kube::{
    api::{EvictParams, ListParams, Patch, PatchParams},
    core::{DynamicObject, Request, response::Status},
};
use serde_json::{Value, json};
use undercroft_model::objects::CLOSED_ANNOTATION;
use undercroft_steps::{Eviction, PodKind, PodName, PodSeen};

use super::{Cluster, KubeError, NODE, NODE_MANAGER, POD, apply::text_at};

/// The most pods that one list asks for at once.
const PODS_PAGE: u32 = 250;
/// The most pages of one Node's pods: a kubelet runs 110 unless it is told otherwise.
const PAGES_MAX: u32 = 8;
/// The annotation of a pod that a kubelet has from a file of its machine (kubernetes.io/docs, static pods).
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

fn pod_seen(object: &DynamicObject) -> PodSeen {
    let meta = &object.metadata;
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    let owner = owners.iter().find(|owner| owner.controller == Some(true));
    let is_mirror = meta
        .annotations
        .as_ref()
        .is_some_and(|annotations| annotations.contains_key(MIRROR_ANNOTATION));
    let phase = text_at(&object.data, "/status/phase");
    let kind = match (owner, phase.as_str()) {
        _ if is_mirror => PodKind::OfMachine,
        (Some(owner), _) if owner.kind == "DaemonSet" => PodKind::OfMachine,
        (_, "Succeeded" | "Failed") => PodKind::Ended,
        _ if meta.deletion_timestamp.is_some() => PodKind::Ending,
        (Some(_), _) => PodKind::Kept,
        (None, _) => PodKind::Lone,
    };
    PodSeen {
        pod: PodName {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
        },
        kind,
    }
}

impl Cluster {
    /// The pods that run on a Node, or are to.
    ///
    /// # Errors
    /// When the API can't be asked.
    pub async fn pods_on(&self, node: &str) -> Result<Vec<PodSeen>, KubeError> {
        let mut pods = Vec::new();
        let mut params = ListParams::default()
            .fields(&format!("spec.nodeName={node}"))
            .limit(PODS_PAGE);
        for _ in 0..PAGES_MAX {
            let api = self.api(POD, None);
            let page = self
                .limited(&format!("the pods on {node}"), api.list(&params))
                .await?;
            pods.extend(page.items.iter().map(pod_seen));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => break,
            }
        }
        Ok(pods)
    }

    /// Evicts pods. One whose disruption budget allows no eviction now is refused with the API's words; one that is gone
    /// counts as evicted.
    ///
    /// # Errors
    /// When the API can't be asked.
    pub async fn evict(&self, pods: &[PodName]) -> Result<Vec<Eviction>, KubeError> {
        let mut evictions = Vec::with_capacity(pods.len());
        for pod in pods {
            let refused = match self.evict_one(pod).await {
                Ok(()) | Err(KubeError::Absent { .. }) => None,
                Err(KubeError::NotNow { message, .. }) => Some(message),
                Err(error) => return Err(error),
            };
            let pod = pod.clone();
            evictions.push(Eviction { pod, refused });
        }
        Ok(evictions)
    }

    /// By its UID: another pod that has got its name meanwhile isn't meant.
    async fn evict_one(&self, pod: &PodName) -> Result<(), KubeError> {
        let what = format!("Pod {pod}");
        let unmade = |detail: String| KubeError::Access { detail };
        let eviction = json!({
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": { "name": pod.name, "namespace": pod.namespace },
            "deleteOptions": { "preconditions": { "uid": pod.uid } },
        });
        let body = serde_json::to_vec(&eviction).map_err(|e| unmade(e.to_string()))?;
        let request = Request::new(format!("/api/v1/namespaces/{}/pods", pod.namespace));
        // The client's own body has the options under a name that the API doesn't know, and so without the UID.
        let request = request
            .evict(&pod.name, &EvictParams::default())
            .map_err(|e| unmade(e.to_string()))?
            .map(|_| body);
        self.limited(&what, self.client.request::<Status>(request))
            .await
            .map(drop)
    }

    /// Lets no further pod be placed on a Node, and marks that an update has closed it.
    ///
    /// # Errors
    /// When the API refuses, or the Node has changed since it was looked at.
    pub async fn close_node(&self, name: &str) -> Result<(), KubeError> {
        self.mark_node(name, json!("true"), json!(true)).await
    }

    /// Lets pods be placed on a Node again, where an update has closed it. What somebody else has closed stays so.
    ///
    /// # Errors
    /// When the API refuses, or the Node has changed since it was looked at.
    pub async fn open_node(&self, name: &str) -> Result<(), KubeError> {
        self.mark_node(name, Value::Null, Value::Null).await
    }

    async fn mark_node(
        &self,
        name: &str,
        annotation: Value,
        unschedulable: Value,
    ) -> Result<(), KubeError> {
        let what = format!("Node {name}");
        let api = self.api(NODE, None);
        let read = self.limited(&what, api.get(name)).await?;
        let ours = read
            .metadata
            .annotations
            .as_ref()
            .is_some_and(|annotations| annotations.contains_key(CLOSED_ANNOTATION));
        if unschedulable.is_null() && !ours {
            return Ok(());
        }
        let mut patch = json!({
            "metadata": { "resourceVersion": read.metadata.resource_version, "annotations": {} },
            "spec": { "unschedulable": unschedulable },
        });
        if let Some(annotations) = patch
            .pointer_mut("/metadata/annotations")
            .and_then(Value::as_object_mut)
        {
            annotations.insert(CLOSED_ANNOTATION.to_owned(), annotation);
        }
        let params = PatchParams {
            field_manager: Some(NODE_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        self.limited(&what, api.patch(name, &params, &Patch::Merge(&patch)))
            .await
            .map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(value: Value) -> PodKind {
        pod_seen(&serde_json::from_value(value).unwrap()).kind
    }

    #[test]
    fn a_pod_is_evicted_only_where_somebody_makes_it_anew() {
        let of = |owner: Value, more: Value| {
            let mut object = json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": { "name": "p", "namespace": "n", "uid": "u", "ownerReferences": owner },
                "status": { "phase": "Running" },
            });
            for (key, value) in more.as_object().unwrap() {
                object["metadata"][key] = value.clone();
            }
            object
        };
        let owner = |kind: &str, controller: bool| json!([{ "apiVersion": "apps/v1", "kind": kind, "name": "o", "uid": "o", "controller": controller }]);
        assert_eq!(pod(of(owner("ReplicaSet", true), json!({}))), PodKind::Kept);
        assert_eq!(
            pod(of(owner("DaemonSet", true), json!({}))),
            PodKind::OfMachine
        );
        assert_eq!(pod(of(owner("Node", false), json!({}))), PodKind::Lone);
        assert_eq!(pod(of(json!([]), json!({}))), PodKind::Lone);
        let mirror = json!({ "annotations": { MIRROR_ANNOTATION: "x" } });
        assert_eq!(pod(of(owner("Node", true), mirror)), PodKind::OfMachine);
        let ending = json!({ "deletionTimestamp": "2026-01-01T00:00:00Z" });
        assert_eq!(pod(of(owner("ReplicaSet", true), ending)), PodKind::Ending);
        let mut ended = of(json!([]), json!({}));
        ended["status"]["phase"] = json!("Succeeded");
        assert_eq!(pod(ended), PodKind::Ended);
    }
}
