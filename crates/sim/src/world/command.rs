//! Commands over SSH: the connection, the parts of each command, the shared link.

use undercroft_engine::Order;
use undercroft_model::{Action, Evidence, Failure, FailureKind, OpId, Outcome, PlannedDisk};

use undercroft_simkit::FlowId;
use undercroft_steps::{Wanted, find_disks, still_approved};

use super::{Ev, Sabotage, SimWorld, Stage};
use crate::{
    faults::FaultKind,
    fleet::boot_id,
    machine::{FlowEnd, Instance, Loader, Root, Running, Table, Task, is_wiped},
};

/// How long a connection is tried before nobody is taken to answer, in milliseconds.
pub(super) const CONNECT_MS_MAX: u64 = 10_000;
/// How often a command looks whether an earlier one is through, in milliseconds.
const LOCK_POLL_MS: u64 = 1000;

impl SimWorld {
    /// Connects to the installer that the order's facts name, pinned to its approved key. Gives
    /// the boot, or after how long it fails and why.
    pub(super) fn contact(&mut self, node: u32, order: &Order) -> Result<Instance, (u64, Failure)> {
        let now = self.now();
        let machine = self.machine(node);
        let fail = |after_ms, kind, message: &str| Err((after_ms, Failure::new(kind, message)));
        if !machine.is_connected(now.mono_ms) {
            return fail(
                CONNECT_MS_MAX,
                FailureKind::Transient,
                "nobody answers at the address",
            );
        }
        let (Some(report), Some(approval)) = (&order.facts.report, &order.facts.approval) else {
            return fail(
                0,
                FailureKind::PreconditionLost,
                "the machine was never approved",
            );
        };
        let other_key = "another key answers at the address than the approved one";
        if now.mono_ms < machine.hijacked_until_ms {
            return fail(0, FailureKind::PreconditionLost, other_key);
        }
        match &mut machine.running {
            Running::Installer(instance) => {
                if instance.fingerprint() != report.fingerprint
                    || approval.fingerprint != report.fingerprint
                {
                    return fail(0, FailureKind::PreconditionLost, other_key);
                }
                if !instance.contacted {
                    still_approved(approval, now.wall_ms).map_err(|failure| (0, failure))?;
                    instance.contacted = true;
                    let instance = instance.clone();
                    self.shared
                        .borrow_mut()
                        .checkers
                        .on_first_contact(&instance.fingerprint(), now.wall_ms);
                    return Ok(instance);
                }
                Ok(instance.clone())
            }
            Running::System { .. } => fail(0, FailureKind::PreconditionLost, other_key),
            _ => fail(
                CONNECT_MS_MAX,
                FailureKind::Transient,
                "nobody answers at the address",
            ),
        }
    }

    pub(super) fn begin_command(&mut self, op: OpId, node: u32, order: &Order) {
        if let Err((after_ms, failure)) = self.contact(node, order) {
            return self.reply(op, after_ms, Outcome::Failed { failure });
        }
        if self.machine(node).command.is_some() {
            // An earlier command holds the machine's lock.
            return self.clock.after(LOCK_POLL_MS, Ev::Arrived(op));
        }
        let Some(task) = order
            .planned()
            .and_then(|step| task_of(&step.action, &self.profile))
        else {
            return;
        };
        let within_ms = if matches!(task, Task::Copy { .. }) {
            150_000
        } else {
            25_000
        };
        let command = self.new_command(op, task);
        let id = command.id;
        self.machine(node).command = Some(command);
        if let Some(known) = self.ops.get_mut(&op) {
            known.stage = Stage::Commanding;
        }
        self.power_may_fail(node, within_ms);
        self.clock.after(0, Ev::Command(node, id));
    }

    /// The machine's side of a command is gone.
    pub(super) fn drop_command(&mut self, node: u32, message: &str) {
        let Some(command) = self.machine(node).command.take() else {
            return;
        };
        if let Some(flow) = command.flow {
            let left = self.leave_link(flow);
            let got = command.flow_bytes.saturating_sub(left);
            self.machine(node).root.copied_bytes += got;
        }
        if let Some(op) = command.reply_to {
            self.break_session(op, node, message);
        }
    }

