//! Undercroft's engine: sans-I/O state machines that carry out a plan.
//!
//! An [`Engine`] is told what happened and when, and says what to do. It has no clock, no entropy,
//! no files and no threads, and it never chooses: every choice stands in the plan. What it knows of
//! a machine is folded from the same records that the journal keeps, so that an engine that is
//! made from the journal after a crash knows what the first one knew.
//!
//! # How a step goes
//!
//! 1. A step may begin when its machine has come that far and the steps that it names in `after`
//!    are done. If it holds a resource, it waits for it; the lowest step goes first.
//!    The steps that it names in `after_settled` are waited for only while they can still be done
//!    in this run: what has failed, or won't be begun any more, holds nobody up.
//! 2. `OpStarted` is journalled, then the operation is started: an act, or first a probe where the
//!    step may be done already.
//! 3. A transient failure is tried again after a wait that doubles, as often as the step allows; then
//!    a look tells whether what the step stands on is gone, before the machine is given up. An
//!    act that may have happened (an ambiguous failure, a time limit, a controller that died) is
//!    probed before anything else. A lost precondition takes the machine back to where its step says,
//!    as often as the plan allows: to its network boot, or a member of the cluster to where it became
//!    one, and from there each step is looked at before it is done again. So does a machine that
//!    stays out of a probe's sight as often as the step may be tried, since it may have lost its
//!    power, and one that nobody approved in all its tries. A refusal fails the machine for good, until another plan.
//! 4. A machine that failed stops no other. When more have failed than the plan's budget, no
//!    machine is begun any more; those under way go on to their end.
//!
//! # A run and the next
//!
//! Each run ([`undercroft_model::Record::RunStarted`]) gives every machine fresh tries: attempts,
//! restarts and failures of an earlier run don't count, and a machine that failed goes on where it
//! stopped. Only refusals stay. The first operation of every machine that had begun is a probe.
//!
//! A run can be cut short in two ways: interrupted, what runs is called off at once; wound down, nothing further is
//! begun and what runs comes to its end. The next goes on from either.

mod driver;
mod engine;
mod evidence;
mod fault;
mod gates;
mod outcome;
mod progress;
mod reported;
mod resume;
mod schedule;
mod shape;
mod start;
mod world;

pub use driver::Driver;
pub use engine::Engine;
pub use fault::{EngineFault, PlanRefused, ResumeError};
pub use progress::PROBE_TIMEOUT_MS_MAX;
pub use resume::Resumption;
pub use undercroft_model::NodeFacts;
pub use world::{Effect, Event, Journal, JournalError, Order, World};
