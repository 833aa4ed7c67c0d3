//! The operator's key to log in with.

use std::path::{Path, PathBuf};

use age::secrecy::{ExposeSecret as _, SecretString};
use ssh_key::PrivateKey;

use super::{
    OPERATOR_SSH_KEY_FILE, OPERATORS_PUBLIC_FILE, encode,
    error::{KEY_FILE_BYTES_MAX, KeyError},
    generate,
};
use undercroft_folder::confined::{Confined, Modes};

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
        Self::read(state_dir)
    }

    /// The fleet's key in its state directory, where it was made.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn find(state_dir: &Path) -> Result<Option<Self>, KeyError> {
        if !Confined::new(state_dir).is_file(OPERATOR_SSH_KEY_FILE)? {
            return Ok(None);
        }
        Self::read(state_dir).map(Some)
    }

    /// What stands for the key where a look is all that is wanted and none was made: nobody lets it
    /// in.
    pub fn none(state_dir: &Path) -> Self {
        Self {
            private_file: state_dir.join(OPERATOR_SSH_KEY_FILE),
            authorized_key: String::new(),
        }
    }

    /// The key of the tokens that boot scripts carry: it lasts as long as the operator's own, so that
    /// a controller that is started again knows the machines that it has booted.
    ///
    /// # Errors
    /// When the private half can't be read.
    pub fn token_key(&self) -> Result<undercroft_netboot::token::TokenKey, KeyError> {
        use sha2::Digest as _;
        let state = Confined::new(self.private_file.parent().unwrap_or(Path::new(".")));
        let bytes = state.read(OPERATOR_SSH_KEY_FILE, KEY_FILE_BYTES_MAX)?;
        let bytes = zeroize::Zeroizing::new(bytes.unwrap_or_default());
        let mut hasher = sha2::Sha256::new();
        hasher.update(b"undercroft boot tokens\0");
        hasher.update(&*bytes);
        Ok(undercroft_netboot::token::TokenKey(
            hasher.finalize().into(),
        ))
    }

    fn read(state_dir: &Path) -> Result<Self, KeyError> {
        let state = Confined::new(state_dir);
        let private_file = state_dir.join(OPERATOR_SSH_KEY_FILE);
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
    /// Whether it wasn't there before.
    ///
    /// # Errors
    /// When the file can't be read or written.
    pub fn publish(&self, repository: &Path) -> Result<bool, KeyError> {
        let repository = Confined::new(repository);
        let present = repository.read(OPERATORS_PUBLIC_FILE, KEY_FILE_BYTES_MAX)?;
        let mut text = String::from_utf8_lossy(&present.unwrap_or_default()).into_owned();
        if text.lines().any(|line| line == self.authorized_key) {
            return Ok(false);
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
        repository.replace(OPERATORS_PUBLIC_FILE, text.as_bytes(), modes)?;
        Ok(true)
    }
}
