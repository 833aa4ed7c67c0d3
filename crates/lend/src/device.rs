//! The device: one state machine that asks for work, checks it again, runs it, and gives it back.
//!
//! The owner comes first: what they say takes effect here, with or without a network and a disk that can be
//! written. A job is begun only when the record that says so, and under which consent, is durable; nothing is
//! given back before no process of it is left; and a lease that can't be renewed ends here before it ends at
//! the server.

pub mod held;

mod ledger;
mod owner;
mod requests;
mod seam;
mod state;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use undercroft_model::Now;

use crate::{
    consent::{Gone, Said, Sign, Verify},
    wire::{Ended, Holding},
};
use held::{Held, Phase};
use state::{Requests, Saying, Unbegun};

pub use seam::{
    ANSWER_MS_MAX, CLOCK_MS_MAX, DISK_REST_MS, Effect, Entry, Exit, Hindrance, Input,
    LEASE_LEFT_MS_MIN, OwnerSays, RETRY_MS_MAX, RETRY_MS_MIN, Restored, Settings, Ticket,
    UNBEGUN_REST_MS_MAX, UNBEGUN_REST_MS_MIN,
};
pub use state::Device;

impl<S: Sign + Verify> Device<S> {
    /// A device that begins with what it has kept. What ran before is killed, and what had ended is reported.
    pub fn new(settings: Settings, sign: S, restored: Restored, now: Now) -> (Self, Vec<Effect>) {
        let start = restored.starts.saturating_add(1);
        let open = restored.ledger.open().clone();
        let mut device = Self {
            settings,
            sign,
            start,
            started: None,
            ledger: restored.ledger,
            have: None,
            saying: None,
            to_say: VecDeque::new(),
            say_again_ms: None,
            held: BTreeMap::new(),
            why_not: BTreeSet::from(["it was just started".to_owned()]),
            is_paused: false,
            is_revoked: false,
            is_clock_far_off: false,
            disk_rests_until_ms: None,
            unbegun: None,
            seen_ms: now.mono_ms,
            refused: None,
            requests: Requests::default(),
            next_ticket: 0,
        };
        let mut effects = Vec::new();
        let ticket = device.ticket();
        device.started = Some(ticket);
        effects.push(Effect::Keep {
            ticket,
            entry: Box::new(Entry::Began { start }),
        });
        for (job, epoch) in open {
            let holding = Holding { job, epoch };
            let phase = match restored.ended.get(&holding) {
                Some(ended) => Phase::reporting(ended.clone(), false),
                None => {
                    effects.push(Effect::Kill(holding.clone()));
                    Phase::Killing {
                        ended: Ended::Returned {
                            why: "the daemon was started anew".to_owned(),
                        },
                    }
                }
            };
            let held = Held::restored(holding.clone(), phase, now.mono_ms);
            device.held.insert(holding.job, held);
        }
        (device, effects)
    }

    /// Takes in what happened.
    pub fn step(&mut self, now: Now, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.seen_ms = now.mono_ms;
        match input {
            Input::Kept(ticket) => self.kept(now, ticket, &mut effects),
            Input::NotKept(ticket) => self.not_kept(now, ticket, &mut effects),
            Input::WantAnswered(answer) => self.want_answered(now, answer),
            Input::BeatAnswered(answer) => self.beat_answered(now, answer, &mut effects),
            Input::OutAnswered(answer) => self.out_answered(now, answer, &mut effects),
            Input::Ended { holding, exit } => self.ended(now, holding, exit, &mut effects),
            Input::Gone(holding) => self.gone(&holding, &mut effects),
            Input::Wiped(holding) => self.wiped(&holding),
            Input::May(why_not) => {
                self.why_not = why_not;
                self.yield_or_go_on(now, &mut effects);
                self.ask_soon(now);
            }
            Input::Owner(says) => self.owner(now, says, &mut effects),
            Input::Tick => {}
        }
        self.pass_time(now, &mut effects);
        self.say_next(now, &mut effects);
        self.ask(now, &mut effects);
        effects
    }

