//! Lending on real machines: the server beside NATS, the daemon of a developer's PC, and what its owner says to it.
//!
//! Decisions are `lend`'s. This crate carries them out: sockets, files, keys, clocks and programs.

pub use undercroft_lend::accounts;

pub mod audit;
pub mod bus;
mod clock;
pub mod daemon;
pub mod device_keys;
mod doctor;
pub mod hours;
pub mod idle;
pub mod keys;
mod lines;
pub mod nix;
pub mod owner;
pub mod policy;
pub mod server;
pub mod submit;
#[cfg(test)]
mod tests;
pub mod watch;
