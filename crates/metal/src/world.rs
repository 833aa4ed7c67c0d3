//! The real world: each action of a plan carried out on a real (or a rack's) machine, and each of
//! its probes.
//!
//! An operation is a task that ends with exactly one outcome, or is called off and gives none.
//! Calling it off kills the programs that it runs here; what runs on a machine may outlive its
//! connection, so every command there first waits until the one before it has ended, and refuses
//! to run in another boot than the one that was approved.
//!
//! The kind of a failure decides how the engine goes on, so each way of failing is mapped with
//! care: nothing is called transient that may have happened, and nothing is tried again on a
//! machine that isn't the one that was meant.

mod answer;
mod approve;
mod boot;
mod cluster;
mod copy;
mod installed;
mod installer;
mod nixlog;
mod options;
mod reports;
mod room;

use std::{
    borrow::Cow,
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{sync::mpsc, task::AbortHandle};
use undercroft_engine::{Order, World};
use undercroft_model::{
    Action, Evidence, Failure, FailureKind, InstallerReport, NodeName, NodePlan, OpId, Outcome,
    Step, Work,
};
use undercroft_netboot::timeline::MarkKind;

pub use self::{
    cluster::{BootstrapItem, ClusterParts, SecretSource},
    options::{DiskKey, InstallOptions, OptionError, Phase},
    room::{Facilities, Pending, Room, RoomParts},
};
pub(crate) use self::{
    cluster::{Machine, part_health},
    installed::look_at_installed,
    reports::ReportBoard,
};
use undercroft_build::system::NixStore;
use undercroft_journal::{Alarm, Store, StoreError, TimelineRow, TimelineSource, UnknownMachine};
use undercroft_process::clock::wall_ms_now;
use undercroft_secrets::keys::{HostKeys, OperatorKey};

/// Gives the key of a machine's encrypted disks, without a newline at its end.
pub type EncryptionKeySource =
    Arc<dyn Fn(&NodeName) -> Result<secrecy::SecretString, Failure> + Send + Sync>;

/// What a run tells people while it works. Nothing is decided by it, and losing some is no harm.
#[derive(
    Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case", tag = "progress")]
pub enum Progress {
    /// Bytes under way to a machine.
    Bytes {
        /// The machine.
        node: NodeName,
        /// The step, as [`Action::verb`] names it.
        phase: Cow<'static, str>,
        /// How many bytes have arrived.
        done_bytes: u64,
        /// How many there are, where known.
        total_bytes: Option<u64>,
        /// The rate of the last seconds, in bytes a second.
        bytes_per_s: u64,
        /// The time left at that rate, in seconds, where it can be told.
        left_s: Option<u64>,
    },
    /// A line for people.
    Line {
        /// The machine that it is about, if it is about one.
        node: Option<NodeName>,
        /// The line.
        text: String,
    },
    /// A machine waits for `undercroft approve`.
    WaitsForApproval {
        /// The machine.
        node: NodeName,
        /// The fingerprint that it reported.
        fingerprint: String,
    },
}

/// Where progress goes.
pub type ProgressSink = Arc<dyn Fn(Progress) + Send + Sync>;

/// Everything that operations share.
pub struct WorldParts {
    /// Power, consoles and boot servers.
    pub room: Arc<dyn Facilities>,
    /// The machines' host keys.
    pub host_keys: HostKeys,
    /// The key to log in with.
    pub operator: OperatorKey,
    /// Where each machine's system was built.
    pub stores: BTreeMap<NodeName, NixStore>,
    /// How to install.
    pub options: InstallOptions,
    /// What the cluster's steps bring in.
    pub cluster: ClusterParts,
    /// Gives the key of a machine's encrypted disks; `None`: the command line names it.
    pub encryption_keys: Option<EncryptionKeySource>,
    /// Where progress goes.
    pub progress: ProgressSink,
}

pub(crate) struct Shared {
    parts: WorldParts,
    store: Mutex<Store>,
    cluster_access: cluster::KnownAccess,
    pub(crate) reports: ReportBoard,
}

/// The world of real machines.
pub struct MetalWorld {
    shared: Arc<Shared>,
    running: BTreeMap<OpId, AbortHandle>,
    // One message per operation in flight, and the plan bounds those.
    outcomes: mpsc::UnboundedSender<(OpId, Outcome)>,
}

impl MetalWorld {
    /// A world, and where its outcomes come out. Must be used within a tokio runtime. `store` is
    /// the fleet's database, for approvals and timelines.
    ///
    /// # Errors
    /// When the database can't be opened again.
    pub fn new(
        parts: WorldParts,
        store: &Store,
    ) -> Result<(Self, mpsc::UnboundedReceiver<(OpId, Outcome)>), StoreError> {
        let store = store.second()?;
        let (outcomes, receiver) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            parts,
            store: Mutex::new(store),
            cluster_access: cluster::KnownAccess::default(),
            reports: ReportBoard::default(),
        });
        let world = Self {
            shared,
            running: BTreeMap::new(),
            outcomes,
        };
        Ok((world, receiver))
    }

    /// Takes an installer's report in. Gives whether it is one that wasn't seen before.
    pub fn reported(&self, node: &NodeName, report: InstallerReport) -> bool {
        self.shared.reports.put(node, report)
    }

    /// Adds a row to a machine's timeline.
    pub fn note(&self, node: &NodeName, row: &TimelineRow) {
        self.shared.keep(node, row);
    }

    /// Remembers what somebody does on the boot network.
    pub fn note_alarm(&self, node: Option<&NodeName>, alarm: &Alarm) {
        // As with timelines: a help for people.
        let _ = self.shared.store().note_alarm(node, alarm);
    }

    /// Remembers a machine that the inventory doesn't know.
    pub fn note_unknown_machine(&self, stranger: &UnknownMachine) {
        // As with timelines: a help for people.
        let _ = self.shared.store().note_unknown_machine(stranger);
    }
}

