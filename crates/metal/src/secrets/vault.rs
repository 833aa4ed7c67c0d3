//! The files of secrets in a repository.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use age::{
    Identity,
    secrecy::{ExposeSecret as _, SecretString},
};
use undercroft_model::{NodeName, inventory::Inventory};
use undercroft_sops::{
    Comment, Encrypted, Entry, FILE_BYTES_MAX, Opened, Recipient, Seal, SopsError, Value,
    encrypt_new,
};
use zeroize::Zeroizing;

use super::{Audience, Make, Secret, SecretFile, SecretsError, catalogue, make, rules};
use crate::keys::{HOST_KEYS_DIR, HostKeys, Identities, IdentitySource, read_bounded, replace};

/// The mode of encrypted files: they are in the repository for all to see.
const FILE_MODE: u32 = 0o644;

/// A fleet's secrets, in its repository.
#[derive(Debug)]
pub struct Vault {
    pub(super) repository: PathBuf,
    /// The secrets folder as the inventory has it, relative to the repository.
    pub(super) folder: String,
    pub(super) files: Vec<SecretFile>,
    pub(super) nodes: Vec<NodeName>,
    /// What the inventory's people are called, by their recipients.
    people: BTreeMap<String, String>,
    host_keys: HostKeys,
    identities: Identities,
}

/// Values of a file that were made or changed, by name alone.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Changed {
    /// The file, from the repository's folder.
    pub file: String,
    /// The secret.
    pub name: String,
    /// What to do so that it is used.
    pub after: String,
}

/// What `init` did.
#[derive(Debug, Default)]
pub struct Initialised {
    /// Machines that got a host key.
    pub host_keys: Vec<NodeName>,
    /// Secrets that were made.
    pub made: Vec<Changed>,
    /// Secrets that a person must give.
    pub asked: Vec<Changed>,
    /// Whether the rules for `sops` itself were written.
    pub rules: bool,
    /// Whether there are rules that somebody else wrote.
    pub foreign_rules: bool,
}

/// What `rekey` did to a file, or would do.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Rekeyed {
    /// The file, from the repository's folder.
    pub file: String,
    /// Who can open it now and couldn't before.
    pub added: Vec<String>,
    /// Who can no longer open what is written from now on.
    pub removed: Vec<String>,
    /// The secrets that those who were removed may still know.
    pub rotate: Vec<String>,
}

/// A file that is open for a person to change.
pub struct Edit {
    path: String,
    opened: Option<Opened>,
    tree: Value,
}

impl std::fmt::Debug for Edit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Edit")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Edit {
    /// The plain text, for a place that is memory alone.
    pub fn to_plain(&self) -> Zeroizing<String> {
        undercroft_sops::to_plain(&self.tree)
    }
}

impl Vault {
    /// Opens the secrets of a repository. Nothing is written but the fleet's own identity, where
    /// the inventory names no operators.
    ///
    /// # Errors
    /// When an operator is no recipient, or an identity file can't be read.
    pub fn open(
        repository: &Path,
        inventory: &Inventory,
        source: IdentitySource,
    ) -> Result<Self, SecretsError> {
        let folder = inventory.secrets.path.clone();
        let operators = &inventory.secrets.operators;
        let dir = repository.join(&folder);
        Ok(Self {
            repository: repository.to_owned(),
            host_keys: HostKeys::open(&dir, operators, source.clone())?,
            identities: Identities::open(operators, source)?,
            files: catalogue(inventory),
            nodes: inventory.nodes.keys().cloned().collect(),
            people: inventory
                .users
                .iter()
                .filter_map(|(name, user)| {
                    let recipient: Recipient = user.age_recipient.as_ref()?.parse().ok()?;
                    Some((recipient.as_str().to_owned(), name.to_string()))
                })
                .collect(),
            folder,
        })
    }

    /// The files that there should be.
    pub fn files(&self) -> &[SecretFile] {
        &self.files
    }

    /// A file's path from the repository's folder.
    pub fn shown(&self, file: &str) -> String {
        format!("{}/{file}", self.folder)
    }

    pub(super) fn path(&self, file: &str) -> PathBuf {
        self.repository.join(&self.folder).join(file)
    }

    /// The operators, as recipients.
    fn operators(&self) -> Result<Vec<Recipient>, SecretsError> {
        self.identities
            .recipient_texts()
            .iter()
            .map(|text| {
                text.parse().map_err(|source| SecretsError::Recipient {
                    whose: "an operator of [secrets]".to_owned(),
                    source,
                })
            })
            .collect()
    }

