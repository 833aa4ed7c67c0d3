//! The entries: appending, and reading them back in order.

use std::{
    ops::ControlFlow,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use rusqlite::{OptionalExtension, Row, TransactionBehavior, params};
use undercroft_engine::{Journal, JournalError};
use undercroft_model::{Entry, JOURNAL_VERSION, Record};

use super::{
    chain::Chain,
    head::{Head, refuse_if_gone},
    lock::ControllerLock,
    pages::{
        NO_DIGEST, OTHER_DIGEST, PAGE_ENTRIES, PAGE_ENTRIES_HELD, Page, ReadPage, Understanding,
        Understood, is_full, read_ahead,
    },
    store::{JOURNAL_FILE, Store, StoreError},
};
use undercroft_process::clock::wall_ms_now;

/// A row as it is stored.
pub(super) struct Stored {
    pub(super) seq: u64,
    pub(super) wall_ms: u64,
    pub(super) record: String,
    /// `None` where it hasn't the length of one.
    pub(super) chain: Option<Chain>,
}

impl Stored {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            seq: unsigned(row.get(0)?),
            wall_ms: unsigned(row.get(1)?),
            record: row.get(2)?,
            chain: chain(row)?,
        })
    }

    pub(super) fn seen(&self) -> Seen<'_> {
        Seen {
            seq: self.seq,
            wall_ms: self.wall_ms,
            record: &self.record,
            chain: self.chain,
        }
    }
}

/// A row where SQLite has it: a page of a long journal is half a megabyte that nobody needs to copy.
pub(super) struct Seen<'a> {
    pub(super) seq: u64,
    pub(super) wall_ms: u64,
    pub(super) record: &'a str,
    /// `None` where it hasn't the length of one.
    pub(super) chain: Option<Chain>,
}

impl<'a> Seen<'a> {
    fn read(row: &'a Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            seq: unsigned(row.get(0)?),
            wall_ms: unsigned(row.get(1)?),
            record: row.get_ref(2)?.as_str()?,
            chain: chain(row)?,
        })
    }
}

fn chain(row: &Row<'_>) -> rusqlite::Result<Option<Chain>> {
    Ok(row.get_ref(3)?.as_blob()?.try_into().ok().map(Chain))
}

/// A page of rows, by the first one's number and how many it has at most.
const PAGE: &str =
    "SELECT seq, wall_ms, record, chain FROM entries WHERE seq >= ?1 ORDER BY seq LIMIT ?2";

/// How many entries this process has read, of all journals.
static READ: AtomicU64 = AtomicU64::new(0);

/// How many entries of journals this process has read from the disk, checked and understood.
pub fn entries_read() -> u64 {
    READ.load(Ordering::Relaxed)
}

impl Store {
    /// Calls `each` with every entry from `from` on, in order, without holding them all; each is
    /// checked against its digest before. Entries that are appended meanwhile may be seen or not.
    ///
    /// # Errors
    /// When the journal can't be read, isn't as far as it was, or an entry isn't what was written.
    pub fn for_each_entry(
        &self,
        from: u64,
        mut each: impl FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let anchor = self.anchor()?;
        self.walk(from, anchor, |entry, _| each(entry))
    }

