//! Random trouble and crashes at every boundary: the invariants hold, and the end is the same.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a panic is the finding"
)]

mod world;

use proptest::prelude::*;
use undercroft_engine::{Driver, Engine, Event};
use undercroft_model::{
    FailureKind, Record, Resource, RunEnd, Work,
    view::{FleetView, NodeStatus},
};
use world::{Memory, Scripted, Twist, cluster_plan, name, next_event, plan_of, run_on, run_plan};

const VERBS: [&str; 8] = [
    "network-boot",
    "approve",
    "inspect",
    "partition",
    "copy",
    "install",
    "reboot",
    "prove",
];

const NODES: usize = 4;

/// Tight limits, so that machines wait for one another.
const LIMITS: &str = "network_boots = 2\nclosure_copies = 1\nreboots = 1\nfailure_budget = 100";

fn twist() -> impl Strategy<Value = Twist> {
    prop_oneof![
        3 => Just(Twist::Fails(FailureKind::Transient)),
        1 => Just(Twist::Fails(FailureKind::Ambiguous)),
        1 => Just(Twist::Fails(FailureKind::Permanent)),
        1 => Just(Twist::Fails(FailureKind::PreconditionLost)),
        3 => Just(Twist::DoneButAmbiguous),
        2 => Just(Twist::DoneButHangs),
        2 => Just(Twist::Hangs),
        3 => Just(Twist::PowerCut),
    ]
}

fn script() -> impl Strategy<Value = Vec<(usize, usize, bool, Twist)>> {
    proptest::collection::vec((0..NODES, 0..VERBS.len(), any::<bool>(), twist()), 0..24)
}

fn scripted(script: &[(usize, usize, bool, Twist)]) -> Scripted {
    let mut world = Scripted::new();
    for (node, verb, act, twist) in script {
        let work = if *act { Work::Act } else { Work::Probe };
        // Only an act can have had an effect that its end doesn't tell.
        let twist = match (work, twist) {
            (Work::Probe, Twist::DoneButAmbiguous | Twist::DoneButHangs) => Twist::Hangs,
            (_, twist) => twist.clone(),
        };
        world.twist(*node, VERBS[*verb], work, twist);
    }
    world
}

/// What must hold of every journal and world, whatever has happened.
fn sound(world: &Scripted, journal: &Memory) -> Result<(), TestCaseError> {
    for machine in world.machines.values() {
        prop_assert!(machine.wipes <= 1, "wiped {} times", machine.wipes);
    }
    for (resource, limit) in [
        (Resource::NetworkBoot, 2),
        (Resource::ClosureCopy, 1),
        (Resource::Reboot, 1),
    ] {
        let most = world.most_held.get(&resource).copied().unwrap_or(0);
        prop_assert!(most <= limit, "{resource:?} was held {most} times");
    }
    let view = FleetView::fold(&journal.entries);
    prop_assert_eq!(view.unplaced, 0);
    for (name, node) in &view.nodes {
        let up = world.machines.get(name).is_some_and(|machine| machine.up);
        if node.status == NodeStatus::Done {
            prop_assert!(up, "{name} is called done and isn't up");
        }
        prop_assert!(node.restarts <= 3);
    }
    Ok(())
}

