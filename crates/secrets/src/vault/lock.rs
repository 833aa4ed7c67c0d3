//! One command at a time changes the secrets of a repository.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::Vault;
use crate::SecretsError;
use undercroft_folder::confined::{Confined, FileKind};
use undercroft_process::lock::{FileLock, NotLocked};

/// How long another command is waited for. Only a person at an editor takes longer.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// As long as it lives, no other command of this program changes the secrets.
///
/// The kernel holds it, on the folder itself: it ends with the process, and nothing is left behind.
#[derive(Debug)]
pub(super) struct Lock {
    _lock: Option<FileLock>,
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
    match FileLock::take(file, wait_max) {
        Ok(lock) => Ok(Lock { _lock: Some(lock) }),
        Err(NotLocked::Held(_)) => Err(SecretsError::Busy {
            folder: repository.path(folder),
        }),
        // Some file systems, such as NFS, can't lock a folder. What another command changes
        // meanwhile is found out when a file is written, and left as it is.
        Err(NotLocked::Failed(..)) => Ok(Lock { _lock: None }),
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
