//! The state of a rehearsal: the fleet, what was planned for it, how each run ended.

use std::{
    borrow::Cow,
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
};

use undercroft_model::{
    BootstrapPart, NodeName, Observation, Plan, Record, RunEnd, inventory::Inventory,
};
use undercroft_planner::{NodeStatus, PlanReport};
use undercroft_simkit::{Faults, Rng, Trace};

use crate::{
    checkers::{Checkers, Violation},
    faults::Dice,
    fleet,
    journal::{Keep, SimJournal},
    options::RehearseOptions,
    shared::{Shared, SharedRef},
    world::SimWorld,
};

/// How one run ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunRecord {
    pub(crate) end: Option<RunEnd>,
    pub(crate) start_ms: u64,
    pub(crate) end_ms: u64,
    pub(crate) resumed: bool,
    /// Whether it began after faults had stopped.
    pub(crate) after_faults: bool,
}

/// One seed in so many reads its journal back from the bytes, which takes a sixth of its time; the others fold
/// the very entries that were appended.
const READ_BACK_EVERY: u64 = 8;

/// A rehearsal as far as it has come, and what stays of it for the report when it is over.
pub(crate) struct RehearsalState<'a> {
    pub(crate) inventory: Cow<'a, Inventory>,
    /// Its digest, once it was needed and until it is changed.
    pub(crate) inventory_digest: Option<String>,
    pub(crate) world: SimWorld,
    pub(crate) shared: SharedRef,
    pub(crate) runs: Vec<RunRecord>,
    /// The plan that each run carried out.
    pub(crate) plans: Vec<Arc<Plan>>,
    pub(crate) last_report: Option<PlanReport>,
    /// Machines that a person had to go to, and why.
    pub(crate) site_visits: Vec<(u32, &'static str)>,
    pub(crate) targets: Observation,
    /// Machines that a person has named to be wiped, until a plan does it.
    pub(crate) reinstall: BTreeSet<NodeName>,
    /// Machines that were ever named so.
    pub(crate) reinstall_requested: BTreeSet<NodeName>,
    pub(crate) rng: Rng,
    pub(crate) violation: Option<Violation>,
}

impl<'a> RehearsalState<'a> {
    pub(crate) fn new(inventory: &'a Inventory, options: &RehearseOptions) -> Self {
        let specs = fleet::specs(inventory, &options.profile);
        let targets = Observation {
            nodes: BTreeMap::new(),
            targets: specs
                .iter()
                .map(|spec| (spec.name.clone(), Ok(spec.target.clone())))
                .collect(),
            host_keys: specs
                .iter()
                .map(|spec| (spec.name.clone(), spec.host_key.clone()))
                .collect(),
            ..Observation::default()
        };
        let keep = match options.faults {
            _ if options.keep_journal => Keep::Bytes,
            Faults::None => Keep::Nothing,
            Faults::Some | Faults::Many if options.seed.is_multiple_of(READ_BACK_EVERY) => {
                Keep::ReadBack
            }
            Faults::Some | Faults::Many => Keep::Folded,
        };
        let shared = Rc::new(RefCell::new(Shared::new(
            Dice::new(options.seed, options.faults),
            Checkers::new(&specs),
            Trace::new(options.trace),
            SimJournal::new(keep),
        )));
        let world = SimWorld::new(
            options.seed,
            specs,
            options.profile.clone(),
            Rc::clone(&shared),
        );
        Self {
            inventory: Cow::Borrowed(inventory),
            inventory_digest: None,
            world,
            shared,
            runs: Vec::new(),
            plans: Vec::new(),
            last_report: None,
            site_visits: Vec::new(),
            targets,
            reinstall: BTreeSet::new(),
            reinstall_requested: BTreeSet::new(),
            rng: Rng::split(options.seed, 0),
            violation: None,
        }
    }

    /// Whether nothing new goes wrong from now on.
    pub(crate) fn faults_have_stopped(&self) -> bool {
        self.shared.borrow().dice.is_stopped() && !self.world.has_pending_loss()
    }

    /// Machines whose part of a run ended without success since then.
    pub(crate) fn failed_since(&self, since_ms: u64) -> BTreeSet<NodeName> {
        self.shared
            .borrow()
            .notable
            .iter()
            .filter_map(|(at_ms, record)| match record {
                Record::NodeFailed { node, .. } if *at_ms >= since_ms => Some(node.clone()),
                _ => None,
            })
            .collect()
    }

    /// Whether a machine that is up has its part in the cluster: it is Ready, and what it founds is
    /// brought in whole. `None` where it has none and nobody could give it one, because the founder
    /// is broken for good.
    pub(crate) fn has_its_part(&self, place: u32) -> Option<bool> {
        let machine = usize::try_from(place).ok()?;
        let machine = self.world.machines.get(machine)?;
        if machine.spec.role.is_none() {
            return Some(true);
        }
        let has = self.world.is_ready(place) && (!machine.spec.founds || self.is_brought_in());
        let founder = self.world.machines.iter().find(|m| m.spec.founds);
        let sound = founder
            .is_some_and(|founder| !(founder.is_lost() || self.is_blocked(&founder.spec.name)));
        (has || sound).then_some(has)
    }

    /// Whether all that the inventory asks for is in the cluster and healthy.
    pub(crate) fn is_brought_in(&self) -> bool {
        let wanted: &[BootstrapPart] = if self.inventory.gitops.repository.is_some() {
            &BootstrapPart::ALL
        } else {
            &[BootstrapPart::Network]
        };
        let now_ms = self.world.now_ms();
        wanted
            .iter()
            .all(|part| self.world.cluster.has(*part, now_ms))
    }

    /// Whether the planner says that the inventory stands in a machine's way.
    pub(crate) fn is_blocked(&self, name: &NodeName) -> bool {
        self.last_report
            .as_ref()
            .and_then(|report| report.nodes.get(name))
            .is_some_and(|node| matches!(node.status, NodeStatus::Blocked { .. }))
    }

    /// Whether the last plan says why a machine is left alone.
    pub(crate) fn is_explained(&self, name: &NodeName) -> bool {
        self.last_report
            .as_ref()
            .and_then(|report| report.nodes.get(name))
            .is_some_and(|node| !node.status.is_planned())
    }
}
