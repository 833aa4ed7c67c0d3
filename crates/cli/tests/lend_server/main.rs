//! The server of lending with a real NATS and TLS: work is brought, handed out, and comes back, whatever is killed.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test's helpers end the test where something is missing"
)]

mod container;
mod kills;
mod lender;
mod nats;
mod nix;
mod pc;
mod pc_disk;
mod pc_kills;
mod permissions;
mod refusals;
mod site;
#[expect(dead_code, reason = "shared with other tests, which use all of it")]
#[path = "../support/mod.rs"]
mod support;
mod sweep;
mod work;
