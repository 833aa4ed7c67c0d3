//! The JSON Schema of the inventory, for editors.

use std::collections::BTreeMap;

use serde_json::{Map, json};

use super::{
    Class, Fleet, Gitops, Kubernetes, Lending, Network, NodeEntry, Pc, Secrets, User,
    declare::{Json, Rule, Value},
};
use crate::{ClassName, NodeName, PcName, UserName};

/// The JSON Schema (draft 2020-12) of `undercroft.toml`.
///
/// It describes names, types, limits and defaults of all keys. What depends on more than one key
/// only [`parse`](super::parse) checks.
pub fn schema() -> Json {
    let mut properties = Map::new();
    let mut add = |name: &str, schema: Json| properties.insert(name.to_owned(), schema);
    add("fleet", Fleet::schema(Rule::Any));
    add("network", Network::schema(Rule::Any));
    add("kubernetes", Kubernetes::schema(Rule::Any));
    add("gitops", Gitops::schema(Rule::Any));
    add("secrets", Secrets::schema(Rule::Any));
    add("lending", Lending::schema(Rule::Any));
    add("classes", BTreeMap::<ClassName, Class>::schema(Rule::Any));
    add("nodes", BTreeMap::<NodeName, NodeEntry>::schema(Rule::Any));
    add("pcs", BTreeMap::<PcName, Pc>::schema(Rule::Any));
    add("users", BTreeMap::<UserName, User>::schema(Rule::Any));
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Undercroft inventory",
        "description": "What a fleet is meant to be: undercroft.toml.",
        "type": "object",
        "properties": properties,
        "required": ["fleet", "network"],
        "additionalProperties": false,
    })
}
