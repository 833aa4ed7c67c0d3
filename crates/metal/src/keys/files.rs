//! Key files: written whole or not at all, and never over another.

use std::{
    fs::{DirBuilder, File, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
};

use super::KeyError;

/// Writes a file that must not exist yet. It is on the disk when this returns, and at no moment is
/// there half of it under its name.
pub(super) fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), KeyError> {
    write(path, bytes, mode, false)
}

/// Writes a file, in place of the one that is there if need be; readers see the old one or the
/// new one, whole.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), KeyError> {
    write(path, bytes, mode, true)
}

fn write(path: &Path, bytes: &[u8], mode: u32, replaces: bool) -> Result<(), KeyError> {
    let attempt = || -> io::Result<()> {
        let dir = path.parent().unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        // The temporary file has mode 0600 until it is whole.
        let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(dir)?;
        file.write_all(bytes)?;
        file.as_file()
            .set_permissions(Permissions::from_mode(mode))?;
        file.as_file().sync_all()?;
        if replaces {
            file.persist(path).map_err(|e| e.error)?;
        } else {
            file.persist_noclobber(path).map_err(|e| e.error)?;
        }
        File::open(dir)?.sync_all()
    };
    attempt().map_err(|source| KeyError::Io {
        what: "written",
        path: path.to_owned(),
        source,
    })
}

/// Reads a file of at most `bytes_max` bytes.
pub(crate) fn read_bounded(path: &Path, bytes_max: u64) -> Result<Vec<u8>, KeyError> {
    let attempt = || -> io::Result<Vec<u8>> {
        let file = File::open(path)?;
        // With room for all of it: where it is a secret, growing would leave copies behind.
        let room = file.metadata()?.len().min(bytes_max) + 1;
        let mut bytes = Vec::with_capacity(usize::try_from(room).unwrap_or(0));
        let read = file.take(bytes_max + 1).read_to_end(&mut bytes)?;
        if u64::try_from(read).unwrap_or(u64::MAX) > bytes_max {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("it is larger than {bytes_max} bytes"),
            ));
        }
        Ok(bytes)
    };
    attempt().map_err(|source| KeyError::Io {
        what: "read",
        path: path.to_owned(),
        source,
    })
}
