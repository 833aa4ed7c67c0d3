//! The client's side of the control socket.

use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{
    AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadBuf,
};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};
use undercroft_model::NodeName;

use super::RackError;
use super::console::ConsoleIdentity;
use super::nvram::{self, BootEntry, VariableStore};
use super::protocol::{
    MachineStatus, NextBoot, PowerAction, REPLY_BYTES_MAX, RackStatus, Reply, Request,
};
use super::spec::VirtualMachine;
use super::state::{CONTROL_SOCKET, StateDir, SupervisorRecord};

/// How long a request may take, in milliseconds. The supervisor's own limits for launching and
/// stopping QEMU are shorter, so that its explanation comes first.
pub const REQUEST_MS: u64 = 90_000;
/// How long a rack may take to end once it was asked to, in milliseconds.
pub const SHUTDOWN_MS: u64 = 60_000;
/// How often a rack that ends is looked at, in milliseconds.
const SHUTDOWN_POLL_MS: u64 = 20;

/// A running rack. Each request has a connection of its own, so one client may be used by many
/// tasks.
#[derive(Debug, Clone)]
pub struct RackClient {
    dir: StateDir,
    record: SupervisorRecord,
}

impl RackClient {
    /// Finds the rack that runs in a directory.
    ///
    /// # Errors
    /// [`RackError::NotRunning`] if none does.
    pub async fn connect(state_dir: &Path) -> Result<Self, RackError> {
        let dir = StateDir::new(state_dir)?;
        let Some(record) = SupervisorRecord::find(&dir) else {
            return Err(RackError::NotRunning {
                state_dir: dir.root().into(),
            });
        };
        let client = Self { dir, record };
        client.open().await?;
        Ok(client)
    }

    /// The rack's directory.
    pub fn state_dir(&self) -> &Path {
        self.dir.root()
    }

    /// The whole rack's status.
    ///
    /// # Errors
    /// If the rack is gone or doesn't answer in [`REQUEST_MS`].
    pub async fn status(&self) -> Result<RackStatus, RackError> {
        match self.ask(&Request::Status).await? {
            Reply::Status { status } => Ok(*status),
            other => Err(RackError::Protocol {
                detail: format!("{other:?}"),
            }),
        }
    }

    /// One machine's status.
    ///
    /// # Errors
    /// As [`Self::status`], or if there is no such machine.
    pub async fn machine(&self, name: &NodeName) -> Result<MachineStatus, RackError> {
        let status = self.status().await?;
        status
            .machines
            .into_iter()
            .find(|machine| machine.name == *name)
            .ok_or_else(|| crate::error::no_such_machine(name))
    }

    /// Carries out a power operation and returns when it is done; see [`PowerAction`].
    ///
    /// # Errors
    /// If there is no such machine, or QEMU fails; the error then has the end of its output.
    pub async fn power(&self, name: &NodeName, action: PowerAction) -> Result<(), RackError> {
        self.done(&Request::Power {
            machine: name.clone(),
            action,
        })
        .await
    }

    /// Sets or clears the boot override of the machine's next launch.
    ///
    /// # Errors
    /// If there is no such machine.
    pub async fn next_boot(&self, name: &NodeName, boot: NextBoot) -> Result<(), RackError> {
        self.done(&Request::NextBoot {
            machine: name.clone(),
            boot,
        })
        .await
    }

    /// Plugs in or unplugs all network cables of the machine; this holds across launches.
    ///
    /// # Errors
    /// If there is no such machine, or QEMU refuses.
    pub async fn set_plugged(&self, name: &NodeName, plugged: bool) -> Result<(), RackError> {
        self.done(&Request::Link {
            machine: name.clone(),
            plugged,
        })
        .await
    }

    /// The identity that the installer showed on the console since the machine's last launch.
    ///
    /// # Errors
    /// As [`Self::machine`].
    pub async fn console_fingerprint(
        &self,
        name: &NodeName,
    ) -> Result<Option<ConsoleIdentity>, RackError> {
        Ok(self.machine(name).await?.identity)
    }

    /// Opens the machine's serial console: first at most `history_bytes` of what it printed
    /// before, then what it prints; what is written is typed. It stays open across launches.
    ///
    /// # Errors
    /// If there is no such machine.
    pub async fn console(&self, name: &NodeName, history_bytes: u64) -> Result<Console, RackError> {
        let mut connection = self.open().await?;
        let request = Request::Console {
            machine: name.clone(),
            history_bytes,
        };
        match within_limit(connection.ask(&request)).await? {
            Reply::Done => Ok(Console {
                stream: connection.stream,
            }),
            Reply::Refused { refusal } => Err(RackError::Refused(refusal)),
            other => Err(RackError::Protocol {
                detail: format!("{other:?}"),
            }),
        }
    }

