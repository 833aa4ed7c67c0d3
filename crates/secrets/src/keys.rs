//! The keys that Undercroft makes: each machine's host key, and the operator's key to log in with.
//!
//! A machine's final host key is made when it is first planned, so that the first connection after
//! its installation is already pinned. It is kept in the repository: `NAME.age`, the private key
//! encrypted with age to the operators, and `NAME.pub` beside it. The private key is made and
//! encrypted in memory and never written to a disk in plain text; the `ssh-key` crate is used for
//! that rather than ssh-keygen, which can only write files.
//!
//! Who can decrypt it: the `operators` of the inventory's `[secrets]`, and the owner of the
//! identity file. Where the inventory names no operators, an identity is made in the fleet's state
//! directory (mode 0600) and used alone. That is enough for one operator on one machine; the
//! directory isn't part of the repository, so that a team names its operators.
//!
//! A host key that is there is never made anew: a machine may be running with it.

mod agreed;
mod change;
mod error;
mod identity;
mod operator;
mod readers;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use age::secrecy::{ExposeSecret, SecretString};
use ssh_key::{Algorithm, LineEnding, PrivateKey, rand_core::OsRng};
use undercroft_model::NodeName;

pub use self::{
    agreed::{AGREED_FILE, Ask, Consent},
    change::ReaderChange,
    error::KeyError,
    identity::{IdentitySource, MadeIdentity, OPERATOR_IDENTITY_FILE},
    operator::OperatorKey,
};
pub(crate) use self::{
    agreed::{Agreed, agree, without_comment},
    identity::Identities,
    readers::READERS_FILE,
};
use error::KEY_FILE_BYTES_MAX;
use undercroft_folder::confined::{Confined, Modes};
use undercroft_ssh::{HostKey, HostKeyError};

/// The folder of the host keys in the inventory's secrets folder.
pub(crate) const HOST_KEYS_DIR: &str = "host-keys";
/// The operator's private SSH key in the state directory.
const OPERATOR_SSH_KEY_FILE: &str = "ssh/id_ed25519";
/// The operators' public SSH keys in the repository.
pub const OPERATORS_PUBLIC_FILE: &str = "facts/operators.pub";

/// The host keys of a fleet's machines, in its repository.
#[derive(Debug)]
pub struct HostKeys {
    repository: Confined,
    /// The folder of the host keys, from the repository's.
    dir: PathBuf,
    identities: Arc<Identities>,
    consent: Consent,
    /// The private halves that were opened, as they lay there, and what they are.
    derived: Mutex<BTreeMap<NodeName, (Vec<u8>, HostKey)>>,
    /// Whether an identity at hand opens any of the private halves.
    opens_any: OnceLock<bool>,
}

impl HostKeys {
    /// Opens the host keys in a repository's folder of secrets that lies directly in it. Nothing is
    /// made.
    ///
    /// # Errors
    /// As [`Self::open_in`].
    pub fn open(
        secrets_dir: &Path,
        operators: &[String],
        source: IdentitySource,
    ) -> Result<Self, KeyError> {
        let repository = secrets_dir.parent().unwrap_or(Path::new(""));
        let folder = secrets_dir.file_name().unwrap_or_default();
        Self::open_in(repository, folder, operators, source)
    }

    /// Opens the host keys in `folder` of a repository, the inventory's secrets folder, with its
    /// operators as recipients. Nothing is made.
    ///
    /// # Errors
    /// When an operator is no recipient, or an identity file can't be read.
    pub fn open_in(
        repository: &Path,
        folder: impl AsRef<Path>,
        operators: &[String],
        source: IdentitySource,
    ) -> Result<Self, KeyError> {
        let identities = Arc::new(Identities::open(operators, source)?);
        Ok(Self::with(repository, folder.as_ref(), identities))
    }

    pub(crate) fn with(repository: &Path, folder: &Path, identities: Arc<Identities>) -> Self {
        Self {
            repository: Confined::new(repository),
            dir: folder.join(HOST_KEYS_DIR),
            identities,
            consent: Consent::default(),
            derived: Mutex::default(),
            opens_any: OnceLock::new(),
        }
    }

