//! Undercroft's deterministic simulation: world, faults, checkers, seeds.
//!
//! [`rehearse`] plans an inventory with the real planner and carries the plan out with the real
//! engine, in a world of simulated machines with a clock of its own. The machines behave as
//! machines do: they have firmware that can miss its network boot, disks that hold what was written
//! before their power was lost, commands that go on when nobody listens any more. Nothing in here
//! reads a clock, a file or a random device; the same seed gives the same journal, byte for byte.
//!
//! While it runs, checkers that trust neither planner nor engine see every record when it becomes
//! durable, every operation when it is started and every act on a machine when it happens; see
//! [`Rule`] for what they watch over. A broken rule is a bug in Undercroft, and the seed repeats it.

mod checkers;
mod cluster;
mod faults;
mod fleet;
mod journal;
mod machine;
mod options;
mod profile;
mod rehearse;
mod report;
mod seeds;
mod shared;
mod state;
mod world;

pub use checkers::{Rule, Violation};
pub use faults::FaultKind;
pub use options::RehearseOptions;
pub use profile::Profile;
pub use rehearse::{Rehearsal, RehearseError, rehearse};
pub use report::{
    ClassTimeline, ClusterReport, FailedNode, FaultCount, LimitReport, Milestone, PathSegment,
    PeopleReport, PhaseReport, RehearsalReport, RunReport, SiteVisit,
};
pub use seeds::{FailedSeed, SeedsReport, run_seeds};
pub use undercroft_simkit::{Faults, Spread, UnknownFaults};