    /// An operation's session breaks in the middle of its command.
    pub(super) fn break_session(&mut self, op: OpId, node: u32, message: &str) {
        let keepalive = self.profile.ssh_keepalive;
        let after_ms = keepalive.draw(&mut self.machine(node).rng);
        let commanding = self
            .ops
            .get(&op)
            .is_some_and(|known| matches!(known.stage, Stage::Commanding));
        if commanding {
            self.fail(op, after_ms, FailureKind::Ambiguous, message);
        }
    }

    /// The operation is called off, and its command with it.
    pub(super) fn stop_command(&mut self, node: u32, op: OpId) {
        let machine = self.machine(node);
        if machine
            .command
            .as_ref()
            .is_some_and(|c| c.reply_to == Some(op))
        {
            self.drop_command(node, "");
        }
    }

    /// The next part of a command.
    pub(super) fn command_goes_on(&mut self, node: u32, id: u64) {
        let machine = self.machine(node);
        let Some(command) = machine.command.as_mut().filter(|c| c.id == id) else {
            return;
        };
        let stage = command.stage;
        command.stage += 1;
        let task = std::rc::Rc::clone(&command.task);
        match &*task {
            Task::Inspect => self.inspect(node),
            Task::Partition { disks } => self.partition(node, disks, stage),
            Task::Copy { toplevel, bytes } => self.copy(node, toplevel, *bytes, stage),
            Task::Install { toplevel, host_key } => {
                self.install(node, toplevel, host_key, stage);
            }
            Task::Reboot => self.reboot(node, stage),
        }
    }

    fn next_part(&mut self, node: u32, delay_ms: u64) {
        if let Some(command) = self.machine(node).command.as_ref() {
            let id = command.id;
            self.clock.after(delay_ms, Ev::Command(node, id));
        }
    }

    /// The command is through.
    fn end_command(&mut self, node: u32, result: Result<Evidence, Failure>) {
        let Some(command) = self.machine(node).command.take() else {
            return;
        };
        let Some(op) = command.reply_to else {
            return;
        };
        match result {
            Ok(evidence) => {
                if self.hit(node, FaultKind::SshDies) {
                    self.break_session(op, node, "the connection was closed");
                } else {
                    self.done(op, 0, evidence);
                }
            }
            Err(failure) => self.reply(op, 0, Outcome::Failed { failure }),
        }
    }

    fn give_up(&mut self, node: u32, kind: FailureKind, message: impl Into<String>) {
        self.end_command(node, Err(Failure::new(kind, message)));
    }

    /// The installer that the machine runs, if it runs one.
    fn instance(&mut self, node: u32) -> Option<Instance> {
        match &self.machine(node).running {
            Running::Installer(instance) => Some(instance.clone()),
            _ => None,
        }
    }

    /// Looks at the machine's disks: their devices, or the one that isn't there.
    pub(super) fn devices(
        &mut self,
        node: u32,
        disks: &[PlannedDisk],
    ) -> Result<Vec<String>, Failure> {
        find_disks(disks, &self.machine(node).reported_disks())
    }

    /// What the machine's inspection proves.
    pub(super) fn inspected(
        &mut self,
        node: u32,
        instance: &Instance,
        order: &Order,
    ) -> Result<Evidence, Failure> {
        let (
            Some(planned),
            Some(Action::Inspect {
                disks,
                system,
                memory_mb_min,
            }),
        ) = (
            order.plan.nodes.get(&order.node),
            order.planned().map(|step| &step.action),
        )
        else {
            return Err(Failure::new(FailureKind::Permanent, "no such inspection"));
        };
        let wanted = Wanted {
            node: planned,
            disks,
            system: *system,
            memory_mb_min: *memory_mb_min,
        };
        let found = self.machine(node).report(instance);
        undercroft_steps::inspect(wanted, instance.boot_id(), &found)
    }

    fn inspect(&mut self, node: u32) {
        let Some(instance) = self.instance(node) else {
            return;
        };
        let op = self.machine(node).command.as_ref().and_then(|c| c.reply_to);
        let known = op.and_then(|op| self.ops.get(&op));
        let order = known.map(|known| known.order.clone());
        let result = match order {
            Some(order) => self.inspected(node, &instance, &order),
            // Nobody waits for it any more.
            None => return self.give_up(node, FailureKind::Ambiguous, "its session is gone"),
        };
        self.end_command(node, result);
    }

