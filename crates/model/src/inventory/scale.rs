//! A fleet of another size than the inventory's, for rehearsals and measurements.

use std::{collections::BTreeSet, net::Ipv4Addr};

use ipnet::Ipv4Net;

use super::{Inventory, Node, POD_NODE_PREFIX, Role};
use crate::{MacAddr, MachineUuid, NodeName};

/// The most nodes that a fleet is scaled to. Twice a million addresses are a /11, of which
/// 10.0.0.0/8 has eight, so that there is room beside the other networks.
pub const MAX_SCALED_NODES: usize = 1_000_000;

/// Why a fleet can't be scaled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScaleError {
    /// The inventory has no node that could be a model.
    #[error("the inventory has no nodes to take as models for more")]
    NoNodes,
    /// More nodes than [`MAX_SCALED_NODES`].
    #[error("{0} nodes are more than a fleet is scaled to ({MAX_SCALED_NODES})")]
    TooMany(usize),
    /// The inventory's other networks leave no network that is wide enough.
    #[error("10.0.0.0/8 has no network left that is wide enough for {0} nodes")]
    NoRoom(usize),
}

/// Gives the inventory a certain number of nodes: drops the last ones by name, or adds copies of
/// its nodes, in turn, with names, addresses, MACs, UUIDs and serial numbers of their own.
///
/// A failure budget that the inventory gives grows with the fleet: two of thirty that may fail are
/// twenty of three hundred.
///
/// Copies of servers become agents, so that the control plane stays what it is. The founder and
/// the other servers are the last to be dropped. Where the nodes' network has no room, all of
/// them move to a wide one of their own. The same input always gives the same fleet.
///
/// # Errors
/// When there is no node to copy, too many are wanted, or no network is left for them.
pub fn scale_to(inventory: &Inventory, nodes: usize) -> Result<Inventory, ScaleError> {
    if nodes > MAX_SCALED_NODES {
        return Err(ScaleError::TooMany(nodes));
    }
    if inventory.nodes.is_empty() && nodes > 0 {
        return Err(ScaleError::NoNodes);
    }
    let mut scaled = inventory.clone();
    if nodes <= inventory.nodes.len() {
        shrink(&mut scaled, nodes);
        return Ok(scaled);
    }
    // Only machines that aren't servers are copied, where there are any.
    let mut models: Vec<(&NodeName, &Node)> = inventory
        .nodes
        .iter()
        .filter(|(_, node)| node.role != Role::Server)
        .collect();
    if models.is_empty() {
        models = inventory.nodes.iter().collect();
    }
    let missing = nodes - inventory.nodes.len();
    if Free::new(&scaled).take(missing).count() < missing {
        widen(&mut scaled, nodes).ok_or(ScaleError::NoRoom(nodes))?;
    }
    let mut free = Free::new(&scaled);
    let mut number: u64 = 0;
    let mut added = 0;
    for (model_name, model) in models.into_iter().cycle() {
        if added == missing {
            break;
        }
        number += 1;
        let Some(name) = copy_name(model_name, number) else {
            continue;
        };
        if scaled.nodes.contains_key(&name) {
            continue;
        }
        let address = free.next().ok_or(ScaleError::NoRoom(nodes))?;
        scaled.nodes.insert(name, copy(model, number, address));
        added += 1;
    }
    scale_budget(&mut scaled, inventory.nodes.len());
    widen_pods(&mut scaled);
    Ok(scaled)
}

/// Lets a failure budget grow with the fleet, so that what is rehearsed is a larger fleet and not a
/// more cautious operator. 0, which stops at the first failure, stays 0.
fn scale_budget(inventory: &mut Inventory, nodes_before: usize) {
    let nodes = inventory.nodes.len();
    if let Some(budget) = &mut inventory.fleet.limits.failure_budget {
        let wide = u128::from(*budget) * nodes as u128 / nodes_before.max(1) as u128;
        *budget = u32::try_from(wide).unwrap_or(u32::MAX).max(*budget);
    }
}

/// Drops nodes: first those that aren't servers, from the last name on.
fn shrink(inventory: &mut Inventory, nodes: usize) {
    let founder = inventory.kubernetes.founder.clone();
    let mut order: Vec<(bool, bool, NodeName)> = inventory
        .nodes
        .iter()
        .map(|(name, node)| {
            let founds = founder.as_ref() == Some(name);
            (!founds, node.role != Role::Server, name.clone())
        })
        .collect();
    order.sort();
    for (_, _, name) in order.into_iter().skip(nodes) {
        inventory.nodes.remove(&name);
    }
}

/// `gpu-01` and 7 make `gpu-01-x7`.
fn copy_name(model: &NodeName, number: u64) -> Option<NodeName> {
    let suffix = format!("-x{number}");
    let kept: String = model.as_str().chars().take(63 - suffix.len()).collect();
    NodeName::new(format!("{kept}{suffix}")).ok()
}

