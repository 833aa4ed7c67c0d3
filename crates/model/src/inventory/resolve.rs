//! A node with everything that it has from its class.

use std::{collections::BTreeMap, net::Ipv4Addr};

use serde::Serialize;

use super::{
    Class, Disk, Firmware, Gpu, Hat, Kind, Layout, Longhorn, Netboot, NodeEntry, Phone, Power,
    RackMachine, Role,
};
use crate::{ClassName, MacAddr, MachineIdentity, MachineUuid, System};

/// A machine of the cluster, with everything that it has from its class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Node {
    /// The class that it belongs to.
    pub class: ClassName,
    /// What the class is for.
    pub kind: Kind,
    /// All its Ethernet addresses; the first is the one that wakes it.
    pub macs: Vec<MacAddr>,
    /// SMBIOS UUID.
    pub uuid: Option<MachineUuid>,
    /// Its own address on the nodes' network.
    pub address: Ipv4Addr,
    /// Its disks.
    pub disks: Vec<Disk>,
    /// Phones that are connected to it.
    pub phones: Vec<Phone>,
    /// NixOS modules: the class's, then its own.
    pub modules: Vec<String>,
    /// Processor and operating system.
    pub system: System,
    /// How the firmware starts it.
    pub firmware: Firmware,
    /// How its root disks are laid out.
    pub layout: Layout,
    /// What it is in the Kubernetes cluster. Meaningful only where there is one.
    pub role: Role,
    /// Size of the EFI system partition, in MiB.
    pub esp_mb: u32,
    /// Least memory, in MiB.
    pub min_memory_mb: Option<u32>,
    /// What it gives Longhorn.
    pub longhorn: Option<Longhorn>,
    /// Its NVIDIA cards.
    pub gpu: Option<Gpu>,
    /// AI boards: the class's, then its own.
    pub hats: Vec<Hat>,
    /// Labels of the Kubernetes node.
    pub labels: BTreeMap<String, String>,
    /// Taints of the Kubernetes node: the class's, then its own.
    pub taints: Vec<String>,
    /// Parameters of the kernel: the class's, then its own.
    pub kernel_params: Vec<String>,
    /// How it is switched on and off.
    pub power: Power,
    /// Switches for unusual firmware.
    pub netboot: Netboot,
    /// Its stand-in in the virtual rack.
    pub rack: Option<RackMachine>,
}

impl Class {
    /// The processor and operating system of the class's nodes.
    pub fn system(&self) -> System {
        self.system.unwrap_or(match self.kind {
            Kind::Pi => System::Aarch64Linux,
            Kind::Control | Kind::Gpu | Kind::PhoneHost | Kind::Plain => System::X86_64Linux,
        })
    }

    /// The firmware of the class's nodes, where a node doesn't say otherwise.
    pub fn firmware(&self) -> Firmware {
        self.firmware.unwrap_or(match self.kind {
            Kind::Pi => Firmware::Rpi,
            Kind::Control | Kind::Gpu | Kind::PhoneHost | Kind::Plain => Firmware::Uefi,
        })
    }

    /// The layout of the class's nodes, where a node doesn't say otherwise.
    pub fn layout(&self) -> Layout {
        self.layout.unwrap_or(match self.kind {
            Kind::Control | Kind::Gpu | Kind::PhoneHost => Layout::Zfs,
            Kind::Pi | Kind::Plain => Layout::Ext4,
        })
    }

    /// The role of the class's nodes, where a node doesn't say otherwise.
    pub fn role(&self) -> Role {
        self.role.unwrap_or(match self.kind {
            Kind::Control => Role::Server,
            Kind::Gpu => Role::Agent,
            Kind::PhoneHost | Kind::Pi | Kind::Plain => Role::None,
        })
    }
}

fn joined<T: Clone>(class: &[T], own: Vec<T>) -> Vec<T> {
    let mut all = class.to_vec();
    all.extend(own);
    all
}

/// What a list has beyond its class's: the rest after the class's items, or the whole list where
/// it doesn't begin with them.
fn beyond<T: Clone + PartialEq>(class: &[T], all: &[T]) -> Vec<T> {
    all.strip_prefix(class).unwrap_or(all).to_vec()
}

fn unless_same<T: Clone + PartialEq>(class: &T, own: &T) -> Option<T> {
    (class != own).then(|| own.clone())
}

impl Node {
    /// What tells the machine from all others.
    pub fn identity(&self) -> MachineIdentity<'_> {
        MachineIdentity {
            uuid: self.uuid,
            macs: &self.macs,
        }
    }

    /// Merges an entry with its class.
    pub(crate) fn resolve(entry: NodeEntry, class: &Class) -> Self {
        let mut labels = class.labels.clone();
        labels.extend(entry.labels);
        Self {
            class: entry.class,
            kind: class.kind,
            macs: entry.macs,
            uuid: entry.uuid,
            address: entry.address,
            disks: entry.disks,
            phones: entry.phones,
            modules: joined(&class.modules, entry.modules),
            system: class.system(),
            firmware: entry.firmware.unwrap_or_else(|| class.firmware()),
            layout: entry.layout.unwrap_or_else(|| class.layout()),
            role: entry.role.unwrap_or_else(|| class.role()),
            esp_mb: class.esp_mb,
            min_memory_mb: entry.min_memory_mb.or(class.min_memory_mb),
            longhorn: class.longhorn.clone(),
            gpu: entry.gpu.or_else(|| class.gpu.clone()),
            hats: joined(&class.hats, entry.hats),
            labels,
            taints: joined(&class.taints, entry.taints),
            kernel_params: joined(&class.kernel_params, entry.kernel_params),
            power: entry.power.unwrap_or_else(|| class.power.clone()),
            netboot: class.netboot.clone(),
            rack: entry.rack,
        }
    }

    /// The entry that, merged with the class, gives this node: only what differs from the class.
    pub(crate) fn entry(&self, class: &Class) -> NodeEntry {
        NodeEntry {
            class: self.class.clone(),
            macs: self.macs.clone(),
            uuid: self.uuid,
            address: self.address,
            disks: self.disks.clone(),
            phones: self.phones.clone(),
            modules: beyond(&class.modules, &self.modules),
            firmware: unless_same(&class.firmware(), &self.firmware),
            layout: unless_same(&class.layout(), &self.layout),
            role: unless_same(&class.role(), &self.role),
            min_memory_mb: self
                .min_memory_mb
                .filter(|own| class.min_memory_mb != Some(*own)),
            gpu: self
                .gpu
                .clone()
                .filter(|own| class.gpu.as_ref() != Some(own)),
            hats: beyond(&class.hats, &self.hats),
            labels: self
                .labels
                .iter()
                .filter(|(key, value)| class.labels.get(*key) != Some(value))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
            taints: beyond(&class.taints, &self.taints),
            kernel_params: beyond(&class.kernel_params, &self.kernel_params),
            power: unless_same(&class.power, &self.power),
            rack: self.rack.clone(),
        }
    }
}
