//! What comes next for a fleet: go on with the plan that is under way, carry out another, wait, or nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use undercroft_model::{
    NodeName, Observation, Plan, PlanId, RunEnd, Severity, SystemTarget, inventory::Inventory,
    view::FleetView,
};

use crate::{NodeStatus, PlanFinding, PlanOptions, PlanReport, check, plan_with};

/// How old a look at a machine may be for "it runs what it should", in milliseconds: longer than a look at
/// the largest fleet takes, and no longer than a person would call now.
pub const LOOK_AGE_MS_MAX: u64 = 15 * 60 * 1000;

/// A machine that is left alone for a while after it failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Held {
    /// What went wrong the last time.
    pub reason: String,
    /// How long until it is tried again, in milliseconds.
    pub left_ms: u64,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scope {
    /// Which machines, and how far.
    pub options: PlanOptions,
    /// Whether a plan that isn't done is replaced, and not gone on with.
    pub replan: bool,
    /// Whether what was refused is left alone until a person asks, or the inventory is another.
    pub unattended: bool,
    /// Machines that failed lately. No new plan begins with them.
    pub held: BTreeMap<NodeName, Held>,
}

/// Why a plan that isn't done is not gone on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Replaced {
    /// That was asked for.
    Asked,
    /// Its run has ended by itself, and what failed is planned anew.
    RunEnded,
    /// It was made from another inventory.
    InventoryChanged,
    /// A machine is to run another system by now, or none could be built.
    SystemsChanged,
    /// It goes beyond what is asked for.
    BeyondScope,
}

/// Why nothing is done with a machine that isn't as it should be, or wasn't looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "for")]
pub enum Waiting {
    /// Its system could not be built.
    FailedBuild {
        /// Everything that stands in the way.
        reasons: Vec<String>,
    },
    /// It can't be planned.
    Blocked {
        /// Everything that stands in the way.
        reasons: Vec<String>,
    },
    /// It was installed once and doesn't answer.
    Unreachable {
        /// What the last look has shown.
        reason: String,
    },
    /// Something else answers in its place.
    Quarantined {
        /// What.
        reason: String,
    },
    /// It runs another system than the one that was built.
    Differs {
        /// The system that it booted.
        booted: String,
        /// The system that is active.
        current: String,
        /// The system that was built.
        target: String,
    },
    /// It is to be updated, and not now.
    Update {
        /// Why not.
        reason: String,
    },
    /// It was refused by the latest plan that had it: it isn't who it should be, or would lose what it
    /// must not lose. A person decides.
    Refused {
        /// Why.
        reason: String,
    },
    /// It failed a moment ago, and is tried again later.
    NextTry(Held),
    /// What is known of it is too old to say that it is well.
    NotLookedAt {
        /// How old, in milliseconds; `None` where nobody has ever looked.
        age_ms: Option<u64>,
    },
    /// The inventory doesn't have it.
    Unknown,
}

impl Waiting {
    /// All that [`Waiting::word`] gives.
    pub const WORDS: [&'static str; 10] = [
        "failed-build",
        "blocked",
        "unreachable",
        "quarantined",
        "differs",
        "update",
        "refused",
        "next-try",
        "not-looked-at",
        "unknown",
    ];

    /// What it waits for in a word, the one that JSON has.
    pub fn word(&self) -> &'static str {
        match self {
            Self::FailedBuild { .. } => "failed-build",
            Self::Blocked { .. } => "blocked",
            Self::Unreachable { .. } => "unreachable",
            Self::Quarantined { .. } => "quarantined",
            Self::Differs { .. } => "differs",
            Self::Update { .. } => "update",
            Self::Refused { .. } => "refused",
            Self::NextTry(_) => "next-try",
            Self::NotLookedAt { .. } => "not-looked-at",
            Self::Unknown => "unknown",
        }
    }

    /// The reason in one line, without the machine's name.
    pub fn sentence(&self) -> String {
        match self {
            Self::FailedBuild { reasons } | Self::Blocked { reasons } => reasons.join("; "),
            Self::Unreachable { reason } => format!("it doesn't answer: {reason}"),
            Self::Quarantined { reason } => format!("quarantined: {reason}"),
            Self::Differs {
                booted,
                current,
                target,
            } if booted == current => format!("it runs {booted}, and {target} was built"),
            Self::Differs {
                booted,
                current,
                target,
            } => format!("it booted {booted} and runs {current}, and {target} was built"),
            Self::Update { reason } => format!("it is updated later: {reason}"),
            Self::Refused { reason } => format!("it was refused: {reason}"),
            Self::NextTry(held) => format!("it failed, and is tried again later: {}", held.reason),
            Self::NotLookedAt { .. } => "it was not looked at".to_owned(),
            Self::Unknown => "the inventory doesn't have it".to_owned(),
        }
    }
}

