//! What each record moves in the view, and what it leaves.

use undercroft_model::{Approval, InstallerReport};

use super::*;

fn report(boot_id: &str) -> InstallerReport {
    serde_json::from_value(json!({
        "version": 1, "nonce": "0".repeat(32), "uuid": null, "macs": [], "address": "10.0.0.1",
        "boot_id": boot_id, "host_key": "ssh-ed25519 AAAA", "fingerprint": format!("SHA256:{boot_id}"),
        "system": "x86_64-linux", "firmware": "uefi", "memory_mb": 1, "installer": "t", "disks": [],
    }))
    .unwrap()
}

fn approval(fingerprint: &str) -> Approval {
    Approval {
        fingerprint: fingerprint.to_owned(),
        by: "operator ada".to_owned(),
        granted_wall_ms: 1,
        expires_wall_ms: 2,
    }
}

fn view(records: &[Record]) -> FleetView {
    let mut all = begun();
    all.extend_from_slice(records);
    FleetView::fold(&entries(all))
}

/// The step of a machine is done, with that evidence.
fn shown(op: u64, step: u32, evidence: Evidence) -> [Record; 2] {
    [
        started(op, step),
        ended(op, step, Outcome::Done { evidence }),
    ]
}

fn seen() -> Evidence {
    Evidence::Seen {
        report: Box::new(report("one")),
    }
}

#[test]
fn each_evidence_shows_what_it_is_of_and_no_more() {
    let a = name("a");
    let after = |evidence: &[Evidence]| {
        let mut records = Vec::new();
        for (op, evidence) in (0..).zip(evidence) {
            records.extend(shown(op, op as u32 % 3, evidence.clone()));
        }
        view(&records).nodes[&a].clone()
    };
    let boot = |text: &str| Some(text.to_owned());
    let node = after(&[seen()]);
    assert_eq!(
        (&node.facts.boot_id, &node.installer_boot_id),
        (&boot("one"), &boot("one"))
    );
    assert_eq!(
        (node.facts.report, node.facts.approval),
        (Some(report("one")), None)
    );

    let approved = |report: Option<&str>, fingerprint: &str| Evidence::Approved {
        approval: approval(fingerprint),
        report: report.map(|boot| Box::new(self::report(boot))),
    };
    let node = after(&[seen(), approved(None, "SHA256:one")]);
    assert_eq!(node.facts.approval, Some(approval("SHA256:one")));
    assert_eq!(node.facts.report, Some(report("one")));
    // The report that was approved is the machine's.
    let node = after(&[seen(), approved(Some("two"), "SHA256:two")]);
    assert_eq!(node.facts.report, Some(report("two")));
    assert_eq!(
        (&node.facts.boot_id, &node.installer_boot_id),
        (&boot("two"), &boot("two"))
    );
    // A new report is of another key than what was approved before.
    let node = after(&[approved(Some("one"), "SHA256:one"), seen()]);
    assert_eq!(node.facts.approval, None);

    let disk_paths = vec!["/dev/vda".to_owned()];
    let inspected = Evidence::Inspected {
        boot_id: "three".to_owned(),
        disk_paths: disk_paths.clone(),
    };
    let node = after(&[seen(), inspected]);
    assert_eq!(
        (node.facts.boot_id, node.facts.disk_paths),
        (boot("three"), disk_paths)
    );
    assert_eq!(node.installer_boot_id, boot("one"));

    // Another boot of the installer has shown no disk yet, whoever found it.
    let inspected = Evidence::Inspected {
        boot_id: "one".to_owned(),
        disk_paths: vec!["/dev/vda".to_owned()],
    };
    let node = after(&[seen(), inspected.clone(), seen()]);
    assert!(node.facts.disk_paths.is_empty());
    let node = after(&[seen(), inspected, approved(Some("two"), "SHA256:two")]);
    assert!(node.facts.disk_paths.is_empty());

    let partitioned = |wiped| Evidence::Partitioned {
        boot_id: "b".to_owned(),
        wiped,
    };
    for (wipes, wiped) in [
        (&[false][..], false),
        (&[true], true),
        (&[true, false], true),
        (&[false, true], true),
        (&[false, false], false),
    ] {
        let evidence: Vec<Evidence> = wipes.iter().map(|wiped| partitioned(*wiped)).collect();
        assert_eq!(after(&evidence).wiped, Some(wiped), "{wipes:?}");
    }
    assert_eq!(after(&[seen()]).wiped, None);

    let copied = Evidence::Copied {
        boot_id: "b".to_owned(),
        closure_bytes: 7,
    };
    assert_eq!(after(&[copied]).closure_bytes, Some(7));
    let up = Evidence::Up {
        boot_id: "c".to_owned(),
        booted_system: "/s".to_owned(),
        host_key_fingerprint: "SHA256:host".to_owned(),
    };
    let node = after(&[up]);
    assert_eq!(
        (node.facts.boot_id, node.booted_system),
        (boot("c"), boot("/s"))
    );
    assert_eq!(node.host_key_fingerprint, boot("SHA256:host"));
    let ready = Evidence::Ready {
        boot_id: "d".to_owned(),
        kubelet_version: "v1".to_owned(),
    };
    let node = after(&[ready]);
    assert_eq!(
        (node.facts.boot_id, node.kubelet_version),
        (boot("d"), boot("v1"))
    );
}

