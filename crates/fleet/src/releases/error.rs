//! Why a component's releases can't be told.

use std::error::Error;

use undercroft_model::advice::{Advice, ErrorKind};

/// Why a component's releases can't be told, or one can't be taken. Nothing was written.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ReleaseError {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl ReleaseError {
    /// What the user gave is wrong.
    pub(super) fn input(message: impl Into<String>) -> Self {
        Self {
            kind: ErrorKind::Input,
            message: message.into(),
            hint: None,
            source: None,
        }
    }

    /// A repository or a registry didn't go along.
    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self {
            kind: ErrorKind::Failed,
            ..Self::input(message)
        }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn because(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }
}

impl Advice for ReleaseError {
    fn kind(&self) -> ErrorKind {
        self.kind
    }

    fn hint(&self) -> Option<String> {
        self.hint.clone()
    }
}
