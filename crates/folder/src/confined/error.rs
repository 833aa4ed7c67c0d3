//! Why something beneath a folder was refused.

use std::path::PathBuf;
use undercroft_model::advice::{Advice, ErrorKind, FileFailure, kind_of_io};

/// Why a file or a folder was not used.
#[derive(Debug, thiserror::Error)]
pub enum ConfinedError {
    /// A name leads out of the folder.
    #[error("{} doesn't lead to anything inside of {}", name.display(), root.display())]
    Outside {
        /// The name.
        name: PathBuf,
        /// The folder.
        root: PathBuf,
    },
    /// It is a symbolic link, or one is on the way to it.
    #[error("{} is a symbolic link, and links aren't followed", path.display())]
    Link {
        /// The link.
        path: PathBuf,
    },
    /// Something else is there than a file.
    #[error("{} is {what} and no file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What it is, with its article.
        what: &'static str,
    },
    /// A folder was wanted.
    #[error("{} isn't a folder", path.display())]
    NotAFolder {
        /// The path.
        path: PathBuf,
    },
    /// It is larger than such a file may be.
    #[error("{} is longer than {bytes_max} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit, in bytes.
        bytes_max: u64,
    },
    /// A folder holds more than is looked at.
    #[error("{} holds more than {entries_max} files", path.display())]
    TooMany {
        /// The folder.
        path: PathBuf,
        /// The limit.
        entries_max: usize,
    },
    /// A text was wanted.
    #[error("{} isn't UTF-8", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// A file that was to be made is there already.
    #[error("{} is there already", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A file that must have one name has several.
    #[error("{} is a second name of another file (a hard link)", path.display())]
    SecondName {
        /// The file.
        path: PathBuf,
    },
    /// It belongs to somebody else.
    #[error("{} belongs to user {owner}, and you are user {}", path.display(), rustix::process::geteuid().as_raw())]
    Foreign {
        /// The file or folder.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// The operating system refused.
    #[error("can't {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Advice for ConfinedError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } => kind_of_io(source),
            _ => ErrorKind::Input,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Outside { .. } => Some("Names are relative to the folder, without '..'."),
            Self::Link { .. } => Some(
                "A link in a repository may lead anywhere on the computer of whoever uses it: put the file or the folder itself there.",
            ),
            Self::NotAFile { .. } | Self::NotAFolder { .. } => {
                Some("Look at what lies there, and who put it there; then take it away.")
            }
            Self::TooLarge { .. } | Self::TooMany { .. } => {
                Some("Nothing that belongs there is that large: look at who put it there.")
            }
            Self::NotText { .. } => Some("Save it as UTF-8."),
            Self::Exists { .. } => Some("It is left as it is. Move it away to have it made anew."),
            Self::SecondName { .. } => {
                Some("What is written to it would reach the other file too: move it away.")
            }
            Self::Foreign { .. } => Some(
                "Look at who put it there. If it is yours, give it back to yourself with chown(1).",
            ),
            Self::Io { .. } => None,
        };
        hint.map(str::to_owned)
    }

    fn file(&self) -> Option<FileFailure<'_>> {
        match self {
            Self::Io { what, path, source } => Some(FileFailure {
                tried: Some(what),
                path,
                source: Some(source),
            }),
            _ => None,
        }
    }
}
