//! One machine: a task that owns its QEMU, and carries out one order after the other.

mod files;
mod running;
mod serial;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::RackError;
use super::accel::{Accelerator, host_system};
use super::nvram;
use super::protocol::{
    BootPath, MachineStatus, MachineStop, NextBoot, PowerAction, PowerState, StopReason,
};
use super::qemu::{self, Launch};
use super::qmp::ShutdownCause;
use super::spec::{RackFirmware, VirtualMachine};
use super::state::{LOG_END_BYTES, MachineDir, end_of_file, now_ms};
use running::{Happening, RunningVm};
use serial::SerialOutput;

pub use files::HOST_FREE_BYTES_MIN;
pub(crate) use files::prepare;

/// How often a guest may restart in a minute before its machine is kept off: firmware alone takes
/// several seconds, so a guest that restarts more often is in a loop.
pub const RESETS_PER_MINUTE_MAX: usize = 12;
const RESET_WINDOW: Duration = Duration::from_secs(60);
/// How many orders may wait for a machine's task.
const ORDERS_WAITING_MAX: usize = 16;

/// What a machine's task is told to do.
#[derive(Debug)]
pub(crate) enum Order {
    Power(PowerAction, ReplySender<()>),
    NextBoot(NextBoot, ReplySender<()>),
    Plug(bool, ReplySender<()>),
    OpenConsole(u64, ReplySender<ConsoleFeed>),
    Type(Vec<u8>),
    /// Power off and end the task.
    Retire(ReplySender<()>),
}

pub(crate) type ReplySender<T> = oneshot::Sender<Result<T, RackError>>;

/// An open console: what was printed, and what will be.
pub(crate) type ConsoleFeed = (Vec<u8>, broadcast::Receiver<Arc<[u8]>>);

/// The way to a machine's task.
#[derive(Debug, Clone)]
pub(crate) struct MachineHandle {
    pub(crate) taps: Vec<String>,
    orders: mpsc::Sender<Order>,
    status: watch::Receiver<MachineStatus>,
}

impl MachineHandle {
    /// Starts the task of a machine whose files and taps are ready.
    pub(crate) fn start(
        spec: VirtualMachine,
        dir: MachineDir,
        taps: Vec<String>,
        accelerator: Accelerator,
    ) -> Self {
        let (orders, inbox) = mpsc::channel(ORDERS_WAITING_MAX);
        let (status, watched) = watch::channel(MachineStatus {
            name: spec.name.clone(),
            system: spec.system,
            firmware: spec.firmware,
            uuid: spec.uuid,
            macs: spec.macs.clone(),
            power: PowerState::Off,
            next_boot: NextBoot::Firmware,
            plugged: true,
            launches: 0,
            launched_at_ms: None,
            booted: None,
            last_stop: None,
            identity: None,
            serial_log: dir.serial_log(),
            serial_bytes: 0,
        });
        // KVM runs guests of the host's own kind only.
        let accelerator = if Some(spec.system) == host_system() {
            accelerator
        } else {
            Accelerator::Tcg
        };
        let machine = VmKeeper {
            output: SerialOutput::new(dir.clone()),
            spec,
            dir,
            taps: taps.clone(),
            accelerator,
            status,
            running: None,
            resets: VecDeque::new(),
        };
        tokio::spawn(machine.run(inbox));
        Self {
            taps,
            orders,
            status: watched,
        }
    }

    pub(crate) fn status(&self) -> MachineStatus {
        self.status.borrow().clone()
    }

    /// Gives an order and waits for its outcome.
    pub(crate) async fn order<T>(
        &self,
        make: impl FnOnce(ReplySender<T>) -> Order,
    ) -> Result<T, RackError> {
        let (answer, outcome) = oneshot::channel();
        let gone = || crate::error::no_such_machine(&self.status.borrow().name);
        self.orders.send(make(answer)).await.map_err(|_| gone())?;
        outcome.await.map_err(|_| gone())?
    }

    /// Types on the console; what a machine that is off would get is dropped.
    pub(crate) async fn type_bytes(&self, bytes: Vec<u8>) {
        // A machine that was removed takes no keys.
        let _ = self.orders.send(Order::Type(bytes)).await;
    }
}

struct VmKeeper {
    spec: VirtualMachine,
    dir: MachineDir,
    taps: Vec<String>,
    accelerator: Accelerator,
    status: watch::Sender<MachineStatus>,
    output: SerialOutput,
    running: Option<RunningVm>,
    /// When the guest restarted lately.
    resets: VecDeque<Instant>,
}

