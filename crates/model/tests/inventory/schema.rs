//! The schema says the same as the parser.

use serde_json::{Map, Value, json};
use toml::de::{DeTable, DeValue};
use undercroft_model::inventory::{parse, schema};

use crate::examples::EXAMPLES;

/// Keywords that describe, or that only `parse` checks.
const UNCHECKED: &[&str] = &[
    "propertyNames",
    "pattern",
    "description",
    "default",
    "title",
    "$schema",
];

/// The faults of a value by the part of JSON Schema that `schema` uses. A keyword that isn't
/// known here is a fault of the schema, so that none goes unchecked.
fn faults(schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    for (keyword, limit) in schema.as_object().unwrap() {
        let holds = match keyword.as_str() {
            "type" => match limit.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "integer" => value.is_u64() || value.is_i64(),
                "boolean" => value.is_boolean(),
                other => panic!("type {other}"),
            },
            "minimum" => value.as_i64() >= limit.as_i64(),
            "maximum" => value.as_i64() <= limit.as_i64(),
            "enum" => limit.as_array().unwrap().contains(value),
            "oneOf" => {
                let all = limit.as_array().unwrap().iter();
                all.filter(|one| one["const"] == *value).count() == 1
            }
            "required" => limit
                .as_array()
                .unwrap()
                .iter()
                .all(|key| value.get(key.as_str().unwrap()).is_some()),
            "properties" | "additionalProperties" => {
                for (key, inner) in value.as_object().into_iter().flatten() {
                    let known = schema.get("properties").and_then(|p| p.get(key));
                    let path = format!("{path}.{key}");
                    match (keyword.as_str(), known, limit) {
                        ("properties", Some(known), _) => faults(known, inner, &path, found),
                        ("additionalProperties", None, Value::Bool(false)) => {
                            found.push(format!("{path}: is unknown"));
                        }
                        ("additionalProperties", None, limit) => {
                            faults(limit, inner, &path, found);
                        }
                        _ => {}
                    }
                }
                true
            }
            "items" => {
                for (i, item) in value.as_array().into_iter().flatten().enumerate() {
                    faults(limit, item, &format!("{path}[{i}]"), found);
                }
                true
            }
            other => {
                assert!(UNCHECKED.contains(&other), "the schema uses {other}");
                true
            }
        };
        if !holds {
            found.push(format!("{path}: {keyword} {limit} doesn't hold"));
        }
    }
}

/// TOML as JSON, by way of the parser that the inventory is read with.
fn json_of(text: &str) -> Value {
    fn value(of: &DeValue<'_>) -> Value {
        match of {
            DeValue::String(text) => json!(text),
            DeValue::Integer(n) => json!(i64::from_str_radix(n.as_str(), n.radix()).unwrap()),
            DeValue::Float(n) => json!(n.as_str().parse::<f64>().unwrap()),
            DeValue::Boolean(b) => json!(b),
            DeValue::Datetime(d) => json!(d.to_string()),
            DeValue::Array(items) => items.iter().map(|i| value(i.get_ref())).collect(),
            DeValue::Table(keys) => table(keys),
        }
    }
    fn table(keys: &DeTable<'_>) -> Value {
        keys.iter()
            .map(|(k, v)| (k.get_ref().to_string(), value(v.get_ref())))
            .collect::<Map<_, _>>()
            .into()
    }
    table(DeTable::parse(text).unwrap().get_ref())
}

/// What the schema has against an inventory.
fn refused(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    faults(&schema(), &json_of(text), "undercroft.toml", &mut found);
    found
}

#[test]
fn the_examples_follow_the_schema() {
    for (name, bytes) in EXAMPLES {
        let text = std::str::from_utf8(bytes).unwrap();
        assert_eq!(refused(text), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn what_the_schema_refuses_the_parser_refuses_too() {
    let good = String::from_utf8_lossy(EXAMPLES[1].1).into_owned();
    for (from, to) in [
        ("closure_copies = 2", "closure_copies = 0"),
        ("closure_copies = 2", "closure_copies = \"2\""),
        ("closure_copies = 2", "closure_copy = 2"),
        ("kind = \"plain\"", "kind = \"plane\""),
        ("address = \"10.88.0.11\"\n", ""),
        ("[fleet.limits]", "[fleet.limit]"),
        ("macs = [\"52:54:00:88:00:11\"]", "macs = 5"),
        ("system = \"x86_64-linux\"", "system = \"riscv64-linux\""),
    ] {
        assert!(good.contains(from), "{from}");
        let bad = good.replace(from, to);
        assert!(!refused(&bad).is_empty(), "{to}");
        let parsed = parse("bad.toml", bad.as_bytes());
        assert!(parsed.inventory.is_none(), "{to}");
    }
}

#[test]
fn every_key_is_described_and_every_default_follows_its_own_schema() {
    fn walk(schema: &Value, path: &str, seen: &mut usize) {
        if let Some(default) = schema.get("default") {
            let mut found = Vec::new();
            faults(schema, default, path, &mut found);
            assert_eq!(found, Vec::<String>::new());
            *seen += 1;
        }
        for (key, inner) in schema["properties"].as_object().into_iter().flatten() {
            let described = inner["description"].as_str().is_some_and(|d| !d.is_empty());
            assert!(described || path.is_empty(), "{path}.{key} says nothing");
            walk(inner, &format!("{path}.{key}"), seen);
        }
        for inner in ["additionalProperties", "items"] {
            if let Some(inner) = schema.get(inner).filter(|s| s.is_object()) {
                walk(inner, path, seen);
            }
        }
    }
    let mut seen = 0;
    walk(&schema(), "", &mut seen);
    assert!(seen > 60, "{seen} defaults");
}
