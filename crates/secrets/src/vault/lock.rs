//! One command at a time changes the secrets of a repository.

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, flock};

use super::Vault;
use crate::SecretsError;
use undercroft_folder::confined::{Confined, FileKind};

/// How long another command is waited for. Only a person at an editor takes longer.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// How often it is looked whether the other has ended.
const WAIT_STEP: Duration = Duration::from_millis(50);

/// As long as it lives, no other command of this program changes the secrets.
///
/// The kernel holds it, on the folder itself: it ends with the process, and nothing is left behind.
#[derive(Debug)]
pub(super) struct Lock {
    _folder: File,
}

impl Vault {
    /// Waits until nobody else changes the secrets.
    pub(super) fn lock(&self) -> Result<Lock, SecretsError> {
        let lock = lock(&self.repository, Path::new(&self.folder), WAIT_MAX)?;
        self.clear_leftovers();
        Ok(lock)
    }

    /// Takes away what a command that was killed has left in the folder of secrets and beside it.
    fn clear_leftovers(&self) {
        self.repository.clear_leftovers("");
        let mut folders = vec![PathBuf::from(&self.folder)];
        while let Some(folder) = folders.pop() {
            self.repository.clear_leftovers(&folder);
            let entries = self.repository.list(&folder).unwrap_or_default();
            let inner = entries
                .iter()
                .filter(|entry| entry.kind == FileKind::Folder);
            folders.extend(inner.map(|entry| folder.join(&entry.name)));
        }
    }
}

fn lock(repository: &Confined, folder: &Path, wait_max: Duration) -> Result<Lock, SecretsError> {
    let file = repository.make_folder(folder, 0o700)?;
    let until = Instant::now() + wait_max;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Lock { _folder: file }),
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {}
            // Some file systems, such as NFS, can't lock a folder. What another command changes
            // meanwhile is found out when a file is written, and left as it is.
            Err(_) => return Ok(Lock { _folder: file }),
        }
        if Instant::now() >= until {
            return Err(SecretsError::Busy {
                folder: repository.path(folder),
            });
        }
        std::thread::sleep(WAIT_STEP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_waits_for_the_first_and_not_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let (repository, folder) = (Confined::new(dir.path()), Path::new("secrets"));
        let first = lock(&repository, folder, Duration::ZERO).unwrap();
        let error = lock(&repository, folder, Duration::ZERO).unwrap_err();
        assert!(matches!(error, SecretsError::Busy { .. }), "{error}");
        drop(first);
        lock(&repository, folder, Duration::ZERO).unwrap();
    }
}
