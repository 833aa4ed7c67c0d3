//! One command at a time changes the secrets of a repository.

use std::{
    fs::{DirBuilder, File},
    os::unix::fs::DirBuilderExt as _,
    path::Path,
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, flock};

use super::Vault;
use crate::{keys::KeyError, secrets::SecretsError};

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
        lock(&self.repository.join(&self.folder), WAIT_MAX)
    }
}

fn lock(folder: &Path, wait_max: Duration) -> Result<Lock, SecretsError> {
    let failed = |source| KeyError::Io {
        what: "locked",
        path: folder.to_owned(),
        source,
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(failed)?;
    let file = File::open(folder).map_err(failed)?;
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
                folder: folder.to_owned(),
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
        let folder = dir.path().join("secrets");
        let first = lock(&folder, Duration::ZERO).unwrap();
        let error = lock(&folder, Duration::ZERO).unwrap_err();
        assert!(matches!(error, SecretsError::Busy { .. }), "{error}");
        drop(first);
        lock(&folder, Duration::ZERO).unwrap();
    }
}
