//! Days of a service in a moment: the loop, the planner and the journal are the real ones; what they work on
//! and the clock are played.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use undercroft_engine::{Driver, EngineFault, Event, Order, World};
use undercroft_model::{
    Failure, FailureKind, Found, NodeObservation, Now, OpId, Outcome, Record, System,
    inventory::parse,
};
use undercroft_planner::RETRY_MS_MAX;

use super::*;
use real::Real;

mod real;

const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;

fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

fn inventory(budget: u32) -> Arc<Inventory> {
    let mut text = format!(
        "[fleet]\nname = \"cellar\"\n[fleet.limits]\nnode_restarts = {budget}\n\
         [network]\nnode_cidr = \"10.0.0.0/24\"\nserver_address = \"10.0.0.2\"\n\
         [classes.box]\nkind = \"plain\"\nlayout = \"ext4\"\n"
    );
    for n in 1..=3 {
        text.push_str(&format!(
            "[nodes.box-{n}]\nclass = \"box\"\nmacs = [\"3c:ec:ef:10:00:0{n}\"]\n\
             address = \"10.0.0.1{n}\"\ndisks = [{{ serial = \"S{n}\" }}]\n"
        ));
    }
    let parsed = parse("undercroft.toml", text.as_bytes());
    Arc::new(
        parsed
            .inventory
            .unwrap_or_else(|| panic!("{:?}", parsed.diagnostics)),
    )
}

fn target(node: &NodeName) -> SystemTarget {
    SystemTarget {
        toplevel: format!("/nix/store/0c0vdzlgl5n8kbzvxjmmdhdnjgcl7c6x-{node}"),
        disko_script: None,
        disko_mount_script: None,
        disko_devices: None,
        system: System::X86_64Linux,
        closure_bytes: Some(1_000_000),
    }
}

type Change = Box<dyn FnMut(&Played, u64)>;

/// What is played.
struct Played {
    dir: tempfile::TempDir,
    now_ms: Cell<u64>,
    end_ms: u64,
    inventory: RefCell<Arc<Inventory>>,
    only: RefCell<Option<BTreeSet<NodeName>>>,
    /// Until when nothing can be built.
    unbuilt: Cell<u32>,
    /// Machines that answer, and what they run; the others were never installed.
    found: RefCell<BTreeMap<NodeName, Found>>,
    refuse_reads: Cell<u32>,
    refuse_looks: Cell<u32>,
    fault: Cell<bool>,
    builds: Cell<u32>,
    looks: Cell<u32>,
    runs: RefCell<Vec<(u64, Vec<NodeName>)>>,
    said: RefCell<Vec<String>>,
    kept_max: Cell<usize>,
    wish: Cell<bool>,
    /// A real fleet, which then makes keys, builds and looks.
    real: RefCell<Option<Real>>,
    /// An inventory that is written after so many more operations were begun.
    soon: RefCell<Option<(usize, Arc<Inventory>)>>,
    /// The digests of the inventories that were planned by.
    planned_by: RefCell<Vec<String>>,
    failure: Cell<FailureKind>,
    /// Changes what is played at the beginning of a round.
    each_round: RefCell<Change>,
    round: Cell<u64>,
}

impl Played {
    fn new(end_ms: u64) -> Rc<Self> {
        Rc::new(Self {
            dir: tempfile::tempdir().unwrap(),
            now_ms: Cell::new(0),
            end_ms,
            inventory: RefCell::new(inventory(3)),
            only: RefCell::default(),
            unbuilt: Cell::new(0),
            found: RefCell::default(),
            refuse_reads: Cell::new(0),
            refuse_looks: Cell::new(0),
            fault: Cell::new(false),
            builds: Cell::new(0),
            looks: Cell::new(0),
            runs: RefCell::default(),
            said: RefCell::default(),
            kept_max: Cell::new(0),
            wish: Cell::new(false),
            real: RefCell::default(),
            soon: RefCell::default(),
            planned_by: RefCell::default(),
            failure: Cell::new(FailureKind::Permanent),
            each_round: RefCell::new(Box::new(|_, _| {})),
            round: Cell::new(0),
        })
    }

