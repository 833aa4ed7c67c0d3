//! Copying a closure to a machine.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use tokio::process::Command;
use undercroft_model::{FailedCommand, Failure, FailureKind};

use super::{
    installer::{Installer, unanswered},
    job::Job,
    nixlog::{NixLog, Rate},
    progress::RunProgress,
};
use undercroft_build::system::NixStore;
use undercroft_process as process;
use undercroft_process::Input;
use undercroft_ssh::{Connection, quote};
use undercroft_steps::{Answer, CopyFailed, MOUNT_POINT};

/// Where a path goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Destination {
    /// The store of the new system, below the mount point.
    NewSystem,
    /// The store of the machine that is asked: an installer's in memory, or that of a machine's own system.
    OwnStore,
}

/// Copies a path with all that it refers to.
pub(super) async fn push(
    job: &Job<'_>,
    installer: &Installer<'_>,
    path: &str,
    destination: Destination,
    total_bytes: Option<u64>,
) -> Result<Answer, Failure> {
    push_over(job, installer.connection(), path, destination, total_bytes).await
}

/// The same, over any connection.
pub(super) async fn push_over(
    job: &Job<'_>,
    connection: &Connection,
    path: &str,
    destination: Destination,
    total_bytes: Option<u64>,
) -> Result<Answer, Failure> {
    let (nix, shown) = command(job, connection, path, destination);
    let mut log = NixLog::default();
    let mut teller = Teller::new(job, total_bytes);
    // What the log tells is exact, and what ssh has written is there with every version of Nix.
    let logged_bytes = AtomicU64::new(0);
    let finished = process::run_watched(
        nix,
        Input::Nothing,
        job.left(),
        &mut |line| {
            log.take(line);
            logged_bytes.store(log.done_bytes(), Ordering::Relaxed);
        },
        &mut |pid| {
            let sent = process::bytes_written_by_children(pid);
            teller.tell(sent.max(logged_bytes.load(Ordering::Relaxed)));
        },
    )
    .await
    .map_err(|e| {
        Failure::new(FailureKind::Permanent, format!("`nix` can't be run: {e}"))
            .with_hint("Install Nix on this machine (Debian's package is nix-bin).")
    })?;
    if finished.code == Some(0) {
        if let Some(total) = total_bytes {
            teller.last(total);
        }
        return Ok(Answer::Done);
    }
    let said = log.errors().to_owned();
    let connection = match finished.timed_out {
        true => None,
        false => connection.blame(&shown, &said).map(unanswered),
    };
    Ok(Answer::CopyFailed(Box::new(CopyFailed {
        timed_out: finished.timed_out,
        connection,
        command: FailedCommand {
            command: shown,
            exit_code: finished.code,
            output_tail: said,
        },
    })))
}

/// The program, and how a person would type it.
fn command(
    job: &Job<'_>,
    connection: &Connection,
    path: &str,
    destination: Destination,
) -> (Command, String) {
    let stores = &job.shared.parts.stores;
    let store = stores.get(job.name()).unwrap_or(&NixStore::Default);
    let to = match destination {
        Destination::NewSystem => format!(
            "ssh://{}?remote-store=local%3Froot%3D{MOUNT_POINT}",
            connection.destination()
        ),
        Destination::OwnStore => format!("ssh://{}", connection.destination()),
    };
    let mut args: Vec<String> = [
        "copy",
        "--no-check-sigs",
        "--log-format",
        "internal-json",
        "-v",
    ]
    .map(str::to_owned)
    .to_vec();
    args.extend(store.from_args());
    args.extend(["--to".to_owned(), to, path.to_owned()]);
    let shown = std::iter::once("nix".to_owned())
        .chain(args.iter().map(|word| quote(word)))
        .collect::<Vec<_>>()
        .join(" ");
    let mut nix = Command::new("nix");
    nix.args(&args)
        .env("NIX_SSHOPTS", connection.nix_sshopts())
        .env("NIX_CONFIG", nix_config());
    (nix, shown)
}

fn nix_config() -> String {
    let mut config = std::env::var("NIX_CONFIG").unwrap_or_default();
    config.push_str("\nexperimental-features = nix-command flakes\n");
    config
}

struct Teller<'a> {
    job: &'a Job<'a>,
    total_bytes: Option<u64>,
    rate: Rate,
}

impl<'a> Teller<'a> {
    fn new(job: &'a Job<'a>, total_bytes: Option<u64>) -> Self {
        Self {
            job,
            total_bytes,
            rate: Rate::default(),
        }
    }

    fn tell(&mut self, done_bytes: u64) {
        // What ssh adds must not make it more than there is.
        let done_bytes = self
            .total_bytes
            .map_or(done_bytes, |total| done_bytes.min(total));
        let bytes_per_s = self.rate.sample(Instant::now(), done_bytes);
        self.send(done_bytes, bytes_per_s);
    }

    fn last(&mut self, total: u64) {
        let rate = self.rate.sample(Instant::now(), total);
        self.send(total, rate);
    }

    fn send(&self, done_bytes: u64, bytes_per_s: u64) {
        let left = self
            .total_bytes
            .map(|total| total.saturating_sub(done_bytes));
        self.job.shared.tell(RunProgress::Bytes {
            node: self.job.name().clone(),
            phase: self.job.step.action.verb().into(),
            done_bytes,
            total_bytes: self.total_bytes,
            bytes_per_s,
            left_s: left.and_then(|left| left.checked_div(bytes_per_s)),
        });
    }
}
