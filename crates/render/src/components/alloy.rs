//! Alloy: the collector that sends every node's logs to Loki.

use serde_json::{Value, json};

use super::common::{has_prometheus, pod_security, resources, tolerations};
use crate::{Chart, Component, Context};

pub(super) fn alloy(cx: &Context<'_>) -> Component {
    Component {
        // It reads the host's /var/log, in a namespace of its own for that.
        namespace_labels: pod_security("privileged"),
        chart: Some(Chart {
            release: "alloy",
            values: values(cx),
            known: include_str!("values/alloy.paths"),
        }),
        requires: vec!["loki"],
        after: vec!["prometheus"],
        ..Component::new(
            "alloy",
            "The collector that sends the nodes' logs to Loki.",
            "alloy",
        )
    }
}

fn values(cx: &Context<'_>) -> Value {
    json!({
        "alloy": {
            "configMap": { "content": include_str!("alloy.config") },
            "mounts": { "varlog": true },
            "enableReporting": false,
            "resources": resources("50m", "128Mi", "512Mi"),
        },
        // The kind PodLogs, which this configuration doesn't use.
        "crds": { "create": false },
        "controller": { "type": "daemonset", "tolerations": tolerations(cx, |_| true) },
        "serviceMonitor": { "enabled": has_prometheus(cx) },
    })
}
