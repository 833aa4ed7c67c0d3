//! The boot servers' events as rows of a timeline.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use undercroft_model::NodeName;
use undercroft_netboot::{EventKind, NetbootEvent, event::Service, timeline::timeline};

use crate::journal::{Stranger, TimelineRow, TimelineSource};

/// How long the same event of the same machine isn't written again: firmware repeats itself, and
/// anybody on the boot network can make it seem to.
const REPEAT_AFTER: Duration = Duration::from_secs(2);
/// The same for what an installer asks for every quarter of a minute as long as it runs.
const HEARTBEAT_AFTER: Duration = Duration::from_secs(600);
/// The most kinds of events whose repetition is remembered; past it all are forgotten, which costs
/// a few rows.
const REMEMBERED_MAX: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Narrator {
    last: BTreeMap<(String, String), Instant>,
}

impl Narrator {
    /// The row for an event; `None` for a repetition.
    pub(super) fn row(&mut self, node: &NodeName, event: NetbootEvent) -> Option<TimelineRow> {
        let text = text(&event);
        // The text of an answer has its duration in it, which is never the same twice.
        let (said, after) = match heartbeat(&event.kind) {
            Some(said) => (said, HEARTBEAT_AFTER),
            None => (text.clone(), REPEAT_AFTER),
        };
        if !self.is_news((node.to_string(), said), after) {
            return None;
        }
        let source = source(&event.kind);
        Some(TimelineRow::new(event.at_ms, source, text).with_event(event))
    }

    /// What an event tells of a machine that the inventory doesn't know; `None` for a repetition,
    /// and where it has no Ethernet address.
    pub(super) fn stranger(&mut self, event: NetbootEvent) -> Option<Stranger> {
        let text = text(&event);
        let (wall_ms, mac) = (event.at_ms, event.mac);
        let report = match event.kind {
            EventKind::Report { report } => Some(*report),
            _ => None,
        };
        let mac = mac.or_else(|| report.as_ref()?.macs.first().copied())?;
        self.is_news((mac.to_string(), text.clone()), REPEAT_AFTER)
            .then_some(Stranger {
                mac,
                wall_ms,
                text,
                report,
            })
    }

    fn is_news(&mut self, key: (String, String), after: Duration) -> bool {
        let now = Instant::now();
        let last = self.last.get(&key);
        if last.is_some_and(|at| now.duration_since(*at) < after) {
            return false;
        }
        if self.last.len() >= REMEMBERED_MAX {
            self.last.clear();
        }
        self.last.insert(key, now);
        true
    }
}

fn heartbeat(kind: &EventKind) -> Option<String> {
    let said = match kind {
        EventKind::HttpRequest { path, .. } => format!("ask {path}"),
        EventKind::HttpDone { path, status, .. } => format!("{status} {path}"),
        _ => return None,
    };
    said.contains(" /v1/").then_some(said)
}

/// The words are those of netboot's own timeline, so that they are the same wherever they stand.
fn text(event: &NetbootEvent) -> String {
    let line = timeline(std::slice::from_ref(event), &[], event.at_ms);
    match line.entries.into_iter().next() {
        Some(entry) => entry.text,
        None => kind_name(&event.kind),
    }
}

fn kind_name(kind: &EventKind) -> String {
    serde_json::to_value(kind)
        .ok()
        .and_then(|value| Some(value.get("event")?.as_str()?.to_owned()))
        .unwrap_or_default()
}

fn source(kind: &EventKind) -> TimelineSource {
    match kind {
        EventKind::TftpRequest { .. }
        | EventKind::TftpDone { .. }
        | EventKind::TftpAborted { .. }
        | EventKind::TftpRefused { .. }
        | EventKind::Dropped {
            service: Service::Tftp,
            ..
        } => TimelineSource::Tftp,
        EventKind::HttpRequest { .. }
        | EventKind::HttpDone { .. }
        | EventKind::HttpAborted { .. }
        | EventKind::Dropped {
            service: Service::Http,
            ..
        } => TimelineSource::Http,
        EventKind::Report { .. } => TimelineSource::Installer,
        _ => TimelineSource::Dhcp,
    }
}
