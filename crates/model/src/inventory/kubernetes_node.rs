//! What the inventory makes of a machine's Node object in Kubernetes: its labels and annotations.
//! Whoever puts them on the node and whoever writes manifests that select by them look here, so
//! that the two can't differ.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Component, DiskRole, Distribution, Gpu, GpuSharing, Hat, Inventory, Node, Role};
use crate::NodeName;

/// Label by which NVIDIA's device plugin chooses a node's configuration (k8s-device-plugin,
/// README.md, "Updating Per-Node Configuration With a Node Label").
pub const GPU_PROFILE_LABEL: &str = "nvidia.com/device-plugin.config";
/// Label by which Longhorn takes a node's first disks from the annotation
/// (longhorn.io, "Configuring Defaults for Nodes and Disks").
pub const LONGHORN_DISK_LABEL: &str = "node.longhorn.io/create-default-disk";
/// Annotation with a node's first disks, a JSON list.
pub const LONGHORN_DISK_ANNOTATION: &str = "node.longhorn.io/default-disks-config";
/// Label with a node's class.
pub const CLASS_LABEL: &str = "undercroft.dev/class";
/// Where the first of a node's Longhorn disks is mounted; further ones have `-2`, `-3`, … behind.
pub const LONGHORN_PATH: &str = "/var/lib/longhorn";

/// Bytes in a GiB.
const GIB: u64 = 1 << 30;

/// One disk as Longhorn reads it from the annotation. An error in one of them voids all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LonghornDisk {
    /// Name on the node.
    pub name: String,
    /// Where it is mounted.
    pub path: String,
    /// Whether replicas may be put on it.
    pub allow_scheduling: bool,
    /// Bytes that are left free; 0 where the size isn't known.
    pub storage_reserved: u64,
    /// Longhorn's tags.
    pub tags: Vec<String>,
}

impl Gpu {
    /// Name of the device plugin's configuration for these cards: what they share and how. Nodes
    /// with the same name have the same configuration, whatever their class.
    pub fn profile(&self) -> String {
        let replicas = self.replicas.unwrap_or(1);
        match self.sharing {
            GpuSharing::None => "exclusive".to_owned(),
            GpuSharing::TimeSlicing => format!("time-slicing-{replicas}"),
            GpuSharing::Mps => format!("mps-{replicas}"),
            GpuSharing::Mig if self.mig_is_uniform() => "mig-single".to_owned(),
            GpuSharing::Mig => "mig-mixed".to_owned(),
        }
    }

    /// Whether every instance of every card is the same, so that pods can ask for plain
    /// `nvidia.com/gpu`: the layouts that nvidia-mig-parted names `all-1g.10gb` and the like.
    pub fn mig_is_uniform(&self) -> bool {
        self.mig_config.as_ref().is_some_and(|config| {
            config
                .strip_prefix("all-")
                .is_some_and(|instance| instance.starts_with(|c: char| c.is_ascii_digit()))
        })
    }
}

impl Hat {
    /// Label of the nodes that have such a board.
    pub fn label(self) -> String {
        format!("undercroft.dev/hat.{}", self.as_str())
    }
}

impl Node {
    /// The node's Longhorn disks: the partition of its root disk first, then its disks for
    /// Longhorn in the inventory's order. Empty where it gives none.
    pub fn longhorn_disks(&self) -> Vec<LonghornDisk> {
        let Some(longhorn) = &self.longhorn else {
            return Vec::new();
        };
        let partition = longhorn.partition_gb.map(Some);
        let disks = self.disks.iter().filter(|d| d.role == DiskRole::Longhorn);
        let sizes_gb = partition.into_iter().chain(disks.map(|d| d.size_gb));
        sizes_gb
            .enumerate()
            .map(|(index, size_gb)| {
                let size_bytes = u64::from(size_gb.unwrap_or(0)).saturating_mul(GIB);
                let reserved = size_bytes / 100 * u64::from(longhorn.reserved_percent);
                LonghornDisk {
                    name: format!("undercroft-{}", index + 1),
                    path: match index {
                        0 => LONGHORN_PATH.to_owned(),
                        further => format!("{LONGHORN_PATH}-{}", further + 1),
                    },
                    allow_scheduling: true,
                    storage_reserved: reserved,
                    tags: longhorn.disk_tags.clone(),
                }
            })
            .collect()
    }
}

impl Inventory {
    /// Whether the cluster has Longhorn: it is asked for, and some node gives it a disk.
    pub fn has_longhorn(&self) -> bool {
        self.gitops.components.contains(&Component::Longhorn)
            && self
                .nodes
                .values()
                .any(|node| node.role != Role::None && !node.longhorn_disks().is_empty())
    }

    fn cluster_node(&self, name: &NodeName) -> Option<&Node> {
        let node = self.nodes.get(name)?;
        let outside = self.kubernetes.distribution == Distribution::None || node.role == Role::None;
        (!outside).then_some(node)
    }

