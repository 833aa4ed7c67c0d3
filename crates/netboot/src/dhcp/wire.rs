//! Reading DHCP packets: strict checks first, then the `dhcproto` crate.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use dhcproto::v4::{DhcpOption, Message, MessageType, OptionCode};
use dhcproto::{Decodable, Decoder};
use undercroft_model::MacAddr;

use crate::arch::{ClientArch, Transport};
use crate::decision::BootClient;
use crate::dhcp::relay::RelayInfo;
use crate::event::DropReason;
use crate::pi::{PiIdent, is_pi_mac};

/// The largest packet that is looked at: what an Ethernet frame carries.
pub const MAX_PACKET_BYTES: usize = 1500;
/// The most relays that a packet may have crossed (RFC 1542, section 4.1.1).
pub const MAX_HOPS: u8 = 16;

/// The fixed header and the magic cookie (RFC 2131, section 2).
const HEADER_BYTES: usize = 240;
const MAGIC_COOKIE: [u8; 4] = [99, 130, 83, 99];
const BOOT_REQUEST: u8 = 1;
const ETHERNET: u8 = 1;
const END: u8 = 255;

/// What a DHCP client sent, as far as netboot cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DhcpPacket {
    /// Option 53.
    pub message_type: MessageType,
    /// The client's transaction number.
    pub xid: u32,
    /// Seconds since the client began, as it says.
    pub secs: u16,
    /// The flags field; the highest bit asks for a broadcast answer.
    pub flags: u16,
    /// The client's address, if it has one already.
    pub ciaddr: Ipv4Addr,
    /// The relay that the packet came by, or 0.0.0.0.
    pub giaddr: Ipv4Addr,
    /// The client's Ethernet address.
    pub mac: MacAddr,
    /// Option 50: the address that the client would like.
    pub requested: Option<Ipv4Addr>,
    /// Option 54: the server that the client chose.
    pub server_id: Option<Ipv4Addr>,
    /// Option 60 begins with a boot client's token.
    pub class: VendorClass,
    /// Option 93, its first entry, or what option 60 says.
    pub arch: Option<ClientArch>,
    /// Option 93 whole, in the client's order; what option 60 says where it is missing.
    pub archs: Vec<ClientArch>,
    /// Option 97: its 16 octets; `None` where it is missing or empty.
    pub client_uuid: Option<[u8; 16]>,
    /// Option 97's type octet, for the echo.
    pub client_uuid_type: u8,
    /// Option 77 names iPXE, or option 175 is there.
    pub ipxe: bool,
    /// Option 55: the options that the client asks for.
    pub parameters: Vec<u8>,
    /// Option 57: the largest packet that the client takes, in bytes of IP.
    pub max_message_bytes: Option<u16>,
    /// Option 82.
    pub relay: Option<RelayInfo>,
    /// Option 43, sub-option 71: the boot item that is asked for on port 4011.
    pub boot_item: Option<[u8; 4]>,
}

/// The token that option 60 begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VendorClass {
    /// `PXEClient`.
    Pxe,
    /// `HTTPClient`.
    Http,
    /// Another, or none.
    Other,
}

impl DhcpPacket {
    /// Whether the client asked for an option in option 55.
    pub fn wants(&self, code: u8) -> bool {
        self.parameters.contains(&code)
    }

    /// A Raspberry Pi's own identification, if option 97 has it.
    pub fn pi(&self) -> Option<PiIdent> {
        PiIdent::parse(&self.client_uuid?, self.mac)
    }

    /// The architectures in the order in which they are tried: those that load their file as the
    /// client says it does in option 60 first.
    pub fn archs_to_try(&self) -> Vec<ClientArch> {
        let fits = |arch: &ClientArch| {
            arch.platform().is_some_and(|(_, transport)| {
                (transport == Transport::Http) == (self.class == VendorClass::Http)
            })
        };
        let (mut first, later): (Vec<_>, Vec<_>) = self.archs.iter().partition(|arch| fits(arch));
        first.extend(later);
        first
    }

