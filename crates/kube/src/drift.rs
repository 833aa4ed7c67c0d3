//! What is listed of the cluster for a look that changes nothing.

use kube::{
    api::ListParams,
    core::{DynamicObject, ObjectList},
};
use serde_json::Value;
use undercroft_model::objects::CLOSED_ANNOTATION;
use undercroft_steps::{ApplicationSeen, NodeSeen};

use super::{APPLICATION, Cluster, Kind, KubeError, NODE, health::application, nodes::node_seen};

/// The most objects that one list asks for at once.
const PAGE: u32 = 500;
/// The most pages of one kind that are read: what Kubernetes is made for, twice.
const PAGES_MAX: u32 = 20;

/// A Node, and whether it is cordoned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeWithCordon {
    /// What it carries.
    pub seen: NodeSeen,
    /// Whether no new pod comes to it (`spec.unschedulable`).
    pub cordoned: bool,
}

/// An Application, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedApplication {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What Argo CD says of it.
    pub seen: ApplicationSeen,
}

fn node(object: &DynamicObject) -> NodeWithCordon {
    let cordoned = object.data.pointer("/spec/unschedulable");
    // What an update has closed is its own, and it opens it again.
    let annotations = object.metadata.annotations.as_ref();
    let is_updated = annotations.is_some_and(|marks| marks.contains_key(CLOSED_ANNOTATION));
    NodeWithCordon {
        seen: node_seen(object),
        cordoned: !is_updated && cordoned.and_then(Value::as_bool).unwrap_or(false),
    }
}

fn named(object: &DynamicObject) -> NamedApplication {
    NamedApplication {
        namespace: object.metadata.namespace.clone().unwrap_or_default(),
        name: object.metadata.name.clone().unwrap_or_default(),
        seen: application(&object.data),
    }
}

impl Cluster {
    /// All Nodes, each with whether it is cordoned.
    ///
    /// # Errors
    /// When the API can't be asked.
    pub async fn nodes_with_cordons(&self) -> Result<Vec<NodeWithCordon>, KubeError> {
        self.listed(NODE, "the nodes", node).await
    }

    /// All of Argo CD's Applications, whatever their namespace.
    ///
    /// # Errors
    /// When the API can't be asked, or knows no such kind.
    pub async fn applications(&self) -> Result<Vec<NamedApplication>, KubeError> {
        self.listed(APPLICATION, "Argo CD's applications", named)
            .await
    }

    /// All objects of a kind: a list that is cut short would look like one in which the rest isn't there.
    async fn listed<T>(
        &self,
        kind: Kind,
        what: &str,
        of: impl Fn(&DynamicObject) -> T,
    ) -> Result<Vec<T>, KubeError> {
        let mut all = Vec::new();
        let mut params = ListParams::default().limit(PAGE);
        let api = self.api(kind, None);
        for _ in 0..PAGES_MAX {
            let page: ObjectList<DynamicObject> = self.limited(what, api.list(&params)).await?;
            all.extend(page.items.iter().map(&of));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(all),
            }
        }
        Err(KubeError::NotNow {
            server: self.server.clone(),
            what: what.to_owned(),
            message: format!("there are more than {}", PAGE * PAGES_MAX),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_cordon_and_an_applications_place_are_read() {
        let object = |value: Value| -> DynamicObject { serde_json::from_value(value).unwrap() };
        let mut value = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": { "name": "a" }, "spec": {},
        });
        assert!(!node(&object(value.clone())).cordoned);
        value["spec"]["unschedulable"] = json!(true);
        let seen = node(&object(value.clone()));
        assert!(seen.cordoned && seen.seen.name == "a");
        value["metadata"]["annotations"] = json!({ CLOSED_ANNOTATION: "true" });
        assert!(
            !node(&object(value.clone())).cordoned,
            "an update has closed it"
        );
        let app = named(&object(json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Application",
            "metadata": { "name": "grafana", "namespace": "argocd" },
            "status": { "sync": { "status": "OutOfSync" }, "health": { "status": "Healthy" } },
        })));
        assert_eq!(
            (app.namespace.as_str(), app.name.as_str()),
            ("argocd", "grafana")
        );
        assert_eq!(app.seen.sync, "OutOfSync");
    }
}
