//! A machine's boot as a timeline, and the first packet that is missing from it.
//!
//! Pure: from what the servers saw of a machine, and what others learnt of it later, to a list
//! that people read and a sentence that says what to look at.

use serde::{Deserialize, Serialize};
use undercroft_model::{MacAddr, NodeName};

use crate::event::{ClientKind, EventKind, NetbootEvent};

/// How long a machine may be silent at a stage before the next packet counts as missing, in
/// milliseconds: longer than the last pause of a PXE ROM's retries (32 s), and than a slow
/// machine takes from its kernel to its report.
pub const PATIENCE_MS: u64 = 90_000;
/// How far back a timeline looks for the beginning of a boot, in events of one machine.
const MAX_EVENTS: usize = 4096;

/// What others than the boot servers learnt of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MarkKind {
    /// Its power was switched on.
    PowerOn,
    /// Its installer was approved.
    Approved,
    /// An SSH connection with the pinned key came about.
    SshReached,
    /// An SSH connection failed.
    SshFailed,
}

/// What others than the boot servers learnt of a machine, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// When, in milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
    /// What.
    pub kind: MarkKind,
    /// More about it, for people; may be empty.
    #[serde(default)]
    pub detail: String,
}

/// The stages of a boot, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Power.
    Power,
    /// DHCP, proxyDHCP and port 4011.
    Dhcp,
    /// TFTP.
    Tftp,
    /// HTTP.
    Http,
    /// The installer's report.
    Installer,
    /// SSH.
    Ssh,
}

/// One line of a timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When, in milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
    /// The stage it belongs to.
    pub stage: Stage,
    /// What happened, in a few words.
    pub text: String,
    /// How often it happened in a row, with nothing else in between.
    pub count: u32,
}

/// What is missing, in the words of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Missing {
    /// Nothing: the machine got where it was meant to.
    Nothing,
    /// Not long enough ago to say.
    TooEarly,
    /// Any packet.
    DhcpDiscover,
    /// An offer of ours.
    Offer,
    /// A file name in our offer.
    BootFile,
    /// A DHCPREQUEST, or a request on port 4011.
    Request,
    /// The first TFTP or HTTP request.
    BootRequest,
    /// The last block of the boot file.
    BootFileEnd,
    /// iPXE's request for its script.
    BootScript,
    /// The kernel and the initial RAM disk.
    Kernel,
    /// The installer's report.
    Report,
    /// An SSH connection.
    Ssh,
}

/// The first thing that is missing, and what to try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// What is missing.
    pub missing: Missing,
    /// What was seen and what was not.
    pub summary: String,
    /// What to try, the likeliest first.
    pub hints: Vec<String>,
}

/// A machine's last boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeline {
    /// What happened, in order.
    pub entries: Vec<Entry>,
    /// What is missing.
    pub diagnosis: Diagnosis,
}

/// Whether an event is about a machine: by its name, or by one of its Ethernet addresses.
pub fn concerns(event: &NetbootEvent, node: &NodeName, macs: &[MacAddr]) -> bool {
    event.node.as_ref() == Some(node) || event.mac.is_some_and(|mac| macs.contains(&mac))
}