    /// The same, with who agrees to new readers of what it makes.
    #[must_use]
    pub fn agreeing(mut self, consent: Consent) -> Self {
        self.consent = consent;
        self
    }

    pub(crate) fn agreed(&self) -> Agreed {
        Agreed::of(self.identities.state_dir())
    }

    /// The identity that [`HostKeys::ensure`] has made, where it had to.
    pub fn made_identity(&self) -> Option<MadeIdentity> {
        self.identities.made()
    }

    /// A machine's public host key, where it was made.
    ///
    /// The file lies open in the repository. Where an identity at hand opens the private half, what
    /// the file says is compared with it, and another key is an error: nothing is encrypted to it
    /// and nothing is pinned to it.
    ///
    /// # Errors
    /// When the file is there and holds something else, or not the machine's own key.
    pub fn public(&self, node: &NodeName) -> Result<Option<HostKey>, KeyError> {
        let Some(written) = self.written(node)? else {
            return Ok(None);
        };
        let (private, public) = (self.private_path(node), self.public_path(node));
        if !self.repository.is_file(self.private_name(node))? {
            return Err(KeyError::HalfMissing {
                missing: private,
                present: public,
            });
        }
        match self.derive(node)? {
            Some(derived) if derived != written => Err(KeyError::Swapped {
                public,
                private,
                written: written.fingerprint(),
                derived: derived.fingerprint(),
            }),
            _ => Ok(Some(written)),
        }
    }

    /// Whether a machine's public half could be compared with its private half here.
    pub(crate) fn is_verified(&self, node: &NodeName) -> bool {
        matches!(self.derive(node), Ok(Some(_)))
    }

