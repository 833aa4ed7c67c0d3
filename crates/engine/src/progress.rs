//! What the records say of one machine. Live and after a crash, only these functions change it.

use std::sync::Arc;

use undercroft_model::{
    Action, Failure, FailureKind, InstallerReport, NodeFacts, OpId, Outcome, Step, StepId, Work,
};

/// How many earlier boots of a machine's installer are remembered, to tell a late report from a
/// new one. It is above any sensible number of restarts.
const PAST_BOOTS_MAX: usize = 32;

/// The longest that finding out whether a step is done may take, in milliseconds. A probe reads a
/// few files over SSH; two minutes are enough for that on an emulated machine under load.
pub const PROBE_TIMEOUT_MS_MAX: u64 = 120_000;

/// How long one operation of a step may take, in milliseconds.
pub(crate) fn timeout_ms(step: &Step, work: Work) -> u64 {
    match work {
        Work::Act => step.timeout_ms,
        Work::Probe => step.timeout_ms.min(PROBE_TIMEOUT_MS_MAX),
    }
}

/// An operation under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunningOp {
    pub(crate) op: OpId,
    pub(crate) step: StepId,
    pub(crate) work: Work,
}

/// How far a machine has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeProgress {
    /// The place of the current step in the machine's steps; their number when all are done.
    pub(crate) cursor: usize,
    /// What its evidence has shown.
    pub(crate) facts: Arc<NodeFacts>,
    /// Whether any operation was ever started on it in this plan.
    pub(crate) begun: bool,
    /// The operation under way.
    pub(crate) running: Option<RunningOp>,
    /// Tries of the current step in this run. An orphaned one doesn't count.
    pub(crate) attempt: u32,
    /// Probes in a row that could not tell.
    pub(crate) inconclusive_probes: u32,
    /// What comes next for the current step.
    pub(crate) next: Work,
    /// Steps before this place were done once since the machine became a member, and are looked at
    /// before they are done again.
    pub(crate) look_before: usize,
    /// Why the current step isn't done yet.
    pub(crate) last_failure: Option<Failure>,
    /// Restarts in this run.
    pub(crate) restarts: u32,
    /// How its part of the plan has ended, if it has without success.
    pub(crate) failed: Option<FailureKind>,
    /// Boot ids of its installer that no step stands on any more, the latest last.
    pub(crate) past_boots: Vec<String>,
    /// Reports that were quarantined in this run.
    pub(crate) quarantined: u32,
    /// Whether it may hold a part of the cluster: it was told to join once in this plan, whatever came of it.
    pub(crate) told_to_join: bool,
}

/// What a step's first operation is.
pub(crate) fn first_work(step: Option<&Step>) -> Work {
    match step {
        Some(step) if step.probe_first => Work::Probe,
        _ => Work::Act,
    }
}

impl NodeProgress {
    pub(crate) fn new(first: Option<&Step>) -> Self {
        Self {
            cursor: 0,
            facts: Arc::default(),
            begun: false,
            running: None,
            attempt: 0,
            inconclusive_probes: 0,
            next: first_work(first),
            look_before: 0,
            last_failure: None,
            restarts: 0,
            failed: None,
            past_boots: Vec::new(),
            quarantined: 0,
            told_to_join: false,
        }
    }

    /// `RunStarted`: fresh tries, except after a refusal.
    pub(crate) fn run_started(&mut self) {
        self.attempt = 0;
        self.inconclusive_probes = 0;
        self.restarts = 0;
        self.quarantined = 0;
        if self.failed != Some(FailureKind::Refused) {
            self.failed = None;
        }
        let refused = |f: &Failure| f.kind == FailureKind::Refused;
        if !self.last_failure.as_ref().is_some_and(refused) {
            self.last_failure = None;
        }
        if self.begun {
            self.next = Work::Probe;
        }
    }

    /// `OpStarted`.
    pub(crate) fn op_started(&mut self, running: RunningOp) {
        self.begun = true;
        self.running = Some(running);
        if running.work == Work::Act {
            self.attempt = self.attempt.saturating_add(1);
        }
    }

