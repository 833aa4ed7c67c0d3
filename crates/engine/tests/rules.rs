//! The engine's rules, one by one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a panic is the finding"
)]

#[path = "rules/again.rs"]
mod again;
#[path = "rules/expected.rs"]
mod expected;
#[path = "rules/reports.rs"]
mod reports;
mod world;

use undercroft_engine::{Driver, Effect, Engine, Event, ResumeError};
use undercroft_model::{
    Entry, FailureKind, NodeState, Now, OpId, Outcome, Record, Resource, RunEnd, StepId, Work,
    view::{FleetView, NodeStatus},
};
use world::{Memory, Scripted, Twist, name, next_event, plan_of, run, run_on, run_plan};

const FREE: &str = "network_boots = 100\nclosure_copies = 100\nreboots = 100\nfailure_budget = 100";

fn verbs(world: &Scripted, node: usize) -> Vec<String> {
    world
        .log
        .iter()
        .filter(|(n, ..)| *n == name(node))
        .map(|(_, verb, work, attempt)| match work {
            Work::Act => format!("{verb} {attempt}"),
            Work::Probe => format!("{verb}?"),
        })
        .collect()
}

fn failure_of(journal: &Memory, node: usize) -> Option<(StepId, FailureKind)> {
    journal
        .entries
        .iter()
        .find_map(|entry| match &entry.record {
            Record::NodeFailed {
                node: n,
                step,
                failure,
            } if *n == name(node) => Some((*step, failure.kind)),
            _ => None,
        })
}

fn count(journal: &Memory, wanted: impl Fn(&Record) -> bool) -> usize {
    journal.entries.iter().filter(|e| wanted(&e.record)).count()
}

#[test]
fn without_trouble_each_step_is_done_once() {
    let mut world = Scripted::new();
    let (end, journal) = run_plan(plan_of(2, FREE), &mut world);
    assert_eq!(end, RunEnd::Complete);
    assert_eq!(
        verbs(&world, 1),
        [
            "network-boot 1",
            "approve 1",
            "inspect 1",
            "partition 1",
            "copy 1",
            "install 1",
            "reboot 1",
            "prove 1"
        ]
    );
    let view = FleetView::fold(&journal.entries);
    assert_eq!(view.nodes[&name(0)].state, NodeState::Up);
    assert_eq!(view.nodes[&name(0)].status, NodeStatus::Done);
    assert!(!view.unfinished());
}

#[test]
fn a_transient_failure_is_tried_again_after_waits_that_double() {
    let mut world = Scripted::new();
    for _ in 0..2 {
        world.twist(
            0,
            "install",
            Work::Act,
            Twist::Fails(FailureKind::Transient),
        );
    }
    let (end, _) = run_plan(plan_of(1, FREE), &mut world);
    assert_eq!(end, RunEnd::Complete);
    assert_eq!(
        verbs(&world, 0)[5..8],
        ["install 1", "install 2", "install 3"]
    );
    // Eight steps and two more tries of a second each, and waits of 5 and 10 seconds.
    assert_eq!(world.now.mono_ms, 10_000 + 15_000);
}

#[test]
fn the_last_try_fails_the_machine_and_no_other() {
    let mut world = Scripted::new();
    for _ in 0..3 {
        world.twist(0, "copy", Work::Act, Twist::Fails(FailureKind::Transient));
    }
    let (end, journal) = run_plan(plan_of(2, FREE), &mut world);
    assert_eq!(end, RunEnd::Incomplete);
    assert_eq!(
        failure_of(&journal, 0),
        Some((StepId(4), FailureKind::Transient))
    );
    assert!(world.machines[&name(1)].up);

    // The next run tries it again, from where it stopped, and looks first.
    world.log.clear();
    let (end, _) = run_on(journal, &mut world);
    assert_eq!(end, RunEnd::Complete);
    assert_eq!(verbs(&world, 0)[..2], ["copy?", "copy 1"]);
    assert_eq!(verbs(&world, 1), Vec::<String>::new());
}

