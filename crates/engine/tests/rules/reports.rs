//! What reports do, and don't.

use super::*;

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