/// Runs without further trouble until everything is done.
fn heal(mut journal: Memory, world: &mut Scripted) -> Result<(), TestCaseError> {
    world.twists.clear();
    if journal.entries.is_empty() {
        journal = run_plan(plan_of(NODES, LIMITS), world).1;
    }
    let mut ends = Vec::new();
    // The first of these runs may still find what the trouble has left.
    for _ in 0..2 {
        let (end, after) = run_on(journal, world);
        journal = after;
        ends.push(end);
    }
    prop_assert_eq!(ends, vec![RunEnd::Complete; 2]);
    sound(world, &journal)?;
    prop_assert!((0..NODES).all(|n| world.machines[&name(n)].up));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_run_ends_and_the_next_one_without_trouble_completes(script in script()) {
        let mut world = scripted(&script);
        let (_, journal) = run_plan(plan_of(NODES, LIMITS), &mut world);
        sound(&world, &journal)?;
        heal(journal, &mut world)?;
    }

    /// The controller dies before or after the effects of any event, with or without the last
    /// records, again and again.
    #[test]
    fn a_controller_may_die_anywhere(
        script in script(),
        lives in proptest::collection::vec((0..60usize, any::<bool>(), 0..3usize), 1..6),
    ) {
        let mut world = scripted(&script);
        let mut journal = Memory::default();
        for (events, before_effects, torn) in lives {
            let engine = if journal.entries.is_empty() {
                Engine::new(plan_of(NODES, LIMITS)).unwrap()
            } else {
                Engine::resume(&journal.entries).unwrap()
            };
            world.running.clear();
            world.ends.clear();
            let mut driver = Driver::new(engine, journal);
            let mut event = Event::Begin;
            let mut ended = false;
            for _ in 0..events {
                if driver.handle(world.now, event.clone(), &mut world).unwrap().is_some() {
                    ended = true;
                    break;
                }
                event = next_event(&mut world, driver.next_deadline()).expect("stuck");
            }
            if ended {
                journal = driver.into_journal();
                continue;
            }
            if before_effects {
                // The records of the last event are durable, and none of its effects happened.
                let mut nowhere = Nowhere;
                driver.handle(world.now, event, &mut nowhere).unwrap();
                journal = driver.into_journal();
                let keep = journal.entries.len().saturating_sub(torn).max(1);
                journal.entries.truncate(keep);
            } else {
                journal = driver.into_journal();
            }
            sound(&world, &journal)?;
        }
        heal(journal, &mut world)?;
    }

    /// The engine that is made from any part of a journal knows what the view says.
    #[test]
    fn any_part_of_a_journal_can_be_gone_on_with(script in script(), part in 0.0..1.0f64) {
        let mut world = scripted(&script);
        let (_, journal) = run_plan(plan_of(NODES, LIMITS), &mut world);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in a list")]
        let keep = ((journal.entries.len() as f64 * part) as usize).max(1);
        let mut cut = journal;
        cut.entries.truncate(keep);
        // The machines are further than the journal says, which no crash can bring about: at
        // worst they are looked at, or begun again.
        heal(cut, &mut world)?;
    }

    /// A journal whose records were lost, doubled or exchanged is refused, or carried on with
    /// without a wipe that the machine's own partition table doesn't allow.
    #[test]
    fn a_mangled_journal_never_makes_it_fall_over(
        script in script(),
        mangles in proptest::collection::vec(
            (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..3u8),
            1..4,
        ),
    ) {
        let mut world = scripted(&script);
        let (_, mut journal) = run_plan(plan_of(NODES, LIMITS), &mut world);
        for (a, b, how) in mangles {
            // The plan itself stays: without it there is nothing to go on with.
            let len = journal.entries.len() - 1;
            let (a, b) = (1 + a.index(len), 1 + b.index(len));
            match how {
                0 => drop(journal.entries.remove(a)),
                1 => journal.entries.insert(a, journal.entries[b].clone()),
                _ => journal.entries.swap(a, b),
            }
        }
        for (seq, entry) in (0..).zip(&mut journal.entries) {
            entry.seq = seq;
        }
        FleetView::fold(&journal.entries);
        world.twists.clear();
        if Engine::resume(&journal.entries).is_ok() {
            run_on(journal, &mut world);
            for machine in world.machines.values() {
                prop_assert!(machine.wipes <= 1);
            }
        }
    }

    #[test]
    fn the_same_script_gives_the_same_journal(script in script()) {
        let journal = |script: &[_]| {
            let (_, journal) = run_plan(plan_of(NODES, LIMITS), &mut scripted(script));
            serde_json::to_string(&journal.entries).unwrap()
        };
        prop_assert_eq!(journal(&script), journal(&script));
    }

    #[test]
    fn a_journal_survives_its_json(script in script()) {
        let (_, journal) = run_plan(plan_of(2, LIMITS), &mut scripted(&script));
        for entry in &journal.entries {
            let text = serde_json::to_string(entry).unwrap();
            let again: undercroft_model::Entry = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&again, entry);
        }
    }
}

