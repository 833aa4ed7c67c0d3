//! The engine: what happened goes in, what to do comes out.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use undercroft_model::{
    Action, NodeName, Now, OpId, Outcome, Plan, Record, Resource, RunEnd, Severity, Step, StepId,
};

use undercroft_planner::{Decided, PlanFinding};

use crate::{
    Effect, EngineFault, Event, PlanRefused,
    gates::Gates,
    progress::NodeProgress,
    schedule::{NodeIndex, Semaphore},
    shape::Shape,
};

/// The program's version, as `RunStarted` names it.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a machine is doing, beside what the records say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NodePhase {
    /// Nothing: it has ended, it waits for other steps, or it is about to be looked at.
    Idle,
    /// It waits for a resource.
    Queued(StepId, Resource),
    /// An operation runs, until that moment of the monotonic clock.
    Running(u64),
    /// It waits before the next try, until that moment of the monotonic clock.
    Backoff(u64),
}

#[derive(Debug, Clone)]
pub(crate) struct NodeRun {
    pub(crate) name: NodeName,
    pub(crate) progress: NodeProgress,
    pub(crate) phase: NodePhase,
    /// What its current step holds.
    pub(crate) holds: Option<Resource>,
    /// The step whose wait a report has cut short.
    pub(crate) hinted: Option<StepId>,
    /// When its approval arrived, by the monotonic clock, where this process saw that.
    pub(crate) approved_mono_ms: Option<u64>,
}

/// The state machines of one plan. See the crate's page for the rules.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(crate) plan: Arc<Plan>,
    /// In the order of the plan's names.
    pub(crate) nodes: Vec<NodeRun>,
    pub(crate) shape: Arc<Shape>,
    /// For each step, how many steps of other machines it still waits for.
    pub(crate) blockers: Vec<u32>,
    /// What waits for steps that need not succeed.
    pub(crate) gates: Gates,
    pub(crate) semaphores: BTreeMap<Resource, Semaphore>,
    /// At most one for each machine.
    pub(crate) timers: BTreeSet<(u64, NodeIndex)>,
    pub(crate) ops: BTreeMap<OpId, NodeIndex>,
    /// Machines to look at before `step` returns; each is there at most once for each event.
    pub(crate) todo: VecDeque<NodeIndex>,
    pub(crate) next_op: u64,
    /// Machines that have failed in this run.
    pub(crate) failed: u32,
    pub(crate) stopped: bool,
    /// Whether nothing further is started in this run.
    pub(crate) winding_down: bool,
    pub(crate) in_journal: bool,
    pub(crate) begun: bool,
    pub(crate) finished: Option<RunEnd>,
    pub(crate) faults: Vec<EngineFault>,
    mono_ms: u64,
}

impl Engine {
    /// An engine for a plan that no journal has yet. [`Event::Begin`] makes it journal the plan.
    ///
    /// # Errors
    /// When [`undercroft_planner::check`] finds errors in the plan.
    pub fn new(plan: impl Into<Arc<Plan>>) -> Result<Self, PlanRefused> {
        let plan = plan.into();
        Self::checked(&plan)?;
        Ok(Self::unchecked(plan))
    }

    /// The same, for a plan that comes straight from the planner.
    ///
    /// # Errors
    /// As [`Engine::new`].
    pub fn decided(plan: &Decided) -> Result<Self, PlanRefused> {
        Self::without_errors(undercroft_planner::check_decided(plan))?;
        Ok(Self::unchecked(Arc::clone(plan.plan())))
    }

    /// Refuses a plan in which [`undercroft_planner::check`] finds errors.
    pub(crate) fn checked(plan: &Plan) -> Result<(), PlanRefused> {
        Self::without_errors(undercroft_planner::check(plan))
    }

    fn without_errors(findings: Vec<PlanFinding>) -> Result<(), PlanRefused> {
        if findings.iter().any(|f| f.severity == Severity::Error) {
            return Err(PlanRefused { findings });
        }
        Ok(())
    }

