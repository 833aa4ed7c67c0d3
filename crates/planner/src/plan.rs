//! The plan of a fleet.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Deref,
    sync::Arc,
};

use undercroft_model::{
    NodeName, NodePlan, Observation, PLAN_VERSION, Plan, PlanId, PlanLimits, Resource, Step,
    inventory::{Inventory, Node},
};

use crate::{
    NodeReport, PlanReport, PlanSummary, chain, cluster,
    estimate::{estimate, typical_ms},
    install::SystemToInstall,
    options::PlanOptions,
    update::Updating,
    verdict::{self, NodeVerdict},
};

/// How many servers join at a time: a second one that comes while the first is half way into etcd
/// can end in neither being in (k3s-io/k3s#4335).
pub(crate) const SERVER_JOINS_MAX: u32 = 1;

/// The steps of a machine that is brought up from nothing. A plan of many machines is large, and isn't moved as it grows.
const STEPS_A_MACHINE: usize = 10;

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
    let (decided, report) =
        plan_digested(inventory, inventory.digest(), observation, parent, options);
    (decided.into_plan(), report)
}

/// A plan as it was decided. Nobody has changed it since, so its id is its content's.
#[derive(Debug, Clone)]
pub struct Decided(Arc<Plan>);

impl Decided {
    fn of(mut plan: Plan) -> Self {
        plan.id = plan.content_id();
        Self(Arc::new(plan))
    }

    /// The plan, shared.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.0
    }

    /// The plan alone.
    pub fn into_plan(self) -> Plan {
        Arc::unwrap_or_clone(self.0)
    }
}

impl Deref for Decided {
    type Target = Plan;

    fn deref(&self) -> &Plan {
        &self.0
    }
}

/// The same, for who plans often and keeps the inventory's [`digest`](Inventory::digest), which takes a fifth of a
/// plan's time.
pub fn plan_digested(
    inventory: &Inventory,
    inventory_digest: String,
    observation: &Observation,
    parent: Option<&PlanId>,
    options: &PlanOptions,
) -> (Decided, PlanReport) {
    let mut steps = Vec::with_capacity(inventory.nodes.len().saturating_mul(STEPS_A_MACHINE));
    let mut nodes = BTreeMap::new();
    let (mut reports, mut running) = (BTreeMap::new(), BTreeMap::new());
    let mut summary = PlanSummary::default();
    for (name, node) in &inventory.nodes {
        let Some(asked) = options.of(name) else {
            summary.left_out += 1;
            continue;
        };
        let verdict = verdict::judge(inventory, observation, name, node, asked);
        let machine = (name, node);
        let report = own_steps(
            inventory,
            machine,
            verdict,
            &mut nodes,
            &mut running,
            &mut steps,
        );
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
    let (wave, cluster) = Updating {
        inventory,
        observation,
        options,
        nodes: &mut nodes,
        reports: &mut reports,
        steps: &mut steps,
    }
    .extend(cluster);
    let statuses = reports.values().map(|report| &report.status);
    statuses.for_each(|status| summary.count(status));
    let plan = Decided::of(Plan {
        id: PlanId(String::new()),
        version: PLAN_VERSION,
        parent: parent.cloned(),
        fleet: inventory.fleet.name.clone(),
        inventory_digest,
        limits: limits(inventory, cluster.is_some()),
        cluster,
        wave,
        nodes,
        steps,
    });
    let report = PlanReport {
        plan: plan.id.clone(),
        nodes: reports,
        unknown: unknown(inventory, options),
        summary,
        estimate_ms: estimate(&plan, typical_ms).total_ms,
    };
    (plan, report)
}

/// Appends a machine's own steps, and gives what is said of it.
fn own_steps(
    inventory: &Inventory,
    (name, node): (&NodeName, &Node),
    verdict: NodeVerdict,
    nodes: &mut BTreeMap<NodeName, NodePlan>,
    running: &mut BTreeMap<NodeName, (SystemToInstall, u32)>,
    steps: &mut Vec<Step>,
) -> NodeReport {
    match verdict {
        NodeVerdict::LeaveAlone(report) => report,
        NodeVerdict::Install(install, report) => {
            let planned = chain::build(inventory, name, node, &install, steps);
            nodes.insert(name.clone(), planned);
            report
        }
        NodeVerdict::Adopt(delivery, generation, report) => {
            let planned = chain::build_running(inventory, name, node, &delivery, generation, steps);
            nodes.insert(name.clone(), planned);
            report
        }
        NodeVerdict::Join(delivery, generation, report) => {
            running.insert(name.clone(), (delivery, generation));
            report
        }
    }
}

fn limits(inventory: &Inventory, has_cluster: bool) -> PlanLimits {
    let limits = &inventory.fleet.limits;
    let mut concurrency = BTreeMap::from([
        (Resource::NetworkBoot, limits.network_boots),
        (Resource::ClosureCopy, limits.closure_copies),
        (Resource::Reboot, limits.reboots),
    ]);
    if has_cluster {
        concurrency.insert(Resource::ServerJoin, SERVER_JOINS_MAX);
        concurrency.insert(Resource::AgentJoin, limits.agent_joins);
    }
    PlanLimits {
        concurrency,
        failure_budget: inventory.failure_budget(),
        node_restarts_max: limits.node_restarts,
    }
}

/// The machines that were asked for and that the inventory doesn't know, each once.
fn unknown(inventory: &Inventory, options: &PlanOptions) -> Vec<NodeName> {
    let named = options.reinstall.iter().chain(&options.adopt);
    let asked = options.only.iter().flatten().chain(named);
    let unknown: BTreeSet<&NodeName> = asked
        .filter(|name| !inventory.nodes.contains_key(*name))
        .collect();
    unknown.into_iter().cloned().collect()
}
