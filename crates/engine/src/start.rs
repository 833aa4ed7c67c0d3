//! What may start, and who may hold what.

use std::sync::Arc;

use undercroft_model::{
    Action, Failure, FailureKind, NodeName, Now, OpId, Record, Resource, Step, StepId, Work,
};

use crate::{
    Effect, Engine, EngineFault, Order,
    engine::{NodePhase, NodeRun, current, record},
    evidence,
    progress::RunningOp,
    progress::timeout_ms,
    schedule::NodeIndex,
};

/// How many faults are kept; the first ones tell the most.
const FAULTS_MAX: usize = 64;

impl Engine {
    /// Starts a machine's next operation, if it may start.
    pub(crate) fn advance(&mut self, now: Now, n: NodeIndex, out: &mut Vec<Effect>) {
        let plan = Arc::clone(&self.plan);
        let Some(node) = self.nodes.get(n) else {
            return;
        };
        let progress = &node.progress;
        if self.finished.is_some()
            || node.phase != NodePhase::Idle
            || progress.running.is_some()
            || progress.failed.is_some()
        {
            return;
        }
        let Some(step) = current(&plan, &self.shape, node, n) else {
            return;
        };
        if self.winding_down {
            self.release(n);
            return;
        }
        let blocked = self.blockers.get(step.id.index()).is_none_or(|b| *b > 0)
            || !self.gates.is_open(step.id);
        if blocked || (self.stopped && !progress.begun) {
            // It may have been handed a resource before the rollout stopped.
            self.release(n);
            return;
        }
        if matches!(step.action, Action::Inspect { .. })
            && let Some(approval) = &progress.facts.approval
            && evidence::expired(approval, now, node.approved_mono_ms)
        {
            let failure = Failure::new(
                FailureKind::PreconditionLost,
                format!(
                    "the approval by {} ran out before the first connection",
                    approval.by
                ),
            );
            let approve = step
                .after
                .iter()
                .filter_map(|id| plan.step(*id))
                .find(|s| s.node == step.node && matches!(s.action, Action::Approve { .. }));
            match approve {
                Some(approve) => self.restart_at(n, approve.id, failure, out),
                None => self.restart(n, step, failure, out),
            }
            return;
        }
        if let Some(resource) = step.resource
            && node.holds != Some(resource)
            && !self.take(n, step.id, resource)
        {
            return;
        }
        self.start(now, n, step, out);
    }

    fn start(&mut self, now: Now, n: NodeIndex, step: &Step, out: &mut Vec<Effect>) {
        let Some(node) = self.nodes.get(n) else {
            return;
        };
        if let Err(fault) = self.may_start(node, step) {
            let failure = Failure::new(FailureKind::Permanent, format!("a bug: {fault}"))
                .with_hint("nothing was started; please report this with the journal");
            if self.faults.len() < FAULTS_MAX {
                self.faults.push(fault);
            }
            self.fail(n, failure, out);
            return;
        }
        let members = self.members_beside(step);
        let op = OpId(self.next_op);
        self.next_op = self.next_op.saturating_add(1);
        let Some(node) = self.nodes.get_mut(n) else {
            return;
        };
        let work = node.progress.next;
        node.progress.op_started(RunningOp {
            op,
            step: step.id,
            work,
        });
        let attempt = node.progress.attempt.max(1);
        let timeout_ms = timeout_ms(step, work);
        let until = now.mono_ms.saturating_add(timeout_ms);
        node.phase = NodePhase::Running(until);
        self.timers.insert((until, n));
        self.ops.insert(op, n);
        record(
            out,
            Record::OpStarted {
                op,
                step: step.id,
                work,
                attempt,
            },
        );
        out.push(Effect::Start(Box::new(Order {
            op,
            plan: Arc::clone(&self.plan),
            step: step.id,
            node: node.name.clone(),
            work,
            attempt,
            timeout_ms,
            facts: Arc::clone(&node.progress.facts),
            members,
        })));
    }

