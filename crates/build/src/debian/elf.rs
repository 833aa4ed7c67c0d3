//! The few facts that are needed of ELF files, read without running them: so that a file of
//! another architecture gives the same answer.
//!
//! Source: the System V ABI, "Object Files" and "Dynamic Linking"; elf(5). Only 64-bit
//! little-endian files are read, which is what x86_64 and aarch64 are. Parsing is total.

use super::Arch;

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const EM_X86_64: u16 = 62;
const EM_AARCH64: u16 = 183;
/// No file that is read here has more headers or dynamic entries than this.
const MAX_ENTRIES: usize = 4096;

/// What an executable or shared library asks of the dynamic loader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elf {
    /// The architecture it is for; `None` for one that isn't ours.
    pub arch: Option<Arch>,
    /// The dynamic loader's path, for a dynamically linked executable.
    pub interpreter: Option<String>,
    /// The sonames of the libraries that it needs, in the file's order.
    pub needed: Vec<String>,
}

fn bytes<const N: usize>(data: &[u8], at: u64) -> Option<[u8; N]> {
    let at = usize::try_from(at).ok()?;
    data.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u16_at(data: &[u8], at: u64) -> Option<u16> {
    bytes(data, at).map(u16::from_le_bytes)
}

fn u32_at(data: &[u8], at: u64) -> Option<u32> {
    bytes(data, at).map(u32::from_le_bytes)
}

fn u64_at(data: &[u8], at: u64) -> Option<u64> {
    bytes(data, at).map(u64::from_le_bytes)
}

fn slice(data: &[u8], at: u64, len: u64) -> Option<&[u8]> {
    let end = at.checked_add(len)?;
    data.get(usize::try_from(at).ok()?..usize::try_from(end).ok()?)
}

fn text_at(data: &[u8], at: u64) -> Option<String> {
    let rest = data.get(usize::try_from(at).ok()?..)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    std::str::from_utf8(rest.get(..end)?)
        .ok()
        .map(str::to_owned)
}

fn is_elf64_le(data: &[u8]) -> bool {
    data.starts_with(b"\x7fELF\x02\x01")
}

/// Entries of a header table: its offset, the size of one entry and their number.
fn table(data: &[u8], offset_at: u64, size_at: u64, count_at: u64) -> Option<Vec<u64>> {
    let offset = u64_at(data, offset_at)?;
    let size = u64::from(u16_at(data, size_at)?);
    let count = u64::from(u16_at(data, count_at)?);
    (0..count)
        .map(|i| offset.checked_add(i.checked_mul(size)?))
        .collect()
}

/// Reads an executable or a shared library; `None` if it isn't a well-formed 64-bit ELF file.
pub fn parse(data: &[u8]) -> Option<Elf> {
    if !is_elf64_le(data) {
        return None;
    }
    let arch = match u16_at(data, 18)? {
        EM_X86_64 => Some(Arch::X86_64),
        EM_AARCH64 => Some(Arch::Aarch64),
        _ => None,
    };
    let mut elf = Elf {
        arch,
        interpreter: None,
        needed: Vec::new(),
    };
    let mut loads = Vec::new();
    let mut dynamic = None;
    for header in table(data, 32, 54, 56)? {
        let kind = u32_at(data, header)?;
        let offset = u64_at(data, header.checked_add(8)?)?;
        let address = u64_at(data, header.checked_add(16)?)?;
        let size = u64_at(data, header.checked_add(32)?)?;
        match kind {
            PT_LOAD => loads.push((address, offset, size)),
            PT_DYNAMIC => dynamic = Some((offset, size)),
            PT_INTERP => {
                let path = slice(data, offset, size)?;
                elf.interpreter = text_at(path, 0);
            }
            _ => {}
        }
    }
    let Some((offset, size)) = dynamic else {
        return Some(elf);
    };
    let entries = slice(data, offset, size)?
        .chunks_exact(16)
        .take(MAX_ENTRIES);
    let entries: Vec<(u64, u64)> = entries
        .filter_map(|entry| Some((u64_at(entry, 0)?, u64_at(entry, 8)?)))
        .collect();
    let Some((_, strings)) = entries.iter().find(|(tag, _)| *tag == DT_STRTAB) else {
        return Some(elf);
    };
    let strings = loads.iter().find_map(|(address, offset, size)| {
        let within = strings
            .checked_sub(*address)
            .filter(|within| within < size)?;
        offset.checked_add(within)
    })?;
    for (_, value) in entries.iter().filter(|(tag, _)| *tag == DT_NEEDED) {
        elf.needed
            .push(text_at(data, strings.checked_add(*value)?)?);
    }
    Some(elf)
}

/// The `key=value` facts of a kernel module's `.modinfo` section, in the file's order.
///
/// Source: `include/linux/moduleparam.h`, `__MODULE_INFO`: strings that each end in a NUL.
pub fn modinfo(data: &[u8]) -> Option<Vec<(String, String)>> {
    if !is_elf64_le(data) {
        return None;
    }
    let headers = table(data, 40, 58, 60)?;
    let names = *headers.get(usize::from(u16_at(data, 62)?))?;
    let names = u64_at(data, names.checked_add(24)?)?;
    for header in headers {
        let name = names.checked_add(u64::from(u32_at(data, header)?))?;
        if text_at(data, name).as_deref() != Some(".modinfo") {
            continue;
        }
        let offset = u64_at(data, header.checked_add(24)?)?;
        let size = u64_at(data, header.checked_add(32)?)?;
        let facts = slice(data, offset, size)?
            .split(|byte| *byte == 0)
            .filter_map(|fact| std::str::from_utf8(fact).ok()?.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        return Some(facts);
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_this_very_program() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let elf = parse(&own).unwrap();
        assert_eq!(elf.arch, Arch::host());
        assert!(elf.interpreter.unwrap().contains("ld-linux"));
        assert!(
            elf.needed.iter().any(|soname| soname == "libc.so.6"),
            "{:?}",
            elf.needed
        );
    }

    #[test]
    fn anything_else_is_none() {
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"#!/bin/sh\n"), None);
        assert_eq!(parse(b"\x7fELF\x02\x01\x01"), None);
        assert_eq!(modinfo(b"\x7fELF\x02\x01\x01"), None);
    }

    proptest! {
        #[test]
        fn damaged_files_never_panic(
            flips in prop::collection::vec((0usize..4096, any::<u8>()), 0..40),
            length in 0usize..200_000,
        ) {
            static OWN: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
            let own = OWN.get_or_init(|| std::fs::read("/proc/self/exe").unwrap());
            let mut own: Vec<u8> = own.iter().copied().take(length).collect();
            for (at, value) in flips {
                if let Some(byte) = own.get_mut(at) {
                    *byte = value;
                }
            }
            let _ = parse(&own);
            let _ = modinfo(&own);
        }
    }
}
