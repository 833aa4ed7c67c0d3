//! Files beneath a folder whose content isn't trusted: a repository, in which whoever may propose
//! a change can put anything at any name, or the state folder beside it.
//!
//! Names are relative and lead downwards. They are resolved one folder after the other, each
//! opened from the one above it, and no symbolic link is followed, not even one that leads back
//! into the folder or that was put there a moment ago. What is read is a regular file of a limited
//! size; a FIFO, a device or a socket is refused before it is opened. What is written appears
//! whole under its name or not at all.

mod error;
mod leftovers;
mod own;
mod write;

use std::{
    ffi::{OsStr, OsString},
    fs::{DirBuilder, File},
    io::Read as _,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{DirBuilderExt as _, MetadataExt as _},
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fd::OwnedFd,
    fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat},
    io::Errno,
};

pub use self::{
    error::ConfinedError,
    leftovers::{LEFTOVER_PREFIX, is_leftover_name},
    own::is_ours,
    write::Modes,
};

/// The most entries of one folder that are looked at; a repository's folder has hundreds.
const ENTRIES_MAX: usize = 100_000;
/// The most folders that a name leads through.
const DEPTH_MAX: usize = 64;

/// What there is at a name, links not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link, wherever it leads.
    Link,
    /// A socket.
    Socket,
    /// A FIFO or a device.
    Special,
}

impl FileKind {
    fn of(stat: &Stat) -> Self {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Folder,
            FileType::Symlink => Self::Link,
            FileType::Socket => Self::Socket,
            _ => Self::Special,
        }
    }
}

/// Something in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderEntry {
    /// Its name in the folder.
    pub name: OsString,
    /// What it is, links not followed.
    pub kind: FileKind,
    /// The user whose it is.
    pub owner: u32,
}

/// A folder beneath which everything stays. The path of the folder itself is the caller's own, and
/// may lead through links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confined {
    root: PathBuf,
}

impl Confined {
    /// Names the folder; it need not be there yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder, as a path that can be opened.
    fn here(&self) -> &Path {
        if self.root == Path::new("") {
            Path::new(".")
        } else {
            &self.root
        }
    }

