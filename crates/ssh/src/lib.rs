//! SSH to a machine whose host key is known, and to no other.
//!
//! The client is OpenSSH's, run as a program: it is what the operator's machine trusts already, it
//! reads agents, hardware keys and jump hosts, and `nix copy` uses it too. Every connection has a
//! private directory with a known-hosts file of exactly one key and a configuration file that
//! refuses any other, so that nothing in the user's or the system's own configuration can weaken
//! the pin. No key is ever accepted because it was the first one seen.
//!
//! The client writes its own messages to a log of the connection's (`-E`), apart from what the
//! remote program prints. From that log an error is classified: before authentication nothing was
//! run, after it anything may have been. Which host key was shown is noted apart from it, because the
//! log also holds words of whoever answers.

mod classify;
mod config;
mod error;
mod pin;
mod witness;

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::TempDir;
use tokio::process::Command;
use undercroft_model::{FailedCommand, Failure, FailureKind};

use self::classify::{Shown, Transport, classify};
pub use self::{
    error::SshError,
    pin::{HostKey, HostKeyError},
};
use undercroft_process as process;
use undercroft_process::{Finished, Input};

/// How long connecting may take, up to the server's greeting.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a silent session is asked for a sign of life.
pub const ALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// How many such questions may stay unanswered before the session counts as lost; with
/// [`ALIVE_INTERVAL`] that is 30 seconds, long enough for an emulated machine under load.
pub const ALIVE_COUNT_MAX: u32 = 6;
/// The most bytes of the client's log that are read.
const LOG_BYTES_MAX: usize = 64 * 1024;

/// How commands become root on the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Escalation {
    /// The user is root.
    #[default]
    None,
    /// `sudo -n`: never with a password, since nobody is there to type one.
    Sudo,
    /// `doas -n`.
    Doas,
}

/// Where a connection goes, and who must answer.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The machine's name, for messages and as the alias of its key.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Its SSH server's port.
    pub port: u16,
    /// The user to log in as.
    pub user: String,
    /// How to become root.
    pub escalation: Escalation,
    /// The only key that is accepted, but for `also`.
    pub host_key: HostKey,
    /// Another key of the same machine that is accepted: that of its installer, where nobody can say which of its two
    /// systems runs by now.
    pub also: Option<HostKey>,
}

impl Endpoint {
    /// Root at port 22.
    pub fn root(name: impl Into<String>, address: IpAddr, host_key: HostKey) -> Self {
        Self {
            name: name.into(),
            address,
            port: 22,
            user: "root".to_owned(),
            escalation: Escalation::None,
            host_key,
            also: None,
        }
    }
}

/// A command for a machine: a program and its arguments, quoted for the remote shell.
#[derive(Debug)]
pub struct RemoteCommand {
    words: Vec<String>,
    shown: Option<String>,
    input: Input,
    limit: Duration,
}

impl RemoteCommand {
    /// A program with arguments. None of them may be secret: they are shown in errors, and in the
    /// list of processes here and there.
    pub fn new<I, S>(words: I, limit: Duration) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        Self {
            words: words.into_iter().map(Into::into).collect(),
            shown: None,
            input: Input::Nothing,
            limit,
        }
    }

    /// The same command with a secret on its standard input.
    #[must_use]
    pub fn with_secret(mut self, secret: secrecy::SecretString) -> Self {
        self.input = Input::Secret(secret);
        self
    }

    /// The same command with a file of this machine on its standard input.
    #[must_use]
    pub fn with_file(mut self, file: std::fs::File) -> Self {
        self.input = Input::File(file);
        self
    }

    /// The same command, shown to people as this one, which it wraps.
    #[must_use]
    pub fn shown_as(mut self, words: &[&str]) -> Self {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        self.shown = Some(quote_all(&words));
        self
    }

    /// The command as a person would type it on the machine.
    pub fn shown(&self) -> String {
        match &self.shown {
            Some(shown) => shown.clone(),
            None => quote_all(&self.words),
        }
    }
}

/// What a command gave that ended by itself.
#[derive(Debug)]
pub struct Output {
    /// The command as a person would type it.
    pub command: String,
    /// Its exit code.
    pub code: i32,
    /// Its standard output, at most 4 MiB of it.
    pub stdout: String,
    /// The end of its standard error.
    pub stderr_tail: String,
}

impl Output {
    /// What a [`Failure`] says of it.
    pub fn failed_command(&self) -> FailedCommand {
        FailedCommand {
            command: self.command.clone(),
            exit_code: Some(self.code),
            output_tail: self.stderr_tail.clone(),
        }
    }
}

