//! What a device has kept: the entries of its state machine, and the lock on its state folder.

use undercroft_folder::confined::{Confined, ConfinedError};
use undercroft_lend::{
    DeviceName,
    consent::{Keys, Ledger, Record, Said},
    device::{Entry, Restored},
    wire::{Holding, RECORDS_MAX},
};
use undercroft_model::advice::{Advice, ErrorKind, FileFailure};
use undercroft_process::lock::{FileLock, LOCK_LINGERS_MAX, NotLocked};

use crate::{
    device_keys::NkeyVerify,
    lines::{Lines, LinesError},
};

/// The entries' file, in the state folder.
pub const ENTRIES_FILE: &str = "entries";
/// The file that whoever uses the state folder holds a lock on.
const LOCK_FILE: &str = "lock";
/// Every so manieth record's place in the file is remembered, so that a long ledger takes little memory.
const STRIDE: u64 = 64;

/// Why what a device has kept can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The file can't be used.
    #[error(transparent)]
    Lines(#[from] LinesError),
    /// The folder can't be used.
    #[error(transparent)]
    File(#[from] ConfinedError),
    /// A daemon runs already.
    #[error("{} is in use: the daemon runs already", path.display())]
    InUse {
        /// The lock's file.
        path: std::path::PathBuf,
    },
}

impl Advice for KeepError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Lines(error) => error.kind(),
            Self::File(error) => error.kind(),
            Self::InUse { .. } => ErrorKind::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Lines(error) => error.hint(),
            Self::File(error) => error.hint(),
            Self::InUse { .. } => Some("`undercroft lend status` shows what it does.".to_owned()),
        }
    }

    fn file(&self) -> Option<FileFailure<'_>> {
        match self {
            Self::Lines(error) => error.file(),
            Self::File(error) => error.file(),
            Self::InUse { .. } => None,
        }
    }
}

/// The entries, open to be added to.
#[derive(Debug)]
pub struct Keep {
    lines: Lines,
    /// The number of the next record.
    next: u64,
    /// Where the records 0, [`STRIDE`], 2 [`STRIDE`] … begin.
    places: Vec<u64>,
    _lock: FileLock,
}

impl Keep {
    /// Locks a state folder and goes through what it holds.
    ///
    /// # Errors
    /// When another process holds it, or what is there can't be read or doesn't hold.
    pub fn open(
        folder: &Confined,
        name: DeviceName,
        keys: &Keys,
    ) -> Result<(Self, Restored), KeepError> {
        let lock = folder.open_own(LOCK_FILE)?;
        let path = folder.path(LOCK_FILE);
        let lock = FileLock::take(lock, LOCK_LINGERS_MAX).map_err(|why| match why {
            NotLocked::Held(_) => KeepError::InUse { path },
            NotLocked::Failed(_, source) => KeepError::Lines(LinesError::Io {
                tried: "lock",
                path,
                source,
            }),
        })?;
        let mut restored = Restored::nothing(name);
        let mut places = Vec::new();
        let lines = Lines::open(folder, ENTRIES_FILE, |at, entry| {
            if let Entry::Record(record) = &entry
                && record.claim.number % STRIDE == 0
            {
                places.push(at);
            }
            take(&mut restored, entry, keys)
        })?;
        let next = next(&restored.ledger);
        let keep = Self {
            lines,
            next,
            places,
            _lock: lock,
        };
        Ok((keep, restored))
    }

    /// Makes an entry durable.
    ///
    /// # Errors
    /// When it can't be; nothing of it stays then.
    pub fn add(&mut self, entry: &Entry) -> Result<(), LinesError> {
        let at = self.lines.add(entry)?;
        if let Entry::Record(record) = entry {
            if record.claim.number % STRIDE == 0 {
                self.places.push(at);
            }
            self.next = record.claim.number.saturating_add(1);
        }
        Ok(())
    }

    /// The records of the ledger from a number on, as many as a message takes.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn records(&self, from: u64) -> Result<Vec<Record>, LinesError> {
        let mut records = Vec::new();
        if from >= self.next {
            return Ok(records);
        }
        let stride = usize::try_from(from / STRIDE).unwrap_or(usize::MAX);
        let place = self.places.get(stride).copied().unwrap_or(0);
        self.lines.again(place, |entry| {
            if let Entry::Record(record) = entry
                && record.claim.number >= from
            {
                records.push(record);
            }
            records.len() < RECORDS_MAX
        })?;
        Ok(records)
    }
}

