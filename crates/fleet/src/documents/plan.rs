//! A plan, and what it means.

use serde::{Deserialize, Serialize};
use undercroft_model::{
    Plan,
    document::{Document, Version},
};
use undercroft_planner::{Next, PlanReport};

/// What `undercroft plan --json` prints: what there is to do by now, and what that means for each machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PlanDocument {
    /// The version of this document; the plan within has its own.
    pub version: Version<1>,
    /// The plan; without steps where there is nothing to do.
    pub plan: Box<Plan>,
    /// What it means.
    pub report: Box<PlanReport>,
}

impl Document for PlanDocument {
    const NAME: &'static str = "plan";
    const VERSION: u32 = 1;
}

impl PlanDocument {
    /// The plan of a decision; `None` where it is to go on with a plan that was accepted before.
    pub fn of(next: Next) -> Option<Self> {
        match next {
            Next::Resume { .. } => None,
            Next::CarryOut { plan, report, .. }
            | Next::Wait { plan, report, .. }
            | Next::Nothing { plan, report } => Some(Self {
                version: Version,
                plan,
                report,
            }),
        }
    }
}
