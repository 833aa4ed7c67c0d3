//! One rehearsal: a plan, carried out by the real engine in the simulated world.
//!
//! A seed goes through two phases, as TigerBeetle's simulator does. In the safety phase faults
//! happen and the checkers watch. Then faults stop (machines that are broken for good stay so), and
//! the liveness phase shows that everything that can be brought up is, within a few runs, that what
//! can't is reported with its reason, and that planning once more gives nothing to do.

mod judge;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use undercroft_engine::{Driver, Engine, Event};
use undercroft_model::{
    Found, JOURNAL_VERSION, NodeName, NodeObservation, PlanId, Record, RunEnd,
    inventory::{Inventory, ScaleError, scale_to},
};
use undercroft_planner::{Decided, PlanOptions, plan_digested};
use undercroft_simkit::{Faults, Trace};

use crate::{
    checkers::{Checkers, Rule, Violation},
    faults::{Dice, FaultKind},
    fleet,
    journal::{Folded, Keep, SimJournal},
    machine::{Machine, Running},
    options::RehearseOptions,
    report::{RehearsalReport, build},
    shared::{JournalHandle, Shared},
    state::{RehearsalState, RunRecord},
    world::Ev,
};

/// Runs of the command, one after the other, in which a fleet must come up once faults have
/// stopped: one that was under way, one that goes on, one that plans anew, one that leaves out what
/// is broken where the failure budget asks for that, and one to spare.
const LIVENESS_RUNS_MAX: u32 = 5;
/// Runs in all: no operator goes on for longer without looking into it.
const RUNS_MAX: u32 = 12;
/// The longest that faults go on, in milliseconds: while they do, a fleet may get nowhere.
const FAULTS_MS_MAX: u64 = 24 * 3_600_000;
/// The longest that one run may take in simulated time when faults have stopped, for each machine:
/// nobody waits for longer. In milliseconds: 8 hours, more than all tries of all steps of one
/// machine together.
const RUN_MS_MAX_PER_NODE: u64 = 8 * 3_600_000;
/// Events of one run for each machine, beside those of the fleet: far above what retries allow.
const RUN_EVENTS_MAX_PER_NODE: u64 = 50_000;
/// The longest that a controller is away before it is started again, in milliseconds.
const CONTROLLER_AWAY_MS_MAX: u64 = 10 * 60_000;
/// How long the world is left to itself between two runs, in milliseconds: a person has come, and
/// machines that were switched on again have started.
const BETWEEN_RUNS_MS: u64 = 10 * 60_000;

/// Why there is nothing to rehearse.
#[derive(Debug, thiserror::Error)]
pub enum RehearseError {
    /// The fleet can't be given that many machines.
    #[error("the fleet can't be scaled to {nodes} machines: {source}")]
    Scale {
        /// How many.
        nodes: usize,
        /// Why.
        source: ScaleError,
    },
    /// The inventory has no machines.
    #[error("the inventory has no nodes, so there is nothing to rehearse")]
    NoNodes,
}

/// What a rehearsal has shown.
#[derive(Debug, Clone)]
pub struct Rehearsal {
    /// The SHA-256 of the journal's bytes, in hexadecimal. The same seed, inventory and options
    /// give the same.
    pub digest: String,
    /// How many entries the journal has.
    pub entries: u64,
    /// How many bytes the journal has.
    pub journal_bytes: u64,
    /// The journal itself, where it was asked for.
    pub journal: Option<Vec<u8>>,
    /// What a person wants to know.
    pub report: RehearsalReport,
    /// The rule that was broken: a bug in Undercroft.
    pub violation: Option<Violation>,
    /// The last events, where they were asked for.
    pub trace: Vec<String>,
}

/// Carries an inventory's plan out in the simulated world, from machines that are switched off.
///
/// # Errors
/// When the inventory has no machines, or can't be scaled to the number that was asked for. A
/// broken rule is no error: it is in the result, with everything that led to it.
pub fn rehearse(
    inventory: &Inventory,
    options: &RehearseOptions,
) -> Result<Rehearsal, RehearseError> {
    let scaled = match options.nodes {
        Some(nodes) if nodes != inventory.nodes.len() => Some(
            scale_to(inventory, nodes).map_err(|source| RehearseError::Scale { nodes, source })?,
        ),
        _ => None,
    };
    let inventory = scaled.as_ref().unwrap_or(inventory);
    if inventory.nodes.is_empty() {
        return Err(RehearseError::NoNodes);
    }
    let mut state = RehearsalState::new(inventory, options);
    if let Err(violation) = state.run_phases() {
        state
            .shared
            .borrow_mut()
            .trace
            .note(violation.at_ms, "checker", || violation.to_string());
        state.violation = Some(violation);
    }
    Ok(state.finish(options))
}

