//! The database: opening it, and refusing one that isn't ours.

use std::{
    cell::Cell,
    path::{Path, PathBuf},
    time::Duration,
};
use undercroft_model::advice::{Advice, ErrorKind, FileFailure};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};
use undercroft_model::JOURNAL_VERSION;

use super::lock::LockError;
use undercroft_folder::confined::{Confined, ConfinedError};
use undercroft_folder::state;
use undercroft_folder::state::StateError;

/// The database's name in the state directory.
pub const JOURNAL_FILE: &str = "journal.db";
/// The version of the database's tables; a program reads its own and, by migrating, older ones.
pub const STORE_VERSION: i32 = 1;
/// What SQLite keeps beside the database, by the ends of its names.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];
/// Marks the file as ours (`PRAGMA application_id`): the bytes of "UCft".
const APPLICATION_ID: i32 = 0x5543_6674;
/// How long a statement waits for another process's transaction. Ours take milliseconds; the
/// limit is for a machine whose disk has stalled.
const BUSY_TIMEOUT: Duration = Duration::from_secs(20);

/// Why the journal could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is none.
    #[error("there is no journal at {}: no `undercroft up` has been run for this fleet", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The file is a database, or a file, of another program.
    #[error("{} is not a journal of Undercroft", path.display())]
    NotAJournal {
        /// The file.
        path: PathBuf,
    },
    /// It belongs to another fleet.
    #[error(
        "the journal {} belongs to the fleet \"{found}\", and the inventory is of the fleet \"{wanted}\"; nothing was changed",
        path.display()
    )]
    ForeignFleet {
        /// The file.
        path: PathBuf,
        /// The fleet that it is of.
        found: String,
        /// The fleet that was asked for.
        wanted: String,
    },
    /// A newer Undercroft has written it.
    #[error(
        "the journal {} has version {found}, and this program knows version {known} at most; nothing was changed",
        path.display()
    )]
    NewerVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest version that this program reads.
        known: i64,
    },
    /// An entry isn't what was written.
    #[error("the journal {} is damaged at entry {seq}: {detail}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The entry.
        seq: u64,
        /// What is wrong with it.
        detail: String,
    },
    /// It isn't as far as it was.
    #[error("the journal {} isn't what this fleet's last controller left: {detail}", path.display())]
    Rewound {
        /// The file.
        path: PathBuf,
        /// What tells.
        detail: String,
    },
    /// The disk is full.
    #[error("the disk that holds the journal {} is full; nothing of the last write was kept", path.display())]
    DiskFull {
        /// The file.
        path: PathBuf,
    },
    /// Another process is the controller.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The state folder isn't one that may be believed.
    #[error(transparent)]
    State(#[from] StateError),
    /// A file of the journal isn't one that this program would make.
    #[error("the journal can't be used: {0}")]
    Confined(ConfinedError),
    /// A file can't be used.
    #[error("{} can't be used: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// SQLite refused.
    #[error("the journal {} can't be used: {source}", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
}

