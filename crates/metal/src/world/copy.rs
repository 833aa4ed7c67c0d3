//! Copying a closure to a machine.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use tokio::process::Command;
use undercroft_model::{Evidence, FailedCommand, Failure, FailureKind, Work};

use super::{
    Done, Job, Progress, Stop,
    installer::{self, Installer, exit, refused},
    nixlog::{NixLog, Rate},
};
use undercroft_build::system::NixStore;
use undercroft_journal::TimelineSource;
use undercroft_process as process;
use undercroft_process::{Finished, Input};
use undercroft_ssh::{Connection, SshError, quote};

/// How often a closure is copied again because a part of it, from before a power cut, was found
/// damaged on the disk. Damage that was dropped and copied anew is whole: a second round finds
/// none unless the disk itself is failing.
const ROUNDS_MAX: u32 = 3;
/// A disk with less room than this is taken for full, in KiB: an ext4 file system that has
/// refused to write may still show a few blocks.
const FULL_BELOW_KIB: u64 = 4096;

/// Where a path goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Destination {
    /// The store of the new system, below the mount point.
    NewSystem,
    /// The installer's own store, in memory.
    Installer,
}

/// Copies the closure; a probe looks whether it is there, whole.
pub(super) async fn copy(
    job: &Job<'_>,
    toplevel: &str,
    closure_bytes: Option<u64>,
    work: Work,
) -> Done {
    let installer = Installer::of(job)?;
    let evidence = Evidence::Copied {
        boot_id: installer.boot_id(),
        closure_bytes: closure_bytes.unwrap_or(0),
    };
    if work == Work::Probe {
        return match whole(&installer, toplevel).await? {
            true => Ok(evidence),
            false => Err(Stop::NotDone),
        };
    }
    mounted(&installer).await?;
    for _ in 0..ROUNDS_MAX {
        let pushed = push(
            job,
            installer.connection(),
            toplevel,
            Destination::NewSystem,
            closure_bytes,
        );
        match pushed.await {
            Ok(()) if whole(&installer, toplevel).await? => return Ok(evidence),
            Ok(()) => {}
            Err(failure) if is_damaged(&failure) => begin_store_again(&installer).await?,
            Err(failure) => return Err(failure.into()),
        }
        let line = "a part of the store on the disk was damaged by a power cut; copying it again";
        job.note(TimelineSource::Controller, line);
        job.shared.line(job.name(), line);
    }
    Err(Stop::new(
        FailureKind::Permanent,
        format!(
            "the closure was copied {ROUNDS_MAX} times, and it is damaged on the disk each time"
        ),
    ))
}

/// Whether the closure is there and every path of it is what it should be, and on the disk.
async fn whole(installer: &Installer<'_>, toplevel: &str) -> Result<bool, Failure> {
    // The installer's own check: it reads every path back where the copy may be older than a
    // power cut, and drops what is damaged.
    let output = installer
        .run(&["/undercroft/install", toplevel, "--probe"])
        .await?;
    match output.code {
        exit::DONE | exit::NOT_YET => {}
        exit::NO_CLOSURE => return Ok(false),
        _ => return Err(refused(&output)),
    }
    // Nix registers paths without waiting until their content is on the disk.
    let output = installer.run(&["sync"]).await?;
    if output.code == exit::DONE {
        Ok(true)
    } else {
        Err(refused(&output))
    }
}

/// Whether a copy failed because the database of the store on the machine's disk is damaged: Nix
/// writes some of its files without waiting for the disk, so that a power cut can leave them empty.
fn is_damaged(failure: &Failure) -> bool {
    let said = failure.command.as_ref().map(|c| c.output_tail.as_str());
    said.is_some_and(|said| {
        let named = said.contains("/mnt/nix/var/nix/db");
        named && said.contains("is corrupt")
            || said.contains("database disk image is malformed")
            || said.contains("file is not a database")
    })
}

/// Takes a damaged store away. It holds nothing that isn't copied again, and lies on a disk that
/// this plan has laid out.
async fn begin_store_again(installer: &Installer<'_>) -> Result<(), Failure> {
    let output = installer
        .run(&["rm", "-rf", "/mnt/nix/store", "/mnt/nix/var/nix/db"])
        .await?;
    match output.code {
        exit::DONE => Ok(()),
        _ => Err(refused(&output)),
    }
}

/// Nix would make the store's folder in memory were the disk not mounted.
async fn mounted(installer: &Installer<'_>) -> Result<(), Failure> {
    let look = "while read -r _ at _; do [ \"$at\" = /mnt ] && exit 0; done </proc/mounts; exit 41";
    let output = installer.run(&["sh", "-c", look]).await?;
    match output.code {
        exit::DONE => Ok(()),
        _ => Err(refused(&output)),
    }
}

