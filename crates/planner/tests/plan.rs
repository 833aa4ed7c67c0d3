//! What is planned for what is seen.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a panic is the finding"
)]

mod fleet;
#[path = "plan/verdicts.rs"]
mod verdicts;

use std::collections::BTreeSet;

use fleet::{
    installer, inventory, inventory_with, name, prepared, report, running, see, see_up, target,
};
use proptest::prelude::*;
use undercroft_model::{
    Action, ApprovalMode, Found, Installed, NodeState, Observation, Plan, System,
    inventory::Inventory,
};
use undercroft_planner::{NodeStatus, PlanOptions, PlanReport, check, explain, plan, plan_with};

fn reinstall(node: &str) -> PlanOptions {
    PlanOptions {
        reinstall: BTreeSet::from([name(node)]),
        ..PlanOptions::default()
    }
}

fn planned(inventory: &Inventory, observation: &Observation) -> (Plan, PlanReport) {
    let (plan, report) = plan(inventory, observation, None);
    assert_eq!(check(&plan), []);
    (plan, report)
}

fn status(report: &PlanReport, node: &str) -> NodeStatus {
    report.nodes[&name(node)].status.clone()
}

fn reasons(report: &PlanReport, node: &str) -> String {
    match status(report, node) {
        NodeStatus::Blocked { reasons } => reasons.join("; "),
        other => panic!("{node} isn't blocked: {other:?}"),
    }
}

fn guid(plan: &Plan, node: &str) -> String {
    plan.steps
        .iter()
        .filter(|step| step.node == name(node))
        .find_map(|step| match &step.action {
            Action::Partition { disks, .. } => Some(disks[0].table_guid.to_string()),
            _ => None,
        })
        .unwrap()
}

#[test]
fn a_new_machine_gets_the_whole_chain() {
    let inventory = inventory(2);
    let (plan, report) = planned(&inventory, &prepared(&inventory));
    assert_eq!(report.summary.install, 2);
    let steps: Vec<_> = plan.nodes[&name("n00001")]
        .steps
        .iter()
        .map(|id| plan.step(*id).unwrap())
        .collect();
    let verbs: Vec<_> = steps.iter().map(|step| step.action.verb()).collect();
    assert_eq!(
        verbs,
        [
            "network-boot",
            "approve",
            "inspect",
            "partition",
            "copy",
            "install",
            "reboot",
            "prove"
        ]
    );
    let reached: Vec<_> = steps.iter().map(|step| step.reaches).collect();
    let mut of_a_bring_up = NodeState::ALL[1..=9].to_vec();
    of_a_bring_up.retain(|state| *state != NodeState::Drained);
    assert_eq!(reached, of_a_bring_up);
    assert_eq!(steps[3].destroys[0].serial.as_deref(), Some("S00001"));
    assert!(steps.iter().filter(|s| !s.destroys.is_empty()).count() == 1);
    assert!(steps.iter().filter(|s| s.delivers_secrets).count() == 1);
    assert!(steps[5].delivers_secrets);
    // Long enough to walk back from the machine's screen.
    assert!(matches!(
        steps[1].action,
        Action::Approve {
            expires_ms: 900_000,
            ..
        }
    ));
    assert!(
        steps[1..]
            .iter()
            .all(|s| s.restart_from == Some(steps[0].id))
    );
    assert_eq!(
        plan.nodes[&name("n00000")].not_applicable[&NodeState::Ready],
        "kubernetes.distribution is \"none\""
    );
}

#[test]
fn a_converged_fleet_gives_an_empty_plan() {
    let inventory = inventory(3);
    let mut observation = prepared(&inventory);
    for node in ["n00000", "n00001", "n00002"] {
        see_up(&mut observation, node);
    }
    let (plan, report) = planned(&inventory, &observation);
    assert!(plan.is_empty() && plan.nodes.is_empty() && report.is_converged());
}

#[test]
fn the_same_input_gives_the_same_plan() {
    let inventory = inventory(5);
    let observation = prepared(&inventory);
    let (a, b) = (
        plan(&inventory, &observation, None).0,
        plan(&inventory, &observation, None).0,
    );
    assert_eq!(a, b);
    assert_eq!(a.id, a.content_id());
    let child = plan(&inventory, &observation, Some(&a.id)).0;
    assert_ne!(child.id, a.id);
    assert_eq!(child.parent, Some(a.id));
}

