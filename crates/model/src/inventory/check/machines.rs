//! Classes and nodes: identities, disks and layouts, power, and what contradicts itself.

use std::collections::{BTreeMap, BTreeSet};

use super::{Check, Seen, gpu};
use crate::{
    MachineUuid, System,
    inventory::{
        Builder, Class, DiskRole, Firmware, Kind, Layout, Node, Power, PowerKind, Role,
        source::Finding,
    },
};

/// Least size of a root for a NixOS system with a few generations, in GiB.
const MIN_ROOT_GB: u64 = 8;
/// The same for the small system of the virtual rack.
const MIN_RACK_ROOT_GB: u64 = 1;
/// Bytes of a serial number that virtio-blk and NVMe carry (virtio 1.2, section 5.2.6; NVMe base
/// specification 2.0, Identify Controller).
const MAX_VIRTUAL_SERIAL_BYTES: usize = 20;

/// Serial numbers that machines report when nobody set one, in lower case.
const PLACEHOLDER_SERIALS: &[&str] = &[
    "none",
    "n/a",
    "na",
    "unknown",
    "default",
    "serial",
    "not specified",
    "to be filled by o.e.m.",
    "0123456789",
    "123456789",
    "1234567890",
    "0123456789abcdef",
];

/// A UUID that many boards of one maker share, because it was never set.
const SHARED_UUID: MachineUuid = MachineUuid([
    0x03, 0x00, 0x02, 0x00, 0x04, 0x00, 0x05, 0x00, 0x00, 0x06, 0x00, 0x07, 0x00, 0x08, 0x00, 0x09,
]);

pub(super) fn check(c: &mut Check<'_, '_>) {
    let draft = c.draft;
    let used: BTreeSet<_> = draft.nodes.values().map(|node| &node.class).collect();
    for (name, class) in &draft.classes {
        self::class(c, name.as_str(), class);
        if !used.contains(name) && c.cx.is_complete() && c.names("nodes").len() == draft.nodes.len()
        {
            let message = format!("no node belongs to the class `{name}`");
            let path = ["classes", name.as_str()];
            c.warning(
                "unused-class",
                &path,
                message,
                "Take it out, or leave it for later.",
            );
        }
    }
    unknown_classes(c);
    identities(c);
    let minimum_gb = match draft.fleet.as_ref().map(|f| f.builder) {
        Some(Builder::DebianRack) => MIN_RACK_ROOT_GB,
        _ => MIN_ROOT_GB,
    };
    for (name, node) in &draft.nodes {
        let name = name.as_str();
        disks(c, name, node, minimum_gb);
        layout(c, name, node);
        machine(c, name, node);
        phones(c, name, node);
        if c.has(&["nodes", name, "power"]) {
            power(c, &["nodes", name, "power"], &node.power);
        }
        if c.has(&["nodes", name, "labels"]) {
            labels(c, &["nodes", name, "labels"], &node.labels);
        }
        if c.has(&["nodes", name, "gpu"])
            && let Some(gpu) = &node.gpu
        {
            cards(c, &["nodes", name, "gpu"], gpu);
        }
    }
}

fn cards(c: &mut Check<'_, '_>, path: &[&str], gpu: &crate::inventory::Gpu) {
    for (key, code, message, hint) in gpu::faults(gpu) {
        let mut path = path.to_vec();
        path.push(key);
        c.error(code, &path, message, hint);
    }
}

/// Nodes whose class isn't there, which the draft therefore doesn't have.
fn unknown_classes(c: &mut Check<'_, '_>) {
    let unknown = c.draft.unknown_classes.clone();
    for (node, class) in &unknown {
        c.unknown(
            "class",
            "classes",
            class.as_str(),
            &["nodes", node.as_str(), "class"],
        );
    }
}

fn class(c: &mut Check<'_, '_>, name: &str, class: &Class) {
    let path = |key| ["classes", name, key];
    if matches!(class.system(), System::X86_64Darwin | System::Aarch64Darwin) {
        let message = format!("a node can't run {}", class.system());
        let hint = "Nodes run \"x86_64-linux\" or \"aarch64-linux\"; Macs belong under [pcs].";
        c.error("not-a-node-system", &path("system"), message, hint);
    }
    if class.kind == Kind::Gpu && class.gpu.is_none() && c.whole("classes", name) {
        c.warning(
            "no-gpu",
            &path("kind"),
            format!("the class `{name}` is of kind \"gpu\" and names no cards"),
            "Add `gpu = { model = \"…\" }`.",
        );
    }
    if let Some(gpu) = &class.gpu {
        cards(c, &path("gpu"), gpu);
    }
    labels(c, &path("labels"), &class.labels);
    power(c, &path("power"), &class.power);
}

