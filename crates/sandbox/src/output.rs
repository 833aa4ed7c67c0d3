//! What a job left as its output, taken without following anything that it left.

use std::{
    fs::File,
    io::{Seek as _, SeekFrom},
    path::Path,
};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, open, openat2, statat};

use crate::{FileDigest, SandboxError, order::RESULT};

/// A job's output. All processes of the job are gone, so nobody writes to it any more.
#[derive(Debug)]
pub struct TakenOutput {
    /// The file, opened for reading at its beginning.
    pub file: File,
    /// Its size.
    pub bytes: u64,
    /// Its digest.
    pub digest: FileDigest,
}

/// Takes the file `result` of a folder: `None` where the job has left none.
pub(crate) fn take(folder: &Path, bytes_max: u64) -> Result<Option<TakenOutput>, SandboxError> {
    let refuse = |why: String| SandboxError::Output { why };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder_fd = open(folder, flags, Mode::empty())
        .map_err(|e| SandboxError::file("open", folder)(e.into()))?;
    // Looked at before it is opened: opening a device or a pipe already does something.
    let kind = match statat(&folder_fd, RESULT, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => FileType::from_raw_mode(stat.st_mode),
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(error) => {
            return Err(SandboxError::file("look at", folder.join(RESULT))(
                error.into(),
            ));
        }
    };
    if kind != FileType::RegularFile {
        let kind = match kind {
            FileType::Symlink => "a symbolic link",
            FileType::Directory => "a folder",
            FileType::Fifo => "a pipe",
            FileType::Socket => "a socket",
            _ => "a device",
        };
        return Err(refuse(format!(
            "`{RESULT}` is {kind}, and only a file is taken"
        )));
    }
    let fd = openat2(
        &folder_fd,
        RESULT,
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV,
    )
    .map_err(|error| refuse(format!("`{RESULT}` can't be opened: {error}")))?;
    let mut file = File::from(fd);
    let at = || folder.join(RESULT);
    let stat = file
        .metadata()
        .map_err(SandboxError::file("look at", at()))?;
    if !stat.is_file() {
        return Err(refuse(format!(
            "`{RESULT}` was replaced while it was taken"
        )));
    }
    if stat.len() > bytes_max {
        return Err(refuse(format!(
            "`{RESULT}` has {} bytes, and at most {bytes_max} are taken",
            stat.len()
        )));
    }
    let (digest, bytes) =
        FileDigest::of(&file, bytes_max).map_err(SandboxError::file("read", at()))?;
    file.seek(SeekFrom::Start(0))
        .map_err(SandboxError::file("read", at()))?;
    Ok(Some(TakenOutput {
        file,
        bytes,
        digest,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs,
        os::unix::{fs::symlink, net::UnixListener},
    };

    #[test]
    fn only_a_file_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let result = dir.path().join(RESULT);
        assert!(take(dir.path(), 10).unwrap().is_none());

        fs::write(&result, "12345").unwrap();
        let taken = take(dir.path(), 5).unwrap().unwrap();
        assert_eq!(taken.bytes, 5);
        assert_eq!(std::io::read_to_string(taken.file).unwrap(), "12345");
        let large = take(dir.path(), 4).unwrap_err().to_string();
        assert!(large.contains("has 5 bytes, and at most 4"), "{large}");
        fs::remove_file(&result).unwrap();

        symlink("/etc/passwd", &result).unwrap();
        assert!(
            take(dir.path(), 9999)
                .unwrap_err()
                .to_string()
                .contains("a symbolic link")
        );
        fs::remove_file(&result).unwrap();
        let _socket = UnixListener::bind(&result).unwrap();
        assert!(
            take(dir.path(), 9999)
                .unwrap_err()
                .to_string()
                .contains("a socket")
        );
        fs::remove_file(&result).unwrap();
        fs::create_dir(&result).unwrap();
        assert!(
            take(dir.path(), 9999)
                .unwrap_err()
                .to_string()
                .contains("a folder")
        );
    }
}