    fn all_run(&self) {
        let nodes = self
            .inventory
            .borrow()
            .nodes
            .keys()
            .cloned()
            .collect::<Vec<_>>();
        for node in nodes {
            let system = target(&node).toplevel;
            let found = Found::Running {
                boot_id: "b".to_owned(),
                booted_system: system.clone(),
                current_system: system,
            };
            self.found.borrow_mut().insert(node, found);
        }
    }

    fn said(&self, part: &str) -> usize {
        let said = self.said.borrow();
        said.iter().filter(|line| line.contains(part)).count()
    }
}

fn refused(message: &str) -> Left {
    Left::Refused(Refused {
        message: message.to_owned(),
        hint: None,
    })
}

fn one_less(count: &Cell<u32>) -> bool {
    let left = count.get();
    count.set(left.saturating_sub(1));
    left > 0
}

fn now(mono_ms: u64) -> Now {
    Now {
        mono_ms,
        wall_ms: mono_ms,
    }
}

/// A world in which whatever is tried fails.
struct Failing(Vec<OpId>);

impl World for Failing {
    fn start(&mut self, order: Order) {
        self.0.push(order.op);
    }

    fn cancel(&mut self, _: OpId) {}
}

impl Hands for Rc<Played> {
    type Prepared = BTreeMap<NodeName, Result<SystemTarget, String>>;

    fn now_ms(&self) -> u64 {
        self.now_ms.get()
    }

    fn read(&mut self) -> Result<(Arc<Inventory>, Option<BTreeSet<NodeName>>), Left> {
        self.round.set(self.round.get() + 1);
        let mut each = self.each_round.replace(Box::new(|_, _| {}));
        each(self, self.round.get());
        *self.each_round.borrow_mut() = each;
        if one_less(&self.refuse_reads) {
            return Err(refused("the inventory has an error"));
        }
        Ok((self.inventory.borrow().clone(), self.only.borrow().clone()))
    }

    fn journal(&mut self) -> Result<FleetJournal, Left> {
        Ok(FleetJournal::open(self.dir.path(), "cellar", "a test")?)
    }

    async fn boot_servers(&mut self, _: &FleetJournal, _: bool) -> Result<(), Left> {
        Ok(())
    }

    async fn prepare(
        &mut self,
        _: &FleetJournal,
        rounds: &mut Rounds,
    ) -> Result<Self::Prepared, Left> {
        if let Some(mut real) = self.real.take() {
            let prepared = real.prepare(self, rounds).await;
            *self.real.borrow_mut() = Some(real);
            return prepared;
        }
        let mut targets = BTreeMap::new();
        rounds.inputs(Some("the same"));
        for node in self.inventory.borrow().nodes.keys() {
            let due = rounds.build_is_due(node, self.now_ms.get());
            if due {
                self.builds.set(self.builds.get() + 1);
            }
            // One machine's system alone can't be built.
            let fails = node.as_str() == "box-1" && self.unbuilt.get() > 0;
            if fails && due {
                self.unbuilt.set(self.unbuilt.get() - 1);
            }
            let built = match fails {
                true => Err("attribute missing".to_owned()),
                false => Ok(target(node)),
            };
            if due {
                let why = built.as_ref().err().map(String::as_str);
                rounds.built(node, self.now_ms.get(), why);
            }
            targets.insert(node.clone(), built);
        }
        self.kept_max.set(self.kept_max.get().max(rounds.kept()));
        Ok(targets)
    }

    fn targets(prepared: &Self::Prepared) -> &BTreeMap<NodeName, Result<SystemTarget, String>> {
        prepared
    }

    async fn observe(
        &mut self,
        _: &FleetJournal,
        prepared: &Self::Prepared,
        view: &FleetView,
    ) -> Result<Observation, Left> {
        self.looks.set(self.looks.get() + 1);
        if let Some(real) = self.real.take() {
            let seen = real.observe(self, prepared, view).await;
            *self.real.borrow_mut() = Some(real);
            return seen;
        }
        if one_less(&self.refuse_looks) {
            return Err(refused("a key's file can't be read"));
        }
        let mut observation = Observation {
            targets: prepared.clone(),
            installed: view.installed().clone(),
            ..Observation::default()
        };
        for node in self.inventory.borrow().nodes.keys() {
            let key = format!("SHA256:key-of-{node}");
            observation.host_keys.insert(node.clone(), key);
            let found = self.found.borrow().get(node).cloned();
            if matches!(found, Some(Found::Running { .. })) {
                // It is no stranger: a run has proved it before.
                let installed = observation.installed.entry(node.clone()).or_default();
                installed.proved_up = true;
            }
            let seen = NodeObservation {
                age_ms: found.is_some().then_some(0),
                found: found.unwrap_or(Found::Nothing),
            };
            observation.nodes.insert(node.clone(), seen);
        }
        Ok(observation)
    }

