//! Why a command gave no exit code, and what that means for a step.

use std::{net::IpAddr, path::PathBuf};

use undercroft_model::{FailedCommand, Failure, FailureKind, NoAnswer};

/// Why a command gave no exit code.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    /// The machine's SSH server could not be reached; nothing was run.
    #[error("no SSH connection to {address} port {port}: {detail}")]
    Unreachable {
        /// The address.
        address: IpAddr,
        /// The port.
        port: u16,
        /// What the client said.
        detail: String,
    },
    /// Another host key was shown than the one that is pinned; nothing was run.
    #[error("the host key of {address} isn't the one that is pinned: expected {expected}, shown {}", shown.as_deref().unwrap_or("no ed25519 key at all"))]
    HostKeyMismatch {
        /// The address.
        address: IpAddr,
        /// The pinned fingerprint.
        expected: String,
        /// The fingerprint that was shown, where the server has an ed25519 key.
        shown: Option<String>,
    },
    /// The machine refused the operator's key; nothing was run.
    #[error("{address} refused the key {} for the user {user}: {detail}", identity.display())]
    AuthRefused {
        /// The address.
        address: IpAddr,
        /// The user.
        user: String,
        /// The key file that was offered.
        identity: PathBuf,
        /// What the client said.
        detail: String,
    },
    /// The session ended without the command's exit code; it may have been run, in part or whole.
    #[error("the session to {address} ended before its command did: {detail}")]
    SessionLost {
        /// The address.
        address: IpAddr,
        /// The command.
        command: String,
        /// What the client said.
        detail: String,
        /// The end of what the command printed.
        output_tail: String,
    },
    /// The command took too long, and was called off here; it may go on there.
    #[error("a command on {address} took longer than {limit_ms} ms")]
    TimedOut {
        /// The address.
        address: IpAddr,
        /// The command.
        command: String,
        /// The limit in milliseconds.
        limit_ms: u64,
        /// Whether the command can have been started.
        begun: bool,
        /// The end of what the command printed.
        output_tail: String,
    },
    /// The client, or a file that it needs, can't be used on this machine.
    #[error("{what}: {source}")]
    Local {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
}

impl SshError {
    /// How a failure of a step that used the connection is to be taken, where the step has no
    /// better word. A host key other than the pinned one is always [`FailureKind::Refused`] here;
    /// with an installer, whose key lives as long as its boot, the caller knows better.
    pub fn kind(&self) -> FailureKind {
        self.no_answer().kind()
    }

    /// Why the machine gave no answer.
    pub fn no_answer(&self) -> NoAnswer {
        match self {
            Self::Unreachable { .. } => NoAnswer::Unreachable,
            Self::HostKeyMismatch { .. } => NoAnswer::OtherKey,
            Self::AuthRefused { .. } => NoAnswer::AuthRefused,
            Self::SessionLost { .. } => NoAnswer::Interrupted,
            Self::TimedOut { begun, .. } => NoAnswer::NotInTime { begun: *begun },
            Self::Local { .. } => NoAnswer::Local,
        }
    }

    /// The failure that a step reports.
    pub fn into_failure(self) -> Failure {
        let failure = Failure::new(self.kind(), self.to_string());
        match self {
            Self::SessionLost {
                command,
                output_tail,
                ..
            }
            | Self::TimedOut {
                command,
                output_tail,
                ..
            } => failure.with_command(FailedCommand {
                command,
                exit_code: None,
                output_tail,
            }),
            Self::AuthRefused { .. } => failure.with_hint(
                "The machine must accept the operator's key: the installer takes it from the boot server, an installed system from its configuration.",
            ),
            Self::HostKeyMismatch { .. } => failure.with_hint(
                "Something else answers at this address, or the machine was installed by somebody else. Look at its screen before you trust it.",
            ),
            Self::Local { ref source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                failure.with_hint("Install OpenSSH's client.")
            }
            _ => failure,
        }
    }
}
