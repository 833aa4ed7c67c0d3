//! What the cluster's API says of Nodes and applications, for a look at what has drifted.

use std::{net::Ipv4Addr, time::Duration};

use undercroft_kube::{API_PORT, Cluster, KubeError};
use undercroft_model::{
    NodeName,
    inventory::{Distribution, Role},
};
use undercroft_planner::drift::{ApplicationLook, ClusterLook, NodeLook};

use super::DriftLooking;
use crate::world::Machine;

/// How long looking at the cluster through one server may take.
const CLUSTER_LOOK_TIMEOUT: Duration = Duration::from_secs(60);

/// Asks the servers, the founder first, and gives what the first says that answers; `None` where nothing of a
/// cluster is in the inventory, or no server of it was ever installed.
pub(super) async fn look(looking: &DriftLooking<'_>) -> Option<Result<ClusterLook, String>> {
    let kubernetes = &looking.inventory.kubernetes;
    if kubernetes.distribution == Distribution::None {
        return None;
    }
    let nodes = looking.inventory.nodes.iter();
    let joined = |name: &NodeName| {
        let installed = looking.view.installed().get(name);
        installed.is_some_and(|installed| installed.joined)
    };
    let mut servers: Vec<(&NodeName, Ipv4Addr)> = nodes
        .filter(|(name, node)| node.role == Role::Server && joined(name))
        .map(|(name, node)| (name, node.address))
        .collect();
    servers.sort_by_key(|(name, _)| Some(*name) != kubernetes.founder.as_ref());
    let mut last = None;
    for (name, address) in servers {
        let asking = Box::pin(look_through(looking, name, address));
        match tokio::time::timeout(CLUSTER_LOOK_TIMEOUT, asking).await {
            Ok(Ok(seen)) => return Some(Ok(seen)),
            Ok(Err(why)) => last = Some(why),
            Err(_) => {
                let s = CLUSTER_LOOK_TIMEOUT.as_secs();
                last = Some(format!("the API on {name} has told nothing within {s} s"));
            }
        }
    }
    last.map(Err)
}

async fn look_through(
    looking: &DriftLooking<'_>,
    server: &NodeName,
    address: Ipv4Addr,
) -> Result<ClusterLook, String> {
    let machine = Machine::new(server, address, looking.host_keys, looking.identity);
    let machine = machine.map_err(|failure| failure.message)?;
    let access = machine.access().await.map_err(|failure| failure.message)?;
    let words = |error: KubeError| error.to_string();
    let cluster = Cluster::at(&access, address.into(), API_PORT).map_err(words)?;
    let mut seen = ClusterLook {
        version: cluster.version().await.map_err(words)?,
        ..ClusterLook::default()
    };
    let inventory = looking.inventory;
    for node in cluster.nodes_with_cordons().await.map_err(words)? {
        // A Node that the inventory doesn't know is somebody else's.
        let mut names = inventory.nodes.keys();
        let Some(name) = names.find(|name| name.as_str() == node.seen.name) else {
            continue;
        };
        let look = NodeLook {
            labels: node.seen.labels,
            annotations: node.seen.annotations,
            taints: node.seen.taints,
            cordoned: node.cordoned,
            kubelet_version: node.seen.kubelet_version,
        };
        seen.nodes.insert(name.clone(), look);
    }
    // Without a repository no Argo CD is brought in.
    if inventory.gitops.repository.is_some() {
        seen.applications = Some(applications(&cluster).await.map_err(words));
    }
    Ok(seen)
}

async fn applications(cluster: &Cluster) -> Result<Vec<ApplicationLook>, KubeError> {
    let all = cluster.applications().await?;
    let looks = all.into_iter().map(|app| ApplicationLook {
        name: format!("{}/{}", app.namespace, app.name),
        sync: app.seen.sync,
        health: app.seen.health,
        message: match app.seen.errors.into_iter().next() {
            Some(error) => error,
            None if app.seen.phase == "Succeeded" => String::new(),
            None => app.seen.phase_message,
        },
    });
    Ok(looks.collect())
}
