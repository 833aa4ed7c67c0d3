//! All files of secrets in memory at once, where values are made from one another.

use std::collections::BTreeMap;

use undercroft_sops::{Opened, Value};

use super::{Vault, consent::Writing};
use crate::{ExposeSecret as _, Make, Secret, SecretFile, SecretString, SecretsError, make};

/// The secret that another is made from.
pub(crate) fn source_of(make: &Make) -> Option<&'static str> {
    match make {
        Make::K3sToken { .. } => Some("k3s/tls/server-ca.crt"),
        Make::PublicKeyOf(from)
        | Make::AgeRecipientOf(from)
        | Make::CopyOf(from)
        | Make::CaHashOf(from) => Some(from),
        _ => None,
    }
}

/// The files, each after those that its secrets are made from.
pub(crate) fn in_writing_order(files: &[SecretFile]) -> Vec<&SecretFile> {
    let holds = |file: &SecretFile, name: &str| file.secrets.iter().any(|s| s.name == name);
    let mut left: Vec<&SecretFile> = files.iter().collect();
    let mut order = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let next = left.iter().position(|file| {
            let mut sources = file.secrets.iter().filter_map(|s| source_of(&s.make));
            sources.all(|source| {
                let elsewhere =
                    |other: &&SecretFile| other.path != file.path && holds(other, source);
                !left.iter().any(elsewhere)
            })
        });
        // No two files follow from each other; the catalogue's tests would show it.
        order.push(left.remove(next.unwrap_or(0)));
    }
    order
}

/// All files at once, opened.
pub(crate) struct Open {
    trees: BTreeMap<String, (Option<Opened>, Value)>,
}

impl Open {
    pub(crate) fn all(vault: &Vault) -> Result<Self, SecretsError> {
        let mut trees = BTreeMap::new();
        for file in &vault.files {
            let opened = vault.unlock(&file.path)?;
            let tree = opened
                .as_ref()
                .map_or_else(Value::map, |opened| opened.tree.clone());
            trees.insert(file.path.clone(), (opened, tree));
        }
        Ok(Self { trees })
    }

    pub(crate) fn text(&self, file: &str, name: &str) -> Option<&str> {
        let (_, tree) = self.trees.get(file)?;
        tree.get(name)?.as_text().filter(|text| !text.is_empty())
    }

    /// A value that is there and isn't a text is somebody's mistake, and no missing one.
    pub(crate) fn require_text(
        &self,
        vault: &Vault,
        file: &str,
        name: &str,
    ) -> Result<(), SecretsError> {
        match self.trees.get(file).and_then(|(_, tree)| tree.get(name)) {
            None | Some(Value::Text(_) | Value::Null) => Ok(()),
            Some(_) => Err(SecretsError::NotText {
                path: vault.path(file),
                name: name.to_owned(),
            }),
        }
    }

    fn anywhere(&self, name: &str) -> Option<&str> {
        self.trees.keys().find_map(|file| self.text(file, name))
    }

    pub(crate) fn put(&mut self, file: &str, name: &str, value: &SecretString) {
        if let Some((_, tree)) = self.trees.get_mut(file) {
            tree.set(name, Value::text(value.expose_secret()));
        }
    }

    pub(crate) fn take(&mut self, file: &str, name: &str) {
        // It keeps its place in the file: the value alone is emptied.
        if self.text(file, name).is_some() {
            self.put(file, name, &SecretString::from(String::new()));
        }
    }