#[test]
fn a_machine_that_runs_something_else_is_left_alone() {
    let inventory = inventory(2);
    let mut observation = prepared(&inventory);
    let other = "/nix/store/1c0vdzlgl5n8kbzvxjmmdhdnjgcl7c6x-older".to_owned();
    see(
        &mut observation,
        "n00000",
        Found::Running {
            boot_id: "b".to_owned(),
            booted_system: other.clone(),
            current_system: other.clone(),
        },
    );
    let (plan, report) = planned(&inventory, &observation);
    assert!(!plan.nodes.contains_key(&name("n00000")));
    assert_eq!(
        status(&report, "n00000"),
        NodeStatus::Differs {
            booted: other.clone(),
            current: other,
            target: target(&name("n00000")).toplevel,
        }
    );
}

#[test]
fn what_does_not_answer_or_is_foreign_is_never_planned() {
    let inventory = inventory(4);
    let mut observation = prepared(&inventory);
    let reason = "connection timed out".to_owned();
    see(
        &mut observation,
        "n00000",
        Found::Unreachable {
            reason: reason.clone(),
        },
    );
    let fingerprint = "SHA256:other".to_owned();
    see(
        &mut observation,
        "n00001",
        Found::ForeignHostKey { fingerprint },
    );
    let up = Installed {
        proved_up: true,
        ..Installed::default()
    };
    observation.installed.insert(name("n00002"), up);
    let mut foreign = report(&inventory, "n00003");
    foreign.macs = vec!["52:54:00:ff:ff:ff".parse().unwrap()];
    see(&mut observation, "n00003", installer(foreign));
    let (plan, report) = planned(&inventory, &observation);
    assert!(plan.is_empty());
    assert_eq!(
        status(&report, "n00000"),
        NodeStatus::Unreachable { reason }
    );
    assert!(matches!(
        status(&report, "n00001"),
        NodeStatus::Quarantined { .. }
    ));
    assert!(matches!(
        status(&report, "n00002"),
        NodeStatus::Unreachable { .. }
    ));
    assert!(matches!(
        status(&report, "n00003"),
        NodeStatus::Quarantined { .. }
    ));
}

#[test]
fn a_machine_that_never_came_up_is_planned_again_with_the_same_tables() {
    let inventory = inventory(1);
    let mut observation = prepared(&inventory);
    let (first, _) = planned(&inventory, &observation);
    let before = Installed {
        generation: 0,
        disks: match &first.steps[3].action {
            Action::Partition { disks, .. } => disks.clone(),
            other => panic!("{other:?}"),
        },
        proved_up: false,
        ..Installed::default()
    };
    observation.installed.insert(name("n00000"), before.clone());
    let reason = "no route to host".to_owned();
    see(&mut observation, "n00000", Found::Unreachable { reason });
    // Another system is meant by now, and that makes no difference to the tables.
    let mut newer = target(&name("n00000"));
    newer.toplevel.push_str("-newer");
    observation.targets.insert(name("n00000"), Ok(newer));
    let (second, _) = planned(&inventory, &observation);
    assert_eq!(guid(&first, "n00000"), guid(&second, "n00000"));

    // A deliberate reinstallation is another generation, once.
    let (third, report) = plan_with(&inventory, &observation, None, &reinstall("n00000"));
    assert_eq!(check(&third), []);
    assert_eq!(status(&report, "n00000"), NodeStatus::Reinstall);
    assert_ne!(guid(&first, "n00000"), guid(&third, "n00000"));
    let halfway = Installed {
        generation: third.nodes[&name("n00000")].generation,
        ..before
    };
    observation.installed.insert(name("n00000"), halfway);
    let (fourth, _) = planned(&inventory, &observation);
    assert_eq!(guid(&third, "n00000"), guid(&fourth, "n00000"));
}

#[test]
fn a_running_machine_is_wiped_only_when_it_is_named() {
    let inventory = inventory(2);
    let mut observation = prepared(&inventory);
    see_up(&mut observation, "n00000");
    see_up(&mut observation, "n00001");
    let (plan, report) = plan_with(&inventory, &observation, None, &reinstall("n00001"));
    assert_eq!(check(&plan), []);
    assert_eq!(plan.nodes.keys().collect::<Vec<_>>(), [&name("n00001")]);
    assert_eq!(plan.nodes[&name("n00001")].generation, 1);
    assert_eq!(status(&report, "n00000"), NodeStatus::Converged);
}

