//! How entries are written.

use std::io::{self, Write};

use crc32fast::Hasher;
use sha2::{Digest as _, Sha256};
use undercroft_model::Entry;

/// The bytes of a line behind its JSON, without its end: the checksum and whether an append ends there.
pub(super) const END_BYTES: usize = 9;
/// How many bytes are held before they are digested, where nobody keeps them. The record of a plan for 100,000
/// machines has half a gigabyte.
const HELD_BYTES: usize = 64 * 1024;

/// Writes entries behind what `out` holds, and says how many bytes that were. With a digest they are given to it, as
/// is all that `out` holds, and `out` is left empty.
pub(super) fn write(out: &mut Vec<u8>, digest: Option<&mut Sha256>, entries: &[Entry]) -> u64 {
    let mut lines = Lines {
        checked: out.len(),
        checksum: Hasher::new(),
        written: 0,
        out,
        digest,
    };
    for (index, entry) in entries.iter().enumerate() {
        lines.checksum = Hasher::new();
        lines.checked = lines.out.len();
        // Writing to memory can't fail, and no record has a map with keys that aren't text.
        let _ = serde_json::to_writer(&mut lines, entry);
        lines.check();
        let checksum = lines.checksum.clone().finalize();
        let end = if index + 1 == entries.len() { '.' } else { ',' };
        let _ = writeln!(lines, "{checksum:08x}{end}");
    }
    lines.let_go();
    lines.written
}

struct Lines<'a> {
    out: &'a mut Vec<u8>,
    digest: Option<&'a mut Sha256>,
    checksum: Hasher,
    /// Up to where `out` is in the checksum, or doesn't belong there.
    checked: usize,
    written: u64,
}

impl Lines<'_> {
    fn check(&mut self) {
        self.checksum
            .update(self.out.get(self.checked..).unwrap_or_default());
        self.checked = self.out.len();
    }

    fn let_go(&mut self) {
        if let Some(digest) = &mut self.digest {
            digest.update(&*self.out);
            self.out.clear();
            self.checked = 0;
        }
    }
}

impl Write for Lines<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.extend_from_slice(bytes);
        self.written += u64::try_from(bytes.len()).unwrap_or(0);
        if self.digest.is_some() && self.out.len() >= HELD_BYTES {
            self.check();
            self.let_go();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
