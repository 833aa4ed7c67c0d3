//! Go on, carry out another plan, wait, or nothing: decided once, with a reason for each machine that waits.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what helps tests may end them"
)]

mod fleet;

use std::collections::{BTreeMap, BTreeSet};

use fleet::*;
use undercroft_model::{
    Entry, Failure, FailureKind, Found, Installed, NodeState, Observation, Plan, Record, RunEnd,
    inventory::Inventory, view::FleetView,
};
use undercroft_planner::{
    Held, LOOK_AGE_MS_MAX, Next, PlanOptions, Replaced, Scope, Waiting, Waits, next, plan, resumes,
};

fn asks(inventory: &Inventory, observation: &Observation) -> Next {
    next(
        &FleetView::default(),
        observation,
        inventory,
        &Scope::default(),
    )
    .unwrap()
}

fn waits(next: &Next) -> &Waits {
    let Next::Wait { waits, .. } = next else {
        panic!("{next:?}")
    };
    waits
}

fn journal(records: Vec<Record>) -> FleetView {
    let entries = records.into_iter().enumerate().map(|(seq, record)| Entry {
        seq: seq as u64,
        wall_ms: 0,
        record,
    });
    FleetView::fold(&entries.collect::<Vec<_>>())
}

/// A journal with that plan, and runs of it that ended so.
fn planned(plan: &Plan, ends: &[Option<RunEnd>]) -> FleetView {
    let mut records = vec![Record::PlanAccepted {
        plan: plan.clone().into(),
    }];
    for end in ends {
        records.push(Record::RunStarted {
            plan: plan.id.clone(),
            undercroft: "1".to_owned(),
        });
        records.extend(end.map(|end| Record::RunEnded { end }));
    }
    journal(records)
}

#[test]
fn each_reason_to_wait_has_its_type_and_none_is_called_well() {
    let inventory = inventory(2);
    let was_up = Installed {
        proved_up: true,
        ..Installed::default()
    };
    type Case<'a> = (Found, Option<&'a str>, fn(&Waiting) -> bool);
    let cases: [Case<'_>; 5] = [
        (
            Found::Unreachable {
                reason: "no route".into(),
            },
            None,
            |w| matches!(w, Waiting::Unreachable { reason } if reason == "no route"),
        ),
        (Found::Nothing, None, |w| {
            matches!(w, Waiting::Unreachable { .. })
        }),
        (
            Found::ForeignHostKey {
                fingerprint: "SHA256:x".into(),
            },
            None,
            |w| matches!(w, Waiting::Quarantined { .. }),
        ),
        (
            Found::Running {
                boot_id: "b".into(),
                booted_system: "/nix/store/old".into(),
                current_system: "/nix/store/old".into(),
            },
            None,
            |w| matches!(w, Waiting::Differs { .. }),
        ),
        (
            running("n00001"),
            Some("attribute missing"),
            |w| matches!(w, Waiting::FailedBuild { reasons } if reasons[0].contains("attribute missing")),
        ),
    ];
    for (found, unbuilt, is) in cases {
        let mut observation = prepared(&inventory);
        see_up(&mut observation, "n00000");
        see(&mut observation, "n00001", found.clone());
        observation.installed.insert(name("n00001"), was_up.clone());
        if let Some(why) = unbuilt {
            let why = Err(why.to_owned());
            observation.targets.insert(name("n00001"), why);
        }
        let next = asks(&inventory, &observation);
        let waits = waits(&next);
        assert_eq!(waits.len(), 1, "{found:?}");
        assert!(is(&waits[&name("n00001")]), "{waits:?}");
        assert!(!waits[&name("n00001")].sentence().is_empty());
    }
}

#[test]
fn nothing_to_do_is_said_only_of_what_was_looked_at_lately() {
    let inventory = inventory(1);
    let mut observation = prepared(&inventory);
    see_up(&mut observation, "n00000");
    for (age_ms, well) in [
        (Some(0), true),
        (Some(LOOK_AGE_MS_MAX), true),
        (Some(LOOK_AGE_MS_MAX + 1), false),
        (None, false),
    ] {
        observation.nodes.get_mut(&name("n00000")).unwrap().age_ms = age_ms;
        match asks(&inventory, &observation) {
            Next::Nothing { report, .. } => {
                assert!(well, "{age_ms:?}");
                assert_eq!(report.summary.converged, 1);
            }
            next => {
                assert!(!well, "{next:?}");
                assert_eq!(
                    waits(&next)[&name("n00000")],
                    Waiting::NotLookedAt { age_ms }
                );
            }
        }
    }
}

