//! The key that somebody connects to NATS with.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use nkeys::{KeyPair, KeyPairType};
use rustix::fs::{Mode, OFlags};
use secrecy::{ExposeSecret as _, SecretString};
use undercroft_folder::confined::{Confined, ConfinedError, Modes};
use undercroft_lend::consent::PublicKey;
use undercroft_model::advice::{Advice, ErrorKind, FileFailure};

/// The longest file with a seed that is read, in bytes. A seed has 58 characters; comments may stand around it.
const FILE_BYTES_MAX: u64 = 4096;

/// A key with its secret half. It never shows that half.
pub struct UserKey(KeyPair);

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// The file can't be read.
    #[error("can't read the key in {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// It is no regular file, or far too large.
    #[error("{} is no file with a key", path.display())]
    NoFile {
        /// What was named.
        path: PathBuf,
    },
    /// Others can read it.
    #[error("the key in {} can be read by others: its mode is {mode:04o}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// There is no seed of a user in it.
    #[error("{} holds no seed of a user of NATS (SU…)", path.display())]
    NoSeed {
        /// The file.
        path: PathBuf,
    },
    /// A new one could not be written.
    #[error(transparent)]
    Write(#[from] ConfinedError),
}

impl Advice for SeedError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::File { source, .. } => undercroft_model::advice::kind_of_io(source),
            Self::NoFile { .. } | Self::Open { .. } | Self::NoSeed { .. } => ErrorKind::Input,
            Self::Write(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::File { .. } => return None,
            Self::Write(error) => return error.hint(),
            Self::NoFile { .. } => "Name the file that holds the seed (SU…).".to_owned(),
            Self::Open { path, .. } => format!(
                "Run `chmod 600 {}`; if somebody may have read it, make another key.",
                path.display()
            ),
            Self::NoSeed { .. } => {
                "A seed begins with SU and has 58 characters; a public key (U…) is no seed."
                    .to_owned()
            }
        })
    }

    fn file(&self) -> Option<FileFailure<'_>> {
        match self {
            Self::File { path, source } => Some(FileFailure {
                tried: Some("read the key in"),
                path,
                source: Some(source),
            }),
            Self::Write(error) => error.file(),
            Self::NoFile { .. } | Self::Open { .. } | Self::NoSeed { .. } => None,
        }
    }
}

impl fmt::Debug for UserKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("UserKey").field(&self.public().0).finish()
    }
}

impl UserKey {
    /// A new one.
    pub fn generate() -> Self {
        Self(KeyPair::new_user())
    }

    /// The key whose seed a file holds. Others than the file's owner must not be able to read it.
    ///
    /// # Errors
    /// When it can't be read, others can read it, or it holds no seed of a user.
    pub fn read(path: &Path) -> Result<Self, SeedError> {
        let failed = |source: io::Error| SeedError::File {
            path: path.to_owned(),
            source,
        };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| failed(e.into()))?;
        let stat = rustix::fs::fstat(file.as_fd()).map_err(|e| failed(e.into()))?;
        let is_file = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file();
        if !is_file || u64::try_from(stat.st_size).is_ok_and(|bytes| bytes > FILE_BYTES_MAX) {
            return Err(SeedError::NoFile {
                path: path.to_owned(),
            });
        }
        let mode = stat.st_mode & 0o7777;
        // What systemd hands to a service as a credential is root's, and an access list lets that service alone
        // read it, which shows as the group's right. What a kubelet hands to a pod is root's, too, and its group the
        // pod's own.
        let is_credential = stat.st_uid == 0 && mode == 0o440;
        if mode & 0o077 != 0 && !is_credential {
            return Err(SeedError::Open {
                path: path.to_owned(),
                mode,
            });
        }
        let mut text = secrecy::zeroize::Zeroizing::new(String::new());
        File::from(file)
            .take(FILE_BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(failed)?;
        Self::from_seed(&text).ok_or_else(|| SeedError::NoSeed {
            path: path.to_owned(),
        })
    }

