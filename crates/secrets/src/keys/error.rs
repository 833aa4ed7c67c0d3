//! Why a key could not be made, read or written.

use std::path::{Path, PathBuf};

use undercroft_folder::confined::ConfinedError;
use undercroft_model::advice::{Advice, ErrorKind, FileFailure};

use super::change::{ReaderChange, lines};

/// The largest key file that is read, in bytes; an encrypted host key to a hundred operators is a
/// fifth of it.
pub(super) const KEY_FILE_BYTES_MAX: u64 = 64 * 1024;

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
    /// The public half isn't that of the private half.
    #[error(
        "the public host key of {} was exchanged: {} isn't the public half of {}; the one has the fingerprint {written}, and the key in the other {derived}",
        node_of(public),
        public.display(),
        private.display()
    )]
    Swapped {
        /// The public half's file.
        public: PathBuf,
        /// The private half's file.
        private: PathBuf,
        /// The fingerprint of what the public half's file holds.
        written: String,
        /// The fingerprint of the private half.
        derived: String,
    },
    /// One private half can't be opened, by somebody who can open others.
    #[error(
        "{} can't be opened here, as other host keys can: it was encrypted to somebody else",
        private.display()
    )]
    Foreign {
        /// The private half's file.
        private: PathBuf,
    },
    /// Nobody is at hand to whom something could be encrypted.
    #[error(
        "the fleet's own identity isn't at hand, and `operators` of [secrets] names nobody, so that nothing can be encrypted"
    )]
    NoOperator,
    /// Readers would come or go, and nobody is there who could agree to it.
    #[error(
        "these would be able to read secrets, or no longer, and nobody has agreed to that; nothing was written:\n{}",
        lines(changes)
    )]
    NobodyAgreed {
        /// Who comes and goes.
        changes: Vec<ReaderChange>,
    },
    /// A person didn't agree.
    #[error("nothing was written")]
    NotAgreed,
    /// A key file holds something else.
    #[error("{} holds no usable key: {detail}", path.display())]
    BadKey {
        /// The file.
        path: PathBuf,
        /// Why.
        detail: String,
    },
}

impl Advice for KeyError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { .. } | Self::NotAgreed | Self::NoOperator => ErrorKind::Failed,
            Self::NobodyAgreed { .. } => ErrorKind::Usage,
            _ => ErrorKind::Input,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
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
            Self::Confined(error) => return error.hint(),
            Self::Swapped { .. } | Self::Foreign { .. } => Some(
                "No machine was touched, the others neither: whoever could exchange one file here could exchange more. Don't use either file before you know who changed it: `git log -p -- FILE` shows that, and `git checkout COMMIT -- FILE` brings both back as they were when the machine was installed. Then give the command again.",
            ),
            Self::NoOperator => Some(
                "Bring .undercroft/operator-identity.txt back from where you keep a copy of it, or name the operators' age recipients as `operators` of [secrets].",
            ),
            Self::NobodyAgreed { .. } => {
                Some("Run it at a terminal, which asks; or give --yes once you know each of them.")
            }
            Self::Io { .. } | Self::BadKey { .. } | Self::NotAgreed => None,
        };
        hint.map(str::to_owned)
    }

    fn file(&self) -> Option<FileFailure<'_>> {
        match self {
            Self::Io { path, source, .. } => Some(FileFailure {
                tried: None,
                path,
                source: Some(source),
            }),
            _ => None,
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

/// The machine whose key a file is named after.
fn node_of(path: &Path) -> String {
    let name = path.file_stem().unwrap_or_default();
    undercroft_process::printable(&name.to_string_lossy())
}

fn list(paths: &[PathBuf]) -> String {
    if paths.is_empty() {
        return "no file: there is none".to_owned();
    }
    let paths: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
    paths.join(", ")
}
