//! Machines that the inventory doesn't know and that asked to boot: what an operator needs to
//! write them into it, or to find out whose they are.

use rusqlite::params;
use serde::{Deserialize, Serialize};
use undercroft_model::{InstallerReport, MacAddr};

use super::{
    entries::{signed, unsigned},
    store::{Store, StoreError},
};

/// How many are remembered; the least recent is forgotten first. Anybody on the boot network can
/// make up Ethernet addresses.
pub const UNKNOWN_MACHINES_MAX: u64 = 256;
/// The most characters of what one did last.
const TEXT_CHARS_MAX: usize = 500;
/// The most bytes of a report that are kept.
const REPORT_BYTES_MAX: usize = 16 * 1024;

/// A machine that the inventory doesn't know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct UnknownMachine {
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// When it was seen last, in milliseconds since the Unix epoch.
    pub wall_ms: u64,
    /// What it did last, in one line.
    pub text: String,
    /// What it reported of itself, once its installer has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<InstallerReport>,
}

/// Address, time, text and report, as they are stored.
type Row = (String, i64, String, Option<String>);

impl Store {
    /// Remembers a machine that the inventory doesn't know. A report that is known stays where
    /// none comes.
    ///
    /// # Errors
    /// When the database can't be written.
    pub fn note_unknown_machine(&self, machine: &UnknownMachine) -> Result<(), StoreError> {
        let text: String = undercroft_process::printable(&machine.text)
            .replace('\n', " ")
            .chars()
            .take(TEXT_CHARS_MAX)
            .collect();
        let report = machine
            .report
            .as_ref()
            .and_then(|report| serde_json::to_string(report).ok())
            .filter(|json| json.len() <= REPORT_BYTES_MAX);
        let write = || -> rusqlite::Result<()> {
            let tx = self.connection.unchecked_transaction()?;
            tx.execute(
                "INSERT INTO strangers (mac, wall_ms, text, report) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (mac) DO UPDATE SET
                     wall_ms = excluded.wall_ms,
                     text = excluded.text,
                     report = COALESCE(excluded.report, strangers.report)",
                params![
                    machine.mac.to_string(),
                    signed(machine.wall_ms),
                    text,
                    report
                ],
            )?;
            tx.execute(
                "DELETE FROM strangers WHERE mac NOT IN (
                     SELECT mac FROM strangers ORDER BY wall_ms DESC LIMIT ?1)",
                [signed(UNKNOWN_MACHINES_MAX)],
            )?;
            tx.commit()
        };
        write().map_err(|e| self.err(e))
    }

    /// The machines that the inventory didn't know, the latest first.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn unknown_machines(&self) -> Result<Vec<UnknownMachine>, StoreError> {
        let read = || -> rusqlite::Result<Vec<Row>> {
            let mut statement = self.connection.prepare_cached(
                "SELECT mac, wall_ms, text, report FROM strangers ORDER BY wall_ms DESC, mac",
            )?;
            let rows = statement.query_map([], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })?;
            rows.collect()
        };
        let rows = read().map_err(|e| self.err(e))?;
        Ok(rows
            .into_iter()
            .filter_map(|(mac, wall_ms, text, report)| {
                Some(UnknownMachine {
                    mac: mac.parse().ok()?,
                    wall_ms: unsigned(wall_ms),
                    text,
                    report: report.and_then(|json| serde_json::from_str(&json).ok()),
                })
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_remembered_up_to_a_limit_the_latest_first() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path(), "basement").unwrap();
        let store = store.second().unwrap();
        for wall_ms in 0..UNKNOWN_MACHINES_MAX + 3 {
            let [high, low] = u16::try_from(wall_ms).unwrap().to_be_bytes();
            store
                .note_unknown_machine(&UnknownMachine {
                    mac: MacAddr([2, 0, 0, 0, high, low]),
                    wall_ms,
                    text: "DISCOVER\nfrom \u{1b}[2J".into(),
                    report: None,
                })
                .unwrap();
        }
        let seen = store.unknown_machines().unwrap();
        assert_eq!(seen.len() as u64, UNKNOWN_MACHINES_MAX);
        assert_eq!(seen[0].wall_ms, UNKNOWN_MACHINES_MAX + 2);
        assert_eq!(seen[0].text, "DISCOVER from \\u{1b}[2J");
    }
}
