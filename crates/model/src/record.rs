//! What happened: the journal's records, from which every view of the fleet is folded.

mod entry;

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{BootstrapPart, InstallerReport, NodeName, Plan, PlanId, StepId, tagged::tagged};

/// The version of the journal's written form.
pub const JOURNAL_VERSION: u32 = 1;

/// One start of one piece of work; never used twice in a journal.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(transparent)]
pub struct OpId(pub u64);

impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "op {}", self.0)
    }
}

/// The two clocks at one moment. The engine measures waits by the first and stamps records with
/// the second, which may jump.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Default,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
pub struct Now {
    /// Milliseconds of a clock that never goes back, from an arbitrary start.
    pub mono_ms: u64,
    /// Milliseconds since the Unix epoch, as the machine believes.
    pub wall_ms: u64,
}

/// Which half of a step an operation is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// Do it.
    Act,
    /// Find out whether it is done; change nothing.
    Probe,
}

/// Who confirmed a fingerprint, and until when that is good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Approval {
    /// The fingerprint that was confirmed.
    pub fingerprint: String,
    /// `operator NAME`, or the console's name.
    pub by: String,
    /// When, in milliseconds since the Unix epoch.
    pub granted_wall_ms: u64,
    /// Until when the first connection must have been made, in milliseconds since the Unix epoch.
    pub expires_wall_ms: u64,
}

/// How long an approval is good for until the first connection must have been made, in milliseconds,
/// in every plan, and where no plan says otherwise: 15 minutes, long enough to walk back from the
/// machine's screen, short enough that a fingerprint that was confirmed and forgotten opens nothing.
pub const APPROVAL_EXPIRES_MS: u64 = 15 * 60 * 1000;

/// How far the wall clock may have gone back since an approval was granted before the approval is
/// asked for anew: more than a time server corrects a running machine by, far less than a person
/// needs to walk to a machine.
pub const CLOCK_BACK_MS_MAX: u64 = 60_000;

impl Approval {
    /// Whether it is good at that time of the wall clock: neither run out nor from so far in the
    /// future that the clock must have been set back since, so that nobody can tell when it ends.
    pub fn is_good_at(&self, wall_ms: u64) -> bool {
        wall_ms < self.expires_wall_ms
            && self.granted_wall_ms <= wall_ms.saturating_add(CLOCK_BACK_MS_MAX)
    }

    /// The approval as a plan takes it: good for no longer than the plan says, whoever granted it
    /// and for how long.
    pub fn within(mut self, good_for_ms: u64) -> Self {
        let latest = self.granted_wall_ms.saturating_add(good_for_ms);
        self.expires_wall_ms = self.expires_wall_ms.min(latest);
        self
    }
}

tagged! {
"is", EvidenceRead;
/// What proves that a step is done.
pub enum Evidence {
    /// An installer reported in.
    Seen {
        /// Its report.
        report: Box<InstallerReport>,
    },
    /// The fingerprint was confirmed.
    Approved {
        /// By whom.
        approval: Approval,
        /// The report that has this fingerprint, where it isn't the one that was seen first: a
        /// machine may be claimed by several, and the approval says which of them it is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        report: Option<Box<InstallerReport>>,
    },
    /// The machine is the one that was meant.
    Inspected {
        /// The boot that was looked at.
        boot_id: String,
        /// The device of each planned disk, in the plan's order.
        disk_paths: Vec<String>,
    },
    /// The disks are laid out and mounted.
    Partitioned {
        /// The boot in which they are mounted.
        boot_id: String,
        /// Whether this try wrote the partition tables, or found them written by this plan.
        wiped: bool,
    },
    /// The closure is there, whole.
    Copied {
        /// The boot in which it was seen.
        boot_id: String,
        /// The closure's size in bytes.
        closure_bytes: u64,
    },
    /// The system is set up to boot.
    Installed {
        /// The boot in which it was seen.
        boot_id: String,
        /// The loader's default entry as it was read back.
        default_entry: String,
    },
    /// The machine has left the installer.
    Rebooted {
        /// The new boot.
        boot_id: String,
    },
    /// The machine runs what was built.
    Up {
        /// The boot that was looked at.
        boot_id: String,
        /// The system that it booted.
        booted_system: String,
        /// The host key that it showed.
        host_key_fingerprint: String,
    },
    /// The closure is in the machine's own store, whole.
    Fetched {
        /// The boot in which it was seen.
        boot_id: String,
    },
    /// No pod runs on the machine but what belongs to it.
    Drained {
        /// How many pods were evicted.
        evicted: u32,
    },
    /// The system is the next one to boot.
    Staged {
        /// The boot in which it was staged, which the machine must have left before it can run it.
        boot_id: String,
        /// The system to which the machine goes back by itself where it isn't well; `None` where it tries none.
        goes_back_to: Option<String>,
    },
    /// The machine has booted again since the system was staged.
    Restarted {
        /// The new boot.
        boot_id: String,
    },
    /// Pods may be placed on the machine again.
    Released {
        /// Whether it is still closed, since somebody else has closed it.
        still_closed: bool,
    },
    /// The machine is a member of the cluster.
    Joined {
        /// The boot whose kubelet has registered (`status.nodeInfo.bootID`).
        boot_id: String,
        /// The UID of its Node.
        uid: String,
        /// The members of etcd that vote, as seen then, for a server; 0 for an agent.
        etcd_voters: u32,
    },
    /// Kubernetes calls the machine Ready.
    Ready {
        /// The boot that its kubelet reported.
        boot_id: String,
        /// Its kubelet's version.
        kubelet_version: String,
    },
    /// A part of the bootstrap is there and healthy.
    Bootstrapped {
        /// Which part.
        part: BootstrapPart,
        /// What shows it, for people: "cilium 1/1 ready", "synced to 3f2a91c".
        shown: String,
    },
}
}

