//! The simulated journal: the bytes that a disk would hold, and what a crash leaves of them.

use sha2::{Digest, Sha256};
use undercroft_model::{Entry, Record};

/// The table of CRC-32 (ISO 3309, reflected polynomial 0xEDB88320).
const CRC_TABLE: [u32; 256] = {
    let mut table = [0u32; 256];
    let mut n = 0;
    while n < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "n is below 256")]
        let mut c = n as u32;
        let mut bit = 0;
        while bit < 8 {
            c = if c & 1 == 1 {
                0xEDB8_8320 ^ (c >> 1)
            } else {
                c >> 1
            };
            bit += 1;
        }
        #[expect(clippy::indexing_slicing, reason = "n is below the table's length")]
        {
            table[n] = c;
        }
        n += 1;
    }
    table
};

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        let index = usize::from(crc.to_le_bytes()[0] ^ byte);
        CRC_TABLE.get(index).copied().unwrap_or(0) ^ (crc >> 8)
    })
}

/// Why bytes are no journal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the journal is damaged, and it is not the last: {reason}")]
pub(crate) struct Damaged {
    line: usize,
    reason: String,
}

/// An append-only journal: one line for each entry, `CRC32 JSON`.
///
/// An append is whole or not there: it counts once its last line is whole, and what a crash left
/// of it goes when the journal is opened again.
pub(crate) struct SimJournal {
    bytes: Vec<u8>,
    keep: bool,
    digest: Sha256,
    next_seq: u64,
    length: u64,
}

impl SimJournal {
    /// An empty journal. Where `keep` is false only the digest is kept, not the bytes: for runs
    /// in which the controller can't die.
    pub(crate) fn new(keep: bool) -> Self {
        Self {
            bytes: Vec::new(),
            keep,
            digest: Sha256::new(),
            next_seq: 0,
            length: 0,
        }
    }

    /// Appends records as one whole.
    pub(crate) fn append(&mut self, wall_ms: u64, records: Vec<Record>) -> Vec<Entry> {
        let entries = self.entries(wall_ms, records);
        let written = Self::written(&entries);
        self.length += u64::try_from(written.len()).unwrap_or(0);
        self.next_seq += u64::try_from(entries.len()).unwrap_or(0);
        if self.keep {
            self.bytes.extend_from_slice(&written);
        } else {
            self.digest.update(&written);
        }
        entries
    }

    /// The controller dies while it appends: of the bytes only the first `per_1024` in 1,024 reach
    /// the disk, and never the last one.
    pub(crate) fn tear(&mut self, wall_ms: u64, records: Vec<Record>, per_1024: u64) {
        let written = Self::written(&self.entries(wall_ms, records));
        let whole = u64::try_from(written.len()).unwrap_or(0);
        let kept = (whole * per_1024 / 1024).min(whole.saturating_sub(1));
        let kept = usize::try_from(kept).unwrap_or(0);
        self.bytes.extend(written.iter().take(kept));
    }

    /// Opens the journal as it stands on the disk after a crash: reads it back, and cuts off a
    /// torn tail.
    ///
    /// # Errors
    /// When anything but the tail is damaged.
    pub(crate) fn recover(&mut self) -> Result<Vec<Entry>, Damaged> {
        let (entries, good) = Self::read(&self.bytes)?;
        self.bytes.truncate(good);
        self.next_seq = entries.last().map_or(0, |e| e.seq + 1);
        self.length = u64::try_from(good).unwrap_or(0);
        Ok(entries)
    }

    /// The entries in the bytes, and how many bytes of them are whole appends. A line that ends
    /// an append has `.` behind its checksum, one that doesn't has `,`.
    fn read(bytes: &[u8]) -> Result<(Vec<Entry>, usize), Damaged> {
        let (mut entries, mut pending) = (Vec::new(), Vec::new());
        let (mut good, mut at) = (0, 0);
        let mut lines = bytes
            .split_inclusive(|b| *b == b'\n')
            .enumerate()
            .peekable();
        while let Some((index, line)) = lines.next() {
            at += line.len();
            match Self::parse_line(line) {
                Ok((entry, last)) => {
                    pending.push(entry);
                    if last {
                        entries.append(&mut pending);
                        good = at;
                    }
                }
                Err(_) if lines.peek().is_none() => break,
                Err(reason) => {
                    return Err(Damaged {
                        line: index + 1,
                        reason,
                    });
                }
            }
        }
        Ok((entries, good))
    }

