//! What follows from an operation's end: the next step, another try, a restart, or a failure.

use std::sync::Arc;

use undercroft_model::{
    Action, Failure, FailureKind, Now, OpId, Outcome, Record, Resource, Step, StepId, Work,
};

use crate::{
    Effect, Engine,
    engine::{NodePhase, record},
    evidence,
    progress::RunningOp,
    schedule::{NodeIndex, backoff_ms},
};

impl Engine {
    /// Journals an operation's end and folds it.
    pub(crate) fn close(
        &mut self,
        n: NodeIndex,
        running: RunningOp,
        outcome: Outcome,
        out: &mut Vec<Effect>,
    ) {
        self.ops.remove(&running.op);
        self.stop_timer(n);
        self.op_ended(n, running.step, &outcome);
        record(
            out,
            Record::OpEnded {
                op: running.op,
                step: running.step,
                outcome,
            },
        );
    }

    /// What `OpEnded` means for a machine, live and when the journal is read.
    pub(crate) fn op_ended(&mut self, n: NodeIndex, step: StepId, outcome: &Outcome) {
        let plan = Arc::clone(&self.plan);
        let Some(node) = self.nodes.get_mut(n) else {
            return;
        };
        let after = self.shape.steps(n);
        let after = after.get(node.progress.cursor.saturating_add(1));
        let after = after.and_then(|id| plan.step(*id));
        if let Some(step) = plan.step(step) {
            node.progress.op_ended(step, outcome, after);
        }
        if matches!(outcome, Outcome::Done { .. }) {
            self.settle_gate(step, true);
            for dependent in self.shape.dependents(step) {
                if let Some(blockers) = self.blockers.get_mut(dependent.index()) {
                    *blockers = blockers.saturating_sub(1);
                    if *blockers == 0 {
                        self.todo.extend(self.shape.node(*dependent));
                    }
                }
            }
        }
    }

    pub(crate) fn ended(&mut self, now: Now, op: OpId, outcome: Outcome, out: &mut Vec<Effect>) {
        let Some(n) = self.ops.get(&op).copied() else {
            return;
        };
        let plan = Arc::clone(&self.plan);
        let Some((node, running, step, planned)) = self.nodes.get(n).and_then(|node| {
            let running = node.progress.running?;
            Some((
                node,
                running,
                plan.step(running.step)?,
                plan.nodes.get(&node.name)?,
            ))
        }) else {
            return;
        };
        let facts = &node.progress.facts;
        let outcome = evidence::judge(planned, step, running.work, facts, outcome, now);
        if matches!(outcome, Outcome::Done { .. })
            && matches!(step.action, Action::Approve { .. })
            && let Some(node) = self.nodes.get_mut(n)
        {
            node.approved_mono_ms = Some(now.mono_ms);
        }
        self.close(n, running, outcome.clone(), out);
        self.settle(now, n, step, running.work, &outcome, out);
    }

    /// Decides what follows from an operation's end.
    pub(crate) fn settle(
        &mut self,
        now: Now,
        n: NodeIndex,
        step: &Step,
        work: Work,
        outcome: &Outcome,
        out: &mut Vec<Effect>,
    ) {
        let Some(progress) = self.nodes.get(n).map(|node| &node.progress) else {
            return;
        };
        let (attempt, inconclusive_probes) = (progress.attempt, progress.inconclusive_probes);
        let last_failure = progress.last_failure.clone();
        match outcome {
            Outcome::Done { .. } => {
                self.release(n);
                self.todo.push_back(n);
            }
            Outcome::NotDone if attempt == 0 => self.todo.push_back(n),
            // None of those who report in as the machine was approved, and none of them may be
            // asked before that: the machine itself may have lost its power since, or never have
            // reported in at all. What the approval stands on is made anew.
            Outcome::NotDone
                if attempt >= step.retry.attempts_max
                    && matches!(step.action, Action::Approve { .. }) =>
            {
                let failure = last_failure
                    .unwrap_or_else(|| Failure::new(FailureKind::Ambiguous, "nobody approved it"));
                self.restart(n, step, failure, out);
            }
            Outcome::NotDone => self.try_again(now, n, step, attempt, last_failure, out),
            Outcome::Orphaned => self.todo.push_back(n),
            Outcome::Failed { failure } => match failure.kind {
                FailureKind::PreconditionLost => self.restart(n, step, failure.clone(), out),
                FailureKind::Refused | FailureKind::Refuted | FailureKind::Permanent => {
                    self.fail(n, failure.clone(), out);
                }
                FailureKind::Transient | FailureKind::Ambiguous if work == Work::Probe => {
                    self.look_again(now, n, step, inconclusive_probes, last_failure, out);
                }
                // Its tries are used up. Before the machine is given up, a look tells whether what the
                // step stands on is gone: then more than another try would be needed.
                FailureKind::Transient
                    if attempt >= step.retry.attempts_max && step.restart_from.is_some() =>
                {
                    self.wait(now, n, step, attempt);
                }
                FailureKind::Transient => self.try_again(now, n, step, attempt, last_failure, out),
                FailureKind::Ambiguous => self.todo.push_back(n),
            },
            // An act may have happened: the probe follows at once and keeps what the act held.
            Outcome::TimedOut if work == Work::Act => self.todo.push_back(n),
            Outcome::TimedOut => {
                self.look_again(now, n, step, inconclusive_probes, last_failure, out)
            }
        }
    }