const CLUSTER_VERBS: [&str; 7] = [
    "found", "network", "join", "ready", "secrets", "argocd", "sync",
];

/// Trouble with the steps of the cluster alone, which never take a machine back to its network
/// boot.
fn cluster_script() -> impl Strategy<Value = Vec<(usize, usize, bool, Twist)>> {
    let verbs = 0..CLUSTER_VERBS.len();
    proptest::collection::vec((0..NODES, verbs, any::<bool>(), twist()), 0..24)
}

fn cluster_world(script: &[(usize, usize, bool, Twist)]) -> Scripted {
    let mut world = Scripted::new();
    for (node, verb, act, twist) in script {
        let work = if *act { Work::Act } else { Work::Probe };
        let twist = match (work, twist) {
            (Work::Probe, Twist::DoneButAmbiguous | Twist::DoneButHangs) => Twist::Hangs,
            (_, twist) => twist.clone(),
        };
        world.twist(*node, CLUSTER_VERBS[*verb], work, twist);
    }
    world
}

/// Three servers and an agent.
fn with_cluster() -> undercroft_model::Plan {
    cluster_plan(NODES, 3, LIMITS)
}

fn cluster_heals(mut journal: Memory, world: &mut Scripted) -> Result<(), TestCaseError> {
    world.twists.clear();
    if journal.entries.is_empty() {
        journal = run_plan(with_cluster(), world).1;
    }
    let (end, journal) = run_on(journal, world);
    prop_assert_eq!(end, RunEnd::Complete);
    sound(world, &journal)?;
    for n in 0..NODES {
        let machine = &world.machines[&name(n)];
        prop_assert!(machine.joined && machine.ready);
        prop_assert_eq!(
            machine.boots,
            2,
            "a member was taken back to its network boot"
        );
    }
    prop_assert_eq!(world.machines[&name(0)].parts.len(), 4);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    /// The scripted world checks the order at every act.
    #[test]
    fn a_cluster_comes_up_in_order_whatever_goes_wrong(script in cluster_script()) {
        let mut world = cluster_world(&script);
        let (_, journal) = run_plan(with_cluster(), &mut world);
        sound(&world, &journal)?;
        cluster_heals(journal, &mut world)?;
    }

    /// The controller dies somewhere in the cluster's steps, again and again.
    #[test]
    fn a_controller_may_die_in_any_step_of_the_cluster(
        script in cluster_script(),
        lives in proptest::collection::vec(1..90usize, 1..6),
    ) {
        let mut world = cluster_world(&script);
        let mut journal = Memory::default();
        for events in lives {
            let engine = if journal.entries.is_empty() {
                Engine::new(with_cluster()).unwrap()
            } else {
                Engine::resume(&journal.entries).unwrap()
            };
            world.running.clear();
            world.ends.clear();
            let mut driver = Driver::new(engine, journal);
            let mut event = Event::Begin;
            for _ in 0..events {
                if driver.handle(world.now, event, &mut world).unwrap().is_some() {
                    break;
                }
                event = next_event(&mut world, driver.next_deadline()).expect("stuck");
            }
            journal = driver.into_journal();
        }
        cluster_heals(journal, &mut world)?;
    }
}

/// A world in which nothing happens.
struct Nowhere;

impl undercroft_engine::World for Nowhere {
    fn start(&mut self, _: undercroft_engine::Order) {}
    fn cancel(&mut self, _: undercroft_model::OpId) {}
}

#[test]
fn a_record_precedes_what_it_announces() {
    let mut engine = Engine::new(plan_of(NODES, LIMITS)).unwrap();
    let effects = engine.step(undercroft_model::Now::default(), Event::Begin);
    let mut announced = Vec::new();
    for effect in effects {
        match effect {
            undercroft_engine::Effect::Journal(Record::OpStarted { op, .. }) => announced.push(op),
            undercroft_engine::Effect::Start(order) => assert!(announced.contains(&order.op)),
            _ => {}
        }
    }
    assert_eq!(announced.len(), 2);
}
