//! What is to be done with one machine, and why.

use undercroft_model::{
    Found, InstallerReport, NodeName, NodeObservation, NodeState, Observation, PlannedDisk,
    SystemTarget,
    inventory::{Builder, Firmware, Inventory, Layout, Node, PowerKind},
};

use std::collections::BTreeSet;

use crate::{DestroyedDisk, NodeReport, NodeStatus, chain, members};

/// Everything that a machine's steps need beside the inventory.
#[derive(Debug)]
pub(crate) struct Install {
    /// What is put on the machine; `None` where it is only looked at.
    pub(crate) system: Option<Delivery>,
    pub(crate) generation: u32,
    pub(crate) disks: Vec<PlannedDisk>,
    /// An installer was seen on the machine.
    pub(crate) installer_seen: bool,
}

/// What is put on a machine.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) target: SystemTarget,
    pub(crate) host_key_fingerprint: String,
}

/// What the operator wants of a machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// It is wiped although it runs.
    pub(crate) reinstall: bool,
    /// It is only looked at.
    pub(crate) inspect_only: bool,
    /// The state beyond which it isn't brought.
    pub(crate) until: Option<NodeState>,
    /// All machines that are wiped although they run.
    pub(crate) all_reinstalled: &'a BTreeSet<NodeName>,
}

pub(crate) enum Verdict {
    LeaveAlone(NodeReport),
    /// It runs what it should, was installed so many times, and joins.
    Join(Delivery, u32, NodeReport),
    Install(Install, NodeReport),
}

pub(crate) fn judge(
    inventory: &Inventory,
    observation: &Observation,
    name: &NodeName,
    node: &Node,
    asked: Asked<'_>,
) -> Verdict {
    let Asked {
        reinstall,
        inspect_only,
        until,
        all_reinstalled,
    } = asked;
    let joins = until.is_none_or(|until| until >= NodeState::Joined);
    let nothing = Found::Nothing;
    let seen: Option<&NodeObservation> = observation.nodes.get(name);
    let found = seen.map_or(&nothing, |seen| &seen.found);
    let target = observation.targets.get(name);
    let before = observation.installed.get(name);
    let was_up = before.is_some_and(|before| before.proved_up);
    if !reinstall && let Some(status) = leave_alone(found, target, before.is_some(), was_up) {
        let converged = status == NodeStatus::Converged;
        let missing = !members::is_converged(inventory, observation, name, node, until);
        if converged && missing && joins && !inspect_only {
            let generation = before.map_or(0, |before| before.generation);
            return join(inventory, observation, name, node, generation);
        }
        return Verdict::LeaveAlone(NodeReport::new(status));
    }

    let mut reasons = Vec::new();
    if joins && !inspect_only {
        reasons = members::refusals(inventory, observation, name, node, all_reinstalled);
    }
    let delivery = if inspect_only {
        None
    } else {
        delivery(inventory, observation, name, node, &mut reasons)
    };
    let generation = before.map_or(0, |before| before.generation);
    let generation = generation.saturating_add(u32::from(reinstall));
    let closure_bytes = delivery
        .as_ref()
        .and_then(|delivery| delivery.target.closure_bytes);
    let disks = chain::disks(inventory, name, node, generation, closure_bytes);
    if !disks.iter().any(|disk| disk.role == "root") {
        reasons.push("the inventory names no disk of the role \"root\" for it".to_owned());
    }
    if was_up && !reinstall {
        for old in before.iter().flat_map(|before| &before.disks) {
            let changed = disks
                .iter()
                .any(|new| new.identity == old.identity && new.table_guid != old.table_guid);
            if changed && chain::is_wiped(&old.role) {
                reasons.push(format!(
                    "it was up with another layout of the disk with {}, which may hold data; to \
                     wipe it, name the machine with --reinstall",
                    old.identity
                ));
            }
        }
    }
    if let Found::Installer { report } = found {
        if let Some(why) = foreign(node, report) {
            let status = NodeStatus::Quarantined { reason: why };
            return Verdict::LeaveAlone(NodeReport::new(status));
        }
        unfit(node, &disks, report, &mut reasons);
    }

    if !reasons.is_empty() {
        return Verdict::LeaveAlone(NodeReport::new(NodeStatus::Blocked { reasons }));
    }
    let mut report = NodeReport::new(if reinstall {
        NodeStatus::Reinstall
    } else {
        NodeStatus::Install
    });
    report.destroys = disks
        .iter()
        .filter(|disk| !inspect_only && chain::is_wiped(&disk.role))
        .map(|disk| DestroyedDisk {
            identity: disk.identity.clone(),
            role: disk.role.clone(),
        })
        .collect();
    let installer_seen = matches!(found, Found::Installer { .. });
    if node.power.kind == PowerKind::Manual && !installer_seen {
        report
            .waits_on
            .push("a person who starts it from the network".to_owned());
    }
    if !chain::has_console(node) {
        report
            .waits_on
            .push("an operator's approval of its fingerprint".to_owned());
    }
    let planned_alike = before.is_some_and(|before| {
        let known = |disk: &PlannedDisk| {
            before
                .disks
                .iter()
                .any(|old| old.table_guid == disk.table_guid)
        };
        disks.iter().any(known)
    });
    if planned_alike && !reinstall {
        report.notes.push(
            "it was planned before: a disk that already has this plan's partition table is kept"
                .to_owned(),
        );
    }
    let install = Install {
        system: delivery,
        generation,
        disks,
        installer_seen,
    };
    Verdict::Install(install, report)
}

