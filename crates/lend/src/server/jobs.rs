//! What a server does with jobs: it keeps them, hands them out, renews, takes back and records.

use std::collections::BTreeMap;

use undercroft_model::Now;

use super::{
    lender::{Device, Waiting},
    record::{Change, JobRecord, Runs, State, Unchanged},
    seam::{
        Answer, BUSY_MS, Effect, JobSay, Key, OPEN_JOBS_MAX, RELOAD_MS, RETURN_REST_MS_MAX, Reply,
        Stored, Ticket, Value,
    },
    slot::{Doing, Slot, Then},
    state::Server,
};
use crate::{
    consent::Verify,
    ids::{DeviceName, JobId, Tenant, Turn},
    job::Job,
    offer::Used,
    wire::{Assignment, Beat, BeatAnswer, BeatSay, Out, OutAnswer, OutSay, Want, WantSay},
};

impl<V: Verify> Server<V> {
    pub(super) fn job_loaded(&mut self, id: JobId, record: JobRecord, revision: u64, now: Now) {
        let slot = self.jobs.entry(id.clone()).or_insert_with(Slot::new);
        // What is under way ends with a conflict, and is read then.
        if matches!(slot.doing, Some(Doing::Storing { .. })) {
            return;
        }
        if Some(revision) < slot.revision {
            // A server of the store that lags behind has answered.
            slot.load_again_at(now.mono_ms.saturating_add(RELOAD_MS));
            return;
        }
        if slot.revision != Some(revision) {
            slot.renewed_ms = now.mono_ms;
        }
        slot.record = Some(record);
        slot.revision = Some(revision);
        slot.doing = None;
        self.mark(&id);
    }

    /// Has the store change a job's record.
    fn change(&mut self, id: &JobId, next: JobRecord, then: Then, effects: &mut Vec<Effect>) {
        let ticket = self.ticket(Key::Job(id.clone()));
        let slot = self.jobs.entry(id.clone()).or_insert_with(Slot::new);
        effects.push(Effect::Store {
            ticket,
            key: Key::Job(id.clone()),
            value: Value::Job(Box::new(next.clone())),
            records: Vec::new(),
            expect: slot.revision,
        });
        slot.doing = Some(Doing::Storing {
            ticket,
            next: Box::new(next),
            then,
        });
        self.open.insert(id.clone());
    }

    pub(super) fn submit(
        &mut self,
        now: Now,
        reply: Reply,
        job: Job,
        runs: Runs,
        effects: &mut Vec<Effect>,
    ) {
        let id = job.id.clone();
        let say = match self.jobs.get(&id) {
            None if self.open_of(&job.tenant) >= OPEN_JOBS_MAX => {
                JobSay::TooMany { max: OPEN_JOBS_MAX }
            }
            None => {
                let record = JobRecord::new(job, now.wall_ms, runs);
                self.change(&id, record, Then::Submitter(reply), effects);
                return;
            }
            Some(slot) => match (&slot.record, &slot.doing) {
                (Some(record), _) if record.job != job => JobSay::OtherJob,
                (Some(record), None) => JobSay::Kept(record.state.clone()),
                _ => JobSay::Again { after_ms: BUSY_MS },
            },
        };
        effects.push(answer_job(reply, say));
    }

    /// How many jobs of a tenant aren't over.
    fn open_of(&self, tenant: &Tenant) -> usize {
        let theirs = |slot: &&Slot| match (&slot.record, &slot.doing) {
            (Some(record), _) => record.job.tenant == *tenant,
            (None, Some(Doing::Storing { next, .. })) => next.job.tenant == *tenant,
            (None, _) => false,
        };
        let slots = self.open_jobs().map(|(_, slot)| slot);
        slots.filter(theirs).count()
    }

    pub(super) fn cancel(&mut self, reply: Reply, id: &JobId, effects: &mut Vec<Effect>) {
        let Some(slot) = self.jobs.get(id) else {
            effects.push(answer_job(reply, JobSay::Unknown));
            return;
        };
        let Some(record) = slot.at_rest() else {
            effects.push(answer_job(reply, JobSay::Again { after_ms: BUSY_MS }));
            return;
        };
        match record.after(Change::Cancel) {
            Ok(next) => self.change(id, next, Then::Submitter(reply), effects),
            Err(Unchanged::Already) => {
                let say = JobSay::Kept(record.state.clone());
                effects.push(answer_job(reply, say));
            }
            Err(Unchanged::No(why)) => effects.push(answer_job(reply, JobSay::Over { why })),
        }
    }

    pub(super) fn beat(
        &mut self,
        reply: Reply,
        device: DeviceName,
        beat: Beat,
        effects: &mut Vec<Effect>,
    ) {
        let (id, turn) = (beat.holding.job, beat.turn);
        let say = match self.jobs.get(&id) {
            None => BeatSay::Stop {
                why: "there is no such job".to_owned(),
            },
            Some(slot) => match slot.at_rest() {
                None => BeatSay::Again { after_ms: BUSY_MS },
                Some(record) => {
                    let epoch = beat.holding.epoch;
                    match record.after(Change::Renew { device, epoch }) {
                        Ok(next) => {
                            self.change(&id, next, Then::Renewed { reply, turn }, effects);
                            return;
                        }
                        Err(Unchanged::No(why)) => BeatSay::Stop { why },
                        Err(Unchanged::Already) => BeatSay::Again { after_ms: BUSY_MS },
                    }
                }
            },
        };
        effects.push(answer_beat(reply, turn, say));
    }

