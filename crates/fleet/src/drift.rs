//! What has drifted: the look at it, and what is kept of it between looks, in the state folder.

use std::{collections::BTreeSet, path::Path, time::Duration};

use undercroft_folder::confined::{Confined, ConfinedError, Modes};
use undercroft_journal::StoreError;
use undercroft_metal::drift::{DriftLooking, look};
use undercroft_model::{
    NodeName,
    advice::{Advice, ErrorKind, FileFailure},
    view::FleetView,
};
pub use undercroft_planner::drift::{
    DriftFinding, DriftHold, DriftKind, DriftLook, DriftMemory, DriftReport, Fix, HoldError, Unseen,
};
use undercroft_process::lock::{FileLock, NotLocked};

use crate::fleet::{Fleet, FleetError, Prepared};

/// What is kept between looks, in the state folder.
const DRIFT_FILE: &str = "drift.json";
/// Who changes it has this file's lock: `serve` and a person may look at once.
const DRIFT_LOCK_FILE: &str = "drift.lock";
/// The largest such file that is read, in bytes: ten times what the largest fleet with everything amiss leaves.
const DRIFT_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// How long another's change is waited for: it takes milliseconds.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(10);

/// Why it can't be told what has drifted.
#[derive(Debug, thiserror::Error)]
pub enum DriftError {
    /// The file can't be read or written.
    #[error(transparent)]
    File(#[from] ConfinedError),
    /// It holds something else, or was written by another version.
    #[error("{path} can't be used: {source}", path = path.display())]
    Form {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// Another keeps it.
    #[error("another command has been at work on {path} for {s} s", path = path.display(), s = LOCK_WAIT_MAX.as_secs())]
    Held {
        /// The lock's file.
        path: std::path::PathBuf,
    },
    /// The lock can't be had at all.
    #[error("{path} can't be locked: {source}", path = path.display())]
    Lock {
        /// The lock's file.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something can't be held.
    #[error(transparent)]
    Hold(#[from] HoldError),
    /// A key or the journal can't be used.
    #[error(transparent)]
    Fleet(#[from] FleetError),
}

impl Advice for DriftError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::File(error) => error.kind(),
            Self::Form { .. } => ErrorKind::Input,
            Self::Held { .. } | Self::Lock { .. } => ErrorKind::Failed,
            Self::Hold(_) => ErrorKind::Usage,
            Self::Fleet(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::File(error) => error.hint(),
            Self::Form { .. } => Some(
                "Use the version of Undercroft that wrote it, or move the file away: then holds are forgotten, and what has drifted counts again after two looks."
                    .to_owned(),
            ),
            Self::Held { .. } => Some("Wait for it, and try again.".to_owned()),
            Self::Lock { .. } | Self::Hold(_) => None,
            Self::Fleet(error) => error.hint(),
        }
    }

    fn file(&self) -> Option<FileFailure<'_>> {
        match self {
            Self::File(error) => error.file(),
            Self::Fleet(error) => error.file(),
            _ => None,
        }
    }
}

impl From<StoreError> for DriftError {
    fn from(error: StoreError) -> Self {
        Self::Fleet(error.into())
    }
}

/// What is kept of the drift of a fleet between looks.
#[derive(Debug)]
pub struct DriftState(Confined);

impl DriftState {
    /// That of a state folder.
    pub fn new(state_dir: &Path) -> Self {
        Self(Confined::new(state_dir))
    }

    /// What is kept; nothing where nobody has looked yet.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn read(&self) -> Result<DriftMemory, DriftError> {
        let Some(bytes) = self.0.read(DRIFT_FILE, DRIFT_BYTES_MAX)? else {
            return Ok(DriftMemory::default());
        };
        serde_json::from_slice(&bytes).map_err(|source| DriftError::Form {
            path: self.0.path(DRIFT_FILE),
            source,
        })
    }

    /// Changes it, as the only one at work on it. Readers see it as it was or as it is then, whole. It is written
    /// only where the change can be done.
    ///
    /// # Errors
    /// When it can't be read, changed or written; it stays as it was.
    pub fn change<T>(
        &self,
        change: impl FnOnce(&mut DriftMemory) -> Result<T, DriftError>,
    ) -> Result<T, DriftError> {
        let path = || self.0.path(DRIFT_LOCK_FILE);
        let file = self.0.open_own(DRIFT_LOCK_FILE)?;
        let _lock = FileLock::take(file, LOCK_WAIT_MAX).map_err(|why| match why {
            NotLocked::Held(_) => DriftError::Held { path: path() },
            NotLocked::Failed(_, source) => DriftError::Lock {
                path: path(),
                source,
            },
        })?;
        let mut memory = self.read()?;
        let done = change(&mut memory)?;
        let text = serde_json::to_vec(&memory).map_err(|source| DriftError::Form {
            path: self.0.path(DRIFT_FILE),
            source,
        })?;
        self.0.replace(DRIFT_FILE, &text, Modes::PRIVATE)?;
        Ok(done)
    }
}

impl Fleet {
    /// Looks at what those machines, or all, and their cluster are. No machine is changed.
    ///
    /// # Errors
    /// When a host key's file can't be read. Who doesn't answer is in the look.
    pub async fn look_for_drift(
        &self,
        only: Option<&BTreeSet<NodeName>>,
        prepared: &Prepared,
        view: &FleetView,
    ) -> Result<DriftLook, DriftError> {
        let looked = look(DriftLooking {
            inventory: &self.settings().inventory,
            only,
            view,
            host_keys: &prepared.host_keys,
            identity: &prepared.operator.private_file,
        });
        Ok(looked.await.map_err(FleetError::from)?)
    }

