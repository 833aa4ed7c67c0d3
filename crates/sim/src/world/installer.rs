//! A machine's installer: what its programs do to the machine, part by part, and how they end.
//!
//! It believes neither the plan nor the step that asks: it looks at its own disks, its own mounts and its own store, as
//! the real programs do.

use undercroft_engine::Order;
use undercroft_model::{Action, FailedCommand, MachineUuid, PlannedDisk, Work};
use undercroft_steps::{Answer, Ask, CopyFailed, Ended, Table as NamedTable, code};

use super::{Sabotage, SimWorld, Turn};
use crate::{
    faults::FaultKind,
    machine::{FlowEnd, Instance, Loader, Root, Running, Table, device},
};

/// The boot entry that every system has.
const ENTRY: &str = "nixos-generation-1.conf";

/// What `sgdisk` takes to write a table, in milliseconds.
const NAME_MS: u64 = 150;

/// How far a program has come.
pub(super) enum Progress {
    /// Its next part comes later, in milliseconds.
    Later(u64),
    /// It takes in so many bytes.
    Sends(u64),
    /// It has ended.
    Answers(Answer),
}

fn ends(code: i32) -> Progress {
    Progress::Answers(Answer::code(code))
}

fn prints(stdout: String) -> Progress {
    Progress::Answers(Answer::Ended(Ended {
        code: code::DONE,
        stdout,
        stderr_tail: String::new(),
        command: String::new(),
    }))
}

impl SimWorld {
    /// The installer that the machine runs, if it runs one.
    fn instance(&mut self, node: u32) -> Option<&mut Instance> {
        match &mut self.machine(node).running {
            Running::Installer(instance) => Some(instance),
            _ => None,
        }
    }

    fn is_mounted(&mut self, node: u32) -> bool {
        self.instance(node).is_some_and(|i| i.mounted)
    }

    fn mount(&mut self, node: u32) {
        if let Some(instance) = self.instance(node) {
            instance.mounted = true;
        }
    }

    /// The next part of a program.
    pub(super) fn work_on(&mut self, node: u32, order: &Order, ask: &Ask, part: u8) -> Progress {
        match ask {
            Ask::Describe => self.describe(node),
            Ask::LayOut {
                disk, look_only, ..
            } => self.lay_out(node, disk, *look_only, part),
            Ask::Tables { devices } => self.tables(node, order, devices),
            Ask::Resolve { names } => {
                let machine = self.machine(node);
                let lines = names.iter().map(|name| machine.resolve(name) + "\n");
                prints(lines.collect())
            }
            Ask::BringScript { .. } if part == 0 => {
                let setup = self.profile.copy_setup;
                Progress::Later(setup.draw(&mut self.machine(node).rng))
            }
            Ask::BringScript { .. } => Progress::Answers(Answer::Done),
            Ask::RunScript { path } => self.run_script(node, order, path, part),
            Ask::NameTables { tables } => self.name_tables(node, order, tables, part),
            Ask::Mounted if self.is_mounted(node) => ends(code::DONE),
            Ask::Mounted => ends(code::NOT_MOUNTED),
            Ask::Copy { closure_bytes, .. } => {
                let bytes = closure_bytes.unwrap_or(self.profile.closure_bytes);
                self.copy(node, ask, bytes, part)
            }
            Ask::ForgetStore => {
                let root = &mut self.machine(node).root;
                root.store_damaged = false;
                root.copied_bytes = 0;
                root.closure = None;
                ends(code::DONE)
            }
            Ask::FreeRoom { .. } => {
                let free = if self.machine(node).root.full {
                    0
                } else {
                    4 << 20
                };
                prints(format!(
                    "Filesystem 1024-blocks Used Available\n/dev/x 9 9 {free}\n"
                ))
            }
            Ask::IsInstalled { toplevel } => self.is_installed(node, toplevel),
            Ask::HasHostKey => self.has_host_key(node, order),
            Ask::GiveHostKey => self.take_host_key(node, order),
            Ask::Install { toplevel } => self.install(node, toplevel, part),
            Ask::Finish => {
                if let Some(instance) = self.instance(node) {
                    instance.mounted = false;
                }
                ends(code::DONE)
            }
            Ask::Reboot if self.is_mounted(node) => ends(1),
            Ask::Reboot => {
                let shutdown = self.profile.shutdown;
                let delay_ms = shutdown.draw(&mut self.machine(node).rng);
                self.soon(node, delay_ms, Turn::Reboots);
                ends(code::DONE)
            }
            Ask::OtherPools { .. }
            | Ask::Sync
            | Ask::Greet
            | Ask::OfferDisk
            | Ask::GiveDiskKeys
            | Ask::TakeDiskKeys
            | Ask::GiveExtraFiles => ends(code::DONE),
        }
    }

