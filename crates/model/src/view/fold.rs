//! The fold itself.

use std::sync::Arc;

use super::{
    Current, Failed, FleetView, NodeStatus, NodeView, Quarantine, RefusedNode, RunView, Waits,
};
use crate::{
    Action, Entry, Evidence, Failure, FailureKind, Installed, NodePlan, NodeState, OpId, Outcome,
    Plan, PlannedDisk, Record, RefutedSystem, Step, StepId, Work, inventory::DiskRole,
};

impl FleetView {
    /// Folds one more entry.
    pub fn apply(&mut self, entry: &Entry) {
        let wall_ms = entry.wall_ms;
        let placed = match &entry.record {
            Record::Opened { fleet, .. } => {
                self.fleet = Some(fleet.clone());
                Some(())
            }
            Record::PlanAccepted { plan } => {
                self.plan_accepted(plan);
                self.plan_seq = Some(entry.seq);
                Some(())
            }
            Record::RunStarted { plan, undercroft } => {
                self.run_started(undercroft, wall_ms);
                (self.plan_id.as_ref() == Some(plan)).then_some(())
            }
            Record::OpStarted {
                op,
                step,
                work,
                attempt,
            } => self.op_started(*op, *step, *work, *attempt, wall_ms),
            Record::OpEnded { op, step, outcome } => self.op_ended(*op, *step, outcome, wall_ms),
            Record::NodeRestarted {
                node,
                from,
                failure,
                count,
            } => self
                .with_node(node, |view, plan| {
                    view.restart(plan, node, *from);
                    view.restarts = *count;
                    view.last_failure = Some(failure.clone());
                })
                .map(|()| self.settle_one(node)),
            Record::NodeFailed {
                node,
                step,
                failure,
            } => self
                .note_refusal(node, failure, wall_ms)
                .and_then(|()| {
                    self.with_node(node, |view, plan| {
                        view.failed = Some(Failed {
                            step: *step,
                            action: plan.step(*step).map(|step| step.action.verb().into()),
                            failure: failure.clone(),
                            wall_ms,
                        });
                    })
                })
                .map(|()| self.settle_one(node)),
            Record::Quarantined {
                node,
                report,
                reason,
            } => self.with_node(node, |view, _| {
                view.quarantine = Some(Quarantine {
                    reason: reason.clone(),
                    fingerprint: report.fingerprint.clone(),
                    address: report.address,
                    wall_ms,
                });
            }),
            Record::RolloutStopped { .. } => self.run.as_mut().map(|run| {
                run.rollout_stopped = true;
            }),
            Record::RunEnded { end } => self.run.as_mut().map(|run| {
                run.end = Some(*end);
                run.ended_wall_ms = Some(wall_ms);
            }),
        };
        if placed.is_none() {
            self.unplaced = self.unplaced.saturating_add(1);
        }
        if matches!(
            entry.record,
            Record::RolloutStopped { .. } | Record::RunEnded { .. } | Record::RunStarted { .. }
        ) {
            self.settle_all();
        }
        self.next_seq = entry.seq.saturating_add(1);
        self.last_wall_ms = Some(wall_ms);
    }

    fn plan_accepted(&mut self, plan: &Arc<Plan>) {
        self.plan_id = Some(plan.id.clone());
        self.plans = self.plans.saturating_add(1);
        self.run = None;
        self.nodes.clear();
        if let Some(wave) = &plan.wave {
            self.updates.planned(wave);
        }
        for (name, planned) in &plan.nodes {
            self.refused.remove(name);
            let mut view = NodeView::new();
            view.steps = count(planned.steps.len());
            self.nodes.insert(name.clone(), view);
            let disks = partitioned(plan, planned.steps.iter());
            if disks.is_empty() {
                // A plan that lays out no disk changes nothing of what is on them.
                continue;
            }
            let before = self.installed.get(name);
            let known = |disk: &PlannedDisk| {
                let mut old = before.iter().flat_map(|before| &before.disks);
                old.any(|old| old.table_guid == disk.table_guid)
            };
            // A table that was there before may be on a disk that was in use since.
            let same = disks.iter().any(known);
            // The machine's part of the cluster lies on the disk of its root.
            let mut roots = disks.iter().filter(|d| d.role == DiskRole::Root);
            let same_root = roots.all(known);
            let installed = Installed {
                generation: planned.generation,
                proved_up: same && before.is_some_and(|before| before.proved_up),
                joined: same_root && before.is_some_and(|before| before.joined),
                member: before.is_some_and(|before| before.member),
                disks,
            };
            self.installed.insert(name.clone(), installed);
        }
        self.plan = Some(Arc::clone(plan));
        self.settle_all();
    }

