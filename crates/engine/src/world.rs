//! The seams: what the engine asks of a world and of a journal, and what comes back.

use std::sync::Arc;

use undercroft_model::{
    Entry, InstallerReport, NodeFacts, NodeName, OpId, Outcome, Plan, Record, RunEnd, Step, StepId,
    Work,
};

/// An order to start one operation.
#[derive(Debug, Clone)]
pub struct Order {
    /// The operation; every outcome names it.
    pub op: OpId,
    /// The plan.
    pub plan: Arc<Plan>,
    /// The step, an index into the plan.
    pub step: StepId,
    /// The machine.
    pub node: NodeName,
    /// Which half of the step.
    pub work: Work,
    /// The try that this is, from 1.
    pub attempt: u32,
    /// The time after which the engine cancels it, in milliseconds from its start.
    pub timeout_ms: u64,
    /// What is known of the machine.
    pub facts: Arc<NodeFacts>,
    /// For the step that founds the cluster: the other servers that may hold a part of one, as they have joined, or
    /// have once begun to, by this plan or before it.
    pub members: Vec<NodeName>,
}

impl Order {
    /// The step itself.
    pub fn planned(&self) -> Option<&Step> {
        self.plan.step(self.step)
    }
}

/// What can happen to an engine.
#[derive(Debug, Clone)]
pub enum Event {
    /// Begin, or go on after a restart. Sent once, first.
    Begin,
    /// An operation ended.
    Ended {
        /// The operation.
        op: OpId,
        /// How.
        outcome: Outcome,
    },
    /// An installer reported in, whether a step waits for it or not.
    Reported {
        /// The machine whose UUID or Ethernet address it has.
        node: NodeName,
        /// The report.
        report: Box<InstallerReport>,
    },
    /// The operator asks to stop: start nothing further, cancel what runs, end the run.
    Interrupt,
    /// Something was decided that this plan doesn't know of: start nothing further, let what runs come to its
    /// end, and end the run then. Who only waits for an approval is called off, since that may take hours.
    WindDown,
    /// Time has passed.
    Tick,
}

/// What an engine wants done, in this order.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Make this record durable before any effect that follows it.
    Journal(Record),
    /// Start an operation.
    Start(Box<Order>),
    /// Call an operation off. Its outcome, if one still comes, is ignored.
    Cancel(OpId),
    /// There is nothing left to do; the run is over.
    Finished(RunEnd),
}

/// Where operations are carried out.
pub trait World {
    /// Starts an operation and returns at once. Its outcome comes back as [`Event::Ended`].
    fn start(&mut self, order: Order);

    /// Calls an operation off. One that has ended, or was never started, is ignored.
    fn cancel(&mut self, op: OpId);
}

/// Why a journal could not take or give records.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// The records could not be made durable. Nothing may be started.
    #[error("the journal can't be written: {0}")]
    Write(String),
    /// What is there can't be read as a journal.
    #[error("the journal can't be read: {0}")]
    Read(String),
}

/// Where records are kept.
pub trait Journal {
    /// Appends records, all or none, and returns their entries when they are durable.
    ///
    /// # Errors
    /// When they could not be made durable; then none of them was kept.
    fn append(&mut self, wall_ms: u64, records: Vec<Record>) -> Result<Vec<Entry>, JournalError>;
}
