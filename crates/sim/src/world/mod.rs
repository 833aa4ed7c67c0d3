//! The simulated world: machines, a network, people, and the operations that work on them.
//!
//! It stands where `metal` stands: it takes the engine's orders and gives outcomes. What an
//! operation does to a machine happens in parts over simulated time, each on the machine as it then
//! is, so that a power cut between two of them leaves what it would leave of a real machine.

mod boot;
mod cluster;
mod command;
mod environment;
mod ground;
mod installer;
mod member;
mod probe;
mod returns;
mod sabotage;
#[cfg(test)]
mod targeted_loss;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque},
    rc::Rc,
    sync::Arc,
};

use undercroft_engine::{Event, Order, World};
use undercroft_model::{
    Action, Approval, ApprovalMode, Evidence, Failure, FailureKind, InstallerReport, NodeName,
    NodePlan, Now, OpId, Outcome, Plan, Work,
};
use undercroft_simkit::{Clock, FlowId, Link, Rng};
use undercroft_steps::{Answer, AwaitedReport, ClusterScript, Unanswered};

use crate::{
    cluster::Cluster,
    faults::{Dice, FaultKind},
    fleet::Spec,
    machine::{Machine, Running, has_its_key},
    profile::Profile,
    shared::SharedRef,
};

pub(crate) use sabotage::Sabotage;
#[cfg(test)]
pub(crate) use targeted_loss::{Loss, TargetedLoss};

/// What is to happen to a machine by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The firmware is through with its tests.
    FirmwareDone,
    /// DHCP and TFTP are through; the download of the installer begins.
    LoadInstaller,
    /// The installer listens and reports.
    InstallerUp,
    /// It goes down for its reboot.
    Reboots,
    /// The system from the disk listens.
    SystemUp,
    /// Power comes back after an outage.
    PowerBack,
    /// Its part of Kubernetes has its images.
    KubeUp,
    /// Its member of etcd has caught up.
    EtcdVotes,
    /// Its kubelet asks the API again.
    Register,
}

/// An event of the simulated world.
#[derive(Debug)]
pub(crate) enum Ev {
    /// An operation has got as far as its machine, or as its person.
    Arrived(OpId),
    /// An operation's outcome reaches the controller.
    Reply(OpId),
    /// An outcome that nobody waits for reaches the controller.
    Stray(OpId, Box<Outcome>),
    /// Something that a machine does by itself, in that epoch.
    Machine(u32, u32, Turn),
    /// A script asks again what it couldn't ask.
    Ask(OpId),
    /// The controller notices that an operation's session was lost after that many answers.
    NoAnswer(OpId, usize, Box<Unanswered>),
    /// An operation looks at its machine's address again.
    Look(OpId),
    /// A step of the cluster looks again at what it waits for.
    Cluster(OpId),
    /// The next part of that command on that machine.
    Command(u32, u64),
    /// A transfer is through, if the link hasn't changed since.
    Link(u64),
    /// Power is lost, if that operation is still under way; without one, in any case.
    PowerCut(u32, Option<OpId>),
    /// The network is lost for so many milliseconds.
    NetworkLost(u32, u64),
    /// The network is back.
    NetworkBack(u32),
    /// Somebody else reports in as that machine.
    ImpostorReports(u32),
    /// The operator presses Ctrl-C.
    Interrupt,
    /// What is to be done was decided anew: what runs comes to its end.
    WindDown,
    /// From now on nothing new goes wrong.
    FaultsStop,
    /// What a test takes away.
    #[cfg(test)]
    TargetedLoss,
}

/// How far an operation is.
#[derive(Debug)]
enum Stage {
    /// On its way to the machine or to the person.
    Going,
    /// Its script asks the machine one thing after the other.
    Asking,
    /// The machine is to report in from another boot than these.
    AwaitReport(BTreeSet<String>),
    /// The machine is to return.
    AwaitReturn,
    /// A step of the cluster looks again and again.
    Clustering,
    /// The machine's screen is to show one of those who claim to be it.
    AwaitScreen,
    /// The outcome is on its way back.
    Replying(Box<Outcome>),
}