impl Advice for StoreError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::ForeignFleet { .. }
            | Self::NewerVersion { .. }
            | Self::NotAJournal { .. }
            | Self::Rewound { .. }
            | Self::Damaged { .. } => ErrorKind::Input,
            Self::State(error) => error.kind(),
            _ => ErrorKind::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Missing { .. } => {
                Some("Run `undercroft up` first, or name the repository's folder.")
            }
            Self::NotAJournal { .. } => Some(
                "Move the file and journal.head beside it away; a new journal is begun in its place.",
            ),
            Self::ForeignFleet { .. } => Some(
                "Each fleet needs a state directory of its own; if the fleet was renamed, give it its old name again or move the old journal away.",
            ),
            Self::NewerVersion { .. } => {
                Some("Use the version of Undercroft that wrote it, or a newer one.")
            }
            Self::Damaged { .. } => Some(
                "Keep a copy of the file. Move it and journal.head beside it away to begin again: what runs on the machines is then observed anew.",
            ),
            Self::Rewound { .. } => Some(
                "Put the right file back if there is one. If you know why, for example because it came from a backup, `undercroft journal --accept` takes it as it is; what was done after it is then observed anew, and machines may have to be approved again.",
            ),
            Self::DiskFull { .. } => {
                Some("Free some space and run the same command again; it goes on where it stopped.")
            }
            Self::Confined(error) | Self::Lock(LockError::Confined(error)) => return error.hint(),
            Self::Lock(_) => Some(
                "Wait until it has ended, or interrupt it; `undercroft status` shows what it does.",
            ),
            Self::State(_) => {
                Some("Look at who made the folder; where it is moved away, a new one is made.")
            }
            Self::Io { .. } | Self::Sqlite { .. } => None,
        };
        hint.map(str::to_owned)
    }

    fn file(&self) -> Option<FileFailure<'_>> {
        match self {
            Self::Sqlite { path, .. } => Some(FileFailure {
                tried: None,
                path,
                source: None,
            }),
            Self::Io { path, source } => Some(FileFailure {
                tried: None,
                path,
                source: Some(source),
            }),
            Self::Lock(LockError::Io { path, source }) => Some(FileFailure {
                tried: Some("use the lock file"),
                path,
                source: Some(source),
            }),
            _ => None,
        }
    }
}

impl From<ConfinedError> for StoreError {
    fn from(error: ConfinedError) -> Self {
        match error {
            ConfinedError::Io { path, source, .. } => Self::Io { path, source },
            other => Self::Confined(other),
        }
    }
}

/// A connection to a fleet's database, for reading and for what isn't a record. Any number of
/// processes may have one at once; only [`super::FleetJournal`] writes entries.
#[derive(Debug)]
pub struct Store {
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
    pub(super) fleet: String,
    pub(super) entries_read: Cell<u64>,
}

impl Store {
    /// Opens the database of a state directory, which must be there. `fleet` is checked where it
    /// is given.
    ///
    /// # Errors
    /// When there is none, or it is another fleet's, another program's or a newer version's; it is
    /// left as it was.
    pub fn open(state_dir: &Path, fleet: Option<&str>) -> Result<Self, StoreError> {
        match Self::open_unanchored(state_dir, fleet) {
            Err(StoreError::Missing { path }) => {
                super::head::refuse_if_gone(state_dir)?;
                Err(StoreError::Missing { path })
            }
            other => other,
        }
    }

    /// [`Store::open`], whatever is said of a journal that is gone.
    pub(super) fn open_unanchored(
        state_dir: &Path,
        fleet: Option<&str>,
    ) -> Result<Self, StoreError> {
        let path = state_dir.join(JOURNAL_FILE);
        let state = Confined::new(state_dir);
        if !state.is_file(JOURNAL_FILE)? {
            return Err(StoreError::Missing { path });
        }
        require_own(&state)?;
        match inspect(&path, fleet)? {
            Some(fleet) => {
                let store = Self::connect(path, fleet)?;
                store.add_tables()?;
                Ok(store)
            }
            None => Err(StoreError::Missing { path }),
        }
    }

