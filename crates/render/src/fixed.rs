//! What can't be changed where it is: fields that the API server refuses to change, and values of
//! charts that end in such fields or that say where data lies; and what holds data.
//!
//! The fields of objects are those that Kubernetes' own validation holds fast
//! (pkg/apis/*/validation/validation.go of Kubernetes 1.34). Of what charts make only the values are
//! known here, so that the rule for them goes by the names of keys first: a chart names a volume's
//! class `storageClass` wherever it has one.

use serde_json::Value;

/// How a choice may change later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Not at all.
    Fixed,
    /// A size, which may grow where it is.
    Grows,
    /// A list, which may get more behind what it has.
    Appended,
}

/// Keys that name what an object is called, where its data lies or how its volumes are made,
/// wherever they stand in a chart's values.
const KEYS: &[&str] = &[
    "accessMode",
    "accessModes",
    "clusterIP",
    "clusterIPs",
    "existingClaim",
    "fullnameOverride",
    "nameOverride",
    "namespaceOverride",
    "podManagementPolicy",
    "selectorLabels",
    "storageClass",
    "storageClassName",
    "subPath",
    "volumeMode",
    "volumeName",
];
/// Keys below which everything is part of a volume's claim.
const CLAIMS: &[&str] = &["storageSpec", "volumeClaimTemplate", "volumeClaimTemplates"];
/// Keys beside these words on the way that turn a volume on or off, or say how large it is.
const OF_VOLUMES: &[&str] = &["enabled", "size", "type"];

/// Values of single charts, by component and path.
const VALUES: &[(&str, &[&str], Rule)] = &[
    // Pods keep the addresses and identities of the mode that they were started under
    // (docs.cilium.io, "IP Address Management": it can't be changed in a live cluster).
    ("cilium", &["ipam", "mode"], Rule::Fixed),
    (
        "cilium",
        &["ipam", "operator", "clusterPoolIPv4MaskSize"],
        Rule::Fixed,
    ),
    (
        "cilium",
        &["ipam", "operator", "clusterPoolIPv6MaskSize"],
        Rule::Fixed,
    ),
    // A pool may be added behind; what is there may not change (docs.cilium.io, "Cluster Scope").
    (
        "cilium",
        &["ipam", "operator", "clusterPoolIPv4PodCIDRList"],
        Rule::Appended,
    ),
    (
        "cilium",
        &["ipam", "operator", "clusterPoolIPv6PodCIDRList"],
        Rule::Appended,
    ),
    ("cilium", &["cluster", "name"], Rule::Fixed),
    ("cilium", &["cluster", "id"], Rule::Fixed),
    ("cilium", &["identityAllocationMode"], Rule::Fixed),
    // What was written in one form is read in it for ever (grafana.com/docs/loki, "Schema").
    ("loki", &["loki", "schemaConfig", "configs"], Rule::Appended),
    ("loki", &["loki", "storage", "type"], Rule::Fixed),
    ("loki", &["loki", "storage", "bucketNames"], Rule::Fixed),
    ("loki", &["deploymentMode"], Rule::Fixed),
    (
        "longhorn",
        &["defaultSettings", "defaultDataPath"],
        Rule::Fixed,
    ),
    ("longhorn", &["csi", "kubeletRootDir"], Rule::Fixed),
    // Streams of three copies have no quorum on one server, and one server's streams have no
    // copies on three.
    ("nats", &["config", "cluster", "enabled"], Rule::Fixed),
    ("nats", &["config", "cluster", "replicas"], Rule::Fixed),
    ("nats", &["config", "jetstream", "enabled"], Rule::Fixed),
    (
        "nats",
        &["config", "jetstream", "fileStore", "enabled"],
        Rule::Fixed,
    ),
    (
        "nats",
        &["config", "jetstream", "fileStore", "dir"],
        Rule::Fixed,
    ),
    ("nats", &["statefulSet"], Rule::Fixed),
    ("sealed-secrets", &["secretName"], Rule::Fixed),
    // Without the definitions everything that was made of them goes.
    ("cert-manager", &["crds"], Rule::Fixed),
];

/// Components whose volume is a claim of its own, which may grow; the others' stand in a
/// StatefulSet, whose templates the API server doesn't change.
const OWN_CLAIMS: &[&str] = &["grafana"];

/// What of a component's values can't change freely.
pub(crate) fn of_values(component: &str, values: &Value) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    walk(component, &mut Vec::new(), values, &mut found);
    found
}

fn walk<'v>(
    component: &str,
    keys: &mut Vec<&'v str>,
    value: &'v Value,
    found: &mut Vec<(String, Value)>,
) {
    match value {
        Value::Object(map) if rule_of(component, keys) != Some(Rule::Appended) => {
            for (key, value) in map {
                keys.push(key);
                walk(component, keys, value, found);
                keys.pop();
            }
        }
        leaf => {
            if rule_of(component, keys).is_some() {
                found.push((path(keys), leaf.clone()));
            }
        }
    }
}

