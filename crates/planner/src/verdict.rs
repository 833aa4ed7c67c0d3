//! What is to be done with one machine, and why.

use undercroft_model::{
    DiskMisfit, Found, Installed, InstallerReport, Misfit, NodeName, NodeState, NotTheMachine,
    Observation, PlannedDisk, SystemTarget,
    inventory::{Builder, DiskRole, Firmware, Inventory, Layout, Node, PowerKind},
    misfits,
};

use std::collections::BTreeSet;

use crate::{
    DestroyedDisk, NodeReport, NodeStatus, chain,
    install::{Install, SystemToInstall},
    members,
    report::Block,
};

/// What to do where a system isn't there.
const NEXT_BUILD: &str = "mend what its build says; `undercroft plan` builds it again";

/// What the operator wants of a machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NodeScope<'a> {
    /// It is wiped although it runs.
    pub(crate) reinstall: bool,
    /// It is taken as it is.
    pub(crate) adopt: bool,
    /// It is only looked at.
    pub(crate) inspect_only: bool,
    /// The state beyond which it isn't brought.
    pub(crate) until: Option<NodeState>,
    /// All machines that are wiped although they run.
    pub(crate) all_reinstalled: &'a BTreeSet<NodeName>,
}

pub(crate) enum NodeVerdict {
    LeaveAlone(NodeReport),
    /// It runs what it should, was installed so many times, and joins.
    Join(SystemToInstall, u32, NodeReport),
    /// It runs what it should, was installed so many times, and that is proved.
    Adopt(SystemToInstall, u32, NodeReport),
    Install(Install, NodeReport),
}

pub(crate) fn judge(
    inventory: &Inventory,
    observation: &Observation,
    name: &NodeName,
    node: &Node,
    asked: NodeScope<'_>,
) -> NodeVerdict {
    let NodeScope {
        reinstall,
        adopt,
        inspect_only,
        until,
        all_reinstalled,
    } = asked;
    let joins = until.is_none_or(|until| until >= NodeState::Joined);
    let seen = observation.nodes.get(name);
    let found = seen.map_or(&Found::Nothing, |seen| &seen.found);
    let target = observation.targets.get(name);
    let before = observation.installed.get(name);
    let was_up = before.is_some_and(|before| before.proved_up);
    let generation = before.map_or(0, |before| before.generation);
    if !reinstall
        && let Some(left) = leave_alone(name, node, found, target, before.is_some(), was_up)
    {
        return as_it_is(inventory, observation, name, node, asked, left);
    }

    if adopt {
        return NodeVerdict::LeaveAlone(not_adopted(name, node, found, observation));
    }
    let mut reasons = Vec::new();
    if joins && !inspect_only {
        reasons = members::refusals(inventory, observation, name, node, all_reinstalled);
    }
    let mut delivery = None;
    if !inspect_only {
        delivery = self::delivery(inventory, observation, name, node, &mut reasons);
    }
    let generation = generation.saturating_add(u32::from(reinstall));
    let closure_bytes = delivery.as_ref().and_then(|d| d.target.closure_bytes);
    let disks = chain::disks(inventory, name, node, generation, closure_bytes);
    if !disks.iter().any(|disk| disk.role == DiskRole::Root) {
        reasons.push(Block::new(
            "the inventory names no disk of the role \"root\" for it",
            format!("name one under `disks` of [nodes.{name}]"),
        ));
    }
    if was_up && !reinstall {
        let old = before.map_or(&[] as &[PlannedDisk], |before| &before.disks);
        reasons.extend(other_layouts(name, old, &disks));
    }
    if let Found::Installer { report } = found {
        if let Some(foreign) = foreign(name, node, report) {
            return NodeVerdict::LeaveAlone(quarantined(foreign));
        }
        unfit(name, node, &disks, report, &mut reasons);
    }
    if !reasons.is_empty() {
        return NodeVerdict::LeaveAlone(NodeReport::blocked(reasons));
    }
    let install = Install {
        system: delivery,
        generation,
        disks,
        installer_seen: matches!(found, Found::Installer { .. }),
    };
    let report = installed_anew(node, asked, before, &install);
    NodeVerdict::Install(install, report)
}

