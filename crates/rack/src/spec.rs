//! What a rack consists of.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use undercroft_model::{MacAddr, MachineUuid, NodeName, System};

use super::RackError;

/// The most machines in one rack; more than any workstation runs at once, and a bound for the
/// control protocol's answers.
pub const MACHINES_MAX: usize = 64;
/// The most network cards of a machine.
pub const NICS_MAX: usize = 4;
/// The most disks of a machine.
pub const DISKS_MAX: usize = 16;
/// The smallest disk, in bytes: firmware and partition tools refuse less.
pub const DISK_BYTES_MIN: u64 = 1024 * 1024;
/// The most characters of a disk's serial that every bus carries: virtio-blk has 20 bytes
/// (`VIRTIO_BLK_ID_BYTES`), NVMe's identify structure 20 as well.
pub const SERIAL_CHARS_MAX: usize = 20;
/// The most characters of an interface's name (`IFNAMSIZ` less the final zero).
const INTERFACE_NAME_CHARS_MAX: usize = 15;

/// A rack: a network and the machines on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RackSpec {
    /// The private network.
    pub network: RackNetwork,
    /// How machines of the host's own architecture are run.
    #[serde(default)]
    pub accelerator: AcceleratorChoice,
    /// The machines; they start powered off.
    pub machines: Vec<VirtualMachine>,
}

/// The network of a rack: a bridge in the rack's own network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RackNetwork {
    /// The bridge's name, such as `br0`.
    pub bridge: String,
    /// The bridge's own address: the one that the boot servers bind.
    pub address: Ipv4Addr,
    /// The network's prefix length in bits.
    pub prefix_len: u8,
}

/// How machines of the host's own architecture are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AcceleratorChoice {
    /// KVM where a bounded probe has shown that it runs a guest, emulation elsewhere.
    #[default]
    Auto,
    /// Emulation (TCG), without a probe.
    Tcg,
    /// KVM; an error where the probe fails.
    Kvm,
}

/// One machine of a rack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtualMachine {
    /// Its name, also that of its folder.
    pub name: NodeName,
    /// What it runs: `x86_64-linux` or `aarch64-linux`.
    pub system: System,
    /// Its firmware.
    pub firmware: RackFirmware,
    /// Its SMBIOS UUID.
    pub uuid: MachineUuid,
    /// The addresses of its network cards; the first one is the one it boots from.
    pub macs: Vec<MacAddr>,
    /// Its disks.
    pub disks: Vec<RackDisk>,
    /// Memory in MiB.
    pub memory_mb: u32,
    /// Virtual processors.
    pub cpus: u32,
}

/// A machine's firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RackFirmware {
    /// OVMF on x86_64, AAVMF on aarch64, with variables of the machine's own.
    Uefi,
    /// SeaBIOS; x86_64 only.
    Bios,
}

/// A disk of a machine: a sparse file of the rack's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RackDisk {
    /// How it is attached.
    pub bus: EmulatedBus,
    /// The serial number that the machine reads; at most [`SERIAL_CHARS_MAX`] characters.
    pub serial: String,
    /// Size in bytes; a multiple of 512.
    pub size_bytes: u64,
}

/// How a disk is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EmulatedBus {
    /// virtio-blk: `/dev/vdX`.
    Virtio,
    /// NVMe: `/dev/nvmeXn1`.
    Nvme,
}

impl RackSpec {
    /// Refuses what QEMU or the kernel would refuse later and less clearly.
    ///
    /// # Errors
    /// [`RackError::BadSpec`] names the machine and the field.
    pub fn validate(&self) -> Result<(), RackError> {
        self.network.validate()?;
        if self.machines.len() > MACHINES_MAX {
            return Err(bad(
                "the rack",
                format!(
                    "has {} machines; the most is {MACHINES_MAX}",
                    self.machines.len()
                ),
            ));
        }
        let mut names = BTreeSet::new();
        let mut macs = BTreeSet::new();
        let mut uuids = BTreeSet::new();
        for machine in &self.machines {
            machine.validate()?;
            let who = format!("machine {}", machine.name);
            if !names.insert(&machine.name) {
                return Err(bad(who, "is there twice"));
            }
            if !uuids.insert(machine.uuid) {
                return Err(bad(
                    who,
                    format!("has the UUID {} of another machine", machine.uuid),
                ));
            }
            for mac in &machine.macs {
                if !macs.insert(*mac) {
                    return Err(bad(
                        who,
                        format!("uses the MAC address {mac} that is taken"),
                    ));
                }
            }
        }
        Ok(())
    }
}

impl RackNetwork {
    fn validate(&self) -> Result<(), RackError> {
        let name_is_plain = !self.bridge.is_empty()
            && self.bridge.len() <= INTERFACE_NAME_CHARS_MAX
            && self.bridge.starts_with(|c: char| c.is_ascii_alphabetic())
            && self
                .bridge
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        if !name_is_plain || self.bridge == "lo" {
            return Err(bad(
                "the network",
                format!(
                    "cannot call its bridge {:?}: use at most {INTERFACE_NAME_CHARS_MAX} letters, digits, - and _",
                    self.bridge
                ),
            ));
        }
        if !(1..=30).contains(&self.prefix_len) {
            return Err(bad(
                "the network",
                format!(
                    "has the prefix length {}; it must be 1 to 30",
                    self.prefix_len
                ),
            ));
        }
        Ok(())
    }
}