    fn describe(&mut self, node: u32) -> Progress {
        let machine = self.machine(node);
        let Running::Installer(instance) = &machine.running else {
            return ends(code::NOT_FOUND);
        };
        let report = machine.report(instance);
        Progress::Answers(Answer::Described(Box::new(report)))
    }

    /// Undercroft's own layout of one disk, found by what it says of itself.
    fn lay_out(&mut self, node: u32, planned: &PlannedDisk, look_only: bool, part: u8) -> Progress {
        let machine = self.machine(node);
        let mut found = machine.disks.iter().enumerate().filter(|(_, disk)| {
            let (serial, wwn) = (disk.serial.as_deref(), disk.wwn.as_deref());
            planned.identity.matches(serial, wwn)
        });
        let (place, disk) = match (found.next(), found.next()) {
            (Some(disk), None) => disk,
            (None, _) => return ends(code::NO_DISK),
            (Some(_), Some(_)) => return ends(code::AMBIGUOUS_DISK),
        };
        let laid = disk.table == Table::Laid(planned.table_guid);
        if part == 1 {
            self.set_table(node, place, Table::Laid(planned.table_guid));
            self.mount(node);
            return prints("state=created\n".to_owned());
        }
        if laid && !self.is_sabotaged(Sabotage::WipesAgain) {
            self.mount(node);
            return prints("state=present\n".to_owned());
        }
        if look_only {
            return ends(code::NOT_YET);
        }
        self.wipe(node, place, true, planned.table_guid)
    }

    /// Gives the time that it takes to clear a disk and to make file systems on it.
    fn wipe(&mut self, node: u32, place: usize, holds_root: bool, guid: MachineUuid) -> Progress {
        let machine = self.machine(node);
        let Some(disk) = machine.disks.get_mut(place) else {
            return ends(code::NO_DISK);
        };
        let before = disk.clone();
        disk.table = Table::Cleared;
        let serial = disk.serial.clone().unwrap_or_default();
        let datastore = holds_root && machine.root.datastore;
        if holds_root {
            machine.root = Root::empty();
        }
        let fingerprint = self.instance(node).map(|i| i.fingerprint().to_owned());
        self.wiped.push((node, serial.clone()));
        if datastore && self.cluster.members.contains_key(&node) {
            let name = self.name(node);
            let mut shared = self.shared.borrow_mut();
            shared.checkers.on_member_lost(&name, "wiped");
        }
        let mut shared = self.shared.borrow_mut();
        let fingerprint = fingerprint.unwrap_or_default();
        shared.checkers.on_wipe(node, &before, &fingerprint, guid);
        drop(shared);
        self.note(node, || format!("disk {serial} wiped"));
        let (wipe, mkfs) = (self.profile.wipe, self.profile.mkfs);
        let rng = &mut self.machine(node).rng;
        Progress::Later(wipe.draw(rng) + mkfs.draw(rng))
    }

    fn set_table(&mut self, node: u32, place: usize, table: Table) {
        if let Table::Laid(guid) = table {
            self.shared.borrow_mut().checkers.on_laid(node, guid);
        }
        if let Some(disk) = self.machine(node).disks.get_mut(place) {
            disk.table = table;
        }
    }

