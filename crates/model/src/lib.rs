//! Undercroft's vocabulary: inventory, observation, plan, records; no I/O.

pub mod advice;
mod cluster;
mod diagnostic;
pub mod document;
mod facts;
mod identity;
mod ids;
pub mod inventory;
mod misfit;
pub mod objects;
mod observation;
pub mod on_machine;
mod plan;
mod record;
mod report;
mod tagged;
pub mod text;
mod unanswered;
mod updates;
pub mod view;
pub mod words;

pub use cluster::{
    BootstrapPart, ClosedBy, ClusterNode, ClusterObservation, ClusterPlan, ClusterRole,
    GitopsSource, kubernetes_minor,
};
pub use diagnostic::{Diagnostic, Excerpt, Piece, Place, Related, Role, Severity};
pub use facts::NodeFacts;
pub use identity::{MachineIdentity, NotTheMachine};
pub use ids::{
    ClassName, DeviceClass, DeviceName, Feature, InvalidId, JobId, MacAddr, MachineUuid, NodeName,
    PcName, SubmitterName, System, Tenant, UserName, is_dns_label,
};
pub use misfit::{DiskMisfit, Misfit, misfits, the_disk};
pub use observation::{Found, Installed, NodeObservation, Observation};
pub use plan::{
    Action, ApprovalMode, DiskIdentity, NodePlan, NodeState, PLAN_VERSION, Plan, PlanId,
    PlanLimits, PlannedDisk, Resource, RetryPolicy, Step, StepId, SystemTarget, Wave,
};
pub use record::{
    APPROVAL_EXPIRES_MS, Approval, CLOCK_BACK_MS_MAX, Entry, Evidence, FailedCommand, Failure,
    FailureKind, JOURNAL_VERSION, Now, OpId, Outcome, Record, RunEnd, Work,
};
pub use report::{INSTALLER_REPORT_VERSION, InstallerReport, ReportedDisk, ReportedFirmware};
pub use unanswered::NoAnswer;
pub use updates::{RefutedSystem, Updates};
