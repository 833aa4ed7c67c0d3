//! The state folder: what a controller knows of its fleet, beside the inventory and never in git.
//!
//! It holds private keys, and approvals and proofs that are believed. So it is used only where
//! this user made it: not where git brought it along, not through a link, and not where it is
//! somebody else's.

use std::{
    fs::{DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};
use undercroft_model::advice::{Advice, ErrorKind, FileFailure, kind_of_io};

use crate::{
    confined::{Confined, ConfinedError, FileKind, Modes, is_ours},
    git_index::{self, IndexError},
};

/// The folder's name, beside the inventory.
pub const STATE_FOLDER: &str = ".undercroft";
/// The file by which git leaves the folder alone.
const IGNORE_FILE: &str = ".gitignore";
/// What is in it.
const IGNORE_TEXT: &str = "# What Undercroft knows of this fleet. It holds private keys.\n*\n";
/// The longest ignore file that is looked at, in bytes.
const IGNORE_BYTES_MAX: u64 = 64 * 1024;
/// How many folders deep the state folder is looked through; a rack's machines are at three.
const DEPTH_MAX: usize = 8;

/// Why a state folder isn't used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Somebody has committed it.
    #[error(
        "{} can't be trusted: git tracks {entry} in it, so whoever can change the repository can put keys and approvals there",
        path.display()
    )]
    Tracked {
        /// The folder.
        path: PathBuf,
        /// What git tracks, from the repository's folder.
        entry: String,
    },
    /// It can't be told whether somebody has.
    #[error("it can't be told whether git tracks {}", path.display())]
    Untold {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: IndexError,
    },
    /// It is a link, or holds one.
    #[error("{} can't be trusted: {}", path.display(), of_link(path, link))]
    Link {
        /// The folder.
        path: PathBuf,
        /// The link.
        link: PathBuf,
    },
    /// It belongs to somebody else, or something in it does.
    #[error(
        "{} can't be trusted: {} belongs to user {owner}, and you are user {}",
        path.display(),
        if path == what { "it".to_owned() } else { what.display().to_string() },
        rustix::process::geteuid().as_raw()
    )]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// What belongs to somebody else.
        what: PathBuf,
        /// To whom.
        owner: u32,
    },
    /// Something in it is no file.
    #[error("{} can't be trusted: {} is {kind}", path.display(), what.display())]
    Special {
        /// The folder.
        path: PathBuf,
        /// What is no file.
        what: PathBuf,
        /// What it is, with its article.
        kind: &'static str,
    },
    /// It can't be used.
    #[error(transparent)]
    Confined(#[from] ConfinedError),
    /// The operating system refused.
    #[error("can't {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

fn of_link(path: &Path, link: &Path) -> String {
    if path == link {
        "it is a symbolic link".to_owned()
    } else {
        format!("{} in it is a symbolic link", link.display())
    }
}

impl Advice for StateError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } => kind_of_io(source),
            Self::Confined(error) => error.kind(),
            _ => ErrorKind::Input,
        }
    }

    fn hint(&self) -> Option<String> {
        let shown = |path: &Path| path.display().to_string();
        match self {
            Self::Tracked { path, .. } => {
                let path = shown(path);
                Some(format!(
                    "Nothing was read from it. Ask who committed it. Move it out of the repository (`mv {path} ~/undercroft-committed`), take it out of git (`git rm -r --cached {path}`) and run the command again: a new one is made. Of the old one, take back only what you know to be yours."
                ))
            }
            Self::Untold { .. } => {
                Some("`git status` should say what is wrong with the index.".to_owned())
            }
            Self::Link { link, .. } => Some(format!(
                "Nothing was read from it. Look at where {} leads and who made it, and remove the link; to keep the state elsewhere, move the whole project there.",
                shown(link)
            )),
            Self::Foreign { path, owner, .. } => Some(format!(
                "Nothing was read from it. If it is yours, made with sudo for example, give it back to whom the project belongs: `sudo chown -R --reference={} {}`. If user {owner} made it, work in a copy of the repository of your own.",
                path.parent()
                    .filter(|p| *p != Path::new(""))
                    .map_or_else(|| ".".to_owned(), shown),
                shown(path)
            )),
            Self::Special { what, .. } => Some(format!(
                "Nothing was read from it. Look at who made {}, and take it away.",
                shown(what)
            )),
            Self::Confined(error) => error.hint(),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Some("The disk is full: free some space.".to_owned())
            }
            Self::Io { .. } => None,
        }
    }

    fn file(&self) -> Option<FileFailure<'_>> {
        match self {
            Self::Io { what, path, source } => Some(FileFailure {
                tried: Some(what),
                path,
                source: Some(source),
            }),
            Self::Confined(error) => error.file(),
            _ => None,
        }
    }
}

