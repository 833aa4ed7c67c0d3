//! The files of secrets in a repository.

mod change;
mod consent;
mod lock;
mod open;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use age::{
    Identity,
    secrecy::{ExposeSecret as _, SecretString},
};
use undercroft_model::{NodeName, inventory::Inventory};
use undercroft_sops::{
    Encrypted, FILE_BYTES_MAX, Opened, Recipient, Seal, SopsError, Value, encrypt_new,
};

pub use self::change::{Changed, Edit, Initialised, Rekeyed};
#[cfg(test)]
pub(super) use self::open::in_writing_order;
pub(super) use self::open::{Open, source_of};
use super::{Audience, Make, NatsKind, SecretFile, SecretsError, catalogue, make};
use crate::keys::{Consent, HOST_KEYS_DIR, HostKeys, Identities, IdentitySource};
use undercroft_folder::confined::{Confined, Modes};

/// The modes of encrypted files: they are in the repository for all to see.
const MODES: Modes = Modes {
    file: 0o644,
    ..Modes::PRIVATE
};

/// How a public half is made of a private key.
type PublicOf = fn(&str) -> Result<String, String>;

/// The public half of a key that somebody else must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicHalf {
    /// Name of the secret.
    pub name: String,
    /// The public half, on one line.
    pub line: String,
    /// Where it belongs, as a phrase.
    pub goes: &'static str,
}

/// A fleet's secrets, in its repository.
#[derive(Debug)]
pub struct Vault {
    pub(super) repository: Confined,
    /// The secrets folder as the inventory has it, relative to the repository.
    pub(super) folder: String,
    pub(super) files: Vec<SecretFile>,
    pub(super) nodes: Vec<NodeName>,
    /// What the inventory's people are called, by their recipients.
    people: BTreeMap<String, String>,
    pub(super) host_keys: HostKeys,
    identities: Arc<Identities>,
    /// Who agrees to new readers.
    consent: Consent,
}

