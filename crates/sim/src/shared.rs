//! What the simulated world and the simulated journal both have a part in.

use std::{cell::RefCell, rc::Rc};

use undercroft_engine::{Journal, JournalError};
use undercroft_model::{Entry, OpId, Outcome, Record, StepId, Work};
use undercroft_simkit::Trace;

use crate::{
    checkers::Checkers,
    faults::{Dice, FaultKind},
    journal::SimJournal,
};

/// How often the controller dies in one rehearsal: more than any person would start it again.
const KILLS_MAX: u32 = 60;

/// One operation's time, for the report.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) step: StepId,
    pub(crate) node: u32,
    pub(crate) work: Work,
    pub(crate) start_ms: u64,
    pub(crate) end_ms: u64,
    pub(crate) done: bool,
    /// Which run it belongs to, from 0.
    pub(crate) run: u32,
}

/// The parts that world, journal and runner share. All of it is on one thread.
pub(crate) struct Shared {
    pub(crate) dice: Dice,
    pub(crate) checkers: Checkers,
    pub(crate) trace: Trace,
    pub(crate) journal: SimJournal,
    /// How often the controller has died.
    pub(crate) kills: u32,
    /// Set when the controller has died; nothing that it asks for happens any more.
    pub(crate) killed: bool,
    pub(crate) spans: Vec<Span>,
    open_spans: std::collections::BTreeMap<OpId, usize>,
    pub(crate) run: u32,
    pub(crate) now_ms: u64,
    /// Records whose machine-readable gist the report needs: failures and restarts.
    pub(crate) notable: Vec<(u64, Record)>,
}

pub(crate) type SharedRef = Rc<RefCell<Shared>>;

impl Shared {
    pub(crate) fn new(dice: Dice, checkers: Checkers, trace: Trace, journal: SimJournal) -> Self {
        Self {
            dice,
            checkers,
            trace,
            journal,
            kills: 0,
            killed: false,
            spans: Vec::new(),
            open_spans: std::collections::BTreeMap::new(),
            run: 0,
            now_ms: 0,
            notable: Vec::new(),
        }
    }

    pub(crate) fn at(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        self.checkers.at(now_ms);
    }

    /// The operation has been started in the world.
    pub(crate) fn open_span(&mut self, op: OpId, step: StepId, node: u32, work: Work) {
        self.open_spans.insert(op, self.spans.len());
        self.spans.push(Span {
            step,
            node,
            work,
            start_ms: self.now_ms,
            end_ms: self.now_ms,
            done: false,
            run: self.run,
        });
    }

    fn close_span(&mut self, op: OpId, done: bool) {
        let span = self
            .open_spans
            .remove(&op)
            .and_then(|place| self.spans.get_mut(place));
        if let Some(span) = span {
            span.end_ms = self.now_ms;
            span.done = done;
        }
    }

    fn on_entry(&mut self, entry: &Entry) {
        self.checkers.on_entry(entry);
        match &entry.record {
            Record::OpEnded { op, outcome, .. } => {
                self.close_span(*op, matches!(outcome, Outcome::Done { .. }));
                if !matches!(outcome, Outcome::Done { .. }) {
                    self.trace.note(self.now_ms, "journal", || {
                        format!("{op} ended: {outcome:?}")
                    });
                }
            }
            Record::NodeRestarted { .. }
            | Record::NodeFailed { .. }
            | Record::Quarantined { .. }
            | Record::RolloutStopped { .. }
            | Record::RunEnded { .. } => {
                self.notable.push((self.now_ms, entry.record.clone()));
                self.trace
                    .note(self.now_ms, "journal", || format!("{:?}", entry.record));
            }
            _ => {}
        }
    }

    fn kill(&mut self, how: &str) {
        self.killed = true;
        self.kills += 1;
        self.trace
            .note(self.now_ms, "controller", || format!("killed {how}"));
    }

    /// Kills the controller, if the dice say so.
    pub(crate) fn maybe_kill(&mut self, how: &str) {
        let now_ms = self.now_ms;
        if !self.killed && self.dies(now_ms) {
            self.kill(how);
        }
    }

    fn dies(&mut self, now_ms: u64) -> bool {
        self.kills < KILLS_MAX && self.dice.hit(now_ms, None, FaultKind::ControllerKilled)
    }
}

/// The engine's hold on the simulated journal.
pub(crate) struct JournalHandle(pub(crate) SharedRef);

impl Journal for JournalHandle {
    fn append(&mut self, wall_ms: u64, records: Vec<Record>) -> Result<Vec<Entry>, JournalError> {
        let mut shared = self.0.borrow_mut();
        let shared = &mut *shared;
        let killed = || JournalError::Write("the controller was killed".to_owned());
        if shared.killed {
            return Err(killed());
        }
        let now_ms = shared.now_ms;
        if shared.dies(now_ms) {
            if shared.dice.rng().chance(512) {
                shared.kill("before it could write its journal");
            } else {
                let part = shared.dice.rng().below(1024);
                shared.journal.tear(wall_ms, records, part);
                shared.kill("while it wrote its journal");
            }
            return Err(killed());
        }
        let entries = shared.journal.append(wall_ms, records);
        for entry in &entries {
            shared.on_entry(entry);
        }
        shared.maybe_kill("after it had written its journal");
        Ok(entries)
    }
}
