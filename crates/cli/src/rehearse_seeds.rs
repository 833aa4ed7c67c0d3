//! Many seeds on all cores, with the outcome that one core would have.
//!
//! The seeds are cut into blocks, which the threads take in order; what they find is put together in
//! that order, up to the first seed that breaks a rule. The simulation itself knows of no threads.

use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use undercroft_model::inventory::Inventory;
use undercroft_sim::{RehearseError, RehearseOptions, SeedsReport, run_seeds};

/// Seeds that a thread takes at once: so many that taking them costs nothing, so few that no thread
/// is left alone with many at the end.
const BLOCK: u64 = 16;
/// Threads beyond which a rehearsal of seeds has no use for cores.
const THREADS_MAX: usize = 64;

/// As [`run_seeds`], on all cores. `progress` is told how many seeds are done, in any order.
pub(crate) fn run(
    inventory: &Inventory,
    options: &RehearseOptions,
    seeds: RangeInclusive<u64>,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<SeedsReport, RehearseError> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    on_threads(
        threads.min(THREADS_MAX),
        inventory,
        options,
        seeds,
        progress,
    )
}

fn on_threads(
    threads: usize,
    inventory: &Inventory,
    options: &RehearseOptions,
    seeds: RangeInclusive<u64>,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<SeedsReport, RehearseError> {
    let (first, last) = (*seeds.start(), *seeds.end());
    let next = AtomicU64::new(0);
    // The lowest block that ended early; those above it are of no interest any more.
    let ended = AtomicU64::new(u64::MAX);
    let done = AtomicU64::new(0);
    let found = Mutex::new(BTreeMap::new());
    let work = || {
        loop {
            let block = next.fetch_add(1, Ordering::Relaxed);
            let from = block
                .checked_mul(BLOCK)
                .and_then(|offset| first.checked_add(offset))
                .filter(|from| *from <= last);
            let Some(from) = from.filter(|_| block <= ended.load(Ordering::Relaxed)) else {
                return;
            };
            let to = from.saturating_add(BLOCK - 1).min(last);
            let report = run_seeds(inventory, options, from..=to, &mut |_| {
                progress(done.fetch_add(1, Ordering::Relaxed) + 1);
            });
            if !report.as_ref().is_ok_and(|report| report.failed.is_none()) {
                ended.fetch_min(block, Ordering::Relaxed);
            }
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            found.insert(block, report);
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    let mut all = SeedsReport {
        seeds: 0,
        entries: 0,
        faults: BTreeMap::new(),
        failed: None,
    };
    for report in found
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
        .into_values()
    {
        let report = report?;
        all.seeds += report.seeds;
        all.entries += report.entries;
        for (kind, times) in report.faults {
            *all.faults.entry(kind).or_default() += times;
        }
        all.failed = report.failed;
        if all.failed.is_some() {
            break;
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use undercroft_model::inventory::parse;
    use undercroft_sim::Faults;

    use super::*;

    const RACK: &str = include_str!("../../../examples/rack/undercroft.toml");

    #[test]
    fn threads_find_what_one_finds() {
        let inventory = parse("undercroft.toml", RACK.as_bytes()).inventory.unwrap();
        let options = RehearseOptions {
            faults: Faults::Many,
            ..RehearseOptions::default()
        };
        for seeds in [5..=5, 1..=16, 1..=17, 100..=150, u64::MAX - 20..=u64::MAX] {
            let count = seeds.end() - seeds.start() + 1;
            let alone = run_seeds(&inventory, &options, seeds.clone(), &mut |_| {}).unwrap();
            assert_eq!(alone.seeds, count);
            for threads in [1, 2, 5] {
                let told = AtomicU64::new(0);
                let report = on_threads(threads, &inventory, &options, seeds.clone(), &|_| {
                    told.fetch_add(1, Ordering::Relaxed);
                });
                assert_eq!(report.unwrap(), alone, "{threads} threads");
                assert_eq!(told.into_inner(), count);
            }
        }
        let none = RehearseOptions {
            nodes: Some(0),
            ..options
        };
        let refused = on_threads(3, &inventory, &none, 1..=100, &|_| {}).unwrap_err();
        assert!(refused.to_string().contains("no nodes"), "{refused}");
    }
}
