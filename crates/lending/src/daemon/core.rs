//! What a daemon has, and how it takes in what happens.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::{mpsc, oneshot, watch as channel};
use undercroft_folder::confined::Confined;
use undercroft_lend::{
    device::{Device, Effect, Entry, Input},
    offer::Offer,
    wire::{Assignment, Ended, Holding, Out},
};
use undercroft_sandbox::Yard;

use super::{
    content::{Content, Uses},
    job::{Outcome, Seen, Wish, lock},
    keep::Keep,
    usage::{self, Usage},
};
use crate::{
    bus::Bus,
    clock,
    device_keys::OwnKeys,
    idle::{Seat, Session},
    keys::UserKey,
    owner::{LogLine, OwnerAnswer, Paused},
    policy::{Narrowed, Policy, runtime_name},
    watch::{Buses, Roots},
};

/// What waits to be looked at, at most: jobs' ends and answers, of which each has asked for its own.
pub(super) const HAPPENED_MAX: usize = 256;
/// How long it rests before the disk is tried again.
pub(super) const DISK_REST: Duration = Duration::from_secs(2);

/// Something that has happened beside the daemon's own thread of work.
#[derive(Debug)]
pub(super) enum Happened {
    Input(Input),
    Ran(Holding, Box<Outcome>),
    /// What a job made is at the server, or isn't; and what is to be said then.
    Brought(Out, Result<(), String>),
    /// The server didn't answer something; it is asked again.
    Unanswered(String),
    /// Something can't be done, and nothing follows from it.
    Trouble(String),
}

/// A job that was begun in this start of the daemon.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) assignment: Assignment,
    pub(super) began_ms: u64,
    pub(super) joules: Option<u64>,
    pub(super) wish: channel::Sender<Wish>,
    pub(super) seen: Arc<Mutex<Seen>>,
    /// Its artefacts stay as long as this does.
    pub(super) _uses: Uses,
}

/// Somebody waits for something to be so.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) what: WaitsFor,
    pub(super) since_ms: u64,
    pub(super) until_ms: u64,
    pub(super) answer: oneshot::Sender<OwnerAnswer>,
}

#[derive(Debug)]
pub(super) enum WaitsFor {
    /// Nothing is lent, nothing is left, and all of it is signed.
    Revoked { ended: Vec<String> },
    /// A consent with that number or a later one.
    Consent { number: u64 },
}

/// What a daemon says of what it does, for its log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// Why it takes no work; none where it does.
    pub why_not: Vec<String>,
    /// The jobs that it holds, with how far they are.
    pub jobs: Vec<(String, String)>,
    /// Whether it is connected.
    pub is_connected: bool,
}

/// The daemon.
#[derive(Debug)]
pub struct Daemon {
    pub(super) policy: Policy,
    pub(super) narrowed: Narrowed,
    pub(super) state: Confined,
    pub(super) offered: Offer,
    pub(super) roots: Roots,
    pub(super) key: Arc<UserKey>,
    pub(super) device: Device<OwnKeys>,
    pub(super) keep: Keep,
    pub(super) usage: Usage,
    pub(super) content: Content,
    pub(super) paused: Option<Paused>,
    /// What the device begins with.
    pub(super) first: Vec<Effect>,
    pub(super) jobs: BTreeMap<Holding, Job>,
    /// What is under way to the server, and what is there.
    pub(super) bringing: BTreeSet<Holding>,
    pub(super) brought: BTreeSet<Holding>,
    pub(super) yard: Option<Arc<Yard>>,
    /// Why nothing can be confined.
    pub(super) no_yard: Option<String>,
    /// Nothing of an earlier daemon is left.
    pub(super) is_swept: bool,
    pub(super) kills: Vec<Holding>,
    pub(super) bus: Option<Bus>,
    pub(super) buses: Buses,
    pub(super) session: Option<Session>,
    pub(super) seat: Option<channel::Receiver<Seat>>,
    pub(super) why_not: BTreeSet<String>,
    pub(super) happens: mpsc::Sender<Happened>,
    pub(super) happened: mpsc::Receiver<Happened>,
    pub(super) waiting: Vec<Waiting>,
    /// What went wrong last with a file of the state folder.
    pub(super) trouble: Option<String>,
    /// Why the server didn't answer, where it hasn't since.
    pub(super) unanswered: Option<String>,
    pub(super) told: channel::Sender<Told>,
}

