//! Steps on the installer: their scripts, the connections over which they ask, and the shared link.

use std::rc::Rc;

use undercroft_engine::Order;
use undercroft_model::{Action, FailureKind, NoAnswer, OpId, Outcome, Work};
use undercroft_simkit::FlowId;
use undercroft_steps::{
    Answer, Ask, Next, PREDECESSOR_WAIT_MS, Pinned, SILENCE_MS_MAX, Script, Unanswered, code, pin,
};

use super::{Ev, SimWorld, Stage, installer::Progress};
use crate::{
    faults::FaultKind,
    machine::{Command, FlowEnd, Running},
};

/// How long a connection is tried before nobody is taken to answer, in milliseconds.
pub(super) const CONNECT_MS_MAX: u64 = 10_000;
/// How often a command looks whether an earlier one is through, in milliseconds.
const LOCK_POLL_MS: u64 = 5000;

impl SimWorld {
    /// A step on the installer begins.
    pub(super) fn begin_script(&mut self, op: OpId, node: u32, order: &Order) {
        if let Some(known) = self.ops.get_mut(&op) {
            known.stage = Stage::Asking;
        }
        if order.work == Work::Act {
            let copies = order
                .planned()
                .is_some_and(|step| matches!(step.action, Action::CopyClosure { .. }));
            let within_ms = if copies { 150_000 } else { 25_000 };
            self.power_may_fail(node, within_ms, Some(op));
        }
        self.go_on(op);
    }

    /// A script is told what was answered, and does what comes next.
    pub(super) fn go_on(&mut self, op: OpId) {
        let Some(known) = self.ops.get(&op) else {
            return;
        };
        if !matches!(known.stage, Stage::Asking) {
            return;
        }
        let (node, order) = (known.node, Rc::clone(&known.order));
        let facts = &order.facts;
        let pinned = match pin(facts.report.as_ref(), facts.approval.as_ref()) {
            Ok(pinned) => pinned,
            Err(failure) => return self.reply(op, 0, Outcome::Failed { failure }),
        };
        let (Some(step), Some(planned)) = (order.planned(), order.plan.nodes.get(&order.node))
        else {
            return;
        };
        match Script::new(step, planned, order.work, pinned).next(&known.answers) {
            Some(Next::Ask(ask)) => self.put(op, node, &order, pinned, ask),
            Some(Next::AwaitReturn) => self.await_return(op, node),
            Some(Next::Done(evidence)) => self.done(op, 0, evidence),
            Some(Next::NotDone) => self.reply(op, 0, Outcome::NotDone),
            Some(Next::Failed(failure)) => {
                if failure.kind == FailureKind::Refused {
                    self.check_refusal(node, &failure.message);
                }
                self.reply(op, 0, Outcome::Failed { failure });
            }
            None => self.fail(op, 0, FailureKind::Permanent, "no step on an installer"),
        }
    }

    /// Only what a fault has done to a machine is a reason to refuse it.
    fn check_refusal(&mut self, node: u32, said: &str) {
        let name = self.name(node);
        let mut shared = self.shared.borrow_mut();
        let reason = shared.dice.injected().iter().any(|(_, of, kind)| {
            *of == Some(node)
                && matches!(
                    kind,
                    FaultKind::WrongSerial
                        | FaultKind::HostKeyChanged
                        | FaultKind::StolenMac
                        | FaultKind::StolenForGood
                )
        });
        shared.checkers.on_refusal(name.as_str(), reason, said);
    }

    fn answered(&mut self, op: OpId, answer: Answer) {
        if let Some(known) = self.ops.get_mut(&op) {
            known.silent_since_ms = None;
            known.answers.push(answer);
            self.go_on(op);
        }
    }

