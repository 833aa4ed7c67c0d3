//! From the inventory to the virtual rack: each node that the rack switches gets a machine.

use std::str::FromStr;

use undercroft_model::{
    MacAddr, MachineUuid, NodeName, System,
    inventory::{self, Firmware, Inventory, Node, PowerKind},
};
use undercroft_rack::{
    AcceleratorChoice, EmulatedBus, RackDisk, RackFirmware, RackNetwork, RackSpec, VirtualMachine,
};

use crate::error::CliError;

/// The bridge's name where the inventory names no interface.
const BRIDGE: &str = "br0";
/// What a machine has where the inventory's `rack` table doesn't say.
const GIB: u64 = 1 << 30;

/// A change to one machine, as `--set NODE.KEY=VALUE` gives it: the machine then differs from
/// what the inventory says, which is how faults are tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Override {
    node: NodeName,
    key: Key,
    value: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Serial,
    Mac,
    Uuid,
    MemoryMb,
    Cpus,
    DiskGb,
    DiskBus,
    Firmware,
    System,
}

impl Key {
    const ALL: [(&'static str, Self); 9] = [
        ("serial", Self::Serial),
        ("mac", Self::Mac),
        ("uuid", Self::Uuid),
        ("memory_mb", Self::MemoryMb),
        ("cpus", Self::Cpus),
        ("disk_gb", Self::DiskGb),
        ("disk_bus", Self::DiskBus),
        ("firmware", Self::Firmware),
        ("system", Self::System),
    ];
}

impl FromStr for Override {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || {
            let keys: Vec<&str> = Key::ALL.iter().map(|(name, _)| *name).collect();
            format!(
                "expected NODE.KEY=VALUE, where KEY is one of {}",
                keys.join(", ")
            )
        };
        let (path, value) = text.split_once('=').ok_or_else(form)?;
        let (node, key) = path.split_once('.').ok_or_else(form)?;
        let (_, key) = Key::ALL
            .into_iter()
            .find(|(name, _)| *name == key)
            .ok_or_else(form)?;
        Ok(Self {
            node: NodeName::new(node).map_err(|e| e.to_string())?,
            key,
            value: value.to_owned(),
        })
    }
}

/// The rack for an inventory.
pub(crate) fn spec(
    inventory: &Inventory,
    accelerator: AcceleratorChoice,
    overrides: &[Override],
) -> Result<RackSpec, CliError> {
    let mut machines = Vec::new();
    for (name, node) in &inventory.nodes {
        if node.power.kind == PowerKind::Rack {
            machines.push(machine(name, node)?);
        }
    }
    if machines.is_empty() {
        return Err(CliError::input("no node of the inventory is a machine of the virtual rack")
            .hint("Give a class or a node `power = { kind = \"rack\" }`; `undercroft init --template rack` makes an inventory that has it."));
    }
    for change in overrides {
        let Some(machine) = machines.iter_mut().find(|m| m.name == change.node) else {
            return Err(CliError::usage(format!(
                "--set names {}, and the rack has no such machine",
                change.node
            )));
        };
        apply(machine, change)?;
    }
    Ok(RackSpec {
        network: RackNetwork {
            bridge: inventory
                .network
                .interface
                .clone()
                .unwrap_or_else(|| BRIDGE.to_owned()),
            address: inventory.network.server_address,
            prefix_len: inventory.network.node_cidr.prefix_len(),
        },
        accelerator,
        machines,
    })
}

fn machine(name: &NodeName, node: &Node) -> Result<VirtualMachine, CliError> {
    let refuse = |what: &str, hint: &str| {
        Err(CliError::input(format!(
            "{name} can't be a machine of the virtual rack: {what}"
        ))
        .hint(hint))
    };
    let firmware = match node.firmware {
        Firmware::Uefi | Firmware::UefiHttp => RackFirmware::Uefi,
        Firmware::Bios => RackFirmware::Bios,
        Firmware::Rpi => {
            return refuse(
                "QEMU has no Raspberry Pi with a network",
                "An arm64 machine with `firmware = \"uefi\"` is the nearest that a rack has.",
            );
        }
    };
    let wanted = node.rack.clone().unwrap_or_default();
    let bus = match wanted.disk_bus {
        inventory::DiskBus::Nvme => EmulatedBus::Nvme,
        inventory::DiskBus::Virtio => EmulatedBus::Virtio,
    };
    let mut disks = Vec::new();
    for disk in &node.disks {
        let Some(serial) = disk.serial.clone() else {
            return refuse(
                "it has a disk that is known by its WWN alone",
                "Give the disk a `serial`: that is what a virtual disk has.",
            );
        };
        disks.push(RackDisk {
            bus,
            serial,
            size_bytes: u64::from(wanted.disk_gb) * GIB,
        });
    }
    let macs = if node.macs.is_empty() {
        vec![mac_of(node.uuid)]
    } else {
        node.macs.clone()
    };
    let uuid = match (node.uuid, macs.first()) {
        (Some(uuid), _) => uuid,
        (None, first) => uuid_of(first.copied().unwrap_or(MacAddr([0; 6]))),
    };
    Ok(VirtualMachine {
        name: name.clone(),
        system: node.system,
        firmware,
        uuid,
        macs,
        disks,
        memory_mb: wanted.memory_mb,
        cpus: wanted.cpus,
    })
}

