//! Undercroft's real world: SSH, Nix, power, the journal, and the QEMU rack.

pub mod parts;

pub mod approval;
pub mod clock;
pub mod confined;
pub mod git_index;
pub mod journal;
pub mod keys;
pub mod secrets;
pub mod state;

pub mod installer;
pub mod power;
pub mod rack;
pub mod system;
pub mod trace;

pub mod kube;
pub mod observe;
mod process;
pub mod run;
pub mod ssh;
pub mod world;

pub use process::end_programs;
