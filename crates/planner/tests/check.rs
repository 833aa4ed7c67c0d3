//! Every lint finds what it is for.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a panic is the finding"
)]

mod fleet;

use fleet::{inventory, name, prepared};
use undercroft_model::{Action, DiskIdentity, NodeState, Plan, PlanId, Resource, StepId};
use undercroft_planner::{check, plan};

/// What `check` says of a good plan of two machines after that change.
fn findings(change: impl FnOnce(&mut Plan)) -> Vec<String> {
    let inventory = inventory(2);
    let (mut plan, _) = plan(&inventory, &prepared(&inventory), None);
    change(&mut plan);
    plan.id = plan.content_id();
    check(&plan).iter().map(ToString::to_string).collect()
}

fn finds(change: impl FnOnce(&mut Plan), what: &str) {
    let findings = findings(change);
    assert!(
        findings.iter().any(|finding| finding.contains(what)),
        "{what:?} isn't in {findings:#?}"
    );
}

#[test]
fn a_good_plan_has_no_findings() {
    assert_eq!(findings(|_| {}), Vec::<String>::new());
}

#[test]
fn shape() {
    finds(|p| p.version = 99, "it has version 99");
    finds(|p| p.fleet.clear(), "it names no fleet");
    finds(|p| p.steps[3].id = StepId(9), "it stands at place 3");
    finds(|p| p.steps.swap(2, 3), "it stands at place 2");
    finds(
        |p| {
            p.nodes
                .get_mut(&name("n00000"))
                .unwrap()
                .steps
                .push(StepId(99))
        },
        "its step 99 doesn't exist",
    );
    finds(
        |p| {
            let moved = p
                .nodes
                .get_mut(&name("n00000"))
                .unwrap()
                .steps
                .pop()
                .unwrap();
            p.nodes.get_mut(&name("n00001")).unwrap().steps.push(moved);
        },
        "it is listed under n00001",
    );
    finds(
        |p| {
            p.nodes.remove(&name("n00001"));
        },
        "its machine lists it 0 times",
    );
    finds(
        |p| p.nodes.get_mut(&name("n00000")).unwrap().steps.clear(),
        "without steps",
    );
}

#[test]
fn the_id_is_the_contents() {
    let inventory = inventory(1);
    let (mut plan, _) = plan(&inventory, &prepared(&inventory), None);
    plan.id = PlanId("forged".to_owned());
    assert!(check(&plan)[0].message.contains("its id is forged"));
}

#[test]
fn order() {
    finds(|p| p.steps[2].after.clear(), "it doesn't come after step 1");
    finds(|p| p.steps[2].after.push(StepId(99)), "comes after step 99");
    finds(
        |p| p.steps[0].after.push(StepId(7)),
        "8 steps wait for one another",
    );
    finds(
        |p| p.steps[4].requires = NodeState::Installed,
        "it requires installed, and the step before it reaches partitioned",
    );
    finds(
        |p| p.steps[4].reaches = NodeState::Seen,
        "it reaches seen, which isn't beyond partitioned",
    );
    finds(
        |p| {
            let not_applicable = &mut p.nodes.get_mut(&name("n00000")).unwrap().not_applicable;
            not_applicable.insert(NodeState::Copied, "no".to_owned());
        },
        "copied is called not applicable",
    );
}

#[test]
fn limits() {
    finds(
        |p| {
            p.limits.concurrency.insert(Resource::Reboot, 0);
        },
        "its limit is 0",
    );
    finds(|p| p.limits.concurrency.clear(), "NetworkBoot has no limit");
    finds(|p| p.steps[0].timeout_ms = 0, "it has no time limit");
    finds(|p| p.steps[0].retry.attempts_max = 0, "it is never tried");
    finds(
        |p| p.steps[0].retry.backoff_ms = u64::MAX,
        "its first wait is longer than its longest",
    );
}

#[test]
fn destruction() {
    let nameless = DiskIdentity {
        serial: None,
        wwn: None,
    };
    finds(
        |p| p.steps[3].destroys[0] = nameless,
        "it destroys a disk without identity",
    );
    let other = DiskIdentity {
        serial: Some("OTHER".to_owned()),
        wwn: None,
    };
    let disk = other.clone();
    finds(
        move |p| p.steps[3].destroys[0] = disk,
        "it destroys a disk that it doesn't name: serial OTHER",
    );
    finds(
        |p| match &mut p.steps[2].action {
            Action::Inspect { disks, .. } => disks.clear(),
            action => panic!("{action:?}"),
        },
        "it destroys a disk that isn't inspected",
    );
    finds(
        |p| match &mut p.steps[3].action {
            Action::Partition { disks, .. } => disks.clear(),
            action => panic!("{action:?}"),
        },
        "it partitions no disk",
    );
    finds(
        move |p| p.steps[5].destroys.push(other),
        "only partitioning destroys",
    );
    finds(
        |p| p.steps[1].action = Action::NetworkBoot,
        "it destroys before an approval",
    );
    finds(
        |p| p.steps[2].action = Action::NetworkBoot,
        "it destroys before an inspection",
    );
    // Each is said whether the other is there or not.
    let neither = findings(|p| {
        p.steps[1].action = Action::NetworkBoot;
        p.steps[2].action = Action::NetworkBoot;
    });
    for what in [
        "destroys before an approval",
        "destroys before an inspection",
    ] {
        assert!(neither.iter().any(|f| f.contains(what)), "{neither:?}");
    }
    // Others that are inspected don't make up for the one that is destroyed.
    let another = |p: &mut Plan| match &mut p.steps[2].action {
        Action::Inspect { disks, .. } => {
            let mut other = disks[0].clone();
            other.identity.serial = Some("OTHER".to_owned());
            *disks = vec![other];
        }
        action => panic!("{action:?}"),
    };
    finds(another, "it destroys a disk that isn't inspected");
    finds(
        |p| {
            let disk = p.steps[3].destroys[0].clone();
            p.steps[11].destroys[0] = disk;
        },
        "it wipes the disk with serial S00000, and so does step 3 of n00000",
    );
    finds(
        |p| p.steps[11].action = p.steps[3].action.clone(),
        "is given twice",
    );
}

#[test]
fn secrets() {
    finds(
        |p| p.steps[0].delivers_secrets = true,
        "it delivers secrets before an approval",
    );
}

#[test]
fn restarts() {
    finds(
        |p| p.steps[4].restart_from = Some(StepId(8)),
        "it restarts from step 8, which isn't an earlier one of its machine",
    );
    finds(
        |p| p.steps[4].restart_from = Some(StepId(4)),
        "it restarts from step 4",
    );
    finds(
        |p| p.steps[4].restart_from = Some(StepId(2)),
        "it restarts after the report that its approval is of",
    );
}

#[test]
fn identities() {
    finds(
        |p| {
            let address = p.nodes[&name("n00000")].address;
            p.nodes.get_mut(&name("n00001")).unwrap().address = address;
        },
        "another machine has its address",
    );
    finds(
        |p| {
            let macs = p.nodes[&name("n00000")].macs.clone();
            p.nodes.get_mut(&name("n00001")).unwrap().macs = macs;
        },
        "another machine has its Ethernet address",
    );
    finds(
        |p| p.nodes.get_mut(&name("n00001")).unwrap().macs.clear(),
        "neither an Ethernet address nor a UUID",
    );
    finds(
        |p| match &mut p.steps[7].action {
            Action::Prove { toplevel, .. } => "/nix/store/x".clone_into(toplevel),
            action => panic!("{action:?}"),
        },
        "it is about /nix/store/x",
    );
}
