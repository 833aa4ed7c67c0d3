//! The rules that no run may break, checked at every record, start and act.
//!
//! The checkers believe neither the planner nor the engine: they know the inventory, see every
//! record when it becomes durable, every operation when it is started, and everything that happens
//! to a machine when it happens. Each event costs a constant number of look-ups.

mod cluster;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use undercroft_engine::{Order, PROBE_TIMEOUT_MS_MAX};
use undercroft_model::{
    Action, Approval, DiskIdentity, Entry, Evidence, FailureKind, MachineUuid, NodeName, OpId,
    Outcome, Plan, Record, Resource, RunEnd, StepId, Work,
};

use crate::{
    fleet::Spec,
    machine::{Disk, Table},
};

/// Milliseconds that an operation may go on after its time limit before the engine has called it
/// off: none, as virtual time has no delays, but one tick for the same millisecond's order.
const OVERTIME_MS_MAX: u64 = 1;

/// A rule that was broken.
#[derive(
    Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error, schemars::JsonSchema,
)]
#[error("{rule:?} broken at {at_ms} ms: {message}")]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// When, in milliseconds since the rehearsal began.
    pub at_ms: u64,
    /// How.
    pub message: String,
}

/// A rule of the checkers.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// A disk is wiped only if its identity is the inventory's.
    WipeIdentity,
    /// A disk is wiped only over a connection whose key was approved.
    WipeApproval,
    /// A disk that this plan has laid out is never wiped again.
    SecondWipe,
    /// A secret goes only to a key that was approved.
    SecretApproval,
    /// A machine is connected to only under a key whose approval is in the journal.
    ContactApproval,
    /// No more steps hold a resource than the plan allows.
    Concurrency,
    /// Nothing is started whose record isn't durable.
    JournalFirst,
    /// An operation is started once and ends once.
    OncePerOp,
    /// At most one operation works on a machine at a time.
    OneAtATime,
    /// A step starts only after the steps that it stands on.
    StepOrder,
    /// A step that is done isn't done again, unless its machine began again.
    NoRepetition,
    /// What may have happened is probed before it is tried again.
    ProbeFirst,
    /// Tries and restarts have limits.
    Bounded,
    /// An operation ends or is called off within its time limit.
    TimeLimit,
    /// After the failure budget is spent, no further machine is begun.
    FailureBudget,
    /// A machine whose part has ended is left alone.
    FailedStaysFailed,
    /// A machine that is called up runs what was built, under its own key.
    UpIsTrue,
    /// A run is called complete only if every step is done.
    EndIsTrue,
    /// The journal tells the same story as the engine that wrote it.
    Replay,
    /// A plan says of disks what the inventory says.
    PlanMatchesInventory,
    /// There is always something that will happen next.
    Stuck,
    /// When faults have stopped, everything that can be brought up is.
    Liveness,
    /// What can't be brought up is reported with its reason.
    FailureReported,
    /// Planning a fleet that is as it should be gives nothing to do.
    EmptyReplan,
    /// The engine found an error in itself.
    EngineFault,
    /// A report, which anybody on the boot network can send, ends nothing, begins nothing but a
    /// look, and spends no restart.
    ReportIsAHint,
    /// A step on an installer refuses its machine, which then waits for a person, only where another machine has
    /// answered in its place or a disk isn't the inventory's.
    RefusalIsTrue,
    /// No member comes to etcd while another isn't healthy or doesn't vote, and none is taken from
    /// it.
    EtcdQuorum,
    /// The cluster is founded once, by the machine that the inventory names.
    OneCluster,
    /// Nobody joins before the network of the pods, no two servers at once, no agent before all
    /// servers that can be.
    JoinOrder,
    /// Argo CD comes after the network and everybody who can be Ready, the root application last.
    BootstrapOrder,
    /// A machine that is called joined or Ready is it.
    ReadyIsTrue,
}

struct LiveOp {
    node: u32,
    step: StepId,
    work: Work,
    attempt: u32,
    started_ms: Option<u64>,
    limit_ms: u64,
    holds: Option<Resource>,
}

#[derive(Default)]
struct PerNode {
    begun: bool,
    failed: bool,
    /// It was refused: only another plan goes on with it.
    refused: bool,
    restarts: u32,
    running: u32,
    approval: Option<Approval>,
}

#[derive(Default, Clone)]
struct PerStep {
    done: bool,
    probe_due: bool,
    node: u32,
}

struct KnownDisk {
    identity: DiskIdentity,
    wipeable: bool,
}

