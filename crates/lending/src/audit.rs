//! Going through a ledger again, without anybody's word but the two public keys.

use std::collections::BTreeMap;

use undercroft_lend::{
    DeviceName, Epoch, JobId,
    consent::{Broken, Consent, Head, Ledger, Said},
    device::Entry,
};

use crate::{
    bus::Bus,
    device_keys::NkeyVerify,
    lines::{is_torn, parse},
    server::{KeptError, ledger_of},
};

pub use undercroft_lend::consent::{Keys, PublicKey, Record};

/// The largest file that is gone through, in bytes: a million records.
pub const FILE_BYTES_MAX: u64 = 1 << 30;

/// What a ledger comes to that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audited {
    /// Records that were gone through.
    pub records: u64,
    /// The last one.
    pub head: Option<Head>,
    /// What the owner agrees to now.
    pub consent: Option<Consent>,
    /// Jobs that were begun and have no receipt.
    pub open: BTreeMap<JobId, Epoch>,
    /// Jobs that were begun.
    pub begun: u64,
    /// Receipts.
    pub receipts: u64,
}

/// Why a file is no ledger.
#[derive(Debug, thiserror::Error)]
pub enum NoLedger {
    /// A line isn't a record.
    #[error("line {line} is no record of a ledger: {detail}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// Why.
        detail: String,
    },
}

/// Goes through records.
///
/// # Errors
/// The first that doesn't hold.
pub fn audit(device: DeviceName, records: &[Record], keys: &Keys) -> Result<Audited, Broken> {
    let ledger = Ledger::replay(device, records, keys, &NkeyVerify)?;
    let count = |is_it: fn(&Said) -> bool| {
        let found = records.iter().filter(|record| is_it(&record.claim.said));
        u64::try_from(found.count()).unwrap_or(u64::MAX)
    };
    Ok(Audited {
        records: count(|_| true),
        head: ledger.head(),
        consent: ledger.consent().cloned(),
        open: ledger.open().clone(),
        begun: count(|said| matches!(said, Said::Started { .. })),
        receipts: count(|said| matches!(said, Said::Receipt { .. })),
    })
}

/// Reads records: one a line as JSON, or a device's own file of entries. What a power cut has left of the last line
/// of such a file is no record.
///
/// # Errors
/// When a line is neither.
pub fn read(text: &str) -> Result<Vec<Record>, NoLedger> {
    let mut records = Vec::new();
    // A record begins with `{`, and a device's entry with a checksum.
    let is_device = !text.starts_with('{');
    let mut lines = text.split_inclusive('\n').enumerate().peekable();
    while let Some((index, line)) = lines.next() {
        let read = match is_device {
            true if lines.peek().is_none() && index > 0 && is_torn(line.as_bytes()) => break,
            true => parse::<Entry>(line.as_bytes()).map(|entry| match entry {
                Entry::Record(record) => Some(record),
                Entry::Began { .. } | Entry::Ended { .. } => None,
            }),
            false => serde_json::from_str(line).map_err(|error| error.to_string()),
        };
        records.extend(read.map_err(|detail| NoLedger::Line {
            line: index.saturating_add(1),
            detail,
        })?);
    }
    Ok(records)
}

/// The records of a device as the server of lending has them; `None` where it has none.
///
/// # Errors
/// When the store can't be read.
pub async fn fetch(bus: &Bus, device: &DeviceName) -> Result<Option<Vec<Record>>, KeptError> {
    ledger_of(bus, device).await
}

#[cfg(test)]
mod tests {
    use undercroft_folder::confined::Confined;

    use super::*;
    use crate::device_keys::OwnKeys;
    use undercroft_lend::consent::Gone;

    fn ledger() -> (tempfile::TempDir, Keys, Vec<Record>) {
        let dir = tempfile::tempdir().unwrap();
        let keys = OwnKeys::read_or_make(&Confined::new(dir.path())).unwrap();
        let mut ledger = Ledger::new("desk".parse().unwrap());
        let job: JobId = "render-1".parse().unwrap();
        let all = [
            Said::Granted {
                offer: Box::new(crate::tests::offer()),
                until_ms: None,
            },
            Said::Started {
                job: job.clone(),
                epoch: Epoch(1),
                consent: 0,
            },
            Said::Receipt {
                job,
                epoch: Epoch(1),
                gone: Gone::Ended,
            },
            Said::Revoked,
        ];
        let mut records = Vec::new();
        for said in all {
            let record = ledger.next(1_000, said, &keys);
            ledger.push(&record, &keys.public(), &NkeyVerify).unwrap();
            records.push(record);
        }
        (dir, keys.public(), records)
    }

    #[test]
    fn a_ledger_is_gone_through_and_its_first_fault_named() {
        let (_dir, keys, records) = ledger();
        let device: DeviceName = "desk".parse().unwrap();
        let audited = audit(device.clone(), &records, &keys).unwrap();
        assert_eq!(
            (audited.records, audited.begun, audited.receipts),
            (4, 1, 1)
        );
        assert!(audited.open.is_empty() && audited.consent.is_none());
        let mut forged = records.clone();
        forged[2].claim.at_ms += 1;
        let broken = audit(device.clone(), &forged, &keys).unwrap_err();
        assert_eq!(
            broken.to_string(),
            "record 2 of desk's ledger doesn't hold: its signature is not the device's"
        );
        let mut cut = records;
        cut.remove(1);
        assert_eq!(audit(device, &cut, &keys).unwrap_err().number, 2);
    }

    #[test]
    fn lines_are_records_or_a_devices_entries() {
        let (_dir, _, records) = ledger();
        let json: Vec<String> = records
            .iter()
            .map(|record| serde_json::to_string(record).unwrap())
            .collect();
        assert_eq!(read(&json.join("\n")).unwrap(), records);
        let line = |entry: &Entry| {
            let json = serde_json::to_string(entry).unwrap();
            format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()))
        };
        let mut entries = line(&Entry::Began { start: 1 });
        for record in &records {
            entries += &line(&Entry::Record(record.clone()));
        }
        assert_eq!(read(&entries).unwrap(), records);
        let torn = entries.get(..entries.len() - 3).unwrap();
        assert_eq!(read(torn).unwrap(), records[..3]);
        let whole = entries.trim_end().rfind('\n').unwrap() + 1;
        for bytes in [1, 5, 8, 9, 10, 40] {
            let torn = entries.get(..whole + bytes).unwrap();
            assert_eq!(read(torn).unwrap(), records[..3], "{bytes}");
        }
        let unwritten = format!("{}{}\n", entries.get(..whole).unwrap(), "\0".repeat(60));
        assert_eq!(read(&unwritten).unwrap(), records[..3]);
        let damaged = entries.replacen("desk", "dusk", 1);
        let error = read(&damaged).unwrap_err().to_string();
        assert!(error.starts_with("line 2 is no record"), "{error}");
        assert!(read("{}").is_err() && read("ledger").is_err());
    }
}
