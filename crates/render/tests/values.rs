//! Every value that we set is one that the chart has, of a type that it takes.
//!
//! `src/components/values/*.paths` are the paths of the charts' own values files. To write them
//! anew after a chart was raised:
//!
//! ```text
//! UNDERCROFT_CHARTS=FOLDER UNDERCROFT_WRITE_VALUE_PATHS=1 \
//!     cargo test -p undercroft-render --test values
//! ```
//!
//! where FOLDER holds the charts, unpacked into `NAME-VERSION` each (`helm pull --untar`).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    clippy::string_slice,
    reason = "tests, which read files and the environment; the crate itself is pure"
)]

mod support;

use std::{collections::BTreeSet, fmt::Write as _, path::PathBuf};

use serde_json::{Value, json};
use support::{CHARTS, KnownChart};
use undercroft_render::{KnownValues, yaml};
use undercroft_testkit::{OrSkip as _, schemas};

fn paths_file(chart: &KnownChart) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("src/components/values")
        .join(format!("{}.paths", chart.component))
}

fn paths(chart: &KnownChart) -> String {
    std::fs::read_to_string(paths_file(chart)).unwrap()
}

/// The paths of a values file: each value that isn't a table, and each empty table as one that
/// takes any keys.
fn derive(at: &str, value: &Value, paths: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) if map.is_empty() && !at.is_empty() => {
            paths.insert(format!("{at}.*"));
        }
        Value::Object(map) => {
            for (key, value) in map {
                let key = key.replace('.', "\\.");
                let path = if at.is_empty() {
                    key
                } else {
                    format!("{at}.{key}")
                };
                derive(&path, value, paths);
            }
        }
        // A value that the file leaves empty may be a table as well as anything else.
        Value::Null => {
            paths.insert(format!("{at}.*"));
        }
        _ => {
            paths.insert(at.to_owned());
        }
    }
}

/// Words before a colon in the prose of comments.
const PROSE: &[&str] = &[
    "default", "e.g", "eg", "example", "http", "https", "note", "ref", "see", "type",
];

/// The key that a line gives a value to, and the column that it begins in.
fn key_of(line: &str) -> Option<(usize, &str)> {
    let trimmed = line.trim_start();
    let (key, rest) = trimmed.split_once(':')?;
    let key = key.trim_matches('"');
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    let is_key =
        !key.is_empty() && key.chars().all(plain) && (rest.is_empty() || rest.starts_with(' '));
    is_key.then_some((line.len() - trimmed.len(), key))
}

/// The keys that a values file only names in comments, as `# ingressClassName: nginx`: the
/// templates read them, though they have no default. What stands below them isn't told.
fn commented(text: &str) -> BTreeSet<String> {
    let mut above: Vec<(usize, String)> = Vec::new();
    let mut paths = BTreeSet::new();
    for line in text.lines() {
        if let Some((column, key)) = key_of(line) {
            above.retain(|(at, _)| *at < column);
            above.push((column, key.replace('.', "\\.")));
            continue;
        }
        let Some((before, comment)) = line.split_once('#') else {
            continue;
        };
        let comment = comment.strip_prefix(' ').unwrap_or(comment);
        let Some((0, key)) = key_of(comment) else {
            continue;
        };
        let word = key.starts_with(|c: char| c.is_ascii_lowercase()) && !PROSE.contains(&key);
        if before.trim().is_empty() && word {
            let parents = above.iter().filter(|(at, _)| *at < before.len());
            let mut path: String = parents.fold(String::new(), |path, (_, key)| path + key + ".");
            path.push_str(&key.replace('.', "\\."));
            paths.insert(path);
        }
    }
    paths
}

/// The list of a chart's paths, from its values file.
fn derived(chart: &KnownChart, values: &str) -> String {
    let comments = commented(values);
    let values = yaml::parse(values).unwrap_or_else(|e| panic!("{}: {e}", chart.component));
    let mut paths = BTreeSet::new();
    derive("", &values, &mut paths);
    for path in comments {
        let (open, inner) = (format!("{path}.*"), format!("{path}."));
        let known = paths.contains(&path) || paths.iter().any(|p| p.starts_with(&inner));
        let below_open = path
            .match_indices('.')
            .any(|(at, _)| paths.contains(&format!("{}.*", &path[..at])));
        if !known && !below_open {
            paths.insert(open);
        }
    }
    for (path, why) in chart.more {
        assert!(!why.is_empty(), "{path} has no reason");
        paths.insert((*path).to_owned());
        // What stands below a table that takes any keys says nothing more.
        let below = path.trim_end_matches('*');
        paths.retain(|p| p == path || !p.starts_with(below));
    }
    paths.iter().fold(String::new(), |mut list, path| {
        let _ = writeln!(list, "{path}");
        list
    })
}

