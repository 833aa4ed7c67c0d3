//! The variables of a UEFI machine, read and edited in its flash image while it is off.
//!
//! The layout is edk2's: a firmware volume (`Include/Pi/PiFirmwareVolume.h`) that holds a store
//! of authenticated variables (`Include/Guid/VariableFormat.h`), a log to whose end records are
//! appended and whose dead records have bits of their state cleared, as in any NOR flash. What
//! the variables mean stands in the UEFI specification, sections 3.1 and 10.3.
//!
//! Only `BootNext` is ever written. The firmware takes it away when it uses it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use undercroft_model::MacAddr;

/// How much of a flash image is read, in bytes: OVMF's and AAVMF's variables fit several times.
pub const NVRAM_BYTES_MAX: u64 = 4 * 1024 * 1024;

const VOLUME_SIGNATURE: (usize, &[u8]) = (0x28, b"_FVH");
const VOLUME_HEADER_BYTES_AT: usize = 0x30;
const STORE_HEADER_BYTES: usize = 28;
/// `gEfiAuthenticatedVariableGuid`, aaf32c78-947b-439a-a180-2e144ec37792.
const AUTHENTICATED_STORE: [u8; 16] = [
    0x78, 0x2c, 0xf3, 0xaa, 0x7b, 0x94, 0x9a, 0x43, 0xa1, 0x80, 0x2e, 0x14, 0x4e, 0xc3, 0x77, 0x92,
];
/// `EFI_GLOBAL_VARIABLE`, 8be4df61-93ca-11d2-aa0d-00e098032b8c.
const GLOBAL_VARIABLE: [u8; 16] = [
    0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c,
];
const RECORD_HEADER_BYTES: usize = 60;
const RECORD_START: u16 = 0x55aa;
const STATE_ADDED: u8 = 0x3f;
/// Being replaced; still in force until its successor is whole.
const STATE_IN_TRANSITION: u8 = 0x3e;
const STATE_DELETED_MASK: u8 = 0xfd;
/// Non-volatile, and seen by boot and runtime services.
const BOOT_NEXT_ATTRIBUTES: u32 = 7;

/// One boot entry of a machine's firmware.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootEntry {
    /// Its number: 1 for `Boot0001`.
    pub number: u16,
    /// What the firmware's menu calls it, such as `Linux Boot Manager`.
    pub description: String,
}

/// A record of the store.
#[derive(Debug, Clone, Copy)]
struct Record<'a> {
    at: usize,
    state: u8,
    global: bool,
    name: &'a [u8],
    data: &'a [u8],
}

impl Record<'_> {
    fn is_live(&self) -> bool {
        self.global && matches!(self.state, STATE_ADDED | STATE_IN_TRANSITION)
    }

    fn is_called(&self, name: &str) -> bool {
        self.is_live() && self.name == utf16(name)
    }
}

/// The store of variables in a flash image. Any bytes give a store or `None`.
#[derive(Debug)]
pub struct VariableStore<'a> {
    records: Vec<Record<'a>>,
    /// Where the next record goes.
    free_at: usize,
    /// Where the store ends.
    end: usize,
    image: &'a [u8],
}

impl<'a> VariableStore<'a> {
    /// Reads an image; `None` if it has no store in edk2's format, as a blank one of AAVMF's has
    /// none before the first boot.
    pub fn parse(image: &'a [u8]) -> Option<Self> {
        let (at, signature) = VOLUME_SIGNATURE;
        if image.get(at..at + signature.len())? != signature {
            return None;
        }
        let store = usize::from(u16_at(image, VOLUME_HEADER_BYTES_AT)?);
        if image.get(store..store + 16)? != AUTHENTICATED_STORE {
            return None;
        }
        let end = store.checked_add(usize::try_from(u32_at(image, store + 16)?).ok()?)?;
        if end > image.len() {
            return None;
        }
        let mut records = Vec::new();
        let mut at = aligned(store + STORE_HEADER_BYTES);
        while let Some((record, next)) = record_at(image, at, end) {
            records.push(record);
            at = next;
        }
        Some(Self {
            records,
            free_at: at,
            end,
            image,
        })
    }

