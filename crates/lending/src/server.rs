//! The server of lending, beside NATS: it carries out what `lend`'s state machine decides.
//!
//! Everything that counts lies in JetStream ([`store`]); this process can be killed at any moment and begun anew, on
//! this machine or another. Two of them at once do no harm, as each change names what it was made from, and get on:
//! both hear every message, and whoever asked takes the first answer.

mod content;
mod devices;
mod event;
mod metrics;
mod store;
mod submitters;
mod sweep;

use std::{collections::BTreeMap, future::Future, net::SocketAddr, sync::Arc, time::Duration};

use async_nats::{Message, Subject, Subscriber, jetstream::kv::Watch};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use undercroft_lend::{
    DeviceName, JobId,
    server::{
        Answer, Effect, Input, JobSay, Reply, Server, Settings, Stored, Ticket, Value,
        record::State,
    },
    wire::{self, Unreadable, submit::SubmitAnswer},
};
use undercroft_metrics::{Asked, Numbers};
use undercroft_model::advice::{Advice, ErrorKind};
use undercroft_process::clock::now;

use crate::{
    bus::{Bus, BusError, BusLink, BusSettings, Inbox},
    device_keys::NkeyVerify,
    keys::UserKey,
};
use metrics::{Counts, SEEN_MS_MAX};
use store::{Changed, Kept};
use sweep::{Ends, Judge, Swept};

pub use content::Scan;
pub(crate) use content::Scanning;
pub use event::{RefusedFor, ServerEvent, ServerLine};
pub use metrics::MetricsAt;
pub use store::{KEEP_MS, KeptError, StoreSettings};
pub use undercroft_lend::fleet::{FleetFile, LendingFleet, devices};

/// Pieces of work beside the state machine's at once: reads and writes of content, and looks at labels. Each holds
/// at most a part in memory.
const BESIDE_MAX: usize = 32;
/// How many of them one sender may have.
const SHARE_MAX: usize = 8;
/// Requests that wait for an answer, at most. The oldest are forgotten, and asked again by whoever still waits.
const REPLIES_MAX: usize = 20_000;
/// What comes back from the store and waits to be looked at, at most.
const COME_BACK_MAX: usize = 256;
/// How long a request is remembered that wasn't answered, in milliseconds: longer than the longest poll.
const REPLY_MS_MAX: u64 = 120_000;
/// After how long the store is watched again when a watch has ended, in milliseconds.
const WATCH_AGAIN_MS: u64 = 1_000;
/// The longest sleep, in milliseconds: a clock that was set back is noticed by then.
const SLEEP_MS_MAX: u64 = 60_000;

/// What a server goes by.
pub struct ServerSettings {
    /// The inventory's word.
    pub fleet: LendingFleet,
    /// How it reaches NATS.
    pub bus: BusSettings,
    /// How its buckets are made.
    pub store: StoreSettings,
    /// Where its numbers are given, and how it is.
    pub metrics: Option<MetricsAt>,
    /// What looks for secrets in what is brought.
    pub scan: Scan,
}

/// Why a server can't go on.
#[derive(Debug, thiserror::Error)]
pub enum LendServerError {
    /// NATS can't be reached.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The store can't be used.
    #[error(transparent)]
    Store(#[from] KeptError),
    /// It can't listen on a subject.
    #[error("can't listen on {subject}: {detail}")]
    Listen {
        /// Which.
        subject: &'static str,
        /// Why.
        detail: String,
    },
    /// Its numbers can't be given.
    #[error("can't give numbers at {at}: {source}")]
    Metrics {
        /// Where.
        at: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

impl Advice for LendServerError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Bus(error) => error.kind(),
            Self::Store(error) => error.kind(),
            Self::Listen { .. } | Self::Metrics { .. } => ErrorKind::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Bus(error) => error.hint(),
            Self::Store(error) => error.hint(),
            Self::Listen { .. } => None,
            Self::Metrics { .. } => {
                Some("Give another address with --metrics, such as 127.0.0.1:9109.".to_owned())
            }
        }
    }
}

/// What has come back from something that ran beside the state machine.
enum Back {
    Stored {
        ticket: Ticket,
        how: Stored,
    },
    Input(Input),
    /// Something was changed in the store, by this server or by another.
    Changed(Changed),
    /// The store didn't do something, which is asked for again.
    NotKept(KeptError),
    /// A sweep asks what jobs need.
    Judge(Judge),
    /// A sweep has ended.
    Swept(Swept),
    Refused {
        subject: Subject,
        reason: RefusedFor,
        why: String,
    },
    Bytes {
        read: u64,
        sent: u64,
    },
}

