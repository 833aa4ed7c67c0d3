//! Writing DHCP answers.

use std::net::{Ipv4Addr, SocketAddrV4};

use dhcproto::Encodable;
use dhcproto::v4::{
    Architecture, DhcpOption, Flags, HType, Message, MessageType, Opcode, OptionCode, UnknownOption,
};

use crate::arch::ClientArch;
use crate::decision::BootClient;
use crate::dhcp::wire::{DhcpPacket, VendorClass};
use crate::event::DropReason;

/// The UDP payload that every DHCP client takes: 576 bytes of IP (RFC 2131, section 2) less the
/// headers of IP and UDP.
pub const DEFAULT_MAX_BYTES: usize = 548;
/// Answers are filled up to BOOTP's length (RFC 1542, section 2.1), which old clients insist on.
const MIN_BYTES: usize = 300;
/// The header's file field holds 128 octets with a NUL at the end.
const MAX_FILE_BYTES: usize = 127;

/// Where an answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// To everyone on the boot network, at the client port.
    Broadcast,
    /// To the client's address, at the client port.
    Client(Ipv4Addr),
    /// To the relay, at the server port.
    Relay(Ipv4Addr),
    /// Back to where the request came from.
    Source(SocketAddrV4),
}

/// An answer, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The packet.
    pub bytes: Vec<u8>,
    /// Where it goes.
    pub to: Destination,
}

/// What an answer says of booting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Boot {
    /// Nothing.
    None,
    /// Load this file by TFTP, and skip discovery.
    File(String),
    /// Load this URL, and skip discovery.
    Url(String),
    /// A boot server is here; ask port 4011.
    Ask4011,
    /// A Raspberry Pi's boot server is here.
    Pi,
}

impl Boot {
    /// The file or URL, for people to read.
    pub fn text(&self) -> Option<String> {
        match self {
            Self::None => None,
            Self::File(text) | Self::Url(text) => Some(text.clone()),
            Self::Ask4011 => Some("port 4011".to_owned()),
            Self::Pi => Some("the Raspberry Pi's files".to_owned()),
        }
    }
}

/// The options that come with an address of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseOptions {
    /// The network's prefix, in bits.
    pub prefix_bits: u8,
    /// The default gateway.
    pub gateway: Option<Ipv4Addr>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// The domain name.
    pub domain: Option<String>,
    /// The host name; empty for none.
    pub hostname: String,
    /// The lease's length in seconds; `None` in the answer to a DHCPINFORM.
    pub lease_s: Option<u32>,
}

/// An answer before it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft<'a> {
    /// What is answered.
    pub request: &'a DhcpPacket,
    /// Option 53.
    pub message_type: MessageType,
    /// The server: siaddr and sname name it.
    pub server: Ipv4Addr,
    /// Option 54: the server too, or the address that a relay has clients take for it.
    pub server_id: Ipv4Addr,
    /// The architecture that the file is for.
    pub arch: Option<ClientArch>,
    /// The address that is handed out, or 0.0.0.0.
    pub yiaddr: Ipv4Addr,
    /// What to boot.
    pub boot: Boot,
    /// The options that come with an address of ours; `None` for a proxy.
    pub lease: Option<LeaseOptions>,
    /// Why not, in a DHCPNAK.
    pub nak: Option<&'static str>,
}

