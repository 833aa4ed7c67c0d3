//! The files of a fleet's folder that a tree is rendered from, each read up to a limit.

use undercroft_folder::confined::{Confined, FileKind};
use undercroft_render::{LOCK_FILE, Lock, Problem};

use super::error::GitopsError;

/// A manifest that is longer isn't one that people keep in a repository, in bytes.
pub(super) const MANIFEST_MAX_BYTES: u64 = 4 << 20;

/// A lock file that is longer locks something else, in bytes.
pub(super) const LOCK_MAX_BYTES: u64 = 4 << 20;

/// Folders of an app deeper than this are a loop of links, or something else.
pub(super) const DEPTH_MAX: usize = 16;

/// The lock file, or the versions that this program brings where there is none; `None` after a
/// problem.
///
/// # Errors
/// When the file can't be read.
pub fn read_lock(
    files: &Confined,
    problems: &mut Vec<Problem>,
) -> Result<Option<Lock>, GitopsError> {
    let text = files.read_text(LOCK_FILE, LOCK_MAX_BYTES);
    let Some(text) = text? else {
        // The version of Kubernetes that this program knows says nothing of the cluster's.
        let mut lock = Lock::defaults();
        lock.kubernetes = None;
        return Ok(Some(lock));
    };
    match Lock::parse(LOCK_FILE, &text) {
        Ok(lock) => Ok(Some(lock)),
        Err(problem) => {
            problems.push(problem);
            Ok(None)
        }
    }
}

/// Something in a folder.
pub(super) struct Entry {
    pub(super) name: String,
    /// Its path from the inventory's folder.
    pub(super) path: String,
    pub(super) is_dir: bool,
}

/// What a folder of the repository holds, by name; nothing where it isn't there. A link is an error,
/// wherever it leads: git brings it along, and what is rendered would depend on whose computer it
/// is read on.
pub(super) fn entries(files: &Confined, folder: &str) -> Result<Vec<Entry>, GitopsError> {
    let listed = files.list(folder)?;
    let mut entries = Vec::new();
    for entry in listed {
        let name = entry
            .name
            .into_string()
            .map_err(|name| GitopsError::NameNotUtf8 {
                path: files.path(folder).join(name),
            })?;
        let path = format!("{folder}/{name}");
        let is_dir = entry.kind == FileKind::Folder;
        if !is_dir {
            files.is_file(&path)?;
        }
        entries.push(Entry { name, path, is_dir });
    }
    Ok(entries)
}

pub(super) fn read_text(files: &Confined, path: &str) -> Result<String, GitopsError> {
    let text = files.read_text(path, MANIFEST_MAX_BYTES);
    // What went away since it was listed is empty.
    Ok(text?.unwrap_or_default())
}
