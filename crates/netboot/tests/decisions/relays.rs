//! Relays, architectures, and packets that aren't what they should be.

use super::*;

/// The options of a packet, in order.
fn options_of(packet: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut all = Vec::new();
    let mut rest = packet.get(240..).unwrap_or_default();
    while let [code, len, tail @ ..] = rest {
        match code {
            0 => rest = rest.get(1..).unwrap_or_default(),
            255 => break,
            _ => {
                let Some((value, tail)) = tail.split_at_checked(usize::from(*len)) else {
                    break;
                };
                all.push((*code, value.to_vec()));
                rest = tail;
            }
        }
    }
    all
}

/// An option, its parts joined.
fn option_of(packet: &[u8], code: u8) -> Option<Vec<u8>> {
    let parts = options_of(packet);
    let mut parts = parts.into_iter().filter(|(c, _)| *c == code).peekable();
    parts.peek()?;
    Some(parts.flat_map(|(_, value)| value).collect())
}

fn relayed(kind: MessageType, giaddr: [u8; 4], info: &[u8]) -> Message {
    let mut message = packet(kind, mac(1), "PXEClient:Arch:00007:UNDI:003016", Some(7));
    message.set_giaddr(giaddr);
    message.set_flags(Flags::default());
    let option = UnknownOption::new(OptionCode::from(82), info.to_vec());
    message.opts_mut().insert(DhcpOption::Unknown(option));
    message
}

/// A relayed packet as a relay writes it: option 82 once and last.
fn relayed_bytes(kind: MessageType, giaddr: [u8; 4], info: &[u8], more: &[u8]) -> Vec<u8> {
    let mut message = relayed(kind, giaddr, info);
    message.opts_mut().remove(OptionCode::from(82));
    let mut bytes = message.to_vec().unwrap();
    bytes.pop();
    bytes.extend_from_slice(more);
    bytes.extend_from_slice(&[82, info.len() as u8]);
    bytes.extend_from_slice(info);
    bytes.push(255);
    bytes
}

#[test]
fn what_a_relay_wrote_comes_back_once_and_last() {
    let info = b"\x01\x04eth1\x02\x03abc";
    for mode in [mode_server(), Mode::Proxy] {
        let bytes = relayed_bytes(MessageType::Discover, [10, 0, 0, 254], info, &[]);
        let handled = ask_bytes(Port::Dhcp, &mode, &bytes, &mut store());
        let reply = handled.answer.unwrap();
        assert_eq!(reply.to, Destination::Relay([10, 0, 0, 254].into()));
        let options = options_of(&reply.bytes);
        assert_eq!(options.last(), Some(&(82, info.to_vec())));
        assert_eq!(options.iter().filter(|(code, _)| *code == 82).count(), 1);
    }
}

#[test]
fn a_relay_says_which_network_and_which_server() {
    // RFC 3527: the relay's own address is of another network than its client.
    let link = [5, 4, 10, 0, 0, 254];
    let far = [192, 168, 9, 2];
    let server = mode_server();
    let discover = |info: &[u8], more: &[u8]| {
        let bytes = relayed_bytes(MessageType::Discover, far, info, more);
        ask_bytes(Port::Dhcp, &server, &bytes, &mut store()).answer
    };
    assert_eq!(discover(b"\x01\x01x", &[]), Err(DropReason::NoAddress));
    let reply = discover(&link, &[]).unwrap();
    assert_eq!(reply.to, Destination::Relay(far.into()));
    assert_eq!(option_of(&reply.bytes, 54), Some(SERVER.octets().to_vec()));
    // A link that isn't ours gets nothing, even by a relay that is.
    let foreign = relayed_bytes(
        MessageType::Discover,
        [10, 0, 0, 254],
        &[5, 4, 10, 9, 0, 1],
        &[],
    );
    let handled = ask_bytes(Port::Dhcp, &server, &foreign, &mut store());
    assert_eq!(handled.answer, Err(DropReason::NoAddress));

    // RFC 5107: clients take the relay for the server, and send their REQUEST to it.
    let over = [link.as_slice(), &[11, 4, 10, 0, 0, 254]].concat();
    let reply = discover(&over, &[]).unwrap();
    assert_eq!(option_of(&reply.bytes, 54), Some(vec![10, 0, 0, 254]));
    assert_eq!(
        reply.bytes.get(20..24),
        Some(&SERVER.octets()[..]),
        "siaddr is where files are"
    );
    let request = |server_id: [u8; 4], info: &[u8]| {
        let mut more = vec![54, 4];
        more.extend(server_id);
        more.extend([50, 4, 10, 0, 0, 11]);
        let bytes = relayed_bytes(MessageType::Request, far, info, &more);
        ask_bytes(Port::Dhcp, &server, &bytes, &mut store()).answer
    };
    let ack = request([10, 0, 0, 254], &over).unwrap();
    assert_eq!(option_of(&ack.bytes, 53), Some(vec![5]));
    assert_eq!(option_of(&ack.bytes, 54), Some(vec![10, 0, 0, 254]));
    assert!(request(SERVER.octets(), &over).is_ok());
    assert_eq!(
        request([10, 0, 0, 254], &link),
        Err(DropReason::OtherServer)
    );
    // A proxy isn't a server of addresses: it would be taken for the one that the client chose.
    let bytes = relayed_bytes(MessageType::Discover, far, &over, &[]);
    let proxy = ask_bytes(Port::Dhcp, &Mode::Proxy, &bytes, &mut store())
        .answer
        .unwrap();
    assert_eq!(option_of(&proxy.bytes, 54), Some(SERVER.octets().to_vec()));

    // RFC 8357: the answer goes to the port that the relay sends from.
    let port = [link.as_slice(), &[19, 0]].concat();
    let to = discover(&port, &[]).unwrap().to;
    assert_eq!(to, Destination::Source(SocketAddrV4::new(far.into(), 68)));
}