fn values_of(chart: &KnownChart) -> Option<String> {
    chart.read(chart.values, "values.yaml")
}

#[test]
fn keys_that_stand_in_comments_alone_are_known_too() {
    let text = "\
ingress:
  enabled: false
  # -- Class of it, such as this: one
  # ingressClassName: nginx
  ## annotations:
  annotations: {}
    # kubernetes.io/tls: x
  # ref: https://example
# storage:
#   class: a
";
    let found: Vec<String> = commented(text).into_iter().collect();
    assert_eq!(
        found,
        [
            "ingress.annotations.kubernetes\\.io/tls",
            "ingress.ingressClassName",
            "storage"
        ]
    );
}

#[test]
fn the_lists_of_paths_are_those_of_the_charts() {
    let write = std::env::var_os("UNDERCROFT_WRITE_VALUE_PATHS").is_some();
    let mut stale = Vec::new();
    for chart in CHARTS {
        let Some(values) = values_of(chart) else {
            println!(
                "SKIPPED: no values file of {}: set UNDERCROFT_CHARTS or UNDERCROFT_SCHEMAS",
                chart.component
            );
            continue;
        };
        let list = derived(chart, &values);
        if write {
            std::fs::write(paths_file(chart), &list).unwrap();
        } else if list != paths(chart) {
            stale.push(chart.component);
        }
    }
    assert!(
        stale.is_empty(),
        "the lists of {stale:?} aren't those of their charts' values files: write them anew as the \
         head of this file says"
    );
}

#[test]
fn every_value_that_we_set_is_one_that_the_chart_has() {
    let mut seen = BTreeSet::new();
    for (name, tree) in support::trees() {
        for chart in CHARTS {
            let Some(values) = support::values(&tree, chart.component) else {
                continue;
            };
            seen.insert(chart.component);
            let list = paths(chart);
            let unknown = KnownValues::parse(&list).unknown(&values);
            assert!(!list.is_empty(), "{}", chart.component);
            assert!(
                unknown.is_empty(),
                "{name}: {}: {unknown:?}",
                chart.component
            );
        }
    }
    let all: BTreeSet<&str> = CHARTS.iter().map(|chart| chart.component).collect();
    assert_eq!(seen, all, "no tree has these charts");
}

/// Where we set a value of another type than the chart's default on purpose.
const OTHER_TYPES: &[(&str, &str, &str)] = &[
    (
        "cilium",
        "kubeProxyReplacement",
        "the schema takes a truth value as well as a text",
    ),
    (
        "cilium",
        "k8sServicePort",
        "the schema takes a number as well as a text",
    ),
    (
        "cilium",
        "devices",
        "the schema takes a list as well as a text",
    ),
];

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}

/// The places where a value has another type than the chart's default.
fn other_types(component: &str, at: &str, ours: &Value, theirs: &Value, found: &mut Vec<String>) {
    if ours.is_null() || theirs.is_null() {
        return;
    }
    if let (Value::Object(ours), Value::Object(theirs)) = (ours, theirs) {
        for (key, value) in ours {
            let path = if at.is_empty() {
                key.clone()
            } else {
                format!("{at}.{key}")
            };
            if let Some(default) = theirs.get(key) {
                other_types(component, &path, value, default, found);
            }
        }
        return;
    }
    let allowed = OTHER_TYPES
        .iter()
        .any(|(c, path, _)| *c == component && *path == at);
    if kind(ours) != kind(theirs) && !allowed {
        found.push(format!(
            "{at} is {}, and the chart has {}",
            kind(ours),
            kind(theirs)
        ));
    }
}

#[test]
fn every_value_has_the_type_of_the_charts_default() {
    for (name, tree) in support::trees() {
        for chart in CHARTS {
            let Some(ours) = support::values(&tree, chart.component) else {
                continue;
            };
            let Some(theirs) = values_of(chart) else {
                println!("SKIPPED: no values file of {} is at hand", chart.component);
                continue;
            };
            let mut found = Vec::new();
            other_types(
                chart.component,
                "",
                &ours,
                &yaml::parse(&theirs).unwrap(),
                &mut found,
            );
            assert!(found.is_empty(), "{name}: {}: {found:?}", chart.component);
        }
    }
}