    /// Whom a founder has to ask before it founds.
    fn members_beside(&self, step: &Step) -> Vec<NodeName> {
        let Some(cluster) =
            (self.plan.cluster.as_ref()).filter(|_| step.action == Action::FoundCluster)
        else {
            return Vec::new();
        };
        let joins = |node: &NodeRun| {
            let running = node.progress.running.filter(|op| op.work == Work::Act);
            let running = running.and_then(|op| self.plan.step(op.step));
            node.progress.told_to_join || running.is_some_and(|step| step.action.makes_member())
        };
        let others = cluster.servers.keys().filter(|name| **name != step.node);
        others
            .filter(|name| {
                let place = self.nodes.binary_search_by(|node| node.name.cmp(name));
                let node = place.ok().and_then(|n| self.nodes.get(n));
                cluster.members.contains(*name) || node.is_some_and(joins)
            })
            .cloned()
            .collect()
    }

    /// The promises that hold whatever else is wrong.
    fn may_start(&self, node: &NodeRun, step: &Step) -> Result<(), EngineFault> {
        let place = || (node.name.clone(), step.id);
        if self.winding_down {
            let (node, step) = place();
            return Err(EngineFault::LateStart { node, step });
        }
        if node.progress.running.is_some() {
            let (node, step) = place();
            return Err(EngineFault::TwoOperations { node, step });
        }
        if let Some(resource) = step.resource {
            let semaphore = self.semaphores.get(&resource);
            if semaphore.is_none_or(|s| s.held > s.limit) {
                let limit = semaphore.map_or(0, |s| s.limit);
                return Err(EngineFault::LimitExceeded { resource, limit });
            }
        }
        if node.progress.next == Work::Probe {
            return Ok(());
        }
        let facts = &node.progress.facts;
        let approved = matches!(
            (&facts.report, &facts.approval),
            (Some(report), Some(approval)) if report.fingerprint == approval.fingerprint
        );
        let inspected = !facts.disk_paths.is_empty()
            && facts.boot_id.is_some()
            && facts.boot_id == facts.report.as_ref().map(|r| r.boot_id.clone());
        let proved = approved && inspected;
        if !(step.destroys.is_empty() || proved) {
            let (node, step) = place();
            return Err(EngineFault::UnprovedDestruction { node, step });
        }
        // Secrets for the installed system go to the key that it was proved to have.
        let proved_up = facts.host_key_fingerprint.is_some();
        if step.delivers_secrets && !approved && !proved_up {
            let (node, step) = place();
            return Err(EngineFault::UnprovedSecrets { node, step });
        }
        Ok(())
    }

    fn take(&mut self, n: NodeIndex, step: StepId, resource: Resource) -> bool {
        let (Some(node), Some(semaphore)) =
            (self.nodes.get_mut(n), self.semaphores.get_mut(&resource))
        else {
            return false;
        };
        if semaphore.take_or_wait(step, n) {
            node.holds = Some(resource);
            true
        } else {
            node.phase = NodePhase::Queued(step, resource);
            false
        }
    }

    /// Gives back what a machine holds, takes it out of the queue that it stands in, and lets the
    /// next one ask.
    pub(crate) fn release(&mut self, n: NodeIndex) {
        let Some(node) = self.nodes.get_mut(n) else {
            return;
        };
        if let NodePhase::Queued(step, resource) = node.phase {
            node.phase = NodePhase::Idle;
            if let Some(semaphore) = self.semaphores.get_mut(&resource) {
                semaphore.leave(step, n);
            }
        }
        let Some(resource) = node.holds.take() else {
            return;
        };
        let Some(semaphore) = self.semaphores.get_mut(&resource) else {
            return;
        };
        let mut next = semaphore.give_back();
        while let Some(m) = next {
            let Some(node) = self.nodes.get_mut(m) else {
                break;
            };
            node.phase = NodePhase::Idle;
            if self.winding_down || (self.stopped && !node.progress.begun) {
                // It won't begin in this run: its turn goes to the next in the queue.
                next = semaphore.next();
                continue;
            }
            // It is handed over, so that nobody who comes later takes it first.
            semaphore.held = semaphore.held.saturating_add(1);
            node.holds = Some(resource);
            self.todo.push_back(m);
            break;
        }
    }

    pub(crate) fn stop_timer(&mut self, n: NodeIndex) {
        if let Some(node) = self.nodes.get_mut(n)
            && let NodePhase::Running(at) | NodePhase::Backoff(at) = node.phase
        {
            self.timers.remove(&(at, n));
            node.phase = NodePhase::Idle;
        }
    }
}