/// A UUID that is the same whenever the rack is made: the address's bytes at the end of one of
/// version 8, which RFC 9562 leaves to whoever makes it.
fn uuid_of(mac: MacAddr) -> MachineUuid {
    let [a, b, c, d, e, f] = mac.0;
    MachineUuid([
        0x75, 0x6e, 0x64, 0x65, 0x72, 0x63, 0x80, 0x00, 0x80, 0x00, a, b, c, d, e, f,
    ])
}

/// An address in QEMU's own range, made of a UUID's end.
fn mac_of(uuid: Option<MachineUuid>) -> MacAddr {
    let [.., d, e, f] = uuid.map_or([0; 16], |uuid| uuid.0);
    MacAddr([0x52, 0x54, 0x00, d, e, f])
}

fn apply(machine: &mut VirtualMachine, change: &Override) -> Result<(), CliError> {
    let value = change.value.as_str();
    let bad = |expected: &str| {
        CliError::usage(format!("--set {}: {value:?} isn't {expected}", change.node))
    };
    let number = || value.parse::<u32>().map_err(|_| bad("a number"));
    match change.key {
        Key::Serial => match machine.disks.first_mut() {
            Some(disk) => disk.serial = value.to_owned(),
            None => return Err(bad("of use: the machine has no disk")),
        },
        Key::Mac => match machine.macs.first_mut() {
            Some(mac) => *mac = value.parse().map_err(|_| bad("a MAC address"))?,
            None => return Err(bad("of use: the machine has no network card")),
        },
        Key::Uuid => machine.uuid = value.parse().map_err(|_| bad("a UUID"))?,
        Key::MemoryMb => machine.memory_mb = number()?,
        Key::Cpus => machine.cpus = number()?,
        Key::DiskGb => {
            let size_bytes = u64::from(number()?) * GIB;
            for disk in &mut machine.disks {
                disk.size_bytes = size_bytes;
            }
        }
        Key::DiskBus => {
            let bus = match value {
                "virtio" => EmulatedBus::Virtio,
                "nvme" => EmulatedBus::Nvme,
                _ => return Err(bad("virtio or nvme")),
            };
            for disk in &mut machine.disks {
                disk.bus = bus;
            }
        }
        Key::Firmware => {
            machine.firmware = match value {
                "uefi" => RackFirmware::Uefi,
                "bios" => RackFirmware::Bios,
                _ => return Err(bad("uefi or bios")),
            }
        }
        Key::System => {
            machine.system = match value {
                "x86_64-linux" => System::X86_64Linux,
                "aarch64-linux" => System::Aarch64Linux,
                _ => return Err(bad("x86_64-linux or aarch64-linux")),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template() -> Inventory {
        let text = include_str!("../templates/rack.toml").replace("@FLEET@", "demo");
        inventory::parse("undercroft.toml", text.as_bytes())
            .inventory
            .unwrap()
    }

    #[test]
    fn the_template_makes_a_rack_that_a_rack_takes() {
        let spec = spec(&template(), AcceleratorChoice::Auto, &[]).unwrap();
        spec.validate().unwrap();
        assert_eq!(spec.machines.len(), 3);
        assert_eq!(spec.machines[2].disks[0].bus, EmulatedBus::Nvme);
        assert_eq!(
            spec.machines[0].uuid.to_string(),
            "756e6465-7263-8000-8000-525400880011"
        );
    }

    #[test]
    fn overrides_change_one_machine() {
        let changes: Vec<Override> = [
            "vm-02.serial=OTHER",
            "vm-02.memory_mb=2048",
            "vm-03.firmware=bios",
        ]
        .map(|text| text.parse().unwrap())
        .to_vec();
        let spec = spec(&template(), AcceleratorChoice::Tcg, &changes).unwrap();
        assert_eq!(spec.machines[0].disks[0].serial, "VM-01-ROOT");
        assert_eq!(spec.machines[1].disks[0].serial, "OTHER");
        assert_eq!(spec.machines[1].memory_mb, 2048);
        assert_eq!(spec.machines[2].firmware, RackFirmware::Bios);
    }

    #[test]
    fn what_is_no_override_is_refused_with_the_form() {
        for bad in [
            "",
            "vm-01",
            "vm-01.serial",
            "vm-01.colour=red",
            "VM.serial=x",
        ] {
            assert!(bad.parse::<Override>().is_err(), "{bad}");
        }
        let unknown = vec!["vm-09.serial=x".parse().unwrap()];
        assert!(spec(&template(), AcceleratorChoice::Auto, &unknown).is_err());
        let nonsense = vec!["vm-01.cpus=many".parse().unwrap()];
        assert!(spec(&template(), AcceleratorChoice::Auto, &nonsense).is_err());
    }
}