    /// A machine as a recipient, where its host key was made.
    fn node(&self, node: &NodeName) -> Result<Option<Recipient>, SecretsError> {
        let Some(key) = self.host_keys.public(node)? else {
            return Ok(None);
        };
        Recipient::of_ssh_host_key(&key.to_string())
            .map(Some)
            .map_err(|source| SecretsError::Recipient {
                whose: format!("the host key of {node}"),
                source,
            })
    }

    /// Who a file is to be encrypted to, each with what it is called.
    pub(super) fn wanted(
        &self,
        file: &SecretFile,
    ) -> Result<Vec<(Recipient, String)>, SecretsError> {
        let mut wanted: Vec<(Recipient, String)> = Vec::new();
        for (i, recipient) in self.operators()?.into_iter().enumerate() {
            let name = match self.people.get(recipient.as_str()) {
                Some(name) => format!("operator {name}"),
                None => format!("operator {}", i + 1),
            };
            wanted.push((recipient, name));
        }
        match &file.audience {
            Audience::Operators => {}
            Audience::Nodes(nodes, _) => {
                for node in nodes {
                    if let Some(recipient) = self.node(node)? {
                        wanted.push((recipient, node.to_string()));
                    }
                }
            }
            Audience::Person(name, recipient) => {
                let recipient = recipient
                    .parse()
                    .map_err(|source| SecretsError::Recipient {
                        whose: format!("the age_recipient of {name}"),
                        source,
                    })?;
                wanted.push((recipient, name.clone()));
            }
        }
        let mut seen = std::collections::BTreeSet::new();
        wanted.retain(|(recipient, _)| seen.insert(recipient.clone()));
        Ok(wanted)
    }

    /// The machines that a file is for and that have no host key yet.
    pub(super) fn without_host_key(
        &self,
        file: &SecretFile,
    ) -> Result<Vec<NodeName>, SecretsError> {
        let Audience::Nodes(nodes, _) = &file.audience else {
            return Ok(Vec::new());
        };
        let mut without = Vec::new();
        for node in nodes {
            if self.host_keys.public(node)?.is_none() {
                without.push(node.clone());
            }
        }
        Ok(without)
    }