    /// Asks the machine, once it can be reached and the command before this one has ended.
    fn put(&mut self, op: OpId, node: u32, order: &Rc<Order>, pinned: Pinned<'_>, ask: Ask) {
        // What the boot servers do, and keys and files that these machines don't have.
        if matches!(
            ask,
            Ask::OfferDisk | Ask::GiveDiskKeys | Ask::TakeDiskKeys | Ask::GiveExtraFiles
        ) {
            return self.answered(op, Answer::Done);
        }
        let now = self.now();
        if let Some(step) = order.planned()
            && let Err(failure) = pinned.may_connect(&step.action, now.wall_ms)
        {
            return self.reply(op, 0, Outcome::Failed { failure });
        }
        let Some(known) = self.ops.get_mut(&op) else {
            return;
        };
        let since_ms = *known.silent_since_ms.get_or_insert(now.mono_ms);
        let (first, waited_ms) = (known.answers.is_empty(), now.mono_ms - since_ms);
        match self.connect(node, &pinned.approval.fingerprint) {
            Ok(()) => {}
            // Nothing was run, so that trying again is safe.
            Err(silent) if silent.why == NoAnswer::Unreachable && waited_ms < SILENCE_MS_MAX => {
                return self.clock.after(CONNECT_MS_MAX, Ev::Ask(op));
            }
            Err(unanswered) => return self.answered(op, Answer::Nothing(unanswered)),
        }
        if self.machine(node).command.is_some() {
            // An earlier command holds the machine's lock.
            if waited_ms >= PREDECESSOR_WAIT_MS {
                return self.answered(op, Answer::code(code::BUSY));
            }
            return self.clock.after(LOCK_POLL_MS, Ev::Ask(op));
        }
        let id = self.number();
        self.machine(node).command = Some(Command {
            id,
            reply_to: Some(op),
            order: Rc::clone(order),
            ask: Rc::new(ask),
            part: 0,
            flow: None,
            flow_bytes: 0,
            flow_end: FlowEnd::Whole,
        });
        if first {
            // Its way to the machine was a part of the operation's own.
            return self.command_goes_on(node, id);
        }
        let ssh = self.profile.ssh;
        let way_ms = ssh.draw(&mut self.machine(node).rng);
        self.clock.after(way_ms, Ev::Command(node, id));
    }

    /// Connects to the installer that was approved, and to no other.
    fn connect(&mut self, node: u32, pinned: &str) -> Result<(), Box<Unanswered>> {
        let now = self.now();
        let machine = self.machine(node);
        if !machine.is_connected(now.mono_ms) {
            return Err(nobody_answers());
        }
        match machine.shown_key(now.mono_ms) {
            None => return Err(nobody_answers()),
            Some(shown) if shown != pinned => return Err(other_key(shown)),
            Some(_) => {}
        }
        let Running::Installer(instance) = &mut machine.running else {
            return Err(other_key(pinned));
        };
        if !std::mem::replace(&mut instance.contacted, true) {
            let fingerprint = instance.fingerprint().to_owned();
            let mut shared = self.shared.borrow_mut();
            shared.checkers.on_first_contact(&fingerprint, now.wall_ms);
        }
        Ok(())
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
        let Some(known) = self.ops.get(&op) else {
            return;
        };
        if matches!(known.stage, Stage::Asking) {
            let lost = Unanswered::new(NoAnswer::Interrupted, message);
            let asked = known.answers.len();
            self.clock
                .after(after_ms, Ev::NoAnswer(op, asked, Box::new(lost)));
        }
    }

    /// The controller notices that a session is lost.
    pub(super) fn session_lost(&mut self, op: OpId, asked: usize, lost: Box<Unanswered>) {
        let here = |known: &super::Op| known.answers.len() == asked;
        if self.ops.get(&op).is_some_and(here) {
            self.answered(op, Answer::Nothing(lost));
        }
    }

    /// The next part of a command.
    pub(super) fn command_goes_on(&mut self, node: u32, id: u64) {
        let machine = self.machine(node);
        let Some(command) = machine.command.as_mut().filter(|c| c.id == id) else {
            return;
        };
        let part = command.part;
        command.part += 1;
        let (ask, order) = (Rc::clone(&command.ask), Rc::clone(&command.order));
        match self.work_on(node, &order, &ask, part) {
            Progress::Later(delay_ms) => self.clock.after(delay_ms, Ev::Command(node, id)),
            Progress::Sends(bytes) => self.send(node, bytes),
            Progress::Answers(answer) => self.end_command(node, answer),
        }
    }

    /// The command is through.
    fn end_command(&mut self, node: u32, answer: Answer) {
        let Some(command) = self.machine(node).command.take() else {
            return;
        };
        let Some(op) = command.reply_to else {
            return;
        };
        if command.ask.changes() && self.hit(node, FaultKind::SshDies) {
            return self.break_session(op, node, "the connection was closed");
        }
        self.answered(op, answer);
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
            } else if let Some(id) = self.machine(node).command.as_ref().map(|c| c.id) {
                self.command_goes_on(node, id);
            }
        }
        self.schedule_link();
    }
}

pub(super) fn nobody_answers() -> Box<Unanswered> {
    Box::new(Unanswered::new(
        NoAnswer::Unreachable,
        "nobody answers at the address",
    ))
}

pub(super) fn other_key(shown: &str) -> Box<Unanswered> {
    let message = "another host key is shown at the address than the one that is pinned";
    Box::new(Unanswered::new(NoAnswer::OtherKey, message).showing(Some(shown.to_owned())))
}