    /// Stage by stage: the disk that comes next is wiped, then laid out, then the next one.
    fn partition(&mut self, node: u32, disks: &[PlannedDisk], stage: u8) {
        let Some(instance) = self.instance(node) else {
            return;
        };
        if let Err(failure) = self.devices(node, disks) {
            return self.end_command(node, Err(failure));
        }
        if stage % 2 == 1 {
            self.lay_out_cleared(node, disks);
        }
        let wipes_again = stage == 0 && self.is_sabotaged(Sabotage::WipesAgain);
        let next = disks.iter().enumerate().find_map(|(role, planned)| {
            let machine = self.machine(node);
            let place = machine.find_disk(planned)?;
            let disk = machine.disks.get(place)?;
            let due =
                is_wiped(planned) && (disk.table != Table::Laid(planned.table_guid) || wipes_again);
            due.then_some((role, place, planned))
        });
        match next {
            Some((role, place, planned)) => {
                let machine = self.machine(node);
                if let Some(disk) = machine.disks.get_mut(place) {
                    let before = disk.clone();
                    disk.table = Table::Cleared;
                    let serial = disk.serial.clone().unwrap_or_default();
                    let datastore = role == 0 && machine.root.datastore;
                    if role == 0 {
                        machine.root = Root::empty();
                    }
                    if let Some(command) = &mut machine.command {
                        command.wiped = true;
                    }
                    self.wiped.push((node, serial.clone()));
                    if datastore && self.cluster.members.contains_key(&node) {
                        let name = self.name(node);
                        self.shared
                            .borrow_mut()
                            .checkers
                            .on_member_lost(&name, "wiped");
                    }
                    self.shared.borrow_mut().checkers.on_wipe(
                        node,
                        &before,
                        &instance.fingerprint(),
                        planned.table_guid,
                    );
                    self.note(node, || format!("disk {serial} wiped"));
                }
                // The next stage is odd, whatever came before: that is where it is laid out.
                if let Some(command) = &mut self.machine(node).command {
                    command.stage = 1;
                }
                let (wipe, mkfs) = (self.profile.wipe, self.profile.mkfs);
                let rng = &mut self.machine(node).rng;
                let delay_ms = wipe.draw(rng) + mkfs.draw(rng);
                self.next_part(node, delay_ms);
            }
            None => {
                if let Running::Installer(instance) = &mut self.machine(node).running {
                    instance.mounted = true;
                }
                let wiped = self.machine(node).command.as_ref().is_some_and(|c| c.wiped);
                let boot_id = instance.boot_id();
                self.end_command(node, Ok(Evidence::Partitioned { boot_id, wiped }));
            }
        }
    }

    fn lay_out_cleared(&mut self, node: u32, disks: &[PlannedDisk]) {
        for planned in disks {
            let machine = self.machine(node);
            let place = machine.find_disk(planned);
            if let Some(disk) = place.and_then(|p| machine.disks.get_mut(p))
                && disk.table == Table::Cleared
            {
                disk.table = Table::Laid(planned.table_guid);
                self.shared
                    .borrow_mut()
                    .checkers
                    .on_laid(node, planned.table_guid);
                return;
            }
        }
    }

    fn unmounted() -> Failure {
        Failure::new(FailureKind::PreconditionLost, "nothing is mounted at /mnt")
    }

    fn copy(&mut self, node: u32, toplevel: &str, bytes: u64, stage: u8) {
        let Some(instance) = self.instance(node) else {
            return;
        };
        if !instance.mounted {
            return self.end_command(node, Err(Self::unmounted()));
        }
        let (setup, boot_id) = (self.profile.copy_setup, instance.boot_id());
        match stage {
            0 => {
                let delay_ms = setup.draw(&mut self.machine(node).rng);
                self.next_part(node, delay_ms);
            }
            1 => self.send(node, bytes),
            _ => {
                let Some(command) = self.machine(node).command.as_mut() else {
                    return;
                };
                let (got, end) = (command.flow_bytes, command.flow_end);
                command.flow = None;
                let root = &mut self.machine(node).root;
                root.copied_bytes += got;
                match end {
                    FlowEnd::Whole => {
                        root.copied_bytes = bytes;
                        root.closure = Some(toplevel.to_owned());
                        let closure_bytes = bytes;
                        self.end_command(
                            node,
                            Ok(Evidence::Copied {
                                boot_id,
                                closure_bytes,
                            }),
                        );
                    }
                    FlowEnd::Broken => {
                        self.give_up(node, FailureKind::Transient, "the copy broke off");
                    }
                    FlowEnd::Full => {
                        self.give_up(node, FailureKind::Permanent, "no space left on device");
                    }
                }
            }
        }
    }