    /// Opens the database of a state directory, and makes directory and database if needed.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn create(state_dir: &Path, fleet: &str) -> Result<Self, StoreError> {
        state::make(state_dir)?;
        let path = state_dir.join(JOURNAL_FILE);
        let state = Confined::new(state_dir);
        // SQLite gives its own mode to a file that it makes, and the same mode as the database's
        // to the WAL beside it: hence the file is made here.
        drop(state.open_own(JOURNAL_FILE)?);
        require_own(&state)?;
        let fresh = inspect(&path, Some(fleet))?.is_none();
        let mut store = Self::connect(path, fleet.to_owned())?;
        if fresh {
            store.initialize()?;
        }
        store.add_tables()?;
        Ok(store)
    }

    /// Another connection to the same database, for what may be lost when the power fails:
    /// timelines and the list of those who wait. It doesn't wait for the disk.
    ///
    /// # Errors
    /// When the database can't be opened again.
    pub fn second(&self) -> Result<Self, StoreError> {
        let second = Self::connect(self.path.clone(), self.fleet.clone())?;
        second
            .connection
            .pragma_update(None, "synchronous", "NORMAL")
            .map_err(|e| second.err(e))?;
        Ok(second)
    }

    /// The fleet's name.
    pub fn fleet(&self) -> &str {
        &self.fleet
    }

    /// The database file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn connect(path: PathBuf, fleet: String) -> Result<Self, StoreError> {
        let connection = open_database(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let prepare = || -> rusqlite::Result<()> {
            connection.busy_timeout(BUSY_TIMEOUT)?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.pragma_update(None, "foreign_keys", true)?;
            connection.pragma_update(None, "trusted_schema", false)?;
            Ok(())
        };
        prepare().map_err(|e| sqlite(&path, e))?;
        Ok(Self {
            connection,
            path,
            fleet,
            entries_read: Cell::new(0),
        })
    }

    fn initialize(&mut self) -> Result<(), StoreError> {
        let path = self.path.clone();
        let fleet = self.fleet.clone();
        let make = |connection: &mut Connection| -> rusqlite::Result<()> {
            let tx =
                connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            tx.execute_batch(
                "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
                 CREATE TABLE IF NOT EXISTS entries (
                     seq INTEGER PRIMARY KEY,
                     wall_ms INTEGER NOT NULL,
                     record TEXT NOT NULL,
                     chain BLOB NOT NULL
                 ) STRICT;
                 CREATE TABLE IF NOT EXISTS pending (
                     node TEXT PRIMARY KEY,
                     fingerprint TEXT NOT NULL,
                     report TEXT NOT NULL,
                     since_wall_ms INTEGER NOT NULL
                 ) STRICT;
                 CREATE TABLE IF NOT EXISTS approvals (
                     node TEXT NOT NULL,
                     fingerprint TEXT NOT NULL,
                     granted_by TEXT NOT NULL,
                     granted_wall_ms INTEGER NOT NULL,
                     expires_wall_ms INTEGER NOT NULL,
                     PRIMARY KEY (node, fingerprint)
                 ) STRICT;
                 CREATE TABLE IF NOT EXISTS strangers (
                     mac TEXT PRIMARY KEY,
                     wall_ms INTEGER NOT NULL,
                     text TEXT NOT NULL,
                     report TEXT
                 ) STRICT;
                 CREATE TABLE IF NOT EXISTS timeline (
                     id INTEGER PRIMARY KEY AUTOINCREMENT,
                     node TEXT NOT NULL,
                     wall_ms INTEGER NOT NULL,
                     source TEXT NOT NULL,
                     text TEXT NOT NULL,
                     detail TEXT
                 ) STRICT;
                 CREATE INDEX IF NOT EXISTS timeline_by_node ON timeline (node, id);",
            )?;
            tx.execute(
                "INSERT INTO meta (key, value) VALUES ('fleet', ?1) ON CONFLICT (key) DO NOTHING",
                [&fleet],
            )?;
            tx.execute(
                "INSERT INTO meta (key, value) VALUES ('journal_version', ?1)
                 ON CONFLICT (key) DO NOTHING",
                [JOURNAL_VERSION.to_string()],
            )?;
            tx.pragma_update(None, "application_id", APPLICATION_ID)?;
            tx.pragma_update(None, "user_version", STORE_VERSION)?;
            tx.commit()
        };
        make(&mut self.connection).map_err(|e| sqlite(&path, e))
    }

    /// Makes the tables that databases of earlier programs lack. What they hold is no record, so
    /// that the version stays.
    fn add_tables(&self) -> Result<(), StoreError> {
        self.connection
            .execute_batch(
                "CREATE TABLE IF NOT EXISTS approval_terms (
                     node TEXT PRIMARY KEY,
                     good_for_ms INTEGER NOT NULL
                 ) STRICT;
                 CREATE TABLE IF NOT EXISTS claims (
                     node TEXT NOT NULL,
                     fingerprint TEXT NOT NULL,
                     place INTEGER NOT NULL,
                     report TEXT NOT NULL,
                     since_wall_ms INTEGER NOT NULL,
                     PRIMARY KEY (node, fingerprint)
                 ) STRICT;
                 CREATE TABLE IF NOT EXISTS alarms (
                     node TEXT NOT NULL,
                     kind TEXT NOT NULL,
                     sender TEXT NOT NULL,
                     text TEXT NOT NULL,
                     first_wall_ms INTEGER NOT NULL,
                     last_wall_ms INTEGER NOT NULL,
                     count INTEGER NOT NULL,
                     PRIMARY KEY (node, kind, sender)
                 ) STRICT;",
            )
            .map_err(|e| self.err(e))
    }

    pub(super) fn err(&self, source: rusqlite::Error) -> StoreError {
        sqlite(&self.path, source)
    }
}