/// What is done with a machine that isn't installed by this plan.
fn as_it_is(
    inventory: &Inventory,
    observation: &Observation,
    name: &NodeName,
    node: &Node,
    asked: NodeScope<'_>,
    left: NodeReport,
) -> NodeVerdict {
    if left.status != NodeStatus::Converged || asked.inspect_only {
        return NodeVerdict::LeaveAlone(left);
    }
    let before = observation.installed.get(name);
    let generation = before.map_or(0, |before| before.generation);
    let reaches = |state| asked.until.is_none_or(|until| until >= state);
    let missing = !members::is_converged(inventory, observation, name, node, asked.until);
    if missing && reaches(NodeState::Joined) {
        return join(inventory, observation, name, node, generation);
    }
    let is_proved = before.is_some_and(|before| before.proved_up);
    match system(observation, name, node, &mut Vec::new()) {
        Some(system) if !is_proved && reaches(NodeState::Up) => {
            NodeVerdict::Adopt(system, generation, NodeReport::new(NodeStatus::Adopt))
        }
        _ => NodeVerdict::LeaveAlone(left),
    }
}

/// Why a machine that was to be taken as it is can't be.
fn not_adopted(
    name: &NodeName,
    node: &Node,
    found: &Found,
    observation: &Observation,
) -> NodeReport {
    let address = node.address;
    let block = match found {
        Found::Installer { .. } => Block::new(
            "it was to be taken as it is, and an installer runs on it",
            format!("let it boot from its disk; or leave out --adopt {name}, which installs it"),
        ),
        _ if !observation.host_keys.contains_key(name) => Block::new(
            "it was to be taken as it is, and no host key was made for it that it could be known by",
            "`undercroft up` makes it; in a repository that should have it, `git status` says what \
             became of secrets/host-keys",
        ),
        _ => Block::new(
            format!("it was to be taken as it is, and nobody has looked at {address}"),
            format!("name it: `undercroft plan --adopt {name}` looks at it"),
        ),
    };
    NodeReport::blocked(vec![block])
}

fn quarantined(foreign: Block) -> NodeReport {
    let reason = foreign.why;
    NodeReport::with_next(NodeStatus::Quarantined { reason }, foreign.next)
}

/// What is said of a machine that is installed: what that destroys, and what it waits for.
fn installed_anew(
    node: &Node,
    asked: NodeScope<'_>,
    before: Option<&Installed>,
    install: &Install,
) -> NodeReport {
    let mut report = NodeReport::new(if asked.reinstall {
        NodeStatus::Reinstall
    } else {
        NodeStatus::Install
    });
    if !asked.inspect_only {
        report.destroys = destroyed(&install.disks).collect();
    }
    report.waits_on = people(node, install.installer_seen);
    let was_planned = |disk: &PlannedDisk| {
        let mut before = before.iter().flat_map(|before| &before.disks);
        before.any(|old| old.table_guid == disk.table_guid)
    };
    if install.disks.iter().any(was_planned) && !asked.reinstall {
        report.notes.push(
            "it was planned before: a disk that already has this plan's partition table is kept"
                .to_owned(),
        );
    }
    report
}

/// Why disks of a machine that was up aren't laid out anew, although the inventory wants them otherwise.
fn other_layouts(name: &NodeName, old: &[PlannedDisk], new: &[PlannedDisk]) -> Vec<Block> {
    if old.is_empty() {
        return vec![Block::new(
            "it was up with disks that no plan has laid out, which may hold data; to wipe them, name the machine \
             with --reinstall",
            format!("let it boot from its disk, or wipe it: `undercroft up --reinstall {name}`"),
        )];
    }
    let changed = |old: &&PlannedDisk| {
        let other =
            |new: &PlannedDisk| new.identity == old.identity && new.table_guid != old.table_guid;
        old.role.is_wiped() && new.iter().any(other)
    };
    old.iter()
        .filter(changed)
        .map(|old| {
            let why = format!(
                "it was up with another layout of the disk with {}, which may hold data; to wipe \
                 it, name the machine with --reinstall",
                old.identity
            );
            let next = format!(
                "take the change of its layout back, or wipe it: `undercroft up --reinstall {name}`"
            );
            Block::new(why, next)
        })
        .collect()
}

fn destroyed(disks: &[PlannedDisk]) -> impl Iterator<Item = DestroyedDisk> {
    let wiped = disks.iter().filter(|disk| disk.role.is_wiped());
    wiped.map(|disk| DestroyedDisk {
        identity: disk.identity.clone(),
        role: disk.role,
    })
}

/// What a machine waits for that people have to do.
fn people(node: &Node, installer_seen: bool) -> Vec<String> {
    let mut waits_on = Vec::new();
    if node.power.kind == PowerKind::Manual && !installer_seen {
        waits_on.push("a person who starts it from the network".to_owned());
    }
    if !chain::has_console(node) {
        waits_on.push("an operator's approval of its fingerprint".to_owned());
    }
    waits_on
}

