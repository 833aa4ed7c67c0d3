//! The boot decision and the DHCP answers, as tables that people can read.

#![expect(
    clippy::unwrap_used,
    reason = "the helpers of tests may fail as tests may"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};

use dhcproto::v4::{
    Architecture, DhcpOption, Flags, Message, MessageType, Opcode, OptionCode, UnknownOption,
};
use dhcproto::{Decodable, Decoder, Encodable};
use proptest::prelude::*;
use undercroft_model::{MacAddr, NodeName, System};
use undercroft_netboot::arch::IpxeBinary;
use undercroft_netboot::decision::{BootClient, InstallerImage};
use undercroft_netboot::dhcp::relay::RelayInfo;
use undercroft_netboot::dhcp::{
    Destination, Handled, Incoming, LeaseStore, Port, ServerView, handle,
};
use undercroft_netboot::server::DhcpSettings;
use undercroft_netboot::table::{FirmwareKind, MachineSwitches, Pxe4011, UnknownPolicy};
use undercroft_netboot::{
    BootAction, BootIntent, BootProtocol, BootRequest, BootTable, ClientArch, DropReason,
    EventKind, Machine, Mode, Site, decide,
};

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const UUID: &str = "7d4b1c1e-8f4e-4a53-9c34-0d7a3e1b2c3d";

fn mac(n: u8) -> MacAddr {
    MacAddr([0x52, 0x54, 0, 0, 0, n])
}

fn pi_mac() -> MacAddr {
    MacAddr([0xdc, 0xa6, 0x32, 0, 0, 1])
}

fn site() -> Site {
    let image = |system: &str| InstallerImage {
        kernel: format!("{system}/kernel"),
        initrd: format!("{system}/initrd"),
        params: vec!["console=tty0".into()],
    };
    let ipxe = BTreeSet::from([
        IpxeBinary::Undionly,
        IpxeBinary::X64,
        IpxeBinary::SnponlyX64,
        IpxeBinary::Arm64,
    ]);
    let mut artifacts: BTreeSet<String> = ipxe.iter().map(|b| b.file_name().to_owned()).collect();
    for name in [
        "x86_64-linux/kernel",
        "x86_64-linux/initrd",
        "pi/config.txt",
        "pi/start4.elf",
    ] {
        artifacts.insert(name.into());
    }
    Site {
        address: SERVER,
        http_port: 8080,
        installers: BTreeMap::from([
            (System::X86_64Linux, image("x86_64-linux")),
            (System::Aarch64Linux, image("aarch64-linux")),
        ]),
        ipxe,
        artifacts,
    }
}

fn machine(name: &str, n: u8, intent: BootIntent) -> Machine {
    let name = NodeName::new(name).unwrap();
    Machine::new(name, vec![mac(n)], System::X86_64Linux, intent)
}

fn table() -> BootTable {
    let machines = [
        Machine {
            uuid: Some(UUID.parse().unwrap()),
            address: Some([10, 0, 0, 11].into()),
            kernel_params: vec!["console=ttyS0".into()],
            ..machine("install", 1, BootIntent::Install)
        },
        machine("local", 2, BootIntent::Local),
        machine("discover", 3, BootIntent::Discover),
        machine("quarantine", 4, BootIntent::Quarantine),
        machine("ignore", 5, BootIntent::Ignore),
        Machine {
            switches: MachineSwitches {
                pxe_4011: Pxe4011::Only,
                snponly: true,
                ..MachineSwitches::default()
            },
            ..machine("coaxed", 6, BootIntent::Install)
        },
        Machine {
            macs: vec![pi_mac()],
            system: System::Aarch64Linux,
            firmware: FirmwareKind::RaspberryPi,
            pi_serial: Some(0xa1b2_c3d4),
            ..machine("pi", 7, BootIntent::Install)
        },
    ];
    BootTable::new(machines, UnknownPolicy::Discover).unwrap()
}

fn row(name: &str, action: &BootAction) -> String {
    match action {
        BootAction::Text(text) => {
            let second = text.lines().nth(1).unwrap_or(text);
            format!("{name}: text {second}")
        }
        action => format!("{name}: {action:?}"),
    }
}

