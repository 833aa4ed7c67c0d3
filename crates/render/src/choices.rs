//! First choices: what a tree has laid down that can't be changed where it is, and what in it holds
//! data. They are written with the tree, so that the next render knows what stands.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use undercroft_model::inventory::Inventory;

use crate::{
    App, AppForm, Component, LOCK_FILE, Lock, ObjectId, Problem,
    fixed::{self, OBJECT_FIELD, Rule},
    layout::{OVERRIDES, TreeLayout},
    values, yaml,
};

/// The form of the file.
const FORM: u32 = 1;
/// The owner of the choices that are the whole cluster's.
pub const CLUSTER: &str = "cluster";
/// The most owners and the most choices of one that a file may have.
const ENTRIES_MAX: usize = 10_000;

/// What a tree has laid down, by owner: a component, an app, or the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Choices {
    form: u32,
    /// The cluster's own.
    cluster: BTreeMap<String, Value>,
    /// The components'.
    components: BTreeMap<String, Held>,
    /// The apps'.
    apps: BTreeMap<String, Held>,
}

/// What one owner has laid down.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Held {
    /// The version of its chart or image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    /// What is lost with it; none where it holds nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<String>,
    /// Objects of it that have data behind them, where they can be seen.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    volumes: BTreeSet<String>,
    /// Its values and fields that can't change.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    fixed: BTreeMap<String, Value>,
}

impl Choices {
    /// The choices of what is about to be rendered; values are merged with the user's already.
    pub(crate) fn of(
        inventory: &Inventory,
        lock: &Lock,
        components: &[Component],
        apps: &[&App],
    ) -> Self {
        Self {
            form: FORM,
            cluster: cluster_of(inventory),
            components: components
                .iter()
                .map(|component| {
                    let mut held = of_component(component);
                    let locked = lock.components.get(component.name);
                    held.version = locked.map(|locked| locked.version.clone());
                    (component.name.to_owned(), held)
                })
                .filter(|(_, held)| *held != Held::default())
                .collect(),
            apps: apps
                .iter()
                .map(|app| (app.name.clone(), of_app(app)))
                .filter(|(_, held)| *held != Held::default())
                .collect(),
        }
    }

    /// The choices of a tree that was rendered before they were written down, from its files by path.
    /// Of the cluster and of apps nothing is known then.
    pub fn of_files(layout: &TreeLayout, files: &BTreeMap<String, String>) -> Self {
        let mut found = Self {
            form: FORM,
            ..Self::default()
        };
        let head = format!("{}/", layout.components());
        for (path, text) in files {
            let application = path
                .strip_prefix(&format!("{}/", layout.applications()))
                .and_then(|name| name.strip_suffix(".yaml"));
            if let (Some(name), Ok(object)) = (application, yaml::parse(text)) {
                let version = chart_version(&object);
                if version.is_some() {
                    found.components.entry(name.to_owned()).or_default().version = version;
                }
                continue;
            }
            let Some((name, inner)) = path.strip_prefix(&head).and_then(|p| p.split_once('/'))
            else {
                continue;
            };
            let held = found.components.entry(name.to_owned()).or_default();
            held.data = fixed::data_of(name).map(str::to_owned);
            if inner == "values.yaml" {
                if let Ok(values) = yaml::parse(text) {
                    held.fixed.extend(fixed::of_values(name, &values));
                }
            } else if inner.starts_with("manifests/") {
                for object in yaml::parse_all(text).unwrap_or_default() {
                    add_object(held, &object, "");
                }
            }
        }
        for held in found.components.values_mut() {
            held.volumes.clear();
        }
        found.components.retain(|_, held| *held != Held::default());
        found
    }

