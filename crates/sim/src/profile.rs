//! How long things take: figures of real machines, so that a rehearsal's times are honest.

use serde::{Deserialize, Serialize};

use undercroft_simkit::Spread;

/// The figures of one kind of place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// Its name: `metal` or `rack`.
    pub name: String,
    /// From the command to a power provider until the machine has power.
    pub power: Spread,
    /// A person goes to a machine and presses its button.
    pub person_power: Spread,
    /// A person reads a fingerprint from a screen and approves it.
    pub person_approve: Spread,
    /// A console that only the machine can write to shows the fingerprint.
    pub console_approve: Spread,
    /// Machines that one person looks after. More machines have more people.
    pub nodes_per_person: u32,
    /// Firmware, from power until it tries to boot from something.
    pub post: Spread,
    /// DHCP, TFTP and iPXE, until the download of the installer begins.
    pub pxe: Spread,
    /// Kernel and initramfs of the installer, in bytes.
    pub installer_bytes: u64,
    /// From the installer's kernel to its report.
    pub installer_start: Spread,
    /// One SSH connection and a short command.
    pub ssh: Spread,
    /// From a broken connection until the controller notices it.
    pub ssh_keepalive: Spread,
    /// Clearing the old table and writing a new one.
    pub wipe: Spread,
    /// Making the file systems.
    pub mkfs: Spread,
    /// What `nix copy` does before it sends.
    pub copy_setup: Spread,
    /// The closure's size where the plan doesn't know it, in bytes.
    pub closure_bytes: u64,
    /// Setting the profile and activating it in the new root.
    pub activate: Spread,
    /// Writing the boot loader, and reading it back.
    pub loader: Spread,
    /// From `reboot` until the machine's firmware begins.
    pub shutdown: Spread,
    /// From the boot loader to the installed system's SSH server.
    pub system_start: Spread,
    /// The first start of a machine's part of Kubernetes: images are drawn and unpacked.
    pub kube_start: Spread,
    /// Its start on a machine that has its images.
    pub kube_restart: Spread,
    /// From etcd's new member to its vote.
    pub etcd_catch_up: Spread,
    /// From a kubelet's registration until it calls itself Ready.
    pub node_ready: Spread,
    /// From the network's manifests to a network that is ready on the founder.
    pub network_ready: Spread,
    /// From Argo CD's manifests to an Argo CD that is healthy.
    pub argocd_ready: Spread,
    /// From the root application to one that is synced and healthy with all that it brings.
    pub root_synced: Spread,
    /// What the operator's machine can send in all, in bytes per millisecond.
    pub uplink_bytes_per_ms: u64,
    /// What one machine takes, in bytes per millisecond.
    pub host_bytes_per_ms: u64,
}

impl Profile {
    /// Servers in a basement: firmware that tests its memory for one to three minutes, 1 Gbit/s to
    /// each machine, 10 Gbit/s from the operator.
    ///
    /// `nix copy` over SSH costs 1.9 s of processor time for 100 MB, so one machine takes 53 MB/s at
    /// most, and an operator's eight cores send 420 MB/s in all: less than the 10 Gbit/s.
    pub fn metal() -> Self {
        Self {
            name: "metal".to_owned(),
            power: Spread::s(1, 5),
            person_power: Spread::s(10, 25),
            person_approve: Spread::s(8, 25),
            console_approve: Spread::s(1, 11),
            nodes_per_person: 30,
            post: Spread::s(60, 180),
            pxe: Spread::s(6, 20),
            installer_bytes: 420_000_000,
            installer_start: Spread::s(20, 40),
            ssh: Spread::ms(300, 1200),
            ssh_keepalive: Spread::s(15, 45),
            wipe: Spread::s(1, 4),
            mkfs: Spread::s(4, 15),
            copy_setup: Spread::s(2, 8),
            closure_bytes: 5_000_000_000,
            activate: Spread::s(8, 25),
            loader: Spread::s(3, 10),
            shutdown: Spread::s(4, 15),
            system_start: Spread::s(20, 50),
            kube_start: Spread::s(25, 70),
            kube_restart: Spread::s(8, 20),
            etcd_catch_up: Spread::s(2, 8),
            node_ready: Spread::s(10, 40),
            network_ready: Spread::s(45, 120),
            argocd_ready: Spread::s(60, 150),
            root_synced: Spread::s(300, 900),
            uplink_bytes_per_ms: 420_000,
            host_bytes_per_ms: 53_000,
        }
    }

    /// The virtual rack on two cores without KVM, as it was measured: 25 to 35 s from power-on to
    /// the installer's SSH, 4 to 5 s to partition, 16 s to copy 97 MB, 16 s to come back.
    pub fn rack() -> Self {
        Self {
            name: "rack".to_owned(),
            power: Spread::ms(200, 600),
            person_power: Spread::ms(200, 600),
            person_approve: Spread::s(5, 20),
            console_approve: Spread::s(1, 11),
            nodes_per_person: 30,
            post: Spread::s(6, 9),
            pxe: Spread::s(6, 9),
            installer_bytes: 60_000_000,
            installer_start: Spread::s(7, 10),
            ssh: Spread::ms(300, 900),
            ssh_keepalive: Spread::s(15, 45),
            wipe: Spread::s(1, 2),
            mkfs: Spread::s(3, 4),
            copy_setup: Spread::s(1, 3),
            closure_bytes: 97_000_000,
            activate: Spread::s(1, 2),
            loader: Spread::s(1, 3),
            shutdown: Spread::s(1, 2),
            system_start: Spread::s(7, 9),
            kube_start: Spread::s(25, 70),
            kube_restart: Spread::s(8, 20),
            etcd_catch_up: Spread::s(2, 8),
            node_ready: Spread::s(10, 40),
            network_ready: Spread::s(45, 120),
            argocd_ready: Spread::s(60, 150),
            root_synced: Spread::s(300, 900),
            uplink_bytes_per_ms: 14_000,
            host_bytes_per_ms: 7_500,
        }
    }

    /// The profile of that name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "metal" => Some(Self::metal()),
            "rack" => Some(Self::rack()),
            _ => None,
        }
    }
}