#[test]
fn a_machine_that_begins_again_forgets_what_is_no_longer_so() {
    let a = name("a");
    let mut records = Vec::new();
    records.extend(shown(0, 0, seen()));
    let approved = Evidence::Approved {
        approval: approval("SHA256:one"),
        report: None,
    };
    records.extend(shown(1, 1, approved));
    let inspected = Evidence::Inspected {
        boot_id: "one".to_owned(),
        disk_paths: vec!["/dev/vda".to_owned()],
    };
    records.extend(shown(2, 2, inspected));
    let node = view(&records).nodes[&a].clone();
    assert_eq!((node.status, node.steps_done), (NodeStatus::Done, 3));
    assert!(node.done_wall_ms.is_some());
    for (from, state, keeps_report, keeps_approval, keeps_disks) in [
        (0, NodeState::Unknown, false, false, false),
        (1, NodeState::Seen, true, false, false),
        // What comes after the inspection stands on all of it.
        (2, NodeState::Rebooted, true, true, true),
    ] {
        let mut records = records.clone();
        records.push(Record::NodeRestarted {
            node: a.clone(),
            from: StepId(from),
            failure: Failure::new(FailureKind::PreconditionLost, "its power went"),
            count: 2,
        });
        let node = view(&records).nodes[&a].clone();
        assert_eq!((node.state, node.steps_done), (state, from));
        assert_eq!((node.restarts, node.done_wall_ms), (2, None));
        assert_eq!(node.current.unwrap().step, StepId(from));
        assert_eq!(node.last_failure.unwrap().message, "its power went");
        assert_eq!(node.facts.report.is_some(), keeps_report, "{from}");
        assert_eq!(node.facts.boot_id.is_some(), keeps_report, "{from}");
        assert_eq!(node.installer_boot_id.is_some(), keeps_report, "{from}");
        assert_eq!(node.facts.approval.is_some(), keeps_approval, "{from}");
        assert_eq!(!node.facts.disk_paths.is_empty(), keeps_disks, "{from}");
    }
}

#[test]
fn what_can_not_be_placed_is_counted() {
    let unplaced = |record: Record| view(&[record]).unplaced;
    let failure = || Failure::new(FailureKind::Transient, "no");
    let fail = |node: &str| Record::NodeFailed {
        node: name(node),
        step: StepId(0),
        failure: failure(),
    };
    let again = |node: &str| Record::NodeRestarted {
        node: name(node),
        from: StepId(0),
        failure: failure(),
        count: 1,
    };
    let claim = |node: &str| Record::Quarantined {
        node: name(node),
        report: Box::new(report("one")),
        reason: "no".to_owned(),
    };
    let run = |plan: &str| {
        let mut plan_id = plan_of_tests();
        plan_id.0 = plan.to_owned();
        Record::RunStarted {
            plan: plan_id,
            undercroft: "0.1.0".to_owned(),
        }
    };
    for (good, bad) in [
        (started(0, 0), started(0, 9)),
        (fail("a"), fail("c")),
        (again("a"), again("c")),
        (claim("a"), claim("c")),
        (run("plan"), run("other")),
    ] {
        assert_eq!(unplaced(good.clone()), 0, "{good:?}");
        assert_eq!(unplaced(bad.clone()), 1, "{bad:?}");
    }
    // An operation ends that doesn't run, or another than the one that does.
    assert_eq!(unplaced(done(0, 0)), 1);
    assert_eq!(view(&[started(0, 0), done(1, 0)]).unplaced, 1);
    assert_eq!(view(&[started(0, 0), done(0, 0), done(0, 0)]).unplaced, 1);
    // Without a plan nothing can be, and a run's end has no run.
    let end = Record::RunEnded {
        end: RunEnd::Complete,
    };
    for record in [started(0, 0), done(0, 0), fail("a"), end] {
        assert_eq!(FleetView::fold(&entries([record])).unplaced, 1);
    }
}