/// All checkers, and what they need to remember.
pub(crate) struct Checkers {
    places: BTreeMap<NodeName, u32>,
    disks: Vec<Vec<KnownDisk>>,
    nodes: Vec<PerNode>,
    steps: Vec<PerStep>,
    ops: BTreeMap<OpId, LiveOp>,
    last_op: Option<OpId>,
    plan: Option<std::sync::Arc<Plan>>,
    limits: BTreeMap<Resource, u32>,
    holders: BTreeMap<Resource, u32>,
    peaks: BTreeMap<Resource, u32>,
    stopped: bool,
    /// Fingerprints that the operator or a console has truly approved, with their expiry.
    approved: BTreeMap<String, u64>,
    /// Tables that were laid out, by machine and disk.
    laid: BTreeSet<(u32, MachineUuid)>,
    cluster: cluster::Watch,
    first: Option<Violation>,
    now_ms: u64,
    /// Whether the controller is at work on a report.
    hinted: bool,
}

impl Checkers {
    pub(crate) fn new(specs: &[Spec]) -> Self {
        Self {
            places: crate::fleet::places(specs),
            disks: specs
                .iter()
                .map(|spec| {
                    spec.disks
                        .iter()
                        .map(|disk| KnownDisk {
                            identity: disk.identity.clone(),
                            wipeable: disk.wipeable,
                        })
                        .collect()
                })
                .collect(),
            nodes: specs.iter().map(|_| PerNode::default()).collect(),
            steps: Vec::new(),
            ops: BTreeMap::new(),
            last_op: None,
            plan: None,
            limits: BTreeMap::new(),
            holders: BTreeMap::new(),
            peaks: BTreeMap::new(),
            stopped: false,
            approved: BTreeMap::new(),
            laid: BTreeSet::new(),
            cluster: cluster::Watch::new(specs),
            first: None,
            now_ms: 0,
            hinted: false,
        }
    }

    pub(crate) fn at(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
    }

    /// The first rule that was broken.
    pub(crate) fn violation(&self) -> Option<&Violation> {
        self.first.as_ref()
    }

    /// The most that ever held each resource at once.
    pub(crate) fn peaks(&self) -> &BTreeMap<Resource, u32> {
        &self.peaks
    }

    /// The plan that will be accepted next, so that it need not be copied from its record.
    pub(crate) fn announce(&mut self, plan: std::sync::Arc<Plan>) {
        self.plan = Some(plan);
    }

