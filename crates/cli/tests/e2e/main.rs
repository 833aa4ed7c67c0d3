//! Whole machines with real firmware: from powered off to up, and through the accidents on the way.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helpers end the test where something is missing"
)]

mod accidents;
mod attacker;
mod bring_up;
mod fleet;
mod netboot;
mod secrets;
