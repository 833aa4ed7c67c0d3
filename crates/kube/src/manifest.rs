//! Kubernetes objects in YAML, as files and Helm write them.

use serde_json::Value;

use super::KubeError;

/// The deepest nesting that is read; the schemas of the largest CRDs have half of it.
const DEPTH_MAX: usize = 160;
/// The most nodes of YAML that are read from one text; the largest chart has a fifth of it.
const NODES_MAX: usize = 2_000_000;
/// The most objects in one text.
const OBJECTS_MAX: usize = 10_000;

/// One object, with where it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// The file or chart.
    pub origin: String,
    /// The object: it has `apiVersion`, `kind` and `metadata.name`.
    pub object: Value,
}

impl Manifest {
    /// An object that was made rather than read.
    ///
    /// # Errors
    /// When it lacks what every object has.
    pub fn new(origin: &str, object: Value) -> Result<Self, KubeError> {
        let manifest = Self {
            origin: origin.to_owned(),
            object,
        };
        for path in ["/apiVersion", "/kind", "/metadata/name"] {
            if manifest.text(path).is_empty() {
                return Err(KubeError::Manifest {
                    origin: origin.to_owned(),
                    detail: format!("an object has no {}", path.replace('/', ".")),
                });
            }
        }
        Ok(manifest)
    }

    fn text(&self, path: &str) -> &str {
        self.object
            .pointer(path)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// Its group and version.
    pub fn api_version(&self) -> &str {
        self.text("/apiVersion")
    }

    /// Its kind.
    pub fn kind(&self) -> &str {
        self.text("/kind")
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    /// Its namespace, where it says one.
    pub fn namespace(&self) -> Option<&str> {
        Some(self.text("/metadata/namespace")).filter(|n| !n.is_empty())
    }

    /// The object as messages name it: `DaemonSet kube-system/cilium`.
    pub fn shown(&self) -> String {
        let name = super::shown_name(self.namespace(), self.name());
        format!("{} {name}", self.kind())
    }

    /// Whether Helm would only make it around an action of its own: such objects are no part of
    /// what a cluster is kept equal to.
    pub fn is_helm_hook(&self) -> bool {
        self.object
            .pointer("/metadata/annotations")
            .and_then(|a| a.get("helm.sh/hook"))
            // Charts mark their CRDs so that they come first; those belong to it.
            .is_some_and(|hook| hook != "crd-install")
    }

    /// Whether it names an object and says nothing of it, as charts do with ServiceAccounts. An
    /// API server notes no owner of fields for whoever applies that.
    pub(super) fn is_bare(&self) -> bool {
        let only = |object: &Value, keys: &[&str]| {
            let object = object.as_object();
            object.is_some_and(|o| o.keys().all(|key| keys.contains(&key.as_str())))
        };
        only(&self.object, &["apiVersion", "kind", "metadata"])
            && self
                .object
                .get("metadata")
                .is_some_and(|metadata| only(metadata, &["name", "namespace"]))
    }

    /// The place in the order of applying: what others need comes first.
    pub(super) fn rank(&self) -> u8 {
        match self.kind() {
            "Namespace" => 0,
            "CustomResourceDefinition" => 1,
            "PriorityClass" | "ServiceAccount" | "Secret" | "ConfigMap" | "StorageClass" => 2,
            "ClusterRole" | "Role" | "ClusterRoleBinding" | "RoleBinding" => 3,
            "APIService" | "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => 6,
            // A custom object's controller, and its webhook, may have to be there first.
            _ if self.api_version().contains('.') && !self.is_built_in() => 5,
            _ => 4,
        }
    }

    fn is_built_in(&self) -> bool {
        let group = self.api_version().split('/').next().unwrap_or_default();
        group.ends_with(".k8s.io") && group != "gateway.networking.k8s.io"
    }
}

/// Reads every object of a YAML text; lists (`kind: List`) are opened. Truth values and octal
/// numbers are read as YAML 1.1 has them, since Kubernetes' own readers do, and charts rely on
/// `defaultMode: 0400`.
///
/// # Errors
/// When it isn't YAML, or something in it is no object.
pub fn parse(origin: &str, text: &str) -> Result<Vec<Manifest>, KubeError> {
    let options = serde_saphyr::options! {
        legacy_octal_numbers: true,
        emit_comments: false,
        budget: serde_saphyr::budget! {
            max_depth: DEPTH_MAX,
            max_nodes: NODES_MAX,
            max_events: NODES_MAX,
            max_documents: OBJECTS_MAX,
        },
    };
    let bad = |detail: String| KubeError::Manifest {
        origin: origin.to_owned(),
        detail,
    };
    let documents: Vec<Value> =
        serde_saphyr::from_multiple_with_options(text, options).map_err(|e| bad(e.to_string()))?;
    let mut objects = Vec::new();
    for document in documents {
        let items = match document.get("kind").and_then(Value::as_str) {
            Some("List") => match document.get("items").and_then(Value::as_array) {
                Some(items) => items.clone(),
                None => return Err(bad("a List has no items".to_owned())),
            },
            _ => vec![document],
        };
        for item in items {
            if !item.is_null() {
                objects.push(Manifest::new(origin, item)?);
            }
        }
    }
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn several_documents_lists_and_old_numbers_are_read() {
        let text = "---
# nothing here
---
apiVersion: v1
kind: ConfigMap
metadata: {name: a, namespace: b}
data: {mode: 0400, on: yes}
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: c}}
";
        let objects = parse("a.yaml", text).unwrap();
        assert_eq!(objects.len(), 2);
        assert_eq!(objects[0].shown(), "ConfigMap b/a");
        assert_eq!(objects[0].object["data"]["mode"], 256);
        assert_eq!(objects[1].shown(), "Namespace c");
        assert!(objects[1].rank() < objects[0].rank());
    }

    #[test]
    fn what_is_no_object_is_refused_with_its_file() {
        for text in ["a: b", "- 1", "kind: x\napiVersion: v1", "a: [", "text"] {
            let error = parse("tree/a.yaml", text).unwrap_err();
            assert!(error.to_string().starts_with("tree/a.yaml: "), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_stop(text in "[ -~\n]{0,200}") {
            let _ = parse("x", &text);
        }
    }
}
