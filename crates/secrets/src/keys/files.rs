//! Key files that a person named, wherever they are.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use super::error::KeyError;

/// Reads a file of at most `bytes_max` bytes. Its path is the user's own and may lead through links
/// and to a pipe; for files of a repository or of the state there is [`undercroft_folder::confined`].
pub(super) fn read_bounded(path: &Path, bytes_max: u64) -> Result<Vec<u8>, KeyError> {
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
