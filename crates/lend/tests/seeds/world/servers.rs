//! The servers and their store.

use super::*;

impl World {
    pub(super) fn server_starts(&mut self) {
        let devices = self.machines.iter();
        let devices: BTreeMap<DeviceName, Keys> = devices
            .map(|m| (m.name.clone(), m.keys.0.clone()))
            .collect();
        let settings = Settings {
            lease_ms: LEASE_MS,
            devices,
        };
        let stored = self.store.values.values().cloned().collect::<Vec<_>>();
        let server = Server::new(settings, TestVerify, stored, self.now());
        self.instances.push(Some(Instance {
            server,
            ticks_at: None,
        }));
        let instance = self.instances.len() - 1;
        self.note("world", || format!("server {instance} starts"));
        self.server(instance, Input::Tick);
    }

    pub(super) fn server(&mut self, instance: usize, input: Input) {
        let now = self.now();
        let Some(Some(at)) = self.instances.get_mut(instance) else {
            return;
        };
        let effects = at.server.step(now, input);
        let next = at.server.next_deadline(now);
        if let Some(next_ms) = next {
            if next_ms <= now.mono_ms {
                self.checkers
                    .fail(format!("server {instance} wants to be woken in the past"));
            }
            if at.ticks_at.is_none_or(|at| next_ms < at) {
                at.ticks_at = Some(next_ms);
                let delay_ms = next_ms.saturating_sub(now.mono_ms);
                self.clock.after(delay_ms, Event::ServerTick { instance });
            }
        }
        for effect in effects {
            if self.hit(None, Fault::ServerCrash) {
                self.server_crashes(instance);
                if self.instances[instance].is_none() {
                    return;
                }
            }
            match effect {
                Effect::Answer { reply, answer } => self.answer(reply, answer),
                effect => {
                    let delay_ms = self.rng.between(1, 20);
                    self.clock
                        .after(delay_ms, Event::Store { instance, effect });
                }
            }
        }
    }

    pub(super) fn server_crashes(&mut self, instance: usize) {
        let is_last = self.instances.iter().flatten().count() == 1;
        if self.hit(None, Fault::ServerLingers) {
            let ms = self.rng.between(1000, 60_000);
            self.clock.after(ms, Event::ServerEnds { instance });
        } else {
            self.note("world", || format!("server {instance} crashes"));
            self.instances[instance] = None;
        }
        if is_last {
            let ms = self.rng.between(100, 30_000);
            self.clock.after(ms, Event::ServerStarts);
        }
    }

    pub(super) fn ask_store(&mut self, instance: usize, effect: Effect) {
        let ms = self.rng.between(1, 20);
        match effect {
            Effect::Store {
                ticket,
                key,
                value,
                records,
                expect,
            } => {
                let is_unknown = self.hit(None, Fault::StoreUnknown);
                let how = if is_unknown && self.hit(None, Fault::StoreLost) {
                    Stored::Unknown
                } else {
                    let how = self.store_value(instance, key, value, &records, expect);
                    if is_unknown { Stored::Unknown } else { how }
                };
                let input = Input::Stored { ticket, how };
                self.clock.after(ms, Event::ToInstance { instance, input });
            }
            Effect::Load { key } => {
                let input = if self.hit(None, Fault::StoreUnknown) {
                    Input::NotLoaded { key }
                } else {
                    // One server of the store may lag behind the others, and answer.
                    let lags = self.hit(None, Fault::StoreLags);
                    let earlier = self.store.earlier.get(&key).filter(|_| lags);
                    let found = earlier.or(self.store.values.get(&key)).cloned();
                    Input::Loaded { key, found }
                };
                self.clock.after(ms, Event::ToInstance { instance, input });
            }
            Effect::Answer { .. } => {}
        }
    }

