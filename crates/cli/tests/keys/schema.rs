//! The keys of the inventory, out of its schema.

use std::collections::BTreeMap;

use serde_json::Value;

/// All keys that hold no table, by their path (`classes.NAME.gpu.count`, `nodes.NAME.disks[].wwn`),
/// with their schema.
pub(crate) fn leaves() -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    walk(&undercroft_model::inventory::schema(), "", &mut all);
    assert!(all.len() > 150, "{} keys", all.len());
    all
}

fn walk(schema: &Value, path: &str, all: &mut BTreeMap<String, Value>) {
    if let Some(properties) = schema["properties"].as_object() {
        for (name, schema) in properties {
            let dot = if path.is_empty() { "" } else { "." };
            walk(schema, &format!("{path}{dot}{name}"), all);
        }
    } else if schema["additionalProperties"]["properties"].is_object() {
        walk(
            &schema["additionalProperties"],
            &format!("{path}.NAME"),
            all,
        );
    } else if schema["items"]["properties"].is_object() {
        walk(&schema["items"], &format!("{path}[]"), all);
    } else {
        all.insert(path.to_owned(), schema.clone());
    }
}