/// Each machine, over each protocol, with each kind of client.
#[test]
fn one_decision_for_all_protocols() {
    let (table, site) = (table(), site());
    let mut lines = String::new();
    let clients = [
        (BootClient::Pxe, ClientArch::BIOS),
        (BootClient::Pxe, ClientArch::UEFI_X64),
        (BootClient::UefiHttp, ClientArch::UEFI_X64_HTTP),
        (BootClient::Ipxe, ClientArch::UEFI_X64),
        (BootClient::None, ClientArch::UEFI_X64),
    ];
    for n in 1..=6u8 {
        let name = table.by_mac(mac(n)).unwrap().name.clone();
        for protocol in [
            BootProtocol::Dhcp,
            BootProtocol::ProxyDhcp,
            BootProtocol::Pxe4011,
        ] {
            for (client, arch) in clients {
                let request = BootRequest {
                    client,
                    arch: Some(arch),
                    mac: Some(mac(n)),
                    ..BootRequest::new(protocol)
                };
                let decision = decide(&table, &site, &request);
                let what = format!("{name} {protocol:?} {client:?} {}", arch.0);
                let _ = writeln!(
                    lines,
                    "{} ({})",
                    row(&what, &decision.action),
                    decision.reason
                );
            }
        }
        for (protocol, path) in [
            (BootProtocol::Tftp, "autoexec.ipxe"),
            (BootProtocol::Tftp, "undionly.kpxe"),
            (BootProtocol::Http, "boot.ipxe"),
            (BootProtocol::Http, "artifacts/x86_64-linux/kernel"),
        ] {
            let request = BootRequest {
                mac: Some(mac(n)),
                arch: Some(ClientArch::UEFI_X64),
                path: Some(path),
                ..BootRequest::new(protocol)
            };
            let decision = decide(&table, &site, &request);
            let what = format!("{name} {protocol:?} {path}");
            let _ = writeln!(
                lines,
                "{} ({})",
                row(&what, &decision.action),
                decision.reason
            );
        }
    }
    insta::assert_snapshot!(lines);
}

#[test]
fn scripts_read_well() {
    let (table, site) = (table(), site());
    let script = |n: u8, uuid: Option<&str>, arch: Option<ClientArch>| {
        let request = BootRequest {
            mac: Some(mac(n)),
            uuid: uuid.map(|u| u.parse().unwrap()),
            arch,
            path: Some("boot.ipxe"),
            ..BootRequest::new(BootProtocol::Http)
        };
        match decide(&table, &site, &request).action {
            BootAction::Text(text) => text,
            other => panic!("{other:?}"),
        }
    };
    let other_uuid = "11111111-2222-3333-4444-555555555555";
    let uefi = Some(ClientArch::UEFI_X64);
    let all = [
        ("install", script(1, Some(UUID), uefi)),
        ("local, UEFI", script(2, None, uefi)),
        ("local, BIOS", script(2, None, Some(ClientArch::BIOS))),
        ("local, not said", script(2, None, None)),
        ("unknown", script(99, None, uefi)),
        ("unknown, architecture not said", script(99, None, None)),
        ("conflict", script(1, Some(other_uuid), uefi)),
        (
            "another architecture",
            script(1, None, Some(ClientArch::UEFI_ARM64)),
        ),
    ];
    let mut text = String::new();
    for (name, script) in all {
        let _ = writeln!(text, "== {name}\n{script}");
    }
    let request = BootRequest {
        path: Some("autoexec.ipxe"),
        ..BootRequest::new(BootProtocol::Tftp)
    };
    if let BootAction::Text(script) = decide(&table, &site, &request).action {
        let _ = writeln!(text, "== autoexec\n{script}");
    }
    insta::assert_snapshot!(text);
}

#[test]
fn raspberry_pi_files_are_found_by_serial_number() {
    let (table, site) = (table(), site());
    let ask = |path: &str, from: Option<MacAddr>| {
        let request = BootRequest {
            mac: from,
            path: Some(path),
            ..BootRequest::new(BootProtocol::Tftp)
        };
        decide(&table, &site, &request).action
    };
    let file = BootAction::Serve("pi/config.txt".into());
    assert_eq!(ask("a1b2c3d4/config.txt", None), file);
    assert_eq!(ask("config.txt", Some(pi_mac())), file);
    assert_eq!(ask("a1b2c3d4/missing.txt", None), BootAction::NotFound);
    assert_eq!(ask("config.txt", None), BootAction::NotFound);
    assert_eq!(
        ask("a1b2c3d4/config.txt", Some(mac(1))),
        BootAction::NotFound,
        "another machine's address with this serial number is a conflict"
    );
    match ask("a1b2c3d4/cmdline.txt", None) {
        BootAction::Text(text) => {
            insta::assert_snapshot!(text, @"console=tty0 undercroft.node=pi undercroft.mode=install undercroft.report=http://10.0.0.1:8080/v1/report undercroft.authorized-keys=http://10.0.0.1:8080/v1/authorized_keys")
        }
        other => panic!("{other:?}"),
    }
}