/// A way to one machine, pinned to one key. It holds files, not an open connection: each command
/// connects anew, and is checked anew.
#[derive(Debug)]
pub struct Connection {
    endpoint: Endpoint,
    identity: PathBuf,
    dir: TempDir,
}

impl Connection {
    /// Writes the connection's files. `identity` is the private key file to log in with.
    ///
    /// # Errors
    /// When the files can't be written, or a path can't be expressed in OpenSSH's configuration.
    pub fn prepare(endpoint: Endpoint, identity: &Path) -> Result<Self, SshError> {
        let dir = config::private_dir().map_err(|source| SshError::Local {
            what: "a private directory for the SSH connection can't be made".to_owned(),
            source,
        })?;
        config::write(dir.path(), &endpoint, identity).map_err(|source| SshError::Local {
            what: format!(
                "the files of the SSH connection in {} can't be written",
                dir.path().display()
            ),
            source,
        })?;
        Ok(Self {
            endpoint,
            identity: identity.to_owned(),
            dir,
        })
    }

    /// Where it goes.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// What to put into `NIX_SSHOPTS`, so that Nix uses this pinned connection. Nix splits it at
    /// blanks; the path has none.
    pub fn nix_sshopts(&self) -> String {
        format!("-F {} -E {}", self.config().display(), self.log().display())
    }

    /// `USER@ADDRESS`, as ssh and Nix take it.
    pub fn destination(&self) -> String {
        format!("{}@{}", self.endpoint.user, self.endpoint.address)
    }

    /// The arguments of an interactive `ssh` over this connection. They name files that live as
    /// long as this value.
    pub fn interactive_args(&self) -> Vec<String> {
        vec![
            "-F".to_owned(),
            self.config().display().to_string(),
            "-o".to_owned(),
            "RequestTTY=auto".to_owned(),
            "-o".to_owned(),
            "LogLevel=ERROR".to_owned(),
            // Nobody reads the note, and the client may be run where it can't write one.
            "-o".to_owned(),
            "KnownHostsCommand=none".to_owned(),
            self.destination(),
        ]
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join(config::CONFIG_FILE)
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join(config::LOG_FILE)
    }

    /// Runs a command on the machine, and gives what it gave, whatever its exit code.
    ///
    /// Dropping the future ends the session at once; a program on the machine that doesn't notice
    /// may go on.
    ///
    /// # Errors
    /// When there was no exit code: see [`SshError`], whose variants say whether the command can
    /// have been run.
    pub async fn run(&self, command: RemoteCommand) -> Result<Output, SshError> {
        self.run_with_lines(command, &mut |_| {}).await
    }

    /// [`Connection::run`], with each line of the command's standard error as it comes.
    ///
    /// # Errors
    /// As [`Connection::run`].
    pub async fn run_with_lines(
        &self,
        command: RemoteCommand,
        on_line: &mut (dyn FnMut(&str) + Send),
    ) -> Result<Output, SshError> {
        let shown = command.shown();
        let line = quote_all(&command.words);
        let escalated = match self.endpoint.escalation {
            Escalation::None => line,
            Escalation::Sudo => format!("sudo -n -- {line}"),
            Escalation::Doas => format!("doas -n -- {line}"),
        };
        let no_log = |source| SshError::Local {
            what: "the log of the SSH connection can't be written".to_owned(),
            source,
        };
        let log = self.fresh_log().map_err(no_log)?;
        let witness = config::witness(self.dir.path(), &log).map_err(no_log)?;
        let mut ssh = Command::new("ssh");
        ssh.arg("-F")
            .arg(self.config())
            .arg("-E")
            .arg(&log)
            .arg("-o")
            .arg(witness)
            .arg("--")
            .arg(self.destination())
            .arg(escalated);
        let limit = command.limit;
        let finished = process::run(ssh, command.input, limit, on_line)
            .await
            .map_err(|source| SshError::Local {
                what: "the program `ssh` can't be run".to_owned(),
                source,
            })?;
        let transport = self.take_transport(&log);
        self.judge(shown, finished, transport, limit)
    }

    /// Runs a command that is expected to succeed.
    ///
    /// # Errors
    /// As [`Connection::run`]; and a permanent failure where the command's exit code isn't 0.
    pub async fn succeed(&self, command: RemoteCommand) -> Result<Output, Failure> {
        let output = self.run(command).await.map_err(SshError::into_failure)?;
        if output.code == 0 {
            return Ok(output);
        }
        Err(Failure::new(
            FailureKind::Permanent,
            format!("`{}` failed with exit code {}", output.command, output.code),
        )
        .with_command(output.failed_command()))
    }

