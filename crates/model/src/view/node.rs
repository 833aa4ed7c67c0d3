//! What the journal says of one machine.

use std::{borrow::Cow, collections::BTreeMap, net::Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::{Failure, NodeFacts, NodeState, OpId, Resource, StepId, Work};

/// Where a machine stands in the accepted plan.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum NodeStatus {
    /// Nothing was started on it yet.
    Planned,
    /// An operation runs.
    Running,
    /// It was begun, and no operation runs.
    Waiting,
    /// All its steps are done.
    Done,
    /// It failed; the next run tries it again.
    Failed,
    /// It was refused: it isn't who it should be, or would lose what it must not. Only another plan
    /// takes it up again.
    Quarantined,
}

/// What a machine without a running operation waits for, or an operation that waits for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "for")]
pub enum Waits {
    /// For its turn to hold a resource.
    Resource {
        /// The resource.
        resource: Resource,
    },
    /// For the next try, after a failure.
    NextTry,
    /// For other machines' steps.
    Steps,
    /// For the approval of a fingerprint.
    Approval {
        /// The fingerprint.
        fingerprint: Option<String>,
    },
    /// For the next run: more machines failed than the plan allows before it was begun.
    RolloutStopped,
    /// For the next run: this one has ended, or its controller died.
    NextRun,
}

/// The step that a machine is at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Current {
    /// The step.
    pub step: StepId,
    /// The action's name, as people read it.
    pub action: Cow<'static, str>,
    /// The operation under way; `None` between two.
    pub op: Option<OpId>,
    /// Which half of the step the latest operation is or was.
    pub work: Option<Work>,
    /// The try that the latest operation is or was, from 1; 0 before the first.
    pub attempt: u32,
    /// When the latest operation began, in milliseconds since the Unix epoch.
    pub since_wall_ms: Option<u64>,
}

/// Why a machine's part of the plan ended without success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Failed {
    /// The step that failed.
    pub step: StepId,
    /// The action's name, as people read it.
    pub action: Option<Cow<'static, str>>,
    /// Why.
    pub failure: Failure,
    /// When, in milliseconds since the Unix epoch.
    pub wall_ms: u64,
}

/// A report that wasn't believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Quarantine {
    /// Why.
    pub reason: String,
    /// The key that it named.
    pub fingerprint: String,
    /// The address that it named.
    pub address: Ipv4Addr,
    /// When it came, in milliseconds since the Unix epoch.
    pub wall_ms: u64,
}

/// What one kind of step has taken so far.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema,
)]
pub struct Phase {
    /// The time that its operations took, by the wall clock, in milliseconds.
    pub busy_ms: u64,
    /// How many operations there were.
    pub operations: u32,
}

/// What the journal says of one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct NodeView {
    /// How far it has come.
    pub state: NodeState,
    /// Where it stands.
    pub status: NodeStatus,
    /// How many of its steps are done.
    pub steps_done: u32,
    /// How many steps it has.
    pub steps: u32,
    /// The step that it is at; `None` when all are done.
    pub current: Option<Current>,
    /// What it waits for.
    pub waits: Option<Waits>,
    /// How often its steps have begun again in the latest run.
    pub restarts: u32,
    /// The last thing that went wrong with the current step, or why it began again.
    pub last_failure: Option<Failure>,
    /// Why its part of the plan ended without success.
    pub failed: Option<Failed>,
    /// The latest report that wasn't believed.
    pub quarantine: Option<Quarantine>,
    /// What its steps have taken, by the action's name, in all runs of this plan.
    pub phases: BTreeMap<Cow<'static, str>, Phase>,
    /// When its first operation began, in milliseconds since the Unix epoch.
    pub first_wall_ms: Option<u64>,
    /// When its last step was done, in milliseconds since the Unix epoch.
    pub done_wall_ms: Option<u64>,
    /// What its steps stand on.
    #[serde(flatten)]
    pub facts: NodeFacts,
    /// The boot id of the installer, while it was there.
    pub installer_boot_id: Option<String>,
    /// Whether this plan wrote the partition tables; `None` while it isn't known.
    pub wiped: Option<bool>,
    /// The size of the closure that was copied, in bytes.
    pub closure_bytes: Option<u64>,
    /// The system that it was proved to have booted.
    pub booted_system: Option<String>,
    /// The host key that it was proved to have.
    pub host_key_fingerprint: Option<String>,
    /// The version of its kubelet, once Kubernetes called it Ready.
    pub kubelet_version: Option<String>,
    /// Whether any operation on it was ever begun by this plan.
    pub(super) begun: bool,
}

impl NodeView {
    pub(super) fn new() -> Self {
        Self {
            state: NodeState::Unknown,
            status: NodeStatus::Planned,
            steps_done: 0,
            steps: 0,
            current: None,
            waits: None,
            restarts: 0,
            last_failure: None,
            failed: None,
            quarantine: None,
            phases: BTreeMap::new(),
            first_wall_ms: None,
            done_wall_ms: None,
            facts: NodeFacts::default(),
            installer_boot_id: None,
            wiped: None,
            closure_bytes: None,
            booted_system: None,
            host_key_fingerprint: None,
            kubelet_version: None,
            begun: false,
        }
    }

    /// The time from its first operation to its last step, in milliseconds, by the wall clock.
    pub fn total_ms(&self) -> Option<u64> {
        Some(self.done_wall_ms?.saturating_sub(self.first_wall_ms?))
    }
}
