//! Who is a member of the cluster, and what must not be done to one.

use std::collections::BTreeSet;

use undercroft_model::{
    BootstrapPart, ClusterObservation, ClusterRole, Found, NodeName, NodeState, Observation,
    inventory::{DiskRole, Distribution, Inventory, Node, Role},
    kubernetes_minor,
};

use crate::{chain, report::Block};

/// How many minor versions a kubelet may be older than the API server (Kubernetes version skew
/// policy, "kubelet").
const KUBELET_MINORS_OLDER_MAX: u32 = 3;

pub(crate) fn role(inventory: &Inventory, node: &Node) -> Option<ClusterRole> {
    match (inventory.kubernetes.distribution, node.role) {
        (Distribution::None, _) | (_, Role::None) => None,
        (_, Role::Server) => Some(ClusterRole::Server),
        (_, Role::Agent) => Some(ClusterRole::Agent),
    }
}

/// The parts of the bootstrap that are asked for: by the inventory, up to a state of the founder's.
fn parts(inventory: &Inventory, until: Option<NodeState>) -> &'static [BootstrapPart] {
    if inventory.gitops.repository.is_none() {
        return &[BootstrapPart::Network];
    }
    match until {
        Some(until) if until < NodeState::SecretsReady => &[BootstrapPart::Network],
        Some(until) if until < NodeState::ArgoCdReady => {
            &[BootstrapPart::Network, BootstrapPart::Secrets]
        }
        Some(until) if until < NodeState::Synced => &[
            BootstrapPart::Network,
            BootstrapPart::Secrets,
            BootstrapPart::ArgoCd,
        ],
        _ => &BootstrapPart::ALL,
    }
}

/// Whether the cluster's API says that a machine is in it, as it should be. What it says of an
/// earlier boot than the machine's present one is old: Kubernetes calls a machine that has just
/// lost its power Ready for some while.
fn is_in(
    seen: &ClusterObservation,
    observation: &Observation,
    name: &NodeName,
    role: ClusterRole,
) -> bool {
    let is_this_boot = |boot_id: &str| match observation.nodes.get(name).map(|seen| &seen.found) {
        Some(Found::Running { boot_id: now, .. }) => now == boot_id,
        _ => true,
    };
    seen.nodes.get(name).is_some_and(|node| {
        node.ready
            && node.as_planned
            && is_this_boot(&node.boot_id)
            && (role == ClusterRole::Agent || node.etcd_voter)
    })
}

/// Whether a machine that runs what it should is all that it should be in the cluster too, up to a
/// state.
pub(crate) fn is_converged(
    inventory: &Inventory,
    observation: &Observation,
    name: &NodeName,
    node: &Node,
    until: Option<NodeState>,
) -> bool {
    let Some(role) = role(inventory, node) else {
        return true;
    };
    let Some(seen) = &observation.cluster else {
        return false;
    };
    let founds = inventory.kubernetes.founder.as_ref() == Some(name);
    let mut wanted = parts(inventory, until).iter();
    is_in(seen, observation, name, role) && (!founds || wanted.all(|p| seen.parts.contains(p)))
}

/// Whether a machine is a member of the cluster, and comes back as one: it has joined with the disk
/// that holds its part of the cluster, and that disk isn't wiped. `installs` says whether it is
/// installed by this plan, and then whether its next generation was asked for.
pub(crate) fn stays_member(
    inventory: &Inventory,
    observation: &Observation,
    name: &NodeName,
    installs: Option<bool>,
) -> bool {
    let (Some(before), Some(node)) = (observation.installed.get(name), inventory.nodes.get(name))
    else {
        return false;
    };
    let keeps_root = || {
        let disks = chain::disks(inventory, name, node, before.generation, None);
        let mut roots = disks.iter().filter(|disk| disk.role == DiskRole::Root);
        roots.all(|root| before.disks.iter().any(|d| d.table_guid == root.table_guid))
    };
    before.joined
        && match installs {
            None => true,
            Some(reinstall) => !reinstall && keeps_root(),
        }
}

/// Whether the cluster may know a machine as a member.
fn is_known(observation: &Observation, name: &NodeName) -> bool {
    let seen = observation.cluster.as_ref();
    let registered = seen.is_some_and(|seen| seen.nodes.contains_key(name));
    let before = observation.installed.get(name);
    registered || before.is_some_and(|before| before.member)
}

/// Servers beside one that are, or once were, members of the cluster.
pub(crate) fn other_members<'a>(
    inventory: &'a Inventory,
    observation: &'a Observation,
    name: &'a NodeName,
) -> impl Iterator<Item = &'a NodeName> {
    let servers = inventory.servers().into_iter();
    servers.filter(move |other| *other != name && is_known(observation, other))
}