#[test]
fn what_may_have_happened_is_probed_and_not_done_twice() {
    for twist in [Twist::DoneButAmbiguous, Twist::DoneButHangs] {
        let mut world = Scripted::new();
        for verb in ["network-boot", "partition", "copy", "install", "reboot"] {
            world.twist(0, verb, Work::Act, twist.clone());
        }
        let (end, _) = run_plan(plan_of(1, FREE), &mut world);
        assert_eq!(end, RunEnd::Complete, "{twist:?}");
        assert_eq!(world.machines[&name(0)].acts, 8, "{twist:?}");
    }
}

#[test]
fn what_hangs_is_called_off_and_done_again() {
    let mut world = Scripted::new();
    world.twist(0, "partition", Work::Act, Twist::Hangs);
    world.twist(0, "partition", Work::Probe, Twist::Hangs);
    let (end, journal) = run_plan(plan_of(1, FREE), &mut world);
    assert_eq!(end, RunEnd::Complete);
    assert_eq!(
        verbs(&world, 0)[3..7],
        ["partition 1", "partition?", "partition?", "partition 2"]
    );
    let timeouts = |r: &Record| {
        matches!(
            r,
            Record::OpEnded {
                outcome: Outcome::TimedOut,
                ..
            }
        )
    };
    assert_eq!(count(&journal, timeouts), 2);
}

#[test]
fn a_machine_that_stays_out_of_sight_begins_again() {
    let mut world = Scripted::new();
    world.twist(0, "copy", Work::Act, Twist::Hangs);
    for _ in 0..3 {
        world.twist(0, "copy", Work::Probe, Twist::Fails(FailureKind::Transient));
    }
    let (end, journal) = run_plan(plan_of(1, FREE), &mut world);
    assert_eq!(end, RunEnd::Complete);
    assert_eq!(
        verbs(&world, 0)[4..9],
        ["copy 1", "copy?", "copy?", "copy?", "network-boot 1"]
    );
    let why = journal
        .entries
        .iter()
        .find_map(|entry| match &entry.record {
            Record::NodeRestarted { failure, .. } => Some(failure.message.as_str()),
            _ => None,
        });
    assert_eq!(
        why,
        Some("3 looks could not tell whether it is done; the last one: as the script says")
    );
}

#[test]
fn a_machine_that_nobody_could_approve_begins_again_at_its_network_boot() {
    // Who reported in first wasn't the machine, whose screen shows another fingerprint or nothing.
    let mut world = Scripted::new();
    for _ in 0..3 {
        world.twist(0, "approve", Work::Act, Twist::Hangs);
        world.twist(0, "approve", Work::Probe, Twist::NotDone);
    }
    let (end, journal) = run_plan(plan_of(1, FREE), &mut world);
    assert_eq!(end, RunEnd::Complete);
    assert_eq!(
        verbs(&world, 0)[..9],
        [
            "network-boot 1",
            "approve 1",
            "approve?",
            "approve 2",
            "approve?",
            "approve 3",
            "approve?",
            "network-boot 1",
            "approve 1"
        ]
    );
    assert_eq!(failure_of(&journal, 0), None);

    // Where nobody ever comes it ends, after as many restarts as the plan allows.
    let mut world = Scripted::new();
    for _ in 0..99 {
        world.twist(0, "approve", Work::Act, Twist::Hangs);
        world.twist(0, "approve", Work::Probe, Twist::NotDone);
    }
    let (end, journal) = run_plan(
        plan_of(1, &format!("{FREE}\nnode_restarts = 2")),
        &mut world,
    );
    assert_eq!(end, RunEnd::Incomplete);
    let approvals = verbs(&world, 0).into_iter();
    assert_eq!(
        approvals
            .filter(|verb| verb.starts_with("approve "))
            .count(),
        9
    );
    assert_eq!(
        failure_of(&journal, 0),
        Some((StepId(1), FailureKind::Ambiguous))
    );
}

