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

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    /// A packet with these options, which are followed by no end.
    fn packet(options: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; HEADER_BYTES];
        packet[0] = BOOT_REQUEST;
        packet[1] = ETHERNET;
        packet[2] = 6;
        packet[28..34].copy_from_slice(&MAC);
        packet[236..].copy_from_slice(&MAGIC_COOKIE);
        packet.extend_from_slice(options);
        packet
    }

    const DISCOVER: [u8; 3] = [53, 1, 1];

    #[test]
    fn each_field_of_the_header_is_held_to_its_format() {
        assert!(decode(&packet(&DISCOVER)).is_ok());
        for (at, byte, want) in [
            (0, 2, DropReason::NotARequest),
            (0, 0, DropReason::NotARequest),
            (1, 6, DropReason::NotEthernet),
            (2, 8, DropReason::NotEthernet),
            (3, MAX_HOPS + 1, DropReason::TooManyHops),
            (3, 255, DropReason::TooManyHops),
            (28, 3, DropReason::BadHardwareAddress),
            (236, 98, DropReason::Malformed),
            (239, 0, DropReason::Malformed),
        ] {
            let mut bytes = packet(&DISCOVER);
            bytes[at] = byte;
            assert_eq!(decode(&bytes).unwrap_err(), want, "{at}");
        }
        let mut bytes = packet(&DISCOVER);
        bytes[3] = MAX_HOPS;
        assert!(decode(&bytes).is_ok());
        bytes[28..34].fill(0);
        assert_eq!(decode(&bytes).unwrap_err(), DropReason::BadHardwareAddress);
        assert_eq!(
            decode(&bytes[..HEADER_BYTES - 1]).unwrap_err(),
            DropReason::Truncated
        );
        let mut bytes = packet(&DISCOVER);
        bytes.push(END);
        bytes.resize(MAX_PACKET_BYTES, 0);
        assert_eq!(decode(&bytes).unwrap().mac, MacAddr(MAC));
        for longer in [1, 2] {
            bytes.resize(MAX_PACKET_BYTES + longer, 0);
            assert_eq!(decode(&bytes).unwrap_err(), DropReason::Oversized);
        }
    }

    #[test]
    fn options_are_joined_padded_and_cut_off_as_the_rfcs_say() {
        let options = |list: &[u8]| collect_options(list);
        let one = |code: u8, value: &[u8]| Ok(BTreeMap::from([(code, value.to_vec())]));
        assert_eq!(options(&[]), Ok(BTreeMap::new()));
        assert_eq!(options(&[END, 1, 9]), Ok(BTreeMap::new()));
        assert_eq!(options(&[0, 0, 53, 1, 1, 0, END]), one(53, &[1]));
        assert_eq!(options(&[60, 2, 1, 2, 60, 1, 3]), one(60, &[1, 2, 3]));
        assert_eq!(options(&[97, 0]), one(97, &[]));
        for cut in [&[53][..], &[53, 1], &[53, 2, 1], &[0, 53]] {
            assert_eq!(options(cut), Err(DropReason::Truncated), "{cut:?}");
        }
    }

    #[test]
    fn an_option_of_a_length_that_it_can_not_have_spoils_the_packet() {
        for (code, good) in [
            (53, &[1][..]),
            (50, &[4]),
            (54, &[4]),
            (57, &[2]),
            (93, &[2, 4, 6, 254]),
            (97, &[0, 17]),
        ] {
            for length in 0..=255 {
                let mut list = DISCOVER.to_vec();
                if code == 53 {
                    list.clear();
                }
                list.extend_from_slice(&[code, u8::try_from(length).unwrap()]);
                list.resize(list.len() + length, 1);
                let fits = good.contains(&length) || code == 93 && length >= 2 && length % 2 == 0;
                let read = decode(&packet(&list));
                assert_eq!(read.is_ok(), fits, "option {code} of {length}: {read:?}");
            }
        }
        for code in [43, 55, 60, 77, 82, 175] {
            for (parts, fits) in [(1, true), (2, false)] {
                let mut list = DISCOVER.to_vec();
                for _ in 0..parts {
                    list.extend_from_slice(&[code, 255]);
                    list.resize(list.len() + 255, 0);
                }
                let read = decode(&packet(&list));
                assert_eq!(read.is_ok(), fits, "option {code}: {read:?}");
            }
        }
        // What netboot has no use for may be as it likes.
        assert!(decode(&packet(&[53, 1, 1, 12, 0, 61, 1, 1])).is_ok());
        assert_eq!(
            decode(&packet(&[12, 1, 65])).unwrap_err(),
            DropReason::Malformed
        );
    }

    #[test]
    fn what_a_client_says_of_itself_is_read() {
        let of = |more: &[u8]| decode(&packet(&[&DISCOVER, more].concat())).unwrap();
        let plain = of(&[]);
        assert_eq!(plain.message_type, MessageType::Discover);
        assert_eq!(
            (plain.class, plain.ipxe, plain.arch),
            (VendorClass::Other, false, None)
        );
        assert_eq!(
            (plain.requested, plain.server_id, &plain.relay),
            (None, None, &None)
        );
        assert_eq!(plain.boot_client(), BootClient::None);
        let full = of(&[
            50, 4, 10, 0, 0, 7, 54, 4, 10, 0, 0, 1, 57, 2, 5, 0xc0, 55, 2, 3, 67, 93, 4, 0, 7, 0,
            16,
        ]);
        assert_eq!(full.requested, Some([10, 0, 0, 7].into()));
        assert_eq!(full.server_id, Some([10, 0, 0, 1].into()));
        assert_eq!(full.max_message_bytes, Some(1472));
        assert!(full.wants(67) && full.wants(3) && !full.wants(66));
        assert_eq!(full.archs, [ClientArch(7), ClientArch(16)]);
        assert_eq!(full.arch, Some(ClientArch(7)));
        // Who asks for its file over HTTP gets an architecture that does so first.
        let http = of(b"\x3c\x0aHTTPClient\x5d\x06\0\x07\0\x10\0\x63");
        assert_eq!(http.archs_to_try(), [16, 7, 99].map(ClientArch));
        assert_eq!(full.archs_to_try(), [7, 16].map(ClientArch));
        assert_eq!(http.boot_client(), BootClient::UefiHttp);
        let class = of(b"\x3c\x20PXEClient:Arch:00009:UNDI:003016");
        assert_eq!(
            (class.class, class.arch),
            (VendorClass::Pxe, Some(ClientArch(9)))
        );
        assert_eq!(class.boot_client(), BootClient::Pxe);
        for odd in [
            "PXEClient:Arch:9",
            "PXEClient:Arch:0000x",
            "PXEClient",
            "PXEClient:Arch",
        ] {
            let mut option = vec![60, u8::try_from(odd.len()).unwrap()];
            option.extend_from_slice(odd.as_bytes());
            assert_eq!(of(&option).arch, None, "{odd}");
        }
    }

    #[test]
    fn a_pi_is_known_by_its_address_and_either_word_of_a_boot_rom() {
        let of = |more: &[u8]| {
            let mut bytes = packet(&[&DISCOVER, more].concat());
            bytes[28..31].copy_from_slice(&[0xdc, 0xa6, 0x32]);
            decode(&bytes).unwrap().boot_client()
        };
        let uuid = [&[97, 17, 0][..], &[1; 16]].concat();
        assert_eq!(of(b"\x3c\x09PXEClient"), BootClient::RaspberryPi);
        assert_eq!(of(&uuid), BootClient::RaspberryPi);
        assert_eq!(of(&[]), BootClient::None);
    }

    #[test]
    fn ipxe_is_known_by_either_form_of_its_class_or_by_its_own_options() {
        for (class, is_it) in [
            (&b"iPXE"[..], true),
            (b"gPXE", true),
            (b"undercroft", true),
            (b"\x04iPXE", true),
            (b"\x01x\x04iPXE", true),
            (b"\x04iPXE\x01x", true),
            (b"", false),
            (b"iPX", false),
            (b"iPXE2", false),
            (b"\x05iPXE", false),
            (b"\x03iPXE", false),
            (b"\x01x\x01y", false),
        ] {
            assert_eq!(is_ipxe_class(class), is_it, "{class:?}");
        }
        let own = decode(&packet(&[53, 1, 1, 175, 1, 0])).unwrap();
        assert!(own.ipxe);
        assert_eq!(own.boot_client(), BootClient::Ipxe);
    }

    #[test]
    fn the_boot_item_is_taken_out_of_the_vendors_options() {
        let item = Some([1, 2, 3, 4]);
        for (list, want) in [
            (&[71, 4, 1, 2, 3, 4][..], item),
            (&[0, 6, 1, 8, 71, 4, 1, 2, 3, 4, END], item),
            (&[71, 3, 1, 2, 3], None),
            (&[71, 4, 1, 2, 3], None),
            (&[END, 71, 4, 1, 2, 3, 4], None),
            (&[72, 4, 1, 2, 3, 4], None),
            (&[71], None),
            (&[], None),
        ] {
            assert_eq!(boot_item(list), want, "{list:?}");
        }
    }

    #[test]
    fn a_packet_that_can_not_be_read_may_still_say_whose_it_is() {
        let good = packet(&[]);
        assert_eq!(peek_mac(&good), Some(MacAddr(MAC)));
        assert_eq!(peek_mac(&good[..34]), Some(MacAddr(MAC)));
        assert_eq!(peek_mac(&good[..33]), None);
        for (at, byte) in [(1, 6), (2, 5), (28, 1)] {
            let mut other = good.clone();
            other[at] = byte;
            assert_eq!(peek_mac(&other), None, "{at}");
        }
        let mut none = good;
        none[28..34].fill(0);
        assert_eq!(peek_mac(&none), None);
    }
}
