//! What the simulation needs to know of an inventory's machines.

use std::{collections::BTreeMap, net::Ipv4Addr};

use undercroft_model::{
    ClusterRole, DiskIdentity, MacAddr, MachineUuid, NodeName, Plan, System, SystemTarget,
    inventory::{DiskRole, Distribution, Inventory, Layout, Node, PowerKind, Role},
};
use undercroft_simkit::Rng;

use crate::{machine::by_id, profile::Profile};

/// A machine as the inventory describes it.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub(crate) name: NodeName,
    pub(crate) class: String,
    pub(crate) macs: Vec<MacAddr>,
    pub(crate) uuid: Option<MachineUuid>,
    pub(crate) address: Ipv4Addr,
    pub(crate) disks: Vec<SpecDisk>,
    pub(crate) system: System,
    pub(crate) memory_mb: u64,
    /// Whether a person has to press its button.
    pub(crate) manual_power: bool,
    pub(crate) target: SystemTarget,
    pub(crate) host_key: String,
    /// What it is in the cluster, if it is a part of one.
    pub(crate) role: Option<ClusterRole>,
    /// Whether it founds the cluster.
    pub(crate) founds: bool,
}

/// A disk as the inventory describes it.
#[derive(Debug, Clone)]
pub(crate) struct SpecDisk {
    pub(crate) identity: DiskIdentity,
    pub(crate) size_bytes: u64,
    /// Whether the inventory lets it be written to.
    pub(crate) wipeable: bool,
}

/// The least size of a disk in the simulation where the inventory gives none: 1 TB.
const DISK_BYTES_DEFAULT: u64 = 1_000_000_000_000;
/// Memory of a machine whose inventory asks for no least amount: 64 GiB.
const MEMORY_MB_DEFAULT: u64 = 65_536;

/// A fingerprint as OpenSSH prints it, made from a number: 43 characters of base64.
pub(crate) fn fingerprint(key: u64) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    text_of(key, "SHA256:", 43, ALPHABET)
}

/// A store path's hash, made from a number: 32 characters of Nix's base32.
fn store_hash(number: u64) -> String {
    const ALPHABET: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";
    text_of(number, "", 32, ALPHABET)
}

/// Hexadecimal digits made from a number.
pub(crate) fn hex_of(number: u64, digits: usize) -> String {
    text_of(number, "", digits, b"0123456789abcdef")
}

/// A boot id as Linux prints it (a random UUID, RFC 9562 version 4), made from a number.
pub(crate) fn boot_id(number: u64) -> String {
    let mut out = String::with_capacity(36);
    letters(number, 32, b"0123456789abcdef", |i, letter| {
        if matches!(i, 8 | 12 | 16 | 20) {
            out.push('-');
        }
        out.push(match i {
            12 => '4',
            16 => 'a',
            _ => letter,
        });
    });
    out
}

/// Letters of an alphabet that has a power of two of them, drawn from a number's stream.
fn text_of<const N: usize>(number: u64, prefix: &str, length: usize, alphabet: &[u8; N]) -> String {
    let mut out = String::with_capacity(prefix.len() + length);
    out.push_str(prefix);
    letters(number, length, alphabet, |_, letter| out.push(letter));
    out
}

fn letters<const N: usize>(
    number: u64,
    length: usize,
    alphabet: &[u8; N],
    mut each: impl FnMut(usize, char),
) {
    let bits = N.ilog2();
    let mut rng = Rng::new(number);
    let (mut drawn, mut left) = (0, 0);
    for place in 0..length {
        if left < bits {
            (drawn, left) = (rng.next_u64(), u64::BITS);
        }
        let letter = usize::try_from(drawn & ((1 << bits) - 1)).unwrap_or(0);
        each(place, alphabet.get(letter).copied().map_or('0', char::from));
        drawn >>= bits;
        left -= bits;
    }
}

/// The closure's size: the profile's, or what fits on the machine's root disk where that is small,
/// with room for two and the file system's own.
fn closure_bytes(node: &Node, profile: &Profile) -> u64 {
    let root_gb = node
        .disks
        .iter()
        .filter(|disk| disk.role == DiskRole::Root)
        .filter_map(|disk| disk.size_gb)
        .min();
    let longhorn_gb = node.longhorn.as_ref().and_then(|l| l.partition_gb);
    let taken = (u64::from(node.esp_mb) << 20) + (u64::from(longhorn_gb.unwrap_or(0)) << 30);
    let room = root_gb.map_or(u64::MAX, |gb| (u64::from(gb) << 30).saturating_sub(taken));
    profile.closure_bytes.min(room / 3)
}