    pub(super) fn out(
        &mut self,
        reply: Reply,
        device: DeviceName,
        out: Out,
        effects: &mut Vec<Effect>,
    ) {
        let (id, turn) = (out.holding.job, out.turn);
        let say = match self.jobs.get(&id) {
            None => OutSay::Stale {
                why: "there is no such job".to_owned(),
            },
            Some(slot) => match slot.at_rest() {
                None => OutSay::Again { after_ms: BUSY_MS },
                Some(record) => {
                    let change = Change::End {
                        device,
                        epoch: out.holding.epoch,
                        ended: out.ended,
                    };
                    match record.after(change) {
                        Ok(next) => {
                            self.change(&id, next, Then::Ended { reply, turn }, effects);
                            return;
                        }
                        Err(Unchanged::Already) => OutSay::Recorded,
                        Err(Unchanged::No(why)) => OutSay::Stale { why },
                    }
                }
            },
        };
        effects.push(answer_out(reply, turn, say));
    }

    /// Takes back what was handed out to a device that doesn't know of it.
    pub(super) fn take_back_unheard(
        &mut self,
        device: &DeviceName,
        want: &Want,
        effects: &mut Vec<Effect>,
    ) {
        let mut unheard = Vec::new();
        for (id, slot) in self.open_jobs() {
            let Some(record) = slot.at_rest() else {
                continue;
            };
            let Some(lease) = record.lease() else {
                continue;
            };
            let is_held = want
                .holds
                .iter()
                .any(|held| held.job == *id && held.epoch == record.epoch);
            if lease.device == *device
                && lease.turn < want.turn
                && !is_held
                && let Ok(next) = record.after(Change::NeverHeard)
            {
                unheard.push((id.clone(), next));
            }
        }
        for (id, next) in unheard {
            self.change(&id, next, Then::Nobody, effects);
        }
    }

    /// Ends the leases that nobody has renewed, and the waits for a device that doesn't come.
    pub(super) fn expire(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let lease_ms = self.settings.lease_ms;
        let over: Vec<(JobId, JobRecord)> = self
            .open_jobs()
            .filter_map(|(id, slot)| {
                let (at_ms, change) = slot.ends(lease_ms)?;
                if at_ms > now.mono_ms {
                    return None;
                }
                let next = slot.at_rest()?.after(change).ok()?;
                Some((id.clone(), next))
            })
            .collect();
        for (id, next) in over {
            self.change(&id, next, Then::Nobody, effects);
        }
    }

    /// Hands jobs out to the devices that wait.
    pub(super) fn match_all(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let waiting: Vec<DeviceName> = self
            .devices
            .iter()
            .filter(|(_, device)| device.waiting.is_some())
            .map(|(name, _)| name.clone())
            .collect();
        for name in waiting {
            let Some(id) = self.best_for(&name, now) else {
                continue;
            };
            let Some(device) = self.devices.get_mut(&name) else {
                continue;
            };
            let (Some(waiting), Some(consent)) = (device.waiting.take(), device.ledger.consent())
            else {
                continue;
            };
            let (consent, turn) = (consent.number, waiting.turn);
            let change = Change::Assign {
                device: name.clone(),
                turn,
                consent,
            };
            let record = self.jobs.get(&id).and_then(Slot::at_rest);
            if let Some(Ok(next)) = record.map(|record| record.after(change)) {
                let then = Then::Assigned {
                    device: name,
                    waiting,
                    consent,
                };
                self.change(&id, next, then, effects);
            }
        }
    }

    /// The job that a device gets: of the tenant that has the fewest on devices now, the oldest.
    fn best_for(&self, name: &DeviceName, now: Now) -> Option<JobId> {
        let device = self.devices.get(name)?;
        let consent = device.ledger.consent()?;
        // Two PCs of one owner are one word.
        let is_of_owner = |other: &DeviceName| {
            let other = self.devices.get(other);
            other.is_some_and(|other| other.keys.owner == device.keys.owner)
        };
        if !consent.is_good_at(now.wall_ms) {
            return None;
        }
        let mut used = Used::default();
        let mut shares: BTreeMap<&Tenant, u32> = BTreeMap::new();
        for (_, slot) in self.open_jobs() {
            let next = match &slot.doing {
                Some(Doing::Storing { next, .. }) => Some(&**next),
                _ => slot.record.as_ref(),
            };
            if let Some((record, lease)) = next.and_then(|record| Some((record, record.lease()?))) {
                *shares.entry(&record.job.tenant).or_default() += 1;
                if lease.device == *name {
                    used = used.with(&record.job.limits);
                }
            }
        }
        self.open_jobs()
            .map(|(_, slot)| slot)
            .filter(|slot| slot.not_before_ms <= now.mono_ms)
            .filter_map(Slot::at_rest)
            .filter(|record| record.state == State::Queued && !record.declined.contains(name))
            .filter(|record| {
                let first = record.first().map(|first| &first.device);
                first.is_none_or(|first| first != name && !is_of_owner(first))
            })
            .filter(|record| consent.offer.fits(&record.job, used).is_ok())
            .min_by_key(|record| {
                let share = shares.get(&record.job.tenant).copied().unwrap_or(0);
                (share, record.submitted_ms, &record.job.id)
            })
            .map(|record| record.job.id.clone())
    }

