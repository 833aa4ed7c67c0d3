//! Undercroft's engine: sans-I/O state machines that carry out a plan.

mod world;

pub use world::{Effect, Event, Journal, JournalError, NodeFacts, Order, World};
