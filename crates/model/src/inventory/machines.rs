//! Classes of machines, and the nodes that belong to them.

use std::{collections::BTreeMap, net::Ipv4Addr};

use super::{
    declare::{Rule, choice, declared_default, fallback, rule, section},
    forms,
};
use crate::{ClassName, MacAddr, MachineUuid, System};

choice! {
    /// What a class of machines is for; it decides the defaults of the class.
    pub enum Kind {
        /// A machine of the control plane.
        Control = "control",
        /// A worker with NVIDIA cards.
        Gpu = "gpu",
        /// The server in front of a chassis of phones; no Kubernetes worker.
        PhoneHost = "phone-host",
        /// A Raspberry Pi.
        Pi = "pi",
        /// None of these: what the class itself and its modules say.
        Plain = "plain",
    }
}

choice! {
    /// How a machine's firmware starts it, and so how it is booted over the network.
    pub enum Firmware {
        /// UEFI with PXE.
        Uefi = "uefi",
        /// UEFI with HTTP boot: the firmware itself loads by HTTP.
        UefiHttp = "uefi-http",
        /// Legacy BIOS with PXE. Such a machine gets as far as the installer; a system can't be
        /// installed on it.
        Bios = "bios",
        /// A Raspberry Pi's boot ROM and EEPROM.
        Rpi = "rpi",
    }
}

choice! {
    /// How a node's root disks are laid out.
    pub enum Layout {
        /// A boot partition and one ext4 root.
        Ext4 = "ext4",
        /// A boot partition and a ZFS pool on one disk.
        Zfs = "zfs",
        /// A boot partition on each of two or more disks, and a mirrored ZFS pool.
        ZfsMirror = "zfs-mirror",
        /// As `zfs`, with native encryption (aes-256-gcm).
        ZfsEncrypted = "zfs-encrypted",
    }
}

choice! {
    /// What a node is in the Kubernetes cluster.
    pub enum Role {
        /// No part of it.
        None = "none",
        /// A server: control plane and etcd.
        Server = "server",
        /// An agent: a worker.
        Agent = "agent",
    }
}

choice! {
    /// How a machine is switched on and off.
    pub enum PowerKind {
        /// By a person, who is asked to.
        Manual = "manual",
        /// On by a magic packet to its first MAC address; off over SSH.
        WakeOnLan = "wake-on-lan",
        /// By commands of the operator's.
        Command = "command",
        /// It is a machine of the virtual rack.
        Rack = "rack",
    }
}

section! {
    /// How a machine is switched on and off. In a command's words, `{node}`, `{address}` and
    /// `{mac}` stand for the node's name, address and first MAC address. No shell is involved,
    /// and no secret belongs here: let the command read it from a file.
    pub struct Power {
        /// How the machine is switched.
        kind: PowerKind = PowerKind::Manual;
        /// Command and arguments that switch it on. Only where `kind` is "command".
        on: Vec<String>;
        /// Command and arguments that switch it off, hard. Only where `kind` is "command".
        off: Vec<String>;
        /// Command and arguments that print `on` or `off`. Only where `kind` is "command".
        status: Vec<String>;
        /// Address that a magic packet is sent to. Without it, the broadcast address of
        /// `network.node_cidr`. Only where `kind` is "wake-on-lan".
        broadcast: Option<Ipv4Addr>;
        /// Command and arguments that connect to a console that nobody else can write to, such
        /// as a BMC's: a fingerprint seen there approves the machine by itself.
        console: Vec<String>;
    }
}

choice! {
    /// How pods share a GPU.
    pub enum GpuSharing {
        /// Each card serves one pod.
        None = "none",
        /// Pods take turns on a card, without separated memory.
        TimeSlicing = "time-slicing",
        /// Pods run at once on a card through the MPS server.
        Mps = "mps",
        /// A card is divided in hardware into instances.
        Mig = "mig",
    }
}

choice! {
    /// Which kernel modules drive a card.
    pub enum GpuDriver {
        /// NVIDIA's open modules: Turing and later, the only choice on Blackwell.
        Open = "open",
        /// NVIDIA's proprietary modules: before Turing.
        Proprietary = "proprietary",
        /// The data centre driver with the fabric manager, for machines with NVSwitch.
        Datacenter = "datacenter",
    }
}

