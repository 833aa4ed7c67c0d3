//! What the cluster's steps bring in: the rendered tree, charts, and secrets.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use serde_json::json;
use undercroft_fleet::Refused;
use undercroft_kube as kube;
use undercroft_kube::{Chart, Helm, Manifest};
use undercroft_metal::world::{BootstrapItem, ClusterParts, SecretSource};
use undercroft_model::{
    Action, BootstrapPart, Failure, FailureKind, Plan,
    inventory::{Inventory, SecretsBackend},
};
use undercroft_render::{BootstrapStep, Input, LOCK_FILE, Layout, Tree, render};
use undercroft_secrets::keys::IdentitySource;
use undercroft_secrets::{ExposeSecret as _, Vault, kubernetes_secrets};

use crate::{
    error::CliError,
    gitops::{self, Comparison, Sources},
    project::Project,
    text::count,
    ui::Ui,
};

/// The name of Helm's program.
const HELM: &str = "helm";
/// The folder of the cache in which charts are kept.
const CHARTS_DIR: &str = "charts";
/// The chart that brings the pods' network: everything up to it belongs to that part.
const NETWORK_COMPONENT: &str = "cilium";
/// The chart that brings Argo CD.
const ARGOCD_COMPONENT: &str = "argo-cd";
/// Where objects go that name no namespace.
const DEFAULT_NAMESPACE: &str = "argocd";

/// Where the parts are taken from. It is asked for each plan anew: a service outlives many trees.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) ui: Ui,
    pub(crate) project: Project,
    pub(crate) inventory: Arc<Inventory>,
    pub(crate) identity_files: Vec<PathBuf>,
    pub(crate) cache_dir: PathBuf,
}

impl Source {
    /// The same for an inventory as it stands by now.
    pub(crate) fn of(&self, inventory: &Arc<Inventory>) -> Self {
        Self {
            inventory: Arc::clone(inventory),
            ..self.clone()
        }
    }

    /// What the steps of a plan need. Refused before anything is begun where it can't be had.
    ///
    /// # Errors
    /// When the tree can't be rendered, or isn't on disk as it would be rendered, or the fleet has
    /// no secrets yet.
    pub(crate) fn parts(&self, plan: &Plan) -> Result<ClusterParts, CliError> {
        let brings_in = |part: BootstrapPart| {
            let is =
                |action: &Action| matches!(action, Action::Bootstrap { part: p } if *p == part);
            plan.steps.iter().any(|step| is(&step.action))
        };
        if plan.cluster.is_none() {
            return Ok(ClusterParts::default());
        }
        self.secrets_are_there()?;
        if !BootstrapPart::ALL.into_iter().any(brings_in) {
            return Ok(ClusterParts::default());
        }
        let tree = self.tree()?;
        let helm = Helm::new(HELM, self.cache_dir.join(CHARTS_DIR));
        Ok(ClusterParts::new(items(&tree)?, Some(helm), self.secrets()))
    }

    /// The same for a service, which has no findings to show.
    pub(crate) fn parts_for_service(&self, plan: &Plan) -> Result<ClusterParts, Refused> {
        self.parts(plan).map_err(|error| {
            let (message, hint) = error.told();
            Refused { message, hint }
        })
    }

    /// The tree, which must be on disk as it is rendered: what Argo CD finds in the repository is
    /// what the bootstrap has to bring in.
    fn tree(&self) -> Result<Tree, CliError> {
        let inventory = &self.inventory;
        let sources = Sources::read(self.ui, &self.project, inventory)?;
        let standing = gitops::standing(self.ui, &self.project, inventory)?;
        let tree = render(&Input {
            inventory,
            lock: &sources.lock,
            apps: &sources.apps,
            overrides: &sources.overrides,
            dev: None,
            standing: standing.as_ref(),
        })
        .map_err(|problems| gitops::refuse(self.ui, &self.project, &problems))?;
        let lock = BTreeMap::from([(LOCK_FILE.to_owned(), sources.lock.print())]);
        let layout = Layout::new(&inventory.gitops.path);
        let comparison = Comparison::new(&self.project, &layout, tree.clone(), lock)?;
        if comparison.differences.is_empty() {
            return Ok(tree);
        }
        Err(CliError::input(format!(
            "{} isn't as it would be rendered: {} differ",
            layout.path(),
            count(comparison.differences.len(), "file"),
        ))
        .hint(
            "Run `undercroft render`, commit and push: the bootstrap brings in what Argo CD then \
             finds in the repository.",
        ))
    }

    /// Machines can't join without what the secrets hold, so that it is better said now than when
    /// a join fails.
    fn secrets_are_there(&self) -> Result<(), CliError> {
        let secrets = &self.inventory.secrets;
        if secrets.backend != SecretsBackend::Sops {
            return Ok(());
        }
        let files = self.project.files();
        for file in ["servers.sops.yaml", "agents.sops.yaml"] {
            let there = files.is_file(format!("{}/{file}", secrets.path));
            if !there.map_err(|e| CliError::from(&e))? {
                return Err(CliError::input(format!(
                    "{}/{file} isn't there: the machines could not join a cluster",
                    secrets.path
                ))
                .hint("Run `undercroft secrets init` and commit what it writes."));
            }
        }
        Ok(())
    }

