//! The simulated world: what is true, and what each part hears of it.

mod machines;
mod network;
mod servers;

use std::collections::{BTreeMap, BTreeSet};

use undercroft_lend::{
    DeviceName, Digest, JobId, Tenant,
    consent::{Keys, Ledger, Record, Said},
    device::{self, Device, Entry, Exit, Hindrance, OwnerSays, Restored},
    job::{Job, Label, Limits, Rules, Runtime, Submission, admit},
    offer::Offer,
    server::{
        Answer, Effect, Input, JobSay, Key, Reply, Server, Settings, Stored, Value,
        record::{Dead, JobRecord, Runs, State},
    },
    wire::{self, Beat, Ended, Holding, Out},
};
use undercroft_model::{Now, inventory::Sensitivity};
use undercroft_simkit::{Clock, Dice, Faults, Kind, Rng, Trace};

use crate::{
    checkers::{Checkers, right_output},
    keys::{TestKeys, TestVerify},
};

const DEVICES: usize = 3;
const JOBS: usize = 8;
const LEASE_MS: u64 = 20_000;
const BEAT_MS: u64 = 5_000;
const PAUSE_MS: u64 = 30_000;
/// Until when faults happen.
const FAULTS_MS: u64 = 6 * 60_000;
/// Until when everything has to be done.
const END_MS: u64 = 90 * 60_000;
/// Events of a seed, at most.
const EVENTS_MAX: u64 = 400_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    Lost,
    Doubled,
    Late,
    StoreUnknown,
    StoreLost,
    StoreLags,
    ServerCrash,
    ServerLingers,
    DaemonCrash,
    PowerCut,
    DiskFull,
    ClockJump,
    Partition,
    Revoke,
    Pause,
    OwnerBack,
    Lie,
    WrongOutput,
    JobFails,
    NotBegun,
    NotFrozen,
}

impl Kind for Fault {
    const ALL: &'static [Self] = &[
        Self::Lost,
        Self::Doubled,
        Self::Late,
        Self::StoreUnknown,
        Self::StoreLost,
        Self::StoreLags,
        Self::ServerCrash,
        Self::ServerLingers,
        Self::DaemonCrash,
        Self::PowerCut,
        Self::DiskFull,
        Self::ClockJump,
        Self::Partition,
        Self::Revoke,
        Self::Pause,
        Self::OwnerBack,
        Self::Lie,
        Self::WrongOutput,
        Self::JobFails,
        Self::NotBegun,
        Self::NotFrozen,
    ];

    fn usual_per_1024(self) -> u32 {
        match self {
            Self::ServerCrash | Self::DaemonCrash | Self::PowerCut => 6,
            Self::ServerLingers | Self::StoreLags => 300,
            Self::ClockJump | Self::Lie => 10,
            Self::Revoke | Self::Pause | Self::OwnerBack | Self::Partition => 20,
            Self::JobFails => 100,
            _ => 30,
        }
    }
}

#[derive(Debug, Clone)]
enum ToServer {
    Want,
    Beat,
    Out,
}

#[derive(Debug, Clone)]
enum Event {
    ServerStarts,
    ServerTick {
        instance: usize,
    },
    ServerEnds {
        instance: usize,
    },
    Store {
        instance: usize,
        effect: Effect,
    },
    ToInstance {
        instance: usize,
        input: Input,
    },
    ToServer {
        from: usize,
        kind: ToServer,
        bytes: Vec<u8>,
    },
    ToDevice {
        to: usize,
        bytes: Vec<u8>,
        kind: ToServer,
    },
    DeviceStarts {
        at: usize,
    },
    DeviceTick {
        at: usize,
        start: u64,
    },
    Disk {
        at: usize,
        start: u64,
        ticket: device::Ticket,
        entry: Entry,
    },
    ProcessEnds {
        at: usize,
        holding: Holding,
        timer: u64,
    },
    Killed {
        at: usize,
        start: u64,
        holding: Holding,
    },
    Wiped {
        at: usize,
        start: u64,
        holding: Holding,
    },
    Owner {
        at: usize,
        says: OwnerSays,
    },
    May {
        at: usize,
        why_not: BTreeSet<String>,
    },
    PartitionEnds {
        at: usize,
    },
    Submit {
        job: usize,
    },
    Cancel {
        job: usize,
    },
    Round,
    Heal,
}