#[test]
fn all_architectures_of_a_client_are_looked_at() {
    let file = |archs: &[u16], class: &str| {
        let mut bytes = packet(MessageType::Discover, mac(1), class, None)
            .to_vec()
            .unwrap();
        bytes.pop();
        bytes.extend([93, archs.len() as u8 * 2]);
        bytes.extend(archs.iter().flat_map(|arch| arch.to_be_bytes()));
        bytes.push(255);
        let handled = ask_bytes(Port::Dhcp, &mode_server(), &bytes, &mut store());
        let reply = handled.answer.unwrap();
        let m = Message::decode(&mut Decoder::new(&reply.bytes)).unwrap();
        let text = String::from_utf8_lossy(m.fname().unwrap_or_default()).into_owned();
        let said = handled.events.iter().find_map(|event| match event {
            EventKind::NothingToBoot { reason } => Some(format!(" ({reason})")),
            _ => None,
        });
        text.trim_end_matches('\0').to_owned() + &said.unwrap_or_default()
    };
    let pxe = "PXEClient";
    assert_eq!(file(&[7], pxe), "ipxe-x64.efi");
    assert_eq!(
        file(&[6, 7], pxe),
        "ipxe-x64.efi",
        "no binary for the first"
    );
    assert_eq!(file(&[27, 65_000, 9], pxe), "ipxe-x64.efi");
    assert_eq!(file(&[11, 7], pxe), "ipxe-x64.efi", "its system is x86_64");
    assert_eq!(file(&[16, 7], pxe), "ipxe-x64.efi", "it loads by TFTP");
    assert_eq!(
        file(&[7, 16], "HTTPClient"),
        "http://10.0.0.1:8080/artifacts/ipxe-x64.efi"
    );
    insta::assert_snapshot!(file(&[27, 12], pxe), @" (no iPXE binary is served for architecture 27 (64-bit RISC-V UEFI))");
    insta::assert_snapshot!(file(&[22], pxe), @" (the inventory says x86_64-linux, but it boots as arm64 UEFI)");
}

#[test]
fn every_architecture_gets_its_binary_or_a_reason() {
    for arch in 0..=100u16 {
        let unknown = packet(MessageType::Discover, mac(99), "PXEClient", Some(arch));
        let handled = ask(&mode_server(), &unknown);
        let shown = show(&handled);
        let said = handled
            .events
            .iter()
            .any(|event| matches!(event, EventKind::NothingToBoot { .. }));
        let named = [".efi", ".kpxe", "Raspberry Pi Boot"]
            .iter()
            .any(|w| shown.contains(w))
            || handled
                .events
                .iter()
                .any(|event| matches!(event, EventKind::DhcpOffer { boot: Some(_) }));
        assert!(said != named, "{arch}: {shown}");
    }
    for arch in [11, 22] {
        let board = packet(MessageType::Discover, mac(99), "PXEClient", Some(arch));
        assert!(
            show(&ask(&mode_server(), &board)).contains("ipxe-arm64.efi"),
            "{arch}"
        );
    }
}

#[test]
fn a_packet_that_can_not_be_read_is_still_somebodys() {
    let whole = packet(MessageType::Discover, mac(1), "PXEClient", Some(7))
        .to_vec()
        .unwrap();
    let mut odd = whole.clone();
    odd.splice(240.., [53, 1, 1, 93, 3, 0, 7, 0, 255]);
    for bytes in [
        &whole[..60],
        &whole[..244],
        &odd,
        &[whole.clone(), vec![0; 1500]].concat(),
    ] {
        let handled = ask_bytes(Port::Dhcp, &mode_server(), bytes, &mut store());
        assert!(handled.answer.unwrap_err().is_unreadable());
        assert_eq!(handled.mac, Some(mac(1)));
        assert_eq!(handled.node.unwrap().as_str(), "install");
    }
    let short = ask_bytes(Port::Dhcp, &mode_server(), &whole[..20], &mut store());
    assert_eq!(
        (short.mac, short.answer),
        (None, Err(DropReason::Truncated))
    );
}

