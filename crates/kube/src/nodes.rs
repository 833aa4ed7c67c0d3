//! Nodes: seeing them, labelling them, and forgetting those whose machine was installed anew.

use std::collections::BTreeMap;

use kube::{
    api::{DeleteParams, ListParams, Patch, PatchParams},
    core::DynamicObject,
};
use serde_json::{Value, json};
use undercroft_model::inventory::Taint;

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSeen {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The boot that its kubelet reported.
    pub boot_id: String,
    /// Its kubelet's version.
    pub kubelet_version: String,
    /// Whether it is Ready.
    pub ready: bool,
    /// Why it isn't.
    pub why_not: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its taints, as `key=value:Effect` or `key:Effect`.
    pub taints: Vec<String>,
}

/// What a Node must carry.
#[derive(Debug, Clone, Copy)]
pub struct NodeWants<'a> {
    /// Labels.
    pub labels: &'a BTreeMap<String, String>,
    /// Annotations.
    pub annotations: &'a BTreeMap<String, String>,
    /// Taints, as `key=value:Effect` or `key:Effect`.
    pub taints: &'a [String],
}

impl NodeSeen {
    fn of(object: &DynamicObject) -> Self {
        let meta = &object.metadata;
        let ready = condition(&object.data, "Ready");
        let taints = object
            .data
            .pointer("/spec/taints")
            .and_then(Value::as_array);
        Self {
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            boot_id: text_at(&object.data, "/status/nodeInfo/bootID"),
            kubelet_version: text_at(&object.data, "/status/nodeInfo/kubeletVersion"),
            ready: ready.as_ref().is_some_and(|c| c.is_true),
            why_not: match ready {
                Some(condition) => condition.why,
                None => "its kubelet has reported nothing yet".to_owned(),
            },
            labels: meta.labels.clone().unwrap_or_default(),
            annotations: meta.annotations.clone().unwrap_or_default(),
            taints: taints.into_iter().flatten().map(taint_text).collect(),
        }
    }

    /// Whether it carries all of that.
    pub fn carries(&self, wants: &NodeWants<'_>) -> bool {
        let taints = wants.taints.iter().map(|taint| as_shown(taint));
        let has = |have: &BTreeMap<String, String>, wants: &BTreeMap<String, String>| {
            wants
                .iter()
                .all(|(key, value)| have.get(key) == Some(value))
        };
        has(&self.labels, wants.labels)
            && has(&self.annotations, wants.annotations)
            && taints.into_iter().all(|taint| self.taints.contains(&taint))
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

/// A taint as a Node's are shown, whatever of the ways to write one it is written in.
fn as_shown(text: &str) -> String {
    Taint::parse(text).map_or_else(|| text.to_owned(), |taint| taint.to_string())
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
        Ok(found.as_ref().map(NodeSeen::of))
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
            nodes.extend(page.items.iter().map(NodeSeen::of));
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
            .filter(|taint| !seen.taints.contains(&as_shown(taint)))
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
            assert_eq!(taint_text(&object), text.replace("=:", ":"));
        }
        assert!(taint_object("a").is_none());
        assert_eq!(as_shown("a=:NoSchedule"), "a:NoSchedule");
    }
}
