//! A look at what has drifted: one SSH session a machine, and the cluster's API. Nothing is changed.

mod cluster;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::Semaphore, task::JoinSet};
use undercroft_model::{NodeName, inventory::Inventory, view::FleetView};
use undercroft_planner::drift::{DriftLook, MachineLook, machine_answer};
use undercroft_process::clock::wall_ms_now;
use undercroft_secrets::keys::{HostKeys, KeyError};
use undercroft_ssh::{Connection, Endpoint, HostKey, RemoteCommand};

use crate::observe::LOOKS_MAX;

/// What a machine is asked.
const LOOK_SCRIPT: &str = include_str!("drift/look.sh");
/// How long a machine may take to answer: its health is in a file, and the longest wait in the script is for users' files.
pub const DRIFT_LOOK_TIMEOUT: Duration = Duration::from_secs(30);

/// What a look at the fleet's drift needs.
#[derive(Debug, Clone, Copy)]
pub struct DriftLooking<'a> {
    /// The machines.
    pub inventory: &'a Inventory,
    /// Those that are looked at; `None` for all. The cluster is asked through any of its servers.
    pub only: Option<&'a BTreeSet<NodeName>>,
    /// What the journal says of them. Machines that were never up aren't looked at.
    pub view: &'a FleetView,
    /// Their host keys.
    pub host_keys: &'a HostKeys,
    /// The private key file to log in with.
    pub identity: &'a Path,
}

/// Looks at the machines that are asked for, [`LOOKS_MAX`] at a time, and at the cluster. Who doesn't answer is in
/// the look with the reason.
///
/// # Errors
/// When a host key's file is there and can't be read.
pub async fn look(looking: DriftLooking<'_>) -> Result<DriftLook, KeyError> {
    let nodes = &looking.inventory.nodes;
    let is_asked = |name: &NodeName| looking.only.is_none_or(|only| only.contains(name));
    let asked: BTreeSet<NodeName> = nodes.keys().filter(|n| is_asked(n)).cloned().collect();
    let permits = Arc::new(Semaphore::new(LOOKS_MAX));
    let mut looks = JoinSet::new();
    let mut machines = BTreeMap::new();
    for (name, node) in nodes.iter().filter(|(name, _)| asked.contains(*name)) {
        let installed = looking.view.installed().get(name);
        if !installed.is_some_and(|installed| installed.proved_up) {
            continue;
        }
        let Some(host_key) = looking.host_keys.public(name)? else {
            let why = "no host key was made for it that it could be known by".to_owned();
            machines.insert(name.clone(), Err(why));
            continue;
        };
        // What is spawned and never comes back, as it panicked, has not answered.
        machines.insert(name.clone(), Err("the look at it was given up".to_owned()));
        let machine = Machine {
            name: name.clone(),
            address: node.address,
            host_key,
            identity: looking.identity.to_owned(),
        };
        let permits = Arc::clone(&permits);
        looks.spawn(async move {
            // The semaphore is never closed.
            let _permit = permits.acquire_owned().await;
            let answer = machine.look().await;
            (machine.name, answer)
        });
    }
    let cluster = cluster::look(&looking).await;
    while let Some(done) = looks.join_next().await {
        if let Ok((name, answer)) = done {
            machines.insert(name, answer);
        }
    }
    Ok(DriftLook {
        asked,
        machines,
        cluster,
    })
}

struct Machine {
    name: NodeName,
    address: Ipv4Addr,
    host_key: HostKey,
    identity: PathBuf,
}

impl Machine {
    async fn look(&self) -> Result<MachineLook, String> {
        let address = IpAddr::V4(self.address);
        let endpoint = Endpoint::root(self.name.as_str(), address, self.host_key.clone());
        let connection =
            Connection::prepare(endpoint, &self.identity).map_err(|error| error.to_string())?;
        let command = RemoteCommand::new(["sh", "-c", LOOK_SCRIPT], DRIFT_LOOK_TIMEOUT)
            .shown_as(&["undercroft-drift-look"]);
        let asked_ms = wall_ms_now();
        let output = connection.run(command).await;
        let answered_ms = wall_ms_now();
        let output = output.map_err(|error| error.to_string())?;
        let answer = machine_answer(&output.stdout).map_err(|error| error.to_string())?;
        Ok(MachineLook {
            asked_ms,
            answered_ms,
            ..answer
        })
    }
}
