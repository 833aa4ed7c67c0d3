//! The plan of a fleet.

use std::collections::{BTreeMap, BTreeSet};

use undercroft_model::{
    NodeName, NodePlan, NodeState, Observation, PLAN_VERSION, Plan, PlanId, PlanLimits, Resource,
    Step, inventory::Inventory,
};

use crate::{
    NodeReport, PlanReport, PlanSummary, chain, cluster,
    estimate::{estimate, typical_ms},
    verdict::{self, NodeScope, NodeVerdict},
};

/// How many servers join at a time: a second one that comes while the first is half way into etcd
/// can end in neither being in (k3s-io/k3s#4335).
pub(crate) const SERVER_JOINS_MAX: u32 = 1;

/// What a plan is asked to be about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PlanOptions {
    /// The machines to plan for; all of them where this is `None`.
    pub only: Option<BTreeSet<NodeName>>,
    /// Machines to wipe and install anew although they run, or were once up.
    pub reinstall: BTreeSet<NodeName>,
    /// Whether machines are only booted, approved and inspected: nothing is written to them, and
    /// nothing needs to have been built for them.
    pub inspect_only: bool,
    /// The state beyond which no machine is brought; `None` brings all of them to their end.
    /// [`NodeState::Up`] leaves the cluster out.
    pub until: Option<NodeState>,
}

/// Plans for all machines of the inventory. `parent` is the plan that this one replaces.
pub fn plan(
    inventory: &Inventory,
    observation: &Observation,
    parent: Option<&PlanId>,
) -> (Plan, PlanReport) {
    plan_with(inventory, observation, parent, &PlanOptions::default())
}

/// Plans for the machines that the options name.
pub fn plan_with(
    inventory: &Inventory,
    observation: &Observation,
    parent: Option<&PlanId>,
    options: &PlanOptions,
) -> (Plan, PlanReport) {
    let mut steps: Vec<Step> = Vec::new();
    let mut nodes: BTreeMap<NodeName, NodePlan> = BTreeMap::new();
    let mut reports: BTreeMap<NodeName, NodeReport> = BTreeMap::new();
    let mut running = BTreeMap::new();
    let mut summary = PlanSummary::default();
    for (name, node) in &inventory.nodes {
        let asked = options.only.as_ref().is_none_or(|only| only.contains(name));
        if !asked && !options.reinstall.contains(name) {
            summary.left_out += 1;
            continue;
        }
        let reinstall = options.reinstall.contains(name);
        let asked = NodeScope {
            reinstall,
            inspect_only: options.inspect_only,
            until: options.until,
            all_reinstalled: &options.reinstall,
        };
        let report = match verdict::judge(inventory, observation, name, node, asked) {
            NodeVerdict::LeaveAlone(report) => report,
            NodeVerdict::Install(install, report) => {
                let planned = chain::build(inventory, name, node, &install, &mut steps);
                nodes.insert(name.clone(), planned);
                report
            }
            NodeVerdict::Join(delivery, generation, report) => {
                running.insert(name.clone(), (delivery, generation));
                report
            }
        };
        reports.insert(name.clone(), report);
    }
    let cluster = cluster::Drafting {
        inventory,
        observation,
        options,
        running,
        nodes: &mut nodes,
        reports: &mut reports,
        steps: &mut steps,
    }
    .extend();
    for report in reports.values() {
        summary.count(&report.status);
    }
    let mut concurrency = BTreeMap::from([
        (Resource::NetworkBoot, inventory.fleet.limits.network_boots),
        (Resource::ClosureCopy, inventory.fleet.limits.closure_copies),
        (Resource::Reboot, inventory.fleet.limits.reboots),
    ]);
    if cluster.is_some() {
        concurrency.insert(Resource::ServerJoin, SERVER_JOINS_MAX);
        concurrency.insert(Resource::AgentJoin, inventory.fleet.limits.agent_joins);
    }
    let asked = options.only.iter().flatten().chain(&options.reinstall);
    let unknown: BTreeSet<&NodeName> = asked
        .filter(|name| !inventory.nodes.contains_key(*name))
        .collect();
    let limits = &inventory.fleet.limits;
    let mut plan = Plan {
        id: PlanId(String::new()),
        version: PLAN_VERSION,
        parent: parent.cloned(),
        fleet: inventory.fleet.name.clone(),
        inventory_digest: inventory.digest(),
        limits: PlanLimits {
            concurrency,
            failure_budget: inventory.failure_budget(),
            node_restarts_max: limits.node_restarts,
        },
        cluster,
        nodes,
        steps,
    };
    plan.id = plan.content_id();
    let report = PlanReport {
        plan: plan.id.clone(),
        nodes: reports,
        unknown: unknown.into_iter().cloned().collect(),
        summary,
        estimate_ms: estimate(&plan, typical_ms).total_ms,
    };
    (plan, report)
}
