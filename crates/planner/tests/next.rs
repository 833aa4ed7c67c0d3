//! No verdict is a dead end: whatever is seen of a machine, it is planned, or all is well, or a person is
//! told what to do about it.

mod fleet;

use std::collections::BTreeSet;

use fleet::*;
use undercroft_model::{Found, Installed, MachineUuid, Observation, System, inventory::Inventory};
use undercroft_planner::{NodeStatus, PlanOptions, explain, plan_with};

const NODE: &str = "n00000";

/// What may be found of a machine, each of the inventory's and with each thing that can be wrong with it.
fn founds(inventory: &Inventory) -> Vec<Found> {
    let good = || report(inventory, NODE);
    let with = |change: &dyn Fn(&mut undercroft_model::InstallerReport)| {
        let mut report = good();
        change(&mut report);
        installer(report)
    };
    let system = |path: &str| format!("/nix/store/1c0vdzlgl5n8kbzvxjmmdhdnjgcl7c6x-{path}");
    vec![
        Found::Nothing,
        running(NODE),
        Found::Running {
            boot_id: "b".to_owned(),
            booted_system: system("older"),
            current_system: system("older"),
        },
        Found::Running {
            boot_id: "b".to_owned(),
            booted_system: system("older"),
            current_system: target(&name(NODE)).toplevel,
        },
        Found::Unreachable {
            reason: "no route to host".to_owned(),
        },
        Found::ForeignHostKey {
            fingerprint: "SHA256:other".to_owned(),
        },
        installer(good()),
        with(&|r| r.macs.clear()),
        with(&|r| r.uuid = Some(MachineUuid([9; 16]))),
        with(&|r| r.system = System::Aarch64Linux),
        with(&|r| r.memory_mb = 1),
        with(&|r| r.disks.clear()),
        with(&|r| r.disks.iter_mut().for_each(|disk| disk.size_bytes = 1)),
        with(&|r| r.disks.extend(r.disks.clone())),
    ]
}

/// What else is known of it.
fn known(inventory: &Inventory) -> Vec<Observation> {
    let prepared = || prepared(inventory);
    let mut all = vec![prepared()];
    for proved_up in [false, true] {
        let mut before = prepared();
        let installed = Installed {
            proved_up,
            ..Installed::default()
        };
        before.installed.insert(name(NODE), installed);
        all.push(before);
    }
    let mut unbuilt = prepared();
    let why = Err("attribute missing".to_owned());
    unbuilt.targets.insert(name(NODE), why);
    all.push(unbuilt);
    let mut no_system = prepared();
    no_system.targets.remove(&name(NODE));
    all.push(no_system);
    let mut no_key = prepared();
    no_key.host_keys.remove(&name(NODE));
    all.push(no_key);
    let mut other = target(&name(NODE));
    other.system = System::Aarch64Linux;
    let mut foreign = prepared();
    foreign.targets.insert(name(NODE), Ok(other));
    all.push(foreign);
    all
}

fn asked() -> Vec<PlanOptions> {
    let reinstall = PlanOptions {
        reinstall: BTreeSet::from([name(NODE)]),
        ..PlanOptions::default()
    };
    let inspect_only = PlanOptions {
        inspect_only: true,
        ..PlanOptions::default()
    };
    let adopt = PlanOptions {
        adopt: BTreeSet::from([name(NODE)]),
        ..PlanOptions::default()
    };
    vec![PlanOptions::default(), reinstall, inspect_only, adopt]
}

#[test]
fn every_verdict_has_a_next_step() {
    let mut rootless = inventory(1);
    rootless.nodes.get_mut(&name(NODE)).unwrap().disks.clear();
    let mut with_uuid = inventory(1);
    with_uuid.nodes.get_mut(&name(NODE)).unwrap().uuid = Some(MachineUuid([7; 16]));
    let inventories = [
        inventory(1),
        inventory_with(1, "ext4", "none", "firmware = \"bios\""),
        inventory_with(1, "zfs", "none", ""),
        inventory_with(2, "ext4", "k3s", ""),
        rootless,
        with_uuid,
    ];
    let mut kinds = BTreeSet::new();
    let mut said = BTreeSet::new();
    for inventory in &inventories {
        for found in founds(inventory) {
            for mut observation in known(inventory) {
                see(&mut observation, NODE, found.clone());
                for options in asked() {
                    let (plan, report) = plan_with(inventory, &observation, None, &options);
                    let text = explain(&plan, &report);
                    for (node, report) in &report.nodes {
                        let what = format!("{node} {found:?} {options:?}: {report:?}");
                        let status = format!("{:?}", report.status);
                        let kind = status.split(' ').next().unwrap();
                        kinds.insert(kind.to_owned());
                        let fine =
                            report.status.is_planned() || report.status == NodeStatus::Converged;
                        assert_eq!(fine, report.next.is_empty(), "{what}");
                        for next in &report.next {
                            assert!(next.len() > 10 && !next.contains('\n'), "{what}");
                            assert!(text.contains(&format!("    next: {next}\n")), "{text}");
                            said.insert(next.clone());
                        }
                        if let NodeStatus::Blocked { reasons } = &report.status {
                            assert!(!reasons.is_empty(), "{what}");
                        }
                        // What is advised helps: who is told to name the machine isn't told so again.
                        let again = report.next.iter().any(|next| next.contains("--reinstall"));
                        assert!(!(again && options.reinstall.contains(node)), "{what}");
                    }
                }
            }
        }
    }
    // All of them were met: install, reinstall, join, adopt, converged, differs, unreachable, quarantined, blocked.
    assert_eq!(kinds.len(), 9, "{kinds:?}");
    assert!(said.len() >= 15, "{said:?}");
}
