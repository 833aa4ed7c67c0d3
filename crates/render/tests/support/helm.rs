//! The real Helm on the real charts.

use std::{io::Write as _, process::Command};

use serde_json::Value;
use undercroft_render::{Tree, yaml};
use undercroft_testkit::{OrSkip as _, peer, skip};

use super::{CHARTS, KnownChart};

/// The version of Kubernetes that charts are rendered for, which Helm otherwise guesses.
const KUBERNETES: &str = "1.34.2";

fn chart(component: &str) -> &'static KnownChart {
    CHARTS.iter().find(|c| c.component == component).unwrap()
}

/// What Helm makes of a component's chart with given values; `None` where it can't be had.
pub(crate) fn render(component: &str, namespace: &str, values: &Value) -> Option<Vec<Value>> {
    let helm = peer("helm").or_skip()?;
    let Some(folder) = chart(component).folder() else {
        skip(format!(
            "the chart of {component} isn't in UNDERCROFT_CHARTS"
        ));
        return None;
    };
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(yaml::print(values).unwrap().as_bytes())
        .unwrap();
    let release = match component {
        "argo-cd" => "argocd",
        "prometheus" => "kube-prometheus-stack",
        other => other,
    };
    let output = Command::new(helm)
        .args(["template", release])
        .arg(folder)
        .args(["--namespace", namespace, "--kube-version", KUBERNETES])
        .args([
            "--include-crds",
            "--api-versions",
            "monitoring.coreos.com/v1",
        ])
        .arg("--values")
        .arg(file.path())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{component}: {stderr}");
    // Helm says so, and goes on, where a value of ours isn't what a template can use.
    assert!(
        !stderr.contains("coalesce.go") && !stderr.contains("overwriting"),
        "{component}: {stderr}"
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let documents = text.split("\n---").filter(|document| {
        let mut lines = document.lines().map(str::trim);
        lines.any(|line| !line.is_empty() && !line.starts_with('#') && !line.starts_with("---"))
    });
    let objects = documents.map(|document| {
        let document = document.trim_start_matches("---");
        yaml::parse(document).unwrap_or_else(|e| panic!("{component}: {e}\n{document}"))
    });
    Some(objects.filter(Value::is_object).collect())
}

/// The components with charts, and the namespaces that they go to.
pub(crate) const NAMESPACES: &[(&str, &str)] = &[
    ("alloy", "alloy"),
    ("argo-cd", "argocd"),
    ("cert-manager", "cert-manager"),
    ("cilium", "kube-system"),
    ("external-secrets", "external-secrets"),
    ("grafana", "monitoring"),
    ("loki", "monitoring"),
    ("longhorn", "longhorn-system"),
    ("nats", "nats"),
    ("node-feature-discovery", "node-feature-discovery"),
    ("nvidia-device-plugin", "nvidia-device-plugin"),
    ("prometheus", "monitoring"),
    ("sealed-secrets", "kube-system"),
];

/// What Helm makes of a component of a tree; `None` where it can't be had.
pub(crate) fn ours(tree: &Tree, component: &str) -> Option<Vec<Value>> {
    let (_, namespace) = NAMESPACES.iter().find(|(c, _)| *c == component).unwrap();
    render(component, namespace, &super::must(tree, component))
}

/// The object of a kind and a name.
pub(crate) fn named<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    objects
        .iter()
        .find(|o| o["kind"] == kind && o["metadata"]["name"] == name)
        .unwrap_or_else(|| panic!("no {kind} {name}"))
}

/// All objects of a kind.
pub(crate) fn kinds<'a>(objects: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |o| o["kind"] == kind)
}
