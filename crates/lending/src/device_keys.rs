//! The two keys of a device: its owner's, which signs what is agreed to, and its own, which proves it to NATS and
//! signs what was done. Both are nkeys of users (`U…`), made where they are used and never shown.

use std::{path::PathBuf, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use nkeys::KeyPair;
use secrecy::{ExposeSecret as _, SecretString};
use undercroft_folder::confined::{Confined, ConfinedError};
use undercroft_lend::consent::{Keys, PublicKey, Sign, Signature, Signer, Verify};
use undercroft_model::advice::{Advice, ErrorKind, FileFailure};

use crate::keys::UserKey;

/// The file of the owner's key, in the state folder.
const OWNER_FILE: &str = "owner.nk";
/// The file of the device's key, in the state folder. It is what proves the device to NATS, too.
const DEVICE_FILE: &str = "device.nk";
/// The longest that a file with a seed may be, in bytes: a seed has 58.
const SEED_BYTES_MAX: u64 = 256;

/// Why keys can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// A file could not be reached.
    #[error(transparent)]
    File(#[from] ConfinedError),
    /// What a file holds is no seed of a user's nkey.
    #[error("{} holds no seed of a user of NATS (SU…)", path.display())]
    NoSeed {
        /// The file.
        path: PathBuf,
    },
    /// One of the two is there without the other.
    #[error("{} is there, and {} isn't", found.display(), missing.display())]
    Half {
        /// The one.
        found: PathBuf,
        /// The other.
        missing: PathBuf,
    },
}

impl Advice for KeysError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::File(error) => error.kind(),
            Self::NoSeed { .. } | Self::Half { .. } => ErrorKind::Input,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::File(error) => error.hint(),
            Self::NoSeed { .. } | Self::Half { .. } => Some(
                "Take both keys from a backup. Without one, move the state folder away and enrol anew: the operator \
                 then accepts the new keys in place of the old."
                    .to_owned(),
            ),
        }
    }

    fn file(&self) -> Option<FileFailure<'_>> {
        match self {
            Self::File(error) => error.file(),
            _ => None,
        }
    }
}

/// Both keys of a device, with their secret halves.
#[derive(Debug)]
pub struct OwnKeys {
    owner: UserKey,
    device: Arc<UserKey>,
}

impl OwnKeys {
    /// Reads the keys of a state folder; `None` where none were made.
    ///
    /// # Errors
    /// When they can't be read, or one is absent.
    pub fn read(folder: &Confined) -> Result<Option<Self>, KeysError> {
        let half = |found, missing| KeysError::Half {
            found: folder.path(found),
            missing: folder.path(missing),
        };
        match (read(folder, OWNER_FILE)?, read(folder, DEVICE_FILE)?) {
            (Some(owner), Some(device)) => Ok(Some(Self {
                owner,
                device: Arc::new(device),
            })),
            (None, None) => Ok(None),
            (Some(_), None) => Err(half(OWNER_FILE, DEVICE_FILE)),
            (None, Some(_)) => Err(half(DEVICE_FILE, OWNER_FILE)),
        }
    }

    /// Reads the keys of a state folder, or makes them where there are none.
    ///
    /// # Errors
    /// When they can't be read or written, or one is absent.
    pub fn read_or_make(folder: &Confined) -> Result<Self, KeysError> {
        if let Some(keys) = Self::read(folder)? {
            return Ok(keys);
        }
        let keys = Self {
            owner: UserKey::generate(),
            device: Arc::new(UserKey::generate()),
        };
        for (name, key) in [(DEVICE_FILE, &*keys.device), (OWNER_FILE, &keys.owner)] {
            key.write_new(folder, name)?;
        }
        Ok(keys)
    }

    /// The public halves.
    pub fn public(&self) -> Keys {
        Keys {
            owner: self.owner.public(),
            device: self.device.public(),
        }
    }

    /// The device's own, which proves it to NATS.
    pub fn device(&self) -> Arc<UserKey> {
        Arc::clone(&self.device)
    }
}

