//! Files of the state: this user's alone.

use std::{fs::File, os::unix::fs::MetadataExt as _, path::Path};

use rustix::fs::{Mode, OFlags};

use super::{Confined, ConfinedError};

impl Confined {
    /// Opens a file for reading and writing that is this user's alone, and makes it if need be: no
    /// link, no second name of another file, mode 0600.
    ///
    /// # Errors
    /// When it is there and isn't such a file, or can't be opened.
    pub fn open_own(&self, name: impl AsRef<Path>) -> Result<File, ConfinedError> {
        let name = name.as_ref();
        self.folder_of(name, Some(0o700))?;
        let flags = OFlags::RDWR | OFlags::CREATE;
        let file = self.open_with(name, flags)?.ok_or_else(|| {
            self.io(
                "open",
                name,
                std::io::Error::from(std::io::ErrorKind::NotFound),
            )
        })?;
        self.close_to_others(name, &file)?;
        Ok(file)
    }

    /// Sees to it that a file, where it is there, is this user's alone, as [`Self::open_own`]
    /// would make it.
    ///
    /// # Errors
    /// When it is there and isn't such a file.
    pub fn require_own(&self, name: impl AsRef<Path>) -> Result<(), ConfinedError> {
        let name = name.as_ref();
        match self.open(name)? {
            Some(file) => self.close_to_others(name, &file),
            None => Ok(()),
        }
    }

    fn close_to_others(&self, name: &Path, file: &File) -> Result<(), ConfinedError> {
        let failed = |source| self.io("look at", name, source);
        let meta = file.metadata().map_err(failed)?;
        if meta.nlink() > 1 {
            return Err(ConfinedError::SecondName {
                path: self.path(name),
            });
        }
        if !is_ours(meta.uid(), &self.root) {
            return Err(ConfinedError::Foreign {
                path: self.path(name),
                owner: meta.uid(),
            });
        }
        if meta.mode() & 0o177 != 0 {
            rustix::fs::fchmod(file, Mode::from_raw_mode(0o600))
                .map_err(|e| self.io("close to others", name, e.into()))?;
        }
        Ok(())
    }
}

/// Whether what a user owns may be believed in a folder of this user's: it is this user's own, or,
/// where root works for somebody, of whoever the folder with the project in it belongs to.
///
/// `beneath` is the state folder, or a folder whose owner is the project's.
pub fn is_ours(owner: u32, beneath: &Path) -> bool {
    let us = rustix::process::geteuid().as_raw();
    if owner == us {
        return true;
    }
    let above = match std::path::absolute(beneath) {
        Ok(path) => path.parent().map(Path::to_owned),
        Err(_) => None,
    };
    us == 0
        && above
            .and_then(|path| std::fs::metadata(path).ok())
            .is_some_and(|meta| meta.uid() == owner)
}