impl VmKeeper {
    async fn run(mut self, mut inbox: mpsc::Receiver<Order>) {
        loop {
            let order = match &mut self.running {
                None => inbox.recv().await,
                Some(running) => tokio::select! {
                    happening = running.next() => {
                        self.on(happening).await;
                        continue;
                    }
                    order = inbox.recv() => order,
                },
            };
            // An answer that nobody waits for any more is dropped.
            match order {
                Some(Order::Power(action, answer)) => {
                    let _ = answer.send(self.power(action).await);
                }
                Some(Order::NextBoot(boot, answer)) => {
                    self.status.send_modify(|status| status.next_boot = boot);
                    let _ = answer.send(Ok(()));
                }
                Some(Order::Plug(plugged, answer)) => {
                    let _ = answer.send(self.plug(plugged).await);
                }
                Some(Order::OpenConsole(history_bytes, answer)) => {
                    let _ = answer.send(Ok(self.output.subscribe(history_bytes)));
                }
                Some(Order::Type(bytes)) => {
                    if let Some(running) = &mut self.running {
                        running.type_bytes(&bytes).await;
                    }
                }
                Some(Order::Retire(answer)) => {
                    let _ = answer.send(self.power(PowerAction::Off).await);
                    return;
                }
                None => {
                    // The supervisor is ending; nobody is left to hear of an error.
                    let _ = self.power(PowerAction::Off).await;
                    return;
                }
            }
        }
    }

    async fn power(&mut self, action: PowerAction) -> Result<(), RackError> {
        match (action, self.running.is_some()) {
            (PowerAction::On, false) | (PowerAction::Cycle, false) => self.launch().await,
            (PowerAction::On, true) => self.resume().await,
            (PowerAction::Off | PowerAction::Cut, false) => Ok(()),
            (PowerAction::Off, true) => {
                self.stop(StopReason::PoweredOff).await;
                Ok(())
            }
            (PowerAction::Cut, true) => {
                self.stop(StopReason::Cut).await;
                Ok(())
            }
            (PowerAction::Cycle | PowerAction::Reset, true) => {
                self.stop(StopReason::PoweredOff).await;
                self.launch().await
            }
            (PowerAction::PressButton, true) => {
                self.execute("system_powerdown", None).await.map(drop)
            }
            (PowerAction::PressButton | PowerAction::Reset, false) => Err(RackError::refused(
                format!("machine {} is off", self.spec.name),
                "Power it on first.",
            )),
        }
    }

    /// Lets a machine go on that QEMU stopped because the host's disk was full.
    async fn resume(&mut self) -> Result<(), RackError> {
        if matches!(self.status.borrow().power, PowerState::Paused { .. }) {
            self.execute("cont", None).await?;
            self.status
                .send_modify(|status| status.power = PowerState::On);
        }
        Ok(())
    }

    async fn plug(&mut self, plugged: bool) -> Result<(), RackError> {
        if self.running.is_some() {
            for index in 0..self.taps.len() {
                let arguments = json!({ "name": qemu::nic_id(index), "up": plugged });
                self.execute("set_link", Some(arguments)).await?;
            }
        }
        self.status.send_modify(|status| status.plugged = plugged);
        Ok(())
    }

    async fn launch(&mut self) -> Result<(), RackError> {
        let booted = self.prepare_boot()?;
        let (qemu, uefi) = files::programs(&self.spec)?;
        let launch = Launch {
            accelerator: self.accelerator,
            uefi: uefi.as_ref(),
            taps: &self.taps,
            network_first: booted == BootPath::BootIndex,
        };
        let arguments = qemu::arguments(&self.spec, &launch);
        self.output.scanner.reset();
        self.running = Some(RunningVm::start(&self.spec.name, &self.dir, &qemu, &arguments).await?);
        self.status.send_modify(|status| {
            status.power = PowerState::On;
            status.launches += 1;
            status.launched_at_ms = Some(now_ms());
            status.booted = Some(booted);
            status.next_boot = NextBoot::Firmware;
            status.identity = None;
        });
        let plugged = self.status.borrow().plugged;
        let started = async {
            if !plugged {
                self.plug(false).await?;
            }
            self.execute("cont", None).await.map(drop)
        }
        .await;
        if started.is_err() {
            self.stop(StopReason::Failed).await;
        }
        started
    }

    /// Tells the firmware what to boot, as far as that is done before a launch.
    fn prepare_boot(&self) -> Result<BootPath, RackError> {
        let mac = match (self.status.borrow().next_boot, self.spec.macs.first()) {
            (NextBoot::NetworkOnce, Some(mac)) => *mac,
            _ => return Ok(BootPath::FirmwareOrder),
        };
        if self.spec.firmware == RackFirmware::Bios {
            return Ok(BootPath::BootIndex);
        }
        let nvram = self.dir.nvram();
        let set = nvram::boot_network_next(&nvram, mac)
            .map_err(|e| RackError::io("set BootNext in", nvram, e))?;
        Ok(if set {
            BootPath::BootNext
        } else {
            BootPath::BootIndex
        })
    }

    /// Sends QEMU a command and waits for its reply; what happens meanwhile is dealt with.
    async fn execute(
        &mut self,
        command: &str,
        arguments: Option<serde_json::Value>,
    ) -> Result<serde_json::Value, RackError> {
        let machine = self.spec.name.to_string();
        let failed = |what: String| RackError::Qemu {
            machine,
            what,
            output: String::new(),
        };
        let Some(running) = &mut self.running else {
            return Err(failed("QEMU is not running".into()));
        };
        let (output, status) = (&mut self.output, &self.status);
        let reply = running.execute(command, arguments, |bytes| printed(output, status, bytes));
        reply
            .await
            .map_err(|what| failed(format!("QEMU's command {command} failed: {what}")))
    }

