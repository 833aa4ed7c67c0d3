//! A machine's boot as a timeline, and the first packet that is missing from it.
//!
//! Pure: from what the servers saw of a machine, and what others learnt of it later, to a list
//! that people read and a sentence that says what to look at.

mod describe;
mod diagnose;
mod parts;

use serde::{Deserialize, Serialize};

pub use parts::{BootStage, Diagnosis, Mark, MarkKind, Missing, PATIENCE_MS, TimelineEntry};

use crate::event::{ClientKind, EventKind, NetbootEvent};

/// How far back a timeline looks for the beginning of a boot, in events of one machine.
const MAX_EVENTS: usize = 4096;

/// A machine's last boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Timeline {
    /// What happened, in order.
    pub entries: Vec<TimelineEntry>,
    /// What is missing.
    pub diagnosis: Diagnosis,
}

/// Builds the timeline of a machine's last boot from its events and marks, in any order, as of
/// `now_ms`. The events must all be the machine's.
pub fn timeline(events: &[NetbootEvent], marks: &[Mark], now_ms: u64) -> Timeline {
    let mut events: Vec<&NetbootEvent> = events.iter().collect();
    events.sort_by_key(|event| event.at_ms);
    let skip = events.len().saturating_sub(MAX_EVENTS);
    let events = last_boot(events.get(skip..).unwrap_or_default());
    let since_ms = events.first().map_or(0, |event| event.at_ms);
    let mut marks: Vec<&Mark> = marks
        .iter()
        .filter(|mark| mark.at_ms >= since_ms || mark.kind == MarkKind::PowerOn)
        .collect();
    marks.sort_by_key(|mark| mark.at_ms);
    let seen = diagnose::Seen::of(events, &marks);
    Timeline {
        entries: describe::entries(events, &marks),
        diagnosis: diagnose::diagnose(&seen, now_ms),
    }
}

/// The events from the firmware's last DHCPDISCOVER that follows something later than DHCP, or
/// all of them.
fn last_boot<'a>(events: &'a [&'a NetbootEvent]) -> &'a [&'a NetbootEvent] {
    let is_firmware = |event: &NetbootEvent| {
        matches!(
            event.kind,
            EventKind::DhcpDiscover {
                client: ClientKind::Pxe | ClientKind::UefiHttp | ClientKind::RaspberryPi,
                ..
            }
        )
    };
    let mut start = 0;
    let mut went_on = false;
    for (i, event) in events.iter().enumerate() {
        if is_firmware(event) && went_on {
            start = i;
            went_on = false;
        }
        went_on |= matches!(
            event.kind,
            EventKind::TftpRequest { .. }
                | EventKind::HttpRequest { .. }
                | EventKind::Report { .. }
        );
    }
    events.get(start..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use undercroft_model::NodeName;

    use super::*;
    use crate::arch::ClientArch;

    fn at(at_ms: u64, kind: EventKind) -> NetbootEvent {
        NetbootEvent {
            at_ms,
            node: NodeName::new("gpu-01").ok(),
            mac: None,
            uuid: None,
            address: Some([10, 0, 0, 5].into()),
            kind,
        }
    }

    fn boot() -> Vec<NetbootEvent> {
        let file = || Some("ipxe-x64.efi".to_owned());
        let get = |at_ms, path: &str, bytes| {
            at(
                at_ms,
                EventKind::HttpDone {
                    path: path.into(),
                    status: 200,
                    bytes,
                    duration_ms: 10,
                },
            )
        };
        vec![
            at(
                1000,
                EventKind::DhcpDiscover {
                    arch: Some(ClientArch::UEFI_X64),
                    client: ClientKind::Pxe,
                },
            ),
            at(1001, EventKind::DhcpOffer { boot: file() }),
            at(
                2000,
                EventKind::DhcpRequest {
                    client: ClientKind::Pxe,
                    server: None,
                },
            ),
            at(2001, EventKind::DhcpAck { boot: file() }),
            at(
                2100,
                EventKind::TftpRequest {
                    path: "ipxe-x64.efi".into(),
                },
            ),
            at(
                2200,
                EventKind::TftpDone {
                    path: "ipxe-x64.efi".into(),
                    bytes: 1_000_000,
                    duration_ms: 90,
                },
            ),
            at(
                3000,
                EventKind::DhcpDiscover {
                    arch: Some(ClientArch::UEFI_X64),
                    client: ClientKind::Ipxe,
                },
            ),
            get(4000, "/boot.ipxe?mac=x", 400),
            get(5000, "/artifacts/x86_64-linux/kernel", 7_000_000),
            get(6000, "/artifacts/x86_64-linux/initrd", 90_000_000),
        ]
    }

    #[test]
    fn each_stage_names_what_is_missing_next() {
        let all = boot();
        let mut lines = Vec::new();
        for upto in [0, 1, 2, 4, 5, 6, 7, 8, 10] {
            let diagnosis = timeline(&all[..upto], &[], 10_000_000).diagnosis;
            lines.push(format!(
                "{upto:2} {:?}: {}",
                diagnosis.missing, diagnosis.summary
            ));
            assert!(!diagnosis.hints.is_empty());
        }
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn a_machine_that_was_just_heard_gets_time() {
        let diagnosis = timeline(&boot()[..2], &[], 5000).diagnosis;
        assert_eq!(diagnosis.missing, Missing::TooEarly);
        insta::assert_snapshot!(diagnosis.summary);
    }

    #[test]
    fn a_second_boot_begins_a_new_timeline() {
        let mut events = boot();
        let again = events[0].clone();
        events.push(NetbootEvent {
            at_ms: 100_000,
            ..again
        });
        let all = timeline(&events, &[], 10_000_000);
        assert_eq!(all.entries.len(), 1);
        assert_eq!(all.diagnosis.missing, Missing::Offer);
    }

    #[test]
    fn the_timeline_reads_well_and_keeps_its_json() {
        let marks = [
            Mark {
                at_ms: 500,
                kind: MarkKind::PowerOn,
                detail: String::new(),
            },
            Mark {
                at_ms: 9000,
                kind: MarkKind::SshReached,
                detail: String::new(),
            },
        ];
        let all = timeline(&boot(), &marks, 10_000_000);
        let lines: Vec<_> = all
            .entries
            .iter()
            .map(|e| format!("{:5} {:?}: {}", e.at_ms, e.stage, e.text))
            .collect();
        insta::assert_snapshot!(lines.join("\n"));
        let json = serde_json::to_string(&all).unwrap();
        assert_eq!(serde_json::from_str::<Timeline>(&json).unwrap(), all);
        assert_eq!(all.diagnosis.missing, Missing::Nothing);
    }

    #[test]
    fn events_keep_their_json() {
        for event in boot() {
            let json = serde_json::to_string(&event).unwrap();
            assert_eq!(
                serde_json::from_str::<NetbootEvent>(&json).unwrap(),
                event,
                "{json}"
            );
        }
    }
}
