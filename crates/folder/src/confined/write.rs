//! Writing and removing beneath a folder.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::Write as _,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::{
    fd::{AsRawFd as _, OwnedFd},
    fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, RenameFlags},
    io::Errno,
};

use super::{Confined, ConfinedError, FileKind, leftovers::LEFTOVER_PREFIX};
use crate::state::STATE_FOLDER;

/// How many names for a temporary file are tried; each is as good as unique.
const NAMES_MAX: u32 = 100;

/// The modes of what is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Modes {
    /// Of the file.
    pub file: u32,
    /// Of folders that are missing on the way to it.
    pub folders: u32,
}

impl Modes {
    /// For what all may read, as a repository's files.
    pub const PUBLIC: Self = Self {
        file: 0o644,
        folders: 0o777,
    };
    /// For secrets.
    pub const PRIVATE: Self = Self {
        file: 0o600,
        folders: 0o700,
    };
}

/// A file that has no name yet, or one of its own.
struct Temporary {
    file: File,
    /// Its name in the folder that it was made in.
    name: Option<OsString>,
}

impl Confined {
    /// Writes a file that must not be there yet. At no moment is there half of it under its name.
    ///
    /// # Errors
    /// When something is there, or it can't be written; nothing is left then.
    pub fn write_new(
        &self,
        name: impl AsRef<Path>,
        bytes: &[u8],
        modes: Modes,
    ) -> Result<(), ConfinedError> {
        self.write(name.as_ref(), bytes, modes, false)
    }

    /// Writes a file, in place of the one that is there if need be; readers see the old one or the
    /// new one, whole.
    ///
    /// # Errors
    /// When something else than a file is there, or it can't be written; what was there stays.
    pub fn replace(
        &self,
        name: impl AsRef<Path>,
        bytes: &[u8],
        modes: Modes,
    ) -> Result<(), ConfinedError> {
        self.write(name.as_ref(), bytes, modes, true)
    }

    fn write(
        &self,
        name: &Path,
        bytes: &[u8],
        modes: Modes,
        replaces: bool,
    ) -> Result<(), ConfinedError> {
        let failed = |errno: Errno| self.io("write", name, errno.into());
        let Some((folder, last)) = self.folder_of(name, Some(modes.folders))? else {
            return Err(failed(Errno::NOENT));
        };
        if let Some(stat) = self.stat_at(&folder, last, name)? {
            self.require_file(name, FileKind::of(&stat))?;
            if !replaces {
                return Err(self.exists(name));
            }
        }
        // A file without a name leaves nothing behind, whenever this process is killed. Not every
        // file system can make one, nor give it a name where /proc isn't there.
        let done = match unnamed(&folder) {
            Some(file) => {
                let temporary = Temporary { file, name: None };
                match self.finish(&folder, last, name, bytes, modes, replaces, temporary) {
                    Err(Failed::NoName) => None,
                    done => Some(done),
                }
            }
            None => None,
        };
        let done = match done {
            Some(done) => done,
            None => {
                let (file, temporary) = named(&folder).map_err(failed)?;
                let made = Temporary {
                    file,
                    name: Some(temporary.clone()),
                };
                let done = self.finish(&folder, last, name, bytes, modes, replaces, made);
                if done.is_err() {
                    let _ = rustix::fs::unlinkat(&folder, &temporary, AtFlags::empty());
                }
                done
            }
        };
        done.map_err(|failed| match failed {
            Failed::NoName => self.io("write", name, std::io::Error::from(Errno::NOSYS)),
            Failed::Exists => self.exists(name),
            Failed::Io(source) => self.io("write", name, source),
        })
    }

