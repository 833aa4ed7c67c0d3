//! A daemon from what it has kept.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use tokio::sync::{mpsc, watch as channel};
use undercroft_folder::confined::ConfinedError;
use undercroft_lend::{
    device::{Device, Effect, Input, OwnerSays, Settings as DeviceSettings},
    job::Runtime,
    offer::Offer,
};
use undercroft_model::advice::{Advice, ErrorKind, FileFailure};
use undercroft_sandbox::{Tools, TotalBounds, Yard, sweep};

use super::{
    content::Content,
    core::{DISK_REST, Daemon, HAPPENED_MAX, Told},
    job::PIDS_MAX,
    keep::{Keep, KeepError},
    pause,
    usage::Usage,
};
use crate::{
    bus::{Bus, BusError, BusSettings, Inbox},
    clock,
    device_keys::{KeysError, OwnKeys},
    lines::LinesError,
    policy::{Narrowed, Policy, PolicyError},
    watch::Roots,
};

/// The folder of running jobs, in the state folder.
const YARD: &str = "jobs";
/// What can be run here. A policy may name more, for other kinds of device.
const RUNTIMES: [Runtime; 3] = [Runtime::Wasm, Runtime::Process, Runtime::Nix];
/// Bytes of a MiB.
const MIB: u64 = 1024 * 1024;

/// Why there is no daemon.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The policy, or what the owner has narrowed, can't be used.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The keys can't be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// There are no keys.
    #[error("{device} isn't enrolled: there are no keys in {}", state.display())]
    NotEnrolled {
        /// The PC.
        device: String,
        /// The state folder.
        state: PathBuf,
    },
    /// What was kept can't be used.
    #[error(transparent)]
    Keep(#[from] KeepError),
    /// Another file of the state folder can't be used.
    #[error(transparent)]
    Lines(#[from] LinesError),
    /// Another file of the state folder can't be used.
    #[error(transparent)]
    File(#[from] ConfinedError),
    /// The server's address is none.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The socket, or a timer, can't be made.
    #[error("can't {tried}: {source}")]
    Io {
        /// What was tried.
        tried: String,
        /// Why.
        source: std::io::Error,
    },
}

impl DaemonError {
    fn inner(&self) -> Option<&dyn Advice> {
        Some(match self {
            Self::Policy(error) => error,
            Self::Keys(error) => error,
            Self::Keep(error) => error,
            Self::Lines(error) => error,
            Self::File(error) => error,
            Self::Bus(error) => error,
            Self::NotEnrolled { .. } | Self::Io { .. } => return None,
        })
    }
}

impl Advice for DaemonError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotEnrolled { .. } => ErrorKind::Input,
            _ => self.inner().map_or(ErrorKind::Failed, Advice::kind),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NotEnrolled { .. } => {
                Some("Run `undercroft lend enrol` once; it makes them.".to_owned())
            }
            _ => self.inner()?.hint(),
        }
    }

    fn file(&self) -> Option<FileFailure<'_>> {
        self.inner()?.file()
    }
}

/// What a daemon begins with.
#[derive(Debug)]
pub struct DaemonSettings {
    /// What is lent, and when.
    pub policy: Policy,
    /// Where the kernel shows what it knows.
    pub roots: Roots,
    /// The program that runs inside of sandboxes, where it isn't beside this one.
    pub job_program: Option<PathBuf>,
    /// What the daemon says of what it does.
    pub told: channel::Sender<Told>,
}

/// What this machine offers by its policy.
pub(super) fn offered(policy: &Policy) -> Offer {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let mut offer = policy.offer(u32::try_from(processors).unwrap_or(1));
    offer.runtimes.retain(|runtime| RUNTIMES.contains(runtime));
    offer
}