    /// What recipients are called that are in files: machines by their host keys, those too that
    /// are no longer in the inventory.
    pub(super) fn called(&self) -> BTreeMap<String, String> {
        let mut called = self.people.clone();
        let folder = self.path(HOST_KEYS_DIR);
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_none_or(|e| e != "pub") {
                continue;
            }
            let Some(name) = path.file_stem().and_then(|s| s.to_str()) else {
                continue;
            };
            let Ok(node) = NodeName::new(name) else {
                continue;
            };
            if let Ok(Some(recipient)) = self.node(&node) {
                let gone = !self.nodes.contains(&node);
                let name = if gone {
                    format!("{node} (no longer in the inventory)")
                } else {
                    node.to_string()
                };
                called.insert(recipient.as_str().to_owned(), name);
            }
        }
        called
    }

    /// A file as it lies there.
    ///
    /// # Errors
    /// When it is there and can't be read.
    pub fn read(&self, file: &str) -> Result<Option<Encrypted>, SecretsError> {
        let path = self.path(file);
        if !path.exists() {
            return Ok(None);
        }
        let bytes = read_bounded(&path, FILE_BYTES_MAX as u64)?;
        Encrypted::parse(&bytes)
            .map(Some)
            .map_err(|source| SecretsError::File { path, source })
    }

    /// A file, opened.
    pub(super) fn unlock(&self, file: &str) -> Result<Option<Opened>, SecretsError> {
        let Some(encrypted) = self.read(file)? else {
            return Ok(None);
        };
        let (identities, tried) = self.identities.at_hand();
        let identities: Vec<&dyn Identity> = identities.iter().map(AsRef::as_ref).collect();
        let path = self.path(file);
        encrypted
            .open(&identities)
            .map(Some)
            .map_err(|source| match source {
                SopsError::NoIdentity { .. } => SecretsError::Locked {
                    path,
                    source,
                    tried,
                },
                source => SecretsError::File { path, source },
            })
    }

    /// A secret, where it was made: `NAME` or `FILE:NAME`.
    ///
    /// # Errors
    /// When its file can't be opened.
    pub fn get(&self, name: &str) -> Result<Option<SecretString>, SecretsError> {
        let (file, name) = split(name);
        for known in &self.files {
            if file.is_some_and(|file| file != known.path)
                || !known.secrets.iter().any(|secret| secret.name == name)
            {
                continue;
            }
            let opened = self.unlock(&known.path)?;
            let value = opened.as_ref().and_then(|opened| opened.tree.get(name));
            if let Some(text) = value
                .and_then(Value::as_text)
                .filter(|text| !text.is_empty())
            {
                return Ok(Some(SecretString::from(text)));
            }
        }
        Ok(None)
    }

    /// The public halves of SSH keys that another server must know, by name.
    ///
    /// # Errors
    /// When a file can't be opened, or holds no key.
    pub fn public_halves(&self) -> Result<Vec<(String, String)>, SecretsError> {
        let mut halves = Vec::new();
        let secrets = self.files.iter().flat_map(|file| &file.secrets);
        for secret in secrets.filter(|secret| secret.make == Make::SshKey) {
            let Some(private) = self.get(&secret.name)? else {
                continue;
            };
            let line = ssh_key::PrivateKey::from_openssh(private.expose_secret())
                .and_then(|key| key.public_key().to_openssh())
                .map_err(|e| SecretsError::Unmakable {
                    name: format!("the public half of {}", secret.name),
                    detail: e.to_string(),
                })?;
            halves.push((secret.name.clone(), line));
        }
        Ok(halves)
    }

    /// Makes what is missing: host keys, files, secrets, the rules for `sops`. What is there is
    /// never made anew.
    ///
    /// # Errors
    /// When a file can't be opened or written; those before it stay.
    pub fn init(&self, now_s: u64) -> Result<Initialised, SecretsError> {
        let mut done = Initialised::default();
        for node in &self.nodes {
            if self.host_keys.public(node)?.is_none() {
                done.host_keys.push(node.clone());
            }
            self.host_keys.ensure(node)?;
        }
        let mut open = Open::all(self)?;
        for derived in [false, true] {
            for file in &self.files {
                for secret in &file.secrets {
                    if source_of(&secret.make).is_some() != derived
                        || open.text(&file.path, &secret.name).is_some()
                    {
                        continue;
                    }
                    if secret.make == Make::Asked {
                        done.asked.push(self.changed(file, secret));
                        continue;
                    }
                    let made = open.make(self, file, secret, now_s)?;
                    done.made.extend(made.iter().map(|s| self.changed(file, s)));
                }
            }
        }
        open.save(self, now_s)?;
        (done.rules, done.foreign_rules) = rules::write(self)?;
        Ok(done)
    }

    fn changed(&self, file: &SecretFile, secret: &Secret) -> Changed {
        Changed {
            file: self.shown(&file.path),
            name: secret.name.clone(),
            after: secret.after_rotation.to_owned(),
        }
    }

    /// Gives a secret a new value, made or given, and makes anew what follows from it.
    ///
    /// # Errors
    /// When there is no such secret, it follows from another, or a file can't be opened or
    /// written.
    pub fn rotate(
        &self,
        name: &str,
        given: Option<SecretString>,
        now_s: u64,
    ) -> Result<Vec<Changed>, SecretsError> {
        let (file_name, name) = split(name);
        let found: Vec<(&SecretFile, &Secret)> = self
            .files
            .iter()
            .filter(|file| file_name.is_none_or(|f| f == file.path || f == self.shown(&file.path)))
            .flat_map(|file| file.secrets.iter().map(move |secret| (file, secret)))
            .filter(|(_, secret)| secret.name == name)
            .collect();
        let (file, secret) = match found.as_slice() {
            [one] => *one,
            [] => {
                return Err(SecretsError::NoSuchSecret {
                    name: name.to_owned(),
                });
            }
            several => {
                return Err(SecretsError::Ambiguous {
                    name: name.to_owned(),
                    files: several.iter().map(|(file, _)| file.path.clone()).collect(),
                });
            }
        };
        if let Some(from) = source_of(&secret.make)
            && !matches!(secret.make, Make::K3sToken { .. })
        {
            return Err(SecretsError::Follows {
                name: name.to_owned(),
                from: from.to_owned(),
            });
        }
        let mut open = Open::all(self)?;
        let mut changed = Vec::new();
        if let Some(value) = given {
            open.put(&file.path, &secret.name, &value);
            changed.push(self.changed(file, secret));
        } else {
            // A token that is made anew has no password to keep.
            open.take(&file.path, &secret.name);
            let made = open.make(self, file, secret, now_s)?;
            changed.extend(made.iter().map(|s| self.changed(file, s)));
        }
        for other in &self.files {
            for follower in &other.secrets {
                let from = source_of(&follower.make);
                if from.is_some_and(|from| changed.iter().any(|c| c.name == from)) {
                    let made = open.make(self, other, follower, now_s)?;
                    changed.extend(made.iter().map(|s| self.changed(other, s)));
                }
            }
        }
        open.save(self, now_s)?;
        Ok(changed)
    }

    /// Makes every file open to those whom the inventory wants, and to nobody else.
    ///
    /// Where somebody is removed, the file gets a new data key; what they have read before they
    /// may still know.
    ///
    /// # Errors
    /// When a file can't be opened or written; those before it stay.
    pub fn rekey(&self, now_s: u64, dry_run: bool) -> Result<Vec<Rekeyed>, SecretsError> {
        let called = self.called();
        let mut done = Vec::new();
        for file in &self.files {
            let Some(encrypted) = self.read(&file.path)? else {
                continue;
            };
            let wanted = self.wanted(file)?;
            let present: Vec<String> = encrypted
                .recipients()
                .into_iter()
                .map(ToOwned::to_owned)
                .collect();
            let added: Vec<String> = wanted
                .iter()
                .filter(|(recipient, _)| !present.iter().any(|p| p == recipient.as_str()))
                .map(|(_, name)| name.clone())
                .collect();
            let removed: Vec<String> = present
                .iter()
                .filter(|p| !wanted.iter().any(|(recipient, _)| recipient.as_str() == *p))
                .map(|p| called.get(p).cloned().unwrap_or_else(|| p.clone()))
                .collect();
            if added.is_empty() && removed.is_empty() {
                continue;
            }
            if !dry_run && let Some(opened) = self.unlock(&file.path)? {
                self.write(file, Some(&opened), &opened.tree, now_s)?;
            }
            done.push(Rekeyed {
                file: self.shown(&file.path),
                rotate: if removed.is_empty() {
                    Vec::new()
                } else {
                    encrypted.names()
                },
                added,
                removed,
            });
        }
        if !dry_run {
            rules::write(self)?;
        }
        Ok(done)
    }

    /// Opens a file for a person to change; one that isn't there yet is empty.
    ///
    /// # Errors
    /// When it is no file of secrets, or can't be opened.
    pub fn edit(&self, given: &str) -> Result<Edit, SecretsError> {
        let file = self.file(given)?;
        let opened = self.unlock(&file.path)?;
        let tree = match &opened {
            Some(opened) => opened.tree.clone(),
            None => Value::Map(vec![Entry::Comment(Comment::line(" NAME: value"))]),
        };
        Ok(Edit {
            path: file.path.clone(),
            opened,
            tree,
        })
    }

    /// Takes the changed plain text of a file. The names whose values differ come back.
    ///
    /// # Errors
    /// When the text can't be kept, with its place; nothing is written then.
    pub fn finish_edit(
        &self,
        edit: &Edit,
        plain: &[u8],
        now_s: u64,
    ) -> Result<Vec<String>, SecretsError> {
        let file = self.file(&edit.path)?;
        let tree = undercroft_sops::parse_plain(plain).map_err(|source| SecretsError::File {
            path: self.path(&edit.path),
            source,
        })?;
        if edit.opened.is_some() && tree == edit.tree {
            return Ok(Vec::new());
        }
        let (before, after) = (edit.tree.names(), tree.names());
        let mut changed: Vec<String> = before
            .iter()
            .filter(|name| !after.contains(name))
            .map(|name| format!("- {name}"))
            .collect();
        for name in &after {
            if !before.contains(name) {
                changed.push(format!("+ {name}"));
            } else if edit.tree.get(name) != tree.get(name) {
                changed.push(format!("~ {name}"));
            }
        }
        if changed.is_empty() {
            changed.push("~ (comments or order)".to_owned());
        }
        self.write(file, edit.opened.as_ref(), &tree, now_s)?;
        Ok(changed)
    }

    /// A file of the catalogue, by its path from the repository's or the secrets folder.
    pub(super) fn file(&self, given: &str) -> Result<&SecretFile, SecretsError> {
        let given = given.strip_prefix("./").unwrap_or(given);
        self.files
            .iter()
            .find(|file| {
                file.path == given
                    || self.shown(&file.path) == given
                    || file.path.strip_suffix(".sops.yaml") == Some(given)
            })
            .ok_or_else(|| SecretsError::NoSuchFile {
                file: given.to_owned(),
            })
    }

    /// Writes a file, encrypted to those who should be able to open it.
    fn write(
        &self,
        file: &SecretFile,
        opened: Option<&Opened>,
        tree: &Value,
        now_s: u64,
    ) -> Result<(), SecretsError> {
        let path = self.path(&file.path);
        let recipients: Vec<Recipient> = self
            .wanted(file)?
            .into_iter()
            .map(|(recipient, _)| recipient)
            .collect();
        let seal = Seal {
            recipients: &recipients,
            now_s,
            entropy: &mut make::entropy,
        };
        let sealed = match opened {
            None => encrypt_new(tree, seal),
            Some(opened) => {
                let shut_out = opened
                    .recipients()
                    .iter()
                    .any(|p| !recipients.iter().any(|r| r.as_str() == *p));
                let opened = opened.with(tree.clone());
                if shut_out {
                    opened.seal_anew(seal)
                } else {
                    opened.seal(seal)
                }
            }
        }
        .map_err(|source| SecretsError::File {
            path: path.clone(),
            source,
        })?;
        replace(&path, sealed.write().as_bytes(), FILE_MODE)?;
        Ok(())
    }
}