#[test]
fn a_foreign_card_with_a_nodes_uuid_gets_neither_its_address_nor_its_installer() {
    let mut stranger = packet(MessageType::Discover, mac(77), "PXEClient", Some(7));
    let mut id = vec![0];
    let mut uuid = UUID.parse::<undercroft_model::MachineUuid>().unwrap().0;
    uuid[0..4].reverse();
    uuid[4..6].reverse();
    uuid[6..8].reverse();
    id.extend(uuid);
    stranger
        .opts_mut()
        .insert(DhcpOption::ClientMachineIdentifier(id));
    let handled = ask(&mode_server(), &stranger);
    assert_eq!(handled.node, None);
    assert!(
        matches!(&handled.events[1], EventKind::Quarantined { reason } if reason.contains("add it to `nodes.install.macs`"))
    );
    let reply = handled.answer.unwrap();
    let m = Message::decode(&mut Decoder::new(&reply.bytes)).unwrap();
    assert_ne!(m.yiaddr(), Ipv4Addr::new(10, 0, 0, 11));
    assert!(m.fname().is_none_or(|file| file.iter().all(|b| *b == 0)));
}

#[test]
fn a_fixed_address_that_was_declined_is_not_offered_again_at_once() {
    let mut leases = store();
    let mut decline = packet(MessageType::Decline, mac(1), "", None);
    decline
        .opts_mut()
        .insert(DhcpOption::RequestedIpAddress([10, 0, 0, 11].into()));
    let discover = packet(MessageType::Discover, mac(1), "PXEClient", Some(7));
    let server = mode_server();
    assert!(
        ask_on(Port::Dhcp, &server, &discover, &mut leases)
            .answer
            .is_ok()
    );
    let declined = ask_on(Port::Dhcp, &server, &decline, &mut leases);
    assert_eq!(declined.address, Some([10, 0, 0, 11].into()));
    let next = ask_on(Port::Dhcp, &server, &discover, &mut leases);
    assert_eq!(next.answer, Err(DropReason::AddressInUse));
}

/// Every answer that goes out is one that a client can read, comes from us, and goes to whoever
/// asked.
fn check_answer(handled: &Handled, bytes: &[u8]) {
    let Ok(reply) = &handled.answer else { return };
    let answer = Message::decode(&mut Decoder::new(&reply.bytes)).unwrap();
    assert_eq!(answer.opcode(), Opcode::BootReply);
    assert_eq!(Some(answer.chaddr()), bytes.get(28..34));
    assert_eq!(Some(answer.xid().to_be_bytes().as_slice()), bytes.get(4..8));
    let relay = option_of(bytes, 82).map(|raw| RelayInfo::parse(&raw));
    let server = answer.opts().get(OptionCode::ServerIdentifier);
    let over = relay.as_ref().and_then(|relay| relay.server);
    assert!([Some(SERVER), over].contains(&match server {
        Some(DhcpOption::ServerIdentifier(address)) => Some(*address),
        _ => None,
    }));
    let times = |code| {
        options_of(&reply.bytes)
            .iter()
            .filter(|(c, _)| *c == code)
            .count()
    };
    assert_eq!(
        times(82),
        usize::from(relay.is_some()),
        "option 82 is echoed once"
    );
    assert_eq!(option_of(&reply.bytes, 82), relay.map(|relay| relay.raw));
    assert!((300..=1472).contains(&reply.bytes.len()));
    if let Destination::Relay(to) | Destination::Client(to) = reply.to {
        assert!(!to.is_unspecified());
    }
}

proptest! {
    #[test]
    fn any_bytes_are_answered_rightly_or_dropped(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        for mode in [mode_server(), Mode::Proxy, Mode::Port4011Only] {
            for port in [Port::Dhcp, Port::Pxe] {
                check_answer(&ask_bytes(port, &mode, &bytes, &mut store()), &bytes);
            }
        }
    }

    #[test]
    fn a_packet_with_any_options_is_answered_rightly_or_dropped(
        kind in 1u8..9, from in 0u8..12, hops in 0u8..20, giaddr in any::<[u8; 4]>(), ciaddr in any::<[u8; 4]>(),
        options in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)), 0..12),
        known in prop::collection::vec((prop::sample::select(vec![43u8, 50, 54, 55, 57, 60, 77, 80, 81, 82, 93, 94, 97, 121, 151, 175]),
            prop::collection::vec(any::<u8>(), 0..20)), 0..8),
        cut in 0usize..40,
    ) {
        let mut bytes = packet(MessageType::Discover, mac(from), "PXEClient:Arch:00007", Some(7)).to_vec().unwrap();
        bytes[3] = hops;
        bytes[12..16].copy_from_slice(&ciaddr);
        bytes[24..28].copy_from_slice(&giaddr);
        bytes.truncate(240);
        bytes.extend([53, 1, kind]);
        for (code, value) in options.into_iter().chain(known) {
            bytes.extend([code, value.len() as u8]);
            bytes.extend(value);
        }
        bytes.truncate(bytes.len() - cut.min(bytes.len() - 240));
        for mode in [mode_server(), Mode::Proxy] {
            for port in [Port::Dhcp, Port::Pxe] {
                check_answer(&ask_bytes(port, &mode, &bytes, &mut store()), &bytes);
            }
        }
    }
}