fn mode_server() -> Mode {
    Mode::Server(DhcpSettings {
        gateway: Some([10, 0, 0, 254].into()),
        dns: vec![[10, 0, 0, 53].into()],
        domain: Some("example.org".into()),
        ..DhcpSettings::range([10, 0, 0, 100].into(), [10, 0, 0, 110].into())
    })
}

fn packet(kind: MessageType, from: MacAddr, class: &str, arch: Option<u16>) -> Message {
    let zero = Ipv4Addr::UNSPECIFIED;
    let mut message = Message::new_with_id(0x0102_0304, zero, zero, zero, zero, &from.0);
    message.set_flags(Flags::default().set_broadcast());
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(kind));
    if !class.is_empty() {
        options.insert(DhcpOption::ClassIdentifier(class.as_bytes().to_vec()));
    }
    if let Some(arch) = arch {
        options.insert(DhcpOption::ClientSystemArchitecture(Architecture::from(
            arch,
        )));
    }
    message
}

fn ask_on(port: Port, mode: &Mode, message: &Message, leases: &mut LeaseStore) -> Handled {
    ask_bytes(port, mode, &message.to_vec().unwrap(), leases)
}

fn ask_bytes(port: Port, mode: &Mode, bytes: &[u8], leases: &mut LeaseStore) -> Handled {
    let (table, site) = (table(), site());
    let source = SocketAddrV4::new([10, 0, 0, 200].into(), 68);
    let view = ServerView {
        table: &table,
        site: &site,
        mode,
        prefix_bits: 24,
    };
    let incoming = Incoming {
        packet: bytes,
        source,
        port,
        now_ms: 1_000_000,
    };
    handle(incoming, view, leases)
}

fn store() -> LeaseStore {
    LeaseStore::new([10, 0, 0, 100].into(), [10, 0, 0, 110].into())
}

fn ask(mode: &Mode, message: &Message) -> Handled {
    ask_on(Port::Dhcp, mode, message, &mut store())
}

