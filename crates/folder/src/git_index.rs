//! What git tracks, read from its index (gitformat-index(5)) without running git: its
//! configuration is the repository's, and may name programs.

use std::{
    io::Read as _,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

/// The largest index that is read, in bytes; Linux' own has some ten MiB.
const INDEX_BYTES_MAX: u64 = 1 << 30;
/// The longest `.git` file of a worktree, in bytes.
const POINTER_BYTES_MAX: u64 = 64 * 1024;
/// Lengths of an object's name in bytes: SHA-1's and SHA-256's.
const NAME_BYTES: [usize; 2] = [20, 32];

/// Why it can't be told what git tracks.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// A file can't be read.
    #[error("can't read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The index has a form that isn't known.
    #[error("{} isn't an index of git that this program knows", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
    },
}

/// The first entry of git's index that is a path or beneath it, as git writes it; `None` where git
/// tracks nothing there, or the path isn't in a working tree of git's.
///
/// # Errors
/// When there is an index and it can't be read.
///
/// Of a split index, entries count too that were taken out since it was split.
pub fn first_tracked(path: &Path) -> Result<Option<String>, IndexError> {
    let Some((tree, git)) = working_tree(path) else {
        return Ok(None);
    };
    let Some(path) = resolved(path) else {
        return Ok(None);
    };
    let Ok(wanted) = path.strip_prefix(&tree) else {
        return Ok(None);
    };
    let wanted = wanted.as_os_str().as_bytes().to_owned();
    let mut index = git.join("index");
    // A split index names the one that it is on top of, and that one no further.
    for _ in 0..2 {
        let Some(bytes) = read(&index, INDEX_BYTES_MAX)? else {
            return Ok(None);
        };
        let unknown = || IndexError::Unknown {
            path: index.clone(),
        };
        let found = NAME_BYTES
            .iter()
            .find_map(|length| search(&bytes, *length, &wanted))
            .ok_or_else(unknown)?;
        match found {
            (Some(entry), _) => return Ok(Some(entry)),
            (None, None) => return Ok(None),
            (None, Some(shared)) => index = git.join(format!("sharedindex.{shared}")),
        }
    }
    Ok(None)
}

/// Whether a path is in a working tree of git's.
pub fn is_in_working_tree(path: &Path) -> bool {
    working_tree(path).is_some()
}

/// A path with the links above its last part resolved.
fn resolved(path: &Path) -> Option<PathBuf> {
    let absolute = std::path::absolute(path).ok()?;
    // The folders on the way may not be there yet.
    let mut below = Vec::new();
    let mut above = absolute.as_path();
    loop {
        below.push(above.file_name()?.to_owned());
        above = above.parent()?;
        if let Ok(mut whole) = above.canonicalize() {
            whole.extend(below.iter().rev());
            return Some(whole);
        }
    }
}

/// The working tree that a path is in, and git's own folder of it.
fn working_tree(path: &Path) -> Option<(PathBuf, PathBuf)> {
    let path = resolved(path)?;
    path.ancestors().skip(1).find_map(|tree| {
        let at = tree.join(".git");
        let git = if at.is_dir() {
            at
        } else {
            let text = read(&at, POINTER_BYTES_MAX).ok()??;
            let text = String::from_utf8(text).ok()?;
            tree.join(text.strip_prefix("gitdir:")?.trim())
        };
        // As git does, a folder that has no HEAD is passed over.
        git.join("HEAD").symlink_metadata().ok()?;
        Some((tree.to_owned(), git))
    })
}

fn read(path: &Path, bytes_max: u64) -> Result<Option<Vec<u8>>, IndexError> {
    let failed = |source| IndexError::Io {
        path: path.to_owned(),
        source,
    };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let mut bytes = Vec::new();
    file.take(bytes_max + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > bytes_max {
        return Err(IndexError::Unknown {
            path: path.to_owned(),
        });
    }
    Ok(Some(bytes))
}

/// Takes bytes off the front of others.
fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    let taken = take(bytes, 4)?;
    Some(u32::from_be_bytes(taken.try_into().ok()?))
}

/// The number by which version 4 says how much of the name before is left out (the encoding of
/// offsets in pack files).
fn take_number(bytes: &mut &[u8]) -> Option<usize> {
    let mut byte = *take(bytes, 1)?.first()?;
    let mut value = usize::from(byte & 0x7f);
    while byte & 0x80 != 0 {
        byte = *take(bytes, 1)?.first()?;
        value = value
            .checked_add(1)?
            .checked_mul(128)?
            .checked_add(usize::from(byte & 0x7f))?;
    }
    Some(value)
}

/// The first entry at a path or beneath it, and the name of the index that this one is on top of;
/// `None` where the bytes are no index whose objects have names of this length.
fn search(
    bytes: &[u8],
    name_bytes: usize,
    wanted: &[u8],
) -> Option<(Option<String>, Option<String>)> {
    let mut rest = bytes.get(..bytes.len().checked_sub(name_bytes)?)?;
    if take(&mut rest, 4)? != b"DIRC" {
        return None;
    }
    let version = take_u32(&mut rest)?;
    if !(2..=4).contains(&version) {
        return None;
    }
    let entries = take_u32(&mut rest)?;
    let mut name: Vec<u8> = Vec::new();
    let mut found = None;
    for _ in 0..entries {
        let before = rest.len();
        take(&mut rest, 40 + name_bytes)?;
        let flags = u16::from_be_bytes(take(&mut rest, 2)?.try_into().ok()?);
        if version >= 3 && flags & 0x4000 != 0 {
            take(&mut rest, 2)?;
        }
        if version == 4 {
            let left_out = take_number(&mut rest)?;
            name.truncate(name.len().checked_sub(left_out)?);
        } else {
            name.clear();
        }
        let end = rest.iter().position(|byte| *byte == 0)?;
        name.extend_from_slice(take(&mut rest, end)?);
        if version == 4 {
            take(&mut rest, 1)?;
        } else {
            // One to eight NULs, so that an entry's length is a multiple of eight.
            let length = before - rest.len();
            take(&mut rest, 8 - length % 8)?;
        }
        if found.is_none() && is_at_or_beneath(&name, wanted) {
            found = Some(String::from_utf8_lossy(&name).into_owned());
        }
    }
    let mut shared = None;
    while !rest.is_empty() {
        let signature = take(&mut rest, 4)?;
        let length = usize::try_from(take_u32(&mut rest)?).ok()?;
        let content = take(&mut rest, length)?;
        if signature == b"link" {
            let base = content.get(..name_bytes)?;
            if base.iter().any(|byte| *byte != 0) {
                shared = Some(base.iter().map(|byte| format!("{byte:02x}")).collect());
            }
        }
    }
    Some((found, shared))
}

/// Whether an entry of the index is a path or beneath it. A sparse index has folders for entries,
/// which end in '/'; a path beneath one is tracked as far as anybody can tell.
fn is_at_or_beneath(entry: &[u8], wanted: &[u8]) -> bool {
    if let Some(folder) = entry.strip_suffix(b"/")
        && (wanted == folder || wanted.starts_with(entry))
    {
        return true;
    }
    match entry.strip_prefix(wanted) {
        Some(rest) => rest.is_empty() || rest.starts_with(b"/"),
        None => false,
    }
}

#[cfg(test)]
mod tests;
