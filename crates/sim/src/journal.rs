//! The simulated journal: the bytes that a disk would hold, and what a crash leaves of them.

mod lines;

use crc32fast::hash as crc32;
use sha2::{Digest, Sha256};
use undercroft_engine::{Engine, ResumeError, Resumption};
use undercroft_model::{Entry, Record, view::FleetView};

/// Why bytes are no journal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the journal is damaged, and it is not the last: {reason}")]
pub(crate) struct Damaged {
    line: usize,
    reason: String,
}

/// What was read back of a journal: the folds that a controller begins with.
#[derive(Debug, Default)]
pub(crate) struct Folded {
    pub(crate) view: FleetView,
    pub(crate) resumption: Resumption,
}

impl Folded {
    fn apply(&mut self, entry: &Entry) -> Result<(), ResumeError> {
        self.view.apply(entry);
        self.resumption.apply(entry)
    }
}

/// Why a journal can't be gone on from.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error(transparent)]
    Damaged(#[from] Damaged),
    #[error(transparent)]
    Resume(#[from] ResumeError),
}

/// An append-only journal: one line for each entry, its JSON and then its checksum (CRC-32 of ISO 3309, in
/// hexadecimal).
///
/// An append is whole or not there: it counts once its last line is whole, and what a crash left
/// of it goes when the journal is opened again. What a controller knows after a crash comes from whole
/// appends alone, and each of them is folded once. Where it is read back, that is from these bytes; else
/// an entry is folded as it is appended, which gives the same.
pub(crate) struct SimJournal {
    /// What was written since the journal was last read.
    tail: Vec<u8>,
    /// What was read, where somebody wants it.
    read: Option<Vec<u8>>,
    keep: Keep,
    /// Why what was appended can't be gone on from, where it isn't read back.
    unreadable: Option<Unreadable>,
    /// The lines that were read.
    lines: usize,
    folded: Folded,
    digest: Sha256,
    next_seq: u64,
    /// The number of the entry that follows those that were read.
    read_seq: u64,
    length: u64,
    /// The length of what was read.
    read_length: u64,
}

/// What is done with a journal's bytes beside digesting them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Nothing: for runs in which the controller can't die.
    Nothing,
    /// The entries are folded without them.
    Folded,
    /// They are read back.
    ReadBack,
    /// They are read back, and kept.
    Bytes,
}

impl SimJournal {
    /// An empty journal.
    pub(crate) fn new(keep: Keep) -> Self {
        Self {
            tail: Vec::new(),
            read: (keep == Keep::Bytes).then(Vec::new),
            keep,
            unreadable: None,
            lines: 0,
            folded: Folded::default(),
            digest: Sha256::new(),
            next_seq: 0,
            read_seq: 0,
            length: 0,
            read_length: 0,
        }
    }

    /// Appends records as one whole.
    pub(crate) fn append(&mut self, wall_ms: u64, records: Vec<Record>) -> Vec<Entry> {
        let entries = self.entries(wall_ms, records);
        let only_digested = matches!(self.keep, Keep::Nothing | Keep::Folded);
        let digest = only_digested.then_some(&mut self.digest);
        self.length += lines::write(&mut self.tail, digest, &entries);
        self.next_seq += u64::try_from(entries.len()).unwrap_or(0);
        if self.keep == Keep::Folded && self.unreadable.is_none() {
            let folded = entries
                .iter()
                .try_for_each(|entry| self.folded.apply(entry));
            self.unreadable = folded.err().map(Unreadable::from);
        }
        entries
    }

    /// The controller dies while it appends: of the bytes only the first `per_1024` in 1,024 reach
    /// the disk, and never the last one.
    pub(crate) fn tear(&mut self, wall_ms: u64, records: Vec<Record>, per_1024: u64) {
        if self.keep == Keep::Folded {
            // It isn't whole, so that nothing of it is found later.
            return;
        }
        let entries = self.entries(wall_ms, records);
        let start = self.tail.len();
        lines::write(&mut self.tail, None, &entries);
        let whole = u64::try_from(self.tail.len() - start).unwrap_or(0);
        let kept = (whole * per_1024 / 1024).min(whole.saturating_sub(1));
        self.tail
            .truncate(start + usize::try_from(kept).unwrap_or(0));
    }

    /// Opens the journal as it stands on the disk after a crash: reads back what was written since it
    /// was last opened, and cuts off a torn tail.
    ///
    /// # Errors
    /// When anything but the tail is damaged, or the records contradict each other.
    pub(crate) fn recover(&mut self) -> Result<&Folded, Unreadable> {
        if let Some(unreadable) = self.unreadable.take() {
            return Err(unreadable);
        }
        if self.keep == Keep::Folded {
            return Ok(&self.folded);
        }
        let (entries, good) = Self::read(&self.tail, self.lines)?;
        for entry in &entries {
            self.folded.apply(entry)?;
        }
        let read = self.tail.get(..good).unwrap_or_default();
        self.digest.update(read);
        if let Some(all) = &mut self.read {
            all.extend_from_slice(read);
        }
        self.tail.clear();
        self.lines += entries.len();
        self.read_seq = entries.last().map_or(self.read_seq, |e| e.seq + 1);
        self.next_seq = self.read_seq;
        self.read_length += u64::try_from(good).unwrap_or(0);
        self.length = self.read_length;
        #[cfg(test)]
        self.agrees_with_the_whole();
        Ok(&self.folded)
    }

