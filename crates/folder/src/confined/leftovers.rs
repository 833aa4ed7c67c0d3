//! What a command that was killed left lying.
//!
//! A file gets its name when it is whole, so that there is hardly ever anything. Where a file
//! system can't do that, or in the moment before an old file is replaced, it has a name by which
//! it is known afterwards. Earlier versions used two other kinds of names.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _, path::Path};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};

use super::{Confined, ConfinedError, FileKind};
use crate::git_index;

/// How the names of temporary files begin.
pub const LEFTOVER_PREFIX: &str = ".undercroft-new-";
/// How they began earlier; six letters and digits follow.
const EARLIER_PREFIXES: [&str; 2] = [".new-", ".tmp"];
/// How many letters and digits follow them.
const EARLIER_LENGTH: usize = 6;

/// Whether a name is one that this program gives to temporary files, or gave to them earlier.
pub fn is_leftover_name(name: &OsStr) -> bool {
    let name = name.as_bytes();
    let random = |rest: &[u8], length: usize| {
        rest.len() == length && rest.iter().all(u8::is_ascii_alphanumeric)
    };
    let of = |prefix: &str, length| {
        name.strip_prefix(prefix.as_bytes())
            .is_some_and(|rest| random(rest, length))
    };
    of(LEFTOVER_PREFIX, 16) || EARLIER_PREFIXES.iter().any(|p| of(p, EARLIER_LENGTH))
}

impl Confined {
    /// Takes away what earlier runs left in a folder: files with names of our own that are this
    /// user's, that nobody has in use, and that git doesn't track. What can't be taken away stays.
    pub fn clear_leftovers(&self, name: impl AsRef<Path>) {
        let name = name.as_ref();
        let Ok(entries) = self.list(name) else {
            return;
        };
        for entry in entries {
            let file = name.join(&entry.name);
            if self.is_leftover(&file, entry.kind, entry.owner) {
                let _ = self.take_away(&file);
            }
        }
    }

    /// Whether a file is one that was left behind, and not one that somebody gave such a name and
    /// committed.
    pub fn is_leftover(&self, name: &Path, kind: FileKind, owner: u32) -> bool {
        kind == FileKind::File
            && owner == rustix::process::geteuid().as_raw()
            && name.file_name().is_some_and(is_leftover_name)
            && matches!(git_index::first_tracked(&self.path(name)), Ok(None))
    }

    fn take_away(&self, name: &Path) -> Result<(), ConfinedError> {
        let failed = |errno: rustix::io::Errno| self.io("remove", name, errno.into());
        let Some((folder, last)) = self.folder_of(name, None)? else {
            return Ok(());
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&folder, last, flags, Mode::empty()).map_err(failed)?;
        // Who writes it has it locked.
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(failed)?;
        let stat = rustix::fs::fstat(&file).map_err(failed)?;
        if FileKind::of(&stat) != FileKind::File || stat.st_nlink != 1 {
            return Ok(());
        }
        rustix::fs::unlinkat(&folder, last, AtFlags::empty()).map_err(failed)
    }
}