/// Reads a database's marks without writing to it: the fleet that it is of, or `None` where it is
/// still empty.
fn inspect(path: &Path, wanted: Option<&str>) -> Result<Option<String>, StoreError> {
    let not_a_journal = || StoreError::NotAJournal {
        path: path.to_owned(),
    };
    let length = std::fs::metadata(path)
        .map_err(|source| StoreError::Io {
            path: path.to_owned(),
            source,
        })?
        .len();
    let wal_length = std::fs::metadata(path.with_extension("db-wal")).map_or(0, |m| m.len());
    if length == 0 && wal_length == 0 {
        return Ok(None);
    }
    let connection = open_database(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let read = || -> rusqlite::Result<(i32, i64, bool)> {
        connection.busy_timeout(BUSY_TIMEOUT)?;
        let application: i32 =
            connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
        let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let empty = connection
            .query_row("SELECT 1 FROM sqlite_schema LIMIT 1", [], |_| Ok(()))
            .optional()?
            .is_none();
        Ok((application, version, empty))
    };
    let (application, version, empty) = match read() {
        Ok(marks) => marks,
        Err(e) if e.sqlite_error_code() == Some(ErrorCode::NotADatabase) => {
            return Err(not_a_journal());
        }
        Err(e) => return Err(sqlite(path, e)),
    };
    // A process that was killed before its first transaction leaves an empty database.
    if application == 0 && version == 0 && empty {
        return Ok(None);
    }
    if application != APPLICATION_ID {
        return Err(not_a_journal());
    }
    if version > i64::from(STORE_VERSION) {
        return Err(StoreError::NewerVersion {
            path: path.to_owned(),
            found: version,
            known: i64::from(STORE_VERSION),
        });
    }
    let meta = |key: &str| -> Result<Option<String>, StoreError> {
        connection
            .query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| {
                row.get(0)
            })
            .optional()
            .map_err(|e| sqlite(path, e))
    };
    let records: i64 = meta("journal_version")?
        .and_then(|text| text.parse().ok())
        .ok_or_else(not_a_journal)?;
    if records > i64::from(JOURNAL_VERSION) {
        return Err(StoreError::NewerVersion {
            path: path.to_owned(),
            found: records,
            known: i64::from(JOURNAL_VERSION),
        });
    }
    let found = meta("fleet")?.ok_or_else(not_a_journal)?;
    match wanted {
        Some(wanted) if wanted != found => Err(StoreError::ForeignFleet {
            path: path.to_owned(),
            found,
            wanted: wanted.to_owned(),
        }),
        _ => Ok(Some(found)),
    }
}

/// Sees to it that the database and what SQLite keeps beside it are regular files of this user's
/// alone, where they are there.
fn require_own(state: &Confined) -> Result<(), StoreError> {
    state.require_own(JOURNAL_FILE)?;
    for end in BESIDE {
        state.require_own(format!("{JOURNAL_FILE}{end}"))?;
    }
    Ok(())
}

