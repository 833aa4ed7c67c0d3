//! Where jobs run: a folder for what they write, and a group for what they use.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};
use undercroft_process::lock::{FileLock, LOCK_LINGERS_MAX, NotLocked};

use crate::{
    DiskBound, FileDigest, JobSpec, JobWork, KillReason, ProgramKind, Running, SandboxError, Tools,
    TotalBounds,
    bwrap::View,
    disk::DiskWatch,
    groups::{Group, Own, Share},
    order::{Checked, INPUTS, JobOrder, ORDER_VERSION, RESULT, Task},
    running::{Held, aside},
    spawn::{BEGIN_LIMIT, spawn},
    supervise::Supervisor,
    wipe,
};

/// The largest record of groups that is read, in bytes. It has four paths.
const RECORD_BYTES_MAX: u64 = 64 * 1024;

/// The groups that a process made for its jobs, so that a later one finds what is left of them.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupsRecord {
    version: u32,
    control: PathBuf,
    others: Vec<PathBuf>,
}

/// What an earlier process had left, and is gone now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Jobs whose processes or folders were still there.
    pub jobs: usize,
    /// Processes that were killed.
    pub processes: usize,
    /// How long it took until all were gone, and all was wiped.
    pub after: Duration,
}

/// Where jobs run. One process at a time has it.
#[derive(Debug)]
pub struct Yard {
    folder: PathBuf,
    tools: Tools,
    total: Arc<Group>,
    started: AtomicU64,
    _lock: FileLock,
}

impl Yard {
    /// Takes a folder for jobs, which is made where it isn't there, kills and wipes what an earlier process left in it, and
    /// makes the group that bounds all jobs together.
    ///
    /// # Errors
    /// When another process has it, something can't be swept, or a bound can't be held here.
    pub async fn open(
        folder: &Path,
        tools: Tools,
        total: &TotalBounds,
    ) -> Result<(Self, Swept), SandboxError> {
        let lock = own_folder(folder)?;
        let swept = sweep_held(folder).await?;
        let name = group_name(folder);
        let group = Group::total(&Own::look()?, &name)?;
        group.set(&Share {
            cpu_percent: total.cpu_percent,
            memory_mb: total.memory_mb,
            pids: total.pids,
            ends_whole: false,
        })?;
        record(folder, &group)?;
        let yard = Self {
            folder: folder.to_owned(),
            tools,
            total: Arc::new(group),
            started: AtomicU64::new(0),
            _lock: lock,
        };
        Ok((yard, swept))
    }

    /// Whether everybody else on the machine has processors' time first, as it is until this says otherwise: a job on a
    /// machine that is busy goes on slowly. A machine that is there for nothing else needs no such manners.
    pub fn come_last(&self, do_jobs: bool) {
        self.total.come_last(do_jobs);
    }

    /// Starts a job, and returns when it has begun: it is confined then, and its limits were read back.
    ///
    /// # Errors
    /// Why it was not started. Nothing of it is left.
    pub async fn start(&self, spec: JobSpec) -> Result<Running, SandboxError> {
        self.start_until(spec, std::future::pending()).await
    }

    /// Starts a job, unless `stop` is ready before it has begun: it is killed where it is then. Its inputs are read before
    /// it begins, which may take long.
    ///
    /// # Errors
    /// Why it was not started. Nothing of it is left.
    pub async fn start_until(
        &self,
        spec: JobSpec,
        stop: impl Future<Output = ()>,
    ) -> Result<Running, SandboxError> {
        spec.check()?;
        let folder = self.folder.join("jobs").join(&spec.name);
        prepare(&folder, spec.bounds.disk)?;
        let started = match ready(&spec, &folder).await {
            Ok(()) => self.start_in(&spec, &folder, stop).await,
            Err(error) => Err(error),
        };
        if started.is_err() {
            let gone = folder.clone();
            // Why it was not started counts for more, and the next sweep wipes it.
            let _ = aside("wipe", &folder, move || wipe::wipe(&gone)).await;
        }
        started
    }