/// The rule for a value at a path of keys, where there is one.
fn rule_of(component: &str, keys: &[&str]) -> Option<Rule> {
    for (of, path, rule) in VALUES {
        if *of == component && keys.starts_with(path) {
            return Some(*rule);
        }
    }
    let (last, above) = keys.split_last()?;
    if above.iter().any(|key| CLAIMS.contains(key)) || KEYS.contains(last) {
        return Some(Rule::Fixed);
    }
    let volume = |key: &&str| {
        let key = key.to_ascii_lowercase();
        key.contains("persisten") || key.contains("pvc")
    };
    if !OF_VOLUMES.contains(last) || !above.iter().any(volume) {
        return None;
    }
    // Longhorn's `persistence` is about the classes that it makes, not about a volume of its own.
    if component == "longhorn" {
        return None;
    }
    Some(if *last == "size" && OWN_CLAIMS.contains(&component) {
        Rule::Grows
    } else {
        Rule::Fixed
    })
}

/// The rule for a choice as it was written down: of a value by its path, of an object by its field.
pub(crate) fn rule(owner: &str, choice: &str) -> Rule {
    if let Some((object, field)) = choice.split_once(OBJECT_FIELD) {
        let claim = object.starts_with("PersistentVolumeClaim ");
        return match field {
            "spec.resources.requests.storage" if claim => Rule::Grows,
            _ => Rule::Fixed,
        };
    }
    let keys: Vec<String> = split(choice);
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    rule_of(owner, &keys).unwrap_or(Rule::Fixed)
}

/// Between an object and its field in the name of a choice.
pub(crate) const OBJECT_FIELD: &str = ": ";

/// Keys as one text; a dot in a key is written `\.`.
fn path(keys: &[&str]) -> String {
    let keys: Vec<String> = keys.iter().map(|key| key.replace('.', "\\.")).collect();
    keys.join(".")
}

/// The keys of such a text.
pub(crate) fn split(path: &str) -> Vec<String> {
    let mut keys = vec![String::new()];
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        match (c, keys.last_mut()) {
            ('\\', Some(key)) => key.extend(chars.next()),
            ('.', _) => keys.push(String::new()),
            (c, Some(key)) => key.push(c),
            _ => {}
        }
    }
    keys
}

/// Fields that the API server doesn't change, by kind.
pub(crate) fn fields(kind: &str) -> &'static [&'static str] {
    match kind {
        // ValidateStatefulSetUpdate: everything but replicas, ordinals, template, updateStrategy,
        // revisionHistoryLimit, persistentVolumeClaimRetentionPolicy and minReadySeconds.
        "StatefulSet" => &[
            "spec.podManagementPolicy",
            "spec.selector",
            "spec.serviceName",
            "spec.volumeClaimTemplates",
        ],
        "Deployment" | "DaemonSet" | "ReplicaSet" => &["spec.selector"],
        "Job" => &[
            "spec.completionMode",
            "spec.completions",
            "spec.podFailurePolicy",
            "spec.selector",
            "spec.template",
        ],
        "Service" => &["spec.clusterIP", "spec.clusterIPs"],
        "PersistentVolumeClaim" => &[
            "spec.accessModes",
            "spec.dataSource",
            "spec.dataSourceRef",
            "spec.resources.requests.storage",
            "spec.selector",
            "spec.storageClassName",
            "spec.volumeMode",
            "spec.volumeName",
        ],
        "PersistentVolume" => &[
            "spec.csi",
            "spec.hostPath",
            "spec.local",
            "spec.nfs",
            "spec.nodeAffinity",
            "spec.volumeMode",
        ],
        "StorageClass" => &[
            "parameters",
            "provisioner",
            "reclaimPolicy",
            "volumeBindingMode",
        ],
        "VolumeSnapshotClass" => &["deletionPolicy", "driver", "parameters"],
        "RoleBinding" | "ClusterRoleBinding" => &["roleRef"],
        "Secret" => &["type"],
        "RuntimeClass" => &["handler"],
        "IngressClass" => &["spec.controller"],
        "PriorityClass" => &["preemptionPolicy", "value"],
        "CSIDriver" => &["spec.attachRequired", "spec.volumeLifecycleModes"],
        "CustomResourceDefinition" => &[
            "spec.group",
            "spec.names.kind",
            "spec.names.plural",
            "spec.scope",
        ],
        _ => &[],
    }
}

/// Whether an object has data of its own behind it, which goes or is orphaned with it.
pub(crate) fn holds_data(object: &Value) -> bool {
    match object.get("kind").and_then(Value::as_str) {
        Some("PersistentVolumeClaim" | "PersistentVolume") => true,
        Some("StatefulSet") => {
            let claims = crate::values::get(object, &["spec", "volumeClaimTemplates"]);
            claims
                .and_then(Value::as_array)
                .is_some_and(|c| !c.is_empty())
        }
        // Everything that was made of a definition goes with it.
        Some("CustomResourceDefinition") => true,
        // A volume by another controller's hand: operators of databases and the like name its size
        // or its class somewhere below.
        Some(kind) => {
            !BUILT_IN_KINDS.contains(&kind)
                && object
                    .get("spec")
                    .is_some_and(|spec| mentions_volume(spec, 0))
        }
        None => false,
    }
}

