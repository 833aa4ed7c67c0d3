//! What is done with a machine, by everything that may be known of it.

use undercroft_model::ReportedDisk;

use super::*;

/// In one word, what is done with the one machine.
fn verdict(report: &PlanReport) -> &'static str {
    match status(report, "n00000") {
        NodeStatus::Install => "install",
        NodeStatus::Reinstall => "reinstall",
        NodeStatus::Join => "join",
        NodeStatus::Adopt => "adopt",
        NodeStatus::Converged => "converged",
        NodeStatus::Update { .. } => "update",
        NodeStatus::UpdateLater { .. } => "update later",
        NodeStatus::Release => "release",
        NodeStatus::Differs { .. } => "differs",
        NodeStatus::Unreachable { .. } => "unreachable",
        NodeStatus::Quarantined { .. } => "quarantined",
        NodeStatus::Blocked { .. } => "blocked",
    }
}

fn runs(booted: &str, current: &str) -> Found {
    Found::Running {
        boot_id: "boot".to_owned(),
        booted_system: booted.to_owned(),
        current_system: current.to_owned(),
    }
}

/// What was found, and what becomes of a machine that was never planned, of one that was and never
/// came up, and of one that was up: as it is, and where it was named to be wiped.
#[test]
fn what_is_found_and_what_was_there_before_decide() {
    let inventory = inventory(1);
    let own = target(&name("n00000")).toplevel;
    let unreachable = || Found::Unreachable {
        reason: "no route".to_owned(),
    };
    let foreign_key = || Found::ForeignHostKey {
        fingerprint: "SHA256:x".to_owned(),
    };
    let stranger = || {
        let mut stranger = report(&inventory, "n00000");
        stranger.macs = vec!["52:54:00:ff:ff:ff".parse().unwrap()];
        installer(stranger)
    };
    let again = "reinstall";
    let (fresh, _) = planned(&inventory, &prepared(&inventory));
    let disks = match &fresh.steps[3].action {
        Action::Partition { disks, .. } => disks.clone(),
        other => panic!("{other:?}"),
    };
    for (found, never, planned_before, was_up, named) in [
        (Found::Nothing, "install", "install", "unreachable", again),
        (
            unreachable(),
            "unreachable",
            "install",
            "unreachable",
            again,
        ),
        (
            foreign_key(),
            "quarantined",
            "quarantined",
            "quarantined",
            again,
        ),
        (
            stranger(),
            "quarantined",
            "quarantined",
            "quarantined",
            "quarantined",
        ),
        (
            installer(report(&inventory, "n00000")),
            "install",
            "install",
            "install",
            again,
        ),
        (runs(&own, &own), "adopt", "adopt", "converged", again),
        (
            runs("/nix/store/x", &own),
            "differs",
            "differs",
            "differs",
            again,
        ),
        (
            runs(&own, "/nix/store/x"),
            "differs",
            "differs",
            "differs",
            again,
        ),
    ] {
        let mut observation = prepared(&inventory);
        see(&mut observation, "n00000", found.clone());
        let mut check = |proved_up: Option<bool>, options: &PlanOptions, wanted: &str| {
            observation.installed.clear();
            if let Some(proved_up) = proved_up {
                let installed = Installed {
                    proved_up,
                    disks: disks.clone(),
                    ..Installed::default()
                };
                observation.installed.insert(name("n00000"), installed);
            }
            let (_, report) = plan_with(&inventory, &observation, None, options);
            assert_eq!(verdict(&report), wanted, "{found:?} {proved_up:?}");
        };
        check(None, &PlanOptions::default(), never);
        check(Some(false), &PlanOptions::default(), planned_before);
        check(Some(true), &PlanOptions::default(), was_up);
        check(Some(true), &reinstall("n00000"), named);
    }
}

