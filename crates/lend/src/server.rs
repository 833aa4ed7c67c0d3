//! The server: one state machine that admits, matches, renews and records. It does nothing itself; it is given
//! what happened and says what is to be done.
//!
//! Truth is what the store holds. A change is asked of the store with the revision that it was made from, and
//! answered to whoever waits when the store has said yes; on anything else the record is read anew first. So a
//! server that was started anew, or one that hasn't noticed yet that another has taken its place, can do no
//! harm. No wall clock decides whose a job is: a lease runs from when the store took it, or from when a new
//! server read it, and so never ends earlier for the server than for the device.

pub mod record;

mod content;
mod devices;
mod jobs;
mod lender;
mod seam;
mod slot;
mod state;

use std::collections::{BTreeMap, BTreeSet};

use undercroft_model::Now;

use crate::consent::{Ledger, Verify};
use lender::Device;
use slot::Slot;

pub use seam::{
    ANOTHER_MS_MAX, ASK_AGAIN_MS, Answer, BUSY_MS, Effect, GRACE_MS, Input, JobSay, Key,
    OPEN_JOBS_MAX, RELOAD_MS, RETURN_REST_MS_MAX, RETURN_REST_MS_MIN, Reply, Settings, Stored,
    Ticket, Value, WANT_MS_MAX,
};
pub use state::Server;

impl<V: Verify> Server<V> {
    /// A server that begins with what the store holds. `now` is when it had been read whole.
    pub fn new(
        settings: Settings,
        verify: V,
        stored: impl IntoIterator<Item = (Value, u64)>,
        now: Now,
    ) -> Self {
        let devices = settings.devices.iter();
        let mut server = Self {
            devices: devices
                .map(|(name, keys)| (name.clone(), Device::new(name.clone(), keys.clone())))
                .collect(),
            settings,
            verify,
            jobs: BTreeMap::new(),
            open: BTreeSet::new(),
            tickets: BTreeMap::new(),
            next_ticket: 0,
        };
        for (value, revision) in stored {
            let key = match &value {
                Value::Job(record) => Key::Job(record.job.id.clone()),
                Value::Ledger(ledger) => Key::Ledger(ledger.device().clone()),
            };
            server.loaded(key, Some((value, revision)), now);
        }
        server
    }

    /// Takes in what happened.
    pub fn step(&mut self, now: Now, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Stored { ticket, how } => self.stored(now, ticket, how, &mut effects),
            Input::Loaded { key, found } => self.loaded(key, found, now),
            Input::NotLoaded { key } => self.not_loaded(&key, now),
            Input::Submit { reply, job, runs } => {
                self.submit(now, reply, *job, runs, &mut effects);
            }
            Input::Cancel { reply, job } => self.cancel(reply, &job, &mut effects),
            Input::Want {
                reply,
                device,
                want,
            } => self.want(now, reply, device, want, &mut effects),
            Input::Beat {
                reply,
                device,
                beat,
            } => self.beat(reply, device, beat, &mut effects),
            Input::Out { reply, device, out } => self.out(reply, device, out, &mut effects),
            Input::Tick => {}
        }
        self.pass_time(now, &mut effects);
        self.match_all(now, &mut effects);
        effects
    }

    /// When time changes something by itself, in milliseconds of the clock that never goes back.
    pub fn next_deadline(&self, now: Now) -> Option<u64> {
        let lease_ms = self.settings.lease_ms;
        let jobs = self.open_jobs();
        let jobs = jobs.filter_map(|(_, slot)| slot.deadline(lease_ms));
        let devices = self.devices.values().filter_map(Device::deadline);
        let is_waited_for = self.devices.values().any(|device| device.waiting.is_some());
        let rests = self.open_jobs().filter(|_| is_waited_for);
        let rests = rests.filter_map(|(_, slot)| slot.rests_until(now.mono_ms));
        jobs.chain(devices).chain(rests).min()
    }

    fn stored(&mut self, now: Now, ticket: Ticket, how: Stored, effects: &mut Vec<Effect>) {
        match self.tickets.remove(&ticket) {
            Some(Key::Job(id)) => self.job_stored(now, &id, ticket, how, effects),
            Some(Key::Ledger(device)) => self.ledger_stored(now, &device, ticket, how, effects),
            None => {}
        }
    }

    fn loaded(&mut self, key: Key, found: Option<(Value, u64)>, now: Now) {
        match (key, found) {
            (Key::Job(id), Some((Value::Job(record), revision))) => {
                self.job_loaded(id, *record, revision, now);
            }
            (Key::Job(id), None) => {
                if self.jobs.get(&id).is_some_and(Slot::is_loading) {
                    self.jobs.remove(&id);
                    self.open.remove(&id);
                }
            }
            (Key::Ledger(name), found) => {
                if let Some(device) = self.devices.get_mut(&name) {
                    match found {
                        Some((Value::Ledger(ledger), revision)) => {
                            device.read(*ledger, Some(revision), now)
                        }
                        None => device.read(Ledger::new(name), None, now),
                        Some((Value::Job(_), _)) => {}
                    }
                }
            }
            // A job's key holds jobs.
            (Key::Job(_), Some((Value::Ledger(_), _))) => {}
        }
    }

    fn not_loaded(&mut self, key: &Key, now: Now) {
        let at_ms = now.mono_ms.saturating_add(RELOAD_MS);
        match key {
            Key::Job(id) => {
                if let Some(slot) = self.jobs.get_mut(id) {
                    slot.load_again_at(at_ms);
                }
            }
            Key::Ledger(name) => {
                if let Some(device) = self.devices.get_mut(name) {
                    device.load_again_at(at_ms);
                }
            }
        }
    }

    /// What ends, or is tried again, because its time has come.
    fn pass_time(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.expire(now, effects);
        for (name, device) in &mut self.devices {
            device.pass_time(name, now, effects);
        }
        for id in &self.open {
            let slot = self.jobs.get_mut(id);
            if slot.is_some_and(|slot| slot.take_due_load(now.mono_ms)) {
                effects.push(Effect::Load {
                    key: Key::Job(id.clone()),
                });
            }
        }
    }
}
