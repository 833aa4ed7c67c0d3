//! The boot servers' events as rows of a timeline.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use undercroft_model::NodeName;
use undercroft_netboot::{DropReason, EventKind, NetbootEvent, event::Service, timeline::timeline};

use undercroft_journal::{Alarm, AlarmKind, TimelineRow, TimelineSource, UnknownMachine};

/// How long the same event of the same machine isn't written again: firmware repeats itself, and
/// anybody on the boot network can make it seem to.
const REPEAT_AFTER: Duration = Duration::from_secs(2);
/// The same for what an installer asks for every quarter of a minute as long as it runs.
const HEARTBEAT_AFTER: Duration = Duration::from_secs(600);
/// The most kinds of events whose repetition is remembered; past it all are forgotten, which costs
/// a few rows.
const REMEMBERED_MAX: usize = 4096;

/// How long what one sender does is only counted before it is written down again.
const ALARM_AFTER: Duration = Duration::from_secs(5);
/// The most senders of alarms that are counted at once; past it they are written down as they come,
/// and the oldest of them forgotten.
const COUNTED_MAX: usize = 1024;

/// What an event is kept as, for people.
#[derive(Debug)]
pub(crate) enum Kept {
    /// In a machine's timeline.
    Row(NodeName, TimelineRow),
    /// Among what somebody does, to a machine or to the network as a whole.
    Alarm(Option<NodeName>, Alarm),
    /// Among the machines that the inventory doesn't know.
    UnknownMachine(UnknownMachine),
}

/// Which of the events are kept, and as what.
#[derive(Debug, Default)]
pub(crate) struct BootLog {
    last: BTreeMap<(String, String), Instant>,
    alarms: BTreeMap<(Option<NodeName>, AlarmKind, Ipv4Addr), (Instant, u64)>,
}

impl BootLog {
    /// What of an event is kept, during a run and between two of them alike. `nodes` are all machines that
    /// the boot servers serve.
    pub(crate) fn keep<'n>(
        &mut self,
        event: NetbootEvent,
        nodes: impl IntoIterator<Item = &'n NodeName>,
    ) -> Vec<Kept> {
        // What the servers say of themselves is every machine's business; that it was said to the
        // operator is seen to elsewhere.
        if matches!(event.kind, EventKind::Server { .. }) {
            return nodes
                .into_iter()
                .filter_map(|node| {
                    let row = self.row(node, event.clone())?;
                    Some(Kept::Row(node.clone(), row))
                })
                .collect();
        }
        let mut kept = Vec::new();
        if let Some((node, alarm)) = self.alarm(&event) {
            kept.push(Kept::Alarm(node, alarm));
        }
        if matches!(
            event.kind,
            EventKind::ReportRefused { .. } | EventKind::ScriptOdd { .. }
        ) {
            // It is somebody else's doing, and no part of the machine's own story.
            return kept;
        }
        kept.extend(match event.node.clone() {
            Some(node) => self.row(&node, event).map(|row| Kept::Row(node, row)),
            None => self.stranger(event).map(Kept::UnknownMachine),
        });
        kept
    }

    /// What an event says of somebody's doing, for the machine that it is about or for the network
    /// as a whole. What one sender repeats is counted, and comes with the next.
    fn alarm(&mut self, event: &NetbootEvent) -> Option<(Option<NodeName>, Alarm)> {
        let sender = event.address?;
        let (node, kind) = match &event.kind {
            EventKind::ReportRefused { .. } => (event.node.clone(), AlarmKind::Report),
            EventKind::ScriptOdd { .. } => (event.node.clone(), AlarmKind::Script),
            EventKind::Dropped {
                reason: DropReason::TooMany,
                ..
            } => (None, AlarmKind::Flood),
            _ => return None,
        };
        let now = Instant::now();
        let key = (node, kind, sender);
        let mut count = 1;
        if let Some((since, uncounted)) = self.alarms.get_mut(&key) {
            *uncounted += 1;
            if now.duration_since(*since) < ALARM_AFTER {
                return None;
            }
            count = *uncounted;
        }
        if self.alarms.len() >= COUNTED_MAX {
            self.alarms.clear();
        }
        let node = key.0.clone();
        self.alarms.insert(key, (now, 0));
        let text = match &event.kind {
            EventKind::Dropped { service, .. } => format!(
                "more than one address may ask of {}",
                match service {
                    Service::Dhcp | Service::Pxe4011 => "DHCP",
                    Service::Tftp => "TFTP",
                    Service::Http => "HTTP",
                }
            ),
            _ => text(event),
        };
        let mut alarm = Alarm::new(kind, sender, text, event.at_ms);
        alarm.count = count;
        Some((node, alarm))
    }

    /// The row for an event; `None` for a repetition.
    fn row(&mut self, node: &NodeName, event: NetbootEvent) -> Option<TimelineRow> {
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
    fn stranger(&mut self, event: NetbootEvent) -> Option<UnknownMachine> {
        let text = text(&event);
        let (wall_ms, mac) = (event.at_ms, event.mac);
        let report = match event.kind {
            EventKind::Report { report } => Some(*report),
            _ => None,
        };
        let mac = mac.or_else(|| report.as_ref()?.macs.first().copied())?;
        self.is_news((mac.to_string(), text.clone()), REPEAT_AFTER)
            .then_some(UnknownMachine {
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
        EventKind::Report { .. } | EventKind::ReportRefused { .. } => TimelineSource::Installer,
        EventKind::ScriptServed { .. } | EventKind::ScriptOdd { .. } => TimelineSource::Http,
        _ => TimelineSource::Dhcp,
    }
}
