//! What is looked at, and what is numbered, when something is done again.

use super::*;

/// After the last try too: what was done isn't given up, and nobody waits before the look.
#[test]
fn what_may_have_happened_is_looked_at_at_once() {
    for (twist, took_ms) in [
        (Twist::DoneButAmbiguous, 1_000),
        (Twist::DoneButHangs, 900_000),
    ] {
        let mut world = Scripted::new();
        for twist in [
            Twist::Fails(FailureKind::Transient),
            Twist::Fails(FailureKind::Transient),
            twist.clone(),
        ] {
            world.twist(0, "install", Work::Act, twist);
        }
        let (end, journal) = run_plan(plan_of(1, FREE), &mut world);
        assert_eq!(
            (end, failure_of(&journal, 0)),
            (RunEnd::Complete, None),
            "{twist:?}"
        );
        assert_eq!(
            verbs(&world, 0)[5..9],
            ["install 1", "install 2", "install 3", "install?"]
        );
        // Seven other steps, two tries and the look of a second each, waits of 5 and 10 seconds.
        assert_eq!(world.now.mono_ms, 10_000 + 15_000 + took_ms, "{twist:?}");
    }
}

#[test]
fn a_run_that_goes_on_numbers_its_operations_on() {
    let (_, journal) = run_plan(plan_of(2, FREE), &mut Scripted::new());
    for cut in 2..journal.entries.len() {
        // What was under way is orphaned; what the machines have done stays done.
        let mut kept = journal.clone();
        kept.entries.truncate(cut);
        let started = |journal: &Memory| -> Vec<OpId> {
            let ops = journal
                .entries
                .iter()
                .filter_map(|entry| match entry.record {
                    Record::OpStarted { op, .. } => Some(op),
                    _ => None,
                });
            ops.collect()
        };
        let before = started(&kept);
        let mut engine = Engine::resume(&kept.entries).unwrap();
        let effects = engine.step(Now::default(), Event::Begin);
        let first = effects.iter().find_map(|effect| match effect {
            Effect::Journal(Record::OpStarted { op, .. }) => Some(*op),
            _ => None,
        });
        let next = before.last().map_or(0, |op| op.0 + 1);
        assert!(first.is_none_or(|op| op == OpId(next)), "{cut}: {first:?}");
    }
}

/// Time never goes back for the engine, whatever the clock that it is told says.
#[test]
fn a_wait_is_reckoned_from_the_latest_time_that_was_seen() {
    let at = |mono_ms| Now {
        mono_ms,
        wall_ms: 0,
    };
    let mut engine = Engine::new(plan_of(1, FREE)).unwrap();
    engine.step(at(100_000), Event::Begin);
    assert_eq!(engine.next_deadline(), Some(100_000 + 600_000));
    let failure = undercroft_model::Failure::new(FailureKind::Transient, "no");
    let outcome = Outcome::Failed { failure };
    engine.step(
        at(40_000),
        Event::Ended {
            op: OpId(0),
            outcome,
        },
    );
    assert_eq!(engine.next_deadline(), Some(100_000 + 5_000));
    assert_eq!(engine.step(at(104_999), Event::Tick).len(), 0);
    assert_eq!(engine.running().count(), 0);
    engine.step(at(105_000), Event::Tick);
    assert_eq!(engine.running().collect::<Vec<_>>(), [OpId(1)]);
}

#[test]
fn a_step_that_may_be_done_already_is_looked_at_first() {
    let mut plan = plan_of(1, FREE);
    for step in [0, 2, 5] {
        plan.steps[step].probe_first = true;
    }
    plan.id = plan.content_id();
    let mut world = Scripted::new();
    let (end, _) = run_plan(plan, &mut world);
    assert_eq!(end, RunEnd::Complete);
    assert_eq!(
        verbs(&world, 0),
        [
            "network-boot?",
            "network-boot 1",
            "approve 1",
            "inspect?",
            "inspect 1",
            "partition 1",
            "copy 1",
            "install?",
            "install 1",
            "reboot 1",
            "prove 1"
        ]
    );
}
