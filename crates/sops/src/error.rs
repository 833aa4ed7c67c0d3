//! What can be wrong with a file, and what to try.

/// Why a file can't be read, opened or sealed. No message holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SopsError {
    /// The text is no YAML that this format allows.
    #[error("line {line}, column {column}: {message}")]
    Syntax {
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// The file is too large to be one of secrets.
    #[error("it has {bytes} bytes, and {bytes_max} are the most")]
    TooLarge {
        /// Its size, in bytes.
        bytes: usize,
        /// The most, in bytes.
        bytes_max: usize,
    },
    /// There is no `sops` key: the file isn't encrypted.
    #[error("it isn't encrypted: the key `sops` is missing")]
    NotEncrypted,
    /// A plain file has a key `sops`.
    #[error("the key `sops` is SOPS' own and can't be a secret's")]
    ReservedKey,
    /// The `sops` key holds something else than SOPS writes.
    #[error("its `sops` part can't be used: {detail}")]
    Metadata {
        /// What is wrong.
        detail: String,
    },
    /// None of the identities at hand opens the file.
    #[error(
        "none of the identities at hand opens it; it is encrypted to {}",
        list(recipients)
    )]
    NoIdentity {
        /// The recipients, as they are written in the file.
        recipients: Vec<String>,
    },
    /// A value was changed after it was encrypted, or moved to another key.
    #[error("the value of {name} was changed or moved after it was encrypted")]
    BadValue {
        /// The value's path.
        name: String,
    },
    /// A value that must be encrypted is in plain text.
    #[error("the value of {name} is in plain text")]
    PlainValue {
        /// The value's path.
        name: String,
    },
    /// The message authentication code doesn't fit the values.
    #[error("its MAC doesn't fit its values: one was removed, added or moved without the key")]
    BadMac,
    /// A value can't be written in this format.
    #[error("the value of {name} can't be kept: {detail}")]
    Unsupported {
        /// The value's path.
        name: String,
        /// Why.
        detail: String,
    },
    /// A recipient can't be used.
    #[error("the recipient {recipient:?} can't be used: {detail}")]
    BadRecipient {
        /// The recipient, at most its first 80 characters.
        recipient: String,
        /// Why.
        detail: String,
    },
    /// A file needs somebody who can decrypt it.
    #[error("there is nobody to encrypt it to")]
    NoRecipient,
    /// The encryption itself failed.
    #[error("it can't be encrypted: {detail}")]
    Seal {
        /// Why.
        detail: String,
    },
}

impl SopsError {
    /// What to try, in a sentence.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotEncrypted => Some(
                "Take the file out of the repository and its history, count its secrets as known, and make new ones.",
            ),
            Self::NoIdentity { .. } => Some(
                "Name the file of your age identity with --identity, or ask another operator to run `undercroft secrets rekey` with you among the operators.",
            ),
            Self::BadValue { .. } | Self::BadMac | Self::PlainValue { .. } => Some(
                "Bring the file back from the repository's history, and change it only with `undercroft secrets edit` or `sops edit`.",
            ),
            Self::BadRecipient { .. } => Some(
                "A recipient is `age1…`, or an SSH public key of the kind ssh-ed25519 or ssh-rsa.",
            ),
            Self::TooLarge { .. }
            | Self::Syntax { .. }
            | Self::ReservedKey
            | Self::Metadata { .. }
            | Self::Unsupported { .. }
            | Self::NoRecipient
            | Self::Seal { .. } => None,
        }
    }
}

fn list(recipients: &[String]) -> String {
    if recipients.is_empty() {
        "nobody".to_owned()
    } else {
        recipients.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_reads_an_error_learns_what_to_do() {
        let name = || "k3s/token".to_owned();
        for (error, word) in [
            (SopsError::NotEncrypted, "history"),
            (
                SopsError::NoIdentity {
                    recipients: Vec::new(),
                },
                "--identity",
            ),
            (
                SopsError::BadValue { name: name() },
                "undercroft secrets edit",
            ),
            (
                SopsError::PlainValue { name: name() },
                "undercroft secrets edit",
            ),
            (SopsError::BadMac, "repository's history"),
            (
                SopsError::BadRecipient {
                    recipient: "x".to_owned(),
                    detail: "y".to_owned(),
                },
                "ssh-ed25519",
            ),
        ] {
            let hint = error.hint().unwrap_or_default();
            assert!(hint.contains(word), "{error}: {hint}");
        }
        // What these say is itself what to change.
        for error in [
            SopsError::ReservedKey,
            SopsError::NoRecipient,
            SopsError::TooLarge {
                bytes: 2,
                bytes_max: 1,
            },
        ] {
            assert_eq!(error.hint(), None, "{error}");
        }
    }

    #[test]
    fn a_file_that_no_identity_opens_says_whose_it_is() {
        let said = |recipients: &[&str]| {
            let recipients = recipients.iter().map(ToString::to_string).collect();
            SopsError::NoIdentity { recipients }.to_string()
        };
        let start = "none of the identities at hand opens it; it is encrypted to ";
        assert_eq!(said(&[]), format!("{start}nobody"));
        assert_eq!(said(&["age1a", "age1b"]), format!("{start}age1a, age1b"));
    }
}