    pub(super) fn job_stored(
        &mut self,
        now: Now,
        id: &JobId,
        ticket: Ticket,
        how: Stored,
        effects: &mut Vec<Effect>,
    ) {
        let Some(slot) = self.jobs.get_mut(id) else {
            return;
        };
        let (next, then) = match slot.doing.take() {
            Some(Doing::Storing {
                ticket: of,
                next,
                then,
            }) if of == ticket => (next, then),
            other => {
                slot.doing = other;
                return;
            }
        };
        let Stored::Yes(revision) = how else {
            slot.doing = Some(Doing::Loading { again_ms: None });
            effects.push(Effect::Load {
                key: Key::Job(id.clone()),
            });
            self.not_changed(now, then, effects);
            return;
        };
        if next.state == State::Queued && slot.record.is_some() {
            slot.not_before_ms = now.mono_ms.saturating_add(slot.rest_ms);
            slot.rest_ms = slot.rest_ms.saturating_mul(2).min(RETURN_REST_MS_MAX);
        }
        slot.renewed_ms = now.mono_ms;
        slot.revision = Some(revision);
        let record = slot.record.insert(*next).clone();
        self.mark(id);
        let lease_ms = self.settings.lease_ms;
        match then {
            Then::Nobody => {}
            Then::Submitter(reply) => {
                effects.push(answer_job(reply, JobSay::Kept(record.state)));
            }
            Then::Renewed { reply, turn } => {
                effects.push(answer_beat(reply, turn, BeatSay::Go { lease_ms }));
            }
            Then::Ended { reply, turn } => {
                effects.push(answer_out(reply, turn, OutSay::Recorded));
            }
            Then::Assigned {
                device,
                waiting,
                consent,
            } => {
                let device = self.devices.get(&device);
                // It may have asked anew since, and not hear the answer to what it asked before.
                let Some(device) = device.filter(|device| device.last_turn == waiting.turn) else {
                    if let Ok(next) = record.after(Change::NeverHeard) {
                        self.change(id, next, Then::Nobody, effects);
                    }
                    return;
                };
                effects.push(assign(device, record, &waiting, now, lease_ms, consent));
            }
        }
    }

    /// Tells whoever waits for a change that it is to be asked for again.
    fn not_changed(&mut self, now: Now, then: Then, effects: &mut Vec<Effect>) {
        let after_ms = BUSY_MS;
        match then {
            Then::Nobody => {}
            Then::Submitter(reply) => effects.push(answer_job(reply, JobSay::Again { after_ms })),
            Then::Renewed { reply, turn } => {
                effects.push(answer_beat(reply, turn, BeatSay::Again { after_ms }));
            }
            Then::Ended { reply, turn } => {
                effects.push(answer_out(reply, turn, OutSay::Again { after_ms }));
            }
            Then::Assigned {
                device, waiting, ..
            } => {
                if let Some(device) = self.devices.get(&device) {
                    let say = WantSay::Nothing { again_ms: after_ms };
                    effects.push(device.answer(waiting.reply, waiting.turn, now, say));
                }
            }
        }
    }
}

/// Hands a job to a device that waits.
fn assign(
    device: &Device,
    record: JobRecord,
    waiting: &Waiting,
    now: Now,
    lease_ms: u64,
    consent: u64,
) -> Effect {
    // The device counts from when it asked, and it was kept waiting.
    let waited_ms = now.mono_ms.saturating_sub(waiting.since_ms);
    let assignment = Assignment {
        job: record.job,
        epoch: record.epoch,
        lease_ms: waited_ms.saturating_add(lease_ms),
        consent,
    };
    let say = WantSay::Assigned(Box::new(assignment));
    device.answer(waiting.reply, waiting.turn, now, say)
}

fn answer_job(reply: Reply, say: JobSay) -> Effect {
    Effect::Answer {
        reply,
        answer: Answer::Job(say),
    }
}

fn answer_beat(reply: Reply, turn: Turn, say: BeatSay) -> Effect {
    Effect::Answer {
        reply,
        answer: Answer::Beat(BeatAnswer { turn, say }),
    }
}

fn answer_out(reply: Reply, turn: Turn, say: OutSay) -> Effect {
    Effect::Answer {
        reply,
        answer: Answer::Out(OutAnswer { turn, say }),
    }
}
