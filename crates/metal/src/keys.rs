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

mod files;
mod identity;
mod readers;

use std::path::{Path, PathBuf};

use age::secrecy::{ExposeSecret, SecretString};
use ssh_key::{Algorithm, LineEnding, PrivateKey, rand_core::OsRng};
use undercroft_model::NodeName;

pub use self::identity::{IdentitySource, OPERATOR_IDENTITY_FILE};
pub(crate) use self::{identity::Identities, readers::READERS_FILE};
use crate::{
    confined::{Confined, ConfinedError, Modes},
    ssh::{HostKey, HostKeyError},
};

/// The folder of the host keys in the inventory's secrets folder.
pub(crate) const HOST_KEYS_DIR: &str = "host-keys";
/// The operator's private SSH key in the state directory.
const OPERATOR_SSH_KEY_FILE: &str = "ssh/id_ed25519";
/// The operators' public SSH keys in the repository.
const OPERATORS_PUBLIC_FILE: &str = "facts/operators.pub";
/// The largest key file that is read, in bytes; an encrypted host key to a hundred operators is a
/// fifth of it.
const KEY_FILE_BYTES_MAX: u64 = 64 * 1024;

/// Why a key could not be made, read or written.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file can't be used.
    #[error("{} can't be {what}: {source}", path.display())]
    Io {
        /// What was tried: `read`, `written`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file of the repository or of the state isn't one that is read or written.
    #[error(transparent)]
    Confined(ConfinedError),
    /// A recipient of the inventory's can't be used.
    #[error("the operator {recipient:?} of [secrets] is no age recipient: {detail}")]
    BadRecipient {
        /// The recipient, at most its first 80 characters.
        recipient: String,
        /// Why.
        detail: String,
    },
    /// An identity file can't be used.
    #[error("the identity file {} can't be used: {detail}", path.display())]
    BadIdentity {
        /// The file.
        path: PathBuf,
        /// Why.
        detail: String,
    },
    /// None of the identities at hand decrypts a file.
    #[error("{} can't be decrypted: {detail} (looked for identities in {})", path.display(), list(tried))]
    CannotDecrypt {
        /// The encrypted file.
        path: PathBuf,
        /// Why.
        detail: String,
        /// The identity files that were looked at.
        tried: Vec<PathBuf>,
    },
    /// The public half is there and the private half isn't.
    #[error("{} is missing, though {} is there", missing.display(), present.display())]
    HalfMissing {
        /// The file that is missing.
        missing: PathBuf,
        /// The file that is there.
        present: PathBuf,
    },
    /// A key file holds something else.
    #[error("{} holds no usable key: {detail}", path.display())]
    BadKey {
        /// The file.
        path: PathBuf,
        /// Why.
        detail: String,
    },
}

impl KeyError {
    /// What to try, in a sentence.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::BadRecipient { .. } => Some(
                "A recipient is `age1…`, or an SSH public key of the kind ssh-ed25519 or ssh-rsa.",
            ),
            Self::BadIdentity { .. } => Some(
                "An identity file is one of `age-keygen`, or an SSH private key without a passphrase.",
            ),
            Self::CannotDecrypt { .. } => Some(
                "Name the file of your age identity with --identity, or ask another operator to encrypt the secrets to you as well.",
            ),
            Self::HalfMissing { .. } => Some(
                "Bring the missing file back from the repository's history. If no machine runs with this key, delete the other file and a new key is made.",
            ),
            Self::Confined(error) => error.hint(),
            Self::Io { .. } | Self::BadKey { .. } => None,
        }
    }
}

impl From<ConfinedError> for KeyError {
    fn from(error: ConfinedError) -> Self {
        match error {
            ConfinedError::Io { what, path, source } => Self::Io {
                what: match what {
                    "read" | "look at" => "read",
                    "write" | "make the folder" => "written",
                    _ => "used",
                },
                path,
                source,
            },
            other => Self::Confined(other),
        }
    }
}

fn list(paths: &[PathBuf]) -> String {
    if paths.is_empty() {
        return "no file: there is none".to_owned();
    }
    let paths: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
    paths.join(", ")
}

/// The host keys of a fleet's machines, in its repository.
#[derive(Debug)]
pub struct HostKeys {
    repository: Confined,
    /// The folder of the host keys, from the repository's.
    dir: PathBuf,
    identities: Identities,
}

impl HostKeys {
    /// Opens the host keys in a repository's folder of secrets that lies directly in it.
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
    /// operators as recipients.
    ///
    /// # Errors
    /// When an operator is no recipient, or an identity file can't be read.
    pub fn open_in(
        repository: &Path,
        folder: impl AsRef<Path>,
        operators: &[String],
        source: IdentitySource,
    ) -> Result<Self, KeyError> {
        Ok(Self {
            repository: Confined::new(repository),
            dir: folder.as_ref().join(HOST_KEYS_DIR),
            identities: Identities::open(operators, source)?,
        })
    }

