//! What is refused, and what a ledger shows.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a panic is the finding"
)]

mod admission;
mod device;
#[path = "../seeds/keys.rs"]
mod keys;
mod ledger;
mod offers;
mod server;