/// Makes sure that a state folder may be believed; whether it is there. Nothing in it is read.
///
/// # Errors
/// When git tracks it or something in it, it or something in it is a link, no file, or somebody
/// else's; or it can't be looked at.
pub fn verify(dir: &Path) -> Result<bool, StateError> {
    let tracked = git_index::first_tracked(dir).map_err(|source| StateError::Untold {
        path: dir.to_owned(),
        source,
    })?;
    if let Some(entry) = tracked {
        return Err(StateError::Tracked {
            path: dir.to_owned(),
            entry,
        });
    }
    let meta = match std::fs::symlink_metadata(dir) {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(source) => {
            return Err(StateError::Io {
                what: "look at",
                path: dir.to_owned(),
                source,
            });
        }
    };
    if meta.is_symlink() {
        return Err(StateError::Link {
            path: dir.to_owned(),
            link: dir.to_owned(),
        });
    }
    if !meta.is_dir() {
        return Err(ConfinedError::NotAFolder {
            path: dir.to_owned(),
        }
        .into());
    }
    if !is_ours(meta.uid(), dir) {
        return Err(StateError::Foreign {
            path: dir.to_owned(),
            what: dir.to_owned(),
            owner: meta.uid(),
        });
    }
    let state = Confined::new(dir);
    verify_folder(&state, Path::new(""), 0)?;
    Ok(true)
}

fn verify_folder(state: &Confined, folder: &Path, depth: usize) -> Result<(), StateError> {
    if depth > DEPTH_MAX {
        return Ok(());
    }
    for entry in state.list(folder)? {
        let name = folder.join(&entry.name);
        let (path, what) = (state.root().to_owned(), state.path(&name));
        if entry.kind == FileKind::Link {
            return Err(StateError::Link { path, link: what });
        }
        if !is_ours(entry.owner, state.root()) {
            let owner = entry.owner;
            return Err(StateError::Foreign { path, what, owner });
        }
        match entry.kind {
            FileKind::Folder => verify_folder(state, &name, depth + 1)?,
            FileKind::Special => {
                return Err(StateError::Special {
                    path,
                    what,
                    kind: "a FIFO or a device",
                });
            }
            FileKind::File | FileKind::Socket | FileKind::Link => {}
        }
    }
    Ok(())
}

/// Makes a state folder if need be, closed to others and unknown to git before anything is in it,
/// and takes away what a command that was killed has left there.
///
/// # Errors
/// As [`verify`], and when it can't be made.
pub fn make(dir: &Path) -> Result<(), StateError> {
    let failed = |what| {
        move |source| StateError::Io {
            what,
            path: dir.to_owned(),
            source,
        }
    };
    if !verify(dir)? {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(failed("make the folder"))?;
    }
    let mode = std::fs::symlink_metadata(dir)
        .map_err(failed("look at"))?
        .permissions()
        .mode();
    // The folder may be older than this program, or copied: its mode matters, since keys are in it.
    if mode & 0o777 != 0o700 {
        std::fs::set_permissions(dir, Permissions::from_mode(0o700))
            .map_err(failed("close to others"))?;
    }
    let state = Confined::new(dir);
    ignore(&state)?;
    state.clear_leftovers("");
    state.clear_leftovers("ssh");
    Ok(())
}

/// Sees to it that git leaves an existing state folder alone, as far as this user may write there.
/// For commands that otherwise only read: the keys in the folder are as private for them.
pub fn mend_ignore(dir: &Path) {
    let _ = ignore(&Confined::new(dir));
}

/// Writes the file by which git leaves the folder alone, unless a whole one is there.
fn ignore(state: &Confined) -> Result<(), ConfinedError> {
    let present = match state.read(IGNORE_FILE, IGNORE_BYTES_MAX) {
        Ok(present) => present,
        Err(ConfinedError::TooLarge { .. }) => None,
        Err(error) => return Err(error),
    };
    if present.is_some_and(|text| ignores_all(&text)) {
        return Ok(());
    }
    state.replace(IGNORE_FILE, IGNORE_TEXT.as_bytes(), Modes::PRIVATE)
}

/// Whether an ignore file has git leave everything beside it alone (gitignore(5)).
fn ignores_all(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    let mut all = false;
    for line in text.lines().map(str::trim_end) {
        match line {
            "*" => all = true,
            _ if line.starts_with('!') => return false,
            _ => {}
        }
    }
    all
}

#[cfg(test)]
mod tests;