    /// What the file of a machine's public half says.
    fn written(&self, node: &NodeName) -> Result<Option<HostKey>, KeyError> {
        let path = self.public_path(node);
        let Some(text) = self
            .repository
            .read(self.public_name(node), KEY_FILE_BYTES_MAX)?
        else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&text);
        HostKey::parse(&text)
            .map(Some)
            .map_err(|e: HostKeyError| KeyError::BadKey {
                path,
                detail: e.to_string(),
            })
    }

    /// The public half of a machine's private half; `None` where no identity at hand opens host
    /// keys.
    fn derive(&self, node: &NodeName) -> Result<Option<HostKey>, KeyError> {
        let path = self.private_path(node);
        let sealed = self.required(&self.private_name(node))?;
        let mut known = self.derived.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((bytes, key)) = known.get(node)
            && *bytes == sealed
        {
            return Ok(Some(key.clone()));
        }
        match self.decrypt(node) {
            Ok(private) => {
                let key = HostKey::from_public(private.public_key().clone());
                known.insert(node.clone(), (sealed, key.clone()));
                let _ = self.opens_any.set(true);
                Ok(Some(key))
            }
            // An operator who opens the others isn't one who came after they were encrypted.
            Err(KeyError::CannotDecrypt { .. }) if self.opens_others() => {
                Err(KeyError::Foreign { private: path })
            }
            Err(KeyError::CannotDecrypt { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether an identity at hand opens any private half, or is the fleet's own, to which all are
    /// encrypted.
    fn opens_others(&self) -> bool {
        self.identities.is_sole()
            || *self.opens_any.get_or_init(|| {
                let files = self.private_files().unwrap_or_default();
                files.iter().any(|name| {
                    self.required(name)
                        .and_then(|sealed| self.identities.decrypt(&sealed, name))
                        .is_ok()
                })
            })
    }

    /// A machine's public host key, made now if it was not made before.
    ///
    /// # Errors
    /// When it can't be written, one of its two files is missing and can't be made from the
    /// other, or nobody agrees to who could read it.
    pub fn ensure(&self, node: &NodeName) -> Result<HostKey, KeyError> {
        let (private, public) = (self.private_path(node), self.public_path(node));
        let there = self.repository.is_file(self.private_name(node))?;
        match (there, self.public(node)?) {
            (true, Some(key)) => Ok(key),
            (false, Some(_)) => Err(KeyError::HalfMissing {
                missing: private,
                present: public,
            }),
            // Whoever made the private half was stopped before the public one was written.
            (true, None) => {
                let key = self.decrypt(node)?;
                self.write_public(node, &key)
            }
            (false, None) => {
                self.make_own_identity()?;
                self.agree_to_readers()?;
                let mut key = generate(&private)?;
                key.set_comment(node.as_str());
                let text = encode(&key, &private)?;
                let sealed = self
                    .identities
                    .encrypt(text.expose_secret().as_bytes(), &private)?;
                self.note_first_readers()?;
                // The private half first: a public half alone would be a key that nobody has.
                self.repository
                    .write_new(self.private_name(node), &sealed, Modes::PRIVATE)?;
                self.write_public(node, &key)
            }
        }
    }

    /// Makes the fleet's own identity where it needs one. Where something is encrypted already,
    /// there was one, and another could open nothing of it.
    pub(crate) fn make_own_identity(&self) -> Result<(), KeyError> {
        if !self.identities.recipient_texts().is_empty() {
            return Ok(());
        }
        if !self.private_files()?.is_empty() {
            return Err(KeyError::NoOperator);
        }
        self.identities.make_own()
    }

    /// A machine's private host key in OpenSSH's form.
    ///
    /// # Errors
    /// When it isn't there, can't be decrypted, or isn't the one of the public half.
    pub fn private(&self, node: &NodeName) -> Result<SecretString, KeyError> {
        let path = self.private_path(node);
        let key = self.decrypt(node)?;
        self.public(node)?;
        encode(&key, &path)
    }

    fn private_name(&self, node: &NodeName) -> PathBuf {
        self.dir.join(format!("{node}.age"))
    }

    fn public_name(&self, node: &NodeName) -> PathBuf {
        self.dir.join(format!("{node}.pub"))
    }

    fn private_path(&self, node: &NodeName) -> PathBuf {
        self.repository.path(self.private_name(node))
    }

    fn public_path(&self, node: &NodeName) -> PathBuf {
        self.repository.path(self.public_name(node))
    }

    fn decrypt(&self, node: &NodeName) -> Result<PrivateKey, KeyError> {
        let path = self.private_path(node);
        let sealed = self.required(&self.private_name(node))?;
        let text = self.identities.decrypt(&sealed, &path)?;
        PrivateKey::from_openssh(text.expose_secret().as_bytes()).map_err(|e| KeyError::BadKey {
            path,
            detail: e.to_string(),
        })
    }

    /// A file that must be there.
    fn required(&self, name: &Path) -> Result<Vec<u8>, KeyError> {
        let bytes = self.repository.read(name, KEY_FILE_BYTES_MAX)?;
        bytes.ok_or_else(|| KeyError::Io {
            what: "read",
            path: self.repository.path(name),
            source: std::io::ErrorKind::NotFound.into(),
        })
    }

    fn write_public(&self, node: &NodeName, key: &PrivateKey) -> Result<HostKey, KeyError> {
        let public = HostKey::from_public(key.public_key().clone());
        let line = format!("{public} {node}\n");
        let modes = Modes {
            file: 0o644,
            ..Modes::PRIVATE
        };
        self.repository
            .write_new(self.public_name(node), line.as_bytes(), modes)?;
        Ok(public)
    }
}

fn generate(path: &Path) -> Result<PrivateKey, KeyError> {
    PrivateKey::random(&mut OsRng, Algorithm::Ed25519).map_err(|e| KeyError::BadKey {
        path: path.to_owned(),
        detail: format!("a key can't be made: {e}"),
    })
}

fn encode(key: &PrivateKey, path: &Path) -> Result<SecretString, KeyError> {
    let text = key
        .to_openssh(LineEnding::LF)
        .map_err(|e| KeyError::BadKey {
            path: path.to_owned(),
            detail: e.to_string(),
        })?;
    Ok(SecretString::from(text.as_str()))
}