    /// Ends QEMU: for a cut at once, else after it has closed its files. What the guest still
    /// prints is taken.
    async fn stop(&mut self, reason: StopReason) {
        let Some(mut running) = self.running.take() else {
            return;
        };
        let (output, status) = (&mut self.output, &self.status);
        let cut = reason == StopReason::Cut;
        running
            .end(cut, |bytes| printed(output, status, bytes))
            .await;
        self.stopped(reason, None);
    }

    fn stopped(&self, reason: StopReason, detail: Option<String>) {
        self.status.send_modify(|status| {
            status.power = PowerState::Off;
            status.last_stop = Some(MachineStop {
                reason,
                at_ms: now_ms(),
                detail,
            });
        });
    }

    async fn on(&mut self, happening: Happening) {
        match happening {
            Happening::Printed(bytes) => printed(&mut self.output, &self.status, &bytes),
            Happening::DiskFull { device } => self.status.send_modify(|status| {
                status.power = PowerState::Paused {
                    reason: format!(
                        "the host's disk is full, so {device} cannot be written; free some space \
                         and power the machine on to let it go on"
                    ),
                };
            }),
            Happening::Stopped => self.on_stopped().await,
            Happening::Resumed => {
                self.status
                    .send_modify(|status| status.power = PowerState::On);
            }
            Happening::Shutdown(ShutdownCause::GuestReset) => self.on_guest_reset().await,
            Happening::Shutdown(ShutdownCause::GuestShutdown) => {
                self.stop(StopReason::GuestShutdown).await;
            }
            Happening::Shutdown(ShutdownCause::GuestPanic) => {
                self.stop(StopReason::GuestPanic).await;
            }
            Happening::Shutdown(ShutdownCause::Host) | Happening::Reply => {}
            Happening::Ended(how) => {
                self.running = None;
                let log_end = end_of_file(&self.dir.qemu_log(), LOG_END_BYTES);
                self.stopped(
                    StopReason::Failed,
                    Some(format!("QEMU ended by itself ({how}): {log_end}")),
                );
            }
        }
    }

    /// A guest that KVM can't go on with is launched again under emulation, with the same boot before it.
    /// Other reasons to stand still come with events of their own.
    async fn on_stopped(&mut self) {
        // A QEMU that doesn't answer is about to end, which is heard of too.
        let Ok(reply) = self.execute("query-status", None).await else {
            return;
        };
        // `RunState` in QEMU's qapi/run-state.json.
        let state = reply.get("status").and_then(serde_json::Value::as_str);
        if state != Some("internal-error") {
            return;
        }
        let log = end_of_file(&self.dir.qemu_log(), LOG_END_BYTES);
        let from_network = self.status.borrow().booted != Some(BootPath::FirmwareOrder);
        self.stop(StopReason::Failed).await;
        if self.accelerator == Accelerator::Tcg {
            let detail = format!("QEMU stopped the guest for an error of its own: {log}");
            self.stopped(StopReason::Failed, Some(detail));
            return;
        }
        self.accelerator = Accelerator::Tcg;
        if from_network {
            self.status
                .send_modify(|status| status.next_boot = NextBoot::NetworkOnce);
        }
        self.stopped(
            StopReason::Failed,
            Some(format!(
                "KVM gave up on it; it goes on under emulation: {log}"
            )),
        );
        self.launch_again().await;
    }

    async fn on_guest_reset(&mut self) {
        let now = Instant::now();
        self.resets
            .retain(|at| now.duration_since(*at) < RESET_WINDOW);
        self.resets.push_back(now);
        if self.resets.len() > RESETS_PER_MINUTE_MAX {
            self.resets.clear();
            self.stop(StopReason::ResetLoop).await;
            let detail =
                format!("it restarted more than {RESETS_PER_MINUTE_MAX} times in a minute");
            self.stopped(StopReason::ResetLoop, Some(detail));
            return;
        }
        self.stop(StopReason::GuestReset).await;
        self.launch_again().await;
    }

    async fn launch_again(&mut self) {
        if let Err(error) = self.launch().await {
            eprintln!(
                "machine {} cannot be launched again: {error}",
                self.spec.name
            );
            self.stopped(StopReason::Failed, Some(error.to_string()));
        }
    }
}

/// Takes what the machine printed.
fn printed(output: &mut SerialOutput, status: &watch::Sender<MachineStatus>, bytes: &[u8]) {
    output.take(bytes);
    status.send_modify(|status| {
        status.serial_bytes += bytes.len() as u64;
        if status.identity.as_ref() != output.scanner.identity() {
            status.identity = output.scanner.identity().cloned();
        }
    });
}
