//! An engine from a journal: the records are folded by the functions that made them.

use std::{
    borrow::Borrow,
    sync::{Arc, OnceLock},
};

use undercroft_model::{Entry, JOURNAL_VERSION, NodeName, OpId, Plan, Record, StepId};

use crate::{Engine, ResumeError, progress::RunningOp, schedule::NodeIndex};

/// What a journal says of the plan that it accepted last, entry by entry: a fold that can be kept, and
/// gone on with as the journal grows.
#[derive(Debug, Clone, Default)]
pub struct Resumption {
    engine: Option<Engine>,
    next_op: u64,
    next_seq: Option<u64>,
    /// An engine that has done nothing yet, of a plan that was found good.
    fresh: Option<Engine>,
    /// Whether the plan that was accepted last was found good. It needs no second look, as nobody can change it.
    good: OnceLock<()>,
}

impl Resumption {
    /// Folds the journal's next entry.
    ///
    /// # Errors
    /// When it contradicts those before it. Then there is nothing to go on from, whatever comes after it.
    pub fn apply(&mut self, entry: &Entry) -> Result<(), ResumeError> {
        let seq = entry.seq;
        let contradiction = |what: String| ResumeError::Contradiction { seq, what };
        if self.next_seq.is_some_and(|next| next != seq) {
            return Err(contradiction(
                "the records before it are missing".to_owned(),
            ));
        }
        self.next_seq = Some(seq.saturating_add(1));
        match &entry.record {
            Record::Opened { version, .. } => {
                if *version > JOURNAL_VERSION {
                    return Err(ResumeError::Version { found: *version });
                }
            }
            Record::PlanAccepted { plan } => {
                let known = self.fresh.take_if(|fresh| Arc::ptr_eq(&fresh.plan, plan));
                self.good = known.as_ref().map_or_else(OnceLock::new, |_| ().into());
                // Whoever accepted it had checked it; it is checked anew where it is gone on with.
                let mut accepted = known.unwrap_or_else(|| Engine::unchecked(Arc::clone(plan)));
                accepted.in_journal = true;
                self.engine = Some(accepted);
            }
            record => {
                if let Record::OpStarted { op, .. } = record {
                    self.next_op = self.next_op.max(op.0.saturating_add(1));
                }
                let Some(engine) = &mut self.engine else {
                    return Err(contradiction("no plan was accepted before it".to_owned()));
                };
                engine.fold(record).map_err(contradiction)?;
                engine.todo.clear();
            }
        }
        Ok(())
    }

    /// What the next plan is expected to be, by an engine that hasn't begun: where the very plan that it has is
    /// found accepted, in this process, it isn't checked once more.
    pub fn expect(&mut self, engine: &Engine) {
        self.fresh = (!engine.begun).then(|| engine.clone());
    }

    /// The plan that was accepted last.
    pub fn plan(&self) -> Option<&Arc<Plan>> {
        self.engine.as_ref().map(Engine::plan)
    }

    /// An engine that goes on with that plan, as [`Engine::resume`] gives it.
    ///
    /// # Errors
    /// When no plan was accepted, or the last one is refused.
    pub fn engine(&self) -> Result<Engine, ResumeError> {
        let mut engine = self.engine.clone().ok_or(ResumeError::NoPlan)?;
        if self.good.get().is_none() {
            Engine::checked(&engine.plan)?;
            self.good.get_or_init(|| ());
        }
        engine.next_op = self.next_op;
        Ok(engine)
    }
}

impl Engine {
    /// An engine that goes on with the plan that the journal's last `PlanAccepted` holds. It takes
    /// the whole journal, the oldest entry first.
    ///
    /// Operations that the journal shows begun and not ended are closed as orphaned when the
    /// engine gets [`crate::Event::Begin`], and their steps are probed before anything else.
    ///
    /// # Errors
    /// When no plan was accepted, when the plan is refused, or when the journal contradicts itself.
    pub fn resume<E: Borrow<Entry>>(
        entries: impl IntoIterator<Item = E>,
    ) -> Result<Self, ResumeError> {
        let mut resumption = Resumption::default();
        for entry in entries {
            resumption.apply(entry.borrow())?;
        }
        resumption.engine()
    }

    fn fold(&mut self, record: &Record) -> Result<(), String> {
        match record {
            Record::Opened { .. }
            | Record::PlanAccepted { .. }
            | Record::RolloutStopped { .. }
            | Record::RunEnded { .. }
            | Record::Quarantined { .. } => Ok(()),
            Record::RunStarted { plan, .. } => {
                if *plan != self.plan.id {
                    return Err(format!(
                        "it starts a run of plan {plan}, which isn't accepted"
                    ));
                }
                self.run_started();
                Ok(())
            }
            Record::OpStarted { op, step, work, .. } => {
                let n = self.at(*step)?;
                let running = RunningOp {
                    op: *op,
                    step: *step,
                    work: *work,
                };
                let node = self.nodes.get_mut(n).ok_or("no such machine")?;
                if let Some(other) = node.progress.running {
                    return Err(format!("{op} starts while {} runs", other.op));
                }
                if node.progress.failed.is_some() {
                    return Err(format!("{op} starts on a machine that has failed"));
                }
                node.progress.op_started(running);
                Ok(())
            }
            Record::OpEnded { op, step, outcome } => {
                let n = self.at(*step)?;
                if self.running_op(n) != Some(*op) {
                    return Err(format!("{op} ends, and doesn't run"));
                }
                self.op_ended(n, *step, outcome);
                Ok(())
            }
            Record::NodeRestarted {
                node, from, count, ..
            } => {
                let n = self.named(node)?;
                let place = self.shape.place(*from);
                let (owner, position) = place.ok_or("it names an unknown step")?;
                let cursor = self.nodes.get(n).map(|node| node.progress.cursor);
                if owner != n || cursor.is_none_or(|cursor| position > cursor) {
                    return Err(format!("{node} can't begin again at step {}", from.0));
                }
                self.restarted(n, *from, *count);
                Ok(())
            }
            Record::NodeFailed { node, failure, .. } => {
                let n = self.named(node)?;
                if let Some(node) = self.nodes.get_mut(n) {
                    node.progress.failed(failure.kind);
                }
                Ok(())
            }
        }
    }

    fn named(&self, name: &NodeName) -> Result<NodeIndex, String> {
        self.nodes
            .binary_search_by(|node| node.name.cmp(name))
            .map_err(|_| format!("the plan has no machine {name}"))
    }

    fn running_op(&self, n: NodeIndex) -> Option<OpId> {
        Some(self.nodes.get(n)?.progress.running?.op)
    }

    /// The machine of a step, whose turn it must be.
    fn at(&self, step: StepId) -> Result<NodeIndex, String> {
        let unknown = || format!("the plan has no step {}", step.0);
        let (n, position) = self.shape.place(step).ok_or_else(unknown)?;
        let node = self.nodes.get(n).ok_or_else(unknown)?;
        if node.progress.cursor == position {
            Ok(n)
        } else {
            Err(format!(
                "it isn't {}'s turn to do step {}",
                node.name, step.0
            ))
        }
    }
}
