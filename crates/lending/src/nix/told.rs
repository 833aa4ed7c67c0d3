//! What is said of a build, while it goes on and when it has ended.

use undercroft_model::advice::{Advice, ErrorKind};

/// What is told while a build goes on.
#[derive(Debug)]
pub enum NixTold<'a> {
    /// A line about where it is built, and why.
    Line(String),
    /// What the builder wrote on another machine: a stranger's bytes.
    Log(&'a [u8]),
}

/// Where a build ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NixBuilt {
    /// On a lent PC; its outputs are where Nix expects them.
    Away,
    /// Here, with that exit code.
    Here(i32),
}

/// Why nothing could be built, neither there nor here.
#[derive(Debug, thiserror::Error)]
pub enum LentBuildError {
    /// The sandbox can't be made.
    #[error("no sandbox can be made for the build: {why}")]
    Sandbox {
        /// Why.
        why: String,
    },
    /// The outputs can't be moved to their places.
    #[error("the outputs can't be moved into the store: {why}")]
    Outputs {
        /// Why.
        why: String,
    },
}

impl Advice for LentBuildError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Failed
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Sandbox { .. } => Some(
                "bubblewrap has to be there for the users of builds, and user namespaces; `bwrap` of the settings names it."
                    .to_owned(),
            ),
            Self::Outputs { .. } => None,
        }
    }
}
