//! A job that was started.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::sync::watch;

use crate::{
    Bounds, SandboxError, TakenOutput, builder,
    groups::{Group, lock, millis},
    log::LogTail,
    output, wipe,
};

/// Why a job was killed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KillReason {
    /// Somebody asked for it.
    Asked,
    /// It ran longer than it may.
    Wall,
    /// It wrote more to its log than it may.
    Log,
    /// It has more files than it may, or hides them.
    Disk {
        /// As a clause.
        why: String,
    },
    /// The disk has less room left than it is to have, whoever filled it.
    NoRoom {
        /// As a clause.
        why: String,
    },
}

/// How a job ended. All its processes are gone by then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobEnd {
    /// By itself. A signal counts as 128 and its number.
    Exited {
        /// Its exit code.
        code: i32,
    },
    /// A component did what it may not, or used up what it may.
    Trapped {
        /// Why, as Wasmtime says it.
        why: String,
    },
    /// The kernel killed it because its memory was used up.
    OutOfMemory,
    /// It was killed.
    Killed {
        /// Why.
        reason: KillReason,
    },
}

/// What a job used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobUsage {
    /// Processor time, in milliseconds.
    pub cpu_ms: u64,
    /// The most memory at once, in bytes, where the kernel says.
    pub memory_peak_bytes: Option<u64>,
    /// Since it began, without the time that it was frozen, in milliseconds.
    pub wall_ms: u64,
    /// What it wrote to its log, in bytes.
    pub log_bytes: u64,
}

/// A job whose processes are all gone, as was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobGone {
    /// How long that took from the kill on.
    pub after: Duration,
}

/// How long a job has run, without the time that it was frozen.
#[derive(Debug)]
struct Stopwatch {
    ran: Duration,
    since: Option<Instant>,
}

impl Stopwatch {
    fn elapsed(&self) -> Duration {
        let now = self.since.map_or(Duration::ZERO, |since| since.elapsed());
        self.ran.saturating_add(now)
    }
}

/// What the supervisor and the handle of a job share.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    pub(crate) group: Group,
    pub(crate) bounds: Bounds,
    /// What a build makes.
    outputs: Option<BTreeMap<String, String>>,
    stopwatch: Mutex<Stopwatch>,
    reason: Mutex<Option<KillReason>>,
    last: Mutex<Option<JobUsage>>,
    pub(crate) tail: Mutex<LogTail>,
}

impl Held {
    pub(crate) fn new(
        name: String,
        folder: PathBuf,
        group: Group,
        bounds: Bounds,
        outputs: Option<BTreeMap<String, String>>,
    ) -> Self {
        Self {
            name,
            folder,
            group,
            bounds,
            outputs,
            stopwatch: Mutex::new(Stopwatch {
                ran: Duration::ZERO,
                since: None,
            }),
            reason: Mutex::default(),
            last: Mutex::default(),
            tail: Mutex::default(),
        }
    }

    /// Kills it for a reason; the first one is kept.
    pub(crate) fn kill_for(&self, reason: KillReason) -> Result<(), SandboxError> {
        lock(&self.reason).get_or_insert(reason);
        self.group.kill()
    }

    pub(crate) fn reason(&self) -> Option<KillReason> {
        lock(&self.reason).clone()
    }

    pub(crate) fn ran(&self) -> Duration {
        lock(&self.stopwatch).elapsed()
    }

    /// Whether its time goes on: it has begun, and isn't frozen.
    pub(crate) fn is_running(&self) -> bool {
        lock(&self.stopwatch).since.is_some()
    }

    fn stop_watch(&self) {
        let mut watch = lock(&self.stopwatch);
        watch.ran = watch.elapsed();
        watch.since = None;
    }

    /// The job's time begins, or goes on.
    pub(crate) fn start_watch(&self) {
        lock(&self.stopwatch).since.get_or_insert_with(Instant::now);
    }

    pub(crate) fn usage(&self) -> JobUsage {
        if let Some(last) = *lock(&self.last) {
            return last;
        }
        JobUsage {
            cpu_ms: self.group.cpu_ms(),
            memory_peak_bytes: self.group.memory_peak(),
            wall_ms: millis(self.ran()),
            log_bytes: lock(&self.tail).seen(),
        }
    }

    /// Keeps what it used, as its group will be gone.
    pub(crate) fn close(&self) {
        self.stop_watch();
        let usage = self.usage();
        lock(&self.last).get_or_insert(usage);
    }
}

