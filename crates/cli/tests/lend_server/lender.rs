//! A lent PC: the device's own state machine over the real bus, with work that takes no time.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{sync::mpsc, task::JoinHandle};
use undercroft_folder::confined::Confined;
use undercroft_lend::{
    DeviceName, Digest,
    consent::{Keys, Record},
    device::{Device, Effect, Entry, Exit, Input, OwnerSays, Restored, Settings},
    job::{Limits, Runtime},
    offer::Offer,
    wire::{
        self, Assignment, AtOut, AtWant, Bring, BringAnswer, BringSay, ContentPart, Fetch,
        FetchAnswer, FetchSay, Fetching, Holding, Made,
    },
};
use undercroft_lending::{
    bus::{Bus, BusSettings, Inbox},
    device_keys::OwnKeys,
};
use undercroft_model::inventory::Sensitivity;
use undercroft_process::clock::now;

/// How long an answer is waited for beside the longest poll, in milliseconds.
const ANSWER_MS: u64 = 10_000;
/// How long a request for work is waited for, in milliseconds.
const POLL_MS: u64 = 60_000;

/// What it saw.
#[derive(Default)]
pub(crate) struct Saw {
    pub(crate) records: Vec<Record>,
    pub(crate) begun: Vec<Holding>,
    /// Results that the server has said to be recorded.
    pub(crate) recorded: Vec<Holding>,
}

pub(crate) struct Lender {
    pub(crate) name: DeviceName,
    pub(crate) keys: Keys,
    pub(crate) saw: Arc<Mutex<Saw>>,
    pub(crate) settings: BusSettings,
    /// It takes jobs and doesn't work on them.
    pub(crate) idles: bool,
    /// It brings something else than what its jobs make.
    pub(crate) lies: bool,
    folder: std::path::PathBuf,
    task: Option<JoinHandle<()>>,
}

impl Lender {
    /// Makes its keys in `folder`.
    pub(crate) fn new(name: &str, folder: &Path, url: &str, ca: &Path) -> Self {
        let folder = folder.join(name);
        let own = OwnKeys::read_or_make(&Confined::new(&folder)).unwrap();
        let keys = own.public();
        let name: DeviceName = name.parse().unwrap();
        let settings = BusSettings {
            url: url.to_owned(),
            ca_file: Some(ca.to_owned()),
            key: own.device(),
            name: "a test's device".to_owned(),
            inbox: Inbox::Device(name.clone()),
        };
        Self {
            name,
            keys,
            saw: Arc::default(),
            settings,
            idles: false,
            lies: false,
            folder,
            task: None,
        }
    }

    /// Lends from now on, all that the jobs of these tests need.
    pub(crate) async fn lend(&mut self) {
        let bus = Bus::connect(&self.settings).await.unwrap();
        let keys = OwnKeys::read(&Confined::new(&self.folder))
            .unwrap()
            .unwrap();
        let settings = Settings {
            keys: self.keys.clone(),
            beat_ms: 2_000,
            pause_ms: 60_000,
        };
        let restored = Restored::nothing(self.name.clone());
        let (device, effects) = Device::new(settings, keys, restored, now());
        let (say, hear) = mpsc::channel(256);
        let run = Run {
            bus,
            name: self.name.clone(),
            saw: Arc::clone(&self.saw),
            idles: self.idles,
            lies: self.lies,
            say,
            device,
        };
        self.task = Some(tokio::spawn(run.go(effects, hear)));
    }
}

impl Drop for Lender {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

struct Run {
    bus: Bus,
    name: DeviceName,
    saw: Arc<Mutex<Saw>>,
    idles: bool,
    lies: bool,
    say: mpsc::Sender<Input>,
    device: Device<OwnKeys>,
}

impl Run {
    async fn go(mut self, effects: Vec<Effect>, mut hear: mpsc::Receiver<Input>) {
        self.carry_out(effects);
        let offer = Box::new(offer());
        self.step(Input::Owner(OwnerSays::Grant {
            offer,
            until_ms: None,
        }));
        self.step(Input::May(BTreeSet::new()));
        loop {
            let deadline = self.device.next_deadline();
            let ms = deadline.map_or(1_000, |at| at.saturating_sub(now().mono_ms));
            tokio::select! {
                Some(input) = hear.recv() => self.step(input),
                () = tokio::time::sleep(Duration::from_millis(ms.max(1))) => self.step(Input::Tick),
            }
        }
    }

