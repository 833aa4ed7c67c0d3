//! Undercroft's real world: power, observation and the actions of a plan on real (or a rack's) machines.

pub mod drift;
pub mod observe;
pub mod power;
pub mod world;