/// A machine that runs what it should takes its part in the cluster.
fn join(
    inventory: &Inventory,
    observation: &Observation,
    name: &NodeName,
    node: &Node,
    generation: u32,
) -> Verdict {
    let mut reasons = Vec::from_iter(members::founds_second(inventory, observation, name));
    match delivery(inventory, observation, name, node, &mut reasons) {
        Some(delivery) if reasons.is_empty() => {
            Verdict::Join(delivery, generation, NodeReport::new(NodeStatus::Join))
        }
        _ => Verdict::LeaveAlone(NodeReport::new(NodeStatus::Blocked { reasons })),
    }
}

/// What is to be put on a machine, or the reasons why that can't be done.
fn delivery(
    inventory: &Inventory,
    observation: &Observation,
    name: &NodeName,
    node: &Node,
    reasons: &mut Vec<String>,
) -> Option<Delivery> {
    let target = match observation.targets.get(name) {
        Some(Ok(target)) => Some(target),
        Some(Err(why)) => {
            reasons.push(format!("its system could not be built: {why}"));
            None
        }
        None => {
            reasons.push("its system was not built".to_owned());
            None
        }
    };
    if let Some(target) = target.filter(|target| target.system != node.system) {
        reasons.push(format!(
            "its system was built for {}, and the machine is {}",
            target.system, node.system
        ));
    }
    let host_key = observation.host_keys.get(name);
    if host_key.is_none() {
        reasons.push("no host key was made for it".to_owned());
    }
    if node.firmware == Firmware::Bios {
        reasons.push(
            "its firmware is \"bios\": such a machine boots the installer, but no system can be \
             installed on it"
                .to_owned(),
        );
    }
    if inventory.fleet.builder == Builder::DebianRack && node.layout != Layout::Ext4 {
        reasons.push(format!(
            "its layout is \"{}\", and the systems of the builder \"debian-rack\" know \"ext4\" \
             alone",
            node.layout
        ));
    }
    Some(Delivery {
        target: target?.clone(),
        host_key_fingerprint: host_key?.clone(),
    })
}

