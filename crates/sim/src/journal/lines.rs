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
    let begun = out.len();
    let mut lines = Lines {
        checked: begun,
        checksum: Hasher::new(),
        let_go: 0,
        held_max: match digest {
            Some(_) => HELD_BYTES,
            None => usize::MAX,
        },
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
    let written = (lines.let_go + lines.out.len()).saturating_sub(begun);
    u64::try_from(written).unwrap_or(u64::MAX)
}

struct Lines<'a> {
    out: &'a mut Vec<u8>,
    digest: Option<&'a mut Sha256>,
    checksum: Hasher,
    /// Up to where `out` is in the checksum, or doesn't belong there.
    checked: usize,
    /// The bytes that were given to the digest.
    let_go: usize,
    /// How many bytes are held before that.
    held_max: usize,
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
            self.let_go += self.out.len();
            self.out.clear();
            self.checked = 0;
        }
    }

    #[cold]
    fn make_room(&mut self) {
        self.check();
        self.let_go();
    }
}

impl Write for Lines<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    // Most of what is written is a quote or a comma: where the compiler sees that, nothing is called for it.
    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.extend_from_slice(bytes);
        if self.out.len() >= self.held_max {
            self.make_room();
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
