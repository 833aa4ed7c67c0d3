//! Updates of machines that run, wave by wave.
//!
//! A wave is a plan: it is carried out whole, and the next is made from a fresh look. So nothing of an update is decided
//! before what it stands on was seen, and nothing of it is kept but what the journal says anyway: which machines have
//! confirmed their system in it, and which have left one by themselves.
//!
//! The first wave is one machine, an agent where one is to be updated. Once it has confirmed its system the servers follow
//! one by one, the founder last, and then the others, as many at a time as may be away.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};
use undercroft_model::{
    Action, ClosedBy, ClusterPlan, ClusterRole, Found, NodeName, NodePlan, NodeState, Observation,
    Resource, Step, Wave,
    inventory::{Distribution, Firmware, Inventory, Node, Role},
    kubernetes_minor,
};

use crate::{
    NodeReport, NodeStatus, PlanOptions,
    chain::{self, Draft},
    cluster::{cluster_of, node_wants},
    install::SystemToInstall,
    members,
    report::Block,
    verdict,
};

/// A machine that runs another system than the one that was built for it, and can be updated.
#[derive(Debug)]
pub(crate) struct Candidate {
    /// What it is to run.
    pub(crate) system: SystemToInstall,
    /// How often it was installed anew.
    pub(crate) generation: u32,
}

/// What an update comes to now.
pub(crate) struct Chosen {
    /// The machines of the next wave; empty where nobody is updated now.
    pub(crate) wave: BTreeSet<NodeName>,
    /// Which wave that is.
    pub(crate) number: Wave,
    /// Why each of the others isn't updated now.
    pub(crate) later: BTreeMap<NodeName, Block>,
}

/// Why a machine that runs another system can't be updated, if it can't.
pub(crate) fn obstacle(
    inventory: &Inventory,
    observation: &Observation,
    name: &NodeName,
    node: &Node,
) -> Option<Block> {
    if node.firmware == Firmware::Rpi {
        let next = format!(
            "`nixos-rebuild boot --flake .#{name} --target-host root@{}`, and restart it",
            node.address
        );
        return Some(Block::new(
            "its firmware keeps no system to go back to, so that it isn't updated by itself",
            next,
        ));
    }
    if let Some(before) = observation.installed.get(name) {
        let disks = chain::disks(inventory, name, node, before.generation, None);
        let changed = before.disks.iter().any(|old| {
            old.role.is_wiped()
                && disks
                    .iter()
                    .any(|new| new.identity == old.identity && new.table_guid != old.table_guid)
        });
        if changed {
            return Some(Block::new(
                "the layout of its disks was changed in the inventory, and an update changes none",
                format!(
                    "take the change of its layout back, or wipe it: `undercroft up --reinstall {name}`"
                ),
            ));
        }
    }
    other_minor(inventory, observation, node)
}

/// Kubernetes' minors are raised one by one, servers first and with a snapshot, which no update of systems does.
fn other_minor(inventory: &Inventory, observation: &Observation, node: &Node) -> Option<Block> {
    members::role(inventory, node)?;
    let seen = observation.cluster.as_ref()?;
    let want = inventory.kubernetes.version.as_deref()?;
    let (wanted, runs) = (kubernetes_minor(want)?, kubernetes_minor(&seen.version)?);
    (wanted != runs).then(|| {
        Block::new(
            format!(
                "the inventory asks for Kubernetes {want}, and the cluster's API is {}: an update of systems changes no \
                 minor version",
                seen.version
            ),
            format!("set `version` under [kubernetes] to one of {}'s minor, and raise it by hand as docs/update.md says", seen.version),
        )
    })
}

/// The digest of what all machines are to run.
fn digest(observation: &Observation) -> String {
    let mut hash = Sha256::new();
    for (name, target) in &observation.targets {
        if let Ok(target) = target {
            for text in [name.as_str(), &target.toplevel] {
                hash.update((text.len() as u64).to_be_bytes());
                hash.update(text.as_bytes());
            }
        }
    }
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

/// Chooses who is updated now.
pub(crate) fn choose(
    inventory: &Inventory,
    observation: &Observation,
    candidates: &BTreeMap<NodeName, Candidate>,
    retry: &BTreeSet<NodeName>,
) -> Chosen {
    let update = digest(observation);
    let number = Wave {
        number: observation.updates.next_wave(&update),
        update: update.clone(),
    };
    let mut choice = Choice {
        inventory,
        observation,
        candidates,
        retry,
        chosen: Chosen {
            wave: BTreeSet::new(),
            number,
            later: BTreeMap::new(),
        },
    };
    choice.choose(observation.updates.is_begun(&update));
    choice.chosen
}

struct Choice<'a> {
    inventory: &'a Inventory,
    observation: &'a Observation,
    candidates: &'a BTreeMap<NodeName, Candidate>,
    /// Machines that may try once more what they have left.
    retry: &'a BTreeSet<NodeName>,
    chosen: Chosen,
}

