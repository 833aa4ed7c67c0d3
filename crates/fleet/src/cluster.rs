//! What the steps of a cluster bring in: the rendered tree, charts, and secrets.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::json;
use undercroft_folder::confined::{Confined, ConfinedError};
use undercroft_kube as kube;
use undercroft_kube::{Helm, HelmChart, KubeError, Manifest};
use undercroft_metal::world::{BootstrapItem, ClusterParts, SecretSource};
use undercroft_model::{
    Action, BootstrapPart, Failure, FailureKind, Plan,
    advice::{Advice, ErrorKind, FileFailure},
    words::count,
};
use undercroft_render::{BootstrapStep, Problem, Tree};
use undercroft_secrets::keys::IdentitySource;
use undercroft_secrets::{ExposeSecret as _, KubernetesSecret, Vault, kubernetes_secrets};

use crate::{
    fleet::Fleet,
    gitops::{self, GitopsError, Parting, Rendering},
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

/// Why the parts of a cluster can't be had.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The tree can't be rendered.
    #[error(transparent)]
    Gitops(#[from] GitopsError),
    /// A file of the fleet's folder can't be used.
    #[error(transparent)]
    Confined(#[from] ConfinedError),
    /// What would be rendered isn't what is on disk.
    #[error("{path} isn't as it would be rendered: {} differ", count(*differ, "file"))]
    NotAsRendered {
        /// The tree's folder.
        path: String,
        /// How many files differ.
        differ: usize,
    },
    /// Machines can't join without what the secrets hold.
    #[error("{file} isn't there: the machines could not join a cluster")]
    NoSecrets {
        /// The file, from the inventory's folder.
        file: String,
    },
    /// A rendered file can't be read, which is a bug.
    #[error("a rendered file can't be read")]
    Unreadable {
        /// Why.
        source: KubeError,
    },
    /// The bootstrap names a file that isn't rendered, which is a bug.
    #[error("the bootstrap names {file}, which isn't rendered")]
    NotRendered {
        /// The file.
        file: String,
    },
}

impl ClusterError {
    /// What is wrong with what the tree is rendered from, one by one.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Gitops(error) => error.problems(),
            _ => &[],
        }
    }
}

impl Advice for ClusterError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Gitops(error) => error.kind(),
            Self::Confined(error) => error.kind(),
            Self::NotAsRendered { .. } | Self::NoSecrets { .. } => ErrorKind::Input,
            Self::Unreadable { .. } | Self::NotRendered { .. } => ErrorKind::Bug,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Gitops(error) => error.hint(),
            Self::Confined(error) => error.hint(),
            Self::NotAsRendered { .. } => Some(
                "Run `undercroft render`, commit and push: the bootstrap brings in what Argo CD then \
                 finds in the repository."
                    .to_owned(),
            ),
            Self::NoSecrets { .. } => {
                Some("Run `undercroft secrets init` and commit what it writes.".to_owned())
            }
            Self::Unreadable { .. } | Self::NotRendered { .. } => None,
        }
    }

    fn file(&self) -> Option<FileFailure<'_>> {
        match self {
            Self::Gitops(error) => error.file(),
            Self::Confined(error) => error.file(),
            _ => None,
        }
    }
}

impl Fleet {
    /// What the steps of a plan need. Refused before anything is begun where it can't be had.
    ///
    /// # Errors
    /// When the tree can't be rendered, or isn't on disk as it would be rendered, or the fleet has
    /// no secrets yet.
    pub fn cluster_parts(&self, plan: &Plan) -> Result<ClusterParts, ClusterError> {
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
        let charts = self.settings().cache_dir.join(CHARTS_DIR);
        let helm = Helm::new(HELM, charts);
        Ok(ClusterParts::new(
            items(&tree)?,
            Some(helm),
            Some(self.cluster_secrets()),
        ))
    }

