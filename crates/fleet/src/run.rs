//! Carrying a plan out on real machines: the engine, the journal, the world and the boot servers,
//! joined.
//!
//! ```text
//! Fleet::open ─▶ prepare (keys, systems) ─▶ observe ─▶ plan ─▶ carry_out ─▶ Finished
//! ```
//!
//! Everything may be stopped at any moment: the journal is durable before anything is done, and
//! the next run goes on from it.

use std::{sync::Arc, time::Duration};
use undercroft_model::advice::{Advice, ErrorKind, FileFailure};

use tokio::{
    sync::{broadcast, mpsc, watch},
    time::Instant,
};
use undercroft_engine::{Driver, Engine, EngineFault, Event, JournalError};
use undercroft_model::{Entry, NodeName, OpId, Outcome, RunEnd, view::FleetView};
use undercroft_netboot::{EventKind, Netboot, NetbootError, NetbootEvent};

use crate::{
    boot_log::{BootLog, Kept},
    disk_keys::{DiskKeyError, disk_keys},
    fleet::{Fleet, Prepared},
    netboot::{BootError, BootServers, start_servers, table},
};
use undercroft_journal::{FleetJournal, StoreError};
use undercroft_metal::{
    power::PowerError,
    world::{ClusterParts, FacilitiesParts, MetalWorld, RealFacilities, WorldParts},
};
use undercroft_process::clock;
use undercroft_secrets::keys::KeyError;

/// How long a run may take to end after it was interrupted. The engine ends at once; the limit is
/// for a disk that hangs while the end is written to the journal.
pub const INTERRUPT_WAIT: Duration = Duration::from_secs(10);
/// The longest sleep between two ticks, when the engine names no deadline.
const IDLE_TICK: Duration = Duration::from_secs(60);

/// Why a run could not be begun or gone on with.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The boot servers could not be started.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The boot servers refused.
    #[error(transparent)]
    Netboot(#[from] NetbootError),
    /// A machine can't be switched.
    #[error(transparent)]
    Power(#[from] PowerError),
    /// A host key that a machine is to get can't be decrypted.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The key of a machine's encrypted disks can't be had.
    #[error(transparent)]
    DiskKey(#[from] DiskKeyError),
    /// The database can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal can't be written; what runs was called off.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The run did not end in time after it was interrupted.
    #[error("the run did not end within {} s of the interruption; run the same command again to go on", INTERRUPT_WAIT.as_secs())]
    NotEnding,
}

impl Advice for RunError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind(),
            _ => ErrorKind::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Boot(error) => error.hint(),
            Self::Power(error) => error.hint(),
            Self::Key(error) => error.hint(),
            Self::Store(error) => error.hint(),
            Self::DiskKey(error) => error.hint(),
            Self::Netboot(_) | Self::Journal(_) | Self::NotEnding => None,
        }
    }

    fn file(&self) -> Option<FileFailure<'_>> {
        match self {
            Self::Store(error) => error.file(),
            _ => None,
        }
    }
}

/// A run that has ended.
#[derive(Debug)]
pub struct Finished {
    /// How.
    pub end: RunEnd,
    /// Promises of the engine's own that it would have broken. Empty, or there is a bug.
    pub faults: Vec<EngineFault>,
    /// The journal, still locked by this process.
    pub journal: FleetJournal,
    /// Whether it was ended before its time because something else was decided ([`Run::wind_down`]).
    pub superseded: bool,
}

/// What a run is given.
pub struct Run<'a> {
    /// The fleet.
    pub fleet: &'a Fleet,
    /// Its keys and systems.
    pub prepared: Prepared,
    /// The engine, new or resumed.
    pub engine: Engine,
    /// The fleet's journal.
    pub journal: FleetJournal,
    /// What it says; it tells which machines boot their disks.
    pub view: &'a FleetView,
    /// The boot servers, where they run already; `None`: the run starts and stops its own.
    pub servers: Option<BootServers>,
    /// What the cluster's steps bring in, where the plan has some.
    pub cluster: ClusterParts,
    /// Set to true to interrupt.
    pub interrupt: watch::Receiver<bool>,
    /// Set to true where something else is wanted by now: nothing further is begun, what runs comes to its
    /// end, and then the run is over. `None`: nobody will.
    pub wind_down: Option<watch::Receiver<bool>>,
    /// Called whenever something has happened, and once a minute when nothing has: the run goes on.
    pub alive: Option<Alive>,
}

/// Takes a run's signs of life.
pub type Alive = Arc<dyn Fn() + Send + Sync>;