    #[expect(clippy::too_many_arguments, reason = "one step of one function")]
    fn finish(
        &self,
        folder: &OwnedFd,
        last: &OsStr,
        name: &Path,
        bytes: &[u8],
        modes: Modes,
        replaces: bool,
        temporary: Temporary,
    ) -> Result<(), Failed> {
        let mut file = temporary.file;
        // Whoever looks for what was left behind sees that this one is in use.
        let _ = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
        file.write_all(bytes)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(modes.file))?;
        file.sync_all()?;
        match (&temporary.name, replaces) {
            (None, false) => link(&file, folder, last)?,
            // Where nothing is in its place it gets there at once.
            (None, true) => match link(&file, folder, last) {
                Err(Failed::Exists) => self.exchange(&file, folder, last, name)?,
                done => done?,
            },
            (Some(own), true) => rustix::fs::renameat(folder, own, folder, last)?,
            (Some(own), false) => {
                let flags = RenameFlags::NOREPLACE;
                match rustix::fs::renameat_with(folder, own, folder, last, flags) {
                    Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                        rustix::fs::linkat(folder, own, folder, last, AtFlags::empty())
                            .map_err(exists)?;
                        rustix::fs::unlinkat(folder, own, AtFlags::empty())?;
                    }
                    done => done.map_err(exists)?,
                }
            }
        }
        sync(folder)?;
        Ok(())
    }

    /// Puts a file without a name in the place of another. For the moment between its name and its place
    /// it lies where git doesn't look.
    fn exchange(
        &self,
        file: &File,
        folder: &OwnedFd,
        last: &OsStr,
        name: &Path,
    ) -> Result<(), Failed> {
        let aside = self.aside(folder, name);
        let stage = aside.as_ref().unwrap_or(folder);
        let staged = stage_name(|name| match link(file, stage, name) {
            Ok(()) => Ok(true),
            Err(Failed::Exists) => Ok(false),
            Err(other) => Err(other),
        })?;
        if let Err(errno) = rustix::fs::renameat(stage, &staged, folder, last) {
            let _ = rustix::fs::unlinkat(stage, &staged, AtFlags::empty());
            return Err(errno.into());
        }
        Ok(())
    }

    /// The state folder, where it is beneath this one, on the same file system and ours: git knows
    /// nothing of what is in it.
    fn aside(&self, folder: &OwnedFd, name: &Path) -> Option<OwnedFd> {
        if name.starts_with(STATE_FOLDER) {
            return None;
        }
        let aside = self.folder(Path::new(STATE_FOLDER), None).ok()??;
        let (there, here) = (
            rustix::fs::fstat(&aside).ok()?,
            rustix::fs::fstat(folder).ok()?,
        );
        let ours = there.st_uid == rustix::process::geteuid().as_raw();
        (ours && there.st_dev == here.st_dev).then_some(aside)
    }

    /// Removes a regular file; whether there was one.
    ///
    /// # Errors
    /// When something else is there, or it can't be removed.
    pub fn remove(&self, name: impl AsRef<Path>) -> Result<bool, ConfinedError> {
        let name = name.as_ref();
        let Some((folder, last)) = self.folder_of(name, None)? else {
            return Ok(false);
        };
        let Some(stat) = self.stat_at(&folder, last, name)? else {
            return Ok(false);
        };
        self.require_file(name, FileKind::of(&stat))?;
        match rustix::fs::unlinkat(&folder, last, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(self.io("remove", name, errno.into())),
        }
    }

    /// Removes a folder if it is empty; whether it was.
    ///
    /// # Errors
    /// When a folder on the way is a link.
    pub fn remove_empty_folder(&self, name: impl AsRef<Path>) -> Result<bool, ConfinedError> {
        let name = name.as_ref();
        let Some((folder, last)) = self.folder_of(name, None)? else {
            return Ok(false);
        };
        Ok(rustix::fs::unlinkat(&folder, last, AtFlags::REMOVEDIR).is_ok())
    }

    /// Makes a regular file executable for all.
    ///
    /// # Errors
    /// When it isn't there, isn't a file, or can't be changed.
    pub fn make_executable(&self, name: impl AsRef<Path>) -> Result<(), ConfinedError> {
        let name = name.as_ref();
        let failed = |errno: Errno| self.io("make executable", name, errno.into());
        let file = self.open(name)?.ok_or_else(|| failed(Errno::NOENT))?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(0o755)).map_err(failed)
    }

    fn exists(&self, name: &Path) -> ConfinedError {
        ConfinedError::Exists {
            path: self.path(name),
        }
    }
}

/// Why a file didn't get to its place.
enum Failed {
    /// A file without a name couldn't be given one.
    NoName,
    /// Something is there.
    Exists,
    /// The operating system refused.
    Io(std::io::Error),
}

impl From<std::io::Error> for Failed {
    fn from(source: std::io::Error) -> Self {
        Self::Io(source)
    }
}

impl From<Errno> for Failed {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

fn exists(errno: Errno) -> Failed {
    match errno {
        Errno::EXIST => Failed::Exists,
        errno => errno.into(),
    }
}

/// A file without a name in a folder, where the file system has such.
fn unnamed(folder: &OwnedFd) -> Option<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::openat(folder, ".", flags, Mode::from_raw_mode(0o600))
        .map(File::from)
        .ok()
}

/// A file with a name that nothing else has.
fn named(folder: &OwnedFd) -> Result<(File, OsString), Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut made = None;
    let name = stage_name(|name| {
        match rustix::fs::openat(folder, name, flags, Mode::from_raw_mode(0o600)) {
            Ok(fd) => {
                made = Some(File::from(fd));
                Ok(true)
            }
            Err(Errno::EXIST) => Ok(false),
            Err(errno) => Err(errno),
        }
    })?;
    made.map(|file| (file, name)).ok_or(Errno::EXIST)
}

/// Tries names for a temporary file until one is free.
fn stage_name<E: From<Errno>>(
    mut taken: impl FnMut(&OsStr) -> Result<bool, E>,
) -> Result<OsString, E> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..NAMES_MAX {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let nanos = now.map_or(0, |now| now.subsec_nanos());
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        let name = OsString::from(format!(
            "{LEFTOVER_PREFIX}{:08x}{:08x}",
            pid ^ nanos.rotate_left(7),
            nanos ^ count
        ));
        if taken(&name)? {
            return Ok(name);
        }
    }
    Err(Errno::EXIST.into())
}

/// Gives a file without a name one that must be free (open(2) on `O_TMPFILE`).
fn link(file: &File, folder: &OwnedFd, name: &OsStr) -> Result<(), Failed> {
    let by_number = format!("/proc/self/fd/{}", file.as_raw_fd());
    match rustix::fs::linkat(CWD, &by_number, folder, name, AtFlags::SYMLINK_FOLLOW) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) => Err(Failed::Exists),
        Err(errno @ (Errno::NOSPC | Errno::DQUOT | Errno::IO)) => Err(errno.into()),
        Err(_) => Err(Failed::NoName),
    }
}

/// Makes names durable that were given in a folder.
fn sync(folder: &OwnedFd) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let readable = rustix::fs::openat(folder, ".", flags, Mode::empty())?;
    match rustix::fs::fsync(&readable) {
        // Not every file system can do it for a folder.
        Err(Errno::INVAL | Errno::NOTSUP) => Ok(()),
        done => done,
    }
}
