//! What the checkers find when the controller's side is broken on purpose.

use undercroft_model::inventory::parse;

use super::*;
use crate::world::Sabotage;

const BASEMENT: &str = include_str!("../../../../examples/basement/undercroft.toml");

/// The rules that the first seeds break when the world is sabotaged in that way.
fn broken_rules(sabotage: Option<Sabotage>) -> BTreeSet<Rule> {
    let inventory = parse("undercroft.toml", BASEMENT.as_bytes())
        .inventory
        .unwrap();
    let inventory = scale_to(&inventory, 5).unwrap();
    (1..=60)
        .filter_map(|seed| {
            let options = RehearseOptions {
                seed,
                faults: Faults::Many,
                ..RehearseOptions::default()
            };
            let mut run = Run::new(&inventory, &options);
            run.world.sabotage = sabotage;
            run.whole().err().map(|violation| violation.rule)
        })
        .collect()
}

#[test]
fn a_sound_world_breaks_no_rule() {
    assert_eq!(broken_rules(None), BTreeSet::new());
}

#[test]
fn a_second_wipe_is_seen() {
    let rules = broken_rules(Some(Sabotage::WipesAgain));
    assert!(rules.contains(&Rule::SecondWipe), "{rules:?}");
}

#[test]
fn a_connection_without_approval_is_seen() {
    let rules = broken_rules(Some(Sabotage::ApprovesAnyone));
    assert!(rules.contains(&Rule::ContactApproval), "{rules:?}");
}

#[test]
fn a_machine_that_is_called_up_and_is_not_is_seen() {
    let rules = broken_rules(Some(Sabotage::CallsAnythingUp));
    assert!(rules.contains(&Rule::UpIsTrue), "{rules:?}");
}

#[test]
fn a_fleet_that_never_gets_up_is_seen() {
    let rules = broken_rules(Some(Sabotage::LosesReports));
    assert!(rules.contains(&Rule::Liveness), "{rules:?}");
}
