//! Starting and ending a rack, and running commands inside its network.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};
use undercroft_model::System;

use super::RackError;
use super::accel;
use super::client::RackClient;
use super::error::{Refusal, namespace_hint};
use super::firmware::{find_program, find_qemu, find_uefi};
use super::lent::Lent;
use super::spec::{RackFirmware, RackSpec};
use super::state::{
    CONTROL_SOCKET, LOG_END_BYTES, StateDir, SupervisorRecord, end_of_file, net_namespace,
    write_file,
};
use super::supervisor::{Orders, STARTED};

/// How long a rack may take to set itself up, in milliseconds.
pub const UP_MS: u64 = 30_000;
/// How often a rack that sets itself up is looked at, in milliseconds.
const UP_POLL_MS: u64 = 20;
/// How long a killed supervisor may take to be gone, in milliseconds.
const KILL_MS: u64 = 10_000;

const UTIL_LINUX: &str = "Install util-linux.";

/// How the supervisor is started: a program that calls [`super::supervisor_main`] with the
/// arguments that follow these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SupervisorCommand {
    /// The program.
    pub program: PathBuf,
    /// What comes before the rack's directory.
    pub args: Vec<OsString>,
}

impl SupervisorCommand {
    /// The running program itself, with a hidden subcommand.
    ///
    /// # Errors
    /// If the program's own path can't be found.
    pub fn current_exe(subcommand: &str) -> Result<Self, RackError> {
        let program =
            std::env::current_exe().map_err(|e| RackError::io("find", "the running program", e))?;
        Ok(Self {
            program,
            args: vec![subcommand.into()],
        })
    }
}

/// What happens to the disks and logs of a rack that ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disks {
    /// They stay; [`up`] with the same description goes on with them.
    Keep,
    /// They are deleted, with all else that the rack put into its directory.
    Delete,
}

/// Starts a rack: makes its namespaces, network and disks. Its machines are off.
///
/// Disks and firmware variables that are in the directory already are kept.
///
/// # Errors
/// If the description has a fault, a program or firmware is missing, the kernel refuses, or a
/// rack runs in the directory already.
pub async fn up(
    state_dir: &Path,
    spec: &RackSpec,
    supervisor: &SupervisorCommand,
) -> Result<RackClient, RackError> {
    spec.validate()?;
    let dir = StateDir::new(state_dir)?;
    if let Some(record) = SupervisorRecord::find(&dir) {
        return Err(RackError::AlreadyRunning {
            state_dir: dir.root().into(),
            pid: record.pid,
        });
    }
    let programs = Programs::find()?;
    check_needs(spec)?;
    dir.create()?;
    let orders = Orders {
        accelerator: accel::choose(spec.accelerator, &dir).await?,
        spec: spec.clone(),
    };
    let text = serde_json::to_vec_pretty(&orders).map_err(|e| RackError::Protocol {
        detail: e.to_string(),
    })?;
    write_file(&dir.spec(), &text)?;
    for stale in [dir.failure(), dir.record(), dir.root().join(CONTROL_SOCKET)] {
        match fs::remove_file(&stale) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(RackError::io("remove", stale, e));
            }
            _ => {}
        }
    }
    let child = spawn(&dir, &programs, supervisor)?;
    wait_until_up(&dir, child).await
}

struct Programs {
    setsid: PathBuf,
    unshare: PathBuf,
}

impl Programs {
    fn find() -> Result<Self, RackError> {
        find_program(
            "ip",
            "the rack's network",
            "Install iproute2 (Fedora: iproute).",
        )?;
        find_program("nsenter", "entering the rack's network", UTIL_LINUX)?;
        Ok(Self {
            setsid: find_program("setsid", "starting the rack", UTIL_LINUX)?,
            unshare: find_program("unshare", "the rack's namespaces", UTIL_LINUX)?,
        })
    }
}