    fn run_started(&mut self, undercroft: &str, wall_ms: u64) {
        let number = self.run.as_ref().map_or(0, |run| run.number);
        self.run = Some(RunView {
            number: number.saturating_add(1),
            undercroft: undercroft.to_owned(),
            started_wall_ms: wall_ms,
            ended_wall_ms: None,
            end: None,
            rollout_stopped: false,
        });
        for view in self.nodes.values_mut() {
            view.restarts = 0;
            let refused = |failed: &Failed| failed.failure.kind == FailureKind::Refused;
            if !view.failed.as_ref().is_some_and(refused) {
                view.failed = None;
            }
        }
    }

    fn op_started(
        &mut self,
        op: OpId,
        step: StepId,
        work: Work,
        attempt: u32,
        wall_ms: u64,
    ) -> Option<()> {
        self.next_op = self.next_op.max(op.0.saturating_add(1));
        let (open, stopped) = self.run_state();
        let plan = self.plan.as_deref()?;
        let step = plan.step(step)?;
        let view = self.nodes.get_mut(&step.node)?;
        view.begun = true;
        view.first_wall_ms.get_or_insert(wall_ms);
        view.current = Some(Current {
            step: step.id,
            action: step.action.verb().into(),
            op: Some(op),
            work: Some(work),
            attempt,
            since_wall_ms: Some(wall_ms),
        });
        view.settle(plan, || plan.nodes.get(&step.node), open, stopped);
        Some(())
    }

    fn op_ended(&mut self, op: OpId, step: StepId, outcome: &Outcome, wall_ms: u64) -> Option<()> {
        self.next_op = self.next_op.max(op.0.saturating_add(1));
        let (open, stopped) = self.run_state();
        let plan = self.plan.as_deref()?;
        let step = plan.step(step)?;
        let view = self.nodes.get_mut(&step.node)?;
        // Found once: a name is looked for among all machines.
        let planned = plan.nodes.get(&step.node);
        view.op_ended(planned, step, op, outcome, wall_ms)?;
        view.settle(plan, || planned, open, stopped);
        if let (Action::Confirm { toplevel, .. }, Outcome::Done { .. }) = (&step.action, outcome) {
            self.updates.confirmed(&step.node, toplevel);
        }
        if let Outcome::Done { evidence } = outcome
            && matches!(evidence, Evidence::Up { .. } | Evidence::Joined { .. })
        {
            // What somebody else installed is known from here on, without its disks.
            let installed = self
                .installed
                .entry(step.node.clone())
                .or_insert_with(|| Installed {
                    generation: planned.map_or(0, |planned| planned.generation),
                    ..Installed::default()
                });
            installed.proved_up |= matches!(evidence, Evidence::Up { .. });
            let joined = matches!(evidence, Evidence::Joined { .. });
            installed.joined |= joined;
            installed.member |= joined;
        }
        Some(())
    }