#[test]
fn a_changed_layout_does_not_wipe_what_was_up() {
    let before = inventory(1);
    let (first, _) = planned(&before, &prepared(&before));
    let disks = match &first.steps[3].action {
        Action::Partition { disks, .. } => disks.clone(),
        other => panic!("{other:?}"),
    };
    let after = inventory_with(1, "zfs", "none", "");
    let mut observation = prepared(&after);
    let installed = Installed {
        generation: 0,
        disks,
        proved_up: true,
        ..Installed::default()
    };
    observation.installed.insert(name("n00000"), installed);
    see(
        &mut observation,
        "n00000",
        installer(report(&after, "n00000")),
    );
    let (plan, report) = planned(&after, &observation);
    assert!(plan.is_empty());
    assert!(reasons(&report, "n00000").contains("name the machine with --reinstall"));
}

#[test]
fn what_keeps_several_machines_alone_is_said_once() {
    let inventory = inventory(3);
    let mut observation = prepared(&inventory);
    for node in ["n00000", "n00002"] {
        let why = Err("the flake can't be read".to_owned());
        observation.targets.insert(name(node), why);
    }
    let (plan, report) = planned(&inventory, &observation);
    let text = explain(&plan, &report);
    let line = "n00000, n00002: its system could not be built: the flake can't be read";
    assert_eq!(text.matches("can't be read").count(), 1, "{text}");
    assert!(text.contains(line), "{text}");
}

#[test]
fn what_is_missing_blocks_with_its_reason() {
    let inventory = inventory(3);
    let mut observation = prepared(&inventory);
    observation
        .targets
        .insert(name("n00000"), Err("attribute missing".to_owned()));
    observation.host_keys.remove(&name("n00000"));
    let mut other = target(&name("n00001"));
    other.system = System::Aarch64Linux;
    observation.targets.insert(name("n00001"), Ok(other));
    let (plan, report) = planned(&inventory, &observation);
    assert_eq!(plan.nodes.len(), 1);
    assert_eq!(
        reasons(&report, "n00000"),
        "its system could not be built: attribute missing; no host key was made for it"
    );
    assert!(reasons(&report, "n00001").contains("built for aarch64-linux"));

    let bios = inventory_with(1, "ext4", "none", "firmware = \"bios\"");
    let (_, report) = planned(&bios, &prepared(&bios));
    assert!(reasons(&report, "n00000").contains("bios"));
}

#[test]
fn an_installer_that_reports_another_disk_blocks_with_both_named() {
    let inventory = inventory(1);
    let mut observation = prepared(&inventory);
    let mut wrong = report(&inventory, "n00000");
    wrong.disks[0].serial = Some("OTHER".to_owned());
    wrong.memory_mb = 256;
    see(&mut observation, "n00000", installer(wrong));
    let (plan, planned_report) = planned(&inventory, &observation);
    assert!(plan.is_empty());
    assert_eq!(
        reasons(&planned_report, "n00000"),
        "its installer reports 256 MiB of memory, and the inventory asks for 512; its installer \
         doesn't report the root disk with serial S00000; it reports /dev/vda with serial OTHER"
    );

    let mut twice = report(&inventory, "n00000");
    twice.disks.push(twice.disks[0].clone());
    twice.disks[1].path = "/dev/vdb".to_owned();
    see(&mut observation, "n00000", installer(twice));
    let (_, planned_report) = planned(&inventory, &observation);
    let why = reasons(&planned_report, "n00000");
    assert!(
        why.contains("two disks") && why.contains("/dev/vdb"),
        "{why}"
    );

    let mut small = report(&inventory, "n00000");
    small.disks[0].size_bytes = 1 << 20;
    see(&mut observation, "n00000", installer(small));
    let (_, planned_report) = planned(&inventory, &observation);
    let why = reasons(&planned_report, "n00000");
    assert!(why.contains("has 1 MiB"), "{why}");
}

#[test]
fn an_installer_that_is_there_is_looked_at_first() {
    let inventory = inventory(1);
    let mut observation = prepared(&inventory);
    see(
        &mut observation,
        "n00000",
        installer(report(&inventory, "n00000")),
    );
    let (plan, _) = planned(&inventory, &observation);
    assert!(plan.steps[0].probe_first);
    assert!(plan.steps[1..].iter().all(|step| !step.probe_first));
}