/// Looks for everything that the rack's machines need before anything is started.
fn check_needs(spec: &RackSpec) -> Result<(), RackError> {
    let kinds: std::collections::BTreeSet<(System, bool)> = spec
        .machines
        .iter()
        .map(|m| (m.system, m.firmware == RackFirmware::Uefi))
        .collect();
    for (system, uefi) in kinds {
        let qemu = find_qemu(system)?;
        if uefi {
            find_uefi(system, &qemu)?;
        }
    }
    OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .map_err(|source| RackError::NoTun { source })?;
    Ok(())
}

/// Starts the supervisor in a session and namespaces of its own.
///
/// The process namespace makes the supervisor its process 1, so that the kernel ends every QEMU
/// with it, however it ends. `/proc` stays the host's: the supervisor learns from it which
/// process it is there.
fn spawn(
    dir: &StateDir,
    programs: &Programs,
    supervisor: &SupervisorCommand,
) -> Result<Child, RackError> {
    let log = File::create(dir.log()).map_err(|e| RackError::io("create", dir.log(), e))?;
    let errors = log
        .try_clone()
        .map_err(|e| RackError::io("open", dir.log(), e))?;
    let _lent = Lent::new();
    let mut command = Command::new(&programs.setsid);
    command
        .arg(&programs.unshare)
        .args([
            "--user",
            "--map-root-user",
            "--net",
            "--pid",
            "--fork",
            "--kill-child",
            "--",
        ])
        .arg(&supervisor.program)
        .args(&supervisor.args)
        .arg(dir.root())
        .current_dir(dir.root())
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors);
    undercroft_process::trace::started(command.as_std());
    command
        .spawn()
        .map_err(|e| RackError::io("run", &programs.setsid, e))
}

async fn wait_until_up(dir: &StateDir, mut child: Child) -> Result<RackClient, RackError> {
    let deadline = Instant::now() + Duration::from_millis(UP_MS);
    loop {
        if SupervisorRecord::find(dir).is_some() {
            return RackClient::connect(dir.root()).await;
        }
        if let Some(status) = child
            .try_wait()
            .map_err(|e| RackError::io("wait for", "unshare", e))?
        {
            return Err(why_not_up(dir, &status.to_string()));
        }
        if Instant::now() >= deadline {
            // `unshare --kill-child` ends the supervisor with itself.
            let _ = child.kill().await;
            return Err(RackError::TimedOut {
                what: "starting the rack".into(),
                limit_ms: UP_MS,
            });
        }
        sleep(Duration::from_millis(UP_POLL_MS)).await;
    }
}

/// Explains a supervisor that ended before it was ready.
fn why_not_up(dir: &StateDir, status: &str) -> RackError {
    if let Ok(text) = fs::read(dir.failure())
        && let Ok(refusal) = serde_json::from_slice::<Refusal>(&text)
    {
        return RackError::Refused(refusal);
    }
    let log_end = end_of_file(&dir.log(), LOG_END_BYTES);
    if let Some(line) = log_end.lines().find(|line| line.starts_with("unshare:")) {
        return RackError::NamespaceRefused {
            detail: line.into(),
            hint: namespace_hint(),
        };
    }
    RackError::SupervisorFailed {
        status: status.into(),
        log: dir.log(),
        log_end,
    }
}

/// Ends the rack in a directory, by force if it doesn't end by itself. Without one it only
/// deletes, if that is asked for.
///
/// # Errors
/// If its processes stay, or files can't be deleted.
pub async fn down(state_dir: &Path, disks: Disks) -> Result<(), RackError> {
    let dir = StateDir::new(state_dir)?;
    if let Some(record) = SupervisorRecord::find(&dir) {
        let asked = match RackClient::connect(state_dir).await {
            Ok(client) => client.shutdown().await,
            Err(error) => Err(error),
        };
        if asked.is_err() && record.is_alive() {
            kill(&record).await?;
        }
    }
    if disks == Disks::Delete {
        delete(&dir)?;
    }
    Ok(())
}

