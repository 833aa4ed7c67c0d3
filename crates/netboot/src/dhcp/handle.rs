//! What to answer to a DHCP packet: a pure function of the packet, the server's view and the
//! leases.

use std::net::{Ipv4Addr, SocketAddrV4};

use dhcproto::v4::MessageType;
use undercroft_model::{MacAddr, MachineUuid, NodeName};

use crate::arch::ClientArch;
use crate::decision::{
    BootAction, BootClient, BootDecision, BootProtocol, BootRequest, Reason, Subject, decide,
};
use crate::dhcp::leases::LeaseStore;
use crate::dhcp::reply::{Boot, Destination, Draft, LeaseOptions, Reply};
use crate::dhcp::wire::{DhcpPacket, decode, peek_mac};
use crate::event::{ClientKind, DropReason, EventKind};
use crate::server::config::{DhcpSettings, Mode};
use crate::site::Site;
use crate::table::{BootMachine, BootTable};

/// The port that a packet came in on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// 67.
    Dhcp,
    /// 4011.
    Pxe,
}

/// A packet as it came in.
#[derive(Debug, Clone, Copy)]
pub struct Incoming<'a> {
    /// Its bytes.
    pub packet: &'a [u8],
    /// Where it came from.
    pub source: SocketAddrV4,
    /// The port that it came in on.
    pub port: Port,
    /// When, in milliseconds of any clock that doesn't run backwards.
    pub now_ms: u64,
}

/// What the server knows when a packet comes in.
#[derive(Debug, Clone, Copy)]
pub struct ServerView<'a> {
    /// The machines.
    pub table: &'a BootTable,
    /// What can be served.
    pub site: &'a Site,
    /// How addresses are handed out.
    pub mode: &'a Mode,
    /// The boot network's prefix, in bits.
    pub prefix_bits: u8,
}

/// What became of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handled {
    /// The machine, if the table knows it.
    pub node: Option<NodeName>,
    /// The client's Ethernet address, if the packet could be read.
    pub mac: Option<MacAddr>,
    /// The client's UUID, if the packet had one.
    pub uuid: Option<MachineUuid>,
    /// The address that the client has, or was given, or has asked another server for.
    pub address: Option<Ipv4Addr>,
    /// What there is to tell, in order; the answer comes last, and is to be told only when it
    /// was sent.
    pub events: Vec<EventKind>,
    /// The answer, or why there is none.
    pub answer: Result<Reply, DropReason>,
}

impl Handled {
    fn dropped(reason: DropReason, mac: Option<MacAddr>, table: &BootTable) -> Self {
        Self {
            node: mac
                .and_then(|mac| table.by_mac(mac))
                .map(|m| m.name.clone()),
            mac,
            uuid: None,
            address: None,
            events: Vec::new(),
            answer: Err(reason),
        }
    }
}