/// Who waits for an answer.
struct Waits {
    to: Subject,
    since_ms: u64,
    /// The job that a submitter asks about.
    job: Option<JobId>,
}

/// Room for something beside the state machine, as long as it lasts.
struct Room {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

/// A server that runs.
struct Hub {
    fleet: Arc<LendingFleet>,
    machine: Server<NkeyVerify>,
    /// The server's own key, which draws the jobs that are run twice.
    key: Arc<UserKey>,
    bus: Bus,
    kept: Kept,
    ends: Ends,
    scan: Scan,
    counts: Counts,
    replies: BTreeMap<Reply, Waits>,
    next_reply: u64,
    storing: BTreeMap<Ticket, Value>,
    room: Arc<Semaphore>,
    /// What each sender may have of it; there are as many as the inventory has keys.
    shares: BTreeMap<String, Arc<Semaphore>>,
    back: mpsc::Sender<Back>,
    say: Box<dyn FnMut(ServerEvent)>,
}

/// Serves until `stop` is done.
///
/// # Errors
/// When NATS can't be reached at the beginning, refuses the key, or the store can't be used. What goes wrong later
/// is told, and tried again.
pub async fn serve(
    settings: ServerSettings,
    say: impl FnMut(ServerEvent) + 'static,
    stop: impl Future<Output = ()>,
) -> Result<(), LendServerError> {
    let bus = Bus::connect(&settings.bus).await?;
    let kept = Kept::open(bus.client().clone(), &settings.store).await?;
    let kept_bytes = kept.taken_bytes().await?;
    let (stored, watch) = kept.load().await?;
    let mut ends = Ends::default();
    stored.iter().for_each(|changed| ends.note(changed));
    let (ask, asked) = mpsc::channel(1);
    let metrics = match settings.metrics {
        Some(asked_for) => {
            let at = asked_for.at;
            let failed = |source| LendServerError::Metrics { at, source };
            let listener = metrics::listen(asked_for).await.map_err(failed)?;
            let address = listener.local_addr().map_err(failed)?;
            tokio::spawn(undercroft_metrics::serve(listener, ask));
            Some(address.to_string())
        }
        None => None,
    };
    let machine = Server::new(
        Settings {
            lease_ms: settings.fleet.lease_ms,
            devices: settings.fleet.devices.clone(),
        },
        NkeyVerify,
        stored.into_iter().filter_map(|changed| changed.found),
        now(),
    );
    let messages = listen(&bus).await?;
    let (back, came_back) = mpsc::channel(COME_BACK_MAX);
    let mut hub = Hub {
        fleet: Arc::new(settings.fleet),
        machine,
        key: settings.bus.key,
        bus,
        kept,
        ends,
        scan: settings.scan,
        counts: Counts {
            kept_bytes,
            ..Counts::default()
        },
        replies: BTreeMap::new(),
        next_reply: 0,
        storing: BTreeMap::new(),
        room: Arc::new(Semaphore::new(BESIDE_MAX)),
        shares: BTreeMap::new(),
        back,
        say: Box::new(say),
    };
    hub.tell(ServerEvent::Ready {
        devices: hub.fleet.devices.len(),
        submitters: hub.fleet.submitters.len(),
        open_jobs: hub.machine.jobs().filter(|job| !job.is_over()).count(),
        metrics,
    });
    let follows = tokio::spawn(follow(watch, hub.kept.clone(), hub.back.clone()));
    let sweeps = tokio::spawn(sweep::sweep_on(hub.kept.clone(), hub.back.clone()));
    hub.run(messages, came_back, asked, stop).await;
    follows.abort();
    sweeps.abort();
    hub.bus.close().await;
    Ok(())
}

/// The records of a device's ledger, from the first to its head; `None` where there is no ledger.
pub(crate) async fn ledger_of(
    bus: &Bus,
    device: &DeviceName,
) -> Result<Option<Vec<undercroft_lend::consent::Record>>, KeptError> {
    let kept = Kept::open_existing(bus.client().clone()).await?;
    kept.ledger(device).await
}

async fn listen(bus: &Bus) -> Result<stream::SelectAll<Subscriber>, LendServerError> {
    let mut all = Vec::new();
    for subject in [
        "lend.want.*",
        "lend.beat.*",
        "lend.out.*.*.*",
        "lend.submit.*",
    ] {
        let subscriber = bus.client().subscribe(subject).await;
        let subscriber = subscriber.map_err(|error| LendServerError::Listen {
            subject,
            detail: error.to_string(),
        })?;
        all.push(subscriber);
    }
    // The server knows of them before anything is said to be ready.
    let _ = bus.client().flush().await;
    Ok(stream::select_all(all))
}

impl Hub {
    async fn run(
        &mut self,
        mut messages: stream::SelectAll<Subscriber>,
        mut came_back: mpsc::Receiver<Back>,
        mut asked: mpsc::Receiver<Asked>,
        stop: impl Future<Output = ()>,
    ) {
        let mut stop = std::pin::pin!(stop);
        let mut link = self.bus.link();
        self.step(Input::Tick);
        loop {
            let sleep = tokio::time::sleep(self.sleeps());
            tokio::select! {
                () = &mut stop => return,
                Some(back) = came_back.recv() => self.came_back(back),
                Some(message) = messages.next() => self.heard(message),
                Some(tell) = asked.recv() => {
                    let is_up = *self.bus.link().borrow() == BusLink::Up;
                    let text = self.counts.text(self.machine.jobs(), is_up, now().mono_ms);
                    // Who asked may have gone.
                    let not_ready = (!is_up).then_some("NATS is away");
                    let _ = tell.send(Numbers { text, not_ready });
                }
                Ok(()) = link.changed() => {
                    let event = match &*link.borrow_and_update() {
                        BusLink::Up => ServerEvent::Link { is_up: true, detail: self.bus.url().to_owned() },
                        BusLink::Down { why } => ServerEvent::Link { is_up: false, detail: why.clone() },
                    };
                    self.tell(event);
                }
                () = sleep => self.step(Input::Tick),
            }
            self.forget_replies();
        }
    }