    pub(super) fn store_value(
        &mut self,
        instance: usize,
        key: Key,
        value: Value,
        records: &[Record],
        expect: Option<u64>,
    ) -> Stored {
        if let Key::Ledger(device) = &key {
            let kept = self.store.records.entry(device.clone()).or_default();
            for record in records {
                let at = usize::try_from(record.claim.number).unwrap();
                match kept.get(at) {
                    Some(there) if there == record => {}
                    None if at == kept.len() => kept.push(record.clone()),
                    _ => return Stored::Conflict,
                }
            }
        }
        let before = self.store.values.get(&key);
        if before.map(|(_, revision)| *revision) != expect {
            return Stored::Conflict;
        }
        if let Value::Job(after) = &value {
            let before = match before {
                Some((Value::Job(before), _)) => Some(&**before),
                _ => None,
            };
            self.checkers.stored(before, after);
            let (id, state, epoch) = (after.job.id.clone(), after.state.clone(), after.epoch);
            self.note("store", || format!("{id} at {epoch}: {state:?}"));
        }
        self.store.revision += 1;
        let revision = self.store.revision;
        let entry = (value.clone(), revision);
        if let Some(earlier) = self.store.values.insert(key.clone(), entry) {
            self.store.earlier.insert(key.clone(), earlier);
        }
        // The others watch the bucket.
        for other in 0..self.instances.len() {
            if other != instance && self.instances[other].is_some() {
                let (key, found) = (key.clone(), Some((value.clone(), revision)));
                let input = Input::Loaded { key, found };
                let ms = self.rng.between(1, 200);
                self.clock.after(
                    ms,
                    Event::ToInstance {
                        instance: other,
                        input,
                    },
                );
            }
        }
        Stored::Yes(revision)
    }

    pub(super) fn reply(&mut self, asker: Asker) -> Reply {
        self.next_reply += 1;
        self.askers.insert(self.next_reply, asker);
        Reply(self.next_reply)
    }

    pub(super) fn answer(&mut self, reply: Reply, answer: Answer) {
        let Some(asker) = self.askers.remove(&reply.0) else {
            self.checkers
                .fail(format!("{reply:?} is answered twice, or was never asked"));
            return;
        };
        match (asker, answer) {
            (Asker::Device(to, kind), answer) => {
                let bytes = match answer {
                    Answer::Want(answer) => wire::write(&answer),
                    Answer::Beat(answer) => wire::write(&answer),
                    Answer::Out(answer) => wire::write(&answer),
                    Answer::Job(_) => {
                        return self
                            .checkers
                            .fail("a device is answered as a submitter".to_owned());
                    }
                };
                self.carry(to, Event::ToDevice { to, bytes, kind });
            }
            (Asker::Submitter(job), Answer::Job(say)) => match say {
                JobSay::Kept(_) => self.work[job].is_kept = true,
                // It is asked again by itself.
                JobSay::Again { .. } => {}
                other => self
                    .checkers
                    .fail(format!("job-{job} is submitted: {other:?}")),
            },
            (Asker::Canceller(job), Answer::Job(say)) => match say {
                JobSay::Kept(_) | JobSay::Over { .. } => self.work[job].is_cancel_over = true,
                JobSay::Again { .. } | JobSay::Unknown => {}
                JobSay::OtherJob | JobSay::TooMany { .. } => {
                    self.checkers.fail("cancelling adds no job".to_owned());
                }
            },
            _ => self
                .checkers
                .fail("a submitter is answered as a device".to_owned()),
        }
    }

    /// A server that runs, any of them.
    pub(super) fn some_server(&mut self) -> Option<usize> {
        let all: Vec<usize> = (0..self.instances.len())
            .filter(|i| self.instances[*i].is_some())
            .collect();
        let count = u64::try_from(all.len()).unwrap();
        let at = usize::try_from(self.rng.below(count)).unwrap();
        all.get(at).copied()
    }

    pub(super) fn heard(&mut self, from: usize, kind: ToServer, bytes: &[u8]) {
        let Some(instance) = self.some_server() else {
            return;
        };
        let reply = self.reply(Asker::Device(from, kind.clone()));
        let device = self.machines[from].name.clone();
        let input = match kind {
            ToServer::Want => Input::Want {
                reply,
                device,
                want: wire::read(bytes).unwrap(),
            },
            ToServer::Beat => Input::Beat {
                reply,
                device,
                beat: wire::read(bytes).unwrap(),
            },
            ToServer::Out => Input::Out {
                reply,
                device,
                out: wire::read(bytes).unwrap(),
            },
        };
        self.server(instance, input);
    }

    pub(super) fn submit(&mut self, job: usize) {
        if self.work[job].is_kept {
            return;
        }
        self.clock.after(5000, Event::Submit { job });
        if let Some(instance) = self.some_server() {
            let reply = self.reply(Asker::Submitter(job));
            let runs = self.work[job].runs.clone();
            let job = Box::new(self.work[job].job.clone());
            self.server(instance, Input::Submit { reply, job, runs });
        }
    }

    pub(super) fn cancel(&mut self, job: usize) {
        self.work[job].is_cancel_asked = true;
        if self.work[job].is_cancel_over {
            return;
        }
        self.clock.after(7000, Event::Cancel { job });
        if let Some(instance) = self.some_server() {
            let reply = self.reply(Asker::Canceller(job));
            let job = self.work[job].job.id.clone();
            self.server(instance, Input::Cancel { reply, job });
        }
    }
}
