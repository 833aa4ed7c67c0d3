//! Files of peers: made, written, and told apart by their checksums.

use std::{fs, path::Path};

use sha2::{Digest, Sha256};

use crate::run::Failed;

pub(super) fn failed(why: impl Into<String>) -> Failed {
    Failed::new("peers", why)
}

pub(super) fn make_dir(dir: &Path) -> Result<(), Failed> {
    fs::create_dir_all(dir).map_err(|e| failed(format!("{}: {e}", dir.display())))
}

pub(super) fn write(path: &Path, text: &str) -> Result<(), Failed> {
    make_dir(path.parent().unwrap_or(path))?;
    fs::write(path, text).map_err(|e| failed(format!("{}: {e}", path.display())))
}

/// A file's line as sha256sum writes and reads it.
pub(super) fn sum_line(file: &Path, name: &str) -> Result<String, Failed> {
    let unread = |e| failed(format!("{}: {e}", file.display()));
    let mut hash = Sha256::new();
    let mut open = fs::File::open(file).map_err(unread)?;
    std::io::copy(&mut open, &mut hash).map_err(unread)?;
    let hex: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    Ok(format!("{hex}  {name}\n"))
}
