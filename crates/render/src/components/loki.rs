//! Loki: logs, in one process on one volume.

use serde_json::{Value, json};

use super::common::{
    MONITORING, has_prometheus, pod_security, resources, storage_class, storage_component,
};
use crate::{Chart, Component, Context};

/// How long logs are kept.
const RETENTION: &str = "744h";

pub(super) fn loki(cx: &Context<'_>) -> Component {
    Component {
        namespace_labels: pod_security("baseline"),
        chart: Some(Chart {
            release: "loki",
            values: values(cx),
            known: include_str!("values/loki.paths"),
        }),
        requires: storage_component(cx),
        after: vec!["prometheus"],
        ..Component::new("loki", "Logs.", MONITORING)
    }
}

fn values(cx: &Context<'_>) -> Value {
    let off = json!({ "enabled": false });
    let none = json!({ "replicas": 0 });
    json!({
        "deploymentMode": "Monolithic",
        "global": { "clusterDomain": cx.inventory.kubernetes.cluster_domain },
        "loki": {
            "auth_enabled": false,
            "commonConfig": { "replication_factor": 1 },
            "storage": { "type": "filesystem" },
            // The chart has none on purpose: it says from which day on which form is used, and a
            // wrong one makes old logs unreadable. New forms are added behind, never in its place.
            "schemaConfig": {
                "configs": [{
                    "from": "2026-01-01",
                    "store": "tsdb",
                    "object_store": "filesystem",
                    "schema": "v13",
                    "index": { "prefix": "index_", "period": "24h" },
                }],
            },
            "limits_config": { "retention_period": RETENTION },
            "compactor": {
                "working_directory": "/var/loki/compactor",
                "retention_enabled": true,
                "delete_request_store": "filesystem",
            },
            "analytics": { "reporting_enabled": false },
        },
        "singleBinary": {
            "replicas": 1,
            "persistence": {
                "enabled": true,
                "size": "50Gi",
                "storageClass": storage_class(cx),
                "whenScaled": "Retain",
                "whenDeleted": "Retain",
            },
            "resources": resources("100m", "512Mi", "2Gi"),
        },
        // The other ways to run it; the chart's own numbers aren't zero.
        "read": none,
        "write": none,
        "backend": none,
        // The cache of chunks alone asks for 10 GiB of memory.
        "chunksCache": off,
        "resultsCache": off,
        "gateway": off,
        "lokiCanary": off,
        "test": off,
        "sidecar": { "rules": off },
        "monitoring": { "serviceMonitor": { "enabled": has_prometheus(cx) } },
    })
}