    fn step(&mut self, input: Input) {
        let effects = self.device.step(now(), input);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Keep { ticket, entry } => {
                    if let Entry::Record(record) = *entry {
                        self.saw.lock().unwrap().records.push(record);
                    }
                    self.later(Input::Kept(ticket));
                }
                Effect::Want {
                    mut want,
                    records_from,
                } => {
                    let records = self.saw.lock().unwrap();
                    let records = records.records.iter();
                    let records = records.filter(|r| r.claim.number >= records_from);
                    want.records = records.take(wire::RECORDS_MAX).cloned().collect();
                    let subject = format!("lend.want.{}", self.name);
                    let bytes = wire::write(&AtWant::Want(want));
                    self.ask(subject, bytes, POLL_MS, |b| {
                        wire::read(b).map(Input::WantAnswered)
                    });
                }
                Effect::Beat(beat) => {
                    let subject = format!("lend.beat.{}", self.name);
                    let bytes = wire::write(&beat);
                    self.ask(subject, bytes, ANSWER_MS, |b| {
                        wire::read(b).map(Input::BeatAnswered)
                    });
                }
                Effect::Out(out) => self.out(out),
                Effect::Run(assignment) => {
                    let (bus, name, say) = (self.bus.clone(), self.name.clone(), self.say.clone());
                    let holding = Holding {
                        job: assignment.job.id.clone(),
                        epoch: assignment.epoch,
                    };
                    self.saw.lock().unwrap().begun.push(holding.clone());
                    if self.idles {
                        continue;
                    }
                    let lies = self.lies;
                    tokio::spawn(async move {
                        let exit = work(&bus, &name, &assignment, &holding, lies).await;
                        let exit = exit.unwrap_or_else(|why| Exit::Failed { why });
                        let _ = say.send(Input::Ended { holding, exit }).await;
                    });
                }
                Effect::Kill(holding) => self.later(Input::Gone(holding)),
                Effect::Wipe(holding) => self.later(Input::Wiped(holding)),
                Effect::Freeze(_) | Effect::Thaw(_) => {}
            }
        }
    }

    fn out(&self, out: wire::Out) {
        let is_done = matches!(out.ended, wire::Ended::Done { .. });
        let (holding, saw) = (out.holding.clone(), Arc::clone(&self.saw));
        let subject = out_subject(&self.name, &holding);
        let bytes = wire::write(&AtOut::Out(out));
        let (bus, say) = (self.bus.clone(), self.say.clone());
        tokio::spawn(async move {
            if let Ok(answer) = bus.request(subject, bytes.into(), ANSWER_MS).await {
                let answer: wire::OutAnswer = wire::read(&answer).unwrap();
                if is_done && answer.say == wire::OutSay::Recorded {
                    saw.lock().unwrap().recorded.push(holding);
                }
                let _ = say.send(Input::OutAnswered(answer)).await;
            }
        });
    }

    fn later(&self, input: Input) {
        let say = self.say.clone();
        tokio::spawn(async move { say.send(input).await });
    }

    fn ask(
        &self,
        subject: String,
        bytes: Vec<u8>,
        limit_ms: u64,
        read: fn(&[u8]) -> Result<Input, wire::Unreadable>,
    ) {
        let (bus, say) = (self.bus.clone(), self.say.clone());
        tokio::spawn(async move {
            // What isn't answered is asked again by the device.
            if let Ok(answer) = bus.request(subject, bytes.into(), limit_ms).await {
                let _ = say.send(read(&answer).unwrap()).await;
            }
        });
    }
}

