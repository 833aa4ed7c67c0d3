//! One job on this machine, from its artefacts to its end: a task of its own, which the device's effects steer.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::watch;
use undercroft_lend::{
    Digest,
    device::{Exit, Input},
    job::{Job, Runtime},
    wire::{Assignment, CONTENT_BYTES_MAX, Holding},
};
use undercroft_sandbox::{
    Bounds, DiskBound, FileDigest, InputFile, JobEnd, JobSpec, JobUsage, JobWork, KillReason,
    Program, ProgramKind, Running, Yard,
};

use super::{
    build,
    content::{Content, Using},
};
use crate::bus::Bus;

/// Processes and threads of one job. A compiler with all its helpers has some hundred.
pub(super) const PIDS_MAX: u32 = 512;
/// Files that a job may have open in one process, as most systems have it.
const OPEN_FILES_MAX: u32 = 1024;
/// The most that a job may write to its log, in bytes. Only its end is kept.
const LOG_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The most files and folders of a job.
const FILES_MAX: u32 = 100_000;
/// What a job leaves free of the owner's disk, in bytes.
const FREE_BYTES_MIN: u64 = 1024 * 1024 * 1024;
/// The least version of Landlock: 1 has files; the network is out of reach by its namespace.
const LANDLOCK_ABI_MIN: u32 = 1;
/// How long it rests before a kill is tried again that left processes behind.
const KILL_REST: Duration = Duration::from_secs(1);
/// Bytes of a MiB.
const MIB: u64 = 1024 * 1024;

/// What a job is to do. The last word counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    Run,
    Freeze,
    Kill,
}

/// What is seen of a job.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    pub(super) running: Option<Arc<Running>>,
    pub(super) bytes_in: u64,
    /// What it reads stays as long as this does.
    pub(super) using: Option<Arc<Using>>,
}

/// What came of a job.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) input: Input,
    /// What it used, where it ran at all.
    pub(super) usage: Option<JobUsage>,
}

/// All that a job's task has.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) assignment: Assignment,
    pub(super) holding: Holding,
    pub(super) content: Content,
    pub(super) bus: Bus,
    pub(super) yard: Arc<Yard>,
    /// Artefacts that jobs use at the moment.
    pub(super) in_use: BTreeSet<Digest>,
    pub(super) wish: watch::Receiver<Wish>,
    pub(super) seen: Arc<Mutex<Seen>>,
}

/// Why a job isn't begun.
enum NotBegun {
    Killed,
    Failed(String),
}

impl Task {
    /// Runs the job to its end, whichever that is.
    pub(super) async fn run(mut self) -> Outcome {
        let holding = self.holding.clone();
        let running = match self.begin().await {
            Ok(running) => running,
            Err(NotBegun::Killed) => {
                return Outcome {
                    input: Input::Gone(holding),
                    usage: None,
                };
            }
            Err(NotBegun::Failed(why)) => {
                let exit = Exit::Failed { why };
                return Outcome {
                    input: Input::Ended { holding, exit },
                    usage: None,
                };
            }
        };
        loop {
            tokio::select! {
                end = running.wait() => return self.ended(&running, end).await,
                wish = next(&mut self.wish) => match wish {
                    Wish::Freeze if running.freeze().await.is_ok() => {}
                    Wish::Run if running.thaw().is_ok() => {}
                    // What can't be frozen is killed: the owner wants the machine.
                    _ => return self.killed(&running).await,
                },
            }
        }
    }

    async fn begin(&mut self) -> Result<Arc<Running>, NotBegun> {
        let spec = {
            let (content, bus) = (self.content.clone(), self.bus.clone());
            let fetching = spec(
                &self.assignment,
                &self.holding,
                &content,
                &bus,
                &self.in_use,
            );
            tokio::pin!(fetching);
            loop {
                tokio::select! {
                    fetched = &mut fetching => {
                        let (spec, using, bytes) = fetched.map_err(NotBegun::Failed)?;
                        let mut seen = lock(&self.seen);
                        seen.bytes_in = bytes;
                        seen.using = using.map(Arc::new);
                        break spec;
                    }
                    wish = next(&mut self.wish) => if wish == Wish::Kill {
                        return Err(NotBegun::Killed);
                    },
                }
            }
        };
        // A job that is to be frozen before it has begun isn't begun.
        let mut wish = *self.wish.borrow_and_update();
        while wish == Wish::Freeze {
            wish = next(&mut self.wish).await;
        }
        if wish == Wish::Kill {
            return Err(NotBegun::Killed);
        }
        let started = self.yard.start(spec).await;
        let running = Arc::new(started.map_err(|e| NotBegun::Failed(e.to_string()))?);
        lock(&self.seen).running = Some(Arc::clone(&running));
        Ok(running)
    }

    async fn killed(&self, running: &Running) -> Outcome {
        // What is in the kernel's hands can't be waited for with a limit: nothing is given back while it is there.
        while running.kill().await.is_err() {
            tokio::time::sleep(KILL_REST).await;
        }
        running.wait().await;
        Outcome {
            input: Input::Gone(self.holding.clone()),
            usage: Some(running.usage()),
        }
    }