/// Whether the system brings scripts of disko's, as every NixOS system does. The rack's own small system has none, and lies
/// on the one disk that Undercroft lays out itself.
fn has_scripts(node: &Node) -> bool {
    let wiped = node
        .disks
        .iter()
        .filter(|disk| disk.role.is_wiped())
        .count();
    node.power.kind != PowerKind::Rack || node.layout != Layout::Ext4 || wiped != 1
}

/// The disks that the system's configuration gives to disko.
fn made_anew(node: &Node) -> Vec<String> {
    let disks = node.disks.iter().filter(|disk| disk.role.is_wiped());
    disks
        .map(|disk| by_id(disk.serial.as_deref(), disk.wwn.as_deref()))
        .collect()
}

/// All machines of an inventory that are installed, in the order of their names.
pub(crate) fn specs(inventory: &Inventory, profile: &Profile) -> Vec<Spec> {
    let mut rng = Rng::new(0x5eed);
    inventory
        .nodes
        .iter()
        .map(|(name, node)| {
            let number = rng.next_u64();
            let scripts = has_scripts(node);
            let script = |kind: &str| format!("/nix/store/{}-{kind}", store_hash(number ^ 3));
            Spec {
                name: name.clone(),
                class: node.class.to_string(),
                // Every machine has a network card, whether the inventory names it or not.
                macs: if node.macs.is_empty() {
                    let [.., a, b, c, d] = number.to_be_bytes();
                    vec![MacAddr([0x06, 0, a, b, c, d])]
                } else {
                    node.macs.clone()
                },
                uuid: node.uuid,
                address: node.address,
                disks: node
                    .disks
                    .iter()
                    .map(|disk| SpecDisk {
                        identity: DiskIdentity {
                            serial: disk.serial.clone(),
                            wwn: disk.wwn.clone(),
                        },
                        size_bytes: disk
                            .size_gb
                            .map_or(DISK_BYTES_DEFAULT, |gb| u64::from(gb) << 30),
                        wipeable: disk.role.is_wiped(),
                    })
                    .collect(),
                system: node.system,
                memory_mb: node.min_memory_mb.map_or(MEMORY_MB_DEFAULT, u64::from),
                manual_power: node.power.kind == PowerKind::Manual,
                target: SystemTarget {
                    toplevel: format!("/nix/store/{}-nixos-system-{name}", store_hash(number ^ 1)),
                    disko_script: scripts.then(|| script("disko")),
                    disko_mount_script: scripts.then(|| script("disko-mount")),
                    disko_devices: scripts.then(|| made_anew(node)),
                    system: node.system,
                    closure_bytes: Some(closure_bytes(node, profile)),
                },
                host_key: fingerprint(number ^ 2),
                role: match (inventory.kubernetes.distribution, node.role) {
                    (Distribution::None, _) | (_, Role::None) => None,
                    (_, Role::Server) => Some(ClusterRole::Server),
                    (_, Role::Agent) => Some(ClusterRole::Agent),
                },
                founds: inventory.kubernetes.distribution != Distribution::None
                    && inventory.kubernetes.founder.as_ref() == Some(name),
            }
        })
        .collect()
}

/// The places of machines by name.
pub(crate) fn places(specs: &[Spec]) -> BTreeMap<NodeName, u32> {
    (0u32..)
        .zip(specs)
        .map(|(ix, spec)| (spec.name.clone(), ix))
        .collect()
}

/// The place of each step's machine. Steps of one machine mostly stand together, so that few are looked up.
pub(crate) fn places_of_steps(places: &BTreeMap<NodeName, u32>, plan: &Plan) -> Vec<u32> {
    let mut last: Option<(&NodeName, u32)> = None;
    let mut of_steps = Vec::with_capacity(plan.steps.len());
    for step in &plan.steps {
        let place = match last {
            Some((name, place)) if name == &step.node => place,
            _ => places.get(&step.node).copied().unwrap_or(u32::MAX),
        };
        last = Some((&step.node, place));
        of_steps.push(place);
    }
    of_steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_texts_have_the_form_of_real_ones() {
        assert_eq!(fingerprint(7).len(), 7 + 43);
        assert_eq!(store_hash(7).len(), 32);
        let id = boot_id(7);
        assert_eq!((id.len(), id.matches('-').count()), (36, 4));
        assert_ne!(boot_id(7), boot_id(8));
    }
}
