//! Nodes: seeing them, labelling them, and forgetting those whose machine was installed anew.

use kube::{
    api::{DeleteParams, ListParams, Patch, PatchParams},
    core::DynamicObject,
};
use serde_json::{Value, json};
use undercroft_model::inventory::Taint;
use undercroft_steps::{NodeSeen, NodeWants};

use super::{
    Cluster, Kind, KubeError, NODE, NODE_MANAGER, SECRET, apply::text_at, health::condition,
};

/// The most nodes that one list asks for at once.
const NODES_PAGE: u32 = 500;
/// The most pages of nodes that are read: what Kubernetes is made for, twice.
const PAGES_MAX: u32 = 20;
/// The namespace of k3s' node passwords.
const K3S_NAMESPACE: &str = "kube-system";

/// What a Node's object says.
pub(super) fn node_seen(object: &DynamicObject) -> NodeSeen {
    let meta = &object.metadata;
    let ready = condition(&object.data, "Ready");
    let taints = object
        .data
        .pointer("/spec/taints")
        .and_then(Value::as_array);
    NodeSeen {
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        boot_id: text_at(&object.data, "/status/nodeInfo/bootID"),
        kubelet_version: text_at(&object.data, "/status/nodeInfo/kubeletVersion"),
        ready: ready.as_ref().is_some_and(|c| c.is_true),
        why_not: match ready {
            Some(condition) => condition.why,
            None => "its kubelet has reported nothing yet".to_owned(),
        },
        closed: object
            .data
            .pointer("/spec/unschedulable")
            .and_then(Value::as_bool)
            .unwrap_or(false),
        labels: meta.labels.clone().unwrap_or_default(),
        annotations: meta.annotations.clone().unwrap_or_default(),
        taints: taints.into_iter().flatten().map(taint_text).collect(),
    }
}

fn taint_text(taint: &Value) -> String {
    let taint = Taint {
        key: text_at(taint, "/key"),
        value: text_at(taint, "/value"),
        effect: text_at(taint, "/effect"),
    };
    taint.to_string()
}

/// A taint's object; nothing where the text is no taint.
fn taint_object(text: &str) -> Option<Value> {
    let Taint { key, value, effect } = Taint::parse(text)?;
    Some(if value.is_empty() {
        json!({ "key": key, "effect": effect })
    } else {
        json!({ "key": key, "value": value, "effect": effect })
    })
}

impl Cluster {
    /// A Node, or nothing where the cluster knows none of that name.
    ///
    /// # Errors
    /// When the API can't be asked.
    pub async fn node(&self, name: &str) -> Result<Option<NodeSeen>, KubeError> {
        let found = self.get(NODE, None, name).await?;
        Ok(found.as_ref().map(node_seen))
    }

    /// All Nodes.
    ///
    /// # Errors
    /// When the API can't be asked.
    pub async fn nodes(&self) -> Result<Vec<NodeSeen>, KubeError> {
        let mut nodes = Vec::new();
        let mut params = ListParams::default().limit(NODES_PAGE);
        for _ in 0..PAGES_MAX {
            let page = self
                .limited("the nodes", self.api(NODE, None).list(&params))
                .await?;
            nodes.extend(page.items.iter().map(node_seen));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => break,
            }
        }
        Ok(nodes)
    }

    /// Puts labels and annotations on a Node, and adds the taints that it lacks. Labels that were
    /// put on before and are asked for no longer go; taints stay, since others add theirs, unless
    /// one of the same key and effect has another value.
    ///
    /// # Errors
    /// When the API refuses, or there is no such Node.
    pub async fn dress(&self, name: &str, wants: &NodeWants<'_>) -> Result<(), KubeError> {
        let what = format!("Node {name}");
        let api = self.api(NODE, None);
        // Applying would make a Node where there is none, also where one was there a moment ago:
        // by its UID only that one is meant.
        let Some(seen) = self.node(name).await? else {
            return Err(KubeError::NotNow {
                server: self.server.clone(),
                what,
                message: "there is no such Node".to_owned(),
            });
        };
        let object = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": name,
                "uid": seen.uid,
                "labels": wants.labels,
                "annotations": wants.annotations,
            },
        });
        // With force: what the inventory says of a machine is the inventory's.
        let params = PatchParams::apply(NODE_MANAGER).force().validation_strict();
        self.limited(&what, api.patch(name, &params, &Patch::Apply(&object)))
            .await?;
        let missing: Vec<Value> = wants
            .taints
            .iter()
            .filter(|taint| !seen.has_taint(taint))
            .filter_map(|taint| taint_object(taint))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        // Taints are one list to the API, replaced whole: the resource version says that nobody
        // has changed it since it was read.
        let read = self.limited(&what, api.get(name)).await?;
        let mut taints = read
            .data
            .pointer("/spec/taints")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        // A Node has at most one taint of a key and an effect.
        let same = |a: &Value, b: &Value| ["key", "effect"].iter().all(|k| a.get(k) == b.get(k));
        taints.retain(|taint| !missing.iter().any(|new| same(new, taint)));
        taints.extend(missing);
        let patch = json!({
            "metadata": { "resourceVersion": read.metadata.resource_version },
            "spec": { "taints": taints },
        });
        let params = PatchParams {
            field_manager: Some(NODE_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        self.limited(&what, api.patch(name, &params, &Patch::Merge(&patch)))
            .await
            .map(drop)
    }

    /// Makes the cluster forget a machine that was installed anew: its Node, and the password by
    /// which k3s would know it again and refuse it.
    ///
    /// # Errors
    /// When the API refuses.
    pub async fn forget_node(&self, name: &str) -> Result<(), KubeError> {
        let password = format!("{name}.node-password.k3s");
        self.delete(SECRET, Some(K3S_NAMESPACE), &password).await?;
        self.delete(NODE, None, name).await
    }

    /// Removes an object; one that isn't there is no error.
    async fn delete(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<(), KubeError> {
        if self.get(kind, namespace, name).await?.is_none() {
            return Ok(());
        }
        let what = format!("{} {}", kind.kind, super::shown_name(namespace, name));
        let api = self.api(kind, namespace);
        self.limited(&what, api.delete(name, &DeleteParams::default()))
            .await
            .map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taints_read_as_they_are_written() {
        for text in ["a=b:NoSchedule", "a.b/c:NoExecute", "a=:NoSchedule"] {
            let object = taint_object(text).unwrap();
            assert_eq!(taint_text(&object), Taint::parse(text).unwrap().to_string());
        }
        assert!(taint_object("a").is_none());
    }
}