    async fn run(
        &mut self,
        _: Self::Prepared,
        engine: Engine,
        journal: FleetJournal,
        _: &FleetView,
    ) -> Result<Finished, Left> {
        let nodes = engine.plan().nodes.keys().cloned().collect();
        self.runs.borrow_mut().push((self.now_ms.get(), nodes));
        let digest = engine.plan().inventory_digest.clone();
        self.planned_by.borrow_mut().push(digest);
        let (inventory, only) = (self.inventory.borrow().clone(), self.only.borrow().clone());
        let mut superseded = false;
        let mut mono_ms = self.now_ms.get();
        let mut driver = Driver::new(engine, journal);
        let mut world = Failing(Vec::new());
        let mut events = vec![Event::Begin];
        loop {
            let event = events.pop().unwrap_or_else(|| {
                // A moment for the journal, and of no length for the service.
                mono_ms = driver.next_deadline().unwrap_or(mono_ms).max(mono_ms);
                Event::Tick
            });
            if let Some(end) = driver.handle(now(mono_ms), event, &mut world).unwrap() {
                let step = driver.engine().plan().steps.first().unwrap().id;
                let fault = EngineFault::TwoOperations {
                    node: name("box-1"),
                    step,
                };
                return Ok(Finished {
                    end,
                    faults: Vec::from_iter(self.fault.get().then_some(fault)),
                    journal: driver.into_journal(),
                    superseded,
                });
            }
            if let Some((left, another)) = self.soon.take() {
                match left.saturating_sub(world.0.len()) {
                    0 => *self.inventory.borrow_mut() = another,
                    left => *self.soon.borrow_mut() = Some((left, another)),
                }
            }
            let (wanted, of) = (self.inventory.borrow().clone(), self.only.borrow().clone());
            if !superseded && is_another((&inventory, &only), (&wanted, &of)) {
                superseded = true;
                // It is the first of what is told: the outcomes below come after it.
                let end = driver.handle(now(mono_ms), Event::WindDown, &mut world);
                assert_eq!(end.unwrap(), None, "something runs still");
            }
            for op in world.0.drain(..) {
                let failure = Failure::new(self.failure.get(), "no such machine");
                let outcome = Outcome::Failed { failure };
                events.push(Event::Ended { op, outcome });
            }
        }
    }

    fn keep(&mut self, _: &FleetView) -> Result<(), Left> {
        Ok(())
    }

    async fn rest(&mut self, _: Option<&FleetJournal>, rest_ms: u64) -> bool {
        self.now_ms.set(self.now_ms.get() + rest_ms);
        self.now_ms.get() < self.end_ms && !self.wish.get()
    }

    fn say(&self, node: Option<&NodeName>, text: &str) {
        let node = node.map_or_else(String::new, |node| format!("{node}: "));
        self.said.borrow_mut().push(format!("{node}{text}"));
    }
}

async fn served(played: &Rc<Played>) -> (Serving<Rc<Played>>, Served) {
    let journal = FleetJournal::open(played.dir.path(), "cellar", "a test").unwrap();
    let scope = Scope {
        unattended: true,
        ..Scope::default()
    };
    let mut serving = Serving::new(Rc::clone(played), MINUTE_MS, scope, journal, Arc::default());
    let served = serving.go().await.unwrap();
    (serving, served)
}

