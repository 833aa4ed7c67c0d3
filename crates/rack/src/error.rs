//! What can go wrong with a rack, and what to try.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use undercroft_model::{
    NodeName,
    advice::{Advice, ErrorKind, FileFailure},
};

use serde::{Deserialize, Serialize};

/// An error of the rack. Its text says what happened; [`RackError::hint`] what to try.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RackError {
    /// The description of the rack has a fault.
    #[error("{who} {what}")]
    BadSpec {
        /// The part of the description.
        who: String,
        /// What is wrong with it.
        what: String,
    },
    /// A program that the rack needs isn't installed.
    #[error("the program {program} was not found in PATH, and {purpose} needs it")]
    MissingProgram {
        /// Its name.
        program: String,
        /// What it is needed for.
        purpose: String,
        /// How to get it.
        hint: String,
    },
    /// No firmware image for a kind of machine was found.
    #[error("no {what} was found (looked at {})", .looked_at.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", "))]
    MissingFirmware {
        /// Which firmware.
        what: String,
        /// The places that were looked at.
        looked_at: Vec<PathBuf>,
        /// How to get it.
        hint: String,
    },
    /// The kernel doesn't let this user make namespaces.
    #[error("the kernel refused a user and network namespace: {detail}")]
    NamespaceRefused {
        /// The end of what `unshare` said.
        detail: String,
        /// Which setting to look at.
        hint: String,
    },
    /// `/dev/net/tun` is absent or closed to this user.
    #[error("/dev/net/tun cannot be opened: {source}")]
    NoTun {
        /// Why.
        source: io::Error,
    },
    /// KVM was asked for and the probe failed.
    #[error("KVM was asked for, and it does not run a guest here: {detail}")]
    NoKvm {
        /// What the probe saw.
        detail: String,
    },
    /// A rack is running in this directory already.
    #[error("a rack is already running in {} (process {pid})", .state_dir.display())]
    AlreadyRunning {
        /// The rack's directory.
        state_dir: PathBuf,
        /// The supervisor's process id.
        pid: i32,
    },
    /// No rack is running in this directory.
    #[error("no rack is running in {}", .state_dir.display())]
    NotRunning {
        /// The rack's directory.
        state_dir: PathBuf,
    },
    /// The supervisor could not set the rack up, or refused a request.
    #[error("{}", .0.message)]
    Refused(Refusal),
    /// The supervisor ended before it was ready.
    #[error("the rack's supervisor ended before it was ready ({status}); the end of {}:\n{log_end}", .log.display())]
    SupervisorFailed {
        /// How it ended.
        status: String,
        /// Its log.
        log: PathBuf,
        /// The end of the log.
        log_end: String,
    },
    /// Something took longer than its limit.
    #[error("{what} took longer than {limit_ms} ms")]
    TimedOut {
        /// What.
        what: String,
        /// The limit.
        limit_ms: u64,
    },
    /// The supervisor and this program don't understand each other.
    #[error("the rack's supervisor answered with something else than was asked for: {detail}")]
    Protocol {
        /// What came.
        detail: String,
    },
    /// A machine's QEMU failed.
    #[error("machine {machine}: {what}{}", output_of(.output))]
    Qemu {
        /// The machine.
        machine: String,
        /// What happened.
        what: String,
        /// The end of QEMU's output; may be empty.
        output: String,
    },
    /// A command that sets up the rack's network failed.
    #[error("`{command}` failed in the rack's namespace ({status}){}", output_of(.output))]
    Network {
        /// The command.
        command: String,
        /// How it ended.
        status: String,
        /// What it said.
        output: String,
    },
    /// A file or socket of the rack could not be used.
    #[error("cannot {what} {}: {source}", .path.display())]
    Io {
        /// What was tried, such as "create".
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// A request that the supervisor refused, as it crosses the control socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What happened.
    pub message: String,
    /// What to try, where there is something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

fn output_of(output: &str) -> String {
    if output.is_empty() {
        String::new()
    } else {
        format!("; it said:\n{output}")
    }
}

impl RackError {
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io {
            what,
            path: path.into(),
            source,
        }
    }

    pub(crate) fn refused(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Refused(Refusal {
            message: message.into(),
            hint: Some(hint.into()),
        })
    }

    pub(crate) fn to_refusal(&self) -> Refusal {
        Refusal {
            message: self.to_string(),
            hint: self.hint(),
        }
    }
}

