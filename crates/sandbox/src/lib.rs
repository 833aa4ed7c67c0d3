//! A lent job confined on its owner's machine, and seen gone.
//!
//! What runs knows nothing of leases and nobody's network. It is told by its caller what it may have, and gets
//! nothing that could not be confined: a limit that can't be read back is a refusal, never a weaker sandbox.
//!
//! A caller opens a [`Yard`] once, sweeps what an earlier process left in it, and starts a [`JobSpec`] in it. What it
//! gets is a [`Running`], which can be frozen, killed and seen gone, and whose output is taken when it has ended.

mod bounds;
mod builder;
mod bwrap;
mod digest;
mod disk;
mod groups;
mod log;
pub mod order;
mod output;
mod probe;
mod refusal;
mod running;
mod spawn;
mod supervise;
mod tools;
mod wipe;
mod yard;

pub use bounds::{
    Bounds, DiskBound, InputFile, JobSpec, JobWork, MEMORY_MB_MIN, Program, ProgramKind,
    TotalBounds,
};
pub use builder::{BuilderSpec, StorePath};
pub use digest::FileDigest;
pub use output::TakenOutput;
pub use probe::{Ability, ProbeReport, probe};
pub use refusal::SandboxError;
pub use running::{JobEnd, JobGone, JobUsage, KillReason, Running};
pub use tools::Tools;
pub use yard::{Swept, Yard, sweep};
