//! What the boot servers saw and did.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use undercroft_model::{InstallerReport, MacAddr, MachineUuid, NodeName};

use crate::arch::ClientArch;

/// One thing that the boot servers saw or did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct NetbootEvent {
    /// When, in milliseconds since 1970-01-01 UTC, by the caller's clock.
    pub at_ms: u64,
    /// The machine, if the table knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// The Ethernet address, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// The UUID, if the request had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<MachineUuid>,
    /// The address that the request came from, or that was handed out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What the boot servers saw or did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum EventKind {
    /// A DHCPDISCOVER on port 67.
    DhcpDiscover {
        /// The client's architecture, where it says one.
        arch: Option<ClientArch>,
        /// Who asks.
        client: ClientKind,
    },
    /// A DHCPOFFER of ours with an address.
    DhcpOffer {
        /// The file or URL that it names.
        boot: Option<String>,
    },
    /// A DHCPREQUEST on port 67.
    DhcpRequest {
        /// Who asks.
        client: ClientKind,
        /// The server that the client chose, where it names one.
        server: Option<Ipv4Addr>,
    },
    /// A DHCPACK of ours with an address.
    DhcpAck {
        /// The file or URL that it names.
        boot: Option<String>,
    },
    /// A DHCPNAK of ours.
    DhcpNak {
        /// Why.
        reason: String,
    },
    /// The client found its address in use.
    DhcpDecline,
    /// An address that a machine was to get is another's.
    AddressInUse {
        /// Who answers for it.
        by: MacAddr,
    },
    /// The client gave its address back.
    DhcpRelease,
    /// A proxyDHCP offer of ours: a file, but no address.
    ProxyOffer {
        /// The file or URL that it names.
        boot: Option<String>,
    },
    /// A request on port 4011.
    Pxe4011Request {
        /// The client's architecture, where it says one.
        arch: Option<ClientArch>,
    },
    /// Our answer on port 4011.
    Pxe4011Ack {
        /// The file or URL that it names.
        boot: Option<String>,
    },
    /// A TFTP read request.
    TftpRequest {
        /// The path as it was asked for.
        path: String,
    },
    /// A TFTP transfer was acknowledged to its last block.
    TftpDone {
        /// The path.
        path: String,
        /// The bytes of the file.
        bytes: u64,
        /// How long it took.
        duration_ms: u64,
    },
    /// A TFTP transfer ended early. After a client has learnt a file's size this is normal.
    TftpAborted {
        /// The path.
        path: String,
        /// The bytes that were acknowledged.
        bytes: u64,
        /// Who ended it and why.
        reason: String,
    },
    /// A TFTP request was answered with an error.
    TftpRefused {
        /// The path.
        path: String,
        /// Why.
        reason: String,
    },
    /// An HTTP request.
    HttpRequest {
        /// Its method.
        method: String,
        /// Its path, with the query.
        path: String,
    },
    /// An HTTP response was sent whole.
    HttpDone {
        /// The path, with the query.
        path: String,
        /// The status code.
        status: u16,
        /// The bytes of the body.
        bytes: u64,
        /// How long it took.
        duration_ms: u64,
    },
    /// An HTTP response ended early.
    HttpAborted {
        /// The path, with the query.
        path: String,
        /// The bytes of the body that were sent.
        bytes: u64,
        /// Why.
        reason: String,
    },
    /// An installer reported in. It is a claim; see [`InstallerReport`].
    Report {
        /// What it said.
        report: Box<InstallerReport>,
    },
    /// An installer's report was refused.
    ReportRefused {
        /// The address that it names, where it could be read.
        claimed: Option<Ipv4Addr>,
        /// The address that the machine should have, where it names one.
        planned: Option<Ipv4Addr>,
        /// Why.
        reason: String,
    },
    /// A script that loads an installer was served.
    ScriptServed {
        /// The word that the installer shows on its screen.
        word: String,
    },
    /// Somebody asked for a machine's script beside, or instead of, the machine.
    ScriptOdd {
        /// The word of the script that was served to it.
        word: String,
        /// The address that the machine should have, if that isn't the asker's.
        planned: Option<Ipv4Addr>,
        /// Who asked first for the same boot's script, if somebody has.
        first: Option<Ipv4Addr>,
        /// The word of the first script.
        first_word: Option<String>,
    },
    /// A machine whose identity is in doubt asked to boot, and was given nothing.
    Quarantined {
        /// Why its identity is in doubt.
        reason: String,
    },
    /// A boot client got nothing to boot.
    NothingToBoot {
        /// Why.
        reason: String,
    },
    /// Something about the boot servers themselves, which concerns every machine.
    Server {
        /// What.
        text: String,
    },
    /// A packet or request was not answered.
    Dropped {
        /// Where it came in.
        service: Service,
        /// Why.
        reason: DropReason,
    },
}

