//! A machine as it is, whatever anyone believes of it.

use std::{collections::BTreeSet, rc::Rc};

use undercroft_engine::Order;
use undercroft_model::{InstallerReport, MachineUuid, OpId, ReportedDisk, ReportedFirmware};
use undercroft_simkit::{FlowId, Rng};
use undercroft_steps::{Ask, JoinUnit};

use crate::fleet::{Spec, boot_id, fingerprint, hex_of};

/// What a disk's partition table is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Table {
    /// As it came, with somebody's data or without.
    Foreign,
    /// Wiped, and not yet laid out anew.
    Cleared,
    /// Laid out by a script, and not yet given its GUID.
    Made,
    /// Laid out, and marked with that GUID.
    Marked(MachineUuid),
    /// Laid out, with this GUID as the last thing written.
    Laid(MachineUuid),
}

/// A disk.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    pub(crate) serial: Option<String>,
    pub(crate) wwn: Option<String>,
    pub(crate) size_bytes: u64,
    pub(crate) table: Table,
}

/// How far the boot loader has been written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Loader {
    /// Not at all.
    Absent,
    /// Begun; it doesn't boot.
    Half,
    /// It boots the profile.
    Whole,
}

/// What lies on the root file system.
#[derive(Debug, Clone)]
pub(crate) struct Root {
    /// Bytes of the closure that are there.
    pub(crate) copied_bytes: u64,
    /// Whether Nix finds its database damaged: power was lost while it wrote.
    pub(crate) store_damaged: bool,
    /// Whether no room was left when a copy was last written to it.
    pub(crate) full: bool,
    /// The closure that is there whole.
    pub(crate) closure: Option<String>,
    pub(crate) host_key: Option<String>,
    pub(crate) profile: Option<String>,
    pub(crate) loader: Loader,
    /// Whether the unit that joins it was ever started.
    pub(crate) began: bool,
    /// Whether there is a datastore of etcd, so that it comes back as the member that it was.
    pub(crate) datastore: bool,
    /// Whether its kubelet has registered once.
    pub(crate) entered: bool,
    /// Whether the unit that joins it has once come to its end, so that it is a member at each boot.
    pub(crate) joined: bool,
}

impl Root {
    pub(crate) fn empty() -> Self {
        Self {
            copied_bytes: 0,
            store_damaged: false,
            full: false,
            closure: None,
            host_key: None,
            profile: None,
            loader: Loader::Absent,
            began: false,
            datastore: false,
            entered: false,
            joined: false,
        }
    }
}

/// What a machine's part of Kubernetes does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kube {
    /// Nothing: it was never started, or the machine is off.
    Off,
    /// It draws images, and waits for the others.
    Starting,
    /// It runs.
    Up,
}

/// One boot of the installer: its key, nonce and boot id all follow from one number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Instance {
    pub(crate) number: u64,
    own: Rc<Own>,
    /// Whether the planned disks are mounted in it.
    pub(crate) mounted: bool,
    /// Whether a connection under its approval has been made.
    pub(crate) contacted: bool,
    /// Whether the controller has had its report.
    pub(crate) reported: bool,
}

/// What is made anew at each boot of the installer, and asked for many times.
#[derive(Debug, PartialEq, Eq)]
struct Own {
    nonce: String,
    boot_id: String,
    host_key: String,
    fingerprint: String,
}

impl Instance {
    pub(crate) fn new(number: u64) -> Self {
        let fingerprint = fingerprint(number ^ 0xf1);
        Self {
            number,
            own: Rc::new(Own {
                nonce: hex_of(number ^ 0xa0, 32),
                boot_id: boot_id(number),
                host_key: key_of(&fingerprint),
                fingerprint,
            }),
            mounted: false,
            contacted: false,
            reported: false,
        }
    }

    pub(crate) fn boot_id(&self) -> &str {
        &self.own.boot_id
    }

    pub(crate) fn fingerprint(&self) -> &str {
        &self.own.fingerprint
    }
}

/// What a machine does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Running {
    /// It has no power.
    Off,
    /// Its firmware tests memory and looks for something to boot.
    Firmware,
    /// It loads the installer over the network.
    Loading,
    /// The installer's kernel starts.
    InstallerStarting,
    /// The installer.
    Installer(Instance),
    /// The installed system starts.
    SystemStarting,
    /// A system from a disk.
    System {
        /// The number that its boot id follows from.
        boot: u64,
        /// The closure that was booted.
        system: String,
        /// The host key that it shows.
        key: String,
    },
    /// Its firmware found nothing to boot.
    NothingToBoot,
    /// It doesn't react until its power is cut.
    Hung,
}