/// Somebody else has installed it: it is proved, written down, and never laid out by a plan that nobody asked to.
#[test]
fn what_somebody_else_has_installed_is_proved_once_and_never_wiped_unasked() {
    let inventory = inventory(1);
    let own = target(&name("n00000")).toplevel;
    let mut observation = prepared(&inventory);
    see(&mut observation, "n00000", runs(&own, &own));
    let (plan, report) = planned(&inventory, &observation);
    assert_eq!(verdict(&report), "adopt");
    let verbs: Vec<&str> = plan.steps.iter().map(|step| step.action.verb()).collect();
    assert_eq!(verbs, ["prove"]);
    assert!(plan.steps[0].probe_first && plan.steps[0].destroys.is_empty());
    assert_eq!(check(&plan), []);
    // Asked for less than that, nothing is proved.
    let less = PlanOptions {
        until: Some(NodeState::Installed),
        ..PlanOptions::default()
    };
    let (plan, _) = plan_with(&inventory, &observation, None, &less);
    assert!(plan.is_empty());

    // Once it is known, and its installer is there again, only a person's word wipes what no plan has laid out.
    let known = Installed {
        proved_up: true,
        ..Installed::default()
    };
    observation.installed.insert(name("n00000"), known);
    see(
        &mut observation,
        "n00000",
        installer(super::report(&inventory, "n00000")),
    );
    let (plan, report) = planned(&inventory, &observation);
    assert!(plan.is_empty());
    assert!(
        reasons(&report, "n00000").contains("no plan has laid out"),
        "{report:?}"
    );
    let (plan, _) = plan_with(&inventory, &observation, None, &reinstall("n00000"));
    assert!(!plan.is_empty());
}

/// Who is to be taken as it is isn't installed, whatever is found.
#[test]
fn what_is_to_be_taken_as_it_is_is_never_installed() {
    let inventory = inventory(1);
    let own = target(&name("n00000")).toplevel;
    let adopt = PlanOptions {
        adopt: [name("n00000")].into(),
        ..PlanOptions::default()
    };
    for (found, wanted) in [
        (runs(&own, &own), "adopt"),
        (runs("/nix/store/x", "/nix/store/x"), "differs"),
        (Found::Nothing, "blocked"),
        (installer(super::report(&inventory, "n00000")), "blocked"),
        (
            Found::Unreachable {
                reason: "no route".to_owned(),
            },
            "unreachable",
        ),
        (
            Found::ForeignHostKey {
                fingerprint: "SHA256:x".to_owned(),
            },
            "quarantined",
        ),
    ] {
        let mut observation = prepared(&inventory);
        see(&mut observation, "n00000", found.clone());
        let before = [None, Some(false)];
        for proved_up in before {
            observation.installed = proved_up
                .map(|proved_up| {
                    let known = Installed {
                        proved_up,
                        ..Installed::default()
                    };
                    (name("n00000"), known)
                })
                .into_iter()
                .collect();
            let (plan, report) = plan_with(&inventory, &observation, None, &adopt);
            let wanted = match (&found, proved_up) {
                // It was begun by a plan and never came up: it is taken as it is all the same.
                (Found::Unreachable { .. }, Some(false)) => "blocked",
                _ => wanted,
            };
            assert_eq!(verdict(&report), wanted, "{found:?} {proved_up:?}");
            assert_eq!(plan.is_empty(), wanted != "adopt", "{found:?}");
        }
    }
}

#[test]
fn what_runs_and_was_not_built_is_left_alone_with_its_reason() {
    let inventory = inventory(1);
    let mut observation = prepared(&inventory);
    see(
        &mut observation,
        "n00000",
        runs("/nix/store/x", "/nix/store/x"),
    );
    observation.targets.clear();
    let why = |observation: &Observation| reasons(&planned(&inventory, observation).1, "n00000");
    assert_eq!(
        why(&observation),
        "it runs /nix/store/x; its system was not built"
    );
    let broken = Err("out of disk".to_owned());
    observation.targets.insert(name("n00000"), broken);
    assert_eq!(
        why(&observation),
        "it runs /nix/store/x; its system could not be built: out of disk"
    );
}