section! {
    /// The NVIDIA cards of a class, and how pods share them.
    pub struct Gpu {
        /// Model of the cards, such as "rtx-4090", "a100-80gb" or "h100".
        model: String => Rule::Text(&forms::LABEL);
        /// Cards in each machine.
        count: u32 = 1 => Rule::Range(1, 32);
        /// Which kernel modules drive the cards.
        driver: GpuDriver = GpuDriver::Open;
        /// How pods share a card.
        sharing: GpuSharing = GpuSharing::None;
        /// Pods that share a card. Only where `sharing` is "time-slicing" or "mps".
        replicas: Option<u32> => Rule::Range(2, 48);
        /// Name of the MIG configuration, as nvidia-mig-parted names them: "all-1g.10gb". Only
        /// where `sharing` is "mig".
        mig_config: Option<String> => Rule::Text(&forms::MIG_CONFIG);
    }
}

section! {
    /// What a class gives Longhorn to store replicas on. Replicas need ext4 or XFS, so they
    /// never lie on a ZFS dataset: they get a partition or a disk of their own.
    pub struct Longhorn {
        /// Size of a partition on the first root disk, in GiB. Without it, only disks whose role
        /// is "longhorn" are used.
        partition_gb: Option<u32> => Rule::Range(1, 1_000_000);
        /// Longhorn's tags of the disks.
        disk_tags: Vec<String> => Rule::Text(&forms::LABEL);
        /// Share of each disk that Longhorn leaves free, in percent.
        reserved_percent: u8 = 10 => Rule::Range(0, 90);
    }
}

choice! {
    /// A board for AI inference on a Raspberry Pi or another machine.
    pub enum Hat {
        /// Hailo-8, PCIe.
        Hailo8 = "hailo-8",
        /// Hailo-8L, PCIe.
        Hailo8l = "hailo-8l",
        /// Google Coral Edge TPU, PCIe.
        CoralPcie = "coral-pcie",
        /// Google Coral Edge TPU, USB.
        CoralUsb = "coral-usb",
    }
}

section! {
    /// Switches for firmware that doesn't boot over the network by the book.
    pub struct Netboot {
        /// Whether a second answer is given on port 4011 to firmware that asks for it there.
        answer_4011: bool = true;
        /// Whether the first answer names no file, so that firmware which passes an answer with a
        /// file over asks on port 4011. Only where `answer_4011` is true.
        ask_4011: bool = false;
        /// Whether iPXE uses the firmware's own network driver (`snponly`) rather than its own.
        snponly: bool = false;
        /// Largest TFTP block in bytes; some firmware loses fragments of larger ones.
        tftp_block_bytes: u16 = 1468 => Rule::Range(512, 65_464);
    }
}

section! {
    /// A class of machines: everything that its nodes have in common.
    pub struct Class {
        /// What the class is for. It decides the defaults of the keys below.
        kind: Kind = Kind::Plain;
        /// NixOS modules of one's own, by path from the inventory's folder.
        modules: Vec<String> => Rule::Text(&forms::RELATIVE_PATH);
        /// Processor and operating system. Default: "aarch64-linux" for "pi", else
        /// "x86_64-linux".
        system: Option<System>;
        /// How the firmware starts the machines. Default: "rpi" for "pi", else "uefi".
        firmware: Option<Firmware>;
        /// How root disks are laid out. Default: "zfs" for "control", "gpu" and "phone-host",
        /// else "ext4".
        layout: Option<Layout>;
        /// What the nodes are in the Kubernetes cluster. Default: "server" for "control",
        /// "agent" for "gpu", else "none".
        role: Option<Role>;
        /// Size of the EFI system partition, in MiB.
        esp_mb: u32 = 1024 => Rule::Range(64, 65_536);
        /// Least memory of a machine of the class, in MiB; one that has less is refused before
        /// anything is written. Default: none.
        min_memory_mb: Option<u32> => Rule::Range(256, 67_108_864);
        /// What the class gives Longhorn to store replicas on.
        longhorn: Option<Longhorn>;
        /// The NVIDIA cards.
        gpu: Option<Gpu>;
        /// AI boards that every node of the class has.
        hats: Vec<Hat>;
        /// Labels of the Kubernetes nodes.
        labels: BTreeMap<String, String> => Rule::Text(&forms::LABEL_VALUE);
        /// Taints of the Kubernetes nodes: "KEY=VALUE:EFFECT" or "KEY:EFFECT".
        taints: Vec<String> => Rule::Text(&forms::TAINT);
        /// Further parameters of the kernel.
        kernel_params: Vec<String> => Rule::Text(&forms::KERNEL_PARAM);
        /// How the machines are switched on and off.
        power: Power;
        /// Switches for unusual firmware.
        netboot: Netboot;
    }
}

choice! {
    /// What a disk is for.
    pub enum DiskRole {
        /// It carries the system.
        Root = "root",
        /// It carries Longhorn's replicas.
        Longhorn = "longhorn",
        /// It carries data of one's own; formatted once, when it is empty, and mounted at
        /// `/data/SERIAL`.
        Data = "data",
        /// It belongs to the machine but is never touched.
        Keep = "keep",
    }
}

