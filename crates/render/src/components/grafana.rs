//! Grafana: dashboards.

use serde_json::{Value, json};
use undercroft_model::{
    inventory,
    objects::{GRAFANA_PASSWORD_KEY, GRAFANA_SECRET, GRAFANA_USER_KEY},
};

use super::{
    common::{
        INGRESS_CLASS, MONITORING, has_prometheus, ingress_annotations, ingress_domain,
        pod_security, resources, storage_class, storage_component,
    },
    controller,
};
use crate::{Chart, Component, Context};

pub(super) fn grafana(cx: &Context<'_>) -> Component {
    Component {
        namespace_labels: pod_security("baseline"),
        chart: Some(Chart {
            release: "grafana",
            values: values(cx),
            known: include_str!("values/grafana.paths"),
        }),
        // Without Prometheus there is nothing that it could show.
        manifests: controller::dashboard(cx)
            .filter(|_| has_prometheus(cx))
            .into_iter()
            .collect(),
        requires: storage_component(cx),
        after: vec![
            "prometheus",
            "loki",
            "cert-manager",
            "external-secrets",
            "sealed-secrets",
        ],
        ..Component::new("grafana", "Dashboards.", MONITORING)
    }
}

fn values(cx: &Context<'_>) -> Value {
    let mut sources = Vec::new();
    if has_prometheus(cx) {
        sources.push(json!({
            "name": "Prometheus",
            "uid": "prometheus",
            "type": "prometheus",
            "url": format!("http://kube-prometheus-stack-prometheus.{MONITORING}:9090"),
            "isDefault": true,
        }));
        sources.push(json!({
            "name": "Alertmanager",
            "uid": "alertmanager",
            "type": "alertmanager",
            "url": format!("http://kube-prometheus-stack-alertmanager.{MONITORING}:9093"),
            "jsonData": { "implementation": "prometheus" },
        }));
    }
    if cx.wants(inventory::Component::Loki) {
        sources.push(json!({
            "name": "Loki",
            "uid": "loki",
            "type": "loki",
            "url": format!("http://loki.{MONITORING}:3100"),
        }));
    }
    let host = ingress_domain(cx).map(|domain| format!("grafana.{domain}"));
    let mut values = json!({
        // Without it the chart makes a new password at every rendering.
        "admin": {
            "existingSecret": GRAFANA_SECRET,
            "userKey": GRAFANA_USER_KEY,
            "passwordKey": GRAFANA_PASSWORD_KEY,
        },
        "persistence": {
            "enabled": true,
            "size": "5Gi",
            "storageClassName": storage_class(cx),
            // Asks the cluster while the chart is rendered, which Argo CD can't.
            "lookupVolumeName": false,
        },
        // Its one volume can't be mounted twice, so that the old pod must go first.
        "deploymentStrategy": { "type": "Recreate" },
        "datasources": { "datasources.yaml": { "apiVersion": 1, "datasources": sources } },
        "sidecar": {
            "dashboards": { "enabled": true, "labelValue": "1", "searchNamespace": "ALL" },
        },
        "grafana.ini": {
            "analytics": { "check_for_updates": false, "reporting_enabled": false },
        },
        "serviceMonitor": { "enabled": has_prometheus(cx) },
        "testFramework": { "enabled": false },
        "resources": resources("50m", "256Mi", "1Gi"),
    });
    if let Some(host) = host {
        crate::values::merge(
            &mut values,
            &json!({
                "ingress": {
                    "enabled": true,
                    "ingressClassName": INGRESS_CLASS,
                    "hosts": [host],
                    "tls": [{ "hosts": [host], "secretName": "grafana-tls" }],
                    "annotations": ingress_annotations(cx),
                },
                "grafana.ini": { "server": { "root_url": format!("https://{host}/") } },
            }),
        );
    }
    values
}
