//! What a server knows.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    lender::Device,
    record::JobRecord,
    seam::{Key, Settings, Ticket},
    slot::Slot,
};
use crate::ids::{DeviceName, JobId};

/// The server.
#[derive(Debug)]
pub struct Server<V> {
    pub(super) settings: Settings,
    pub(super) verify: V,
    pub(super) jobs: BTreeMap<JobId, Slot>,
    /// Those that aren't known to be over, or with which something is under way: the others are looked at only when
    /// somebody asks for them.
    pub(super) open: BTreeSet<JobId>,
    pub(super) devices: BTreeMap<DeviceName, Device>,
    pub(super) tickets: BTreeMap<Ticket, Key>,
    pub(super) next_ticket: u64,
}

impl<V> Server<V> {
    /// The jobs that may still change by themselves.
    pub(super) fn open_jobs(&self) -> impl Iterator<Item = (&JobId, &Slot)> {
        self.open
            .iter()
            .filter_map(|id| self.jobs.get_key_value(id))
    }

    /// Notes whether anything can still happen to a job.
    pub(super) fn mark(&mut self, id: &JobId) {
        let is_over = |slot: &Slot| slot.at_rest().is_some_and(JobRecord::is_over);
        match self.jobs.get(id) {
            Some(slot) if !is_over(slot) => {
                if !self.open.contains(id) {
                    self.open.insert(id.clone());
                }
            }
            _ => {
                self.open.remove(id);
            }
        }
    }

    pub(super) fn ticket(&mut self, key: Key) -> Ticket {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.tickets.insert(ticket, key);
        ticket
    }
}