    async fn ended(&self, running: &Running, end: JobEnd) -> Outcome {
        let log = running.log_tail();
        let failed = |why: String| Exit::Failed {
            why: match log.is_empty() {
                true => why,
                false => format!("{why}\n{log}"),
            },
        };
        let exit = match end {
            JobEnd::Exited { code: 0 } => match self.output(running).await {
                Ok(exit) => exit,
                Err(why) => failed(why),
            },
            JobEnd::Exited { code } => failed(format!("exit code {code}")),
            JobEnd::Trapped { why } => failed(why),
            JobEnd::OutOfMemory => failed("its memory was used up".to_owned()),
            JobEnd::Killed { reason } => failed(match reason {
                KillReason::Asked => "it was killed".to_owned(),
                KillReason::Wall => "it ran longer than it may".to_owned(),
                KillReason::Log => "it wrote more to its log than it may".to_owned(),
                KillReason::Disk { why } => why,
            }),
        };
        // Without its log a result is as good.
        let _ = self.content.keep_log(&self.holding, &log);
        Outcome {
            input: Input::Ended {
                holding: self.holding.clone(),
                exit,
            },
            usage: Some(running.usage()),
        }
    }

    async fn output(&self, running: &Running) -> Result<Exit, String> {
        let taken = running.take_output().await.map_err(|e| e.to_string())?;
        let Some(mut taken) = taken else {
            return Ok(Exit::Done {
                output: Digest::of(b""),
                bytes: 0,
            });
        };
        let output = taken.digest.to_string().parse();
        let output = output.map_err(|_| "its output has no digest".to_owned())?;
        let (content, holding) = (self.content.clone(), self.holding.clone());
        let kept = tokio::task::spawn_blocking(move || {
            content
                .keep_output(&holding, &mut taken.file)
                .map(|()| taken.bytes)
        });
        let bytes = kept
            .await
            .map_err(|e| e.to_string())?
            .map_err(|e| e.to_string())?;
        Ok(Exit::Done { output, bytes })
    }
}

/// The next word. Where nobody can say one any more, the daemon has ended.
async fn next(wish: &mut watch::Receiver<Wish>) -> Wish {
    match wish.changed().await {
        Ok(()) => *wish.borrow_and_update(),
        Err(_) => Wish::Kill,
    }
}

/// A lock whose holder panicked is as good as any here: what it guards is replaced whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the sandbox is to run and what that reads, when all of it is here; and how many bytes came for it.
async fn spec(
    assignment: &Assignment,
    holding: &Holding,
    content: &Content,
    bus: &Bus,
    in_use: &BTreeSet<Digest>,
) -> Result<(JobSpec, Option<Using>, u64), String> {
    let job = &assignment.job;
    let mut arguments = job.arguments.clone();
    let mut using = None;
    let (work, inputs, bytes) = match job.runtime {
        Runtime::Nix => {
            let ready = build::builder(job, holding, content, bus, in_use).await?;
            arguments = ready.arguments;
            using = Some(ready.using);
            (JobWork::Builder(ready.spec), Vec::new(), ready.bytes)
        }
        Runtime::Process | Runtime::Wasm => program(job, holding, content, bus, in_use).await?,
        Runtime::Adb => return Err(format!("{:?} can't be run on this PC", job.runtime)),
    };
    let limits = &job.limits;
    let disk = u64::from(limits.disk_mb).saturating_mul(MIB);
    let spec = JobSpec {
        name: format!("{}.{}", holding.job, holding.epoch),
        work,
        arguments,
        inputs,
        bounds: Bounds {
            cpu_percent: limits.cpu_percent,
            memory_mb: limits.memory_mb,
            pids: PIDS_MAX,
            open_files: OPEN_FILES_MAX,
            log_bytes: LOG_BYTES_MAX,
            output_bytes: disk.min(CONTENT_BYTES_MAX),
            wall: Duration::from_secs(u64::from(limits.wall_s)),
            disk: DiskBound::Watched {
                bytes: disk,
                files: FILES_MAX,
                free_bytes_min: FREE_BYTES_MIN,
            },
        },
        landlock_abi_min: LANDLOCK_ABI_MIN,
    };
    Ok((spec, using, bytes))
}

/// A program or a component, and what it reads.
async fn program(
    job: &Job,
    holding: &Holding,
    content: &Content,
    bus: &Bus,
    in_use: &BTreeSet<Digest>,
) -> Result<(JobWork, Vec<InputFile>, u64), String> {
    let digest = |of: &Digest| {
        of.to_string()
            .parse::<FileDigest>()
            .map_err(|e| e.to_string())
    };
    let fetch = async |of: &Digest| {
        let have = content.have(bus, holding, *of, in_use).await;
        have.map_err(|e| e.to_string())
    };
    let (file, mut bytes) = fetch(&job.artefact).await?;
    let kind = match job.runtime {
        Runtime::Wasm => ProgramKind::Component,
        _ => ProgramKind::Native,
    };
    let program = Program {
        file,
        digest: digest(&job.artefact)?,
        kind,
    };
    let mut inputs = Vec::new();
    for (name, of) in &job.inputs {
        let (file, more) = fetch(of).await?;
        bytes += more;
        inputs.push(InputFile {
            name: name.clone(),
            file,
            digest: Some(digest(of)?),
        });
    }
    Ok((JobWork::Program(program), inputs, bytes))
}
