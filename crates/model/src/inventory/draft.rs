//! An inventory as far as it could be read.

use std::{collections::BTreeMap, net::Ipv4Addr};

use super::{
    Class, Disk, Fleet, Gitops, Inventory, Kubernetes, Lending, Network, Node, NodeEntry, Pc,
    Phone, Secrets, User,
};
use crate::{ClassName, MacAddr, MachineUuid, NodeName, PcName, UserName};

/// What could be read of an inventory; a section that couldn't is absent.
pub(crate) struct Draft {
    pub(crate) fleet: Option<Fleet>,
    pub(crate) network: Option<Network>,
    pub(crate) kubernetes: Option<Kubernetes>,
    pub(crate) gitops: Option<Gitops>,
    pub(crate) secrets: Option<Secrets>,
    pub(crate) lending: Option<Lending>,
    pub(crate) classes: BTreeMap<ClassName, Class>,
    pub(crate) nodes: BTreeMap<NodeName, Node>,
    pub(crate) pcs: BTreeMap<PcName, Pc>,
    pub(crate) users: BTreeMap<UserName, User>,
    /// Nodes whose class isn't there or couldn't be read, as they stand in the file.
    pub(crate) without_class: BTreeMap<NodeName, NodeEntry>,
}

/// What a node says of its own machine, whatever its class gives.
pub(crate) struct OwnParts<'d> {
    pub(crate) name: &'d str,
    pub(crate) macs: &'d [MacAddr],
    pub(crate) uuid: Option<MachineUuid>,
    pub(crate) address: Ipv4Addr,
    pub(crate) disks: &'d [Disk],
    pub(crate) phones: &'d [Phone],
}

impl Draft {
    /// Every node's own parts, also where nothing more can be said because of its class.
    pub(crate) fn own_parts(&self) -> impl Iterator<Item = OwnParts<'_>> {
        let read = self.nodes.iter().map(|(name, node)| OwnParts {
            name: name.as_str(),
            macs: &node.macs,
            uuid: node.uuid,
            address: node.address,
            disks: &node.disks,
            phones: &node.phones,
        });
        let rest = self.without_class.iter().map(|(name, entry)| OwnParts {
            name: name.as_str(),
            macs: &entry.macs,
            uuid: entry.uuid,
            address: entry.address,
            disks: &entry.disks,
            phones: &entry.phones,
        });
        read.chain(rest)
    }
}

impl Draft {
    /// The inventory, where every section could be read.
    pub(crate) fn finish(self) -> Option<Inventory> {
        Some(Inventory {
            fleet: self.fleet?,
            network: self.network?,
            kubernetes: self.kubernetes?,
            gitops: self.gitops?,
            secrets: self.secrets?,
            lending: self.lending?,
            classes: self.classes,
            nodes: self.nodes,
            pcs: self.pcs,
            users: self.users,
        })
    }
}
