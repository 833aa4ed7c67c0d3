//! What Nix sees of a flake's folder.
//!
//! Of a folder in a git repository Nix copies what git knows of to its store; of any other folder
//! all that lies in it, and everybody may read the store. `.undercroft` lies in it, with the private
//! identity and the key to the machines.

use std::path::{Path, PathBuf};

use undercroft_folder::git_index;
use undercroft_folder::git_index::IndexError;
use undercroft_model::advice::Advice;

/// What a fleet's flake reads for an installer, where it is there.
pub(crate) const READ_FOR_INSTALLERS: &[&str] = &["flake.nix", "undercroft.toml"];
/// What it reads for a machine's system. Without the operators' keys a machine lets nobody in.
pub(crate) const READ_FOR_SYSTEMS: &[&str] = &[
    "flake.nix",
    "undercroft.toml",
    "facts/operators.pub",
    SECRETS,
];
/// The folder of secrets; the machines' host keys in it are for Undercroft itself.
const SECRETS: &str = "secrets";
/// The most encrypted files of that folder that are looked for.
const SECRETS_MAX: usize = 64;

/// Why Nix isn't given a flake's folder.
#[derive(Debug, thiserror::Error)]
pub enum UnseenError {
    /// It would copy all of the folder.
    #[error(
        "{} isn't in a git repository, and of such a folder Nix copies everything to its store, which everybody here may read, `.undercroft` with its private keys too", dir.display()
    )]
    NotInGit {
        /// The folder.
        dir: PathBuf,
    },
    /// It wouldn't see what the flake reads.
    #[error(
        "Nix sees only what git knows of {}, and git doesn't know {}", dir.display(), files.join(" and ")
    )]
    Unknown {
        /// The folder.
        dir: PathBuf,
        /// What git doesn't know, relative to the folder.
        files: Vec<&'static str>,
    },
    /// What git knows can't be told.
    #[error(transparent)]
    Index(#[from] IndexError),
}

impl Advice for UnseenError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotInGit { .. } => {
                "`git init && git add -A` there; `.undercroft` is left out of it".to_owned()
            }
            Self::Unknown { files, .. } => {
                format!("`git add {}` there; a commit isn't needed", files.join(" "))
            }
            Self::Index(_) => "`git status` in that folder says more".to_owned(),
        })
    }
}

/// Makes sure that Nix sees what a fleet's flake reads, and nothing that git doesn't know.
pub(crate) fn check(dir: &Path, read: &[&'static str]) -> Result<(), UnseenError> {
    if !git_index::is_in_working_tree(&dir.join("flake.nix")) {
        return Err(UnseenError::NotInGit {
            dir: dir.to_owned(),
        });
    }
    let mut files = Vec::new();
    for file in read {
        let path = dir.join(file);
        let wanted = if *file == SECRETS {
            encrypted(&path)
        } else {
            vec![path]
        };
        for path in wanted.iter().filter(|path| path.exists()) {
            if git_index::first_tracked(path)?.is_none() {
                files.push(*file);
                break;
            }
        }
    }
    if files.is_empty() {
        return Ok(());
    }
    Err(UnseenError::Unknown {
        dir: dir.to_owned(),
        files,
    })
}

/// The files that SOPS has encrypted in a folder.
fn encrypted(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().ends_with(".sops.yaml"))
        .take(SECRETS_MAX)
        .collect()
}
