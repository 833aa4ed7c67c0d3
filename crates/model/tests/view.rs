//! The fold of a journal: what it shows, and that nothing makes it fall over.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a panic is the finding"
)]

#[path = "view/moves.rs"]
mod moves;

use proptest::prelude::*;
use serde_json::json;
use undercroft_model::{
    Entry, Evidence, Failure, FailureKind, NodeName, NodeState, OpId, Outcome, Plan, Record,
    RunEnd, StepId, Work,
    view::{FleetView, NodeStatus, Waits},
};

fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

/// Two machines of three steps each: boot, reboot and prove.
fn plan() -> Plan {
    let step = |id: u32, node: &str, action, after: &[u32], requires, reaches, resource| {
        json!({
            "id": id, "node": node, "requires": requires, "reaches": reaches, "action": action,
            "after": after, "resource": resource, "timeout_ms": 1000,
            "retry": { "attempts_max": 3, "backoff_ms": 1, "backoff_ms_max": 1 },
            "destroys": [], "delivers_secrets": false, "restart_from": null,
        })
    };
    let mut steps = Vec::new();
    for (node, first) in [("a", 0), ("b", 3)] {
        let (boot, reboot) = (json!("network-boot"), json!("reboot"));
        let key = "SHA256:host";
        let actions = [
            (json!({ "do": "network-boot" }), boot),
            (
                json!({ "do": "reboot", "host_key_fingerprint": key }),
                reboot,
            ),
            (
                json!({ "do": "prove", "toplevel": "/s", "host_key_fingerprint": key }),
                json!(null),
            ),
        ];
        let states = ["unknown", "seen", "rebooted", "up"];
        for (place, (action, resource)) in actions.into_iter().enumerate() {
            let id = first + u32::try_from(place).unwrap();
            let after: &[u32] = if place == 0 { &[] } else { &[id - 1] };
            let (requires, reaches) = (states[place], states[place + 1]);
            steps.push(step(id, node, action, after, requires, reaches, resource));
        }
    }
    let node = |steps: &[u32], address| {
        json!({
            "macs": [], "system": "x86_64-linux", "uuid": null, "address": address, "steps": steps, "not_applicable": {},
            "target": { "toplevel": "/s", "system": "x86_64-linux" },
        })
    };
    serde_json::from_value(json!({
        "id": "plan", "version": 1, "parent": null, "fleet": "cellar", "inventory_digest": "d",
        "limits": {
            "concurrency": { "network-boot": 1, "closure-copy": 1, "reboot": 1 },
            "failure_budget": 1, "node_restarts_max": 3,
        },
        "nodes": { "a": node(&[0, 1, 2], "10.0.0.1"), "b": node(&[3, 4, 5], "10.0.0.2") },
        "steps": steps,
    }))
    .unwrap()
}

fn entries(records: impl IntoIterator<Item = Record>) -> Vec<Entry> {
    (0..)
        .zip(records)
        .map(|(seq, record)| Entry {
            seq,
            wall_ms: 1000 + seq * 10,
            record,
        })
        .collect()
}

fn begun() -> Vec<Record> {
    vec![
        Record::Opened {
            version: 1,
            fleet: "cellar".to_owned(),
        },
        Record::PlanAccepted {
            plan: std::sync::Arc::new(plan()),
        },
        Record::RunStarted {
            plan: plan().id,
            undercroft: "0.1.0".to_owned(),
        },
    ]
}

fn started(op: u64, step: u32) -> Record {
    Record::OpStarted {
        op: OpId(op),
        step: StepId(step),
        work: Work::Act,
        attempt: 1,
    }
}

fn ended(op: u64, step: u32, outcome: Outcome) -> Record {
    Record::OpEnded {
        op: OpId(op),
        step: StepId(step),
        outcome,
    }
}

fn done(op: u64, step: u32) -> Record {
    let boot_id = "boot".to_owned();
    let evidence = match step % 3 {
        0 | 1 => Evidence::Rebooted { boot_id },
        _ => Evidence::Up {
            boot_id,
            booted_system: "/s".to_owned(),
            host_key_fingerprint: "SHA256:host".to_owned(),
        },
    };
    ended(op, step, Outcome::Done { evidence })
}

