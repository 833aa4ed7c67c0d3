//! The cluster that the machines form, as a plan and an observation name it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::Ipv4Addr,
};

use serde::{Deserialize, Serialize};

use crate::{NodeName, inventory::Distribution};

/// What a machine is in the cluster.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum ClusterRole {
    /// It runs the control plane and is a member of etcd.
    Server,
    /// It runs pods alone.
    Agent,
}

impl ClusterRole {
    /// The role as people read it and JSON has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Agent => "agent",
        }
    }
}

impl fmt::Display for ClusterRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A part of what makes a cluster of servers into one that a repository keeps. The order is the
/// order in which they are brought in.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum BootstrapPart {
    /// The network of the pods (Cilium), and with kubeadm the cluster's DNS: without it no node is
    /// Ready and no pod runs.
    Network,
    /// The secrets that stand in no repository in plain text: Argo CD's credentials, the key with
    /// which the cluster opens its own.
    Secrets,
    /// Argo CD itself.
    ArgoCd,
    /// The application from which all others follow: synced, and healthy with all that it brings.
    RootApp,
}

impl BootstrapPart {
    /// All parts, in order.
    pub const ALL: [Self; 4] = [Self::Network, Self::Secrets, Self::ArgoCd, Self::RootApp];

    /// The part's name as people read it: the verb of its step.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Secrets => "secrets",
            Self::ArgoCd => "argocd",
            Self::RootApp => "sync",
        }
    }
}

impl fmt::Display for BootstrapPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What Argo CD reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct GitopsSource {
    /// URL of the git repository.
    pub repository: String,
    /// Branch, tag or commit.
    pub revision: String,
    /// Folder of the rendered tree in the repository.
    pub path: String,
}

/// What the cluster's steps need to know beside their own machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ClusterPlan {
    /// What makes the cluster; never [`Distribution::None`].
    pub distribution: Distribution,
    /// The version of Kubernetes, where the inventory fixes one.
    pub version: Option<String>,
    /// The server that founds the cluster, and that the bootstrap's parts are brought in by.
    pub founder: NodeName,
    /// All servers of the inventory with their addresses, those that the plan has no step for
    /// included: any of them that answers is good to ask the API of.
    pub servers: BTreeMap<NodeName, Ipv4Addr>,
    /// Servers beside the founder that were members of the cluster before this plan, as the journal or the API says, and
    /// that nobody has asked to be wiped by it. While one of them can't be asked, no cluster is founded.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub members: BTreeSet<NodeName>,
    /// What Argo CD reads; `None` where nothing is bootstrapped.
    pub gitops: Option<GitopsSource>,
}

impl ClusterPlan {
    /// The founder's address; `None` only in a plan that no planner made.
    pub fn founder_address(&self) -> Option<Ipv4Addr> {
        self.servers.get(&self.founder).copied()
    }
}

/// What the cluster's API says of one machine's node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ClusterNode {
    /// The boot id that its kubelet reported last (`status.nodeInfo.bootID`).
    pub boot_id: String,
    /// Whether the condition Ready is True.
    pub ready: bool,
    /// Whether it carries the labels, annotations and taints that the inventory asks for. False
    /// makes a plan that puts them on.
    pub as_planned: bool,
    /// Whether it is a member of etcd that votes and answers; false for agents.
    pub etcd_voter: bool,
    /// Its kubelet's version, such as `v1.34.2+k3s1`.
    pub kubelet_version: String,
    /// Who has closed it for further pods; `None` where nobody has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_by: Option<ClosedBy>,
}

/// Who has closed a node for further pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ClosedBy {
    /// An update of this fleet's, which opens it again.
    Update,
    /// Somebody else, who does so themselves.
    Others,
}

/// What a look at the cluster's API has shown.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ClusterObservation {
    /// The API server's version, such as `v1.34.2+k3s1`.
    pub version: String,
    /// The nodes that the cluster knows by a name of the inventory.
    pub nodes: BTreeMap<NodeName, ClusterNode>,
    /// The parts of the bootstrap that are there and healthy.
    pub parts: BTreeSet<BootstrapPart>,
}

/// The major and minor version in a text such as `1.34`, `v1.34.2` or `v1.34.2+k3s1`.
pub fn kubernetes_minor(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.trim_start_matches('v').splitn(3, '.');
    let major = parts.next()?.parse().ok()?;
    let minor: String = parts
        .next()?
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    Some((major, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_kubernetes_writes_them() {
        for (text, want) in [
            ("1.34", Some((1, 34))),
            ("v1.34.2", Some((1, 34))),
            ("v1.34.2+k3s1", Some((1, 34))),
            ("1.34+", Some((1, 34))),
            ("1", None),
            ("", None),
            ("v1.x", None),
        ] {
            assert_eq!(kubernetes_minor(text), want, "{text}");
        }
    }
}
