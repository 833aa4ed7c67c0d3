//! Argo CD's objects: an Application for each component and app, their projects, and the root.

use serde_json::{Map, Value, json};
use undercroft_model::inventory::Gitops;

use crate::{
    App, AppForm, Component, Locked,
    layout::{APPS_PROJECT, ARGOCD_NAMESPACE, FLEET_PROJECT, ROOT, TreeLayout},
    values,
};

/// Tries of a failed sync: as many as it takes. After a last one Argo CD would wait for another
/// commit, although what failed it may have passed.
const SYNC_RETRIES: i32 = -1;
/// The wait before the second try; it doubles with each.
const SYNC_BACKOFF_FIRST: &str = "10s";
/// The longest wait between two tries.
const SYNC_BACKOFF_MAX: &str = "5m";
/// The cluster that Argo CD itself runs in.
const IN_CLUSTER: &str = "https://kubernetes.default.svc";
/// Makes Argo CD delete an Application's objects with the Application.
const CASCADE: &str = "resources-finalizer.argocd.argoproj.io";
/// The annotation that orders Applications.
pub(crate) const WAVE: &str = "argocd.argoproj.io/sync-wave";

/// How an Application tells whether it is healthy, so that a wave waits for the one before.
///
/// Argo CD has no health check of its own for Applications since 1.8. Health alone doesn't do:
/// from 3.4 on, an Application whose sync failed on an object that isn't there may call itself
/// healthy (argo-cd#27917). So it must be synced, and its last operation must have succeeded.
///
/// A wave that waits holds the whole sync of the root, with the commit that it began with
/// (controller/appcontroller.go). An Application that can't become healthy by itself, such as one
/// whose chart isn't there, would keep its own mending out; so that it is called degraded, which
/// ends the sync, and the next try is with the newest commit.
///
/// Argo CD runs it with the libraries `base` and `table` and `os.time` and `os.date` alone
/// (util/lua/lua.go).
pub(crate) const APPLICATION_HEALTH: &str = include_str!("application_health.lua");

/// What all Applications of a tree have in common.
pub(crate) struct Applications<'a> {
    pub(crate) layout: &'a TreeLayout,
    pub(crate) gitops: &'a Gitops,
    pub(crate) repository: &'a str,
}

/// What one Application is about.
struct About<'a> {
    name: &'a str,
    project: &'a str,
    namespace: &'a str,
    wave: usize,
    prune: bool,
    /// Whether the Application and what it brought outlast its file in the repository.
    keep: bool,
    create_namespace: bool,
    ignore_differences: &'a [Value],
}

