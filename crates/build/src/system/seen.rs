//! What Nix sees of a flake's folder.
//!
//! Of a folder in a git repository Nix copies what git knows of to its store; of any other folder
//! all that lies in it, and everybody may read the store. `.undercroft` lies in it, with the private
//! identity and the key to the machines.

use std::path::{Path, PathBuf};

use undercroft_folder::confined::Confined;
use undercroft_folder::git_index::{self, IndexError};
use undercroft_model::{advice::Advice, inventory};

/// What a fleet's flake reads for an installer, where it is there.
const READ_FOR_INSTALLERS: &[&str] = &["flake.nix", INVENTORY];
/// What it reads for a machine's system, beside the files of the inventory's folder of secrets. Without
/// the operators' keys a machine lets nobody in.
const READ_FOR_SYSTEMS: &[&str] = &["flake.nix", INVENTORY, "facts/operators.pub"];
const INVENTORY: &str = "undercroft.toml";
/// The largest inventory that is read, in bytes, as for every other command.
const INVENTORY_BYTES_MAX: u64 = 8 << 20;
/// The folder of secrets where no inventory can be read that names one.
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
        files: Vec<String>,
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

/// The folder of the encrypted files, as nix/mk-fleet.nix has it from the same inventory. The machines'
/// host keys in it are for Undercroft itself.
fn secrets(dir: &Path) -> String {
    let read = Confined::new(dir).read(INVENTORY, INVENTORY_BYTES_MAX);
    read.ok()
        .flatten()
        .and_then(|text| inventory::parse(INVENTORY, &text).inventory)
        .map_or_else(|| SECRETS.to_owned(), |inventory| inventory.secrets.path)
}

/// Makes sure that Nix sees what a fleet's flake reads for a machine's system, and nothing that git doesn't
/// know.
pub(crate) fn check_for_systems(dir: &Path) -> Result<(), UnseenError> {
    let secrets = secrets(dir);
    let encrypted = encrypted(&dir.join(&secrets));
    check_all(dir, READ_FOR_SYSTEMS, &[(secrets, encrypted)])
}

/// The same of what it reads for an installer.
pub(crate) fn check_for_installers(dir: &Path) -> Result<(), UnseenError> {
    check_all(dir, READ_FOR_INSTALLERS, &[])
}

/// `folders` are those of which only some files are read.
fn check_all(
    dir: &Path,
    read: &[&str],
    folders: &[(String, Vec<PathBuf>)],
) -> Result<(), UnseenError> {
    if !git_index::is_in_working_tree(&dir.join("flake.nix")) {
        return Err(UnseenError::NotInGit {
            dir: dir.to_owned(),
        });
    }
    let mut files = Vec::new();
    let single = read
        .iter()
        .map(|file| ((*file).to_owned(), vec![dir.join(file)]));
    for (file, wanted) in single.chain(folders.iter().cloned()) {
        for path in wanted.iter().filter(|path| path.exists()) {
            if git_index::first_tracked(path)?.is_none() {
                files.push(file);
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