/// Why a machine must not be installed, for the cluster's sake. `all_reinstalled` are the machines
/// that are wiped although they run; servers among them are so one after the other.
pub(crate) fn refusals(
    inventory: &Inventory,
    observation: &Observation,
    name: &NodeName,
    node: &Node,
    all_reinstalled: &BTreeSet<NodeName>,
) -> Vec<Block> {
    let mut reasons = Vec::new();
    let Some(role) = role(inventory, node) else {
        return reasons;
    };
    reasons.extend(skew(inventory, observation));
    let reinstall = all_reinstalled.contains(name);
    if role == ClusterRole::Agent || stays_member(inventory, observation, name, Some(reinstall)) {
        return reasons;
    }
    if let Some(reason) = splits(inventory, observation, name, all_reinstalled) {
        reasons.push(reason);
    } else {
        reasons.extend(quorum(inventory, observation, name, all_reinstalled));
    }
    reasons
}

/// Why a machine must not found a cluster: others are members of one, and stay so. Nothing where it
/// founds none, or is a member itself.
pub(crate) fn founds_second(
    inventory: &Inventory,
    observation: &Observation,
    name: &NodeName,
) -> Option<Block> {
    if is_known(observation, name) {
        return None;
    }
    splits(inventory, observation, name, &BTreeSet::new())
}

fn splits(
    inventory: &Inventory,
    observation: &Observation,
    name: &NodeName,
    all_reinstalled: &BTreeSet<NodeName>,
) -> Option<Block> {
    if inventory.kubernetes.founder.as_ref() != Some(name) {
        return None;
    }
    let mut others = other_members(inventory, observation, name);
    // All are wiped together only where the founder is: nobody else is wiped for one that has lost
    // its disk, so that the others go on as the cluster that they are.
    let wiped_together = all_reinstalled.contains(name);
    let other = others.find(|other| !(wiped_together && all_reinstalled.contains(*other)))?;
    let why = format!(
        "it founds the cluster, and {other} is a member of one already: it would found a second; \
         name {other} as `kubernetes.founder` first, so that it joins"
    );
    let next = format!("set `founder = \"{other}\"` under [kubernetes]");
    Some(Block::new(why, next))
}

/// Why etcd can't spare a member. It is removed from etcd only when it joins anew: until then it
/// counts, and doesn't vote.
fn quorum(
    inventory: &Inventory,
    observation: &Observation,
    name: &NodeName,
    all_reinstalled: &BTreeSet<NodeName>,
) -> Option<Block> {
    let others: Vec<&NodeName> = other_members(inventory, observation, name).collect();
    let all_are_wiped = others.iter().all(|other| all_reinstalled.contains(*other));
    let founder = inventory.kubernetes.founder.as_ref();
    let founds_anew = founder == Some(name) || founder.is_some_and(|f| all_reinstalled.contains(f));
    if !is_known(observation, name) || others.is_empty() || (all_are_wiped && founds_anew) {
        return None;
    }
    let Some(seen) = &observation.cluster else {
        return Some(Block::new(
            "it is a member of etcd, and the cluster's API doesn't answer: nobody knows whether \
             the others can spare it",
            "bring the other servers back first, until `kubectl get nodes` answers",
        ));
    };
    let voting = |name: &NodeName| seen.nodes.get(name).is_some_and(|n| n.etcd_voter);
    let stay = others.iter().filter(|other| voting(other)).count();
    let members = others.len() + 1;
    (stay * 2 <= members).then(|| {
        Block::new(
            format!(
                "without it {stay} of etcd's {members} members would vote, which is no majority: \
                 the cluster would stand still"
            ),
            "bring the other servers back first, or wipe all servers together with --reinstall, \
             which begins a new cluster",
        )
    })
}

/// Why a kubelet of the inventory's version must not join the cluster that runs.
fn skew(inventory: &Inventory, observation: &Observation) -> Option<Block> {
    let seen = observation.cluster.as_ref()?;
    let want = inventory.kubernetes.version.as_deref()?;
    let (major, kubelet) = kubernetes_minor(want)?;
    let (api_major, api) = kubernetes_minor(&seen.version)?;
    let version = &seen.version;
    if major != api_major || kubelet > api {
        return Some(Block::new(
            format!(
                "the inventory asks for Kubernetes {want}, and the cluster's API is {version}: a \
                 kubelet is never newer than its API server; update the servers first"
            ),
            format!("update the servers to Kubernetes {want}, and then the others"),
        ));
    }
    (api - kubelet > KUBELET_MINORS_OLDER_MAX).then(|| {
        Block::new(
            format!(
                "the inventory asks for Kubernetes {want}, and the cluster's API is {version}: a \
                 kubelet is at most {KUBELET_MINORS_OLDER_MAX} minor versions older"
            ),
            format!("raise `version` under [kubernetes] to one of {version}'s minor"),
        )
    })
}