fn show(handled: &Handled) -> String {
    match &handled.answer {
        Err(reason) => format!("no answer: {reason}"),
        Ok(reply) => {
            let m = Message::decode(&mut Decoder::new(&reply.bytes)).unwrap();
            let text = |bytes: Option<&[u8]>| {
                String::from_utf8_lossy(bytes.unwrap_or_default())
                    .trim_end_matches('\0')
                    .to_owned()
            };
            let mut out = format!(
                "to {:?}, {} bytes\n  yiaddr {} siaddr {} giaddr {} sname {:?} file {:?}\n",
                reply.to,
                reply.bytes.len(),
                m.yiaddr(),
                m.siaddr(),
                m.giaddr(),
                text(m.sname()),
                text(m.fname())
            );
            for (_, option) in m.opts().iter() {
                let _ = match option {
                    DhcpOption::ClassIdentifier(b)
                    | DhcpOption::BootfileName(b)
                    | DhcpOption::TFTPServerName(b) => {
                        writeln!(
                            out,
                            "  {:?} {:?}",
                            OptionCode::from(option),
                            String::from_utf8_lossy(b)
                        )
                    }
                    DhcpOption::VendorExtensions(b) | DhcpOption::ClientMachineIdentifier(b) => {
                        writeln!(out, "  {:?} {}", OptionCode::from(option), hex(b))
                    }
                    other => writeln!(out, "  {other:?}"),
                };
            }
            out
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn golden_answers() {
    let uefi = "PXEClient:Arch:00007:UNDI:003016";
    let server = mode_server();
    let mut text = String::new();
    let mut add = |name: &str, handled: Handled| {
        let _ = writeln!(text, "== {name}\n{}", show(&handled));
    };

    let mut full = packet(MessageType::Discover, mac(1), uefi, Some(7));
    let mut id = vec![0u8];
    id.extend_from_slice(&[
        0x1e, 0x1c, 0x4b, 0x7d, 0x4e, 0x8f, 0x53, 0x4a, 0x9c, 0x34, 0x0d, 0x7a, 0x3e, 0x1b, 0x2c,
        0x3d,
    ]);
    full.opts_mut()
        .insert(DhcpOption::ClientMachineIdentifier(id));
    full.opts_mut()
        .insert(DhcpOption::ParameterRequestList(vec![
            OptionCode::DomainName,
            OptionCode::TFTPServerName,
            OptionCode::BootfileName,
        ]));
    add("own DHCP, x64 UEFI, all options", ask(&server, &full));
    add("proxy, x64 UEFI", ask(&Mode::Proxy, &full));
    let mut relayed = full.clone();
    relayed.set_giaddr([10, 0, 0, 253]).set_hops(1);
    relayed
        .opts_mut()
        .insert(DhcpOption::Unknown(UnknownOption::new(
            OptionCode::from(82),
            vec![1, 2, b'p', b'1'],
        )));
    add("own DHCP, through a relay", ask(&server, &relayed));

    let mut ipxe = full.clone();
    ipxe.opts_mut()
        .insert(DhcpOption::UserClass(b"iPXE".to_vec()));
    add("own DHCP, iPXE", ask(&server, &ipxe));
    add("proxy, iPXE", ask(&Mode::Proxy, &ipxe));

    let http = packet(
        MessageType::Discover,
        mac(9),
        "HTTPClient:Arch:00016:UNDI:003001",
        Some(16),
    );
    add(
        "own DHCP, UEFI HTTP boot, unknown machine",
        ask(&server, &http),
    );
    let bios = packet(
        MessageType::Discover,
        mac(9),
        "PXEClient:Arch:00000:UNDI:002001",
        Some(0),
    );
    add("proxy, BIOS, unknown machine", ask(&Mode::Proxy, &bios));
    let ia32 = packet(
        MessageType::Discover,
        mac(9),
        "PXEClient:Arch:00006:UNDI:003016",
        Some(6),
    );
    add("proxy, 32-bit UEFI, no binary", ask(&Mode::Proxy, &ia32));
    let coaxed = packet(MessageType::Discover, mac(6), uefi, Some(7));
    add(
        "proxy, a machine that must ask port 4011",
        ask(&Mode::Proxy, &coaxed),
    );
    let mut boot_server = packet(MessageType::Request, mac(6), uefi, Some(7));
    boot_server.set_ciaddr([10, 0, 0, 200]);
    boot_server
        .opts_mut()
        .insert(DhcpOption::VendorExtensions(vec![71, 4, 0, 0, 0, 0, 255]));
    add(
        "port 4011",
        ask_on(Port::Pxe, &Mode::Proxy, &boot_server, &mut store()),
    );

    let mut pi = packet(
        MessageType::Discover,
        pi_mac(),
        "PXEClient:Arch:00000:UNDI:002001",
        Some(0),
    );
    let pi_id = b"\0RPi4\x11\x31\xc0\x00\x32\x00\x00\x01\xd4\xc3\xb2\xa1".to_vec();
    pi.opts_mut()
        .insert(DhcpOption::ClientMachineIdentifier(pi_id));
    add("own DHCP, Raspberry Pi", ask(&server, &pi));
    add("proxy, Raspberry Pi", ask(&Mode::Proxy, &pi));
    let mut pi_request = pi.clone();
    pi_request.opts_mut().remove(OptionCode::ClassIdentifier);
    pi_request
        .opts_mut()
        .insert(DhcpOption::MessageType(MessageType::Request));
    pi_request
        .opts_mut()
        .insert(DhcpOption::ServerIdentifier(SERVER));
    pi_request
        .opts_mut()
        .insert(DhcpOption::RequestedIpAddress([10, 0, 0, 105].into()));
    add(
        "own DHCP, Raspberry Pi's REQUEST without option 60",
        ask(&server, &pi_request),
    );

    let system = packet(MessageType::Discover, mac(2), "", None);
    add("own DHCP, a running system", ask(&server, &system));
    let local = packet(MessageType::Discover, mac(2), uefi, Some(7));
    add(
        "own DHCP, firmware of an installed machine",
        ask(&server, &local),
    );
    let quarantined = packet(MessageType::Discover, mac(4), uefi, Some(7));
    add(
        "own DHCP, a quarantined machine",
        ask(&server, &quarantined),
    );
    let ignored = packet(MessageType::Discover, mac(5), uefi, Some(7));
    add("own DHCP, an ignored machine", ask(&server, &ignored));
    insta::assert_snapshot!(text);
}

#[test]
fn requests_for_the_wrong_address_or_server() {
    let server = mode_server();
    let request = |from: MacAddr, to: Option<Ipv4Addr>, wanted: [u8; 4]| {
        let mut message = packet(MessageType::Request, from, "", None);
        if let Some(to) = to {
            message.opts_mut().insert(DhcpOption::ServerIdentifier(to));
        }
        message
            .opts_mut()
            .insert(DhcpOption::RequestedIpAddress(wanted.into()));
        let handled = ask(&server, &message);
        match handled.answer {
            Err(reason) => reason.to_string(),
            Ok(reply) => {
                let m = Message::decode(&mut Decoder::new(&reply.bytes)).unwrap();
                format!(
                    "{:?} {} {:?}",
                    m.opts().msg_type().unwrap(),
                    m.yiaddr(),
                    reply.to
                )
            }
        }
    };
    assert_eq!(
        request(mac(1), Some(SERVER), [10, 0, 0, 11]),
        "Ack 10.0.0.11 Broadcast"
    );
    assert_eq!(
        request(mac(1), None, [10, 0, 0, 11]),
        "Ack 10.0.0.11 Broadcast"
    );
    assert_eq!(
        request(mac(1), Some(SERVER), [10, 0, 0, 101]),
        "Nak 0.0.0.0 Broadcast"
    );
    assert_eq!(
        request(mac(9), Some(SERVER), [10, 0, 0, 11]),
        "Nak 0.0.0.0 Broadcast"
    );
    assert_eq!(
        request(mac(9), None, [10, 0, 0, 105]),
        "Ack 10.0.0.105 Broadcast"
    );
    assert_eq!(
        request(mac(9), None, [192, 168, 0, 5]),
        "Nak 0.0.0.0 Broadcast"
    );
    assert_eq!(
        request(mac(1), Some([10, 0, 0, 2].into()), [10, 0, 0, 11]),
        DropReason::OtherServer.to_string()
    );
}

#[test]
fn ipxe_is_never_sent_back_to_the_beginning_of_the_chain() {
    for class in [&b"iPXE"[..], b"\x04iPXE", b"undercroft", b"gPXE"] {
        for mode in [mode_server(), Mode::Proxy] {
            let mut message = packet(
                MessageType::Discover,
                mac(1),
                "PXEClient:Arch:00000:UNDI:002001",
                Some(0),
            );
            message
                .opts_mut()
                .insert(DhcpOption::UserClass(class.to_vec()));
            let shown = show(&ask(&mode, &message));
            assert!(
                shown.contains("http://10.0.0.1:8080/boot.ipxe?mac="),
                "{shown}"
            );
        }
    }
}

#[test]
fn our_own_and_looping_packets_are_dropped() {
    let server = mode_server();
    let mut reply = packet(MessageType::Offer, mac(1), "PXEClient", Some(7));
    reply.set_opcode(Opcode::BootReply);
    assert_eq!(ask(&server, &reply).answer, Err(DropReason::NotARequest));
    let mut hops = packet(MessageType::Discover, mac(1), "PXEClient", Some(7));
    hops.set_hops(17);
    assert_eq!(ask(&server, &hops).answer, Err(DropReason::TooManyHops));
    let zero = packet(MessageType::Discover, MacAddr([0; 6]), "PXEClient", Some(7));
    assert_eq!(
        ask(&server, &zero).answer,
        Err(DropReason::BadHardwareAddress)
    );
    let good = packet(MessageType::Discover, mac(1), "PXEClient", Some(7))
        .to_vec()
        .unwrap();
    let (table, site) = (table(), site());
    let view = ServerView {
        table: &table,
        site: &site,
        mode: &server,
        prefix_bits: 24,
    };
    let own = Incoming {
        packet: &good,
        source: SocketAddrV4::new(SERVER, 67),
        port: Port::Dhcp,
        now_ms: 0,
    };
    assert_eq!(
        handle(own, view, &mut store()).answer,
        Err(DropReason::OwnAddress)
    );
}

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