struct Op {
    order: Rc<Order>,
    node: u32,
    stage: Stage,
    started_ms: u64,
    /// What its script was answered so far.
    answers: Vec<Answer>,
    /// How far its script is, where it is a step of the cluster's.
    script: ClusterScript,
    /// Since when its machine can't be asked.
    silent_since_ms: Option<u64>,
    /// When a foreign key was first shown in place of its machine's.
    foreign_since_ms: Option<u64>,
    /// How long its machine's return is waited for.
    until_ms: u64,
}

/// What a person had to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ManualWork {
    pub(crate) buttons: u32,
    pub(crate) approvals: u32,
    pub(crate) person_ms: u64,
}

/// The world.
pub(crate) struct SimWorld {
    pub(crate) profile: Rc<Profile>,
    pub(crate) clock: Clock<Ev>,
    pub(crate) machines: Vec<Machine>,
    pub(crate) shared: SharedRef,
    /// What the controller is told next.
    pub(crate) out: VecDeque<Event>,
    pub(crate) manual_work: ManualWork,
    pub(crate) wiped: Vec<(u32, String)>,
    pub(crate) cluster: Cluster,
    /// Whether a machine has lost its disk.
    disk_lost: bool,
    #[cfg(test)]
    pub(crate) sabotage: Option<Sabotage>,
    #[cfg(test)]
    pub(crate) targeted_loss: Option<TargetedLoss>,
    places: BTreeMap<NodeName, u32>,
    /// The plan that was last worked on, and the place of each of its steps' machines.
    planned: Option<(Arc<Plan>, Vec<u32>)>,
    ops: BTreeMap<OpId, Op>,
    link: Link,
    link_generation: u64,
    flows: BTreeMap<FlowId, u32>,
    next_number: u64,
    /// When each person is free again, the first one foremost.
    people: BinaryHeap<Reverse<u64>>,
    /// What was approved, by fingerprint: the controller's own table of approvals.
    approvals: BTreeMap<String, Approval>,
}

impl SimWorld {
    pub(crate) fn new(seed: u64, specs: Vec<Spec>, profile: Profile, shared: SharedRef) -> Self {
        let places = crate::fleet::places(&specs);
        let people = (specs.len() / usize::try_from(profile.nodes_per_person.max(1)).unwrap_or(1))
            .saturating_add(1);
        let mut machines: Vec<Machine> = (2u64..)
            .zip(specs)
            .map(|(purpose, spec)| Machine::new(spec, Rng::split(seed, purpose)))
            .collect();
        {
            let mut shared = shared.borrow_mut();
            for (node, machine) in (0u32..).zip(&mut machines) {
                Self::permanent_faults(&mut shared.dice, node, machine);
            }
        }
        let impersonated: Vec<u32> = (0u32..)
            .zip(&machines)
            .filter(|(_, machine)| machine.impersonated)
            .map(|(node, _)| node)
            .collect();
        let mut world = Self {
            link: Link::new(profile.uplink_bytes_per_ms, profile.host_bytes_per_ms),
            profile: Rc::new(profile),
            clock: Clock::new(),
            machines,
            shared,
            out: VecDeque::new(),
            manual_work: ManualWork::default(),
            wiped: Vec::new(),
            cluster: Cluster::default(),
            disk_lost: false,
            #[cfg(test)]
            sabotage: None,
            #[cfg(test)]
            targeted_loss: None,
            places,
            planned: None,
            ops: BTreeMap::new(),
            link_generation: 0,
            flows: BTreeMap::new(),
            next_number: seed ^ 0x0b07,
            people: vec![Reverse(0); people].into(),
            approvals: BTreeMap::new(),
        };
        for node in impersonated {
            world.impostor_comes(node);
        }
        world
    }