#[test]
fn only_some_machines_are_planned_when_asked() {
    let inventory = inventory(3);
    let options = PlanOptions {
        only: Some(BTreeSet::from([name("n00002"), name("nowhere")])),
        ..PlanOptions::default()
    };
    let (plan, report) = plan_with(&inventory, &prepared(&inventory), None, &options);
    assert_eq!(check(&plan), []);
    assert_eq!(plan.nodes.len(), 1);
    assert_eq!(report.unknown, [name("nowhere")]);
    assert_eq!(report.summary.left_out, 2);
    // What isn't there isn't as it should be, though all the others are.
    let mut observation = prepared(&inventory);
    see_up(&mut observation, "n00002");
    let (plan, report) = plan_with(&inventory, &observation, None, &options);
    assert!(plan.is_empty() && !report.is_converged());
}

#[test]
fn a_machine_that_is_only_looked_at_needs_nothing_built_and_loses_nothing() {
    let inventory = inventory(1);
    let options = PlanOptions {
        inspect_only: true,
        ..PlanOptions::default()
    };
    let (plan, report) = plan_with(&inventory, &Observation::default(), None, &options);
    assert_eq!(check(&plan), []);
    let reached: Vec<NodeState> = plan.steps.iter().map(|step| step.reaches).collect();
    assert_eq!(
        reached,
        [
            NodeState::Seen,
            NodeState::Approved,
            NodeState::InstallerReady
        ]
    );
    assert!(plan.steps.iter().all(|step| step.destroys.is_empty()));
    assert!(report.nodes.values().all(|node| node.destroys.is_empty()));
}

#[test]
fn data_disks_are_not_wiped_and_kept_disks_are_no_part_of_it() {
    let text = r#"
        [fleet]
        name = "cellar"
        [network]
        node_cidr = "172.16.0.0/12"
        server_address = "172.16.0.1"
        [classes.plain]
        longhorn = {}
        role = "agent"
        power = { kind = "command", on = ["on"], off = ["off"], console = ["ipmi", "{node}"] }
        [nodes.a]
        class = "plain"
        macs = ["52:54:00:00:00:01"]
        address = "172.16.0.10"
        disks = [
          { serial = "DATA", role = "data" },
          { wwn = "0x5000c500a1b2c3d4", role = "longhorn" },
          { serial = "KEEP", role = "keep" },
          { serial = "ROOT" },
        ]
    "#;
    let parsed = undercroft_model::inventory::parse("undercroft.toml", text.as_bytes());
    let inventory = parsed
        .inventory
        .unwrap_or_else(|| panic!("{:?}", parsed.diagnostics));
    let (plan, report) = planned(&inventory, &prepared(&inventory));
    let roles: Vec<_> = match &plan.steps[3].action {
        Action::Partition { disks, .. } => disks.iter().map(|d| d.role.as_str()).collect(),
        other => panic!("{other:?}"),
    };
    assert_eq!(roles, ["root", "longhorn", "data"]);
    let wiped: Vec<_> = plan.steps[3]
        .destroys
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(wiped, ["serial ROOT", "WWN 0x5000c500a1b2c3d4"]);
    assert!(matches!(
        plan.steps[1].action,
        Action::Approve {
            mode: ApprovalMode::Console,
            ..
        }
    ));
    assert_eq!(report.nodes[&name("a")].waits_on, Vec::<String>::new());
}

#[test]
fn a_plan_reads_well() {
    let inventory = inventory(5);
    let mut observation = prepared(&inventory);
    see_up(&mut observation, "n00001");
    observation.host_keys.remove(&name("n00002"));
    let reason = "connection refused".to_owned();
    see(&mut observation, "n00003", Found::Unreachable { reason });
    see_up(&mut observation, "n00004");
    let (plan, report) = plan_with(&inventory, &observation, None, &reinstall("n00004"));
    let text = explain(&plan, &report);
    let id: String = plan.id.0.chars().take(12).collect();
    insta::assert_snapshot!(text.replace(&id, "PLAN"));
}

