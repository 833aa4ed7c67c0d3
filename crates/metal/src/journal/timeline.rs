//! Each machine's recent past, for `undercroft doctor`: what netboot saw of it and how far an
//! install has come. Unlike the entries it is bounded, and losing its end costs nothing.

use rusqlite::params;
use serde::{Deserialize, Serialize};
use undercroft_model::NodeName;

use super::{
    entries::{signed, unsigned},
    store::{Store, StoreError},
};

/// How many rows are kept for a machine: several boots' worth, since a boot leaves about thirty.
pub const TIMELINE_ROWS_PER_NODE_MAX: u64 = 500;
/// The most characters of a row's text.
const TEXT_CHARS_MAX: usize = 500;

/// Who saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimelineSource {
    /// The DHCP or proxyDHCP server.
    Dhcp,
    /// The TFTP server.
    Tftp,
    /// The HTTP server.
    Http,
    /// The installer's report.
    Installer,
    /// The controller's SSH connection.
    Ssh,
    /// The power provider.
    Power,
    /// The controller itself.
    Controller,
}

impl TimelineSource {
    /// The word that is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dhcp => "dhcp",
            Self::Tftp => "tftp",
            Self::Http => "http",
            Self::Installer => "installer",
            Self::Ssh => "ssh",
            Self::Power => "power",
            Self::Controller => "controller",
        }
    }

    fn from_word(word: &str) -> Self {
        [
            Self::Dhcp,
            Self::Tftp,
            Self::Http,
            Self::Installer,
            Self::Ssh,
            Self::Power,
        ]
        .into_iter()
        .find(|source| source.as_str() == word)
        .unwrap_or(Self::Controller)
    }
}

/// One thing that was seen of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineRow {
    /// When, in milliseconds since the Unix epoch.
    pub wall_ms: u64,
    /// Who saw it.
    pub source: TimelineSource,
    /// What, in one line.
    pub text: String,
}

impl Store {
    /// Adds a row to a machine's timeline, and drops its oldest ones past
    /// [`TIMELINE_ROWS_PER_NODE_MAX`].
    ///
    /// # Errors
    /// When the database can't be written.
    pub fn note(&self, node: &NodeName, row: &TimelineRow) -> Result<(), StoreError> {
        let text: String = row
            .text
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(TEXT_CHARS_MAX)
            .collect();
        let write = || -> rusqlite::Result<()> {
            let tx = self.connection.unchecked_transaction()?;
            tx.prepare_cached(
                "INSERT INTO timeline (node, wall_ms, source, text) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![
                node.as_str(),
                signed(row.wall_ms),
                row.source.as_str(),
                text
            ])?;
            tx.prepare_cached(
                "DELETE FROM timeline WHERE node = ?1 AND id <= (
                     SELECT id FROM timeline WHERE node = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
            )?
            .execute(params![node.as_str(), signed(TIMELINE_ROWS_PER_NODE_MAX)])?;
            tx.commit()
        };
        write().map_err(|e| self.err(e))
    }

    /// A machine's timeline, oldest first.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn timeline(&self, node: &NodeName) -> Result<Vec<TimelineRow>, StoreError> {
        let read = || -> rusqlite::Result<Vec<TimelineRow>> {
            let mut statement = self.connection.prepare_cached(
                "SELECT wall_ms, source, text FROM timeline WHERE node = ?1 ORDER BY id",
            )?;
            let rows = statement.query_map([node.as_str()], |row| {
                Ok(TimelineRow {
                    wall_ms: unsigned(row.get(0)?),
                    source: TimelineSource::from_word(&row.get::<_, String>(1)?),
                    text: row.get(2)?,
                })
            })?;
            rows.collect()
        };
        read().map_err(|e| self.err(e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeline_is_bounded_and_keeps_the_latest() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path(), "basement").unwrap();
        store.connection.pragma_update(None, "synchronous", "OFF").unwrap();
        let [one, other] = ["gpu-01", "gpu-02"].map(|n| NodeName::new(n).unwrap());
        let row = |wall_ms| TimelineRow {
            wall_ms,
            source: TimelineSource::Tftp,
            text: format!("block {wall_ms}\nof many"),
        };
        store.note(&other, &row(7)).unwrap();
        for wall_ms in 0..TIMELINE_ROWS_PER_NODE_MAX + 25 {
            store.note(&one, &row(wall_ms)).unwrap();
        }
        let kept = store.timeline(&one).unwrap();
        assert_eq!(kept.len() as u64, TIMELINE_ROWS_PER_NODE_MAX);
        assert_eq!(kept[0].text, "block 25 of many");
        assert_eq!(store.timeline(&other).unwrap().len(), 1);
    }
}
