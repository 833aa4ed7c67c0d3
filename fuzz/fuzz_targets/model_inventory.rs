//! Any bytes give an inventory or at least one error, every finding can be shown, and an
//! inventory prints to what reads back as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use undercroft_model::inventory::{parse, print};

fuzz_target!(|bytes: &[u8]| {
    let parsed = parse("undercroft.toml", bytes);
    let errors = parsed.diagnostics.iter().any(|d| d.is_error());
    assert_eq!(parsed.inventory.is_none(), errors);
    for finding in &parsed.diagnostics {
        assert!(finding.place.end_byte <= bytes.len());
        let text = finding.to_string();
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
    }
    if let Some(inventory) = parsed.inventory {
        let again = parse("printed.toml", print(&inventory).as_bytes());
        assert_eq!(again.inventory.as_ref(), Some(&inventory));
    }
});
