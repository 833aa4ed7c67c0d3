//! The states that a machine is brought to.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How far a machine has come. The order is the order of a bring-up, and within it that of an update.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// Nothing is known but the inventory's word.
    Unknown,
    /// An installer on the machine has reported in.
    Seen,
    /// The fingerprint that it reported was approved.
    Approved,
    /// Over SSH pinned to that fingerprint, the machine's identity and disks were found right.
    InstallerReady,
    /// The disks are laid out and mounted.
    Partitioned,
    /// The closure is on the disk, whole.
    Copied,
    /// Of a machine that is updated alone: no pod runs on it but what belongs to it, and none is placed on it.
    Drained,
    /// Host key, profile and boot loader are in place and were read back.
    Installed,
    /// The machine has a new boot id.
    Rebooted,
    /// It runs the closure that was built, under the host key that was made for it.
    Up,
    /// It is a member of the Kubernetes cluster; the founder: its API answers.
    Joined,
    /// The founder alone: the network of the pods is there.
    Networked,
    /// Kubernetes calls it Ready, and it carries its labels, annotations and taints.
    Ready,
    /// The founder alone: the cluster has the secrets that its bootstrap needs.
    #[serde(alias = "entrusted")]
    SecretsReady,
    /// The founder alone: Argo CD is there and healthy.
    #[serde(rename = "argocd-ready", alias = "delivering")]
    ArgoCdReady,
    /// The founder alone: the root application is synced and healthy.
    Synced,
    /// Of a machine that is updated alone: it takes pods again.
    Released,
}

impl NodeState {
    /// All states, in the order of a bring-up.
    pub const ALL: [Self; 17] = [
        Self::Unknown,
        Self::Seen,
        Self::Approved,
        Self::InstallerReady,
        Self::Partitioned,
        Self::Copied,
        Self::Drained,
        Self::Installed,
        Self::Rebooted,
        Self::Up,
        Self::Joined,
        Self::Networked,
        Self::Ready,
        Self::SecretsReady,
        Self::ArgoCdReady,
        Self::Synced,
        Self::Released,
    ];

    /// The state's name as people read it and JSON has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Seen => "seen",
            Self::Approved => "approved",
            Self::InstallerReady => "installer-ready",
            Self::Partitioned => "partitioned",
            Self::Copied => "copied",
            Self::Drained => "drained",
            Self::Installed => "installed",
            Self::Rebooted => "rebooted",
            Self::Up => "up",
            Self::Joined => "joined",
            Self::Networked => "networked",
            Self::Ready => "ready",
            Self::SecretsReady => "secrets-ready",
            Self::ArgoCdReady => "argocd-ready",
            Self::Synced => "synced",
            Self::Released => "released",
        }
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
