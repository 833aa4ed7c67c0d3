//! The control protocol: one JSON object per line over the rack's Unix socket.
//!
//! A connection carries requests in turn, each answered by one [`Reply`] line. After the reply to
//! [`Request::Console`] the connection carries raw bytes instead: what the machine prints, and
//! what the client types.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use undercroft_model::{MacAddr, MachineUuid, NodeName, System};

use super::accel::Accelerator;
use super::console::ConsoleIdentity;
use super::error::Refusal;
use super::spec::{RackFirmware, RackNetwork, VirtualMachine};

/// The longest request line, in bytes; a description of a machine with all its disks fits.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024;
/// The longest reply line, in bytes; the status of a rack of `MACHINES_MAX` machines fits.
pub const REPLY_BYTES_MAX: usize = 1024 * 1024;

/// What a client asks of the supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Request {
    /// The whole rack's status.
    Status,
    /// A power operation on one machine.
    Power {
        /// The machine.
        machine: NodeName,
        /// The operation.
        action: PowerAction,
    },
    /// Sets or clears the boot override of the next launch.
    NextBoot {
        /// The machine.
        machine: NodeName,
        /// What it boots from next.
        boot: NextBoot,
    },
    /// Plugs or unplugs all network cables of a machine.
    Link {
        /// The machine.
        machine: NodeName,
        /// Whether the cables are plugged in.
        plugged: bool,
    },
    /// Turns the connection into the machine's serial console.
    Console {
        /// The machine.
        machine: NodeName,
        /// How many bytes of what it printed before are sent first.
        history_bytes: u64,
    },
    /// Adds a machine, powered off.
    AddMachine {
        /// Its description.
        machine: VirtualMachine,
    },
    /// Powers a machine off and removes it with its disks.
    RemoveMachine {
        /// The machine.
        machine: NodeName,
    },
    /// Ends the rack.
    Shutdown,
}

/// A power operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PowerAction {
    /// Powers on; nothing if it is on. A machine that QEMU paused because the host's disk was
    /// full goes on.
    On,
    /// Powers off at once, without asking the guest; nothing if it is off. What the guest wrote
    /// to its disks is kept.
    Off,
    /// Presses the power button (ACPI) and returns; a guest that listens shuts itself down.
    PressButton,
    /// Off, then on.
    Cycle,
    /// The reset button: restarts at once if it is on, an error if it is off.
    Reset,
    /// Pulls the plug: QEMU is killed in the middle of what it does. Requests that it had not
    /// finished are lost, as is all that the guest had not written; what it had written stays,
    /// since the host's page cache outlives the process.
    Cut,
}

/// What a machine boots from at its next launch.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum NextBoot {
    /// What its firmware decides.
    #[default]
    Firmware,
    /// The network, once.
    NetworkOnce,
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum Reply {
    /// Done.
    Done,
    /// The rack's status.
    Status {
        /// The status.
        status: Box<RackStatus>,
    },
    /// Refused or failed.
    Refused {
        /// Why, and what to try.
        refusal: Refusal,
    },
}

/// A rack's status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RackStatus {
    /// The supervisor's process id, as the host sees it.
    pub pid: i32,
    /// The network.
    pub network: RackNetwork,
    /// How machines of the host's own architecture are run.
    pub accelerator: Accelerator,
    /// When the rack was started, in milliseconds since 1970.
    pub started_at_ms: u64,
    /// The machines, by name.
    pub machines: Vec<MachineStatus>,
}

/// A machine's status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct MachineStatus {
    /// Its name.
    pub name: NodeName,
    /// What it runs.
    pub system: System,
    /// Its firmware.
    pub firmware: RackFirmware,
    /// Its SMBIOS UUID.
    pub uuid: MachineUuid,
    /// Its network cards.
    pub macs: Vec<MacAddr>,
    /// Whether it is on.
    pub power: PowerState,
    /// What it boots from at its next launch.
    pub next_boot: NextBoot,
    /// Whether its network cables are plugged in.
    pub plugged: bool,
    /// How many times it was launched: powered on, or restarted by its guest.
    pub launches: u64,
    /// When it was launched last, in milliseconds since 1970.
    pub launched_at_ms: Option<u64>,
    /// How it was booted at its last launch.
    pub booted: Option<BootPath>,
    /// Why it stopped last.
    pub last_stop: Option<MachineStop>,
    /// The installer's identity, if it showed one since the last launch.
    pub identity: Option<ConsoleIdentity>,
    /// Where everything that it prints is kept.
    pub serial_log: PathBuf,
    /// How many bytes it printed since the rack was started.
    pub serial_bytes: u64,
}

/// Whether a machine is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum PowerState {
    /// Off.
    Off,
    /// On.
    On,
    /// On, but QEMU stopped it, because the host's disk was full.
    Paused {
        /// What QEMU reported.
        reason: String,
    },
}

/// How the firmware was told what to boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BootPath {
    /// Not at all: by its own order.
    FirmwareOrder,
    /// Network once, by `BootNext` in its variables: its own order stays as it was.
    BootNext,
    /// Network first for this launch, by QEMU's boot order: the variables had no entry for the
    /// network card yet, or the firmware is a BIOS.
    BootIndex,
}

/// Why a machine stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct MachineStop {
    /// The reason.
    pub reason: StopReason,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// More about it, such as the end of what QEMU said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// The reason for which a machine stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StopReason {
    /// It was powered off, cycled or reset by request.
    PoweredOff,
    /// Its plug was pulled by request.
    Cut,
    /// Its guest shut down.
    GuestShutdown,
    /// Its guest restarted; it was launched again.
    GuestReset,
    /// Its guest panicked.
    GuestPanic,
    /// Its guest restarted too often and is kept off.
    ResetLoop,
    /// QEMU failed.
    Failed,
}
