//! What reports do, and don't.

use undercroft_model::{InstallerReport, Plan};

use super::*;
use crate::world::cluster_plan;

#[test]
fn a_report_of_a_new_boot_calls_off_nothing_and_what_is_pinned_decides() {
    let mut world = Scripted::new();
    world.twist(0, "copy", Work::Act, Twist::PowerCut);
    let mut driver = until_copy(&mut world);
    // It lost its power and came back by itself. Its report says so; the copy under way finds out.
    let mut report = world.report(driver.engine().plan(), &name(0));
    report.boot_id = "another".to_owned();
    report.fingerprint = "SHA256:another".to_owned();
    let event = Event::Reported {
        node: name(0),
        report: Box::new(report),
    };
    let before = world.log.len();
    for _ in 0..3 {
        driver.handle(world.now, event.clone(), &mut world).unwrap();
    }
    assert_eq!(world.log.len(), before, "a report starts nothing here");
    assert_eq!(finish(&mut driver, &mut world), RunEnd::Complete);
    let restarts = |r: &Record| matches!(r, Record::NodeRestarted { .. });
    assert_eq!(count(&driver.into_journal(), restarts), 1);
    assert_eq!(world.machines[&name(0)].wipes, 1);
}

/// What the journal says of everything but the reports that weren't believed.
fn deeds(journal: &Memory) -> Vec<String> {
    let deeds = journal.entries.iter().map(|entry| &entry.record);
    deeds
        .filter(|record| !matches!(record, Record::Quarantined { .. }))
        .map(|record| format!("{record:?}"))
        .collect()
}

#[test]
fn forged_reports_at_any_moment_change_nothing_that_is_done() {
    let calm = run_plan(plan_of(2, FREE), &mut Scripted::new());
    let mut world = Scripted::new();
    let mut driver = Driver::new(Engine::new(plan_of(2, FREE)).unwrap(), Memory::default());
    let mut event = Event::Begin;
    let mut forged = 0_u32;
    let end = loop {
        if let Some(end) = driver.handle(world.now, event, &mut world).unwrap() {
            break end;
        }
        for node in [0, 1] {
            for fresh in [true, false] {
                let mut report = world.report(driver.engine().plan(), &name(node));
                report.fingerprint = format!("SHA256:forged-{forged}");
                if fresh {
                    report.boot_id = format!("forged-{forged}");
                }
                forged += 1;
                let event = Event::Reported {
                    node: name(node),
                    report: Box::new(report),
                };
                driver.handle(world.now, event, &mut world).unwrap();
            }
        }
        event = next_event(&mut world, driver.next_deadline()).unwrap();
    };
    assert!(forged > 50, "{forged}");
    assert_eq!(end, calm.0);
    assert_eq!(deeds(&driver.into_journal()), deeds(&calm.1));
}

#[test]
fn a_hint_has_a_look_taken_early_once_and_never_the_last_one() {
    let mut world = Scripted::new();
    world.twist(0, "copy", Work::Act, Twist::Fails(FailureKind::Ambiguous));
    for _ in 0..9 {
        world.twist(0, "copy", Work::Probe, Twist::Fails(FailureKind::Transient));
    }
    let mut driver = until_copy(&mut world);
    let hint = |world: &Scripted, driver: &Driver<Memory>| {
        let mut report = world.report(driver.engine().plan(), &name(0));
        report.boot_id = "another".to_owned();
        report.fingerprint = "SHA256:another".to_owned();
        Event::Reported {
            node: name(0),
            report: Box::new(report),
        }
    };
    while !verbs(&world, 0).contains(&"copy?".to_owned()) {
        let event = next_event(&mut world, driver.next_deadline()).unwrap();
        driver.handle(world.now, event, &mut world).unwrap();
    }
    // The probe fails to tell; then the machine waits.
    let event = next_event(&mut world, driver.next_deadline()).unwrap();
    driver.handle(world.now, event, &mut world).unwrap();
    let looks = |world: &Scripted| verbs(world, 0).iter().filter(|v| *v == "copy?").count();
    assert_eq!(looks(&world), 1);
    let event = hint(&world, &driver);
    driver.handle(world.now, event, &mut world).unwrap();
    assert_eq!(looks(&world), 2, "the look is taken now");
    let event = next_event(&mut world, driver.next_deadline()).unwrap();
    driver.handle(world.now, event, &mut world).unwrap();
    for _ in 0..20 {
        let event = hint(&world, &driver);
        driver.handle(world.now, event, &mut world).unwrap();
    }
    assert_eq!(looks(&world), 2, "and only once");
}

