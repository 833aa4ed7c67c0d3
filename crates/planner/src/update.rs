//! Updates of machines that run, wave by wave.
//!
//! A wave is a plan: it is carried out whole, and the next is made from a fresh look. So nothing of an update is decided
//! before what it stands on was seen, and nothing of it is kept but what the journal says anyway: which machines have
//! confirmed their system in it, and which have left one by themselves.
//!
//! The first wave is one machine, an agent where one is to be updated. Once it has confirmed its system the servers follow
//! one by one, the founder last, and then the others, as many at a time as may be away.

mod choose;

use std::collections::BTreeMap;

use undercroft_model::{
    Action, ClosedBy, ClusterPlan, ClusterRole, Found, NodeName, NodePlan, NodeState, Observation,
    Resource, Step, Wave,
    inventory::{Firmware, Inventory, Node, Role},
    kubernetes_minor,
};

use crate::{
    NodeReport, NodeStatus,
    chain::{self, Draft},
    cluster::{cluster_of, node_wants},
    members,
    options::PlanOptions,
    report::Block,
    verdict,
};
use choose::{Candidate, choose};

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
    if let Some(role) = role {
        drafts.extend(back_in_the_cluster(inventory, name, node, role));
    }
    drafts
}

/// The steps of a member that has come back.
fn back_in_the_cluster(
    inventory: &Inventory,
    name: &NodeName,
    node: &Node,
    role: ClusterRole,
) -> [Draft; 3] {
    let timeouts = &inventory.fleet.timeouts;
    let founds = inventory.kubernetes.founder.as_ref() == Some(name);
    let wants = node_wants(inventory, name);
    [
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
    ]
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

impl Updating<'_> {
    /// Appends the next wave, where an update is asked for. Gives which it is, and the cluster that the plan's steps are
    /// about: `cluster` is that of the steps so far.
    pub(crate) fn extend(
        &mut self,
        cluster: Option<ClusterPlan>,
    ) -> (Option<Wave>, Option<ClusterPlan>) {
        let options = self.options;
        if !options.update || options.inspect_only || options.until.is_some() {
            return (None, cluster);
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
            return (None, cluster);
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
        let of_update = founder.filter(|_| is_of_cluster).map(|founder| {
            let members = members::other_members(self.inventory, self.observation, &founder);
            let members = members.cloned().collect();
            cluster_of(self.inventory, founder, members)
        });
        (number, cluster.or(of_update))
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
