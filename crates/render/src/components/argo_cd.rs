//! Argo CD, which keeps the cluster equal to the repository, itself included.

use serde_json::{Value, json};

use super::common::{
    INGRESS_CLASS, ingress_annotations, ingress_domain, pod_security, replicas, resources,
    server_tolerations,
};
use crate::{Chart, Component, Context, ObjectId};

pub(super) use undercroft_model::objects::ARGOCD_NAMESPACE as NAMESPACE;

pub(super) fn argo_cd(cx: &Context<'_>) -> Component {
    Component {
        namespace_labels: pod_security("baseline"),
        chart: Some(Chart {
            release: "argocd",
            values: values(cx),
            known: include_str!("values/argo-cd.paths"),
        }),
        prune: false,
        owns: vec![
            ObjectId::cluster(
                "apiextensions.k8s.io",
                "CustomResourceDefinition",
                "applications.argoproj.io",
            ),
            ObjectId::cluster(
                "apiextensions.k8s.io",
                "CustomResourceDefinition",
                "appprojects.argoproj.io",
            ),
            ObjectId::namespaced("", "ConfigMap", NAMESPACE, "argocd-cm"),
            ObjectId::namespaced("", "ConfigMap", NAMESPACE, "argocd-cmd-params-cm"),
        ],
        ..Component::new(
            "argo-cd",
            "Argo CD, which keeps the cluster equal to the repository.",
            NAMESPACE,
        )
    }
}

fn values(cx: &Context<'_>) -> Value {
    let host = ingress_domain(cx).map(|domain| format!("argocd.{domain}"));
    let domain = host.clone().unwrap_or_else(|| {
        let cluster = &cx.inventory.kubernetes.cluster_domain;
        format!("argocd-server.{NAMESPACE}.svc.{cluster}")
    });
    let replicas = if cx.is_dev() { 1 } else { replicas(cx) };
    let mut values = json!({
        "crds": { "install": true, "keep": true },
        "global": {
            "domain": domain,
            // The bootstrap wants Argo CD healthy before there is any agent.
            "tolerations": server_tolerations(cx),
        },
        "configs": {
            "cm": {
                // A label would be set on objects that others copy it from; Argo CD then takes the
                // copies for its own (argo-cd.readthedocs.io, "Resource Tracking").
                "application.resourceTrackingMethod": "annotation",
                "exec.enabled": false,
                "resource.compareoptions": "ignoreAggregatedRoles: true\n",
            },
            "params": {
                // Behind the Ingress the page has TLS already; without one it keeps its own.
                "server.insecure": host.is_some(),
                // Compares as the API server would apply, so that defaults and fields of other
                // managers are no drift.
                "controller.diff.server.side": true,
            },
        },
        "dex": { "enabled": false },
        "notifications": { "enabled": false },
        // The tree makes Applications itself; nothing is generated in the cluster.
        "applicationSet": { "replicas": 0 },
        "redis-ha": { "enabled": false },
        "controller": {
            "replicas": 1,
            "metrics": { "enabled": true },
            "resources": resources("250m", "512Mi", "2Gi"),
        },
        "server": {
            "replicas": replicas,
            "metrics": { "enabled": true },
            "resources": resources("50m", "128Mi", "512Mi"),
        },
        "repoServer": {
            "replicas": replicas,
            "metrics": { "enabled": true },
            "resources": resources("100m", "256Mi", "1Gi"),
        },
        "redis": { "resources": resources("50m", "64Mi", "256Mi") },
    });
    if let (Some(host), Some(server)) = (host, values.get_mut("server")) {
        crate::values::merge(
            server,
            &json!({
                "ingress": {
                    "enabled": true,
                    "ingressClassName": INGRESS_CLASS,
                    "hostname": host,
                    "tls": true,
                    "annotations": ingress_annotations(cx),
                },
            }),
        );
    }
    values
}
