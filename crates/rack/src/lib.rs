//! The virtual rack: QEMU machines with real firmware on a private network, in a user, network
//! and process namespace of their own. Nothing on the host's network changes.
//!
//! [`up`] starts a supervisor, which makes the network and runs one QEMU per machine; a
//! [`RackClient`] asks it for things over a Unix socket in the rack's directory. Boot servers and
//! tests run inside the rack's network by [`enter_command`].
//!
//! A guest that restarts ends its QEMU, and the supervisor launches it anew: only so can a boot
//! override hold for one launch. A one-time network boot is done as a BMC does it, by the
//! firmware's `BootNext` variable, which the supervisor writes into the machine's own variables
//! while it is off; QEMU's `bootindex` would make OVMF rewrite its boot order and forget the
//! installed system's entry.

mod accel;
mod client;
mod console;
mod error;
mod firmware;
mod lent;
mod machine;
mod namespace;
mod network;
mod nvram;
mod protocol;
mod qemu;
mod qmp;
mod spec;
mod state;
mod supervisor;

pub use accel::{Accelerator, KVM_PROBE_MS};
pub use client::{Console, REQUEST_MS, RackClient, SHUTDOWN_MS};
pub use console::{
    ConsoleIdentity, ConsoleScanner, IDENTITY_MARKER, LINE_BYTES_MAX, parse_identity,
};
pub use error::{RackError, Refusal};
pub use machine::{HOST_FREE_BYTES_MIN, RESETS_PER_MINUTE_MAX};
pub use namespace::{
    Disks, SupervisorCommand, UP_MS, down, enter_command, is_inside, tracing_supervisor, up,
};
pub use nvram::{BootEntry, NVRAM_BYTES_MAX, VariableStore};
pub use protocol::{
    BootPath, MachineStatus, MachineStop, NextBoot, PowerAction, PowerState, REPLY_BYTES_MAX,
    REQUEST_BYTES_MAX, RackStatus, Reply, Request, StopReason,
};
pub use spec::{
    AcceleratorChoice, DISK_BYTES_MIN, DISKS_MAX, EmulatedBus, MACHINES_MAX, NICS_MAX, RackDisk,
    RackFirmware, RackNetwork, RackSpec, SERIAL_CHARS_MAX, VirtualMachine,
};
pub use supervisor::supervisor_main;
