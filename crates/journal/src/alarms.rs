//! What seems to be somebody's doing on the boot network: who, what, how often.
//!
//! They are a help for people, shown by `doctor` and beside each approval, and decide nothing. Each
//! sender has one row for each kind, so that a flood is a number and not a list.

use std::net::Ipv4Addr;

use rusqlite::params;
use serde::{Deserialize, Serialize};
use undercroft_model::NodeName;

use super::{
    entries::{signed, unsigned},
    store::{Store, StoreError},
};

/// How many are kept for one machine, and for the network as a whole; what was seen longest ago is
/// forgotten first. Anybody on the boot network can make up addresses.
pub const ALARMS_MAX: u64 = 64;
/// How long one is shown after it was seen last, in milliseconds: a day, which is longer than any
/// bring-up.
pub const ALARM_SHOWN_MS: u64 = 24 * 3_600_000;
/// The most characters of what one says.
const TEXT_CHARS_MAX: usize = 500;

/// What kind of thing was seen.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum AlarmKind {
    /// A report in a machine's name that can't be the machine's.
    Report,
    /// A machine's boot script was asked for by somebody else, or twice for one boot.
    Script,
    /// A machine's console shows another installer than the ones that report in.
    Console,
    /// More requests than anybody needs.
    Flood,
}

impl AlarmKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Report, Self::Script, Self::Console, Self::Flood];

    /// The kind in a word, the one that JSON has.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Report => "report",
            Self::Script => "script",
            Self::Console => "console",
            Self::Flood => "flood",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// Something that somebody did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Alarm {
    /// What kind of thing.
    pub kind: AlarmKind,
    /// From which address.
    pub sender: Ipv4Addr,
    /// What it was, the latest of them.
    pub text: String,
    /// When it was seen first, in milliseconds since the Unix epoch.
    pub first_wall_ms: u64,
    /// When it was seen last, in milliseconds since the Unix epoch.
    pub last_wall_ms: u64,
    /// How often.
    pub count: u64,
}

impl Alarm {
    /// One that was seen once.
    pub fn new(kind: AlarmKind, sender: Ipv4Addr, text: impl Into<String>, wall_ms: u64) -> Self {
        Self {
            kind,
            sender,
            text: text.into(),
            first_wall_ms: wall_ms,
            last_wall_ms: wall_ms,
            count: 1,
        }
    }
}