/// Labels: their keys' form, and those that the kubelet may not set itself.
fn labels(c: &mut Check<'_, '_>, path: &[&str], labels: &BTreeMap<String, String>) {
    for key in labels.keys() {
        let finding = if !crate::inventory::forms::is_label_key(key) {
            let message = format!("{key:?} is not the key of a label");
            Finding::error("malformed", c.at_key(path, key), message)
                .hint("A key is a name, or a DNS name, '/' and a name: \"example.com/rack\".")
        } else if is_reserved_label(key) {
            let message = format!("a node may not give itself the label `{key}`");
            Finding::error("reserved-label", c.at_key(path, key), message).hint(
                "Use a domain of your own: \"example.com/…\". Kubernetes keeps its own for itself.",
            )
        } else {
            continue;
        };
        c.report(finding);
    }
}

/// Labels that the admission plugin NodeRestriction keeps a kubelet from setting on its node
/// (Kubernetes reference, "Admission Controllers", NodeRestriction).
fn is_reserved_label(key: &str) -> bool {
    let Some((domain, _)) = key.split_once('/') else {
        return false;
    };
    let within = |zone: &str| domain == zone || domain.ends_with(&format!(".{zone}"));
    let allowed = matches!(
        key,
        "kubernetes.io/hostname"
            | "kubernetes.io/arch"
            | "kubernetes.io/os"
            | "topology.kubernetes.io/region"
            | "topology.kubernetes.io/zone"
    ) || within("kubelet.kubernetes.io")
        || within("node.kubernetes.io");
    (within("kubernetes.io") || within("k8s.io")) && !allowed
}

fn power(c: &mut Check<'_, '_>, path: &[&str], power: &Power) {
    let section = path.first().copied().unwrap_or("");
    let owner = path.get(1).copied().unwrap_or("");
    let commands = [
        ("on", &power.on),
        ("off", &power.off),
        ("status", &power.status),
    ];
    for (key, command) in commands {
        let at: Vec<&str> = path.iter().copied().chain([key]).collect();
        if power.kind == PowerKind::Command && command.is_empty() && key != "status" {
            if c.whole(section, owner) {
                let kind: Vec<&str> = path.iter().copied().chain(["kind"]).collect();
                let message = format!("switching by commands needs `{key}`");
                let hint = format!("Add `{key} = [\"COMMAND\", \"{{node}}\", \"{key}\"]`.");
                c.error("missing-key", &kind, message, hint);
            }
        } else if power.kind != PowerKind::Command && !command.is_empty() {
            let message = format!(
                "`{key}` is without effect while `kind` is \"{}\"",
                power.kind
            );
            c.warning(
                "without-effect",
                &at,
                message,
                "Take it out, or set `kind` to \"command\".",
            );
        }
    }
    if power.broadcast.is_some() && power.kind != PowerKind::WakeOnLan {
        let at: Vec<&str> = path.iter().copied().chain(["broadcast"]).collect();
        let message = format!(
            "`broadcast` is without effect while `kind` is \"{}\"",
            power.kind
        );
        c.warning(
            "without-effect",
            &at,
            message,
            "Take it out, or set `kind` to \"wake-on-lan\".",
        );
    }
    let commands = commands.into_iter().chain([("console", &power.console)]);
    for (key, command) in commands {
        for (i, word) in command.iter().enumerate() {
            if let Some(placeholder) = unknown_placeholder(word) {
                let i = i.to_string();
                let at: Vec<&str> = path.iter().copied().chain([key, &i]).collect();
                let message = format!("`{placeholder}` stands for nothing");
                let hint = "Known are `{node}`, `{address}` and `{mac}`.";
                c.error("unknown-placeholder", &at, message, hint);
            }
        }
    }
}