/// Why a machine is left alone, if what was found of it says so.
fn leave_alone(
    found: &Found,
    target: Option<&Result<SystemTarget, String>>,
    planned_before: bool,
    was_up: bool,
) -> Option<NodeStatus> {
    match found {
        Found::Nothing if was_up => Some(NodeStatus::Unreachable {
            reason: "it was up before, and was not looked at now".to_owned(),
        }),
        // The journal knows that it never came up: nothing on it can be lost.
        Found::Unreachable { .. } if planned_before && !was_up => None,
        Found::Nothing | Found::Installer { .. } => None,
        Found::Unreachable { reason } => Some(NodeStatus::Unreachable {
            reason: reason.clone(),
        }),
        Found::ForeignHostKey { fingerprint } => Some(NodeStatus::Quarantined {
            reason: format!(
                "at its address something shows the host key {fingerprint}, which was not made for \
                 it"
            ),
        }),
        Found::Running {
            booted_system,
            current_system,
            ..
        } => match target {
            Some(Ok(target)) => {
                let same = *booted_system == target.toplevel && *current_system == target.toplevel;
                Some(if same {
                    NodeStatus::Converged
                } else {
                    NodeStatus::Differs {
                        booted: booted_system.clone(),
                        current: current_system.clone(),
                        target: target.toplevel.clone(),
                    }
                })
            }
            Some(Err(why)) => Some(NodeStatus::Blocked {
                reasons: vec![format!(
                    "it runs {booted_system}; its system could not be built: {why}"
                )],
            }),
            None => Some(NodeStatus::Blocked {
                reasons: vec![format!("it runs {booted_system}; its system was not built")],
            }),
        },
    }
}

/// Why a report can't be this machine's.
fn foreign(node: &Node, report: &InstallerReport) -> Option<String> {
    if let (Some(planned), Some(reported)) = (node.uuid, report.uuid)
        && planned != reported
    {
        return Some(format!(
            "an installer in its place reports the UUID {reported}, and the inventory says \
             {planned}"
        ));
    }
    let by_uuid = node.uuid.is_some() && node.uuid == report.uuid;
    if !by_uuid && !report.macs.iter().any(|mac| node.macs.contains(mac)) {
        return Some("an installer in its place reports none of its Ethernet addresses".to_owned());
    }
    None
}

/// What a machine lacks, by its installer's own word.
fn unfit(node: &Node, disks: &[PlannedDisk], report: &InstallerReport, reasons: &mut Vec<String>) {
    if report.system != node.system {
        reasons.push(format!(
            "its installer reports {}, and the inventory says {}",
            report.system, node.system
        ));
    }
    if let Some(least) = node.min_memory_mb.map(u64::from)
        && report.memory_mb < least
    {
        reasons.push(format!(
            "its installer reports {} MiB of memory, and the inventory asks for {least}",
            report.memory_mb
        ));
    }
    for disk in disks {
        let mut matching = report.disks.iter().filter(|reported| {
            disk.identity
                .matches(reported.serial.as_deref(), reported.wwn.as_deref())
        });
        let Some(reported) = matching.next() else {
            reasons.push(format!(
                "its installer doesn't report the {} disk with {}; it reports {}",
                disk.role,
                disk.identity,
                reported_disks(report)
            ));
            continue;
        };
        if let Some(second) = matching.next() {
            reasons.push(format!(
                "its installer reports two disks with {}: {} and {}",
                disk.identity, reported.path, second.path
            ));
        }
        if reported.size_bytes < disk.size_bytes_min {
            reasons.push(format!(
                "the {} disk with {} has {} MiB, and {} are needed",
                disk.role,
                disk.identity,
                reported.size_bytes >> 20,
                disk.size_bytes_min >> 20
            ));
        }
    }
}

fn reported_disks(report: &InstallerReport) -> String {
    /// The most disks that a message names.
    const NAMED_MAX: usize = 8;
    let mut named: Vec<String> = report
        .disks
        .iter()
        .take(NAMED_MAX)
        .map(|disk| match (&disk.serial, &disk.wwn) {
            (Some(serial), _) => format!("{} with serial {serial}", disk.path),
            (None, Some(wwn)) => format!("{} with WWN {wwn}", disk.path),
            (None, None) => format!("{} without identity", disk.path),
        })
        .collect();
    if report.disks.len() > NAMED_MAX {
        named.push(format!("{} more", report.disks.len() - NAMED_MAX));
    }
    if named.is_empty() {
        "no disk".to_owned()
    } else {
        named.join(", ")
    }
}
