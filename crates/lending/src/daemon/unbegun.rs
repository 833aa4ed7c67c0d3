//! Whose fault it is that a job isn't begun.

use undercroft_lend::device::Hindrance;
use undercroft_sandbox::SandboxError;

use super::content::ContentError;

/// Why a job isn't begun.
pub(super) enum NotBegun {
    Killed,
    /// The job is at fault, on any machine.
    Failed(String),
    /// This machine is, or nobody.
    Returned(String, Hindrance),
}

impl From<ContentError> for NotBegun {
    fn from(error: ContentError) -> Self {
        let why = error.to_string();
        match error.hindrance() {
            Some(hindrance) => Self::Returned(why, hindrance),
            None => Self::Failed(why),
        }
    }
}

impl From<SandboxError> for NotBegun {
    fn from(error: SandboxError) -> Self {
        let why = error.to_string();
        match error {
            SandboxError::Spec { .. } | SandboxError::Unfit { .. } => Self::Failed(why),
            SandboxError::Stopped => Self::Killed,
            // Its inputs are read at its own share of the processor, which it chooses.
            SandboxError::Late { .. } => Self::Returned(why, Hindrance::Passing),
            _ => Self::Returned(why, Hindrance::Device),
        }
    }
}