    fn value(&self, name: &str) -> Option<&'a [u8]> {
        self.records
            .iter()
            .rev()
            .find(|record| record.is_called(name))
            .map(|record| record.data)
    }

    /// The boot order, as far as its entries exist.
    pub fn boot_order(&self) -> Vec<BootEntry> {
        let order = self.value("BootOrder").unwrap_or_default();
        order
            .chunks_exact(2)
            .filter_map(|pair| {
                let number = u16_at(pair, 0)?;
                let (description, _) = self.load_option(number)?;
                Some(BootEntry {
                    number,
                    description,
                })
            })
            .collect()
    }

    /// The number of the one-time boot entry, if one is set.
    pub fn boot_next(&self) -> Option<u16> {
        u16_at(self.value("BootNext")?, 0)
    }

    /// The boot entry that does PXE over IPv4 with a network card.
    pub fn pxe_entry(&self, mac: MacAddr) -> Option<u16> {
        self.boot_order()
            .into_iter()
            .map(|entry| entry.number)
            .find(|number| {
                self.load_option(*number)
                    .is_some_and(|(_, path)| is_pxe_v4(path, mac))
            })
    }

    /// An `EFI_LOAD_OPTION`: its description and its device paths.
    fn load_option(&self, number: u16) -> Option<(String, &'a [u8])> {
        let option = self.value(&format!("Boot{number:04X}"))?;
        let paths_bytes = usize::from(u16_at(option, 4)?);
        let mut description = Vec::new();
        let mut at = 6;
        loop {
            let unit = u16_at(option, at)?;
            at += 2;
            if unit == 0 {
                break;
            }
            description.push(unit);
        }
        let paths = option.get(at..at.checked_add(paths_bytes)?)?;
        Some((String::from_utf16_lossy(&description), paths))
    }

    /// The changes to the image that set `BootNext`: bytes and where they go. `None` if the store
    /// has no room left; the firmware then makes some at its next boot.
    fn set_boot_next(&self, number: u16) -> Option<Vec<(usize, Vec<u8>)>> {
        let name = utf16("BootNext");
        let data = number.to_le_bytes();
        let mut record = Vec::with_capacity(RECORD_HEADER_BYTES + name.len() + data.len());
        record.extend(RECORD_START.to_le_bytes());
        record.extend([STATE_ADDED, 0]);
        record.extend(BOOT_NEXT_ATTRIBUTES.to_le_bytes());
        // No monotonic count, time stamp or key: the variable is not an authenticated one.
        record.extend([0; 28]);
        record.extend(u32::try_from(name.len()).ok()?.to_le_bytes());
        record.extend(u32::try_from(data.len()).ok()?.to_le_bytes());
        record.extend(GLOBAL_VARIABLE);
        record.extend(&name);
        record.extend(data);
        let free = self
            .image
            .get(self.free_at..self.end)?
            .get(..record.len())?;
        if free.iter().any(|byte| *byte != 0xff) {
            return None;
        }
        let mut edits = vec![(self.free_at, record)];
        for old in self
            .records
            .iter()
            .filter(|record| record.is_called("BootNext"))
        {
            edits.push((old.at + 2, vec![old.state & STATE_DELETED_MASK]));
        }
        Some(edits)
    }
}

fn record_at(image: &[u8], at: usize, end: usize) -> Option<(Record<'_>, usize)> {
    let header = image.get(at..end)?.get(..RECORD_HEADER_BYTES)?;
    if u16_at(header, 0)? != RECORD_START {
        return None;
    }
    let size = |offset| usize::try_from(u32_at(header, offset)?).ok();
    let name_at = at + RECORD_HEADER_BYTES;
    let data_at = name_at.checked_add(size(36)?)?;
    let data_end = data_at.checked_add(size(40)?)?;
    if data_end > end {
        return None;
    }
    let record = Record {
        at,
        state: *header.get(2)?,
        global: header.get(44..60)? == GLOBAL_VARIABLE,
        name: image.get(name_at..data_at)?,
        data: image.get(data_at..data_end)?,
    };
    Some((record, aligned(data_end)))
}