impl Vault {
    /// Opens the secrets of a repository. Nothing is written.
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
        let identities = Arc::new(Identities::open(operators, source)?);
        Ok(Self {
            repository: Confined::new(repository),
            host_keys: HostKeys::with(repository, folder.as_ref(), Arc::clone(&identities)),
            identities,
            consent: Consent::default(),
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

    /// The same, with who agrees to readers that come and go.
    #[must_use]
    pub fn agreeing(mut self, consent: Consent) -> Self {
        self.host_keys = self.host_keys.agreeing(consent.clone());
        self.consent = consent;
        self
    }

    /// The files that there should be.
    pub fn files(&self) -> &[SecretFile] {
        &self.files
    }

    /// A file's path from the repository's folder.
    pub fn shown(&self, file: &str) -> String {
        format!("{}/{file}", self.folder)
    }

    /// A file's name in the repository.
    pub(super) fn name(&self, file: &str) -> PathBuf {
        Path::new(&self.folder).join(file)
    }

    pub(super) fn path(&self, file: &str) -> PathBuf {
        self.repository.path(self.name(file))
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

    /// The operators, each with what it is called.
    fn operators_called(&self) -> Result<Vec<(Recipient, String)>, SecretsError> {
        let operators = self.operators()?.into_iter().enumerate();
        Ok(operators
            .map(|(i, recipient)| {
                let name = match self.people.get(recipient.as_str()) {
                    Some(name) => format!("operator {name}"),
                    None => format!("operator {}", i + 1),
                };
                (recipient, name)
            })
            .collect())
    }

    /// A machine as a recipient, where its host key was made.
    pub(super) fn node(&self, node: &NodeName) -> Result<Option<Recipient>, SecretsError> {
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

    /// Whether it is known who the operators are: the inventory names them, or the fleet's own
    /// identity is at hand.
    pub(super) fn knows_operators(&self) -> bool {
        !self.identities.recipient_texts().is_empty()
    }

    /// Who a file is to be encrypted to, each with what it is called.
    ///
    /// # Errors
    /// When one of them is no recipient, or a machine's host key isn't its own.
    pub(super) fn wanted(
        &self,
        file: &SecretFile,
    ) -> Result<Vec<(Recipient, String)>, SecretsError> {
        self.wanted_of(file, &BTreeSet::new())
    }

    /// The same, without some machines.
    pub(super) fn wanted_of(
        &self,
        file: &SecretFile,
        without: &BTreeSet<NodeName>,
    ) -> Result<Vec<(Recipient, String)>, SecretsError> {
        let mut wanted = self.operators_called()?;
        match &file.audience {
            Audience::Operators => {}
            Audience::Nodes(nodes, _) => {
                for node in nodes.iter().filter(|node| !without.contains(*node)) {
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
        let mut seen = BTreeSet::new();
        wanted.retain(|(recipient, _)| seen.insert(recipient.clone()));
        Ok(wanted)
    }

    /// The machines that a file is for and that have no host key yet.
    pub(super) fn without_host_key(
        &self,
        file: &SecretFile,
        but: &BTreeSet<NodeName>,
    ) -> Result<Vec<NodeName>, SecretsError> {
        let Audience::Nodes(nodes, _) = &file.audience else {
            return Ok(Vec::new());
        };
        let mut without = Vec::new();
        for node in nodes.iter().filter(|node| !but.contains(*node)) {
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
        let folder = self.name(HOST_KEYS_DIR);
        for entry in self.repository.list(folder).unwrap_or_default() {
            let path = Path::new(&entry.name);
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
        // A file that can't be looked at, or a link to nothing, isn't one that is missing: what
        // was made in its place would be another.
        let name = self.name(file);
        let Some(bytes) = self.repository.read(name, FILE_BYTES_MAX as u64)? else {
            return Ok(None);
        };
        let path = self.path(file);
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

    /// The public halves of keys that somebody else must know, by name: a git server, or NATS.
    ///
    /// # Errors
    /// When a file can't be opened, or holds no key.
    pub fn public_halves(&self) -> Result<Vec<PublicHalf>, SecretsError> {
        let mut halves = Vec::new();
        let ours = |file: &&SecretFile| matches!(file.audience, Audience::Operators);
        let secrets = self.files.iter().filter(ours);
        for secret in secrets.flat_map(|file| &file.secrets) {
            let (public, goes): (PublicOf, _) = match secret.make {
                Make::SshKey => (
                    ssh_public_half,
                    "for the git server's deploy keys (read-only)",
                ),
                Make::NatsSeed(NatsKind::User) => {
                    (nats_public_half, "as `server_key` of [lending]")
                }
                _ => continue,
            };
            let Some(private) = self.get(&secret.name)? else {
                continue;
            };
            let line = public(private.expose_secret().trim()).map_err(|detail| {
                SecretsError::Unmakable {
                    name: format!("the public half of {}", secret.name),
                    detail,
                }
            })?;
            halves.push(PublicHalf {
                name: secret.name.clone(),
                line,
                goes,
            });
        }
        Ok(halves)
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

    /// Whether an identity at hand opens what is encrypted to the operators; where none does, the
    /// files that were looked at for one.
    fn require_own_identity(&self, now_s: u64) -> Result<(), SecretsError> {
        let mut probe = Value::map();
        probe.set("probe", Value::Bool(true));
        let operators = self.operators()?;
        let sealed = encrypt_new(
            &probe,
            Seal {
                recipients: &operators,
                now_s,
                entropy: &mut make::entropy,
            },
        );
        let (identities, tried) = self.identities.at_hand();
        let identities: Vec<&dyn Identity> = identities.iter().map(AsRef::as_ref).collect();
        match sealed.and_then(|sealed| sealed.open(&identities)) {
            Ok(_) => Ok(()),
            Err(SopsError::NoIdentity { .. }) => Err(SecretsError::NoOwnIdentity { tried }),
            Err(source) => Err(SecretsError::Recipient {
                whose: "an operator of [secrets]".to_owned(),
                source,
            }),
        }
    }

    #[cfg(test)]
    pub(super) fn identities_at_hand(&self) -> (Vec<Box<dyn Identity>>, Vec<PathBuf>) {
        self.identities.at_hand()
    }

    /// Writes a file, encrypted to those who should be able to open it, unless it is another by
    /// now than the one that was opened.
    fn write(
        &self,
        file: &SecretFile,
        opened: Option<&Opened>,
        tree: &Value,
        now_s: u64,
    ) -> Result<(), SecretsError> {
        let path = self.path(&file.path);
        let now_there = self.read(&file.path)?.map(|sealed| sealed.write());
        if now_there != opened.map(|opened| opened.sealed().write()) {
            return Err(SecretsError::ChangedMeanwhile { path });
        }
        if opened.is_some_and(|opened| !opened.sealed().has_usual_rule()) {
            return Err(SecretsError::Rule { path });
        }
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
        let name = self.name(&file.path);
        self.repository
            .replace(name, sealed.write().as_bytes(), MODES)?;
        Ok(())
    }
}

fn ssh_public_half(private: &str) -> Result<String, String> {
    ssh_key::PrivateKey::from_openssh(private)
        .and_then(|key| key.public_key().to_openssh())
        .map_err(|e| e.to_string())
}

fn nats_public_half(seed: &str) -> Result<String, String> {
    let key = nkeys::KeyPair::from_seed(seed).map_err(|e| e.to_string())?;
    Ok(key.public_key())
}

/// `FILE:NAME` or `NAME`.
fn split(name: &str) -> (Option<&str>, &str) {
    match name.split_once(".sops.yaml:") {
        Some((file, rest)) => (name.get(..file.len() + ".sops.yaml".len()), rest),
        None => (None, name),
    }
}
