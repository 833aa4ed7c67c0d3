//! Names, digests and numbers of lending.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use undercroft_model::is_dns_label;

/// A text that is no value of one of this crate's types.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct Malformed {
    /// The text, at most its first 80 characters.
    pub text: String,
    /// What was expected, with its article.
    pub expected: &'static str,
}

impl Malformed {
    fn new(text: &str, expected: &'static str) -> Self {
        Self {
            text: text.chars().take(80).collect(),
            expected,
        }
    }
}

macro_rules! label {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        /// A DNS label, so that it can stand in a subject and in a key of NATS.
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Malformed;
            fn from_str(text: &str) -> Result<Self, Malformed> {
                if is_dns_label(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(Malformed::new(text, "a DNS label (1 to 63 of a-z, 0-9 and '-', not at the ends)"))
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = Malformed;
            fn try_from(text: String) -> Result<Self, Malformed> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

label! {
    /// A machine that lends: a PC, a phone, a board.
    DeviceName
}
label! {
    /// A kind of machine that lends, such as `pc` or `phone`.
    DeviceClass
}
label! {
    /// A job.
    JobId
}
label! {
    /// Who has work done.
    Tenant
}
label! {
    /// Something that a job needs of a device and a device says it has, such as `gpu`.
    Feature
}

/// How often a job was handed out: each time under a number of its own, so that an earlier holder can't be
/// taken for the present one (a fencing token).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The next one.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Which of a device's requests something is: later ones are greater, also after the daemon was started anew.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(deny_unknown_fields)]
pub struct Turn {
    /// How often the daemon was started, as its journal counts.
    pub start: u64,
    /// The request since then.
    pub request: u64,
}

/// The SHA-256 of something, printed as `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    const EXPECTED: &'static str = "a digest such as sha256: and 64 digits of 0-9 and a-f";

    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = || Malformed::new(text, Self::EXPECTED);
        let digits = text.strip_prefix("sha256:").ok_or_else(malformed)?;
        let is_lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if digits.len() != 64 || !digits.bytes().all(is_lower) {
            return Err(malformed());
        }
        let mut bytes = [0; 32];
        for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
            let pair = digits.get(at..at + 2).ok_or_else(malformed)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| malformed())?;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Digest {
    type Error = Malformed;
    fn try_from(text: String) -> Result<Self, Malformed> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_reads_what_it_prints_and_nothing_else() {
        let digest = Digest::of(b"");
        let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest.to_string(), text);
        assert_eq!(text.parse(), Ok(digest));
        for wrong in [
            "",
            "sha256:",
            text.get(..70).unwrap(),
            &text.to_uppercase(),
            "md5:00",
            &format!("{text}0"),
        ] {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
        }
        let multibyte = format!("sha256:{}é", "a".repeat(62));
        assert!(multibyte.parse::<Digest>().is_err());
    }

    #[test]
    fn turns_grow_over_starts() {
        let turn = |start, request| Turn { start, request };
        assert!(turn(1, 900) < turn(2, 0) && turn(2, 0) < turn(2, 1));
    }

    #[test]
    fn a_name_that_is_no_part_of_a_subject_is_refused() {
        for wrong in ["", "a.b", "*", ">", "A", "a b", "-a"] {
            assert!(wrong.parse::<DeviceName>().is_err(), "{wrong}");
            assert!(
                serde_json::from_value::<JobId>(wrong.into()).is_err(),
                "{wrong}"
            );
        }
    }
}