/// Who sends a DHCP packet, as far as its options tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ClientKind {
    /// Firmware's PXE client.
    Pxe,
    /// Firmware's UEFI HTTP boot client.
    UefiHttp,
    /// iPXE.
    Ipxe,
    /// A Raspberry Pi's boot ROM.
    RaspberryPi,
    /// Anything else: most often a running system.
    Other,
}

impl fmt::Display for ClientKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pxe => "PXE firmware",
            Self::UefiHttp => "UEFI HTTP boot",
            Self::Ipxe => "iPXE",
            Self::RaspberryPi => "Raspberry Pi boot ROM",
            Self::Other => "a system",
        })
    }
}

/// One of the boot servers.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Service {
    /// DHCP or proxyDHCP on port 67.
    Dhcp,
    /// Port 4011.
    Pxe4011,
    /// TFTP.
    Tftp,
    /// HTTP.
    Http,
}

/// Why a packet or request was not answered.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum DropReason {
    /// It is shorter than its format allows.
    Truncated,
    /// It is longer than the limit.
    Oversized,
    /// It breaks its format's rules.
    Malformed,
    /// It is a reply, such as our own coming back, and not a request.
    NotARequest,
    /// It crossed too many relays.
    TooManyHops,
    /// It comes from the server's own address.
    OwnAddress,
    /// The hardware type isn't Ethernet.
    NotEthernet,
    /// The client's hardware address is zero or a group's.
    BadHardwareAddress,
    /// The client chose another server.
    OtherServer,
    /// A proxy answers only clients that boot over the network.
    NotABootClient,
    /// A message that this server has no answer to.
    NotForUs,
    /// The machine is to be ignored, or unknown machines are.
    Ignored,
    /// The machine's identity is in doubt.
    Quarantined,
    /// The machine is to get nothing to boot here.
    NothingToBoot,
    /// Nothing that is served runs on the client's architecture.
    NoBinary,
    /// No address is free, or none fits the client's network.
    NoAddress,
    /// The machine's address is another's at present.
    AddressInUse,
    /// A limit of concurrent work was reached.
    TooMany,
    /// The same request is being answered already.
    Duplicate,
    /// The answer would not have fitted the packet.
    AnswerTooLong,
    /// The client sent its request too slowly.
    TooSlow,
    /// The system couldn't send the answer.
    SendFailed,
}

impl DropReason {
    /// Whether the packet could not be read.
    pub fn is_unreadable(self) -> bool {
        matches!(
            self,
            Self::Truncated | Self::Oversized | Self::Malformed | Self::BadHardwareAddress
        )
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "truncated",
            Self::Oversized => "oversized",
            Self::Malformed => "malformed",
            Self::NotARequest => "not a request",
            Self::TooManyHops => "crossed too many relays",
            Self::OwnAddress => "from the server's own address",
            Self::NotEthernet => "not Ethernet",
            Self::BadHardwareAddress => "bad hardware address",
            Self::OtherServer => "the client chose another server",
            Self::NotABootClient => "not a network boot client",
            Self::NotForUs => "no answer for this kind of message",
            Self::Ignored => "the machine is ignored",
            Self::Quarantined => "the machine is quarantined",
            Self::NothingToBoot => "nothing to boot for this machine",
            Self::NoBinary => "no binary for this architecture",
            Self::NoAddress => "no address is free and probed",
            Self::AddressInUse => "its address is in use by another machine",
            Self::TooMany => "too many at once",
            Self::Duplicate => "already being answered",
            Self::AnswerTooLong => "the answer doesn't fit",
            Self::TooSlow => "the request came too slowly",
            Self::SendFailed => "the answer couldn't be sent",
        })
    }
}

/// How many packets and requests were not answered, by server and reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DropCounters(BTreeMap<(Service, DropReason), u64>);

impl DropCounters {
    /// Counts one.
    pub fn count(&mut self, service: Service, reason: DropReason) {
        let count = self.0.entry((service, reason)).or_default();
        *count = count.saturating_add(1);
    }

    /// How many of one kind there were.
    pub fn get(&self, service: Service, reason: DropReason) -> u64 {
        self.0.get(&(service, reason)).copied().unwrap_or(0)
    }

    /// All kinds that occurred.
    pub fn iter(&self) -> impl Iterator<Item = (Service, DropReason, u64)> + '_ {
        self.0.iter().map(|((s, r), n)| (*s, *r, *n))
    }
}
