//! Events in words.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::parts::{BootStage, Mark, MarkKind, TimelineEntry};
use crate::event::{EventKind, NetbootEvent};

pub(super) fn entries(events: &[&NetbootEvent], marks: &[&Mark]) -> Vec<TimelineEntry> {
    let mut all: Vec<(u64, BootStage, String)> = events
        .iter()
        .filter_map(|event| {
            let (stage, text) = describe(event)?;
            Some((event.at_ms, stage, text))
        })
        .collect();
    for mark in marks {
        let (stage, text) = match mark.kind {
            MarkKind::PowerOn => (BootStage::Power, "switched on"),
            MarkKind::Approved => (BootStage::Installer, "approved"),
            MarkKind::SshReached => (BootStage::Ssh, "SSH reached with the pinned key"),
            MarkKind::SshFailed => (BootStage::Ssh, "SSH failed"),
        };
        let text = if mark.detail.is_empty() {
            text.to_owned()
        } else {
            format!("{text}: {}", mark.detail)
        };
        all.push((mark.at_ms, stage, text));
    }
    all.sort_by_key(|(at_ms, ..)| *at_ms);
    let mut entries: Vec<TimelineEntry> = Vec::new();
    for (at_ms, stage, text) in all {
        match entries.last_mut() {
            Some(last) if last.stage == stage && last.text == text => {
                last.count = last.count.saturating_add(1);
            }
            _ => entries.push(TimelineEntry {
                at_ms,
                stage,
                text,
                count: 1,
            }),
        }
    }
    entries
}

fn describe(event: &NetbootEvent) -> Option<(BootStage, String)> {
    let address = event
        .address
        .map_or_else(|| "no address".to_owned(), |a| a.to_string());
    let boot = |boot: &Option<String>| boot.clone().unwrap_or_else(|| "nothing to boot".to_owned());
    let rate = |bytes: u64, duration_ms: u64| format!("{bytes} bytes in {} ms", duration_ms.max(1));
    Some(match &event.kind {
        EventKind::DhcpDiscover { arch, client } => match arch {
            Some(arch) => (
                BootStage::Dhcp,
                format!("DISCOVER from {client}, architecture {arch}"),
            ),
            None => (BootStage::Dhcp, format!("DISCOVER from {client}")),
        },
        EventKind::DhcpOffer { boot: b } => {
            (BootStage::Dhcp, format!("OFFER {address}: {}", boot(b)))
        }
        EventKind::ProxyOffer { boot: b } => (BootStage::Dhcp, format!("proxy OFFER: {}", boot(b))),
        EventKind::DhcpRequest { client, server } => {
            let server = server.map_or_else(String::new, |s| format!(", to server {s}"));
            (BootStage::Dhcp, format!("REQUEST from {client}{server}"))
        }
        EventKind::DhcpAck { boot: b } => (BootStage::Dhcp, format!("ACK {address}: {}", boot(b))),
        EventKind::DhcpNak { reason } => (BootStage::Dhcp, format!("NAK: {reason}")),
        EventKind::DhcpDecline => (
            BootStage::Dhcp,
            match event.address {
                Some(address) => format!("DECLINE: the machine found {address} in use"),
                None => "DECLINE: the address is in use".to_owned(),
            },
        ),
        EventKind::AddressInUse { by } => (
            BootStage::Dhcp,
            format!("{address} is in use by the machine with the Ethernet address {by}"),
        ),
        EventKind::Server { text } => (BootStage::Dhcp, text.clone()),
        EventKind::DhcpRelease => (BootStage::Dhcp, "RELEASE".to_owned()),
        EventKind::Pxe4011Request { .. } => (BootStage::Dhcp, "REQUEST on port 4011".to_owned()),
        EventKind::Pxe4011Ack { boot: b } => {
            (BootStage::Dhcp, format!("ACK from port 4011: {}", boot(b)))
        }
        EventKind::NothingToBoot { reason } => {
            (BootStage::Dhcp, format!("nothing to boot: {reason}"))
        }
        EventKind::Quarantined { reason } => (BootStage::Dhcp, format!("quarantined: {reason}")),
        EventKind::TftpRequest { path } => (BootStage::Tftp, format!("asked for {path}")),
        EventKind::TftpDone {
            path,
            bytes,
            duration_ms,
        } => (
            BootStage::Tftp,
            format!("sent {path}, {}", rate(*bytes, *duration_ms)),
        ),
        EventKind::TftpAborted {
            path,
            bytes,
            reason,
        } => (
            BootStage::Tftp,
            format!("broke off {path} after {bytes} bytes: {reason}"),
        ),
        EventKind::TftpRefused { path, reason } => {
            (BootStage::Tftp, format!("refused {path}: {reason}"))
        }
        EventKind::HttpRequest { method, path } => (BootStage::Http, format!("{method} {path}")),
        EventKind::HttpDone {
            path,
            status,
            bytes,
            duration_ms,
        } => (
            BootStage::Http,
            format!("{status} {path}, {}", rate(*bytes, *duration_ms)),
        ),
        EventKind::HttpAborted {
            path,
            bytes,
            reason,
        } => (
            BootStage::Http,
            format!("broke off {path} after {bytes} bytes: {reason}"),
        ),
        EventKind::Report { report } => (
            BootStage::Installer,
            format!(
                "reported in from {address}, fingerprint {}",
                report.fingerprint
            ),
        ),
        EventKind::ReportRefused {
            claimed,
            planned,
            reason,
        } => {
            let says = |what: &str, address: &Option<Ipv4Addr>| {
                address.map_or_else(String::new, |address| format!(", {what} {address}"))
            };
            let text = format!(
                "refused a report from {address}{}{}: {reason}",
                says("which says", claimed),
                says("for", planned)
            );
            (BootStage::Installer, text)
        }
        EventKind::ScriptServed { word } => {
            (BootStage::Http, format!("boot script served, word {word}"))
        }
        EventKind::ScriptOdd {
            word,
            planned,
            first,
            first_word,
        } => {
            let mut text = format!("the boot script, word {word}, went to {address}");
            if let Some(planned) = planned {
                let _ = write!(text, ", and the machine's address is {planned}");
            }
            if let (Some(first), Some(word)) = (first, first_word) {
                let _ = write!(text, ", after {first} was given the word {word}");
            }
            (BootStage::Http, text)
        }
        EventKind::Dropped { service, reason } => {
            let stage = match service {
                crate::event::Service::Dhcp | crate::event::Service::Pxe4011 => BootStage::Dhcp,
                crate::event::Service::Tftp => BootStage::Tftp,
                crate::event::Service::Http => BootStage::Http,
            };
            // That the client chose its own server is said by its REQUEST already.
            if *reason == crate::event::DropReason::OtherServer {
                return None;
            }
            (stage, format!("dropped: {reason}"))
        }
    })
}