/// The first `{word}` of a text that isn't a known one.
fn unknown_placeholder(text: &str) -> Option<&str> {
    let mut rest = text;
    while let Some(start) = rest.find('{') {
        rest = rest.get(start..)?;
        let end = rest.find('}')? + 1;
        let (placeholder, after) = rest.split_at_checked(end)?;
        let word = placeholder.trim_matches(['{', '}']);
        let name = !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        if name && !matches!(word, "node" | "address" | "mac") {
            return Some(placeholder);
        }
        rest = after;
    }
    None
}

/// MAC addresses, UUIDs, serial numbers and WWNs: set, and each given once.
fn identities(c: &mut Check<'_, '_>) {
    let draft = c.draft;
    let (mut macs, mut uuids) = (Seen::new(), Seen::new());
    let (mut serials, mut wwns, mut phones) = (Seen::new(), Seen::new(), Seen::new());
    for (name, node) in &draft.nodes {
        let name = name.as_str();
        for (i, mac) in node.macs.iter().enumerate() {
            let at = ["nodes", name, "macs", &i.to_string()];
            if mac.is_multicast() || mac.0 == [0; 6] {
                let what = if mac.0 == [0; 6] {
                    "is not set"
                } else {
                    "names a group of machines"
                };
                let hint = "Give the address of the machine's own port, as `ip link` shows it.";
                c.error("not-a-machine-address", &at, format!("{mac} {what}"), hint);
            } else if let Some((other, j)) = macs.note(*mac, (name, i)) {
                let first = ["nodes", other, "macs", &j.to_string()];
                let message = format!("the MAC address {mac} is given twice");
                c.duplicate(
                    "duplicate-mac",
                    &first,
                    &at,
                    message,
                    "Each port has its own: read both again.",
                );
            }
        }
        if let Some(uuid) = node.uuid {
            let at = ["nodes", name, "uuid"];
            if uuid.is_unset() || uuid == SHARED_UUID {
                let message = format!("{uuid} is what firmware reports when no UUID was set");
                c.error(
                    "unset-uuid",
                    &at,
                    message,
                    "Take `uuid` out and give `macs`.",
                );
            } else if let Some(other) = uuids.note(uuid, name) {
                let message = format!("the UUID {uuid} is given twice");
                let first = ["nodes", other, "uuid"];
                c.duplicate(
                    "duplicate-uuid",
                    &first,
                    &at,
                    message,
                    "Each machine has its own: read both again.",
                );
            }
        }
        if node.uuid.is_none() && node.macs.is_empty() && c.whole("nodes", name) {
            let message = format!("nothing says which machine `{name}` is");
            let hint = "Add `macs = [\"…\"]`, or `uuid`.";
            c.error("no-identity", &["nodes", name], message, hint);
        }
        for (i, disk) in node.disks.iter().enumerate() {
            let i_text = i.to_string();
            let both = [("serial", &disk.serial), ("wwn", &disk.wwn)];
            for (key, id) in both {
                let Some(id) = id else { continue };
                let at = ["nodes", name, "disks", &i_text, key];
                if is_placeholder_serial(id) {
                    let message = format!(
                        "{id:?} is what disks report when nobody gave them a serial number"
                    );
                    let hint = "Give the `wwn` instead, or the serial number on the label.";
                    c.error("placeholder-serial", &at, message, hint);
                    continue;
                }
                let seen = if key == "serial" {
                    &mut serials
                } else {
                    &mut wwns
                };
                if let Some((other, j)) = seen.note(id.as_str(), (name, i)) {
                    let first: [&str; 5] = ["nodes", other, "disks", &j.to_string(), key];
                    let message = format!("the disk with the {key} {id:?} is claimed twice");
                    c.duplicate(
                        "duplicate-disk",
                        &first,
                        &at,
                        message,
                        "A disk is in one machine: read both labels again.",
                    );
                }
            }
        }
        for (i, phone) in node.phones.iter().enumerate() {
            let at = ["nodes", name, "phones", &i.to_string(), "serial"];
            if let Some((other, j)) = phones.note(phone.serial.as_str(), (name, i)) {
                let first: [&str; 5] = ["nodes", other, "phones", &j.to_string(), "serial"];
                let message = format!("the phone {:?} is given twice", phone.serial);
                c.duplicate(
                    "duplicate-phone",
                    &first,
                    &at,
                    message,
                    "`adb devices` shows each phone's own serial number.",
                );
            }
        }
    }
}