    /// What isn't there yet goes over the link.
    fn send(&mut self, node: u32, bytes: u64) {
        let mut missing = bytes.saturating_sub(self.machine(node).root.copied_bytes);
        if self.hit(node, FaultKind::SlowCopy) {
            missing *= self.chance_between(3, 12);
        }
        let mut end = FlowEnd::Whole;
        if self.hit(node, FaultKind::FailingCopy) {
            end = FlowEnd::Broken;
        } else if self.hit(node, FaultKind::DiskFull) {
            end = FlowEnd::Full;
        }
        if end != FlowEnd::Whole {
            missing = self.chance_between(0, missing);
        }
        let flow = self.join_link(node, missing);
        if let Some(command) = self.machine(node).command.as_mut() {
            command.flow = Some(flow);
            command.flow_bytes = missing.min(bytes);
            command.flow_end = end;
        }
    }

    fn install(&mut self, node: u32, toplevel: &str, host_key: &str, stage: u8) {
        let Some(instance) = self.instance(node) else {
            return;
        };
        if !instance.mounted {
            return self.end_command(node, Err(Self::unmounted()));
        }
        if self.machine(node).root.closure.as_deref() != Some(toplevel) {
            let message = "the closure is not on the disk";
            return self.give_up(node, FailureKind::PreconditionLost, message);
        }
        let profile = std::rc::Rc::clone(&self.profile);
        let machine = self.machine(node);
        match stage {
            0 => {
                let delay_ms = profile.ssh.draw(&mut machine.rng);
                self.shared
                    .borrow_mut()
                    .checkers
                    .on_secret(&instance.fingerprint());
                self.next_part(node, delay_ms);
            }
            1 => {
                machine.root.host_key = Some(host_key.to_owned());
                let delay_ms = profile.activate.draw(&mut machine.rng);
                self.next_part(node, delay_ms);
            }
            2 => {
                machine.root.profile = Some(toplevel.to_owned());
                machine.root.loader = Loader::Half;
                let delay_ms = profile.loader.draw(&mut machine.rng);
                self.next_part(node, delay_ms);
            }
            _ => {
                if self.hit(node, FaultKind::LoaderFails) {
                    let kind = if self.coin() {
                        FailureKind::Transient
                    } else {
                        FailureKind::Permanent
                    };
                    return self.give_up(node, kind, "the boot loader could not be written");
                }
                self.machine(node).root.loader = Loader::Whole;
                let boot_id = instance.boot_id();
                let default_entry = "nixos-generation-1.conf".to_owned();
                self.end_command(
                    node,
                    Ok(Evidence::Installed {
                        boot_id,
                        default_entry,
                    }),
                );
            }
        }
    }

    fn reboot(&mut self, node: u32, stage: u8) {
        if stage == 0 {
            // Everything is unmounted and the machine goes down; from here on its return is waited
            // for, not its command.
            let op = self.machine(node).command.as_ref().and_then(|c| c.reply_to);
            if let Running::Installer(instance) = &mut self.machine(node).running {
                instance.mounted = false;
            }
            if let Some(op) = op {
                self.machine(node).waiting.push(op);
                if let Some(known) = self.ops.get_mut(&op) {
                    known.stage = Stage::AwaitReturn;
                }
            }
            let shutdown = self.profile.shutdown;
            let delay_ms = shutdown.draw(&mut self.machine(node).rng);
            return self.next_part(node, delay_ms);
        }
        self.machine(node).command = None;
        self.cut(node);
        if self.hit(node, FaultKind::RebootHangs) {
            self.machine(node).running = Running::Hung;
        } else {
            self.power_on(node);
        }
    }