    /// Takes a look into what is kept, and says what has drifted by now.
    ///
    /// # Errors
    /// When what is kept can't be read or written.
    pub fn drifted(
        &self,
        prepared: &Prepared,
        look: &DriftLook,
        now_ms: u64,
    ) -> Result<DriftReport, DriftError> {
        let settings = self.settings();
        let targets = &prepared.systems.targets;
        DriftState::new(&settings.state_dir)
            .change(|memory| Ok(memory.take_in(&settings.inventory, targets, look, now_ms)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(reason: &str) -> DriftHold {
        DriftHold {
            node: Some(NodeName::new("gpu-01").unwrap()),
            kind: DriftKind::Cordon,
            owner: "ada".to_owned(),
            reason: reason.to_owned(),
            since_ms: 1,
        }
    }

    #[test]
    fn what_is_kept_is_read_again_and_what_cannot_be_done_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let state = DriftState::new(dir.path());
        assert_eq!(state.read().unwrap(), DriftMemory::default());
        state
            .change(|memory| Ok(memory.hold(hold("its fan is on order"))?))
            .unwrap();
        let kept = state.read().unwrap();
        assert_eq!(kept.holds(), [hold("its fan is on order")]);
        let refused = state.change(|memory| {
            memory.release(hold("").node.as_ref(), DriftKind::Cordon);
            Ok(memory.hold(hold(""))?)
        });
        assert!(matches!(refused, Err(DriftError::Hold(HoldError::Words))));
        assert_eq!(state.read().unwrap(), kept);
    }

    #[test]
    fn another_versions_file_is_refused_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(DRIFT_FILE);
        for (text, says) in [
            ("{\"version\":2}", "only version 1 is known here"),
            ("{\"vers", "EOF"),
            ("[]", "invalid"),
        ] {
            std::fs::write(&file, text).unwrap();
            let state = DriftState::new(dir.path());
            let error = state.change(|_| Ok(())).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
            assert!(error.hint().unwrap().contains("move the file away"));
            assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
        }
    }

    #[test]
    fn two_at_once_lose_nothing_of_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        std::thread::scope(|scope| {
            for kind in DriftKind::ALL {
                scope.spawn(move || {
                    let mut held = hold("two at once");
                    held.kind = kind;
                    let state = DriftState::new(path);
                    state.change(|memory| Ok(memory.hold(held)?)).unwrap();
                });
            }
        });
        let kept = DriftState::new(path).read().unwrap();
        assert_eq!(kept.holds().len(), DriftKind::ALL.len());
    }
}