    fn walk(
        &self,
        from: u64,
        anchor: Option<Head>,
        mut each: impl FnMut(Entry, Chain) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        // Before the first is called: nobody acts on a journal that turns out to be too short.
        if let Some(head) = anchor {
            let stored = self.stored(head.seq)?;
            let Some(stored) = stored else {
                return Err(self.too_short(self.entry_count()?, head));
            };
            if self.chain_of(&stored)? != head.chain {
                return Err(self.another(head));
            }
        }
        let Some(before) = self.chain_before(from)? else {
            return Ok(());
        };
        let mut reached = (from, before);
        let first = Page::new(from, before, self.page(from)?);
        let is_full = is_full(first.len());
        // One by one: many a reader wants few of them.
        if self.hand_over(first, &mut reached, &mut each)?.is_break() || !is_full {
            return Ok(());
        }
        read_ahead(self, reached.0, |mut pages| {
            while let Some(page) = pages.take()? {
                if page.before != reached.1 {
                    return Err(self.damaged(reached.0, OTHER_DIGEST));
                }
                let handed = self.hand_over(page.entries, &mut reached, &mut each)?;
                if handed.is_break() || page.is_last {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Hands entries over, up to the first that isn't good. `reached` is the next number, and the digest before it.
    fn hand_over(
        &self,
        understood: impl IntoIterator<Item = Understood>,
        reached: &mut (u64, Chain),
        each: &mut impl FnMut(Entry, Chain) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, StoreError> {
        for understood in understood {
            let (entry, chain) = understood.map_err(|d| self.damaged(d.seq, d.detail))?;
            self.entries_read.set(self.entries_read.get() + 1);
            READ.fetch_add(1, Ordering::Relaxed);
            *reached = (entry.seq.saturating_add(1), chain);
            if each(entry, chain).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The digest that an entry follows; `None` where the one before it isn't there.
    fn chain_before(&self, seq: u64) -> Result<Option<Chain>, StoreError> {
        let Some(before) = seq.checked_sub(1) else {
            return Ok(Some(Chain::beginning(&self.fleet)));
        };
        let stored = self.stored(before)?;
        stored.map(|stored| self.chain_of(&stored)).transpose()
    }

    /// The page from `from` on, understood; `None` where the journal ends before it.
    pub(super) fn read_page(&self, from: u64) -> Result<Option<ReadPage>, StoreError> {
        let Some(before) = self.chain_before(from)? else {
            return Ok(None);
        };
        let read = || -> rusqlite::Result<ReadPage> {
            let mut statement = self.connection.prepare_cached(PAGE)?;
            let mut rows = statement.query(params![signed(from), signed(PAGE_ENTRIES)])?;
            let mut page = Understanding::new(from, before);
            let mut entries = Vec::with_capacity(PAGE_ENTRIES_HELD);
            while let Some(row) = rows.next()? {
                entries.extend(page.next(&Seen::read(row)?));
            }
            Ok(ReadPage {
                before,
                is_last: !is_full(entries.len()),
                entries,
            })
        };
        read().map(Some).map_err(|e| self.err(e))
    }

    /// The last entry, after all were checked; whatever `journal.head` says.
    pub(super) fn verified_head(&self) -> Result<Option<Head>, StoreError> {
        let mut head = None;
        self.walk(0, None, |entry, chain| {
            head = Some(Head {
                seq: entry.seq,
                chain,
            });
            ControlFlow::Continue(())
        })?;
        Ok(head)
    }

    /// The last entry, after all were checked; `None` where there is none.
    ///
    /// # Errors
    /// As [`Store::for_each_entry`].
    pub fn head(&self) -> Result<Option<Head>, StoreError> {
        self.for_all_entries(|_| {})
    }

    /// Calls `each` with every entry, the oldest first, and gives the head that they lead to.
    ///
    /// # Errors
    /// As [`Store::for_each_entry`].
    pub fn for_all_entries(
        &self,
        mut each: impl FnMut(&Entry),
    ) -> Result<Option<Head>, StoreError> {
        let mut head = None;
        self.walk(0, self.anchor()?, |entry, chain| {
            each(&entry);
            head = Some(Head {
                seq: entry.seq,
                chain,
            });
            ControlFlow::Continue(())
        })?;
        Ok(head)
    }

    /// The entries from `from` on, at most `limit` of them.
    ///
    /// # Errors
    /// As [`Store::for_each_entry`].
    pub fn entries(&self, from: u64, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let mut entries = Vec::new();
        if limit == 0 {
            return Ok(entries);
        }
        self.for_each_entry(from, |entry| {
            entries.push(entry);
            if entries.len() < limit {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        Ok(entries)
    }

    /// How many entries were read from the disk, checked and understood, since the database was opened.
    pub fn entries_read(&self) -> u64 {
        self.entries_read.get()
    }

    /// How many entries there are.
    ///
    /// # Errors
    /// When the journal can't be read.
    pub fn entry_count(&self) -> Result<u64, StoreError> {
        self.connection
            .query_row("SELECT COALESCE(MAX(seq) + 1, 0) FROM entries", [], |row| {
                row.get(0).map(unsigned)
            })
            .map_err(|e| self.err(e))
    }

    fn stored(&self, seq: u64) -> Result<Option<Stored>, StoreError> {
        self.connection
            .query_row(
                "SELECT seq, wall_ms, record, chain FROM entries WHERE seq = ?1",
                [signed(seq)],
                Stored::read,
            )
            .optional()
            .map_err(|e| self.err(e))
    }

    fn page(&self, from: u64) -> Result<Vec<Stored>, StoreError> {
        let read = || -> rusqlite::Result<Vec<Stored>> {
            let mut statement = self.connection.prepare_cached(PAGE)?;
            let rows =
                statement.query_map(params![signed(from), signed(PAGE_ENTRIES)], Stored::read)?;
            rows.collect()
        };
        read().map_err(|e| self.err(e))
    }

    fn chain_of(&self, stored: &Stored) -> Result<Chain, StoreError> {
        stored
            .chain
            .ok_or_else(|| self.damaged(stored.seq, NO_DIGEST))
    }

    fn damaged(&self, seq: u64, detail: impl Into<String>) -> StoreError {
        StoreError::Damaged {
            path: self.path.clone(),
            seq,
            detail: detail.into(),
        }
    }
}

/// The controller's journal: the only one that may append.
#[derive(Debug)]
pub struct FleetJournal {
    store: Store,
    next_seq: u64,
    head: Chain,
    /// Whether `journal.head` isn't as far as `head`.
    head_lags: bool,
    _lock: ControllerLock,
}

impl FleetJournal {
    /// Takes the fleet's lock, and opens its journal or begins one. `command` is what another
    /// process is told that this one does, such as `undercroft up`.
    ///
    /// # Errors
    /// When another controller runs, or the journal is another fleet's or a newer version's, or isn't as
    /// far as it was; it is left as it was.
    pub fn open(state_dir: &Path, fleet: &str, command: &str) -> Result<Self, StoreError> {
        // The lock lies in the state directory, which has to be there for it.
        undercroft_folder::state::make(state_dir)?;
        let lock = ControllerLock::acquire(state_dir, command)?;
        let length = std::fs::metadata(state_dir.join(JOURNAL_FILE)).map_or(0, |m| m.len());
        if length == 0 {
            refuse_if_gone(state_dir)?;
        }
        let store = Store::create(state_dir, fleet)?;
        let anchor = store.anchor()?;
        let next_seq = store.entry_count()?;
        let head = match next_seq.checked_sub(1) {
            None => Chain::beginning(fleet),
            Some(last) => {
                let stored = store
                    .stored(last)?
                    .ok_or_else(|| store.damaged(last, "it is missing"))?;
                store.chain_of(&stored)?
            }
        };
        // Nothing is read from here on: this is the look at what the last controller left.
        store.walk(next_seq, anchor, |_, _| ControlFlow::Break(()))?;
        let last = next_seq.checked_sub(1).map(|seq| Head { seq, chain: head });
        let mut journal = Self {
            store,
            next_seq,
            head,
            head_lags: anchor != last,
            _lock: lock,
        };
        journal.bring_up_head()?;
        if journal.next_seq == 0 {
            let opened = Record::Opened {
                version: JOURNAL_VERSION,
                fleet: fleet.to_owned(),
            };
            journal.append_records(wall_ms_now(), vec![opened])?;
        }
        Ok(journal)
    }

    /// The database, for reading.
    pub fn store(&self) -> &Store {
        &self.store
    }

    fn bring_up_head(&mut self) -> Result<(), StoreError> {
        if let (true, Some(seq)) = (self.head_lags, self.next_seq.checked_sub(1)) {
            let chain = self.head;
            self.store.set_anchor(Head { seq, chain })?;
        }
        self.head_lags = false;
        Ok(())
    }

    /// Appends records, all or none; they are on the disk when this returns.
    ///
    /// # Errors
    /// When they could not be made durable; then none was kept.
    pub fn append_records(
        &mut self,
        wall_ms: u64,
        records: Vec<Record>,
    ) -> Result<Vec<Entry>, StoreError> {
        // It lags by one append at most.
        self.bring_up_head()?;
        let mut seq = self.next_seq;
        let mut chain = self.head;
        let mut entries = Vec::with_capacity(records.len());
        let mut rows = Vec::with_capacity(records.len());
        for record in records {
            let text = serde_json::to_string(&record)
                .map_err(|e| self.store.damaged(seq, format!("it can't be written: {e}")))?;
            chain = chain.next(seq, wall_ms, &text);
            rows.push((seq, text, chain));
            entries.push(Entry {
                seq,
                wall_ms,
                record,
            });
            seq += 1;
        }
        let insert = |store: &mut Store| -> rusqlite::Result<()> {
            let tx = store
                .connection
                .transaction_with_behavior(TransactionBehavior::Immediate)?;
            {
                // A plain insert: a sequence number that is taken already is an error, which
                // keeps a second writer, were there one, from forking the journal.
                let mut statement = tx.prepare_cached(
                    "INSERT INTO entries (seq, wall_ms, record, chain) VALUES (?1, ?2, ?3, ?4)",
                )?;
                for (seq, text, chain) in &rows {
                    statement.execute(params![
                        signed(*seq),
                        signed(wall_ms),
                        text,
                        chain.0.as_slice()
                    ])?;
                }
            }
            tx.commit()
        };
        if let Err(e) = insert(&mut self.store) {
            return Err(self.store.err(e));
        }
        self.next_seq = seq;
        self.head = chain;
        // The records are on the disk: a head that can't be written now is no fault of theirs.
        self.head_lags = true;
        let _ = self.bring_up_head();
        Ok(entries)
    }
}

impl Journal for FleetJournal {
    fn append(&mut self, wall_ms: u64, records: Vec<Record>) -> Result<Vec<Entry>, JournalError> {
        self.append_records(wall_ms, records)
            .map_err(|e| JournalError::Write(e.to_string()))
    }
}

// SQLite's integers are signed. Sequence numbers and milliseconds stay far below 2^63; a clock
// that is wilder than that is cut off rather than wrapped.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use undercroft_model::RunEnd;

    fn ended() -> Record {
        Record::RunEnded {
            end: RunEnd::Complete,
        }
    }

    fn open(dir: &Path) -> FleetJournal {
        FleetJournal::open(dir, "basement", "a test").unwrap()
    }

    fn all(journal: &FleetJournal) -> Result<Vec<Entry>, StoreError> {
        journal.store().entries(0, usize::MAX)
    }

    #[test]
    fn entries_come_back_in_order_and_appending_goes_on_where_it_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = open(dir.path());
        let mut written = all(&journal).unwrap();
        assert!(matches!(&written[0].record, Record::Opened { fleet, .. } if fleet == "basement"));
        written.extend(journal.append_records(10, vec![ended()]).unwrap());
        drop(journal);
        let mut journal = open(dir.path());
        written.extend(journal.append_records(5, vec![ended()]).unwrap());
        assert_eq!(written.iter().map(|e| e.seq).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(all(&journal).unwrap(), written);
        let reader = Store::open(dir.path(), Some("basement")).unwrap();
        assert_eq!(reader.entries(1, 1).unwrap(), written[1..2]);
        assert_eq!(reader.entries(3, 9).unwrap(), []);
        assert_eq!(reader.entry_count().unwrap(), 3);
    }

    #[test]
    fn long_journals_are_read_in_pages() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = open(dir.path());
        let count = PAGE_ENTRIES * 8 + 7;
        let records = (0..count).map(|_| ended()).collect();
        journal.append_records(1, records).unwrap();
        let mut seen = 0;
        journal
            .store()
            .for_each_entry(0, |entry| {
                assert_eq!(entry.seq, seen);
                seen += 1;
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(seen, count + 1);
    }

    /// What is handed on of a journal of many pages, and how reading it ended.
    fn seen(dir: &Path, stop_at: u64) -> (u64, Result<(), StoreError>) {
        let store = Store::open(dir, Some("basement")).unwrap();
        let mut seen = 0;
        let read = store.for_each_entry(0, |entry| {
            assert_eq!(entry.seq, seen);
            seen += 1;
            if seen == stop_at {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        assert_eq!(store.entries_read(), seen);
        (seen, read)
    }

    #[test]
    fn of_a_long_journal_nothing_behind_a_damaged_entry_is_handed_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = open(dir.path());
        let count = PAGE_ENTRIES * 9 + 7;
        let records = (0..count).map(|_| ended()).collect();
        journal.append_records(1, records).unwrap();
        drop(journal);
        for stop_at in [1, PAGE_ENTRIES, PAGE_ENTRIES + 1, PAGE_ENTRIES * 5] {
            let (seen, read) = seen(dir.path(), stop_at);
            assert!(seen == stop_at && read.is_ok(), "{stop_at}: {read:?}");
        }
        let sql = |statement: &str| {
            let connection = rusqlite::Connection::open(dir.path().join(JOURNAL_FILE)).unwrap();
            connection.execute_batch(statement).unwrap();
        };
        // The later ones first: each is found before those behind it.
        let last_of_page = PAGE_ENTRIES * 3 - 1;
        for (seq, change, why) in [
            (PAGE_ENTRIES * 8 + 5, "DELETE FROM entries", "it is missing"),
            (
                PAGE_ENTRIES * 6,
                "UPDATE entries SET record = '{}'",
                "its digest doesn't match",
            ),
            (
                PAGE_ENTRIES * 4 + 5,
                "UPDATE entries SET wall_ms = 2",
                "its digest doesn't match",
            ),
            (
                last_of_page,
                "UPDATE entries SET chain = x'00'",
                "another length than 32 bytes",
            ),
        ] {
            sql(&format!("{change} WHERE seq = {seq}"));
            let (seen, read) = seen(dir.path(), u64::MAX);
            let error = read.unwrap_err().to_string();
            assert_eq!(seen, seq, "{error}");
            assert!(error.contains(&format!("entry {seq}: ")), "{error}");
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_changed_a_missing_and_an_exchanged_entry_are_found() {
        let damages = [
            (
                "UPDATE entries SET record = replace(record, 'complete', 'incomplete') WHERE seq = 2",
                2,
            ),
            ("UPDATE entries SET wall_ms = 99 WHERE seq = 3", 3),
            ("DELETE FROM entries WHERE seq = 1", 1),
            ("UPDATE entries SET chain = x'00' WHERE seq = 4", 4),
            ("DELETE FROM entries WHERE seq = 0", 0),
        ];
        for (damage, place) in damages {
            let dir = tempfile::tempdir().unwrap();
            let mut journal = open(dir.path());
            journal
                .append_records(1, vec![ended(), ended(), ended(), ended()])
                .unwrap();
            journal.store.connection.execute(damage, []).unwrap();
            match all(&journal).unwrap_err() {
                StoreError::Damaged { seq, .. } => assert_eq!(seq, place, "{damage}"),
                other => panic!("{damage}: {other}"),
            }
        }
    }

    #[test]
    fn a_full_disk_keeps_nothing_and_can_be_gone_on_from() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = open(dir.path());
        let pages: i64 = journal
            .store
            .connection
            .pragma_query_value(None, "page_count", |row| row.get(0))
            .unwrap();
        let limit = |journal: &FleetJournal, pages: i64| {
            journal
                .store
                .connection
                .query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
                .unwrap();
        };
        limit(&journal, pages);
        let many: Vec<Record> = (0..500).map(|_| ended()).collect();
        let full = journal.append_records(2, many).unwrap_err();
        assert!(matches!(full, StoreError::DiskFull { .. }), "{full}");
        assert_eq!(all(&journal).unwrap().len(), 1);
        limit(&journal, pages + 1000);
        journal.append_records(3, vec![ended()]).unwrap();
        assert_eq!(all(&journal).unwrap().len(), 2);
    }
}
