//! What can be wrong with a plan, with a journal, and with the engine itself.

use undercroft_model::{JOURNAL_VERSION, NodeName, Resource, StepId};
use undercroft_planner::PlanFinding;

/// A plan that the engine doesn't carry out, because [`undercroft_planner::check`] finds errors.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the plan is refused: {}", first(.findings))]
pub struct PlanRefused {
    /// What is wrong with it; at least one error.
    pub findings: Vec<PlanFinding>,
}

fn first(findings: &[PlanFinding]) -> String {
    match findings {
        [] => "it has errors".to_owned(),
        [one] => one.to_string(),
        [one, rest @ ..] => format!("{one} (and {} more)", rest.len()),
    }
}

/// Why a journal can't be gone on with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResumeError {
    /// It was written by a newer program.
    #[error("the journal has version {found}; this program reads version {JOURNAL_VERSION}")]
    Version {
        /// The journal's version.
        found: u32,
    },
    /// No plan was ever accepted.
    #[error("the journal holds no accepted plan")]
    NoPlan,
    /// The accepted plan is refused.
    #[error(transparent)]
    Refused(#[from] PlanRefused),
    /// A record is missing, or contradicts the ones before it. Nothing may be done on its word.
    #[error("the journal contradicts itself at record {seq}: {what}")]
    Contradiction {
        /// The record.
        seq: u64,
        /// What doesn't fit.
        what: String,
    },
}

/// A broken promise of the engine itself. The operation that would have broken it was not started,
/// and its machine has failed; it is a bug that should be reported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineFault {
    /// A step was about to begin although the run winds down.
    #[error("{node}: step {} would begin although the run winds down", .step.0)]
    LateStart {
        /// The machine.
        node: NodeName,
        /// The step.
        step: StepId,
    },
    /// A step that destroys was about to run without an approval and an inspection of this boot.
    #[error("{node}: step {} would destroy without approval and inspection", .step.0)]
    UnprovedDestruction {
        /// The machine.
        node: NodeName,
        /// The step.
        step: StepId,
    },
    /// A step that delivers secrets was about to run without an approval of this boot.
    #[error("{node}: step {} would deliver secrets without approval", .step.0)]
    UnprovedSecrets {
        /// The machine.
        node: NodeName,
        /// The step.
        step: StepId,
    },
    /// A second operation was about to start on a machine.
    #[error("{node}: step {} would start beside another operation", .step.0)]
    TwoOperations {
        /// The machine.
        node: NodeName,
        /// The step.
        step: StepId,
    },
    /// More holders of a resource than the plan allows.
    #[error("more than {limit} hold {resource:?}")]
    LimitExceeded {
        /// The resource.
        resource: Resource,
        /// How many may hold it.
        limit: u32,
    },
}