/// Says what to answer to a packet, and keeps the leases in step.
///
/// A packet that can't be read, or is none of ours, is never answered; the reason is returned.
pub fn handle(incoming: Incoming<'_>, view: ServerView<'_>, leases: &mut LeaseStore) -> Handled {
    if *incoming.source.ip() == view.site.address {
        return Handled::dropped(DropReason::OwnAddress, None, view.table);
    }
    let packet = match decode(incoming.packet) {
        Ok(packet) => packet,
        // Whose it is stands in the header, even where the rest makes no sense.
        Err(reason) => {
            return Handled::dropped(reason, peek_mac(incoming.packet), view.table);
        }
    };
    let pi = packet.pi();
    let uuid = match pi {
        Some(_) => None,
        None => packet
            .client_uuid
            .map(|octets| view.table.read_uuid(octets))
            .filter(|uuid| uuid.is_unique()),
    };
    let request = BootRequest {
        protocol: match (incoming.port, view.mode) {
            (Port::Pxe, _) => BootProtocol::Pxe4011,
            (Port::Dhcp, Mode::Server(_)) => BootProtocol::Dhcp,
            (Port::Dhcp, _) => BootProtocol::ProxyDhcp,
        },
        client: packet.boot_client(),
        arch: packet.arch,
        uuid,
        mac: Some(packet.mac),
        pi_serial: pi.map(|pi| pi.serial),
        path: None,
        token: None,
    };
    let (decision, arch) = decide_for_best(view, &packet, &request);
    let mut exchange = Exchange {
        incoming,
        view,
        machine: decision
            .subject
            .node()
            .and_then(|name| view.table.get(name)),
        handled: Handled {
            node: decision.subject.node().cloned(),
            mac: Some(packet.mac),
            uuid,
            address: None,
            events: Vec::new(),
            answer: Err(DropReason::NotForUs),
        },
        packet: &packet,
        decision: &decision,
        arch,
    };
    let answer = match (incoming.port, view.mode) {
        (Port::Pxe, _) => exchange.pxe(),
        (Port::Dhcp, Mode::Server(settings)) => exchange.server(settings, leases),
        (Port::Dhcp, Mode::Proxy) => exchange.proxy(),
        (Port::Dhcp, Mode::Port4011Only) => Err(DropReason::NotForUs),
    };
    exchange.handled.answer = answer;
    exchange.handled
}

/// The decision for the first of the client's architectures that there is something to boot for;
/// that for its first one where there is none.
fn decide_for_best(
    view: ServerView<'_>,
    packet: &DhcpPacket,
    request: &BootRequest<'_>,
) -> (BootDecision, Option<ClientArch>) {
    let decide_for = |arch: Option<ClientArch>| {
        let request = BootRequest {
            arch,
            ..request.clone()
        };
        decide(view.table, view.site, &request)
    };
    for arch in packet.archs_to_try() {
        let decision = decide_for(Some(arch));
        if matches!(
            decision.action,
            BootAction::LoadFile(_) | BootAction::LoadUrl(_) | BootAction::AskPort4011
        ) {
            return (decision, Some(arch));
        }
    }
    (decide_for(packet.arch), packet.arch)
}

struct Exchange<'a> {
    incoming: Incoming<'a>,
    view: ServerView<'a>,
    packet: &'a DhcpPacket,
    decision: &'a BootDecision,
    machine: Option<&'a BootMachine>,
    arch: Option<ClientArch>,
    handled: Handled,
}

impl<'a> Exchange<'a> {
    fn tell(&mut self, event: EventKind) {
        self.handled.events.push(event);
    }

    fn client_kind(&self) -> ClientKind {
        match self.packet.boot_client() {
            BootClient::Pxe => ClientKind::Pxe,
            BootClient::UefiHttp => ClientKind::UefiHttp,
            BootClient::Ipxe => ClientKind::Ipxe,
            BootClient::RaspberryPi => ClientKind::RaspberryPi,
            BootClient::None => ClientKind::Other,
        }
    }

    fn tell_discover(&mut self) {
        let event = EventKind::DhcpDiscover {
            arch: self.packet.arch,
            client: self.client_kind(),
        };
        self.tell(event);
    }

    fn tell_request(&mut self) {
        let event = EventKind::DhcpRequest {
            client: self.client_kind(),
            server: self.packet.server_id,
        };
        self.tell(event);
    }

    /// The boot part of an answer. A boot client that gets none is told of, with the reason.
    fn boot(&mut self) -> Result<Boot, DropReason> {
        let boot = match &self.decision.action {
            BootAction::Ignore(reason) => {
                let reason = *reason;
                if reason != DropReason::Ignored && reason != DropReason::NotABootClient {
                    self.tell_nothing_to_boot();
                }
                return Err(reason);
            }
            BootAction::LoadFile(name) => Boot::File(name.clone()),
            BootAction::LoadUrl(url) => Boot::Url(url.clone()),
            BootAction::AskPort4011 => Boot::Ask4011,
            BootAction::PiBoot => Boot::Pi,
            BootAction::AddressOnly
            | BootAction::Serve(_)
            | BootAction::Text(_)
            | BootAction::NotFound => {
                if self.decision.reason != Reason::NotABootClient {
                    self.tell_nothing_to_boot();
                }
                Boot::None
            }
        };
        Ok(boot)
    }

