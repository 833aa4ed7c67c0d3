//! Fleets of other sizes.

use undercroft_model::inventory::{MAX_SCALED_NODES, Role, ScaleError, print, scale_to};

use crate::examples::{clean, example};

#[test]
fn a_scaled_fleet_is_an_inventory_without_a_finding() {
    for name in ["basement", "rack"] {
        let inventory = example(name);
        for nodes in [inventory.nodes.len(), 50, 1000, 5000] {
            let scaled = scale_to(&inventory, nodes).unwrap();
            assert_eq!(scaled.nodes.len(), nodes, "{name}");
            assert_eq!(scaled.servers().len(), inventory.servers().len());
            let again = clean(print(&scaled).as_bytes());
            assert_eq!(again, scaled, "{name} with {nodes}");
            assert_eq!(scale_to(&inventory, nodes).unwrap(), scaled);
        }
    }
}

#[test]
fn a_smaller_fleet_keeps_its_founder_and_servers_longest() {
    let basement = example("basement");
    assert_eq!(basement.failure_budget(), 2);
    let ten_times = scale_to(&basement, basement.nodes.len() * 10).unwrap();
    assert_eq!(ten_times.failure_budget(), 20);
    let four = scale_to(&basement, 4).unwrap();
    assert_eq!(four.failure_budget(), 2);
    assert_eq!(four.nodes.len(), 4);
    assert_eq!(four.servers().len(), 3);
    let one = scale_to(&basement, 1).unwrap();
    assert_eq!(
        one.servers().first().map(|n| n.as_str()),
        Some("control-01")
    );
    assert_eq!(
        one.nodes.values().next().map(|n| n.role),
        Some(Role::Server)
    );
}

#[test]
fn what_cannot_be_scaled_says_so() {
    let mut rack = example("rack");
    assert_eq!(
        scale_to(&rack, MAX_SCALED_NODES + 1),
        Err(ScaleError::TooMany(MAX_SCALED_NODES + 1))
    );
    rack.nodes.clear();
    assert_eq!(scale_to(&rack, 1), Err(ScaleError::NoNodes));
}