    /// Makes a secret, and what is made with it.
    pub(crate) fn make<'a>(
        &mut self,
        vault: &Vault,
        file: &'a SecretFile,
        secret: &'a Secret,
        now_s: u64,
    ) -> Result<Vec<&'a Secret>, SecretsError> {
        if matches!(secret.make, Make::CaCertificate { .. } | Make::CaKey) {
            return self.make_authority(vault, file, secret, now_s);
        }
        let value = self.value(file, secret)?;
        self.put(&file.path, &secret.name, &value);
        Ok(vec![secret])
    }

    /// The value of a secret that isn't half of an authority: a new one, or what follows from
    /// another.
    pub(crate) fn value(
        &self,
        file: &SecretFile,
        secret: &Secret,
    ) -> Result<SecretString, SecretsError> {
        let name = &secret.name;
        let unmakable = |detail: String| SecretsError::Unmakable {
            name: name.clone(),
            detail,
        };
        let underivable = |from: &str, detail: String| SecretsError::Underivable {
            name: name.clone(),
            from: from.to_owned(),
            detail,
        };
        let source = |open: &Self, from: &str| {
            open.anywhere(from)
                .map(SecretString::from)
                .ok_or_else(|| underivable(from, "it isn't there".to_owned()))
        };
        Ok(match &secret.make {
            Make::CaCertificate { .. } | Make::CaKey => {
                return Err(unmakable("it is made with its other half".to_owned()));
            }
            Make::Password => make::password(),
            Make::K3sToken { user } => {
                let ca = source(self, "k3s/tls/server-ca.crt")?;
                let password = self
                    .text(&file.path, name)
                    .and_then(make::password_of_k3s_token)
                    .map_or_else(make::password, SecretString::from);
                make::k3s_token(ca.expose_secret(), user, password.expose_secret())
            }
            Make::SigningKey { sec1 } => if *sec1 {
                make::signing_key_sec1()
            } else {
                make::signing_key()
            }
            .map_err(|e| unmakable(e.to_string()))?,
            Make::PublicKeyOf(from) => make::public_key(source(self, from)?.expose_secret())
                .map_err(|e| underivable(from, e.to_string()))?,
            Make::EncryptionConfig { json } => make::encryption_config(*json),
            Make::AgeIdentity => make::age_identity(),
            Make::AgeRecipientOf(from) => {
                let identity: age::x25519::Identity = source(self, from)?
                    .expose_secret()
                    .trim()
                    .parse()
                    .map_err(|e: &str| underivable(from, e.to_owned()))?;
                SecretString::from(identity.to_public().to_string())
            }
            Make::CopyOf(from) => source(self, from)?,
            Make::CaHashOf(from) => {
                let key = from.replace(".crt", ".key");
                make::ca_hash(source(self, &key)?.expose_secret())
                    .map_err(|e| underivable(&key, e.to_string()))?
            }
            Make::TailscaleKey => make::tailscale_key(),
            Make::NatsSeed(kind) => make::nats_seed(*kind).map_err(|e| unmakable(e.to_string()))?,
            Make::SshKey => make::ssh_key("argocd").map_err(|e| unmakable(e.to_string()))?,
            Make::Asked => return Err(SecretsError::MustBeGiven { name: name.clone() }),
        })
    }

    /// A certificate and its key are made together or not at all.
    fn make_authority<'a>(
        &mut self,
        vault: &Vault,
        file: &'a SecretFile,
        secret: &'a Secret,
        now_s: u64,
    ) -> Result<Vec<&'a Secret>, SecretsError> {
        let stem = secret
            .name
            .strip_suffix(".crt")
            .or_else(|| secret.name.strip_suffix(".key"))
            .unwrap_or(&secret.name);
        let of = |suffix: &str| {
            let name = format!("{stem}{suffix}");
            file.secrets.iter().find(|s| s.name == name)
        };
        let (Some(certificate), Some(key)) = (of(".crt"), of(".key")) else {
            return Err(SecretsError::NoSuchSecret {
                name: secret.name.clone(),
            });
        };
        let Make::CaCertificate { common_name } = &certificate.make else {
            return Err(SecretsError::NoSuchSecret {
                name: certificate.name.clone(),
            });
        };
        let other = if secret.name == key.name {
            certificate
        } else {
            key
        };
        let is_new = !self.has(&file.path, &secret.name);
        if is_new && self.text(&file.path, &other.name).is_some() {
            return Err(SecretsError::HalfMissing {
                path: vault.path(&file.path),
                present: other.name.clone(),
                missing: secret.name.clone(),
            });
        }
        let made = make::authority(common_name, now_s).map_err(|e| SecretsError::Unmakable {
            name: secret.name.clone(),
            detail: e.to_string(),
        })?;
        self.put(&file.path, &certificate.name, &made.certificate);
        self.put(&file.path, &key.name, &made.key);
        Ok(vec![certificate, key])
    }

    /// Whether a file has a name, with a value or none.
    fn has(&self, file: &str, name: &str) -> bool {
        self.trees
            .get(file)
            .is_some_and(|(_, tree)| tree.get(name).is_some())
    }

    /// The files that [`Open::save`] will write.
    pub(super) fn writings(&self, vault: &Vault) -> Result<Vec<Writing>, SecretsError> {
        let changed = vault
            .files
            .iter()
            .filter(|file| self.changed(file).is_some());
        changed.map(|file| vault.writing(file)).collect()
    }

    /// A file whose plain text isn't what lies there.
    fn changed(&self, file: &SecretFile) -> Option<&(Option<Opened>, Value)> {
        let entry = self.trees.get(&file.path)?;
        let unchanged = match entry {
            (Some(opened), tree) => opened.tree == *tree,
            (None, tree) => tree.names().is_empty(),
        };
        (!unchanged).then_some(entry)
    }

    /// Writes the files that have changed, those first that others follow from: whoever is stopped
    /// in between has what is missing made, and nothing is encrypted to an identity that is lost.
    pub(crate) fn save(&self, vault: &Vault, now_s: u64) -> Result<(), SecretsError> {
        for file in in_writing_order(&vault.files) {
            if let Some((opened, tree)) = self.changed(file) {
                vault.write(file, opened.as_ref(), tree, now_s)?;
            }
        }
        Ok(())
    }
}
