//! A job that a device holds.

use super::seam::{Effect, RETRY_MS_MAX, RETRY_MS_MIN, Ticket};
use crate::{
    consent::Gone,
    ids::Turn,
    wire::{Assignment, Ended, Holding},
};

/// How far a job has come on a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// The record that says that it begins isn't durable yet.
    Beginning,
    /// It runs, or is frozen. How long it may is counted where it runs: not while it is fetched, frozen, or the machine
    /// sleeps.
    Running {
        /// Since when it is frozen.
        frozen_ms: Option<u64>,
    },
    /// Its processes are to go.
    Killing {
        /// What is said of it then.
        ended: Ended,
    },
    /// How it ended isn't durable yet.
    Keeping {
        /// What the answer names.
        ticket: Ticket,
        /// How.
        ended: Ended,
    },
    /// The server is to know how it ended.
    Reporting {
        /// How.
        ended: Ended,
        /// Whether nothing is left of it here.
        is_clean: bool,
        /// The request that is under way.
        asked: Option<(Turn, u64)>,
        /// When it is said again, and how long after that.
        again: Again,
    },
    /// Its files are to go.
    Wiping {
        /// How its processes went.
        gone: Gone,
        /// What the server is to know afterwards.
        report: Option<Ended>,
    },
    /// The receipt isn't durable yet.
    Receipt {
        /// What the server is to know afterwards.
        report: Option<Ended>,
    },
}

impl Phase {
    pub(super) fn reporting(ended: Ended, is_clean: bool) -> Self {
        Self::Reporting {
            ended,
            is_clean,
            asked: None,
            again: Again::default(),
        }
    }
}

/// When something is tried again: after a rest that doubles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Again {
    pub(super) at_ms: u64,
    pub(super) rest_ms: u64,
}

impl Default for Again {
    fn default() -> Self {
        Self {
            at_ms: 0,
            rest_ms: RETRY_MS_MIN,
        }
    }
}

impl Again {
    /// It was tried in vain.
    pub(super) fn later(&mut self, now_ms: u64) {
        self.at_ms = now_ms.saturating_add(self.rest_ms);
        self.rest_ms = self.rest_ms.saturating_mul(2).min(RETRY_MS_MAX);
    }

    /// It was answered, and is to be tried after that time.
    pub(super) fn after(&mut self, now_ms: u64, rest_ms: u64) {
        *self = Self {
            at_ms: now_ms.saturating_add(rest_ms),
            ..Self::default()
        };
    }
}

/// A job that a device holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Which, and which time that it was handed out.
    pub holding: Holding,
    /// How far it has come.
    pub phase: Phase,
    assignment: Option<Box<Assignment>>,
    /// Until when it is this device's, in milliseconds of the clock that never goes back.
    pub(super) lease_until_ms: u64,
    /// The renewal that is under way: which request, when it was sent, and until when its answer is waited for.
    pub(super) beating: Option<(Turn, u64, u64)>,
    pub(super) beat_again: Again,
}

impl Held {
    pub(super) fn assigned(
        assignment: Box<Assignment>,
        lease_until_ms: u64,
        beat_at_ms: u64,
    ) -> Self {
        Self {
            holding: Holding {
                job: assignment.job.id.clone(),
                epoch: assignment.epoch,
            },
            phase: Phase::Beginning,
            assignment: Some(assignment),
            lease_until_ms,
            beating: None,
            beat_again: Again {
                at_ms: beat_at_ms,
                ..Again::default()
            },
        }
    }

    /// One of an earlier start. Nobody knows how long its lease is good; its processes aren't there any more.
    pub(super) fn restored(holding: Holding, phase: Phase, now_ms: u64) -> Self {
        Self {
            holding,
            phase,
            assignment: None,
            lease_until_ms: now_ms,
            beating: None,
            beat_again: Again::default(),
        }
    }

    /// What was assigned; `None` for one of an earlier start.
    pub fn assignment(&self) -> Option<&Assignment> {
        self.assignment.as_deref()
    }

    /// Its processes are gone, and its files are to go.
    pub(super) fn wipe(&mut self, gone: Gone, report: Option<Ended>, effects: &mut Vec<Effect>) {
        self.phase = Phase::Wiping { gone, report };
        effects.push(Effect::Wipe(self.holding.clone()));
    }

    /// Whether its lease is renewed: as long as something may come of it.
    pub(super) fn is_renewed(&self) -> bool {
        match &self.phase {
            Phase::Beginning | Phase::Running { .. } | Phase::Keeping { .. } => true,
            Phase::Reporting { ended, .. } => {
                matches!(ended, Ended::Done { .. } | Ended::Failed { .. })
            }
            Phase::Killing { .. } | Phase::Wiping { .. } | Phase::Receipt { .. } => false,
        }
    }

    /// Until when it may stay frozen; for ever where it isn't.
    pub(super) fn is_frozen_until(&self, pause_ms: u64) -> u64 {
        match self.phase {
            Phase::Running {
                frozen_ms: Some(at_ms),
                ..
            } => at_ms.saturating_add(pause_ms),
            _ => u64::MAX,
        }
    }

    pub(super) fn deadline(&self, pause_ms: u64) -> Option<u64> {
        let mut all = Vec::new();
        if let Phase::Running { .. } = self.phase {
            all.extend([self.lease_until_ms, self.is_frozen_until(pause_ms)]);
        }
        if self.is_renewed() {
            all.push(match self.beating {
                Some((_, _, until_ms)) => until_ms,
                None => self.beat_again.at_ms,
            });
        }
        if let Phase::Reporting { asked, again, .. } = &self.phase {
            all.push(match asked {
                Some((_, until_ms)) => *until_ms,
                None => again.at_ms,
            });
        }
        all.into_iter().min()
    }
}