    fn tables(&mut self, node: u32, order: &Order, devices: &[String]) -> Progress {
        // A table that is looked at wrongly is wiped, as far as the script lets it.
        let blind = order.work == Work::Act
            && !self.is_mounted(node)
            && self.is_sabotaged(Sabotage::WipesAgain);
        let machine = self.machine(node);
        let mut shown = String::new();
        for device in devices {
            match machine.disk_at(device).map(|disk| &disk.table) {
                Some(Table::Laid(guid) | Table::Marked(guid)) if !blind => {
                    shown.push_str(&guid.to_string());
                }
                _ => shown.push_str("none"),
            }
            shown.push('\n');
        }
        shown.push_str(if self.is_mounted(node) {
            "mounted\n"
        } else {
            "unmounted\n"
        });
        prints(shown)
    }

    /// A script of disko's: it knows its disks by the names that the configuration gives them, and nothing of the plan.
    fn run_script(&mut self, node: u32, order: &Order, path: &str, part: u8) -> Progress {
        let machine = self.machine(node);
        let named = machine.spec.target.disko_devices.clone();
        let devices: Vec<String> = named
            .iter()
            .flatten()
            .map(|name| machine.resolve(name))
            .collect();
        let lays_out = machine.spec.target.disko_script.as_deref() == Some(path);
        let places: Vec<usize> = (0..machine.disks.len())
            .filter(|place| devices.contains(&device(*place)))
            .collect();
        if places.len() != devices.len() {
            return ends(1);
        }
        let part = usize::from(part);
        if !lays_out {
            let made = places.iter().all(|place| {
                let disk = self.machine(node).disks.get(*place);
                disk.is_some_and(|d| {
                    matches!(d.table, Table::Made | Table::Marked(_) | Table::Laid(_))
                })
            });
            if made {
                self.mount(node);
            }
            return ends(i32::from(!made));
        }
        // The disk before is through.
        if let Some(done) = part.checked_sub(1).and_then(|before| places.get(before)) {
            self.set_table(node, *done, Table::Made);
        }
        match places.get(part) {
            Some(place) => {
                let disk = self.machine(node).disks.get(*place).cloned();
                let planned = disk.and_then(|disk| {
                    let (serial, wwn) = (disk.serial.as_deref(), disk.wwn.as_deref());
                    let mut disks = planned_disks(order).iter().enumerate();
                    disks.find(|(_, planned)| planned.identity.matches(serial, wwn))
                });
                // A disk that isn't planned has no GUID: the checkers see that it is none of ours.
                let guid = planned.map_or(MachineUuid([0; 16]), |(_, disk)| disk.table_guid);
                let holds_root = planned.is_some_and(|(place, _)| place == 0);
                self.wipe(node, *place, holds_root, guid)
            }
            None => {
                self.mount(node);
                ends(code::DONE)
            }
        }
    }

    fn name_tables(
        &mut self,
        node: u32,
        order: &Order,
        tables: &[NamedTable],
        part: u8,
    ) -> Progress {
        let Some(table) = tables.get(usize::from(part)) else {
            return ends(code::DONE);
        };
        let machine = self.machine(node);
        let place = (0..machine.disks.len()).find(|place| device(*place) == table.device);
        let made = place.and_then(|place| machine.disks.get(place));
        let made = made.is_some_and(|disk| !matches!(disk.table, Table::Foreign | Table::Cleared));
        let Some(place) = place.filter(|_| made) else {
            return ends(1);
        };
        // Whether that is the GUID of a table that is laid out, the machine doesn't know; the checkers do.
        let finally = planned_disks(order)
            .iter()
            .any(|disk| disk.table_guid == table.guid);
        let named = if finally {
            Table::Laid(table.guid)
        } else {
            Table::Marked(table.guid)
        };
        self.set_table(node, place, named);
        Progress::Later(NAME_MS)
    }