#[test]
fn an_approval_chooses_among_those_who_claim_to_be_the_machine() {
    let plan = plan_of(1, FREE);
    let mut engine = Engine::new(plan.clone()).unwrap();
    let now = Now::default();
    engine.step(now, Event::Begin);
    let machine = Scripted::new().report(&plan, &name(0));
    let mut forged = machine.clone();
    forged.boot_id = "forged".to_owned();
    forged.fingerprint = "SHA256:forged".to_owned();
    let mut other = machine.clone();
    other.macs = vec!["52:54:00:ff:ff:ff".parse().unwrap()];
    let ended = |engine: &mut Engine, evidence| {
        let op = engine.running().next().unwrap();
        let outcome = Outcome::Done { evidence };
        engine.step(now, Event::Ended { op, outcome })
    };
    let report = Box::new(forged);
    ended(&mut engine, undercroft_model::Evidence::Seen { report });
    let approval = undercroft_model::Approval {
        fingerprint: machine.fingerprint.clone(),
        by: "operator ada".to_owned(),
        granted_wall_ms: 0,
        expires_wall_ms: 900_000,
    };
    let approved = |report: &undercroft_model::InstallerReport| {
        let (approval, report) = (approval.clone(), Some(Box::new(report.clone())));
        undercroft_model::Evidence::Approved { approval, report }
    };
    // A report of another machine is none of this one's, whoever approved it.
    let effects = ended(&mut engine, approved(&other));
    let failed = |effect: &Effect| {
        matches!(
            effect,
            Effect::Journal(Record::OpEnded {
                outcome: Outcome::Failed { .. },
                ..
            })
        )
    };
    assert!(effects.iter().any(failed), "{effects:?}");
    engine.step(
        Now {
            mono_ms: 3_600_000,
            wall_ms: 0,
        },
        Event::Tick,
    );
    let effects = ended(&mut engine, approved(&machine));
    let order = effects.iter().find_map(|effect| match effect {
        Effect::Start(order) => Some(order.facts.clone()),
        _ => None,
    });
    let facts = order.unwrap();
    assert_eq!(facts.boot_id.as_ref(), Some(&machine.boot_id));
    assert_eq!(facts.report, Some(machine));
    assert_eq!(facts.approval, Some(approval));
}

#[test]
fn a_report_that_clashes_is_quarantined_and_changes_nothing() {
    let mut world = Scripted::new();
    let mut driver = until_copy(&mut world);
    let good = world.report(driver.engine().plan(), &name(0));
    let mut other_key = good.clone();
    other_key.fingerprint = "SHA256:forged".to_owned();
    let mut other_machine = good.clone();
    other_machine.macs = vec!["52:54:00:ff:ff:ff".parse().unwrap()];
    let mut stolen_key = good;
    stolen_key.boot_id = "another".to_owned();
    for report in [other_key, other_machine, stolen_key] {
        for _ in 0..20 {
            let event = Event::Reported {
                node: name(0),
                report: Box::new(report.clone()),
            };
            driver.handle(world.now, event, &mut world).unwrap();
        }
    }
    assert_eq!(finish(&mut driver, &mut world), RunEnd::Complete);
    let journal = driver.into_journal();
    let quarantined = |r: &Record| matches!(r, Record::Quarantined { .. });
    assert_eq!(
        count(&journal, quarantined),
        8,
        "a flood must not fill the journal"
    );
    assert_eq!(world.machines[&name(0)].boots, 2);
}

/// Runs until an act of that step of the first machine is under way, for the so-manieth time.
fn until(plan: Plan, world: &mut Scripted, verb: &str, times: usize) -> Driver<Memory> {
    let mut driver = Driver::new(Engine::new(plan).unwrap(), Memory::default());
    let mut event = Event::Begin;
    loop {
        driver.handle(world.now, event, world).unwrap();
        let acts = world
            .log
            .iter()
            .filter(|(node, v, work, _)| *node == name(0) && *v == verb && *work == Work::Act);
        if acts.count() == times {
            return driver;
        }
        event = next_event(world, driver.next_deadline()).unwrap();
    }
}

/// Hands a report of the first machine's in, and gives why it was quarantined, if it was. Nothing
/// else may follow from it.
fn quarantined(
    driver: &mut Driver<Memory>,
    world: &mut Scripted,
    report: InstallerReport,
) -> Option<String> {
    let (records, started) = (driver.journal().entries.len(), world.log.len());
    let event = Event::Reported {
        node: name(0),
        report: Box::new(report.clone()),
    };
    assert_eq!(driver.handle(world.now, event, world).unwrap(), None);
    assert_eq!(world.log.len(), started);
    match &driver.journal().entries[records..] {
        [] => None,
        [entry] => match &entry.record {
            Record::Quarantined {
                node,
                report: kept,
                reason,
            } => {
                assert_eq!((node, &**kept), (&name(0), &report));
                Some(reason.clone())
            }
            other => panic!("{other:?}"),
        },
        more => panic!("{more:?}"),
    }
}