    fn parse_line(line: &[u8]) -> Result<(Entry, bool), String> {
        let line = line.strip_suffix(b"\n").ok_or("no end of line")?;
        let (head, json) = line.split_at_checked(9).ok_or("too short")?;
        let (crc, end) = head.split_at_checked(8).ok_or("too short")?;
        let crc = std::str::from_utf8(crc)
            .ok()
            .and_then(|c| u32::from_str_radix(c, 16).ok())
            .ok_or("no checksum")?;
        if crc != crc32(json) {
            return Err("the checksum differs".to_owned());
        }
        let entry = serde_json::from_slice(json).map_err(|e| e.to_string())?;
        Ok((entry, end == b"."))
    }

    fn entries(&self, wall_ms: u64, records: Vec<Record>) -> Vec<Entry> {
        (self.next_seq..)
            .zip(records)
            .map(|(seq, record)| Entry {
                seq,
                wall_ms,
                record,
            })
            .collect()
    }

    fn written(entries: &[Entry]) -> Vec<u8> {
        let mut out = Vec::with_capacity(entries.len() * 256);
        for (index, entry) in entries.iter().enumerate() {
            let start = out.len();
            out.extend_from_slice(b"00000000.");
            // Writing to memory can't fail, and no record has a map with keys that aren't text.
            let _ = serde_json::to_writer(&mut out, entry);
            let crc = crc32(out.get(start + 9..).unwrap_or_default());
            let end = if index + 1 == entries.len() { '.' } else { ',' };
            let head = format!("{crc:08x}{end}");
            if let Some(place) = out.get_mut(start..start + 9) {
                place.copy_from_slice(head.as_bytes());
            }
            out.push(b'\n');
        }
        out
    }

    /// The SHA-256 of all bytes, in hexadecimal.
    pub(crate) fn digest(&self) -> String {
        let digest = if self.keep {
            Sha256::digest(&self.bytes)
        } else {
            self.digest.clone().finalize()
        };
        digest.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Whether the bytes are kept, so that they can be read back.
    pub(crate) fn is_kept(&self) -> bool {
        self.keep
    }

    /// The number of entries.
    pub(crate) fn entry_count(&self) -> u64 {
        self.next_seq
    }

    /// The number of bytes.
    pub(crate) fn byte_count(&self) -> u64 {
        self.length
    }

    /// The bytes, where they were kept.
    pub(crate) fn into_bytes(self) -> Option<Vec<u8>> {
        self.keep.then_some(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use undercroft_model::RunEnd;

    fn opened() -> Record {
        Record::Opened {
            version: 1,
            fleet: "cellar".to_owned(),
        }
    }

    fn ended() -> Record {
        Record::RunEnded {
            end: RunEnd::Complete,
        }
    }

    #[test]
    fn crc_is_that_of_the_standard() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn whatever_a_crash_leaves_of_an_append_is_gone_after_it() {
        for per_1024 in 0..=1024 {
            let mut journal = SimJournal::new(true);
            let first = journal.append(7, vec![opened()]);
            journal.tear(8, vec![ended(), ended(), ended()], per_1024);
            assert_eq!(journal.recover().unwrap(), first);
            let next = journal.append(9, vec![ended()]);
            assert_eq!(next[0].seq, 1);
            assert_eq!(journal.recover().unwrap().len(), 2);
        }
    }

    #[test]
    fn damage_before_the_tail_is_an_error() {
        let mut journal = SimJournal::new(true);
        journal.append(7, vec![opened()]);
        journal.append(8, vec![ended()]);
        journal.bytes[12] ^= 1;
        let error = journal.recover().unwrap_err().to_string();
        assert_eq!(
            error,
            "line 1 of the journal is damaged, and it is not the last: the checksum differs"
        );
    }

    #[test]
    fn the_digest_is_the_same_whether_bytes_are_kept_or_not() {
        let (mut kept, mut streamed) = (SimJournal::new(true), SimJournal::new(false));
        for journal in [&mut kept, &mut streamed] {
            journal.append(7, vec![opened(), ended()]);
            journal.append(8, vec![ended()]);
        }
        assert_eq!(kept.digest(), streamed.digest());
        assert_eq!(kept.byte_count(), streamed.byte_count());
    }
}