/// A job that runs, or has run. Dropped, it is killed.
#[derive(Debug)]
pub struct Running {
    pub(crate) held: Arc<Held>,
    pub(crate) ended: watch::Receiver<Option<JobEnd>>,
    pub(crate) landlock_abi: u32,
}

impl Running {
    /// The job's name.
    pub fn name(&self) -> &str {
        &self.held.name
    }

    /// The version of Landlock that holds it; 0 for none.
    pub fn landlock_abi(&self) -> u32 {
        self.landlock_abi
    }

    /// How it ended, once it has: none of its processes is left.
    pub async fn wait(&self) -> JobEnd {
        let mut ended = self.ended.clone();
        loop {
            if let Some(end) = ended.borrow_and_update().clone() {
                return end;
            }
            if ended.changed().await.is_err() {
                // The supervisor went with its runtime, and killed the job as it went.
                return JobEnd::Killed {
                    reason: KillReason::Asked,
                };
            }
        }
    }

    /// How it ended; `None` while it runs.
    pub fn end(&self) -> Option<JobEnd> {
        self.ended.borrow().clone()
    }

    /// Stops all its processes where they are; how long that took. Frozen time isn't counted as the job's.
    ///
    /// # Errors
    /// When a process doesn't stop. It is to be killed then.
    pub async fn freeze(&self) -> Result<Duration, SandboxError> {
        if self.end().is_some() {
            return Ok(Duration::ZERO);
        }
        self.held.stop_watch();
        self.held.group.freeze().await
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// When the kernel doesn't.
    pub fn thaw(&self) -> Result<(), SandboxError> {
        if self.end().is_some() {
            return Ok(());
        }
        self.held.start_watch();
        self.held.group.thaw()
    }

    /// Kills all its processes, frozen or not, and returns when none is left.
    ///
    /// # Errors
    /// When some are left after ten seconds. They are in the kernel's hands, and [`Self::wait`] goes on waiting.
    pub async fn kill(&self) -> Result<JobGone, SandboxError> {
        let start = Instant::now();
        if self.end().is_none() && self.held.group.control().exists() {
            match self.held.kill_for(KillReason::Asked) {
                // Ended and gone between the two.
                Err(_) if !self.held.group.control().exists() => {}
                otherwise => otherwise?,
            }
            self.held.group.kill_and_see().await?;
        }
        Ok(JobGone {
            after: start.elapsed(),
        })
    }

    /// What it has used so far, or in all.
    pub fn usage(&self) -> JobUsage {
        self.held.usage()
    }

    /// The end of what it has written to standard output and error, fit for a terminal.
    pub fn log_tail(&self) -> String {
        lock(&self.held.tail).text()
    }

    /// Takes its output, which is read once for its digest. `None` where it left none. Only when it has ended. That of a
    /// build is an archive of all its outputs; one that is missing is an error.
    ///
    /// # Errors
    /// When what it left isn't a file, or is too large, or it still runs.
    pub async fn take_output(&self) -> Result<Option<TakenOutput>, SandboxError> {
        if self.end().is_none() {
            return Err(SandboxError::Output {
                why: "the job still runs".to_owned(),
            });
        }
        let held = Arc::clone(&self.held);
        aside(
            "take the output of",
            &self.held.folder,
            move || match &held.outputs {
                Some(outputs) => builder::take(&held.folder, outputs, &held.bounds).map(Some),
                None => output::take(&held.folder.join("out"), held.bounds.output_bytes),
            },
        )
        .await
    }

    /// Kills it if it runs, and removes all that it has left on the disk.
    ///
    /// # Errors
    /// When something can't be removed, or a process is left.
    pub async fn wipe(self) -> Result<(), SandboxError> {
        self.kill().await?;
        self.wait().await;
        let folder = self.held.folder.clone();
        aside("wipe", &self.held.folder, move || wipe::wipe(&folder)).await?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.end().is_none() {
            // Gone already, or nothing more can be done from here; the supervisor goes on.
            let _ = self.held.kill_for(KillReason::Asked);
        }
    }
}

/// Does something with files on a thread of its own, as it may take long.
pub(crate) async fn aside<T: Send + 'static>(
    tried: &'static str,
    path: &std::path::Path,
    work: impl FnOnce() -> Result<T, SandboxError> + Send + 'static,
) -> Result<T, SandboxError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(SandboxError::file(tried, path)(std::io::Error::other(
            error,
        ))),
    }
}
