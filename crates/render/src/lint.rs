//! What is looked for in everything that was rendered, whoever made it.
//!
//! The lints read the objects that Argo CD will read, not the components they came from, so that
//! they also find what an override or a mistake in this crate did.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{ObjectId, Problem, applications::WAVE, layout::CILIUM, order::Dependencies, values};

/// An object of the tree, or of a plain app, and who brings it.
#[derive(Debug, Clone)]
pub(crate) struct Owned<'a> {
    pub(crate) id: ObjectId,
    /// Application that brings it.
    pub(crate) owner: &'a str,
    /// File it stands in; the chart, where a chart makes it.
    pub(crate) place: String,
    /// The object; `None` where a chart makes it.
    pub(crate) object: Option<&'a Value>,
}

/// Two Applications that bring the same object: each would undo the other's change forever.
pub(crate) fn owners(objects: &[Owned<'_>]) -> Vec<Problem> {
    let mut first: BTreeMap<&ObjectId, &Owned<'_>> = BTreeMap::new();
    let mut problems = Vec::new();
    for object in objects {
        match first.entry(&object.id) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(object);
            }
            std::collections::btree_map::Entry::Occupied(entry) => {
                let other = entry.get();
                // What a component says to own may stand among its own manifests.
                if other.owner == object.owner
                    && (other.object.is_none() != object.object.is_none())
                {
                    continue;
                }
                let message = if other.owner == object.owner {
                    format!("{} is brought twice by {}", object.id, object.owner)
                } else {
                    format!(
                        "{} has two owners: {} ({}) and {} ({})",
                        object.id, other.owner, other.place, object.owner, object.place
                    )
                };
                problems.push(
                    Problem::new("two-owners", message)
                        .in_file(object.place.clone())
                        .hint("Keep it in one place; each Application would undo the other's."),
                );
            }
        }
    }
    problems
}

/// Applications that lack a wave, or whose wave isn't after all that they wait for.
pub(crate) fn waves(applications: &BTreeMap<String, Value>, graph: &Dependencies) -> Vec<Problem> {
    let mut problems = Vec::new();
    let wave = |name: &str| -> Option<i64> {
        let annotations = values::get(applications.get(name)?, &["metadata", "annotations"])?;
        annotations.get(WAVE)?.as_str()?.parse().ok()
    };
    for name in applications.keys() {
        let Some(own) = wave(name) else {
            problems.push(
                Problem::new(
                    "missing-wave",
                    format!("the Application {name} has no wave"),
                )
                .hint("Without one it is synced before everything that it needs."),
            );
            continue;
        };
        for need in graph.get(name).into_iter().flatten() {
            if let Some(below) = wave(need)
                && below >= own
            {
                problems.push(
                    Problem::new(
                        "missing-wave",
                        format!(
                            "the Application {name} has wave {own} and waits for {need}, which has wave {below}"
                        ),
                    )
                    .hint("What an Application waits for must have a lower wave."),
                );
            }
        }
    }
    problems
}

/// Values that give another manifest each time that Helm renders them: Argo CD would find the
/// cluster drifted forever.
pub(crate) fn drift(component: &str, file: &str, values: &Value) -> Vec<Problem> {
    let mut problems = Vec::new();
    // What isn't a map is an error of its own, and says nothing of how a chart would render.
    if component == CILIUM && values.is_object() {
        let is = |path: &[&str], fallback: bool| {
            values::get(values, path).map_or(fallback, |v| v.as_bool().unwrap_or(fallback))
        };
        let hubble = is(&["hubble", "enabled"], true)
            && is(&["hubble", "tls", "enabled"], true)
            && is(&["hubble", "tls", "auto", "enabled"], true);
        let method = values::get(values, &["hubble", "tls", "auto", "method"])
            .and_then(Value::as_str)
            .unwrap_or("helm");
        if hubble && method == "helm" {
            problems.push(
                Problem::new(
                    "drift",
                    "Hubble's certificates are made anew whenever Helm renders the chart (hubble.tls.auto.method is \"helm\")",
                )
                .in_file(file)
                .hint("Set hubble.tls.auto.method to \"cronJob\" or \"certmanager\"."),
            );
        }
        if values::get(values, &["k8sServiceHost"]).and_then(Value::as_str) == Some("auto") {
            problems.push(
                Problem::new(
                    "drift",
                    "k8sServiceHost \"auto\" is looked up in the cluster, which Argo CD's rendering can't do",
                )
                .in_file(file)
                .hint("Leave k8sServiceHost as Undercroft sets it, or name a host."),
            );
        }
    }
    problems
}

/// Secrets whose content stands in plain text.
pub(crate) fn secrets(objects: &[Owned<'_>]) -> Vec<Problem> {
    let plain = |object: &Value| {
        ["data", "stringData"].iter().any(|key| {
            object
                .get(key)
                .and_then(Value::as_object)
                .is_some_and(|data| !data.is_empty())
        }) && object.get("sops").is_none()
    };
    objects
        .iter()
        .filter(|owned| owned.id.kind == "Secret" && owned.id.group.is_empty())
        .filter(|owned| owned.object.is_some_and(plain))
        .map(|owned| {
            Problem::new("plain-secret", format!("{} is in plain text", owned.id))
                .in_file(owned.place.clone())
                .hint("Take it out of the repository, count its content as known to others, and bring it by the secrets' backend: see docs/secrets.md.")
        })
        .collect()
}

/// More than one StorageClass that calls itself the default.
pub(crate) fn storage_classes(objects: &[Owned<'_>]) -> Vec<Problem> {
    const DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
    let defaults: Vec<&Owned<'_>> = objects
        .iter()
        .filter(|owned| owned.id.kind == "StorageClass")
        .filter(|owned| {
            owned.object.is_some_and(|object| {
                values::get(object, &["metadata", "annotations", DEFAULT]).and_then(Value::as_str)
                    == Some("true")
            })
        })
        .collect();
    match defaults.as_slice() {
        [first, second, ..] => vec![
            Problem::new(
                "two-default-classes",
                format!(
                    "two storage classes are the default: {} ({}) and {} ({})",
                    first.id.name, first.place, second.id.name, second.place
                ),
            )
            .in_file(second.place.clone())
            .hint("Keep the mark on one of them: volumes that name no class would go to either."),
        ],
        _ => Vec::new(),
    }
}
