//! The inventory: one file that says what the fleet is meant to be.
//!
//! [`parse`] takes the bytes of `undercroft.toml` and gives an [`Inventory`] or everything that is
//! wrong with it, in one run. The keys are declared once, in `sections`, `machines` and `people`,
//! with their meaning, type, default and limits; reading, printing, the JSON Schema and the test
//! of the reference page all follow from those declarations.

mod card;
mod check;
mod declare;
mod draft;
mod forms;
mod kubernetes_node;
mod leaves;
mod machines;
mod parse;
mod people;
mod print;
mod reader;
mod resolve;
mod scale;
mod schema;
mod secret;
mod sections;
mod source;
mod syntax;
mod taint;
mod words;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{ClassName, Diagnostic, NodeName, PcName, UserName};

pub use card::CardFacts;
pub use kubernetes_node::*;
pub use machines::*;
pub use parse::{diagnose, parse};
pub use people::*;
pub use print::print;
pub use resolve::Node;
pub use scale::{MAX_SCALED_NODES, ScaleError, scale_to};
pub use schema::schema;
pub use sections::*;
pub use taint::Taint;

/// Where Kubernetes' API listens on every server, and answers at the virtual address: `apiPort` in
/// nix/lib/kubernetes.nix.
pub const API_PORT: u16 = 6443;
/// Bits of a node's part of the pods' network: Cilium gives every node a /24
/// (`clusterPoolIPv4MaskSize`), and that is what the room for nodes is counted by.
pub const POD_NODE_PREFIX: u8 = 24;

/// What the fleet is meant to be. Every node carries what it has from its class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inventory {
    /// The fleet as a whole.
    pub fleet: Fleet,
    /// The nodes' network.
    pub network: Network,
    /// The cluster.
    pub kubernetes: Kubernetes,
    /// The tree that Argo CD keeps the cluster equal to.
    pub gitops: Gitops,
    /// How secrets are kept.
    pub secrets: Secrets,
    /// Work that PCs take over.
    pub lending: Lending,
    /// The classes, as they are written.
    pub classes: BTreeMap<ClassName, Class>,
    /// The machines of the cluster.
    pub nodes: BTreeMap<NodeName, Node>,
    /// The developers' PCs.
    pub pcs: BTreeMap<PcName, Pc>,
    /// The people.
    pub users: BTreeMap<UserName, User>,
}

/// What came of reading an inventory.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// The inventory, where no finding is an error.
    pub inventory: Option<Inventory>,
    /// All findings, in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
}

impl Inventory {
    /// The number of nodes that may fail before no further node is started: the inventory's, or
    /// a tenth of the nodes and at least one.
    pub fn failure_budget(&self) -> u32 {
        let tenth = u32::try_from(self.nodes.len() / 10).unwrap_or(u32::MAX);
        self.fleet.limits.failure_budget.unwrap_or(tenth.max(1))
    }

    /// The servers of the cluster, founder first; none where there is no Kubernetes.
    pub fn servers(&self) -> Vec<&NodeName> {
        if self.kubernetes.distribution == Distribution::None {
            return Vec::new();
        }
        let founder = self.kubernetes.founder.as_ref();
        let mut servers: Vec<&NodeName> = self
            .nodes
            .iter()
            .filter(|(_, node)| node.role == Role::Server)
            .map(|(name, _)| name)
            .collect();
        servers.sort_by_key(|name| (Some(*name) != founder, *name));
        servers
    }

    /// Host at which clients and agents reach the API: the virtual address, which moves with the
    /// server that holds it; else the endpoint that was given; else the founder's address. `None`
    /// where no cluster is founded. nix/lib/fleet.nix (`apiEndpoint`) says the same.
    pub fn api_host(&self) -> Option<String> {
        let kubernetes = &self.kubernetes;
        if kubernetes.distribution == Distribution::None {
            return None;
        }
        let founder = self.nodes.get(kubernetes.founder.as_ref()?)?;
        let virtual_ip = kubernetes.virtual_ip.map(|address| address.to_string());
        let endpoint = || kubernetes.api_endpoint.clone();
        let host = virtual_ip.or_else(endpoint);
        Some(host.unwrap_or_else(|| founder.address.to_string()))
    }

    /// All SSH keys that may log in to the nodes as root: the fleet's and those of its admins,
    /// each once, in order.
    pub fn root_keys(&self) -> Vec<&str> {
        let admins = self.users.values().filter(|u| u.role == UserRole::Admin);
        let keys = self
            .fleet
            .admin_keys
            .iter()
            .chain(admins.flat_map(|u| &u.ssh_keys));
        let keys: std::collections::BTreeSet<&str> = keys.map(String::as_str).collect();
        keys.into_iter().collect()
    }

    /// The lines of root's `authorized_keys`, on machines and in their installer alike: the
    /// operator's own key, where there is one, and [`Self::root_keys`].
    pub fn authorized_keys(&self, operator: &str) -> Vec<String> {
        let operator = Some(operator).filter(|key| !key.is_empty());
        let mut keys: Vec<String> = operator.map(str::to_owned).into_iter().collect();
        for key in self.root_keys() {
            if operator != Some(key) {
                keys.push(key.to_owned());
            }
        }
        keys
    }

    /// SHA-256 of the canonical form ([`print`]) in hexadecimal: the same for all files that
    /// mean the same.
    pub fn digest(&self) -> String {
        use sha2::{Digest, Sha256};
        let hash = Sha256::digest(print(self).as_bytes());
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