    /// Whether the machine runs the system, under the key: the act and the probe are the same.
    pub(super) fn prove(&mut self, op: OpId, node: u32, toplevel: &str, key: &str) {
        let now_ms = self.now_ms();
        let machine = self.machine(node);
        if !machine.is_connected(now_ms) {
            let message = "nobody answers at the address";
            return self.fail(op, CONNECT_MS_MAX, FailureKind::Transient, message);
        }
        let foreign = "the machine shows another host key than the one made for it";
        if now_ms < machine.hijacked_until_ms {
            return self.fail(op, 0, FailureKind::Refused, foreign);
        }
        let running = machine.running.clone();
        if let Running::System { boot, .. } = &running
            && self.is_sabotaged(Sabotage::CallsAnythingUp)
        {
            let evidence = Evidence::Up {
                boot_id: boot_id(*boot),
                booted_system: toplevel.to_owned(),
                host_key_fingerprint: key.to_owned(),
            };
            return self.done(op, 0, evidence);
        }
        match running {
            Running::System {
                boot,
                system,
                key: shown,
            } if shown == key => {
                if system == toplevel {
                    self.done(
                        op,
                        0,
                        Evidence::Up {
                            boot_id: boot_id(boot),
                            booted_system: system,
                            host_key_fingerprint: shown,
                        },
                    );
                } else {
                    let message = format!("the machine has booted {system}");
                    self.fail(op, 0, FailureKind::Permanent, message);
                }
            }
            Running::System { .. } => self.fail(op, 0, FailureKind::Refused, foreign),
            Running::Installer(_) => {
                let message = "the machine runs the installer";
                self.fail(op, 0, FailureKind::PreconditionLost, message);
            }
            _ => {
                let message = "nobody answers at the address";
                self.fail(op, CONNECT_MS_MAX, FailureKind::Transient, message);
            }
        }
    }

    pub(super) fn join_link(&mut self, node: u32, bytes: u64) -> FlowId {
        let flow = self.link.join(self.clock.now_ms(), bytes);
        self.flows.insert(flow, node);
        self.schedule_link();
        flow
    }

    pub(super) fn leave_link(&mut self, flow: FlowId) -> u64 {
        let left = self.link.leave(self.clock.now_ms(), flow);
        self.flows.remove(&flow);
        self.schedule_link();
        left
    }

    fn schedule_link(&mut self) {
        self.link_generation += 1;
        if let Some(in_ms) = self.link.next_in_ms(self.clock.now_ms()) {
            self.clock.after(in_ms, Ev::Link(self.link_generation));
        }
    }

    pub(super) fn link_moves(&mut self, generation: u64) {
        if generation != self.link_generation {
            return;
        }
        while let Some(flow) = self.link.take_done(self.clock.now_ms()) {
            let Some(node) = self.flows.remove(&flow) else {
                continue;
            };
            if self.machine(node).loading == Some(flow) {
                self.installer_loaded(node);
            } else {
                self.next_part(node, 0);
            }
        }
        self.schedule_link();
    }
}

fn task_of(action: &Action, profile: &crate::profile::Profile) -> Option<Task> {
    match action {
        Action::Inspect { .. } => Some(Task::Inspect),
        Action::Partition { disks, .. } => Some(Task::Partition {
            disks: disks.clone(),
        }),
        Action::CopyClosure {
            toplevel,
            closure_bytes,
        } => Some(Task::Copy {
            toplevel: toplevel.clone(),
            bytes: closure_bytes.unwrap_or(profile.closure_bytes),
        }),
        Action::Install {
            toplevel,
            host_key_fingerprint,
        } => Some(Task::Install {
            toplevel: toplevel.clone(),
            host_key: host_key_fingerprint.clone(),
        }),
        Action::Reboot { .. } => Some(Task::Reboot),
        Action::NetworkBoot
        | Action::Approve { .. }
        | Action::Prove { .. }
        | Action::FoundCluster
        | Action::JoinCluster { .. }
        | Action::AwaitReady { .. }
        | Action::Bootstrap { .. } => None,
    }
}
