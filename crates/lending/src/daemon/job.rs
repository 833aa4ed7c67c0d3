//! One job on this machine, from its artefacts to its end: a task of its own, which the device's effects steer.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::watch;
use undercroft_lend::{
    Digest,
    device::{Exit, Hindrance, Input},
    job::{Job, Runtime},
    wire::{Assignment, CONTENT_BYTES_MAX, Holding},
};
use undercroft_sandbox::{
    Bounds, DiskBound, FileDigest, InputFile, JobEnd, JobSpec, JobUsage, JobWork, KillReason,
    Program, ProgramKind, Running, SandboxError, Yard,
};

use super::{
    build,
    content::{Content, FREE_BYTES_MIN},
    unbegun::NotBegun,
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
    pub(super) wish: watch::Receiver<Wish>,
    pub(super) seen: Arc<Mutex<Seen>>,
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
            Err(NotBegun::Returned(why, hindrance)) => {
                let exit = Exit::Returned { why, hindrance };
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
        let spec = self.fetched().await?;
        loop {
            // A job that is to be frozen before it has begun isn't begun.
            let mut wish = *self.wish.borrow_and_update();
            while wish == Wish::Freeze {
                wish = next(&mut self.wish).await;
            }
            if wish == Wish::Kill {
                return Err(NotBegun::Killed);
            }
            let wish = &mut self.wish;
            let stop = async { while next(wish).await == Wish::Run {} };
            match self.yard.start_until(spec.clone(), stop).await {
                // Its owner wants the machine, and it has done nothing yet: it is started anew afterwards.
                Err(SandboxError::Stopped) => {}
                Err(error) => {
                    // Among what is refused is a file that isn't any more what came.
                    if matches!(error, SandboxError::Refused { .. }) {
                        self.content.fetch_anew(&self.assignment.job);
                    }
                    return Err(error.into());
                }
                Ok(running) => {
                    let running = Arc::new(running);
                    lock(&self.seen).running = Some(Arc::clone(&running));
                    return Ok(running);
                }
            }
        }
    }

    /// What the sandbox is to run. Nothing is fetched while the owner wants the machine, and its network.
    async fn fetched(&mut self) -> Result<JobSpec, NotBegun> {
        let (content, bus) = (self.content.clone(), self.bus.clone());
        let fetching = spec(&self.assignment, &self.holding, &content, &bus);
        tokio::pin!(fetching);
        loop {
            let wish = *self.wish.borrow_and_update();
            if wish == Wish::Kill {
                return Err(NotBegun::Killed);
            }
            tokio::select! {
                fetched = &mut fetching, if wish == Wish::Run => {
                    let (spec, bytes) = fetched?;
                    lock(&self.seen).bytes_in = bytes;
                    return Ok(spec);
                }
                changed = self.wish.changed() => if changed.is_err() {
                    return Err(NotBegun::Killed);
                },
            }
        }
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
            JobEnd::Killed {
                reason: KillReason::NoRoom { why },
            } => Exit::Returned {
                why,
                hindrance: Hindrance::Device,
            },
            JobEnd::Killed { reason } => failed(match reason {
                KillReason::Asked => "it was killed".to_owned(),
                KillReason::Wall => "it ran longer than it may".to_owned(),
                KillReason::Log => "it wrote more to its log than it may".to_owned(),
                KillReason::Disk { why } | KillReason::NoRoom { why } => why,
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
) -> Result<(JobSpec, u64), NotBegun> {
    let job = &assignment.job;
    let mut arguments = job.arguments.clone();
    let (work, inputs, bytes) = match job.runtime {
        Runtime::Nix => {
            let ready = build::builder(job, holding, content, bus).await?;
            arguments = ready.arguments;
            (JobWork::Builder(ready.spec), Vec::new(), ready.bytes)
        }
        Runtime::Process | Runtime::Wasm => program(job, holding, content, bus).await?,
        Runtime::Adb => {
            let why = format!("{:?} can't be run on this PC", job.runtime);
            return Err(NotBegun::Returned(why, Hindrance::Fit));
        }
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
    Ok((spec, bytes))
}

/// A program or a component, and what it reads.
async fn program(
    job: &Job,
    holding: &Holding,
    content: &Content,
    bus: &Bus,
) -> Result<(JobWork, Vec<InputFile>, u64), NotBegun> {
    let digest = |of: &Digest| {
        let digest = of.to_string().parse::<FileDigest>();
        digest.map_err(|e| NotBegun::Failed(e.to_string()))
    };
    let fetch = async |of: &Digest| content.have(bus, holding, *of).await;
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
