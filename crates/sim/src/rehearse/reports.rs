//! Which reports end a network boot, while somebody else sends reports in each machine's name.

use std::collections::BTreeMap;

use undercroft_model::{Evidence, Outcome, inventory::parse};

use super::*;

const BASEMENT: &str = include_str!("../../../../examples/basement/undercroft.toml");

/// Late reports of earlier boots, reports of other machines, reports with another's key and without a boot: none of them
/// is what a network boot ends with, as on real machines.
#[test]
fn a_network_boot_ends_with_a_report_of_its_machine_and_of_a_new_boot() {
    let inventory = parse("undercroft.toml", BASEMENT.as_bytes());
    let inventory = scale_to(&inventory.inventory.unwrap(), 5).unwrap();
    let mut seen = 0;
    for seed in 1..=12 {
        let options = RehearseOptions {
            seed,
            faults: Faults::Some,
            keep_journal: true,
            ..RehearseOptions::default()
        };
        let mut state = RehearsalState::new(&inventory, &options);
        for node in 0..5 {
            state.world.machine(node).impersonated = true;
            state.world.impostor_comes(node);
        }
        state.run_phases().unwrap();
        let shared = state.shared.borrow();
        let mut plan = None;
        let mut started = BTreeMap::new();
        let mut stood_on = BTreeMap::new();
        for entry in shared.journal.read_whole().unwrap() {
            match entry.record {
                Record::PlanAccepted { plan: accepted } => plan = Some(accepted),
                Record::OpStarted { op, step, work, .. } => {
                    let step = plan.as_ref().and_then(|plan| plan.step(step));
                    started.insert(op, (step.unwrap().node.clone(), work));
                }
                Record::OpEnded {
                    op,
                    outcome:
                        Outcome::Done {
                            evidence: Evidence::Seen { report },
                        },
                    ..
                } => {
                    let (node, work) = started.remove(&op).unwrap();
                    let planned = &inventory.nodes[&node];
                    assert!(
                        report.macs.iter().any(|mac| planned.macs.contains(mac)),
                        "seed {seed}, {node}: another machine's"
                    );
                    assert_eq!(report.uuid, planned.uuid, "seed {seed}, {node}: another's");
                    assert!(!report.boot_id.is_empty(), "seed {seed}, {node}: no boot");
                    assert!(
                        crate::machine::has_its_key(&report),
                        "seed {seed}, {node}: another's key"
                    );
                    let before = stood_on.insert(node.clone(), report.boot_id.clone());
                    if work == undercroft_model::Work::Act {
                        assert_ne!(before, Some(report.boot_id), "seed {seed}, {node}: late");
                    }
                    seen += 1;
                }
                _ => {}
            }
        }
    }
    assert!(seen >= 60, "{seen} reports were taken");
}