/// The store: what a bucket of JetStream's does, no more.
#[derive(Default)]
struct Store {
    values: BTreeMap<Key, (Value, u64)>,
    /// What was there before.
    earlier: BTreeMap<Key, (Value, u64)>,
    records: BTreeMap<DeviceName, Vec<Record>>,
    revision: u64,
}

struct Instance {
    server: Server<TestVerify>,
    ticks_at: Option<u64>,
}

enum Asker {
    Device(usize, ToServer),
    Submitter(usize),
    Canceller(usize),
}

struct Process {
    left_ms: u64,
    since_ms: Option<u64>,
    timer: u64,
    exit: Exit,
}

struct Machine {
    name: DeviceName,
    keys: TestKeys,
    disk: Vec<Entry>,
    disk_free_ms: u64,
    device: Option<Device<TestKeys>>,
    start: u64,
    ticks_at: Option<u64>,
    wall_offset_ms: i64,
    is_cut_off: bool,
    /// Whether the owner lends, in truth.
    is_lent: bool,
    /// Whether the owner has revoked, and wasn't told yet that it is done.
    is_revoke_asked: bool,
    processes: BTreeMap<Holding, Process>,
    files: BTreeSet<Holding>,
}

struct Work {
    job: Job,
    runs: Runs,
    is_kept: bool,
    is_cancel_asked: bool,
    is_cancel_over: bool,
}

/// How a seed ended.
#[derive(Debug, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) failure: Option<String>,
    pub(crate) trace: Vec<String>,
    /// How often what went wrong.
    pub(crate) faults: BTreeMap<Fault, u64>,
}

pub(crate) struct World {
    clock: Clock<Event>,
    rng: Rng,
    dice: Dice<Fault>,
    trace: Trace,
    store: Store,
    instances: Vec<Option<Instance>>,
    machines: Vec<Machine>,
    work: Vec<Work>,
    askers: BTreeMap<u64, Asker>,
    next_reply: u64,
    next_timer: u64,
    is_healed: bool,
    checkers: Checkers,
}

fn offer() -> Offer {
    Offer {
        class: "pc".parse().unwrap(),
        runtimes: BTreeSet::from([Runtime::Wasm, Runtime::Process]),
        tenants: None,
        max_sensitivity: Sensitivity::Internal,
        features: BTreeSet::from(["gpu".parse().unwrap()]),
        slots: 2,
        limits: Limits {
            cpu_percent: 400,
            memory_mb: 4096,
            disk_mb: 4096,
            wall_s: 600,
        },
    }
}

fn jobs(rng: &mut Rng) -> Vec<Work> {
    let tenants = ["build", "test"].map(|t| t.parse::<Tenant>().unwrap());
    let rules = Rules {
        tenants: tenants.iter().cloned().collect(),
        runtimes: BTreeSet::from([Runtime::Wasm]),
        max_sensitivity: Sensitivity::Public,
        wall_s_max: 600,
        attempts_max: 100,
    };
    (0..JOBS)
        .map(|n| {
            let tenant = tenants[n % 2].clone();
            let gpu = rng.chance(200).then(|| "gpu".parse().unwrap());
            let submission = Submission {
                id: format!("job-{n}").parse().unwrap(),
                tenant: tenant.clone(),
                runtime: Runtime::Wasm,
                class: None,
                artefact: Digest::of(b"component"),
                arguments: vec![n.to_string()],
                inputs: BTreeMap::new(),
                limits: Limits {
                    cpu_percent: 100,
                    memory_mb: 512,
                    disk_mb: 64,
                    wall_s: 300,
                },
                needs: gpu.into_iter().collect(),
                sensitivity: Some("public".to_owned()),
                attempts: None,
                loss_s: None,
                rerun_percent: None,
            };
            Work {
                runs: match rng.chance(300) {
                    true => Runs::Twice,
                    false => Runs::Once,
                },
                job: admit(submission, &tenant, &rules, |_| Some(Label::Public)).unwrap(),
                is_kept: false,
                is_cancel_asked: false,
                is_cancel_over: false,
            }
        })
        .collect()
}