    /// Keeps what was refused, beyond the plan that refused it.
    fn note_refusal(
        &mut self,
        node: &crate::NodeName,
        failure: &Failure,
        wall_ms: u64,
    ) -> Option<()> {
        let plan = self.plan.as_deref()?;
        let planned = plan.nodes.get(node)?;
        if failure.kind == FailureKind::Refused {
            let refused = RefusedNode {
                reason: failure.message.clone(),
                inventory_digest: plan.inventory_digest.clone(),
                target: planned.target.clone(),
            };
            self.refused.insert(node.clone(), refused);
        }
        if let (FailureKind::Refuted, Some(target)) = (failure.kind, &planned.target) {
            let refuted = RefutedSystem {
                toplevel: target.toplevel.clone(),
                reason: failure.message.clone(),
                wall_ms,
            };
            self.updates.refuted.insert(node.clone(), refuted);
        }
        Some(())
    }

    fn with_node(
        &mut self,
        node: &crate::NodeName,
        change: impl FnOnce(&mut NodeView, &Plan),
    ) -> Option<()> {
        let plan = self.plan.as_deref()?;
        change(self.nodes.get_mut(node)?, plan);
        Some(())
    }

    /// Whether the run is open, and whether its rollout was stopped.
    fn run_state(&self) -> (bool, bool) {
        let run = self.run.as_ref();
        let open = run.is_some_and(|run| run.end.is_none());
        (open, run.is_some_and(|run| run.rollout_stopped))
    }

    /// Status and waits follow from all the rest.
    fn settle_one(&mut self, node: &crate::NodeName) {
        let (open, stopped) = self.run_state();
        if let (Some(plan), Some(view)) = (self.plan.as_deref(), self.nodes.get_mut(node)) {
            view.settle(plan, || plan.nodes.get(node), open, stopped);
        }
    }

    fn settle_all(&mut self) {
        let (open, stopped) = self.run_state();
        if let Some(plan) = self.plan.as_deref() {
            for (name, view) in &mut self.nodes {
                view.settle(plan, || plan.nodes.get(name), open, stopped);
            }
        }
    }
}

impl NodeView {
    fn op_ended(
        &mut self,
        planned: Option<&NodePlan>,
        step: &Step,
        op: OpId,
        outcome: &Outcome,
        wall_ms: u64,
    ) -> Option<()> {
        let current = self.current.as_mut().filter(|c| c.op == Some(op))?;
        current.op = None;
        let since = current.since_wall_ms.unwrap_or(wall_ms);
        let phase = self.phases.entry(step.action.verb().into()).or_default();
        phase.busy_ms = phase.busy_ms.saturating_add(wall_ms.saturating_sub(since));
        phase.operations = phase.operations.saturating_add(1);
        match outcome {
            Outcome::Done { evidence } => {
                self.state = step.reaches;
                self.last_failure = None;
                self.learn(evidence);
                let steps = planned.map(|node| &node.steps);
                let place = steps.and_then(|steps| steps.iter().position(|id| *id == step.id));
                self.steps_done = count(place?.saturating_add(1));
                self.current = None;
                if self.steps_done >= self.steps {
                    self.done_wall_ms = Some(wall_ms);
                }
            }
            Outcome::Failed { failure } => self.last_failure = Some(failure.clone()),
            Outcome::TimedOut => {
                let message = format!("{} took too long and was called off", step.action.verb());
                self.last_failure = Some(Failure::new(FailureKind::Ambiguous, message));
            }
            Outcome::NotDone | Outcome::Orphaned => {}
        }
        Some(())
    }

    /// Beside the facts that steps stand on, what people want to know.
    fn learn(&mut self, evidence: &Evidence) {
        self.facts.learn(evidence);
        match evidence {
            Evidence::Seen { .. } | Evidence::Approved { .. } => self.name_installer(),
            Evidence::Partitioned { wiped, .. } => {
                // Once this plan has wiped, finding its own tables again doesn't unmake that.
                self.wiped = Some(*wiped || self.wiped == Some(true));
            }
            Evidence::Copied { closure_bytes, .. } => self.closure_bytes = Some(*closure_bytes),
            Evidence::Up {
                booted_system,
                host_key_fingerprint,
                ..
            } => {
                self.booted_system = Some(booted_system.clone());
                self.host_key_fingerprint = Some(host_key_fingerprint.clone());
            }
            Evidence::Ready {
                kubelet_version, ..
            } => self.kubelet_version = Some(kubelet_version.clone()),
            Evidence::Inspected { .. }
            | Evidence::Installed { .. }
            | Evidence::Rebooted { .. }
            | Evidence::Joined { .. }
            | Evidence::Fetched { .. }
            | Evidence::Drained { .. }
            | Evidence::Staged { .. }
            | Evidence::Restarted { .. }
            | Evidence::Released { .. }
            | Evidence::Bootstrapped { .. } => {}
        }
    }

