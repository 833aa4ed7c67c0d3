//! SHA-256 of files.

use std::{fmt, io::Read, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// How much is read at once, in bytes.
const READ_BYTES: usize = 64 * 1024;

/// The SHA-256 of a file, printed as `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileDigest([u8; 32]);

impl FileDigest {
    /// Reads to the end, and at most `bytes_max`. The number is how much was read.
    ///
    /// # Errors
    /// When reading fails, or there is more than that.
    pub fn of(mut from: impl Read, bytes_max: u64) -> std::io::Result<(Self, u64)> {
        let mut hasher = Sha256::new();
        let mut buffer = vec![0u8; READ_BYTES];
        let mut bytes: u64 = 0;
        loop {
            let count = match from.read(&mut buffer) {
                Ok(0) => return Ok((Self(hasher.finalize().into()), bytes)),
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            bytes = bytes.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
            if bytes > bytes_max {
                return Err(std::io::Error::new(
                    std::io::ErrorKind::FileTooLarge,
                    format!("it has more than {bytes_max} bytes"),
                ));
            }
            hasher.update(buffer.get(..count).unwrap_or_default());
        }
    }
}

impl fmt::Display for FileDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for FileDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a digest is `sha256:` and 64 digits of 0-9 and a-f")]
pub struct NoDigest;

impl FromStr for FileDigest {
    type Err = NoDigest;
    fn from_str(text: &str) -> Result<Self, NoDigest> {
        let digits = text.strip_prefix("sha256:").ok_or(NoDigest)?.as_bytes();
        let value = |digit: &u8| match digit {
            b'0'..=b'9' => Ok(digit - b'0'),
            b'a'..=b'f' => Ok(digit - b'a' + 10),
            _ => Err(NoDigest),
        };
        let (pairs, rest) = digits.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(NoDigest);
        }
        let bytes: Result<Vec<u8>, NoDigest> = pairs
            .iter()
            .map(|[high, low]| Ok(value(high)? * 16 + value(low)?))
            .collect();
        bytes?.try_into().map(Self).map_err(|_| NoDigest)
    }
}

impl TryFrom<String> for FileDigest {
    type Error = NoDigest;
    fn try_from(text: String) -> Result<Self, NoDigest> {
        text.parse()
    }
}

impl From<FileDigest> for String {
    fn from(digest: FileDigest) -> Self {
        digest.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_reads_what_it_prints_and_nothing_else() {
        let (digest, bytes) = FileDigest::of(&b"abc"[..], 3).unwrap();
        let text = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!((digest.to_string().as_str(), bytes), (text, 3));
        assert_eq!(text.parse(), Ok(digest));
        for wrong in ["", "sha256:", "sha256:ab", &text.to_uppercase(), "md5:00"] {
            assert_eq!(wrong.parse::<FileDigest>(), Err(NoDigest), "{wrong}");
        }
        assert!(format!("{text}0").parse::<FileDigest>().is_err());
        assert!(FileDigest::of(&b"abcd"[..], 3).is_err());
    }
}