impl Store {
    /// Adds to a machine's alarms, or to those of the network as a whole. One of the same kind and
    /// sender is counted up.
    ///
    /// # Errors
    /// When the database can't be written.
    pub fn note_alarm(&self, node: Option<&NodeName>, alarm: &Alarm) -> Result<(), StoreError> {
        let node = node.map_or("", NodeName::as_str);
        let text: String = undercroft_process::printable(&alarm.text)
            .replace('\n', " ")
            .chars()
            .take(TEXT_CHARS_MAX)
            .collect();
        let write = || -> rusqlite::Result<()> {
            let tx = self.connection.unchecked_transaction()?;
            tx.execute(
                "INSERT INTO alarms (node, kind, sender, text, first_wall_ms, last_wall_ms, count)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 ON CONFLICT (node, kind, sender) DO UPDATE SET
                     text = excluded.text,
                     last_wall_ms = excluded.last_wall_ms,
                     count = alarms.count + excluded.count",
                params![
                    node,
                    alarm.kind.as_str(),
                    alarm.sender.to_string(),
                    text,
                    signed(alarm.first_wall_ms),
                    signed(alarm.last_wall_ms),
                    signed(alarm.count)
                ],
            )?;
            tx.execute(
                "DELETE FROM alarms WHERE node = ?1 AND rowid NOT IN (
                     SELECT rowid FROM alarms WHERE node = ?1
                     ORDER BY last_wall_ms DESC, count DESC LIMIT ?2)",
                params![node, signed(ALARMS_MAX)],
            )?;
            tx.commit()
        };
        write().map_err(|e| self.err(e))
    }

    /// The alarms of all machines and of the network as a whole (`None`), that were seen within
    /// [`ALARM_SHOWN_MS`].
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn all_alarms(
        &self,
        now_wall_ms: u64,
    ) -> Result<Vec<(Option<NodeName>, Alarm)>, StoreError> {
        let read = || -> rusqlite::Result<Vec<String>> {
            let mut statement = self
                .connection
                .prepare_cached("SELECT DISTINCT node FROM alarms ORDER BY node")?;
            let rows = statement.query_map([], |row| row.get(0))?;
            rows.collect()
        };
        let mut all = Vec::new();
        for name in read().map_err(|e| self.err(e))? {
            let node = NodeName::new(name).ok();
            let of = self.alarms_of(node.as_ref().map_or("", NodeName::as_str), now_wall_ms)?;
            all.extend(of.into_iter().map(|alarm| (node.clone(), alarm)));
        }
        Ok(all)
    }

    /// The alarms of a machine, then those of the network as a whole, that were seen within
    /// [`ALARM_SHOWN_MS`]; the most frequent first.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn alarms(&self, node: &NodeName, now_wall_ms: u64) -> Result<Vec<Alarm>, StoreError> {
        let mut all = self.alarms_of(node.as_str(), now_wall_ms)?;
        all.extend(self.alarms_of("", now_wall_ms)?);
        Ok(all)
    }

    fn alarms_of(&self, node: &str, now_wall_ms: u64) -> Result<Vec<Alarm>, StoreError> {
        type Row = (String, String, String, i64, i64, i64);
        let read = || -> rusqlite::Result<Vec<Row>> {
            let mut statement = self.connection.prepare_cached(
                "SELECT kind, sender, text, first_wall_ms, last_wall_ms, count FROM alarms
                 WHERE node = ?1 AND last_wall_ms > ?2
                 ORDER BY count DESC, sender, kind",
            )?;
            let since = signed(now_wall_ms.saturating_sub(ALARM_SHOWN_MS));
            let rows = statement.query_map(params![node, since], |row| {
                Ok((
                    row.get(0)?,
                    row.get(1)?,
                    row.get(2)?,
                    row.get(3)?,
                    row.get(4)?,
                    row.get(5)?,
                ))
            })?;
            rows.collect()
        };
        let rows = read().map_err(|e| self.err(e))?;
        Ok(rows
            .into_iter()
            .filter_map(|(kind, sender, text, first, last, count)| {
                Some(Alarm {
                    kind: AlarmKind::parse(&kind)?,
                    sender: sender.parse().ok()?,
                    text,
                    first_wall_ms: unsigned(first),
                    last_wall_ms: unsigned(last),
                    count: unsigned(count),
                })
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_number_and_the_list_has_an_end() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path(), "basement").unwrap();
        let node = NodeName::new("gpu-01").unwrap();
        let sender = Ipv4Addr::new(10, 0, 0, 66);
        for wall_ms in 1..=100 {
            let alarm = Alarm::new(AlarmKind::Report, sender, format!("no {wall_ms}"), wall_ms);
            store.note_alarm(Some(&node), &alarm).unwrap();
        }
        let flood = Alarm::new(AlarmKind::Flood, sender, "a flood", 7);
        store.note_alarm(None, &flood).unwrap();
        let alarms = store.alarms(&node, 200).unwrap();
        assert_eq!(alarms.len(), 2);
        assert_eq!((alarms[0].count, alarms[0].first_wall_ms), (100, 1));
        assert_eq!(alarms[0].text, "no 100");
        assert_eq!(alarms[1], flood);
        let other = NodeName::new("gpu-02").unwrap();
        assert_eq!(store.alarms(&other, 200).unwrap(), [flood]);
        assert_eq!(store.alarms(&node, 101 + ALARM_SHOWN_MS).unwrap(), []);
        for last in 0..=255 {
            let alarm = Alarm::new(AlarmKind::Report, Ipv4Addr::new(10, 0, 1, last), "x", 150);
            store.note_alarm(Some(&node), &alarm).unwrap();
        }
        let kept = store.alarms(&node, 200).unwrap().len();
        assert_eq!(kept as u64, ALARMS_MAX + 1);
    }
}
