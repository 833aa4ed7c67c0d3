//! A tree becomes an archive.

use std::{
    collections::BTreeMap,
    ffi::{CString, OsStr},
    fs::File,
    io::{self, Read as _, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, openat, readlinkat, statat},
    io::Errno,
};

use crate::{ArchiveLimits, DEPTH_MAX, MAGIC, padding};

/// Why a tree can't be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// It can't be read.
    #[error("can't {tried} {}: {source}", path.display())]
    Read {
        /// What was tried.
        tried: &'static str,
        /// Where, from the folder on that was named.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The archive can't be written.
    #[error("the archive can't be written: {0}")]
    Write(#[from] io::Error),
    /// It is something that no archive can have.
    #[error("{} is {kind}, and an archive has files, folders and links", path.display())]
    Kind {
        /// Where.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// It isn't there.
    #[error("{} isn't there", path.display())]
    Absent {
        /// Which.
        path: PathBuf,
    },
    /// Somebody changed it meanwhile.
    #[error("{} was changed while it was read", path.display())]
    Changed {
        /// Which.
        path: PathBuf,
    },
    /// It is larger than may be.
    #[error("it has more than {max} {of}")]
    TooMuch {
        /// Of what.
        of: &'static str,
        /// How much may be.
        max: u64,
    },
}

/// Packs what lies in `folder` as the inside of one folder: `entries` are names in the archive, and names in `folder`.
/// Nothing that is a link is followed.
///
/// # Errors
/// When something isn't there, can't be read, has no place in an archive, or is larger than `limits`.
pub fn pack(
    folder: &Path,
    entries: &BTreeMap<String, String>,
    limits: ArchiveLimits,
    to: &mut dyn Write,
) -> Result<(), PackError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = rustix::fs::open(folder, flags, Mode::empty()).map_err(|error| PackError::Read {
        tried: "open",
        path: folder.to_owned(),
        source: error.into(),
    })?;
    let mut packer = Packer {
        to,
        bytes: limits.bytes,
        entries: limits.entries,
        limits,
    };
    packer.words(&[MAGIC, b"(", b"type", b"directory"])?;
    for (name, file) in entries {
        packer.words(&[b"entry", b"(", b"name", name.as_bytes(), b"node"])?;
        packer.node(top.as_fd(), OsStr::new(file), &PathBuf::from(file), 1)?;
        packer.words(&[b")"])?;
    }
    packer.words(&[b")"])
}

struct Packer<'a> {
    to: &'a mut dyn Write,
    bytes: u64,
    entries: u64,
    limits: ArchiveLimits,
}

impl Packer<'_> {
    fn node(
        &mut self,
        at: BorrowedFd<'_>,
        name: &OsStr,
        path: &Path,
        depth: usize,
    ) -> Result<(), PackError> {
        if self.entries == 0 {
            let (of, max) = ("files, folders and links", self.limits.entries);
            return Err(PackError::TooMuch { of, max });
        }
        self.entries -= 1;
        let failed = |tried| {
            move |error: Errno| match error {
                Errno::NOENT => PackError::Absent {
                    path: path.to_owned(),
                },
                _ => PackError::Read {
                    tried,
                    path: path.to_owned(),
                    source: error.into(),
                },
            }
        };
        let stat = statat(at, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed("look at"))?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let fd = openat(at, name, flags, Mode::empty()).map_err(failed("open"))?;
                self.file(File::from(fd), path)
            }
            FileType::Symlink => {
                let target = readlinkat(at, name, Vec::new()).map_err(failed("read"))?;
                self.words(&[
                    b"(",
                    b"type",
                    b"symlink",
                    b"target",
                    target.as_bytes(),
                    b")",
                ])
            }
            FileType::Directory => {
                if depth >= DEPTH_MAX {
                    let (of, max) = ("folders within each other", DEPTH_MAX as u64);
                    return Err(PackError::TooMuch { of, max });
                }
                let flags = flags | OFlags::DIRECTORY;
                let fd = openat(at, name, flags, Mode::empty()).map_err(failed("open"))?;
                self.words(&[b"(", b"type", b"directory"])?;
                for name in self.names(fd.as_fd()).map_err(failed("read"))? {
                    let name = OsStr::from_bytes(name.as_bytes());
                    self.words(&[b"entry", b"(", b"name", name.as_bytes(), b"node"])?;
                    self.node(fd.as_fd(), name, &path.join(name), depth + 1)?;
                    self.words(&[b")"])?;
                }
                self.words(&[b")"])
            }
            other => Err(PackError::Kind {
                path: path.to_owned(),
                kind: match other {
                    FileType::Fifo => "a pipe",
                    FileType::Socket => "a socket",
                    _ => "a device",
                },
            }),
        }
    }

    /// The names in a folder, in their order; of more than may be, one too many.
    fn names(&self, folder: BorrowedFd<'_>) -> Result<Vec<CString>, Errno> {
        let mut names = Vec::new();
        for entry in Dir::read_from(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                names.push(name.to_owned());
            }
            if u64::try_from(names.len()).is_ok_and(|count| count > self.entries) {
                break;
            }
        }
        names.sort();
        Ok(names)
    }

    fn file(&mut self, file: File, path: &Path) -> Result<(), PackError> {
        let failed = |error: io::Error| PackError::Read {
            tried: "read",
            path: path.to_owned(),
            source: error,
        };
        let stat = fstat(&file).map_err(|error| failed(error.into()))?;
        let changed = || PackError::Changed {
            path: path.to_owned(),
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(changed());
        }
        let length = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        if length > self.bytes {
            let (of, max) = ("bytes in its files", self.limits.bytes);
            return Err(PackError::TooMuch { of, max });
        }
        self.bytes -= length;
        self.words(&[b"(", b"type", b"regular"])?;
        if Mode::from_raw_mode(stat.st_mode).contains(Mode::XUSR) {
            self.words(&[b"executable", b""])?;
        }
        self.words(&[b"contents"])?;
        self.to.write_all(&length.to_le_bytes())?;
        let mut left = file.take(length);
        let mut chunk = vec![0; 64 * 1024];
        let mut copied = 0_u64;
        loop {
            let count = left.read(&mut chunk).map_err(failed)?;
            let Some(bytes) = chunk.get(..count).filter(|bytes| !bytes.is_empty()) else {
                break;
            };
            self.to.write_all(bytes)?;
            copied = copied.saturating_add(u64::try_from(count).unwrap_or(0));
        }
        if copied != length {
            return Err(changed());
        }
        self.fill(length)?;
        self.words(&[b")"])
    }

    fn words(&mut self, words: &[&[u8]]) -> Result<(), PackError> {
        for word in words {
            let length = u64::try_from(word.len()).unwrap_or(u64::MAX);
            self.to.write_all(&length.to_le_bytes())?;
            self.to.write_all(word)?;
            self.fill(length)?;
        }
        Ok(())
    }

    fn fill(&mut self, length: u64) -> Result<(), PackError> {
        let count = usize::try_from(padding(length)).unwrap_or(0);
        let zeroes = [0; 8];
        Ok(self.to.write_all(zeroes.get(..count).unwrap_or_default())?)
    }
}