#[test]
fn a_type_that_differs_is_found() {
    let mut found = Vec::new();
    other_types(
        "x",
        "",
        &json!({ "a": { "b": "true" }, "c": null, "d": [1] }),
        &json!({ "a": { "b": true }, "c": 1, "d": [] }),
        &mut found,
    );
    assert_eq!(found, ["a.b is a text, and the chart has a truth value"]);
}

fn schema_of(chart: &KnownChart) -> Option<jsonschema::Validator> {
    let text = chart.read(chart.schema, "values.schema.json")?;
    let schema: Value = serde_json::from_str(&text).unwrap();
    Some(jsonschema::validator_for(&schema).unwrap())
}

/// A value as Helm gives it to the schema: what is `null` is taken away.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key.clone(), without_nulls(value)))
            .collect(),
        other => other.clone(),
    }
}

#[test]
fn the_values_satisfy_the_schemas_that_the_charts_publish() {
    let mut checked = BTreeSet::new();
    let trees = support::trees();
    for chart in CHARTS {
        let Some(schema) = schema_of(chart) else {
            continue;
        };
        for (name, tree) in &trees {
            let Some(values) = support::values(tree, chart.component) else {
                continue;
            };
            let values = without_nulls(&values);
            let errors: Vec<String> = schema
                .iter_errors(&values)
                .map(|e| format!("{}: {e}", e.instance_path()))
                .collect();
            assert!(
                errors.is_empty(),
                "{name}: {}: {errors:#?}",
                chart.component
            );
            checked.insert(chart.component);
        }
    }
    if checked.is_empty() {
        println!("SKIPPED: no schema is at hand: set UNDERCROFT_SCHEMAS or UNDERCROFT_CHARTS");
    } else {
        println!("checked against their schemas: {checked:?}");
    }
}

#[test]
fn a_misspelt_key_is_found_though_the_schema_takes_it() {
    let cilium = CHARTS.iter().find(|c| c.component == "cilium").unwrap();
    let tree = support::tree(&support::fleet("k3s", support::GITOPS), false);
    let mut values = support::must(&tree, "cilium");
    values["hubble"]["rely"] = json!({ "enabled": true });
    values["kubeProxyReplacment"] = json!(true);
    match schema_of(cilium) {
        Some(schema) => assert!(
            schema.is_valid(&without_nulls(&values)),
            "the schema finds it by itself now"
        ),
        None => println!("SKIPPED: Cilium's schema isn't at hand, so that only the lint was tried"),
    }
    let list = paths(cilium);
    let mut unknown = KnownValues::parse(&list).unknown(&values);
    unknown.sort();
    let found: Vec<&str> = unknown.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(found, ["hubble.rely", "kubeProxyReplacment"]);
    assert_eq!(unknown[1].1, Some("kubeProxyReplacement"));
}

#[test]
fn every_sharing_of_cards_is_one_that_the_device_plugin_reads() {
    let tree = support::tree(&support::fleet("k3s", support::GITOPS), false);
    let values = support::must(&tree, "nvidia-device-plugin");
    let map = values["config"]["map"].as_object().unwrap();
    let names: Vec<&str> = map.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["exclusive", "mig-single", "mps-8", "time-slicing-4"]
    );
    let Some(folder) = schemas().or_skip() else {
        return;
    };
    let file = folder.join("nvidia/device-plugin-config-v1.derived.schema.json");
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    for (name, config) in map {
        let config = yaml::parse(config.as_str().unwrap()).unwrap();
        let errors: Vec<String> = schema.iter_errors(&config).map(|e| e.to_string()).collect();
        assert!(errors.is_empty(), "{name}: {errors:?}");
    }
}

#[test]
fn headscales_configuration_has_keys_of_its_example_alone() {
    let tree = support::tree(&support::fleet("k3s", support::GITOPS), false);
    let config = support::object(&tree, "ConfigMap", "headscale-config").unwrap();
    let config = yaml::parse(config["data"]["config.yaml"].as_str().unwrap()).unwrap();
    assert_eq!(config["server_url"], "https://headscale.cellar.example");
    let Some(folder) = schemas().or_skip() else {
        return;
    };
    let example =
        std::fs::read_to_string(folder.join("headscale/config-example-v0.29.2.yaml")).unwrap();
    let mut paths = BTreeSet::new();
    derive("", &yaml::parse(&example).unwrap(), &mut paths);
    let list: String = paths.iter().map(|path| format!("{path}\n")).collect();
    assert_eq!(KnownValues::parse(&list).unknown(&config), []);
}
