//! Prometheus, Alertmanager and their rules, and what they watch.

use serde_json::{Value, json};
use undercroft_model::{inventory, on_machine::NODE_EXPORTER_PORT};

use super::{
    common::{
        MONITORING, claim_template, has_longhorn, late_kind, pod_security, resources,
        storage_class, storage_component,
    },
    controller,
};
use crate::{Chart, Component, Context, ManifestObject, ObjectId};

/// How long samples are kept.
const RETENTION: &str = "15d";
/// Size of the volume, and how much of it samples may take: compaction needs the rest.
const VOLUME: &str = "50Gi";
const RETENTION_SIZE: &str = "40GB";

pub(super) fn prometheus(cx: &Context<'_>) -> Component {
    Component {
        namespace_labels: pod_security("baseline"),
        chart: Some(Chart {
            release: "kube-prometheus-stack",
            values: values(cx),
            known: include_str!("values/prometheus.paths"),
        }),
        manifests: manifests(cx),
        requires: storage_component(cx),
        owns: vec![ObjectId::cluster(
            "apiextensions.k8s.io",
            "CustomResourceDefinition",
            "prometheuses.monitoring.coreos.com",
        )],
        ..Component::new(
            "prometheus",
            "Prometheus, Alertmanager and their rules.",
            MONITORING,
        )
    }
}

fn values(cx: &Context<'_>) -> Value {
    let class = storage_class(cx);
    let off = json!({ "enabled": false });
    json!({
        // Grafana is a component of its own; the dashboards for it come from here.
        "grafana": {
            "enabled": false,
            "forceDeployDashboards": cx.wants(inventory::Component::Grafana),
        },
        // Cilium stands in for kube-proxy, so that there is none to watch.
        "kubeProxy": off,
        // k3s runs these inside its one process and serves their figures with the API server's;
        // kubeadm binds them to each server's loopback. Watched as separate targets they would be
        // down for ever.
        "kubeEtcd": off,
        "kubeControllerManager": off,
        "kubeScheduler": off,
        "defaultRules": {
            "rules": {
                "etcd": false,
                "kubeControllerManager": false,
                "kubeProxy": false,
                "kubeSchedulerAlerting": false,
                "kubeSchedulerRecording": false,
            },
        },
        // Every machine runs the node exporter as a service of its system, also those that are
        // no part of the cluster; a second one on the same machines would count everything twice.
        "nodeExporter": {
            "enabled": false,
            "forceDeployDashboards": cx.wants(inventory::Component::Grafana),
        },
        "kube-state-metrics": { "resources": resources("10m", "64Mi", "256Mi") },
        "prometheusOperator": { "resources": resources("50m", "128Mi", "512Mi") },
        "prometheus": {
            "prometheusSpec": {
                "retention": RETENTION,
                "retentionSize": RETENTION_SIZE,
                "storageSpec": { "volumeClaimTemplate": claim_template(class, VOLUME) },
                "resources": resources("500m", "2Gi", "8Gi"),
                // What to watch is said by objects in any namespace, whoever made them.
                "serviceMonitorSelectorNilUsesHelmValues": false,
                "podMonitorSelectorNilUsesHelmValues": false,
                "probeSelectorNilUsesHelmValues": false,
                "ruleSelectorNilUsesHelmValues": false,
                "scrapeConfigSelectorNilUsesHelmValues": false,
            },
        },
        "alertmanager": {
            "alertmanagerSpec": {
                "storage": { "volumeClaimTemplate": claim_template(class, "2Gi") },
                "resources": resources("10m", "64Mi", "256Mi"),
            },
        },
    })
}

/// What is watched of the components that come before Prometheus, whose own charts can't say it:
/// the kinds aren't there yet when they are brought in.
fn manifests(cx: &Context<'_>) -> Vec<ManifestObject> {
    let mut monitors = vec![
        monitor(
            "cilium",
            "kube-system",
            json!({ "k8s-app": "cilium" }),
            &["prometheus", "hubble-metrics"],
        ),
        monitor(
            "cilium-operator",
            "kube-system",
            json!({ "io.cilium/app": "operator" }),
            &["prometheus"],
        ),
        monitor(
            "argo-cd",
            "argocd",
            json!({ "app.kubernetes.io/part-of": "argocd" }),
            &["metrics"],
        ),
    ];
    if has_longhorn(cx) {
        monitors.push(monitor(
            "longhorn",
            "longhorn-system",
            json!({ "app": "longhorn-manager" }),
            &["manager"],
        ));
    }
    if cx.wants(inventory::Component::CertManager) {
        monitors.push(monitor(
            "cert-manager",
            "cert-manager",
            json!({ "app.kubernetes.io/instance": "cert-manager" }),
            &["http-metrics"],
        ));
    }
    if !cx.is_dev() {
        monitors.push(machines(cx));
    }
    monitors.extend(controller::watched(cx));
    monitors
}

fn monitor(name: &str, namespace: &str, labels: Value, ports: &[&str]) -> ManifestObject {
    let endpoints: Vec<Value> = ports.iter().map(|port| json!({ "port": port })).collect();
    ManifestObject::new(
        "monitors.yaml",
        json!({
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PodMonitor",
            "metadata": { "name": name, "namespace": MONITORING, "annotations": late_kind() },
            "spec": {
                "namespaceSelector": { "matchNames": [namespace] },
                "selector": { "matchLabels": labels },
                "podMetricsEndpoints": endpoints,
            },
        }),
    )
}

/// Every machine of the inventory, by its name.
fn machines(cx: &Context<'_>) -> ManifestObject {
    let targets: Vec<Value> = cx
        .inventory
        .nodes
        .iter()
        .map(|(name, node)| {
            json!({
                "targets": [format!("{}:{NODE_EXPORTER_PORT}", node.address)],
                // The rules and dashboards that come with the chart look for this job.
                "labels": {
                    "job": "node-exporter",
                    "instance": name.to_string(),
                    "class": node.class.to_string(),
                },
            })
        })
        .collect();
    ManifestObject::new(
        "machines.yaml",
        json!({
            "apiVersion": "monitoring.coreos.com/v1alpha1",
            "kind": "ScrapeConfig",
            "metadata": { "name": "machines", "namespace": MONITORING, "annotations": late_kind() },
            "spec": { "staticConfigs": targets },
        }),
    )
    .comment("The node exporter of every machine, also of those outside of the cluster.")
}
