//! What a plan means for people: of every machine what is done with it, and why.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use undercroft_model::{DiskIdentity, NodeName, PlanId, inventory::DiskRole};

/// What is to be done with a machine, or why nothing is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "status")]
pub enum NodeStatus {
    /// It is installed.
    Install,
    /// It is wiped and installed anew, because that was asked for by its name.
    Reinstall,
    /// It runs what it should, and its part in the cluster is missing or isn't known.
    Join,
    /// It runs what it should, and no run has proved that: somebody else installed it, or the journal was lost. That is
    /// proved and written down, and nothing else is done.
    Adopt,
    /// It runs what it should.
    Converged,
    /// It runs another system than the one that was built, and gets that one by this plan.
    Update {
        /// The system that it booted.
        booted: String,
        /// The system that is active.
        current: String,
        /// The system that was built.
        target: String,
    },
    /// It runs another system than the one that was built, and isn't updated by this plan.
    UpdateLater {
        /// The system that it booted.
        booted: String,
        /// The system that is active.
        current: String,
        /// The system that was built.
        target: String,
        /// Why not.
        reason: String,
    },
    /// An update has closed it for further pods and came to no end: it is opened again.
    Release,
    /// It runs another system than the one that was built, and is left alone: no update was asked for.
    Differs {
        /// The system that it booted.
        booted: String,
        /// The system that is active.
        current: String,
        /// The system that was built.
        target: String,
    },
    /// It was installed once and doesn't answer. It is left alone.
    Unreachable {
        /// What the last look has shown.
        reason: String,
    },
    /// Something else answers in its place. It is left alone.
    Quarantined {
        /// What.
        reason: String,
    },
    /// It can't be planned.
    Blocked {
        /// Everything that stands in the way.
        reasons: Vec<String>,
    },
}

impl NodeStatus {
    /// Whether the machine has steps in the plan.
    pub fn is_planned(&self) -> bool {
        self.takes_part() || matches!(self, Self::Adopt | Self::Update { .. } | Self::Release)
    }

    /// Whether it is to have a part in the cluster by this plan.
    pub(crate) fn takes_part(&self) -> bool {
        self.is_installed() || matches!(self, Self::Join)
    }

    /// Whether the machine's disks are written to.
    pub fn is_installed(&self) -> bool {
        matches!(self, Self::Install | Self::Reinstall)
    }
}

/// A disk whose content a machine's steps destroy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct DestroyedDisk {
    /// Which disk.
    pub identity: DiskIdentity,
    /// What it is for.
    pub role: DiskRole,
}

/// What a plan means for one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct NodeReport {
    /// What is done with it.
    #[serde(flatten)]
    pub status: NodeStatus,
    /// What it waits on, beside the machine itself: a person who switches it on, an approval.
    pub waits_on: Vec<String>,
    /// The disks whose content is lost.
    pub destroys: Vec<DestroyedDisk>,
    /// Things worth knowing that stop nothing.
    pub notes: Vec<String>,
    /// What a person can do about it; never empty where the machine is left alone.
    pub next: Vec<String>,
}

/// What stands in a machine's way, and what to do about it: one isn't said without the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) why: String,
    pub(crate) next: String,
}

impl Block {
    pub(crate) fn new(why: impl Into<String>, next: impl Into<String>) -> Self {
        let (why, next) = (why.into(), next.into());
        Self { why, next }
    }
}

impl NodeReport {
    pub(crate) fn new(status: NodeStatus) -> Self {
        Self {
            status,
            waits_on: Vec::new(),
            destroys: Vec::new(),
            notes: Vec::new(),
            next: Vec::new(),
        }
    }

    /// Of a machine that is left alone, with what to do about it.
    pub(crate) fn with_next(status: NodeStatus, next: impl Into<String>) -> Self {
        let mut report = Self::new(status);
        report.next.push(next.into());
        report
    }

    /// Of a machine that can't be planned. What is to be done about several things is said once.
    pub(crate) fn blocked(blocks: Vec<Block>) -> Self {
        let mut next: Vec<String> = Vec::new();
        let mut reasons = Vec::new();
        for block in blocks {
            reasons.push(block.why);
            if !next.contains(&block.next) {
                next.push(block.next);
            }
        }
        let mut report = Self::new(NodeStatus::Blocked { reasons });
        report.next = next;
        report
    }
}

/// The machines, counted by what is done with them.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema,
)]
pub struct PlanSummary {
    /// Those that are installed.
    pub install: usize,
    /// Those that are wiped and installed anew.
    pub reinstall: usize,
    /// Those that run what they should and only take their part in the cluster.
    pub join: usize,
    /// Those that run what they should, which is proved and written down.
    #[serde(default)]
    pub adopt: usize,
    /// Those that run what they should.
    pub converged: usize,
    /// Those that are updated.
    #[serde(default)]
    pub update: usize,
    /// Those that are to be updated by a later plan.
    #[serde(default)]
    pub update_later: usize,
    /// Those that are opened for pods again.
    #[serde(default)]
    pub release: usize,
    /// Those that run something else, and are left alone.
    pub differs: usize,
    /// Those that don't answer.
    pub unreachable: usize,
    /// Those in whose place something else answers.
    pub quarantined: usize,
    /// Those that can't be planned.
    pub blocked: usize,
    /// Those that were not asked for.
    pub left_out: usize,
}

/// What a plan means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PlanReport {
    /// The plan.
    pub plan: PlanId,
    /// The machines, without those that were not asked for.
    pub nodes: BTreeMap<NodeName, NodeReport>,
    /// Names that were asked for and that the inventory doesn't have.
    pub unknown: Vec<NodeName>,
    /// The machines, counted.
    pub summary: PlanSummary,
    /// How long the plan takes when nothing goes wrong, in milliseconds. It is a guess from typical
    /// times; see [`crate::estimate`].
    pub estimate_ms: u64,
}

impl PlanReport {
    /// Whether every machine that was asked for runs what it should.
    pub fn is_converged(&self) -> bool {
        self.unknown.is_empty()
            && self
                .nodes
                .values()
                .all(|node| node.status == NodeStatus::Converged)
    }
}

impl PlanSummary {
    pub(crate) fn count(&mut self, status: &NodeStatus) {
        let field = match status {
            NodeStatus::Install => &mut self.install,
            NodeStatus::Reinstall => &mut self.reinstall,
            NodeStatus::Join => &mut self.join,
            NodeStatus::Adopt => &mut self.adopt,
            NodeStatus::Converged => &mut self.converged,
            NodeStatus::Update { .. } => &mut self.update,
            NodeStatus::UpdateLater { .. } => &mut self.update_later,
            NodeStatus::Release => &mut self.release,
            NodeStatus::Differs { .. } => &mut self.differs,
            NodeStatus::Unreachable { .. } => &mut self.unreachable,
            NodeStatus::Quarantined { .. } => &mut self.quarantined,
            NodeStatus::Blocked { .. } => &mut self.blocked,
        };
        *field += 1;
    }
}
