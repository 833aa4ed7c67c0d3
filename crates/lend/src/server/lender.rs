//! What a server knows of a device: its ledger, and whether it waits for work.

use undercroft_model::Now;

use super::seam::{Answer, Effect, Key, RELOAD_MS, Reply, Ticket, WANT_MS_MAX};
use crate::{
    consent::{Keys, Ledger, Verify},
    ids::{DeviceName, Turn},
    wire::{RECORDS_MAX, Want, WantAnswer, WantSay},
};

/// A request for work that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) reply: Reply,
    pub(super) turn: Turn,
    pub(super) since_ms: u64,
}

impl Waiting {
    fn until_ms(&self) -> u64 {
        self.since_ms.saturating_add(WANT_MS_MAX)
    }
}

/// What is under way with a device's ledger.
#[derive(Debug)]
pub(super) enum Doing {
    Storing {
        ticket: Ticket,
        next: Box<Ledger>,
        reply: Reply,
        turn: Turn,
    },
    /// It is being read, or is to be from that moment on.
    Loading { again_ms: Option<u64> },
}

#[derive(Debug)]
pub(super) struct Device {
    pub(super) keys: Keys,
    pub(super) ledger: Ledger,
    pub(super) revision: Option<u64>,
    pub(super) doing: Option<Doing>,
    pub(super) waiting: Option<Waiting>,
    pub(super) last_turn: Turn,
}

impl Device {
    pub(super) fn new(name: DeviceName, keys: Keys) -> Self {
        Self {
            keys,
            ledger: Ledger::new(name),
            revision: None,
            doing: None,
            waiting: None,
            last_turn: Turn::default(),
        }
    }

    /// Takes what the store holds, or held a moment ago.
    pub(super) fn read(&mut self, ledger: Ledger, revision: Option<u64>, now: Now) {
        if matches!(self.doing, Some(Doing::Storing { .. })) {
            return;
        }
        // A server of the store that lags behind has answered. Nothing at all is there only when it was taken out.
        if revision.is_some() && revision < self.revision {
            self.load_again_at(now.mono_ms.saturating_add(RELOAD_MS));
            return;
        }
        if revision.is_none() && !matches!(self.doing, Some(Doing::Loading { .. })) {
            return;
        }
        // Whoever enrolled anew begins another ledger. The earlier one's records stay where they are.
        self.ledger = match ledger.is_of(&self.keys) {
            true => ledger,
            false => Ledger::new(ledger.device().clone()),
        };
        self.revision = revision;
        self.doing = None;
    }

    pub(super) fn load_again_at(&mut self, at_ms: u64) {
        if let Some(Doing::Loading { again_ms }) = &mut self.doing {
            *again_ms = Some(at_ms);
        }
    }

    pub(super) fn deadline(&self) -> Option<u64> {
        let waiting = self.waiting.as_ref().map(Waiting::until_ms);
        let loading = match &self.doing {
            Some(Doing::Loading { again_ms }) => *again_ms,
            _ => None,
        };
        waiting.into_iter().chain(loading).min()
    }

    pub(super) fn pass_time(&mut self, name: &DeviceName, now: Now, effects: &mut Vec<Effect>) {
        if let Some(waiting) = self.waiting.take_if(|w| w.until_ms() <= now.mono_ms) {
            let say = WantSay::Nothing { again_ms: 0 };
            effects.push(self.answer(waiting.reply, waiting.turn, now, say));
        }
        if let Some(Doing::Loading { again_ms }) = &mut self.doing
            && again_ms.take_if(|at| *at <= now.mono_ms).is_some()
        {
            effects.push(Effect::Load {
                key: Key::Ledger(name.clone()),
            });
        }
    }

    pub(super) fn answer(&self, reply: Reply, turn: Turn, now: Now, say: WantSay) -> Effect {
        Effect::Answer {
            reply,
            answer: Answer::Want(WantAnswer {
                turn,
                wall_ms: now.wall_ms,
                have: self.ledger.head(),
                say,
            }),
        }
    }

    /// The ledger with what a device says of it, and whether that is more than before; or why it isn't believed.
    pub(super) fn with_records(
        &self,
        want: &Want,
        verify: &impl Verify,
    ) -> Result<Option<Ledger>, String> {
        if want.records.len() > RECORDS_MAX {
            return Err(format!(
                "a request has at most {RECORDS_MAX} records of a ledger"
            ));
        }
        let mut next = self.ledger.clone();
        for record in &want.records {
            let is_known = next
                .head()
                .is_some_and(|head| record.claim.number <= head.number);
            if !is_known {
                next.push(record, &self.keys, verify)
                    .map_err(|e| e.to_string())?;
            }
        }
        match (want.head, next.head()) {
            (Some(says), Some(has)) if says.number == has.number && says.digest != has.digest => {
                return Err(format!(
                    "its ledger and the one that it has shown before differ at record {}",
                    has.number
                ));
            }
            (says, Some(has)) if says.is_none_or(|says| says.number < has.number) => {
                return Err(format!(
                    "its ledger ends before record {}, which it has shown already: a ledger is never cut",
                    has.number
                ));
            }
            _ => {}
        }
        Ok((next.head() != self.ledger.head()).then_some(next))
    }
}