fn any_found(inventory: &Inventory, node: &str) -> impl Strategy<Value = Found> + use<> {
    let node = node.to_owned();
    let good = report(inventory, &node);
    prop_oneof![
        Just(Found::Nothing),
        Just(running(&node)),
        Just(Found::Unreachable {
            reason: "no answer".to_owned()
        }),
        Just(Found::ForeignHostKey {
            fingerprint: "SHA256:x".to_owned()
        }),
        (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(move |(serial, mac, small)| {
            let mut report = good.clone();
            if serial {
                report.disks[0].serial = Some("OTHER".to_owned());
            }
            if mac {
                report.macs.clear();
            }
            if small {
                report.disks[0].size_bytes = 1;
            }
            installer(report)
        }),
    ]
}

proptest! {
    #[test]
    fn every_plan_is_sound_and_touches_only_what_may_be_touched(
        seen in (0..4usize).prop_flat_map(|_| {
            let inventory = inventory(4);
            let each: Vec<_> = ["n00000", "n00001", "n00002", "n00003"]
                .iter()
                .map(|node| (
                    any_found(&inventory, node),
                    any::<bool>(),
                    any::<bool>(),
                    any::<bool>(),
                    any::<bool>(),
                ))
                .collect();
            each
        })
    ) {
        let inventory = inventory(4);
        let mut observation = prepared(&inventory);
        let mut options = PlanOptions::default();
        for (n, (found, target, key, again, was_up)) in seen.iter().enumerate() {
            let node = format!("n{n:05}");
            see(&mut observation, &node, found.clone());
            if !target {
                observation.targets.insert(name(&node), Err("broken".to_owned()));
            }
            if !key {
                observation.host_keys.remove(&name(&node));
            }
            if *again {
                options.reinstall.insert(name(&node));
            }
            if *was_up {
                let up = Installed { proved_up: true, ..Installed::default() };
                observation.installed.insert(name(&node), up);
            }
        }
        let (plan, report) = plan_with(&inventory, &observation, None, &options);
        prop_assert_eq!(check(&plan), vec![]);
        prop_assert_eq!(report.nodes.len(), 4);
        for (n, (found, target, key, again, was_up)) in seen.iter().enumerate() {
            let node = name(&format!("n{n:05}"));
            let planned = plan.nodes.contains_key(&node);
            prop_assert_eq!(planned, report.nodes[&node].status.is_planned());
            if planned {
                prop_assert!(target & key);
                let idle = matches!(found, Found::Nothing if !was_up);
                let installer = matches!(found, Found::Installer { .. });
                let writes = report.nodes[&node].status.is_installed();
                prop_assert!(!writes || *again || idle || installer);
                let of_node = plan.steps.iter().filter(|step| step.node == node);
                let destroys = of_node.clone().any(|step| !step.destroys.is_empty());
                prop_assert_eq!(destroys, writes);
            }
        }
    }
}

#[test]
fn an_installer_in_a_machines_place_is_told_by_its_addresses_and_its_uuid() {
    let mut inventory = inventory(1);
    let uuid = |byte: u8| undercroft_model::MachineUuid([byte; 16]);
    let other = || vec!["52:54:00:99:99:99".parse().unwrap()];
    for (known, reported, own_mac, why) in [
        (None, None, true, None),
        (None, Some(7), true, None),
        (None, None, false, Some("none of its Ethernet addresses")),
        (None, Some(7), false, Some("none of its Ethernet addresses")),
        (Some(7), None, true, None),
        (Some(7), None, false, Some("none of its Ethernet addresses")),
        (Some(7), Some(7), true, None),
        (
            Some(7),
            Some(7),
            false,
            Some("none of its Ethernet addresses"),
        ),
        (Some(7), Some(8), true, Some("reports the UUID")),
        (Some(7), Some(8), false, Some("reports the UUID")),
    ] {
        inventory.nodes.get_mut(&name("n00000")).unwrap().uuid = known.map(uuid);
        let mut report = report(&inventory, "n00000");
        report.uuid = reported.map(uuid);
        if !own_mac {
            report.macs = other();
        }
        let mut observation = prepared(&inventory);
        see(&mut observation, "n00000", installer(report));
        let (plan, found) = planned(&inventory, &observation);
        let case = format!("{known:?} {reported:?} {own_mac}");
        match (status(&found, "n00000"), why) {
            (NodeStatus::Quarantined { reason }, Some(why)) => {
                assert!(reason.contains(why), "{case}: {reason}");
                assert!(plan.is_empty(), "{case}");
            }
            (status, None) => assert!(status.is_planned(), "{case}: {status:?}"),
            (status, Some(_)) => panic!("{case}: {status:?}"),
        }
    }
}

#[test]
fn two_disks_with_the_identity_of_one_are_nobodys() {
    let inventory = inventory(1);
    for path in ["/dev/vdb", ""] {
        let mut twice = report(&inventory, "n00000");
        let mut second = twice.disks[0].clone();
        second.path = path.to_owned();
        twice.disks.push(second);
        let mut observation = prepared(&inventory);
        see(&mut observation, "n00000", installer(twice));
        let (plan, report) = planned(&inventory, &observation);
        assert!(plan.is_empty());
        let reasons = reasons(&report, "n00000");
        assert!(
            reasons.contains("reports two disks with serial S00000"),
            "{reasons}"
        );
    }
}
