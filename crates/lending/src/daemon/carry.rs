//! The device's effects, carried out.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio::{sync::watch as channel, time::sleep};
use undercroft_lend::{
    device::{ANSWER_MS_MAX, Effect, Exit, Hindrance, Input},
    server::WANT_MS_MAX,
    wire::{Assignment, AtOut, AtWant, Ended, Holding, Out, read, write},
};

use super::{
    content::{Content, ContentError},
    core::{Daemon, Happened, Job},
    job::{Seen, Task, Wish, lock},
    usage,
};
use crate::{
    bus::{Bus, BusError, BusLink},
    clock,
};

/// How long it rests before files of a job are tried to be removed again.
const WIPE_REST: Duration = Duration::from_secs(5);
/// The first rest before something is asked again that nobody listened to, in milliseconds; it doubles from there. The
/// server of lending is started anew within a second as a rule.
const NOBODY_REST_MS_MIN: u64 = 250;
/// The longest such rest, in milliseconds: a server that is away for hours costs a PC some ten messages a minute.
const NOBODY_REST_MS_MAX: u64 = 8_000;

impl Daemon {
    /// Carries an effect out, or begins to. What is known at once is handed back.
    pub(super) fn carry_out(&mut self, effect: Effect) -> Option<Input> {
        match effect {
            Effect::Keep { .. } => None,
            Effect::Want {
                mut want,
                records_from,
            } => {
                match self.keep.records(records_from) {
                    Ok(records) => want.records = records,
                    Err(error) => self.trouble = Some(error.to_string()),
                }
                let subject = format!("lend.want.{}", self.policy.device);
                let limit_ms = WANT_MS_MAX + ANSWER_MS_MAX;
                self.ask_server(
                    subject,
                    write(&AtWant::Want(want)),
                    limit_ms,
                    Input::WantAnswered,
                );
                None
            }
            Effect::Beat(beat) => {
                let subject = format!("lend.beat.{}", self.policy.device);
                self.ask_server(subject, write(&beat), ANSWER_MS_MAX, Input::BeatAnswered);
                None
            }
            Effect::Out(out) => {
                self.out(out);
                None
            }
            Effect::Run(assignment) => self.begin(*assignment),
            Effect::Freeze(holding) => self.wish(&holding, Wish::Freeze),
            Effect::Thaw(holding) => self.wish(&holding, Wish::Run),
            Effect::Kill(holding) => self.kill(holding),
            Effect::Wipe(holding) => {
                self.wipe(holding);
                None
            }
        }
    }