fn failed(kind: FailureKind) -> Outcome {
    Outcome::Failed {
        failure: Failure::new(kind, "no"),
    }
}

#[test]
fn it_shows_where_each_machine_stands() {
    let mut records = begun();
    records.extend([started(0, 0)]);
    let mut view = FleetView::fold(&entries(records.clone()));
    let (a, b) = (name("a"), name("b"));
    assert_eq!(view.nodes[&a].status, NodeStatus::Running);
    assert_eq!(view.nodes[&b].status, NodeStatus::Planned);
    assert_eq!(
        serde_json::to_value(&view.nodes[&b].waits).unwrap(),
        json!({ "for": "resource", "resource": "network-boot" })
    );
    assert!(view.in_flight() && view.unfinished());
    assert_eq!(view.next_op(), OpId(1));

    records.push(ended(0, 0, failed(FailureKind::Transient)));
    view = FleetView::fold(&entries(records.clone()));
    assert_eq!(view.nodes[&a].waits, Some(Waits::NextTry));

    records.extend([started(1, 0), done(1, 0), started(2, 1), done(2, 1)]);
    records.extend([started(3, 2), done(3, 2)]);
    view = FleetView::fold(&entries(records.clone()));
    assert_eq!(view.nodes[&a].status, NodeStatus::Done);
    assert_eq!(view.nodes[&a].state, NodeState::Up);
    assert_eq!(view.nodes[&a].booted_system.as_deref(), Some("/s"));
    assert_eq!(view.nodes[&a].phases["network-boot"].operations, 2);
    assert_eq!(view.nodes[&a].phases["network-boot"].busy_ms, 20);
    assert_eq!(view.nodes[&a].total_ms(), Some(70));

    records.extend([
        started(4, 3),
        ended(4, 3, failed(FailureKind::Refused)),
        Record::NodeFailed {
            node: b.clone(),
            step: StepId(3),
            failure: Failure::new(FailureKind::Refused, "no"),
        },
        Record::RunEnded {
            end: RunEnd::Incomplete,
        },
    ]);
    view = FleetView::fold(&entries(records));
    assert_eq!(view.nodes[&b].status, NodeStatus::Quarantined);
    let counts = view.counts();
    assert_eq!((counts.done, counts.quarantined), (1, 1));
    assert!(!view.in_flight() && view.unfinished());
    assert_eq!(view.unplaced, 0);
}

#[test]
fn a_stopped_rollout_and_an_ended_run_say_what_is_waited_for() {
    let mut records = begun();
    records.push(Record::RolloutStopped {
        failed: 2,
        failure_budget: 1,
    });
    let view = FleetView::fold(&entries(records.clone()));
    assert_eq!(view.nodes[&name("b")].waits, Some(Waits::RolloutStopped));
    records.push(Record::RunEnded {
        end: RunEnd::Incomplete,
    });
    let view = FleetView::fold(&entries(records));
    assert_eq!(view.nodes[&name("b")].waits, Some(Waits::NextRun));
}

/// The plan with a step that lays out the first machine's disk.
fn partitioning(table_guid: &str) -> Plan {
    let mut plan = plan();
    plan.steps[0].action = serde_json::from_value(json!({
        "do": "partition", "layout": "ext4", "disko_script": null,
        "disks": [{
            "identity": { "serial": "S1", "wwn": null }, "role": "root", "size_bytes_min": 1,
            "table_guid": table_guid,
        }],
    }))
    .unwrap();
    plan
}

