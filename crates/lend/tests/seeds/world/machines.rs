//! The devices, their disks and what they run.

use super::*;

impl World {
    pub(super) fn restored(&self, at: usize) -> Result<Restored, String> {
        let machine = &self.machines[at];
        let mut restored = Restored::nothing(machine.name.clone());
        let mut records = Vec::new();
        for entry in &machine.disk {
            match entry {
                Entry::Began { start } => restored.starts = *start,
                Entry::Record(record) => records.push(record),
                Entry::Ended { holding, ended } => {
                    restored.ended.insert(holding.clone(), ended.clone());
                }
            }
        }
        let name = machine.name.clone();
        restored.ledger = Ledger::replay(name, records, &machine.keys.0, &TestVerify)
            .map_err(|broken| broken.to_string())?;
        Ok(restored)
    }

    pub(super) fn device_starts(&mut self, at: usize) {
        if self.machines[at].device.is_some() {
            return;
        }
        let restored = match self.restored(at) {
            Ok(restored) => restored,
            Err(why) => return self.checkers.fail(why),
        };
        let now = self.now_at(at);
        let machine = &mut self.machines[at];
        let settings = device::Settings {
            keys: machine.keys.0.clone(),
            beat_ms: BEAT_MS,
            pause_ms: PAUSE_MS,
        };
        let (device, effects) = Device::new(settings, machine.keys.clone(), restored, now);
        machine.device = Some(device);
        machine.start += 1;
        machine.ticks_at = None;
        machine.disk_free_ms = 0;
        self.note("world", || format!("pc-{at} starts"));
        self.carry_out(at, effects);
        self.device(at, device::Input::Tick);
    }

    pub(super) fn device(&mut self, at: usize, input: device::Input) {
        let now = self.now_at(at);
        let machine = &mut self.machines[at];
        let Some(device) = &mut machine.device else {
            return;
        };
        let effects = device.step(now, input);
        if let Some(next_ms) = device.next_deadline() {
            if next_ms <= now.mono_ms {
                self.checkers
                    .fail(format!("pc-{at} wants to be woken in the past"));
            }
            if machine.ticks_at.is_none_or(|at| next_ms < at) {
                machine.ticks_at = Some(next_ms);
                let start = machine.start;
                let delay_ms = next_ms.saturating_sub(now.mono_ms);
                self.clock.after(delay_ms, Event::DeviceTick { at, start });
            }
        }
        self.carry_out(at, effects);
    }

    pub(super) fn carry_out(&mut self, at: usize, effects: Vec<device::Effect>) {
        for effect in effects {
            if self.hit(Some(at), Fault::DaemonCrash) {
                return self.crash(at);
            }
            let start = self.machines[at].start;
            match effect {
                device::Effect::Keep { ticket, entry } => {
                    let ms = self.rng.between(1, 30);
                    let now_ms = self.clock.now_ms();
                    let free_ms = self.machines[at].disk_free_ms.max(now_ms) + ms;
                    self.machines[at].disk_free_ms = free_ms;
                    let entry = *entry;
                    self.clock.after(
                        free_ms - now_ms,
                        Event::Disk {
                            at,
                            start,
                            ticket,
                            entry,
                        },
                    );
                }
                device::Effect::Want {
                    mut want,
                    records_from,
                } => {
                    let records = self.machines[at]
                        .disk
                        .iter()
                        .filter_map(|entry| match entry {
                            Entry::Record(record) => Some(record),
                            _ => None,
                        });
                    let records = records.filter(|record| record.claim.number >= records_from);
                    want.records = records.take(wire::RECORDS_MAX).cloned().collect();
                    self.send(at, ToServer::Want, wire::write(&want));
                }
                device::Effect::Beat(beat) => self.send(at, ToServer::Beat, wire::write(&beat)),
                device::Effect::Out(out) => self.send(at, ToServer::Out, wire::write(&out)),
                device::Effect::Run(assignment) => {
                    self.run(at, &assignment.job.id, assignment.epoch)
                }
                device::Effect::Freeze(holding) => self.freeze(at, &holding),
                device::Effect::Thaw(holding) => self.thaw(at, &holding),
                device::Effect::Kill(holding) => {
                    let ms = self.rng.between(1, 200);
                    self.clock.after(ms, Event::Killed { at, start, holding });
                }
                device::Effect::Wipe(holding) => {
                    let ms = self.rng.between(1, 200);
                    self.clock.after(ms, Event::Wiped { at, start, holding });
                }
            }
        }
    }

    pub(super) fn written(&mut self, at: usize, start: u64, ticket: device::Ticket, entry: Entry) {
        if self.machines[at].start != start {
            return;
        }
        if self.hit(Some(at), Fault::DiskFull) {
            return self.device(at, device::Input::NotKept(ticket));
        }
        if let Entry::Record(record) = &entry {
            let machine = &mut self.machines[at];
            if record.claim.said == Said::Revoked {
                machine.is_revoke_asked = false;
            }
            self.checkers
                .said(&machine.name, &record.claim.said, &machine.files);
            let said = format!("{:?}", record.claim.said);
            self.note("disk", || format!("pc-{at} {said:.100}"));
        }
        self.machines[at].disk.push(entry);
        if self.hit(Some(at), Fault::DaemonCrash) {
            return self.crash(at);
        }
        self.device(at, device::Input::Kept(ticket));
    }

