//! Lending from seeds: one store, servers that come and go, devices whose owners take them back, and a network
//! that loses, doubles and delays what is said.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_macros,
    reason = "in a test a panic is the finding, and what occurred is printed"
)]

mod checkers;
mod keys;
mod world;

use std::collections::BTreeMap;

use undercroft_simkit::{Faults, Kind as _, SeedOutcome, first_failure};

use world::Fault;

/// Seeds of each level that every run of the tests goes through.
const SEEDS: u64 = 334;
/// Set it to a number to go through so many seeds of each level instead.
const SEEDS_VARIABLE: &str = "UNDERCROFT_LEND_SEEDS";
/// Set it to begin at another seed.
const START_VARIABLE: &str = "UNDERCROFT_LEND_SEED";

#[expect(
    clippy::disallowed_methods,
    reason = "a test is asked for more seeds by its environment"
)]
fn number(variable: &str, otherwise: u64) -> u64 {
    let set = std::env::var(variable).ok();
    set.map_or(otherwise, |text| text.parse().expect(variable))
}

fn go(faults: Faults) {
    let start = number(START_VARIABLE, 1);
    let seeds = number(SEEDS_VARIABLE, SEEDS);
    let mut counts = BTreeMap::<Fault, u64>::new();
    let failed = first_failure(start..=start + seeds - 1, |seed, traced| {
        let ended = world::World::new(seed, faults, traced).go();
        for (fault, count) in ended.faults {
            *counts.entry(fault).or_default() += count;
        }
        Ok::<_, std::convert::Infallible>(SeedOutcome {
            failure: ended.failure,
            trace: ended.trace,
        })
    });
    let never = Fault::ALL
        .iter()
        .filter(|fault| !counts.contains_key(fault));
    let never: Vec<&Fault> = never.collect();
    if faults != Faults::None {
        println!("{seeds} seeds with {faults} faults: {counts:?}; never: {never:?}");
    }
    if let Ok(Some(failed)) = failed {
        panic!(
            "{}\nseed {} with {faults} faults: {}",
            failed.trace.join("\n"),
            failed.seed,
            failed.failure
        );
    }
}

#[test]
fn without_faults_each_job_is_done_once() {
    go(Faults::None);
}

#[test]
fn on_an_ordinary_day_nothing_is_lost_or_doubled() {
    go(Faults::Some);
}

#[test]
fn whatever_fails_nothing_is_lost_or_doubled() {
    go(Faults::Many);
}

#[test]
fn the_same_seed_does_the_same_again() {
    let run = |seed| world::World::new(seed, Faults::Many, true).go();
    for seed in [3, 77] {
        assert_eq!(run(seed), run(seed));
    }
    assert_ne!(run(3).trace, run(77).trace);
}