    /// Reads a file of choices.
    ///
    /// # Errors
    /// When the text isn't one.
    pub fn parse(file: &str, text: &str) -> Result<Self, Problem> {
        let wrong = |message: String, place| {
            Problem::new("first-choices", message)
                .in_file(file)
                .at(place)
                .hint("`undercroft render` writes this file and nobody edits it: take it back from git. Without it nobody knows what the cluster was begun with.")
        };
        let value = yaml::parse(text).map_err(|e| wrong(e.message.clone(), e.place))?;
        let found: Self = serde_json::from_value(value)
            .map_err(|e| wrong(format!("these are no first choices: {e}"), None))?;
        if found.form != FORM {
            return Err(wrong(
                format!(
                    "the file has form {}, and this program reads form {FORM}",
                    found.form
                ),
                None,
            ));
        }
        let entries = found.components.values().chain(found.apps.values());
        let sizes = entries.map(|held| held.fixed.len() + held.volumes.len() + 1);
        if sizes.sum::<usize>() > ENTRIES_MAX {
            return Err(wrong(
                format!("the file has more than the {ENTRIES_MAX} choices that one can have"),
                None,
            ));
        }
        Ok(found)
    }

    /// The file's content.
    pub(crate) fn value(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// Whether a component was there.
    pub fn has_component(&self, name: &str) -> bool {
        self.components.contains_key(name)
    }

    /// What a component or an app holds, as a phrase; `None` where it isn't there or holds nothing.
    pub fn data(&self, name: &str) -> Option<&str> {
        let held = self.components.get(name).or_else(|| self.apps.get(name))?;
        held.data.as_deref()
    }

    /// The versions of the components.
    pub fn versions(&self) -> BTreeMap<String, String> {
        let components = self.components.iter();
        components
            .filter_map(|(name, held)| Some((name.clone(), held.version.clone()?)))
            .collect()
    }

    /// Whether an owner is known.
    pub fn knows(&self, name: &str) -> bool {
        name == CLUSTER || self.components.contains_key(name) || self.apps.contains_key(name)
    }

    /// The names of all owners.
    pub fn owners(&self) -> Vec<&str> {
        let names = self.components.keys().chain(self.apps.keys());
        let mut names: Vec<&str> = names.map(String::as_str).collect();
        names.push(CLUSTER);
        names
    }

    /// The same without some owners.
    #[must_use]
    pub fn without(&self, names: &BTreeSet<String>) -> Self {
        let mut left = self.clone();
        left.components.retain(|name, _| !names.contains(name));
        left.apps.retain(|name, _| !names.contains(name));
        left
    }

    /// What of the inventory alone can't become what it says, without rendering anything.
    pub fn check_inventory(&self, inventory: &Inventory) -> Vec<Problem> {
        cluster(&self.cluster, &cluster_of(inventory))
    }

    /// What stands in the way of going from these choices to others; of versions
    /// [`crate::check_steps`] knows more. `leaving` are owners that a
    /// person has said may go with their data, `moved` those whose data a person has moved.
    pub fn check(
        &self,
        next: &Self,
        leaving: &BTreeSet<String>,
        moved: &BTreeSet<String>,
    ) -> Vec<Problem> {
        let mut problems = Vec::new();
        if !moved.contains(CLUSTER) {
            problems.extend(cluster(&self.cluster, &next.cluster));
        }
        let pods = self.cluster.get(POD_CIDR) != next.cluster.get(POD_CIDR);
        for (name, before) in &self.components {
            let after = next.components.get(name);
            check_owner(
                &mut problems,
                Owner::Component,
                name,
                before,
                after,
                leaving,
                moved,
            );
        }
        for (name, before) in &self.apps {
            let after = next.apps.get(name);
            check_owner(
                &mut problems,
                Owner::App,
                name,
                before,
                after,
                leaving,
                moved,
            );
        }
        if pods && !self.cluster.is_empty() {
            // The network's own list follows from it, and is one mistake with it.
            problems.retain(|p| !p.message.contains("clusterPoolIPv4"));
        }
        problems
    }
}

/// What of the inventory a cluster is begun with.
fn cluster_of(inventory: &Inventory) -> BTreeMap<String, Value> {
    let kubernetes = &inventory.kubernetes;
    let mut cluster = BTreeMap::new();
    let mut set = |key: &str, value: String| cluster.insert(key.to_owned(), Value::from(value));
    set("fleet.name", inventory.fleet.name.to_string());
    set(
        "kubernetes.distribution",
        kubernetes.distribution.as_str().to_owned(),
    );
    set("kubernetes.pod_cidr", kubernetes.pod_cidr.to_string());
    set(
        "kubernetes.service_cidr",
        kubernetes.service_cidr.to_string(),
    );
    set(
        "kubernetes.cluster_domain",
        kubernetes.cluster_domain.clone(),
    );
    cluster
}

const POD_CIDR: &str = "kubernetes.pod_cidr";

/// What of the inventory a cluster is begun with and keeps.
fn cluster(before: &BTreeMap<String, Value>, after: &BTreeMap<String, Value>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (key, old) in before {
        let Some(new) = after.get(key).filter(|new| *new != old) else {
            continue;
        };
        let keys: Vec<&str> = key.split('.').collect();
        let why = match key.as_str() {
            "kubernetes.distribution" => "each keeps its state in a form of its own",
            "kubernetes.service_cidr" => {
                "every Service has its address from it, and certificates name the first"
            }
            POD_CIDR => "every node has its part of it, and every pod its address from that",
            "kubernetes.cluster_domain" => "names and certificates hold it",
            _ => "partition tables and names of machines were made from it",
        };
        problems.push(
            Problem::new(
                "first-choice",
                format!("{key} was {}, and can't become {}: {why}", said(old), said(new)),
            )
            .in_inventory(&keys)
            .hint(format!(
                "Set it to {} again. A cluster with another is a new cluster: see \"What can't change\" in docs/gitops.md; where this tree's cluster was never begun, or begins anew, `undercroft render --moved {CLUSTER}` takes it.",
                said(old)
            )),
        );
    }
    problems
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Component,
    App,
}

fn check_owner(
    problems: &mut Vec<Problem>,
    owner: Owner,
    name: &str,
    before: &Held,
    after: Option<&Held>,
    leaving: &BTreeSet<String>,
    moved: &BTreeSet<String>,
) {
    if leaving.contains(name) {
        return;
    }
    let Some(after) = after else {
        if let Some(data) = &before.data {
            problems.push(leaves(owner, name, data));
        }
        return;
    };
    for volume in before.volumes.difference(&after.volumes) {
        problems.push(
            Problem::new(
                "data-leaves",
                format!("{volume} of {name} is no longer there, and holds data"),
            )
            .hint(format!(
                "Bring it back; or, when nobody needs what is on it, `undercroft render --leave {name}`. Argo CD deletes it only by hand."
            )),
        );
    }
    if moved.contains(name) {
        return;
    }
    let gone = before.fixed.iter().filter_map(|(key, old)| {
        let new = after.fixed.get(key);
        (!allowed(fixed::rule(name, key), old, new)).then_some((key, Some(old), new))
    });
    let new = after.fixed.iter().filter_map(|(key, new)| {
        let object = key.split_once(OBJECT_FIELD).map(|(object, _)| object);
        // A field of an object that wasn't there is a new object's.
        let fresh = object.is_some_and(|object| {
            let head = format!("{object}{OBJECT_FIELD}");
            !before.fixed.keys().any(|key| key.starts_with(&head))
        });
        (!before.fixed.contains_key(key) && !fresh).then_some((key, None, Some(new)))
    });
    for (key, old, new) in gone.chain(new) {
        if let (Some((object, _)), None) = (key.split_once(OBJECT_FIELD), new) {
            let head = format!("{object}{OBJECT_FIELD}");
            // The whole object went, which isn't a change of it.
            if !after.fixed.keys().any(|key| key.starts_with(&head)) {
                continue;
            }
        }
        problems.push(changes(owner, name, key, old, new));
    }
}

/// Whether a choice may become another.
fn allowed(rule: Rule, old: &Value, new: Option<&Value>) -> bool {
    let Some(new) = new else {
        return false;
    };
    if old == new {
        return true;
    }
    match rule {
        Rule::Fixed => false,
        Rule::Grows => {
            let size = |value: &Value| fixed::quantity(value.as_str()?);
            matches!((size(old), size(new)), (Some(old), Some(new)) if new >= old)
        }
        Rule::Appended => matches!(
            (old.as_array(), new.as_array()),
            (Some(old), Some(new)) if new.starts_with(old)
        ),
    }
}

fn leaves(owner: Owner, name: &str, data: &str) -> Problem {
    let (what, back) = match owner {
        Owner::Component => ("component", "the inventory"),
        Owner::App => ("app", "the folder of apps"),
    };
    let problem = Problem::new(
        "data-leaves",
        format!("the {what} {name} is no longer there, and holds {data}"),
    )
    .hint(format!(
        "Bring it back into {back}. To part with it is a step of its own: `undercroft render --leave {name}` says what is lost and asks; see \"When something leaves\" in docs/gitops.md."
    ));
    match owner {
        Owner::Component => problem.in_inventory(&["gitops", "components"]),
        Owner::App => problem,
    }
}

fn changes(
    owner: Owner,
    name: &str,
    key: &str,
    old: Option<&Value>,
    new: Option<&Value>,
) -> Problem {
    let text = |value: Option<&Value>| value.map_or_else(|| "not set".to_owned(), said);
    let object = key.contains(OBJECT_FIELD);
    let message = format!(
        "{name}: {key} was {}, and can't become {} where it is",
        text(old),
        text(new)
    );
    let move_it = format!(
        "To move instead, follow \"What can't change\" in docs/gitops.md, then `undercroft render --moved {name}`"
    );
    let keep = match (owner, object, old) {
        (Owner::Component, false, Some(old)) => {
            let mut over = Value::Null;
            let keys = fixed::split(key);
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            values::set(&mut over, &keys, old.clone());
            format!("To keep it, write {over} into {OVERRIDES}/{name}.yaml.")
        }
        _ => "Set it back to keep it.".to_owned(),
    };
    Problem::new("first-choice", message).hint(format!("{keep} {move_it}."))
}

/// The version of the chart that an Application names.
fn chart_version(application: &Value) -> Option<String> {
    let sources = values::get(application, &["spec", "sources"])?.as_array()?;
    let chart = sources
        .iter()
        .find(|source| source.get("chart").is_some())?;
    Some(chart.get("targetRevision")?.as_str()?.to_owned())
}

fn said(value: &Value) -> String {
    /// Longer values are cut: a message is no place for them.
    const SHOWN_MAX: usize = 120;
    let text = match value {
        Value::String(text) => format!("{text:?}"),
        other => other.to_string(),
    };
    if text.chars().count() <= SHOWN_MAX {
        return text;
    }
    let start: String = text.chars().take(SHOWN_MAX).collect();
    format!("{start}…")
}

fn of_component(component: &Component) -> Held {
    let mut held = Held {
        data: component.data.map(str::to_owned),
        ..Held::default()
    };
    if let Some(chart) = &component.chart {
        held.fixed
            .extend(fixed::of_values(component.name, &chart.values));
    }
    for manifest in &component.manifests {
        add_object(&mut held, &manifest.object, "");
    }
    // Definitions and claims of a component are covered by what is said of it as a whole.
    held.volumes.clear();
    held
}

fn of_app(app: &App) -> Held {
    let mut held = Held::default();
    for (_, object) in &app.objects {
        add_object(&mut held, object, app.namespace());
    }
    held.data = app.data();
    if held.data.is_some() {
        held.fixed
            .insert("namespace".to_owned(), app.namespace().into());
    }
    if let Some(chart) = &app.settings.chart {
        held.fixed
            .insert("chart".to_owned(), chart.name.clone().into());
    }
    held
}

/// Adds what can't change of an object, and whether it holds data. Objects of a `List` one by one.
fn add_object(held: &mut Held, object: &Value, namespace: &str) {
    if let Some(items) = object.get("items").and_then(Value::as_array)
        && object.get("kind").and_then(Value::as_str) == Some("List")
    {
        for item in items {
            add_object(held, item, namespace);
        }
        return;
    }
    let Some(mut id) = ObjectId::of(object) else {
        return;
    };
    let fields = fixed::fields(&id.kind);
    let data = fixed::holds_data(object);
    if fields.is_empty() && !data {
        return;
    }
    if id.namespace.is_empty() {
        namespace.clone_into(&mut id.namespace);
    }
    // The version and the group of a kind may change; what it is stays.
    let id = format!(
        "{} {}",
        id.kind,
        ObjectId {
            group: String::new(),
            kind: String::new(),
            ..id
        }
        .to_string()
        .trim()
    );
    for field in fields {
        let keys: Vec<&str> = field.split('.').collect();
        if let Some(value) = values::get(object, &keys) {
            held.fixed
                .insert(format!("{id}{OBJECT_FIELD}{field}"), value.clone());
        }
    }
    if data {
        held.volumes.insert(id);
    }
}

impl App {
    /// What is lost with the app, as a phrase; `None` where it is seen to hold nothing. What a
    /// kustomization or a chart makes can't be seen, and may hold anything.
    pub fn data(&self) -> Option<String> {
        match self.form {
            AppForm::Plain => {
                let volumes = self.volumes();
                (!volumes.is_empty()).then(|| format!("data: {}", volumes.join(", ")))
            }
            AppForm::Kustomize => Some("whatever its kustomization makes".to_owned()),
            AppForm::Helm | AppForm::Chart { .. } => Some("whatever its chart makes".to_owned()),
        }
    }

