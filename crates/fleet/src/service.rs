//! Netboot and reconcile as a service, with the real fleet.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use tokio::{sync::watch, task::JoinSet, time::Instant};
use undercroft_engine::Engine;
use undercroft_model::{
    Entry, NodeName, Observation, SystemTarget, advice::Advice, inventory::Inventory,
    view::FleetView,
};
use undercroft_netboot::Netboot;
use undercroft_planner::{Rounds, Scope, drift::DriftReport};

use crate::{
    between::{Between, interrupted},
    cluster::ClusterError,
    facts::write_facts,
    fleet::{Fleet, FleetError, Prepared},
    netboot::BootServers,
    notify::Notifier,
    numbers,
    run::{Alive, Finished, Run, RunError, carry_out},
    serve::{Hands, Left, ServeError, Served, Serving, is_another},
    standing::Board,
    systems::KeptSystems,
    webhook::Webhook,
};
use undercroft_journal::FleetJournal;
use undercroft_metal::world::RunProgress;

/// How often the inventory is looked at while a plan is carried out.
const INVENTORY_POLL: Duration = Duration::from_secs(5);
/// How many times as long as a look at the inventory takes the rest after it is at least: an inventory of many
/// machines is read for a while, and the run shall not wait for that.
const INVENTORY_REST_FACTOR: u32 = 20;

/// Something that can't be had or done now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// What is wrong.
    pub message: String,
    /// What to try.
    pub hint: Option<String>,
}

impl Refused {
    /// Both in one line.
    pub fn sentence(&self) -> String {
        match &self.hint {
            Some(hint) => format!("{} ({hint})", self.message),
            None => self.message.clone(),
        }
    }
}

impl<E: Advice> From<&E> for Refused {
    fn from(error: &E) -> Self {
        Self {
            message: error.to_string(),
            hint: error.hint(),
        }
    }
}

impl From<FleetError> for Left {
    fn from(error: FleetError) -> Self {
        match error {
            FleetError::Store(error) => error.into(),
            other => Self::Refused((&other).into()),
        }
    }
}

impl From<ClusterError> for Left {
    fn from(error: ClusterError) -> Self {
        let mut refused = Refused::from(&error);
        // Nobody sees them beside it.
        for problem in error.problems() {
            refused.message.push_str(&format!("; {problem}"));
        }
        Self::Refused(refused)
    }
}

impl From<RunError> for Left {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Store(error) => error.into(),
            other => Self::Refused((&other).into()),
        }
    }
}

/// What is wanted now.
#[derive(Debug)]
pub struct Intent {
    /// The fleet with the inventory as it stands.
    pub fleet: Fleet,
    /// The machines that are asked for; `None` for all.
    pub only: Option<BTreeSet<NodeName>>,
}

/// What a service is given.
pub struct Service<I, O> {
    /// How long to rest between two rounds.
    pub interval: Duration,
    /// What is asked for, beside the machines.
    pub scope: Scope,
    /// Reads the inventory. It is asked in each round.
    pub intent: I,
    /// Shown every entry of the journal.
    pub observer: O,
    /// Set to true to end.
    pub interrupt: watch::Receiver<bool>,
    /// Who supervises it, where somebody does.
    pub notifier: Option<Notifier>,
    /// Where it gives its numbers; without it, where the inventory says at the start.
    pub metrics: Option<SocketAddr>,
    /// Who is told when what it waits for changes.
    pub webhook: Option<Webhook>,
}

impl<I, O> std::fmt::Debug for Service<I, O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service")
            .field("interval", &self.interval)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

/// Reads the inventory, looks at the fleet, decides, carries the plan out, and begins again after the
/// interval, until it is interrupted. What fails is said and tried again after longer and longer rests.
///
/// # Errors
/// When the journal can't be believed.
pub async fn serve<I, O>(
    fleet: Fleet,
    journal: FleetJournal,
    service: Service<I, O>,
) -> Result<Served, ServeError>
where
    I: FnMut() -> Result<Intent, Refused>,
    O: FnMut(&Entry) + Send + Clone + 'static,
{
    let Service {
        interval,
        scope,
        intent,
        observer,
        interrupt,
        notifier,
        metrics,
        webhook,
    } = service;
    let board = Arc::new(Board::default());
    let mut beside = JoinSet::new();
    let notifier = notifier.map(Arc::new);
    if let Some(notifier) = &notifier {
        // Nothing that fails from here on ends it.
        notifier.ready();
        beside.spawn(Arc::clone(notifier).tell(Arc::clone(&board), interrupt.clone()));
    }
    let settings = fleet.settings();
    let progress = Arc::clone(&settings.progress);
    let say = move |text: &str| {
        progress(RunProgress::Line {
            node: None,
            text: text.to_owned(),
        });
    };
    if let Some(at) = metrics.or_else(|| metrics_address(&settings.inventory)) {
        beside.spawn(numbers::give(at, Arc::clone(&board), say.clone()));
    }
    if let Some(webhook) = webhook {
        let name = settings.inventory.fleet.name.clone();
        beside.spawn(webhook.tell(name, Arc::clone(&board), say));
    }
    let nodes = settings.inventory.nodes.keys().cloned().collect();
    let hands = RealHands {
        fleet,
        only: None,
        kept: KeptSystems::default(),
        watch: Watch {
            nodes,
            servers: None,
            interrupt,
        },
        started: Instant::now(),
        intent,
        observer,
        board: Arc::clone(&board),
    };
    let interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
    let mut serving = Serving::new(hands, interval_ms, scope, journal, board);
    let served = serving.go().await;
    if let Some(notifier) = &notifier {
        notifier.stopping();
    }
    served
}