impl Choice<'_> {
    fn choose(&mut self, begun: bool) {
        if let Some(halted) = self.halted() {
            return self.all_later(&halted);
        }
        let (servers, others) = self.in_order();
        let servers_can = self.server_can_go();
        let others_can = self.others_can_go();
        if !begun {
            // One that was closed for an update that came to no end is gone on with.
            let first = match (others.first(), servers.first()) {
                (Some(other), _) if others_can.is_ok() => Some(other),
                (None, Some(server)) if servers_can.is_ok() => Some(server),
                _ => None,
            };
            self.chosen.wave.extend(first.cloned());
            let why = first.map(|first| {
                Block::new(
                    format!("{first} is updated first: the others follow once it is well"),
                    "`undercroft up` goes on with them by itself",
                )
            });
            return self.rest_later(&servers, &others, why, servers_can.err(), others_can.err());
        }
        if let (Some(server), Ok(())) = (servers.first(), &servers_can) {
            self.chosen.wave.insert(server.clone());
            let why = Block::new(
                format!("{server} is updated now: servers go one by one, and before the others"),
                "`undercroft up` goes on with them by itself",
            );
            return self.rest_later(&servers, &others, Some(why), None, others_can.err());
        }
        if servers.is_empty()
            && let Ok(room) = others_can
        {
            self.chosen.wave.extend(others.iter().take(room).cloned());
            let why = Block::new(
                format!("no more than {room} may be away for an update now"),
                "`undercroft up` goes on with them by itself",
            );
            return self.rest_later(&servers, &others, Some(why), None, None);
        }
        let after = servers.first().map(|server| {
            Block::new(
                format!("{server} is a server, and comes before it"),
                "see what it waits for",
            )
        });
        self.rest_later(
            &servers,
            &others,
            after,
            servers_can.err(),
            others_can.err(),
        );
    }

    /// What stands in the way of any update.
    fn halted(&self) -> Option<Block> {
        let updates = &self.observation.updates;
        let mut refuted = updates.refuted.iter().filter(|(name, refuted)| {
            !self.retry.contains(*name) && matches!(self.observation.targets.get(*name), Some(Ok(target)) if target.toplevel == refuted.toplevel)
        });
        let (name, refuted) = refuted.next()?;
        Some(Block::new(
            format!(
                "the update stands still: {name} has left {} by itself: {}",
                refuted.toplevel, refuted.reason
            ),
            format!(
                "build another system for {name}; or let it try this one once more: `undercroft up --retry {name}`"
            ),
        ))
    }

    /// Servers, the founder last; and all others. Those that an update has closed already come first.
    fn in_order(&self) -> (Vec<NodeName>, Vec<NodeName>) {
        let founder = self.inventory.kubernetes.founder.as_ref();
        let (mut servers, mut others) = (Vec::new(), Vec::new());
        for name in self.candidates.keys() {
            match self.is_server(name) {
                true => servers.push(name.clone()),
                false => others.push(name.clone()),
            }
        }
        let closed = |name: &NodeName| self.closed_by(name) != Some(ClosedBy::Update);
        let closed = |name: &NodeName| !self.retry.contains(name) && closed(name);
        servers.sort_by_key(|name| (closed(name), Some(name) == founder, name.clone()));
        // A member shows more than a machine that is part of no cluster.
        others.sort_by_key(|name| (closed(name), !self.is_member(name), name.clone()));
        (servers, others)
    }

    fn is_server(&self, name: &NodeName) -> bool {
        self.role(name) == Some(ClusterRole::Server)
    }

    fn role(&self, name: &NodeName) -> Option<ClusterRole> {
        members::role(self.inventory, self.inventory.nodes.get(name)?)
    }

    /// Whether it has pods that must be evicted before it goes.
    fn is_member(&self, name: &NodeName) -> bool {
        self.role(name).is_some()
            && self
                .observation
                .installed
                .get(name)
                .is_some_and(|before| before.joined)
    }

    fn closed_by(&self, name: &NodeName) -> Option<ClosedBy> {
        self.observation
            .cluster
            .as_ref()?
            .nodes
            .get(name)?
            .closed_by
    }

    /// Whether it is there and takes pods, as far as a look has shown. One that is updated now is away for that.
    fn is_well(&self, name: &NodeName) -> bool {
        let runs =
            |seen: &undercroft_model::NodeObservation| matches!(seen.found, Found::Running { .. });
        let is_seen = self.observation.nodes.get(name).is_some_and(runs);
        if !self.is_member(name) {
            return is_seen;
        }
        let cluster = self.observation.cluster.as_ref();
        is_seen
            && cluster
                .and_then(|cluster| cluster.nodes.get(name))
                .is_some_and(|node| node.ready && node.closed_by.is_none())
    }

    fn api_is_away(&self) -> Option<Block> {
        let has_cluster = self.inventory.kubernetes.distribution != Distribution::None;
        let members = self.candidates.keys().any(|name| self.is_member(name));
        (has_cluster && members && self.observation.cluster.is_none()).then(|| {
            Block::new(
                "the cluster's API doesn't answer: nobody knows whether it can be spared",
                "bring the servers back, until `kubectl get nodes` answers",
            )
        })
    }

    /// Whether a server may be away: etcd has a majority without it, or it is the only one.
    fn server_can_go(&self) -> Result<(), Block> {
        if let Some(away) = self.api_is_away() {
            return Err(away);
        }
        let servers: Vec<&NodeName> = self
            .inventory
            .servers()
            .into_iter()
            .filter(|name| self.is_member(name))
            .collect();
        let votes = |name: &&NodeName| {
            let cluster = self.observation.cluster.as_ref();
            cluster
                .and_then(|cluster| cluster.nodes.get(*name))
                .is_some_and(|node| node.etcd_voter && node.ready)
        };
        // One that an update has closed is gone on with: it is the one that is away.
        let silent: Vec<&NodeName> = servers
            .iter()
            .copied()
            .filter(|name| !votes(name) && self.closed_by(name) != Some(ClosedBy::Update))
            .collect();
        match silent.first() {
            Some(silent) => Err(Block::new(
                format!(
                    "{silent} is a server that isn't well: no other server goes while it is away"
                ),
                format!("bring {silent} back first: `undercroft doctor {silent}` shows more"),
            )),
            None => Ok(()),
        }
    }

    /// How many of the others may go, at least 1.
    fn others_can_go(&self) -> Result<usize, Block> {
        if let Some(away) = self.api_is_away() {
            return Err(away);
        }
        let all: Vec<&NodeName> = self
            .inventory
            .nodes
            .keys()
            .filter(|name| {
                !self.is_server(name)
                    && self
                        .observation
                        .installed
                        .get(*name)
                        .is_some_and(|before| before.proved_up)
            })
            .collect();
        let limit = self.inventory.fleet.limits.updates;
        let may = limit
            .map_or(all.len() / 4, |limit| {
                usize::try_from(limit).unwrap_or(usize::MAX)
            })
            .max(1);
        let away: Vec<&&NodeName> = all
            .iter()
            .filter(|name| !self.candidates.contains_key(**name) && !self.is_well(name))
            .collect();
        // One that has been away for weeks must not keep all others from their updates.
        if away.len() > may {
            let first = away.first().map_or("", |name| name.as_str());
            return Err(Block::new(
                format!(
                    "{} machines are away already, {first} among them, and {may} may be",
                    away.len()
                ),
                format!(
                    "bring them back, or raise `updates` under [fleet.limits]: `undercroft doctor {first}` shows more"
                ),
            ));
        }
        Ok(may.saturating_sub(away.len()).max(1))
    }

    fn all_later(&mut self, why: &Block) {
        for name in self.candidates.keys() {
            self.chosen.later.insert(name.clone(), why.clone());
        }
    }

    /// Says of each that isn't in the wave why: what stands in its own way, or else what it waits for.
    fn rest_later(
        &mut self,
        servers: &[NodeName],
        others: &[NodeName],
        why: Option<Block>,
        of_servers: Option<Block>,
        of_others: Option<Block>,
    ) {
        let wait = Block::new(
            "it waits for its turn",
            "`undercroft up` goes on with it by itself",
        );
        for (names, own) in [(servers, of_servers), (others, of_others)] {
            let own = own.or_else(|| why.clone()).unwrap_or_else(|| wait.clone());
            for name in names
                .iter()
                .filter(|name| !self.chosen.wave.contains(*name))
            {
                self.chosen.later.insert(name.clone(), own.clone());
            }
        }
    }
}