    /// `OpEnded`, of the operation under way. `after` is the step that follows.
    pub(crate) fn op_ended(&mut self, step: &Step, outcome: &Outcome, after: Option<&Step>) {
        let work = self.running.take().map_or(Work::Probe, |r| r.work);
        let done = matches!(outcome, Outcome::Done { .. });
        self.told_to_join |= step.action.makes_member() && (done || work == Work::Act);
        match outcome {
            Outcome::Done { evidence } => {
                let outlived = Arc::make_mut(&mut self.facts).learn(evidence);
                self.outlived(outlived);
                self.cursor = self.cursor.saturating_add(1);
                self.next = if self.cursor < self.look_before {
                    Work::Probe
                } else {
                    first_work(after)
                };
                self.attempt = 0;
                self.inconclusive_probes = 0;
                self.last_failure = None;
            }
            Outcome::NotDone => {
                self.next = Work::Act;
                self.inconclusive_probes = 0;
            }
            Outcome::Failed { failure } => {
                let again = failure.kind == FailureKind::Transient
                    && self.attempt < step.retry.attempts_max;
                match work {
                    Work::Act if again => self.next = Work::Act,
                    Work::Act => self.next = Work::Probe,
                    Work::Probe => self.could_not_tell(),
                }
                self.last_failure = Some(failure.clone());
            }
            Outcome::TimedOut => {
                match work {
                    Work::Act => self.next = Work::Probe,
                    Work::Probe => self.could_not_tell(),
                }
                self.last_failure = Some(timed_out(step, work));
            }
            Outcome::Orphaned => {
                if work == Work::Act {
                    self.attempt = self.attempt.saturating_sub(1);
                }
                self.next = Work::Probe;
            }
        }
    }

    fn could_not_tell(&mut self) {
        self.inconclusive_probes = self.inconclusive_probes.saturating_add(1);
        self.next = Work::Probe;
    }

    /// `NodeRestarted`: everything from `from` on is undone, and what it has shown is forgotten. An
    /// installer's steps are done again. A member of the cluster has lost one thing of many, and a
    /// look at each step finds which.
    pub(crate) fn restarted(&mut self, cursor: usize, from: &Step, count: u32) {
        let member = from.action.is_of_cluster();
        self.look_before = if member {
            self.look_before.max(self.cursor.saturating_add(1))
        } else {
            0
        };
        self.cursor = cursor;
        self.running = None;
        self.attempt = 0;
        self.inconclusive_probes = 0;
        self.last_failure = None;
        self.next = if member { Work::Probe } else { Work::Act };
        self.restarts = count;
        let outlived = Arc::make_mut(&mut self.facts).begin_again(from);
        self.outlived(outlived);
    }

    /// `NodeFailed`.
    pub(crate) fn failed(&mut self, kind: FailureKind) {
        self.running = None;
        self.failed = Some(kind);
    }

    /// No step stands on the report any longer.
    fn outlived(&mut self, report: Option<InstallerReport>) {
        if let Some(report) = report {
            self.past_boots.retain(|boot| *boot != report.boot_id);
            if self.past_boots.len() >= PAST_BOOTS_MAX {
                self.past_boots.remove(0);
            }
            self.past_boots.push(report.boot_id);
        }
    }
}

fn timed_out(step: &Step, work: Work) -> Failure {
    let what = match work {
        Work::Act => step.action.verb(),
        Work::Probe => "the look whether it is done",
    };
    let seconds = timeout_ms(step, work).div_ceil(1000);
    let failure = Failure::new(
        FailureKind::Ambiguous,
        format!("{what} took longer than {seconds} s and was called off"),
    );
    match (&step.action, work) {
        (Action::Approve { .. }, Work::Act) => {
            failure.with_hint("compare the fingerprint on the machine's screen, then approve it")
        }
        (Action::NetworkBoot, Work::Act) => {
            failure.with_hint("ask `undercroft doctor` which packet of the network boot is missing")
        }
        _ => failure,
    }
}
