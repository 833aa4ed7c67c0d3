//! What a server knows of a job, and what is under way with it.

use super::{
    lender::Waiting,
    record::{Change, JobRecord, State},
    seam::{ANOTHER_MS_MAX, GRACE_MS, RETURN_REST_MS_MIN, Reply, Ticket},
};
use crate::ids::{DeviceName, Turn};

/// Who waits for a change, and for what answer.
#[derive(Debug, Clone)]
pub(super) enum Then {
    Nobody,
    Submitter(Reply),
    Assigned {
        device: DeviceName,
        waiting: Waiting,
        consent: u64,
    },
    Renewed {
        reply: Reply,
        turn: Turn,
    },
    Ended {
        reply: Reply,
        turn: Turn,
    },
}

/// What is under way with a job's record.
#[derive(Debug)]
pub(super) enum Doing {
    Storing {
        ticket: Ticket,
        next: Box<JobRecord>,
        then: Then,
    },
    /// It is being read, or is to be from that moment on.
    Loading { again_ms: Option<u64> },
}

#[derive(Debug)]
pub(super) struct Slot {
    /// What the store holds; `None` while it holds nothing yet.
    pub(super) record: Option<JobRecord>,
    pub(super) revision: Option<u64>,
    pub(super) doing: Option<Doing>,
    /// When its lease was taken or renewed, or when it was read.
    pub(super) renewed_ms: u64,
    /// It isn't handed out before.
    pub(super) not_before_ms: u64,
    /// How long it rests when it comes back the next time.
    pub(super) rest_ms: u64,
}

impl Slot {
    pub(super) fn new() -> Self {
        Self {
            record: None,
            revision: None,
            doing: None,
            renewed_ms: 0,
            not_before_ms: 0,
            rest_ms: RETURN_REST_MS_MIN,
        }
    }

    pub(super) fn is_loading(&self) -> bool {
        matches!(self.doing, Some(Doing::Loading { .. }))
    }

    pub(super) fn load_again_at(&mut self, at_ms: u64) {
        if let Some(Doing::Loading { again_ms }) = &mut self.doing {
            *again_ms = Some(at_ms);
        }
    }

    pub(super) fn take_due_load(&mut self, mono_ms: u64) -> bool {
        match &mut self.doing {
            Some(Doing::Loading { again_ms }) => again_ms.take_if(|at| *at <= mono_ms).is_some(),
            _ => false,
        }
    }

    /// When time changes something by itself.
    pub(super) fn deadline(&self, lease_ms: u64) -> Option<u64> {
        match &self.doing {
            Some(Doing::Loading { again_ms }) => *again_ms,
            Some(Doing::Storing { .. }) => None,
            None => self.ends(lease_ms).map(|(at_ms, _)| at_ms),
        }
    }

    /// When it can be handed out, if it rests until then.
    pub(super) fn rests_until(&self, now_ms: u64) -> Option<u64> {
        let record = self.at_rest()?;
        let rests = record.state == State::Queued && self.not_before_ms > now_ms;
        rests.then_some(self.not_before_ms)
    }

    /// When a wait of the job's ends by itself, and with what.
    pub(super) fn ends(&self, lease_ms: u64) -> Option<(u64, Change)> {
        let record = self.record.as_ref()?;
        let (after_ms, change) = match &record.state {
            State::Leased(_) => (lease_ms.saturating_add(GRACE_MS), Change::Expire),
            State::Queued if record.first().is_some() => (ANOTHER_MS_MAX, Change::NobodyElse),
            _ => return None,
        };
        Some((self.renewed_ms.saturating_add(after_ms), change))
    }

    /// The record, where nothing is under way with it.
    pub(super) fn at_rest(&self) -> Option<&JobRecord> {
        self.doing
            .is_none()
            .then_some(self.record.as_ref())
            .flatten()
    }
}