/// Carries a plan out until it is done, can't go on, or is interrupted. `observer` is shown every
/// entry of the journal when it is durable.
///
/// # Errors
/// When it can't be begun, or the journal can't be written.
pub async fn carry_out(
    run: Run<'_>,
    observer: impl FnMut(&Entry) + Send + 'static,
) -> Result<Finished, RunError> {
    let Run {
        fleet,
        prepared,
        engine,
        journal,
        view,
        servers,
        cluster,
        interrupt,
        wind_down,
        alive,
    } = run;
    let settings = fleet.settings();
    // Better now than when a disk is wiped already.
    for step in engine.plan().steps.iter().filter(|s| s.delivers_secrets) {
        prepared.host_keys.private(&step.node)?;
    }
    let encryption_keys = disk_keys(settings, engine.plan())?;
    let nodes: Vec<NodeName> = engine.plan().nodes.keys().cloned().collect();
    let plan = Arc::clone(engine.plan());
    let servers = match servers {
        Some(servers) => {
            let table = table(&settings.inventory, Some(&plan), Some(view))?;
            servers.netboot.set_table(table);
            servers
        }
        None => {
            let systems = plan.nodes.values().map(|node| node.system);
            let operator = &prepared.operator;
            start_servers(
                settings,
                operator,
                systems.collect(),
                Some(&plan),
                Some(view),
            )
            .await?
        }
    };
    let netboot = servers.netboot;
    let facilities = RealFacilities::new(FacilitiesParts {
        inventory: &settings.inventory,
        nodes: &nodes,
        rack_state_dir: settings.rack_state_dir.as_deref(),
        netboot: Arc::clone(&netboot),
    })
    .await?;
    let parts = WorldParts {
        facilities: Arc::new(facilities),
        host_keys: prepared.host_keys,
        operator: prepared.operator,
        stores: prepared.systems.stores,
        options: settings.options.clone(),
        cluster,
        encryption_keys,
        progress: Arc::clone(&settings.progress),
    };
    // What waited in a former run, or waits when this one ends, has nobody to wait for.
    let waiting = journal.store().second()?;
    waiting.clear_all_pending()?;
    let (world, outcomes) = MetalWorld::new(parts, &waiting)?;
    let events = netboot.events();
    let ended = Loop {
        driver: Driver::new(engine, journal).with_observer(observer),
        world,
        outcomes,
        events,
        interrupt,
        wind_down,
        alive,
        log: BootLog::default(),
        served: settings.inventory.nodes.keys().cloned().collect(),
    }
    .go()
    .await;
    waiting.clear_all_pending()?;
    // The world is gone with the loop, and with it the other owners of servers of its own.
    if let Ok(netboot) = Arc::try_unwrap(netboot) {
        Netboot::stop(netboot).await;
    }
    ended
}

struct Loop {
    driver: Driver<FleetJournal>,
    world: MetalWorld,
    outcomes: mpsc::UnboundedReceiver<(OpId, Outcome)>,
    events: broadcast::Receiver<NetbootEvent>,
    interrupt: watch::Receiver<bool>,
    wind_down: Option<watch::Receiver<bool>>,
    alive: Option<Alive>,
    log: BootLog,
    /// All machines that the boot servers serve.
    served: Vec<NodeName>,
}

impl Loop {
    async fn go(mut self) -> Result<Finished, RunError> {
        let mut end = self.handle(Event::Begin)?;
        let mut give_up: Option<Instant> = None;
        let mut interruptible = true;
        let mut superseded = false;
        loop {
            if let Some(end) = end {
                let faults = self.driver.engine().faults().to_vec();
                return Ok(Finished {
                    end,
                    faults,
                    journal: self.driver.into_journal(),
                    superseded,
                });
            }
            if give_up.is_some_and(|at| Instant::now() >= at) {
                return Err(RunError::NotEnding);
            }
            if let Some(alive) = &self.alive {
                alive();
            }
            let tick = self.next_tick(give_up);
            let event = tokio::select! {
                // What the operator asks comes first, then what has ended, so that a flood of
                // packets delays neither.
                biased;
                changed = self.interrupt.changed(), if interruptible => match changed {
                    Ok(()) if *self.interrupt.borrow_and_update() => {
                        give_up = Some(Instant::now() + INTERRUPT_WAIT);
                        superseded = false;
                        Some(Event::Interrupt)
                    }
                    Ok(()) => None,
                    // Nobody is left who could interrupt.
                    Err(_) => {
                        interruptible = false;
                        None
                    }
                },
                () = asked(&mut self.wind_down) => {
                    self.wind_down = None;
                    superseded = true;
                    Some(Event::WindDown)
                }
                Some((op, outcome)) = self.outcomes.recv() => Some(Event::Ended { op, outcome }),
                event = self.events.recv() => self.seen(event),
                () = tokio::time::sleep_until(tick) => Some(Event::Tick),
            };
            if let Some(event) = event {
                end = self.handle(event)?;
            }
        }
    }

    fn handle(&mut self, event: Event) -> Result<Option<RunEnd>, RunError> {
        Ok(self.driver.handle(clock::now(), event, &mut self.world)?)
    }

    fn next_tick(&self, give_up: Option<Instant>) -> Instant {
        let idle = Instant::now() + IDLE_TICK;
        let due = self.driver.next_deadline().map_or(idle, |mono_ms| {
            let wait = mono_ms.saturating_sub(clock::now().mono_ms);
            Instant::now() + Duration::from_millis(wait)
        });
        due.min(idle).min(give_up.unwrap_or(idle))
    }

    /// What the boot servers saw: all of it for the timelines, reports for the engine.
    fn seen(&mut self, event: Result<NetbootEvent, broadcast::error::RecvError>) -> Option<Event> {
        // An installer repeats its report, so that one that was missed comes again.
        let event = event.ok()?;
        let reported = match (&event.kind, event.node.clone()) {
            (EventKind::Report { report }, Some(node)) => Some((node, report.clone())),
            _ => None,
        };
        let new = reported.as_ref().is_none_or(|(node, report)| {
            self.world
                .reported(node, undercroft_model::InstallerReport::clone(report))
        });
        if new {
            for kept in self.log.keep(event, self.served.iter()) {
                match kept {
                    Kept::Row(node, row) => self.world.note(&node, &row),
                    Kept::Alarm(node, alarm) => self.world.note_alarm(node.as_ref(), &alarm),
                    Kept::UnknownMachine(stranger) => self.world.note_unknown_machine(&stranger),
                }
            }
        }
        reported.map(|(node, report)| Event::Reported { node, report })
    }
}

/// Comes back when that is set; never where nobody is left who could.
async fn asked(receiver: &mut Option<watch::Receiver<bool>>) {
    if let Some(receiver) = receiver
        && receiver.wait_for(|asked| *asked).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}