    /// What kind of boot client this is.
    ///
    /// A Raspberry Pi's boot ROM says architecture 0, as a BIOS does, and its DHCPREQUEST may
    /// lack option 60 (rpi-eeprom issue 82); so its address and option 97 tell it. A system that
    /// runs on a Pi sends neither option 93 nor option 97.
    pub fn boot_client(&self) -> BootClient {
        let of_pi = |arch: &ClientArch| matches!(*arch, ClientArch::BIOS | ClientArch::RPIBOOT);
        let pi_arch = self.archs.is_empty() || self.archs.iter().any(of_pi);
        let says_pi = self.pi().is_some() || self.archs.contains(&ClientArch::RPIBOOT);
        let looks_pi = is_pi_mac(self.mac)
            && (self.class == VendorClass::Pxe || self.client_uuid.is_some())
            && pi_arch;
        if self.ipxe {
            BootClient::Ipxe
        } else if (says_pi && pi_arch) || looks_pi {
            BootClient::RaspberryPi
        } else {
            match self.class {
                VendorClass::Pxe => BootClient::Pxe,
                VendorClass::Http => BootClient::UefiHttp,
                VendorClass::Other => BootClient::None,
            }
        }
    }
}

/// The Ethernet address in the header of a packet that can't be read otherwise, where one stands
/// there: so that it is known whose packets are dropped.
pub fn peek_mac(packet: &[u8]) -> Option<MacAddr> {
    let octets = packet.get(28..34)?.try_into().ok()?;
    let is_ethernet = packet.get(1..3) == Some(&[ETHERNET, 6]);
    Some(MacAddr(octets)).filter(|mac| is_ethernet && !mac.is_multicast() && mac.0 != [0; 6])
}

/// Reads a packet from a client or a relay.
///
/// The header and the option list are checked here before the `dhcproto` crate sees them, and
/// only the options that netboot uses are passed on, each with a length that its format allows:
/// the crate asserts on the lengths of some others.
///
/// # Errors
/// Says why the packet is not to be answered.
pub fn decode(packet: &[u8]) -> Result<DhcpPacket, DropReason> {
    if packet.len() > MAX_PACKET_BYTES {
        return Err(DropReason::Oversized);
    }
    let (header, list) = packet
        .split_at_checked(HEADER_BYTES)
        .ok_or(DropReason::Truncated)?;
    let byte = |i: usize| header.get(i).copied().unwrap_or_default();
    if byte(0) != BOOT_REQUEST {
        return Err(DropReason::NotARequest);
    }
    if byte(1) != ETHERNET || byte(2) != 6 {
        return Err(DropReason::NotEthernet);
    }
    if byte(3) > MAX_HOPS {
        return Err(DropReason::TooManyHops);
    }
    if !header.ends_with(&MAGIC_COOKIE) {
        return Err(DropReason::Malformed);
    }
    let mac = MacAddr(std::array::from_fn(|i| byte(28 + i)));
    if mac.is_multicast() || mac.0 == [0; 6] {
        return Err(DropReason::BadHardwareAddress);
    }
    let options = collect_options(list)?;
    let message = decode_checked(header, &options)?;
    read_message(&message, &options, mac)
}

/// Walks the option list, and joins the parts of options that come in several (RFC 3396).
fn collect_options(mut list: &[u8]) -> Result<BTreeMap<u8, Vec<u8>>, DropReason> {
    let mut options: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
    loop {
        match list {
            // Some clients leave the end marker out.
            [] | [END, ..] => return Ok(options),
            [0, rest @ ..] => list = rest,
            [code, len, rest @ ..] => {
                let (value, rest) = rest
                    .split_at_checked(usize::from(*len))
                    .ok_or(DropReason::Truncated)?;
                options.entry(*code).or_default().extend_from_slice(value);
                list = rest;
            }
            [_] => return Err(DropReason::Truncated),
        }
    }
}

/// Whether netboot uses an option, and if so whether its length is one that its format allows.
fn check_length(code: u8, len: usize) -> Result<bool, DropReason> {
    let good = match code {
        53 => len == 1,
        50 | 54 => len == 4,
        57 => len == 2,
        93 => len >= 2 && len.is_multiple_of(2),
        97 => len == 0 || len == 17,
        43 | 55 | 60 | 77 | 82 | 175 => len <= 255,
        _ => return Ok(false),
    };
    good.then_some(true).ok_or(DropReason::Malformed)
}

fn decode_checked(header: &[u8], options: &BTreeMap<u8, Vec<u8>>) -> Result<Message, DropReason> {
    let mut clean = header.to_vec();
    for (code, value) in options {
        // Options 82 and 175 hold options of their own, and 93 a list, which are read as they are.
        if check_length(*code, value.len())? && !matches!(code, 82 | 93 | 175) && !value.is_empty()
        {
            let len = u8::try_from(value.len()).map_err(|_| DropReason::Malformed)?;
            clean.extend_from_slice(&[*code, len]);
            clean.extend_from_slice(value);
        }
    }
    clean.push(END);
    Message::decode(&mut Decoder::new(&clean)).map_err(|_| DropReason::Malformed)
}