impl Advice for RackError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::BadSpec { .. } => ErrorKind::Input,
            _ => ErrorKind::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::MissingProgram { hint, .. }
            | Self::MissingFirmware { hint, .. }
            | Self::NamespaceRefused { hint, .. } => Some(hint.clone()),
            Self::NoTun { source } => Some(match source.kind() {
                io::ErrorKind::PermissionDenied => {
                    "Most distributions open it to everyone (mode 0666); open it with \
                     `sudo chmod 0666 /dev/net/tun`."
                        .into()
                }
                _ => "Load the driver with `sudo modprobe tun`; in a container, pass the device \
                      in (for example `--device /dev/net/tun`)."
                    .into(),
            }),
            Self::NoKvm { .. } => {
                Some("Leave the accelerator on `auto`, and the rack uses emulation.".into())
            }
            Self::AlreadyRunning { .. } => {
                Some("Use it as it is, or end it with `undercroft rack down`.".into())
            }
            Self::NotRunning { .. } => Some("Start it with `undercroft rack up`.".into()),
            Self::Refused(refusal) => refusal.hint.clone(),
            Self::TimedOut { .. } => Some(
                "The machine may be overloaded; look at its load, and at the rack's \
                 supervisor.log."
                    .into(),
            ),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => Some(
                "The disk is full. The rack's disks are sparse files that grow as machines \
                 write; free some space or give the rack another directory."
                    .into(),
            ),
            Self::Protocol { .. } => Some(
                "The rack was probably started by another version: end it with `undercroft rack \
                 down` and start it again."
                    .into(),
            ),
            Self::Qemu { output, .. } => qemu_hint(output).map(Into::into),
            Self::Network { output, .. } => Some(network_hint(output)),
            Self::BadSpec { .. } | Self::SupervisorFailed { .. } | Self::Io { .. } => None,
        }
    }

    fn file(&self) -> Option<FileFailure<'_>> {
        match self {
            Self::Io { path, source, .. } => Some(FileFailure {
                tried: None,
                path,
                source: Some(source),
            }),
            _ => None,
        }
    }
}

fn qemu_hint(output: &str) -> Option<&'static str> {
    let known = [
        (
            "/dev/net/tun",
            "Open /dev/net/tun to this user (`sudo chmod 0666 /dev/net/tun`).",
        ),
        (
            "Cannot allocate memory",
            "The host is out of memory: give the machine less, or end others.",
        ),
        (
            "cannot set up guest memory",
            "The host is out of memory: give the machine less, or end others.",
        ),
        (
            "No space left on device",
            "The host's disk is full: free some space.",
        ),
        (
            "romfile",
            "Install iPXE's option ROMs for QEMU (Debian and Ubuntu: ipxe-qemu).",
        ),
        (
            "is not a valid device model name",
            "This QEMU is built without a device that the rack needs; \
          install the distribution's full package.",
        ),
    ];
    known
        .iter()
        .find(|(sign, _)| output.contains(sign))
        .map(|(_, hint)| *hint)
}

fn network_hint(output: &str) -> String {
    if output.contains("Operation not permitted") {
        namespace_hint()
    } else if output.contains("Unknown device type") || output.contains("Not supported") {
        "The kernel lacks bridges: load the driver with `sudo modprobe bridge`.".into()
    } else if output.contains("/dev/net/tun") {
        "Open /dev/net/tun to this user (`sudo chmod 0666 /dev/net/tun`).".into()
    } else {
        "Look at the rack's supervisor.log.".into()
    }
}

/// The error for a name that no machine of the rack has.
pub(crate) fn no_such_machine(name: &NodeName) -> RackError {
    RackError::refused(
        format!("the rack has no machine {name}"),
        "See the names with `undercroft rack status`.",
    )
}

/// Says which of the known settings forbids namespaces to ordinary users.
pub(crate) fn namespace_hint() -> String {
    let setting = |name: &str| {
        fs::read_to_string(Path::new("/proc/sys").join(name))
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    if setting("kernel/apparmor_restrict_unprivileged_userns") == "1" {
        return "This system's AppArmor forbids user namespaces to ordinary programs (Ubuntu 23.10 \
                and later do). Start the rack with `sudo env \"PATH=$PATH\" undercroft rack up`, which runs it \
                as you, or allow them until the next restart with \
                `sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0`."
            .into();
    }
    if setting("kernel/unprivileged_userns_clone") == "0" {
        return "Ordinary users may not make user namespaces here. Start the rack with `sudo env \
                \"PATH=$PATH\" undercroft rack up`, which makes them and runs it as you, or allow \
                them until the next restart with `sudo sysctl kernel.unprivileged_userns_clone=1`."
            .into();
    }
    if setting("user/max_user_namespaces") == "0" {
        return "The limit of user namespaces is 0 here. Raise it until the next restart with \
                `sudo sysctl user.max_user_namespaces=15000`."
            .into();
    }
    "In a container, allow it to make namespaces (Docker: `--security-opt seccomp=unconfined \
     --cap-add SYS_ADMIN`); elsewhere, start the rack with `sudo env \"PATH=$PATH\" undercroft rack up`."
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_an_error_s_way_has_a_hint() {
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let network = |output: &str| RackError::Network {
            command: "ip link add br0 type bridge".into(),
            status: "exit status: 2".into(),
            output: output.into(),
        };
        let qemu = |output: &str| RackError::Qemu {
            machine: "gpu-01".into(),
            what: "QEMU ended".into(),
            output: output.into(),
        };
        for (error, word) in [
            (RackError::NoTun { source: denied() }, "chmod 0666"),
            (
                RackError::NoTun {
                    source: io::ErrorKind::NotFound.into(),
                },
                "modprobe tun",
            ),
            (RackError::io("create", "/x", full), "free some space"),
            (
                network("RTNETLINK answers: Operation not permitted"),
                "sudo",
            ),
            (network("Error: Unknown device type."), "modprobe bridge"),
            (
                qemu("could not open /dev/net/tun: Permission denied"),
                "chmod",
            ),
            (
                RackError::NotRunning {
                    state_dir: "/x".into(),
                },
                "rack up",
            ),
        ] {
            let hint = error.hint().unwrap();
            assert!(hint.contains(word), "{error}: {hint}");
        }
    }
}