/// Where the inventory says that numbers are given.
fn metrics_address(inventory: &Inventory) -> Option<SocketAddr> {
    let network = &inventory.network;
    let port = network.metrics_port?;
    Some(SocketAddr::from((network.server_address, port)))
}

/// Does some work, looks beside it whether something else is wanted by now, and tells that once.
async fn until_another<T>(
    work: impl Future<Output = T>,
    poll: Duration,
    mut is_other: impl FnMut() -> bool,
    tell: &watch::Sender<bool>,
) -> T {
    let mut work = std::pin::pin!(work);
    let mut rest = poll;
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = tokio::time::sleep(rest), if !*tell.borrow() => {
                let began = Instant::now();
                if is_other() {
                    tell.send_replace(true);
                }
                rest = poll.max(began.elapsed() * INVENTORY_REST_FACTOR);
            }
        }
    }
}

struct RealHands<I, O> {
    fleet: Fleet,
    only: Option<BTreeSet<NodeName>>,
    kept: KeptSystems,
    watch: Watch,
    started: Instant,
    intent: I,
    observer: O,
    board: Arc<Board>,
}

/// What goes on beside all work: the boot servers, and whether somebody wants an end.
struct Watch {
    nodes: Vec<NodeName>,
    servers: Option<BootServers>,
    interrupt: watch::Receiver<bool>,
}

impl Watch {
    /// Does some work while what the boot servers see is kept; `None` where an end was asked for before it was done.
    async fn beside<T>(
        &mut self,
        journal: Option<&FleetJournal>,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let interrupt = &mut self.interrupt;
        match (&self.servers, journal) {
            (Some(servers), Some(journal)) => {
                let events = servers.netboot.events();
                Between::new(events, &self.nodes, interrupt)
                    .during(journal, work)
                    .await
            }
            _ => tokio::select! {
                biased;
                () = interrupted(interrupt) => None,
                done = work => Some(done),
            },
        }
    }

    async fn stop_servers(&mut self) {
        if let Some(servers) = self.servers.take()
            && let Ok(netboot) = Arc::try_unwrap(servers.netboot)
        {
            Netboot::stop(netboot).await;
        }
    }
}

impl<I, O> RealHands<I, O> {
    /// What takes the signs of life of long work.
    fn alive(&self) -> Alive {
        let board = Arc::clone(&self.board);
        Arc::new(move || board.pulse.beat())
    }

    /// The fleet, of which each line that is told is a sign of life.
    fn told(&self) -> Fleet {
        let (alive, progress) = (self.alive(), Arc::clone(&self.fleet.settings().progress));
        self.fleet.telling(Arc::new(move |told| {
            alive();
            progress(told);
        }))
    }
}