    fn tell_nothing_to_boot(&mut self) {
        let event = match (&self.decision.subject, &self.decision.reason) {
            (Subject::Conflict(conflict), _) => EventKind::Quarantined {
                reason: conflict.to_string(),
            },
            (_, reason) => EventKind::NothingToBoot {
                reason: reason.to_string(),
            },
        };
        self.tell(event);
    }

    fn draft(&self, message_type: MessageType, boot: Boot) -> Draft<'a> {
        Draft {
            request: self.packet,
            message_type,
            server: self.view.site.address,
            server_id: self.server_id(),
            arch: self.arch,
            yiaddr: Ipv4Addr::UNSPECIFIED,
            boot,
            lease: None,
            nak: None,
        }
    }

    /// The address that clients are to take for the server (RFC 5107). Only who hands addresses
    /// out obeys the relay: a proxy that took the relay's address could no longer tell which
    /// server a client has chosen.
    fn server_id(&self) -> Ipv4Addr {
        let relay = self.packet.relay.as_ref();
        relay
            .filter(|_| matches!(self.view.mode, Mode::Server(_)))
            .filter(|_| self.incoming.port == Port::Dhcp)
            .and_then(|relay| relay.server)
            .unwrap_or(self.view.site.address)
    }

    /// The way back to the relay that a packet came by.
    fn to_relay(&self) -> Destination {
        let relay = self.packet.giaddr;
        match &self.packet.relay {
            Some(info) if info.answers_to_source_port => {
                Destination::Source(SocketAddrV4::new(relay, self.incoming.source.port()))
            }
            _ => Destination::Relay(relay),
        }
    }

    /// Where an answer on port 67 goes (RFC 2131, section 4.1). An answer to a client without an
    /// address is broadcast even where it doesn't ask for that: to reach it otherwise, its
    /// address would have to be put into the kernel's neighbour table first.
    fn destination(&self) -> Destination {
        if !self.packet.giaddr.is_unspecified() {
            self.to_relay()
        } else if !self.packet.ciaddr.is_unspecified() {
            Destination::Client(self.packet.ciaddr)
        } else {
            Destination::Broadcast
        }
    }

    fn pxe(&mut self) -> Result<Reply, DropReason> {
        if self.packet.message_type != MessageType::Request {
            return Err(DropReason::NotForUs);
        }
        let source = *self.incoming.source.ip();
        let address = if self.packet.ciaddr.is_unspecified() {
            source
        } else {
            self.packet.ciaddr
        };
        self.handled.address = Some(address).filter(|a| !a.is_unspecified());
        let event = EventKind::Pxe4011Request {
            arch: self.packet.arch,
        };
        self.tell(event);
        let boot = self.boot()?;
        if boot == Boot::None {
            return Err(DropReason::NothingToBoot);
        }
        let text = boot.text();
        let bytes = self.draft(MessageType::Ack, boot).encode()?;
        self.tell(EventKind::Pxe4011Ack { boot: text });
        Ok(Reply {
            bytes,
            to: Destination::Source(self.incoming.source),
        })
    }

    fn proxy(&mut self) -> Result<Reply, DropReason> {
        match self.packet.message_type {
            MessageType::Discover => {
                if self.packet.boot_client() == BootClient::None {
                    return Err(DropReason::NotABootClient);
                }
                self.tell_discover();
                let boot = self.boot()?;
                let text = boot.text();
                let bytes = self.draft(MessageType::Offer, boot).encode()?;
                self.tell(EventKind::ProxyOffer { boot: text });
                Ok(Reply {
                    bytes,
                    to: self.destination(),
                })
            }
            MessageType::Request => {
                // The client takes its address from the other server, and this broadcast tells
                // which it is. A proxy has nothing to say to it.
                let wanted = self.packet.requested.or(Some(self.packet.ciaddr));
                self.handled.address = wanted.filter(|a| !a.is_unspecified());
                if self.packet.server_id != Some(self.view.site.address) {
                    if self.packet.boot_client() != BootClient::None {
                        self.tell_request();
                    }
                    return Err(DropReason::OtherServer);
                }
                // Some boot ROMs choose the proxy's offer outright; they get the file, and no
                // address, which isn't ours to give.
                self.tell_request();
                let boot = self.boot()?;
                let text = boot.text();
                let bytes = self.draft(MessageType::Ack, boot).encode()?;
                self.tell(EventKind::DhcpAck { boot: text });
                Ok(Reply {
                    bytes,
                    to: self.destination(),
                })
            }
            _ => Err(DropReason::NotForUs),
        }
    }

    fn server(
        &mut self,
        settings: &DhcpSettings,
        leases: &mut LeaseStore,
    ) -> Result<Reply, DropReason> {
        match self.packet.message_type {
            MessageType::Discover => self.server_discover(settings, leases),
            MessageType::Request => self.server_request(settings, leases),
            MessageType::Decline => {
                self.handled.address = self.packet.requested;
                self.tell(EventKind::DhcpDecline);
                if let Some(address) = self.packet.requested {
                    let now_ms = self.incoming.now_ms;
                    if self.fixed_address() == Some(address) {
                        leases.decline_fixed(self.packet.mac, address, now_ms);
                    } else {
                        leases.decline(self.packet.mac, address, now_ms);
                    }
                }
                Err(DropReason::NotForUs)
            }
            MessageType::Release => {
                self.tell(EventKind::DhcpRelease);
                leases.release(self.packet.mac);
                Err(DropReason::NotForUs)
            }
            MessageType::Inform => self.server_inform(settings),
            _ => Err(DropReason::NotForUs),
        }
    }

    fn server_discover(
        &mut self,
        settings: &DhcpSettings,
        leases: &mut LeaseStore,
    ) -> Result<Reply, DropReason> {
        self.tell_discover();
        let boot = self.boot()?;
        if let Some(fixed) = self.fixed_address()
            && leases.fixed_rests(self.packet.mac, fixed, self.incoming.now_ms)
        {
            self.handled.address = Some(fixed);
            return Err(DropReason::AddressInUse);
        }
        let address = self.address_for(leases).ok_or(DropReason::NoAddress)?;
        self.handled.address = Some(address);
        let text = boot.text();
        let draft = Draft {
            yiaddr: address,
            lease: Some(self.lease_options(settings, true)),
            ..self.draft(MessageType::Offer, boot)
        };
        let bytes = draft.encode()?;
        self.tell(EventKind::DhcpOffer { boot: text });
        Ok(Reply {
            bytes,
            to: self.destination(),
        })
    }

    fn server_request(
        &mut self,
        settings: &DhcpSettings,
        leases: &mut LeaseStore,
    ) -> Result<Reply, DropReason> {
        let packet = self.packet;
        self.tell_request();
        if packet
            .server_id
            .is_some_and(|server| server != self.view.site.address && server != self.server_id())
        {
            leases.release(packet.mac);
            return Err(DropReason::OtherServer);
        }
        let boot = self.boot()?;
        // RFC 2131, table 4: option 50 while choosing or after a reboot, ciaddr while renewing.
        let wanted = match packet.requested {
            Some(address) => address,
            None if !packet.ciaddr.is_unspecified() => packet.ciaddr,
            None => return Err(DropReason::Malformed),
        };
        if let Err(why) = self.take(wanted, settings, leases) {
            return self.nak(why);
        }
        self.handled.address = Some(wanted);
        let text = boot.text();
        let draft = Draft {
            yiaddr: wanted,
            lease: Some(self.lease_options(settings, true)),
            ..self.draft(MessageType::Ack, boot)
        };
        let bytes = draft.encode()?;
        self.tell(EventKind::DhcpAck { boot: text });
        Ok(Reply {
            bytes,
            to: self.destination(),
        })
    }

    fn nak(&mut self, why: &'static str) -> Result<Reply, DropReason> {
        let draft = Draft {
            nak: Some(why),
            ..self.draft(MessageType::Nak, Boot::None)
        };
        let bytes = draft.encode()?;
        self.tell(EventKind::DhcpNak {
            reason: why.to_owned(),
        });
        let to = if self.packet.giaddr.is_unspecified() {
            Destination::Broadcast
        } else {
            self.to_relay()
        };
        Ok(Reply { bytes, to })
    }

    fn server_inform(&mut self, settings: &DhcpSettings) -> Result<Reply, DropReason> {
        let boot = self.boot()?;
        if self.packet.ciaddr.is_unspecified() {
            return Err(DropReason::Malformed);
        }
        self.handled.address = Some(self.packet.ciaddr);
        let text = boot.text();
        let draft = Draft {
            lease: Some(self.lease_options(settings, false)),
            ..self.draft(MessageType::Ack, boot)
        };
        let bytes = draft.encode()?;
        self.tell(EventKind::DhcpAck { boot: text });
        Ok(Reply {
            bytes,
            to: self.destination(),
        })
    }

    /// The fixed address of a known machine; none for one whose papers disagree, so that two
    /// machines never get the same.
    fn fixed_address(&self) -> Option<Ipv4Addr> {
        self.machine.and_then(|machine| machine.address)
    }

    /// Whether the client is on the boot network, directly or by a relay: by the relay's word
    /// where it says which network that is (RFC 3527), else by its own address.
    fn is_local(&self) -> bool {
        let relay = self.packet.giaddr;
        let link = self.packet.relay.as_ref().and_then(|relay| relay.link);
        relay.is_unspecified() || self.in_network(link.unwrap_or(relay))
    }

    fn in_network(&self, address: Ipv4Addr) -> bool {
        let mask = u32::MAX << (32 - u32::from(self.view.prefix_bits.clamp(1, 32)));
        address.to_bits() & mask == self.view.site.address.to_bits() & mask
    }

    fn is_taken(&self, address: Ipv4Addr) -> bool {
        address == self.view.site.address || self.view.table.by_address(address).is_some()
    }

    fn address_for(&self, leases: &mut LeaseStore) -> Option<Ipv4Addr> {
        if !self.is_local() {
            return None;
        }
        self.fixed_address().or_else(|| {
            leases.offer(
                self.packet.mac,
                self.packet.requested,
                |address| self.is_taken(address),
                self.incoming.now_ms,
            )
        })
    }

    /// Gives an address to the client, if it can have it.
    fn take(
        &self,
        wanted: Ipv4Addr,
        settings: &DhcpSettings,
        leases: &mut LeaseStore,
    ) -> Result<(), &'static str> {
        if !self.is_local() || !self.in_network(wanted) {
            return Err("the address is not of this network");
        }
        match self.fixed_address() {
            Some(fixed) if fixed == wanted => Ok(()),
            Some(_) => Err("the machine has another fixed address"),
            None if self.is_taken(wanted) => Err("the address is another machine's"),
            None => {
                // A client that we don't remember may keep its address if it is free: we may
                // have been restarted since.
                let lease_ms = u64::from(settings.lease_s).saturating_mul(1000);
                if leases.bind(self.packet.mac, wanted, self.incoming.now_ms, lease_ms) {
                    Ok(())
                } else {
                    Err("the address is outside the range or another machine's")
                }
            }
        }
    }

    fn lease_options(&self, settings: &DhcpSettings, with_lease: bool) -> LeaseOptions {
        LeaseOptions {
            prefix_bits: self.view.prefix_bits,
            gateway: settings.gateway,
            dns: settings.dns.clone(),
            domain: settings.domain.clone(),
            hostname: self.machine.map(|m| m.hostname.clone()).unwrap_or_default(),
            lease_s: with_lease.then_some(settings.lease_s),
        }
    }
}
