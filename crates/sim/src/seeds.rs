//! Many seeds, one after the other, until one breaks a rule.

use std::{collections::BTreeMap, ops::RangeInclusive};

use serde::{Deserialize, Serialize};
use undercroft_model::inventory::Inventory;
use undercroft_simkit::{SeedOutcome, first_failure};

use crate::{
    checkers::Violation,
    faults::FaultKind,
    options::RehearseOptions,
    rehearse::{RehearseError, rehearse},
};

/// What a range of seeds has shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SeedsReport {
    /// How many seeds were run, the failing one included.
    pub seeds: u64,
    /// Journal entries of all of them.
    pub entries: u64,
    /// How often each kind of fault happened in all of them.
    pub faults: BTreeMap<FaultKind, u64>,
    /// The first seed that broke a rule.
    pub failed: Option<FailedSeed>,
}

/// A seed that broke a rule: a bug in Undercroft.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct FailedSeed {
    /// The seed.
    pub seed: u64,
    /// The rule, and how it was broken.
    pub violation: Violation,
    /// The last events before that, one line each, oldest first.
    pub trace: Vec<String>,
    /// The arguments of `undercroft rehearse` that repeat it.
    pub repeat: String,
}

impl std::fmt::Display for FailedSeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "Seed {} broke a rule: {}", self.seed, self.violation)?;
        writeln!(f, "The last events:")?;
        for line in &self.trace {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "Repeat it with: undercroft rehearse DIR {}", self.repeat)
    }
}

/// Rehearses with each seed of the range, and stops at the first that breaks a rule. `progress` is
/// told after each seed how many are done.
///
/// # Errors
/// When there is nothing to rehearse.
pub fn run_seeds(
    inventory: &Inventory,
    options: &RehearseOptions,
    seeds: RangeInclusive<u64>,
    progress: &mut dyn FnMut(u64),
) -> Result<SeedsReport, RehearseError> {
    let mut report = SeedsReport {
        seeds: 0,
        entries: 0,
        faults: BTreeMap::new(),
        failed: None,
    };
    let mut options = options.clone();
    let failed = first_failure(seeds, |seed, traced| {
        (options.seed, options.trace) = (seed, traced);
        let rehearsal = rehearse(inventory, &options)?;
        // A failing seed is run a second time for its trace, and counts once.
        if !traced {
            report.seeds += 1;
            report.entries += rehearsal.entries;
            for fault in &rehearsal.report.fault_counts {
                let times = u64::try_from(fault.times).unwrap_or(u64::MAX);
                *report.faults.entry(fault.kind).or_default() += times;
            }
            if rehearsal.violation.is_none() {
                progress(report.seeds);
            }
        }
        Ok(SeedOutcome {
            failure: rehearsal.violation,
            trace: rehearsal.trace,
        })
    })?;
    report.failed = failed.map(|failed| {
        options.seed = failed.seed;
        FailedSeed {
            seed: failed.seed,
            violation: failed.failure,
            trace: failed.trace,
            repeat: repeat(&options),
        }
    });
    Ok(report)
}

fn repeat(options: &RehearseOptions) -> String {
    let nodes = options
        .nodes
        .map_or_else(String::new, |nodes| format!(" --nodes {nodes}"));
    format!(
        "--seed {} --faults {} --profile {}{nodes}",
        options.seed, options.faults, options.profile.name
    )
}