/// Builds the timeline of a machine's last boot from its events and marks, in any order, as of
/// `now_ms`. The events must all be the machine's; see [`concerns`].
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
    let seen = Seen::of(events, &marks);
    Timeline {
        entries: entries(events, &marks),
        diagnosis: diagnose(&seen, now_ms),
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

#[derive(Debug, Default)]
struct Seen {
    last_ms: u64,
    anything: bool,
    powered: bool,
    system_dhcp: bool,
    discover: bool,
    offer: bool,
    offer_boot: Option<String>,
    refused: Option<String>,
    quarantined: Option<String>,
    request: bool,
    other_server: Option<String>,
    pxe_request: bool,
    acked: bool,
    nak: Option<String>,
    loader_request: Option<String>,
    loader_refused: Option<String>,
    loader_done: bool,
    loader_aborted: Option<String>,
    ipxe: bool,
    script: bool,
    kernel_done: bool,
    initrd_done: bool,
    fetch_failed: Option<String>,
    report: bool,
    approved: bool,
    ssh: bool,
    ssh_failed: Option<String>,
}

impl Seen {
    fn of(events: &[&NetbootEvent], marks: &[&Mark]) -> Self {
        let mut seen = Self::default();
        for event in events {
            seen.last_ms = seen.last_ms.max(event.at_ms);
            seen.take_in(&event.kind);
        }
        for mark in marks {
            seen.last_ms = seen.last_ms.max(mark.at_ms);
            match mark.kind {
                MarkKind::PowerOn => seen.powered = true,
                MarkKind::Approved => seen.approved = true,
                MarkKind::SshReached => seen.ssh = true,
                MarkKind::SshFailed => seen.ssh_failed = Some(mark.detail.clone()),
            }
        }
        seen
    }

    fn take_in(&mut self, kind: &EventKind) {
        self.anything = true;
        match kind {
            EventKind::DhcpDiscover { client, .. } => match client {
                ClientKind::Other => self.system_dhcp = true,
                ClientKind::Ipxe => {
                    self.ipxe = true;
                    self.discover = true;
                }
                _ => self.discover = true,
            },
            EventKind::DhcpOffer { boot } | EventKind::ProxyOffer { boot } => {
                self.offer = true;
                self.offer_boot = boot.clone().or(self.offer_boot.take());
            }
            EventKind::DhcpRequest { server, client } => {
                self.request = true;
                self.ipxe |= *client == ClientKind::Ipxe;
                self.other_server = server.map(|s| s.to_string());
            }
            EventKind::DhcpAck { .. } | EventKind::Pxe4011Ack { .. } => self.acked = true,
            EventKind::DhcpNak { reason } => self.nak = Some(reason.clone()),
            EventKind::Pxe4011Request { .. } => self.pxe_request = true,
            EventKind::NothingToBoot { reason } => self.refused = Some(reason.clone()),
            EventKind::Quarantined { reason } => self.quarantined = Some(reason.clone()),
            EventKind::TftpRequest { path } => self.loader_request = Some(path.clone()),
            EventKind::TftpDone { .. } => self.loader_done = true,
            EventKind::TftpAborted { path, reason, .. } => {
                self.loader_aborted = Some(format!("{path}: {reason}"));
            }
            EventKind::TftpRefused { path, reason } => {
                self.loader_refused = Some(format!("{path}: {reason}"));
            }
            EventKind::HttpDone { path, status, .. } => self.http_done(path, *status),
            EventKind::HttpAborted { path, reason, .. } => {
                self.fetch_failed = Some(format!("{path}: {reason}"));
            }
            EventKind::Report { .. } => self.report = true,
            EventKind::HttpRequest { .. }
            | EventKind::DhcpDecline
            | EventKind::DhcpRelease
            | EventKind::Dropped { .. } => {}
        }
    }

    fn http_done(&mut self, path: &str, status: u16) {
        let is_loader = std::path::Path::new(path)
            .extension()
            .is_some_and(|ext| ext == "efi" || ext == "kpxe");
        if status >= 400 {
            self.fetch_failed = Some(format!("{path}: HTTP {status}"));
        } else if path.starts_with("/boot.ipxe") {
            self.script = true;
        } else if path.ends_with("/kernel") {
            self.kernel_done = true;
        } else if path.ends_with("/initrd") {
            self.initrd_done = true;
        } else if is_loader {
            self.loader_request = Some(path.to_owned());
            self.loader_done = true;
        }
    }
}

fn diagnose(seen: &Seen, now_ms: u64) -> Diagnosis {
    let found = |missing, summary: String, hints: &[&str]| Diagnosis {
        missing,
        summary,
        hints: hints.iter().map(|hint| (*hint).to_owned()).collect(),
    };
    if seen.ssh {
        return found(
            Missing::Nothing,
            "SSH with the pinned key was reached; nothing is missing.".into(),
            &[],
        );
    }
    let silent_ms = now_ms.saturating_sub(seen.last_ms);
    let stuck = stuck(seen, &found);
    if seen.anything && silent_ms < PATIENCE_MS && !is_final(seen) {
        return Diagnosis {
            missing: Missing::TooEarly,
            summary: format!(
                "The machine was heard {} s ago and may still be at work. If nothing more comes: {}",
                silent_ms / 1000,
                stuck.summary
            ),
            hints: stuck.hints,
        };
    }
    stuck
}

/// Whether waiting longer can't change the diagnosis.
fn is_final(seen: &Seen) -> bool {
    seen.quarantined.is_some() || (seen.refused.is_some() && seen.offer_boot.is_none())
}

fn stuck(seen: &Seen, found: &dyn Fn(Missing, String, &[&str]) -> Diagnosis) -> Diagnosis {
    if let Some(reason) = &seen.quarantined {
        return found(
            Missing::Offer,
            format!("The machine was quarantined: {reason}"),
            &[
                "if the hardware was changed on purpose, correct the UUID or the MACs in the inventory",
                "if it was not, find out which machine this is before it boots",
            ],
        );
    }
    if seen.report {
        return after_report(seen, found);
    }
    if seen.script || seen.kernel_done {
        return after_script(seen, found);
    }
    if seen.loader_request.is_some() || seen.loader_refused.is_some() {
        return after_loader(seen, found);
    }
    dhcp_stage(seen, found)
}

fn after_report(seen: &Seen, found: &dyn Fn(Missing, String, &[&str]) -> Diagnosis) -> Diagnosis {
    if let Some(why) = &seen.ssh_failed {
        return found(
            Missing::Ssh,
            format!("The installer reported in, but SSH failed: {why}"),
            &[
                "a changed host key means that the machine was restarted: approve its new fingerprint",
                "check that port 22 of the machine can be reached from here",
            ],
        );
    }
    if seen.approved {
        return found(
            Missing::Ssh,
            "The installer reported in and was approved; no SSH connection has been made.".into(),
            &["run `undercroft up`, which goes on from here"],
        );
    }
    found(
        Missing::Ssh,
        "The installer reported in and waits for approval.".into(),
        &[
            "compare the fingerprint with the machine's console, then `undercroft approve NODE FINGERPRINT`",
        ],
    )
}

fn after_script(seen: &Seen, found: &dyn Fn(Missing, String, &[&str]) -> Diagnosis) -> Diagnosis {
    if !(seen.kernel_done && seen.initrd_done) {
        if let Some(why) = &seen.fetch_failed {
            return found(
                Missing::Kernel,
                format!("iPXE got its script, but a download failed: {why}"),
                &[
                    "a download that breaks off points to the network: cable, switch port, duplex",
                    "HTTP 404 means that the machine's intent or the served files have changed meanwhile",
                ],
            );
        }
        return found(
            Missing::Kernel,
            "iPXE got its script; the kernel and the initial RAM disk were not fetched whole."
                .into(),
            &[
                "if the script sends the machine to its disk, this is as it should be: its intent is `local`",
                "look at the machine's console for iPXE's error number; ipxe.org/ERROR explains it",
            ],
        );
    }
    found(
        Missing::Report,
        "The kernel and the initial RAM disk were fetched; the installer did not report in.".into(),
        &[
            "look at the machine's console: the kernel may have found no network card, or too little memory",
            "the installer needs a driver for the card that was booted from (BOOTIF on its command line)",
            "Secure Boot refuses an unsigned kernel: switch it off or enrol a key",
        ],
    )
}

fn after_loader(seen: &Seen, found: &dyn Fn(Missing, String, &[&str]) -> Diagnosis) -> Diagnosis {
    if !seen.loader_done {
        if let Some(why) = &seen.loader_refused {
            return found(
                Missing::BootFileEnd,
                format!("The machine asked for a file that it doesn't get: {why}"),
                &["another server's offer may name that file: look for a second proxyDHCP server"],
            );
        }
        let what = seen
            .loader_aborted
            .clone()
            .or(seen.loader_request.clone())
            .unwrap_or_default();
        return found(
            Missing::BootFileEnd,
            format!("The boot file was asked for, but not fetched to its end ({what})."),
            &[
                "a firewall may pass port 69 but not the transfer's own ports: TFTP answers from a new port",
                "large blocks need an unbroken path of 1,500 bytes: look for a smaller MTU on the way",
            ],
        );
    }
    if let Some(why) = &seen.fetch_failed {
        return found(
            Missing::BootScript,
            format!("The boot file was fetched, but iPXE's first HTTP request failed: {why}"),
            &["check that the HTTP port can be reached from the boot network"],
        );
    }
    let heard = if seen.ipxe {
        "iPXE asked for an address, but not for its script."
    } else {
        "iPXE never asked for an address."
    };
    found(
        Missing::BootScript,
        format!("The boot file was fetched whole; {heard}"),
        &[
            "iPXE may have no working driver for this card: set the machine's `snponly` switch",
            "Secure Boot refuses an unsigned iPXE: switch it off or use a signed shim",
            "spanning tree may hold the switch port back after iPXE restarts the link: set it to edge (portfast)",
        ],
    )
}

fn dhcp_stage(seen: &Seen, found: &dyn Fn(Missing, String, &[&str]) -> Diagnosis) -> Diagnosis {
    if !seen.discover {
        let mut hints = vec![
            "check power, cable and switch port, and that the machine is in this VLAN",
            "check that the firmware boots from the network: PXE on, IPv4, before or instead of the disk",
            "behind a router, a DHCP relay must point here",
        ];
        let summary = if seen.system_dhcp {
            hints.insert(
                0,
                "the machine boots its disk: set the next boot to the network",
            );
            "Only a running system asked for an address; the firmware sent no DISCOVER."
        } else if seen.powered {
            "The machine was switched on, but sent no DISCOVER."
        } else {
            hints.insert(0, "switch the machine on");
            "Nothing was ever heard of this machine."
        };
        return found(Missing::DhcpDiscover, summary.into(), &hints);
    }
    if seen.offer && seen.offer_boot.is_none() || !seen.offer {
        if let Some(reason) = &seen.refused {
            return found(
                Missing::BootFile,
                format!("Saw DISCOVER, and offered nothing to boot: {reason}."),
                &[
                    "change the machine's class or intent, or add the missing file, and switch it on again",
                ],
            );
        }
        return found(
            Missing::Offer,
            "Saw DISCOVER, but made no offer.".into(),
            &[
                "the range may be full, or the machine is to be ignored; the counters of dropped packets tell",
            ],
        );
    }
    if let Some(reason) = &seen.nak {
        return found(
            Missing::Request,
            format!("Saw REQUEST, and refused it: {reason}."),
            &["the machine asks for an address of another network or machine, and will begin anew"],
        );
    }
    if !seen.request && !seen.pxe_request {
        return found(
            Missing::Request,
            "Saw DISCOVER and our OFFER, but no REQUEST on port 67 or 4011.".into(),
            &[
                "another DHCP server's offer may have been taken: look for one on this network",
                "our offer may not arrive: a switch's DHCP snooping must trust this port",
                "some firmware ignores an offer that skips discovery: set the machine's `pxe_4011 = \"only\"`",
            ],
        );
    }
    let chosen = match (&seen.other_server, seen.pxe_request) {
        (Some(server), false) => format!(" (it chose the server {server})"),
        _ => String::new(),
    };
    found(
        Missing::BootRequest,
        format!("Saw DISCOVER, OFFER and REQUEST{chosen}, but no TFTP or HTTP request."),
        &[
            "the address may have come without our file name: two DHCP servers that both name a file disturb each other",
            "some firmware ignores a proxy's offer that skips discovery: set the machine's `pxe_4011 = \"only\"`",
            "a firewall may block UDP port 69 on this machine",
        ],
    )
}

fn entries(events: &[&NetbootEvent], marks: &[&Mark]) -> Vec<Entry> {
    let mut all: Vec<(u64, Stage, String)> = events
        .iter()
        .filter_map(|event| {
            let (stage, text) = describe(event)?;
            Some((event.at_ms, stage, text))
        })
        .collect();
    for mark in marks {
        let (stage, text) = match mark.kind {
            MarkKind::PowerOn => (Stage::Power, "switched on"),
            MarkKind::Approved => (Stage::Installer, "approved"),
            MarkKind::SshReached => (Stage::Ssh, "SSH reached with the pinned key"),
            MarkKind::SshFailed => (Stage::Ssh, "SSH failed"),
        };
        let text = if mark.detail.is_empty() {
            text.to_owned()
        } else {
            format!("{text}: {}", mark.detail)
        };
        all.push((mark.at_ms, stage, text));
    }
    all.sort_by_key(|(at_ms, ..)| *at_ms);
    let mut entries: Vec<Entry> = Vec::new();
    for (at_ms, stage, text) in all {
        match entries.last_mut() {
            Some(last) if last.stage == stage && last.text == text => {
                last.count = last.count.saturating_add(1);
            }
            _ => entries.push(Entry {
                at_ms,
                stage,
                text,
                count: 1,
            }),
        }
    }
    entries
}

fn describe(event: &NetbootEvent) -> Option<(Stage, String)> {
    let address = event
        .address
        .map_or_else(|| "no address".to_owned(), |a| a.to_string());
    let boot = |boot: &Option<String>| boot.clone().unwrap_or_else(|| "nothing to boot".to_owned());
    let rate = |bytes: u64, duration_ms: u64| format!("{bytes} bytes in {} ms", duration_ms.max(1));
    Some(match &event.kind {
        EventKind::DhcpDiscover { arch, client } => match arch {
            Some(arch) => (
                Stage::Dhcp,
                format!("DISCOVER from {client}, architecture {arch}"),
            ),
            None => (Stage::Dhcp, format!("DISCOVER from {client}")),
        },
        EventKind::DhcpOffer { boot: b } => (Stage::Dhcp, format!("OFFER {address}: {}", boot(b))),
        EventKind::ProxyOffer { boot: b } => (Stage::Dhcp, format!("proxy OFFER: {}", boot(b))),
        EventKind::DhcpRequest { client, server } => {
            let server = server.map_or_else(String::new, |s| format!(", to server {s}"));
            (Stage::Dhcp, format!("REQUEST from {client}{server}"))
        }
        EventKind::DhcpAck { boot: b } => (Stage::Dhcp, format!("ACK {address}: {}", boot(b))),
        EventKind::DhcpNak { reason } => (Stage::Dhcp, format!("NAK: {reason}")),
        EventKind::DhcpDecline => (Stage::Dhcp, "DECLINE: the address is in use".to_owned()),
        EventKind::DhcpRelease => (Stage::Dhcp, "RELEASE".to_owned()),
        EventKind::Pxe4011Request { .. } => (Stage::Dhcp, "REQUEST on port 4011".to_owned()),
        EventKind::Pxe4011Ack { boot: b } => {
            (Stage::Dhcp, format!("ACK from port 4011: {}", boot(b)))
        }
        EventKind::NothingToBoot { reason } => (Stage::Dhcp, format!("nothing to boot: {reason}")),
        EventKind::Quarantined { reason } => (Stage::Dhcp, format!("quarantined: {reason}")),
        EventKind::TftpRequest { path } => (Stage::Tftp, format!("asked for {path}")),
        EventKind::TftpDone {
            path,
            bytes,
            duration_ms,
        } => (
            Stage::Tftp,
            format!("sent {path}, {}", rate(*bytes, *duration_ms)),
        ),
        EventKind::TftpAborted {
            path,
            bytes,
            reason,
        } => (
            Stage::Tftp,
            format!("broke off {path} after {bytes} bytes: {reason}"),
        ),
        EventKind::TftpRefused { path, reason } => {
            (Stage::Tftp, format!("refused {path}: {reason}"))
        }
        EventKind::HttpRequest { method, path } => (Stage::Http, format!("{method} {path}")),
        EventKind::HttpDone {
            path,
            status,
            bytes,
            duration_ms,
        } => (
            Stage::Http,
            format!("{status} {path}, {}", rate(*bytes, *duration_ms)),
        ),
        EventKind::HttpAborted {
            path,
            bytes,
            reason,
        } => (
            Stage::Http,
            format!("broke off {path} after {bytes} bytes: {reason}"),
        ),
        EventKind::Report { report } => (
            Stage::Installer,
            format!(
                "reported in from {address}, fingerprint {}",
                report.fingerprint
            ),
        ),
        EventKind::Dropped { service, reason } => {
            let stage = match service {
                crate::event::Service::Dhcp | crate::event::Service::Pxe4011 => Stage::Dhcp,
                crate::event::Service::Tftp => Stage::Tftp,
                crate::event::Service::Http => Stage::Http,
            };
            // That the client chose its own server is said by its REQUEST already.
            if *reason == crate::event::DropReason::OtherServer {
                return None;
            }
            (stage, format!("dropped: {reason}"))
        }
    })
}

#[cfg(test)]
mod tests {
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
