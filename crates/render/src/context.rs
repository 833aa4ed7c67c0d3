//! What a component may look at.

use undercroft_model::{
    NodeName,
    inventory::{self, Distribution, Inventory, Node, Role},
};

use crate::{Choices, LOCK_FILE, Lock, Locked, Problem};

/// What a component is made from: the inventory with every default filled in, the locked
/// versions, and whether the tree is for a PC.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The inventory.
    pub inventory: &'a Inventory,
    /// The versions.
    pub lock: &'a Lock,
    /// Whether the tree is the one for k3d on a PC.
    pub dev: bool,
    /// What the tree before this one laid down, where there was one.
    pub standing: Option<&'a Choices>,
}

impl<'a> Context<'a> {
    /// A context of the cluster itself.
    pub fn new(inventory: &'a Inventory, lock: &'a Lock) -> Self {
        Self {
            inventory,
            lock,
            dev: false,
            standing: None,
        }
    }

    /// Whether the tree is for a PC's k3d cluster.
    pub fn is_dev(&self) -> bool {
        self.dev
    }

    /// What makes the cluster. On a PC it is k3s, which k3d runs.
    pub fn distribution(&self) -> Distribution {
        if self.dev {
            Distribution::K3s
        } else {
            self.inventory.kubernetes.distribution
        }
    }

    /// Whether the inventory asks for a component, in this tree.
    pub fn wants(&self, component: inventory::Component) -> bool {
        let gitops = &self.inventory.gitops;
        gitops.components.contains(&component)
            && !(self.dev && gitops.dev_without.contains(&component))
    }

    /// The locked version of a component's chart or manifest.
    pub fn locked(&self, component: &str) -> Option<&'a Locked> {
        self.lock.components.get(component)
    }

    /// The locked version of a component that can't be without one.
    pub(crate) fn version(&self, component: &str) -> Result<&'a str, Vec<Problem>> {
        self.locked(component)
            .map(|locked| locked.version.as_str())
            .ok_or_else(|| not_locked(component))
    }

    /// The locked image of a component, with its tag and, where it is known, its digest.
    pub(crate) fn image(&self, component: &str) -> Result<String, Vec<Problem>> {
        let locked = self.locked(component);
        let Some((locked, image)) = locked.and_then(|l| Some((l, l.image.as_ref()?))) else {
            return Err(not_locked(component));
        };
        let tagged = format!("{image}:{}", locked.version);
        Ok(match &locked.digest {
            Some(digest) => format!("{tagged}@{digest}"),
            None => tagged,
        })
    }

    /// Whether a component was in the tree before this one.
    pub fn had(&self, component: &str) -> bool {
        self.standing
            .is_some_and(|standing| standing.has_component(component))
    }

    /// The nodes that are part of the cluster. On a PC there are none that the inventory knows.
    pub fn cluster_nodes(&self) -> impl Iterator<Item = (&'a NodeName, &'a Node)> {
        let dev = self.dev;
        self.inventory
            .nodes
            .iter()
            .filter(move |(_, node)| !dev && node.role != Role::None)
    }

    /// The nodes that give Longhorn a partition or a disk.
    pub fn storage_nodes(&self) -> impl Iterator<Item = (&'a NodeName, &'a Node)> {
        self.cluster_nodes()
            .filter(|(_, node)| !node.longhorn_disks().is_empty())
    }

    /// Replicas of a Longhorn volume: the inventory's number, or 3, or as many as there are
    /// storage nodes where they are fewer; at least 1.
    pub fn longhorn_replicas(&self) -> u32 {
        let nodes = u32::try_from(self.storage_nodes().count()).unwrap_or(u32::MAX);
        let wanted = self.inventory.gitops.longhorn_replicas.unwrap_or(3);
        wanted.min(nodes).max(1)
    }

    /// Host and port at which a pod of the host's network reaches the API without kube-proxy.
    ///
    /// k3s' own load balancer listens on every server and agent; under kubeadm it is the virtual
    /// address, or what clients use.
    pub fn api_for_nodes(&self) -> (String, u16) {
        match self.distribution() {
            Distribution::K3s | Distribution::None => ("127.0.0.1".to_owned(), 6444),
            Distribution::Kubeadm => (self.api_host(), inventory::API_PORT),
        }
    }

    /// Host at which clients reach the API.
    pub fn api_host(&self) -> String {
        let host = self.inventory.api_host();
        host.unwrap_or_else(|| "127.0.0.1".to_owned())
    }
}

fn not_locked(name: &str) -> Vec<Problem> {
    vec![
        Problem::new(
            "not-locked",
            format!("the lock file has no version of {name}"),
        )
        .in_file(LOCK_FILE)
        .hint(format!("Run `undercroft update {name}`.")),
    ]
}
