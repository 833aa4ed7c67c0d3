//! One controller at a time.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};

use undercroft_folder::confined::{Confined, ConfinedError};
use undercroft_process::lock::{FileLock, NotLocked};

/// The lock file's name, beside the database.
const LOCK_FILE: &str = "controller.lock";
/// The most bytes of a lock file that are read; it holds two short lines.
const LOCK_BYTES_MAX: u64 = 4096;

/// How long a lock is waited for: far longer than anybody looks at one, far shorter than a run.
const LOCK_WAIT_MAX: Duration = Duration::from_millis(300);

/// The process that holds the lock, as it wrote itself down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockHolder {
    /// Its process id; `None` where the file couldn't be read.
    pub pid: Option<u32>,
    /// What it is doing, such as `undercroft up`.
    pub command: Option<String>,
}

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("another controller of this fleet is running: {}", describe(.holder))]
    Held {
        /// Who.
        holder: LockHolder,
    },
    /// The lock file can't be used.
    #[error("the lock file {} can't be used: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The lock file isn't one that this program would make.
    #[error("the lock of the controller can't be used: {0}")]
    Confined(ConfinedError),
}

impl From<ConfinedError> for LockError {
    fn from(error: ConfinedError) -> Self {
        match error {
            ConfinedError::Io { path, source, .. } => Self::Io { path, source },
            other => Self::Confined(other),
        }
    }
}

fn describe(holder: &LockHolder) -> String {
    let command = holder.command.as_deref().unwrap_or("undercroft");
    match holder.pid {
        Some(pid) => format!("process {pid} ({command})"),
        None => format!("{command}, whose process id the lock file doesn't tell"),
    }
}

/// The right to be the fleet's controller, held until it is dropped or the process ends.
///
/// It is an flock(2) lock: the kernel takes it back when the process ends, also by SIGKILL, so a
/// lock can't be left behind, and a process id that was given to another process means nothing.
/// The file itself stays, because removing it would let two processes lock two different files.
#[derive(Debug)]
pub struct ControllerLock {
    _lock: FileLock,
}

impl ControllerLock {
    /// Takes the lock of a state directory, for the process that calls itself `command`.
    ///
    /// # Errors
    /// [`LockError::Held`] when another process has it for longer than a look takes.
    pub fn acquire(state_dir: &Path, command: &str) -> Result<Self, LockError> {
        let path = state_dir.join(LOCK_FILE);
        let io = |source| LockError::Io {
            path: path.clone(),
            source,
        };
        let file = Confined::new(state_dir).open_own(LOCK_FILE)?;
        // `status` looks for a moment whether somebody has the lock.
        let mut lock = FileLock::take(file, LOCK_WAIT_MAX).map_err(|why| match why {
            NotLocked::Held(mut file) => LockError::Held {
                holder: read_holder(&mut file),
            },
            NotLocked::Failed(_, error) => io(error),
        })?;
        let file = lock.file();
        file.set_len(0).map_err(io)?;
        let line = command.replace('\n', " ");
        write!(file, "{}\n{line}\n", std::process::id()).map_err(io)?;
        file.flush().map_err(io)?;
        Ok(Self { _lock: lock })
    }

    /// Who holds the lock of a state directory; `None` when nobody does. The answer may be out of
    /// date when it arrives: it is for people to read, not to act on.
    pub fn holder(state_dir: &Path) -> Option<LockHolder> {
        let mut file = Confined::new(state_dir).open(LOCK_FILE).ok()??;
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => {
                let _ = flock(&file, FlockOperation::Unlock);
                None
            }
            Err(_) => Some(read_holder(&mut file)),
        }
    }
}

fn read_holder(file: &mut File) -> LockHolder {
    let mut text = String::new();
    let read = file
        .seek(SeekFrom::Start(0))
        .and_then(|_| file.take(LOCK_BYTES_MAX).read_to_string(&mut text));
    let mut lines = text.lines();
    let pid = read
        .ok()
        .and_then(|_| lines.next())
        .and_then(|line| line.parse().ok());
    LockHolder {
        pid,
        command: lines.next().map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_only_looks_keeps_nobody_out() {
        let dir = tempfile::tempdir().unwrap();
        drop(ControllerLock::acquire(dir.path(), "first").unwrap());
        let looker = File::open(dir.path().join(LOCK_FILE)).unwrap();
        flock(&looker, FlockOperation::LockShared).unwrap();
        let looks = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(10));
            drop(looker);
        });
        ControllerLock::acquire(dir.path(), "second").unwrap();
        looks.join().unwrap();
    }

    #[test]
    fn a_second_controller_is_refused_and_told_who_is_first() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(ControllerLock::holder(dir.path()), None);
        let first = ControllerLock::acquire(dir.path(), "undercroft up").unwrap();
        let refused = ControllerLock::acquire(dir.path(), "undercroft serve").unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!(
                "another controller of this fleet is running: process {} (undercroft up)",
                std::process::id()
            )
        );
        assert!(ControllerLock::holder(dir.path()).is_some());
        drop(first);
        assert_eq!(ControllerLock::holder(dir.path()), None);
        ControllerLock::acquire(dir.path(), "undercroft up").unwrap();
    }

    #[test]
    fn a_lock_file_left_behind_by_a_dead_process_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(LOCK_FILE), "1\nundercroft up\n").unwrap();
        ControllerLock::acquire(dir.path(), "undercroft up").unwrap();
    }
}