/// Whether a device path is a network card's with an IPv4 node and no URI node, which would be
/// HTTP boot. Types and subtypes are those of the UEFI specification, section 10.3.4.
fn is_pxe_v4(mut path: &[u8], mac: MacAddr) -> bool {
    let (mut card, mut ipv4, mut uri) = (false, false, false);
    while let (Some(&kind), Some(&subtype), Some(length)) =
        (path.first(), path.get(1), u16_at(path, 2))
    {
        let length = usize::from(length);
        let (Some(node), true) = (path.get(..length), length >= 4) else {
            return false;
        };
        match (kind, subtype) {
            (3, 11) => card |= node.get(4..10) == Some(mac.0.as_slice()),
            (3, 12) => ipv4 = true,
            (3, 24) => uri = true,
            _ => {}
        }
        path = path.get(length..).unwrap_or_default();
    }
    card && ipv4 && !uri
}

fn aligned(offset: usize) -> usize {
    offset.next_multiple_of(4)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..)?.first_chunk::<2>()?;
    Some(u16::from_le_bytes(*field))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_le_bytes(*field))
}

/// A name as variables store it: UTF-16, with a final zero.
fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16()
        .chain([0])
        .flat_map(u16::to_le_bytes)
        .collect()
}

/// Reads the part of a flash image that holds variables.
pub(crate) fn read_image(path: &Path) -> io::Result<Vec<u8>> {
    let mut image = Vec::new();
    File::open(path)?
        .take(NVRAM_BYTES_MAX)
        .read_to_end(&mut image)?;
    Ok(image)
}