    /// The first operation id that no record has used.
    pub(crate) fn next_op(&self) -> OpId {
        OpId(self.last_op.map_or(0, |op| op.0.saturating_add(1)))
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Whether a machine was not begun in the last run because that was stopped, which is the reason
    /// that people are told.
    pub(crate) fn is_held_back(&self, place: u32) -> bool {
        let place = usize::try_from(place).ok();
        let node = place.and_then(|place| self.nodes.get(place));
        self.stopped && node.is_some_and(|node| !node.begun)
    }

    pub(crate) fn broken(&mut self, rule: Rule, message: impl Into<String>) {
        if self.first.is_none() {
            self.first = Some(Violation {
                rule,
                at_ms: self.now_ms,
                message: message.into(),
            });
        }
    }

    fn require(&mut self, holds: bool, rule: Rule, message: impl FnOnce() -> String) {
        if !holds {
            self.broken(rule, message());
        }
    }

    fn node(&mut self, place: u32) -> Option<&mut PerNode> {
        self.nodes.get_mut(usize::try_from(place).ok()?)
    }

    fn step(&mut self, id: StepId) -> Option<&mut PerStep> {
        self.steps.get_mut(usize::try_from(id.0).ok()?)
    }

    /// The controller begins, or ends, to work on a report.
    pub(crate) fn hinted(&mut self, hinted: bool) {
        self.hinted = hinted;
    }

    /// A record has become durable.
    pub(crate) fn on_entry(&mut self, entry: &Entry) {
        let harmless = match &entry.record {
            Record::Quarantined { .. } => true,
            Record::OpStarted { work, .. } => *work == Work::Probe,
            _ => false,
        };
        self.require(!self.hinted || harmless, Rule::ReportIsAHint, || {
            format!("a report has led to {:?}", entry.record)
        });
        match &entry.record {
            Record::Opened { .. } | Record::Quarantined { .. } => {}
            Record::PlanAccepted { plan } => self.on_plan(plan),
            Record::RunStarted { .. } => self.on_run(),
            Record::OpStarted {
                op,
                step,
                work,
                attempt,
            } => self.on_op_started(*op, *step, *work, *attempt),
            Record::OpEnded { op, step, outcome } => self.on_op_ended(*op, *step, outcome),
            Record::NodeRestarted {
                node, from, count, ..
            } => self.on_restart(node, *from, *count),
            Record::NodeFailed { node, failure, .. } => {
                if let Some(place) = self.places.get(node).copied()
                    && let Some(state) = self.node(place)
                {
                    state.failed = true;
                    state.refused |= failure.kind == FailureKind::Refused;
                }
            }
            Record::RolloutStopped { .. } => self.stopped = true,
            Record::RunEnded { end } => self.on_run_end(*end),
        }
    }

    fn on_plan(&mut self, plan: &Plan) {
        let places = crate::fleet::places_of_steps(&self.places, plan);
        for (step, place) in plan.steps.iter().zip(&places) {
            let known = usize::try_from(*place).ok();
            let known: &[KnownDisk] = known
                .and_then(|place| self.disks.get(place))
                .map_or(&[], Vec::as_slice);
            let foreign = step.destroys.iter().find(|identity| {
                !known
                    .iter()
                    .any(|disk| disk.wipeable && disk.identity == **identity)
            });
            if let Some(identity) = foreign {
                let message = format!(
                    "a step of {} destroys {identity}, which the inventory doesn't give up",
                    step.node
                );
                self.broken(Rule::PlanMatchesInventory, message);
            }
        }
        let per_step = |node| PerStep {
            node,
            ..PerStep::default()
        };
        self.steps = places.into_iter().map(per_step).collect();
        for node in &mut self.nodes {
            *node = PerNode::default();
        }
        self.cluster.on_plan(plan);
        self.limits = plan.limits.concurrency.clone();
        self.stopped = false;
        let announced = self.plan.as_ref().is_some_and(|known| known.id == plan.id);
        if !announced {
            self.plan = Some(std::sync::Arc::new(plan.clone()));
        }
    }

    /// A controller begins: nothing of an earlier one runs any more, and tries count afresh.
    fn on_run(&mut self) {
        self.holders.clear();
        self.stopped = false;
        for node in &mut self.nodes {
            node.running = 0;
            node.restarts = 0;
            node.failed = node.refused;
        }
        for op in self.ops.values_mut() {
            op.holds = None;
            op.started_ms = None;
        }
    }

    fn on_op_started(&mut self, op: OpId, step: StepId, work: Work, attempt: u32) {
        self.require(Some(op) > self.last_op, Rule::OncePerOp, || {
            format!("{op} was used before")
        });
        self.last_op = self.last_op.max(Some(op));
        let Some(plan) = self.plan.clone() else {
            return self.broken(Rule::JournalFirst, format!("{op} has no plan"));
        };
        let Some(planned) = plan.step(step) else {
            return self.broken(Rule::JournalFirst, format!("{op} has no step"));
        };
        let node = self.step(step).map_or(u32::MAX, |s| s.node);
        let missing = planned
            .after
            .iter()
            .find(|id| !self.step(**id).is_some_and(|s| s.done))
            .copied();
        self.require(missing.is_none(), Rule::StepOrder, || {
            format!("{op} of {} starts before step {missing:?}", planned.node)
        });
        let state = self.step(step).cloned().unwrap_or_default();
        self.require(!state.done, Rule::NoRepetition, || {
            format!(
                "{} of {} is done, and {op} does it again",
                planned.action.verb(),
                planned.node
            )
        });
        self.require(
            work == Work::Probe || !state.probe_due,
            Rule::ProbeFirst,
            || {
                format!(
                    "{} of {} may have happened, and {op} acts without a probe",
                    planned.action.verb(),
                    planned.node
                )
            },
        );
        self.require(
            work == Work::Probe || attempt <= planned.retry.attempts_max,
            Rule::Bounded,
            || format!("{op} is try {attempt} of {}", planned.retry.attempts_max),
        );
        let stopped = self.stopped;
        if let Some(per_node) = self.node(node) {
            let (begun, failed) = (per_node.begun, per_node.failed);
            per_node.begun = true;
            self.require(!failed, Rule::FailedStaysFailed, || {
                format!("{} has failed, and {op} goes on with it", planned.node)
            });
            self.require(begun || !stopped, Rule::FailureBudget, || {
                format!("{} is begun after the rollout was stopped", planned.node)
            });
        }
        self.ops.insert(
            op,
            LiveOp {
                node,
                step,
                work,
                attempt,
                started_ms: None,
                limit_ms: planned.timeout_ms,
                holds: None,
            },
        );
    }

    fn on_op_ended(&mut self, op: OpId, step: StepId, outcome: &Outcome) {
        let Some(live) = self.ops.remove(&op) else {
            return self.broken(
                Rule::OncePerOp,
                format!("{op} ends twice, or never started"),
            );
        };
        self.require(live.step == step, Rule::OncePerOp, || {
            format!("{op} ends for another step than it started for")
        });
        self.release(&live);
        let may_have_happened = live.work == Work::Act
            && match outcome {
                Outcome::TimedOut | Outcome::Orphaned => true,
                Outcome::Failed { failure } => failure.kind == FailureKind::Ambiguous,
                Outcome::Done { .. } | Outcome::NotDone => false,
            };
        let settled = matches!(outcome, Outcome::Done { .. } | Outcome::NotDone);
        if let Some(state) = self.step(step) {
            state.probe_due = (state.probe_due && !settled) || may_have_happened;
            state.done = matches!(outcome, Outcome::Done { .. });
        }
        if let Outcome::Done {
            evidence: Evidence::Approved { approval, .. },
        } = outcome
            && let Some(node) = self.node(live.node)
        {
            node.approval = Some(approval.clone());
        }
    }

    fn release(&mut self, live: &LiveOp) {
        if let Some(started_ms) = live.started_ms {
            let limit_ms = match live.work {
                Work::Act => live.limit_ms,
                Work::Probe => live.limit_ms.min(PROBE_TIMEOUT_MS_MAX),
            };
            let took_ms = self.now_ms.saturating_sub(started_ms);
            self.require(
                took_ms <= limit_ms + OVERTIME_MS_MAX,
                Rule::TimeLimit,
                || {
                    format!(
                        "try {} of step {} went on for {took_ms} ms of {limit_ms} ms",
                        live.attempt, live.step.0
                    )
                },
            );
            if let Some(node) = self.node(live.node) {
                node.running = node.running.saturating_sub(1);
            }
        }
        if let Some(resource) = live.holds
            && let Some(count) = self.holders.get_mut(&resource)
        {
            *count = count.saturating_sub(1);
        }
    }

    fn on_restart(&mut self, node: &NodeName, from: StepId, count: u32) {
        let Some(plan) = self.plan.clone() else {
            return;
        };
        for id in plan.nodes.get(node).map_or(&[][..], |n| &n.steps) {
            if *id >= from
                && let Some(step) = self.step(*id)
            {
                step.done = false;
                step.probe_due = false;
            }
        }
        let place = self.places.get(node).copied().unwrap_or(u32::MAX);
        let max = plan.limits.node_restarts_max;
        if let Some(state) = self.node(place) {
            state.restarts += 1;
            state.approval = None;
            let restarts = state.restarts;
            self.require(restarts <= max && count <= max, Rule::Bounded, || {
                format!("{node} begins again for the {restarts}th time, of {max}")
            });
        }
    }

    fn on_run_end(&mut self, end: RunEnd) {
        let undone = self.steps.iter().position(|s| !s.done);
        if end == RunEnd::Complete
            && let Some(undone) = undone
        {
            self.broken(
                Rule::EndIsTrue,
                format!("the run is complete, and step {undone} is not done"),
            );
        }
        self.require(
            end != RunEnd::Incomplete || undone.is_some(),
            Rule::EndIsTrue,
            || "the run is incomplete, and every step is done".to_owned(),
        );
        let open = self.ops.keys().next().copied();
        self.require(open.is_none(), Rule::EndIsTrue, || {
            format!("the run ends while {open:?} is under way")
        });
    }

    /// The engine starts an operation.
    pub(crate) fn on_start(&mut self, order: &Order) {
        let op = order.op;
        let Some(planned) = order.planned() else {
            return self.broken(Rule::JournalFirst, format!("{op} has no step"));
        };
        let now_ms = self.now_ms;
        let Some(live) = self.ops.get_mut(&op) else {
            return self.broken(
                Rule::JournalFirst,
                format!("{op} is started, and the journal doesn't have it"),
            );
        };
        let (again, node) = (live.started_ms.is_some(), live.node);
        let same = (live.step, live.work, live.attempt) == (order.step, order.work, order.attempt);
        live.started_ms = Some(now_ms);
        // A probe looks and changes nothing, but it stands for a step that may be under way.
        live.holds = planned.resource;
        self.require(!again, Rule::OncePerOp, || format!("{op} is started twice"));
        self.require(same, Rule::JournalFirst, || {
            format!("{op} is started as something else than the journal says")
        });
        if let Some(state) = self.node(node) {
            state.running += 1;
            let running = state.running;
            self.require(running == 1, Rule::OneAtATime, || {
                format!("{running} operations work on {} at once", order.node)
            });
        }
        if let Some(resource) = planned.resource {
            let holders = self.holders.entry(resource).or_default();
            *holders += 1;
            let holders = *holders;
            let peak = self.peaks.entry(resource).or_default();
            *peak = holders.max(*peak);
            let limit = self.limits.get(&resource).copied().unwrap_or(u32::MAX);
            self.require(holders <= limit, Rule::Concurrency, || {
                format!("{holders} steps hold {resource:?}, and {limit} may")
            });
        }
        self.check_contact(order, node);
        if order.work == Work::Act && planned.action.is_of_cluster() {
            self.check_cluster(order, &planned.action);
        }
    }

    fn check_contact(&mut self, order: &Order, node: u32) {
        let contact = order.planned().is_some_and(|step| {
            matches!(
                step.action,
                Action::Inspect { .. }
                    | Action::Partition { .. }
                    | Action::CopyClosure { .. }
                    | Action::Install { .. }
            )
        });
        if !contact {
            return;
        }
        let facts = &order.facts;
        let known = facts.approval.as_ref().is_some_and(|approval| {
            facts
                .report
                .as_ref()
                .is_some_and(|report| report.fingerprint == approval.fingerprint)
                && self.approved.contains_key(&approval.fingerprint)
        });
        let durable = self
            .node(node)
            .is_some_and(|state| state.approval == facts.approval);
        self.require(known && durable, Rule::ContactApproval, || {
            format!(
                "{} of {} is started without an approval of the machine's key in the journal",
                order.op, order.node
            )
        });
    }

    /// The engine calls an operation off.
    pub(crate) fn on_cancel(&mut self, op: OpId) {
        // Its end is already in the journal, or comes with the run's end.
        self.require(!self.ops.contains_key(&op), Rule::JournalFirst, || {
            format!("{op} is called off, and its end is not in the journal")
        });
    }

    /// An operator or a console has approved a fingerprint.
    pub(crate) fn on_approved(&mut self, approval: &Approval) {
        self.approved
            .insert(approval.fingerprint.clone(), approval.expires_wall_ms);
    }

    /// A connection is made for the first time to an installer.
    pub(crate) fn on_first_contact(&mut self, fingerprint: &str, wall_ms: u64) {
        let expires = self.approved.get(fingerprint).copied();
        self.require(
            expires.is_some_and(|expires| wall_ms <= expires),
            Rule::ContactApproval,
            || format!("an installer under {fingerprint} is connected to without valid approval"),
        );
    }

    /// A disk is about to be wiped by the installer of that fingerprint.
    pub(crate) fn on_wipe(&mut self, node: u32, disk: &Disk, fingerprint: &str, guid: MachineUuid) {
        let known = self
            .disks
            .get(usize::try_from(node).unwrap_or(usize::MAX))
            .is_some_and(|disks| {
                disks.iter().any(|known| {
                    known.wipeable
                        && known
                            .identity
                            .matches(disk.serial.as_deref(), disk.wwn.as_deref())
                })
            });
        let serial = disk.serial.as_deref().unwrap_or("none");
        self.require(known, Rule::WipeIdentity, || {
            format!("the disk with serial {serial} is wiped, and is not the inventory's to wipe")
        });
        self.require(
            self.approved.contains_key(fingerprint),
            Rule::WipeApproval,
            || format!("the disk with serial {serial} is wiped under the unapproved {fingerprint}"),
        );
        let ours = disk.table == Table::Laid(guid) || self.laid.contains(&(node, guid));
        self.require(!ours, Rule::SecondWipe, || {
            format!("the disk with serial {serial} was laid out as {guid} and is wiped again")
        });
    }

    /// A step on an installer refuses its machine; whether there was ever a reason to.
    pub(crate) fn on_refusal(&mut self, node: &str, reason: bool, said: &str) {
        self.require(reason, Rule::RefusalIsTrue, || {
            format!("{node} is refused, and nobody else ever answered for it: {said}")
        });
    }

    /// A disk was laid out.
    pub(crate) fn on_laid(&mut self, node: u32, guid: MachineUuid) {
        self.laid.insert((node, guid));
    }

    /// A secret reaches the holder of that key.
    pub(crate) fn on_secret(&mut self, fingerprint: &str) {
        self.require(
            self.approved.contains_key(fingerprint),
            Rule::SecretApproval,
            || format!("a secret goes to the unapproved {fingerprint}"),
        );
    }

    /// A machine is called up: what it ran in that boot, if it had such a boot.
    pub(crate) fn on_up(&mut self, node: &str, wanted: &str, ran: Option<&str>) {
        self.require(ran == Some(wanted), Rule::UpIsTrue, || {
            format!("{node} is called up with {wanted}, and ran {ran:?}")
        });
    }
}

#[cfg(test)]
mod tests;
