//! Which step of the cluster's it is, and for how long it waits.

use undercroft_model::{ClusterPlan, NodeName, NodePlan, Step, Work};

use super::talk::{MARGIN_MS, PROBE_WAIT_MS_MAX};

/// A step of the cluster's, or a probe of it.
#[derive(Debug, Clone, Copy)]
pub struct ClusterStep<'a> {
    /// The step.
    pub step: &'a Step,
    /// Its machine.
    pub node: &'a NodePlan,
    /// The cluster.
    pub plan: &'a ClusterPlan,
    /// Other servers that may hold a part of the cluster, where the step founds it.
    pub members: &'a [NodeName],
    /// Which half of it.
    pub work: Work,
    /// The time after which the engine calls it off, in milliseconds from its start.
    pub timeout_ms: u64,
}

impl ClusterStep<'_> {
    /// How long the step waits for what comes by itself, in milliseconds from its start, with some left to say for what.
    pub fn wait_ms_max(&self) -> u64 {
        let left_ms = self.timeout_ms.saturating_sub(MARGIN_MS);
        match self.work {
            Work::Act => left_ms,
            Work::Probe => left_ms.min(PROBE_WAIT_MS_MAX),
        }
    }
}