fn plan_of_tests() -> undercroft_model::PlanId {
    plan().id
}

#[test]
fn it_is_said_which_step_of_another_machine_one_waits_for() {
    let (a, b) = (name("a"), name("b"));
    let mut plan = plan();
    plan.steps[4].after.push(StepId(2));
    plan.steps[5].after_settled.push(StepId(1));
    let fold = |records: &[Record]| {
        let mut all = begun();
        all[1] = Record::PlanAccepted {
            plan: std::sync::Arc::new(plan.clone()),
        };
        all.extend_from_slice(records);
        FleetView::fold(&entries(all))
    };
    let waits = |view: &FleetView, node: &NodeName| view.waits_on(node).map(|step| step.id);
    let begun = fold(&[]);
    assert_eq!((waits(&begun, &a), waits(&begun, &b)), (None, None));
    assert_eq!(waits(&begun, &name("c")), None);
    let booted = [started(0, 3), done(0, 3)];
    assert_eq!(waits(&fold(&booted), &b), Some(StepId(2)));
    let mut up = booted.to_vec();
    for step in 0..3 {
        up.extend([started(1, step), done(1, step)]);
    }
    assert_eq!(waits(&fold(&up), &b), None);
    // Of what must only be settled, a machine that has failed is waited for no more.
    let mut settled = booted.to_vec();
    settled.extend([started(2, 4), done(2, 4)]);
    assert_eq!(waits(&fold(&settled), &b), Some(StepId(1)));
    let mut failed = settled.clone();
    failed.push(Record::NodeFailed {
        node: a.clone(),
        step: StepId(0),
        failure: Failure::new(FailureKind::Permanent, "no"),
    });
    assert_eq!(waits(&fold(&failed), &b), None);
    settled.extend([started(3, 0), done(3, 0), started(4, 1), done(4, 1)]);
    assert_eq!(waits(&fold(&settled), &b), None);
}

#[test]
fn a_new_run_takes_up_what_was_not_refused() {
    for (kind, status) in [
        (FailureKind::Refused, NodeStatus::Quarantined),
        (FailureKind::Permanent, NodeStatus::Waiting),
        (FailureKind::Transient, NodeStatus::Waiting),
    ] {
        let fail = Record::NodeFailed {
            node: name("a"),
            step: StepId(0),
            failure: Failure::new(kind, "no"),
        };
        let again = begun().remove(2);
        let records = [started(0, 0), ended(0, 0, failed(kind)), fail, again];
        let view = view(&records);
        assert_eq!(view.nodes[&name("a")].status, status, "{kind:?}");
        assert_eq!(view.run.as_ref().map(|run| run.number), Some(2));
        assert_eq!(view.unplaced, 0);
    }
}

#[test]
fn machines_are_counted_by_where_they_stand() {
    let counts = |records: &[Record]| {
        let counts = view(records).counts();
        (
            counts.running,
            counts.waiting,
            counts.done,
            counts.failed,
            counts.quarantined,
        )
    };
    assert_eq!(counts(&[]), (0, 2, 0, 0, 0));
    assert_eq!(counts(&[started(0, 0)]), (1, 1, 0, 0, 0));
    assert_eq!(counts(&[started(0, 0), done(0, 0)]), (0, 2, 0, 0, 0));
    let fail = |kind| Record::NodeFailed {
        node: name("a"),
        step: StepId(0),
        failure: Failure::new(kind, "no"),
    };
    assert_eq!(counts(&[fail(FailureKind::Permanent)]), (0, 1, 0, 1, 0));
    assert_eq!(counts(&[fail(FailureKind::Refused)]), (0, 1, 0, 0, 1));
}