impl Applications<'_> {
    /// The Application of a component; its chart's entry in the lock file, where it has a chart.
    pub(crate) fn component(
        &self,
        component: &Component,
        locked: Option<&Locked>,
        wave: usize,
    ) -> Value {
        let mut sources = Vec::new();
        if let (Some(chart), Some(locked)) = (&component.chart, locked) {
            sources.push(json!({
                "repoURL": repo_url(locked.repository.as_deref().unwrap_or_default()),
                "chart": locked.chart,
                "targetRevision": locked.version,
                "helm": {
                    "releaseName": chart.release,
                    "valueFiles": [format!("$values/{}", self.layout.values(component.name))],
                },
            }));
        }
        let mut git = self.git();
        if component.chart.is_some() {
            git.insert("ref".to_owned(), "values".into());
        }
        if !component.manifests.is_empty() {
            let path = self.layout.manifests(component.name);
            git.insert("path".to_owned(), path.into());
        }
        sources.push(Value::Object(git));
        self.application(
            &About {
                name: component.name,
                project: FLEET_PROJECT,
                namespace: component.namespace,
                wave,
                prune: self.gitops.prune && component.prune && component.data.is_none(),
                keep: !component.prune || component.data.is_some(),
                create_namespace: false,
                ignore_differences: &component.ignore_differences,
            },
            sources,
        )
    }

    /// The Application of an app; `owned` says that a component already makes its namespace.
    pub(crate) fn app(&self, app: &App, wave: usize, owned: bool) -> Value {
        let holds_data = app.data().is_some();
        let mut sources = Vec::new();
        let mut git = self.git();
        match (&app.form, &app.settings.chart) {
            (AppForm::Chart { values, manifests }, Some(chart)) => {
                let mut helm = json!({ "releaseName": app.name });
                if *values {
                    let file = format!("$values/{}/values.yaml", app.folder);
                    values::set(&mut helm, &["valueFiles"], json!([file]));
                }
                sources.push(json!({
                    "repoURL": repo_url(&chart.repository),
                    "chart": chart.name,
                    "targetRevision": chart.version,
                    "helm": helm,
                }));
                if *values {
                    git.insert("ref".to_owned(), "values".into());
                }
                if *manifests {
                    git.insert(
                        "path".to_owned(),
                        format!("{}/manifests", app.folder).into(),
                    );
                }
                if *values || *manifests {
                    sources.push(Value::Object(git));
                }
            }
            (form, _) => {
                git.insert("path".to_owned(), app.folder.clone().into());
                if *form == AppForm::Plain {
                    git.insert("directory".to_owned(), json!({ "recurse": true }));
                }
                sources.push(Value::Object(git));
            }
        }
        self.application(
            &About {
                name: &app.name,
                project: APPS_PROJECT,
                namespace: app.namespace(),
                wave,
                // What holds data, or may, is pruned only where the app itself asks for that.
                prune: app
                    .settings
                    .prune
                    .unwrap_or(self.gitops.prune && !holds_data),
                keep: holds_data,
                create_namespace: !owned,
                ignore_differences: &[],
            },
            sources,
        )
    }

    /// The root: an Application of all the others.
    pub(crate) fn root(&self) -> Value {
        let mut git = self.git();
        git.insert("path".to_owned(), self.layout.applications().into());
        let mut root = self.application(
            &About {
                name: ROOT,
                project: FLEET_PROJECT,
                namespace: ARGOCD_NAMESPACE,
                wave: 0,
                prune: self.gitops.prune,
                keep: true,
                create_namespace: false,
                ignore_differences: &[],
            },
            vec![Value::Object(git)],
        );
        // It is applied by the bootstrap and by nobody else: an Application that waits for
        // itself to be healthy would wait forever.
        if let Some(metadata) = root.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("annotations");
        }
        root
    }

    /// The two projects: one for what is rendered, one for the user's own apps, which can't
    /// reach into the components' namespaces.
    pub(crate) fn projects(
        &self,
        charts: impl IntoIterator<Item = String>,
        app_charts: impl IntoIterator<Item = String>,
        namespaces: &[&str],
    ) -> Vec<Value> {
        let sources = |charts: Vec<String>| {
            let mut all: Vec<String> = charts.iter().map(|url| repo_url(url)).collect();
            all.push(self.repository.to_owned());
            all.sort();
            all.dedup();
            all
        };
        let anything = json!([{ "group": "*", "kind": "*" }]);
        let mut destinations = vec![json!({ "server": IN_CLUSTER, "namespace": "*" })];
        destinations.extend(
            namespaces
                .iter()
                .map(|name| json!({ "server": IN_CLUSTER, "namespace": format!("!{name}") })),
        );
        let project = |name: &str, about: &str, sources: Vec<String>, destinations: Vec<Value>| {
            json!({
                "apiVersion": "argoproj.io/v1alpha1",
                "kind": "AppProject",
                "metadata": {
                    "name": name,
                    "namespace": ARGOCD_NAMESPACE,
                    // A project goes before what is in it, and never while something is.
                    "annotations": { WAVE: "-1", "argocd.argoproj.io/sync-options": "Prune=false" },
                },
                "spec": {
                    "description": about,
                    "sourceRepos": sources,
                    "destinations": destinations,
                    "clusterResourceWhitelist": anything,
                    "namespaceResourceWhitelist": anything,
                },
            })
        };
        vec![
            project(
                FLEET_PROJECT,
                "What Undercroft renders: the cluster's components.",
                sources(charts.into_iter().collect()),
                vec![json!({ "server": IN_CLUSTER, "namespace": "*" })],
            ),
            project(
                APPS_PROJECT,
                "The apps of this repository's own.",
                sources(app_charts.into_iter().collect()),
                destinations,
            ),
        ]
    }

    fn git(&self) -> Map<String, Value> {
        let mut git = Map::new();
        git.insert("repoURL".to_owned(), self.repository.into());
        git.insert(
            "targetRevision".to_owned(),
            self.gitops.revision.clone().into(),
        );
        git
    }

    fn application(&self, about: &About<'_>, sources: Vec<Value>) -> Value {
        let mut options = vec!["ServerSideApply=true", "SkipDryRunOnMissingResource=true"];
        if about.create_namespace {
            options.push("CreateNamespace=true");
        }
        if !about.ignore_differences.is_empty() {
            options.push("RespectIgnoreDifferences=true");
        }
        let mut annotations = json!({ WAVE: about.wave.to_string() });
        if about.keep {
            // The root doesn't prune it when its file is gone from the repository. That it has no
            // finalizer of ours isn't enough: from Argo CD 3.3 on, the controller gives one to every
            // Application whose chart has a hook of deletion, such as Longhorn's uninstaller, and
            // runs the hook (controller/appcontroller.go, finalizeApplicationDeletion).
            let option = "argocd.argoproj.io/sync-options";
            values::set(
                &mut annotations,
                &[option],
                "Prune=false,Delete=false".into(),
            );
            // What it brought stays even where a person deletes it with everything that it has.
            options.push("Delete=false");
        }
        if about.keep || !self.gitops.prune {
            // The root is synced even while it has Applications that it isn't to prune.
            let option = "argocd.argoproj.io/compare-options";
            values::set(&mut annotations, &[option], "IgnoreExtraneous".into());
        }
        let mut metadata = json!({
            "name": about.name,
            "namespace": ARGOCD_NAMESPACE,
            "annotations": annotations,
        });
        if about.prune && !about.keep {
            values::set(&mut metadata, &["finalizers"], json!([CASCADE]));
        }
        let mut spec = json!({
            "project": about.project,
            "destination": { "server": IN_CLUSTER, "namespace": about.namespace },
            "sources": sources,
            "syncPolicy": {
                "automated": { "prune": about.prune, "selfHeal": true },
                "retry": {
                    "limit": SYNC_RETRIES,
                    // With the newest commit, which may be the one that mends it.
                    "refresh": true,
                    "backoff": {
                        "duration": SYNC_BACKOFF_FIRST,
                        "factor": 2,
                        "maxDuration": SYNC_BACKOFF_MAX,
                    },
                },
                "syncOptions": options,
            },
        });
        if !about.ignore_differences.is_empty() {
            let ignored = about.ignore_differences.into();
            values::set(&mut spec, &["ignoreDifferences"], ignored);
        }
        json!({
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Application",
            "metadata": metadata,
            "spec": spec,
        })
    }
}

/// A chart repository as Argo CD names it: it wants an OCI registry without its scheme
/// (argo-cd, docs/user-guide/helm.md).
fn repo_url(url: &str) -> String {
    url.strip_prefix("oci://").unwrap_or(url).to_owned()
}
