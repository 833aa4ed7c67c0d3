//! What an installer says of the machine that it runs on.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::{MacAddr, MachineUuid, System};

/// The version of [`InstallerReport`] that this program reads.
pub const INSTALLER_REPORT_VERSION: u32 = 1;

/// The JSON that an installer posts to `/v1/report` once its SSH server listens.
///
/// It is a claim, not a proof: whoever can reach the boot network can send one. It becomes
/// something to act on only when an operator, or a console that nobody else can write to, has
/// confirmed the fingerprint; from then on every SSH connection is pinned to `host_key`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct InstallerReport {
    /// [`INSTALLER_REPORT_VERSION`].
    pub version: u32,
    /// 32 hexadecimal digits, made anew at each boot; shown on the console beside the fingerprint.
    pub nonce: String,
    /// The SMBIOS UUID, where the firmware has one.
    #[serde(default)]
    pub uuid: Option<MachineUuid>,
    /// All Ethernet addresses of the machine.
    pub macs: Vec<MacAddr>,
    /// The address at which the installer's SSH server listens, port 22.
    pub address: Ipv4Addr,
    /// `/proc/sys/kernel/random/boot_id` of this boot.
    pub boot_id: String,
    /// The ephemeral host key as OpenSSH prints it: `ssh-ed25519 AAAA…`.
    pub host_key: String,
    /// The key's fingerprint as OpenSSH prints it: `SHA256:…`.
    pub fingerprint: String,
    /// What the machine can run.
    pub system: System,
    /// How it was booted.
    pub firmware: ReportedFirmware,
    /// All memory that the kernel sees, in MiB.
    pub memory_mb: u64,
    /// Name and version of the installer.
    pub installer: String,
    /// Every disk, in the order of the kernel's names.
    pub disks: Vec<ReportedDisk>,
    /// The token of the boot script that this boot came from, as it stood on the kernel's command
    /// line. It is no secret: whoever asks for a machine's script gets one. It ties a report to a
    /// request that the boot servers have answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// The firmware interface that an installer found itself booted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ReportedFirmware {
    /// `/sys/firmware/efi` is there.
    Uefi,
    /// It isn't.
    Bios,
    /// A board's own boot ROM with a device tree, as on a Raspberry Pi.
    DeviceTree,
}

/// One disk as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ReportedDisk {
    /// The device, such as `/dev/nvme0n1`.
    pub path: String,
    /// The serial number, trimmed; `None` where the disk has none.
    #[serde(default)]
    pub serial: Option<String>,
    /// The World Wide Name or NVMe EUI, where the disk has one.
    #[serde(default)]
    pub wwn: Option<String>,
    /// Size in bytes.
    pub size_bytes: u64,
    /// The model's name, where the disk has one.
    #[serde(default)]
    pub model: Option<String>,
    /// The bus: `virtio`, `nvme`, `sata`, `scsi`, `usb`, `mmc`, or another word of the kernel's.
    #[serde(default)]
    pub transport: Option<String>,
}