/// Kills the supervisor, and with it every process of its namespace.
async fn kill(record: &SupervisorRecord) -> Result<(), RackError> {
    if let Some(pid) = Pid::from_raw(record.pid) {
        // It may have ended meanwhile, which the wait below sees.
        let _ = kill_process(pid, Signal::KILL);
    }
    let deadline = Instant::now() + Duration::from_millis(KILL_MS);
    while record.is_alive() {
        if Instant::now() >= deadline {
            return Err(RackError::TimedOut {
                what: format!("killing the supervisor (process {})", record.pid),
                limit_ms: KILL_MS,
            });
        }
        sleep(Duration::from_millis(UP_POLL_MS)).await;
    }
    Ok(())
}

/// Deletes what a rack put into its directory, and the directory if nothing else is in it.
fn delete(dir: &StateDir) -> Result<(), RackError> {
    let machines = dir.machines();
    match fs::remove_dir_all(&machines) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(RackError::io("delete", machines, e));
        }
        _ => {}
    }
    let files = [
        dir.spec(),
        dir.record(),
        dir.failure(),
        dir.lock(),
        dir.log(),
        dir.accelerator(),
        dir.root().join(CONTROL_SOCKET),
    ];
    for file in files {
        match fs::remove_file(&file) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(RackError::io("delete", file, e));
            }
            _ => {}
        }
    }
    // Something of the user's may be in the directory too; then it stays.
    let _ = fs::remove_dir(dir.root());
    Ok(())
}

/// A command that runs inside the rack's user and network namespaces: there it is root, sees the
/// rack's bridge, and may bind any port; on the host it is the user who calls. Files, processes
/// and the working directory are the host's.
///
/// # Errors
/// [`RackError::NotRunning`] if no rack runs in the directory.
pub fn enter_command<I, S>(
    state_dir: &Path,
    program: impl AsRef<OsStr>,
    args: I,
) -> Result<std::process::Command, RackError>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let dir = StateDir::new(state_dir)?;
    let Some(record) = SupervisorRecord::find(&dir) else {
        return Err(RackError::NotRunning {
            state_dir: dir.root().into(),
        });
    };
    let nsenter = find_program("nsenter", "entering the rack's network", UTIL_LINUX)?;
    let mut command = std::process::Command::new(nsenter);
    command
        .args(["--user", "--preserve-credentials", "--net", "--target"])
        .arg(record.pid.to_string())
        .arg("--")
        .arg(program)
        .args(args);
    // Whoever asks for it runs it.
    undercroft_process::trace::started(&command);
    Ok(command)
}

/// Has the programs that the rack's supervisor starts during `work` told too, where anybody hears it: QEMU
/// runs there, and not beneath this process.
/// `afresh` says that the work starts the supervisor, which begins its log anew.
pub async fn tracing_supervisor<T>(
    state_dir: &Path,
    afresh: bool,
    work: impl Future<Output = T>,
) -> T {
    if !undercroft_process::trace::is_heard() {
        return work.await;
    }
    let log = StateDir::new(state_dir).map(|dir| dir.log()).ok();
    let read = || {
        let text = log.as_ref().and_then(|log| fs::read(log).ok());
        text.unwrap_or_default()
    };
    let before = if afresh { Vec::new() } else { read() };
    let done = work.await;
    let after = read();
    let new = after.strip_prefix(before.as_slice()).unwrap_or(&after);
    for line in String::from_utf8_lossy(new).lines() {
        if let Some(command) = line.strip_prefix(STARTED) {
            undercroft_process::trace::tell(command);
        }
    }
    done
}

/// Whether the calling process is inside the network of the rack that runs in a directory.
pub fn is_inside(state_dir: &Path) -> bool {
    StateDir::new(state_dir)
        .ok()
        .and_then(|dir| SupervisorRecord::find(&dir))
        .is_some_and(|record| net_namespace("self").as_deref() == Some(&record.net_namespace))
}