#[test]
fn memory_and_disks_are_enough_from_what_is_asked_for_on() {
    let inventory = inventory(1);
    let (whole, _) = planned(&inventory, &prepared(&inventory));
    let least = match &whole.steps[3].action {
        Action::Partition { disks, .. } => disks[0].size_bytes_min,
        other => panic!("{other:?}"),
    };
    for (memory_mb, size_bytes, system, said) in [
        (512, least, System::X86_64Linux, ""),
        (511, least, System::X86_64Linux, "reports 511 MiB of memory"),
        (513, least + 1, System::X86_64Linux, ""),
        (512, least - 1, System::X86_64Linux, "MiB, and"),
        (512, least, System::Aarch64Linux, "reports aarch64-linux"),
    ] {
        let mut seen = report(&inventory, "n00000");
        (seen.memory_mb, seen.system) = (memory_mb, system);
        seen.disks[0].size_bytes = size_bytes;
        let mut observation = prepared(&inventory);
        see(&mut observation, "n00000", installer(seen));
        let (_, found) = planned(&inventory, &observation);
        if said.is_empty() {
            assert_eq!(verdict(&found), "install", "{memory_mb} {size_bytes}");
        } else {
            let why = reasons(&found, "n00000");
            assert!(why.contains(said) && !why.contains(';'), "{why}");
        }
    }
}

#[test]
fn a_disk_that_is_missing_is_said_with_those_that_are_there() {
    let inventory = inventory(1);
    let disk = |n: usize, serial: Option<&str>, wwn: Option<&str>| ReportedDisk {
        path: format!("/dev/sd{n}"),
        serial: serial.map(str::to_owned),
        wwn: wwn.map(str::to_owned),
        size_bytes: 4 << 30,
        model: None,
        transport: None,
    };
    let reports = |disks: Vec<ReportedDisk>| {
        let mut seen = report(&inventory, "n00000");
        seen.disks = disks;
        let mut observation = prepared(&inventory);
        see(&mut observation, "n00000", installer(seen));
        let why = reasons(&planned(&inventory, &observation).1, "n00000");
        let (_, reports) = why.split_once("it reports ").unwrap();
        reports.to_owned()
    };
    assert_eq!(reports(vec![]), "no disk");
    assert_eq!(
        reports(vec![
            disk(1, Some("A"), Some("0x1")),
            disk(2, None, Some("0x2")),
            disk(3, None, None)
        ]),
        "/dev/sd1 with serial A, /dev/sd2 with WWN 0x2, /dev/sd3 without identity"
    );
    let many = |count| reports((0..count).map(|n| disk(n, None, None)).collect());
    assert_eq!(many(8).matches("without identity").count(), 8);
    assert!(!many(8).contains("more"));
    assert_eq!(many(9).matches("without identity").count(), 8);
    assert!(many(9).ends_with(", 1 more") && many(11).ends_with(", 3 more"));
}

#[test]
fn a_machine_waits_on_the_hands_that_it_needs() {
    let by_hand = "a person who starts it from the network";
    let approval = "an operator's approval of its fingerprint";
    let command = "power = { kind = \"command\", on = [\"on\"], off = [\"off\"] }";
    for (class, seen, waits_on) in [
        ("", false, vec![by_hand, approval]),
        ("", true, vec![approval]),
        (command, false, vec![approval]),
        ("power = { kind = \"rack\" }", false, vec![]),
    ] {
        let inventory = inventory_with(1, "ext4", "none", class);
        let mut observation = prepared(&inventory);
        if seen {
            let report = report(&inventory, "n00000");
            see(&mut observation, "n00000", installer(report));
        }
        let (_, found) = planned(&inventory, &observation);
        assert_eq!(found.nodes[&name("n00000")].waits_on, waits_on, "{class}");
    }
}

/// A partition table of this plan's says that the machine was planned so before, and is kept.
#[test]
fn a_disk_that_was_planned_alike_is_kept_and_that_is_said() {
    let inventory = inventory(1);
    let (first, _) = planned(&inventory, &prepared(&inventory));
    let disks = match &first.steps[3].action {
        Action::Partition { disks, .. } => disks.clone(),
        other => panic!("{other:?}"),
    };
    let mut other = disks.clone();
    other[0].table_guid = undercroft_model::MachineUuid([7; 16]);
    for (disks, options, notes) in [
        (disks.clone(), PlanOptions::default(), 1),
        (disks, reinstall("n00000"), 0),
        (other, PlanOptions::default(), 0),
        (Vec::new(), PlanOptions::default(), 0),
    ] {
        let mut observation = prepared(&inventory);
        let installed = Installed {
            disks,
            ..Installed::default()
        };
        observation.installed.insert(name("n00000"), installed);
        let (_, report) = plan_with(&inventory, &observation, None, &options);
        assert_eq!(report.nodes[&name("n00000")].notes.len(), notes);
    }
}