    /// A name as a path that is good from the current folder, for messages.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.join(name)
    }

    /// The bytes of a file; `None` where there is nothing at the name.
    ///
    /// # Errors
    /// When it isn't a regular file beneath the folder, has more than `bytes_max` bytes, or can't
    /// be read.
    pub fn read(
        &self,
        name: impl AsRef<Path>,
        bytes_max: u64,
    ) -> Result<Option<Vec<u8>>, ConfinedError> {
        let name = name.as_ref();
        let too_large = || ConfinedError::TooLarge {
            path: self.path(name),
            bytes_max,
        };
        let Some(file) = self.open(name)? else {
            return Ok(None);
        };
        let failed = |source| self.io("read", name, source);
        let length = file.metadata().map_err(failed)?.size();
        if length > bytes_max {
            return Err(too_large());
        }
        // With room for all of it: where it is a secret, growing would leave copies behind.
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0).saturating_add(1));
        let read = file
            .take(bytes_max.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        if u64::try_from(read).unwrap_or(u64::MAX) > bytes_max {
            return Err(too_large());
        }
        Ok(Some(bytes))
    }

    /// The text of a file; `None` where there is nothing at the name.
    ///
    /// # Errors
    /// As [`Self::read`], and when it isn't UTF-8.
    pub fn read_text(
        &self,
        name: impl AsRef<Path>,
        bytes_max: u64,
    ) -> Result<Option<String>, ConfinedError> {
        let name = name.as_ref();
        let Some(bytes) = self.read(name, bytes_max)? else {
            return Ok(None);
        };
        String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| ConfinedError::NotText {
                path: self.path(name),
            })
    }

    /// The beginning of a file, at most `bytes_max` bytes of it.
    ///
    /// # Errors
    /// When it isn't a regular file beneath the folder, or can't be read.
    pub fn read_beginning(
        &self,
        name: impl AsRef<Path>,
        bytes_max: u64,
    ) -> Result<Option<Vec<u8>>, ConfinedError> {
        let name = name.as_ref();
        let Some(file) = self.open(name)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        file.take(bytes_max)
            .read_to_end(&mut bytes)
            .map_err(|source| self.io("read", name, source))?;
        Ok(Some(bytes))
    }

    /// Opens a regular file for reading; `None` where there is nothing at the name.
    ///
    /// # Errors
    /// When it isn't a regular file beneath the folder, or can't be opened.
    pub fn open(&self, name: impl AsRef<Path>) -> Result<Option<File>, ConfinedError> {
        self.open_with(name.as_ref(), OFlags::RDONLY)
    }

    fn open_with(&self, name: &Path, flags: OFlags) -> Result<Option<File>, ConfinedError> {
        let Some((folder, last)) = self.folder_of(name, None)? else {
            return Ok(None);
        };
        // A look before the file is opened: opening a device or a FIFO can already do something.
        if let Some(stat) = self.stat_at(&folder, last, name)? {
            self.require_file(name, FileKind::of(&stat))?;
        } else if !flags.contains(OFlags::CREATE) {
            return Ok(None);
        }
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&folder, last, flags, Mode::from_raw_mode(0o600));
        let file = match opened {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(self.link(name)),
            Err(errno) => return Err(self.io("read", name, errno.into())),
        };
        // And another at what was opened: it may have been exchanged in between.
        let stat = rustix::fs::fstat(&file).map_err(|e| self.io("look at", name, e.into()))?;
        self.require_file(name, FileKind::of(&stat))?;
        Ok(Some(File::from(file)))
    }

    /// What there is at a name; `None` where there is nothing.
    ///
    /// # Errors
    /// When a folder on the way is a link or no folder, or can't be looked into.
    pub fn kind(&self, name: impl AsRef<Path>) -> Result<Option<FileKind>, ConfinedError> {
        let name = name.as_ref();
        let Some((folder, last)) = self.folder_of(name, None)? else {
            return Ok(None);
        };
        let stat = self.stat_at(&folder, last, name)?;
        Ok(stat.map(|stat| FileKind::of(&stat)))
    }

    /// Whether a regular file is at a name.
    ///
    /// # Errors
    /// When something else is there, or it can't be looked at.
    pub fn is_file(&self, name: impl AsRef<Path>) -> Result<bool, ConfinedError> {
        let name = name.as_ref();
        match self.kind(name)? {
            None => Ok(false),
            Some(kind) => self.require_file(name, kind).map(|()| true),
        }
    }

    /// What a folder holds, sorted by name; nothing where it isn't there. An empty name is the
    /// folder of all others.
    ///
    /// # Errors
    /// When it isn't a folder beneath this one, holds too much, or can't be read.
    pub fn list(&self, name: impl AsRef<Path>) -> Result<Vec<FolderEntry>, ConfinedError> {
        let name = name.as_ref();
        let failed = |errno: Errno| self.io("read", name, errno.into());
        let Some(folder) = self.folder(name, None)? else {
            return Ok(Vec::new());
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let readable = rustix::fs::openat(&folder, ".", flags, Mode::empty()).map_err(failed)?;
        let mut entries = Vec::new();
        for entry in Dir::new(readable).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let raw = entry.file_name();
            if matches!(raw.to_bytes(), b"." | b"..") {
                continue;
            }
            if entries.len() >= ENTRIES_MAX {
                return Err(ConfinedError::TooMany {
                    path: self.path(name),
                    entries_max: ENTRIES_MAX,
                });
            }
            let file_name = OsStr::from_bytes(raw.to_bytes()).to_owned();
            // What went away meanwhile isn't there.
            let whole = name.join(&file_name);
            if let Some(stat) = self.stat_at(&folder, &file_name, &whole)? {
                entries.push(FolderEntry {
                    kind: FileKind::of(&stat),
                    owner: stat.st_uid,
                    name: file_name,
                });
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Opens a folder, and makes it and those above it where they are missing.
    ///
    /// # Errors
    /// When it isn't a folder beneath this one, or can't be made.
    pub fn make_folder(&self, name: impl AsRef<Path>, mode: u32) -> Result<File, ConfinedError> {
        let name = name.as_ref();
        let failed = |errno: Errno| self.io("open", name, errno.into());
        let folder = self
            .folder(name, Some(mode))?
            .ok_or_else(|| failed(Errno::NOENT))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&folder, ".", flags, Mode::empty()).map_err(failed)?;
        Ok(File::from(opened))
    }

    /// The parts of a name, each that of a file or a folder.
    fn parts<'a>(&self, name: &'a Path) -> Result<Vec<&'a OsStr>, ConfinedError> {
        let outside = || ConfinedError::Outside {
            name: name.to_owned(),
            root: self.root.clone(),
        };
        let mut parts = Vec::new();
        for part in name.components() {
            match part {
                Component::Normal(part) if !part.as_bytes().contains(&0) => parts.push(part),
                Component::CurDir => {}
                _ => return Err(outside()),
            }
        }
        if parts.len() > DEPTH_MAX {
            return Err(outside());
        }
        Ok(parts)
    }

    /// Opens a folder, and makes it and those above it where `make` has a mode for them.
    fn folder(&self, name: &Path, make: Option<u32>) -> Result<Option<OwnedFd>, ConfinedError> {
        let parts = self.parts(name)?;
        self.walk(&parts, make)
    }

    /// The folder that a name is in, and the name's last part.
    fn folder_of<'a>(
        &self,
        name: &'a Path,
        make: Option<u32>,
    ) -> Result<Option<(OwnedFd, &'a OsStr)>, ConfinedError> {
        let parts = self.parts(name)?;
        let Some((last, above)) = parts.split_last() else {
            return Err(ConfinedError::Outside {
                name: name.to_owned(),
                root: self.root.clone(),
            });
        };
        Ok(self.walk(above, make)?.map(|folder| (folder, *last)))
    }

    fn walk(&self, parts: &[&OsStr], make: Option<u32>) -> Result<Option<OwnedFd>, ConfinedError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        if let Some(mode) = make {
            DirBuilder::new()
                .recursive(true)
                .mode(mode)
                .create(self.here())
                .map_err(|source| self.io("make the folder", Path::new(""), source))?;
        }
        let mut folder = match rustix::fs::open(self.here(), flags, Mode::empty()) {
            Ok(folder) => folder,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(self.io("use", Path::new(""), errno.into())),
        };
        let mut name = PathBuf::new();
        for part in parts {
            name.push(part);
            let open =
                || rustix::fs::openat(&folder, *part, flags | OFlags::NOFOLLOW, Mode::empty());
            let opened = match (open(), make) {
                (Err(Errno::NOENT), Some(mode)) => {
                    match rustix::fs::mkdirat(&folder, *part, Mode::from_raw_mode(mode)) {
                        Ok(()) | Err(Errno::EXIST) => open(),
                        Err(errno) => {
                            return Err(self.io("make the folder", &name, errno.into()));
                        }
                    }
                }
                (opened, _) => opened,
            };
            folder = match opened {
                Ok(next) => next,
                Err(Errno::NOENT) => return Ok(None),
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    let kind = self
                        .stat_at(&folder, part, &name)?
                        .map(|stat| FileKind::of(&stat));
                    return Err(match kind {
                        Some(FileKind::Link) => self.link(&name),
                        _ => ConfinedError::NotAFolder {
                            path: self.path(&name),
                        },
                    });
                }
                Err(errno) => return Err(self.io("use", &name, errno.into())),
            };
        }
        Ok(Some(folder))
    }

    fn stat_at(
        &self,
        folder: &OwnedFd,
        last: &OsStr,
        name: &Path,
    ) -> Result<Option<Stat>, ConfinedError> {
        match rustix::fs::statat(folder, last, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.io("look at", name, errno.into())),
        }
    }

    fn require_file(&self, name: &Path, kind: FileKind) -> Result<(), ConfinedError> {
        let path = || self.path(name);
        match kind {
            FileKind::File => Ok(()),
            FileKind::Link => Err(ConfinedError::Link { path: path() }),
            FileKind::Folder => Err(ConfinedError::NotAFile {
                path: path(),
                what: "a folder",
            }),
            FileKind::Socket => Err(ConfinedError::NotAFile {
                path: path(),
                what: "a socket",
            }),
            FileKind::Special => Err(ConfinedError::NotAFile {
                path: path(),
                what: "a FIFO or a device",
            }),
        }
    }

    fn link(&self, name: &Path) -> ConfinedError {
        ConfinedError::Link {
            path: self.path(name),
        }
    }

    fn io(&self, what: &'static str, name: &Path, source: std::io::Error) -> ConfinedError {
        let path = if name == Path::new("") {
            self.root.clone()
        } else {
            self.path(name)
        };
        ConfinedError::Io { what, path, source }
    }
}

#[cfg(test)]
mod tests;
