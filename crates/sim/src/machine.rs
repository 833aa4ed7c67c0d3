//! A machine as it is, whatever anyone believes of it.

use undercroft_model::{
    InstallerReport, MachineUuid, OpId, PlannedDisk, ReportedDisk, ReportedFirmware,
};
use undercroft_simkit::{FlowId, Rng};

use crate::fleet::{Spec, boot_id, fingerprint, hex_of};

/// What a disk's partition table is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Table {
    /// As it came, with somebody's data or without.
    Foreign,
    /// Wiped, and not yet laid out anew.
    Cleared,
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
    /// The closure that is there whole.
    pub(crate) closure: Option<String>,
    pub(crate) host_key: Option<String>,
    pub(crate) profile: Option<String>,
    pub(crate) loader: Loader,
    /// Whether there is a datastore of etcd, so that it comes back as the member that it was.
    pub(crate) datastore: bool,
    /// Whether its kubelet has registered once, so that it does at each boot.
    pub(crate) joined: bool,
}

impl Root {
    pub(crate) fn empty() -> Self {
        Self {
            copied_bytes: 0,
            closure: None,
            host_key: None,
            profile: None,
            loader: Loader::Absent,
            datastore: false,
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
    /// Whether the planned disks are mounted in it.
    pub(crate) mounted: bool,
    /// Whether a connection under its approval has been made.
    pub(crate) contacted: bool,
    /// Whether the controller has had its report.
    pub(crate) reported: bool,
}

impl Instance {
    pub(crate) fn new(number: u64) -> Self {
        Self {
            number,
            mounted: false,
            contacted: false,
            reported: false,
        }
    }

    pub(crate) fn boot_id(&self) -> String {
        boot_id(self.number)
    }

    pub(crate) fn fingerprint(&self) -> String {
        fingerprint(self.number ^ 0xf1)
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

/// A command that runs on a machine.
#[derive(Debug, Clone)]
pub(crate) struct Command {
    /// Tells it from earlier commands.
    pub(crate) id: u64,
    /// The operation whose session waits for it; `None` once that is gone.
    pub(crate) reply_to: Option<OpId>,
    pub(crate) task: std::rc::Rc<Task>,
    /// Which part of the task comes next.
    pub(crate) stage: u8,
    /// The transfer that it waits for.
    pub(crate) flow: Option<FlowId>,
    /// Bytes that the transfer brings when it ends, and how it ends.
    pub(crate) flow_bytes: u64,
    pub(crate) flow_end: FlowEnd,
    /// Whether it has wiped a disk.
    pub(crate) wiped: bool,
}

/// How a transfer will end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FlowEnd {
    Whole,
    Broken,
    Full,
}

/// What a command does.
#[derive(Debug, Clone)]
pub(crate) enum Task {
    Inspect,
    Partition { disks: Vec<PlannedDisk> },
    Copy { toplevel: String, bytes: u64 },
    Install { toplevel: String, host_key: String },
    Reboot,
}

/// A machine.
pub(crate) struct Machine {
    pub(crate) spec: Spec,
    pub(crate) rng: Rng,
    pub(crate) disks: Vec<Disk>,
    pub(crate) root: Root,
    pub(crate) running: Running,
    pub(crate) kube: Kube,
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

    /// Whether it runs what it is to run.
    pub(crate) fn runs_target(&self) -> bool {
        matches!(&self.running, Running::System { system, key, .. }
            if *system == self.spec.target.toplevel && *key == self.spec.host_key)
    }

    /// The disk of that identity, if exactly one has it.
    pub(crate) fn find_disk(&self, planned: &PlannedDisk) -> Option<usize> {
        let mut found = self.disks.iter().enumerate().filter(|(_, disk)| {
            planned
                .identity
                .matches(disk.serial.as_deref(), disk.wwn.as_deref())
        });
        let (place, _) = found.next()?;
        found.next().is_none().then_some(place)
    }

    /// Whether all planned disks are laid out as planned. A disk for data is formatted only while
    /// it is empty, which is none of the simulation's business.
    pub(crate) fn is_laid_out(&self, planned: &[PlannedDisk]) -> bool {
        planned.iter().filter(|plan| is_wiped(plan)).all(|plan| {
            self.find_disk(plan)
                .and_then(|place| self.disks.get(place))
                .is_some_and(|disk| disk.table == Table::Laid(plan.table_guid))
        })
    }

    /// What its installer reports.
    pub(crate) fn report(&self, instance: &Instance) -> InstallerReport {
        let fingerprint = instance.fingerprint();
        InstallerReport {
            version: undercroft_model::INSTALLER_REPORT_VERSION,
            nonce: hex_of(instance.number ^ 0xa0, 32),
            uuid: self.spec.uuid,
            macs: self.spec.macs.clone(),
            address: self.spec.address,
            boot_id: instance.boot_id(),
            host_key: format!("ssh-ed25519 {}", hex_of(instance.number ^ 0xf1, 64)),
            fingerprint,
            system: self.spec.system,
            firmware: ReportedFirmware::Uefi,
            memory_mb: self.spec.memory_mb,
            installer: "undercroft-installer simulated".to_owned(),
            token: None,
            disks: self.reported_disks(),
        }
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

/// Whether a disk's content is lost when it is laid out.
pub(crate) fn is_wiped(planned: &PlannedDisk) -> bool {
    planned.role.is_wiped()
}

/// The kernel's name of the disk in that place.
pub(crate) fn device(place: usize) -> String {
    format!("/dev/nvme{place}n1")
}
