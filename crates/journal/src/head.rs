//! The journal's head: how far it had come, kept apart from it.
//!
//! Each entry carries a digest of all that came before, so that no entry can be changed, taken out or
//! exchanged without a trace; but a journal whose *last* entries are gone is a good journal of an earlier
//! day. Approvals, wipes and proofs would be forgotten without a word: by an older copy put in its place, by
//! a write-ahead log that was left behind in a move, by a hand. So `journal.head`, a file beside the
//! database, names the last entry and its digest. It is replaced whole after each commit, and a journal that
//! ends before it, or has another entry there, is neither read nor carried on.
//!
//! A crash between the commit and the file leaves the file behind by one append: the entries after it are
//! good by their digests, and the next controller brings it up. Nothing says that what was appended last,
//! and only that, was cut off in such a moment. And who puts back an older copy of both files, or can write
//! to both, isn't found out by this: `undercroft journal` prints the head, to be kept elsewhere.

use std::path::{Path, PathBuf};

use rusqlite::OptionalExtension as _;

use super::{
    chain::Chain,
    lock::ControllerLock,
    store::{JOURNAL_FILE, Store, StoreError},
};
use undercroft_folder::confined::{Confined, ConfinedError, Modes};

/// The head's file in the state directory.
pub const HEAD_FILE: &str = "journal.head";
/// How the file begins, with its version.
const MARK: &str = "undercroft-journal-head 1";
/// The most bytes of the file that are read; it has some 120.
const HEAD_BYTES_MAX: u64 = 1024;
/// How many digits of the digest are shown where it is no more than a reminder.
const SHORT_CHARS: usize = 16;
/// The key in the database's `meta` that says that a head has been written.
const ANCHORED: &str = "anchored";

/// The last entry of a journal, and its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The entry's number.
    pub seq: u64,
    /// Its digest, and through it that of all before.
    pub chain: Chain,
}

impl Head {
    /// The digest in hexadecimal digits.
    pub fn digest(&self) -> String {
        self.chain.0.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// As much of the digest as tells two heads apart at a glance.
    pub fn short(&self) -> String {
        self.digest().chars().take(SHORT_CHARS).collect()
    }

    fn text(&self) -> String {
        format!("{MARK}\n{} {}\n", self.seq, self.digest())
    }

    fn parse(text: &str) -> Option<Self> {
        let line = text.strip_prefix(MARK)?.strip_prefix('\n')?;
        let (seq, digest) = line.strip_suffix('\n')?.split_once(' ')?;
        if digest.len() != 64 || !digest.is_ascii() {
            return None;
        }
        let mut chain = [0; 32];
        for (i, byte) in chain.iter_mut().enumerate() {
            *byte = u8::from_str_radix(digest.get(2 * i..2 * i + 2)?, 16).ok()?;
        }
        let head = Self {
            seq: seq.parse().ok()?,
            chain: Chain(chain),
        };
        // One way of writing each: nothing else is ours.
        (head.text() == text).then_some(head)
    }

    /// Puts the head in the place of the one before.
    ///
    /// # Errors
    /// When it can't be written, or something else than a file is in its place, which is somebody
    /// else's doing.
    pub(super) fn write(&self, state_dir: &Path) -> Result<(), ConfinedError> {
        let text = self.text();
        Confined::new(state_dir).replace(HEAD_FILE, text.as_bytes(), Modes::PRIVATE)
    }
}

/// What the file says.
#[derive(Debug)]
pub(super) enum Anchor {
    /// There is none.
    None,
    /// The journal had come as far as this.
    Head(Head),
    /// It isn't as we write it.
    Unreadable(String),
}

/// Reads the head. It must be read before the journal: a controller that goes on meanwhile is then ahead of
/// it, never behind.
pub(super) fn read(state_dir: &Path) -> Anchor {
    match Confined::new(state_dir).read(HEAD_FILE, HEAD_BYTES_MAX) {
        Ok(Some(bytes)) => std::str::from_utf8(&bytes)
            .ok()
            .and_then(Head::parse)
            .map_or_else(
                || Anchor::Unreadable("it isn't as it was written".to_owned()),
                Anchor::Head,
            ),
        Ok(None) => Anchor::None,
        Err(e) => Anchor::Unreadable(e.to_string()),
    }
}

fn rewound(path: &Path, detail: String) -> StoreError {
    StoreError::Rewound {
        path: path.to_owned(),
        detail,
    }
}

/// Refuses where a head is left of a journal that is gone.
pub(super) fn refuse_if_gone(state_dir: &Path) -> Result<(), StoreError> {
    let path = state_dir.join(JOURNAL_FILE);
    match read(state_dir) {
        Anchor::None => Ok(()),
        Anchor::Head(head) => Err(rewound(
            &path,
            format!("it is gone, and had {} entries", head.seq.saturating_add(1)),
        )),
        Anchor::Unreadable(why) => Err(rewound(
            &path,
            format!("it is gone, and {HEAD_FILE} can't be read: {why}"),
        )),
    }
}

impl Store {
    fn state_dir(&self) -> PathBuf {
        self.path.parent().map(Path::to_owned).unwrap_or_default()
    }