    /// Looks once more, or begins the machine again when it stays out of sight: it may have lost
    /// its power, and then no number of looks brings it back. Of a member of the cluster, where it
    /// became one, the machine itself is asked.
    fn look_again(
        &mut self,
        now: Now,
        n: NodeIndex,
        step: &Step,
        inconclusive_probes: u32,
        last_failure: Option<Failure>,
        out: &mut Vec<Effect>,
    ) {
        match last_failure {
            Some(last_failure)
                if inconclusive_probes >= step.retry.attempts_max
                    && step.restart_from.is_some() =>
            {
                let failure = Failure {
                    kind: FailureKind::PreconditionLost,
                    message: format!(
                        "{inconclusive_probes} looks could not tell whether it is done; the last one: {}",
                        last_failure.message
                    ),
                    ..last_failure
                };
                self.restart(n, step, failure, out);
            }
            last_failure => self.try_again(now, n, step, inconclusive_probes, last_failure, out),
        }
    }

    /// Waits before the next try, or fails the machine when there is none left.
    fn try_again(
        &mut self,
        now: Now,
        n: NodeIndex,
        step: &Step,
        failed: u32,
        last_failure: Option<Failure>,
        out: &mut Vec<Effect>,
    ) {
        if failed >= step.retry.attempts_max {
            let failure = last_failure.unwrap_or_else(|| {
                Failure::new(FailureKind::Transient, "it was not done when it was tried")
            });
            self.fail(n, failure, out);
            return;
        }
        self.wait(now, n, step, failed);
    }

    fn wait(&mut self, now: Now, n: NodeIndex, step: &Step, failed: u32) {
        // A server that may be half way into etcd keeps its turn until it is in, or has failed.
        let half_in = step.resource == Some(Resource::ServerJoin) && attempted(self, n);
        if !half_in {
            self.release(n);
        }
        if self.winding_down {
            // The next try is another run's.
            return;
        }
        let until = now.mono_ms.saturating_add(backoff_ms(&step.retry, failed));
        if let Some(node) = self.nodes.get_mut(n) {
            node.phase = NodePhase::Backoff(until);
            self.timers.insert((until, n));
        }
    }

    /// Begins a machine's steps again from where its current step says.
    pub(crate) fn restart(
        &mut self,
        n: NodeIndex,
        step: &Step,
        failure: Failure,
        out: &mut Vec<Effect>,
    ) {
        let Some(from) = step.restart_from else {
            self.fail(n, failure, out);
            return;
        };
        self.restart_at(n, from, failure, out);
    }

    pub(crate) fn restart_at(
        &mut self,
        n: NodeIndex,
        from: StepId,
        failure: Failure,
        out: &mut Vec<Effect>,
    ) {
        let max = self.plan.limits.node_restarts_max;
        let Some(node) = self.nodes.get(n) else {
            return;
        };
        if node.progress.restarts >= max {
            let message = format!(
                "{}; it has begun again {max} times, as often as the plan allows",
                failure.message
            );
            self.fail(n, Failure { message, ..failure }, out);
            return;
        }
        let count = node.progress.restarts.saturating_add(1);
        record(
            out,
            Record::NodeRestarted {
                node: node.name.clone(),
                from,
                failure,
                count,
            },
        );
        self.release(n);
        self.stop_timer(n);
        self.restarted(n, from, count);
        self.todo.push_back(n);
    }

    /// What `NodeRestarted` means for a machine, live and when the journal is read.
    pub(crate) fn restarted(&mut self, n: NodeIndex, from: StepId, count: u32) {
        let plan = Arc::clone(&self.plan);
        let (Some(node), Some(step), Some((_, position))) = (
            self.nodes.get_mut(n),
            plan.step(from),
            self.shape.place(from),
        ) else {
            return;
        };
        let undone = position..node.progress.cursor;
        node.progress.restarted(position, step, count);
        node.approved_mono_ms = None;
        for step in self.shape.steps(n).get(undone).unwrap_or_default() {
            self.gates.set(*step, false);
            for dependent in self.shape.dependents(*step) {
                if let Some(blockers) = self.blockers.get_mut(dependent.index()) {
                    *blockers = blockers.saturating_add(1);
                }
            }
        }
    }

    pub(crate) fn fail(&mut self, n: NodeIndex, failure: Failure, out: &mut Vec<Effect>) {
        let Some((name, step)) = self
            .nodes
            .get(n)
            .and_then(|node| Some((node.name.clone(), self.current(n)?.id)))
        else {
            return;
        };
        self.release(n);
        self.stop_timer(n);
        if let Some(node) = self.nodes.get_mut(n) {
            node.progress.failed(failure.kind);
        }
        record(
            out,
            Record::NodeFailed {
                node: name,
                step,
                failure,
            },
        );
        self.settle_unreachable(n);
        self.failed = self.failed.saturating_add(1);
        let failure_budget = self.plan.limits.failure_budget;
        if self.failed > failure_budget && !self.stopped {
            self.stopped = true;
            record(
                out,
                Record::RolloutStopped {
                    failed: self.failed,
                    failure_budget,
                },
            );
            for other in 0..self.nodes.len() {
                let begun = |node: &crate::engine::NodeRun| node.progress.begun;
                if !self.nodes.get(other).is_some_and(begun) {
                    self.settle_unreachable(other);
                }
            }
        }
    }
}

/// Whether the machine's current step was ever begun in earnest, as far as this run knows.
fn attempted(engine: &Engine, n: NodeIndex) -> bool {
    let node = engine.nodes.get(n);
    node.is_some_and(|node| node.progress.attempt > 0)
}
