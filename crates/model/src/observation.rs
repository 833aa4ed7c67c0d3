//! What was seen of the fleet before planning. Stale and partial is normal.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{ClusterObservation, InstallerReport, NodeName, PlannedDisk, SystemTarget, Updates};

/// What a look at one machine has shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "found")]
pub enum Found {
    /// Nobody has ever looked, or the machine was never installed.
    Nothing,
    /// An installer runs on it.
    Installer {
        /// Its latest report.
        report: Box<InstallerReport>,
    },
    /// It answered over SSH under the host key that was made for it.
    Running {
        /// The boot.
        boot_id: String,
        /// The system that it booted.
        booted_system: String,
        /// The system that is active now.
        current_system: String,
    },
    /// It was installed once, and doesn't answer.
    Unreachable {
        /// What the last try said.
        reason: String,
    },
    /// Something answered at its address under another host key.
    ForeignHostKey {
        /// The fingerprint that was shown.
        fingerprint: String,
    },
}

/// What is known of one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct NodeObservation {
    /// What was found.
    #[serde(flatten)]
    pub found: Found,
    /// How long ago, in milliseconds; `None` where nobody has ever looked.
    pub age_ms: Option<u64>,
}

/// What the journal says was installed on a machine, or was under way to be.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Installed {
    /// How often it was deliberately installed anew.
    pub generation: u32,
    /// The disks as they were planned last.
    pub disks: Vec<PlannedDisk>,
    /// Whether it was ever proved to be up with these disks, so that they may hold what must not
    /// be lost.
    pub proved_up: bool,
    /// Whether it was ever a member of the cluster with these disks.
    #[serde(default)]
    pub joined: bool,
    /// Whether it was ever a member of the cluster, with whatever disks: wiped or not, the cluster
    /// knows it until it was removed there.
    #[serde(default)]
    pub member: bool,
}

/// Everything that planning looks at besides the inventory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Observation {
    /// The machines that were looked at.
    pub nodes: BTreeMap<NodeName, NodeObservation>,
    /// The systems that were built, or why one could not be.
    pub targets: BTreeMap<NodeName, Result<SystemTarget, String>>,
    /// The fingerprints (`SHA256:…`) of the host keys that were made for the machines.
    pub host_keys: BTreeMap<NodeName, String>,
    /// What the journal says was installed before.
    #[serde(default)]
    pub installed: BTreeMap<NodeName, Installed>,
    /// How far an update is, by what the journal says.
    #[serde(default)]
    pub updates: Updates,
    /// What the cluster's API says; `None` where nobody could ask it, so that whatever may be done
    /// already is looked at first.
    #[serde(default)]
    pub cluster: Option<ClusterObservation>,
}
