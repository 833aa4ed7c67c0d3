//! Undercroft's real world: SSH, Nix, power, the journal, and the QEMU rack.

pub mod parts;

pub mod approval;
pub mod clock;
pub mod journal;
pub mod keys;

pub mod power;
pub mod rack;
pub mod installer;
pub mod system;

mod process;
pub mod observe;
pub mod run;
pub mod ssh;
pub mod world;
