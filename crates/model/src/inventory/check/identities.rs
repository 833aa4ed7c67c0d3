//! What tells machines, disks and phones apart: set, and each given once.

use super::state::{Check, Seen};

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

/// How the serial numbers begin that `undercroft init` writes.
const TEMPLATE_SERIAL: &str = "SERIAL-OF-DISK-";
/// How the MAC addresses begin that it writes: locally administered ones that no card is made with.
const TEMPLATE_MAC: [u8; 5] = [0x02, 0, 0, 0, 0];

/// What `undercroft init` has made up and nobody has put their own in the place of.
fn made_up(c: &mut Check<'_, '_>) {
    let mut at: Option<Vec<String>> = None;
    let mut names = Vec::new();
    for node in c.draft.own_parts() {
        let name = node.name;
        let serials = node.disks.iter().enumerate().filter(|(_, disk)| {
            let serial = disk.serial.as_deref();
            serial.is_some_and(|serial| serial.starts_with(TEMPLATE_SERIAL))
        });
        let serial =
            serials.map(|(i, _)| vec!["disks".to_owned(), i.to_string(), "serial".to_owned()]);
        let macs = node.macs.iter().enumerate();
        let mac = macs
            .filter(|(_, mac)| mac.0.starts_with(&TEMPLATE_MAC))
            .map(|(i, _)| vec!["macs".to_owned(), i.to_string()]);
        if let Some(keys) = serial.chain(mac).next() {
            let path = ["nodes".to_owned(), name.to_owned()]
                .into_iter()
                .chain(keys);
            at.get_or_insert(path.collect());
            names.push(format!("`{name}`"));
        }
    }
    let Some(at) = at else { return };
    let at: Vec<&str> = at.iter().map(String::as_str).collect();
    c.warning(
        "made-up",
        &at,
        format!(
            "the serial numbers or MAC addresses of {} are those that `undercroft init` made up",
            super::causes::named(&names)
        ),
        "Put the machines' own in their place before `up`: `lsblk -o NAME,SERIAL,WWN,SIZE` and `ip link` show them, and so do their labels. A rehearsal does without.",
    );
}

/// MAC addresses, UUIDs, serial numbers and WWNs: set, and each given once.
pub(super) fn check(c: &mut Check<'_, '_>) {
    made_up(c);
    let draft = c.draft;
    let (mut macs, mut uuids) = (Seen::new(), Seen::new());
    let (mut serials, mut wwns, mut phones) = (Seen::new(), Seen::new(), Seen::new());
    for node in draft.own_parts() {
        let name = node.name;
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
                c.claimed_twice(
                    "duplicate-mac",
                    "MAC address",
                    &first,
                    &at,
                    message,
                    "Each port has its own: read both again.",
                );
            }
        }
        if let Some(uuid) = node.uuid {
            let at = ["nodes", name, "uuid"];
            if !uuid.is_unique() {
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
                c.claimed_twice(
                    "duplicate-uuid",
                    "UUID",
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
                    c.claimed_twice(
                        "duplicate-disk",
                        "disk",
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
                c.claimed_twice(
                    "duplicate-phone",
                    "phone",
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
