//! The examples are inventories without a finding, and print to what reads back as the same.

use undercroft_model::inventory::{Inventory, Kind, Os, Role, parse, print};

pub(crate) const EXAMPLES: [(&str, &[u8]); 2] = [
    (
        "basement",
        include_bytes!("../../../../examples/basement/undercroft.toml"),
    ),
    (
        "rack",
        include_bytes!("../../../../examples/rack/undercroft.toml"),
    ),
];

/// An example, which must have no finding.
pub(crate) fn example(wanted: &str) -> Inventory {
    let (_, bytes) = EXAMPLES.iter().find(|(name, _)| *name == wanted).unwrap();
    clean(bytes)
}

/// An inventory without a finding.
pub(crate) fn clean(bytes: &[u8]) -> Inventory {
    let parsed = parse("undercroft.toml", bytes);
    let text: String = parsed.diagnostics.iter().map(ToString::to_string).collect();
    assert_eq!(text, "");
    parsed.inventory.unwrap()
}

#[test]
fn the_examples_have_no_findings_and_print_to_the_same() {
    for (name, bytes) in EXAMPLES {
        let inventory = clean(bytes);
        let printed = print(&inventory);
        let again = clean(printed.as_bytes());
        assert_eq!(again, inventory, "{name}");
        assert_eq!(again.digest(), inventory.digest(), "{name}");
        assert_eq!(print(&again), printed, "{name}");
    }
}

#[test]
fn the_basement_is_the_one_that_is_described() {
    let basement = example("basement");
    let count = |kind| basement.nodes.values().filter(|n| n.kind == kind).count();
    assert_eq!(count(Kind::Control), 3);
    assert_eq!(count(Kind::Gpu), 20);
    assert_eq!(count(Kind::PhoneHost), 1);
    assert_eq!(count(Kind::Pi), 4);
    let phones: usize = basement.nodes.values().map(|n| n.phones.len()).sum();
    assert_eq!(phones, 20);
    assert_eq!((basement.pcs.len(), basement.users.len()), (4, 2));
    let os = |os| basement.pcs.values().filter(|p| p.os == os).count();
    assert_eq!(
        (os(Os::Macos), os(Os::Linux), os(Os::WindowsWsl2)),
        (2, 1, 1)
    );
    let servers: Vec<&str> = basement.servers().iter().map(|n| n.as_str()).collect();
    assert_eq!(servers, ["control-01", "control-02", "control-03"]);
    assert_eq!(basement.root_keys().len(), 2);
    assert_eq!(basement.failure_budget(), 2);
    let hats: usize = basement.nodes.values().map(|n| n.hats.len()).sum();
    assert_eq!(hats, 4);
    let agents = basement.nodes.values().filter(|n| n.role == Role::Agent);
    assert_eq!(agents.count(), 22);
}