    /// An engine that must not begin before its plan was checked.
    pub(crate) fn unchecked(plan: Arc<Plan>) -> Self {
        let shape = Shape::new(&plan);
        let mut nodes = Vec::with_capacity(plan.nodes.len());
        for (name, node) in &plan.nodes {
            let first = node.steps.first().and_then(|id| plan.step(*id));
            nodes.push(NodeRun {
                name: name.clone(),
                progress: NodeProgress::new(first),
                phase: NodePhase::Idle,
                holds: None,
                hinted: None,
                approved_mono_ms: None,
            });
        }
        let mut blockers = vec![0; plan.steps.len()];
        for step in &plan.steps {
            for dependent in shape.dependents(step.id) {
                if let Some(blockers) = blockers.get_mut(dependent.index()) {
                    *blockers += 1;
                }
            }
        }
        let semaphores = plan
            .limits
            .concurrency
            .iter()
            .map(|(resource, limit)| (*resource, Semaphore::new(*limit)))
            .collect();
        Self {
            gates: Gates::new(&plan),
            plan,
            nodes,
            shape: Arc::new(shape),
            blockers,
            semaphores,
            timers: BTreeSet::new(),
            ops: BTreeMap::new(),
            todo: VecDeque::new(),
            next_op: 0,
            failed: 0,
            stopped: false,
            winding_down: false,
            in_journal: false,
            begun: false,
            finished: None,
            faults: Vec::new(),
            mono_ms: 0,
        }
    }

    /// The same engine, whose first operation has that id: for a plan that follows another in one
    /// journal, where no id may be used twice. [`undercroft_model::view::FleetView::next_op`]
    /// gives it.
    #[must_use]
    pub fn numbered_from(mut self, first: OpId) -> Self {
        self.next_op = self.next_op.max(first.0);
        self
    }

    /// The plan.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// How the run ended, if it has.
    pub fn finished(&self) -> Option<RunEnd> {
        self.finished
    }

    /// Promises of the engine's own that it would have broken. Empty, or there is a bug.
    pub fn faults(&self) -> &[EngineFault] {
        &self.faults
    }