/// How a failure is to be taken; the engine acts on nothing else of it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// It did not happen, and may work the next time.
    Transient,
    /// It may have happened: only the probe can tell.
    Ambiguous,
    /// The machine isn't in the state that the step requires: begin again at the step's
    /// `restart_from`.
    PreconditionLost,
    /// The machine isn't who it should be, or would lose what it must not lose. Never tried again
    /// without the operator; the machine is quarantined.
    Refused,
    /// The machine has tried its new system and left it again by itself. Never tried again with that system unless
    /// the operator asks, and no other machine is updated meanwhile.
    Refuted,
    /// Trying again would not help.
    Permanent,
}

/// The command that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct FailedCommand {
    /// The command as a person would type it; never with a secret in it.
    pub command: String,
    /// Its exit code; `None` where a signal or a time limit ended it.
    pub exit_code: Option<i32>,
    /// The last lines of what it printed, bounded.
    pub output_tail: String,
}

/// Why a step did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Failure {
    /// How to take it.
    pub kind: FailureKind,
    /// What went wrong, in a sentence without the machine's or the step's name.
    pub message: String,
    /// The command that showed it, where one did.
    #[serde(default)]
    pub command: Option<FailedCommand>,
    /// What to try.
    #[serde(default)]
    pub hint: Option<String>,
}

impl Failure {
    /// A failure of that kind with a message alone.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            command: None,
            hint: None,
        }
    }

    /// The same failure with what to try.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same failure with the command that showed it.
    #[must_use]
    pub fn with_command(mut self, command: FailedCommand) -> Self {
        self.command = Some(command);
        self
    }
}

tagged! {
"ended", OutcomeRead;
/// How an operation ended.
pub enum Outcome {
    /// The step is done: by this operation, or, as a probe has found, before it.
    Done {
        /// What proves it.
        evidence: Evidence,
    },
    /// A probe has found that the step is not done, and that it can be.
    NotDone,
    /// It failed.
    Failed {
        /// Why.
        failure: Failure,
    },
    /// It took longer than the step allows and was called off. It may have happened.
    TimedOut,
    /// The controller was stopped, or died, while it ran. It may have happened.
    Orphaned,
}
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RunEnd {
    /// Every step of the plan succeeded.
    Complete,
    /// Nothing more can be done, and some machines failed.
    Incomplete,
    /// The operator interrupted it.
    Interrupted,
}

tagged! {
"record", RecordRead;
/// One thing that happened.
pub enum Record {
    /// The journal begins. Always the first record.
    Opened {
        /// [`JOURNAL_VERSION`].
        version: u32,
        /// The fleet that it belongs to.
        fleet: String,
    },
    /// A plan was accepted; it is here whole.
    PlanAccepted {
        /// The plan.
        plan: Arc<Plan>,
    },
    /// A controller began to carry out the accepted plan, or went on with it.
    RunStarted {
        /// The plan.
        plan: PlanId,
        /// The controller's version.
        undercroft: String,
    },
    /// An operation is about to be started.
    OpStarted {
        /// The operation.
        op: OpId,
        /// Its step.
        step: StepId,
        /// Which half of it.
        work: Work,
        /// The try that this is, from 1.
        attempt: u32,
    },
    /// An operation ended.
    OpEnded {
        /// The operation.
        op: OpId,
        /// Its step.
        step: StepId,
        /// How.
        outcome: Outcome,
    },
    /// A machine's steps begin again.
    NodeRestarted {
        /// The machine.
        node: NodeName,
        /// The first step that is undone.
        from: StepId,
        /// Why.
        failure: Failure,
        /// How often that has happened to this machine in this run, from 1.
        count: u32,
    },
    /// A machine's part of the plan has ended without success.
    NodeFailed {
        /// The machine.
        node: NodeName,
        /// The step that failed.
        step: StepId,
        /// Why.
        failure: Failure,
    },
    /// An installer reported in whose identity is not the machine's, or not the one that was
    /// approved. Nothing is done with it.
    Quarantined {
        /// The machine whose place it takes.
        node: NodeName,
        /// What it reported.
        report: Box<InstallerReport>,
        /// Why it isn't trusted.
        reason: String,
    },
    /// More machines have failed than the plan allows: no further machine is begun.
    RolloutStopped {
        /// How many have failed.
        failed: u32,
        /// How many may.
        failure_budget: u32,
    },
    /// A controller has ended its run.
    RunEnded {
        /// How.
        end: RunEnd,
    },
}
}

/// A record in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Entry {
    /// Its number, from 0, without gaps.
    pub seq: u64,
    /// When it was made, in milliseconds since the Unix epoch, as the controller believed.
    pub wall_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub record: Record,
}
