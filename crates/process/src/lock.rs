//! Locks on files, which end with their process.

use std::{
    fs::File,
    io, thread,
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, flock};

/// How long the lock of a process that was killed may outlive it, and is waited for by whoever comes next: a child
/// that it was just starting has its files open until it becomes its program.
pub const LOCK_LINGERS_MAX: Duration = Duration::from_secs(2);
/// How often a lock is tried while it is waited for.
const LOCK_POLL: Duration = Duration::from_millis(10);

/// The lock of a file or a folder, held until it is dropped or the process ends, also by SIGKILL (flock(2)).
#[derive(Debug)]
pub struct FileLock(File);

/// Why there is no lock.
#[derive(Debug)]
pub enum NotLocked {
    /// Another has it. The file is given back.
    Held(File),
    /// The file can't be locked at all: some file systems, such as NFS, lock no folders. It is given back.
    Failed(File, io::Error),
}

impl FileLock {
    /// Takes the lock of a file that is open, and waits that long for another to let go of it.
    ///
    /// # Errors
    /// When another still has it, or the file can't be locked.
    pub fn take(file: File, wait_max: Duration) -> Result<Self, NotLocked> {
        let begun = Instant::now();
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self(file)),
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {}
                Err(error) => return Err(NotLocked::Failed(file, error.into())),
            }
            if begun.elapsed() >= wait_max {
                return Err(NotLocked::Held(file));
            }
            thread::sleep(LOCK_POLL);
        }
    }

    /// The file.
    pub fn file(&mut self) -> &mut File {
        &mut self.0
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Closing the file would do, but for a child that another thread is starting just now: it
        // has the file open until it becomes its program. Unlocking holds for both.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_waits_for_the_first_and_not_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let open = || File::create(dir.path().join("lock")).unwrap();
        let first = FileLock::take(open(), Duration::ZERO).unwrap();
        let held = FileLock::take(open(), Duration::from_millis(30));
        assert!(matches!(held, Err(NotLocked::Held(_))), "{held:?}");
        let waiting = thread::spawn({
            let file = open();
            move || FileLock::take(file, Duration::from_secs(60)).unwrap()
        });
        drop(first);
        drop(waiting.join().unwrap());
    }

    #[test]
    fn a_lock_ends_with_its_guard_whoever_else_has_the_file_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let file = File::create(&path).unwrap();
        // As a child has it between its beginning and its program.
        let childs = file.try_clone().unwrap();
        drop(FileLock::take(file, Duration::ZERO).unwrap());
        FileLock::take(File::open(&path).unwrap(), Duration::ZERO).unwrap();
        drop(childs);
    }
}