    fn secrets(&self) -> Option<SecretSource> {
        if self.inventory.secrets.backend != SecretsBackend::Sops {
            return None;
        }
        let repository = self.project.dir.clone();
        let inventory = Arc::clone(&self.inventory);
        let source = IdentitySource::usual(self.project.state(), self.identity_files.clone());
        Some(Arc::new(move || {
            let refused = |error: &dyn std::fmt::Display| {
                Failure::new(FailureKind::Permanent, error.to_string()).with_hint(
                    "`undercroft secrets check` says what is wrong with the fleet's secrets.",
                )
            };
            let vault =
                Vault::open(&repository, &inventory, source.clone()).map_err(|e| refused(&e))?;
            let secrets = kubernetes_secrets(&inventory, &vault).map_err(|e| refused(&e))?;
            let objects = secrets.iter().map(|secret| {
                let data: BTreeMap<&str, &str> = secret
                    .data
                    .iter()
                    .map(|(key, value)| (*key, value.expose_secret()))
                    .collect();
                let object = json!({
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "metadata": {
                        "name": secret.name,
                        "namespace": secret.namespace,
                        "labels": secret.labels,
                    },
                    "type": secret.kind,
                    "stringData": data,
                });
                Manifest::new("the fleet's secrets", object).map_err(|e| refused(&e))
            });
            objects.collect()
        }))
    }
}

/// The steps of a tree's bootstrap by the part that they belong to.
fn items(tree: &Tree) -> Result<Vec<(BootstrapPart, BootstrapItem)>, CliError> {
    let mut part = BootstrapPart::Network;
    let mut items = Vec::new();
    for step in &tree.bootstrap {
        match step {
            BootstrapStep::Apply { file } => {
                let manifests = kube::parse(file, text(tree, file)?)
                    .map_err(|e| CliError::bug("a rendered file can't be read").because(&e))?;
                let item = BootstrapItem::Objects {
                    manifests,
                    namespace: DEFAULT_NAMESPACE.to_owned(),
                };
                items.push((part, item));
            }
            BootstrapStep::Chart {
                component,
                release,
                namespace,
                repository,
                chart,
                version,
                digest,
                values,
            } => {
                if component == ARGOCD_COMPONENT {
                    part = BootstrapPart::ArgoCd;
                }
                let item = BootstrapItem::Chart(Chart {
                    name: chart.clone(),
                    repository: repository.clone(),
                    version: version.clone(),
                    digest: digest.clone(),
                    release: release.clone(),
                    namespace: namespace.clone(),
                    values: text(tree, values)?.to_owned(),
                });
                items.push((part, item));
                part = match component.as_str() {
                    ARGOCD_COMPONENT => BootstrapPart::RootApp,
                    NETWORK_COMPONENT => BootstrapPart::ArgoCd,
                    _ => part,
                };
            }
        }
    }
    Ok(items)
}

fn text<'a>(tree: &'a Tree, file: &str) -> Result<&'a str, CliError> {
    tree.files
        .get(file)
        .map(String::as_str)
        .ok_or_else(|| CliError::bug(format!("the bootstrap names {file}, which isn't rendered")))
}

#[cfg(test)]
mod tests {
    use undercroft_model::inventory::parse;
    use undercroft_render::Lock;

    use super::*;

    fn parts_of(distribution: &str) -> Vec<(BootstrapPart, String)> {
        let text = include_str!("../../../examples/basement/undercroft.toml").replace(
            "distribution = \"k3s\"",
            &format!("distribution = {distribution:?}"),
        );
        let inventory = parse("undercroft.toml", text.as_bytes()).inventory.unwrap();
        let tree = render(&Input {
            inventory: &inventory,
            lock: &Lock::defaults(),
            apps: &[],
            overrides: &BTreeMap::new(),
            dev: None,
            standing: None,
        })
        .unwrap();
        let items = items(&tree).unwrap().into_iter();
        items
            .map(|(part, item)| match item {
                BootstrapItem::Chart(chart) => (part, chart.name),
                BootstrapItem::Objects { manifests, .. } => {
                    (part, manifests.first().unwrap().kind().to_owned())
                }
            })
            .collect()
    }

    fn basement_in(dir: &std::path::Path) -> Source {
        let text = include_str!("../../../examples/basement/undercroft.toml");
        std::fs::write(dir.join("undercroft.toml"), text).unwrap();
        let project = Project::find(Some(dir)).unwrap();
        let inventory = parse("undercroft.toml", text.as_bytes()).inventory.unwrap();
        Source {
            ui: Ui::new(true),
            project,
            inventory: Arc::new(inventory),
            identity_files: Vec::new(),
            cache_dir: dir.join("cache"),
        }
    }

    #[test]
    fn what_the_cluster_lacks_is_said_before_anything_is_begun() {
        let dir = tempfile::tempdir().unwrap();
        let source = basement_in(dir.path());
        let (message, hint) = source.secrets_are_there().unwrap_err().told();
        assert_eq!(
            message,
            "secrets/servers.sops.yaml isn't there: the machines could not join a cluster"
        );
        assert!(hint.unwrap().contains("undercroft secrets init"));

        let (message, hint) = source.tree().unwrap_err().told();
        assert!(
            message.starts_with("gitops isn't as it would be rendered: "),
            "{message}"
        );
        assert!(hint.unwrap().contains("undercroft render"));
    }

    /// The network comes first with the namespaces that everything lies in, then Argo CD, then
    /// what needs its kinds.
    #[test]
    fn the_rendered_steps_belong_to_the_parts_in_order() {
        for distribution in ["k3s", "kubeadm"] {
            let parts = parts_of(distribution);
            let names: Vec<(BootstrapPart, &str)> =
                parts.iter().map(|(p, name)| (*p, name.as_str())).collect();
            assert_eq!(
                names,
                [
                    (BootstrapPart::Network, "Namespace"),
                    (BootstrapPart::Network, "cilium"),
                    (BootstrapPart::ArgoCd, "argo-cd"),
                    (BootstrapPart::RootApp, "AppProject"),
                    (BootstrapPart::RootApp, "Application"),
                ],
                "{distribution}"
            );
        }
    }
}
