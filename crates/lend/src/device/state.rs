//! What a device knows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{
    held::{Again, Held, Phase},
    seam::{CLOCK_MS_MAX, Effect, Settings, Ticket, UNBEGUN_REST_MS_MAX, UNBEGUN_REST_MS_MIN},
};
use crate::{
    consent::{Head, Ledger, Record, Said, Sign, Verify},
    ids::{JobId, Turn},
    offer::Used,
    wire::{Ended, Holding},
};

/// What a record is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Saying {
    /// The owner said so.
    Owner,
    /// A job begins when it is durable.
    Begin(Holding),
    /// Nothing is left of a job.
    Receipt(Holding),
}

/// A device that couldn't begin a job rests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unbegun {
    pub(super) why: String,
    pub(super) until_ms: u64,
    pub(super) rest_ms: u64,
}

impl Unbegun {
    /// One more, and a rest twice as long as the last one.
    pub(super) fn after(last: Option<&Self>, why: &str, now_ms: u64) -> Self {
        let rest_ms = last.map_or(UNBEGUN_REST_MS_MIN, |last| {
            last.rest_ms.saturating_mul(2).min(UNBEGUN_REST_MS_MAX)
        });
        Self {
            why: why.to_owned(),
            until_ms: now_ms.saturating_add(rest_ms),
            rest_ms,
        }
    }
}

/// A request for work that is under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) turn: Turn,
    pub(super) sent_ms: u64,
    /// Until when its answer is waited for.
    pub(super) until_ms: u64,
    /// Whether the device took work when it was sent.
    pub(super) takes_work: bool,
}

/// The request for work, and the numbers of all requests.
#[derive(Debug, Default)]
pub(super) struct Requests {
    pub(super) last: u64,
    pub(super) asked: Option<Asked>,
    pub(super) again: Again,
    /// Whether the last one was answered.
    pub(super) is_answered: bool,
}

impl Requests {
    pub(super) fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    pub(super) fn deadline(&self) -> Option<u64> {
        Some(match self.asked {
            Some(asked) => asked.until_ms,
            None => self.again.at_ms,
        })
    }
}

/// The device.
#[derive(Debug)]
pub struct Device<S> {
    pub(super) settings: Settings,
    pub(super) sign: S,
    /// Which start this is; it isn't spoken of before it is durable.
    pub(super) start: u64,
    pub(super) started: Option<Ticket>,
    pub(super) ledger: Ledger,
    /// What the server is known to have of it.
    pub(super) have: Option<Head>,
    pub(super) saying: Option<(Ticket, Record, Saying)>,
    pub(super) to_say: VecDeque<(Said, Saying)>,
    pub(super) say_again_ms: Option<u64>,
    pub(super) held: BTreeMap<JobId, Held>,
    pub(super) why_not: BTreeSet<String>,
    pub(super) is_paused: bool,
    /// The owner has revoked, whether the ledger says so yet or not.
    pub(super) is_revoked: bool,
    /// How far the clocks are apart, as last seen.
    pub(super) is_clock_far_off: bool,
    /// Until when no work is taken because an entry could not be written.
    pub(super) disk_rests_until_ms: Option<u64>,
    /// The job that could not be begun last, until one has come to an end of its own.
    pub(super) unbegun: Option<Unbegun>,
    /// When the clock that never goes back was last looked at.
    pub(super) seen_ms: u64,
    /// Why the server gives no work.
    pub(super) refused: Option<String>,
    pub(super) requests: Requests,
    pub(super) next_ticket: u64,
}

impl<S: Sign + Verify> Device<S> {
    /// The jobs that the device holds.
    pub fn held(&self) -> impl Iterator<Item = &Held> {
        self.held.values()
    }

    /// The ledger, as far as it is durable.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Whether the owner's revocation isn't in the ledger yet, or something of a job is left.
    pub fn is_revoking(&self) -> bool {
        let is_left = |held: &Held| !matches!(held.phase, Phase::Reporting { is_clean: true, .. });
        self.is_revoked && (self.ledger.consent().is_some() || self.held.values().any(is_left))
    }

    /// Why it takes no work now; none where it does.
    pub fn why_not(&self) -> Vec<String> {
        let mut why: Vec<String> = self.why_not.iter().cloned().collect();
        if self.is_revoked || self.ledger.consent().is_none() {
            why.push("its owner lends nothing".to_owned());
        }
        if self.is_paused {
            why.push("its owner has paused it".to_owned());
        }
        if self.is_clock_far_off {
            let limit_s = CLOCK_MS_MAX / 1000;
            why.push(format!(
                "its clock is more than {limit_s} s from the server's"
            ));
        }
        if self.disk_rests_until_ms.is_some() {
            why.push("its disk can't be written".to_owned());
        }
        let unbegun = self.resting().map(|unbegun| &unbegun.why);
        why.extend(unbegun.map(|why| format!("it could not begin a job: {why}")));
        why.extend(self.refused.iter().cloned());
        why
    }

    /// The job that could not be begun, while the device rests for it.
    pub(super) fn resting(&self) -> Option<&Unbegun> {
        let unbegun = self.unbegun.as_ref();
        unbegun.filter(|unbegun| self.seen_ms < unbegun.until_ms)
    }

    pub(super) fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    pub(super) fn is_ready(&self) -> bool {
        self.started.is_none()
    }

    /// What its jobs use. One that is only wiped any more uses nothing: the server has its end, and hands out the next.
    pub(super) fn used(&self) -> Used {
        let is_over = |held: &Held| {
            let is_clean = matches!(held.phase, Phase::Reporting { is_clean: true, .. });
            is_clean || matches!(held.phase, Phase::Wiping { .. } | Phase::Receipt { .. })
        };
        let held = self.held.values().filter(|held| !is_over(held));
        let assignments = held.filter_map(Held::assignment);
        assignments.fold(Used::default(), |used, a| used.with(&a.job.limits))
    }

    /// Kills what runs of a job, or lets go of what was never begun.
    pub(super) fn kill(held: &mut Held, ended: Ended, effects: &mut Vec<Effect>) {
        if let Phase::Running { .. } = held.phase {
            effects.push(Effect::Kill(held.holding.clone()));
            held.phase = Phase::Killing { ended };
        }
    }

    pub(super) fn turn(&mut self) -> Turn {
        Turn {
            start: self.start,
            request: self.requests.number(),
        }
    }
}