    /// Asks the server in the background. Without an answer the device asks again by itself.
    fn ask_server<T: DeserializeOwned + Send + 'static>(
        &self,
        subject: String,
        message: Vec<u8>,
        limit_ms: u64,
        input: fn(T) -> Input,
    ) {
        let Some(bus) = self.bus.clone() else {
            return;
        };
        let happens = self.happens.clone();
        let message = Bytes::from(message);
        tokio::spawn(async move {
            let ask = async {
                // What is asked before there is a connection, or gets lost with one, is asked as soon as there is
                // one again: the same twice does no harm.
                let mut link = bus.link();
                let mut rest_ms = NOBODY_REST_MS_MIN;
                loop {
                    link.wait_for(|link| *link == BusLink::Up).await.ok()?;
                    let mut lost = link.clone();
                    let answer = tokio::select! {
                        answer = bus.request(subject.clone(), message.clone(), limit_ms) => answer,
                        gone = lost.wait_for(|link| *link != BusLink::Up) => {
                            drop(gone.ok()?);
                            continue;
                        }
                    };
                    let nobody = match answer {
                        Err(nobody @ BusError::Nobody { .. }) => nobody.to_string(),
                        answer => return Some(answer.map_err(|e| e.to_string())),
                    };
                    if rest_ms == NOBODY_REST_MS_MIN {
                        happens.send(Happened::Unanswered(nobody)).await.ok()?;
                    }
                    sleep(Duration::from_millis(rest_ms)).await;
                    rest_ms = rest_ms.saturating_mul(2).min(NOBODY_REST_MS_MAX);
                }
            };
            let limit = Duration::from_millis(limit_ms);
            let Ok(Some(answer)) = tokio::time::timeout(limit, ask).await else {
                return;
            };
            let read = answer.and_then(|answer| read::<T>(&answer).map_err(|e| e.to_string()));
            // Nobody listens any more when the daemon has ended.
            let _ = match read {
                Ok(answer) => happens.send(Happened::Input(input(answer))).await,
                Err(why) => happens.send(Happened::Unanswered(why)).await,
            };
        });
    }

    /// Something is to be taken in after a while.
    pub(super) fn later(&self, rest: Duration, input: Input) {
        let happens = self.happens.clone();
        tokio::spawn(async move {
            sleep(rest).await;
            let _ = happens.send(Happened::Input(input)).await;
        });
    }

    fn wish(&self, holding: &Holding, wish: Wish) -> Option<Input> {
        if let Some(job) = self.jobs.get(holding) {
            job.wish.send_replace(wish);
        }
        None
    }

    fn kill(&mut self, holding: Holding) -> Option<Input> {
        if self.jobs.contains_key(&holding) {
            return self.wish(&holding, Wish::Kill);
        }
        if !self.is_swept {
            // One of before: it is gone when all of that is.
            self.kills.push(holding);
            return None;
        }
        Some(Input::Gone(holding))
    }

    fn begin(&mut self, assignment: Assignment) -> Option<Input> {
        let holding = Holding {
            job: assignment.job.id.clone(),
            epoch: assignment.epoch,
        };
        let (Some(yard), Some(bus)) = (self.yard.clone(), self.bus.clone()) else {
            let why = self.no_yard.clone();
            let why = why.unwrap_or_else(|| "the daemon isn't connected".to_owned());
            let hindrance = match self.yard {
                Some(_) => Hindrance::Passing,
                None => Hindrance::Device,
            };
            let exit = Exit::Returned { why, hindrance };
            return Some(Input::Ended { holding, exit });
        };
        let (wish, wished) = channel::channel(Wish::Run);
        let seen = Arc::new(Mutex::new(Seen::default()));
        let job = Job {
            assignment: assignment.clone(),
            began_ms: clock::now().wall_ms,
            joules: usage::joules(&self.roots.sys),
            wish,
            seen: Arc::clone(&seen),
            _uses: self.content.uses(&assignment.job),
        };
        self.jobs.insert(holding.clone(), job);
        let task = Task {
            assignment,
            holding: holding.clone(),
            content: self.content.clone(),
            bus,
            yard,
            wish: wished,
            seen,
        };
        let happens = self.happens.clone();
        tokio::spawn(async move {
            let outcome = Box::new(task.run().await);
            let _ = happens.send(Happened::Ran(holding, outcome)).await;
        });
        None
    }

    /// Removes all files of a job; it is tried until nothing is left.
    fn wipe(&mut self, holding: Holding) {
        self.brought.remove(&holding);
        let running = self
            .jobs
            .remove(&holding)
            .and_then(|job| lock(&job.seen).running.take());
        let (content, happens) = (self.content.clone(), self.happens.clone());
        tokio::spawn(async move {
            if let Some(running) = running.and_then(Arc::into_inner)
                && let Err(error) = running.wipe().await
            {
                // No receipt is given for what is still there: the next daemon sweeps it and gives one.
                let _ = happens.send(Happened::Trouble(error.to_string())).await;
                return;
            }
            while content.wipe(&holding).is_err() {
                sleep(WIPE_REST).await;
            }
            let _ = happens.send(Happened::Input(Input::Wiped(holding))).await;
        });
    }

    /// Says how a job ended, when what it made is there.
    fn out(&mut self, out: Out) {
        if !self.is_to_bring(&out) {
            return self.say_out(&out);
        }
        let Some(bus) = self.bus.clone() else {
            return;
        };
        if !self.bringing.insert(out.holding.clone()) {
            // It is on its way. The device says it again.
            return;
        }
        let (content, happens) = (self.content.clone(), self.happens.clone());
        tokio::spawn(async move {
            let done = bring(&content, &bus, &out).await;
            let done = done.map_err(|error| error.to_string());
            let _ = happens.send(Happened::Brought(out, done)).await;
        });
    }

    pub(super) fn say_out(&self, out: &Out) {
        let Holding { job, epoch } = &out.holding;
        let subject = format!("lend.out.{}.{job}.{epoch}", self.policy.device);
        let message = write(&AtOut::Out(out.clone()));
        self.ask_server(subject, message, ANSWER_MS_MAX, Input::OutAnswered);
    }
}

/// Brings what a job made, as far as the server wants it.
async fn bring(content: &Content, bus: &Bus, out: &Out) -> Result<(), ContentError> {
    let log = content.bring_log(bus, &out.holding).await;
    match out.ended {
        // A result counts without its log.
        Ended::Done { output, bytes } => {
            match content.bring_output(bus, &out.holding, output, bytes).await {
                Err(ContentError::Refused { .. }) => Ok(()),
                brought => brought,
            }
        }
        // A log that isn't taken, now or at all, is no reason to say nothing.
        _ => match log {
            Err(ContentError::Refused { .. } | ContentError::NotYet { .. }) => Ok(()),
            brought => brought,
        },
    }
}