    /// The tree, which must be on disk as it is rendered: what Argo CD finds in the repository is
    /// what the bootstrap has to bring in.
    fn tree(&self) -> Result<Tree, ClusterError> {
        let inventory = self.inventory();
        let files = Confined::new(&self.settings().repository);
        let standing = gitops::standing(&files, inventory)?;
        let nobody_parts = Parting::default();
        let Rendering {
            tree,
            layout,
            comparison,
            ..
        } = Rendering::new(&files, inventory, standing.as_ref(), &nobody_parts)?;
        if comparison.differences.is_empty() {
            return Ok(tree);
        }
        Err(ClusterError::NotAsRendered {
            path: layout.path().to_owned(),
            differ: comparison.differences.len(),
        })
    }

    /// Machines can't join without what the secrets hold, so that it is better said now than when
    /// a join fails.
    fn secrets_are_there(&self) -> Result<(), ClusterError> {
        let secrets = &self.inventory().secrets;
        let files = Confined::new(&self.settings().repository);
        for file in ["servers.sops.yaml", "agents.sops.yaml"] {
            let file = format!("{}/{file}", secrets.path);
            if !files.is_file(&file)? {
                return Err(ClusterError::NoSecrets { file });
            }
        }
        Ok(())
    }

    /// The objects that hold secrets, decrypted when they are asked for.
    fn cluster_secrets(&self) -> SecretSource {
        let settings = self.settings();
        let repository = settings.repository.clone();
        let inventory = Arc::clone(&settings.inventory);
        let identities = settings.identity_files.clone();
        let source = IdentitySource::usual(&settings.state_dir, identities);
        Arc::new(move || {
            let vault = Vault::open(&repository, &inventory, source.clone());
            let secrets = vault.and_then(|vault| kubernetes_secrets(&inventory, &vault));
            let secrets = secrets.map_err(|error| refused(&error))?;
            secrets.iter().map(object).collect()
        })
    }
}

/// A secret as the object that Kubernetes is given.
fn object(secret: &KubernetesSecret) -> Result<Manifest, Failure> {
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
    Manifest::new("the fleet's secrets", object).map_err(|error| refused(&error))
}

fn refused(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(FailureKind::Permanent, error.to_string())
        .with_hint("`undercroft secrets check` says what is wrong with the fleet's secrets.")
}

/// The steps of a tree's bootstrap by the part that they belong to.
fn items(tree: &Tree) -> Result<Vec<(BootstrapPart, BootstrapItem)>, ClusterError> {
    let mut part = BootstrapPart::Network;
    let mut items = Vec::new();
    for step in &tree.bootstrap {
        match step {
            BootstrapStep::Apply { file } => {
                let manifests = kube::parse(file, text(tree, file)?)
                    .map_err(|source| ClusterError::Unreadable { source })?;
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
                let item = BootstrapItem::Chart(HelmChart {
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

fn text<'a>(tree: &'a Tree, file: &str) -> Result<&'a str, ClusterError> {
    tree.files
        .get(file)
        .map(String::as_str)
        .ok_or_else(|| ClusterError::NotRendered {
            file: file.to_owned(),
        })
}

#[cfg(test)]
mod tests {
    use undercroft_model::inventory::parse;
    use undercroft_render::{Lock, RenderInput, render};

    use super::*;

    fn parts_of(distribution: &str) -> Vec<(BootstrapPart, String)> {
        let text = include_str!("../../../examples/basement/undercroft.toml").replace(
            "distribution = \"k3s\"",
            &format!("distribution = {distribution:?}"),
        );
        let inventory = parse("undercroft.toml", text.as_bytes()).inventory.unwrap();
        let tree = render(&RenderInput {
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

    #[test]
    fn what_the_cluster_lacks_is_said_before_anything_is_begun() {
        let dir = tempfile::tempdir().unwrap();
        let text = include_str!("../../../examples/basement/undercroft.toml");
        std::fs::write(dir.path().join("undercroft.toml"), text).unwrap();
        let fleet = Fleet::open(dir.path()).unwrap();
        let error = fleet.secrets_are_there().unwrap_err();
        assert_eq!(
            error.to_string(),
            "secrets/servers.sops.yaml isn't there: the machines could not join a cluster"
        );
        assert!(error.hint().unwrap().contains("undercroft secrets init"));

        let error = fleet.tree().unwrap_err();
        let message = error.to_string();
        assert!(
            message.starts_with("gitops isn't as it would be rendered: "),
            "{message}"
        );
        assert!(error.hint().unwrap().contains("undercroft render"));
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