/// Why each machine waits, by its name.
pub type Waits = BTreeMap<NodeName, Waiting>;

/// What comes next.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// The accepted plan is gone on with.
    Resume {
        /// The plan.
        plan: PlanId,
    },
    /// This plan is carried out.
    CarryOut {
        /// The plan.
        plan: Box<Plan>,
        /// What it means.
        report: Box<PlanReport>,
        /// Why an earlier plan that isn't done is not gone on with, where there is one.
        replaces: Option<Replaced>,
        /// The machines that are left alone beside it.
        waits: Waits,
    },
    /// Nothing can be done now, and not all is well.
    Wait {
        /// The empty plan.
        plan: Box<Plan>,
        /// What it means.
        report: Box<PlanReport>,
        /// At least one.
        waits: Waits,
    },
    /// Every machine that was asked for was looked at and runs what it should.
    Nothing {
        /// The empty plan.
        plan: Box<Plan>,
        /// What it means.
        report: Box<PlanReport>,
    },
}

impl Next {
    /// The machines that are left alone although not all is well with them.
    pub fn waits(&self) -> Option<&Waits> {
        match self {
            Self::CarryOut { waits, .. } | Self::Wait { waits, .. } => Some(waits),
            Self::Resume { .. } | Self::Nothing { .. } => None,
        }
    }
}

/// A plan that the lints find a fault in: a bug, and nothing may be done by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultyPlan {
    /// What is wrong with it.
    pub findings: Vec<PlanFinding>,
}

impl std::fmt::Display for FaultyPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all: Vec<String> = self.findings.iter().map(ToString::to_string).collect();
        write!(f, "the plan has a fault: {}", all.join("; "))
    }
}

impl std::error::Error for FaultyPlan {}

/// Decides what comes next. Resume or replan is decided here and nowhere else.
///
/// # Errors
/// When the plan that would be carried out has a fault.
pub fn next(
    view: &FleetView,
    observation: &Observation,
    inventory: &Inventory,
    scope: &Scope,
) -> Result<Next, FaultyPlan> {
    let replaces = match resumes(view, &observation.targets, inventory, scope) {
        Ok(plan) => return Ok(Next::Resume { plan: plan.clone() }),
        Err(replaces) => replaces,
    };
    let mut waits = left_out(view, &observation.targets, inventory, scope);
    let mut options = scope.options.clone();
    if !waits.is_empty() {
        let asked = asked(inventory, scope);
        options.only = Some(
            asked
                .into_iter()
                .filter(|n| !waits.contains_key(n))
                .collect(),
        );
    }
    let (plan, report) = plan_with(inventory, observation, view.plan_id.as_ref(), &options);
    let findings: Vec<PlanFinding> = check(&plan)
        .into_iter()
        .filter(|finding| finding.severity == Severity::Error)
        .collect();
    if !findings.is_empty() {
        return Err(FaultyPlan { findings });
    }
    for (name, node) in &report.nodes {
        if let Some(waiting) = waiting(name, &node.status, observation) {
            waits.insert(name.clone(), waiting);
        }
    }
    for name in &report.unknown {
        waits.insert(name.clone(), Waiting::Unknown);
    }
    let (plan, report) = (Box::new(plan), Box::new(report));
    Ok(if !plan.is_empty() {
        Next::CarryOut {
            plan,
            report,
            replaces,
            waits,
        }
    } else if waits.is_empty() {
        Next::Nothing { plan, report }
    } else {
        Next::Wait {
            plan,
            report,
            waits,
        }
    })
}

