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
mod claim;
mod cluster;
mod copy;
mod facilities;
mod host_key;
mod installed;
mod installer;
mod job;
mod nixlog;
mod options;
mod progress;
mod reports;
mod update;

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use tokio::{sync::mpsc, task::AbortHandle};
use undercroft_engine::{Order, World};
use undercroft_model::{
    Action, Failure, FailureKind, InstallerReport, NodeName, OpId, Outcome, Work,
};

use self::job::{Done, Job, Shared, Stop};
pub use self::{
    cluster::{BootstrapItem, ClusterParts, SecretSource},
    facilities::{Facilities, FacilitiesParts, Pending, RealFacilities},
    job::{EncryptionKeySource, WorldParts},
    options::{DiskKey, InstallOptions, InstallPhase, OptionError},
    progress::{ProgressSink, RunProgress},
};
pub(crate) use self::{
    cluster::{Machine, part_health},
    installed::look_at_installed,
};
use undercroft_journal::{Alarm, Store, StoreError, TimelineRow, TimelineSource, UnknownMachine};

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
        let shared = Arc::new(Shared::new(parts, store));
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
    pub fn note_unknown_machine(&self, machine: &UnknownMachine) {
        // As with timelines: a help for people.
        let _ = self.shared.store().note_unknown_machine(machine);
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
    let done = by_its_kind(&job).await;
    let (outcome, said) = concluded(step.action.verb(), done);
    job.note(TimelineSource::Controller, said);
    outcome
}

/// Does what the step's action is.
async fn by_its_kind(job: &Job<'_>) -> Done {
    match (&job.step.action, job.order.work) {
        (Action::NetworkBoot, Work::Act) => boot::act(job).await,
        (Action::NetworkBoot, Work::Probe) => boot::probe(job).await,
        (Action::Approve { mode, expires_ms }, work) => {
            approve::wait(job, *mode, *expires_ms, work).await
        }
        (
            Action::Reboot {
                host_key_fingerprint,
            },
            Work::Probe,
        ) => installed::probe_reboot(job, host_key_fingerprint).await,
        (
            Action::Inspect { .. }
            | Action::Partition { .. }
            | Action::CopyClosure { .. }
            | Action::Install { .. }
            | Action::Reboot { .. },
            _,
        ) => answer::carry_out(job).await,
        (
            Action::Fetch {
                host_key_fingerprint,
                ..
            }
            | Action::Stage {
                host_key_fingerprint,
                ..
            }
            | Action::Restart {
                host_key_fingerprint,
            }
            | Action::Confirm {
                host_key_fingerprint,
                ..
            },
            _,
        ) => Box::pin(update::carry_out(job, host_key_fingerprint)).await,
        (
            Action::Prove {
                toplevel,
                host_key_fingerprint,
            },
            _,
        ) => installed::prove(job, toplevel, host_key_fingerprint).await,
        (
            Action::FoundCluster
            | Action::JoinCluster { .. }
            | Action::AwaitReady { .. }
            | Action::Bootstrap { .. }
            | Action::Drain
            | Action::Release,
            work,
        ) => Box::pin(cluster::carry_out(job, work)).await,
    }
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
