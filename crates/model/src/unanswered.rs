//! Why a machine gave no answer to what it was asked, and what that means for a step that knows no better.

use serde::{Deserialize, Serialize};

use crate::FailureKind;

/// Why a machine gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoAnswer {
    /// Its SSH server could not be reached; nothing was run.
    Unreachable,
    /// Another host key was shown than the one that is pinned; nothing was run.
    OtherKey,
    /// It refused the operator's key; nothing was run.
    AuthRefused,
    /// The session ended without the command's exit code; it may have been run, in part or whole.
    Interrupted,
    /// The command took too long, and was called off here; it may go on there.
    NotInTime {
        /// Whether the command can have been started.
        begun: bool,
    },
    /// The client, or a file that it needs, can't be used on this machine.
    Local,
}

impl NoAnswer {
    /// How a failure of a step that had no answer is to be taken, where the step has no better word.
    pub fn kind(self) -> FailureKind {
        match self {
            Self::Unreachable | Self::NotInTime { begun: false } => FailureKind::Transient,
            Self::OtherKey => FailureKind::Refused,
            Self::AuthRefused | Self::Local => FailureKind::Permanent,
            Self::Interrupted | Self::NotInTime { begun: true } => FailureKind::Ambiguous,
        }
    }
}