    async fn start_in(
        &self,
        spec: &JobSpec,
        folder: &Path,
        stop: impl Future<Output = ()>,
    ) -> Result<Running, SandboxError> {
        let watch = DiskWatch::of(folder, spec.bounds.disk);
        if let Some(KillReason::Disk { why } | KillReason::NoRoom { why }) =
            watch.and_then(|watch| watch.look(&[]))
        {
            return Err(SandboxError::Refused { why, hint: None });
        }
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let group = self.total.child(&format!("{}.{number}", spec.name))?;
        let limited = group.set(&Share {
            cpu_percent: spec.bounds.cpu_percent,
            memory_mb: spec.bounds.memory_mb,
            pids: spec.bounds.pids,
            ends_whole: true,
        });
        if let Err(error) = limited {
            let _ = group.remove().await;
            return Err(error);
        }
        let (program, builder) = match &spec.work {
            JobWork::Program(program) => (Some(program.file.as_path()), None),
            JobWork::Builder(builder) => (None, Some(builder)),
        };
        let view = View {
            program,
            builder,
            inputs: &spec.inputs,
            files: Some((folder, spec.bounds.disk)),
            groups: group.folders(),
        };
        let order = order_of(spec);
        let (child, socket) = match spawn(&self.tools, &view, &order).await {
            Ok(started) => started,
            Err(error) => {
                let _ = group.kill_and_see().await;
                let _ = group.remove().await;
                return Err(error);
            }
        };
        let held = Held::new(
            spec.name.clone(),
            folder.to_owned(),
            group,
            spec.bounds.clone(),
            builder.map(|builder| builder.outputs.clone()),
        );
        let held = Arc::new(held);
        let (begun, begins) = oneshot::channel();
        let (ends, ended) = watch::channel(None);
        let supervisor = Supervisor::new(Arc::clone(&held), child, socket, begun);
        tokio::spawn(supervisor.run(ends));
        // From here on it is killed when this is dropped.
        let running = Running {
            held,
            ended,
            landlock_abi: 0,
        };
        tokio::select! {
            begun = tokio::time::timeout(BEGIN_LIMIT, begins) => has_begun(running, begun.ok()).await,
            () = stop => not_to_begin(running, SandboxError::Stopped).await,
        }
    }
}

/// What comes of a job that said whether it begins; `None` where it said nothing in time.
async fn has_begun(
    mut running: Running,
    said: Option<Result<Result<u32, SandboxError>, oneshot::error::RecvError>>,
) -> Result<Running, SandboxError> {
    match said {
        Some(Ok(Ok(landlock_abi))) => {
            running.landlock_abi = landlock_abi;
            Ok(running)
        }
        Some(Ok(Err(error))) => {
            running.wait().await;
            Err(error)
        }
        Some(Err(_)) | None => {
            let limit_s = BEGIN_LIMIT.as_secs();
            not_to_begin(running, SandboxError::Late { limit_s }).await
        }
    }
}

async fn not_to_begin(running: Running, why: SandboxError) -> Result<Running, SandboxError> {
    // What doesn't die is waited for: nothing is told of a job before no process of it is left.
    let _ = running.kill().await;
    running.wait().await;
    Err(why)
}

impl Drop for Yard {
    fn drop(&mut self) {
        self.total.remove_now();
    }
}

/// Kills and wipes what a process left in a folder for jobs, where none has it now.
///
/// # Errors
/// When a process has it, or something can't be killed or wiped.
pub async fn sweep(folder: &Path) -> Result<Swept, SandboxError> {
    if !folder.exists() {
        return Ok(Swept::default());
    }
    let _lock = own_folder(folder)?;
    sweep_held(folder).await
}

async fn sweep_held(folder: &Path) -> Result<Swept, SandboxError> {
    let start = std::time::Instant::now();
    let mut swept = Swept::default();
    if let Some(total) = recorded(folder)?.map(Arc::new) {
        for job in total.children() {
            swept.jobs += 1;
            swept.processes += job.processes().len();
            // All are told before any is waited for.
            if job.control().exists() {
                job.kill()?;
            }
        }
        for job in total.children() {
            job.kill_and_see().await?;
            job.remove().await?;
        }
        total.kill_and_see().await?;
        total.remove().await?;
    }
    let jobs = folder.join("jobs");
    let left = fs::read_dir(&jobs).into_iter().flatten().flatten().count();
    swept.jobs = swept.jobs.max(left);
    aside("wipe", &jobs.clone(), move || wipe::wipe(&jobs)).await?;
    swept.after = start.elapsed();
    Ok(swept)
}

/// Makes the folder where it isn't there, sees that it is this user's alone, and takes its lock.
fn own_folder(folder: &Path) -> Result<FileLock, SandboxError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(SandboxError::file("make", folder))?;
    let found = fs::symlink_metadata(folder).map_err(SandboxError::file("look at", folder))?;
    let own = rustix::process::geteuid().as_raw();
    if !found.is_dir() || found.uid() != own || found.mode() & 0o077 != 0 {
        return Err(SandboxError::NotHeld {
            what: "a folder of one's own for jobs",
            why: format!("{} is not this user's alone", folder.display()),
            hint: "it has to be a folder with mode 0700 that belongs to whoever runs the daemon",
        });
    }
    let path = folder.join("lock");
    let lock = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(SandboxError::file("open", &path))?;
    FileLock::take(lock, LOCK_LINGERS_MAX).map_err(|why| match why {
        NotLocked::Held(_) => SandboxError::Taken {
            folder: folder.to_owned(),
        },
        NotLocked::Failed(_, error) => SandboxError::file("lock", path)(error),
    })
}

