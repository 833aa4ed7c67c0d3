//! Nodes: disks and layouts, firmware, phones, and what contradicts the class.

use std::collections::BTreeSet;

use super::state::{Check, Seen};
use crate::{
    System,
    inventory::{Builder, Disk, DiskRole, Firmware, Kind, Layout, Node, PowerKind, Role},
};

/// Least size of a root for a NixOS system with a few generations, in GiB.
const MIN_ROOT_GB: u64 = 8;
/// The same for the small system of the virtual rack.
const MIN_RACK_ROOT_GB: u64 = 1;
/// Bytes of a serial number that virtio-blk and NVMe carry (virtio 1.2, section 5.2.6; NVMe base
/// specification 2.0, Identify Controller).
const MAX_VIRTUAL_SERIAL_BYTES: usize = 20;

pub(super) fn check(c: &mut Check<'_, '_>) {
    let draft = c.draft;
    unknown_classes(c);
    let minimum_gb = match draft.fleet.as_ref().map(|f| f.builder) {
        // Where the fleet couldn't be read, it may be either.
        Some(Builder::DebianRack) | None => MIN_RACK_ROOT_GB,
        Some(_) => MIN_ROOT_GB,
    };
    for (name, node) in &draft.nodes {
        let name = name.as_str();
        disks(c, name, node, minimum_gb);
        layout(c, name, node);
        machine(c, name, node);
        phones(c, name, node);
    }
    passphrases(c);
}

/// Machines that stop at each boot until somebody types a passphrase at their console: one warning
/// for all of them, at the layout of the first.
fn passphrases(c: &mut Check<'_, '_>) {
    let draft = c.draft;
    let asking = |node: &&Node| node.layout == Layout::ZfsEncrypted;
    let names: Vec<String> = draft
        .nodes
        .iter()
        .filter(|(_, node)| asking(node))
        .map(|(name, _)| format!("`{name}`"))
        .collect();
    let Some((first, node)) = draft.nodes.iter().find(|(_, node)| asking(node)) else {
        return;
    };
    let own = ["nodes", first.as_str(), "layout"];
    let of_class = ["classes", node.class.as_str(), "layout"];
    let place = if c.has(&own) { own } else { of_class };
    let verb = if names.len() == 1 { "stops" } else { "stop" };
    c.warning(
        "passphrase-at-boot",
        &place,
        format!(
            "{} {verb} at each boot, the first one too, until the disk's passphrase is typed at the console",
            names.join(", ")
        ),
        "Nothing types it for you: have a console that you reach from afar and the secret `disks/NODE` at hand, or use the layout \"zfs\".",
    );
}

/// Nodes whose class isn't there, which the draft therefore doesn't have.
fn unknown_classes(c: &mut Check<'_, '_>) {
    let draft = c.draft;
    for (node, entry) in &draft.without_class {
        c.unknown(
            "class",
            "classes",
            entry.class.as_str(),
            &["nodes", node.as_str(), "class"],
        );
    }
}

fn disks(c: &mut Check<'_, '_>, name: &str, node: &Node, minimum_gb: u64) {
    for (i, disk) in node.disks.iter().enumerate() {
        let i = i.to_string();
        let at = ["nodes", name, "disks", &i];
        if disk.serial.is_none() && disk.wwn.is_none() && c.whole("nodes", name) {
            c.error(
                "disk-without-identity",
                &at,
                format!("a disk of `{name}` has neither `serial` nor `wwn`"),
                "Add one of them, as `lsblk -o NAME,SERIAL,WWN` shows it: no other disk is ever wiped.",
            );
        }
        let virtual_machine = node.power.kind == PowerKind::Rack;
        if let Some(serial) = disk.serial.as_ref().filter(|_| virtual_machine)
            && serial.len() > MAX_VIRTUAL_SERIAL_BYTES
        {
            let message = format!(
                "a virtual disk's serial number has at most {MAX_VIRTUAL_SERIAL_BYTES} bytes, and this one has {}",
                serial.len()
            );
            let hint = "Shorten it: the machine would report only its beginning.";
            c.error(
                "serial-too-long",
                &["nodes", name, "disks", &i, "serial"],
                message,
                hint,
            );
        }
        if disk.role == DiskRole::Longhorn {
            longhorn_disk(c, name, node, &i);
        }
    }
    // Longhorn's partition lies on the first root disk.
    let mut partition_gb = node
        .longhorn
        .as_ref()
        .and_then(|l| l.partition_gb)
        .map_or(0, u64::from);
    let roots = node.disks.iter().enumerate();
    for (i, disk) in roots.filter(|(_, disk)| disk.role == DiskRole::Root) {
        root_size(
            c,
            &["nodes", name, "disks", &i.to_string(), "size_gb"],
            node,
            disk,
            minimum_gb,
            partition_gb,
        );
        partition_gb = 0;
    }
}

