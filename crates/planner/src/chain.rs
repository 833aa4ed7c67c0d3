//! The steps of one machine.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use undercroft_model::{
    APPROVAL_EXPIRES_MS, Action, ApprovalMode, DiskIdentity, MachineUuid, NodeName, NodePlan,
    NodeState, PlannedDisk, Resource, RetryPolicy, Step, StepId, SystemTarget,
    inventory::{DiskRole, Distribution, Inventory, Layout, Node, PowerKind, Role},
};

use crate::install::{Install, SystemToInstall};

/// The room that a root disk needs beside the boot partition when the closure's size isn't known,
/// in bytes.
const ROOT_BYTES_MIN: u64 = 1 << 30;

/// The room that any other disk needs, in bytes: below it no file system of use fits.
const DATA_BYTES_MIN: u64 = 1 << 30;

/// How many closures a root disk must hold: the running one and the next.
const CLOSURES_KEPT_MIN: u64 = 2;

/// Whether the machine has a console that nobody else can write to.
pub(crate) fn has_console(node: &Node) -> bool {
    node.power.kind == PowerKind::Rack || !node.power.console.is_empty()
}

/// The disks that a machine's steps use, those of the root first. Disks of the role `keep` are no
/// part of any plan.
pub(crate) fn disks(
    inventory: &Inventory,
    name: &NodeName,
    node: &Node,
    generation: u32,
    closure_bytes: Option<u64>,
) -> Vec<PlannedDisk> {
    let closures = closure_bytes.unwrap_or(0).saturating_mul(CLOSURES_KEPT_MIN);
    let longhorn_gb = node.longhorn.as_ref().and_then(|l| l.partition_gb);
    let root_bytes = closures
        .max(ROOT_BYTES_MIN)
        .saturating_add(u64::from(node.esp_mb) << 20)
        .saturating_add(u64::from(longhorn_gb.unwrap_or(0)) << 30);
    let mut disks: Vec<PlannedDisk> = node
        .disks
        .iter()
        .filter(|disk| disk.role != DiskRole::Keep)
        .map(|disk| {
            let identity = DiskIdentity {
                serial: disk.serial.clone(),
                wwn: disk.wwn.clone(),
            };
            let table_guid = table_guid(
                &inventory.fleet.name,
                name,
                &identity,
                disk.role,
                node.layout,
                generation,
            );
            let size_bytes_min = match disk.role {
                DiskRole::Root => root_bytes,
                DiskRole::Longhorn | DiskRole::Data | DiskRole::Keep => DATA_BYTES_MIN,
            };
            PlannedDisk {
                identity,
                role: disk.role,
                size_bytes_min,
                table_guid,
            }
        })
        .collect();
    disks.sort_by_key(|disk| disk.role);
    disks
}

/// The GUID of a disk's partition table: SHA-256 of what the crate's page names, as a UUID of
/// version 8 (RFC 9562, section 5.8). Every text has its length before it, so that no two inputs
/// run into one another.
fn table_guid(
    fleet: &str,
    node: &NodeName,
    disk: &DiskIdentity,
    role: DiskRole,
    layout: Layout,
    generation: u32,
) -> MachineUuid {
    let mut hash = Sha256::new();
    let mut add = |text: &str| {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    };
    add("undercroft partition table 1");
    add(fleet);
    add(node.as_str());
    // An absent identity differs from an empty one.
    for identity in [&disk.serial, &disk.wwn] {
        match identity {
            Some(text) => {
                add("is");
                add(text);
            }
            None => add("none"),
        }
    }
    add(role.as_str());
    add(layout.as_str());
    hash.update(generation.to_be_bytes());
    let digest = hash.finalize();
    let mut octets = [0u8; 16];
    for (octet, byte) in octets.iter_mut().zip(digest) {
        *octet = byte;
    }
    let [_, _, _, _, _, _, version, _, variant, ..] = &mut octets;
    *version = (*version & 0x0f) | 0x80;
    *variant = (*variant & 0x3f) | 0x80;
    MachineUuid(octets)
}