    /// The labels of a machine's Node object; none where it is no part of the cluster.
    pub fn node_labels(&self, name: &NodeName) -> BTreeMap<String, String> {
        let Some(node) = self.cluster_node(name) else {
            return BTreeMap::new();
        };
        let components = &self.gitops.components;
        let mut labels = node.labels.clone();
        labels.insert(CLASS_LABEL.to_owned(), node.class.to_string());
        if components.contains(&Component::Longhorn) && !node.longhorn_disks().is_empty() {
            labels.insert(LONGHORN_DISK_LABEL.to_owned(), "config".to_owned());
        }
        if let Some(gpu) = &node.gpu
            && components.contains(&Component::NvidiaDevicePlugin)
        {
            labels.insert(GPU_PROFILE_LABEL.to_owned(), gpu.profile());
        }
        for hat in &node.hats {
            labels.insert(hat.label(), "true".to_owned());
        }
        labels
    }

    /// The annotations of a machine's Node object; none where it is no part of the cluster.
    pub fn node_annotations(&self, name: &NodeName) -> BTreeMap<String, String> {
        let disks = self
            .cluster_node(name)
            .filter(|_| self.gitops.components.contains(&Component::Longhorn))
            .map(Node::longhorn_disks)
            .unwrap_or_default();
        if disks.is_empty() {
            return BTreeMap::new();
        }
        // Texts, numbers and lists of them always have a form in JSON.
        let json = serde_json::to_string(&disks).unwrap_or_default();
        [(LONGHORN_DISK_ANNOTATION.to_owned(), json)].into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::parse;

    const FLEET: &str = r#"
[fleet]
name = "cellar"
[network]
node_cidr = "10.0.0.0/24"
server_address = "10.0.0.2"
[kubernetes]
distribution = "k3s"
founder = "a"
[classes.box]
longhorn = { partition_gb = 100, disk_tags = ["ssd"] }
labels = { "cellar.example/rack" = "1" }
gpu = { model = "a100-80gb", sharing = "mig", mig_config = "all-1g.10gb" }
hats = ["hailo-8"]
[nodes.a]
class = "box"
role = "server"
macs = ["3c:ec:ef:10:00:01"]
address = "10.0.0.11"
disks = [{ serial = "R" }, { serial = "L1", role = "longhorn", size_gb = 1000 }, { serial = "L2", role = "longhorn" }]
[nodes.b]
class = "box"
macs = ["3c:ec:ef:10:00:02"]
address = "10.0.0.12"
disks = [{ serial = "S" }]
"#;

    #[test]
    fn a_node_carries_what_its_disks_cards_and_boards_ask_for() {
        let parsed = parse("undercroft.toml", FLEET.as_bytes());
        assert!(parsed.inventory.is_some(), "{:?}", parsed.diagnostics);
        let inventory = parsed.inventory.unwrap();
        let a: NodeName = "a".parse().unwrap();
        let labels = inventory.node_labels(&a);
        let labels: Vec<_> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(
            labels,
            [
                "cellar.example/rack=1",
                "node.longhorn.io/create-default-disk=config",
                "nvidia.com/device-plugin.config=mig-single",
                "undercroft.dev/class=box",
                "undercroft.dev/hat.hailo-8=true",
            ]
        );
        assert_eq!(
            inventory.node_annotations(&a)[LONGHORN_DISK_ANNOTATION],
            concat!(
                r#"[{"name":"undercroft-1","path":"/var/lib/longhorn","allowScheduling":true,"#,
                r#""storageReserved":10737418240,"tags":["ssd"]},"#,
                r#"{"name":"undercroft-2","path":"/var/lib/longhorn-2","allowScheduling":true,"#,
                r#""storageReserved":107374182400,"tags":["ssd"]},"#,
                r#"{"name":"undercroft-3","path":"/var/lib/longhorn-3","allowScheduling":true,"#,
                r#""storageReserved":0,"tags":["ssd"]}]"#,
            )
        );
        // A machine outside of the cluster has no Node object.
        let b: NodeName = "b".parse().unwrap();
        assert!(inventory.node_labels(&b).is_empty());
        assert!(inventory.node_annotations(&b).is_empty());
    }

    #[test]
    fn mig_layouts_that_differ_between_instances_are_told_from_uniform_ones() {
        let gpu = |config: &str| Gpu {
            sharing: GpuSharing::Mig,
            mig_config: Some(config.to_owned()),
            ..gpu_none()
        };
        assert_eq!(gpu("all-1g.10gb").profile(), "mig-single");
        assert_eq!(gpu("all-balanced").profile(), "mig-mixed");
        assert_eq!(gpu("training").profile(), "mig-mixed");
        assert_eq!(gpu_none().profile(), "exclusive");
        let sliced = Gpu {
            sharing: GpuSharing::TimeSlicing,
            replicas: Some(4),
            ..gpu_none()
        };
        assert_eq!(sliced.profile(), "time-slicing-4");
    }

    fn gpu_none() -> Gpu {
        Gpu {
            model: "h100".to_owned(),
            count: 1,
            driver: super::super::GpuDriver::Open,
            sharing: GpuSharing::None,
            replicas: None,
            mig_config: None,
        }
    }
}