#[test]
fn a_plan_is_gone_on_with_only_where_all_that_it_came_from_is_the_same() {
    let two = inventory(2);
    let observation = prepared(&two);
    let (first, _) = plan(&two, &observation, None);
    let scope = Scope::default();
    let why =
        |view: &FleetView, inventory: &Inventory, observation: &Observation, scope: &Scope| {
            resumes(view, &observation.targets, inventory, scope).err()
        };
    for (ends, expected) in [
        (&[][..], None),
        (&[None], None),
        (&[Some(RunEnd::Interrupted)], None),
        (&[Some(RunEnd::Incomplete), None], None),
        (&[Some(RunEnd::Incomplete)], Some(Some(Replaced::RunEnded))),
        (
            &[None, Some(RunEnd::Complete)],
            Some(Some(Replaced::RunEnded)),
        ),
    ] {
        let view = planned(&first, ends);
        assert_eq!(why(&view, &two, &observation, &scope), expected, "{ends:?}");
    }
    let view = planned(&first, &[None]);
    // The journal has nothing.
    let nothing = FleetView::default();
    assert_eq!(why(&nothing, &two, &observation, &scope), Some(None));
    // Another inventory, though it is about the same machines; `next` carries the new plan out.
    let other = inventory_with(2, "ext4", "none", "esp_mb = 600");
    let seen = prepared(&other);

    let changed = Some(Some(Replaced::InventoryChanged));
    assert_eq!(why(&view, &other, &seen, &scope), changed);
    let Next::CarryOut { plan, replaces, .. } = next(&view, &seen, &other, &scope).unwrap() else {
        panic!("it is carried out")
    };
    assert_eq!(replaces, Some(Replaced::InventoryChanged));
    assert_eq!(plan.parent.as_ref(), Some(&first.id));
    // Another system, or none by now.
    let mut newer = observation.clone();
    let mut target = target(&name("n00001"));
    target.toplevel.push('2');
    newer.targets.insert(name("n00001"), Ok(target));
    let changed = Some(Some(Replaced::SystemsChanged));
    assert_eq!(why(&view, &two, &newer, &scope), changed);
    newer.targets.insert(name("n00001"), Err("no".to_owned()));
    assert_eq!(why(&view, &two, &newer, &scope), changed);
    // Less is asked for than it does.
    let asked = |options: PlanOptions| Scope {
        options,
        ..Scope::default()
    };
    let beyond = Some(Some(Replaced::BeyondScope));
    let one = asked(PlanOptions {
        only: Some(BTreeSet::from([name("n00000")])),
        ..PlanOptions::default()
    });
    assert_eq!(why(&view, &two, &observation, &one), beyond);
    let looks = asked(PlanOptions {
        inspect_only: true,
        ..PlanOptions::default()
    });
    assert_eq!(why(&view, &two, &observation, &looks), beyond);
    let until = asked(PlanOptions {
        until: Some(NodeState::Installed),
        ..PlanOptions::default()
    });
    assert_eq!(why(&view, &two, &observation, &until), beyond);
    // A person asks for another.
    let anew = Scope {
        replan: true,
        ..Scope::default()
    };
    let wanted = Some(Some(Replaced::Asked));
    assert_eq!(why(&view, &two, &observation, &anew), wanted);
}

#[test]
fn a_service_leaves_what_was_refused_alone_and_a_person_does_not() {
    let inventory = inventory(2);
    let observation = prepared(&inventory);
    let (first, _) = plan(&inventory, &observation, None);
    let mut later = first.clone();
    later.nodes.remove(&name("n00000"));
    later.steps.clear();
    let step = first.nodes[&name("n00000")].steps[0];
    let failed = Record::NodeFailed {
        node: name("n00000"),
        step,
        failure: Failure::new(FailureKind::Refused, "its disk isn't there"),
    };
    let accepted = |plan: &Plan| Record::PlanAccepted {
        plan: plan.clone().into(),
    };
    let ended = Record::RunEnded {
        end: RunEnd::Incomplete,
    };
    let started = Record::RunStarted {
        plan: first.id.clone(),
        undercroft: "1".to_owned(),
    };
    // Another plan came in between, without the machine.
    let view = journal(vec![
        accepted(&first),
        started,
        failed,
        ended,
        accepted(&later),
    ]);
    let decided =
        |scope: &Scope, inventory: &Inventory| match next(&view, &observation, inventory, scope)
            .unwrap()
        {
            Next::CarryOut { plan, waits, .. } => (plan.nodes.into_keys().collect(), waits),
            other => panic!("{other:?}"),
        };
    let service = Scope {
        unattended: true,
        replan: true,
        ..Scope::default()
    };
    let (nodes, left): (Vec<_>, _) = decided(&service, &inventory);
    assert_eq!(nodes, [name("n00001")]);
    let reason = "its disk isn't there".to_owned();
    assert_eq!(
        left,
        BTreeMap::from([(name("n00000"), Waiting::Refused { reason })])
    );
    let person = Scope {
        replan: true,
        ..Scope::default()
    };
    let (nodes, left): (Vec<_>, _) = decided(&person, &inventory);
    assert_eq!((nodes.len(), left.len()), (2, 0));
    // What failed a moment ago waits, too.
    let held = Held {
        reason: "no power".to_owned(),
        left_ms: 1,
    };
    let service = Scope {
        held: BTreeMap::from([(name("n00001"), held.clone())]),
        ..service
    };
    let next = next(&view, &observation, &inventory, &service).unwrap();
    assert_eq!(waits(&next)[&name("n00001")], Waiting::NextTry(held));
}