    /// The head that the journal must have reached; `None` where none was ever written.
    ///
    /// # Errors
    /// When the file can't be read, or isn't there any more.
    pub(super) fn anchor(&self) -> Result<Option<Head>, StoreError> {
        match read(&self.state_dir()) {
            Anchor::Head(head) => Ok(Some(head)),
            Anchor::Unreadable(why) => Err(rewound(
                &self.path,
                format!("{HEAD_FILE} can't be read: {why}"),
            )),
            Anchor::None if self.is_anchored()? => Err(rewound(
                &self.path,
                format!("{HEAD_FILE}, which says how far it had come, is gone"),
            )),
            Anchor::None => Ok(None),
        }
    }

    fn is_anchored(&self) -> Result<bool, StoreError> {
        self.connection
            .query_row("SELECT 1 FROM meta WHERE key = ?1", [ANCHORED], |_| Ok(()))
            .optional()
            .map(|found| found.is_some())
            .map_err(|e| self.err(e))
    }

    pub(super) fn too_short(&self, entries: u64, head: Head) -> StoreError {
        rewound(
            &self.path,
            format!(
                "it has {entries} entries, and had {}: the last ones were cut off, or an older copy was put in its place",
                head.seq.saturating_add(1)
            ),
        )
    }

    pub(super) fn another(&self, head: Head) -> StoreError {
        rewound(
            &self.path,
            format!(
                "its entry {} is another than the one that was written: another journal of this fleet was put in its place",
                head.seq
            ),
        )
    }

    /// Forgets that there was a head: nothing is journaled.
    fn clear_anchor(&self) -> Result<(), StoreError> {
        self.connection
            .execute("DELETE FROM meta WHERE key = ?1", [ANCHORED])
            .map_err(|e| self.err(e))?;
        Confined::new(self.state_dir()).remove(HEAD_FILE)?;
        Ok(())
    }