/// Appends the steps of a machine that is updated.
pub(crate) fn build(
    inventory: &Inventory,
    observation: &Observation,
    name: &NodeName,
    node: &Node,
    candidate: &Candidate,
    steps: &mut Vec<Step>,
) -> NodePlan {
    let target = candidate.system.target.clone();
    let mut planned = chain::node_plan(inventory, node, Some(target), candidate.generation);
    let joined = observation
        .installed
        .get(name)
        .is_some_and(|before| before.joined);
    let role = members::role(inventory, node).filter(|_| joined);
    for draft in drafts(inventory, name, node, candidate, role) {
        chain::append(inventory, name, Some(&mut planned), draft, false, steps);
    }
    planned
}

fn drafts(
    inventory: &Inventory,
    name: &NodeName,
    node: &Node,
    candidate: &Candidate,
    role: Option<ClusterRole>,
) -> Vec<Draft> {
    let timeouts = &inventory.fleet.timeouts;
    let toplevel = || candidate.system.target.toplevel.clone();
    let host_key_fingerprint = || candidate.system.host_key_fingerprint.clone();
    let mut drafts = vec![Draft::new(
        Action::Fetch {
            toplevel: toplevel(),
            closure_bytes: candidate.system.target.closure_bytes,
            host_key_fingerprint: host_key_fingerprint(),
        },
        NodeState::Copied,
        timeouts.copy_s,
        Some(Resource::ClosureCopy),
    )];
    if role.is_some() {
        drafts.push(Draft::new(
            Action::Drain,
            NodeState::Drained,
            timeouts.drain_s,
            None,
        ));
    }
    drafts.extend([
        Draft::new(
            Action::Stage {
                toplevel: toplevel(),
                host_key_fingerprint: host_key_fingerprint(),
            },
            NodeState::Installed,
            timeouts.install_s,
            None,
        ),
        Draft::new(
            Action::Restart {
                host_key_fingerprint: host_key_fingerprint(),
            },
            NodeState::Rebooted,
            timeouts.reboot_s,
            Some(Resource::Reboot),
        ),
        Draft::new(
            Action::Confirm {
                toplevel: toplevel(),
                host_key_fingerprint: host_key_fingerprint(),
            },
            NodeState::Up,
            timeouts.confirm_s,
            None,
        ),
    ]);
    let Some(role) = role else {
        return drafts;
    };
    let founds = inventory.kubernetes.founder.as_ref() == Some(name);
    let wants = node_wants(inventory, name);
    drafts.extend([
        Draft::new(
            match founds {
                true => Action::FoundCluster,
                false => Action::JoinCluster {
                    role,
                    replaces: false,
                },
            },
            NodeState::Joined,
            timeouts.join_s,
            Some(match node.role {
                Role::Server => Resource::ServerJoin,
                _ => Resource::AgentJoin,
            }),
        ),
        Draft::new(
            Action::AwaitReady {
                labels: wants.labels,
                annotations: wants.annotations,
                taints: wants.taints,
            },
            NodeState::Ready,
            timeouts.ready_s,
            None,
        ),
        Draft::new(Action::Release, NodeState::Released, timeouts.ready_s, None),
    ]);
    drafts
}