    fn sleeps(&self) -> Duration {
        let now = now();
        let deadline = self.machine.next_deadline(now);
        let ms = deadline.map_or(SLEEP_MS_MAX, |at| at.saturating_sub(now.mono_ms));
        Duration::from_millis(ms.clamp(1, SLEEP_MS_MAX))
    }

    fn tell(&mut self, event: ServerEvent) {
        (self.say)(event);
    }

    fn heard(&mut self, message: Message) {
        let Some(to) = message.reply.clone() else {
            let why = "nobody waits for an answer".to_owned();
            self.refuse(&message.subject, RefusedFor::Malformed, why);
            return;
        };
        let subject = message.subject.clone();
        let words: Vec<&str> = subject.as_str().split('.').collect();
        // NATS looks at where somebody publishes, and not at where they want the answer. This server may publish
        // everywhere, into its own store too, so that only the sender's own inbox is answered.
        let (kind, sender) = match words.as_slice() {
            ["lend", kind, name, ..] => (*kind, *name),
            _ => return,
        };
        let inbox = match kind {
            "submit" => Some(Inbox::Submitter(sender.to_owned())),
            _ => sender.parse().ok().map(Inbox::Device),
        };
        let rest = inbox.and_then(|inbox| to.strip_prefix(inbox.prefix().as_str()));
        if !rest.is_some_and(|rest| rest.starts_with('.')) {
            let why = format!("the answer is to go elsewhere than into the inbox of {sender}");
            self.refuse(&subject, RefusedFor::Inbox, why);
            return;
        }
        match words.as_slice() {
            ["lend", "submit", name] => self.at_submit(name, to, message),
            ["lend", kind, name, rest @ ..] => match name.parse::<DeviceName>() {
                Ok(device) if self.fleet.devices.contains_key(&device) => {
                    self.seen(&device);
                    match *kind {
                        "want" => self.at_want(device, to, message),
                        "beat" => self.at_beat(device, to, message),
                        _ => self.at_out(device, rest, to, message),
                    }
                }
                _ => {
                    let why = format!("{name} is no device of this fleet that lends");
                    self.answer_refused(&subject, to, RefusedFor::Unknown, why);
                }
            },
            _ => {}
        }
    }

    fn seen(&mut self, device: &DeviceName) {
        let mono_ms = now().mono_ms;
        let before = self.counts.seen_ms.insert(device.clone(), mono_ms);
        if before.is_none_or(|at| mono_ms.saturating_sub(at) > SEEN_MS_MAX) {
            self.tell(ServerEvent::Seen {
                device: device.clone(),
            });
        }
    }

