//! What goes wrong with power, network and clock.

use undercroft_model::{ClusterRole, OpId};
use undercroft_steps::Ask;

use super::{Ev, SimWorld, Turn};
use crate::{
    faults::FaultKind,
    machine::{Root, Running, Table},
};

/// The longest that a machine is without its network, in milliseconds.
const NETWORK_LOSS_MS_MAX: u64 = 20 * 60_000;
/// The shortest loss that a session notices, in milliseconds.
const NETWORK_LOSS_MS_MIN: u64 = 20_000;
/// The longest that another machine answers at an address, in milliseconds.
const HIJACK_MS_MAX: u64 = 10 * 60_000;
/// The most that a wall clock jumps, in milliseconds: 26 hours.
const CLOCK_JUMP_MS_MAX: u64 = 26 * 3_600_000;

impl SimWorld {
    /// Trouble that may begin with any operation.
    pub(super) fn environment_faults(&mut self, node: u32) {
        let now_ms = self.now_ms();
        if self.hit(node, FaultKind::NetworkLoss) {
            let delay_ms = self.chance_between(0, 60_000);
            let for_ms = self.chance_between(NETWORK_LOSS_MS_MIN, NETWORK_LOSS_MS_MAX);
            self.clock.after(delay_ms, Ev::NetworkLost(node, for_ms));
        }
        if self.hit(node, FaultKind::HostKeyChanged) {
            let for_ms = self.chance_between(1000, HIJACK_MS_MAX);
            self.machine(node).hijacked_until_ms = now_ms + for_ms;
        }
        let jumps = self
            .shared
            .borrow_mut()
            .dice
            .hit(now_ms, None, FaultKind::ClockJump);
        if jumps {
            let by_ms = self.chance_between(0, 2 * CLOCK_JUMP_MS_MAX);
            let by_ms =
                i64::try_from(by_ms).unwrap_or(0) - i64::try_from(CLOCK_JUMP_MS_MAX).unwrap_or(0);
            self.clock.jump_wall(by_ms);
            self.note(u32::MAX, || {
                format!("FAULT: the clock jumped by {by_ms} ms")
            });
        }
    }

    /// Power may be lost at any point of the coming time, or as long as an operation is under way.
    pub(super) fn power_may_fail(&mut self, node: u32, within_ms: u64, during: Option<OpId>) {
        if self.hit(node, FaultKind::PowerLoss) {
            let delay_ms = self.chance_between(0, within_ms);
            self.clock.after(delay_ms, Ev::PowerCut(node, during));
        }
    }

    pub(super) fn power_cut(&mut self, node: u32, during: Option<OpId>) {
        let over = during.is_some_and(|op| !self.ops.contains_key(&op));
        if over || self.machine(node).running == Running::Off {
            return;
        }
        let was = self.machine(node).running.words();
        self.note(node, || format!("power lost while {was}"));
        let copies = self.is_copying(node);
        self.cut(node);
        // Nix writes some files of its database without waiting for the disk.
        if copies && self.coin() {
            self.machine(node).root.store_damaged = true;
        }
        if self.coin() {
            let delay_ms = self.chance_between(1000, 60_000);
            self.soon(node, delay_ms, Turn::PowerBack);
        }
    }

    fn is_copying(&mut self, node: u32) -> bool {
        let command = self.machine(node).command.as_ref();
        command.is_some_and(|command| matches!(*command.ask, Ask::Copy { .. }))
    }

    /// A machine may lose what is on its disks, and its power with it. It happens once, and only to
    /// whom the cluster can spare: what takes its majority for good is beyond anybody's repair.
    pub(super) fn disk_may_be_lost(&mut self, node: u32) {
        let sound = |m: &crate::machine::Machine| !m.is_lost();
        let mut members = self.cluster.members.keys();
        let spared = members.all(|m| self.machines.get(*m as usize).is_some_and(sound))
            && self.cluster.voters() >= 3;
        let once = !self.disk_lost;
        let machine = self.machine(node);
        let member = machine.root.joined && sound(machine);
        let agent = machine.spec.role == Some(ClusterRole::Agent);
        if !(once && member && (spared || agent) && self.hit(node, FaultKind::DiskLost)) {
            return;
        }
        self.cut(node);
        self.disk_lost = true;
        let machine = self.machine(node);
        machine.lost_disk = true;
        machine.root = Root::empty();
        for disk in &mut machine.disks {
            disk.table = Table::Foreign;
        }
        self.shared.borrow_mut().checkers.on_disk_lost(node);
        let delay_ms = self.chance_between(1000, 60_000);
        self.soon(node, delay_ms, Turn::PowerBack);
    }

    pub(super) fn network_lost(&mut self, node: u32, for_ms: u64) {
        self.kubelet_falls_silent(node);
        let until_ms = self.now_ms() + for_ms;
        let machine = self.machine(node);
        machine.network_down_until_ms = machine.network_down_until_ms.max(until_ms);
        self.note(node, || format!("network lost for {} s", for_ms / 1000));
        self.clock.after(for_ms, Ev::NetworkBack(node));
        let session = self.machine(node).command.as_ref().and_then(|c| c.reply_to);
        if let Some(op) = session {
            self.detach(node, op);
            self.break_session(op, node, "the connection timed out");
        }
    }

    pub(super) fn network_back(&mut self, node: u32) {
        let now_ms = self.now_ms();
        if self.machine(node).is_connected(now_ms) {
            self.note(node, || "network is back".to_owned());
            self.look_at(node);
        }
    }

    /// The session of a command is gone. A copy ends with it, as it runs on the controller; other
    /// commands end, or go on without noticing.
    pub(super) fn detach(&mut self, node: u32, op: OpId) {
        let goes_on = self.coin();
        let Some(command) = self.machine(node).command.as_mut() else {
            return;
        };
        if command.reply_to != Some(op) {
            return;
        }
        command.reply_to = None;
        let copies = matches!(*command.ask, Ask::Copy { .. } | Ask::BringScript { .. });
        if copies || !goes_on {
            self.drop_command(node, "");
        }
    }

    /// From now on nothing new goes wrong, and what was lost for a while comes back.
    pub(crate) fn stop_faults(&mut self) {
        if self.shared.borrow().dice.is_stopped() {
            return;
        }
        self.shared.borrow_mut().dice.stop();
        self.note(u32::MAX, || "faults stop".to_owned());
        for node in 0..u32::try_from(self.machines.len()).unwrap_or(0) {
            let machine = self.machine(node);
            machine.network_down_until_ms = 0;
            machine.hijacked_until_ms = 0;
            if !machine.impersonated {
                machine.impostor_until_ms = 0;
                machine.forged = None;
            }
            self.look_at(node);
        }
    }
}