/// Reports a root disk that its layout doesn't fit on.
fn root_size(
    c: &mut Check<'_, '_>,
    path: &[&str],
    node: &Node,
    disk: &Disk,
    minimum_gb: u64,
    partition_gb: u64,
) {
    let boot_gb = u64::from(node.esp_mb).div_ceil(1024);
    let needed_gb = boot_gb + partition_gb + minimum_gb;
    let Some(size_gb) = disk.size_gb.filter(|size| u64::from(*size) < needed_gb) else {
        return;
    };
    let mut parts = format!("{boot_gb} to boot, {minimum_gb} for the system");
    if partition_gb > 0 {
        parts.push_str(&format!(", {partition_gb} for Longhorn"));
    }
    let message = format!("the layout needs {needed_gb} GiB ({parts}), and the disk has {size_gb}");
    let hint = "Use a larger disk, or lower `esp_mb` or `longhorn.partition_gb` of the class.";
    let (class, name) = (node.class.as_str(), path.get(1).copied().unwrap_or(""));
    c.error_by_class(class, name, "disk-too-small", c.at(path), (message, hint));
}

fn longhorn_disk(c: &mut Check<'_, '_>, name: &str, node: &Node, i: &str) {
    let at = ["nodes", name, "disks", i, "role"];
    if node.longhorn.is_none() && !c.cx.knows_names("classes") {
        // What the class gives may stand in what couldn't be read.
    } else if node.longhorn.is_none() {
        let message = format!("the class `{}` gives Longhorn nothing", node.class);
        let hint = format!("Add `longhorn = {{}}` to [classes.{}].", node.class);
        c.error_by_class(
            node.class.as_str(),
            name,
            "contradiction",
            c.at(&at),
            (message, hint),
        );
    } else if node.role == Role::None {
        let message = format!("`{name}` is no node of the cluster, so Longhorn can't use its disk");
        let hint = "Give the node a role, or the disk the role \"data\".";
        c.error_by_class(
            node.class.as_str(),
            name,
            "contradiction",
            c.at(&at),
            (message, hint),
        );
    }
}

fn layout(c: &mut Check<'_, '_>, name: &str, node: &Node) {
    // Where a disk couldn't be read, nothing can be said of all of them.
    if !c.whole("nodes", name) || c.is_copy("nodes", name) {
        return;
    }
    let class = node.class.as_str();
    let at_disks = ["nodes", name, "disks"];
    let roots: Vec<_> = node
        .disks
        .iter()
        .filter(|d| d.role == DiskRole::Root)
        .collect();
    let layout = node.layout;
    match (layout, roots.len()) {
        (_, 0) => c.error(
            "no-root-disk",
            &at_disks,
            format!("`{name}` has no disk for its system"),
            "Add `disks = [{ serial = \"…\", role = \"root\" }]`.",
        ),
        (Layout::ZfsMirror, 1) => c.error_by_class(
            class,
            name,
            "too-few-root-disks",
            c.at(&at_disks),
            (
                format!("the layout \"{layout}\" needs two or more root disks, and `{name}` has one"),
                "Add a second disk of role \"root\", or use the layout \"zfs\".",
            ),
        ),
        (Layout::Ext4 | Layout::Zfs | Layout::ZfsEncrypted, 2..) => c.error_by_class(
            class,
            name,
            "too-many-root-disks",
            c.at(&at_disks),
            (
                format!("the layout \"{layout}\" takes one root disk, and `{name}` has {}", roots.len()),
                "Use the layout \"zfs-mirror\", or give the other disks the role \"data\", \"longhorn\" or \"keep\".",
            ),
        ),
        (Layout::ZfsMirror, _) => {
            let sizes: BTreeSet<_> = roots.iter().filter_map(|d| d.size_gb).collect();
            if sizes.len() > 1 {
                let message = format!("the mirror's disks differ in size: {sizes:?} GiB");
                let hint = "The mirror is as large as the smallest; this may be meant.";
                c.warning("uneven-mirror", &at_disks, message, hint);
            }
        }
        _ => {}
    }
    let longhorn_disks = node.disks.iter().any(|d| d.role == DiskRole::Longhorn);
    if let Some(longhorn) = &node.longhorn
        && longhorn.partition_gb.is_none()
        && !longhorn_disks
    {
        let why = match layout {
            Layout::Ext4 => "",
            _ => ", and its replicas can't lie on a ZFS dataset",
        };
        c.error_by_class(
            class,
            name,
            "longhorn-without-place",
            c.at(&at_disks),
            (
                format!("Longhorn has no partition or disk on `{name}`{why}"),
                format!(
                    "Give a disk the role \"longhorn\", or set `longhorn.partition_gb` in [classes.{class}]."
                ),
            ),
        );
    }
}