/// The name of the group of all jobs: another for each folder.
fn group_name(folder: &Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    let digest = FileDigest::of(folder.as_os_str().as_bytes(), u64::MAX);
    let digest = digest
        .map(|(digest, _)| digest.to_string())
        .unwrap_or_default();
    let short: String = digest.chars().skip("sha256:".len()).take(12).collect();
    format!("undercroft-jobs-{short}")
}

fn record(folder: &Path, group: &Group) -> Result<(), SandboxError> {
    let path = folder.join("groups.json");
    let folders = group.folders().into_iter().map(Path::to_owned);
    let others = folders.filter(|dir| dir != group.control()).collect();
    let record = GroupsRecord {
        version: ORDER_VERSION,
        control: group.control().to_owned(),
        others,
    };
    let write = || -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        serde_json::to_writer(&mut file, &record)?;
        file.as_file().sync_all()?;
        file.persist(&path).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(SandboxError::file("write", &path))
}

fn recorded(folder: &Path) -> Result<Option<Group>, SandboxError> {
    use std::io::Read as _;
    let path = folder.join("groups.json");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(SandboxError::file("open", path)(error)),
    };
    let mut text = String::new();
    let read = file.take(RECORD_BYTES_MAX).read_to_string(&mut text);
    read.map_err(SandboxError::file("read", &path))?;
    let record: GroupsRecord = serde_json::from_str(&text)
        .map_err(|error| SandboxError::file("read", &path)(io::Error::other(error)))?;
    let name = group_name(folder);
    let mut all = std::iter::once(&record.control).chain(&record.others);
    if record.version != ORDER_VERSION || !all.all(|dir| dir.ends_with(&name)) {
        return Err(SandboxError::file("read", &path)(io::Error::other(
            "it names groups that aren't this folder's",
        )));
    }
    Ok(Some(Group::left(record.control, record.others)))
}

/// Makes a job's folders.
fn prepare(folder: &Path, disk: DiskBound) -> Result<(), SandboxError> {
    let make = |path: &Path, is_deep: bool| {
        let mut builder = DirBuilder::new();
        let made = builder.recursive(is_deep).mode(0o700).create(path);
        made.map_err(SandboxError::file("make", path))
    };
    if let Some(jobs) = folder.parent() {
        make(jobs, true)?;
    }
    make(folder, false).map_err(|error| match error {
        SandboxError::File { source, .. } if source.kind() == io::ErrorKind::AlreadyExists => {
            SandboxError::Refused {
                why: "a job of that name is there already".to_owned(),
                hint: None,
            }
        }
        other => other,
    })?;
    let out = folder.join("out");
    make(&out, false)?;
    match disk {
        DiskBound::Watched { .. } => make(&folder.join("scratch"), false),
        DiskBound::InMemory { .. } => {
            let file = out.join(RESULT);
            let made = File::options()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&file);
            made.map(drop).map_err(SandboxError::file("make", file))
        }
    }
}

/// Makes what a build begins with.
async fn ready(spec: &JobSpec, folder: &Path) -> Result<(), SandboxError> {
    let JobWork::Builder(builder) = &spec.work else {
        return Ok(());
    };
    let (builder, bounds, at) = (builder.clone(), spec.bounds.clone(), folder.to_owned());
    aside("prepare", folder, move || builder.prepare(&at, &bounds)).await
}

fn order_of(spec: &JobSpec) -> JobOrder {
    let (task, program) = match &spec.work {
        JobWork::Program(program) => {
            let task = match program.kind {
                ProgramKind::Native => Task::Exec,
                ProgramKind::Component => Task::Component {
                    memory_bytes: u64::from(spec.bounds.memory_mb) * 1024 * 1024,
                },
            };
            (task, Some(program.digest))
        }
        JobWork::Builder(builder) => {
            let task = Task::Build {
                builder: builder.program.clone(),
                environment: builder.environment.clone(),
            };
            (task, None)
        }
    };
    let inputs = spec.inputs.iter().filter_map(|input| {
        Some(Checked {
            file: format!("{INPUTS}/{}", input.name),
            digest: input.digest?,
        })
    });
    JobOrder {
        version: ORDER_VERSION,
        task,
        arguments: spec.arguments.clone(),
        program,
        inputs: inputs.collect(),
        landlock_abi_min: spec.landlock_abi_min,
        open_files: spec.bounds.open_files.into(),
        file_bytes: spec.bounds.disk.file_bytes(),
    }
}