/// Copies a path with all that it refers to.
pub(super) async fn push(
    job: &Job<'_>,
    connection: &Connection,
    path: &str,
    destination: Destination,
    total_bytes: Option<u64>,
) -> Result<(), Failure> {
    let store = job
        .shared
        .parts
        .stores
        .get(job.name())
        .unwrap_or(&NixStore::Default);
    let to = match destination {
        Destination::NewSystem => format!(
            "ssh://{}?remote-store=local%3Froot%3D/mnt",
            connection.destination()
        ),
        Destination::Installer => format!("ssh://{}", connection.destination()),
    };
    let mut args = vec![
        "copy".to_owned(),
        "--no-check-sigs".to_owned(),
        "--log-format".to_owned(),
        "internal-json".to_owned(),
        "-v".to_owned(),
    ];
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
        return Ok(());
    }
    Err(explain(job, connection, destination, shown, &finished, &log).await)
}

fn nix_config() -> String {
    let mut config = std::env::var("NIX_CONFIG").unwrap_or_default();
    config.push_str("\nexperimental-features = nix-command flakes\n");
    config
}

/// Why a copy failed, in the order of what is most certain.
async fn explain(
    job: &Job<'_>,
    connection: &Connection,
    destination: Destination,
    command: String,
    finished: &Finished,
    log: &NixLog,
) -> Failure {
    let said = log.errors();
    let failed = FailedCommand {
        command: command.clone(),
        exit_code: finished.code,
        output_tail: said.to_owned(),
    };
    if finished.timed_out {
        return Failure::new(FailureKind::Ambiguous, "the copy took too long").with_command(failed);
    }
    if said.contains("No space left on device") || said.contains("disk is full") {
        // Which of the two disks it is, the machine can tell.
        return match free_kib(job, destination).await {
            Some(free) if free < FULL_BELOW_KIB => Failure::new(
                FailureKind::Permanent,
                format!(
                    "the machine's disk is full: {free} KiB are free, and the closure needs more"
                ),
            )
            .with_hint("Use a larger disk or a smaller system.")
            .with_command(failed),
            Some(_) => Failure::new(
                FailureKind::Permanent,
                "a disk of this machine, where the closure is copied from, is full",
            )
            .with_hint("Free some space; `df -h` shows where there is none.")
            .with_command(failed),
            None => Failure::new(
                FailureKind::Transient,
                "a disk is full, here or on the machine",
            )
            .with_command(failed),
        };
    }
    if let Some(error) = connection.blame(&command, said) {
        // A moment without network is worth another try; that the machine is gone, the next try's
        // first command finds out.
        let kind = matches!(error, SshError::Unreachable { .. }).then_some(FailureKind::Transient);
        let mut failure = installer::failure(error);
        failure.kind = kind.unwrap_or(failure.kind);
        return failure;
    }
    let missing = [
        "is not valid",
        "does not exist",
        "no such path",
        "cannot be read",
    ];
    if missing.iter().any(|words| said.contains(words)) {
        return Failure::new(
            FailureKind::Permanent,
            "a part of the closure is missing in this machine's store",
        )
        .with_hint("Build the system again; a garbage collection may have removed it.")
        .with_command(failed);
    }
    if said.contains("unable to download") || said.contains("Couldn't resolve host") {
        return Failure::new(FailureKind::Transient, "a substituter couldn't be reached")
            .with_hint("Copying needs no substituter when everything was built or fetched before.")
            .with_command(failed);
    }
    let first = said.lines().find(|line| !line.trim().is_empty());
    Failure::new(
        FailureKind::Transient,
        format!("nix copy failed: {}", first.unwrap_or("it gave no reason")),
    )
    .with_command(failed)
}

async fn free_kib(job: &Job<'_>, destination: Destination) -> Option<u64> {
    let place = match destination {
        Destination::NewSystem => "/mnt",
        Destination::Installer => "/",
    };
    let installer = Installer::of(job).ok()?;
    let output = installer.run(&["df", "-Pk", place]).await.ok()?;
    // POSIX: the fourth column of the last line is the room that is left.
    let line = output.stdout.lines().next_back()?;
    line.split_whitespace().nth(3)?.parse().ok()
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
        self.job.shared.tell(Progress::Bytes {
            node: self.job.name().clone(),
            phase: self.job.step.action.verb().into(),
            done_bytes,
            total_bytes: self.total_bytes,
            bytes_per_s,
            left_s: left.and_then(|left| left.checked_div(bytes_per_s)),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_store_is_told_from_other_failures() {
        let failure = |said: &str| {
            Failure::new(FailureKind::Transient, "x").with_command(FailedCommand {
                command: "nix copy".into(),
                exit_code: Some(1),
                output_tail: said.into(),
            })
        };
        let damaged = "error: '/mnt/nix/var/nix/db/schema' is corrupt\ncannot connect to 'root@x'";
        assert!(is_damaged(&failure(damaged)));
        assert!(is_damaged(&failure(
            "error: executing SQLite statement: database disk image is malformed"
        )));
        assert!(!is_damaged(&failure(
            "error: path '/nix/store/x' is not valid"
        )));
        assert!(!is_damaged(&Failure::new(
            FailureKind::Transient,
            "is corrupt"
        )));
    }
}