/// A machine that runs what it should takes its part in the cluster.
fn join(
    inventory: &Inventory,
    observation: &Observation,
    name: &NodeName,
    node: &Node,
    generation: u32,
) -> NodeVerdict {
    let mut reasons = Vec::from_iter(members::founds_second(inventory, observation, name));
    match system(observation, name, node, &mut reasons) {
        Some(delivery) if reasons.is_empty() => {
            NodeVerdict::Join(delivery, generation, NodeReport::new(NodeStatus::Join))
        }
        _ => NodeVerdict::LeaveAlone(NodeReport::blocked(reasons)),
    }
}

/// What a machine is to run and to be known by, or the reasons why that isn't known.
pub(crate) fn system(
    observation: &Observation,
    name: &NodeName,
    node: &Node,
    reasons: &mut Vec<Block>,
) -> Option<SystemToInstall> {
    let target = match observation.targets.get(name) {
        Some(Ok(target)) => Some(target),
        Some(Err(why)) => {
            reasons.push(Block::new(
                format!("its system could not be built: {why}"),
                NEXT_BUILD,
            ));
            None
        }
        None => {
            reasons.push(Block::new("its system was not built", NEXT_BUILD));
            None
        }
    };
    if let Some(target) = target.filter(|target| target.system != node.system) {
        let why = format!(
            "its system was built for {}, and the machine is {}",
            target.system, node.system
        );
        let next = format!("make `system` of [nodes.{name}] or its class what the machine is");
        reasons.push(Block::new(why, next));
    }
    let host_key = observation.host_keys.get(name);
    if host_key.is_none() {
        reasons.push(Block::new(
            "no host key was made for it",
            "`undercroft up` makes it; in a repository that should have it, `git status` says what \
             became of secrets/host-keys",
        ));
    }
    Some(SystemToInstall {
        target: target?.clone(),
        host_key_fingerprint: host_key?.clone(),
    })
}

/// What is to be put on a machine, or the reasons why that can't be done.
fn delivery(
    inventory: &Inventory,
    observation: &Observation,
    name: &NodeName,
    node: &Node,
    reasons: &mut Vec<Block>,
) -> Option<SystemToInstall> {
    let system = system(observation, name, node, reasons);
    if node.firmware == Firmware::Bios {
        reasons.push(Block::new(
            "its firmware is \"bios\": such a machine boots the installer, but no system can be \
             installed on it",
            "set its firmware to UEFI, and `firmware = \"uefi\"` in the inventory; as it is, \
             `undercroft up --inspect-only` looks at it",
        ));
    }
    if inventory.fleet.builder == Builder::DebianRack && node.layout != Layout::Ext4 {
        let why = format!(
            "its layout is \"{}\", and the systems of the builder \"debian-rack\" know \"ext4\" \
             alone",
            node.layout
        );
        reasons.push(Block::new(
            why,
            "set `layout = \"ext4\"`, or `builder = \"flake\"` under [fleet]",
        ));
    }
    system
}

/// Why a machine is left alone, if what was found of it says so, and what to do about it.
fn leave_alone(
    name: &NodeName,
    node: &Node,
    found: &Found,
    target: Option<&Result<SystemTarget, String>>,
    planned_before: bool,
    was_up: bool,
) -> Option<NodeReport> {
    let unreachable = |reason: String| {
        let next = format!("start it, or name it with --reinstall {name}, which wipes it");
        Some(NodeReport::with_next(
            NodeStatus::Unreachable { reason },
            next,
        ))
    };
    match found {
        Found::Nothing if was_up => {
            unreachable("it was up before, and was not looked at now".to_owned())
        }
        // The journal knows that it never came up: nothing on it can be lost.
        Found::Unreachable { .. } if planned_before && !was_up => None,
        Found::Nothing | Found::Installer { .. } => None,
        Found::Unreachable { reason } => unreachable(reason.clone()),
        Found::ForeignHostKey { fingerprint } => {
            let reason = format!(
                "at its address something shows the host key {fingerprint}, which was not made for \
                 it"
            );
            let next = format!(
                "find out what it is, and correct the inventory or free the address; if it is the \
                 machine itself, name it with --reinstall {name}, which wipes it"
            );
            Some(NodeReport::with_next(
                NodeStatus::Quarantined { reason },
                next,
            ))
        }
        Found::Running {
            booted_system,
            current_system,
            ..
        } => running(name, node, booted_system, current_system, target),
    }
}

