//! What a component of the cluster is.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;
use serde_json::Value;

/// A part of the cluster that one Application of Argo CD keeps: a Helm chart with our values,
/// manifests of our own, or both.
#[derive(Debug, Clone, PartialEq)]
pub struct Component {
    /// Name, as the inventory, the lock file and the Application have it.
    pub name: &'static str,
    /// What it is, in one sentence without a line break; it stands in the tree's README.
    pub about: &'static str,
    /// Namespace of what it brings.
    pub namespace: &'static str,
    /// Labels of that namespace, such as Pod Security's. Components that share a namespace must
    /// not contradict each other; a label that only one of them has is taken.
    pub namespace_labels: BTreeMap<&'static str, String>,
    /// Its Helm chart, where it has one. Repository, name and version are the lock file's entry
    /// of the component's name.
    pub chart: Option<Chart>,
    /// Manifests beside the chart.
    pub manifests: Vec<ManifestObject>,
    /// Components that must be there and be healthy before this one.
    pub requires: Vec<&'static str>,
    /// Components that are healthy before this one where they are there.
    pub after: Vec<&'static str>,
    /// How Argo CD tells whether an object of a kind is healthy, for kinds that this component
    /// brings and Argo CD doesn't know.
    pub health: Vec<HealthCheck>,
    /// What is lost with it, as a phrase, where it holds data, keys or what others are made of:
    /// then neither its Application nor anything that it brought is ever pruned.
    pub data: Option<&'static str>,
    /// Whether Argo CD deletes what the repository no longer has, where the inventory lets it.
    pub prune: bool,
    /// Objects that its chart makes and that others might be tempted to make too: they are
    /// checked for a second owner as manifests are.
    pub owns: Vec<ObjectId>,
    /// Entries of the Application's `ignoreDifferences`: what controllers change on purpose.
    pub ignore_differences: Vec<Value>,
    /// What becomes of it on a PC's k3d cluster.
    pub dev: DevUse,
}

impl Component {
    /// A component without anything, to be filled by `..Component::new(…)`.
    pub fn new(name: &'static str, about: &'static str, namespace: &'static str) -> Self {
        Self {
            name,
            about,
            namespace,
            namespace_labels: BTreeMap::new(),
            chart: None,
            manifests: Vec::new(),
            requires: Vec::new(),
            after: Vec::new(),
            health: Vec::new(),
            data: None,
            prune: true,
            owns: Vec::new(),
            ignore_differences: Vec::new(),
            dev: DevUse::Same,
        }
    }
}

/// A Helm chart and the values that we set.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    /// Name of the release. It never changes, so that what was installed once is adopted.
    pub release: &'static str,
    /// Values, an object. Keys are sorted when they are written.
    pub values: Value,
    /// Paths of the values that the chart has, as `values` reads them; with them a
    /// misspelt path in an override is found. Empty means that they aren't known.
    pub known: &'static str,
}

/// One object, and the file that it stands in.
#[derive(Debug, Clone, PartialEq)]
pub struct ManifestObject {
    /// Name of the file under the component's `manifests` folder. Objects with the same file
    /// stand in it in the order in which they come.
    pub file: String,
    /// The object: `apiVersion`, `kind`, `metadata` and so on.
    pub object: Value,
    /// A comment above the object, in whole sentences; empty for none.
    pub comment: String,
}

impl ManifestObject {
    /// An object without a comment.
    pub fn new(file: impl Into<String>, object: Value) -> Self {
        Self {
            file: file.into(),
            object,
            comment: String::new(),
        }
    }

    /// The same object with a comment above it.
    #[must_use]
    pub fn comment(mut self, comment: impl Into<String>) -> Self {
        self.comment = comment.into();
        self
    }
}

/// How Argo CD tells whether an object of a kind is healthy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// API group, such as `longhorn.io`.
    pub group: &'static str,
    /// Kind, such as `Node`.
    pub kind: &'static str,
    /// Lua that takes `obj` and returns a table with `status` and `message`
    /// (argo-cd, docs/operator-manual/health.md).
    pub lua: &'static str,
}

/// What becomes of a component on a PC's k3d cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DevUse {
    /// It is there; its values may differ by [`crate::Context::is_dev`].
    Same,
    /// It is left out, for this reason: a phrase such as "k3d's nodes have no disks of their own".
    LeftOut(&'static str),
    /// It is there on PCs only.
    Only,
}

/// What tells one object of a cluster from every other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ObjectId {
    /// API group; empty for the core group. The version doesn't tell objects apart.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Namespace; empty for objects of the whole cluster.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ObjectId {
    /// An object of the whole cluster.
    pub fn cluster(group: &str, kind: &str, name: &str) -> Self {
        Self::namespaced(group, kind, "", name)
    }

    /// An object in a namespace.
    pub fn namespaced(group: &str, kind: &str, namespace: &str, name: &str) -> Self {
        Self {
            group: group.to_owned(),
            kind: kind.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// The id of a manifest's object; `None` where it has no kind or no name.
    pub fn of(object: &Value) -> Option<Self> {
        let version = object.get("apiVersion")?.as_str()?;
        let metadata = object.get("metadata")?;
        let group = version.rsplit_once('/').map_or("", |(group, _)| group);
        Some(Self {
            group: group.to_owned(),
            kind: object.get("kind")?.as_str()?.to_owned(),
            namespace: metadata
                .get("namespace")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
            name: metadata.get("name")?.as_str()?.to_owned(),
        })
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        f.write_str(" ")?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}