    pub(super) fn run(&mut self, at: usize, job: &JobId, epoch: undercroft_lend::Epoch) {
        let holding = Holding {
            job: job.clone(),
            epoch,
        };
        match self.restored(at) {
            Ok(durable) => {
                let wall_ms = self.now_at(at).wall_ms;
                let name = self.machines[at].name.clone();
                self.checkers
                    .runs(&name, &holding, wall_ms, &durable.ledger);
            }
            Err(why) => self.checkers.fail(why),
        }
        self.note("process", || format!("pc-{at} runs {job} at {epoch}"));
        let exit = if self.hit(Some(at), Fault::JobFails) {
            let why = "exit code 1".to_owned();
            Exit::Failed { why }
        } else if self.hit(Some(at), Fault::NotBegun) {
            let own = self.rng.chance(700);
            Exit::Returned {
                why: "its disk is full".to_owned(),
                hindrance: if own {
                    Hindrance::Device
                } else {
                    Hindrance::Passing
                },
            }
        } else {
            let work = self.work.iter().find(|work| work.job.id == *job);
            let runs_once = work.is_none_or(|work| work.runs == Runs::Once);
            let is_wrong = self.hit(Some(at), Fault::WrongOutput);
            if is_wrong {
                self.checkers.makes_wrong(job);
            }
            // A job that runs once makes another output each time, so that none is taken for another's.
            let output = match runs_once || is_wrong {
                true => Digest::of(format!("{job} {at} {epoch}").as_bytes()),
                false => right_output(job),
            };
            Exit::Done { output, bytes: 10 }
        };
        let left_ms = self.rng.between(100, 60_000);
        self.machines[at].files.insert(holding.clone());
        let process = Process {
            left_ms,
            since_ms: None,
            timer: 0,
            exit,
        };
        self.machines[at].processes.insert(holding.clone(), process);
        self.thaw(at, &holding);
    }

    pub(super) fn thaw(&mut self, at: usize, holding: &Holding) {
        let now_ms = self.clock.now_ms();
        self.next_timer += 1;
        let timer = self.next_timer;
        if let Some(process) = self.machines[at].processes.get_mut(holding) {
            process.since_ms = Some(now_ms);
            process.timer = timer;
            let holding = holding.clone();
            self.clock
                .after(process.left_ms, Event::ProcessEnds { at, holding, timer });
        }
    }

    pub(super) fn freeze(&mut self, at: usize, holding: &Holding) {
        if self.hit(Some(at), Fault::NotFrozen) {
            let (start, ms) = (self.machines[at].start, self.rng.between(1, 2_000));
            let holding = holding.clone();
            self.clock.after(ms, Event::Killed { at, start, holding });
            return;
        }
        let now_ms = self.clock.now_ms();
        if let Some(process) = self.machines[at].processes.get_mut(holding)
            && let Some(since_ms) = process.since_ms.take()
        {
            process.left_ms = process.left_ms.saturating_sub(now_ms - since_ms);
            process.timer = 0;
        }
    }

    pub(super) fn process_ends(&mut self, at: usize, holding: &Holding, timer: u64) {
        let process = self.machines[at].processes.get(holding);
        let Some(process) = process.filter(|process| process.timer == timer) else {
            return;
        };
        let exit = process.exit.clone();
        self.process_gone(at, holding);
        let holding = holding.clone();
        self.device(at, device::Input::Ended { holding, exit });
    }

    pub(super) fn process_gone(&mut self, at: usize, holding: &Holding) {
        let machine = &mut self.machines[at];
        if machine.processes.remove(holding).is_some() {
            self.checkers.gone(&machine.name, holding);
        }
    }

    /// The daemon is gone, and with it what it ran.
    pub(super) fn crash(&mut self, at: usize) {
        self.note("world", || format!("pc-{at} crashes"));
        let running: Vec<Holding> = self.machines[at].processes.keys().cloned().collect();
        for holding in running {
            self.process_gone(at, &holding);
        }
        self.machines[at].device = None;
        self.machines[at].start += 1;
        if std::mem::take(&mut self.machines[at].is_revoke_asked) {
            // The command that revokes has failed, and the owner sees that.
            let name = self.machines[at].name.clone();
            self.checkers.lends(&name);
            let says = OwnerSays::Revoke;
            self.clock.after(500, Event::Owner { at, says });
        }
        let ms = self.rng.between(100, 40_000);
        self.clock.after(ms, Event::DeviceStarts { at });
    }

    pub(super) fn owner(&mut self, at: usize, says: OwnerSays) {
        if self.machines[at].device.is_none() {
            // Nobody listens; the owner says it again.
            self.clock.after(1000, Event::Owner { at, says });
            return;
        }
        let name = self.machines[at].name.clone();
        match &says {
            OwnerSays::Revoke => {
                self.machines[at].is_lent = false;
                self.machines[at].is_revoke_asked = true;
                self.checkers.revokes(&name, self.clock.now_ms());
            }
            OwnerSays::Grant { .. } => {
                self.machines[at].is_lent = true;
                self.checkers.lends(&name);
            }
            _ => {}
        }
        let said = format!("{says:?}");
        self.note("owner", || format!("pc-{at} {said:.40}"));
        self.device(at, device::Input::Owner(says));
    }
}