impl World for MetalWorld {
    fn start(&mut self, order: Order) {
        self.running.retain(|_, task| !task.is_finished());
        let op = order.op;
        let shared = Arc::clone(&self.shared);
        let work = tokio::spawn(async move { carry_out(&shared, order).await });
        self.running.insert(op, work.abort_handle());
        let outcomes = self.outcomes.clone();
        tokio::spawn(async move {
            let outcome = match work.await {
                Ok(outcome) => outcome,
                // It was called off, and nobody waits for its outcome.
                Err(e) if e.is_cancelled() => return,
                Err(_) => Outcome::Failed {
                    failure: Failure::new(
                        FailureKind::Ambiguous,
                        "the operation stopped because of a fault in Undercroft itself",
                    ),
                },
            };
            // Without a receiver the run is over.
            let _ = outcomes.send((op, outcome));
        });
    }

    fn cancel(&mut self, op: OpId) {
        if let Some(task) = self.running.remove(&op) {
            task.abort();
        }
    }
}

impl Drop for MetalWorld {
    fn drop(&mut self) {
        for task in self.running.values() {
            task.abort();
        }
    }
}

impl Shared {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note(&self, node: &NodeName, source: TimelineSource, text: impl Into<String>) {
        self.keep(node, &TimelineRow::new(wall_ms_now(), source, text));
    }

    fn mark(&self, node: &NodeName, source: TimelineSource, kind: MarkKind, text: &str) {
        let row = TimelineRow::new(wall_ms_now(), source, text).with_mark(kind);
        self.keep(node, &row);
    }

    fn keep(&self, node: &NodeName, row: &TimelineRow) {
        // The timeline is a help for people; work goes on without it.
        let _ = self.store().note(node, row);
    }

    fn tell(&self, progress: Progress) {
        (self.parts.progress)(progress);
    }