#[tokio::test]
async fn a_day_with_a_hundred_failed_builds_leaves_it_running_with_flat_memory() {
    let played = Played::new(DAY_MS + DAY_MS / 2);
    played.all_run();
    played.unbuilt.set(100);
    let (serving, served) = served(&played).await;
    assert_eq!(played.unbuilt.get(), 0, "all of them were met");
    // The others were looked at in each round, as often as without any failure.
    assert_eq!(served.rounds, (DAY_MS + DAY_MS / 2) / MINUTE_MS);
    assert_eq!(u64::from(played.looks.get()), served.rounds);
    // They were said, and not in each round.
    assert!(played.said("box-1: left alone: it runs ") > 0);
    let said = played.said.borrow().len();
    assert!(said < 150, "{said}");
    // In the end all is well, and said of what was looked at.
    assert_eq!(
        played.said("all 3 machines run what they should"),
        1 + (played.end_ms - 100 * RETRY_MS_MAX) as usize / 3_600_000
    );
    // What it keeps didn't grow: one machine's build, and the latest sentences.
    assert!(played.kept_max.get() <= 4, "{}", played.kept_max.get());
    assert!(serving.rounds.kept() <= 2);
    assert_eq!(serving.view().next_seq, 1, "the journal is as it was");
    let journal = serving.journal.as_ref().unwrap();
    assert_eq!(
        journal.store().entries_read(),
        1,
        "in all {} rounds",
        served.rounds
    );
}

#[tokio::test]
async fn failed_looks_and_a_broken_inventory_end_nothing_and_back_off() {
    let played = Played::new(DAY_MS);
    played.all_run();
    played.refuse_looks.set(20);
    let (_, with_looks) = served(&played).await;
    let rests = DAY_MS / MINUTE_MS - with_looks.rounds;
    // 1, 2, 4, 8 and then 15 minutes of rest: 20 failures take some four hours.
    assert!((200..260).contains(&rests), "{rests}");
    let said = played.said("a key's file can't be read");
    assert!((1..8).contains(&said), "{said}");
    assert!(played.said("everything is as it should be") > 0);

    let played = Played::new(DAY_MS);
    played.all_run();
    played.refuse_reads.set(3);
    served(&played).await;
    assert_eq!(played.said("the inventory has an error"), 1);
    assert!(played.said("everything is as it should be") > 0);
}

#[tokio::test]
async fn all_is_well_is_said_only_of_what_was_looked_at_and_found_well() {
    let reasons = [
        (
            Found::ForeignHostKey {
                fingerprint: "SHA256:x".into(),
            },
            "quarantined: ",
        ),
        (
            Found::Running {
                boot_id: "b".into(),
                booted_system: "/nix/store/old".into(),
                current_system: "/nix/store/old".into(),
            },
            "it runs /nix/store/old, and ",
        ),
    ];
    for (found, reason) in reasons {
        let played = Played::new(10 * MINUTE_MS);
        played.all_run();
        played
            .found
            .borrow_mut()
            .insert(name("box-2"), found.clone());
        served(&played).await;
        assert_eq!(played.said("as it should be"), 0, "{found:?}");
        assert_eq!(
            played.said(&format!("box-2: left alone: {reason}")),
            1,
            "{found:?}: {:?}",
            played.said.borrow()
        );
        assert_eq!(played.said("box-2: next: "), 1, "{found:?}");
    }
    // Of those that were not asked for nothing is said to be well.
    let played = Played::new(10 * MINUTE_MS);
    played.all_run();
    *played.only.borrow_mut() = Some(BTreeSet::from([name("box-1")]));
    served(&played).await;
    assert_eq!(
        played.said("1 of the machines; 2 others were not looked at"),
        1
    );
}