impl Running {
    pub(crate) fn words(&self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Firmware => "in its firmware",
            Self::Loading => "loading the installer",
            Self::InstallerStarting => "starting the installer",
            Self::Installer(_) => "in the installer",
            Self::SystemStarting => "starting its system",
            Self::System { .. } => "running a system",
            Self::NothingToBoot => "without anything to boot",
            Self::Hung => "hung",
        }
    }
}

/// A program that runs on a machine's installer.
#[derive(Debug, Clone)]
pub(crate) struct Command {
    /// Tells it from earlier ones.
    pub(crate) id: u64,
    /// The operation whose session waits for it; `None` once that is gone.
    pub(crate) reply_to: Option<OpId>,
    /// The step that it is a part of.
    pub(crate) order: Rc<Order>,
    pub(crate) ask: Rc<Ask>,
    /// Which part of it comes next.
    pub(crate) part: u8,
    /// The transfer that it waits for.
    pub(crate) flow: Option<FlowId>,
    /// Bytes that the transfer brings when it ends, and how it ends.
    pub(crate) flow_bytes: u64,
    pub(crate) flow_end: FlowEnd,
}

/// How a transfer will end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FlowEnd {
    Whole,
    Broken,
    Full,
}

/// A machine.
pub(crate) struct Machine {
    pub(crate) spec: Spec,
    pub(crate) rng: Rng,
    pub(crate) disks: Vec<Disk>,
    pub(crate) root: Root,
    pub(crate) running: Running,
    pub(crate) kube: Kube,
    /// Whether the servers refuse its token, until someone puts that right.
    pub(crate) token_refused: bool,
    /// The unit that joins it.
    pub(crate) unit: JoinUnit,
    /// Counts up whenever what went on is cut off; events of an earlier epoch are void.
    pub(crate) epoch: u32,
    /// Whether the firmware will boot from the network the next time, once.
    pub(crate) network_once: bool,
    /// Whether the firmware tries the network when no disk boots.
    pub(crate) network_fallback: bool,
    /// The transfer of the installer.
    pub(crate) loading: Option<FlowId>,
    pub(crate) network_down_until_ms: u64,
    /// Until when another machine answers at its address.
    pub(crate) hijacked_until_ms: u64,
    pub(crate) command: Option<Command>,
    /// Operations that wait for it to report in or to return.
    pub(crate) waiting: Vec<OpId>,
    pub(crate) dead: bool,
    /// Somebody reports in as it, now and then, for good.
    pub(crate) impersonated: bool,
    /// Until when somebody else reports in as it.
    pub(crate) impostor_until_ms: u64,
    /// How many reports were sent in its place.
    pub(crate) forged_reports: u32,
    /// The latest of them, as long as its sender goes on.
    pub(crate) forged: Option<InstallerReport>,
    /// The boots in its name that were heard of since the controller was started.
    pub(crate) heard_boots: BTreeSet<String>,
    /// The latest boot of its installer that has reported in, by its number.
    pub(crate) last_reported: Option<u64>,
    pub(crate) wrong_serial: bool,
    /// Whether it has lost what was on its disks since it was up.
    pub(crate) lost_disk: bool,
    /// Whether it has ever been installed as the journal may know.
    pub(crate) ever_up: bool,
    /// The last boot of a system from its own disk: boot number and closure.
    pub(crate) last_system: Option<(u64, String)>,
}

impl Machine {
    pub(crate) fn new(spec: Spec, mut rng: Rng) -> Self {
        let disks = spec
            .disks
            .iter()
            .map(|disk| Disk {
                serial: disk.identity.serial.clone(),
                wwn: disk.identity.wwn.clone(),
                size_bytes: disk.size_bytes,
                table: Table::Foreign,
            })
            .collect();
        let network_fallback = rng.chance(512);
        Self {
            spec,
            rng,
            disks,
            root: Root::empty(),
            running: Running::Off,
            kube: Kube::Off,
            token_refused: false,
            unit: JoinUnit::Inactive,
            epoch: 0,
            network_once: false,
            network_fallback,
            loading: None,
            network_down_until_ms: 0,
            hijacked_until_ms: 0,
            command: None,
            waiting: Vec::new(),
            dead: false,
            impersonated: false,
            impostor_until_ms: 0,
            forged_reports: 0,
            forged: None,
            heard_boots: BTreeSet::new(),
            last_reported: None,
            wrong_serial: false,
            lost_disk: false,
            ever_up: false,
            last_system: None,
        }
    }

    /// Whether it can never be brought up.
    pub(crate) fn is_lost(&self) -> bool {
        self.dead || self.wrong_serial
    }

    /// Whether its network works.
    pub(crate) fn is_connected(&self, now_ms: u64) -> bool {
        now_ms >= self.network_down_until_ms
    }

    /// The host key that is shown at its address, if anything answers there.
    pub(crate) fn shown_key(&self, now_ms: u64) -> Option<&str> {
        match &self.running {
            _ if now_ms < self.hijacked_until_ms => Some(ANOTHER_MACHINES_KEY),
            Running::Installer(instance) => Some(instance.fingerprint()),
            Running::System { key, .. } => Some(key),
            _ => None,
        }
    }