    fn name_installer(&mut self) {
        let report = self.facts.report.as_ref();
        self.installer_boot_id = report.map(|report| report.boot_id.clone());
    }

    fn restart(&mut self, plan: &Plan, node: &crate::NodeName, from: StepId) {
        let steps = plan.nodes.get(node).map(|node| &node.steps);
        let place = steps.and_then(|steps| steps.iter().position(|id| *id == from));
        self.steps_done = count(place.unwrap_or(0));
        self.current = None;
        self.done_wall_ms = None;
        let from = plan.step(from);
        self.state = from.map_or(NodeState::Unknown, |from| from.requires);
        if let Some(from) = from {
            self.facts.begin_again(from);
            self.name_installer();
        }
    }

    fn settle<'a>(
        &mut self,
        plan: &'a Plan,
        planned: impl FnOnce() -> Option<&'a NodePlan>,
        run_open: bool,
        stopped: bool,
    ) {
        // What is worked at is the first step that isn't done.
        let current = self.current.as_ref().map(|current| current.step);
        let first = || {
            let done = usize::try_from(self.steps_done).ok()?;
            planned()?.steps.get(done).copied()
        };
        let next = current.or_else(first).and_then(|id| plan.step(id));
        if self.current.is_none()
            && let Some(next) = next
        {
            self.current = Some(Current {
                step: next.id,
                action: next.action.verb().into(),
                op: None,
                work: None,
                attempt: 0,
                since_wall_ms: None,
            });
        }
        let running = self.current.as_ref().is_some_and(|c| c.op.is_some());
        self.status = match &self.failed {
            Some(failed) if failed.failure.kind == FailureKind::Refused => NodeStatus::Quarantined,
            Some(_) => NodeStatus::Failed,
            None if self.steps_done >= self.steps => NodeStatus::Done,
            None if running => NodeStatus::Running,
            None if self.begun => NodeStatus::Waiting,
            None => NodeStatus::Planned,
        };
        self.waits = match self.status {
            NodeStatus::Done | NodeStatus::Failed | NodeStatus::Quarantined => None,
            _ if !run_open => Some(Waits::NextRun),
            NodeStatus::Running => {
                let act = self.current.as_ref().and_then(|c| c.work) == Some(Work::Act);
                let approves = next.is_some_and(|s| matches!(s.action, Action::Approve { .. }));
                (act && approves).then(|| Waits::Approval {
                    fingerprint: self.facts.report.as_ref().map(|r| r.fingerprint.clone()),
                })
            }
            NodeStatus::Planned if stopped => Some(Waits::RolloutStopped),
            NodeStatus::Planned | NodeStatus::Waiting => {
                let tried = self.current.as_ref().is_some_and(|c| c.work.is_some());
                Some(match next.and_then(|step| step.resource) {
                    _ if tried && self.last_failure.is_some() => Waits::NextTry,
                    Some(resource) => Waits::Resource { resource },
                    None => Waits::Steps,
                })
            }
        };
    }
}

/// The disks that a machine's steps partition.
fn partitioned<'a>(plan: &Plan, steps: impl Iterator<Item = &'a StepId>) -> Vec<PlannedDisk> {
    let mut disks = Vec::new();
    for step in steps.filter_map(|id| plan.step(*id)) {
        if let Action::Partition { disks: some, .. } = &step.action {
            disks.extend(some.iter().cloned());
        }
    }
    disks
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