#[test]
fn a_network_boot_that_stays_out_of_sight_ends_the_machine() {
    let mut world = Scripted::new();
    world.twist(0, "network-boot", Work::Act, Twist::Hangs);
    for _ in 0..3 {
        world.twist(
            0,
            "network-boot",
            Work::Probe,
            Twist::Fails(FailureKind::Transient),
        );
    }
    let (end, journal) = run_plan(plan_of(1, FREE), &mut world);
    assert_eq!(end, RunEnd::Incomplete);
    assert_eq!(
        failure_of(&journal, 0),
        Some((StepId(0), FailureKind::Transient))
    );
}

#[test]
fn a_power_cut_begins_again_with_a_new_approval_and_without_a_second_wipe() {
    let mut world = Scripted::new();
    world.twist(0, "copy", Work::Act, Twist::PowerCut);
    let (end, journal) = run_plan(plan_of(1, FREE), &mut world);
    assert_eq!(end, RunEnd::Complete);
    let machine = &world.machines[&name(0)];
    assert_eq!((machine.wipes, machine.boots), (1, 3));
    let approvals: Vec<_> = journal
        .entries
        .iter()
        .filter_map(|entry| match &entry.record {
            Record::OpEnded {
                outcome:
                    Outcome::Done {
                        evidence: undercroft_model::Evidence::Approved { approval, .. },
                    },
                ..
            } => Some(approval.fingerprint.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(approvals, ["SHA256:n00000-boot-1", "SHA256:n00000-boot-2"]);
}

#[test]
fn restarts_are_bounded() {
    let mut world = Scripted::new();
    for _ in 0..9 {
        world.twist(0, "install", Work::Act, Twist::PowerCut);
    }
    let (end, journal) = run_plan(
        plan_of(1, &format!("{FREE}\nnode_restarts = 2")),
        &mut world,
    );
    assert_eq!(end, RunEnd::Incomplete);
    let restarts = |r: &Record| matches!(r, Record::NodeRestarted { .. });
    assert_eq!(count(&journal, restarts), 2);
    assert_eq!(
        failure_of(&journal, 0),
        Some((StepId(5), FailureKind::PreconditionLost))
    );
    assert_eq!(world.machines[&name(0)].wipes, 1);
}

#[test]
fn a_refusal_is_for_good_and_anything_else_is_tried_by_the_next_run() {
    let mut world = Scripted::new();
    world.twist(0, "inspect", Work::Act, Twist::Fails(FailureKind::Refused));
    world.twist(
        1,
        "inspect",
        Work::Act,
        Twist::Fails(FailureKind::Permanent),
    );
    let (end, journal) = run_plan(plan_of(2, FREE), &mut world);
    assert_eq!(end, RunEnd::Incomplete);
    let view = FleetView::fold(&journal.entries);
    assert_eq!(view.nodes[&name(0)].status, NodeStatus::Quarantined);
    assert_eq!(view.nodes[&name(1)].status, NodeStatus::Failed);
    world.log.clear();
    let (end, journal) = run_on(journal, &mut world);
    assert_eq!(end, RunEnd::Incomplete);
    assert_eq!(verbs(&world, 0), Vec::<String>::new());
    assert!(world.machines[&name(1)].up && !world.machines[&name(0)].up);
    let view = FleetView::fold(&journal.entries);
    assert_eq!(view.nodes[&name(0)].status, NodeStatus::Quarantined);
}

#[test]
fn limits_are_kept_and_the_lowest_step_goes_first() {
    let mut world = Scripted::new();
    let plan = plan_of(9, "network_boots = 3\nclosure_copies = 2\nreboots = 1");
    let (end, _) = run_plan(plan, &mut world);
    assert_eq!(end, RunEnd::Complete);
    assert_eq!(world.most_held[&Resource::NetworkBoot], 3);
    assert_eq!(world.most_held[&Resource::ClosureCopy], 2);
    assert_eq!(world.most_held[&Resource::Reboot], 1);
    let boots: Vec<_> = world
        .log
        .iter()
        .filter(|(_, verb, ..)| *verb == "network-boot")
        .map(|(node, ..)| node.clone())
        .collect();
    assert!(boots.is_sorted());
}

#[test]
fn beyond_the_failure_budget_no_machine_is_begun_and_those_under_way_finish() {
    let mut world = Scripted::new();
    for node in [0, 1] {
        world.twist(
            node,
            "inspect",
            Work::Act,
            Twist::Fails(FailureKind::Permanent),
        );
    }
    let plan = plan_of(6, "network_boots = 3\nfailure_budget = 1");
    let (end, journal) = run_plan(plan, &mut world);
    assert_eq!(end, RunEnd::Incomplete);
    let stops = |r: &Record| matches!(r, Record::RolloutStopped { failed: 2, .. });
    assert_eq!(count(&journal, stops), 1);
    let up: Vec<bool> = (0..6)
        .map(|n| world.machines.get(&name(n)).is_some_and(|m| m.up))
        .collect();
    // Machines 3 and 4 had begun when the budget was spent.
    assert_eq!(up, [false, false, true, true, true, true]);
}

#[test]
fn a_spent_budget_leaves_the_queue_standing() {
    let mut world = Scripted::new();
    world.twist(
        0,
        "network-boot",
        Work::Act,
        Twist::Fails(FailureKind::Permanent),
    );
    let plan = plan_of(4, "network_boots = 1\nfailure_budget = 0");
    let (end, journal) = run_plan(plan, &mut world);
    assert_eq!(end, RunEnd::Incomplete);
    assert_eq!(world.machines.len(), 1);
    // The next run takes all of them up.
    let (end, _) = run_on(journal, &mut world);
    assert_eq!(end, RunEnd::Complete);
}

#[test]
fn an_interrupt_calls_everything_off_and_the_next_run_goes_on() {
    let mut world = Scripted::new();
    let mut driver = Driver::new(Engine::new(plan_of(3, FREE)).unwrap(), Memory::default());
    let mut event = Event::Begin;
    for _ in 0..10 {
        assert_eq!(driver.handle(world.now, event, &mut world).unwrap(), None);
        event = next_event(&mut world, driver.next_deadline()).unwrap();
    }
    let end = driver.handle(world.now, Event::Interrupt, &mut world);
    assert_eq!(end.unwrap(), Some(RunEnd::Interrupted));
    assert!(world.ends.is_empty(), "something runs on");
    let late = driver.handle(world.now, event, &mut world).unwrap();
    assert_eq!(late, None);
    let (end, _) = run_on(driver.into_journal(), &mut world);
    assert_eq!(end, RunEnd::Complete);
}

#[test]
fn a_run_that_winds_down_begins_nothing_and_lets_what_runs_come_to_its_end() {
    let begun = |driver: &Driver<Memory>| {
        count(driver.journal(), |record| {
            matches!(record, Record::OpStarted { .. })
        })
    };
    // A journal's operations that were called off, and those that ended.
    let ended = |driver: &Driver<Memory>| {
        let called_off = count(driver.journal(), |record| {
            let outcome = match record {
                Record::OpEnded { outcome, .. } => outcome,
                _ => return false,
            };
            matches!(outcome, Outcome::Orphaned)
        });
        let all = count(driver.journal(), |record| {
            matches!(record, Record::OpEnded { .. })
        });
        (called_off, all - called_off)
    };
    let mut seen = (0, 0);
    for events in 1..40 {
        let mut world = Scripted::new();
        world.twist(0, "copy", Work::Act, Twist::Fails(FailureKind::Transient));
        let plan = plan_of(3, "network_boots = 2\nclosure_copies = 1\nreboots = 1");
        let mut driver = Driver::new(Engine::new(plan).unwrap(), Memory::default());
        let mut event = Event::Begin;
        let mut end = None;
        for _ in 0..events {
            end = driver.handle(world.now, event.clone(), &mut world).unwrap();
            match next_event(&mut world, driver.next_deadline()) {
                Some(next) => event = next,
                None => break,
            }
        }
        if end.is_some() {
            break;
        }
        let (started, before) = (begun(&driver), ended(&driver));
        end = driver
            .handle(world.now, Event::WindDown, &mut world)
            .unwrap();
        let called_off = ended(&driver).0 - before.0;
        while end.is_none() {
            end = driver.handle(world.now, event, &mut world).unwrap();
            event = match next_event(&mut world, driver.next_deadline()) {
                Some(event) => event,
                None => break,
            };
        }
        // Where only the last operations ran, the plan is done with them.
        match end {
            Some(RunEnd::Complete) => assert!(events > 20, "{events}"),
            end => assert_eq!(end, Some(RunEnd::Interrupted), "{events}"),
        }
        assert_eq!(begun(&driver), started, "{events}: something was begun");
        assert!(driver.engine().faults().is_empty(), "{events}");
        let after = ended(&driver);
        assert_eq!(
            after.0 - before.0,
            called_off,
            "{events}: what runs is called off at once or never"
        );
        seen = (seen.0.max(called_off), seen.1.max(after.1 - before.1));
        let (end, _) = run_on(driver.into_journal(), &mut world);
        assert_eq!(end, RunEnd::Complete, "{events}");
    }
    // Approvals that were waited for, and work that went on to its end.
    assert!(seen.0 > 0 && seen.1 > 0, "{seen:?}");
}

#[test]
fn an_approval_that_ran_out_is_asked_for_anew() {
    let mut world = Scripted::new();
    world.approval_ms = Some(4_000);
    // The first connection can't be made in time; the second approval is used at once.
    world.twist(
        0,
        "inspect",
        Work::Act,
        Twist::Fails(FailureKind::Transient),
    );
    let (end, _) = run_plan(plan_of(1, FREE), &mut world);
    assert_eq!(end, RunEnd::Complete);
    assert_eq!(
        verbs(&world, 0)[..6],
        [
            "network-boot 1",
            "approve 1",
            "inspect 1",
            "approve 1",
            "inspect 1",
            "partition 1"
        ]
    );
}

#[test]
fn a_wall_clock_that_jumps_ends_an_approval() {
    for jump in [i64::from(u32::MAX), -3_600_000] {
        let mut world = Scripted::new();
        let mut driver = Driver::new(Engine::new(plan_of(1, FREE)).unwrap(), Memory::default());
        world.twist(
            0,
            "inspect",
            Work::Act,
            Twist::Fails(FailureKind::Transient),
        );
        let mut event = Event::Begin;
        for _ in 0..3 {
            driver.handle(world.now, event, &mut world).unwrap();
            event = next_event(&mut world, driver.next_deadline()).unwrap();
        }
        world.now.wall_ms = world.now.wall_ms.saturating_add_signed(jump);
        loop {
            if let Some(end) = driver.handle(world.now, event, &mut world).unwrap() {
                assert_eq!(end, RunEnd::Complete);
                break;
            }
            event = next_event(&mut world, driver.next_deadline()).unwrap();
        }
        assert_eq!(
            verbs(&world, 0)[1..5],
            ["approve 1", "inspect 1", "approve 1", "inspect 1"]
        );
    }
}

/// Runs until the first machine's copy is under way.
fn until_copy(world: &mut Scripted) -> Driver<Memory> {
    let mut driver = Driver::new(Engine::new(plan_of(1, FREE)).unwrap(), Memory::default());
    let mut event = Event::Begin;
    while verbs(world, 0).last().map(String::as_str) != Some("copy 1") {
        driver.handle(world.now, event, world).unwrap();
        if verbs(world, 0).last().map(String::as_str) != Some("copy 1") {
            event = next_event(world, driver.next_deadline()).unwrap();
        } else {
            break;
        }
    }
    driver
}

fn finish(driver: &mut Driver<Memory>, world: &mut Scripted) -> RunEnd {
    loop {
        let event = next_event(world, driver.next_deadline()).unwrap();
        if let Some(end) = driver.handle(world.now, event, world).unwrap() {
            return end;
        }
    }
}

#[test]
fn evidence_that_proves_something_else_is_a_failure_in_the_journal() {
    let plan = plan_of(1, FREE);
    let mut engine = Engine::new(plan.clone()).unwrap();
    let now = Now::default();
    engine.step(now, Event::Begin);
    let mut report = Scripted::new().report(&plan, &name(0));
    report.macs = vec!["52:54:00:ff:ff:ff".parse().unwrap()];
    let outcome = Outcome::Done {
        evidence: undercroft_model::Evidence::Seen {
            report: Box::new(report),
        },
    };
    let effects = engine.step(
        now,
        Event::Ended {
            op: OpId(0),
            outcome,
        },
    );
    let refused = effects.iter().any(|effect| {
        matches!(
            effect,
            Effect::Journal(Record::OpEnded {
                outcome: Outcome::Failed { failure },
                ..
            }) if failure.kind == FailureKind::Refused
        )
    });
    assert!(refused, "{effects:?}");
    assert_eq!(engine.finished(), Some(RunEnd::Incomplete));
}

#[test]
fn nothing_is_started_when_the_journal_is_full() {
    let mut world = Scripted::new();
    let mut driver = until_copy(&mut world);
    let started = world.log.len();
    let mut journal = driver.into_journal();
    journal.full = true;
    let engine = Engine::resume(&journal.entries).unwrap();
    driver = Driver::new(engine, journal);
    let error = driver
        .handle(world.now, Event::Begin, &mut world)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the journal can't be written: no space left on device"
    );
    assert_eq!(world.log.len(), started);
    assert_eq!(
        driver.handle(world.now, Event::Tick, &mut world),
        Err(error)
    );
}

#[test]
fn one_event_is_one_append() {
    let mut world = Scripted::new();
    let mut driver = Driver::new(Engine::new(plan_of(5, FREE)).unwrap(), Memory::default());
    driver.handle(world.now, Event::Begin, &mut world).unwrap();
    assert_eq!(driver.journal().appends, 1);
    assert_eq!(driver.journal().entries.len(), 2 + 5);
}

#[test]
fn a_journal_that_contradicts_itself_is_not_gone_on_with() {
    let mut world = Scripted::new();
    let (_, journal) = run_plan(plan_of(1, FREE), &mut world);
    assert_eq!(
        Engine::resume(Vec::<Entry>::new()).unwrap_err(),
        ResumeError::NoPlan
    );
    let mut missing = journal.entries.clone();
    missing.remove(4);
    let error = Engine::resume(&missing).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the journal contradicts itself at record 5: the records before it are missing"
    );
    let mut twice = journal.entries.clone();
    twice[3].record = twice[2].record.clone();
    let error = Engine::resume(&twice).unwrap_err();
    assert!(matches!(error, ResumeError::Contradiction { seq: 3, .. }));
    let newer = Entry {
        seq: 0,
        wall_ms: 0,
        record: Record::Opened {
            version: 99,
            fleet: "cellar".to_owned(),
        },
    };
    assert_eq!(
        Engine::resume([newer]).unwrap_err(),
        ResumeError::Version { found: 99 }
    );
}

#[test]
fn a_plan_with_errors_is_refused() {
    let mut plan = plan_of(1, FREE);
    plan.steps[3].destroys[0].serial = Some("OTHER".to_owned());
    plan.id = plan.content_id();
    let error = Engine::new(plan).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("destroys a disk that it doesn't name"),
        "{error}"
    );
}

#[test]
fn operations_are_never_numbered_twice_in_one_journal() {
    let mut world = Scripted::new();
    let (_, journal) = run_plan(plan_of(1, FREE), &mut world);
    let view = FleetView::fold(&journal.entries);
    assert_eq!(view.next_op(), OpId(8));
    let engine = Engine::new(plan_of(1, FREE))
        .unwrap()
        .numbered_from(view.next_op());
    let mut driver = Driver::new(engine, journal);
    let mut world = Scripted::new();
    run(&mut driver, &mut world);
    let ops: Vec<OpId> = driver
        .journal()
        .entries
        .iter()
        .filter_map(|entry| match entry.record {
            Record::OpStarted { op, .. } => Some(op),
            _ => None,
        })
        .collect();
    assert_eq!(ops, (0..16).map(OpId).collect::<Vec<_>>());
}
