//! The supervisor: process 1 of the rack's namespaces, which makes the network, runs a task per
//! machine, and answers on the control socket.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, Notify, Semaphore, broadcast};
use tokio::time::timeout;
use undercroft_model::NodeName;
use undercroft_process::lock::{FileLock, LOCK_LINGERS_MAX, NotLocked};

use super::RackError;
use super::accel::Accelerator;
use super::error::no_such_machine;
use super::machine::{ConsoleFeed, MachineHandle, Order, prepare};
use super::network;
use super::protocol::{REQUEST_BYTES_MAX, RackStatus, Reply, Request};
use super::spec::{RackSpec, VirtualMachine};
use super::state::{CONTROL_SOCKET, StateDir, SupervisorRecord, now_ms, write_file};

/// How lines of the log begin that are command lines.
pub(super) const STARTED: &str = "$ ";
/// How many clients may be connected at once, open consoles among them.
const CONNECTIONS_MAX: usize = 64;
/// How long a client may stay connected without asking for anything, in milliseconds.
const IDLE_MS: u64 = 60_000;
/// How long all machines together may take to end, in milliseconds. What is left then is killed
/// by the kernel with this process.
const RETIRE_MS: u64 = 30_000;
/// How much is read from a console's client at once, in bytes.
const TYPED_BYTES: usize = 1024;

/// What the supervisor is to run, as it stands in the rack's directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Orders {
    pub(crate) accelerator: Accelerator,
    pub(crate) spec: RackSpec,
}

/// Runs the supervisor until the rack ends. It is for the process that [`super::up`] starts, and
/// takes what follows the hidden subcommand: the rack's directory. It makes a runtime of its own,
/// so it must not be called inside another.
pub fn supervisor_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args = args.into_iter();
    let (Some(state_dir), None) = (args.next(), args.next()) else {
        eprintln!("the rack's supervisor takes one argument, the rack's directory");
        return ExitCode::from(64);
    };
    // Into the log, where whoever was asked to show them finds them.
    undercroft_process::trace::listen(|command| eprintln!("{STARTED}{command}"));
    let outcome = StateDir::new(&PathBuf::from(state_dir)).and_then(|dir| {
        let outcome = run(&dir);
        if let Err(error) = &outcome {
            // The client shows this; where it can't be written, the log has to do.
            let text = serde_json::to_vec_pretty(&error.to_refusal()).unwrap_or_default();
            let _ = write_file(&dir.failure(), &text);
        }
        outcome
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(dir: &StateDir) -> Result<(), RackError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| RackError::io("start", "the supervisor's runtime", e))?;
    // Held until this process ends, so that a second supervisor can't use the same disks.
    let _lock = lock(dir)?;
    let outcome = runtime.block_on(supervise(dir));
    for file in [dir.record(), dir.root().join(CONTROL_SOCKET)] {
        // What stays is recognized as stale by the process id in it.
        let _ = fs::remove_file(file);
    }
    outcome
}

fn lock(dir: &StateDir) -> Result<FileLock, RackError> {
    let file = File::create(dir.lock()).map_err(|e| RackError::io("create", dir.lock(), e))?;
    FileLock::take(file, LOCK_LINGERS_MAX).map_err(|why| match why {
        NotLocked::Held(_) => RackError::AlreadyRunning {
            state_dir: dir.root().into(),
            pid: SupervisorRecord::find(dir).map_or(0, |record| record.pid),
        },
        NotLocked::Failed(_, error) => RackError::io("lock", dir.lock(), error),
    })
}

async fn supervise(dir: &StateDir) -> Result<(), RackError> {
    let text = fs::read(dir.spec()).map_err(|e| RackError::io("read", dir.spec(), e))?;
    let orders: Orders = serde_json::from_slice(&text)
        .map_err(|e| RackError::io("understand", dir.spec(), e.into()))?;
    orders.spec.validate()?;
    network::set_up(&orders.spec.network).await?;
    let record = SupervisorRecord::of_this_process(now_ms())?;
    let rack = Arc::new(Rack {
        dir: dir.clone(),
        record,
        ending: Notify::new(),
        inner: Mutex::new(Inner {
            orders: Orders {
                spec: RackSpec {
                    machines: Vec::new(),
                    ..orders.spec.clone()
                },
                ..orders
            },
            machines: BTreeMap::new(),
            next_tap: 0,
        }),
    });
    for machine in orders.spec.machines {
        rack.inner.lock().await.add(dir, machine).await?;
    }
    let sockets = dir.sockets()?;
    let listener = UnixListener::bind(sockets.path(CONTROL_SOCKET))
        .map_err(|e| RackError::io("listen on", dir.root().join(CONTROL_SOCKET), e))?;
    // As process 1 this process gets only the signals that it handles.
    let mut terminate =
        signal(SignalKind::terminate()).map_err(|e| RackError::io("handle", "SIGTERM", e))?;
    // The record says that the rack is ready, so it comes last.
    let text = serde_json::to_vec_pretty(&rack.record).map_err(|e| RackError::Protocol {
        detail: e.to_string(),
    })?;
    write_file(&dir.record(), &text)?;
    tokio::select! {
        () = serve(&listener, &rack) => {}
        () = rack.ending.notified() => {}
        _ = terminate.recv() => {}
    }
    rack.retire().await;
    Ok(())
}

