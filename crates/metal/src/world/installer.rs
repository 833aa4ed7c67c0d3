//! The connection to an approved installer.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use secrecy::SecretString;
use undercroft_model::{Failure, FailureKind};
use undercroft_netboot::timeline::MarkKind;

use super::job::Job;
use undercroft_journal::TimelineSource;
use undercroft_process::clock::wall_ms_now;
use undercroft_ssh::{Connection, Endpoint, HostKey, Output, RemoteCommand, SshError};
use undercroft_steps::{self as steps, Answer, Ask, Ended, Pinned, Unanswered};

/// The wait between two tries to reach it.
const REACH_INTERVAL: Duration = Duration::from_secs(1);
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
    pinned: Pinned<'a>,
    connection: Connection,
}

impl<'a> Installer<'a> {
    /// Pins the approved key. Nothing is sent yet.
    pub(super) fn of(job: &'a Job<'a>, pinned: Pinned<'a>) -> Result<Self, Failure> {
        let (report, approval) = (pinned.report, pinned.approval);
        let key = HostKey::parse_with_fingerprint(&report.host_key, &approval.fingerprint)
            .map_err(|e| Failure::new(FailureKind::Refused, e.to_string()))?;
        let endpoint = Endpoint::root(job.name().as_str(), IpAddr::V4(report.address), key);
        let identity = &job.shared.parts.operator.private_file;
        let connection = Connection::prepare(endpoint, identity).map_err(SshError::into_failure)?;
        Ok(Self {
            job,
            pinned,
            connection,
        })
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Runs a command of the installer's and gives what it gave, whatever its exit code.
    pub(super) async fn run(&self, words: &[&str]) -> Result<Answer, Failure> {
        self.send(words, || Ok(None)).await
    }

    /// Asks whether the installer is there.
    pub(super) async fn greet(&self) -> Result<Answer, Failure> {
        let words = Ask::Greet.words().unwrap_or_default();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.run(&words).await
    }

    /// Runs a command with a secret on its standard input.
    pub(super) async fn run_with_secret(
        &self,
        words: &[&str],
        secret: &SecretString,
    ) -> Result<Answer, Failure> {
        self.send(words, || Ok(Some(InputOf::Secret(secret.clone()))))
            .await
    }

    /// Runs a command with a file on its standard input.
    pub(super) async fn run_with_file(
        &self,
        words: &[&str],
        path: &std::path::Path,
    ) -> Result<Answer, Failure> {
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
    ) -> Result<Answer, Failure> {
        let wait = (steps::PREDECESSOR_WAIT_MS / 1000).to_string();
        let boot_id = self.pinned.report.boot_id.as_str();
        let mut guarded = vec!["sh", "-c", GUARD, "undercroft", boot_id, &wait];
        guarded.extend(words);
        let silent_since = Instant::now();
        loop {
            self.pinned
                .may_connect(&self.job.step.action, wall_ms_now())?;
            let mut command =
                RemoteCommand::new(guarded.iter().copied(), self.job.left()).shown_as(words);
            match input()? {
                Some(InputOf::Secret(secret)) => command = command.with_secret(secret),
                Some(InputOf::File(file)) => command = command.with_file(file),
                None => {}
            }
            match self.connection.run(command).await {
                Ok(output) => return Ok(Answer::Ended(ended(output))),
                // Nothing was run, so that trying again is safe.
                Err(SshError::Unreachable { .. })
                    if silent_since.elapsed() < Duration::from_millis(steps::SILENCE_MS_MAX) =>
                {
                    tokio::time::sleep(REACH_INTERVAL).await;
                }
                Err(error) => {
                    let said = error.to_string();
                    self.job
                        .mark(TimelineSource::Ssh, MarkKind::SshFailed, &said);
                    return Ok(Answer::Nothing(Box::new(unanswered(error))));
                }
            }
        }
    }
}

enum InputOf {
    Secret(SecretString),
    File(std::fs::File),
}

/// A program's end, as a step's script is told of it.
pub(super) fn ended(output: Output) -> Ended {
    Ended {
        code: output.code,
        stdout: output.stdout,
        stderr_tail: output.stderr_tail,
        command: output.command,
    }
}

/// A connection that gave no answer, as a step's script is told of it.
pub(super) fn unanswered(error: SshError) -> Unanswered {
    let shown = match &error {
        SshError::HostKeyMismatch { shown, .. } => shown.clone(),
        _ => None,
    };
    Unanswered {
        why: error.no_answer(),
        shown,
        failure: error.into_failure(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use undercroft_steps::code;

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
            Some(code::OTHER_BOOT)
        );
        let output = guard(&[file, boot, "1", "echo", "a b"]);
        assert_eq!(output.stdout, b"a b\n");
        // The process that the file names now is gone: the next command runs at once.
        assert_eq!(guard(&[file, boot, "0", "true"]).status.code(), Some(0));
        std::fs::write(file, format!("{}\n", std::process::id())).unwrap();
        assert_eq!(
            guard(&[file, boot, "0", "true"]).status.code(),
            Some(code::BUSY)
        );
        let stale = Command::new("true").spawn().and_then(|mut c| {
            let id = c.id();
            c.wait().map(|_| id)
        });
        std::fs::write(file, format!("{}\n", stale.unwrap())).unwrap();
        assert_eq!(guard(&[file, boot, "0", "true"]).status.code(), Some(0));
    }
}