    /// Writes the head, and remembers that there is one.
    pub(super) fn set_anchor(&self, head: Head) -> Result<(), StoreError> {
        head.write(&self.state_dir())?;
        if !self.is_anchored()? {
            self.connection
                .execute(
                    "INSERT INTO meta (key, value) VALUES (?1, '1') ON CONFLICT (key) DO NOTHING",
                    [ANCHORED],
                )
                .map_err(|e| self.err(e))?;
        }
        Ok(())
    }
}

/// Takes the journal as it is: its last entry becomes its head. For a person who knows why it is shorter
/// than it was. Gives the head, and `None` where there is no journal any more.
///
/// # Errors
/// When a controller runs, or the entries that are there aren't good.
pub fn accept_journal(state_dir: &Path, command: &str) -> Result<Option<Head>, StoreError> {
    let _lock = ControllerLock::acquire(state_dir, command)?;
    let store = match Store::open_unanchored(state_dir, None) {
        Ok(store) => store,
        Err(StoreError::Missing { path }) => {
            return match Confined::new(state_dir).remove(HEAD_FILE)? {
                true => Ok(None),
                false => Err(StoreError::Missing { path }),
            };
        }
        Err(error) => return Err(error),
    };
    let head = store.verified_head()?;
    match head {
        Some(head) => store.set_anchor(head)?,
        None => store.clear_anchor()?,
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FleetJournal;
    use proptest::prelude::*;
    use undercroft_model::advice::Advice as _;
    use undercroft_model::{Record, RunEnd};

    fn ended() -> Record {
        Record::RunEnded {
            end: RunEnd::Complete,
        }
    }

    fn open(dir: &Path) -> Result<FleetJournal, StoreError> {
        FleetJournal::open(dir, "basement", "a test")
    }

    /// A journal of six entries: the first is the one that begins it.
    fn six(dir: &Path) {
        let mut journal = open(dir).unwrap();
        for at in 1..=5 {
            journal.append_records(at, vec![ended()]).unwrap();
        }
    }

    fn sql(dir: &Path, statement: &str) {
        let connection = rusqlite::Connection::open(dir.join(JOURNAL_FILE)).unwrap();
        connection.execute_batch(statement).unwrap();
    }

    /// Everything that opens or reads the journal refuses.
    fn is_refused(dir: &Path) {
        let refused = open(dir).unwrap_err();
        assert!(matches!(refused, StoreError::Rewound { .. }), "{refused}");
        assert!(refused.hint().unwrap().contains("journal --accept"));
        let read = Store::open(dir, Some("basement")).and_then(|store| store.entries(0, 99));
        let refused = read.unwrap_err();
        assert!(matches!(refused, StoreError::Rewound { .. }), "{refused}");
    }

    #[test]
    fn entries_that_were_cut_off_are_missed_however_many() {
        for first_cut in 0..6 {
            let dir = tempfile::tempdir().unwrap();
            six(dir.path());
            sql(
                dir.path(),
                &format!("DELETE FROM entries WHERE seq >= {first_cut}"),
            );
            is_refused(dir.path());
            let head = accept_journal(dir.path(), "a test").unwrap();
            assert_eq!(head.map(|h| h.seq), u64::checked_sub(first_cut, 1));
            let journal = open(dir.path()).unwrap();
            assert_eq!(
                journal.store().entries(0, usize::MAX).unwrap().len() as u64,
                first_cut.max(1)
            );
        }
    }

    #[test]
    fn an_older_copy_and_another_course_of_things_are_refused_until_they_are_accepted() {
        let dir = tempfile::tempdir().unwrap();
        six(dir.path());
        let db = dir.path().join(JOURNAL_FILE);
        sql(dir.path(), "PRAGMA wal_checkpoint(TRUNCATE)");
        let older = std::fs::read(&db).unwrap();
        let older_head = std::fs::read(dir.path().join(HEAD_FILE)).unwrap();
        let mut journal = open(dir.path()).unwrap();
        journal.append_records(7, vec![ended()]).unwrap();
        drop(journal);
        let newer_head = std::fs::read(dir.path().join(HEAD_FILE)).unwrap();
        for end in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(dir.path().join(format!("{JOURNAL_FILE}{end}")));
        }
        std::fs::write(&db, &older).unwrap();
        is_refused(dir.path());
        // Carried on by somebody who didn't know of the head: as long, and another.
        std::fs::write(dir.path().join(HEAD_FILE), older_head).unwrap();
        let mut journal = open(dir.path()).unwrap();
        journal.append_records(8, vec![ended(), ended()]).unwrap();
        drop(journal);
        std::fs::write(dir.path().join(HEAD_FILE), newer_head).unwrap();
        is_refused(dir.path());
        assert_eq!(
            accept_journal(dir.path(), "a test").unwrap().unwrap().seq,
            7
        );
        open(dir.path()).unwrap();
    }

    #[test]
    fn a_head_that_lags_is_brought_up_and_one_that_is_gone_is_missed() {
        let dir = tempfile::tempdir().unwrap();
        six(dir.path());
        let head = dir.path().join(HEAD_FILE);
        let at_six = std::fs::read(&head).unwrap();
        let mut journal = open(dir.path()).unwrap();
        journal.append_records(7, vec![ended()]).unwrap();
        let at_seven = std::fs::read(&head).unwrap();
        drop(journal);
        // Killed after the commit.
        std::fs::write(&head, at_six).unwrap();
        assert_eq!(
            Store::open(dir.path(), None)
                .unwrap()
                .entries(0, 99)
                .unwrap()
                .len(),
            7
        );
        drop(open(dir.path()).unwrap());
        assert_eq!(std::fs::read(&head).unwrap(), at_seven);

        std::fs::remove_file(&head).unwrap();
        is_refused(dir.path());
        for wrong in ["", "undercroft-journal-head 1\n", "x"] {
            std::fs::write(&head, wrong).unwrap();
            is_refused(dir.path());
        }
        std::fs::remove_file(&head).unwrap();
        // A link in the state is refused before the journal is looked at, and by who only reads too.
        std::os::unix::fs::symlink("/dev/zero", &head).unwrap();
        let refused = open(dir.path()).unwrap_err();
        assert!(matches!(refused, StoreError::State(_)), "{refused}");
        let read = Store::open(dir.path(), Some("basement")).and_then(|s| s.entries(0, 99));
        assert!(matches!(read, Err(StoreError::Rewound { .. })));
        // It is neither written through nor taken for ours to take away.
        let refused = accept_journal(dir.path(), "a test").unwrap_err();
        assert!(matches!(refused, StoreError::Confined(_)), "{refused}");
        std::fs::remove_file(&head).unwrap();
        accept_journal(dir.path(), "a test").unwrap();
        assert_eq!(std::fs::read(&head).unwrap(), at_seven);
        // Nothing of the writing is left beside it.
        let mut names: Vec<String> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.contains("head") || name.starts_with('.'))
            .collect();
        names.retain(|name| name != ".gitignore");
        assert_eq!(names, [HEAD_FILE]);
    }

    #[test]
    fn a_journal_from_before_there_were_heads_gets_one() {
        let dir = tempfile::tempdir().unwrap();
        six(dir.path());
        std::fs::remove_file(dir.path().join(HEAD_FILE)).unwrap();
        sql(dir.path(), "DELETE FROM meta WHERE key = 'anchored'");
        Store::open(dir.path(), None)
            .unwrap()
            .entries(0, 9)
            .unwrap();
        drop(open(dir.path()).unwrap());
        assert!(dir.path().join(HEAD_FILE).exists());
    }

    #[test]
    fn a_journal_that_is_gone_is_missed() {
        let dir = tempfile::tempdir().unwrap();
        six(dir.path());
        for end in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(dir.path().join(format!("{JOURNAL_FILE}{end}")));
        }
        is_refused(dir.path());
        assert_eq!(accept_journal(dir.path(), "a test").unwrap(), None);
        open(dir.path()).unwrap();
    }

    proptest! {
        #[test]
        fn any_text_is_a_head_or_none(text in ".{0,200}", seq: u64, chain: [u8; 32]) {
            let _ = Head::parse(&text);
            let head = Head { seq, chain: Chain(chain) };
            prop_assert_eq!(Head::parse(&head.text()), Some(head));
        }
    }
}