/// The states that a machine isn't brought to, and why.
fn not_applicable(inventory: &Inventory, node: &Node) -> BTreeMap<NodeState, String> {
    let reason = match inventory.kubernetes.distribution {
        Distribution::None => "kubernetes.distribution is \"none\"",
        _ if node.role == Role::None => "its role is \"none\": it is no part of the cluster",
        _ => return BTreeMap::new(),
    };
    [NodeState::Joined, NodeState::Ready]
        .map(|state| (state, reason.to_owned()))
        .into()
}

/// What a step needs that depends on its action alone.
pub(crate) struct Draft {
    pub(crate) action: Action,
    pub(crate) reaches: NodeState,
    pub(crate) timeout_s: u32,
    pub(crate) resource: Option<Resource>,
}

impl Draft {
    pub(crate) fn new(
        action: Action,
        reaches: NodeState,
        timeout_s: u32,
        resource: Option<Resource>,
    ) -> Self {
        Self {
            action,
            reaches,
            timeout_s,
            resource,
        }
    }
}

/// Appends a step to the plan's and to its machine's: it begins where the machine's last one ends.
pub(crate) fn append(
    inventory: &Inventory,
    name: &NodeName,
    node: Option<&mut NodePlan>,
    draft: Draft,
    probe_first: bool,
    steps: &mut Vec<Step>,
) -> StepId {
    let retries = &inventory.fleet.retries;
    let id = step_id(steps.len());
    let own = node.as_ref().map_or(&[] as &[StepId], |node| &node.steps);
    let last = own
        .last()
        .and_then(|id| steps.get(usize::try_from(id.0).ok()?));
    let destroys = match &draft.action {
        Action::Partition { disks, .. } => disks
            .iter()
            .filter(|disk| disk.role.is_wiped())
            .map(|disk| disk.identity.clone())
            .collect(),
        _ => Vec::new(),
    };
    let first = own.first().copied();
    let step = Step {
        id,
        node: name.clone(),
        requires: last.map_or(NodeState::Unknown, |last| last.reaches),
        reaches: draft.reaches,
        delivers_secrets: matches!(draft.action, Action::Install { .. }),
        probe_first,
        after: last.map(|last| last.id).into_iter().collect(),
        after_settled: Vec::new(),
        resource: draft.resource,
        timeout_ms: ms(draft.timeout_s),
        retry: RetryPolicy {
            attempts_max: retries.attempts,
            backoff_ms: ms(retries.backoff_s),
            backoff_ms_max: ms(retries.backoff_max_s.max(retries.backoff_s)),
        },
        destroys,
        restart_from: if draft.action.is_of_cluster() {
            membership(own, steps)
        } else {
            first
        },
        action: draft.action,
    };
    steps.push(step);
    if let Some(node) = node {
        node.steps.push(id);
    }
    id
}

/// Where a machine goes back to when a step of the cluster has lost what it stands on: to where it
/// became a member, whose probe tells whether it still is one. It is never begun again from its
/// network boot: that would take it from etcd, or its pods from it, for a failure that may not even
/// be its own. The step that makes it a member has nothing to go back to.
fn membership(own: &[StepId], steps: &[Step]) -> Option<StepId> {
    own.iter().copied().find(|id| {
        let step = usize::try_from(id.0).ok().and_then(|id| steps.get(id));
        step.is_some_and(|step| step.action.makes_member())
    })
}

/// Appends the steps of a machine that is installed to the plan's.
pub(crate) fn build(
    inventory: &Inventory,
    name: &NodeName,
    node: &Node,
    install: &Install,
    steps: &mut Vec<Step>,
) -> NodePlan {
    let target = install.system.as_ref().map(|system| system.target.clone());
    let mut planned = node_plan(inventory, node, target, install.generation);
    for draft in drafts(inventory, node, install) {
        let seen = matches!(draft.action, Action::NetworkBoot) && install.installer_seen;
        append(inventory, name, Some(&mut planned), draft, seen, steps);
    }
    planned
}

/// Appends the one step of a machine that runs what it should, on which those of the cluster stand.
pub(crate) fn build_running(
    inventory: &Inventory,
    name: &NodeName,
    node: &Node,
    delivery: &SystemToInstall,
    generation: u32,
    steps: &mut Vec<Step>,
) -> NodePlan {
    let target = Some(delivery.target.clone());
    let mut planned = node_plan(inventory, node, target, generation);
    let draft = prove(inventory, delivery);
    append(inventory, name, Some(&mut planned), draft, true, steps);
    planned
}

