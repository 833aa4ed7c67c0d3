//! Undercroft's planner: inventory and observation in, plan out; no I/O.
//!
//! [`plan`] is a pure function. It fixes every choice, so that carrying a plan out needs none, and
//! it says of every machine why it does what it does, in a [`PlanReport`]. [`check`] lints any
//! plan; the engine refuses one in which it finds an error.
//!
//! # When a disk is wiped
//!
//! A disk gets a partition table whose GUID is derived from the fleet, the machine, the disk's
//! identity, the layout and the machine's *generation*: the number of times that it was
//! deliberately installed anew. A disk that has that GUID is never wiped again, by a step that is
//! carried out twice, by a run after a crash, or by a later plan, whatever system that plan brings.
//! Only [`PlanOptions::reinstall`], which names the machine, gives the next generation and thereby
//! another GUID.
//!
//! A machine that runs is never planned to be installed without that, nor is one that was once
//! proved to be up and doesn't answer. A machine that was once up and whose layout has changed
//! since is blocked, since its disks may hold what must not be lost.

mod chain;
mod check;
mod cluster;
mod dependents;
pub mod drift;
mod estimate;
mod explain;
mod install;
mod members;
mod next;
mod options;
mod plan;
mod report;
mod rounds;
mod update;
mod verdict;

pub use check::{PlanFinding, check, check_decided};
pub use cluster::{NodeWants, node_wants};
pub use dependents::Dependents;
pub use estimate::{Estimate, estimate, typical_ms};
pub use explain::explain;
pub use next::{
    FaultyPlan, Held, LOOK_AGE_MS_MAX, Next, Replaced, Scope, Waiting, Waits, next, resumes,
};
pub use options::PlanOptions;
pub use plan::{Decided, plan, plan_digested, plan_with};
pub use report::{DestroyedDisk, NodeReport, NodeStatus, PlanReport, PlanSummary};
pub use rounds::{FAULTS_KEPT_MAX, MachineEnd, REMIND_MS, RETRY_MS_MAX, RETRY_MS_MIN, Rounds};
