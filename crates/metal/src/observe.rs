//! Looking at the fleet before planning: what the journal says, and what answers over pinned SSH.

mod cluster;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::Duration,
};

use tokio::{sync::Semaphore, task::JoinSet};
use undercroft_model::{
    Found, InstallerReport, NodeName, NodeObservation, Observation, SystemTarget,
    inventory::Inventory, view::FleetView,
};

use crate::world::look_at_installed;
use undercroft_process::clock::wall_ms_now;
use undercroft_secrets::keys::{HostKeys, KeyError};
use undercroft_ssh::{Connection, Endpoint, HostKey, RemoteCommand, SshError};

/// How many machines are looked at at once: each is a program of its own.
pub const LOOKS_MAX: usize = 32;
/// How long a look at one machine may take.
pub const LOOK_TIMEOUT: Duration = Duration::from_secs(20);

/// What a look at the fleet needs.
#[derive(Debug, Clone, Copy)]
pub struct Looking<'a> {
    /// The machines.
    pub inventory: &'a Inventory,
    /// Those that are looked at; `None` for all. The cluster is asked through any of its servers.
    pub only: Option<&'a BTreeSet<NodeName>>,
    /// Those that are looked at also where no plan ever had them, since somebody else has installed them.
    pub adopt: &'a BTreeSet<NodeName>,
    /// What the journal says of them.
    pub view: &'a FleetView,
    /// Their host keys.
    pub host_keys: &'a HostKeys,
    /// The private key file to log in with.
    pub identity: &'a Path,
    /// The systems that were built for them, or why one could not be.
    pub targets: &'a BTreeMap<NodeName, Result<SystemTarget, String>>,
}

/// Looks at the machines that are asked for, [`LOOKS_MAX`] at a time. A machine that doesn't answer
/// is no error: stale and partial is normal.
///
/// # Errors
/// When a host key's file is there and can't be read.
pub async fn observe(looking: Looking<'_>) -> Result<Observation, KeyError> {
    let mut observation = Observation {
        targets: looking.targets.clone(),
        installed: looking.view.installed().clone(),
        updates: looking.view.updates().clone(),
        ..Observation::default()
    };
    let permits = Arc::new(Semaphore::new(LOOKS_MAX));
    let mut looks = JoinSet::new();
    for (name, node) in &looking.inventory.nodes {
        let host_key = looking.host_keys.public(name)?;
        if let Some(key) = &host_key {
            observation
                .host_keys
                .insert(name.clone(), key.fingerprint());
        }
        if looking.only.is_some_and(|only| !only.contains(name)) {
            continue;
        }
        let known = looking.view.nodes.get(name);
        let adopt = looking.adopt.contains(name);
        let look = Look {
            name: name.clone(),
            address: node.address,
            installed: adopt || looking.view.installed().contains_key(name),
            proved_up: adopt
                || looking
                    .view
                    .installed()
                    .get(name)
                    .is_some_and(|installed| installed.proved_up),
            report: known.and_then(|view| view.facts.report.clone()),
            approved: known.is_some_and(|view| {
                let approval = view
                    .facts
                    .approval
                    .as_ref()
                    .map(|approval| &approval.fingerprint);
                approval.is_some() && approval == view.facts.report.as_ref().map(|r| &r.fingerprint)
            }),
            host_key,
            identity: looking.identity.to_owned(),
            journal_wall_ms: looking.view.last_wall_ms,
        };
        let permits = Arc::clone(&permits);
        looks.spawn(async move {
            // The semaphore is never closed.
            let _permit = permits.acquire_owned().await;
            let name = look.name.clone();
            (name, look.look().await)
        });
    }
    observation.cluster = cluster::look(&looking).await;
    while let Some(done) = looks.join_next().await {
        // A look that panicked is one that found nothing.
        if let Ok((name, found)) = done {
            observation.nodes.insert(name, found);
        }
    }
    Ok(observation)
}

struct Look {
    name: NodeName,
    address: std::net::Ipv4Addr,
    /// Whether it was installed, by a plan or by somebody else.
    installed: bool,
    proved_up: bool,
    report: Option<InstallerReport>,
    /// Whether that report's fingerprint was approved: nobody else is connected to.
    approved: bool,
    host_key: Option<HostKey>,
    identity: std::path::PathBuf,
    journal_wall_ms: Option<u64>,
}

impl Look {
    async fn look(self) -> NodeObservation {
        if !self.installed && self.report.is_none() {
            return NodeObservation {
                found: Found::Nothing,
                age_ms: None,
            };
        }
        let now = |found| NodeObservation {
            found,
            age_ms: Some(0),
        };
        let mut last = None;
        if let Some(key) = self.host_key.clone() {
            let look =
                look_at_installed(&self.name, self.address, key, &self.identity, LOOK_TIMEOUT);
            match look.await {
                Ok(seen) => {
                    return now(Found::Running {
                        boot_id: seen.boot_id,
                        booted_system: seen.booted_system,
                        current_system: seen.current_system,
                    });
                }
                Err(error) => last = Some(error),
            }
        }
        // The key that is shown at its address says that this installer runs, also before anybody
        // may be let in by it.
        let shows_its_key = |report: &InstallerReport| {
            matches!(&last, Some(SshError::HostKeyMismatch { shown: Some(shown), .. })
                if *shown == report.fingerprint)
        };
        if let Some(report) = &self.report
            && (shows_its_key(report) || (self.approved && self.is_alive(report).await))
        {
            return now(Found::Installer {
                report: Box::new(report.clone()),
            });
        }
        match last {
            // A machine that was never up holds nothing that can be lost, and what shows a key there
            // is most likely its installer in another boot, whose report is to come: it is taken up
            // as if nothing answered, and nothing is done to it before a new approval.
            Some(SshError::HostKeyMismatch {
                shown: Some(fingerprint),
                ..
            }) if self.proved_up => now(Found::ForeignHostKey { fingerprint }),
            Some(error) if self.installed => now(Found::Unreachable {
                reason: error.to_string(),
            }),
            _ => NodeObservation {
                found: Found::Nothing,
                age_ms: self
                    .journal_wall_ms
                    .map(|then| wall_ms_now().saturating_sub(then)),
            },
        }
    }

    /// Whether the installer of that report still runs, in the same boot.
    async fn is_alive(&self, report: &InstallerReport) -> bool {
        let Ok(key) = HostKey::parse_with_fingerprint(&report.host_key, &report.fingerprint) else {
            return false;
        };
        let endpoint = Endpoint::root(self.name.as_str(), IpAddr::V4(report.address), key);
        let Ok(connection) = Connection::prepare(endpoint, &self.identity) else {
            return false;
        };
        let question = ["cat", "/proc/sys/kernel/random/boot_id"];
        connection
            .run(RemoteCommand::new(question, LOOK_TIMEOUT))
            .await
            .is_ok_and(|output| output.stdout.trim() == report.boot_id)
    }
}
