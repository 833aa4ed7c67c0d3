//! `nix/tests/pure.nix`: the pure half's functions, one by one.

use crate::support::{evaluate, nix_is_here};

#[test]
fn the_functions_of_the_pure_half_do_as_they_say() {
    if !nix_is_here() {
        return;
    }
    let result = evaluate("pure.nix", None);
    assert!(result["count"].as_u64().unwrap() > 20, "{result}");
    let failed = result["failed"].as_array().unwrap();
    assert!(
        failed.is_empty(),
        "{}",
        serde_json::to_string_pretty(failed).unwrap()
    );
}
