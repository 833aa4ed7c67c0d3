//! What is looked for in everything that was rendered, whoever made it.
//!
//! The lints read the objects that Argo CD will read, not the components they came from, so that
//! they also find what an override or a mistake in this crate did.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    App, AppForm, ObjectId, Problem, applications::WAVE, layout::CILIUM, order::Dependencies,
    values,
};

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
    let has_keys = [
        &[][..],
        &["hubble"],
        &["hubble", "tls"],
        &["hubble", "tls", "auto"],
    ]
    .into_iter()
    .all(|path| values::get(values, path).is_none_or(Value::is_object));
    if component == CILIUM && has_keys {
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

/// Documents of plain apps that aren't objects of Kubernetes, or not whole ones. Argo CD passes over
/// a file that has nothing like an object in it, and refuses an app for one that has half of one
/// (`getObjsFromYAMLOrJSON` in its repo server); either way what was meant isn't there.
pub(crate) fn app_objects(apps: &[&App]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for app in apps.iter().filter(|app| app.form == AppForm::Plain) {
        let mut files: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
        for (file, object) in &app.objects {
            files.entry(file).or_default().push(object);
        }
        let before = problems.len();
        let mut whole = 0;
        for (file, documents) in files {
            let lacks: Vec<Lack> = documents.iter().map(|object| lack(object)).collect();
            let good = lacks.iter().filter(|lack| **lack == Lack::Nothing).count();
            whole += good;
            // In a file of objects, or one of JSON, Argo CD passes over nothing.
            let strict = good > 0 || file.ends_with(".json");
            let each = lacks.into_iter().enumerate();
            problems.extend(each.filter_map(|(i, lack)| {
                let what = match lack {
                    Lack::Nothing => return None,
                    Lack::Everything if !strict => return None,
                    Lack::Everything => "is no object of Kubernetes".to_owned(),
                    Lack::Key(key) => format!("has no {key}"),
                };
                let document = match documents.len() {
                    1 => "what is in it".to_owned(),
                    _ => format!("document {}", i + 1),
                };
                Some(
                    Problem::new("app-object", format!("{document} {what}"))
                        .in_file(file)
                        .hint("An object has apiVersion, kind and metadata.name. What is none belongs elsewhere, into a folder whose name begins with '_' for one."),
                )
            }));
        }
        if whole == 0 && !app.objects.is_empty() && problems.len() == before {
            problems.push(
                Problem::new("app-empty", "none of the app's files has an object of Kubernetes")
                    .in_file(app.folder.clone())
                    .hint("Write one with apiVersion, kind and metadata.name, or begin the folder's name with '_' if it isn't an app."),
            );
        }
    }
    problems
}

/// What a document lacks that an object has.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Lack {
    Nothing,
    Key(&'static str),
    Everything,
}

fn lack(document: &Value) -> Lack {
    let has = |key: &str| document.get(key).is_some_and(|value| !value.is_null());
    if !["apiVersion", "kind", "metadata"].into_iter().any(has) {
        return Lack::Everything;
    }
    let text = |path: &[&str]| {
        values::get(document, path)
            .and_then(Value::as_str)
            .is_some()
    };
    let list = document.get("items").is_some_and(Value::is_array);
    if !text(&["apiVersion"]) {
        Lack::Key("apiVersion")
    } else if !text(&["kind"]) {
        Lack::Key("kind")
    } else if !list && !text(&["metadata", "name"]) && !text(&["metadata", "generateName"]) {
        Lack::Key("metadata.name")
    } else {
        Lack::Nothing
    }
}

/// A StorageClass that a chart makes the default: its name, and where that is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DefaultClass {
    pub(crate) name: String,
    pub(crate) place: String,
}

/// More than one StorageClass that calls itself the default, whether an object says so or a chart
/// makes it so.
pub(crate) fn storage_classes(objects: &[Owned<'_>], of_charts: &[DefaultClass]) -> Vec<Problem> {
    // Kubernetes still heeds the second one (pkg/volume/util/storageclass.go).
    const DEFAULT: [&str; 2] = [
        "storageclass.kubernetes.io/is-default-class",
        "storageclass.beta.kubernetes.io/is-default-class",
    ];
    let is_default = |object: &Value| {
        DEFAULT.iter().any(|key| {
            values::get(object, &["metadata", "annotations", key]).and_then(Value::as_str)
                == Some("true")
        })
    };
    let classes = objects
        .iter()
        .filter(|owned| owned.id.kind == "StorageClass")
        .filter(|owned| owned.object.is_some_and(is_default))
        .map(|owned| DefaultClass {
            name: owned.id.name.clone(),
            place: owned.place.clone(),
        });
    let mut defaults: Vec<DefaultClass> = of_charts.to_vec();
    defaults.extend(classes);
    match defaults.as_slice() {
        [first, second, ..] => vec![
            Problem::new(
                "two-default-classes",
                format!(
                    "two storage classes are the default: {} ({}) and {} ({})",
                    first.name, first.place, second.name, second.place
                ),
            )
            .in_file(second.place.clone())
            .hint("Keep the mark on one of them: volumes that name no class would go to either."),
        ],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::AppSettings;

    #[test]
    fn half_objects_and_apps_without_any_are_found() {
        let app = |objects: &[(&str, Value)]| App {
            name: "web".to_owned(),
            folder: "apps/web".to_owned(),
            form: AppForm::Plain,
            settings: AppSettings::default(),
            objects: objects
                .iter()
                .map(|(file, object)| (format!("apps/web/{file}"), object.clone()))
                .collect(),
        };
        let found = |objects: &[(&str, Value)]| -> Vec<String> {
            let problems = app_objects(&[&app(objects)]).into_iter();
            problems
                .map(|p| format!("{}: {}", p.file.unwrap_or_default(), p.message))
                .collect()
        };
        let good = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web" } });
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": [good] });
        let job = json!({ "apiVersion": "batch/v1", "kind": "Job", "metadata": { "generateName": "x-" } });
        let other = json!({ "some": "settings" });
        let misspelt =
            json!({ "apiversion": "v1", "kind": "Service", "metadata": { "name": "web" } });
        assert_eq!(
            found(&[("a.yaml", good.clone()), ("a.yaml", list), ("a.yaml", job)]),
            Vec::<String>::new()
        );
        // Argo CD passes over a file of something else beside manifests.
        assert_eq!(
            found(&[("a.yaml", good.clone()), ("settings.yaml", other.clone())]),
            Vec::<String>::new()
        );
        insta::assert_snapshot!(
            [
                found(&[("settings.yaml", other.clone())]),
                found(&[("a.yaml", good.clone()), ("a.yaml", other.clone())]),
                found(&[("a.yaml", good.clone()), ("b.json", other)]),
                found(&[("a.yaml", misspelt)]),
                found(&[("a.yaml", json!({ "apiVersion": "v1", "kind": 1 }))]),
                found(&[("a.yaml", json!({ "apiVersion": "v1", "kind": "Service", "metadata": {} }))]),
                found(&[("a.yaml", json!("text"))]),
            ]
            .concat()
            .join("\n"),
            @r"
        apps/web: none of the app's files has an object of Kubernetes
        apps/web/a.yaml: document 2 is no object of Kubernetes
        apps/web/b.json: what is in it is no object of Kubernetes
        apps/web/a.yaml: what is in it has no apiVersion
        apps/web/a.yaml: what is in it has no kind
        apps/web/a.yaml: what is in it has no metadata.name
        apps/web: none of the app's files has an object of Kubernetes
        "
        );
    }
}
