//! The golden files: what the pure half makes of each example.
//!
//! The first machine of each class stands in them whole; of every other machine, what differs from
//! that one. `UNDERCROFT_WRITE_GOLDEN=1` writes them anew.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::support::{examples, nix_is_here, pure_half, repository};

#[test]
fn the_pure_half_gives_what_the_golden_files_say() {
    if !nix_is_here() {
        return;
    }
    let write = std::env::var_os("UNDERCROFT_WRITE_GOLDEN").is_some();
    for example in examples() {
        let text = golden(&pure_half(&example));
        let path = repository().join(format!("nix/tests/golden/{example}.json"));
        if write {
            std::fs::write(&path, &text).unwrap();
            continue;
        }
        let want = std::fs::read_to_string(&path).unwrap_or_default();
        if let Some((line, (is, was))) = first_difference(&text, &want) {
            panic!(
                "{}, line {line}:\n  golden: {was}\n  now:    {is}\n\
                 If the change is meant: UNDERCROFT_WRITE_GOLDEN=1 cargo test -p undercroft --test nix",
                path.display()
            );
        }
    }
}

fn first_difference<'a>(is: &'a str, was: &'a str) -> Option<(usize, (&'a str, &'a str))> {
    let lines = is.lines().count().max(was.lines().count());
    let line = |text: &'a str, index| text.lines().nth(index).unwrap_or("(nothing)");
    (0..lines)
        .map(|index| (index + 1, (line(is, index), line(was, index))))
        .find(|(_, (is, was))| is != was)
}

/// The text of a golden file.
fn golden(evaluated: &Value) -> String {
    let mut firsts: BTreeMap<String, (String, Value)> = BTreeMap::new();
    let mut nodes = Map::new();
    for (name, node) in evaluated["nodes"].as_object().unwrap() {
        let class = node["settings"]["node"]["class"].as_str().unwrap();
        let shown = match firsts.get(class) {
            None => {
                firsts.insert(class.to_owned(), (name.clone(), node.clone()));
                node.clone()
            }
            Some((first, whole)) => {
                let mut found = Map::new();
                found.insert("as".to_owned(), Value::from(first.as_str()));
                differences(whole, node, "", &mut found);
                Value::Object(found)
            }
        };
        nodes.insert(name.clone(), shown);
    }
    let shown = serde_json::json!({ "nodes": nodes, "pcs": evaluated["pcs"] });
    let mut text = serde_json::to_string_pretty(&sorted(&shown)).unwrap();
    text.push('\n');
    text
}

/// The places at which two values differ, with what the second has there.
fn differences(a: &Value, b: &Value, at: &str, found: &mut Map<String, Value>) {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            let keys: std::collections::BTreeSet<&String> = x.keys().chain(y.keys()).collect();
            for key in keys {
                let at = if at.is_empty() {
                    key.clone()
                } else {
                    format!("{at}/{key}")
                };
                match (x.get(key), y.get(key)) {
                    (Some(x), Some(y)) => differences(x, y, &at, found),
                    (_, Some(y)) => drop(found.insert(at, y.clone())),
                    (_, None) => drop(found.insert(at, Value::from("(absent)"))),
                }
            }
        }
        (Value::Array(x), Value::Array(y)) if x.len() == y.len() => {
            for (index, (x, y)) in x.iter().zip(y).enumerate() {
                differences(x, y, &format!("{at}/{index}"), found);
            }
        }
        _ if a == b => {}
        _ => drop(found.insert(at.to_owned(), b.clone())),
    }
}

/// The same value with all keys in order.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let ordered: BTreeMap<&String, Value> = map
                .iter()
                .map(|(key, value)| (key, sorted(value)))
                .collect();
            Value::Object(ordered.into_iter().map(|(k, v)| (k.clone(), v)).collect())
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}
