//! What a device makes durable: that it began, records of its ledger, and how jobs ended.

use undercroft_model::Now;

use super::{
    held::{Held, Phase},
    seam::{DISK_REST_MS, Effect, Entry, LEASE_LEFT_MS_MIN, RETRY_MS_MIN, Ticket},
    state::{Device, Saying},
};
use crate::{
    consent::{Gone, Said, Sign, Verify},
    wire::{Ended, Holding},
};

impl<S: Sign + Verify> Device<S> {
    /// Has the next record made durable, one at a time: each names the one before it.
    pub(super) fn say_next(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.saying.is_some() || !self.is_ready() {
            return;
        }
        if self.say_again_ms.is_some_and(|at_ms| now.mono_ms < at_ms) {
            return;
        }
        self.say_again_ms = None;
        let (said, saying) = loop {
            let Some((said, saying)) = self.to_say.pop_front() else {
                return;
            };
            match (&said, &saying) {
                // The owner has said something else since the job came.
                (Said::Started { consent, .. }, Saying::Begin(holding))
                    if !self.lends_under(*consent, now) =>
                {
                    let why = "its owner lends otherwise by now".to_owned();
                    self.never_begun(&holding.clone(), Ended::Returned { why });
                }
                _ => break (said, saying),
            }
        };
        let record = self.ledger.next(now.wall_ms, said, &self.sign);
        let ticket = self.ticket();
        effects.push(Effect::Keep {
            ticket,
            entry: Box::new(Entry::Record(record.clone())),
        });
        self.saying = Some((ticket, record, saying));
    }

    /// Whether that consent is the one that holds.
    fn lends_under(&self, consent: u64, now: Now) -> bool {
        let held = self.ledger.consent();
        held.is_some_and(|held| held.number == consent && held.is_good_at(now.wall_ms))
    }

    pub(super) fn kept(&mut self, now: Now, ticket: Ticket, effects: &mut Vec<Effect>) {
        if self.started == Some(ticket) {
            self.started = None;
            return;
        }
        if let Some((of, record, saying)) = self.saying.take() {
            if of == ticket {
                self.said(now, &record, saying, effects);
                return;
            }
            self.saying = Some((of, record, saying));
        }
        self.kept_end(ticket);
    }

    /// How a job ended is durable, or can't be made so: the server is to know in any case.
    fn kept_end(&mut self, ticket: Ticket) {
        for held in self.held.values_mut() {
            if let Phase::Keeping { ticket: of, ended } = &held.phase
                && *of == ticket
            {
                held.phase = Phase::reporting(ended.clone(), false);
            }
        }
    }

    pub(super) fn not_kept(&mut self, now: Now, ticket: Ticket, effects: &mut Vec<Effect>) {
        if self.started == Some(ticket) {
            // Without it nothing may be asked; it is the disk that has to come back.
            let start = self.start;
            effects.push(Effect::Keep {
                ticket,
                entry: Box::new(Entry::Began { start }),
            });
            return;
        }
        match self.saying.take() {
            Some((of, record, saying)) if of == ticket => match saying {
                Saying::Begin(holding) => {
                    let why = "its disk can't be written".to_owned();
                    self.disk_rests_until_ms = Some(now.mono_ms.saturating_add(DISK_REST_MS));
                    self.never_begun(&holding, Ended::Returned { why });
                }
                saying => {
                    self.to_say.push_front((record.claim.said, saying));
                    self.say_again_ms = Some(now.mono_ms.saturating_add(RETRY_MS_MIN));
                    if self.is_revoked {
                        self.overrule();
                    }
                }
            },
            other => {
                self.saying = other;
                self.kept_end(ticket);
            }
        }
    }

    /// A job that was to begin is given back, and no record speaks of it.
    pub(super) fn never_begun(&mut self, holding: &Holding, ended: Ended) {
        if let Some(held) = self.held.get_mut(&holding.job) {
            held.phase = Phase::reporting(ended, true);
        }
    }

    fn said(
        &mut self,
        now: Now,
        record: &crate::consent::Record,
        saying: Saying,
        effects: &mut Vec<Effect>,
    ) {
        // The device wrote it from this very ledger.
        let pushed = self.ledger.push(record, &self.settings.keys, &self.sign);
        debug_assert!(pushed.is_ok(), "{pushed:?}");
        match saying {
            Saying::Owner => self.ask_soon(now),
            Saying::Begin(holding) => self.begin(now, &holding, effects),
            Saying::Receipt(holding) => {
                let held = self.held.get_mut(&holding.job);
                let report = match held.as_ref().map(|held| &held.phase) {
                    Some(Phase::Receipt { report }) => report.clone(),
                    _ => None,
                };
                match (held, report) {
                    (Some(held), Some(ended)) => held.phase = Phase::reporting(ended, true),
                    _ => {
                        self.held.remove(&holding.job);
                    }
                }
            }
        }
    }

    /// A job runs, if all is as it was when its record was written.
    fn begin(&mut self, now: Now, holding: &Holding, effects: &mut Vec<Effect>) {
        let why_not = self.why_not();
        let consent = self.ledger.consent();
        let lends = !self.is_revoked && consent.is_some_and(|c| c.is_good_at(now.wall_ms));
        let Some(held) = self.held.get_mut(&holding.job) else {
            return;
        };
        let left_ms = held.lease_until_ms.saturating_sub(now.mono_ms);
        let reason = if !lends {
            Some("its owner lends nothing any more".to_owned())
        } else if left_ms < LEASE_LEFT_MS_MIN {
            Some("its lease was nearly over before it began".to_owned())
        } else {
            why_not.into_iter().next()
        };
        match (reason, held.assignment()) {
            (None, Some(assignment)) => {
                effects.push(Effect::Run(Box::new(assignment.clone())));
                held.phase = Phase::Running { frozen_ms: None };
            }
            (reason, _) => {
                let why = reason.unwrap_or_default();
                held.wipe(Gone::NeverStarted, Some(Ended::Returned { why }), effects);
            }
        }
    }

    /// Takes a job: it begins when its record is durable.
    pub(super) fn take(&mut self, held: Held, consent: u64) {
        let holding = held.holding.clone();
        let said = Said::Started {
            job: holding.job.clone(),
            epoch: holding.epoch,
            consent,
        };
        self.to_say
            .push_back((said, Saying::Begin(holding.clone())));
        self.held.insert(holding.job, held);
    }
}