    /// What went wrong on the connection when a program that used it (Nix) has failed, from the
    /// client's log; `None` where the connection was not the cause.
    pub fn blame(&self, command: &str, output_tail: &str) -> Option<SshError> {
        match self.take_transport(&self.log()) {
            Transport::Ended => None,
            other => Some(self.transport_error(other, command.to_owned(), output_tail.to_owned())),
        }
    }

    fn fresh_log(&self) -> std::io::Result<PathBuf> {
        let (_, path) = tempfile::Builder::new()
            .prefix("log-")
            .tempfile_in(self.dir.path())?
            .keep()
            .map_err(|e| e.error)?;
        Ok(path)
    }

    /// How the connection fared that wrote this log, which is done with then.
    fn take_transport(&self, log: &Path) -> Transport {
        let notes = witness::notes(log);
        let text = read_log(log);
        let shown: Shown = if witness::is_possible() {
            witness::read(&notes, &self.endpoint.host_key)
        } else {
            witness::by_words(&text)
        };
        let transport = classify(&text, &shown);
        let _ = std::fs::remove_file(log);
        let _ = std::fs::remove_file(notes);
        transport
    }

    fn judge(
        &self,
        command: String,
        finished: Finished,
        transport: Transport,
        limit: Duration,
    ) -> Result<Output, SshError> {
        if finished.timed_out {
            return Err(SshError::TimedOut {
                address: self.endpoint.address,
                begun: matches!(transport, Transport::Lost { .. } | Transport::Ended),
                command,
                limit_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
                output_tail: finished.stderr_tail,
            });
        }
        match finished.code {
            // OpenSSH's client gives 255 for its own errors. A remote command that gives 255
            // itself is taken for a lost session, which is the safe way to be wrong.
            Some(code) if code != 255 => Ok(Output {
                command,
                code,
                stdout: String::from_utf8_lossy(&finished.stdout).into_owned(),
                stderr_tail: finished.stderr_tail,
            }),
            _ => Err(self.transport_error(transport, command, finished.stderr_tail)),
        }
    }

    fn transport_error(
        &self,
        transport: Transport,
        command: String,
        output_tail: String,
    ) -> SshError {
        let address = self.endpoint.address;
        match transport {
            Transport::Unreachable { detail } => SshError::Unreachable {
                address,
                port: self.endpoint.port,
                detail,
            },
            Transport::Client { detail } => SshError::Local {
                what: "the program `ssh` doesn't take this configuration: OpenSSH 8.5 or newer is needed"
                    .to_owned(),
                source: std::io::Error::other(detail),
            },
            Transport::HostKey { shown } => SshError::HostKeyMismatch {
                address,
                expected: self.endpoint.host_key.fingerprint(),
                shown,
            },
            Transport::Auth { detail } => SshError::AuthRefused {
                address,
                user: self.endpoint.user.clone(),
                identity: self.identity.clone(),
                detail,
            },
            Transport::Lost { detail } => SshError::SessionLost {
                address,
                command,
                detail,
                output_tail,
            },
            Transport::Ended => SshError::SessionLost {
                address,
                command,
                detail: "the SSH client gave no reason".to_owned(),
                output_tail,
            },
        }
    }
}

fn read_log(path: &Path) -> String {
    use std::io::Read;
    let mut text = Vec::new();
    if let Ok(file) = std::fs::File::open(path) {
        let limit = u64::try_from(LOG_BYTES_MAX).unwrap_or(u64::MAX);
        let _ = file.take(limit).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Words as one command line for a POSIX shell.
fn quote_all(words: &[String]) -> String {
    words
        .iter()
        .map(|word| quote(word))
        .collect::<Vec<_>>()
        .join(" ")
}

/// One word for a POSIX shell, whatever is in it.
pub fn quote(word: &str) -> String {
    let plain = !word.is_empty()
        && word
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(&b));
    if plain {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_words_stay_plain() {
        assert_eq!(quote("/nix/store/a-b_1.2"), "/nix/store/a-b_1.2");
        assert_eq!(quote(""), "''");
        assert_eq!(quote("a b; rm -rf '/'"), r"'a b; rm -rf '\''/'\'''");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_shell_reads_back_what_was_quoted(word in "[^\\x00]{0,40}") {
            let output = std::process::Command::new("sh")
                .args(["-c", &format!("printf %s {}", quote(&word))])
                .output()
                .unwrap();
            prop_assert_eq!(output.stdout, word.as_bytes());
        }
    }
}
