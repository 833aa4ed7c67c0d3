//! Netboot and reconcile as a service: look, plan, carry out, and again.

use std::{collections::BTreeSet, time::Duration};

use tokio::sync::{broadcast, watch};
use undercroft_engine::{Engine, PlanRefused, ResumeError};
use undercroft_model::{Entry, NodeName, Observation, Plan, PlanId, RunEnd, view::FleetView};

use super::{
    BootServers, Finished, Fleet, FleetError, Run, RunError, carry_out, narrate::Narrator, tell,
    write_facts,
};
use crate::{journal::FleetJournal, world::ClusterParts};

/// Why a service has ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The fleet could not be made ready.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// A run could not be begun.
    #[error(transparent)]
    Run(#[from] RunError),
    /// What a plan's cluster needs can't be had.
    #[error(transparent)]
    Cluster(#[from] ClusterRefused),
    /// A plan was refused.
    #[error(transparent)]
    Refused(#[from] PlanRefused),
    /// The journal can't be gone on from.
    #[error(transparent)]
    Resume(#[from] ResumeError),
}

/// What a plan's cluster needs can't be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ClusterRefused {
    /// What is wrong.
    pub message: String,
    /// What to try.
    pub hint: Option<String>,
}

/// Starts the boot servers, looks at the fleet, plans, carries the plan out, and begins again after `interval`, until it is
/// interrupted. A plan that a former run has left unfinished is gone on with first.
///
/// `plan` is the planner; what it gives for a converged fleet is empty. `cluster` gives what the
/// steps of a plan's cluster bring in. `observer` is shown every entry of the journal.
///
/// # Errors
/// When the fleet can't be made ready, or a run can't be begun. That machines fail is no error.
pub async fn serve(
    fleet: &Fleet,
    mut journal: FleetJournal,
    interval: Duration,
    mut interrupt: watch::Receiver<bool>,
    mut plan: impl FnMut(&Observation, Option<&PlanId>) -> Plan,
    mut cluster: impl FnMut(&Plan) -> Result<ClusterParts, ClusterRefused>,
    observer: impl FnMut(&Entry) + Send + Clone + 'static,
) -> Result<RunEnd, ServeError> {
    let only: Option<&BTreeSet<NodeName>> = None;
    let (_, operator) = fleet.keys()?;
    let servers = BootServers::start(fleet, &operator)
        .await
        .map_err(RunError::from)?;
    loop {
        let entries = journal.load().map_err(FleetError::from)?;
        let view = FleetView::fold(&entries);
        let prepared = fleet.prepare(only).await?;
        let observation = fleet.observe(&prepared, &view).await?;
        let new = plan(&observation, view.plan_id.as_ref());
        let engine = if view.in_flight() {
            Some(Engine::resume(&entries)?)
        } else if new.is_empty() {
            None
        } else {
            Some(Engine::new(new)?.numbered_from(view.next_op()))
        };
        match engine {
            None => tell(fleet.settings(), "everything is as it should be"),
            Some(engine) => {
                let cluster = cluster(engine.plan())?;
                let run = Run {
                    fleet,
                    prepared,
                    engine,
                    journal,
                    view: &view,
                    servers: Some(servers.clone()),
                    cluster,
                    interrupt: interrupt.clone(),
                };
                let Finished {
                    end, journal: back, ..
                } = carry_out(run, observer.clone()).await?;
                journal = back;
                let entries = journal.load().map_err(FleetError::from)?;
                write_facts(&fleet.settings().repository, &FleetView::fold(&entries))
                    .map_err(FleetError::from)?;
                if end == RunEnd::Interrupted {
                    return Ok(end);
                }
            }
        }
        if idle(&servers, &journal, interval, &mut interrupt).await {
            return Ok(RunEnd::Interrupted);
        }
    }
}

/// Waits between two runs, and keeps what the boot servers see meanwhile for `undercroft doctor`.
/// Whether an interruption is asked for.
async fn idle(
    servers: &BootServers,
    journal: &FleetJournal,
    interval: Duration,
    interrupt: &mut watch::Receiver<bool>,
) -> bool {
    let mut events = servers.netboot.events();
    let mut narrator = Narrator::default();
    let until = tokio::time::Instant::now() + interval;
    loop {
        let event = tokio::select! {
            biased;
            () = interrupted(interrupt) => return true,
            () = tokio::time::sleep_until(until) => return false,
            event = events.recv() => event,
        };
        match event {
            // Timelines are a help for people: that one can't be written stops nothing.
            Ok(event) => match event.node.clone() {
                Some(node) => {
                    if let Some(row) = narrator.row(&node, event) {
                        let _ = journal.store().note(&node, &row);
                    }
                }
                None => {
                    if let Some(stranger) = narrator.stranger(event) {
                        let _ = journal.store().note_stranger(&stranger);
                    }
                }
            },
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => {
                tokio::time::sleep_until(until).await;
                return false;
            }
        }
    }
}

/// Waits until an interruption is asked for; for ever where nobody can ask any longer.
async fn interrupted(interrupt: &mut watch::Receiver<bool>) {
    if interrupt.wait_for(|asked| *asked).await.is_err() {
        std::future::pending::<()>().await;
    }
}