    /// The entries in the bytes, and how many bytes of them are whole appends; `before` lines were
    /// read earlier. A line that ends an append has `.` behind its checksum, one that doesn't has `,`.
    fn read(bytes: &[u8], before: usize) -> Result<(Vec<Entry>, usize), Damaged> {
        let (mut entries, mut whole) = (Vec::new(), 0);
        let (mut good, mut at) = (0, 0);
        let mut lines = bytes
            .split_inclusive(|b| *b == b'\n')
            .enumerate()
            .peekable();
        while let Some((index, line)) = lines.next() {
            at += line.len();
            match Self::parse_line(line) {
                Ok((entry, last)) => {
                    entries.push(entry);
                    if last {
                        whole = entries.len();
                        good = at;
                    }
                }
                Err(_) if lines.peek().is_none() => break,
                Err(reason) => {
                    return Err(Damaged {
                        line: before + index + 1,
                        reason,
                    });
                }
            }
        }
        entries.truncate(whole);
        Ok((entries, good))
    }

    /// The journal's entries, all of them, read from the kept bytes in one go.
    #[cfg(test)]
    pub(crate) fn read_whole(&self) -> Option<Vec<Entry>> {
        let mut bytes = self.read.clone()?;
        bytes.extend_from_slice(&self.tail);
        Some(Self::read(&bytes, 0).ok()?.0)
    }

    /// What was folded part by part is what the whole journal gives, read in one go.
    #[cfg(test)]
    fn agrees_with_the_whole(&self) {
        let Some(entries) = self.read_whole() else {
            return;
        };
        assert_eq!(self.folded.view, FleetView::fold(&entries));
        let whole = undercroft_engine::Engine::resume(&entries);
        let kept = self.folded.resumption.engine();
        assert_eq!(format!("{kept:?}"), format!("{whole:?}"));
    }

    fn parse_line(line: &[u8]) -> Result<(Entry, bool), String> {
        let line = line.strip_suffix(b"\n").ok_or("no end of line")?;
        let (json, crc) = line
            .split_last_chunk::<{ lines::END_BYTES }>()
            .ok_or("too short")?;
        let (crc, end) = crc.split_at_checked(8).ok_or("too short")?;
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

    /// The SHA-256 of all bytes, in hexadecimal.
    pub(crate) fn digest(&self) -> String {
        let digest = self.digest.clone().chain_update(&self.tail).finalize();
        digest.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// That engine's plan is about to be accepted.
    pub(crate) fn expect(&mut self, engine: &Engine) {
        if self.keep == Keep::Folded {
            self.folded.resumption.expect(engine);
        }
    }

    /// Whether it can be read back.
    pub(crate) fn is_kept(&self) -> bool {
        self.keep != Keep::Nothing
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
        let mut bytes = self.read?;
        bytes.extend_from_slice(&self.tail);
        Some(bytes)
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

    fn accepted() -> Record {
        let text = include_bytes!("../../../examples/basement/undercroft.toml");
        let inventory = undercroft_model::inventory::parse("undercroft.toml", text).inventory;
        let (plan, _) = undercroft_planner::plan(
            &inventory.unwrap(),
            &undercroft_model::Observation::default(),
            None,
        );
        Record::PlanAccepted {
            plan: std::sync::Arc::new(plan),
        }
    }

    #[test]
    fn whatever_a_crash_leaves_of_an_append_is_gone_after_it() {
        let accepted = accepted();
        for per_1024 in 0..=1024 {
            let mut journal = SimJournal::new(Keep::Bytes);
            let first = journal.append(7, vec![opened(), accepted.clone()]);
            journal.tear(8, vec![ended(), ended(), ended()], per_1024);
            assert_eq!(journal.recover().unwrap().view.next_seq, 2);
            assert_eq!(journal.read_whole().unwrap(), first);
            let next = journal.append(9, vec![ended()]);
            assert_eq!(next[0].seq, 2);
            assert_eq!(journal.recover().unwrap().view.next_seq, 3);
            assert_eq!(journal.entry_count(), 3);
            assert_eq!(
                journal
                    .into_bytes()
                    .unwrap()
                    .iter()
                    .filter(|b| **b == b'\n')
                    .count(),
                3
            );
        }
    }

    #[test]
    fn damage_before_the_tail_is_an_error() {
        let mut journal = SimJournal::new(Keep::ReadBack);
        journal.append(6, vec![opened()]);
        journal.recover().unwrap();
        journal.append(7, vec![accepted()]);
        journal.append(8, vec![ended()]);
        journal.tail[12] ^= 1;
        let error = journal.recover().unwrap_err().to_string();
        assert_eq!(
            error,
            "line 2 of the journal is damaged, and it is not the last: the checksum differs"
        );
    }

    #[test]
    fn the_digest_is_the_same_whatever_is_kept() {
        let keeps = [Keep::Nothing, Keep::Folded, Keep::ReadBack, Keep::Bytes];
        let mut journals = keeps.map(SimJournal::new);
        for journal in &mut journals {
            journal.append(7, vec![opened(), accepted()]);
            if journal.is_kept() {
                journal.tear(8, vec![ended(), ended()], 900);
                journal.recover().unwrap();
            }
            journal.append(8, vec![ended()]);
        }
        let [nothing, mut folded, mut read_back, bytes] = journals;
        for other in [&folded, &read_back, &bytes] {
            assert_eq!(nothing.digest(), other.digest());
            assert_eq!(nothing.byte_count(), other.byte_count());
            assert_eq!(nothing.entry_count(), other.entry_count());
        }
        let (folded, read_back) = (folded.recover().unwrap(), read_back.recover().unwrap());
        assert_eq!(folded.view, read_back.view);
        let engines = [folded, read_back].map(|f| format!("{:?}", f.resumption.engine()));
        assert_eq!(engines[0], engines[1]);
        let (length, digest) = (bytes.byte_count(), bytes.digest());
        let bytes = bytes.into_bytes().unwrap();
        assert_eq!(length, bytes.len() as u64);
        let whole: String = Sha256::digest(&bytes)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(digest, whole);
    }
}
