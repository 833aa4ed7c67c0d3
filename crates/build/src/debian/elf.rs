//! The few facts that are needed of ELF files, read without running them: so that a file of
//! another architecture gives the same answer.
//!
//! Only 64-bit little-endian files are read, which is what x86_64 and aarch64 are. Files come from elsewhere: reading is
//! total, and what one says has its limits.

use object::{
    LittleEndian,
    elf::{DT_NEEDED, DT_NULL, DT_STRTAB, EM_AARCH64, EM_X86_64, FileHeader64, PT_LOAD},
    read::{
        StringTable,
        elf::{Dyn as _, FileHeader as _, ProgramHeader as _, SectionHeader as _},
    },
};

use super::Arch;

type Header = FileHeader64<LittleEndian>;

/// No file that is read here has more dynamic entries than this.
const ENTRIES_MAX: usize = 4096;
/// The longest name of a library, in bytes: that of a file (limits.h, `NAME_MAX`).
const NAME_BYTES_MAX: usize = 255;

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

fn text(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}

/// Reads an executable or a shared library; `None` if it isn't a well-formed 64-bit ELF file.
///
/// What the loader goes by is read, the program headers and what they lead to: section headers may be missing.
pub fn parse(data: &[u8]) -> Option<Elf> {
    let header = Header::parse(data).ok()?;
    let endian = header.endian().ok()?;
    let mut elf = Elf {
        arch: match header.e_machine(endian) {
            EM_X86_64 => Some(Arch::X86_64),
            EM_AARCH64 => Some(Arch::Aarch64),
            _ => None,
        },
        interpreter: None,
        needed: Vec::new(),
    };
    let segments = header.program_headers(endian, data).ok()?;
    let mut entries = Vec::new();
    for segment in segments {
        if let Some(path) = segment.interpreter(endian, data).ok()? {
            elf.interpreter = text(path);
        }
        if let Some(dynamic) = segment.dynamic(endian, data).ok()? {
            let all = dynamic
                .iter()
                .map(|entry| (entry.tag(endian), entry.val(endian)));
            entries = all
                .take_while(|(tag, _)| *tag != DT_NULL)
                .take(ENTRIES_MAX + 1)
                .collect();
        }
    }
    if entries.len() > ENTRIES_MAX {
        return None;
    }
    let Some((_, strings)) = entries.iter().find(|(tag, _)| *tag == DT_STRTAB) else {
        return Some(elf);
    };
    let strings = segments.iter().find_map(|segment| {
        let loaded =
            (segment.p_type(endian) == PT_LOAD).then(|| segment.data(endian, data).ok())??;
        let within = strings.checked_sub(segment.p_vaddr(endian))?;
        loaded.get(usize::try_from(within).ok()?..)
    })?;
    let strings = StringTable::new(strings, 0, strings.len().try_into().ok()?);
    for (_, at) in entries.iter().filter(|(tag, _)| *tag == DT_NEEDED) {
        let name = strings.get(u32::try_from(*at).ok()?).ok()?;
        if name.len() > NAME_BYTES_MAX {
            return None;
        }
        elf.needed.push(text(name)?);
    }
    Some(elf)
}

/// The `key=value` facts of a kernel module's `.modinfo` section, in the file's order.
///
/// Source: `include/linux/moduleparam.h`, `__MODULE_INFO`: strings that each end in a NUL.
pub fn modinfo(data: &[u8]) -> Option<Vec<(String, String)>> {
    let header = Header::parse(data).ok()?;
    let endian = header.endian().ok()?;
    let sections = header.sections(endian, data).ok()?;
    let (_, section) = sections.section_by_name(endian, b".modinfo")?;
    let facts = section.data(endian, data).ok()?.split(|byte| *byte == 0);
    let facts = facts
        .filter_map(|fact| std::str::from_utf8(fact).ok()?.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()));
    Some(facts.collect())
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

    /// A library with one loaded segment of the whole file, whose dynamic entries are these.
    fn library(entries: &[(u64, u64)], strings: &[u8]) -> Vec<u8> {
        let headers = 64 + 2 * 56;
        let dynamic = 16 * entries.len() as u64;
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(64, 0);
        file[16..20].copy_from_slice(&[3, 0, 62, 0]);
        file[32] = 64;
        file[54] = 56;
        file[56] = 2;
        let whole = headers + dynamic + strings.len() as u64;
        for (kind, offset, size) in [(1_u64, 0, whole), (2, headers, dynamic)] {
            for word in [kind, offset, offset, offset, size, size, 8] {
                file.extend(word.to_le_bytes());
            }
        }
        for (tag, value) in entries {
            file.extend(tag.to_le_bytes());
            file.extend(value.to_le_bytes());
        }
        file.extend(strings);
        file
    }

    #[test]
    fn the_names_of_libraries_are_read_up_to_the_end_and_have_limits() {
        let at = |entries: u64| 64 + 2 * 56 + 16 * entries;
        let needed = |entries: &[(u64, u64)], strings: &[u8]| {
            parse(&library(entries, strings)).map(|elf| elf.needed)
        };
        let names = b"\0liba.so\0libb.so.1\0";
        let entries = [(5, at(4)), (1, 1), (1, 9), (0, 0)];
        assert_eq!(needed(&entries, names).unwrap(), ["liba.so", "libb.so.1"]);
        // What comes behind the end says nothing.
        let entries = [(5, at(4)), (1, 1), (0, 0), (1, 9)];
        assert_eq!(needed(&entries, names).unwrap(), ["liba.so"]);
        // Names without strings, and strings that end nowhere or lie nowhere.
        assert_eq!(needed(&[(1, 1)], names), Some(Vec::new()));
        assert_eq!(needed(&[(5, at(2)), (1, 1)], b"\0liba.so"), None);
        assert_eq!(needed(&[(5, 1 << 40), (1, 1)], names), None);
        assert_eq!(needed(&[(5, at(2)), (1, u64::MAX)], names), None);
        // A long name that is needed often would be copied as often.
        let mut long = vec![b'x'; NAME_BYTES_MAX + 1];
        long.push(0);
        assert_eq!(needed(&[(5, at(2)), (1, 0)], &long), None);
        assert_eq!(
            needed(&[(5, at(2)), (1, 1)], &long).unwrap()[0].len(),
            NAME_BYTES_MAX
        );
        let mut many = vec![(5, at(ENTRIES_MAX as u64 + 1))];
        many.resize(ENTRIES_MAX + 1, (1, 1));
        assert_eq!(needed(&many, names), None);
        many.pop();
        many[0].1 -= 16;
        assert_eq!(needed(&many, names).unwrap().len(), ENTRIES_MAX - 1);
    }

    #[test]
    fn files_that_do_not_begin_at_a_round_address_are_read_too() {
        let file = library(&[(5, 64 + 2 * 56 + 32), (1, 1)], b"\0liba.so\0");
        for shift in 0..8 {
            let mut shifted = vec![0; shift];
            shifted.extend(&file);
            assert_eq!(parse(&shifted[shift..]).unwrap().needed, ["liba.so"]);
        }
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
