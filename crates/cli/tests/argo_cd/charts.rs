//! Charts that stand in for the real ones: of the same names and versions, each with one object
//! that shows the values that it was given, and with what others of the tree need of it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use undercroft_kube::Manifest;

/// What every stand-in brings.
const VALUES: &str = "\
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .Release.Name }}-values
  namespace: {{ .Release.Namespace }}
data:
  values: {{ toYaml .Values | quote }}
";

/// What Argo CD's own chart makes of `configs.cm`: the settings that Argo CD reads.
const ARGO_CD: &str = "\
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: argocd-cm
  namespace: {{ .Release.Namespace }}
  labels:
    app.kubernetes.io/part-of: argocd
data:
{{- range $key, $value := .Values.configs.cm }}
  {{ $key }}: {{ $value | toString | quote }}
{{- end }}
";

/// Something that would be restarted by a change of its pods' template.
const CILIUM: &str = "\
---
apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: cilium
  namespace: {{ .Release.Namespace }}
spec:
  selector:
    matchLabels:
      k8s-app: cilium
  template:
    metadata:
      labels:
        k8s-app: cilium
    spec:
      containers:
        - name: cilium-agent
          image: registry.example/cilium:{{ .Chart.Version }}
          env:
            - name: KUBERNETES_SERVICE_HOST
              value: {{ .Values.k8sServiceHost | quote }}
";

/// What Longhorn's chart has in `templates/uninstall-job.yaml`.
const LONGHORN: &str = "\
---
apiVersion: batch/v1
kind: Job
metadata:
  name: longhorn-uninstall
  namespace: {{ .Release.Namespace }}
  annotations:
    helm.sh/hook: pre-delete
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
spec:
  template:
    spec:
      restartPolicy: Never
      containers:
        - name: longhorn-uninstall
          image: registry.example/longhorn-manager:{{ .Chart.Version }}
";

/// The component that brings the kinds of a group.
const KINDS: [(&str, &str); 3] = [
    ("cilium.io", "cilium"),
    ("cert-manager.io", "cert-manager"),
    ("monitoring.coreos.com", "prometheus"),
];

/// A chart that an Application names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ChartSource {
    pub(crate) component: String,
    pub(crate) repository: String,
    pub(crate) name: String,
    pub(crate) version: String,
}

/// The charts of the Applications among objects.
pub(crate) fn sources(objects: &[Manifest]) -> Vec<ChartSource> {
    let mut found = Vec::new();
    for object in objects.iter().filter(|o| o.kind() == "Application") {
        let spec = object.object.get("spec").unwrap();
        let many = spec.get("sources").and_then(Value::as_array);
        for source in many.into_iter().flatten().chain(spec.get("source")) {
            let text = |key: &str| source.get(key).and_then(Value::as_str).map(str::to_owned);
            if let (Some(name), Some(repository), Some(version)) =
                (text("chart"), text("repoURL"), text("targetRevision"))
            {
                found.push(ChartSource {
                    component: object.name().to_owned(),
                    repository,
                    name,
                    version,
                });
            }
        }
    }
    found
}

/// Packs a stand-in for each chart into the folder of its repository, and writes the repositories'
/// indices.
pub(crate) fn pack(
    helm: &Path,
    charts: &[ChartSource],
    objects: &[Manifest],
    folder_of: &dyn Fn(&ChartSource) -> PathBuf,
) {
    let mut folders: Vec<PathBuf> = Vec::new();
    for chart in charts {
        let folder = folder_of(chart);
        let archive = folder.join(format!("{}-{}.tgz", chart.name, chart.version));
        if archive.exists() {
            continue;
        }
        let source = tempfile::tempdir().unwrap();
        let path = source.path().join(&chart.name);
        fs::create_dir_all(path.join("templates")).unwrap();
        fs::create_dir_all(path.join("crds")).unwrap();
        let about = json!({ "apiVersion": "v2", "name": chart.name, "version": chart.version });
        fs::write(path.join("Chart.yaml"), about.to_string()).unwrap();
        let own = match chart.component.as_str() {
            "argo-cd" => ARGO_CD,
            "cilium" => CILIUM,
            "longhorn" => LONGHORN,
            _ => "",
        };
        fs::write(path.join("templates/all.yaml"), format!("{VALUES}{own}")).unwrap();
        let kinds = kinds(&chart.component, objects);
        for (name, kind) in kinds {
            fs::write(path.join(format!("crds/{name}.json")), kind.to_string()).unwrap();
        }
        fs::create_dir_all(&folder).unwrap();
        let path = path.display().to_string();
        let to = folder.display().to_string();
        run(helm, &["package", &path, "--destination", &to]);
        folders.push(folder);
    }
    folders.sort();
    folders.dedup();
    for folder in folders {
        run(helm, &["repo", "index", &folder.display().to_string()]);
    }
}

/// Definitions, without a schema, of the kinds that objects of the tree are of and that a
/// component's chart is to bring.
fn kinds(component: &str, objects: &[Manifest]) -> BTreeMap<String, Value> {
    let mut kinds = BTreeMap::new();
    for object in objects {
        let Some((group, version)) = object.api_version().split_once('/') else {
            continue;
        };
        if !KINDS.contains(&(group, component)) {
            continue;
        }
        let namespaced = object.object.pointer("/metadata/namespace").is_some();
        let kind = object.kind();
        let plural = match kind.to_lowercase() {
            word if word.ends_with('y') => format!("{}ies", word.trim_end_matches('y')),
            word => format!("{word}s"),
        };
        let name = format!("{plural}.{group}");
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": { "name": name },
            "spec": {
                "group": group,
                "names": { "kind": kind, "plural": plural },
                "scope": if namespaced { "Namespaced" } else { "Cluster" },
                "versions": [{
                    "name": version,
                    "served": true,
                    "storage": true,
                    "subresources": { "status": {} },
                    "schema": { "openAPIV3Schema": {
                        "type": "object",
                        "x-kubernetes-preserve-unknown-fields": true,
                    } },
                }],
            },
        });
        kinds.insert(name, definition);
    }
    kinds
}

fn run(helm: &Path, words: &[&str]) {
    let output = Command::new(helm).args(words).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "helm {}: {stderr}",
        words.join(" ")
    );
}
