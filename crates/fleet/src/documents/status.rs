//! How far each machine has come, as the journal says it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use undercroft_journal::{Head, LockHolder, PendingReport};
use undercroft_model::{
    NodeName, NodeState,
    document::{Document, Version},
    inventory::Inventory,
    view::{Counts, FleetView, NodeStatus, NodeView, RunView},
};

/// What `undercroft status --json` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Status {
    /// The version of this document.
    pub version: Version<1>,
    /// The fleet's name, where the journal or the inventory tells it.
    pub fleet: Option<String>,
    /// Who is at work on it now.
    pub controller: Option<Controller>,
    /// The latest run of the accepted plan.
    pub run: Option<RunView>,
    /// How far the journal has come; `None` where nothing was ever written to it.
    pub journal: Option<JournalHead>,
    /// The machines of the accepted plan, counted.
    pub counts: Counts,
    /// The reports of installers that wait for somebody's approval.
    pub waiting_for_approval: Vec<PendingReport>,
    /// The machines, by their names.
    pub nodes: BTreeMap<NodeName, NodeLine>,
}

impl Document for Status {
    const NAME: &'static str = "status";
    const VERSION: u32 = 1;
}

/// How far the journal has come, as `undercroft journal` says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct JournalHead {
    /// How many entries it has.
    pub entries: u64,
    /// The digest of the last, and through it of all before, in hexadecimal.
    pub head: String,
}

impl From<Head> for JournalHead {
    fn from(head: Head) -> Self {
        Self {
            entries: head.seq.saturating_add(1),
            head: head.digest(),
        }
    }
}

/// The program that is at work on a fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Controller {
    /// Its process id, where it is known.
    pub pid: Option<u32>,
    /// What it calls itself, such as `undercroft up`.
    pub command: Option<String>,
}

impl From<LockHolder> for Controller {
    fn from(holder: LockHolder) -> Self {
        Self {
            pid: holder.pid,
            command: holder.command,
        }
    }
}

/// What is known of one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(untagged)]
pub enum NodeLine {
    /// The latest plan has it.
    Planned(Box<NodeView>),
    /// It doesn't.
    Other {
        /// How far an earlier plan has brought it.
        state: NodeState,
        /// Always `null`.
        status: Option<NodeStatus>,
    },
}

impl NodeLine {
    /// How far the machine has come.
    pub fn state(&self) -> NodeState {
        match self {
            Self::Planned(node) => node.state,
            Self::Other { state, .. } => *state,
        }
    }
}

/// How far earlier plans have brought a machine that the latest one doesn't have.
pub(crate) fn installed_state(view: &FleetView, name: &NodeName) -> NodeState {
    match view.installed().get(name) {
        Some(installed) if installed.joined => NodeState::Joined,
        Some(installed) if installed.proved_up => NodeState::Up,
        _ => NodeState::Unknown,
    }
}

impl Status {
    /// The status of all machines that the inventory or the accepted plan has.
    pub fn of(
        inventory: Option<&Inventory>,
        view: &FleetView,
        head: Option<Head>,
        controller: Option<LockHolder>,
        waiting_for_approval: Vec<PendingReport>,
    ) -> Self {
        let mut nodes = BTreeMap::new();
        for name in inventory.iter().flat_map(|i| i.nodes.keys()) {
            let state = installed_state(view, name);
            let status = None;
            nodes.insert(name.clone(), NodeLine::Other { state, status });
        }
        for (name, node) in &view.nodes {
            nodes.insert(name.clone(), NodeLine::Planned(Box::new(node.clone())));
        }
        let of_inventory = || inventory.map(|inventory| inventory.fleet.name.clone());
        Self {
            version: Version,
            fleet: view.fleet.clone().or_else(of_inventory),
            controller: controller.map(Into::into),
            run: view.run.clone(),
            journal: head.map(Into::into),
            counts: view.counts(),
            waiting_for_approval,
            nodes,
        }
    }

    /// Leaves out all machines that aren't meant.
    pub fn retain(&mut self, meant: impl Fn(&NodeName) -> bool) {
        self.nodes.retain(|name, _| meant(name));
        self.waiting_for_approval
            .retain(|report| meant(&report.node));
    }
}
