//! A running QEMU: its process, its monitor and its serial port.

use std::collections::VecDeque;
use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use undercroft_model::NodeName;

use super::super::RackError;
use super::super::qmp::{self, Message, QMP_LINE_BYTES_MAX, ShutdownCause};
use super::super::state::{
    LOG_END_BYTES, MachineDir, QMP_SOCKET, SERIAL_SOCKET, SocketDir, end_of_file,
};

/// How long QEMU may take from its start until its sockets are connected, in milliseconds.
const LAUNCH_MS: u64 = 30_000;
/// How long QEMU may take to answer a command, in milliseconds.
const COMMAND_MS: u64 = 10_000;
/// How long QEMU may take to end once asked to, in milliseconds; then it is killed.
const QUIT_MS: u64 = 10_000;
/// How long a killed QEMU may take to be gone, in milliseconds.
const KILL_MS: u64 = 10_000;
/// How long the serial port may take to accept what is typed, in milliseconds; the rest is
/// dropped, as a real port without flow control does.
const TYPE_MS: u64 = 1_000;
/// How many events may wait for the machine's task. More hold up QEMU.
const EVENTS_WAITING_MAX: usize = 64;
/// How much is read from the serial port at once, in bytes.
const SERIAL_PIECE_BYTES: usize = 4096;

/// What comes from a QEMU.
#[derive(Debug)]
enum Event {
    Printed(Vec<u8>),
    Monitor(Message),
    Exited(String),
}

/// What the machine's task hears of.
#[derive(Debug)]
pub(super) enum Happening {
    Printed(Vec<u8>),
    Shutdown(ShutdownCause),
    DiskFull {
        device: String,
    },
    /// QEMU stopped the guest, for a reason that it tells when asked.
    Stopped,
    Resumed,
    /// A reply that came too late, or chatter.
    Reply,
    /// QEMU is gone, and everything that it printed was taken.
    Ended(String),
}

/// A running QEMU.
#[derive(Debug)]
pub(super) struct RunningVm {
    events: mpsc::Receiver<Event>,
    monitor: OwnedWriteHalf,
    serial: OwnedWriteHalf,
    kill: Option<oneshot::Sender<()>>,
    /// Happenings that came while something else was waited for.
    held: VecDeque<Happening>,
    exit: Option<String>,
    commands: u64,
}

impl RunningVm {
    /// Starts QEMU, stopped, and connects to it.
    pub(super) async fn start(
        name: &NodeName,
        dir: &MachineDir,
        qemu: &Path,
        arguments: &[String],
    ) -> Result<Self, RackError> {
        let sockets = SocketDir::open(dir.root())?;
        let monitor = listen(dir, &sockets, QMP_SOCKET)?;
        let serial = listen(dir, &sockets, SERIAL_SOCKET)?;
        let log =
            File::create(dir.qemu_log()).map_err(|e| RackError::io("create", dir.qemu_log(), e))?;
        let errors = log
            .try_clone()
            .map_err(|e| RackError::io("open", dir.qemu_log(), e))?;
        let mut command = Command::new(qemu);
        command
            .args(arguments)
            .current_dir(dir.root())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .kill_on_drop(true);
        undercroft_process::trace::started(command.as_std());
        let mut child = command.spawn().map_err(|e| RackError::io("run", qemu, e))?;

        let failed = |what: String| RackError::Qemu {
            machine: name.to_string(),
            what,
            output: end_of_file(&dir.qemu_log(), LOG_END_BYTES),
        };
        let connected = async {
            let connections = tokio::try_join!(monitor.accept(), serial.accept());
            connections.map(|((monitor, _), (serial, _))| (monitor, serial))
        };
        let (monitor, serial) = tokio::select! {
            connected = timeout(Duration::from_millis(LAUNCH_MS), connected) => match connected {
                Ok(Ok(sockets)) => sockets,
                Ok(Err(e)) => return Err(failed(format!("QEMU's sockets failed: {e}"))),
                Err(_) => return Err(failed(format!("QEMU did not start in {LAUNCH_MS} ms"))),
            },
            status = child.wait() => {
                let how = status.map_or_else(|e| e.to_string(), |s| s.to_string());
                return Err(failed(format!("QEMU ended when it was started ({how})")));
            }
        };
        let mut running = Self::connect(child, monitor, serial);
        // Nothing is printed yet: the guest is stopped.
        match running.execute("qmp_capabilities", None, |_| {}).await {
            Ok(_) => Ok(running),
            Err(what) => Err(failed(format!("QEMU's monitor does not answer: {what}"))),
        }
    }

    fn connect(child: Child, monitor: UnixStream, serial: UnixStream) -> Self {
        let (sender, events) = mpsc::channel(EVENTS_WAITING_MAX);
        let (monitor_read, monitor) = monitor.into_split();
        let (serial_read, serial) = serial.into_split();
        let (kill, killed) = oneshot::channel();
        tokio::spawn(read_monitor(monitor_read, sender.clone()));
        tokio::spawn(read_serial(serial_read, sender.clone()));
        tokio::spawn(wait_for_exit(child, killed, sender));
        Self {
            events,
            monitor,
            serial,
            kill: Some(kill),
            held: VecDeque::new(),
            exit: None,
            commands: 0,
        }
    }