    /// Faults that a machine has from the start and for good.
    fn permanent_faults(dice: &mut Dice, node: u32, machine: &mut Machine) {
        machine.dead = dice.hit(0, Some(node), FaultKind::DeadMachine);
        if dice.hit(0, Some(node), FaultKind::WrongSerial)
            && let Some(disk) = machine.disks.first_mut()
        {
            machine.wrong_serial = true;
            disk.serial = Some("ANOTHER-DISK".to_owned());
            disk.wwn = None;
        }
        machine.impersonated = dice.hit(0, Some(node), FaultKind::StolenForGood);
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    pub(crate) fn now(&self) -> Now {
        Now {
            mono_ms: self.clock.now_ms(),
            wall_ms: self.clock.wall_ms(),
        }
    }

    pub(crate) fn uplink_ms(&self) -> (u64, u64) {
        self.link.busy_and_shared_ms()
    }

    pub(crate) fn people(&self) -> usize {
        self.people.len()
    }

    /// The machine in that place. Places come from this world alone, so each has its machine.
    #[expect(
        clippy::indexing_slicing,
        reason = "places are made with the machines and neither changes afterwards"
    )]
    pub(crate) fn machine(&mut self, node: u32) -> &mut Machine {
        &mut self.machines[node as usize]
    }

    fn name(&mut self, node: u32) -> NodeName {
        self.machine(node).spec.name.clone()
    }

    fn number(&mut self) -> u64 {
        self.next_number = self.next_number.wrapping_add(1);
        Rng::new(self.next_number).next_u64()
    }

    fn hit(&mut self, node: u32, kind: FaultKind) -> bool {
        let now_ms = self.now_ms();
        let hit = self.shared.borrow_mut().dice.hit(now_ms, Some(node), kind);
        if hit {
            self.note(node, || format!("FAULT: {}", kind.words()));
        }
        hit
    }

    fn chance_between(&self, low: u64, high: u64) -> u64 {
        self.shared.borrow_mut().dice.rng().between(low, high)
    }

    fn coin(&self) -> bool {
        self.shared.borrow_mut().dice.rng().chance(512)
    }

    pub(crate) fn note(&mut self, node: u32, what: impl FnOnce() -> String) {
        let now_ms = self.now_ms();
        let name = self
            .machines
            .get(node as usize)
            .map_or("", |m| m.spec.name.as_str());
        self.shared.borrow_mut().trace.note(now_ms, name, what);
    }

    /// Lets the next event happen.
    pub(crate) fn happen(&mut self) {
        let Some(event) = self.clock.pop() else {
            return;
        };
        self.shared.borrow_mut().at(self.clock.now_ms());
        let late = matches!(
            event,
            Ev::PowerCut(..)
                | Ev::NetworkLost(..)
                | Ev::ImpostorReports(..)
                | Ev::Interrupt
                | Ev::WindDown
        );
        if late && self.shared.borrow().dice.is_stopped() {
            // It was on its way when faults stopped; only an impostor for good goes on.
            let stays =
                matches!(event, Ev::ImpostorReports(node) if self.machine(node).impersonated);
            if !stays {
                return;
            }
        }
        match event {
            Ev::Arrived(op) => self.arrived(op),
            Ev::Reply(op) => self.reply_arrives(op),
            Ev::Stray(op, outcome) => self.tell(Event::Ended {
                op,
                outcome: *outcome,
            }),
            Ev::Machine(node, epoch, turn) => self.turn(node, epoch, turn),
            Ev::Ask(op) => self.go_on(op),
            Ev::NoAnswer(op, asked, lost) => self.session_lost(op, asked, lost),
            Ev::Look(op) => self.look_for(op),
            Ev::Cluster(op) => self.cluster_goes_on(op),
            Ev::Command(node, id) => self.command_goes_on(node, id),
            Ev::Link(generation) => self.link_moves(generation),
            Ev::PowerCut(node, during) => self.power_cut(node, during),
            Ev::NetworkLost(node, for_ms) => self.network_lost(node, for_ms),
            Ev::NetworkBack(node) => self.network_back(node),
            Ev::ImpostorReports(node) => self.impostor_reports(node),
            Ev::Interrupt => self.tell(Event::Interrupt),
            Ev::WindDown => self.tell(Event::WindDown),
            Ev::FaultsStop => self.stop_faults(),
            #[cfg(test)]
            Ev::TargetedLoss => self.inject_loss(),
        }
    }

    fn tell(&mut self, event: Event) {
        if !self.shared.borrow().killed {
            self.out.push_back(event);
        }
    }

    /// An operation's way ends: its outcome goes back to the controller.
    fn reply(&mut self, op: OpId, after_ms: u64, outcome: Outcome) {
        let Some(known) = self.ops.get_mut(&op) else {
            return;
        };
        known.stage = Stage::Replying(Box::new(outcome));
        self.clock.after(after_ms, Ev::Reply(op));
    }

    fn fail(&mut self, op: OpId, after_ms: u64, kind: FailureKind, message: impl Into<String>) {
        let failure = Failure::new(kind, message);
        self.reply(op, after_ms, Outcome::Failed { failure });
    }

    fn done(&mut self, op: OpId, after_ms: u64, evidence: Evidence) {
        self.reply(op, after_ms, Outcome::Done { evidence });
    }

    fn reply_arrives(&mut self, op: OpId) {
        let Some(known) = self.ops.remove(&op) else {
            return;
        };
        let Stage::Replying(outcome) = known.stage else {
            return;
        };
        let reports = matches!(
            &*outcome,
            Outcome::Done {
                evidence: Evidence::Seen { .. }
            }
        );
        if reports && self.is_sabotaged(Sabotage::LosesReports) {
            return;
        }
        self.machine(known.node).waiting.retain(|o| *o != op);
        if let Outcome::Done {
            evidence:
                Evidence::Up {
                    booted_system,
                    boot_id,
                    ..
                },
        } = &*outcome
        {
            let machine = self.machine(known.node);
            machine.ever_up = true;
            let name = machine.spec.name.to_string();
            let ran = machine
                .last_system
                .as_ref()
                .filter(|(boot, _)| crate::fleet::boot_id(*boot) == *boot_id)
                .map(|(_, system)| system.clone());
            let wanted = machine.spec.target.toplevel.clone();
            let mut shared = self.shared.borrow_mut();
            shared.checkers.on_up(&name, &wanted, ran.as_deref());
            shared.checkers.on_up(&name, &wanted, Some(booted_system));
        }
        if self.hit(known.node, FaultKind::DoubledOutcome) {
            let delay_ms = self.chance_between(0, 10_000);
            self.clock.after(delay_ms, Ev::Stray(op, outcome.clone()));
        }
        self.tell(Event::Ended {
            op,
            outcome: *outcome,
        });
    }

    /// An operation has got to its machine, or its person has come to it.
    fn arrived(&mut self, op: OpId) {
        let Some(known) = self.ops.get(&op) else {
            return;
        };
        let (node, order) = (known.node, Rc::clone(&known.order));
        let Some(step) = order.planned() else {
            return;
        };
        if order.work == Work::Probe {
            return self.probe(op, node, &order);
        }
        match &step.action {
            Action::NetworkBoot => self.power_cycle_for(op, node),
            Action::Approve { .. } => self.screen_is_read(op, node),
            Action::Prove { .. } => self.await_return(op, node),
            Action::Fetch { .. }
            | Action::Drain
            | Action::Stage { .. }
            | Action::Restart { .. }
            | Action::Confirm { .. }
            | Action::Release => self.has_no_updates(op),
            Action::FoundCluster
            | Action::JoinCluster { .. }
            | Action::AwaitReady { .. }
            | Action::Bootstrap { .. } => self.begin_cluster_step(op, node, &order),
            Action::Inspect { .. }
            | Action::Partition { .. }
            | Action::CopyClosure { .. }
            | Action::Install { .. }
            | Action::Reboot { .. } => self.begin_script(op, node, &order),
        }
    }

    /// Someone, or a console, compares what the machine's screen shows with those who claim to be
    /// the machine, and approves that one. As long as it shows none of them, they wait.
    fn screen_is_read(&mut self, op: OpId, node: u32) {
        let Some(order) = self.ops.get(&op).map(|known| Rc::clone(&known.order)) else {
            return;
        };
        let Some(Action::Approve { mode, expires_ms }) = order.planned().map(|s| &s.action) else {
            return;
        };
        let wall_ms = self.now().wall_ms;
        let approval = |fingerprint: &str, by: &str| Approval {
            fingerprint: fingerprint.to_owned(),
            by: by.to_owned(),
            granted_wall_ms: wall_ms,
            expires_wall_ms: wall_ms.saturating_add(*expires_ms),
        };
        let first = order.facts.report.as_ref().map(|r| r.fingerprint.as_str());
        if let Some(first) = first
            && self.is_sabotaged(Sabotage::ApprovesAnyone)
        {
            let (approval, report) = (approval(first, "nobody"), None);
            return self.done(op, 0, Evidence::Approved { approval, report });
        }
        let now_ms = self.now_ms();
        let machine = self.machine(node);
        // Only a report that may be the machine's is shown to anybody who could approve it.
        let identity = order.plan.nodes.get(&order.node).map(NodePlan::identity);
        let takes = |report: &InstallerReport| {
            identity.is_some_and(|identity| {
                let awaited = AwaitedReport::of_any_boot(identity);
                awaited.refuses(report, has_its_key(report)).is_none()
            })
        };
        let shown = machine.heard_report(now_ms).filter(takes);
        let Some(shown) = shown else {
            self.note(node, || {
                "its screen shows none of those who claim to be it".to_owned()
            });
            if let Some(known) = self.ops.get_mut(&op) {
                known.stage = Stage::AwaitScreen;
                self.machine(node).waiting.retain(|o| *o != op);
                self.machine(node).waiting.push(op);
            }
            return;
        };
        let by = match mode {
            ApprovalMode::Operator => "operator alice",
            ApprovalMode::Console => "console",
        };
        let approval = approval(&shown.fingerprint, by);
        self.shared.borrow_mut().checkers.on_approved(&approval);
        self.approvals
            .insert(approval.fingerprint.clone(), approval.clone());
        let another = first != Some(shown.fingerprint.as_str());
        let report = another.then(|| Box::new(shown));
        self.done(op, 0, Evidence::Approved { approval, report });
    }

    /// The time until one of the people is free and has done something that takes so long.
    fn person(&mut self, takes_ms: u64) -> u64 {
        let now_ms = self.now_ms();
        self.manual_work.person_ms += takes_ms;
        let Some(mut first) = self.people.peek_mut() else {
            return takes_ms;
        };
        let Reverse(free) = &mut *first;
        *free = (*free).max(now_ms) + takes_ms;
        *free - now_ms
    }

    /// The place of an order's machine.
    fn place_of(&mut self, order: &Order) -> Option<u32> {
        if order.planned().is_none_or(|step| step.node != order.node) {
            return self.places.get(&order.node).copied();
        }
        let known = self.planned.take();
        let known = known.filter(|(plan, _)| Arc::ptr_eq(plan, &order.plan));
        let (_, places) = self.planned.insert(known.unwrap_or_else(|| {
            let places = crate::fleet::places_of_steps(&self.places, &order.plan);
            (Arc::clone(&order.plan), places)
        }));
        let place = places.get(order.step.index()).copied();
        place.filter(|place| usize::try_from(*place).is_ok_and(|at| at < self.machines.len()))
    }

    /// How long an operation takes to get to its machine.
    fn way_ms(&mut self, node: u32, order: &Order) -> u64 {
        let profile = Rc::clone(&self.profile);
        let mut rng = self.machine(node).rng.clone();
        let way_ms = match order.planned().map(|s| &s.action) {
            Some(Action::NetworkBoot) if order.work == Work::Act => {
                if self.machine(node).spec.manual_power {
                    self.manual_work.buttons += 1;
                    let takes_ms = profile.person_power.draw(&mut rng);
                    self.person(takes_ms)
                } else {
                    profile.power.draw(&mut rng)
                }
            }
            Some(Action::Approve { mode, .. }) if order.work == Work::Act => match mode {
                ApprovalMode::Operator => {
                    self.manual_work.approvals += 1;
                    let takes_ms = profile.person_approve.draw(&mut rng);
                    self.person(takes_ms)
                }
                ApprovalMode::Console => profile.console_approve.draw(&mut rng),
            },
            _ => profile.ssh.draw(&mut rng),
        };
        self.machine(node).rng = rng;
        way_ms
    }

    /// The controller has died: nobody waits for anything any more. Commands that run on
    /// machines end with their sessions, or don't notice.
    pub(crate) fn controller_died(&mut self) {
        let ops = std::mem::take(&mut self.ops);
        self.out.clear();
        // What was heard was kept in its memory.
        for machine in &mut self.machines {
            machine.heard_boots.clear();
        }
        for (op, known) in ops {
            self.machine(known.node).waiting.retain(|o| *o != op);
            self.detach(known.node, op);
        }
    }

    /// Installers report again to a controller that has begun anew, as they do every few seconds.
    pub(crate) fn controller_back(&mut self) {
        for node in 0..u32::try_from(self.machines.len()).unwrap_or(0) {
            if let Running::Installer(instance) = &mut self.machine(node).running {
                instance.reported = false;
                self.look_at(node);
            }
        }
    }
}