fn read(folder: &Confined, name: &str) -> Result<Option<UserKey>, KeysError> {
    folder.require_own(name)?;
    let Some(text) = folder.read_text(name, SEED_BYTES_MAX)? else {
        return Ok(None);
    };
    let text = SecretString::from(text);
    let key = UserKey::from_seed(text.expose_secret());
    key.map(Some).ok_or_else(|| KeysError::NoSeed {
        path: folder.path(name),
    })
}

impl Sign for OwnKeys {
    fn sign(&self, signer: Signer, bytes: &[u8]) -> Signature {
        let key = match signer {
            Signer::Owner => &self.owner,
            Signer::Device => &*self.device,
        };
        Signature(STANDARD.encode(key.sign(bytes)))
    }
}

impl Verify for OwnKeys {
    fn holds(&self, key: &PublicKey, bytes: &[u8], signature: &Signature) -> bool {
        NkeyVerify.holds(key, bytes, signature)
    }
}

/// Checks signatures of nkeys: Ed25519, in base64.
#[derive(Debug, Clone, Copy, Default)]
pub struct NkeyVerify;

impl Verify for NkeyVerify {
    fn holds(&self, key: &PublicKey, bytes: &[u8], signature: &Signature) -> bool {
        let Ok(signature) = STANDARD.decode(&signature.0) else {
            return false;
        };
        key.0.starts_with('U')
            && KeyPair::from_public_key(&key.0)
                .is_ok_and(|key| key.verify(bytes, &signature).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn folder() -> (tempfile::TempDir, Confined) {
        let dir = tempfile::tempdir().unwrap();
        let folder = Confined::new(dir.path());
        (dir, folder)
    }

    #[test]
    fn keys_are_made_once_in_files_of_their_owner_alone() {
        let (dir, folder) = folder();
        assert!(OwnKeys::read(&folder).unwrap().is_none());
        let made = OwnKeys::read_or_make(&folder).unwrap();
        let again = OwnKeys::read_or_make(&folder).unwrap();
        assert_eq!(made.public(), again.public());
        assert_ne!(made.public().owner, made.public().device);
        for name in [OWNER_FILE, DEVICE_FILE] {
            let meta = std::fs::metadata(dir.path().join(name)).unwrap();
            assert_eq!(meta.permissions().mode() & 0o777, 0o600, "{name}");
        }
        // A public key may have any letters in it.
        let shown = format!("{made:?}");
        for name in [OWNER_FILE, DEVICE_FILE] {
            let seed = std::fs::read_to_string(dir.path().join(name)).unwrap();
            assert!(!shown.contains(seed.trim()), "{shown}");
        }
    }

    #[test]
    fn a_signature_holds_for_its_key_and_its_bytes_alone() {
        let (_dir, folder) = folder();
        let keys = OwnKeys::read_or_make(&folder).unwrap();
        let public = keys.public();
        let signature = keys.sign(Signer::Owner, b"lent");
        assert!(NkeyVerify.holds(&public.owner, b"lent", &signature));
        assert!(!NkeyVerify.holds(&public.device, b"lent", &signature));
        assert!(!NkeyVerify.holds(&public.owner, b"Lent", &signature));
        for wrong in ["", "!", "AAAA", &signature.0.to_lowercase()] {
            let wrong = Signature(wrong.to_owned());
            assert!(!NkeyVerify.holds(&public.owner, b"lent", &wrong));
        }
        let no_key = PublicKey("UABC".to_owned());
        assert!(!NkeyVerify.holds(&no_key, b"lent", &signature));
    }

    #[test]
    fn half_of_the_keys_and_what_is_no_key_are_refused() {
        let (dir, folder) = folder();
        OwnKeys::read_or_make(&folder).unwrap();
        std::fs::remove_file(dir.path().join(DEVICE_FILE)).unwrap();
        let error = OwnKeys::read_or_make(&folder).unwrap_err();
        assert!(error.to_string().ends_with("device.nk isn't"), "{error}");
        let account = KeyPair::new_account().seed().unwrap();
        for text in ["", "SUAB", &account] {
            std::fs::write(dir.path().join(DEVICE_FILE), text).unwrap();
            let error = OwnKeys::read(&folder).unwrap_err();
            assert!(matches!(error, KeysError::NoSeed { .. }), "{error}");
            assert!(text.is_empty() || !error.to_string().contains(text));
        }
    }
}