    /// Its own objects that have data behind them.
    fn volumes(&self) -> Vec<String> {
        let mut held = Held::default();
        for (_, object) in &self.objects {
            add_object(&mut held, object, self.namespace());
        }
        held.volumes.into_iter().collect()
    }
}

/// Values that would let a component take its data with it.
pub(crate) fn dangerous(component: &str, file: &str, values: &Value) -> Vec<Problem> {
    let mut problems = Vec::new();
    let truthy = |value: &Value| match value {
        Value::Bool(on) => *on,
        Value::String(text) => matches!(
            text.trim().to_ascii_lowercase().as_str(),
            "true" | "t" | "1" | "yes" | "on"
        ),
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::Null => false,
        _ => true,
    };
    if component == "longhorn"
        && values::get(values, &["defaultSettings", "deletingConfirmationFlag"]).is_some_and(truthy)
    {
        problems.push(
            Problem::new(
                "data-leaves",
                "defaultSettings.deletingConfirmationFlag lets Longhorn's uninstaller delete every volume",
            )
            .in_file(file)
            .at_keys(["defaultSettings", "deletingConfirmationFlag"])
            .hint(format!("Take it out. It is set in the cluster, by hand and at the very end, when Longhorn leaves: see \"When something leaves\" in docs/gitops.md. It stands in no file, {LOCK_FILE} and {OVERRIDES}/ among them.")),
        );
    }
    problems
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_file_reads_as_it_was_written_and_nothing_else_is_one() {
        let mut choices = Choices {
            form: FORM,
            ..Choices::default()
        };
        let held = choices.components.entry("loki".to_owned()).or_default();
        held.data = Some("logs".to_owned());
        held.fixed.insert("a.b".to_owned(), json!(["x"]));
        let text = yaml::print(&choices.value()).unwrap();
        assert_eq!(Choices::parse("f", &text).unwrap(), choices);
        for hostile in [
            "form: 2\ncluster: {}\ncomponents: {}\napps: {}\n",
            "form: 1\ncluster: {}\ncomponents: {}\n",
            "form: 1\ncluster: {}\ncomponents: {}\napps: {}\nmore: 1\n",
            "form: 1\ncluster: []\ncomponents: {}\napps: {}\n",
            "form: 1\ncluster: {}\ncomponents: { a: { other: 1 } }\napps: {}\n",
            "[]\n",
            "",
        ] {
            let problem = Choices::parse("f", hostile).unwrap_err();
            assert_eq!(problem.code, "first-choices", "{hostile}");
        }
    }

    #[test]
    fn each_rule_lets_through_what_it_may() {
        let ok = |rule, old: Value, new: Value| allowed(rule, &old, Some(&new));
        assert!(ok(Rule::Fixed, json!("a"), json!("a")));
        assert!(!ok(Rule::Fixed, json!("a"), json!("b")));
        assert!(ok(Rule::Grows, json!("5Gi"), json!("6Gi")));
        assert!(!ok(Rule::Grows, json!("5Gi"), json!("5G")));
        assert!(!ok(Rule::Grows, json!("5Gi"), json!("much")));
        assert!(ok(Rule::Appended, json!([1]), json!([1, 2])));
        assert!(!ok(Rule::Appended, json!([1]), json!([2, 1])));
        assert!(!ok(Rule::Appended, json!([1]), json!([])));
        assert!(!allowed(Rule::Appended, &json!([1]), None));
    }
}
