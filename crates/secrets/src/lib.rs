//! The fleet's secrets: which there are, who can open them, and the files that they lie in.
//!
//! [`catalogue`] reads off the inventory what there should be, [`Vault`] makes, rotates and rekeys
//! it, and [`scan`] finds what lies in plain text where it shouldn't. Plain text is kept in memory
//! alone: files are written encrypted or not at all.

mod catalogue;
mod check;
pub mod keys;
mod kubernetes;
mod make;
mod rules;
pub mod scan;
mod vault;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use undercroft_model::advice::{Advice, ErrorKind, FileFailure};

pub use age::secrecy::{ExposeSecret, SecretString};
use undercroft_sops::SopsError;

pub use self::{
    catalogue::{Audience, Make, NatsKind, Secret, SecretFile, catalogue},
    check::SecretsFinding,
    kubernetes::{KubernetesSecret, kubernetes_secrets},
    rules::RULES_FILE,
    vault::{Changed, Edit, Initialised, PublicHalf, Rekeyed, Vault},
};
use crate::keys::KeyError;
use undercroft_folder::confined::ConfinedError;

/// Why secrets can't be read, made or written. No message holds one.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// A key file can't be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A file of secrets can't be used.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: SopsError,
    },
    /// None of the identities at hand opens a file.
    #[error("{}: {source} (looked for identities in {})", path.display(), list(tried))]
    Locked {
        /// The file.
        path: PathBuf,
        /// Who it is encrypted to.
        source: SopsError,
        /// The identity files that were looked at.
        tried: Vec<PathBuf>,
    },
    /// An operator or a person of the inventory is no recipient.
    #[error("{whose}: {source}")]
    Recipient {
        /// Whose recipient it is.
        whose: String,
        /// Why.
        source: SopsError,
    },
    /// One half of a pair is there without the other.
    #[error("{} has {present} and not {missing}, and the one can't be made from the other", path.display())]
    HalfMissing {
        /// The file.
        path: PathBuf,
        /// What is there.
        present: String,
        /// What isn't.
        missing: String,
    },
    /// A secret that another follows from isn't as it should be.
    #[error("{name} can't be made from {from}: {detail}")]
    Underivable {
        /// The secret that is to be made.
        name: String,
        /// The one that it is made from.
        from: String,
        /// What is wrong with that.
        detail: String,
    },
    /// A secret can't be made.
    #[error("{name} can't be made: {detail}")]
    Unmakable {
        /// The secret.
        name: String,
        /// Why.
        detail: String,
    },
    /// There is no secret of a name.
    #[error("there is no secret {name}")]
    NoSuchSecret {
        /// The name that was given.
        name: String,
    },
    /// Several files have a secret of a name.
    #[error("{name} is in several files: {}", files.join(", "))]
    Ambiguous {
        /// The name that was given.
        name: String,
        /// The files.
        files: Vec<String>,
    },
    /// A secret follows from another, and isn't rotated itself.
    #[error("{name} follows from {from}")]
    Follows {
        /// The secret.
        name: String,
        /// The one that it follows from.
        from: String,
    },
    /// A secret can't be made by a program.
    #[error("{name} must be given by a person")]
    MustBeGiven {
        /// The secret.
        name: String,
    },
    /// A file leaves values in plain text that are secrets.
    #[error(
        "{}: what it says of which values are encrypted isn't what SOPS has by itself, so that secrets would be written in plain text",
        path.display()
    )]
    Rule {
        /// The file.
        path: PathBuf,
    },
    /// A secret is a number or a list, and every secret is a text.
    #[error("{}: the value of {name} is no text", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// The secret.
        name: String,
    },
    /// Somebody else wrote a file while it was being changed here.
    #[error("{} was changed by somebody else meanwhile, and was left as it is", path.display())]
    ChangedMeanwhile {
        /// The file.
        path: PathBuf,
    },
    /// Another command changes the secrets.
    #[error("another command is changing the secrets in {}", folder.display())]
    Busy {
        /// The secrets folder.
        folder: PathBuf,
    },
    /// What would be made couldn't be opened by whoever makes it.
    #[error(
        "nothing was made: no identity at hand is one of the operators of [secrets], so that nothing of it could be opened here (looked for identities in {})",
        list(tried)
    )]
    NoOwnIdentity {
        /// The identity files that were looked at.
        tried: Vec<PathBuf>,
    },
    /// A file would be left without any of the secrets that it had.
    #[error("nothing is left of {}; it was left as it was", path.display())]
    Emptied {
        /// The file.
        path: PathBuf,
    },
    /// There is no file of secrets at a path.
    #[error("there is no file of secrets {file}")]
    NoSuchFile {
        /// The path that was given.
        file: String,
    },
}

