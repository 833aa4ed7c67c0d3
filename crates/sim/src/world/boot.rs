//! Power, firmware, and what boots.

use undercroft_engine::Event;
use undercroft_model::{Evidence, InstallerReport, NodeName, OpId};
use undercroft_steps::{AwaitedReport, JoinUnit, earlier_boots};

use super::{Ev, SimWorld, Stage, Turn};
use crate::{
    faults::FaultKind,
    machine::{FORGERIES, Instance, Kube, Loader, Running, has_its_key},
};

/// The longest that somebody else who uses a machine's Ethernet addresses stays, in milliseconds.
const IMPOSTOR_MS_MAX: u64 = 2 * 3_600_000;
/// The longest between two of somebody's reports, in milliseconds: short against every step.
const FORGED_PAUSE_MS_MAX: u64 = 30_000;
/// The most reports that are forged for one machine in one rehearsal: many times more than a
/// machine has steps, tries and restarts, and still an end for the simulation's queue.
const FORGED_REPORTS_MAX: u32 = 400;

impl SimWorld {
    /// Cuts off whatever a machine does.
    pub(super) fn cut(&mut self, node: u32) {
        self.kubelet_falls_silent(node);
        let machine = self.machine(node);
        machine.epoch += 1;
        machine.running = Running::Off;
        machine.kube = Kube::Off;
        machine.unit = JoinUnit::Inactive;
        machine.network_once = false;
        if let Some(flow) = machine.loading.take() {
            self.leave_link(flow);
        }
        self.drop_command(node, "the connection was lost");
    }

    /// Switches a machine on.
    pub(super) fn power_on(&mut self, node: u32) {
        if self.machine(node).dead {
            return;
        }
        self.machine(node).running = Running::Firmware;
        let post = self.profile.post;
        let post_ms = post.draw(&mut self.machine(node).rng);
        self.soon(node, post_ms, Turn::FirmwareDone);
        self.power_may_fail(node, post_ms * 2, None);
    }

    /// A person switches a machine off and on again.
    pub(crate) fn push_button(&mut self, node: u32) {
        self.note(node, || "switched off and on by a person".to_owned());
        self.cut(node);
        self.power_on(node);
    }

    pub(super) fn soon(&mut self, node: u32, delay_ms: u64, turn: Turn) {
        let epoch = self.machine(node).epoch;
        self.clock.after(delay_ms, Ev::Machine(node, epoch, turn));
    }

    /// The network boot's own part: cut the power, set the one-time boot, switch on.
    pub(super) fn power_cycle_for(&mut self, op: OpId, node: u32) {
        if self.cluster.members.contains_key(&node) && self.machine(node).root.datastore {
            let name = self.name(node);
            self.shared
                .borrow_mut()
                .checkers
                .on_member_lost(&name, "power-cycled");
        }
        self.cut(node);
        self.machine(node).network_once = true;
        self.power_on(node);
        let machine = self.machine(node);
        machine.waiting.push(op);
        let heard = machine.heard_boots.clone();
        if let Some(known) = self.ops.get_mut(&op) {
            let earlier = earlier_boots(known.order.facts.report.as_ref(), heard);
            known.stage = Stage::AwaitReport(earlier);
        }
        let now_ms = self.now_ms();
        if self.machine(node).impostor_until_ms <= now_ms && self.hit(node, FaultKind::StolenMac) {
            self.impostor_comes(node);
        }
    }

    pub(super) fn turn(&mut self, node: u32, epoch: u32, turn: Turn) {
        if self.machine(node).epoch != epoch {
            return;
        }
        match turn {
            Turn::PowerBack => self.power_on(node),
            Turn::FirmwareDone => self.firmware_done(node),
            Turn::LoadInstaller => {
                let bytes = self.profile.installer_bytes;
                let flow = self.join_link(node, bytes);
                self.machine(node).loading = Some(flow);
            }
            Turn::InstallerUp => {
                let number = self.number();
                self.machine(node).running = Running::Installer(Instance::new(number));
                self.note(node, || "installer is up".to_owned());
                self.look_at(node);
            }
            Turn::Reboots => {
                self.cut(node);
                if self.hit(node, FaultKind::RebootHangs) {
                    self.machine(node).running = Running::Hung;
                } else {
                    self.power_on(node);
                }
            }
            Turn::SystemUp => self.system_up(node),
            Turn::KubeUp => self.kube_up(node),
            Turn::EtcdVotes => self.etcd_votes(node),
            Turn::Register => self.register(node),
        }
    }

    fn firmware_done(&mut self, node: u32) {
        let machine = self.machine(node);
        let wanted = std::mem::take(&mut machine.network_once);
        let bootable = machine.root.loader == Loader::Whole && machine.root.profile.is_some();
        let fallback = machine.network_fallback;
        if wanted && !self.hit(node, FaultKind::PxeMissed) {
            return self.network_boots(node);
        }
        if !bootable {
            if !wanted && fallback {
                return self.network_boots(node);
            }
            self.machine(node).running = Running::NothingToBoot;
            return self.note(node, || "found nothing to boot".to_owned());
        }
        self.machine(node).running = Running::SystemStarting;
        let start = self.profile.system_start;
        let start_ms = start.draw(&mut self.machine(node).rng);
        self.soon(node, start_ms, Turn::SystemUp);
    }

