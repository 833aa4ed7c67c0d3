//! What a device asks the server, and what it does with the answers.

use undercroft_model::Now;

use super::{
    held::{Held, Phase},
    seam::{ANSWER_MS_MAX, CLOCK_MS_MAX, Effect, LEASE_LEFT_MS_MIN},
    state::{Asked, Device},
};
use crate::{
    consent::{Sign, Verify},
    ids::Turn,
    offer::Misfit,
    server::WANT_MS_MAX,
    wire::{
        Assignment, Beat, BeatAnswer, BeatSay, Ended, Holding, Out, OutAnswer, OutSay, Want,
        WantAnswer, WantSay,
    },
};

impl<S: Sign + Verify> Device<S> {
    /// Sends what is due.
    pub(super) fn ask(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if !self.is_ready() {
            return;
        }
        self.ask_for_work(now, effects);
        let jobs: Vec<_> = self.held.keys().cloned().collect();
        for job in jobs {
            let (beat, out) = (self.turn(), self.turn());
            if let Some(held) = self.held.get_mut(&job) {
                renew(held, beat, now, effects);
                report(held, out, now, effects);
            }
        }
    }

    fn ask_for_work(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.saying.is_some() {
            return;
        }
        let takes_work = self.why_not().is_empty();
        let requests = &mut self.requests;
        let late = requests
            .asked
            .take_if(|asked| asked.until_ms <= now.mono_ms);
        if late.is_some() {
            requests.is_answered = false;
            requests.again.later(now.mono_ms);
        }
        // A server that still waits to answer would hand out what is declined. The newer request takes the place of
        // the earlier one, whose answer isn't heard any more.
        let is_over = requests
            .asked
            .take_if(|asked| asked.takes_work && !takes_work);
        let is_due = is_over.is_some() || now.mono_ms >= requests.again.at_ms;
        if requests.asked.is_some() || !is_due {
            return;
        }
        let turn = self.turn();
        let want = Want {
            turn,
            holds: self
                .held
                .values()
                .map(|held| held.holding.clone())
                .collect(),
            head: self.ledger.head(),
            records: Vec::new(),
            takes_work,
        };
        effects.push(Effect::Want {
            want,
            records_from: self.have.map_or(0, |head| head.number.saturating_add(1)),
        });
        let until_ms = now.mono_ms + WANT_MS_MAX + ANSWER_MS_MAX;
        self.requests.asked = Some(Asked {
            turn,
            sent_ms: now.mono_ms,
            until_ms,
            takes_work,
        });
    }

    /// Asks without a rest where work is taken by now; a server that didn't answer is left its rest.
    pub(super) fn ask_soon(&mut self, now: Now) {
        if self.why_not().is_empty() && self.requests.is_answered {
            self.requests.again.after(now.mono_ms, 0);
        }
    }

    pub(super) fn want_answered(&mut self, now: Now, answer: WantAnswer) {
        let answered = |asked: &mut Asked| asked.turn == answer.turn;
        let Some(asked) = self.requests.asked.take_if(answered) else {
            return;
        };
        let sent_ms = asked.sent_ms;
        self.requests.is_answered = true;
        self.have = answer.have;
        self.refused = None;
        self.is_clock_far_off = answer.wall_ms.abs_diff(now.wall_ms) > CLOCK_MS_MAX;
        let rest_ms = match answer.say {
            WantSay::Assigned(assignment) => {
                self.assigned(now, sent_ms, assignment);
                0
            }
            // It has begun to take work while this was on its way.
            WantSay::Nothing { .. } if !asked.takes_work && self.why_not().is_empty() => 0,
            WantSay::Nothing { again_ms } => again_ms,
            WantSay::Ledger => 0,
            WantSay::Refused { why } => {
                self.refused = Some(format!("the server gives it no work: {why}"));
                self.requests.is_answered = false;
                self.requests.again.later(now.mono_ms);
                return;
            }
        };
        self.requests.again.after(now.mono_ms, rest_ms);
    }

    /// Checks once more what the server has checked, and takes the job or declines it.
    fn assigned(&mut self, now: Now, sent_ms: u64, assignment: Box<Assignment>) {
        let holding = Holding {
            job: assignment.job.id.clone(),
            epoch: assignment.epoch,
        };
        if self.held.contains_key(&holding.job) {
            // It is held from an earlier time. The server takes the new one back: it isn't among what is held.
            return;
        }
        let lease_until_ms = sent_ms.saturating_add(assignment.lease_ms);
        let checked = self.check(now, &assignment, lease_until_ms);
        let beat_at_ms = now.mono_ms.saturating_add(self.settings.beat_ms);
        let consent = assignment.consent;
        let held = Held::assigned(assignment, lease_until_ms, beat_at_ms);
        match checked {
            Ok(()) => self.take(held, consent),
            Err(ended) => {
                self.held.insert(holding.job.clone(), held);
                self.never_begun(&holding, ended);
            }
        }
    }