fn next(ledger: &Ledger) -> u64 {
    ledger
        .head()
        .map_or(0, |head| head.number.saturating_add(1))
}

fn take(restored: &mut Restored, entry: Entry, keys: &Keys) -> Result<(), String> {
    match entry {
        Entry::Began { start } => restored.starts = start,
        Entry::Ended { holding, ended } => {
            restored.ended.insert(holding, ended);
        }
        Entry::Record(record) => {
            let pushed = restored.ledger.push(&record, keys, &NkeyVerify);
            pushed.map_err(|broken| broken.to_string())?;
            if let Said::Receipt { job, epoch, .. } = record.claim.said {
                restored.ended.remove(&Holding { job, epoch });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use undercroft_lend::{Epoch, consent::Gone, wire::Ended};

    use super::*;
    use crate::{device_keys::OwnKeys, tests::offer};

    struct Place {
        _dir: tempfile::TempDir,
        folder: Confined,
        keys: OwnKeys,
    }

    impl Place {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let folder = Confined::new(dir.path().join("state"));
            let keys = OwnKeys::read_or_make(&folder).unwrap();
            Self {
                _dir: dir,
                folder,
                keys,
            }
        }

        fn open(&self) -> Result<(Keep, Restored), KeepError> {
            Keep::open(&self.folder, "pc-1".parse().unwrap(), &self.keys.public())
        }

        fn say(&self, keep: &mut Keep, ledger: &mut Ledger, said: Said) {
            let record = ledger.next(7, said, &self.keys);
            ledger
                .push(&record, &self.keys.public(), &NkeyVerify)
                .unwrap();
            keep.add(&Entry::Record(record)).unwrap();
        }
    }

    #[test]
    fn a_ledger_is_there_again_and_any_part_of_it_can_be_sent() {
        let place = Place::new();
        let (mut keep, restored) = place.open().unwrap();
        let mut ledger = restored.ledger;
        keep.add(&Entry::Began { start: 1 }).unwrap();
        let granted = Said::Granted {
            offer: Box::new(offer()),
            until_ms: None,
        };
        place.say(&mut keep, &mut ledger, granted);
        for n in 0..40_u64 {
            let job: undercroft_lend::JobId = format!("job-{n}").parse().unwrap();
            let epoch = Epoch(1);
            let started = Said::Started {
                job: job.clone(),
                epoch,
                consent: 0,
            };
            place.say(&mut keep, &mut ledger, started);
            let holding = Holding {
                job: job.clone(),
                epoch,
            };
            let ended = Ended::Failed {
                why: "exit code 1".to_owned(),
            };
            keep.add(&Entry::Ended { holding, ended }).unwrap();
            if n < 39 {
                let gone = Gone::Ended;
                place.say(&mut keep, &mut ledger, Said::Receipt { job, epoch, gone });
            }
        }
        assert!(matches!(place.open(), Err(KeepError::InUse { .. })));
        let numbers = |keep: &Keep, from| -> Vec<u64> {
            let records = keep.records(from).unwrap();
            records.iter().map(|r| r.claim.number).collect()
        };
        let check = |keep: &Keep| {
            assert_eq!(numbers(keep, 0), (0..64).collect::<Vec<_>>());
            assert_eq!(numbers(keep, 70), (70..80).collect::<Vec<_>>());
            assert_eq!(numbers(keep, 80), Vec::<u64>::new());
            assert_eq!(numbers(keep, u64::MAX), Vec::<u64>::new());
        };
        check(&keep);
        drop(keep);
        let (keep, restored) = place.open().unwrap();
        check(&keep);
        assert_eq!(restored.starts, 1);
        assert_eq!(restored.ledger, ledger);
        assert_eq!(restored.ended.len(), 1, "only what has no receipt");
    }

    #[test]
    fn a_ledger_that_doesnt_hold_is_refused_with_its_line() {
        let place = Place::new();
        let (mut keep, restored) = place.open().unwrap();
        let mut ledger = restored.ledger;
        let granted = Said::Granted {
            offer: Box::new(offer()),
            until_ms: None,
        };
        place.say(&mut keep, &mut ledger, granted);
        let mut forged = ledger.next(8, Said::Revoked, &place.keys);
        forged.signature.0 = "AAAA".to_owned();
        keep.add(&Entry::Record(forged)).unwrap();
        drop(keep);
        let error = place.open().unwrap_err();
        assert!(
            error.to_string().contains("line 2 of ")
                && error
                    .to_string()
                    .contains("its signature is not the owner's"),
            "{error}"
        );
    }
}