    fn network_boots(&mut self, node: u32) {
        self.machine(node).running = Running::Loading;
        let pxe = self.profile.pxe;
        let pxe_ms = pxe.draw(&mut self.machine(node).rng);
        self.soon(node, pxe_ms, Turn::LoadInstaller);
    }

    /// The installer has come over the network whole.
    pub(super) fn installer_loaded(&mut self, node: u32) {
        self.machine(node).loading = None;
        self.machine(node).running = Running::InstallerStarting;
        let start = self.profile.installer_start;
        let start_ms = start.draw(&mut self.machine(node).rng);
        self.soon(node, start_ms, Turn::InstallerUp);
    }

    fn system_up(&mut self, node: u32) {
        let boot = self.number();
        let wrong = self.hit(node, FaultKind::WrongBootDevice);
        // An older system of the machine's own, on another of its disks, has its own host key.
        let own = wrong && self.coin();
        let machine = self.machine(node);
        let (system, key) = if wrong {
            let key = machine.root.host_key.clone().filter(|_| own);
            (
                "/nix/store/an-old-system".to_owned(),
                key.unwrap_or_else(|| "SHA256:an-old-key".to_owned()),
            )
        } else {
            (
                machine.root.profile.clone().unwrap_or_default(),
                machine.root.host_key.clone().unwrap_or_default(),
            )
        };
        if !wrong {
            machine.last_system = Some((boot, system.clone()));
        }
        machine.running = Running::System { boot, system, key };
        self.note(node, || "its system is up".to_owned());
        if !wrong {
            self.kube_comes_back(node);
        }
        self.look_at(node);
    }

    /// Somebody begins to report in under a machine's Ethernet addresses.
    pub(crate) fn impostor_comes(&mut self, node: u32) {
        let until_ms = self.now_ms() + self.chance_between(60_000, IMPOSTOR_MS_MAX);
        let machine = self.machine(node);
        machine.impostor_until_ms = if machine.impersonated {
            u64::MAX
        } else {
            until_ms
        };
        let delay_ms = self.chance_between(0, FORGED_PAUSE_MS_MAX);
        self.clock.after(delay_ms, Ev::ImpostorReports(node));
    }

    /// Somebody else reports in as a machine, from its very address.
    pub(super) fn impostor_reports(&mut self, node: u32) {
        let now_ms = self.now_ms();
        let machine = self.machine(node);
        if now_ms >= machine.impostor_until_ms || machine.forged_reports >= FORGED_REPORTS_MAX {
            machine.forged = None;
            return;
        }
        machine.forged_reports += 1;
        let number = self.number();
        let forgery = self.chance_between(0, FORGERIES);
        let report = self.machine(node).forge(number, forgery);
        let machine = self.machine(node);
        machine.forged = Some(report.clone());
        let name = machine.spec.name.clone();
        self.note(node, || "somebody else reports in as it".to_owned());
        self.report_arrives(node, name, report);
        let delay_ms = self.chance_between(1, FORGED_PAUSE_MS_MAX);
        self.clock.after(delay_ms, Ev::ImpostorReports(node));
    }

    fn report_arrives(&mut self, node: u32, name: NodeName, report: InstallerReport) {
        self.machine(node)
            .heard_boots
            .insert(report.boot_id.clone());
        let report = Box::new(report);
        self.tell(Event::Reported {
            node: name,
            report: report.clone(),
        });
        for op in self.waiting_in(node, |stage| matches!(stage, Stage::AwaitReport(_))) {
            if self.is_awaited(op, &report) {
                let report = report.clone();
                self.done(op, 0, Evidence::Seen { report });
            }
        }
    }

    /// Whether the operation takes the report for the one that it waits for.
    fn is_awaited(&self, op: OpId, report: &InstallerReport) -> bool {
        let Some(known) = self.ops.get(&op) else {
            return false;
        };
        let Some(node) = known.order.plan.nodes.get(&known.order.node) else {
            return false;
        };
        let Stage::AwaitReport(earlier) = &known.stage else {
            return false;
        };
        let awaited = AwaitedReport::of_new_boot(node.identity(), earlier);
        awaited.refuses(report, has_its_key(report)).is_none()
    }

    fn waiting_in(&mut self, node: u32, wanted: impl Fn(&Stage) -> bool) -> Vec<OpId> {
        let waiting = self.machine(node).waiting.clone();
        waiting
            .into_iter()
            .filter(|op| self.ops.get(op).is_some_and(|known| wanted(&known.stage)))
            .collect()
    }

    /// Something about a machine has changed: whoever waits for it looks.
    pub(super) fn look_at(&mut self, node: u32) {
        let now_ms = self.now_ms();
        let machine = self.machine(node);
        if !machine.is_connected(now_ms) {
            return;
        }
        match &mut machine.running {
            Running::Installer(instance) => {
                if !instance.reported {
                    instance.reported = true;
                    let instance = instance.clone();
                    machine.last_reported = Some(instance.number);
                    let report = machine.report(&instance);
                    let name = self.name(node);
                    self.report_arrives(node, name, report);
                }
                for op in self.waiting_in(node, |stage| matches!(stage, Stage::AwaitScreen)) {
                    self.screen_is_read(op, node);
                }
            }
            Running::System { .. } => {}
            _ => return,
        }
        for op in self.waiting_in(node, |stage| matches!(stage, Stage::AwaitReturn)) {
            self.look_for(op);
        }
    }
}
