//! Which packet is missing, and what to try.

use super::parts::{Diagnosis, Mark, MarkKind, Missing, PATIENCE_MS};
use crate::event::{ClientKind, EventKind, NetbootEvent, Service};

#[derive(Debug, Default)]
pub(super) struct Seen {
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
    /// Its packets could not be read, and why.
    unreadable: Option<String>,
    /// Its address is in use, and whose it is.
    address_in_use: Option<String>,
    /// The last that the boot servers said of themselves.
    server: Option<String>,
}

impl Seen {
    pub(super) fn of(events: &[&NetbootEvent], marks: &[&Mark]) -> Self {
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
            EventKind::DhcpAck { .. } | EventKind::Pxe4011Ack { .. } => {
                self.acked = true;
                self.address_in_use = None;
            }
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
            EventKind::Dropped { service, reason } => {
                let is_dhcp = matches!(service, Service::Dhcp | Service::Pxe4011);
                if is_dhcp && reason.is_unreadable() {
                    self.unreadable = Some(reason.to_string());
                }
            }
            EventKind::DhcpDecline => {
                let unknown = || "another machine (which one is not known yet)".to_owned();
                self.address_in_use.get_or_insert_with(unknown);
            }
            EventKind::AddressInUse { by } => {
                self.address_in_use = Some(format!("the machine with the Ethernet address {by}"));
            }
            EventKind::Server { text } => self.server = Some(text.clone()),
            EventKind::HttpRequest { .. }
            | EventKind::ScriptServed { .. }
            | EventKind::ScriptOdd { .. }
            | EventKind::ReportRefused { .. }
            | EventKind::DhcpRelease => {}
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

pub(super) fn diagnose(seen: &Seen, now_ms: u64) -> Diagnosis {
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
                "large blocks need an unbroken path of 1,500 bytes: look for a smaller MTU on the way, or set `netboot.tftp_block_bytes` lower in the machine's class",
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
            "iPXE may have no working driver for this card: set `netboot.snponly = true` in the machine's class",
            "Secure Boot refuses an unsigned iPXE: switch it off or use a signed shim",
            "spanning tree may hold the switch port back after iPXE restarts the link: set it to edge (portfast)",
        ],
    )
}

/// Why a machine was offered nothing to boot.
fn offer(seen: &Seen, found: &dyn Fn(Missing, String, &[&str]) -> Diagnosis) -> Diagnosis {
    if let Some(reason) = &seen.refused {
        return found(
            Missing::BootFile,
            format!("Saw DISCOVER, and offered nothing to boot: {reason}."),
            &[
                "change the machine's class or intent, or add the missing file, and switch it on again",
            ],
        );
    }
    found(
        Missing::Offer,
        "Saw DISCOVER, but made no offer.".into(),
        &[
            "the range may be full, or the machine is to be ignored; the counters of dropped packets tell",
        ],
    )
}

/// Why a machine sent no DISCOVER.
fn discover(seen: &Seen, found: &dyn Fn(Missing, String, &[&str]) -> Diagnosis) -> Diagnosis {
    let mut hints = vec![
        "check power, cable and switch port, and that the machine is in this VLAN",
        "check that the firmware boots from the network: PXE on, IPv4, before or instead of the disk",
        "behind a router, a DHCP relay must point here",
    ];
    let mut summary = if seen.system_dhcp {
        let first = "the machine boots its disk: set the next boot to the network";
        hints.insert(0, first);
        "Only a running system asked for an address; the firmware sent no DISCOVER."
    } else if seen.powered {
        "The machine was switched on, but sent no DISCOVER."
    } else {
        hints.insert(0, "switch the machine on");
        "Nothing was ever heard of this machine."
    }
    .to_owned();
    if let Some(text) = &seen.server {
        summary = format!("{summary} The boot servers said: {text}.");
    }
    found(Missing::DhcpDiscover, summary, &hints)
}

fn dhcp_stage(seen: &Seen, found: &dyn Fn(Missing, String, &[&str]) -> Diagnosis) -> Diagnosis {
    if let Some(by) = &seen.address_in_use {
        return found(
            Missing::Offer,
            format!("The machine's address is in use by {by}."),
            &[
                "find the other machine by its Ethernet address, and give it another address",
                "or give this machine another `address` in the inventory",
            ],
        );
    }
    if let (Some(why), false) = (&seen.unreadable, seen.discover) {
        return found(
            Missing::DhcpDiscover,
            format!("Packets came with its Ethernet address that can't be read: {why}."),
            &[
                "update the firmware of the machine's network card, or boot from another card",
                "a switch, relay or firewall on the way may cut packets off: try without it",
            ],
        );
    }
    if !seen.discover {
        return discover(seen, found);
    }
    if !seen.offer || seen.offer_boot.is_none() {
        return offer(seen, found);
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
                "some firmware ignores an offer that skips discovery: set `netboot.ask_4011 = true` in the machine's class",
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
            "some firmware ignores a proxy's offer that skips discovery: set `netboot.ask_4011 = true` in the machine's class",
            "a firewall may block UDP port 69 on this machine",
        ],
    )
}
