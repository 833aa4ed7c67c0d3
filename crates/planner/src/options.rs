//! What a plan is asked to be about.

use std::collections::BTreeSet;

use undercroft_model::{NodeName, NodeState};

use crate::verdict::NodeScope;

/// What a plan is asked to be about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PlanOptions {
    /// The machines to plan for; all of them where this is `None`.
    pub only: Option<BTreeSet<NodeName>>,
    /// Machines to wipe and install anew although they run, or were once up.
    pub reinstall: BTreeSet<NodeName>,
    /// Machines that somebody else has installed, to be taken as they are: each is proved to run what it should, and
    /// is never installed by this plan.
    pub adopt: BTreeSet<NodeName>,
    /// Whether machines are only booted, approved and inspected: nothing is written to them, and
    /// nothing needs to have been built for them.
    pub inspect_only: bool,
    /// Whether machines that run another system than the one that was built are updated, wave by wave.
    pub update: bool,
    /// Machines that may try a system once more that they have left by themselves.
    pub retry: BTreeSet<NodeName>,
    /// The state beyond which no machine is brought; `None` brings all of them to their end.
    /// [`NodeState::Up`] leaves the cluster out.
    pub until: Option<NodeState>,
}

impl PlanOptions {
    /// What is asked for of one machine; nothing, where it isn't named.
    pub(crate) fn of(&self, name: &NodeName) -> Option<NodeScope<'_>> {
        let reinstall = self.reinstall.contains(name);
        let adopt = self.adopt.contains(name);
        let is_asked = self.only.as_ref().is_none_or(|only| only.contains(name));
        (is_asked || reinstall || adopt).then_some(NodeScope {
            reinstall,
            adopt,
            inspect_only: self.inspect_only,
            until: self.until,
            all_reinstalled: &self.reinstall,
        })
    }
}