/// What is said of a machine that runs a system of its own.
fn running(
    name: &NodeName,
    node: &Node,
    booted: &str,
    current: &str,
    target: Option<&Result<SystemTarget, String>>,
) -> Option<NodeReport> {
    let not_built = |why: String| Some(NodeReport::blocked(vec![Block::new(why, NEXT_BUILD)]));
    let target = match target {
        Some(Ok(target)) => &target.toplevel,
        Some(Err(why)) => {
            return not_built(format!(
                "it runs {booted}; its system could not be built: {why}"
            ));
        }
        None => return not_built(format!("it runs {booted}; its system was not built")),
    };
    if booted == target && current == target {
        return Some(NodeReport::new(NodeStatus::Converged));
    }
    let next = if current == target {
        "restart it, so that it boots what it runs by now".to_owned()
    } else {
        format!(
            "`nixos-rebuild boot --flake .#{name} --target-host root@{}` and a restart bring it \
             there; --reinstall {name} does too, and wipes it",
            node.address
        )
    };
    let status = NodeStatus::Differs {
        booted: booted.to_owned(),
        current: current.to_owned(),
        target: target.clone(),
    };
    Some(NodeReport::with_next(status, next))
}

/// Why a report can't be this machine's.
fn foreign(name: &NodeName, node: &Node, report: &InstallerReport) -> Option<Block> {
    let (why, key) = match node.identity().refute(report.uuid, &report.macs)? {
        NotTheMachine::OtherUuid { planned, shown } => (
            format!(
                "an installer in its place reports the UUID {shown}, and the inventory says \
                 {planned}"
            ),
            "`uuid`",
        ),
        NotTheMachine::NoMac => (
            "an installer in its place reports none of its Ethernet addresses".to_owned(),
            "`macs`",
        ),
        NotTheMachine::NoUuid { planned } => (
            format!(
                "an installer in its place reports no UUID of its own, and {planned} is all by \
                 which the inventory knows it"
            ),
            "`uuid`, or give its `macs`,",
        ),
        NotTheMachine::Nameless => (
            "the inventory gives neither Ethernet addresses nor a UUID that no other machine has"
                .to_owned(),
            "`macs`",
        ),
    };
    let next = format!(
        "find out which machine has the address {}; if it is {name}, correct its {key} in the \
         inventory",
        node.address
    );
    Some(Block::new(why, next))
}

/// What a machine lacks, by its installer's own word.
fn unfit(
    name: &NodeName,
    node: &Node,
    disks: &[PlannedDisk],
    report: &InstallerReport,
    reasons: &mut Vec<Block>,
) {
    let least_mb = u64::from(node.min_memory_mb.unwrap_or(0));
    for misfit in misfits(node.system, least_mb, disks, report) {
        let (why, next) = match misfit {
            Misfit::System { found, wanted } => (
                format!("its installer reports {found}, and the inventory says {wanted}"),
                format!("make `system` of [nodes.{name}] or its class what the machine is"),
            ),
            Misfit::Memory {
                found_mb,
                wanted_mb,
            } => (
                format!(
                    "its installer reports {found_mb} MiB of memory, and the inventory asks for {wanted_mb}"
                ),
                format!(
                    "look whether all of its memory is seated, or lower `min_memory_mb` of [nodes.{name}] or its class"
                ),
            ),
            Misfit::Disk(disk, misfit) => unfit_disk(name, disk, misfit, report),
        };
        reasons.push(Block::new(why, next));
    }
}

fn unfit_disk(
    name: &NodeName,
    disk: &PlannedDisk,
    misfit: DiskMisfit<'_>,
    report: &InstallerReport,
) -> (String, String) {
    match misfit {
        DiskMisfit::Missing => (
            format!(
                "its installer doesn't report the {} disk with {}; it reports {}",
                disk.role,
                disk.identity,
                reported_disks(report)
            ),
            format!(
                "correct `disks` of [nodes.{name}] by what its installer reports, or put that disk \
                 in and boot it again"
            ),
        ),
        DiskMisfit::Ambiguous(number, first, second) => (
            format!(
                "its installer reports {} disks with {}: {} and {}{}",
                if number == 2 { "two" } else { "several" },
                disk.identity,
                first.path,
                second.path,
                if number == 2 { "" } else { " among them" }
            ),
            format!(
                "give the disk's `wwn` under `disks` of [nodes.{name}] where that tells them apart, \
                 or take one of them out"
            ),
        ),
        DiskMisfit::TooSmall(reported) => (
            format!(
                "the {} disk with {} has {} MiB, and {} are needed",
                disk.role,
                disk.identity,
                reported.size_bytes >> 20,
                disk.size_bytes_min >> 20
            ),
            format!("name a larger disk under `disks` of [nodes.{name}]"),
        ),
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
