//! Host keys, and the fingerprints by which people compare them.

use std::fmt;

use ssh_key::{Algorithm, HashAlg, PublicKey};

/// Why a text is no host key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostKeyError {
    /// It isn't a public key in OpenSSH's form.
    #[error("the host key {text:?} can't be read: {detail}")]
    Malformed {
        /// The text, at most its first 80 characters.
        text: String,
        /// Why.
        detail: String,
    },
    /// It is a key of another algorithm.
    #[error("the host key is of the algorithm {algorithm}; only ssh-ed25519 is used")]
    Algorithm {
        /// The algorithm.
        algorithm: String,
    },
    /// The fingerprint that came with it is another key's.
    #[error("the host key has the fingerprint {actual}, and was reported with {claimed}")]
    Fingerprint {
        /// The key's own fingerprint.
        actual: String,
        /// The fingerprint that came with it.
        claimed: String,
    },
}

/// An ed25519 host key: the only kind that is made and the only kind that is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostKey(PublicKey);

impl HostKey {
    /// Reads `ssh-ed25519 AAAA…`, with or without a comment.
    ///
    /// # Errors
    /// When it is no ed25519 key.
    pub fn parse(text: &str) -> Result<Self, HostKeyError> {
        let malformed = |detail: String| HostKeyError::Malformed {
            text: text.chars().take(80).collect(),
            detail,
        };
        let algorithm = text.split_whitespace().next().unwrap_or_default();
        let known = algorithm.starts_with("ssh-")
            || algorithm.starts_with("ecdsa-")
            || algorithm.starts_with("sk-");
        if known && algorithm != Algorithm::Ed25519.as_str() {
            return Err(HostKeyError::Algorithm {
                algorithm: algorithm.chars().take(80).collect(),
            });
        }
        let key = PublicKey::from_openssh(text.trim()).map_err(|e| malformed(e.to_string()))?;
        if key.algorithm() != Algorithm::Ed25519 {
            return Err(malformed(format!("it holds a key of {}", key.algorithm())));
        }
        Ok(Self(PublicKey::new(key.key_data().clone(), "")))
    }

    /// Reads a key that came with its fingerprint, as in an installer's report. What an operator
    /// approves is the fingerprint, and what is pinned is the key: they must be of each other.
    ///
    /// # Errors
    /// When it is no ed25519 key, or the fingerprint is another key's.
    pub fn parse_with_fingerprint(text: &str, fingerprint: &str) -> Result<Self, HostKeyError> {
        let key = Self::parse(text)?;
        let actual = key.fingerprint();
        if actual == fingerprint {
            Ok(key)
        } else {
            Err(HostKeyError::Fingerprint {
                actual,
                claimed: fingerprint.chars().take(80).collect(),
            })
        }
    }

    /// The fingerprint as OpenSSH prints it: `SHA256:…`.
    pub fn fingerprint(&self) -> String {
        self.0.fingerprint(HashAlg::Sha256).to_string()
    }

    /// A pin of that key, without its comment.
    pub fn from_public(key: PublicKey) -> Self {
        Self(PublicKey::new(key.key_data().clone(), ""))
    }
}

impl fmt::Display for HostKey {
    /// `ssh-ed25519 AAAA…`, without a comment.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Encoding a key that was decoded can't fail; an empty line would pin nothing at all.
        f.pad(self.0.to_openssh().unwrap_or_default().trim())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIZdTn8/lZQnnwA7ICI2WO1bwRCCRMqC7y2J2n7G9VhT";

    #[test]
    fn a_key_reads_what_it_prints_and_its_fingerprint_is_that_of_openssh() {
        let key = HostKey::parse(&format!("{KEY} root@installer\n")).unwrap();
        assert_eq!(key.to_string(), KEY);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key.pub");
        std::fs::write(&file, KEY).unwrap();
        let output = std::process::Command::new("ssh-keygen")
            .arg("-lf")
            .arg(&file)
            .output()
            .unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(
            printed.contains(&format!(" {} ", key.fingerprint())),
            "{printed}"
        );
        HostKey::parse_with_fingerprint(KEY, &key.fingerprint()).unwrap();
    }

    #[test]
    fn a_fingerprint_of_another_key_is_refused() {
        let refused = HostKey::parse_with_fingerprint(KEY, "SHA256:abc").unwrap_err();
        assert!(
            matches!(refused, HostKeyError::Fingerprint { .. }),
            "{refused}"
        );
    }

    #[test]
    fn keys_of_other_algorithms_are_refused() {
        let ecdsa = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBHwf2HMM5TRXvo2SQJjsNkiDD5KqiiNjrGVv3UUh+mMT5RHxiRtOnlqvjhQtBq0VpmpCV/PwUdhOig4vkbqAcEc=";
        let refused = HostKey::parse(ecdsa).unwrap_err();
        assert!(
            matches!(refused, HostKeyError::Algorithm { .. }),
            "{refused}"
        );
    }

    proptest! {
        #[test]
        fn any_text_gives_a_key_or_an_error(text in "\\PC{0,120}") {
            let _ = HostKey::parse(&text);
        }
    }
}