impl Daemon {
    /// Takes up what was kept, and ends what an earlier daemon had left running. Nothing is lent yet.
    ///
    /// # Errors
    /// When the PC isn't enrolled, another daemon runs, or what was kept can't be used.
    pub async fn open(settings: DaemonSettings) -> Result<Self, DaemonError> {
        let DaemonSettings {
            policy,
            roots,
            job_program,
            told,
        } = settings;
        let state = policy.state();
        let Some(keys) = OwnKeys::read(&state)? else {
            return Err(DaemonError::NotEnrolled {
                device: policy.device.to_string(),
                state: policy.state_directory.clone(),
            });
        };
        let (keep, restored) = Keep::open(&state, policy.device.clone(), &keys.public())?;
        let usage = Usage::open(&state)?;
        let narrowed = Narrowed::read(&state)?;
        for folder in ["cache", "made"] {
            state.make_folder(folder, 0o700)?;
        }
        let now = clock::now();
        let paused = pause::read(&state, now.wall_ms)?;
        let ms = |s: u32| u64::from(s) * 1000;
        let device_settings = DeviceSettings {
            keys: keys.public(),
            beat_ms: ms(policy.heartbeat_s),
            pause_ms: ms(policy.pause_s),
        };
        let key = keys.device();
        let (device, effects) = Device::new(device_settings, keys, restored, now);
        let (happens, happened) = mpsc::channel(HAPPENED_MAX);
        let quota_bytes = u64::from(policy.disk_mb) * MIB;
        let mut daemon = Self {
            offered: offered(&policy),
            content: Content::new(state.clone(), policy.device.clone(), quota_bytes),
            policy,
            narrowed,
            state,
            roots,
            key,
            device,
            keep,
            usage,
            paused,
            first: Vec::new(),
            jobs: BTreeMap::new(),
            bringing: BTreeSet::new(),
            brought: BTreeSet::new(),
            yard: None,
            no_yard: None,
            is_swept: false,
            kills: Vec::new(),
            bus: None,
            buses: Default::default(),
            session: None,
            seat: None,
            why_not: BTreeSet::new(),
            happens,
            happened,
            waiting: Vec::new(),
            trouble: None,
            unanswered: None,
            told,
        };
        daemon.content.clear_parts()?;
        daemon.open_yard(job_program).await;
        daemon.first = effects;
        Ok(daemon)
    }

    /// Ends what is left of an earlier daemon, and makes room for jobs where this machine can confine them.
    pub(super) async fn open_yard(&mut self, job_program: Option<PathBuf>) {
        let folder = self.state.path(YARD);
        let tools = Tools::find(None, job_program.as_deref()).await;
        let limits = &self.offered.limits;
        let total = TotalBounds {
            cpu_percent: limits.cpu_percent.max(1),
            memory_mb: limits.memory_mb,
            pids: PIDS_MAX.saturating_mul(self.offered.slots.max(1)),
        };
        let opened = match tools {
            Ok(tools) => Yard::open(&folder, tools, &total).await,
            Err(error) => Err(error),
        };
        match opened {
            Ok((yard, _)) => {
                self.yard = Some(Arc::new(yard));
                self.is_swept = true;
            }
            Err(error) => {
                self.no_yard = Some(format!("it can't confine jobs: {error}"));
                match sweep(&folder).await {
                    Ok(_) => self.is_swept = true,
                    Err(error) => self.trouble = Some(error.to_string()),
                }
            }
        }
    }

    /// Carries out what the device begins with, and what holds from before. What it asks then goes over the
    /// connection, where there is to be one.
    pub(super) async fn start(&mut self) {
        let mut inputs = Vec::new();
        for effect in std::mem::take(&mut self.first) {
            match effect {
                Effect::Keep { ticket, entry } => match self.keep.add(&entry) {
                    Ok(()) => inputs.push(Input::Kept(ticket)),
                    Err(error) => {
                        self.trouble = Some(error.to_string());
                        self.later(DISK_REST, Input::NotKept(ticket));
                    }
                },
                other => inputs.extend(self.carry_out(other)),
            }
        }
        // A pause holds before anything else is heard of.
        if self.paused.is_some() {
            self.step(Input::Owner(OwnerSays::Pause)).await;
        }
        for input in inputs {
            self.step(input).await;
        }
        let consent = self.device.ledger().consent();
        let narrowed = consent
            .filter(|consent| !consent.offer.is_within(&self.offered))
            .map(|consent| Box::new(consent.offer.narrowed_by(&self.offered)));
        if let Some(offer) = narrowed {
            // The repository offers less than what was agreed to. More needs the owner's word.
            self.step(Input::Owner(OwnerSays::Narrow { offer })).await;
        }
    }

    /// Connects to the server, or begins to try.
    pub(super) async fn connect(&mut self) -> Result<(), DaemonError> {
        let settings = BusSettings {
            url: self.policy.nats_url.clone(),
            ca_file: self.policy.ca_file.clone(),
            key: Arc::clone(&self.key),
            name: format!("undercroft lend run on {}", self.policy.device),
            inbox: Inbox::Device(self.policy.device.clone()),
        };
        self.bus = Some(Bus::connect_when_there(&settings).await?);
        Ok(())
    }
}