/// What is lost with a component, as a phrase, for those that hold data, keys, or the definitions
/// of what others have made.
pub(crate) fn data_of(component: &str) -> Option<&'static str> {
    Some(match component {
        "longhorn" => "every volume of Longhorn's, and what is on them",
        "local-path" => "what makes the volumes on nodes' own filesystems, which keep their data",
        "nats" => "JetStream's streams and consumers",
        "loki" => "all logs",
        "prometheus" => "all samples, and the definitions of every monitor and rule",
        "grafana" => "dashboards, users and settings that were made in Grafana",
        "cert-manager" => {
            "the cluster's own authority, and the definitions of every certificate and issuer"
        }
        "sealed-secrets" => "the keys without which no sealed secret can be opened",
        "external-secrets" => "the definitions of every external secret, and what was made of them",
        "headscale" => "the overlay's machines, users and keys",
        "kubevirt" => "the definitions of every virtual machine, and the machines",
        _ => return None,
    })
}

/// Kinds whose controllers make no volumes from what they say, beside those above.
const BUILT_IN_KINDS: &[&str] = &[
    "StorageClass",
    "Pod",
    "Deployment",
    "DaemonSet",
    "Job",
    "CronJob",
];

/// Deeper than this no field of an object stands.
const DEPTH_MAX: usize = 24;

fn mentions_volume(value: &Value, depth: usize) -> bool {
    const WORDS: &[&str] = &[
        "storageClass",
        "storageClassName",
        "volumeClaimTemplate",
        "volumeClaimTemplates",
        "volumeClaimSpec",
        "pvcTemplate",
        "dataVolumeTemplates",
    ];
    if depth > DEPTH_MAX {
        return true;
    }
    match value {
        Value::Object(map) => map
            .iter()
            .any(|(key, value)| WORDS.contains(&key.as_str()) || mentions_volume(value, depth + 1)),
        Value::Array(list) => list.iter().any(|value| mentions_volume(value, depth + 1)),
        _ => false,
    }
}

/// A quantity in bytes, or in whatever it counts; `None` where the text is none.
pub(crate) fn quantity(text: &str) -> Option<f64> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '+' | '-'))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    let number: f64 = number.parse().ok()?;
    let factor = match unit {
        "" => 1.0,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "Ki" => 1024.0,
        "Mi" => 1_048_576.0,
        "Gi" => 1_073_741_824.0,
        "Ti" => 1_099_511_627_776.0,
        "Pi" => 1_125_899_906_842_624.0,
        _ => return None,
    };
    Some(number * factor)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_survive_being_written_down() {
        assert_eq!(split(&path(&["a.b", "c", "d\\"])).first().unwrap(), "a.b");
        assert_eq!(split("a\\.b.c"), ["a.b", "c"]);
    }

    #[test]
    fn quantities_are_compared_by_what_they_mean() {
        assert_eq!(quantity("1Gi"), quantity("1024Mi"));
        assert!(quantity("50Gi") > quantity("50G"));
        assert_eq!(quantity("1.5Ti"), quantity("1536Gi"));
        assert_eq!(quantity("much"), None);
    }

    #[test]
    fn a_value_is_held_by_its_key_wherever_it_stands() {
        let values = json!({
            "deep": { "persistence": { "size": "1Gi", "labels": { "a": "b" } }, "fullnameOverride": "x" },
            "spec": { "volumeClaimTemplate": { "spec": { "anything": 1 } } },
            "replicas": 3,
        });
        let found: Vec<String> = of_values("some", &values)
            .into_iter()
            .map(|f| f.0)
            .collect();
        assert_eq!(
            found,
            [
                "deep.persistence.size",
                "deep.fullnameOverride",
                "spec.volumeClaimTemplate.spec.anything"
            ]
        );
        assert_eq!(rule("grafana", "persistence.size"), Rule::Grows);
        assert_eq!(rule("loki", "singleBinary.persistence.size"), Rule::Fixed);
        assert_eq!(rule("loki", "loki.schemaConfig.configs"), Rule::Appended);
    }

    #[test]
    fn what_has_data_behind_it_is_told_from_what_has_not() {
        let database =
            json!({ "kind": "Cluster", "spec": { "storage": { "storageClass": "longhorn" } } });
        assert!(holds_data(&database));
        assert!(holds_data(&json!({ "kind": "PersistentVolumeClaim" })));
        assert!(!holds_data(&json!({ "kind": "StatefulSet", "spec": {} })));
        assert!(!holds_data(
            &json!({ "kind": "ConfigMap", "data": { "a": "b" } })
        ));
        assert!(!holds_data(
            &json!({ "kind": "Deployment", "spec": { "replicas": 1 } })
        ));
    }
}
