//! What a server knows.

use std::collections::BTreeMap;

use super::{
    lender::Device,
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
    pub(super) devices: BTreeMap<DeviceName, Device>,
    pub(super) tickets: BTreeMap<Ticket, Key>,
    pub(super) next_ticket: u64,
}

impl<V> Server<V> {
    pub(super) fn ticket(&mut self, key: Key) -> Ticket {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.tickets.insert(ticket, key);
        ticket
    }
}
