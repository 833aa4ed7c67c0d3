//! The network, and what goes wrong by itself.

use super::*;

impl World {
    pub(super) fn send(&mut self, from: usize, kind: ToServer, bytes: Vec<u8>) {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        self.note("to server", || format!("pc-{from} {kind:?} {text:.300}"));
        self.carry(from, Event::ToServer { from, kind, bytes });
    }

    /// Brings a message to or from a device, or doesn't.
    pub(super) fn carry(&mut self, device: usize, message: Event) {
        if self.machines[device].is_cut_off || self.hit(Some(device), Fault::Lost) {
            return;
        }
        if self.hit(Some(device), Fault::Doubled) {
            let ms = self.rng.between(1, 60_000);
            self.clock.after(ms, message.clone());
        }
        let ms = if self.hit(Some(device), Fault::Late) {
            self.rng.between(1000, 90_000)
        } else {
            self.rng.between(1, 50)
        };
        self.clock.after(ms, message);
    }

    pub(super) fn answered(&mut self, to: usize, kind: &ToServer, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes).into_owned();
        self.note("to device", || format!("pc-{to} {kind:?} {text:.300}"));
        let input = match kind {
            ToServer::Want => device::Input::WantAnswered(wire::read(bytes).unwrap()),
            ToServer::Beat => device::Input::BeatAnswered(wire::read(bytes).unwrap()),
            ToServer::Out => device::Input::OutAnswered(wire::read(bytes).unwrap()),
        };
        self.device(to, input);
    }

    /// Once a second, what goes wrong on the devices and with their owners.
    pub(super) fn round(&mut self) {
        if self.is_healed {
            return;
        }
        self.clock.after(1000, Event::Round);
        for at in 0..DEVICES {
            if self.hit(Some(at), Fault::PowerCut) && self.machines[at].device.is_some() {
                self.crash(at);
            }
            if self.hit(Some(at), Fault::ClockJump) {
                let ms = i64::try_from(self.rng.between(0, 7_200_000)).unwrap() - 3_600_000;
                self.machines[at].wall_offset_ms = ms;
            }
            if self.hit(Some(at), Fault::Partition) {
                self.machines[at].is_cut_off = true;
                let ms = self.rng.between(1000, 90_000);
                self.clock.after(ms, Event::PartitionEnds { at });
            }
            if self.hit(Some(at), Fault::Revoke) && self.machines[at].is_lent {
                self.owner(at, OwnerSays::Revoke);
                let offer = Box::new(offer());
                // Now and then the owner wants it back before the time is over.
                let until_ms = self
                    .rng
                    .chance(300)
                    .then(|| self.now_at(at).wall_ms + 60_000);
                let says = OwnerSays::Grant { offer, until_ms };
                let ms = self.rng.between(0, 60_000);
                self.clock.after(ms, Event::Owner { at, says });
            }
            if self.hit(Some(at), Fault::Pause) {
                self.owner(at, OwnerSays::Pause);
                let ms = self.rng.between(100, 60_000);
                let says = OwnerSays::Resume;
                self.clock.after(ms, Event::Owner { at, says });
            }
            if self.hit(Some(at), Fault::OwnerBack) {
                let why_not = BTreeSet::from(["somebody sits at it".to_owned()]);
                self.device(at, device::Input::May(why_not));
                let ms = self.rng.between(100, 60_000);
                let why_not = BTreeSet::new();
                self.clock.after(ms, Event::May { at, why_not });
            }
            if self.hit(Some(at), Fault::Lie) {
                self.lie(at);
            }
        }
    }

    /// A device says of any job that it has it, or has done it.
    pub(super) fn lie(&mut self, at: usize) {
        let job = usize::try_from(self.rng.below(JOBS as u64)).unwrap();
        let id = self.work[job].job.id.clone();
        let holder = match self.store.values.get(&Key::Job(id.clone())) {
            Some((Value::Job(record), _)) => record.lease().map(|lease| lease.device.clone()),
            _ => None,
        };
        // Of its own work it may say what it likes; only doing it again on another shows that.
        if holder.as_ref() == Some(&self.machines[at].name) {
            return;
        }
        let holding = Holding {
            job: id,
            epoch: undercroft_lend::Epoch(self.rng.below(8)),
        };
        let turn = undercroft_lend::Turn {
            start: 1_000_000,
            request: self.rng.next_u64(),
        };
        self.send(
            at,
            ToServer::Beat,
            wire::write(&Beat {
                turn,
                holding: holding.clone(),
            }),
        );
        let name = self.machines[at].name.clone();
        self.checkers.lies(name, holding.clone());
        self.checkers.makes_wrong(&holding.job);
        let ended = Ended::Done {
            output: Digest::of(format!("a lie of {at}").as_bytes()),
            bytes: 1,
        };
        self.send(
            at,
            ToServer::Out,
            wire::write(&Out {
                turn,
                holding,
                ended,
            }),
        );
    }

    pub(super) fn heal(&mut self) {
        self.is_healed = true;
        self.note("world", || "nothing fails any more".to_owned());
        // One that lingers may be the only one now.
        self.clock.after(0, Event::ServerStarts);
        for at in 0..DEVICES {
            let machine = &mut self.machines[at];
            machine.is_cut_off = false;
            machine.wall_offset_ms = 0;
            // After whatever else they had in mind.
            let offer = Box::new(offer());
            let says = OwnerSays::Grant {
                offer,
                until_ms: None,
            };
            self.clock.after(180_000, Event::Owner { at, says });
            self.clock.after(
                180_000,
                Event::Owner {
                    at,
                    says: OwnerSays::Resume,
                },
            );
            let why_not = BTreeSet::new();
            self.clock.after(180_000, Event::May { at, why_not });
        }
    }
}
