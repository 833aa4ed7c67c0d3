//! A scripted world: machines that do what they are told, except where the script says otherwise.
//! It keeps its own truth apart from the engine's, so that the two can be compared.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a panic is the finding"
)]
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use undercroft_engine::{Driver, Engine, Event, Journal, JournalError, Order, World};
use undercroft_model::{
    Action, Approval, BootstrapPart, ClusterRole, Entry, Evidence, Failure, FailureKind,
    InstallerReport, MachineUuid, NodeName, Now, Observation, OpId, Outcome, Plan, Record,
    ReportedFirmware, Resource, RunEnd, System, SystemTarget, Work,
    inventory::{Inventory, parse},
};
use undercroft_planner::plan;

/// More events than any run of these tests needs; a run that reaches it doesn't end.
const EVENTS_MAX: usize = 200_000;

pub(crate) fn name(n: usize) -> NodeName {
    NodeName::new(format!("n{n:05}")).unwrap()
}

pub(crate) fn inventory(nodes: usize, limits: &str) -> Inventory {
    cluster_inventory(nodes, 0, limits)
}

/// An inventory whose first machines are servers of a cluster, where there are any; the rest are
/// agents.
pub(crate) fn cluster_inventory(nodes: usize, servers: usize, limits: &str) -> Inventory {
    use std::fmt::Write;
    let mut text = format!(
        "[fleet]\nname = \"cellar\"\n[fleet.limits]\n{limits}\n\
         [network]\nnode_cidr = \"172.16.0.0/12\"\nserver_address = \"172.16.0.1\"\n\
         [classes.plain]\nrole = \"agent\"\n"
    );
    if servers > 0 {
        text.push_str(
            "[kubernetes]\ndistribution = \"k3s\"\nfounder = \"n00000\"\n\
             pod_cidr = \"10.42.0.0/16\"\n[gitops]\n\
             repository = \"https://git.cellar.example/fleet.git\"\ncomponents = [\"cilium\"]\n",
        );
    }
    for n in 0..nodes {
        write!(
            text,
            "[nodes.n{n:05}]\nclass = \"plain\"\nmacs = [\"52:54:00:{:02x}:{:02x}:{:02x}\"]\n\
             address = \"172.17.{}.{}\"\ndisks = [{{ serial = \"S{n:05}\" }}]\n",
            n >> 16,
            n >> 8 & 0xff,
            n & 0xff,
            n / 200,
            n % 200 + 10
        )
        .unwrap();
        if n < servers {
            text.push_str("role = \"server\"\n");
        }
    }
    let parsed = parse("undercroft.toml", text.as_bytes());
    parsed
        .inventory
        .unwrap_or_else(|| panic!("{:?}", parsed.diagnostics))
}

/// A plan that installs that many machines.
pub(crate) fn plan_of(nodes: usize, limits: &str) -> Plan {
    plan_for(&inventory(nodes, limits))
}

/// A plan that installs that many machines, of which the first are the servers of a cluster.
pub(crate) fn cluster_plan(nodes: usize, servers: usize, limits: &str) -> Plan {
    plan_for(&cluster_inventory(nodes, servers, limits))
}

fn plan_for(inventory: &Inventory) -> Plan {
    let mut observation = Observation::default();
    for name in inventory.nodes.keys() {
        let target = SystemTarget {
            toplevel: format!("/nix/store/0c0vdzlgl5n8kbzvxjmmdhdnjgcl7c6x-{name}"),
            disko_script: None,
            disko_mount_script: None,
            disko_devices: None,
            system: System::X86_64Linux,
            closure_bytes: Some(1 << 20),
        };
        observation.targets.insert(name.clone(), Ok(target));
        let key = format!("SHA256:key-of-{name}");
        observation.host_keys.insert(name.clone(), key);
    }
    plan(inventory, &observation, None).0
}