pub(crate) fn node_plan(
    inventory: &Inventory,
    node: &Node,
    target: Option<SystemTarget>,
    generation: u32,
) -> NodePlan {
    NodePlan {
        macs: node.macs.clone(),
        uuid: node.uuid,
        address: node.address,
        system: node.system,
        target,
        generation,
        steps: Vec::new(),
        not_applicable: not_applicable(inventory, node),
    }
}

fn prove(inventory: &Inventory, delivery: &SystemToInstall) -> Draft {
    Draft {
        action: Action::Prove {
            toplevel: delivery.target.toplevel.clone(),
            host_key_fingerprint: delivery.host_key_fingerprint.clone(),
        },
        reaches: NodeState::Up,
        timeout_s: inventory.fleet.timeouts.prove_s,
        resource: None,
    }
}

fn drafts(inventory: &Inventory, node: &Node, install: &Install) -> Vec<Draft> {
    let mut drafts = to_its_installer(inventory, node, install);
    if let Some(delivery) = &install.system {
        drafts.extend(to_its_system(inventory, node, install, delivery));
    }
    drafts
}

/// The steps up to an installer that was inspected: nothing is written to the machine.
fn to_its_installer(inventory: &Inventory, node: &Node, install: &Install) -> Vec<Draft> {
    let timeouts = &inventory.fleet.timeouts;
    vec![
        Draft::new(
            Action::NetworkBoot,
            NodeState::Seen,
            timeouts.network_boot_s,
            Some(Resource::NetworkBoot),
        ),
        Draft::new(
            Action::Approve {
                mode: if has_console(node) {
                    ApprovalMode::Console
                } else {
                    ApprovalMode::Operator
                },
                expires_ms: APPROVAL_EXPIRES_MS,
            },
            NodeState::Approved,
            timeouts.approval_s,
            None,
        ),
        Draft::new(
            Action::Inspect {
                disks: install.disks.clone(),
                system: node.system,
                memory_mb_min: u64::from(node.min_memory_mb.unwrap_or(0)),
            },
            NodeState::InstallerReady,
            timeouts.inspect_s,
            None,
        ),
    ]
}

/// The steps from there to a system that runs.
fn to_its_system(
    inventory: &Inventory,
    node: &Node,
    install: &Install,
    delivery: &SystemToInstall,
) -> Vec<Draft> {
    let timeouts = &inventory.fleet.timeouts;
    let target = &delivery.target;
    let toplevel = || target.toplevel.clone();
    let host_key_fingerprint = || delivery.host_key_fingerprint.clone();
    vec![
        Draft::new(
            Action::Partition {
                disks: install.disks.clone(),
                layout: node.layout,
                disko_script: target.disko_script.clone(),
                disko_mount_script: target.disko_mount_script.clone(),
                disko_devices: target.disko_devices.clone(),
            },
            NodeState::Partitioned,
            timeouts.partition_s,
            None,
        ),
        Draft::new(
            Action::CopyClosure {
                toplevel: toplevel(),
                closure_bytes: target.closure_bytes,
            },
            NodeState::Copied,
            timeouts.copy_s,
            Some(Resource::ClosureCopy),
        ),
        Draft::new(
            Action::Install {
                toplevel: toplevel(),
                host_key_fingerprint: host_key_fingerprint(),
            },
            NodeState::Installed,
            timeouts.install_s,
            None,
        ),
        Draft::new(
            Action::Reboot {
                host_key_fingerprint: host_key_fingerprint(),
            },
            NodeState::Rebooted,
            timeouts.reboot_s,
            Some(Resource::Reboot),
        ),
        prove(inventory, delivery),
    ]
}

fn ms(seconds: u32) -> u64 {
    u64::from(seconds) * 1000
}

/// An inventory has far fewer machines than would be needed for more steps than `u32` counts.
fn step_id(place: usize) -> StepId {
    StepId(u32::try_from(place).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests;