impl DiskRole {
    /// Whether what is on such a disk is lost when its machine is laid out: the one rule of what a
    /// plan destroys. A data disk is formatted only while it is empty.
    pub fn is_wiped(self) -> bool {
        match self {
            Self::Root | Self::Longhorn => true,
            Self::Data | Self::Keep => false,
        }
    }
}

section! {
    /// A disk of a node, known by what is printed on its label. At least one of `serial` and
    /// `wwn` is needed: a disk that matches neither is never touched.
    pub struct Disk {
        /// Serial number, as `lsblk -o SERIAL` shows it.
        serial: Option<String> => Rule::Text(&forms::SERIAL);
        /// World Wide Name or NVMe EUI, as `lsblk -o WWN` shows it.
        wwn: Option<String> => Rule::Text(&forms::WWN);
        /// What the disk is for.
        role: DiskRole = DiskRole::Root;
        /// Its size in GiB, where it should be checked that the layout fits.
        size_gb: Option<u32> => Rule::Range(1, 1_000_000);
    }
}

section! {
    /// A phone in a phone host's chassis.
    pub struct Phone {
        /// Serial number, as `adb devices` shows it.
        serial: String => Rule::Text(&forms::SERIAL);
        /// Slot of the chassis.
        slot: u32 => Rule::Range(1, 20);
        /// Model of the phone.
        model: Option<String> => Rule::Text(&forms::LABEL);
    }
}

choice! {
    /// The bus of a virtual machine's disks.
    pub enum DiskBus {
        /// virtio-blk.
        Virtio = "virtio",
        /// NVMe.
        Nvme = "nvme",
    }
}

/// What a machine of the virtual rack has of which the inventory says nothing.
const RACK_MACHINE: RackMachine = RackMachine {
    disk_bus: DiskBus::Virtio,
    memory_mb: 1024,
    cpus: 1,
    disk_gb: 4,
};

section! {
    /// The virtual machine that stands for a node in the virtual rack.
    pub struct RackMachine {
        /// Bus of its disks.
        disk_bus: DiskBus = RACK_MACHINE.disk_bus;
        /// Memory, in MiB.
        memory_mb: u32 = RACK_MACHINE.memory_mb => Rule::Range(256, 1_048_576);
        /// Virtual processors.
        cpus: u32 = RACK_MACHINE.cpus => Rule::Range(1, 256);
        /// Size of each disk, in GiB; the files are sparse.
        disk_gb: u32 = RACK_MACHINE.disk_gb => Rule::Range(1, 100_000);
    }
}

impl Default for RackMachine {
    fn default() -> Self {
        RACK_MACHINE
    }
}

section! {
    /// A machine of the cluster. What isn't said here comes from its class; lists add to the
    /// class's, labels replace those of the same name.
    pub struct NodeEntry {
        /// Class that the machine belongs to.
        class: ClassName;
        /// All its Ethernet addresses. At least one of `macs` and `uuid` is needed.
        macs: Vec<MacAddr>;
        /// SMBIOS UUID.
        uuid: Option<MachineUuid>;
        /// Address on the nodes' network, which is the node's own for good.
        address: Ipv4Addr;
        /// Its disks.
        disks: Vec<Disk>;
        /// Phones that are connected to it. Only where the class's kind is "phone-host".
        phones: Vec<Phone>;
        /// Further NixOS modules.
        modules: Vec<String> => Rule::Text(&forms::RELATIVE_PATH);
        /// Firmware, where it isn't the class's.
        firmware: Option<Firmware>;
        /// Layout, where it isn't the class's.
        layout: Option<Layout>;
        /// Role in the cluster, where it isn't the class's.
        role: Option<Role>;
        /// Least memory in MiB, where it isn't the class's.
        min_memory_mb: Option<u32> => Rule::Range(256, 67_108_864);
        /// Cards, where they aren't the class's.
        gpu: Option<Gpu>;
        /// Further AI boards.
        hats: Vec<Hat>;
        /// Further labels of the Kubernetes node.
        labels: BTreeMap<String, String> => Rule::Text(&forms::LABEL_VALUE);
        /// Further taints of the Kubernetes node.
        taints: Vec<String> => Rule::Text(&forms::TAINT);
        /// Further parameters of the kernel.
        kernel_params: Vec<String> => Rule::Text(&forms::KERNEL_PARAM);
        /// How it is switched, where that isn't as the class says; it replaces the class's table
        /// whole.
        power: Option<Power>;
        /// Its stand-in in the virtual rack.
        rack: Option<RackMachine>;
    }
}
