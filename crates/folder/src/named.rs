//! Files that a person named, wherever they are: their paths are the user's own and may lead through links and to a
//! pipe. For files of a repository or of the state there is [`crate::confined`].

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

/// Reads a file of at most `bytes_max` bytes. Of a larger one no more than that is read.
///
/// # Errors
/// When it can't be read, or is larger: then of the kind [`io::ErrorKind::FileTooLarge`].
pub fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let too_large = || {
        let why = format!("it is larger than {bytes_max} bytes");
        io::Error::new(io::ErrorKind::FileTooLarge, why)
    };
    let file = File::open(path)?;
    let said = file.metadata()?.len();
    if said > bytes_max {
        return Err(too_large());
    }
    // With room for all of it: where it is a secret, growing would leave copies behind.
    let mut bytes = Vec::with_capacity(usize::try_from(said.saturating_add(1)).unwrap_or(0));
    // A pipe doesn't say how much there is.
    let read = file
        .take(bytes_max.saturating_add(1))
        .read_to_end(&mut bytes)?;
    match u64::try_from(read) {
        Ok(read) if read <= bytes_max => Ok(bytes),
        _ => Err(too_large()),
    }
}

/// Reads a file of text, as [`read_bounded`].
///
/// # Errors
/// As there, and when it is no text: then of the kind [`io::ErrorKind::InvalidData`].
pub fn read_text_bounded(path: &Path, bytes_max: u64) -> io::Result<String> {
    String::from_utf8(read_bounded(path, bytes_max)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it isn't text in UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_read_than_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "abc").unwrap();
        assert_eq!(read_bounded(&path, 3).unwrap(), b"abc");
        assert_eq!(read_text_bounded(&path, 3).unwrap(), "abc");
        let error = read_bounded(&path, 2).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(error.to_string(), "it is larger than 2 bytes");
        // One without an end, of which nobody says how large it is.
        let error = read_bounded(Path::new("/dev/zero"), 1_000_000).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        std::fs::write(&path, [0xff]).unwrap();
        let error = read_text_bounded(&path, 2).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