fn read_message(
    message: &Message,
    raw: &BTreeMap<u8, Vec<u8>>,
    mac: MacAddr,
) -> Result<DhcpPacket, DropReason> {
    let options = message.opts();
    let message_type = options.msg_type().ok_or(DropReason::Malformed)?;
    let vendor_class = match options.get(OptionCode::ClassIdentifier) {
        Some(DhcpOption::ClassIdentifier(class)) => class.as_slice(),
        _ => &[],
    };
    let class = if vendor_class.starts_with(b"PXEClient") {
        VendorClass::Pxe
    } else if vendor_class.starts_with(b"HTTPClient") {
        VendorClass::Http
    } else {
        VendorClass::Other
    };
    // RFC 4578, section 2.1: a list of all architectures that the client can run.
    let archs: Vec<ClientArch> = match raw.get(&93) {
        Some(list) => list
            .chunks_exact(2)
            .filter_map(|pair| pair.try_into().ok())
            .map(|pair| ClientArch(u16::from_be_bytes(pair)))
            .collect(),
        None if class != VendorClass::Other => arch_of_class(vendor_class).into_iter().collect(),
        None => Vec::new(),
    };
    let machine_id = match options.get(OptionCode::ClientMachineIdentifier) {
        Some(DhcpOption::ClientMachineIdentifier(id)) => id.as_slice(),
        _ => &[],
    };
    let user_class = match options.get(OptionCode::UserClass) {
        Some(DhcpOption::UserClass(class)) => class.as_slice(),
        _ => &[],
    };
    let address = |option: Option<&DhcpOption>| match option {
        Some(DhcpOption::RequestedIpAddress(a) | DhcpOption::ServerIdentifier(a)) => Some(*a),
        _ => None,
    };
    let (client_uuid_type, client_uuid) = match machine_id.split_first() {
        Some((kind, octets)) => (*kind, octets.try_into().ok()),
        None => (0, None),
    };
    Ok(DhcpPacket {
        message_type,
        xid: message.xid(),
        secs: message.secs(),
        flags: message.flags().into(),
        ciaddr: message.ciaddr(),
        giaddr: message.giaddr(),
        mac,
        requested: address(options.get(OptionCode::RequestedIpAddress)),
        server_id: address(options.get(OptionCode::ServerIdentifier)),
        class,
        arch: archs.first().copied(),
        archs,
        client_uuid,
        client_uuid_type,
        ipxe: is_ipxe_class(user_class) || raw.contains_key(&175),
        parameters: raw.get(&55).cloned().unwrap_or_default(),
        max_message_bytes: match options.get(OptionCode::MaxMessageSize) {
            Some(DhcpOption::MaxMessageSize(bytes)) => Some(*bytes),
            _ => None,
        },
        relay: raw.get(&82).map(|raw| RelayInfo::parse(raw)),
        boot_item: raw.get(&43).and_then(|list| boot_item(list)),
    })
}

/// Whether a user class is iPXE's, as iPXE sends it (bare) or as RFC 3004 has it (each class with
/// its length before it). `undercroft` is the class that our own script sets, so that a chain
/// which is already ours is never sent back to its beginning.
fn is_ipxe_class(class: &[u8]) -> bool {
    const OURS: [&[u8]; 3] = [b"undercroft", b"iPXE", b"gPXE"];
    if OURS.contains(&class) {
        return true;
    }
    let mut rest = class;
    while let Some((len, tail)) = rest.split_first() {
        let Some((name, tail)) = tail.split_at_checked(usize::from(*len)) else {
            return false;
        };
        if OURS.contains(&name) {
            return true;
        }
        rest = tail;
    }
    false
}

/// The architecture in `PXEClient:Arch:00007:UNDI:003016` (PXE 2.1, section 2.2.1).
fn arch_of_class(class: &[u8]) -> Option<ClientArch> {
    let digits = class
        .split(|b| *b == b':')
        .skip_while(|part| *part != b"Arch")
        .nth(1)?;
    let text = std::str::from_utf8(digits).ok()?;
    (text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit()))
        .then(|| text.parse().ok().map(ClientArch))?
}

/// Sub-option 71 of option 43, `PXE_BOOT_ITEM` (PXE 2.1, table 2-3).
fn boot_item(mut list: &[u8]) -> Option<[u8; 4]> {
    loop {
        match list {
            [] | [END, ..] | [_] => return None,
            [0, rest @ ..] => list = rest,
            [code, len, rest @ ..] => {
                let (value, rest) = rest.split_at_checked(usize::from(*len))?;
                if *code == 71 {
                    return value.try_into().ok();
                }
                list = rest;
            }
        }
    }
}