async fn serve(listener: &UnixListener, rack: &Arc<Rack>) {
    let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // The semaphore is never closed.
        let Ok(seat) = Arc::clone(&seats).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let rack = Arc::clone(rack);
                tokio::spawn(async move {
                    // A client that goes away ends its own connection only.
                    let _ = rack.talk(stream).await;
                    drop(seat);
                });
            }
            Err(error) => {
                eprintln!("cannot accept a client: {error}");
                // Out of file descriptors, most likely: they come back.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

struct Rack {
    dir: StateDir,
    record: SupervisorRecord,
    ending: Notify,
    inner: Mutex<Inner>,
}

struct Inner {
    orders: Orders,
    machines: BTreeMap<NodeName, MachineHandle>,
    next_tap: u32,
}

impl Rack {
    async fn talk(&self, stream: UnixStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        loop {
            line.clear();
            let mut bounded = (&mut stream).take(REQUEST_BYTES_MAX as u64);
            let read = bounded.read_until(b'\n', &mut line);
            let Ok(read) = timeout(Duration::from_millis(IDLE_MS), read).await else {
                return Ok(());
            };
            if read? == 0 {
                return Ok(());
            }
            if line.last() != Some(&b'\n') {
                let error = RackError::Protocol {
                    detail: format!("a request of more than {REQUEST_BYTES_MAX} bytes"),
                };
                return answer(&mut stream, &refused(&error)).await;
            }
            let request = match serde_json::from_slice::<Request>(&line) {
                Ok(request) => request,
                Err(e) => {
                    let error = RackError::Protocol {
                        detail: format!("not a request: {e}"),
                    };
                    answer(&mut stream, &refused(&error)).await?;
                    continue;
                }
            };
            if let Request::Console {
                machine,
                history_bytes,
            } = request
            {
                return self.show_console(stream, &machine, history_bytes).await;
            }
            let ending = request == Request::Shutdown;
            let reply = self
                .carry_out(request)
                .await
                .unwrap_or_else(|e| refused(&e));
            answer(&mut stream, &reply).await?;
            if ending {
                self.ending.notify_one();
            }
        }
    }

    async fn carry_out(&self, request: Request) -> Result<Reply, RackError> {
        match request {
            Request::Status => {
                return Ok(Reply::Status {
                    status: Box::new(self.status().await),
                });
            }
            Request::Power { machine, action } => {
                self.machine(&machine)
                    .await?
                    .order(|a| Order::Power(action, a))
                    .await?;
            }
            Request::NextBoot { machine, boot } => {
                self.machine(&machine)
                    .await?
                    .order(|a| Order::NextBoot(boot, a))
                    .await?;
            }
            Request::Link { machine, plugged } => {
                self.machine(&machine)
                    .await?
                    .order(|a| Order::Plug(plugged, a))
                    .await?;
            }
            Request::AddMachine { machine } => {
                let mut inner = self.inner.lock().await;
                inner.add(&self.dir, machine).await?;
                inner.save(&self.dir)?;
            }
            Request::RemoveMachine { machine } => {
                let mut inner = self.inner.lock().await;
                inner.remove(&self.dir, &machine).await?;
                inner.save(&self.dir)?;
            }
            // `talk` handles the rest.
            Request::Shutdown | Request::Console { .. } => {}
        }
        Ok(Reply::Done)
    }

    async fn machine(&self, name: &NodeName) -> Result<MachineHandle, RackError> {
        let inner = self.inner.lock().await;
        inner
            .machines
            .get(name)
            .cloned()
            .ok_or_else(|| no_such_machine(name))
    }

    async fn status(&self) -> RackStatus {
        let inner = self.inner.lock().await;
        RackStatus {
            pid: self.record.pid,
            network: inner.orders.spec.network.clone(),
            accelerator: inner.orders.accelerator,
            started_at_ms: self.record.started_at_ms,
            machines: inner.machines.values().map(MachineHandle::status).collect(),
        }
    }

    async fn show_console(
        &self,
        mut stream: BufReader<UnixStream>,
        name: &NodeName,
        history_bytes: u64,
    ) -> std::io::Result<()> {
        let opened: Result<(MachineHandle, ConsoleFeed), RackError> = async {
            let machine = self.machine(name).await?;
            let feed = machine
                .order(|a| Order::OpenConsole(history_bytes, a))
                .await?;
            Ok((machine, feed))
        }
        .await;
        let (machine, (history, mut live)) = match opened {
            Ok(opened) => opened,
            Err(error) => return answer(&mut stream, &refused(&error)).await,
        };
        answer(&mut stream, &Reply::Done).await?;
        let (mut typed, mut shown) = tokio::io::split(stream);
        shown.write_all(&history).await?;
        let mut keys = vec![0; TYPED_BYTES];
        loop {
            tokio::select! {
                piece = live.recv() => match piece {
                    Ok(piece) => shown.write_all(&piece).await?,
                    Err(broadcast::error::RecvError::Lagged(missed)) => {
                        let text = format!("\r\n[the console fell behind by {missed} pieces]\r\n");
                        return shown.write_all(text.as_bytes()).await;
                    }
                    // The machine was removed.
                    Err(broadcast::error::RecvError::Closed) => return Ok(()),
                },
                read = typed.read(&mut keys) => match read? {
                    0 => return Ok(()),
                    read => {
                        machine.type_bytes(keys.get(..read).unwrap_or_default().to_vec()).await;
                    }
                },
            }
        }
    }

    /// Powers all machines off.
    async fn retire(&self) {
        let machines: Vec<MachineHandle> =
            self.inner.lock().await.machines.values().cloned().collect();
        let ends: Vec<_> = machines
            .into_iter()
            .map(|machine| tokio::spawn(async move { machine.order(Order::Retire).await }))
            .collect();
        let all = async {
            for end in ends {
                // A machine that fails to end is killed with this process.
                let _ = end.await;
            }
        };
        if timeout(Duration::from_millis(RETIRE_MS), all)
            .await
            .is_err()
        {
            eprintln!("machines that did not end in {RETIRE_MS} ms are killed");
        }
    }
}

impl Inner {
    async fn add(&mut self, dir: &StateDir, machine: VirtualMachine) -> Result<(), RackError> {
        let mut spec = self.orders.spec.clone();
        spec.machines.push(machine.clone());
        spec.validate()?;
        let folder = dir.machine(&machine.name);
        prepare(&machine, &folder)?;
        let mut taps = Vec::new();
        for _ in &machine.macs {
            let tap = format!("uc{}", self.next_tap);
            self.next_tap += 1;
            network::add_tap(&spec.network, &tap).await?;
            taps.push(tap);
        }
        self.orders.spec = spec;
        let name = machine.name.clone();
        let handle = MachineHandle::start(machine, folder, taps, self.orders.accelerator);
        self.machines.insert(name, handle);
        Ok(())
    }

    async fn remove(&mut self, dir: &StateDir, name: &NodeName) -> Result<(), RackError> {
        let machine = self
            .machines
            .remove(name)
            .ok_or_else(|| no_such_machine(name))?;
        self.orders.spec.machines.retain(|m| m.name != *name);
        machine.order(Order::Retire).await?;
        for tap in &machine.taps {
            network::remove_tap(tap).await?;
        }
        let folder = dir.machine(name);
        fs::remove_dir_all(folder.root()).map_err(|e| RackError::io("delete", folder.root(), e))
    }

    fn save(&self, dir: &StateDir) -> Result<(), RackError> {
        let text = serde_json::to_vec_pretty(&self.orders).map_err(|e| RackError::Protocol {
            detail: e.to_string(),
        })?;
        write_file(&dir.spec(), &text)
    }
}

fn refused(error: &RackError) -> Reply {
    Reply::Refused {
        refusal: error.to_refusal(),
    }
}

async fn answer(stream: &mut BufReader<UnixStream>, reply: &Reply) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    stream.write_all(&line).await
}