pub(crate) fn out_subject(name: &DeviceName, holding: &Holding) -> String {
    format!("lend.out.{name}.{}.{}", holding.job, holding.epoch)
}

/// The job: its inputs one after the other, in capitals.
async fn work(
    bus: &Bus,
    name: &DeviceName,
    assignment: &Assignment,
    holding: &Holding,
    lies: bool,
) -> Result<Exit, String> {
    fetch(bus, name, holding, assignment.job.artefact).await?;
    let mut output = Vec::new();
    for digest in assignment.job.inputs.values() {
        output.extend(fetch(bus, name, holding, *digest).await?);
    }
    if !lies {
        output.make_ascii_uppercase();
    }
    bring(bus, name, holding, Made::Log, b"worked hard\n").await?;
    bring(bus, name, holding, Made::Output, &output).await?;
    Ok(Exit::Done {
        output: Digest::of(&output),
        bytes: u64::try_from(output.len()).unwrap(),
    })
}

/// Fetches some content, part by part.
pub(crate) async fn fetch(
    bus: &Bus,
    name: &DeviceName,
    holding: &Holding,
    digest: Digest,
) -> Result<Vec<u8>, String> {
    let mut all = Vec::new();
    let mut offset = 0;
    loop {
        let fetching = Fetching { digest, offset };
        let message = AtWant::Fetch(Fetch {
            holding: holding.clone(),
            fetching,
        });
        let subject = format!("lend.want.{name}");
        let asked = bus
            .request(subject, wire::write(&message).into(), ANSWER_MS)
            .await;
        let Ok(answer) = asked else { continue };
        let (answer, bytes) = wire::read_with_bytes::<FetchAnswer>(&answer).unwrap();
        match answer.say {
            FetchSay::Part { total } => {
                all.extend_from_slice(bytes);
                match wire::next_offset(total, offset) {
                    Some(next) => offset = next,
                    None => break,
                }
            }
            FetchSay::Again { after_ms } => {
                tokio::time::sleep(Duration::from_millis(after_ms)).await
            }
            FetchSay::Refused { why } => return Err(why),
        }
    }
    assert_eq!(Digest::of(&all), digest);
    Ok(all)
}

/// Brings some content, part by part.
pub(crate) async fn bring(
    bus: &Bus,
    name: &DeviceName,
    holding: &Holding,
    made: Made,
    content: &[u8],
) -> Result<(), String> {
    let (digest, total) = (Digest::of(content), u64::try_from(content.len()).unwrap());
    let mut offset = 0;
    loop {
        let from = usize::try_from(offset).unwrap();
        let len = usize::try_from(wire::part_bytes(total, offset).unwrap()).unwrap();
        let part = ContentPart {
            digest,
            total,
            offset,
        };
        let message = AtOut::Bring(Bring {
            holding: holding.clone(),
            made,
            part,
        });
        let bytes = wire::write_with_bytes(&message, &content[from..from + len]);
        let asked = bus
            .request(out_subject(name, holding), bytes.into(), ANSWER_MS)
            .await;
        let Ok(answer) = asked else { continue };
        match wire::read::<BringAnswer>(&answer).unwrap().say {
            BringSay::Next { offset: next } => offset = next,
            BringSay::Whole => return Ok(()),
            BringSay::Again { after_ms } => {
                tokio::time::sleep(Duration::from_millis(after_ms)).await
            }
            BringSay::Refused { why } => return Err(why),
        }
    }
}

pub(crate) fn offer() -> Offer {
    Offer {
        class: "pc".parse().unwrap(),
        runtimes: [Runtime::Wasm, Runtime::Process, Runtime::Nix].into(),
        tenants: None,
        max_sensitivity: Sensitivity::Internal,
        features: BTreeSet::new(),
        slots: 4,
        limits: Limits {
            cpu_percent: 400,
            memory_mb: 4096,
            disk_mb: 4096,
            wall_s: 600,
        },
    }
}