    /// Counts a message that is refused, and tells of it.
    fn refuse(&mut self, subject: &Subject, reason: RefusedFor, why: String) {
        self.counts.refuse(reason);
        self.tell(ServerEvent::Refused {
            subject: subject.to_string(),
            reason,
            why,
        });
    }

    /// Refuses a message whose sender can't be answered in the terms of what it asked.
    fn answer_refused(&mut self, subject: &Subject, to: Subject, reason: RefusedFor, why: String) {
        let answer = wire::NotRead { why: why.clone() };
        self.send(to, wire::write(&answer));
        self.refuse(subject, reason, why);
    }

    fn unreadable(&mut self, subject: &Subject, to: Subject, error: &Unreadable) {
        let reason = match error {
            Unreadable::TooLarge { .. } => RefusedFor::TooLarge,
            Unreadable::OtherVersion { .. } => RefusedFor::OtherVersion,
            Unreadable::Malformed { .. } => RefusedFor::Malformed,
        };
        self.answer_refused(subject, to, reason, error.to_string());
    }

    /// Sends an answer. One that is lost is asked for again.
    fn send(&self, to: Subject, bytes: Vec<u8>) {
        send(&self.bus, to, bytes);
    }

    /// Takes room for something beside the state machine: some of all that there is, and of the sender's own share.
    fn room(&mut self, subject: &Subject) -> Option<Room> {
        let sender = subject.split('.').take(3).collect::<Vec<_>>().join(".");
        let own = self.shares.entry(sender);
        let own = own.or_insert_with(|| Arc::new(Semaphore::new(SHARE_MAX)));
        let own = Arc::clone(own).try_acquire_owned().ok()?;
        let all = Arc::clone(&self.room).try_acquire_owned().ok()?;
        Some(Room {
            _own: own,
            _all: all,
        })
    }

    fn waits(&mut self, to: Subject, job: Option<JobId>) -> Reply {
        while self.replies.len() >= REPLIES_MAX {
            self.replies.pop_first();
        }
        self.next_reply += 1;
        let reply = Reply(self.next_reply);
        let since_ms = now().mono_ms;
        self.replies.insert(reply, Waits { to, since_ms, job });
        reply
    }

    /// Forgets requests that nobody waits for any more.
    fn forget_replies(&mut self) {
        let mono_ms = now().mono_ms;
        while let Some(first) = self.replies.first_entry() {
            if mono_ms.saturating_sub(first.get().since_ms) <= REPLY_MS_MAX {
                return;
            }
            first.remove();
        }
    }

    fn step(&mut self, input: Input) {
        for effect in self.machine.step(now(), input) {
            match effect {
                Effect::Store {
                    ticket,
                    key,
                    value,
                    records,
                    expect,
                } => {
                    self.storing.insert(ticket, value.clone());
                    let (kept, back) = (self.kept.clone(), self.back.clone());
                    tokio::spawn(async move {
                        let (how, error) = kept.set(&key, &value, &records, expect).await;
                        // Where nobody hears it any more the server has ended.
                        if let Some(error) = error {
                            let _ = back.send(Back::NotKept(error)).await;
                        }
                        let _ = back.send(Back::Stored { ticket, how }).await;
                    });
                }
                Effect::Load { key } => {
                    let (kept, back) = (self.kept.clone(), self.back.clone());
                    tokio::spawn(async move {
                        let input = match kept.get(&key).await {
                            Some(found) => Input::Loaded { key, found },
                            None => Input::NotLoaded { key },
                        };
                        let _ = back.send(Back::Input(input)).await;
                    });
                }
                Effect::Answer { reply, answer } => self.answer(reply, &answer),
            }
        }
    }

    fn answer(&mut self, reply: Reply, answer: &Answer) {
        let Some(waits) = self.replies.remove(&reply) else {
            return;
        };
        let bytes = match answer {
            Answer::Want(answer) => wire::write(answer),
            Answer::Beat(answer) => wire::write(answer),
            Answer::Out(answer) => wire::write(answer),
            Answer::Job(say) => wire::write(&self.job_answer(waits.job.as_ref(), say)),
        };
        self.send(waits.to, bytes);
    }