/// What an operation does instead of succeeding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Twist {
    /// It fails so, without effect.
    Fails(FailureKind),
    /// It takes effect, and its end is lost.
    DoneButAmbiguous,
    /// It takes effect, and never ends.
    DoneButHangs,
    /// It never ends and has no effect.
    Hangs,
    /// A probe finds it not done.
    NotDone,
    /// The machine loses its power meanwhile: it is off, and the operation can't tell.
    PowerCut,
}

/// What is true of a machine.
#[derive(Debug, Clone, Default)]
pub(crate) struct Machine {
    pub(crate) boots: u32,
    pub(crate) installer: bool,
    pub(crate) mounted: bool,
    pub(crate) table: Option<MachineUuid>,
    pub(crate) copied: bool,
    pub(crate) installed: bool,
    pub(crate) up: bool,
    pub(crate) wipes: u32,
    pub(crate) acts: u32,
    pub(crate) joined: bool,
    pub(crate) ready: bool,
    pub(crate) parts: BTreeSet<BootstrapPart>,
}

impl Machine {
    pub(crate) fn boot_id(&self, node: &NodeName) -> String {
        format!("{node}-boot-{}", self.boots)
    }

    fn lose_power(&mut self) {
        self.installer = false;
        self.mounted = false;
        self.up = false;
    }
}

/// A journal in memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory {
    pub(crate) entries: Vec<Entry>,
    pub(crate) appends: usize,
    pub(crate) full: bool,
}

impl Journal for Memory {
    fn append(&mut self, wall_ms: u64, records: Vec<Record>) -> Result<Vec<Entry>, JournalError> {
        if self.full {
            return Err(JournalError::Write("no space left on device".to_owned()));
        }
        self.appends += 1;
        let first = self.entries.len() as u64;
        let entries: Vec<Entry> = (first..)
            .zip(records)
            .map(|(seq, record)| Entry {
                seq,
                wall_ms,
                record,
            })
            .collect();
        self.entries.extend(entries.clone());
        Ok(entries)
    }
}