    /// Waits for the next happening. It may be dropped while it waits and nothing is lost.
    pub(super) async fn next(&mut self) -> Happening {
        if let Some(held) = self.held.pop_front() {
            return held;
        }
        loop {
            match self.events.recv().await {
                Some(Event::Exited(how)) => self.exit = Some(how),
                Some(Event::Printed(bytes)) => return Happening::Printed(bytes),
                Some(Event::Monitor(message)) => return happening(message),
                None => {
                    return Happening::Ended(self.exit.take().unwrap_or_else(|| "unknown".into()));
                }
            }
        }
    }

    /// Sends a command and waits for its reply. What the guest prints meanwhile goes to
    /// `printed`; all else is held for [`Self::next`].
    pub(super) async fn execute(
        &mut self,
        command: &str,
        arguments: Option<Value>,
        mut printed: impl FnMut(&[u8]),
    ) -> Result<Value, String> {
        self.commands += 1;
        let this = self.commands;
        let deadline = Instant::now() + Duration::from_millis(COMMAND_MS);
        let late = || format!("no answer in {COMMAND_MS} ms");
        let line = qmp::command(this, command, arguments);
        timeout_at(deadline, self.monitor.write_all(&line))
            .await
            .map_err(|_| late())?
            .map_err(|e| e.to_string())?;
        loop {
            match timeout_at(deadline, self.events.recv())
                .await
                .map_err(|_| late())?
            {
                Some(Event::Monitor(Message::Reply { id, result })) if id == this => return result,
                Some(Event::Monitor(message)) => self.held.push_back(happening(message)),
                Some(Event::Printed(bytes)) => printed(&bytes),
                Some(Event::Exited(how)) => self.exit = Some(how),
                None => return Err("QEMU has ended".into()),
            }
        }
    }

    /// Types on the serial port.
    pub(super) async fn type_bytes(&mut self, bytes: &[u8]) {
        // What the guest doesn't take in time, or can't any more, is lost as on a real port.
        let _ = timeout(Duration::from_millis(TYPE_MS), self.serial.write_all(bytes)).await;
    }

    /// Ends QEMU and returns when it is gone; what the guest printed to the end goes to
    /// `printed`.
    pub(super) async fn end(&mut self, at_once: bool, mut printed: impl FnMut(&[u8])) {
        if !at_once {
            self.commands += 1;
            let line = qmp::command(self.commands, "quit", None);
            let limit = Duration::from_millis(QUIT_MS);
            let quit = async {
                // A QEMU that can't be written to has ended, or is killed below.
                let _ = self.monitor.write_all(&line).await;
                drain(&mut self.events, &mut printed).await;
            };
            if timeout(limit, quit).await.is_ok() {
                return;
            }
        }
        if let Some(kill) = self.kill.take() {
            // The task that waits for the process ends only with the process.
            let _ = kill.send(());
        }
        // The kernel ends a killed process unless it hangs in a driver; then it is left to it.
        let _ = timeout(
            Duration::from_millis(KILL_MS),
            drain(&mut self.events, &mut printed),
        )
        .await;
    }
}

fn happening(message: Message) -> Happening {
    match message {
        Message::Shutdown(cause) => Happening::Shutdown(cause),
        Message::DiskFull { device } => Happening::DiskFull { device },
        Message::Stopped => Happening::Stopped,
        Message::Resumed => Happening::Resumed,
        Message::Reply { .. } | Message::Other => Happening::Reply,
    }
}

/// Takes events until QEMU is gone and its sockets are read to their ends.
async fn drain(events: &mut mpsc::Receiver<Event>, printed: &mut impl FnMut(&[u8])) {
    while let Some(event) = events.recv().await {
        if let Event::Printed(bytes) = event {
            printed(&bytes);
        }
    }
}

fn listen(dir: &MachineDir, sockets: &SocketDir, name: &str) -> Result<UnixListener, RackError> {
    let path = dir.root().join(name);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(RackError::io("remove", path, e));
        }
        _ => {}
    }
    UnixListener::bind(sockets.path(name)).map_err(|e| RackError::io("listen on", path, e))
}

// The readers below end when QEMU closes its side, or when the machine's task is gone.

async fn read_monitor(monitor: OwnedReadHalf, events: mpsc::Sender<Event>) {
    let mut monitor = BufReader::new(monitor);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut monitor)
            .take(QMP_LINE_BYTES_MAX)
            .read_until(b'\n', &mut line)
            .await;
        if !matches!(read, Ok(1..)) {
            return;
        }
        if events
            .send(Event::Monitor(qmp::parse(&line)))
            .await
            .is_err()
        {
            return;
        }
    }
}

async fn read_serial(mut serial: OwnedReadHalf, events: mpsc::Sender<Event>) {
    let mut buffer = vec![0; SERIAL_PIECE_BYTES];
    while let Ok(read @ 1..) = serial.read(&mut buffer).await {
        let piece = buffer.get(..read).unwrap_or_default().to_vec();
        if events.send(Event::Printed(piece)).await.is_err() {
            return;
        }
    }
}

async fn wait_for_exit(
    mut child: Child,
    killed: oneshot::Receiver<()>,
    events: mpsc::Sender<Event>,
) {
    let status = tokio::select! {
        status = child.wait() => status,
        // The sender is dropped, too, when the machine's task is gone.
        _ = killed => {
            // It fails only if the process has ended meanwhile.
            let _ = child.start_kill();
            child.wait().await
        }
    };
    let how = status.map_or_else(|e| e.to_string(), |status| status.to_string());
    // Nobody listens when the machine's task is gone.
    let _ = events.send(Event::Exited(how)).await;
}
