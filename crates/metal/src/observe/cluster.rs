//! Looking at the cluster: what its API says of the machines, and how far it is.

use std::{net::Ipv4Addr, time::Duration};

use undercroft_model::{
    BootstrapPart, ClusterNode, ClusterObservation, NodeName,
    inventory::{Distribution, Role},
};
use undercroft_planner::node_wants;

use super::Looking;
use crate::world::{Machine, part_health};
use undercroft_kube::{API_PORT, Cluster};
use undercroft_steps::{Health, NodeWants};

/// How long looking at the cluster through one server may take.
const CLUSTER_LOOK_TIMEOUT: Duration = Duration::from_secs(30);

/// Asks the servers, the founder first, and gives what the first says that answers. Nothing where
/// none does, or nothing of a cluster is in the inventory: what may be done already is looked at
/// then, step by step.
pub(super) async fn look(looking: &Looking<'_>) -> Option<ClusterObservation> {
    let kubernetes = &looking.inventory.kubernetes;
    if kubernetes.distribution == Distribution::None {
        return None;
    }
    let founder = kubernetes.founder.as_ref()?;
    let mut servers: Vec<(&NodeName, Ipv4Addr)> = looking
        .inventory
        .nodes
        .iter()
        .filter(|(name, node)| {
            // A machine that was never installed has no cluster to tell of.
            node.role == Role::Server && looking.view.installed().contains_key(*name)
        })
        .map(|(name, node)| (name, node.address))
        .collect();
    servers.sort_by_key(|(name, _)| *name != founder);
    for (name, address) in servers {
        let seen = tokio::time::timeout(
            CLUSTER_LOOK_TIMEOUT,
            Box::pin(look_through(looking, founder, name, address)),
        );
        if let Ok(Some(seen)) = seen.await {
            return Some(seen);
        }
    }
    None
}

async fn look_through(
    looking: &Looking<'_>,
    founder: &NodeName,
    server: &NodeName,
    address: Ipv4Addr,
) -> Option<ClusterObservation> {
    let machine = Machine::new(server, address, looking.host_keys, looking.identity).ok()?;
    let access = machine.access().await.ok()?;
    let cluster = Cluster::at(&access, address.into(), API_PORT).ok()?;
    let version = cluster.version().await.ok()?;
    // Votes that can't be asked for are not votes that aren't there: another server may know.
    let members = machine.etcd().await.ok()?;
    let nodes = cluster.nodes().await.ok()?;
    let mut observation = ClusterObservation {
        version,
        ..ClusterObservation::default()
    };
    for seen in nodes {
        let Some((name, node)) = looking
            .inventory
            .nodes
            .iter()
            .find(|(name, _)| name.as_str() == seen.name)
        else {
            continue;
        };
        let wants = node_wants(looking.inventory, name);
        let as_planned = seen.carries(&NodeWants {
            labels: &wants.labels,
            annotations: &wants.annotations,
            taints: &wants.taints,
        });
        let closed_by = seen.closed_by();
        let seen = ClusterNode {
            boot_id: seen.boot_id,
            ready: seen.ready,
            as_planned,
            etcd_voter: members
                .of(name, node.address)
                .is_some_and(|member| member.votes() && member.answers()),
            closed_by,
            kubelet_version: seen.kubelet_version,
        };
        observation.nodes.insert(name.clone(), seen);
    }
    let distribution = looking.inventory.kubernetes.distribution;
    for part in BootstrapPart::ALL {
        // A part that can't be asked about is one that isn't known to be there.
        let health = part_health(&cluster, part, founder, distribution).await;
        if matches!(health, Some(Health::Good(_))) {
            observation.parts.insert(part);
        }
    }
    Some(observation)
}