impl Daemon {
    /// Takes in what happened, and all that follows from it.
    pub(super) async fn step(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let effects = self.device.step(clock::now(), input);
            let mut keeps = Vec::new();
            for effect in effects {
                match effect {
                    Effect::Keep { ticket, entry } => {
                        keeps.push((ticket, entry));
                    }
                    other => inputs.extend(self.carry_out(other)),
                }
            }
            if keeps.is_empty() {
                continue;
            }
            // A disk may take long. What is to be frozen or killed is, before that.
            tokio::task::yield_now().await;
            for (ticket, entry) in keeps {
                match self.keep.add(&entry) {
                    Ok(()) => inputs.push_back(Input::Kept(ticket)),
                    Err(error) => {
                        self.trouble = Some(error.to_string());
                        let input = Input::NotKept(ticket);
                        match *entry {
                            // It is asked for again at once, and the disk needs a rest.
                            Entry::Began { .. } => self.later(DISK_REST, input),
                            _ => inputs.push_back(input),
                        }
                    }
                }
            }
        }
        self.settle();
    }

    /// Takes in what has happened beside.
    pub(super) async fn take(&mut self, happened: Happened) {
        match happened {
            Happened::Input(input) => {
                if let Input::WantAnswered(_) | Input::BeatAnswered(_) | Input::OutAnswered(_) =
                    &input
                {
                    self.unanswered = None;
                }
                if let Input::WantAnswered(answer) = &input
                    && matches!(answer.say, undercroft_lend::wire::WantSay::Assigned(_))
                {
                    // What was seen half a minute ago isn't enough to begin a job on.
                    self.look().await;
                }
                self.step(input).await;
            }
            Happened::Ran(holding, outcome) => {
                self.note(&holding, &outcome);
                self.step(outcome.input).await;
            }
            Happened::Trouble(why) => self.trouble = Some(why),
            Happened::Unanswered(why) => self.unanswered = Some(why),
            Happened::Brought(out, done) => {
                self.bringing.remove(&out.holding);
                match done {
                    Ok(()) => {
                        self.brought.insert(out.holding.clone());
                        self.say_out(&out);
                    }
                    Err(why) => self.trouble = Some(why),
                }
            }
        }
    }

    /// Keeps for the owner what a job was.
    fn note(&mut self, holding: &Holding, outcome: &Outcome) {
        let (Some(job), Some(usage)) = (self.jobs.get(holding), outcome.usage) else {
            return;
        };
        let (how, bytes_out) = match &outcome.input {
            Input::Ended {
                exit: undercroft_lend::device::Exit::Done { bytes, .. },
                ..
            } => ("done", *bytes),
            Input::Ended {
                exit: undercroft_lend::device::Exit::Failed { .. },
                ..
            } => ("failed", 0),
            _ => ("returned", 0),
        };
        let joules = usage::joules(&self.roots.sys);
        let joules = joules
            .zip(job.joules)
            .map(|(now, then)| now.saturating_sub(then));
        let line = LogLine {
            job: holding.job.to_string(),
            epoch: holding.epoch.0,
            tenant: job.assignment.job.tenant.to_string(),
            runtime: runtime_name(job.assignment.job.runtime).to_owned(),
            began_ms: job.began_ms,
            ended_ms: clock::now().wall_ms,
            how: how.to_owned(),
            ran_ms: usage.wall_ms,
            cpu_ms: usage.cpu_ms,
            bytes_in: lock(&job.seen).bytes_in,
            bytes_out,
            joules,
        };
        if let Err(error) = self.usage.add(&line) {
            self.trouble = Some(error.to_string());
        }
    }

    /// Whether something has to be brought before it is said how a job ended.
    pub(super) fn is_to_bring(&self, out: &Out) -> bool {
        let makes = matches!(out.ended, Ended::Done { .. } | Ended::Failed { .. });
        makes && !self.brought.contains(&out.holding)
    }
}