/// What is said of a machine that isn't updated now.
pub(crate) fn later(report: &mut NodeReport, why: Block) {
    let NodeStatus::Differs {
        booted,
        current,
        target,
    } = &report.status
    else {
        return;
    };
    let status = NodeStatus::UpdateLater {
        booted: booted.clone(),
        current: current.clone(),
        target: target.clone(),
        reason: why.why,
    };
    *report = NodeReport::with_next(status, why.next);
}

/// What the steps of an update are appended to.
pub(crate) struct Updating<'a> {
    pub(crate) inventory: &'a Inventory,
    pub(crate) observation: &'a Observation,
    pub(crate) options: &'a PlanOptions,
    pub(crate) nodes: &'a mut BTreeMap<NodeName, NodePlan>,
    pub(crate) reports: &'a mut BTreeMap<NodeName, NodeReport>,
    pub(crate) steps: &'a mut Vec<Step>,
}

/// The wave, where there is one, and the cluster that its steps are about.
type Wavelet = (Option<Wave>, Option<ClusterPlan>);

impl Updating<'_> {
    /// Appends the next wave. Nothing where no update is asked for.
    pub(crate) fn extend(&mut self) -> Option<Wavelet> {
        let options = self.options;
        if !options.update || options.inspect_only || options.until.is_some() {
            return None;
        }
        let candidates = self.candidates();
        let is_busy = !self.steps.is_empty();
        let mut number = None;
        if is_busy {
            let why = Block::new(
                "first comes what this plan brings up",
                "`undercroft up` goes on with it by itself",
            );
            candidates
                .keys()
                .for_each(|name| self.say_later(name, why.clone()));
            return None;
        }
        if !candidates.is_empty() {
            let chosen = choose(
                self.inventory,
                self.observation,
                &candidates,
                &options.retry,
            );
            for (name, why) in chosen.later {
                self.say_later(&name, why);
            }
            for name in &chosen.wave {
                if let Some(candidate) = candidates.get(name) {
                    self.update(name, candidate);
                }
            }
            number = (!chosen.wave.is_empty()).then_some(chosen.number);
        }
        self.open_again();
        let is_of_cluster = self.steps.iter().any(|step| step.action.is_of_cluster());
        let founder = self.inventory.kubernetes.founder.clone();
        let cluster = founder.filter(|_| is_of_cluster).map(|founder| {
            let members = members::other_members(self.inventory, self.observation, &founder);
            let members = members.cloned().collect();
            cluster_of(self.inventory, founder, members)
        });
        Some((number, cluster))
    }

    /// The machines that run another system than the one that was built. Of those that can't be updated it is said why.
    fn candidates(&mut self) -> BTreeMap<NodeName, Candidate> {
        let mut candidates = BTreeMap::new();
        let differ = self
            .reports
            .iter()
            .filter(|(_, report)| matches!(report.status, NodeStatus::Differs { .. }));
        let differ: Vec<NodeName> = differ.map(|(name, _)| name.clone()).collect();
        for name in differ {
            let Some(node) = self.inventory.nodes.get(&name) else {
                continue;
            };
            let mut reasons = Vec::new();
            let system = verdict::system(self.observation, &name, node, &mut reasons);
            let before = self.observation.installed.get(&name);
            reasons.extend(obstacle(self.inventory, self.observation, &name, node));
            if !before.is_some_and(|before| before.proved_up) {
                reasons.push(Block::new(
                    "no run has proved that this machine is the one that the inventory means",
                    format!("build the system that it runs, and take it as it is: `undercroft up --adopt {name}`"),
                ));
            }
            let generation = before.map_or(0, |before| before.generation);
            match (system, reasons.into_iter().next()) {
                (Some(system), None) => {
                    candidates.insert(name, Candidate { system, generation });
                }
                (_, Some(why)) => self.say_later(&name, why),
                (None, None) => {}
            }
        }
        candidates
    }

    fn say_later(&mut self, name: &NodeName, why: Block) {
        if let Some(report) = self.reports.get_mut(name) {
            later(report, why);
        }
    }

    fn update(&mut self, name: &NodeName, candidate: &Candidate) {
        let Some(node) = self.inventory.nodes.get(name) else {
            return;
        };
        let planned = build(
            self.inventory,
            self.observation,
            name,
            node,
            candidate,
            self.steps,
        );
        self.nodes.insert(name.clone(), planned);
        if let Some(report) = self.reports.get_mut(name)
            && let NodeStatus::Differs {
                booted,
                current,
                target,
            } = &report.status
        {
            let status = NodeStatus::Update {
                booted: booted.clone(),
                current: current.clone(),
                target: target.clone(),
            };
            *report = NodeReport::new(status);
        }
    }

    /// Opens what an earlier update has closed, and what no step of this plan goes on with.
    fn open_again(&mut self) {
        let Some(cluster) = &self.observation.cluster else {
            return;
        };
        let closed = cluster.nodes.iter().filter(|(name, node)| {
            let seen = self.observation.nodes.get(*name).map(|seen| &seen.found);
            node.closed_by == Some(ClosedBy::Update)
                && node.ready
                && matches!(seen, Some(Found::Running { .. }))
                && self.reports.contains_key(*name)
                && !self.nodes.contains_key(*name)
        });
        let closed: Vec<NodeName> = closed.map(|(name, _)| name.clone()).collect();
        for name in closed {
            let Some(node) = self.inventory.nodes.get(&name) else {
                continue;
            };
            let generation = self
                .observation
                .installed
                .get(&name)
                .map_or(0, |before| before.generation);
            let mut planned = chain::node_plan(self.inventory, node, None, generation);
            let timeout_s = self.inventory.fleet.timeouts.ready_s;
            let draft = Draft::new(Action::Release, NodeState::Released, timeout_s, None);
            chain::append(
                self.inventory,
                &name,
                Some(&mut planned),
                draft,
                false,
                self.steps,
            );
            self.nodes.insert(name.clone(), planned);
            if let Some(report) = self.reports.get_mut(&name)
                && report.status == NodeStatus::Converged
            {
                report.status = NodeStatus::Release;
            }
        }
    }
}
