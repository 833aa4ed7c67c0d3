//! What keeps a tree from being rendered.

use serde::Serialize;

/// One thing that is wrong with what was given, found before anything is written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// A word for the kind of problem that doesn't change between versions, such as `cycle`.
    pub code: &'static str,
    /// File that it is in, from the inventory's folder, where it is in one.
    pub file: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to do, as a whole sentence.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem of a kind.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            file: None,
            message: message.into(),
            hint: None,
        }
    }

    /// The same problem in a file.
    #[must_use]
    pub fn in_file(mut self, file: impl Into<String>) -> Self {
        self.file = Some(file.into());
        self
    }

    /// The same problem with what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