impl Draft<'_> {
    /// Writes the answer.
    ///
    /// # Errors
    /// [`DropReason::AnswerTooLong`] when it doesn't fit what the client takes, even without the
    /// options that a client can do without.
    pub fn encode(&self) -> Result<Vec<u8>, DropReason> {
        let max_bytes = self
            .request
            .max_message_bytes
            .map_or(0, |ip_bytes| usize::from(ip_bytes).saturating_sub(28))
            .clamp(DEFAULT_MAX_BYTES, 1472);
        for with_names in [true, false] {
            let mut bytes = self
                .message(with_names)?
                .to_vec()
                .map_err(|_| DropReason::AnswerTooLong)?;
            self.echo_relay(&mut bytes)?;
            if bytes.len() <= max_bytes {
                bytes.resize(bytes.len().max(MIN_BYTES), 0);
                return Ok(bytes);
            }
        }
        Err(DropReason::AnswerTooLong)
    }

    /// Copies what the relay wrote, once and as the last option (RFC 3046, sections 2.1 and 2.2).
    fn echo_relay(&self, bytes: &mut Vec<u8>) -> Result<(), DropReason> {
        const END: u8 = 255;
        let Some(relay) = self.request.relay.as_ref() else {
            return Ok(());
        };
        let len = u8::try_from(relay.raw.len()).map_err(|_| DropReason::AnswerTooLong)?;
        if bytes.last() == Some(&END) {
            bytes.pop();
        }
        bytes.extend_from_slice(&[82, len]);
        bytes.extend_from_slice(&relay.raw);
        bytes.push(END);
        Ok(())
    }

    fn message(&self, with_names: bool) -> Result<Message, DropReason> {
        let request = self.request;
        let is_nak = self.message_type == MessageType::Nak;
        let mut message = Message::new_with_id(
            request.xid,
            if is_nak {
                Ipv4Addr::UNSPECIFIED
            } else {
                request.ciaddr
            },
            self.yiaddr,
            if is_nak {
                Ipv4Addr::UNSPECIFIED
            } else {
                self.server
            },
            request.giaddr,
            &request.mac.0,
        );
        let mut flags = Flags::new(request.flags);
        if is_nak && !request.giaddr.is_unspecified() {
            // RFC 2131, section 4.3.2: the relay is to broadcast a DHCPNAK.
            flags = flags.set_broadcast();
        }
        message
            .set_opcode(Opcode::BootReply)
            .set_htype(HType::Eth)
            .set_flags(flags);
        let options = message.opts_mut();
        options.insert(DhcpOption::MessageType(self.message_type));
        options.insert(DhcpOption::ServerIdentifier(self.server_id));
        if let Some(why) = self.nak {
            options.insert(DhcpOption::Message(why.to_owned()));
        }
        if let Some(lease) = &self.lease {
            insert_lease(options, lease, request, with_names);
        }
        if !is_nak && self.boot != Boot::None {
            self.insert_boot(&mut message)?;
        }
        Ok(message)
    }

    fn insert_boot(&self, message: &mut Message) -> Result<(), DropReason> {
        let request = self.request;
        let server_text = self.server.to_string();
        // Firmware that takes the server from any of these places finds the same one.
        message.set_sname_str(&server_text);
        let token: &[u8] = if request.class == VendorClass::Http {
            b"HTTPClient"
        } else {
            b"PXEClient"
        };
        let options = message.opts_mut();
        options.insert(DhcpOption::ClassIdentifier(token.to_vec()));
        if let Some(octets) = request.client_uuid {
            let mut id = vec![request.client_uuid_type];
            id.extend_from_slice(&octets);
            options.insert(DhcpOption::ClientMachineIdentifier(id));
        }
        if request.class == VendorClass::Pxe || self.boot == Boot::Pi {
            let vendor = self.vendor_options();
            if !vendor.is_empty() {
                options.insert(DhcpOption::VendorExtensions(vendor));
            }
        }
        if self.boot == Boot::Pi || request.wants(66) {
            options.insert(DhcpOption::TFTPServerName(server_text.into_bytes()));
        }
        if let Some(arch) = self.arch.or(request.arch)
            && self.message_type == MessageType::Ack
            && self.lease.is_none()
        {
            // RFC 4578, section 2.1: answers of a PXE boot server name the architecture too.
            options.insert(DhcpOption::ClientSystemArchitecture(Architecture::from(
                arch.0,
            )));
        }
        if request.boot_client() == BootClient::Ipxe && self.lease.is_some() {
            // iPXE's no-pxedhcp (0xb0): don't wait for a proxyDHCP server, there is none.
            insert_raw(options, 175, vec![0xb0, 1, 1]);
        }
        let (Boot::File(name) | Boot::Url(name)) = &self.boot else {
            return Ok(());
        };
        let fits = name.len() <= MAX_FILE_BYTES;
        if !fits && name.len() > 255 {
            return Err(DropReason::AnswerTooLong);
        }
        if request.wants(67) || !fits {
            options.insert(DhcpOption::BootfileName(name.clone().into_bytes()));
        }
        if fits {
            message.set_fname_str(name);
        }
        Ok(())
    }

    /// Option 43, without pad octets: a Raspberry Pi's boot ROM stumbles over them.
    fn vendor_options(&self) -> Vec<u8> {
        // PXE_DISCOVERY_CONTROL, bit 3: use the file of this answer, discover nothing
        // (PXE 2.1, table 2-3).
        const SKIP_DISCOVERY: [u8; 3] = [6, 1, 8];
        let mut list = Vec::new();
        match &self.boot {
            Boot::None | Boot::Ask4011 => return list,
            Boot::File(_) | Boot::Url(_) => list.extend_from_slice(&SKIP_DISCOVERY),
            Boot::Pi => {
                list.extend_from_slice(&SKIP_DISCOVERY);
                // PXE_BOOT_MENU: type 0, 17 octets of text, which the boot ROM looks for.
                list.extend_from_slice(&[9, 20, 0, 0, 17]);
                list.extend_from_slice(b"Raspberry Pi Boot");
                // PXE_MENU_PROMPT: no waiting time.
                list.extend_from_slice(&[10, 4, 0]);
                list.extend_from_slice(b"PXE");
            }
        }
        if let Some(item) = self.request.boot_item {
            list.extend_from_slice(&[71, 4]);
            list.extend_from_slice(&item);
        }
        list.push(255);
        list
    }
}

fn insert_lease(
    options: &mut dhcproto::v4::DhcpOptions,
    lease: &LeaseOptions,
    request: &DhcpPacket,
    with_names: bool,
) {
    let mask = u32::MAX << (32 - u32::from(lease.prefix_bits.clamp(1, 32)));
    options.insert(DhcpOption::SubnetMask(Ipv4Addr::from_bits(mask)));
    if let Some(gateway) = lease.gateway {
        options.insert(DhcpOption::Router(vec![gateway]));
    }
    if !lease.dns.is_empty() {
        options.insert(DhcpOption::DomainNameServer(lease.dns.clone()));
    }
    if with_names {
        if !lease.hostname.is_empty() {
            options.insert(DhcpOption::Hostname(lease.hostname.clone()));
        }
        if let Some(domain) = lease.domain.as_ref().filter(|_| request.wants(15)) {
            options.insert(DhcpOption::DomainName(domain.clone()));
        }
    }
    if let Some(lease_s) = lease.lease_s {
        options.insert(DhcpOption::AddressLeaseTime(lease_s));
        options.insert(DhcpOption::Renewal(lease_s / 2));
        // RFC 2131, section 4.4.5: T2 is 0.875 of the lease.
        options.insert(DhcpOption::Rebinding(lease_s - lease_s / 8));
    }
}

fn insert_raw(options: &mut dhcproto::v4::DhcpOptions, code: u8, data: Vec<u8>) {
    let option = UnknownOption::new(OptionCode::from(code), data);
    options.insert(DhcpOption::Unknown(option));
}