impl From<ConfinedError> for SecretsError {
    fn from(error: ConfinedError) -> Self {
        Self::Key(error.into())
    }
}

impl Advice for SecretsError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Key(
                error @ (KeyError::Io { .. } | KeyError::NobodyAgreed { .. } | KeyError::NotAgreed),
            ) => error.kind(),
            Self::Key(_)
            | Self::Locked { .. }
            | Self::Unmakable { .. }
            | Self::ChangedMeanwhile { .. }
            | Self::Busy { .. }
            | Self::NoOwnIdentity { .. } => ErrorKind::Failed,
            Self::NoSuchSecret { .. }
            | Self::Ambiguous { .. }
            | Self::Follows { .. }
            | Self::MustBeGiven { .. }
            | Self::NoSuchFile { .. } => ErrorKind::Usage,
            _ => ErrorKind::Input,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Key(error) => error.hint(),
            Self::File { source, .. }
            | Self::Locked { source, .. }
            | Self::Recipient { source, .. } => source.hint().map(str::to_owned),
            Self::HalfMissing { missing, .. } => Some(format!(
                "Bring {missing} back from the repository's history; if no machine uses the pair, take the other half away with `undercroft secrets edit`, and `undercroft secrets init` makes both."
            )),
            Self::NoSuchSecret { .. } => {
                Some("`undercroft secrets list` shows the names.".to_owned())
            }
            Self::Ambiguous { name, files } => files
                .first()
                .map(|file| format!("Name the file too: `{file}:{name}`.")),
            Self::Follows { from, .. } => Some(format!("Rotate {from}; it is made anew with it.")),
            Self::MustBeGiven { name } => Some(format!(
                "Pipe it in: `undercroft secrets rotate {name} --stdin < FILE`."
            )),
            Self::NoSuchFile { .. } => {
                Some("`undercroft secrets list` shows the files.".to_owned())
            }
            Self::Rule { .. } => Some(
                "Bring `unencrypted_suffix: _unencrypted` back in its `sops` part, in place of the other rule, and look who changed it: `git log -p` of the file.".to_owned(),
            ),
            Self::NotText { .. } => Some("Put the value in quotes.".to_owned()),
            Self::ChangedMeanwhile { .. } => {
                Some("Run the command again; it begins with the file as it is now.".to_owned())
            }
            Self::Busy { .. } => Some(
                "Wait until it has ended: an `undercroft secrets edit` ends with its editor.".to_owned(),
            ),
            Self::NoOwnIdentity { .. } => Some(
                "Name the file of your age identity with --identity, or put its recipient among the `operators` of [secrets]: `age-keygen` makes both.".to_owned(),
            ),
            Self::Emptied { .. } => Some(
                "The text came back without a single secret, as from an editor that failed. To take secrets away for good, take them out one by one and leave the others.".to_owned(),
            ),
            Self::Underivable { .. } | Self::Unmakable { .. } => None,
        }
    }

    fn file(&self) -> Option<FileFailure<'_>> {
        match self {
            Self::Key(error) => error.file(),
            _ => None,
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