impl<I, O> Hands for RealHands<I, O>
where
    I: FnMut() -> Result<Intent, Refused>,
    O: FnMut(&Entry) + Send + Clone + 'static,
{
    type Prepared = Prepared;

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn read(&mut self) -> Result<(Arc<Inventory>, Option<BTreeSet<NodeName>>), Left> {
        let intent = (self.intent)()?;
        let (before, now) = (
            &self.fleet.settings().inventory,
            &intent.fleet.settings().inventory,
        );
        if before.fleet.name != now.fleet.name {
            return Err(Left::Refused(Refused {
                message: format!(
                    "the inventory is of the fleet {} by now, and this service is {}'s",
                    now.fleet.name, before.fleet.name
                ),
                hint: Some("start it anew for another fleet".to_owned()),
            }));
        }
        if before.digest() != now.digest() {
            self.watch.nodes = now.nodes.keys().cloned().collect();
            self.fleet = intent.fleet;
        }
        self.only.clone_from(&intent.only);
        Ok((Arc::clone(&self.fleet.settings().inventory), intent.only))
    }

    fn journal(&mut self) -> Result<FleetJournal, Left> {
        Ok(self.fleet.journal("undercroft serve")?)
    }

    async fn boot_servers(&mut self, journal: &FleetJournal, changed: bool) -> Result<(), Left> {
        if changed {
            self.watch.stop_servers().await;
        }
        if self.watch.servers.is_some() {
            return Ok(());
        }
        let (_, operator) = self.fleet.keys()?;
        let fleet = self.told();
        let start = BootServers::start(&fleet, &operator);
        let started = self.watch.beside(Some(journal), start).await;
        let started = started.ok_or(Left::Interrupted)?;
        self.watch.servers = Some(started.map_err(RunError::from)?);
        Ok(())
    }

    async fn prepare(
        &mut self,
        journal: &FleetJournal,
        rounds: &mut Rounds,
    ) -> Result<Prepared, Left> {
        let (now_ms, only) = (self.now_ms(), self.only.as_ref());
        let fleet = self.told();
        let work = fleet.prepare_kept(only, &mut self.kept, rounds, now_ms);
        let done = self.watch.beside(Some(journal), work).await;
        Ok(done.ok_or(Left::Interrupted)??)
    }

    fn targets(prepared: &Prepared) -> &BTreeMap<NodeName, Result<SystemTarget, String>> {
        &prepared.systems.targets
    }

    async fn observe(
        &mut self,
        journal: &FleetJournal,
        prepared: &Prepared,
        view: &FleetView,
    ) -> Result<Observation, Left> {
        let work = self.fleet.observe(self.only.as_ref(), prepared, view);
        let done = self.watch.beside(Some(journal), work).await;
        Ok(done.ok_or(Left::Interrupted)??)
    }

    async fn drift(
        &mut self,
        journal: &FleetJournal,
        prepared: &Prepared,
        view: &FleetView,
    ) -> Option<Result<DriftReport, Refused>> {
        let work = self
            .fleet
            .look_for_drift(self.only.as_ref(), prepared, view);
        let look = self.watch.beside(Some(journal), work).await?;
        let now_ms = undercroft_process::clock::wall_ms_now();
        let report = look.and_then(|look| self.fleet.drifted(prepared, &look, now_ms));
        Some(report.map_err(|error| Refused::from(&error)))
    }

    async fn run(
        &mut self,
        prepared: Prepared,
        engine: Engine,
        journal: FleetJournal,
        view: &FleetView,
    ) -> Result<Finished, Left> {
        let cluster = self.fleet.cluster_parts(engine.plan())?;
        let (tell, wind_down) = watch::channel(false);
        let run = Run {
            fleet: &self.fleet,
            prepared,
            engine,
            journal,
            view,
            servers: self.watch.servers.clone(),
            cluster,
            interrupt: self.watch.interrupt.clone(),
            wind_down: Some(wind_down),
            alive: Some(self.alive()),
        };
        let (board, mut observer) = (Arc::clone(&self.board), self.observer.clone());
        let work = carry_out(run, move |entry: &Entry| {
            board.entry(entry);
            observer(entry);
        });
        let (inventory, only) = (&self.fleet.settings().inventory, &self.only);
        let is_other = || {
            // What can't be read now is said by the next round.
            let now = (self.intent)();
            now.is_ok_and(|now| {
                is_another(
                    (inventory, only),
                    (&now.fleet.settings().inventory, &now.only),
                )
            })
        };
        Ok(until_another(work, INVENTORY_POLL, is_other, &tell).await?)
    }

    fn keep(&mut self, view: &FleetView) -> Result<(), Left> {
        let repository = &self.fleet.settings().repository;
        write_facts(repository, view)
            .map(drop)
            .map_err(|e| FleetError::from(e).into())
    }

    async fn rest(&mut self, journal: Option<&FleetJournal>, rest_ms: u64) -> bool {
        let work = tokio::time::sleep(Duration::from_millis(rest_ms));
        self.watch.beside(journal, work).await.is_some()
    }

    fn say(&self, node: Option<&NodeName>, text: &str) {
        (self.fleet.settings().progress)(RunProgress::Line {
            node: node.cloned(),
            text: text.to_owned(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_wanted_is_looked_at_while_work_goes_on_and_told_once() {
        let (tell, mut told) = watch::channel(false);
        let mut looks = 0;
        let is_other = || {
            looks += 1;
            looks == 3
        };
        let work = async {
            // It ends when it was told, and some time after that.
            told.wait_for(|told| *told).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            7
        };
        let poll = Duration::from_millis(1);
        assert_eq!(until_another(work, poll, is_other, &tell).await, 7);
        assert_eq!(looks, 3, "nobody looks any more once it was told");
    }
}
