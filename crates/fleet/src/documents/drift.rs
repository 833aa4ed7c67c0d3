//! What has drifted.

use serde::{Deserialize, Serialize};
use undercroft_model::document::{Document, Version};
use undercroft_planner::drift::{DriftFinding, DriftHold, DriftReport, Unseen};

/// What `undercroft drift --json` prints: what of the fleet isn't as the inventory and its systems want it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Drift {
    /// The version of this document.
    pub version: Version<1>,
    /// The fleet's name.
    pub fleet: String,
    /// When it was looked, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Whether anything has drifted: a finding that counts and isn't held.
    pub drifted: bool,
    /// How many machines were looked at, those that didn't answer included.
    pub machines: usize,
    /// What was found.
    pub findings: Vec<DriftFinding>,
    /// What could not be seen: nothing of it is found, and nothing of it ends.
    pub unseen: Vec<Unseen>,
    /// What people have said is meant as it is, found now or not.
    pub holds: Vec<DriftHold>,
}

impl Document for Drift {
    const NAME: &'static str = "drift";
    const VERSION: u32 = 1;
}

impl Drift {
    /// The document of a look.
    pub fn of(
        fleet: &str,
        at_ms: u64,
        machines: usize,
        report: DriftReport,
        holds: &[DriftHold],
    ) -> Self {
        Self {
            version: Version,
            fleet: fleet.to_owned(),
            at_ms,
            drifted: report.is_drift(),
            machines,
            findings: report.findings,
            unseen: report.unseen,
            holds: holds.to_vec(),
        }
    }
}