    fn check(&self, now: Now, assignment: &Assignment, lease_until_ms: u64) -> Result<(), Ended> {
        let returned = |why: String| Ended::Returned { why };
        if let Some(why) = self.why_not().into_iter().next() {
            return Err(returned(why));
        }
        if lease_until_ms < now.mono_ms.saturating_add(LEASE_LEFT_MS_MIN) {
            return Err(returned(
                "its lease was nearly over when it came".to_owned(),
            ));
        }
        let consent = self.ledger.consent();
        let consent = consent.filter(|consent| consent.number == assignment.consent);
        let Some(consent) = consent else {
            let why = format!("consent {} doesn't hold here", assignment.consent);
            return Err(returned(why));
        };
        if !consent.is_good_at(now.wall_ms) {
            return Err(returned("its owner's consent has ended".to_owned()));
        }
        // Reports that are still on their way hold no room, but the server has to hear of them first.
        consent
            .offer
            .fits(&assignment.job, self.used())
            .map_err(|misfit| match misfit {
                Misfit::Room { .. } => returned(misfit.to_string()),
                other => Ended::Declined {
                    why: other.to_string(),
                },
            })
    }

    pub(super) fn beat_answered(
        &mut self,
        now: Now,
        answer: BeatAnswer,
        effects: &mut Vec<Effect>,
    ) {
        let beat_ms = self.settings.beat_ms;
        let asked = |held: &&mut Held| held.beating.is_some_and(|(turn, ..)| turn == answer.turn);
        let Some(held) = self.held.values_mut().find(asked) else {
            return;
        };
        let Some((_, sent_ms, _)) = held.beating.take() else {
            return;
        };
        match answer.say {
            BeatSay::Go { lease_ms } => {
                let until_ms = sent_ms.saturating_add(lease_ms);
                held.lease_until_ms = held.lease_until_ms.max(until_ms);
                held.beat_again.after(sent_ms, beat_ms);
            }
            BeatSay::Again { after_ms } => held.beat_again.after(now.mono_ms, after_ms),
            BeatSay::Stop { why } => {
                held.beat_again.after(now.mono_ms, beat_ms);
                Self::kill(held, Ended::Returned { why }, effects);
            }
        }
    }

    pub(super) fn out_answered(&mut self, now: Now, answer: OutAnswer, effects: &mut Vec<Effect>) {
        let found = self.held.iter_mut().find_map(|(job, held)| {
            let Phase::Reporting {
                asked,
                again,
                is_clean,
                ..
            } = &mut held.phase
            else {
                return None;
            };
            asked.take_if(|(turn, _)| *turn == answer.turn)?;
            if let OutSay::Again { after_ms } = answer.say {
                again.after(now.mono_ms, after_ms);
                return None;
            }
            Some((job.clone(), *is_clean))
        });
        let Some((job, is_clean)) = found else {
            return;
        };
        if is_clean {
            self.held.remove(&job);
        } else if let Some(held) = self.held.get_mut(&job) {
            held.wipe(crate::consent::Gone::Ended, None, effects);
        }
    }
}

fn renew(held: &mut Held, turn: Turn, now: Now, effects: &mut Vec<Effect>) {
    if !held.is_renewed() {
        held.beating = None;
        return;
    }
    let late = held
        .beating
        .take_if(|(_, _, until_ms)| *until_ms <= now.mono_ms);
    if late.is_some() {
        held.beat_again.later(now.mono_ms);
    }
    if held.beating.is_some() || now.mono_ms < held.beat_again.at_ms {
        return;
    }
    held.beating = Some((turn, now.mono_ms, now.mono_ms + ANSWER_MS_MAX));
    effects.push(Effect::Beat(Beat {
        turn,
        holding: held.holding.clone(),
    }));
}

fn report(held: &mut Held, turn: Turn, now: Now, effects: &mut Vec<Effect>) {
    let Phase::Reporting {
        ended,
        asked,
        again,
        ..
    } = &mut held.phase
    else {
        return;
    };
    if asked
        .take_if(|(_, until_ms)| *until_ms <= now.mono_ms)
        .is_some()
    {
        again.later(now.mono_ms);
    }
    if asked.is_some() || now.mono_ms < again.at_ms {
        return;
    }
    *asked = Some((turn, now.mono_ms + ANSWER_MS_MAX));
    effects.push(Effect::Out(Out {
        turn,
        holding: held.holding.clone(),
        ended: ended.clone(),
    }));
}
