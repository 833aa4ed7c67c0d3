//! The examples are inventories without a finding, and print to what reads back as the same.

use std::path::PathBuf;

use undercroft_model::inventory::{Inventory, parse, print};

fn example(name: &str) -> (PathBuf, Vec<u8>) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../examples")
        .join(name)
        .join("undercroft.toml");
    let bytes = std::fs::read(&path).unwrap();
    (path, bytes)
}

fn read(name: &str) -> Inventory {
    let (_, bytes) = example(name);
    let parsed = parse("undercroft.toml", &bytes);
    let text: String = parsed.diagnostics.iter().map(ToString::to_string).collect();
    assert_eq!(text, "", "{name}");
    parsed.inventory.unwrap()
}

#[test]
fn the_examples_have_no_findings_and_print_to_the_same() {
    for name in ["basement", "rack"] {
        let inventory = read(name);
        let printed = print(&inventory);
        let again = parse("printed.toml", printed.as_bytes());
        let text: String = again.diagnostics.iter().map(ToString::to_string).collect();
        assert_eq!(text, "", "{name}\n{printed}");
        let again = again.inventory.unwrap();
        assert_eq!(again, inventory, "{name}");
        assert_eq!(again.digest(), inventory.digest(), "{name}");
        assert_eq!(print(&again), printed, "{name}");
    }
}