    /// The operations under way.
    pub fn running(&self) -> impl Iterator<Item = OpId> + '_ {
        self.ops.keys().copied()
    }

    /// When [`Event::Tick`] is due at the latest, in milliseconds of the monotonic clock.
    pub fn next_deadline(&self) -> Option<u64> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Takes an event and gives what to do, in order. What follows a record must not be done
    /// before the record is durable.
    pub fn step(&mut self, now: Now, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        if self.finished.is_some() {
            return out;
        }
        self.mono_ms = self.mono_ms.max(now.mono_ms);
        let now = Now {
            mono_ms: self.mono_ms,
            ..now
        };
        match event {
            Event::Begin => self.begin(&mut out),
            Event::Ended { op, outcome } => self.ended(now, op, outcome, &mut out),
            Event::Reported { node, report } => self.reported(&node, *report, &mut out),
            Event::Interrupt => self.interrupt(&mut out),
            Event::WindDown => self.wind_down(&mut out),
            Event::Tick => {}
        }
        self.fire_timers(now, &mut out);
        while let Some(node) = self.todo.pop_front() {
            self.advance(now, node, &mut out);
        }
        self.end_if_idle(&mut out);
        out
    }

    fn begin(&mut self, out: &mut Vec<Effect>) {
        if self.begun {
            return;
        }
        self.begun = true;
        if !self.in_journal {
            self.in_journal = true;
            record(
                out,
                Record::PlanAccepted {
                    plan: Arc::clone(&self.plan),
                },
            );
        }
        record(
            out,
            Record::RunStarted {
                plan: self.plan.id.clone(),
                undercroft: VERSION.to_owned(),
            },
        );
        self.run_started();
        for n in 0..self.nodes.len() {
            self.recover_node(n, out);
        }
    }

    /// What `RunStarted` means for the machines, live and when the journal is read.
    pub(crate) fn run_started(&mut self) {
        self.failed = 0;
        self.stopped = false;
        for node in &mut self.nodes {
            node.progress.run_started();
        }
        let shape = Arc::clone(&self.shape);
        for n in 0..self.nodes.len() {
            let cursor = self.nodes.get(n).map_or(0, |node| node.progress.cursor);
            for (position, step) in shape.steps(n).iter().enumerate() {
                self.settle_gate(*step, position < cursor);
            }
        }
        for n in 0..self.nodes.len() {
            let node = self.nodes.get(n);
            if node.is_some_and(|node| node.progress.failed.is_some()) {
                self.settle_unreachable(n);
            }
        }
    }

    /// Settles the steps of a machine that gets no further in this run, and those of others that
    /// can't be done without them: nobody waits for what can't come.
    pub(crate) fn settle_unreachable(&mut self, n: NodeIndex) {
        let shape = Arc::clone(&self.shape);
        let cursor = self.nodes.get(n).map_or(0, |node| node.progress.cursor);
        let mut ended = vec![(n, cursor)];
        while let Some((n, from)) = ended.pop() {
            for step in shape.steps(n).get(from..).unwrap_or_default() {
                if self.gates.is_settled(*step) {
                    continue;
                }
                self.settle_gate(*step, true);
                let dependents = shape.dependents(*step).iter();
                ended.extend(dependents.filter_map(|dependent| shape.place(*dependent)));
            }
        }
    }

    /// Settles a step for those that wait for no more than that, and looks at them.
    pub(crate) fn settle_gate(&mut self, step: StepId, settled: bool) {
        for opened in self.gates.set(step, settled) {
            self.todo.extend(self.shape.node(opened));
        }
    }

    /// Settles what an earlier run left open, and looks at the machine.
    fn recover_node(&mut self, n: NodeIndex, out: &mut Vec<Effect>) {
        let Some(running) = self.nodes.get(n).and_then(|node| node.progress.running) else {
            let refused = self.nodes.get(n).and_then(|node| {
                let last_failure = node.progress.last_failure.clone()?;
                node.progress.failed.is_none().then_some(last_failure)
            });
            match refused {
                // Only a refusal outlives its run without having failed its machine: the
                // controller died between the two records.
                Some(failure) => self.fail(n, failure, out),
                None => self.todo.push_back(n),
            }
            return;
        };
        self.close(n, running, Outcome::Orphaned, out);
        self.todo.push_back(n);
    }

    fn interrupt(&mut self, out: &mut Vec<Effect>) {
        for (op, n) in std::mem::take(&mut self.ops) {
            if let Some(running) = self.nodes.get(n).and_then(|node| node.progress.running) {
                self.close(n, running, Outcome::Orphaned, out);
            }
            out.push(Effect::Cancel(op));
        }
        self.timers.clear();
        self.todo.clear();
        self.end(RunEnd::Interrupted, out);
    }

    /// Nothing further is started: no next step, no other try. Approvals that are waited for are called off;
    /// the run ends with the last of what else runs.
    fn wind_down(&mut self, out: &mut Vec<Effect>) {
        self.winding_down = true;
        for n in 0..self.nodes.len() {
            let Some(node) = self.nodes.get(n) else {
                continue;
            };
            if matches!(node.phase, NodePhase::Backoff(_)) {
                self.stop_timer(n);
            }
            let waits = self
                .current(n)
                .is_some_and(|step| matches!(step.action, Action::Approve { .. }));
            if waits && let Some(running) = self.nodes.get(n).and_then(|node| node.progress.running)
            {
                self.close(n, running, Outcome::Orphaned, out);
                out.push(Effect::Cancel(running.op));
            }
        }
    }

    fn fire_timers(&mut self, now: Now, out: &mut Vec<Effect>) {
        while let Some((at, n)) = self.timers.first().copied() {
            if at > now.mono_ms {
                break;
            }
            self.timers.pop_first();
            let plan = Arc::clone(&self.plan);
            let Some(node) = self.nodes.get_mut(n) else {
                continue;
            };
            node.phase = NodePhase::Idle;
            let running = node.progress.running;
            match running.and_then(|r| Some((r, plan.step(r.step)?))) {
                Some((running, step)) => {
                    self.close(n, running, Outcome::TimedOut, out);
                    out.push(Effect::Cancel(running.op));
                    self.settle(now, n, step, running.work, &Outcome::TimedOut, out);
                }
                None => self.todo.push_back(n),
            }
        }
    }

    /// A machine's current step.
    pub(crate) fn current(&self, n: NodeIndex) -> Option<&Step> {
        current(&self.plan, &self.shape, self.nodes.get(n)?, n)
    }

    fn end_if_idle(&mut self, out: &mut Vec<Effect>) {
        if !self.begun || self.finished.is_some() {
            return;
        }
        if self.ops.is_empty() && self.timers.is_empty() {
            let complete = |(n, node): (usize, &NodeRun)| {
                node.progress.failed.is_none() && self.current(n).is_none()
            };
            let end = if self.nodes.iter().enumerate().all(complete) {
                RunEnd::Complete
            } else if self.winding_down {
                RunEnd::Interrupted
            } else {
                RunEnd::Incomplete
            };
            self.end(end, out);
        }
    }

    fn end(&mut self, end: RunEnd, out: &mut Vec<Effect>) {
        self.finished = Some(end);
        if self.begun {
            record(out, Record::RunEnded { end });
        }
        out.push(Effect::Finished(end));
    }
}

/// A machine's current step.
pub(crate) fn current<'a>(
    plan: &'a Plan,
    shape: &Shape,
    node: &NodeRun,
    n: NodeIndex,
) -> Option<&'a Step> {
    plan.step(*shape.steps(n).get(node.progress.cursor)?)
}

pub(crate) fn record(out: &mut Vec<Effect>, record: Record) {
    out.push(Effect::Journal(record));
}