    /// A machine's public host key, where it was made.
    ///
    /// # Errors
    /// When the file is there and holds something else.
    pub fn public(&self, node: &NodeName) -> Result<Option<HostKey>, KeyError> {
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

    /// A machine's public host key, made now if it was not made before.
    ///
    /// # Errors
    /// When it can't be written, or one of its two files is missing and can't be made from the
    /// other.
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

    /// A machine's private host key in OpenSSH's form.
    ///
    /// # Errors
    /// When it isn't there, can't be decrypted, or isn't the one of the public half.
    pub fn private(&self, node: &NodeName) -> Result<SecretString, KeyError> {
        let path = self.private_path(node);
        let key = self.decrypt(node)?;
        let own = HostKey::from_public(key.public_key().clone());
        match self.public(node)? {
            Some(public) if public != own => Err(KeyError::BadKey {
                path,
                detail: format!(
                    "it is the private half of {}, and {} is {}",
                    own.fingerprint(),
                    self.public_path(node).display(),
                    public.fingerprint()
                ),
            }),
            _ => encode(&key, &path),
        }
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

/// The SSH key that the controller logs in with: to installers, which learn its public half from
/// the boot server, and to installed systems.
#[derive(Debug, Clone)]
pub struct OperatorKey {
    /// The private key's file, mode 0600; OpenSSH reads it there.
    pub private_file: PathBuf,
    /// The public half as a line of an authorized_keys file.
    pub authorized_key: String,
}

impl OperatorKey {
    /// The fleet's key in its state directory, made now if it was not made before.
    ///
    /// # Errors
    /// When it can't be read or written.
    pub fn ensure(state_dir: &Path, fleet: &str) -> Result<Self, KeyError> {
        let state = Confined::new(state_dir);
        let private_file = state_dir.join(OPERATOR_SSH_KEY_FILE);
        if !state.is_file(OPERATOR_SSH_KEY_FILE)? {
            let mut key = generate(&private_file)?;
            key.set_comment(format!("undercroft {fleet}"));
            let text = encode(&key, &private_file)?;
            state.write_new(
                OPERATOR_SSH_KEY_FILE,
                text.expose_secret().as_bytes(),
                Modes::PRIVATE,
            )?;
        }
        state.require_own(OPERATOR_SSH_KEY_FILE)?;
        let bytes = state
            .read(OPERATOR_SSH_KEY_FILE, KEY_FILE_BYTES_MAX)?
            .unwrap_or_default();
        let text = SecretString::from(String::from_utf8_lossy(&bytes).into_owned());
        let key = PrivateKey::from_openssh(text.expose_secret().as_bytes()).map_err(|e| {
            KeyError::BadKey {
                path: private_file.clone(),
                detail: e.to_string(),
            }
        })?;
        let line = key
            .public_key()
            .to_openssh()
            .map_err(|e| KeyError::BadKey {
                path: private_file.clone(),
                detail: e.to_string(),
            })?;
        Ok(Self {
            private_file,
            authorized_key: line,
        })
    }

    /// Adds the public half to `facts/operators.pub` in the repository, a line for each operator's
    /// computer, so that a flake, which sees nothing else of this one, lets the key in.
    ///
    /// # Errors
    /// When the file can't be read or written.
    pub fn publish(&self, repository: &Path) -> Result<(), KeyError> {
        let repository = Confined::new(repository);
        let present = repository.read(OPERATORS_PUBLIC_FILE, KEY_FILE_BYTES_MAX)?;
        let mut text = String::from_utf8_lossy(&present.unwrap_or_default()).into_owned();
        if text.lines().any(|line| line == self.authorized_key) {
            return Ok(());
        }
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&self.authorized_key);
        text.push('\n');
        let modes = Modes {
            file: 0o644,
            ..Modes::PRIVATE
        };
        Ok(repository.replace(OPERATORS_PUBLIC_FILE, text.as_bytes(), modes)?)
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn node() -> NodeName {
        NodeName::new("gpu-01").unwrap()
    }

    fn keys(dir: &Path, operators: &[String]) -> HostKeys {
        let source = IdentitySource {
            state_dir: dir.join("state"),
            identity_files: vec![],
            well_known: false,
        };
        HostKeys::open(&dir.join("secrets"), operators, source).unwrap()
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_host_key_is_made_once_and_comes_back_whole() {
        let dir = tempfile::tempdir().unwrap();
        let public = keys(dir.path(), &[]).ensure(&node()).unwrap();
        let again = keys(dir.path(), &[]);
        assert_eq!(again.ensure(&node()).unwrap(), public);
        let private = again.private(&node()).unwrap();
        // OpenSSH itself agrees on what the private key's public half is.
        let file = dir.path().join("check");
        std::fs::write(&file, private.expose_secret()).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let output = std::process::Command::new("ssh-keygen")
            .arg("-yf")
            .arg(&file)
            .output()
            .unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert_eq!(HostKey::parse(&printed).unwrap(), public);
        assert_eq!(
            mode(&dir.path().join("state").join(OPERATOR_IDENTITY_FILE)),
            0o600
        );
        assert_eq!(mode(&again.private_path(&node())), 0o600);
    }

    #[test]
    fn the_private_key_is_nowhere_in_plain_text() {
        let dir = tempfile::tempdir().unwrap();
        let keys = keys(dir.path(), &[]);
        keys.ensure(&node()).unwrap();
        let private = keys.private(&node()).unwrap();
        let secret_line = private.expose_secret().lines().nth(2).unwrap().to_owned();
        for file in std::fs::read_dir(dir.path().join("secrets/host-keys")).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            let text = String::from_utf8_lossy(&bytes);
            assert!(!text.contains(&secret_line) && !text.contains("BEGIN OPENSSH PRIVATE"));
        }
        assert!(!format!("{private:?} {keys:?}").contains(&secret_line));
    }

    #[test]
    fn a_run_that_was_stopped_between_the_halves_is_gone_on_from() {
        let dir = tempfile::tempdir().unwrap();
        let keys = keys(dir.path(), &[]);
        let public = keys.ensure(&node()).unwrap();
        std::fs::remove_file(keys.public_path(&node())).unwrap();
        assert_eq!(keys.ensure(&node()).unwrap(), public);
    }

    #[test]
    fn a_lost_private_half_is_never_replaced_in_silence() {
        let dir = tempfile::tempdir().unwrap();
        let keys = keys(dir.path(), &[]);
        keys.ensure(&node()).unwrap();
        std::fs::remove_file(keys.private_path(&node())).unwrap();
        let error = keys.ensure(&node()).unwrap_err();
        assert!(matches!(error, KeyError::HalfMissing { .. }), "{error}");
    }

    #[test]
    fn keys_are_encrypted_to_the_operators_and_to_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let operator = age::x25519::Identity::generate();
        let ssh_file = dir.path().join("ssh");
        let ssh = generate(&ssh_file).unwrap();
        let operators = [
            operator.to_public().to_string(),
            format!(
                "{} ada@desk",
                HostKey::from_public(ssh.public_key().clone())
            ),
        ];
        let keys_of_team = keys(dir.path(), &operators);
        keys_of_team.ensure(&node()).unwrap();
        let nobody = keys_of_team.private(&node()).unwrap_err();
        assert!(matches!(nobody, KeyError::CannotDecrypt { .. }), "{nobody}");
        assert!(
            !dir.path().join("state").exists(),
            "no identity is made beside operators"
        );

        let age_file = dir.path().join("age");
        std::fs::write(&age_file, operator.to_string().expose_secret().as_bytes()).unwrap();
        let ssh = encode(&ssh, &ssh_file).unwrap();
        std::fs::write(&ssh_file, ssh.expose_secret()).unwrap();
        for file in [age_file, ssh_file] {
            let source = IdentitySource {
                state_dir: dir.path().join("state"),
                identity_files: vec![file],
                well_known: false,
            };
            let keys = HostKeys::open(&dir.path().join("secrets"), &operators, source).unwrap();
            keys.private(&node()).unwrap();
        }
    }

    #[test]
    fn a_bad_recipient_and_a_damaged_key_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let source = || IdentitySource {
            state_dir: dir.path().join("state"),
            identity_files: vec![],
            well_known: false,
        };
        let error = HostKeys::open(dir.path(), &["age1nonsense".into()], source()).unwrap_err();
        assert!(matches!(error, KeyError::BadRecipient { .. }), "{error}");
        let keys = keys(dir.path(), &[]);
        keys.ensure(&node()).unwrap();
        std::fs::write(keys.private_path(&node()), "not age at all").unwrap();
        assert!(keys.private(&node()).is_err());
        std::fs::write(keys.public_path(&node()), "not a key").unwrap();
        let error = keys.public(&node()).unwrap_err();
        assert!(matches!(error, KeyError::BadKey { .. }), "{error}");
    }

    #[test]
    fn the_operators_ssh_key_is_made_once_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let key = OperatorKey::ensure(dir.path(), "basement").unwrap();
        assert_eq!(mode(&key.private_file), 0o600);
        assert!(key.authorized_key.starts_with("ssh-ed25519 "));
        assert!(key.authorized_key.ends_with(" undercroft basement"));
        let again = OperatorKey::ensure(dir.path(), "basement").unwrap();
        assert_eq!(again.authorized_key, key.authorized_key);
    }

    #[test]
    fn each_operators_public_key_is_published_once() {
        let dir = tempfile::tempdir().unwrap();
        let ada = OperatorKey::ensure(&dir.path().join("ada"), "basement").unwrap();
        let bob = OperatorKey::ensure(&dir.path().join("bob"), "basement").unwrap();
        for key in [&ada, &bob, &ada] {
            key.publish(dir.path()).unwrap();
        }
        let text = std::fs::read_to_string(dir.path().join(OPERATORS_PUBLIC_FILE)).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [ada.authorized_key.as_str(), bob.authorized_key.as_str()]
        );
    }
}