impl World {
    pub(crate) fn new(seed: u64, faults: Faults, traced: bool) -> Self {
        let mut rng = Rng::split(seed, 7);
        let machines = (0..DEVICES).map(|n| {
            let name: DeviceName = format!("pc-{n}").parse().unwrap();
            Machine {
                keys: TestKeys::of(&name),
                name,
                disk: Vec::new(),
                disk_free_ms: 0,
                device: None,
                start: 0,
                ticks_at: None,
                wall_offset_ms: 0,
                is_cut_off: false,
                is_lent: false,
                is_revoke_asked: false,
                processes: BTreeMap::new(),
                files: BTreeSet::new(),
            }
        });
        let machines: Vec<Machine> = machines.collect();
        let mut clock = Clock::new();
        clock.after(0, Event::ServerStarts);
        for at in 0..DEVICES {
            clock.after(rng.below(2000), Event::DeviceStarts { at });
            let offer = Box::new(offer());
            let says = OwnerSays::Grant {
                offer,
                until_ms: None,
            };
            clock.after(rng.between(2000, 20_000), Event::Owner { at, says });
            let why_not = BTreeSet::new();
            clock.after(rng.between(2000, 20_000), Event::May { at, why_not });
        }
        let work = jobs(&mut rng);
        for job in 0..JOBS {
            clock.after(rng.below(120_000), Event::Submit { job });
            if rng.chance(150) {
                clock.after(rng.between(5_000, 200_000), Event::Cancel { job });
            }
        }
        clock.after(1000, Event::Round);
        clock.after(FAULTS_MS, Event::Heal);
        Self {
            clock,
            rng,
            dice: Dice::new(seed, faults),
            trace: Trace::new(traced),
            store: Store::default(),
            instances: Vec::new(),
            machines,
            work,
            askers: BTreeMap::new(),
            next_reply: 0,
            next_timer: 0,
            is_healed: false,
            checkers: Checkers::default(),
        }
    }

    pub(crate) fn go(mut self) -> Outcome {
        let mut events = 0;
        while self.clock.next_ms().is_some_and(|at| at <= END_MS) {
            let Some(event) = self.clock.pop() else { break };
            events += 1;
            if events > EVENTS_MAX {
                self.checkers.fail(format!(
                    "{EVENTS_MAX} events are not enough: something spins"
                ));
            }
            self.happen(event);
            self.checkers.time(self.clock.now_ms());
            if self.checkers.failure.is_some() || self.is_all_done() {
                break;
            }
        }
        if self.checkers.failure.is_none() {
            self.judge_end();
        }
        let mut faults = BTreeMap::new();
        for (_, _, fault) in self.dice.injected() {
            *faults.entry(*fault).or_default() += 1;
        }
        Outcome {
            failure: self.checkers.failure,
            trace: self.trace.into_lines(),
            faults,
        }
    }

    fn note(&mut self, who: &str, what: impl FnOnce() -> String) {
        self.trace.note(self.clock.now_ms(), who, what);
    }

    fn hit(&mut self, who: Option<usize>, fault: Fault) -> bool {
        let who = who.and_then(|who| u32::try_from(who).ok());
        let hit = !self.is_healed && self.dice.hit(self.clock.now_ms(), who, fault);
        if hit {
            self.note("fault", || format!("{fault:?} of {who:?}"));
        }
        hit
    }

    fn now(&self) -> Now {
        Now {
            mono_ms: self.clock.now_ms(),
            wall_ms: self.clock.wall_ms(),
        }
    }