/// The world, with its own clock and its script: twists by machine and verb, taken in order.
#[derive(Debug, Default)]
pub(crate) struct Scripted {
    pub(crate) now: Now,
    pub(crate) machines: BTreeMap<NodeName, Machine>,
    pub(crate) twists: BTreeMap<(NodeName, &'static str, Work), VecDeque<Twist>>,
    /// How long each operation takes, in milliseconds.
    pub(crate) op_ms: u64,
    /// How long an approval is good for, where it isn't what the step says.
    pub(crate) approval_ms: Option<u64>,
    /// What is under way, by the moment at which it ends.
    pub(crate) ends: BTreeMap<(u64, OpId), Outcome>,
    pub(crate) running: BTreeMap<OpId, Order>,
    pub(crate) most_held: BTreeMap<Resource, usize>,
    pub(crate) log: Vec<(NodeName, &'static str, Work, u32)>,
    pub(crate) keep_log: bool,
}

impl Scripted {
    pub(crate) fn new() -> Self {
        Self {
            now: Now {
                mono_ms: 0,
                wall_ms: 1_700_000_000_000,
            },
            op_ms: 1_000,
            keep_log: true,
            ..Self::default()
        }
    }

    pub(crate) fn twist(&mut self, node: usize, verb: &'static str, work: Work, twist: Twist) {
        self.twists
            .entry((name(node), verb, work))
            .or_default()
            .push_back(twist);
    }

    pub(crate) fn report(&self, plan: &Plan, node: &NodeName) -> InstallerReport {
        let boot_id = self.machines.get(node).cloned().unwrap_or_default();
        let boot_id = boot_id.boot_id(node);
        let planned = &plan.nodes[node];
        InstallerReport {
            version: 1,
            nonce: "0".repeat(32),
            uuid: None,
            macs: planned.macs.clone(),
            address: planned.address,
            host_key: format!("ssh-ed25519 {boot_id}"),
            fingerprint: format!("SHA256:{boot_id}"),
            boot_id,
            system: System::X86_64Linux,
            firmware: ReportedFirmware::Uefi,
            memory_mb: 2048,
            installer: "scripted".to_owned(),
            disks: Vec::new(),
            token: None,
        }
    }

    /// Whether the machine is in the state that the step stands on, as a pinned connection sees it.
    fn stands(&self, order: &Order) -> bool {
        let machine = &self.machines[&order.node];
        let step = order.planned().unwrap();
        let pinned = order
            .facts
            .approval
            .as_ref()
            .map(|a| a.fingerprint.as_str());
        let shown = format!("SHA256:{}", machine.boot_id(&order.node));
        match &step.action {
            Action::NetworkBoot => true,
            Action::Approve { .. } => machine.installer,
            Action::Inspect { .. } | Action::Partition { .. } => {
                machine.installer && pinned == Some(&shown)
            }
            Action::CopyClosure { .. } => {
                machine.installer && pinned == Some(&shown) && machine.mounted
            }
            Action::Install { .. } => {
                machine.installer && pinned == Some(&shown) && machine.mounted && machine.copied
            }
            Action::Reboot { .. } => {
                machine.up || machine.installer && pinned == Some(&shown) && machine.installed
            }
            Action::Prove { .. } | Action::FoundCluster | Action::JoinCluster { .. } => machine.up,
            Action::AwaitReady { .. } | Action::Bootstrap { .. } => machine.up && machine.joined,
            action => unreachable!("no machine of this world is updated: {}", action.verb()),
        }
    }

    fn is_done(&self, order: &Order) -> bool {
        let machine = &self.machines[&order.node];
        match &order.planned().unwrap().action {
            Action::NetworkBoot | Action::Approve { .. } => machine.installer,
            Action::Inspect { .. } => false,
            Action::Partition { disks, .. } => {
                machine.mounted && machine.table == Some(disks[0].table_guid)
            }
            Action::CopyClosure { .. } => machine.copied,
            Action::Install { .. } => machine.installed && machine.installer,
            Action::Reboot { .. } | Action::Prove { .. } => machine.up,
            Action::FoundCluster | Action::JoinCluster { .. } => machine.joined,
            Action::AwaitReady { .. } => machine.ready,
            Action::Bootstrap { part } => machine.parts.contains(part),
            action => unreachable!("no machine of this world is updated: {}", action.verb()),
        }
    }

    /// What the cluster's steps may count on when they begin, whatever went wrong before.
    fn is_in_order(&self, order: &Order) {
        let founder = &order.plan.cluster.as_ref().expect("a cluster").founder;
        let founder = &self.machines[founder];
        let joins_beside = self.running.values().any(|other| {
            matches!(
                other.planned().unwrap().action,
                Action::FoundCluster
                    | Action::JoinCluster {
                        role: ClusterRole::Server,
                        ..
                    }
            )
        });
        match &order.planned().unwrap().action {
            Action::FoundCluster => assert!(!joins_beside),
            Action::JoinCluster { role, .. } => {
                assert!(founder.parts.contains(&BootstrapPart::Network));
                assert!(
                    *role == ClusterRole::Agent || !joins_beside,
                    "two servers join"
                );
            }
            Action::Bootstrap {
                part: BootstrapPart::ArgoCd,
            } => assert!(founder.parts.contains(&BootstrapPart::Secrets) && founder.ready),
            Action::Bootstrap {
                part: BootstrapPart::RootApp,
            } => assert!(founder.parts.contains(&BootstrapPart::ArgoCd)),
            _ => {}
        }
    }

    fn act(&mut self, order: &Order) -> bool {
        if order.planned().unwrap().action.is_of_cluster() {
            self.is_in_order(order);
        }
        let machine = self.machines.get_mut(&order.node).unwrap();
        machine.acts += 1;
        let mut wiped = false;
        match &order.planned().unwrap().action {
            Action::NetworkBoot => {
                machine.lose_power();
                machine.boots += 1;
                machine.installer = true;
            }
            Action::Approve { .. } | Action::Inspect { .. } | Action::Prove { .. } => {}
            Action::Partition { disks, .. } => {
                let report = order.facts.report.as_ref().expect("a report");
                let approval = order.facts.approval.as_ref().expect("an approval");
                assert_eq!(report.fingerprint, approval.fingerprint);
                assert_eq!(order.facts.disk_paths.len(), disks.len());
                if machine.table != Some(disks[0].table_guid) {
                    machine.wipes += 1;
                    machine.table = Some(disks[0].table_guid);
                    machine.copied = false;
                    machine.installed = false;
                    wiped = true;
                }
                machine.mounted = true;
            }
            Action::CopyClosure { .. } => machine.copied = true,
            Action::Install { .. } => {
                assert!(order.facts.approval.is_some(), "secrets without approval");
                machine.installed = true;
            }
            Action::Reboot { .. } => {
                machine.lose_power();
                machine.boots += 1;
                machine.up = true;
            }
            Action::FoundCluster | Action::JoinCluster { .. } => machine.joined = true,
            Action::AwaitReady { .. } => machine.ready = true,
            Action::Bootstrap { part } => {
                machine.parts.insert(*part);
            }
            action => unreachable!("no machine of this world is updated: {}", action.verb()),
        }
        wiped
    }

    fn evidence(&self, order: &Order, wiped: bool) -> Evidence {
        let boot_id = self.machines[&order.node].boot_id(&order.node);
        match &order.planned().unwrap().action {
            Action::NetworkBoot => Evidence::Seen {
                report: Box::new(self.report(&order.plan, &order.node)),
            },
            Action::Approve { expires_ms, .. } => Evidence::Approved {
                approval: Approval {
                    fingerprint: order.facts.report.clone().unwrap().fingerprint,
                    by: "operator test".to_owned(),
                    granted_wall_ms: self.now.wall_ms,
                    expires_wall_ms: self.now.wall_ms
                        + self.op_ms
                        + self.approval_ms.unwrap_or(*expires_ms),
                },
                report: None,
            },
            Action::Inspect { disks, .. } => Evidence::Inspected {
                boot_id,
                disk_paths: (0..disks.len()).map(|n| format!("/dev/vd{n}")).collect(),
            },
            Action::Partition { .. } => Evidence::Partitioned { boot_id, wiped },
            Action::CopyClosure { .. } => Evidence::Copied {
                boot_id,
                closure_bytes: 1 << 20,
            },
            Action::Install { .. } => Evidence::Installed {
                boot_id,
                default_entry: "nixos-generation-1.conf".to_owned(),
            },
            Action::Reboot { .. } => Evidence::Rebooted { boot_id },
            Action::Prove {
                toplevel,
                host_key_fingerprint,
            } => Evidence::Up {
                boot_id,
                booted_system: toplevel.clone(),
                host_key_fingerprint: host_key_fingerprint.clone(),
            },
            Action::FoundCluster | Action::JoinCluster { .. } => Evidence::Joined {
                boot_id,
                uid: order.node.to_string(),
                etcd_voters: 1,
            },
            Action::AwaitReady { .. } => Evidence::Ready {
                boot_id,
                kubelet_version: "v1.34.2+k3s1".to_owned(),
            },
            Action::Bootstrap { part } => Evidence::Bootstrapped {
                part: *part,
                shown: "healthy".to_owned(),
            },
            action => unreachable!("no machine of this world is updated: {}", action.verb()),
        }
    }

    fn outcome(&mut self, order: &Order) -> Option<Outcome> {
        let verb = order.planned().unwrap().action.verb();
        let twist = self
            .twists
            .get_mut(&(order.node.clone(), verb, order.work))
            .and_then(VecDeque::pop_front);
        let failed = |kind| Outcome::Failed {
            failure: Failure::new(kind, "as the script says"),
        };
        match twist {
            Some(Twist::Fails(kind)) => return Some(failed(kind)),
            Some(Twist::Hangs) => return None,
            Some(Twist::NotDone) => return Some(Outcome::NotDone),
            // An installed system comes back by itself.
            Some(Twist::PowerCut) if order.planned().unwrap().action.is_of_cluster() => {
                return Some(failed(FailureKind::Ambiguous));
            }
            Some(Twist::PowerCut) => {
                self.machines.get_mut(&order.node).unwrap().lose_power();
                return Some(failed(FailureKind::Ambiguous));
            }
            _ => {}
        }
        let stands = self.stands(order);
        if order.work == Work::Probe {
            return Some(if self.is_done(order) && stands {
                let evidence = self.evidence(order, false);
                Outcome::Done { evidence }
            } else if stands {
                Outcome::NotDone
            } else {
                failed(FailureKind::PreconditionLost)
            });
        }
        if !stands {
            return Some(failed(FailureKind::PreconditionLost));
        }
        let wiped = self.act(order);
        match twist {
            Some(Twist::DoneButAmbiguous) => Some(failed(FailureKind::Ambiguous)),
            Some(Twist::DoneButHangs) => None,
            _ => {
                let evidence = self.evidence(order, wiped);
                Some(Outcome::Done { evidence })
            }
        }
    }
}

impl World for Scripted {
    fn start(&mut self, order: Order) {
        let step = order.planned().unwrap().clone();
        assert!(
            self.running.values().all(|other| other.node != order.node),
            "two operations of {} at once",
            order.node
        );
        if self.keep_log {
            let verb = step.action.verb();
            self.log
                .push((order.node.clone(), verb, order.work, order.attempt));
        }
        self.machines.entry(order.node.clone()).or_default();
        if let Some(outcome) = self.outcome(&order) {
            self.ends
                .insert((self.now.mono_ms + self.op_ms, order.op), outcome);
        }
        self.running.insert(order.op, order);
        if let Some(resource) = step.resource {
            let held = self
                .running
                .values()
                .filter(|order| order.planned().unwrap().resource == Some(resource))
                .count();
            let most = self.most_held.entry(resource).or_default();
            *most = held.max(*most);
        }
    }

    fn cancel(&mut self, op: OpId) {
        self.running.remove(&op);
        self.ends.retain(|(_, other), _| *other != op);
    }
}

/// What happens next: the first of what ends and what is due.
pub(crate) fn next_event(world: &mut Scripted, deadline: Option<u64>) -> Option<Event> {
    let ends = world.ends.first_key_value().map(|((at, _), _)| *at);
    let at = match (ends, deadline) {
        (Some(a), Some(b)) => a.min(b),
        (a, b) => a.or(b)?,
    };
    let passed = at.saturating_sub(world.now.mono_ms);
    world.now.mono_ms += passed;
    world.now.wall_ms += passed;
    if ends == Some(at) {
        let ((_, op), outcome) = world.ends.pop_first()?;
        world.running.remove(&op);
        Some(Event::Ended { op, outcome })
    } else {
        Some(Event::Tick)
    }
}

/// Runs to the end.
pub(crate) fn run<J: Journal>(driver: &mut Driver<J>, world: &mut Scripted) -> RunEnd {
    let mut event = Event::Begin;
    for _ in 0..EVENTS_MAX {
        if let Some(end) = driver.handle(world.now, event, world).unwrap() {
            assert_eq!(driver.engine().faults(), []);
            return end;
        }
        event = next_event(world, driver.next_deadline()).expect("the run is stuck");
    }
    panic!("the run doesn't end");
}

/// Runs a plan in a new world and journal.
pub(crate) fn run_plan(plan: Plan, world: &mut Scripted) -> (RunEnd, Memory) {
    let mut driver = Driver::new(Engine::new(plan).unwrap(), Memory::default());
    let end = run(&mut driver, world);
    (end, driver.into_journal())
}

/// Runs what the journal says is left, in the world as it is after its controller died.
pub(crate) fn run_on(journal: Memory, world: &mut Scripted) -> (RunEnd, Memory) {
    world.running.clear();
    world.ends.clear();
    let engine = Engine::resume(&journal.entries).unwrap();
    let mut driver = Driver::new(engine, journal);
    let end = run(&mut driver, world);
    (end, driver.into_journal())
}