    /// Whether it runs what it is to run.
    pub(crate) fn runs_target(&self) -> bool {
        matches!(&self.running, Running::System { system, key, .. }
            if *system == self.spec.target.toplevel && *key == self.spec.host_key)
    }

    /// The disk at that device.
    pub(crate) fn disk_at(&mut self, path: &str) -> Option<&mut Disk> {
        let mut disks = self.disks.iter_mut().enumerate();
        disks.find_map(|(place, disk)| (device(place) == path).then_some(disk))
    }

    /// Where a name of a device leads.
    pub(crate) fn resolve(&self, name: &str) -> String {
        let mut disks = self.disks.iter().enumerate();
        disks
            .find(|(_, disk)| by_id(disk.serial.as_deref(), disk.wwn.as_deref()) == name)
            .map_or_else(|| name.to_owned(), |(place, _)| device(place))
    }

    /// What its installer reports.
    pub(crate) fn report(&self, instance: &Instance) -> InstallerReport {
        let own = &instance.own;
        InstallerReport {
            version: undercroft_model::INSTALLER_REPORT_VERSION,
            nonce: own.nonce.clone(),
            uuid: self.spec.uuid,
            macs: self.spec.macs.clone(),
            address: self.spec.address,
            boot_id: own.boot_id.clone(),
            host_key: own.host_key.clone(),
            fingerprint: own.fingerprint.clone(),
            system: self.spec.system,
            firmware: ReportedFirmware::Uefi,
            memory_mb: self.spec.memory_mb,
            installer: "undercroft-installer simulated".to_owned(),
            token: None,
            disks: self.reported_disks(),
        }
    }

    /// What its installer is heard to report, which it repeats.
    pub(crate) fn heard_report(&self, now_ms: u64) -> Option<InstallerReport> {
        match &self.running {
            Running::Installer(instance) if self.is_connected(now_ms) && instance.reported => {
                Some(self.report(instance))
            }
            _ => None,
        }
    }

    /// A report that somebody else makes up in its name, of the kind of that number up to [`FORGERIES`]: with all that a
    /// report is asked for, or lacking some of it.
    pub(crate) fn forge(&self, number: u64, kind: u64) -> InstallerReport {
        let mut report = self.report(&Instance::new(number));
        match kind {
            // Its own boot, under another key.
            0 => {
                if let Running::Installer(instance) = &self.running {
                    report.boot_id = instance.boot_id().to_owned();
                }
            }
            // What it has reported last, word by word: of this boot or of an earlier one.
            1 => {
                if let Some(last) = self.last_reported {
                    report = self.report(&Instance::new(last));
                }
            }
            2 => report.boot_id = String::new(),
            3 => report.fingerprint = fingerprint(number),
            // Another machine with the same Ethernet addresses, as far as that can be told.
            4 => {
                report.uuid = Some(MachineUuid(
                    number.to_be_bytes().repeat(2).try_into().unwrap_or([1; 16]),
                ))
            }
            // Another boot each time.
            _ => {}
        }
        report
    }

    /// Its disks, as its installer reports them.
    pub(crate) fn reported_disks(&self) -> Vec<ReportedDisk> {
        let disks = self.disks.iter().enumerate();
        disks
            .map(|(place, disk)| ReportedDisk {
                path: device(place),
                serial: disk.serial.clone(),
                wwn: disk.wwn.clone(),
                size_bytes: disk.size_bytes,
                model: None,
                transport: Some("nvme".to_owned()),
            })
            .collect()
    }
}

/// The kinds of reports that somebody else makes up, from 0 to this.
pub(crate) const FORGERIES: u64 = 6;

/// The host key of a fingerprint: whoever has the one knows the other.
fn key_of(fingerprint: &str) -> String {
    fingerprint.replacen("SHA256:", "ssh-ed25519 ", 1)
}

/// Whether a report's fingerprint is that of its host key.
pub(crate) fn has_its_key(report: &InstallerReport) -> bool {
    report.host_key == key_of(&report.fingerprint)
}

/// The host key of another machine that answers at an address for a while.
const ANOTHER_MACHINES_KEY: &str = "SHA256:another-machines";

/// The name that udev gives a disk for what it says of itself.
pub(crate) fn by_id(serial: Option<&str>, wwn: Option<&str>) -> String {
    match (serial, wwn) {
        (_, Some(wwn)) => format!("/dev/disk/by-id/wwn-{wwn}"),
        (serial, None) => format!("/dev/disk/by-id/nvme-{}", serial.unwrap_or("none")),
    }
}

/// The kernel's name of the disk in that place.
pub(crate) fn device(place: usize) -> String {
    format!("/dev/nvme{place}n1")
}