/// Opens the database. SQLite follows no link to it nor to the files beside it; the folders above
/// the state's are the user's own, and may be links.
fn open_database(path: &Path, how: OpenFlags) -> Result<Connection, StoreError> {
    let whole = match (path.parent(), path.file_name()) {
        (Some(dir), Some(name)) => {
            let dir = if dir == Path::new("") {
                Path::new(".")
            } else {
                dir
            };
            dir.canonicalize()
                .map_err(|source| StoreError::Io {
                    path: dir.to_owned(),
                    source,
                })?
                .join(name)
        }
        _ => path.to_owned(),
    };
    let flags = how | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    Connection::open_with_flags(whole, flags).map_err(|e| sqlite(path, e))
}

fn sqlite(path: &Path, source: rusqlite::Error) -> StoreError {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::DiskFull { path },
        Some(ErrorCode::NotADatabase) => StoreError::NotAJournal { path },
        _ => StoreError::Sqlite { path, source },
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn bytes(dir: &Path) -> Vec<u8> {
        std::fs::read(dir.join(JOURNAL_FILE)).unwrap()
    }

    #[test]
    fn files_are_for_their_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let _store = Store::create(&state, "basement").unwrap();
        let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&state), 0o700);
        for file in std::fs::read_dir(&state).unwrap() {
            let path = file.unwrap().path();
            assert_eq!(mode(&path), 0o600, "{}", path.display());
        }
    }

    #[test]
    fn a_journal_of_another_fleet_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        drop(Store::create(dir.path(), "basement").unwrap());
        let before = bytes(dir.path());
        let refused = Store::create(dir.path(), "attic").unwrap_err();
        assert!(
            matches!(refused, StoreError::ForeignFleet { .. }),
            "{refused}"
        );
        assert!(refused.to_string().contains("\"basement\""), "{refused}");
        assert_eq!(bytes(dir.path()), before);
        assert!(Store::open(dir.path(), Some("attic")).is_err());
        assert_eq!(Store::open(dir.path(), None).unwrap().fleet(), "basement");
    }

    #[test]
    fn a_newer_journal_is_refused_and_left_alone() {
        for newer in ["user_version = 2", "newer records"] {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::create(dir.path(), "basement").unwrap();
            if newer == "newer records" {
                store
                    .connection
                    .execute(
                        "UPDATE meta SET value = '99' WHERE key = 'journal_version'",
                        [],
                    )
                    .unwrap();
            } else {
                store
                    .connection
                    .pragma_update(None, "user_version", 2)
                    .unwrap();
            }
            drop(store);
            let before = bytes(dir.path());
            let refused = Store::create(dir.path(), "basement").unwrap_err();
            assert!(
                matches!(refused, StoreError::NewerVersion { .. }),
                "{refused}"
            );
            assert_eq!(bytes(dir.path()), before);
        }
    }

    #[test]
    fn a_file_of_another_program_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(JOURNAL_FILE);
        std::fs::write(
            &path,
            "no database, but long enough to look at twice".repeat(100),
        )
        .unwrap();
        let before = bytes(dir.path());
        let refused = Store::create(dir.path(), "basement").unwrap_err();
        assert!(
            matches!(refused, StoreError::NotAJournal { .. }),
            "{refused}"
        );
        assert_eq!(bytes(dir.path()), before);

        std::fs::remove_file(&path).unwrap();
        let other = Connection::open(&path).unwrap();
        other
            .execute_batch("CREATE TABLE recipes (name TEXT)")
            .unwrap();
        drop(other);
        let refused = Store::create(dir.path(), "basement").unwrap_err();
        assert!(
            matches!(refused, StoreError::NotAJournal { .. }),
            "{refused}"
        );
    }

    #[test]
    fn a_missing_journal_is_said_to_be_missing() {
        let dir = tempfile::tempdir().unwrap();
        let missing = Store::open(dir.path(), None).unwrap_err();
        assert!(matches!(missing, StoreError::Missing { .. }), "{missing}");
    }
}