    fn now_at(&self, at: usize) -> Now {
        let now = self.now();
        let offset_ms = self.machines[at].wall_offset_ms;
        Now {
            wall_ms: now.wall_ms.saturating_add_signed(offset_ms),
            ..now
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::ServerStarts => self.server_starts(),
            Event::ServerTick { instance } => {
                let now_ms = self.clock.now_ms();
                if let Some(Some(at)) = self.instances.get_mut(instance)
                    && at.ticks_at.take_if(|at| *at <= now_ms).is_some()
                {
                    self.server(instance, Input::Tick);
                }
            }
            Event::ServerEnds { instance } => self.instances[instance] = None,
            Event::Store { instance, effect } => self.ask_store(instance, effect),
            Event::ToInstance { instance, input } => self.server(instance, input),
            Event::ToServer { from, kind, bytes } => self.heard(from, kind, &bytes),
            Event::ToDevice { to, bytes, kind } => self.answered(to, &kind, &bytes),
            Event::DeviceStarts { at } => self.device_starts(at),
            Event::DeviceTick { at, start } => {
                let now_ms = self.clock.now_ms();
                let machine = &mut self.machines[at];
                if machine.start == start && machine.ticks_at.take_if(|at| *at <= now_ms).is_some()
                {
                    self.device(at, device::Input::Tick);
                }
            }
            Event::Disk {
                at,
                start,
                ticket,
                entry,
            } => self.written(at, start, ticket, entry),
            Event::ProcessEnds { at, holding, timer } => self.process_ends(at, &holding, timer),
            Event::Killed { at, start, holding } => {
                self.process_gone(at, &holding);
                if self.machines[at].start == start {
                    self.device(at, device::Input::Gone(holding));
                }
            }
            Event::Wiped { at, start, holding } => {
                if self.machines[at].start == start {
                    self.machines[at].files.remove(&holding);
                    self.device(at, device::Input::Wiped(holding));
                }
            }
            Event::Owner { at, says } => self.owner(at, says),
            Event::May { at, why_not } => {
                self.note("world", || format!("pc-{at} may work: {why_not:?}"));
                self.device(at, device::Input::May(why_not));
            }
            Event::PartitionEnds { at } => self.machines[at].is_cut_off = false,
            Event::Submit { job } => self.submit(job),
            Event::Cancel { job } => self.cancel(job),
            Event::Round => self.round(),
            Event::Heal => self.heal(),
        }
    }

    fn record(&self, job: &JobId) -> Option<&JobRecord> {
        match self.store.values.get(&Key::Job(job.clone())) {
            Some((Value::Job(record), _)) => Some(record),
            _ => None,
        }
    }

    fn is_all_done(&self) -> bool {
        self.is_healed && self.unfinished().is_none()
    }

    /// What isn't as it should be at the end.
    fn unfinished(&self) -> Option<String> {
        for work in &self.work {
            let id = &work.job.id;
            match self.record(id) {
                Some(record) if record.is_over() => {}
                other => {
                    return Some(format!(
                        "no job lost: {id} is {:?}",
                        other.map(|r| &r.state)
                    ));
                }
            }
        }
        for machine in &self.machines {
            let name = &machine.name;
            let Some(device) = &machine.device else {
                return Some(format!("{name} is off"));
            };
            if let Some(held) = device.held().next() {
                return Some(format!("{name} holds {:?} still", held.holding));
            }
            let head = machine.disk.iter().rev().find_map(|entry| match entry {
                Entry::Record(record) => Some(record.claim.number),
                _ => None,
            });
            let kept = self
                .store
                .records
                .get(name)
                .and_then(|records| records.last());
            let kept = kept.map(|record| record.claim.number);
            if head != kept {
                return Some(format!(
                    "{name}'s ledger ends at {head:?}, and the server has it up to {kept:?}"
                ));
            }
        }
        None
    }

    fn judge_end(&mut self) {
        if let Some(why) = self.unfinished() {
            self.checkers.fail(why);
            return;
        }
        let mut failures = Vec::new();
        for work in &self.work {
            let Some(record) = self.record(&work.job.id) else {
                continue;
            };
            match &record.state {
                State::Dead(Dead::Cancelled) if !work.is_cancel_asked => {
                    failures.push(format!("{} was cancelled by nobody", work.job.id));
                }
                State::Dead(Dead::Attempts { .. }) if record.failed < work.job.attempts => {
                    failures.push(format!("{} was given up too early", work.job.id));
                }
                State::Dead(Dead::Handouts) => {
                    failures.push(format!("{} was handed out too often", work.job.id));
                }
                State::Dead(Dead::Differs { .. }) if !self.checkers.is_wrong(&work.job.id) => {
                    failures.push(format!("two right outputs of {} differ", work.job.id));
                }
                State::Done { verified_by, .. }
                    if verified_by.is_some() && work.runs == Runs::Once =>
                {
                    failures.push(format!("{} was to run once", work.job.id));
                }
                _ => {}
            }
        }
        for at in 0..DEVICES {
            if let Err(why) = self.restored(at) {
                failures.push(why);
            }
            if let Some(file) = self.machines[at].files.first() {
                failures.push(format!("pc-{at} has files of {file:?} at the end"));
            }
        }
        if let Some(why) = failures.into_iter().next() {
            self.checkers.fail(why);
        }
    }
}