impl VirtualMachine {
    /// Refuses what QEMU would refuse later and less clearly.
    ///
    /// # Errors
    /// [`RackError::BadSpec`] names the field.
    pub fn validate(&self) -> Result<(), RackError> {
        let refuse = |what: String| Err(bad(format!("machine {}", self.name), what));
        match (self.system, self.firmware) {
            (System::X86_64Linux, _) | (System::Aarch64Linux, RackFirmware::Uefi) => {}
            (System::Aarch64Linux, RackFirmware::Bios) => {
                return refuse("has BIOS firmware, which aarch64 machines don't have".into());
            }
            (other, _) => return refuse(format!("is {other}, which a rack cannot run")),
        }
        if self.uuid.is_unset() {
            return refuse(format!(
                "has the UUID {}, which means \"not set\"",
                self.uuid
            ));
        }
        if self.macs.is_empty() || self.macs.len() > NICS_MAX {
            return refuse(format!(
                "has {} MAC addresses; give 1 to {NICS_MAX}",
                self.macs.len()
            ));
        }
        if let Some(mac) = self.macs.iter().find(|m| m.is_multicast()) {
            return refuse(format!("has the multicast address {mac} as a MAC address"));
        }
        if self.disks.len() > DISKS_MAX {
            return refuse(format!(
                "has {} disks; the most is {DISKS_MAX}",
                self.disks.len()
            ));
        }
        let mut serials = BTreeSet::new();
        for disk in &self.disks {
            let plain = !disk.serial.is_empty()
                && disk.serial.len() <= SERIAL_CHARS_MAX
                && disk
                    .serial
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
            if !plain {
                return refuse(format!(
                    "has a disk with the serial {:?}: use 1 to {SERIAL_CHARS_MAX} letters, digits, - _ and .",
                    disk.serial
                ));
            }
            if !serials.insert(&disk.serial) {
                return refuse(format!("has two disks with the serial {:?}", disk.serial));
            }
            if disk.size_bytes < DISK_BYTES_MIN || disk.size_bytes % 512 != 0 {
                return refuse(format!(
                    "has the disk {:?} of {} bytes; the size must be at least {DISK_BYTES_MIN} and a multiple of 512",
                    disk.serial, disk.size_bytes
                ));
            }
        }
        if !(64..=1024 * 1024).contains(&self.memory_mb) {
            return refuse(format!(
                "has {} MiB of memory; give 64 MiB to 1 TiB",
                self.memory_mb
            ));
        }
        if !(1..=255).contains(&self.cpus) {
            return refuse(format!("has {} processors; give 1 to 255", self.cpus));
        }
        Ok(())
    }
}

fn bad(who: impl Into<String>, what: impl Into<String>) -> RackError {
    RackError::BadSpec {
        who: who.into(),
        what: what.into(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn machine(name: &str, last_octet: u8) -> VirtualMachine {
        VirtualMachine {
            name: NodeName::new(name).unwrap(),
            system: System::X86_64Linux,
            firmware: RackFirmware::Uefi,
            uuid: MachineUuid([last_octet; 16]),
            macs: vec![MacAddr([0x52, 0x54, 0, 0, 0, last_octet])],
            disks: vec![RackDisk {
                bus: EmulatedBus::Virtio,
                serial: format!("UC-{name}"),
                size_bytes: 3 << 30,
            }],
            memory_mb: 1024,
            cpus: 1,
        }
    }

    pub(crate) fn rack(machines: Vec<VirtualMachine>) -> RackSpec {
        RackSpec {
            network: RackNetwork {
                bridge: "br0".into(),
                address: Ipv4Addr::new(10, 88, 0, 1),
                prefix_len: 24,
            },
            accelerator: AcceleratorChoice::Auto,
            machines,
        }
    }

    #[test]
    fn a_good_rack_passes_and_survives_json() {
        let spec = rack(vec![machine("gpu-01", 1), machine("gpu-02", 2)]);
        spec.validate().unwrap();
        let json = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<RackSpec>(&json).unwrap(), spec);
    }

    #[test]
    fn each_fault_is_named() {
        type Fault = fn(&mut RackSpec);
        let faults: [(Fault, &str); 12] = [
            (|r| r.network.bridge = "a/b".into(), "bridge"),
            (|r| r.network.prefix_len = 31, "prefix length"),
            (|r| r.machines[1].name = r.machines[0].name.clone(), "twice"),
            (|r| r.machines[1].uuid = r.machines[0].uuid, "UUID"),
            (
                |r| r.machines[1].macs = r.machines[0].macs.clone(),
                "MAC address",
            ),
            (|r| r.machines[0].macs.clear(), "MAC addresses"),
            (
                |r| r.machines[0].system = System::Aarch64Darwin,
                "cannot run",
            ),
            (
                |r| {
                    r.machines[0].system = System::Aarch64Linux;
                    r.machines[0].firmware = RackFirmware::Bios;
                },
                "BIOS",
            ),
            (
                |r| r.machines[0].disks[0].serial = "a,file=/etc/passwd".into(),
                "serial",
            ),
            (|r| r.machines[0].disks[0].size_bytes = 1000, "multiple"),
            (|r| r.machines[0].memory_mb = 1, "memory"),
            (|r| r.machines[0].cpus = 0, "processors"),
        ];
        for (spoil, word) in faults {
            let mut spec = rack(vec![machine("gpu-01", 1), machine("gpu-02", 2)]);
            spoil(&mut spec);
            let message = spec.validate().unwrap_err().to_string();
            assert!(message.contains(word), "{message} lacks {word}");
        }
    }
}
