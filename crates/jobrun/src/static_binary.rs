//! Whether a file is a static binary of this machine's kind.

use std::{fs::File, os::unix::fs::FileExt as _};

use object::{
    Endianness, elf,
    read::elf::{FileHeader as _, ProgramHeader as _},
};

/// How much of a file is looked at, in bytes: its header and its table of segments are at its beginning.
const HEAD_BYTES: usize = 64 * 1024;

/// Refuses what the kernel couldn't start here, in words.
pub(crate) fn check(file: &File) -> Result<(), String> {
    let mut head = vec![0u8; HEAD_BYTES];
    let mut read = 0;
    while let Some(rest) = head.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, u64::try_from(read).unwrap_or(u64::MAX)) {
            Ok(0) => break,
            Ok(count) => read = read.saturating_add(count),
            Err(error) => return Err(format!("the program can't be read: {error}")),
        }
    }
    head.truncate(read);
    judge(&head)
}

fn judge(head: &[u8]) -> Result<(), String> {
    let machine = match std::env::consts::ARCH {
        "x86_64" => elf::EM_X86_64,
        "aarch64" => elf::EM_AARCH64,
        other => return Err(format!("binaries of {other} aren't known")),
    };
    let fail = |error: object::read::Error| {
        format!("the program is no binary of Linux with 64 bits: {error}")
    };
    let header = elf::FileHeader64::<Endianness>::parse(head).map_err(fail)?;
    let endian = header.endian().map_err(fail)?;
    if header.e_machine(endian) != machine {
        return Err(format!(
            "the program is a binary of another kind of processor than this machine's ({})",
            std::env::consts::ARCH
        ));
    }
    let segments = header.program_headers(endian, head).map_err(fail)?;
    let is_loader =
        |segment: &&elf::ProgramHeader64<Endianness>| segment.p_type(endian) == elf::PT_INTERP;
    if segments.iter().any(|segment| is_loader(&segment)) {
        return Err(
            "the program needs a dynamic loader, and a sandbox has no libraries: link it statically".to_owned(),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_static_binaries_of_this_kind_are_taken() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        let said = judge(own.get(..HEAD_BYTES).unwrap()).unwrap_err();
        assert!(said.contains("link it statically"), "{said}");

        let mut other = own.clone();
        // e_machine (elf(5)).
        other[18] = 243;
        other[19] = 0;
        assert!(judge(&other).unwrap_err().contains("another kind"));
        for wrong in [b"".as_slice(), b"#!/bin/sh\n", &own[..40], &[0x7f; 100]] {
            assert!(judge(wrong).unwrap_err().contains("no binary of Linux"));
        }
    }
}
