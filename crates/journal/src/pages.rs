//! A long journal, read by several threads beside the one that takes in what they have read.
//!
//! Entries are numbered without gaps, so that each thread knows which pages are its own: it reads them over a connection of
//! its own, checks each row against the digest that it came to, and reads its record. What is handed on is in order, each
//! page by the digest that the one before it came to, and nothing behind a row that isn't good.

use std::{
    io,
    ops::RangeFrom,
    path::PathBuf,
    sync::mpsc::{Receiver, sync_channel},
    thread, vec,
};

use undercroft_model::Entry;

use super::{
    chain::Chain,
    entries::{Seen, Stored},
    store::{Store, StoreError},
};

/// The most entries that are read in one go; bounds the memory of a reader of a long journal.
pub(super) const PAGE_ENTRIES: u64 = 250;
/// The same, for what holds them.
pub(super) const PAGE_ENTRIES_HELD: usize = 250;
/// Threads that read, beside the one that takes in: folding takes about half the time of the rest.
pub(super) const READERS: usize = 2;
/// The most pages of each reader's that are understood and not yet handed on: some megabytes.
const PAGES_AHEAD_MAX: usize = 16;
/// What is wrong with a digest that isn't one.
pub(super) const NO_DIGEST: &str = "its digest has another length than 32 bytes";
/// What is wrong with an entry that isn't as it was written.
pub(super) const OTHER_DIGEST: &str =
    "its digest doesn't match its content and the entry before it";

/// An entry that isn't good.
#[derive(Debug)]
pub(super) struct Damage {
    pub(super) seq: u64,
    pub(super) detail: String,
}

/// An entry and its digest, or why it isn't good.
pub(super) type Understood = Result<(Entry, Chain), Damage>;

/// Whether there may be a page behind one of so many entries.
pub(super) fn is_full(entries: usize) -> bool {
    u64::try_from(entries).is_ok_and(|entries| entries >= PAGE_ENTRIES)
}

/// Rows in order, and what they follow.
pub(super) struct Page {
    rows: vec::IntoIter<Stored>,
    understanding: Understanding,
}

impl Page {
    pub(super) fn new(from: u64, before: Chain, rows: Vec<Stored>) -> Self {
        Self {
            rows: rows.into_iter(),
            understanding: Understanding::new(from, before),
        }
    }

    /// How many rows are left.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }
}

impl Iterator for Page {
    type Item = Understood;

    fn next(&mut self) -> Option<Understood> {
        let stored = self.rows.next()?;
        self.understanding.next(&stored.seen())
    }
}

/// Checks each row against its digest and reads its record.
pub(super) struct Understanding {
    expected: RangeFrom<u64>,
    before: Chain,
}

impl Understanding {
    pub(super) fn new(from: u64, before: Chain) -> Self {
        Self {
            expected: from..,
            before,
        }
    }

    /// What the next row says; `None` behind the last number that there is.
    pub(super) fn next(&mut self, seen: &Seen<'_>) -> Option<Understood> {
        let seq = self.expected.next()?;
        let understood = understand(seen, seq, self.before);
        if let Ok((_, chain)) = &understood {
            self.before = *chain;
        }
        Some(understood.map_err(|detail| Damage { seq, detail }))
    }
}

fn understand(seen: &Seen<'_>, expected: u64, before: Chain) -> Result<(Entry, Chain), String> {
    if seen.seq != expected {
        return Err("it is missing".to_owned());
    }
    let chain = seen.chain.ok_or(NO_DIGEST)?;
    if before.next(seen.seq, seen.wall_ms, seen.record) != chain {
        return Err(OTHER_DIGEST.to_owned());
    }
    let record =
        serde_json::from_str(seen.record).map_err(|e| format!("it can't be understood: {e}"))?;
    let entry = Entry {
        seq: seen.seq,
        wall_ms: seen.wall_ms,
        record,
    };
    Ok((entry, chain))
}

/// A page as it was read and understood.
pub(super) struct ReadPage {
    /// The digest that it follows.
    pub(super) before: Chain,
    pub(super) entries: Vec<Understood>,
    /// Whether there is none behind it.
    pub(super) is_last: bool,
}

/// The pages that others read, in order.
pub(super) struct Pages {
    readers: Vec<Receiver<Result<Option<ReadPage>, StoreError>>>,
    turn: usize,
    path: PathBuf,
}

impl Pages {
    /// The next page; `None` where the journal ends before it.
    pub(super) fn take(&mut self) -> Result<Option<ReadPage>, StoreError> {
        let reader = self.readers.get(self.turn % READERS);
        self.turn = self.turn.wrapping_add(1);
        let read = reader.and_then(|reader| reader.recv().ok());
        read.unwrap_or_else(|| {
            Err(StoreError::Io {
                path: self.path.clone(),
                source: io::Error::other("a thread that was to read it has ended"),
            })
        })
    }
}

/// Calls `work` with the pages from `from` on, which are read meanwhile; who reads ends when it ends.
pub(super) fn read_ahead(
    store: &Store,
    from: u64,
    work: impl FnOnce(Pages) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let path = store.path().to_owned();
    thread::scope(|scope| {
        let mut readers = Vec::with_capacity(READERS);
        let mut first = from;
        for _ in 0..READERS {
            let (to, pages) = sync_channel(PAGES_AHEAD_MAX);
            let own = store.second()?;
            let mut from = first;
            let read = move || {
                loop {
                    let page = own.read_page(from);
                    let is_last = !matches!(&page, Ok(Some(page)) if !page.is_last);
                    if to.send(page).is_err() || is_last {
                        break;
                    }
                    for _ in 0..READERS {
                        from = from.saturating_add(PAGE_ENTRIES);
                    }
                }
            };
            thread::Builder::new()
                .spawn_scoped(scope, read)
                .map_err(|source| StoreError::Io {
                    path: path.clone(),
                    source,
                })?;
            readers.push(pages);
            first = first.saturating_add(PAGE_ENTRIES);
        }
        work(Pages {
            readers,
            turn: 0,
            path: path.clone(),
        })
    })
}