    /// The key of a file as [`Self::read`] reads it, or a new one in it where there is no such file; and whether it
    /// is new.
    ///
    /// # Errors
    /// As [`Self::read`], and when the file can't be written.
    pub fn read_or_make(path: &Path) -> Result<(Self, bool), SeedError> {
        match Self::read(path) {
            Ok(key) => return Ok((key, false)),
            Err(SeedError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let Some(name) = path.file_name() else {
            return Err(SeedError::NoFile {
                path: path.to_owned(),
            });
        };
        let folder = path.parent().filter(|folder| *folder != Path::new(""));
        let folder = Confined::new(folder.unwrap_or(Path::new(".")));
        let key = Self::generate();
        key.write_new(&folder, name)?;
        Ok((key, true))
    }

    /// Writes its seed into a file that isn't there yet, and that nobody else can read.
    pub(crate) fn write_new(
        &self,
        folder: &Confined,
        name: impl AsRef<Path>,
    ) -> Result<(), ConfinedError> {
        let line = SecretString::from(format!("{}\n", self.seed().expose_secret()));
        folder.write_new(name, line.expose_secret().as_bytes(), Modes::PRIVATE)
    }

    /// The key of a seed, which may stand among lines of comment; `None` where there is none of a user.
    pub fn from_seed(text: &str) -> Option<Self> {
        let seed = text
            .lines()
            .map(str::trim)
            .find(|line| line.starts_with("SU"))?;
        let pair = KeyPair::from_seed(seed).ok()?;
        (pair.key_pair_type() == KeyPairType::User).then_some(Self(pair))
    }

    /// Its public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.public_key())
    }

    /// Its signature of some bytes.
    pub(crate) fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        // Only a pair without a secret half can't sign, and none is made without.
        self.0.sign(bytes).unwrap_or_default()
    }

    /// Its secret half, for a file that nobody else can read.
    pub fn seed(&self) -> SecretString {
        // A pair with a secret half has a seed.
        self.0.seed().unwrap_or_default().into()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn a_file_that_others_can_read_holds_no_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let key = UserKey::generate();
        fs::write(&path, key.seed().expose_secret()).unwrap();
        for (mode, is_good) in [(0o600, true), (0o400, true), (0o644, false), (0o640, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let read = UserKey::read(&path);
            match read {
                Ok(read) => assert!(is_good && read.public() == key.public(), "{mode:o}"),
                Err(SeedError::Open { mode: found, .. }) => assert!(!is_good && found == mode),
                Err(error) => panic!("{error}"),
            }
        }
    }

    #[test]
    fn a_key_is_made_once_and_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let (made, is_new) = UserKey::read_or_make(&path).unwrap();
        assert!(is_new);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let (again, is_new) = UserKey::read_or_make(&path).unwrap();
        assert!(!is_new && made.public() == again.public());
        let secret = made.seed().expose_secret().to_owned();
        assert!(!format!("{made:?}").contains(&secret));
        let nowhere = UserKey::read_or_make(&path.join("b")).unwrap_err();
        assert_eq!(nowhere.kind(), ErrorKind::Input, "{nowhere}");
    }

    #[test]
    fn other_keys_and_other_files_are_none() {
        let folder = tempfile::tempdir().unwrap();
        let error = |text: &str| {
            let path = folder.path().join("key");
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            UserKey::read(&path).unwrap_err()
        };
        let account = KeyPair::new_account().seed().unwrap();
        let public = UserKey::generate().public().0;
        for text in ["", "SU", &account, &public] {
            assert!(matches!(error(text), SeedError::NoSeed { .. }));
        }
        assert!(matches!(error(&"a".repeat(5000)), SeedError::NoFile { .. }));
        let gone = UserKey::read(&folder.path().join("gone")).unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::Input);
        assert!(matches!(
            UserKey::read(folder.path()),
            Err(SeedError::NoFile { .. })
        ));
    }
}