    /// What runs here is `nix copy`, which the machine only takes in.
    fn copy(&mut self, node: u32, ask: &Ask, bytes: u64, part: u8) -> Progress {
        match part {
            0 if self.machine(node).root.store_damaged => {
                copy_failed("error: '/mnt/nix/var/nix/db/schema' is corrupt")
            }
            0 => {
                let setup = self.profile.copy_setup;
                Progress::Later(setup.draw(&mut self.machine(node).rng))
            }
            1 => Progress::Sends(bytes),
            _ => {
                let machine = self.machine(node);
                let Some(command) = machine.command.as_mut() else {
                    return ends(1);
                };
                let (got, end) = (command.flow_bytes, command.flow_end);
                command.flow = None;
                machine.root.copied_bytes += got;
                match end {
                    FlowEnd::Whole => {
                        machine.root.copied_bytes = bytes;
                        if let Ask::Copy { toplevel, .. } = ask {
                            machine.root.closure = Some(toplevel.clone());
                        }
                        Progress::Answers(Answer::Done)
                    }
                    FlowEnd::Broken => copy_failed("error: unexpected end-of-file"),
                    FlowEnd::Full => {
                        machine.root.full = true;
                        copy_failed("error: writing to file: No space left on device")
                    }
                }
            }
        }
    }

    fn is_installed(&mut self, node: u32, toplevel: &str) -> Progress {
        if !self.is_mounted(node) {
            return ends(code::NOT_MOUNTED);
        }
        let root = &self.machine(node).root;
        if root.store_damaged || root.closure.as_deref() != Some(toplevel) {
            return ends(code::NO_CLOSURE);
        }
        if root.profile.as_deref() == Some(toplevel) && root.loader == Loader::Whole {
            return prints(format!("entry={ENTRY}\n"));
        }
        ends(code::NOT_YET)
    }

    fn has_host_key(&mut self, node: u32, order: &Order) -> Progress {
        if !self.is_mounted(node) {
            return ends(code::NOT_MOUNTED);
        }
        let root = &self.machine(node).root;
        if root.host_key.as_deref() == host_key(order) {
            ends(code::DONE)
        } else {
            ends(code::NOT_YET)
        }
    }

    fn take_host_key(&mut self, node: u32, order: &Order) -> Progress {
        if let Some(fingerprint) = self.instance(node).map(|i| i.fingerprint().to_owned()) {
            self.shared.borrow_mut().checkers.on_secret(&fingerprint);
        }
        if !self.is_mounted(node) {
            return ends(code::NOT_MOUNTED);
        }
        self.machine(node).root.host_key = host_key(order).map(str::to_owned);
        ends(code::DONE)
    }

    fn install(&mut self, node: u32, toplevel: &str, part: u8) -> Progress {
        if !self.is_mounted(node) {
            return ends(code::NOT_MOUNTED);
        }
        let profile = std::rc::Rc::clone(&self.profile);
        let machine = self.machine(node);
        match part {
            0 if machine.root.closure.as_deref() != Some(toplevel) => ends(code::NO_CLOSURE),
            0 => Progress::Later(profile.activate.draw(&mut machine.rng)),
            1 => {
                machine.root.profile = Some(toplevel.to_owned());
                machine.root.loader = Loader::Half;
                Progress::Later(profile.loader.draw(&mut machine.rng))
            }
            _ if self.hit(node, FaultKind::LoaderFails) => {
                let written = self.coin();
                ends(if written {
                    code::NOT_BOOTABLE
                } else {
                    code::BOOT_LOADER
                })
            }
            _ => {
                self.machine(node).root.loader = Loader::Whole;
                prints(format!("entry={ENTRY}\n"))
            }
        }
    }
}

fn planned_disks(order: &Order) -> &[PlannedDisk] {
    match order.planned().map(|step| &step.action) {
        Some(Action::Partition { disks, .. }) => disks,
        _ => &[],
    }
}

fn host_key(order: &Order) -> Option<&str> {
    match order.planned().map(|step| &step.action) {
        Some(Action::Install {
            host_key_fingerprint,
            ..
        }) => Some(host_key_fingerprint),
        _ => None,
    }
}

fn copy_failed(said: &str) -> Progress {
    Progress::Answers(Answer::CopyFailed(Box::new(CopyFailed {
        command: FailedCommand {
            command: "nix copy".to_owned(),
            exit_code: Some(1),
            output_tail: said.to_owned(),
        },
        timed_out: false,
        connection: None,
    })))
}