/// Sets `BootNext` to PXE over IPv4 with the network card; `false` if the firmware has no entry
/// for that yet, or the image is of another format or full.
pub(crate) fn boot_network_next(path: &Path, mac: MacAddr) -> io::Result<bool> {
    let image = read_image(path)?;
    let edits =
        VariableStore::parse(&image).and_then(|store| store.set_boot_next(store.pxe_entry(mac)?));
    let Some(edits) = edits else { return Ok(false) };
    let file = OpenOptions::new().write(true).open(path)?;
    for (at, bytes) in edits {
        file.write_all_at(&bytes, at as u64)?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);

    fn record(state: u8, guid: [u8; 16], name: &str, data: &[u8]) -> Vec<u8> {
        let name = utf16(name);
        let mut bytes = vec![0xaa, 0x55, state, 0, 7, 0, 0, 0];
        bytes.extend([0; 28]);
        bytes.extend((name.len() as u32).to_le_bytes());
        bytes.extend((data.len() as u32).to_le_bytes());
        bytes.extend(guid);
        bytes.extend(name);
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(4), 0xff);
        bytes
    }

    fn option(description: &str, nodes: &[(u8, u8, &[u8])]) -> Vec<u8> {
        let mut path = Vec::new();
        for (kind, subtype, body) in nodes.iter().chain([&(0x7f, 0xff, [].as_slice())]) {
            path.extend([*kind, *subtype]);
            path.extend((4 + body.len() as u16).to_le_bytes());
            path.extend(*body);
        }
        let mut bytes = vec![1, 0, 0, 0];
        bytes.extend((path.len() as u16).to_le_bytes());
        bytes.extend(utf16(description));
        bytes.extend(path);
        bytes
    }

    fn mac_node(mac: MacAddr) -> Vec<u8> {
        let mut body = mac.0.to_vec();
        body.resize(33, 0);
        body
    }

    fn image(records: &[Vec<u8>], room: usize) -> Vec<u8> {
        let body: Vec<u8> = records.concat();
        let mut image = vec![0; 0x48];
        image[0x28..0x2c].copy_from_slice(b"_FVH");
        image[0x30] = 0x48;
        image.extend(AUTHENTICATED_STORE);
        image.extend((28 + body.len() as u32 + room as u32).to_le_bytes());
        image.extend([0x5a, 0xfe, 0, 0, 0, 0, 0, 0]);
        image.extend(body);
        image.resize(image.len() + room, 0xff);
        image
    }

    fn installed() -> Vec<Vec<u8>> {
        let card = mac_node(MAC);
        let network = [(3, 11, card.as_slice()), (3, 12, [0; 23].as_slice())];
        let mut http = network.to_vec();
        http.push((3, 24, &[]));
        vec![
            record(
                STATE_ADDED,
                GLOBAL_VARIABLE,
                "Boot0001",
                &option("UEFI HTTPv4", &http),
            ),
            record(
                STATE_ADDED,
                GLOBAL_VARIABLE,
                "Boot000A",
                &option("UEFI PXEv4", &network),
            ),
            record(
                STATE_ADDED,
                GLOBAL_VARIABLE,
                "Boot0003",
                &option("Linux Boot Manager", &[]),
            ),
            record(
                STATE_ADDED & STATE_DELETED_MASK,
                GLOBAL_VARIABLE,
                "BootOrder",
                &[9, 0],
            ),
            record(STATE_ADDED, [9; 16], "BootOrder", &[8, 0]),
            record(
                STATE_ADDED,
                GLOBAL_VARIABLE,
                "BootOrder",
                &[3, 0, 1, 0, 10, 0],
            ),
        ]
    }

    #[test]
    fn the_order_is_read_and_the_network_entry_found() {
        let image = image(&installed(), 512);
        let store = VariableStore::parse(&image).unwrap();
        let names: Vec<String> = store
            .boot_order()
            .into_iter()
            .map(|e| e.description)
            .collect();
        assert_eq!(names, ["Linux Boot Manager", "UEFI HTTPv4", "UEFI PXEv4"]);
        assert_eq!(store.pxe_entry(MAC), Some(10));
        assert_eq!(store.pxe_entry(MacAddr([2; 6])), None);
        assert_eq!(store.boot_next(), None);
    }

    #[test]
    fn boot_next_is_appended_replaced_and_leaves_the_rest() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("nvram.fd");
        let before = image(&installed(), 512);
        std::fs::write(&path, &before).unwrap();
        for round in 1..=3 {
            assert!(boot_network_next(&path, MAC).unwrap(), "round {round}");
            let after = std::fs::read(&path).unwrap();
            assert_eq!(after.len(), before.len());
            let store = VariableStore::parse(&after).unwrap();
            assert_eq!(store.boot_next(), Some(10));
            assert_eq!(store.boot_order().len(), 3);
            let live = store
                .records
                .iter()
                .filter(|r| r.is_called("BootNext"))
                .count();
            assert_eq!(live, 1, "round {round}");
        }
        assert!(!boot_network_next(&path, MacAddr([2; 6])).unwrap());
    }

    #[test]
    fn a_full_store_is_left_alone() {
        let full = image(&installed(), 40);
        let store = VariableStore::parse(&full).unwrap();
        assert!(store.set_boot_next(10).is_none());
    }

    #[test]
    fn a_blank_image_of_this_system_has_no_boot_order() {
        let path = Path::new("/usr/share/OVMF/OVMF_VARS_4M.fd");
        if !path.exists() {
            println!("SKIPPED: there is no {}", path.display());
            return;
        }
        let image = read_image(path).unwrap();
        let store = VariableStore::parse(&image).unwrap();
        assert!(store.boot_order().is_empty());
        assert!(store.set_boot_next(1).is_some());
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_store_or_none(
            tail in proptest::collection::vec(any::<u8>(), 0..600),
            size in 0u32..1000, flips in proptest::collection::vec((0usize..900, any::<u8>()), 0..8),
        ) {
            let mut bytes = image(&installed(), 64);
            bytes.extend(tail);
            bytes[0x58..0x5c].copy_from_slice(&size.to_le_bytes());
            for (at, byte) in flips {
                if let Some(slot) = bytes.get_mut(at) { *slot = byte; }
            }
            if let Some(store) = VariableStore::parse(&bytes) {
                let _ = (store.boot_order(), store.boot_next(), store.pxe_entry(MAC));
                for (at, edit) in store.set_boot_next(1).unwrap_or_default() {
                    prop_assert!(at + edit.len() <= store.end);
                }
            }
        }
    }
}