    fn job_answer(&self, job: Option<&JobId>, say: &JobSay) -> SubmitAnswer {
        let refused = |why: String| SubmitAnswer::Refused { why };
        match say {
            JobSay::Kept(_) => match job.and_then(|id| self.machine.job(id)) {
                Some(record) => SubmitAnswer::Job(Box::new(record.into())),
                None => SubmitAnswer::Again {
                    after_ms: content::AGAIN_MS,
                },
            },
            JobSay::Again { after_ms } => SubmitAnswer::Again {
                after_ms: *after_ms,
            },
            JobSay::OtherJob => refused(
                "there is another job of that name: a name means one job for ever".to_owned(),
            ),
            JobSay::TooMany { max } => refused(format!(
                "{max} jobs of this tenant aren't over yet, and no more may be"
            )),
            JobSay::Unknown => refused("there is no such job".to_owned()),
            JobSay::Over { why } => refused(why.clone()),
        }
    }

    fn came_back(&mut self, back: Back) {
        match back {
            Back::Stored { ticket, how } => self.stored(ticket, how),
            Back::Input(input) => self.step(input),
            Back::Changed(changed) => {
                self.ends.note(&changed);
                let Changed { key, found, .. } = changed;
                self.step(Input::Loaded { key, found });
            }
            Back::Judge(judge) => self.judge(judge),
            Back::Swept(swept) => self.swept(&swept),
            Back::NotKept(error) => self.tell(ServerEvent::Store {
                detail: error.to_string(),
            }),
            Back::Refused {
                subject,
                reason,
                why,
            } => self.refuse(&subject, reason, why),
            Back::Bytes { read, sent } => {
                self.counts.bytes_in += read;
                self.counts.bytes_out += sent;
            }
        }
    }

    fn stored(&mut self, ticket: Ticket, how: Stored) {
        let value = self.storing.remove(&ticket);
        let [yes, conflict, unknown] = &mut self.counts.stored;
        match how {
            Stored::Yes(_) => *yes += 1,
            Stored::Conflict => *conflict += 1,
            Stored::Unknown => *unknown += 1,
        }
        match (how, value) {
            (Stored::Yes(_), Some(Value::Job(record))) => {
                let before = self.machine.job(&record.job.id);
                let event = event::of_job(before, &record);
                if let State::Leased(lease) = &record.state
                    && lease.renewals == 0
                    && matches!(event, Some(ServerEvent::Assigned { .. }))
                {
                    self.counts.assigned += 1;
                    if record.epoch.0 == 1 {
                        let waited_ms = now().wall_ms.saturating_sub(record.submitted_ms);
                        self.counts.waited_ms += waited_ms;
                        self.counts.waited += 1;
                    }
                }
                if let Some(event) = event {
                    self.tell(event);
                }
            }
            (Stored::Yes(_), Some(Value::Ledger(ledger))) => {
                let record = ledger.consent().map(|consent| consent.number);
                let device = ledger.device().clone();
                if self.machine.consent(&device) != record {
                    self.tell(ServerEvent::Consent { device, record });
                }
            }
            // Why not was told already.
            (Stored::Unknown | Stored::Conflict | Stored::Yes(_), _) => {}
        }
        self.step(Input::Stored { ticket, how });
    }
}

/// Hands over what changes in the store, until nobody takes it any more. A watch that has ended is begun anew.
async fn follow(mut watch: Watch, kept: Kept, back: mpsc::Sender<Back>) {
    loop {
        while let Some(Ok(entry)) = watch.next().await {
            let changed = match store::read_entry(&entry) {
                Ok(Some(changed)) => Back::Changed(changed),
                Ok(None) => continue,
                Err(error) => Back::NotKept(error),
            };
            if back.send(changed).await.is_err() {
                return;
            }
        }
        watch = loop {
            tokio::time::sleep(Duration::from_millis(WATCH_AGAIN_MS)).await;
            match kept.watch().await {
                Ok(watch) => break watch,
                Err(error) => {
                    if back.send(Back::NotKept(error)).await.is_err() {
                        return;
                    }
                }
            }
        };
    }
}

fn send(bus: &Bus, to: Subject, bytes: Vec<u8>) {
    let client = bus.client().clone();
    tokio::spawn(async move {
        // Nobody waits, or NATS is away: it is asked again.
        let _ = client.publish(to, Bytes::from(bytes)).await;
    });
}

/// Sends an answer from beside the state machine.
fn send_message<T: Serialize>(bus: &Bus, to: Subject, message: &T) {
    send(bus, to, wire::write(message));
}