impl World for SimWorld {
    fn start(&mut self, order: Order) {
        let killed = self.shared.borrow().killed;
        if killed {
            return;
        }
        let Some(node) = self.place_of(&order) else {
            return;
        };
        {
            let mut shared = self.shared.borrow_mut();
            shared.checkers.on_start(&order);
            shared.open_span(order.op, order.step, node, order.work);
        }
        let way_ms = self.way_ms(node, &order);
        self.note(node, || {
            let verb = order.planned().map_or("?", |s| s.action.verb());
            format!(
                "{}: {:?} {verb}, try {}",
                order.op, order.work, order.attempt
            )
        });
        let op = order.op;
        #[cfg(test)]
        self.arm_loss(node, &order);
        self.ops.insert(
            op,
            Op {
                order: Rc::new(order),
                node,
                stage: Stage::Going,
                started_ms: self.clock.now_ms(),
                answers: Vec::new(),
                script: ClusterScript::default(),
                silent_since_ms: None,
                foreign_since_ms: None,
                until_ms: 0,
            },
        );
        self.clock.after(way_ms, Ev::Arrived(op));
        if !self.shared.borrow().dice.is_stopped() {
            self.environment_faults(node);
            self.shared
                .borrow_mut()
                .maybe_kill("after it had started an operation");
        }
    }

    fn cancel(&mut self, op: OpId) {
        if self.shared.borrow().killed {
            return;
        }
        self.shared.borrow_mut().checkers.on_cancel(op);
        let Some(known) = self.ops.remove(&op) else {
            return;
        };
        let node = known.node;
        self.note(node, || format!("{op} called off"));
        self.machine(node).waiting.retain(|o| *o != op);
        if self.hit(node, FaultKind::LateOutcome) {
            let delay_ms = self.chance_between(0, 60_000);
            // What it would have said, or that it was cut off.
            let outcome = match known.stage {
                Stage::Replying(outcome) => outcome,
                _ => Box::new(Outcome::Failed {
                    failure: Failure::new(FailureKind::Ambiguous, "it was called off"),
                }),
            };
            self.clock.after(delay_ms, Ev::Stray(op, outcome));
        }
        // What runs there may outlive its connection.
        self.detach(node, op);
    }
}