/// `FILE:NAME` or `NAME`.
fn split(name: &str) -> (Option<&str>, &str) {
    match name.split_once(".sops.yaml:") {
        Some((file, rest)) => (name.get(..file.len() + ".sops.yaml".len()), rest),
        None => (None, name),
    }
}

/// The secret that another is made from.
fn source_of(make: &Make) -> Option<&'static str> {
    match make {
        Make::K3sToken { .. } => Some("k3s/tls/server-ca.crt"),
        Make::PublicKeyOf(from)
        | Make::AgeRecipientOf(from)
        | Make::CopyOf(from)
        | Make::CaHashOf(from) => Some(from),
        _ => None,
    }
}

/// All files at once, opened.
struct Open {
    trees: BTreeMap<String, (Option<Opened>, Value)>,
}

impl Open {
    fn all(vault: &Vault) -> Result<Self, SecretsError> {
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

    fn text(&self, file: &str, name: &str) -> Option<&str> {
        let (_, tree) = self.trees.get(file)?;
        tree.get(name)?.as_text().filter(|text| !text.is_empty())
    }

    fn anywhere(&self, name: &str) -> Option<&str> {
        self.trees.keys().find_map(|file| self.text(file, name))
    }

    fn put(&mut self, file: &str, name: &str, value: &SecretString) {
        if let Some((_, tree)) = self.trees.get_mut(file) {
            tree.set(name, Value::text(value.expose_secret()));
        }
    }

    fn take(&mut self, file: &str, name: &str) {
        // It keeps its place in the file: the value alone is emptied.
        if self.text(file, name).is_some() {
            self.put(file, name, &SecretString::from(String::new()));
        }
    }

    /// Makes a secret, and what is made with it.
    fn make<'a>(
        &mut self,
        vault: &Vault,
        file: &'a SecretFile,
        secret: &'a Secret,
        now_s: u64,
    ) -> Result<Vec<&'a Secret>, SecretsError> {
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
        let value = match &secret.make {
            Make::CaCertificate { .. } | Make::CaKey => {
                return self.make_authority(vault, file, secret, now_s);
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
            Make::SigningKey => make::signing_key().map_err(|e| unmakable(e.to_string()))?,
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
        };
        self.put(&file.path, name, &value);
        Ok(vec![secret])
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

    /// Writes the files that have changed.
    fn save(&self, vault: &Vault, now_s: u64) -> Result<(), SecretsError> {
        for file in &vault.files {
            let Some((opened, tree)) = self.trees.get(&file.path) else {
                continue;
            };
            let unchanged = match opened {
                Some(opened) => opened.tree == *tree,
                None => tree.names().is_empty(),
            };
            if !unchanged {
                vault.write(file, opened.as_ref(), tree, now_s)?;
            }
        }
        Ok(())
    }
}
