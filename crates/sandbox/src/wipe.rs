//! Removing a folder that somebody made to be hard to remove.
//!
//! Trees deeper than any path can name are flattened: each folder within is moved to the top before what held it is
//! removed, so that two folders are open at a time, however deep it goes. Folders without rights get them back. No link is
//! followed. Nobody else may be writing there: the job's processes are gone.

use std::{
    ffi::{CStr, CString},
    fmt::Write as _,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, chmod, openat, renameat, rmdir, unlinkat},
    io::Errno,
};

use crate::SandboxError;

/// Removes a folder and all within. One that isn't there is no error. The number is how many files and folders it had.
pub(crate) fn wipe(folder: &Path) -> Result<u64, SandboxError> {
    let wipe = || -> Result<u64, Errno> {
        let top = match open_folder(rustix::fs::CWD, folder_name(folder)?.as_c_str()) {
            Ok(top) => top,
            Err(Errno::NOENT) => return Ok(0),
            Err(error) => return Err(error),
        };
        let mut pit = Pit {
            top,
            moved: 0,
            removed: 0,
        };
        pit.empty()?;
        rmdir(folder)?;
        Ok(pit.removed)
    };
    wipe().map_err(|error| SandboxError::file("wipe", folder)(error.into()))
}

fn folder_name(folder: &Path) -> Result<CString, Errno> {
    use std::os::unix::ffi::OsStrExt as _;
    CString::new(folder.as_os_str().as_bytes()).map_err(|_| Errno::INVAL)
}

struct Pit {
    top: OwnedFd,
    moved: u64,
    removed: u64,
}

impl Pit {
    /// Goes over the top until nothing is left in it.
    fn empty(&mut self) -> Result<(), Errno> {
        loop {
            let entries = entries(self.top.as_fd())?;
            if entries.is_empty() {
                return Ok(());
            }
            for (name, kind) in entries {
                if kind == FileType::Directory {
                    self.empty_one(&name)?;
                    unlinkat(&self.top, name.as_c_str(), AtFlags::REMOVEDIR)?;
                } else {
                    unlinkat(&self.top, name.as_c_str(), AtFlags::empty())?;
                }
                self.removed = self.removed.saturating_add(1);
            }
        }
    }

    /// Empties a folder of the top: its files are removed, its folders moved up beside it.
    fn empty_one(&mut self, name: &CStr) -> Result<(), Errno> {
        let folder = open_folder(self.top.as_fd(), name)?;
        loop {
            let entries = entries(folder.as_fd())?;
            if entries.is_empty() {
                return Ok(());
            }
            for (name, kind) in entries {
                if kind == FileType::Directory {
                    self.move_up(folder.as_fd(), &name)?;
                } else {
                    unlinkat(&folder, name.as_c_str(), AtFlags::empty())?;
                    self.removed = self.removed.saturating_add(1);
                }
            }
        }
    }

    fn move_up(&mut self, from: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
        loop {
            let mut fresh = String::new();
            // Writing to a String does not fail.
            let _ = write!(fresh, ".wiped-{}", self.moved);
            self.moved = self.moved.saturating_add(1);
            match renameat(from, name, &self.top, fresh.as_str()) {
                Ok(()) => return Ok(()),
                // A name that the job has taken: the next number. What is renamed over is an empty folder.
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
                // A folder without rights can't be moved, as its `..` changes.
                Err(Errno::ACCESS) => drop(open_folder(from, name)?),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Opens a folder without following a link, and gives it rights first where it has none.
fn open_folder(at: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let path = openat(at, name, flags | OFlags::PATH, Mode::empty())?;
    // Through the opened folder, so that it can't be another's.
    chmod(format!("/proc/self/fd/{}", path.as_raw_fd()), Mode::RWXU)?;
    openat(&path, c".", flags | OFlags::RDONLY, Mode::empty())
}

/// What a folder holds, at most some thousands at a time.
fn entries(folder: BorrowedFd<'_>) -> Result<Vec<(CString, FileType)>, Errno> {
    /// As many names as fit into a megabyte.
    const AT_ONCE_MAX: usize = 4096;
    let mut found = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => FileType::from_raw_mode(
                rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode,
            ),
            known => known,
        };
        found.push((name.to_owned(), kind));
        if found.len() >= AT_ONCE_MAX {
            break;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, mkdirat};
    use std::{
        fs,
        os::unix::fs::{PermissionsExt as _, symlink},
    };

    #[test]
    fn deep_and_dark_folders_are_wiped_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("kept");
        fs::write(&kept, "kept").unwrap();
        let pit = dir.path().join("pit");
        fs::create_dir(&pit).unwrap();
        symlink(&kept, pit.join("link")).unwrap();
        symlink(dir.path(), pit.join("folder")).unwrap();
        // Deeper than a path can say, with names that the wiping itself would choose.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let mut at = openat(CWD, &pit, flags, Mode::empty()).unwrap();
        for number in 0..3000 {
            let name = format!(".wiped-{}", number % 7);
            mkdirat(&at, name.as_str(), Mode::RWXU).unwrap();
            at = openat(&at, name.as_str(), flags, Mode::empty()).unwrap();
        }
        for number in 0..50 {
            let dark = pit.join(format!(".wiped-{number}"));
            fs::create_dir_all(dark.join("within/it")).unwrap();
            fs::set_permissions(dark.join("within"), fs::Permissions::from_mode(0o000)).unwrap();
            fs::set_permissions(&dark, fs::Permissions::from_mode(0o000)).unwrap();
        }
        fs::set_permissions(&pit, fs::Permissions::from_mode(0o000)).unwrap();
        assert!(wipe(&pit).unwrap() >= 3100);
        assert!(!pit.exists() && kept.exists());
        assert_eq!(wipe(&pit).unwrap(), 0);
    }
}
