//! An operation under way: what it works with, and what it ends with.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use undercroft_engine::Order;
use undercroft_model::{Evidence, Failure, FailureKind, NodeName, NodePlan, Step};
use undercroft_netboot::timeline::MarkKind;

use super::{
    cluster::{ClusterParts, KnownAccess},
    facilities::Facilities,
    options::InstallOptions,
    progress::{ProgressSink, RunProgress},
    reports::ReportBoard,
};
use undercroft_build::system::NixStore;
use undercroft_journal::{Store, TimelineRow, TimelineSource};
use undercroft_process::clock::wall_ms_now;
use undercroft_secrets::keys::{HostKeys, OperatorKey};

/// Gives the key of a machine's encrypted disks, without a newline at its end.
pub type EncryptionKeySource =
    Arc<dyn Fn(&NodeName) -> Result<secrecy::SecretString, Failure> + Send + Sync>;

/// Everything that operations share.
pub struct WorldParts {
    /// Power, consoles and boot servers.
    pub facilities: Arc<dyn Facilities>,
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

/// What the operations of a run share while they work.
pub(super) struct Shared {
    pub(super) parts: WorldParts,
    store: Mutex<Store>,
    pub(super) cluster_access: KnownAccess,
    pub(super) reports: ReportBoard,
}

impl Shared {
    /// `store` is the fleet's database, for approvals and timelines.
    pub(super) fn new(parts: WorldParts, store: Store) -> Self {
        Self {
            parts,
            store: Mutex::new(store),
            cluster_access: KnownAccess::default(),
            reports: ReportBoard::default(),
        }
    }

    pub(super) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note(&self, node: &NodeName, source: TimelineSource, text: impl Into<String>) {
        self.keep(node, &TimelineRow::new(wall_ms_now(), source, text));
    }

    pub(super) fn mark(&self, node: &NodeName, source: TimelineSource, kind: MarkKind, text: &str) {
        let row = TimelineRow::new(wall_ms_now(), source, text).with_mark(kind);
        self.keep(node, &row);
    }

    pub(super) fn keep(&self, node: &NodeName, row: &TimelineRow) {
        // The timeline is a help for people; work goes on without it.
        let _ = self.store().note(node, row);
    }

    pub(super) fn tell(&self, progress: RunProgress) {
        (self.parts.progress)(progress);
    }

    pub(super) fn line(&self, node: &NodeName, text: impl Into<String>) {
        self.tell(RunProgress::Line {
            node: Some(node.clone()),
            text: text.into(),
        });
    }
}

/// What an operation ends with.
pub(super) type Done = Result<Evidence, Stop>;

/// Why an operation ended without evidence.
#[derive(Debug)]
pub(super) enum Stop {
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
    pub(super) fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self::Failed(Failure::new(kind, message))
    }
}

/// One operation under way.
pub(super) struct Job<'a> {
    pub(super) shared: &'a Shared,
    pub(super) order: &'a Order,
    pub(super) step: &'a Step,
    pub(super) node: &'a NodePlan,
    pub(super) started: Instant,
}

impl Job<'_> {
    pub(super) fn name(&self) -> &NodeName {
        &self.order.node
    }

    pub(super) fn address(&self) -> Ipv4Addr {
        self.node.address
    }

    /// The time that is left of the step's limit. The engine calls the operation off when it is
    /// over; commands are given the same limit so that they end first, with their output.
    pub(super) fn left(&self) -> Duration {
        Duration::from_millis(self.order.timeout_ms).saturating_sub(self.started.elapsed())
    }

    /// The time since the operation was started, in milliseconds.
    pub(super) fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn note(&self, source: TimelineSource, text: impl Into<String>) {
        self.shared.note(self.name(), source, text);
    }

    pub(super) fn mark(&self, source: TimelineSource, kind: MarkKind, text: &str) {
        self.shared.mark(self.name(), source, kind, text);
    }
}
