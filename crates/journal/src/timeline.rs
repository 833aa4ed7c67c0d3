//! Each machine's recent past, for `undercroft doctor`: what netboot saw of it and how far an
//! install has come. Unlike the entries it is bounded, and losing its end costs nothing.

use rusqlite::params;
use serde::{Deserialize, Serialize};
use undercroft_model::NodeName;
use undercroft_netboot::{
    NetbootEvent,
    timeline::{Mark, MarkKind},
};

use super::{
    entries::{signed, unsigned},
    store::{Store, StoreError},
};

/// How many rows are kept for a machine: several boots' worth, since a boot leaves about thirty.
pub const TIMELINE_ROWS_PER_NODE_MAX: u64 = 500;
/// The most characters of a row's text.
const TEXT_CHARS_MAX: usize = 500;
/// The most bytes of what a row carries for programs; a report of a machine with twenty disks is
/// half of it. A larger one is left out, and the row's text stays.
const DETAIL_BYTES_MAX: usize = 16 * 1024;

/// Who saw it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TimelineRow {
    /// When, in milliseconds since the Unix epoch.
    pub wall_ms: u64,
    /// Who saw it.
    pub source: TimelineSource,
    /// What, in one line.
    pub text: String,
    /// The same for programs, where there is more to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<TimelineDetail>,
}

/// What a row carries for programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TimelineDetail {
    /// An event of the boot servers.
    Netboot(Box<NetbootEvent>),
    /// A mark that the controller has set.
    Mark(MarkKind),
}

impl TimelineRow {
    /// A row that says nothing but its text.
    pub fn new(wall_ms: u64, source: TimelineSource, text: impl Into<String>) -> Self {
        Self {
            wall_ms,
            source,
            text: text.into(),
            detail: None,
        }
    }

    /// The same row as a mark in a machine's boot.
    #[must_use]
    pub fn with_mark(mut self, kind: MarkKind) -> Self {
        self.detail = Some(TimelineDetail::Mark(kind));
        self
    }

    /// The same row with the boot servers' event that it tells of.
    #[must_use]
    pub fn with_event(mut self, event: NetbootEvent) -> Self {
        self.detail = Some(TimelineDetail::Netboot(Box::new(event)));
        self
    }
}

impl Store {
    /// Adds a row to a machine's timeline, and drops its oldest ones past
    /// [`TIMELINE_ROWS_PER_NODE_MAX`].
    ///
    /// # Errors
    /// When the database can't be written.
    pub fn note(&self, node: &NodeName, row: &TimelineRow) -> Result<(), StoreError> {
        let text: String = undercroft_model::text::visible_line(&row.text.replace('\n', " "))
            .chars()
            .take(TEXT_CHARS_MAX)
            .collect();
        let detail = row
            .detail
            .as_ref()
            .and_then(|detail| serde_json::to_string(detail).ok())
            .filter(|json| json.len() <= DETAIL_BYTES_MAX);
        let write = || -> rusqlite::Result<()> {
            let tx = self.connection.unchecked_transaction()?;
            tx.prepare_cached(
                "INSERT INTO timeline (node, wall_ms, source, text, detail)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![
                node.as_str(),
                signed(row.wall_ms),
                row.source.as_str(),
                text,
                detail
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
                "SELECT wall_ms, source, text, detail FROM timeline WHERE node = ?1 ORDER BY id",
            )?;
            let rows = statement.query_map([node.as_str()], |row| {
                Ok(TimelineRow {
                    wall_ms: unsigned(row.get(0)?),
                    source: TimelineSource::from_word(&row.get::<_, String>(1)?),
                    text: row.get(2)?,
                    detail: row
                        .get::<_, Option<String>>(3)?
                        .and_then(|json| serde_json::from_str(&json).ok()),
                })
            })?;
            rows.collect()
        };
        read().map_err(|e| self.err(e))
    }
}

/// A machine's timeline as [`undercroft_netboot::timeline::timeline`] takes it.
pub fn events_and_marks(rows: &[TimelineRow]) -> (Vec<NetbootEvent>, Vec<Mark>) {
    let (mut events, mut marks) = (Vec::new(), Vec::new());
    for row in rows {
        match &row.detail {
            Some(TimelineDetail::Netboot(event)) => events.push(NetbootEvent::clone(event)),
            Some(TimelineDetail::Mark(kind)) => marks.push(Mark {
                at_ms: row.wall_ms,
                kind: *kind,
                detail: row.text.clone(),
            }),
            None => {}
        }
    }
    (events, marks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeline_is_bounded_and_keeps_the_latest() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path(), "basement").unwrap();
        store
            .connection
            .pragma_update(None, "synchronous", "OFF")
            .unwrap();
        let [one, other] = ["gpu-01", "gpu-02"].map(|n| NodeName::new(n).unwrap());
        let row = |wall_ms| {
            TimelineRow::new(
                wall_ms,
                TimelineSource::Tftp,
                format!("block {wall_ms}\nof many"),
            )
            .with_mark(MarkKind::SshFailed)
        };
        store.note(&other, &row(7)).unwrap();
        for wall_ms in 0..TIMELINE_ROWS_PER_NODE_MAX + 25 {
            store.note(&one, &row(wall_ms)).unwrap();
        }
        let kept = store.timeline(&one).unwrap();
        assert_eq!(kept.len() as u64, TIMELINE_ROWS_PER_NODE_MAX);
        assert_eq!(kept[0].text, "block 25 of many");
        let (events, marks) = events_and_marks(&kept[..1]);
        assert_eq!((events.len(), marks[0].at_ms), (0, 25));
        assert_eq!(store.timeline(&other).unwrap().len(), 1);
    }
}
