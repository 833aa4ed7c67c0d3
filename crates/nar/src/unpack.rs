//! An archive becomes a tree.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read},
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::fs::{
    AtFlags, Mode, OFlags, Timespec, Timestamps, fchmod, futimens, mkdirat, open, openat,
    symlinkat, utimensat,
};

use crate::{
    ArchiveLimits,
    parse::{BadArchive, Sink, parse},
};

/// When everything was changed last, in seconds since the epoch: as in Nix' own store, so that what looks at it sees the
/// same everywhere.
const CHANGED_S: i64 = 1;

/// Why an archive isn't unpacked. What was unpacked before that is left.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// It is none, or too large.
    #[error(transparent)]
    Archive(#[from] BadArchive),
    /// Something in it isn't expected.
    #[error("the archive has {name:?}, which nobody asked for")]
    Unasked {
        /// Its name.
        name: String,
    },
    /// It can't be written.
    #[error("can't {tried} {}: {source}", path.display())]
    Write {
        /// What was tried.
        tried: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Unpacks what is in an archive's folder into `folder`, which is there. `place` says under which name something of
/// the outermost folder is to lie there; what it knows no name for is refused. Nothing that is there is written over or
/// followed.
///
/// # Errors
/// When it is no archive, is larger than `limits`, or can't be written.
pub fn unpack(
    from: &mut dyn Read,
    folder: &Path,
    limits: ArchiveLimits,
    place: &dyn Fn(&str) -> Option<String>,
) -> Result<(), UnpackError> {
    let mut tree = Tree {
        top: folder,
        open: Vec::new(),
        at: PathBuf::new(),
        place,
    };
    parse(from, limits, &mut tree)
}

struct Tree<'a> {
    top: &'a Path,
    open: Vec<OwnedFd>,
    at: PathBuf,
    place: &'a dyn Fn(&str) -> Option<String>,
}

impl Tree<'_> {
    fn failed(
        &self,
        tried: &'static str,
        name: &OsStr,
    ) -> impl Fn(rustix::io::Errno) -> UnpackError {
        let path = self.top.join(&self.at).join(name);
        move |error| UnpackError::Write {
            tried,
            path: path.clone(),
            source: error.into(),
        }
    }

    /// Where something lies: within the innermost folder, and in the outermost one under the name that is wanted there.
    fn place<'n>(&self, name: &'n OsString) -> Result<std::borrow::Cow<'n, OsStr>, UnpackError> {
        if self.open.len() > 1 {
            return Ok(name.as_os_str().into());
        }
        let placed = name.to_str().and_then(self.place);
        let placed = placed.ok_or_else(|| UnpackError::Unasked {
            name: name.to_string_lossy().chars().take(80).collect(),
        })?;
        Ok(OsString::from(placed).into())
    }

    fn innermost(&self) -> Result<&OwnedFd, UnpackError> {
        // The parser begins with a folder.
        self.open.last().ok_or(BadArchive::Trailing.into())
    }
}

fn times() -> Timestamps {
    let changed = Timespec {
        tv_sec: CHANGED_S,
        tv_nsec: 0,
    };
    Timestamps {
        last_access: changed,
        last_modification: changed,
    }
}

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

impl Sink for Tree<'_> {
    type Error = UnpackError;

    fn folder(&mut self, name: &OsString) -> Result<(), UnpackError> {
        if self.open.is_empty() {
            let top = open(self.top, FOLDER, Mode::empty());
            self.open.push(top.map_err(self.failed("open", name))?);
            return Ok(());
        }
        let name = self.place(name)?;
        let at = self.innermost()?;
        mkdirat(at, &*name, Mode::from_raw_mode(0o755)).map_err(self.failed("make", &name))?;
        let made = openat(at, &*name, FOLDER | OFlags::NOFOLLOW, Mode::empty());
        self.open.push(made.map_err(self.failed("open", &name))?);
        self.at.push(&*name);
        Ok(())
    }

    fn end(&mut self) -> Result<(), UnpackError> {
        let Some(folder) = self.open.pop() else {
            return Ok(());
        };
        if !self.open.is_empty() {
            futimens(&folder, &times()).map_err(self.failed("close", OsStr::new("")))?;
        }
        self.at.pop();
        Ok(())
    }

    fn file(
        &mut self,
        name: &OsString,
        is_executable: bool,
        contents: &mut dyn Read,
    ) -> Result<(), UnpackError> {
        let name = self.place(name)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let made = openat(
            self.innermost()?.as_fd(),
            &*name,
            flags | OFlags::CLOEXEC,
            Mode::from_raw_mode(0o600),
        );
        let mut file = File::from(made.map_err(self.failed("make", &name))?);
        io::copy(contents, &mut file).map_err(|source| UnpackError::Write {
            tried: "write",
            path: self.top.join(&self.at).join(&*name),
            source,
        })?;
        let mode = if is_executable { 0o555 } else { 0o444 };
        fchmod(&file, Mode::from_raw_mode(mode)).map_err(self.failed("close", &name))?;
        futimens(&file, &times()).map_err(self.failed("close", &name))
    }

    fn link(&mut self, name: &OsString, target: &OsString) -> Result<(), UnpackError> {
        let name = self.place(name)?;
        let at = self.innermost()?;
        symlinkat(target, at, &*name).map_err(self.failed("link", &name))?;
        utimensat(at, &*name, &times(), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(self.failed("link", &name))
    }
}