    /// When time changes something by itself, in milliseconds of the clock that never goes back. That clock
    /// has to go on while the machine sleeps.
    pub fn next_deadline(&self) -> Option<u64> {
        if !self.is_ready() {
            return None;
        }
        let pause_ms = self.settings.pause_ms;
        let held = self
            .held
            .values()
            .filter_map(|held| held.deadline(pause_ms));
        // The end of the ledger is said with each request, so none is sent while that is being written.
        let requests = self.saying.is_none().then(|| self.requests.deadline());
        let rests = self
            .say_again_ms
            .into_iter()
            .chain(self.disk_rests_until_ms)
            .chain(self.resting().map(|unbegun| unbegun.until_ms));
        held.chain(requests.flatten()).chain(rests).min()
    }

    /// A job has ended by itself.
    fn ended(&mut self, now: Now, holding: Holding, exit: Exit, effects: &mut Vec<Effect>) {
        let ticket = self.ticket();
        let Some(held) = self
            .held
            .get_mut(&holding.job)
            .filter(|h| h.holding == holding)
        else {
            return;
        };
        match &held.phase {
            Phase::Running { .. } => {
                let ended = match exit {
                    Exit::Done { output, bytes } => Ended::Done { output, bytes },
                    Exit::Failed { why } => Ended::Failed {
                        why: crate::wire::tail(&why),
                    },
                    Exit::Returned { why, hindrance } => {
                        return self.given_back(now, &holding, why, hindrance, effects);
                    }
                };
                self.unbegun = None;
                effects.push(Effect::Keep {
                    ticket,
                    entry: Box::new(Entry::Ended {
                        holding,
                        ended: ended.clone(),
                    }),
                });
                held.phase = Phase::Keeping { ticket, ended };
            }
            // It was to be killed, and is gone without that. What it made isn't kept: the owner, or the end of
            // the lease, was first.
            Phase::Killing { .. } => self.gone(&holding, effects),
            _ => {}
        }
    }

    /// A job could not be begun here, or not gone on with.
    fn given_back(
        &mut self,
        now: Now,
        of: &Holding,
        why: String,
        hindrance: Hindrance,
        effects: &mut Vec<Effect>,
    ) {
        let why = crate::wire::tail(&why);
        if hindrance == Hindrance::Device {
            self.unbegun = Some(Unbegun::after(self.unbegun.as_ref(), &why, now.mono_ms));
        }
        let ended = match hindrance {
            Hindrance::Fit => Ended::Declined { why },
            Hindrance::Device | Hindrance::Passing => Ended::Returned { why },
        };
        if let Some(held) = self.held.get_mut(&of.job) {
            held.wipe(Gone::Killed, Some(ended), effects);
        }
    }

    /// No process of a job is left.
    fn gone(&mut self, holding: &Holding, effects: &mut Vec<Effect>) {
        let held = self.held.get_mut(&holding.job);
        let Some(held) = held.filter(|held| held.holding == *holding) else {
            return;
        };
        let ended = match &held.phase {
            Phase::Killing { ended } => ended.clone(),
            // Nobody has asked for it: what can't be frozen, or let go on, is killed where it runs.
            Phase::Running { .. } => Ended::Returned {
                why: "it could not be frozen or let go on, and was killed".to_owned(),
            },
            _ => return,
        };
        held.wipe(Gone::Killed, Some(ended), effects);
    }

    /// No file of a job is left.
    fn wiped(&mut self, holding: &Holding) {
        if let Some(held) = self.held.get_mut(&holding.job)
            && held.holding == *holding
            && let Phase::Wiping { gone, report } = &held.phase
        {
            let said = Said::Receipt {
                job: holding.job.clone(),
                epoch: holding.epoch,
                gone: *gone,
            };
            held.phase = Phase::Receipt {
                report: report.clone(),
            };
            let saying = Saying::Receipt(holding.clone());
            self.to_say.push_back((said, saying));
        }
    }

    fn pass_time(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.disk_rests_until_ms
            .take_if(|until_ms| *until_ms <= now.mono_ms);
        let pause_ms = self.settings.pause_ms;
        let consent = self.ledger.consent();
        let is_over = consent.is_some_and(|consent| !consent.is_good_at(now.wall_ms));
        for held in self.held.values_mut() {
            let why = if held.lease_until_ms <= now.mono_ms {
                "its lease could not be renewed in time"
            } else if held.is_frozen_until(pause_ms) <= now.mono_ms {
                "its owner wants the machine"
            } else if is_over {
                "its owner's consent has ended"
            } else {
                continue;
            };
            let why = why.to_owned();
            Self::kill(held, Ended::Returned { why }, effects);
        }
    }
}