    fn line(&self, node: &NodeName, text: impl Into<String>) {
        self.tell(Progress::Line {
            node: Some(node.clone()),
            text: text.into(),
        });
    }
}

/// Why an operation ended without evidence.
#[derive(Debug)]
enum Stop {
    /// A probe has found that it isn't done.
    NotDone,
    /// It failed.
    Failed(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Stop {
    fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self::Failed(Failure::new(kind, message))
    }
}

/// One operation under way.
struct Job<'a> {
    shared: &'a Shared,
    order: &'a Order,
    step: &'a Step,
    node: &'a NodePlan,
    started: Instant,
}

impl Job<'_> {
    fn name(&self) -> &NodeName {
        &self.order.node
    }

    fn address(&self) -> Ipv4Addr {
        self.node.address
    }

    /// The time that is left of the step's limit. The engine calls the operation off when it is
    /// over; commands are given the same limit so that they end first, with their output.
    fn left(&self) -> Duration {
        Duration::from_millis(self.order.timeout_ms).saturating_sub(self.started.elapsed())
    }

    fn note(&self, source: TimelineSource, text: impl Into<String>) {
        self.shared.note(self.name(), source, text);
    }

    fn mark(&self, source: TimelineSource, kind: MarkKind, text: &str) {
        self.shared.mark(self.name(), source, kind, text);
    }
}

async fn carry_out(shared: &Shared, order: Order) -> Outcome {
    let Some((step, node)) = order
        .planned()
        .and_then(|step| Some((step, order.plan.nodes.get(&order.node)?)))
    else {
        return Outcome::Failed {
            failure: Failure::new(FailureKind::Permanent, "the plan has no such step"),
        };
    };
    let job = Job {
        shared,
        order: &order,
        step,
        node,
        started: Instant::now(),
    };
    let what = match order.work {
        Work::Act => format!("{}: try {} begins", step.action.verb(), order.attempt),
        Work::Probe => format!("{}: looking whether it is done", step.action.verb()),
    };
    job.note(TimelineSource::Controller, what);
    let done = match (&step.action, order.work) {
        (Action::NetworkBoot, Work::Act) => boot::act(&job).await,
        (Action::NetworkBoot, Work::Probe) => boot::probe(&job).await,
        (Action::Approve { mode, expires_ms }, work) => {
            approve::wait(&job, *mode, *expires_ms, work).await
        }
        (
            Action::Reboot {
                host_key_fingerprint,
            },
            Work::Probe,
        ) => installed::probe_reboot(&job, host_key_fingerprint).await,
        (
            Action::Inspect { .. }
            | Action::Partition { .. }
            | Action::CopyClosure { .. }
            | Action::Install { .. }
            | Action::Reboot { .. },
            _,
        ) => answer::carry_out(&job).await,
        (
            Action::Prove {
                toplevel,
                host_key_fingerprint,
            },
            _,
        ) => installed::prove(&job, toplevel, host_key_fingerprint).await,
        (
            Action::FoundCluster
            | Action::JoinCluster { .. }
            | Action::AwaitReady { .. }
            | Action::Bootstrap { .. },
            work,
        ) => Box::pin(cluster::carry_out(&job, work)).await,
    };
    let (outcome, said) = concluded(step.action.verb(), done);
    job.note(TimelineSource::Controller, said);
    outcome
}

/// What an operation comes to, and what is said of it.
fn concluded(verb: &str, done: Done) -> (Outcome, String) {
    match done {
        Ok(evidence) => (Outcome::Done { evidence }, format!("{verb}: done")),
        Err(Stop::NotDone) => (Outcome::NotDone, format!("{verb}: not done yet")),
        Err(Stop::Failed(failure)) => {
            let said = format!("{verb}: {}", failure.message);
            (Outcome::Failed { failure }, said)
        }
    }
}

type Done = Result<Evidence, Stop>;