fn copy(model: &Node, number: u64, address: Ipv4Addr) -> Node {
    let mut node = model.clone();
    node.address = address;
    node.macs = model
        .macs
        .iter()
        .enumerate()
        .map(|(i, _)| mac(number, i))
        .collect();
    // Version 8 of RFC 9562 is for UUIDs of one's own making; the number is its last 48 bits.
    node.uuid = model.uuid.map(|_| {
        let [_, _, a, b, c, d, e, f] = number.to_be_bytes();
        MachineUuid([
            b'u', b'c', b's', b'c', b'a', b'l', 0x80, b'e', 0x80, 0, a, b, c, d, e, f,
        ])
    });
    for disk in &mut node.disks {
        disk.serial = disk.serial.as_ref().map(|s| format!("{s}-x{number}"));
        disk.wwn = disk.wwn.as_ref().map(|w| format!("{w}-x{number}"));
    }
    for phone in &mut node.phones {
        phone.serial = format!("{}-x{number}", phone.serial);
    }
    if node.role == Role::Server {
        node.role = Role::Agent;
    }
    node
}

/// A locally administered address (IEEE 802c): its second octet counts the machine's interfaces,
/// its last four the machines.
fn mac(number: u64, interface: usize) -> MacAddr {
    let [.., a, b, c, d] = number.to_be_bytes();
    let interface = u8::try_from(interface).unwrap_or(u8::MAX);
    MacAddr([0x06, interface, a, b, c, d])
}

/// The networks of a size in 10.0.0.0/8 that are apart from others.
fn private_nets(prefix: u8, others: &[Ipv4Net]) -> impl Iterator<Item = Ipv4Net> {
    let apart = move |net: &Ipv4Net| {
        others
            .iter()
            .all(|o| !o.contains(&net.network()) && !net.contains(&o.network()))
    };
    let all = Ipv4Net::new(Ipv4Addr::new(10, 0, 0, 0), 8);
    let all = all.ok().and_then(|net| net.subnets(prefix).ok());
    all.into_iter().flatten().filter(apart)
}

/// Gives the pods a wider network where theirs has no room for all nodes. Past some sixteen
/// thousand nodes there is none in 10.0.0.0/8 and it stays as it is: that is past what Kubernetes
/// supports, and no rehearsal looks at it.
fn widen_pods(inventory: &mut Inventory) {
    let nodes = inventory.nodes.values();
    let nodes = nodes.filter(|node| node.role != Role::None).count();
    let kubernetes = &mut inventory.kubernetes;
    let bits = nodes.next_power_of_two().trailing_zeros();
    let Some(prefix) = u32::from(POD_NODE_PREFIX)
        .checked_sub(bits)
        .and_then(|prefix| u8::try_from(prefix).ok())
        .filter(|prefix| *prefix < kubernetes.pod_cidr.prefix_len())
    else {
        return;
    };
    let mut others = vec![
        inventory.network.node_cidr,
        kubernetes.service_cidr,
        inventory.network.overlay.cidr,
    ];
    others.extend(&kubernetes.load_balancer_cidrs);
    if let Some(net) = private_nets(prefix, &others).next() {
        kubernetes.pod_cidr = net;
    }
}

/// Moves every node to a wide network, in the order of their names.
fn widen(inventory: &mut Inventory, nodes: usize) -> Option<()> {
    // Twice the addresses leave room for the server, the gateway and unknown machines.
    let wanted = u32::try_from(nodes.max(256) * 2).ok()?;
    let prefix = u8::try_from(wanted.next_power_of_two().leading_zeros() + 1).ok()?;
    let kubernetes = &mut inventory.kubernetes;
    let others = [
        kubernetes.pod_cidr,
        kubernetes.service_cidr,
        inventory.network.overlay.cidr,
    ];
    // The last one is the least likely to be in use.
    let net = private_nets(prefix, &others).last()?;
    let mut hosts = net.hosts();
    let network = &mut inventory.network;
    network.node_cidr = net;
    network.server_address = hosts.next()?;
    network.gateway = network.gateway.and_then(|_| hosts.next());
    network.dhcp_range = None;
    kubernetes.virtual_ip = kubernetes.virtual_ip.and_then(|_| hosts.next());
    // Networks that were cut out of the old one no longer fit.
    kubernetes.load_balancer_cidrs.clear();
    for node in inventory.nodes.values_mut() {
        node.address = hosts.next()?;
    }
    Some(())
}

/// The addresses of the nodes' network that are free.
struct Free {
    hosts: ipnet::Ipv4AddrRange,
    taken: BTreeSet<Ipv4Addr>,
    kept: Vec<Ipv4Net>,
    range: Option<(Ipv4Addr, Ipv4Addr)>,
}

impl Free {
    fn new(inventory: &Inventory) -> Self {
        let network = &inventory.network;
        let mut taken: BTreeSet<Ipv4Addr> = inventory.nodes.values().map(|n| n.address).collect();
        taken.insert(network.server_address);
        let others = network.gateway.iter().chain(&network.dns);
        let others = others.chain(&inventory.kubernetes.virtual_ip);
        taken.extend(others);
        Self {
            hosts: network.node_cidr.hosts(),
            taken,
            kept: inventory.kubernetes.load_balancer_cidrs.clone(),
            range: network.dhcp_range.as_ref().map(|r| (r.first, r.last)),
        }
    }
}

impl Iterator for Free {
    type Item = Ipv4Addr;

    fn next(&mut self) -> Option<Ipv4Addr> {
        let Self {
            hosts,
            taken,
            kept,
            range,
        } = self;
        hosts.find(|a| {
            !taken.contains(a)
                && !kept.iter().any(|net| net.contains(a))
                && !range.is_some_and(|(first, last)| (first..=last).contains(a))
        })
    }
}
