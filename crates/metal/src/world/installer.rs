//! The connection to an approved installer.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use secrecy::SecretString;
use undercroft_model::{Failure, FailureKind};
use undercroft_netboot::timeline::MarkKind;

use super::Job;
use undercroft_journal::TimelineSource;
use undercroft_ssh::{Connection, Endpoint, HostKey, Output, RemoteCommand, SshError};

/// How long an installer may be out of reach before its machine counts as gone: longer than a
/// switch needs to bring a port up again, shorter than a machine needs to boot.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(60);
/// The wait between two tries to reach it.
const REACH_INTERVAL: Duration = Duration::from_secs(1);
/// How long a command waits on the machine for the one before it to end, in seconds. An
/// interrupted `mkfs` of a large disk ends well within it.
const PREDECESSOR_WAIT_S: u32 = 90;

/// The exit codes of the installer's programs, and of the guard before them.
pub(super) mod exit {
    pub(crate) const DONE: i32 = 0;
    pub(crate) const NOT_YET: i32 = 10;
    pub(crate) const NO_DISK: i32 = 20;
    pub(crate) const AMBIGUOUS_DISK: i32 = 21;
    pub(crate) const DISK_TOO_SMALL: i32 = 22;
    pub(crate) const DISK_IN_USE: i32 = 23;
    pub(crate) const NO_CLOSURE: i32 = 30;
    pub(crate) const NOT_A_SYSTEM: i32 = 31;
    pub(crate) const BOOT_LOADER: i32 = 32;
    pub(crate) const NOT_BOOTABLE: i32 = 33;
    pub(crate) const BAD_PATH: i32 = 40;
    pub(crate) const NOT_MOUNTED: i32 = 41;
    pub(crate) const USAGE: i32 = 64;
    /// The command before this one still runs.
    pub(crate) const BUSY: i32 = 75;
    /// The machine has booted anew.
    pub(crate) const OTHER_BOOT: i32 = 76;
    /// The shell didn't find the program.
    pub(crate) const NOT_FOUND: i32 = 127;
}

