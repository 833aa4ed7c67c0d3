//! Whose a fleet is, and who reads its secrets: what `sudo` leaves behind, what commands that only look
//! leave alone, and whom a repository can't make a reader.
//!
//! Those about `sudo` are root, as it makes one, and become two other users, whom no system knows:
//! Ada, whose folder it is, and Bob. Where they aren't root they skip openly.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test's helpers end the test where something is missing"
)]

mod closed;
mod desk;
mod looks;
mod readers;
mod sudo;
#[expect(dead_code, reason = "shared with other tests, which use all of it")]
#[path = "../support/mod.rs"]
mod support;