fn machine(c: &mut Check<'_, '_>, name: &str, node: &Node) {
    let own_firmware = c.has(&["nodes", name, "firmware"]);
    let own = ["nodes", name, "firmware"];
    let class_key = ["classes", node.class.as_str(), "firmware"];
    let in_class = ["nodes", name, "class"];
    let at: &[&str] = if own_firmware {
        &own
    } else if c.has(&class_key) {
        &class_key
    } else {
        &in_class
    };
    let wanted = match (node.firmware, node.system) {
        (Firmware::Rpi, System::X86_64Linux) => Some(System::Aarch64Linux),
        (Firmware::Bios, System::Aarch64Linux) => Some(System::X86_64Linux),
        _ => None,
    };
    if let Some(wanted) = wanted {
        let message = format!(
            "the firmware \"{}\" starts {wanted}, and `{name}` is {}",
            node.firmware, node.system
        );
        let hint = format!("Correct `firmware`, or set `system = \"{wanted}\"` in the class.");
        c.error_by_class(
            node.class.as_str(),
            name,
            "firmware-and-system",
            c.at(at),
            (message, hint),
        );
    } else if node.firmware == Firmware::Bios {
        let message =
            format!("`{name}` starts by BIOS, so it gets as far as the installer and no further");
        let hint =
            "Switch its firmware to UEFI where it can; systems are installed with systemd-boot.";
        c.warning("bios-installer-only", at, message, hint);
    }
    if node.netboot.ask_4011 && !node.netboot.answer_4011 {
        let message = format!("`{name}` is to ask on port 4011, where it would get no answer");
        let class = node.class.as_str();
        let at = ["classes", class, "netboot", "ask_4011"];
        let hint = "Take `ask_4011` or `answer_4011` out.";
        c.error("ask-without-answer", &at, message, hint);
    }
    if node.power.kind == PowerKind::WakeOnLan && node.macs.is_empty() && c.whole("nodes", name) {
        let message = format!("`{name}` is switched on by a magic packet, and has no MAC address");
        c.error_by_class(
            node.class.as_str(),
            name,
            "power-without-mac",
            c.at(&["nodes", name]),
            (message, "Add `macs = [\"…\"]`, or another `power`."),
        );
    }
    if let (Some(rack), Some(least)) = (&node.rack, node.min_memory_mb)
        && node.power.kind == PowerKind::Rack
        && rack.memory_mb < least
    {
        let message = format!(
            "its class asks for {least} MiB of memory, and the virtual machine has {}",
            rack.memory_mb
        );
        c.error_by_class(
            node.class.as_str(),
            name,
            "too-little-memory",
            c.at(&["nodes", name, "rack", "memory_mb"]),
            (message, "Raise it, or lower `min_memory_mb`."),
        );
    }
    if let Some(pc) = c.draft.pcs.keys().find(|pc| pc.as_str() == name) {
        let message = format!("a node and a PC are both named `{name}`");
        let (node, pc) = (["nodes", name], ["pcs", pc.as_str()]);
        c.duplicate(
            "duplicate-name",
            &node,
            &pc,
            message,
            "Rename one: they share one network of names.",
        );
    }
}

fn phones(c: &mut Check<'_, '_>, name: &str, node: &Node) {
    if !node.phones.is_empty() && node.kind != Kind::PhoneHost {
        let message = format!(
            "`{name}` has phones, and its class is of kind \"{}\"",
            node.kind
        );
        c.error_by_class(
            node.class.as_str(),
            name,
            "contradiction",
            c.at_key(&["nodes", name], "phones"),
            (message, "Give it a class of kind \"phone-host\"."),
        );
    }
    if c.is_copy("nodes", name) {
        return;
    }
    let mut slots = Seen::new();
    for (i, phone) in node.phones.iter().enumerate() {
        if let Some(j) = slots.note(phone.slot, i) {
            let first = ["nodes", name, "phones", &j.to_string(), "slot"];
            let second = ["nodes", name, "phones", &i.to_string(), "slot"];
            let message = format!("two phones are in slot {}", phone.slot);
            c.duplicate(
                "duplicate-slot",
                &first,
                &second,
                message,
                "A slot holds one phone.",
            );
        }
    }
}