type Checked<T> = Result<T, Violation>;

/// What has come of an event that the controller handled.
enum Handled {
    /// The run goes on.
    GoesOn,
    /// The controller was killed.
    Died,
    /// The run is over.
    Ended(RunEnd),
}

impl RehearsalState<'_> {
    fn broken<T>(&self, rule: Rule, message: impl Into<String>) -> Checked<T> {
        Err(Violation {
            rule,
            at_ms: self.world.now_ms(),
            message: message.into(),
        })
    }

    fn checked(&self) -> Checked<()> {
        match self.shared.borrow().checkers.violation() {
            Some(violation) => Err(violation.clone()),
            None => Ok(()),
        }
    }

    /// Both phases.
    fn run_phases(&mut self) -> Checked<()> {
        let wall_ms = self.world.now().wall_ms;
        self.shared.borrow_mut().journal.append(
            wall_ms,
            vec![Record::Opened {
                version: JOURNAL_VERSION,
                fleet: self.inventory.fleet.name.clone(),
            }],
        );
        self.schedule_faults();
        let fault_free = self.faults_have_stopped();
        let plan = self.plan(None, None)?;
        let mut engine = self.engine(&plan)?;
        let mut runs_after_faults = 0;
        let mut resumed = false;
        for _ in 0..RUNS_MAX {
            let end = self.carry_out(engine, resumed)?;
            if fault_free && end == RunEnd::Complete {
                return self.judge();
            }
            let interrupted = end == RunEnd::Interrupted;
            if !interrupted {
                self.world.stop_faults();
                runs_after_faults += 1;
            }
            if runs_after_faults >= LIVENESS_RUNS_MAX || self.is_settled() {
                break;
            }
            self.operator_visits();
            self.settle();
            // What was refused stays so until a plan is made anew, so nobody only ever goes on.
            let may_go_on = end == RunEnd::Incomplete && !resumed;
            let go_on = interrupted || (may_go_on && self.rng.chance(512));
            if go_on {
                engine = self.resume()?;
                resumed = true;
            } else {
                let plan = self.replan()?;
                if plan.is_empty() {
                    break;
                }
                engine = self.engine(&plan)?;
                resumed = false;
            }
        }
        self.judge()
    }

    /// What is decided before anything begins: when faults stop, whether the operator interrupts.
    fn schedule_faults(&mut self) {
        if self.shared.borrow().dice.is_stopped() {
            return;
        }
        // In half of the seeds faults stop in the middle of a run, else they outlast most runs.
        let stop_ms = if self.rng.chance(512) {
            self.rng.between(60_000, 2 * 3_600_000)
        } else {
            FAULTS_MS_MAX
        };
        self.world.clock.after(stop_ms, Ev::FaultsStop);
        if self
            .shared
            .borrow_mut()
            .dice
            .hit(0, None, FaultKind::Interrupted)
        {
            let delay_ms = self.rng.between(1000, 3_600_000);
            // A service lets what runs come to its end, where the inventory has changed meanwhile.
            let how = match self.rng.chance(512) {
                true => Ev::WindDown,
                false => Ev::Interrupt,
            };
            self.world.clock.after(delay_ms, how);
        }
    }

    fn plan(
        &mut self,
        parent: Option<PlanId>,
        only: Option<BTreeSet<NodeName>>,
    ) -> Checked<Decided> {
        let mut observation = self.targets.clone();
        observation.nodes = self.look();
        observation.cluster = self.world.look_at_cluster();
        if parent.is_some() && self.shared.borrow().journal.is_kept() {
            observation.installed = self.read(|folded| folded.view.installed().clone())?;
        }
        let options = PlanOptions {
            only,
            reinstall: self.reinstall.clone(),
            ..PlanOptions::default()
        };
        let digest = self
            .inventory_digest
            .get_or_insert_with(|| self.inventory.digest());
        let (plan, report) = plan_digested(
            &self.inventory,
            digest.clone(),
            &observation,
            parent.as_ref(),
            &options,
        );
        self.reinstall.retain(|name| !plan.nodes.contains_key(name));
        self.last_report = Some(report);
        Ok(plan)
    }

    /// Plans anew, as `up` does after a run that wasn't complete. Where the failure budget stopped
    /// the rollout although nothing new went wrong, the operator leaves out the machines that
    /// failed: they are broken, unless they are to be installed anew. When nothing else is left to
    /// do they are tried again: one may have waited for another, or was off until a person came.
    fn replan(&mut self) -> Checked<Decided> {
        let parent = self.plans.last().map(|plan| plan.id.clone());
        let stopped = self.shared.borrow().checkers.is_stopped();
        let stopped_since_ms = self
            .runs
            .last()
            .filter(|run| run.after_faults)
            .map(|run| run.start_ms);
        if let Some(since_ms) = stopped_since_ms.filter(|_| stopped) {
            let failed = self.failed_since(since_ms);
            let names = self.inventory.nodes.keys();
            let only = names
                .filter(|name| !failed.contains(*name) || self.reinstall.contains(*name))
                .cloned()
                .collect();
            let plan = self.plan(parent.clone(), Some(only))?;
            if !plan.is_empty() {
                return Ok(plan);
            }
        }
        self.plan(parent, None)
    }

    /// What the journal says, as a controller reads it that is started now.
    fn read<T>(&self, what: impl FnOnce(&Folded) -> T) -> Checked<T> {
        let mut shared = self.shared.borrow_mut();
        match shared.journal.recover().map(what) {
            Ok(read) => Ok(read),
            Err(unreadable) => self.broken(Rule::Replay, unreadable.to_string()),
        }
    }

    fn engine(&self, plan: &Decided) -> Checked<Engine> {
        let next_op = self.shared.borrow().checkers.next_op();
        match Engine::decided(plan) {
            Ok(engine) => {
                let engine = engine.numbered_from(next_op);
                self.shared.borrow_mut().journal.expect(&engine);
                Ok(engine)
            }
            Err(refused) => self.broken(Rule::PlanMatchesInventory, refused.to_string()),
        }
    }

    fn resume(&self) -> Checked<Engine> {
        match self.read(|folded| folded.resumption.engine())? {
            Ok(engine) => Ok(engine),
            Err(error) => self.broken(Rule::Replay, error.to_string()),
        }
    }

    /// What a look at all machines shows.
    fn look(&mut self) -> BTreeMap<NodeName, NodeObservation> {
        let now_ms = self.world.now_ms();
        self.world
            .machines
            .iter()
            .map(|machine| {
                let connected = machine.is_connected(now_ms);
                let found = match &machine.running {
                    Running::System { key, .. } if connected && *key != machine.spec.host_key => {
                        Found::ForeignHostKey {
                            fingerprint: key.clone(),
                        }
                    }
                    Running::System { boot, system, .. } if connected => Found::Running {
                        boot_id: fleet::boot_id(*boot),
                        booted_system: system.clone(),
                        current_system: system.clone(),
                    },
                    Running::Installer(instance) if connected => Found::Installer {
                        report: Box::new(machine.report(instance)),
                    },
                    _ if machine.ever_up => Found::Unreachable {
                        reason: "nobody answers at the address".to_owned(),
                    },
                    _ => Found::Nothing,
                };
                let observation = NodeObservation {
                    found,
                    age_ms: Some(0),
                };
                (machine.spec.name.clone(), observation)
            })
            .collect()
    }

    /// A person goes to the machines that don't come back by themselves and switches them off and
    /// on again.
    fn operator_visits(&mut self) {
        for node in 0..u32::try_from(self.world.machines.len()).unwrap_or(0) {
            let machine = self.world.machine(node);
            machine.token_refused = false;
            let why = match &machine.running {
                Running::Hung => "it hung in its reboot",
                Running::System { .. } if !machine.runs_target() => {
                    "it had booted from the wrong device"
                }
                Running::NothingToBoot => "its firmware found nothing to boot",
                Running::Off if machine.dead => "it didn't start",
                Running::Off if machine.ever_up => "its power was lost",
                _ => continue,
            };
            self.site_visits.push((node, why));
            self.world.push_button(node);
        }
        self.request_reinstalls();
    }

    /// What a person does about a member that has lost what was on its disk, or its place in etcd, as
    /// the messages say: it is named with `--reinstall`, and another server as the founder where it
    /// was that.
    fn request_reinstalls(&mut self) {
        let members = &self.world.cluster.members;
        let lost = |(place, m): &(u32, &Machine)| {
            let wiped = m.lost_disk && !m.root.joined;
            wiped || (m.root.joined && m.root.datastore && !members.contains_key(place))
        };
        let lost = (0u32..).zip(&self.world.machines).find(lost);
        let Some(lost) = lost.map(|(_, m)| m.spec.name.clone()) else {
            return;
        };
        if self.inventory.kubernetes.founder.as_ref() == Some(&lost) {
            let servers = self.inventory.servers().into_iter();
            let founder = servers.filter(|name| **name != lost).find(|name| {
                let mut machines = self.world.machines.iter();
                machines.any(|m| m.spec.name == **name && m.root.datastore && !m.is_lost())
            });
            // Where nobody else is a member there is no cluster any more: it founds another.
            if let Some(founder) = founder.cloned() {
                for machine in &mut self.world.machines {
                    machine.spec.founds = machine.spec.name == founder;
                }
                self.inventory.to_mut().kubernetes.founder = Some(founder);
                self.inventory_digest = None;
            }
        }
        // Once: a reinstallation that is cut off is gone on with without its name.
        if self.reinstall_requested.insert(lost.clone()) {
            self.reinstall.insert(lost);
        }
    }

    /// Lets the world go on without a controller for a while.
    fn settle(&mut self) {
        let until_ms = self.world.now_ms() + BETWEEN_RUNS_MS;
        while self.world.clock.next_ms().is_some_and(|at| at <= until_ms) {
            self.world.happen();
            self.world.out.clear();
        }
        self.world.clock.advance_to(until_ms);
        let now_ms = self.world.now_ms();
        self.shared.borrow_mut().at(now_ms);
    }

    /// One run, over all deaths of its controller.
    fn carry_out(&mut self, engine: Engine, resumed: bool) -> Checked<RunEnd> {
        let start_ms = self.world.now_ms();
        let run = u32::try_from(self.runs.len()).unwrap_or(u32::MAX);
        self.shared.borrow_mut().run = run;
        let plan = std::sync::Arc::clone(engine.plan());
        self.shared
            .borrow_mut()
            .checkers
            .announce(std::sync::Arc::clone(&plan));
        self.plans.push(plan);
        self.runs.push(RunRecord {
            end: None,
            start_ms,
            end_ms: start_ms,
            resumed,
            after_faults: self.faults_have_stopped(),
        });
        let result = self.drive(engine);
        self.world.controller_died();
        let end_ms = self.world.now_ms();
        if let Some(line) = self.runs.last_mut() {
            line.end = result.as_ref().ok().copied();
            line.end_ms = end_ms;
        }
        result
    }

    fn drive(&mut self, engine: Engine) -> Checked<RunEnd> {
        let nodes = u64::try_from(self.world.machines.len()).unwrap_or(u64::MAX);
        let deadline_ms =
            self.world.now_ms().max(FAULTS_MS_MAX) + nodes.saturating_mul(RUN_MS_MAX_PER_NODE);
        let events_max = nodes.saturating_mul(RUN_EVENTS_MAX_PER_NODE);
        let mut driver = Driver::new(engine, JournalHandle(Rc::clone(&self.shared)));
        if self.shared.borrow().killed {
            self.shared.borrow_mut().killed = false;
        }
        self.world.controller_back();
        let mut pending = Some(Event::Begin);
        for _ in 0..events_max {
            let event = match pending.take() {
                Some(event) => event,
                None => match self.next_event(&driver)? {
                    Some(event) => event,
                    None => continue,
                },
            };
            if self.world.now_ms() > deadline_ms {
                return self.broken(Rule::Stuck, "the run goes on for longer than anyone waits");
            }
            let hint = matches!(event, Event::Reported { .. });
            let event = self.world.as_controller_sees(event);
            let mut handled = Handled::GoesOn;
            if hint {
                // What is due at this very moment is none of the report's doing.
                handled = self.handle(&mut driver, Event::Tick, false)?;
            }
            if let Handled::GoesOn = handled {
                handled = self.handle(&mut driver, event, hint)?;
            }
            match handled {
                Handled::GoesOn => {}
                Handled::Ended(end) => return Ok(end),
                Handled::Died => {
                    driver = self.restart_controller()?;
                    pending = Some(Event::Begin);
                }
            }
        }
        self.broken(Rule::Stuck, "the run takes more events than retries allow")
    }

    /// What the controller is told next; nothing where only the world has moved on.
    fn next_event(&mut self, driver: &Driver<JournalHandle>) -> Checked<Option<Event>> {
        if let Some(event) = self.world.out.pop_front() {
            return Ok(Some(event));
        }
        match (driver.next_deadline(), self.world.clock.next_ms()) {
            (None, None) => self.broken(Rule::Stuck, "nothing will ever happen again"),
            (Some(tick_ms), world_ms) if world_ms.is_none_or(|at_ms| tick_ms <= at_ms) => {
                self.world.clock.advance_to(tick_ms);
                let now_ms = self.world.now_ms();
                self.shared.borrow_mut().at(now_ms);
                Ok(Some(Event::Tick))
            }
            _ => {
                self.world.happen();
                self.checked()?;
                Ok(None)
            }
        }
    }

    /// Lets the controller handle an event; `hint` is whether it is one that it may learn nothing from but where to look.
    fn handle(
        &mut self,
        driver: &mut Driver<JournalHandle>,
        event: Event,
        hint: bool,
    ) -> Checked<Handled> {
        self.shared.borrow_mut().checkers.hinted(hint);
        let handled = driver.handle(self.world.now(), event, &mut self.world);
        self.shared.borrow_mut().checkers.hinted(false);
        self.checked()?;
        if let Some(fault) = driver.engine().faults().first() {
            return self.broken(Rule::EngineFault, fault.to_string());
        }
        let killed = self.shared.borrow().killed;
        match handled {
            _ if killed => Ok(Handled::Died),
            Ok(None) => Ok(Handled::GoesOn),
            Ok(Some(end)) => Ok(Handled::Ended(end)),
            Err(error) => self.broken(Rule::Replay, error.to_string()),
        }
    }

    /// The controller has died: some time later somebody starts it again, and it goes on from what
    /// its journal holds.
    fn restart_controller(&mut self) -> Checked<Driver<JournalHandle>> {
        self.world.controller_died();
        let away_ms = self.rng.between(1000, CONTROLLER_AWAY_MS_MAX);
        let until_ms = self.world.now_ms() + away_ms;
        while self.world.clock.next_ms().is_some_and(|at| at <= until_ms) {
            self.world.happen();
        }
        self.world.clock.advance_to(until_ms);
        let now_ms = self.world.now_ms();
        self.shared.borrow_mut().at(now_ms);
        self.shared.borrow_mut().killed = false;
        let wanted = self.plans.last().map(|plan| plan.id.clone());
        let accepted =
            self.read(|folded| folded.resumption.plan().map(|plan| &plan.id) == wanted.as_ref())?;
        let engine = if accepted {
            self.resume()?
        } else {
            // The plan never reached the journal: the same command plans anew.
            let plan = self.replan()?;
            if let Some(last) = self.plans.last_mut() {
                *last = std::sync::Arc::clone(plan.plan());
            }
            self.engine(&plan)?
        };
        self.world.controller_back();
        self.shared
            .borrow_mut()
            .trace
            .note(now_ms, "controller", || "started again".to_owned());
        Ok(Driver::new(engine, JournalHandle(Rc::clone(&self.shared))))
    }

    fn finish(self, options: &RehearseOptions) -> Rehearsal {
        let report = build(&self, options);
        let Self {
            shared,
            world,
            violation,
            ..
        } = self;
        drop(world);
        // World, driver and journal handle are gone; nobody else holds it.
        let empty = || {
            Shared::new(
                Dice::new(0, Faults::None),
                Checkers::new(&[]),
                Trace::new(false),
                SimJournal::new(Keep::Nothing),
            )
        };
        let shared = Rc::try_unwrap(shared).map_or_else(|_| empty(), RefCell::into_inner);
        Rehearsal {
            digest: shared.journal.digest(),
            entries: shared.journal.entry_count(),
            journal_bytes: shared.journal.byte_count(),
            journal: shared.journal.into_bytes().filter(|_| options.keep_journal),
            report,
            violation,
            trace: shared.trace.into_lines(),
        }
    }
}

#[cfg(test)]
mod identity;
#[cfg(test)]
mod losses;
#[cfg(test)]
mod reports;
#[cfg(test)]
mod tests;