/// Whether the accepted plan is gone on with: a run of it was cut short, what it was made from is the same
/// as now, and it goes no further than is asked. It needs no look at the machines: the engine looks at what
/// was begun before it goes on.
///
/// # Errors
/// Why not, where a plan isn't done; `None` where there is none to go on with.
pub fn resumes<'a>(
    view: &'a FleetView,
    targets: &BTreeMap<NodeName, Result<SystemTarget, String>>,
    inventory: &Inventory,
    scope: &Scope,
) -> Result<&'a PlanId, Option<Replaced>> {
    let (Some(plan), Some(id)) = (view.plan(), view.plan_id.as_ref()) else {
        return Err(None);
    };
    // What is in flight is gone on with also when all of its steps are done: its end isn't written yet.
    if !view.unfinished() && !view.in_flight() {
        return Err(None);
    }
    let options = &scope.options;
    let named = [&options.reinstall, &options.adopt, &options.retry];
    if scope.replan || named.iter().any(|named| !named.is_empty()) {
        return Err(Some(Replaced::Asked));
    }
    if let Some(RunEnd::Complete | RunEnd::Incomplete) = view.run.as_ref().and_then(|run| run.end) {
        return Err(Some(Replaced::RunEnded));
    }
    if plan.inventory_digest != inventory.digest() {
        return Err(Some(Replaced::InventoryChanged));
    }
    let left_out = |name: &NodeName| {
        let only = options.only.as_ref();
        only.is_some_and(|only| !only.contains(name))
    };
    let beyond = options
        .until
        .is_some_and(|until| plan.steps.iter().any(|step| step.reaches > until));
    let looks_only = plan.nodes.values().any(|node| node.target.is_none());
    if beyond || plan.nodes.keys().any(left_out) || looks_only != options.inspect_only {
        return Err(Some(Replaced::BeyondScope));
    }
    let same = plan.nodes.iter().all(|(name, node)| match &node.target {
        Some(planned) => matches!(targets.get(name), Some(Ok(built)) if built == planned),
        None => true,
    });
    if same {
        Ok(id)
    } else {
        Err(Some(Replaced::SystemsChanged))
    }
}

/// The machines that are asked for.
fn asked(inventory: &Inventory, scope: &Scope) -> BTreeSet<NodeName> {
    match &scope.options.only {
        Some(only) => only.clone(),
        None => inventory.nodes.keys().cloned().collect(),
    }
}

/// The machines that no plan is made for now: they failed a moment ago, or were refused and nothing has
/// changed since.
fn left_out(
    view: &FleetView,
    targets: &BTreeMap<NodeName, Result<SystemTarget, String>>,
    inventory: &Inventory,
    scope: &Scope,
) -> Waits {
    let mut waits = Waits::new();
    if !scope.unattended {
        return waits;
    }
    let digest = inventory.digest();
    for name in asked(inventory, scope) {
        let options = &scope.options;
        let is_named = options.reinstall.contains(&name) || options.adopt.contains(&name);
        if !inventory.nodes.contains_key(&name) || is_named {
            continue;
        }
        if let Some(refused) = view.refused().get(&name) {
            let same_system = match (&refused.target, targets.get(&name)) {
                (Some(planned), Some(Ok(built))) => planned == built,
                _ => true,
            };
            if refused.inventory_digest == digest && same_system {
                let reason = refused.reason.clone();
                waits.insert(name, Waiting::Refused { reason });
                continue;
            }
        }
        if let Some(held) = scope.held.get(&name) {
            waits.insert(name, Waiting::NextTry(held.clone()));
        }
    }
    waits
}

/// Why a machine without steps waits, if it does.
fn waiting(name: &NodeName, status: &NodeStatus, observation: &Observation) -> Option<Waiting> {
    match status {
        NodeStatus::Install
        | NodeStatus::Reinstall
        | NodeStatus::Join
        | NodeStatus::Adopt
        | NodeStatus::Update { .. }
        | NodeStatus::Release => None,
        NodeStatus::UpdateLater { reason, .. } => Some(Waiting::Update {
            reason: reason.clone(),
        }),
        NodeStatus::Converged => {
            let age_ms = observation.nodes.get(name).and_then(|seen| seen.age_ms);
            let fresh = age_ms.is_some_and(|age_ms| age_ms <= LOOK_AGE_MS_MAX);
            (!fresh).then_some(Waiting::NotLookedAt { age_ms })
        }
        NodeStatus::Differs {
            booted,
            current,
            target,
        } => Some(Waiting::Differs {
            booted: booted.clone(),
            current: current.clone(),
            target: target.clone(),
        }),
        NodeStatus::Unreachable { reason } => Some(Waiting::Unreachable {
            reason: reason.clone(),
        }),
        NodeStatus::Quarantined { reason } => Some(Waiting::Quarantined {
            reason: reason.clone(),
        }),
        NodeStatus::Blocked { reasons } => {
            let reasons = reasons.clone();
            Some(match observation.targets.get(name) {
                Some(Err(_)) => Waiting::FailedBuild { reasons },
                _ => Waiting::Blocked { reasons },
            })
        }
    }
}
