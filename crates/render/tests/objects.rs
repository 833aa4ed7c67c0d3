//! Every object of Kubernetes' own kinds has the fields of its kind, and no other: what is read into
//! the kind's type and written again is what it was. Objects of kinds that charts define fit those
//! definitions, where Helm and the charts are there.

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

use std::collections::BTreeSet;

use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, StatefulSet},
    core::v1::{ConfigMap, Namespace, Pod, Service, ServiceAccount},
    networking::v1::{Ingress, NetworkPolicy},
    node::v1::RuntimeClass,
    rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
    storage::v1::StorageClass,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use undercroft_render::{Locked, Tree};

fn again<T: DeserializeOwned + Serialize>(object: &Value) -> Value {
    let typed: T = serde_json::from_value(object.clone())
        .unwrap_or_else(|e| panic!("{}: {e}", object["metadata"]["name"]));
    serde_json::to_value(typed).unwrap()
}

/// The object after a way through its kind's type; `None` for kinds that charts define.
fn through_its_type(object: &Value) -> Option<Value> {
    Some(match object["kind"].as_str().unwrap() {
        "ClusterRole" => again::<ClusterRole>(object),
        "ClusterRoleBinding" => again::<ClusterRoleBinding>(object),
        "ConfigMap" => again::<ConfigMap>(object),
        "DaemonSet" => again::<DaemonSet>(object),
        "Deployment" => again::<Deployment>(object),
        "Ingress" => again::<Ingress>(object),
        "Namespace" => again::<Namespace>(object),
        "NetworkPolicy" => again::<NetworkPolicy>(object),
        "Pod" => again::<Pod>(object),
        "Role" => again::<Role>(object),
        "RoleBinding" => again::<RoleBinding>(object),
        "RuntimeClass" => again::<RuntimeClass>(object),
        "Service" => again::<Service>(object),
        "ServiceAccount" => again::<ServiceAccount>(object),
        "StatefulSet" => again::<StatefulSet>(object),
        "StorageClass" => again::<StorageClass>(object),
        _ => return None,
    })
}

/// A tree that has the boards' plugin too.
fn with_boards() -> Tree {
    let fleet = support::fleet("k3s", support::GITOPS);
    let mut lock = support::lock_for(&fleet);
    let locked = Locked {
        image: Some("registry.cellar.example/hat-device-plugin".to_owned()),
        version: "0.1.0".to_owned(),
        ..Locked::default()
    };
    lock.components
        .insert("hat-device-plugin".to_owned(), locked);
    support::try_tree(&fleet, &lock, false).unwrap()
}

#[test]
fn every_object_has_the_fields_of_its_kind_and_no_other() {
    let mut trees = support::trees();
    trees.push(("boards", with_boards()));
    let mut kinds = BTreeSet::new();
    for (name, tree) in &trees {
        let mut objects = support::objects(tree);
        // The pod that makes the volumes of local-path stands in a ConfigMap.
        if let Some(config) = support::object(tree, "ConfigMap", "local-path-config") {
            let pod = config["data"]["helperPod.yaml"].as_str().unwrap();
            objects.push(serde_json::from_str(pod).unwrap());
        }
        for object in objects {
            if let Some(again) = through_its_type(&object) {
                assert_eq!(object, again, "{name}");
                kinds.insert(object["kind"].as_str().unwrap().to_owned());
            }
        }
    }
    assert_eq!(kinds.len(), 15, "{kinds:?}");
}

#[test]
fn a_field_that_a_kind_doesnt_have_is_found() {
    let wrong: Value = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": "x" },
        "spec": { "selektor": { "a": "b" } },
    });
    assert_ne!(through_its_type(&wrong), Some(wrong.clone()));
}

/// The schema of a kind, from the definitions that charts bring.
fn schema_of<'a>(definitions: &'a [Value], object: &Value) -> Option<&'a Value> {
    let (group, version) = object["apiVersion"].as_str()?.split_once('/')?;
    let definition = definitions
        .iter()
        .find(|d| d["spec"]["group"] == group && d["spec"]["names"]["kind"] == object["kind"])?;
    let versions = definition["spec"]["versions"].as_array()?;
    let served = versions
        .iter()
        .find(|v| v["name"] == version && v["served"] == true)?;
    Some(&served["schema"]["openAPIV3Schema"])
}

/// The fields of an object that its schema doesn't have, which an API server with strict
/// validation refuses and one without drops.
fn unknown_fields(at: &str, value: &Value, schema: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            let any = schema["x-kubernetes-preserve-unknown-fields"] == true;
            for (key, value) in map {
                let path = format!("{at}.{key}");
                match schema["properties"].get(key) {
                    Some(below) => unknown_fields(&path, value, below, found),
                    None if schema["additionalProperties"].is_object() => {
                        unknown_fields(&path, value, &schema["additionalProperties"], found);
                    }
                    None if any => {}
                    None => found.push(path),
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                unknown_fields(&format!("{at}[]"), item, &schema["items"], found);
            }
        }
        _ => {}
    }
}

#[test]
fn our_objects_fit_the_definitions_that_the_charts_bring() {
    let trees = support::trees();
    let mut definitions = Vec::new();
    let (_, vault) = trees.iter().find(|(name, _)| *name == "vault").unwrap();
    for component in ["cert-manager", "external-secrets", "prometheus"] {
        let Some(objects) = support::helm::ours(vault, component) else {
            return;
        };
        let is_definition = |o: &Value| o["kind"] == "CustomResourceDefinition";
        definitions.extend(objects.into_iter().filter(is_definition));
    }
    let mut checked = BTreeSet::new();
    for (name, tree) in &trees {
        for object in support::objects(tree) {
            let Some(schema) = schema_of(&definitions, &object) else {
                continue;
            };
            let kind = object["kind"].as_str().unwrap().to_owned();
            let mut found = Vec::new();
            for part in ["spec", "data"] {
                if let Some(value) = object.get(part) {
                    unknown_fields(part, value, &schema["properties"][part], &mut found);
                }
            }
            let validator = jsonschema::validator_for(schema).unwrap();
            found.extend(validator.iter_errors(&object).map(|e| e.to_string()));
            assert!(
                found.is_empty(),
                "{name}: {kind} {}: {found:?}",
                object["metadata"]["name"]
            );
            checked.insert(kind);
        }
    }
    let checked: Vec<&str> = checked.iter().map(String::as_str).collect();
    assert_eq!(
        checked,
        [
            "Certificate",
            "ClusterIssuer",
            "ClusterSecretStore",
            "ExternalSecret",
            "PodMonitor",
            "PrometheusRule",
            "ScrapeConfig",
            "ServiceMonitor"
        ]
    );
}
