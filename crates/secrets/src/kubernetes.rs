//! Secrets that live in the cluster: Undercroft applies them, and nobody else owns them.

use std::collections::BTreeMap;

use age::secrecy::{ExposeSecret as _, SecretString};
use undercroft_model::{
    inventory::{Component, Inventory, SecretsBackend},
    objects::{
        ARGOCD_NAMESPACE, GRAFANA_PASSWORD_KEY, GRAFANA_SECRET, GRAFANA_USER_KEY,
        LENDING_SERVER_KEY, LENDING_SERVER_SECRET, MONITORING_NAMESPACE, NATS_NAMESPACE,
        REPOSITORY_SECRET,
    },
};

use super::{
    SecretsError, Vault,
    catalogue::{LENDING_SERVER_SEED, is_ssh},
};

/// A Kubernetes Secret that is to be in the cluster.
#[derive(Debug)]
pub struct KubernetesSecret {
    /// Its namespace.
    pub namespace: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: &'static str,
    /// Its labels.
    pub labels: BTreeMap<&'static str, &'static str>,
    /// Its values, as `stringData` has them.
    pub data: BTreeMap<&'static str, SecretString>,
}

/// The Secrets of the cluster, with what was made or given so far.
///
/// # Errors
/// When a file can't be opened.
pub fn kubernetes_secrets(
    inventory: &Inventory,
    vault: &Vault,
) -> Result<Vec<KubernetesSecret>, SecretsError> {
    let mut secrets = Vec::new();
    if let Some(url) = &inventory.gitops.repository {
        let mut data = BTreeMap::new();
        if is_ssh(url) {
            if let Some(key) = vault.get("argocd/repository_ssh_key")? {
                data.insert("sshPrivateKey", key);
            }
        } else {
            for (key, name) in [
                ("username", "argocd/repository_username"),
                ("password", "argocd/repository_password"),
            ] {
                if let Some(value) = vault.get(name)? {
                    data.insert(key, value);
                }
            }
        }
        data.insert("type", SecretString::from("git"));
        data.insert("url", SecretString::from(url.as_str()));
        secrets.push(KubernetesSecret {
            namespace: ARGOCD_NAMESPACE,
            name: REPOSITORY_SECRET,
            kind: "Opaque",
            labels: [("argocd.argoproj.io/secret-type", "repository")].into(),
            data,
        });
    }
    if inventory.gitops.components.contains(&Component::Grafana)
        && inventory.secrets.backend != SecretsBackend::Vault
        && let Some(password) = vault.get("grafana/admin_password")?
    {
        secrets.push(KubernetesSecret {
            namespace: MONITORING_NAMESPACE,
            name: GRAFANA_SECRET,
            kind: "Opaque",
            labels: BTreeMap::new(),
            data: [
                (GRAFANA_USER_KEY, SecretString::from("admin")),
                (GRAFANA_PASSWORD_KEY, password),
            ]
            .into(),
        });
    }
    if inventory
        .gitops
        .components
        .contains(&Component::LendingServer)
        && inventory.secrets.backend != SecretsBackend::Vault
        && let Some(seed) = vault.get(LENDING_SERVER_SEED)?
    {
        secrets.push(KubernetesSecret {
            namespace: NATS_NAMESPACE,
            name: LENDING_SERVER_SECRET,
            kind: "Opaque",
            labels: BTreeMap::new(),
            data: [(LENDING_SERVER_KEY, seed)].into(),
        });
    }
    debug_assert!(
        secrets
            .iter()
            .all(|s| s.data.values().all(|v| !v.expose_secret().is_empty())),
        "an empty value is none"
    );
    Ok(secrets)
}
