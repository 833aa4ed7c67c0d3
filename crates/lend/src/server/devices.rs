//! What a server knows of the devices: their ledgers, and which of them wait for work.

use undercroft_model::Now;

use super::{
    lender::{Doing, Waiting},
    seam::{ASK_AGAIN_MS, Answer, BUSY_MS, Effect, Key, Reply, Stored, Ticket, Value},
    state::Server,
};
use crate::{
    consent::{Ledger, Verify},
    ids::DeviceName,
    wire::{Want, WantAnswer, WantSay},
};

impl<V: Verify> Server<V> {
    pub(super) fn want(
        &mut self,
        now: Now,
        reply: Reply,
        name: DeviceName,
        want: Want,
        effects: &mut Vec<Effect>,
    ) {
        let Some(device) = self.devices.get_mut(&name) else {
            let why = format!("{name} is no device of this fleet that lends");
            effects.push(Effect::Answer {
                reply,
                answer: Answer::Want(WantAnswer {
                    turn: want.turn,
                    wall_ms: now.wall_ms,
                    have: None,
                    say: WantSay::Refused { why },
                }),
            });
            return;
        };
        // The network brought an old one again, or late: nobody waits for its answer.
        if want.turn <= device.last_turn {
            return;
        }
        device.last_turn = want.turn;
        device.waiting = None;
        if device.doing.is_some() {
            let say = WantSay::Nothing { again_ms: BUSY_MS };
            effects.push(device.answer(reply, want.turn, now, say));
            return;
        }
        match device.with_records(&want, &self.verify) {
            Err(why) => {
                let say = WantSay::Refused { why };
                effects.push(device.answer(reply, want.turn, now, say));
                return;
            }
            Ok(Some(next)) => {
                self.keep_ledger(reply, name, next, want, effects);
                return;
            }
            Ok(None) => {}
        }
        let is_whole = want.head == device.ledger.head();
        let consent = device.ledger.consent();
        let lends = consent.is_some_and(|consent| consent.is_good_at(now.wall_ms));
        if !is_whole {
            effects.push(device.answer(reply, want.turn, now, WantSay::Ledger));
        } else if want.takes_work && lends {
            device.waiting = Some(Waiting {
                reply,
                turn: want.turn,
                since_ms: now.mono_ms,
            });
        } else {
            let again_ms = ASK_AGAIN_MS;
            effects.push(device.answer(reply, want.turn, now, WantSay::Nothing { again_ms }));
        }
        self.take_back_unheard(&name, &want, effects);
    }

    fn keep_ledger(
        &mut self,
        reply: Reply,
        name: DeviceName,
        next: Ledger,
        want: Want,
        effects: &mut Vec<Effect>,
    ) {
        let ticket = self.ticket(Key::Ledger(name.clone()));
        let Some(device) = self.devices.get_mut(&name) else {
            return;
        };
        let from = device.ledger.head().map_or(0, |head| head.number + 1);
        let records = want.records.into_iter();
        effects.push(Effect::Store {
            ticket,
            key: Key::Ledger(name),
            value: Value::Ledger(Box::new(next.clone())),
            records: records
                .filter(|record| record.claim.number >= from)
                .collect(),
            expect: device.revision,
        });
        device.doing = Some(Doing::Storing {
            ticket,
            next: Box::new(next),
            reply,
            turn: want.turn,
        });
    }

    pub(super) fn ledger_stored(
        &mut self,
        now: Now,
        name: &DeviceName,
        ticket: Ticket,
        how: Stored,
        effects: &mut Vec<Effect>,
    ) {
        let Some(device) = self.devices.get_mut(name) else {
            return;
        };
        match device.doing.take() {
            Some(Doing::Storing {
                ticket: of,
                next,
                reply,
                turn,
            }) if of == ticket => {
                if let Stored::Yes(revision) = how {
                    device.ledger = *next;
                    device.revision = Some(revision);
                    effects.push(device.answer(reply, turn, now, WantSay::Ledger));
                } else {
                    device.doing = Some(Doing::Loading { again_ms: None });
                    effects.push(Effect::Load {
                        key: Key::Ledger(name.clone()),
                    });
                    let say = WantSay::Nothing { again_ms: BUSY_MS };
                    effects.push(device.answer(reply, turn, now, say));
                }
            }
            other => device.doing = other,
        }
    }
}