/// A report, changed.
fn but(report: &InstallerReport, change: impl FnOnce(&mut InstallerReport)) -> InstallerReport {
    let mut report = report.clone();
    change(&mut report);
    report
}

#[test]
fn a_report_is_judged_by_its_boot_its_key_and_its_identity() {
    let mut world = Scripted::new();
    // The first boot of its installer is over: the machine has lost its power and begun again.
    world.twist(0, "copy", Work::Act, Twist::PowerCut);
    let first = {
        let mut world = Scripted::new();
        let driver = until(plan_of(1, FREE), &mut world, "copy", 1);
        world.report(driver.engine().plan(), &name(0))
    };
    let mut driver = until(plan_of(1, FREE), &mut world, "copy", 2);
    let now = world.report(driver.engine().plan(), &name(0));
    assert_ne!(first.boot_id, now.boot_id);
    let key = |text: &str| format!("SHA256:{text}");
    for (report, why) in [
        // The same boot's again, and a late one of the boot before, whoever sent that.
        (now.clone(), None),
        (first.clone(), None),
        (but(&first, |r| r.fingerprint = key("forged")), None),
        (
            but(&first, |r| r.fingerprint.clone_from(&now.fingerprint)),
            None,
        ),
        // A boot that is new may be one.
        (
            but(&now, |r| {
                r.boot_id = "another".to_owned();
                r.fingerprint = key("another");
            }),
            None,
        ),
        // Nobody has two keys in one boot, or one key in two.
        (
            but(&now, |r| r.fingerprint = key("forged")),
            Some("it claims the boot"),
        ),
        (
            but(&now, |r| r.boot_id = "another".to_owned()),
            Some("it claims the key"),
        ),
        // Another machine's, whatever else it says.
        (
            but(&now, |r| {
                r.macs = vec!["52:54:00:ff:ff:ff".parse().unwrap()]
            }),
            Some("names none of the machine's Ethernet addresses"),
        ),
        (
            but(&first, |r| r.macs.clear()),
            Some("names none of the machine's Ethernet addresses"),
        ),
    ] {
        let found = quarantined(&mut driver, &mut world, report.clone());
        let said = why.is_some_and(|why| found.as_deref().unwrap_or_default().contains(why));
        assert_eq!(found.is_some(), why.is_some(), "{report:?} {found:?}");
        assert_eq!(said, why.is_some(), "{found:?}");
    }
    assert_eq!(finish(&mut driver, &mut world), RunEnd::Complete);
}

#[test]
fn a_report_is_judged_until_its_machine_runs_its_own_system() {
    let plan = cluster_plan(1, 1, FREE);
    let mut judged = Vec::new();
    for step in &plan.steps {
        let mut world = Scripted::new();
        let mut driver = until(plan.clone(), &mut world, step.action.verb(), 1);
        let report = world.report(&plan, &name(0));
        let other = but(&report, |r| r.macs.clear());
        let quarantined = quarantined(&mut driver, &mut world, other).is_some();
        assert_eq!(quarantined, step.requires < NodeState::Up, "{step:?}");
        if quarantined {
            judged.push(step.action.verb());
        }
    }
    assert_eq!(judged.first(), Some(&"network-boot"));
    assert_eq!(judged.last(), Some(&"prove"));
}

#[test]
fn a_report_means_nothing_before_a_run_after_it_and_of_no_machine_of_the_plan() {
    let plan = plan_of(2, "failure_budget = 100");
    let other = but(&Scripted::new().report(&plan, &name(0)), |r| r.macs.clear());
    let event = |node| Event::Reported {
        node,
        report: Box::new(other.clone()),
    };
    let mut engine = Engine::new(plan.clone()).unwrap();
    assert!(engine.step(Now::default(), event(name(0))).is_empty());
    engine.step(Now::default(), Event::Begin);
    assert!(engine.step(Now::default(), event(name(7))).is_empty());
    assert_eq!(engine.step(Now::default(), event(name(0))).len(), 1);
    // One that has failed has no step any more that a report could be about.
    let mut world = Scripted::new();
    let kind = FailureKind::Permanent;
    world.twist(0, "inspect", Work::Act, Twist::Fails(kind));
    let mut driver = Driver::new(Engine::new(plan).unwrap(), Memory::default());
    let mut next = Event::Begin;
    while failure_of(driver.journal(), 0).is_none() {
        driver.handle(world.now, next, &mut world).unwrap();
        next = next_event(&mut world, driver.next_deadline()).unwrap();
    }
    assert_eq!(quarantined(&mut driver, &mut world, other), None);
}