#[tokio::test]
async fn machines_that_fail_are_tried_again_after_longer_and_longer_rests() {
    let played = Played::new(DAY_MS);
    played.all_run();
    played.found.borrow_mut().remove(&name("box-3"));
    let (serving, _) = served(&played).await;
    let runs = played.runs.borrow().clone();
    // Not in each of 1440 rounds.
    assert!((90..=105).contains(&runs.len()), "{}", runs.len());
    assert!(runs.iter().all(|(_, nodes)| *nodes == [name("box-3")]));
    let rests = runs.windows(2).map(|two| two[1].0 - two[0].0);
    let rests: Vec<u64> = rests.map(|ms| ms / MINUTE_MS).collect();
    assert_eq!(rests[..6], [1, 2, 4, 8, 15, 15]);
    assert!(
        played.said("box-3: left alone: it failed, and is tried again later: no such machine") > 0
    );
    assert_eq!(played.said("as it should be"), 0);
    // The fold that was extended is the fold of the whole, of which each entry was read once.
    let store = serving.journal.as_ref().unwrap().store();
    let read = store.entries_read();
    let entries = store.entries(0, usize::MAX).unwrap();
    assert_eq!(read, entries.len() as u64);
    assert!(entries.len() > 400, "{}", entries.len());
    assert_eq!(*serving.view(), FleetView::fold(&entries));
    // What is known doesn't grow with what has happened: after an hour it is as large as after a day.
    let hour = Played::new(DAY_MS / 24);
    hour.all_run();
    hour.found.borrow_mut().remove(&name("box-3"));
    let (after_an_hour, _) = self::served(&hour).await;
    let size = |view: &FleetView| serde_json::to_vec(view).unwrap().len();
    let (hour, day) = (size(after_an_hour.view()), size(serving.view()));
    assert!(day < hour + 200, "{hour} and {day} bytes");
    assert!(serving.rounds.kept() <= 4);
}

#[tokio::test]
async fn what_was_refused_waits_for_a_person_or_another_inventory() {
    let played = Played::new(DAY_MS);
    played.all_run();
    played.failure.set(FailureKind::Refused);
    played.found.borrow_mut().remove(&name("box-3"));
    *played.each_round.borrow_mut() = Box::new(|played, _| {
        if played.now_ms.get() >= DAY_MS / 2 {
            *played.inventory.borrow_mut() = inventory(5);
        }
    });
    served(&played).await;
    let runs = played.runs.borrow();
    let at: Vec<u64> = runs.iter().map(|(at, _)| *at).collect();
    assert_eq!(at, [0, DAY_MS / 2]);
    assert!(played.said("box-3: left alone: it was refused: no such machine") > 0);
    assert_eq!(played.said("the inventory has changed"), 1);
}

#[tokio::test]
async fn an_inventory_that_changes_during_a_run_is_planned_by_at_once() {
    let played = Played::new(10 * MINUTE_MS);
    played.failure.set(FailureKind::Transient);
    let (before, after) = (inventory(3), inventory(5));
    *played.soon.borrow_mut() = Some((3, after.clone()));
    let (serving, _) = served(&played).await;
    let runs = played.runs.borrow();
    let both = (before.digest(), after.digest());
    let planned_by = played.planned_by.borrow();
    assert_eq!((&planned_by[0], &planned_by[1]), (&both.0, &both.1));
    assert!(planned_by[1..].iter().all(|digest| *digest == both.1));
    // There was no rest between them, and of the first plan nothing but what ran already was done.
    assert_eq!(runs[0].0, runs[1].0);
    assert_eq!(played.said("the inventory has changed: what follows"), 1);
    assert_eq!(played.said("replaced: the inventory has changed"), 1);
    let journal = serving.journal.as_ref().unwrap().store();
    let entries = journal.entries(0, usize::MAX).unwrap();
    let mut of_run = 0;
    let mut begun = vec![0];
    for entry in &entries {
        match &entry.record {
            Record::OpStarted { .. } => begun[of_run] += 1,
            Record::RunEnded { end } if of_run == 0 => {
                assert_eq!(*end, RunEnd::Interrupted);
                begun.push(0);
                of_run = 1;
            }
            _ => {}
        }
    }
    assert_eq!(begun[0], 3, "one operation of each machine");
    assert!(begun[1] > 0);
}

#[tokio::test]
async fn the_engines_own_faults_are_shown_and_kept() {
    let played = Played::new(DAY_MS);
    played.all_run();
    played.fault.set(true);
    played.found.borrow_mut().remove(&name("box-3"));
    let (serving, served) = served(&played).await;
    let runs = played.runs.borrow().len();
    assert_eq!(played.said("the engine broke a promise of its own"), runs);
    assert_eq!(served.faults.len(), undercroft_planner::FAULTS_KEPT_MAX);
    assert_eq!(serving.rounds.faults().1, runs as u64);
}
