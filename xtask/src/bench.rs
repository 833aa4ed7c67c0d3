//! `cargo xtask bench`: speed against real peers in the same run, as ratios.

use crate::run::Failed;

pub(crate) fn run(_rest: &[&str]) -> Result<(), Failed> {
    Err(Failed::new("bench", "not wired yet"))
}