/// Runs a command only in the boot that was approved, and only after the command before it has
/// ended: a connection that broke leaves its command running. `exec` keeps the process id, so that
/// the file names the command itself.
const GUARD: &str = "read -r boot </proc/sys/kernel/random/boot_id
[ \"$boot\" = \"$1\" ] || exit 76
limit=$2
shift 2
now=/run/undercroft-command
while read -r pid <\"$now\" && [ -d \"/proc/$pid\" ]; do
    [ \"$limit\" -gt 0 ] || exit 75
    limit=$((limit - 1))
    sleep 1
done 2>/dev/null
echo $$ >\"$now\"
exec \"$@\"";

/// A way to the installer whose fingerprint was approved, in the boot that was approved.
pub(super) struct Installer<'a> {
    job: &'a Job<'a>,
    boot_id: String,
    connection: Connection,
}

impl<'a> Installer<'a> {
    /// Pins the approved key. Nothing is sent yet.
    pub(super) fn of(job: &'a Job<'a>) -> Result<Self, Failure> {
        let report = job.report()?;
        let lost = |message: String| Failure::new(FailureKind::PreconditionLost, message);
        let approval = job
            .order
            .facts
            .approval
            .as_ref()
            .ok_or_else(|| lost("the installer's fingerprint isn't approved".to_owned()))?;
        if approval.fingerprint != report.fingerprint {
            return Err(lost(format!(
                "{} was approved, and the installer reported {}",
                approval.fingerprint, report.fingerprint
            )));
        }
        let key = HostKey::parse_with_fingerprint(&report.host_key, &approval.fingerprint)
            .map_err(|e| Failure::new(FailureKind::Refused, e.to_string()))?;
        let endpoint = Endpoint::root(job.name().as_str(), IpAddr::V4(report.address), key);
        let identity = &job.shared.parts.operator.private_file;
        let connection = Connection::prepare(endpoint, identity).map_err(SshError::into_failure)?;
        Ok(Self {
            job,
            boot_id: report.boot_id.clone(),
            connection,
        })
    }

    pub(super) fn boot_id(&self) -> String {
        self.boot_id.clone()
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Runs a command of the installer's and gives what it gave, whatever its exit code.
    pub(super) async fn run(&self, words: &[&str]) -> Result<Output, Failure> {
        self.send(words, || Ok(None)).await
    }

    /// Runs a command with a secret on its standard input.
    pub(super) async fn run_with_secret(
        &self,
        words: &[&str],
        secret: &SecretString,
    ) -> Result<Output, Failure> {
        self.send(words, || Ok(Some(InputOf::Secret(secret.clone()))))
            .await
    }

    /// Runs a command with a file on its standard input.
    pub(super) async fn run_with_file(
        &self,
        words: &[&str],
        path: &std::path::Path,
    ) -> Result<Output, Failure> {
        self.send(words, || {
            std::fs::File::open(path)
                .map(|file| Some(InputOf::File(file)))
                .map_err(|e| {
                    let what = format!("{} can't be read: {e}", path.display());
                    Failure::new(FailureKind::Permanent, what)
                })
        })
        .await
    }

    async fn send(
        &self,
        words: &[&str],
        input: impl Fn() -> Result<Option<InputOf>, Failure>,
    ) -> Result<Output, Failure> {
        let wait = PREDECESSOR_WAIT_S.to_string();
        let mut guarded = vec!["sh", "-c", GUARD, "undercroft", &self.boot_id, &wait];
        guarded.extend(words);
        let silent_since = Instant::now();
        loop {
            let mut command =
                RemoteCommand::new(guarded.iter().copied(), self.job.left()).shown_as(words);
            match input()? {
                Some(InputOf::Secret(secret)) => command = command.with_secret(secret),
                Some(InputOf::File(file)) => command = command.with_file(file),
                None => {}
            }
            match self.connection.run(command).await {
                Ok(output) => return self.passed(output),
                // Nothing was run, so that trying again is safe.
                Err(SshError::Unreachable { .. }) if silent_since.elapsed() < SILENCE_MAX => {
                    tokio::time::sleep(REACH_INTERVAL).await;
                }
                Err(error) => {
                    let said = error.to_string();
                    self.job
                        .mark(TimelineSource::Ssh, MarkKind::SshFailed, &said);
                    return Err(failure(error));
                }
            }
        }
    }

    /// Takes out what the guard said.
    fn passed(&self, output: Output) -> Result<Output, Failure> {
        match output.code {
            exit::OTHER_BOOT => Err(Failure::new(
                FailureKind::PreconditionLost,
                format!(
                    "the installer was approved in the boot {}, and the machine has booted anew since",
                    self.boot_id
                ),
            )),
            exit::BUSY => Err(Failure::new(
                FailureKind::Transient,
                "a command of an interrupted step still runs on the machine",
            )),
            _ => Ok(output),
        }
    }
}

enum InputOf {
    Secret(SecretString),
    File(std::fs::File),
}

/// What a broken connection to an installer means. Its key lives as long as its boot, so that
/// another key tells of another boot; a known machine that comes back as a stranger needs a new
/// approval in any case.
pub(super) fn failure(error: SshError) -> Failure {
    let kind = match &error {
        SshError::HostKeyMismatch { .. } | SshError::Unreachable { .. } => {
            Some(FailureKind::PreconditionLost)
        }
        // The installer fetches the keys that it accepts when it boots, and again later.
        SshError::AuthRefused { .. } => Some(FailureKind::Transient),
        _ => None,
    };
    let mut failure = error.into_failure();
    if let Some(kind) = kind {
        failure.kind = kind;
    }
    failure
}

/// What an exit code of an installer's program means, where it isn't a success.
pub(super) fn refused(output: &Output) -> Failure {
    use FailureKind::{Permanent, PreconditionLost, Refused, Transient};
    let last = output.stderr_tail.lines().next_back().unwrap_or_default();
    let (kind, message, hint) = match output.code {
        exit::NO_DISK => (
            Refused,
            "no disk has the planned identity",
            Some("Compare the inventory's serials with the disks that the machine has."),
        ),
        exit::AMBIGUOUS_DISK => (
            Refused,
            "more than one disk has the planned identity",
            Some("Give the disk's WWN in the inventory as well."),
        ),
        exit::DISK_TOO_SMALL => (Permanent, "the disk is too small", None),
        exit::DISK_IN_USE => (
            Permanent,
            "the disk is in use on the machine",
            Some(
                "Something was mounted by hand, or the disk belongs to a RAID or a pool. Nothing was written to it.",
            ),
        ),
        exit::NO_CLOSURE => (
            PreconditionLost,
            "the closure on the disk is missing or damaged",
            None,
        ),
        exit::NOT_A_SYSTEM => (
            Permanent,
            "what was built isn't a system for this machine",
            Some(
                "Look at the machine's `system` in the inventory, and at what the flake builds for it.",
            ),
        ),
        exit::BOOT_LOADER => (Transient, "the boot loader couldn't be installed", None),
        exit::NOT_BOOTABLE => (
            Transient,
            "the boot loader was written, and the machine would not boot from it",
            None,
        ),
        exit::BAD_PATH => (Permanent, "the installer refused a path", None),
        exit::NOT_MOUNTED => (
            PreconditionLost,
            "the new system isn't mounted any longer",
            None,
        ),
        exit::USAGE => (
            Permanent,
            "the installer doesn't know this request",
            Some(
                "The installer may be of another version, or the layout one that it can't make itself; such layouts need a disko script.",
            ),
        ),
        exit::NOT_FOUND => (
            Permanent,
            "the machine doesn't run Undercroft's installer",
            Some("Boot it from the network; another Linux can't be installed from yet."),
        ),
        _ => (Transient, "the command failed", None),
    };
    let message = if last.is_empty() {
        format!("{message} (exit code {})", output.code)
    } else {
        format!("{message}: {last}")
    };
    let failure = Failure::new(kind, message).with_command(output.failed_command());
    match hint {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
}

/// The `key=value` lines of a program's output.
pub(super) fn values(stdout: &str) -> BTreeMap<&str, &str> {
    stdout
        .lines()
        .filter_map(|line| line.trim().split_once('='))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn guard(args: &[&str]) -> std::process::Output {
        Command::new("sh")
            .args([
                "-c",
                &GUARD.replace("/run/undercroft-command", args[0]),
                "undercroft",
            ])
            .args(&args[1..])
            .output()
            .unwrap()
    }

    #[test]
    fn the_guard_runs_a_command_only_in_its_boot_and_after_the_one_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("now");
        let file = file.to_str().unwrap();
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let boot = boot.trim();
        assert_eq!(
            guard(&[file, "another", "1", "true"]).status.code(),
            Some(exit::OTHER_BOOT)
        );
        let output = guard(&[file, boot, "1", "echo", "a b"]);
        assert_eq!(output.stdout, b"a b\n");
        // The process that the file names now is gone: the next command runs at once.
        assert_eq!(guard(&[file, boot, "0", "true"]).status.code(), Some(0));
        std::fs::write(file, format!("{}\n", std::process::id())).unwrap();
        assert_eq!(
            guard(&[file, boot, "0", "true"]).status.code(),
            Some(exit::BUSY)
        );
        let stale = Command::new("true").spawn().and_then(|mut c| {
            let id = c.id();
            c.wait().map(|_| id)
        });
        std::fs::write(file, format!("{}\n", stale.unwrap())).unwrap();
        assert_eq!(guard(&[file, boot, "0", "true"]).status.code(), Some(0));
    }

    #[test]
    fn values_are_read_line_by_line() {
        let values = values("state=installed\nentry=a=b.conf\nnoise\n");
        assert_eq!(values.get("entry"), Some(&"a=b.conf"));
        assert_eq!(values.len(), 2);
    }
}
