//! The daemon of a lent PC: it carries out what `lend`'s device decides.
//!
//! One thread does all of it but reading and writing large files. What the owner says works without a network, and
//! without a running daemon: [`Daemon::answer`] is what `undercroft lend` uses then.

mod build;
mod carry;
mod content;
mod core;
mod job;
mod keep;
mod open;
mod owner;
mod pause;
mod run;
mod unbegun;
mod usage;
mod views;

pub use self::core::{Daemon, Told};
pub use keep::{ENTRIES_FILE, Keep, KeepError};
pub use open::{DaemonError, DaemonSettings};