fn is_placeholder_serial(text: &str) -> bool {
    let low = text.to_ascii_lowercase();
    PLACEHOLDER_SERIALS.contains(&low.as_str())
        || low
            .chars()
            .all(|ch| ch == '0' || ch == ' ' || ch == '-' || ch == 'x')
        || low.len() >= 4 && low.chars().all(|ch| ch == 'f')
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
        if disk.role == DiskRole::Root
            && let Some(size) = disk.size_gb
        {
            let partition = node
                .longhorn
                .as_ref()
                .and_then(|l| l.partition_gb)
                .unwrap_or(0);
            // The partition lies on the first root disk.
            let first = !node
                .disks
                .iter()
                .take(i.parse().unwrap_or(0))
                .any(|d| d.role == DiskRole::Root);
            let partition = if first { u64::from(partition) } else { 0 };
            let boot_gb = u64::from(node.esp_mb).div_ceil(1024);
            let needed = boot_gb + partition + minimum_gb;
            if u64::from(size) < needed {
                let mut parts = format!("{boot_gb} to boot, {minimum_gb} for the system");
                if partition > 0 {
                    parts.push_str(&format!(", {partition} for Longhorn"));
                }
                let message =
                    format!("the layout needs {needed} GiB ({parts}), and the disk has {size}");
                let hint =
                    "Use a larger disk, or lower `esp_mb` or `longhorn.partition_gb` of the class.";
                c.error(
                    "disk-too-small",
                    &["nodes", name, "disks", &i, "size_gb"],
                    message,
                    hint,
                );
            }
        }
    }
}

fn longhorn_disk(c: &mut Check<'_, '_>, name: &str, node: &Node, i: &str) {
    let at = ["nodes", name, "disks", i, "role"];
    if node.longhorn.is_none() {
        let message = format!("the class `{}` gives Longhorn nothing", node.class);
        let hint = format!("Add `longhorn = {{}}` to [classes.{}].", node.class);
        c.error("contradiction", &at, message, hint);
    } else if node.role == Role::None {
        let message = format!("`{name}` is no node of the cluster, so Longhorn can't use its disk");
        let hint = "Give the node a role, or the disk the role \"data\".";
        c.error("contradiction", &at, message, hint);
    }
}

fn layout(c: &mut Check<'_, '_>, name: &str, node: &Node) {
    // Where a disk couldn't be read, nothing can be said of all of them.
    if !c.whole("nodes", name) {
        return;
    }
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
        (Layout::ZfsMirror, 1) => c.error(
            "too-few-root-disks",
            &at_disks,
            format!("the layout \"{layout}\" needs two or more root disks, and `{name}` has one"),
            "Add a second disk of role \"root\", or use the layout \"zfs\".",
        ),
        (Layout::Ext4 | Layout::Zfs | Layout::ZfsEncrypted, 2..) => c.error(
            "too-many-root-disks",
            &at_disks,
            format!("the layout \"{layout}\" takes one root disk, and `{name}` has {}", roots.len()),
            "Use the layout \"zfs-mirror\", or give the other disks the role \"data\", \"longhorn\" or \"keep\".",
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
        c.error(
            "longhorn-without-place",
            &at_disks,
            format!("Longhorn has no partition or disk on `{name}`{why}"),
            format!(
                "Give a disk the role \"longhorn\", or set `longhorn.partition_gb` in [classes.{}].",
                node.class
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
        c.error("firmware-and-system", at, message, hint);
    } else if node.firmware == Firmware::Bios {
        let message =
            format!("`{name}` starts by BIOS, so it gets as far as the installer and no further");
        let hint =
            "Switch its firmware to UEFI where it can; systems are installed with systemd-boot.";
        c.warning("bios-installer-only", at, message, hint);
    }
    if node.power.kind == PowerKind::WakeOnLan && node.macs.is_empty() && c.whole("nodes", name) {
        let message = format!("`{name}` is switched on by a magic packet, and has no MAC address");
        c.error(
            "power-without-mac",
            &["nodes", name],
            message,
            "Add `macs = [\"…\"]`, or another `power`.",
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
        c.error(
            "too-little-memory",
            &["nodes", name, "rack", "memory_mb"],
            message,
            "Raise it, or lower `min_memory_mb`.",
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
        let finding = Finding::error(
            "contradiction",
            c.at_key(&["nodes", name], "phones"),
            message,
        )
        .hint("Give it a class of kind \"phone-host\".");
        c.report(finding);
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