#[test]
fn what_was_installed_outlives_its_plan() {
    let a = name("a");
    let first = "7d4b1c1e-8f4e-4a53-9c34-0d7a3e1b2c3d";
    let accepted = |plan| Record::PlanAccepted {
        plan: std::sync::Arc::new(plan),
    };
    let mut records = begun();
    records[1] = accepted(partitioning(first));
    for step in 0..3 {
        records.extend([started(step.into(), step), done(step.into(), step)]);
    }
    // Neither a plan without the machine, nor one that only looks at it, nor one of the same
    // tables makes its disks free to be wiped.
    let mut without = plan();
    without.nodes.remove(&a);
    records.extend([without, plan(), partitioning(first)].map(accepted));
    let view = FleetView::fold(&entries(records.clone()));
    assert!(view.installed()[&a].proved_up);
    assert_eq!(view.installed()[&a].disks.len(), 1);
    assert_eq!(view.plans, 4);

    // Other tables are another installation, which has not come up yet.
    records.push(accepted(partitioning(
        "11111111-8f4e-4a53-9c34-0d7a3e1b2c3d",
    )));
    let view = FleetView::fold(&entries(records));
    assert!(!view.installed()[&a].proved_up);
}

#[test]
fn what_somebody_else_has_installed_is_known_once_it_was_proved() {
    // A plan that lays out nothing.
    let mut records = begun();
    for step in 0..2 {
        records.extend([started(step.into(), step), done(step.into(), step)]);
    }
    let view = FleetView::fold(&entries(records.clone()));
    assert!(view.installed().is_empty());
    records.extend([started(2, 2), done(2, 2)]);
    let view = FleetView::fold(&entries(records));
    let installed = &view.installed()[&name("a")];
    assert!(installed.proved_up && installed.disks.is_empty());
}

fn any_record() -> impl Strategy<Value = Record> {
    let op = 0..6u64;
    let step = 0..8u32;
    let node = prop_oneof![Just(name("a")), Just(name("b")), Just(name("c"))];
    let kind = prop_oneof![
        Just(FailureKind::Transient),
        Just(FailureKind::Refused),
        Just(FailureKind::PreconditionLost),
    ];
    let failure = kind.prop_map(|kind| Failure::new(kind, "no"));
    let outcome = prop_oneof![
        Just(Outcome::NotDone),
        Just(Outcome::TimedOut),
        Just(Outcome::Orphaned),
        Just(failed(FailureKind::Transient)),
    ];
    prop_oneof![
        1 => (0..3usize).prop_map(|n| begun().remove(n)),
        6 => (op.clone(), step.clone()).prop_map(|(op, step)| started(op, step)),
        6 => (op.clone(), step.clone()).prop_map(|(op, step)| done(op, step)),
        3 => (op, step.clone(), outcome).prop_map(|(op, step, outcome)| ended(op, step, outcome)),
        1 => (node.clone(), step.clone(), failure.clone(), any::<u32>()).prop_map(
            |(node, from, failure, count)| Record::NodeRestarted {
                node,
                from: StepId(from),
                failure,
                count,
            }
        ),
        1 => (node, step, failure).prop_map(|(node, step, failure)| Record::NodeFailed {
            node,
            step: StepId(step),
            failure,
        }),
        1 => Just(Record::RolloutStopped { failed: 1, failure_budget: 0 }),
        1 => Just(Record::RunEnded { end: RunEnd::Interrupted }),
    ]
}

proptest! {
    #[test]
    fn any_records_in_any_order_can_be_folded(
        with_plan in any::<bool>(),
        records in proptest::collection::vec((any_record(), any::<u64>(), any::<u64>()), 0..60),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut journal = if with_plan { entries(begun()) } else { Vec::new() };
        journal.extend(records.into_iter().map(|(record, seq, wall_ms)| Entry {
            seq,
            wall_ms,
            record,
        }));
        let whole = FleetView::fold(&journal);
        let (first, rest) = journal.split_at(cut.index(journal.len() + 1));
        let mut parts = FleetView::fold(first);
        rest.iter().for_each(|entry| parts.apply(entry));
        prop_assert_eq!(&whole, &parts);
        for node in whole.nodes.values() {
            prop_assert!(node.steps_done <= node.steps);
            if node.status == NodeStatus::Running {
                prop_assert!(node.current.as_ref().is_some_and(|c| c.op.is_some()));
            }
            if node.status == NodeStatus::Done {
                prop_assert_eq!(node.steps_done, node.steps);
            }
        }
        serde_json::to_string(&whole).unwrap();
    }
}