    /// The boot order that the machine's UEFI firmware keeps; empty before its first boot, and
    /// for a BIOS.
    ///
    /// # Errors
    /// If the machine's variables can't be read.
    pub fn boot_order(&self, name: &NodeName) -> Result<Vec<BootEntry>, RackError> {
        let path = self.dir.machine(name).nvram();
        let image = match nvram::read_image(&path) {
            Ok(image) => image,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(RackError::io("read", path, e)),
        };
        Ok(VariableStore::parse(&image)
            .map(|store| store.boot_order())
            .unwrap_or_default())
    }

    /// Adds a machine, powered off.
    ///
    /// # Errors
    /// If the description has a fault, or its disks can't be made.
    pub async fn add_machine(&self, machine: VirtualMachine) -> Result<(), RackError> {
        self.done(&Request::AddMachine { machine }).await
    }

    /// Powers a machine off and removes it with its disks.
    ///
    /// # Errors
    /// If there is no such machine.
    pub async fn remove_machine(&self, name: &NodeName) -> Result<(), RackError> {
        self.done(&Request::RemoveMachine {
            machine: name.clone(),
        })
        .await
    }

    /// Ends the rack and returns when all its processes are gone. Disks stay.
    ///
    /// # Errors
    /// If it doesn't end in [`SHUTDOWN_MS`].
    pub async fn shutdown(&self) -> Result<(), RackError> {
        if let Err(error) = self.done(&Request::Shutdown).await
            && self.record.is_alive()
        {
            return Err(error);
        }
        self.wait_until_gone(Duration::from_millis(SHUTDOWN_MS))
            .await
    }

    pub(crate) async fn wait_until_gone(&self, limit: Duration) -> Result<(), RackError> {
        let deadline = Instant::now() + limit;
        while self.record.is_alive() {
            if Instant::now() >= deadline {
                return Err(RackError::TimedOut {
                    what: "ending the rack".into(),
                    limit_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
                });
            }
            sleep(Duration::from_millis(SHUTDOWN_POLL_MS)).await;
        }
        Ok(())
    }

    async fn done(&self, request: &Request) -> Result<(), RackError> {
        match self.ask(request).await? {
            Reply::Done => Ok(()),
            other => Err(RackError::Protocol {
                detail: format!("{other:?}"),
            }),
        }
    }

    async fn ask(&self, request: &Request) -> Result<Reply, RackError> {
        let reply = within_limit(async { self.open().await?.ask(request).await }).await?;
        match reply {
            Reply::Refused { refusal } => Err(RackError::Refused(refusal)),
            other => Ok(other),
        }
    }

    async fn open(&self) -> Result<Connection, RackError> {
        let sockets = self.dir.sockets()?;
        match UnixStream::connect(sockets.path(CONTROL_SOCKET)).await {
            Ok(stream) => Ok(Connection {
                stream: BufReader::new(stream),
            }),
            Err(_) if !self.record.is_alive() => Err(RackError::NotRunning {
                state_dir: self.dir.root().into(),
            }),
            Err(source) => Err(RackError::io(
                "connect to",
                self.dir.root().join(CONTROL_SOCKET),
                source,
            )),
        }
    }
}

async fn within_limit<T>(
    request: impl Future<Output = Result<T, RackError>>,
) -> Result<T, RackError> {
    timeout(Duration::from_millis(REQUEST_MS), request)
        .await
        .unwrap_or_else(|_| {
            Err(RackError::TimedOut {
                what: "a request to the rack's supervisor".into(),
                limit_ms: REQUEST_MS,
            })
        })
}

struct Connection {
    stream: BufReader<UnixStream>,
}

impl Connection {
    async fn ask(&mut self, request: &Request) -> Result<Reply, RackError> {
        let broken = |e: std::io::Error| RackError::Protocol {
            detail: e.to_string(),
        };
        let mut line = serde_json::to_vec(request).map_err(|e| RackError::Protocol {
            detail: e.to_string(),
        })?;
        line.push(b'\n');
        self.stream.write_all(&line).await.map_err(broken)?;
        let mut reply = Vec::new();
        let limit = REPLY_BYTES_MAX as u64;
        (&mut self.stream)
            .take(limit)
            .read_until(b'\n', &mut reply)
            .await
            .map_err(broken)?;
        serde_json::from_slice(&reply).map_err(|e| RackError::Protocol {
            detail: format!("{e} in {} bytes", reply.len()),
        })
    }
}

/// An open serial console: read what the machine prints, write what is to be typed. It ends when
/// the rack does, or when its reader falls too far behind.
#[derive(Debug)]
pub struct Console {
    stream: BufReader<UnixStream>,
}

impl AsyncRead for Console {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Console {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
