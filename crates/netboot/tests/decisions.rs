//! The boot decision and the DHCP answers, as tables that people can read.

#![expect(
    clippy::unwrap_used,
    reason = "the helpers of tests may fail as tests may"
)]

#[path = "decisions/relays.rs"]
mod relays;

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
use undercroft_netboot::decision::BootClient;
use undercroft_netboot::dhcp::relay::RelayInfo;
use undercroft_netboot::dhcp::{
    Destination, Handled, Incoming, LeaseStore, Port, ServerView, handle,
};
use undercroft_netboot::server::DhcpSettings;
use undercroft_netboot::site::ServedInstaller;
use undercroft_netboot::table::{FirmwareKind, MachineSwitches, Pxe4011, UnknownPolicy};
use undercroft_netboot::{
    BootAction, BootIntent, BootMachine, BootProtocol, BootRequest, BootTable, ClientArch,
    DropReason, EventKind, Mode, Site, decide,
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
    let image = |system: &str| ServedInstaller {
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

fn machine(name: &str, n: u8, intent: BootIntent) -> BootMachine {
    let name = NodeName::new(name).unwrap();
    BootMachine::new(name, vec![mac(n)], System::X86_64Linux, intent)
}

fn table() -> BootTable {
    let machines = [
        BootMachine {
            uuid: Some(UUID.parse().unwrap()),
            address: Some([10, 0, 0, 11].into()),
            kernel_params: vec!["console=ttyS0".into()],
            ..machine("install", 1, BootIntent::Install)
        },
        machine("local", 2, BootIntent::Local),
        machine("discover", 3, BootIntent::Discover),
        machine("quarantine", 4, BootIntent::Quarantine),
        machine("ignore", 5, BootIntent::Ignore),
        BootMachine {
            switches: MachineSwitches {
                pxe_4011: Pxe4011::Only,
                snponly: true,
                ..MachineSwitches::default()
            },
            ..machine("coaxed", 6, BootIntent::Install)
        },
        BootMachine {
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

    // A relay is told to broadcast a refusal (RFC 2131, section 4.3.2), and nothing else of a client's
    // that takes unicast.
    for (wanted, broadcast) in [([10, 0, 0, 11], false), ([192, 168, 0, 5], true)] {
        let mut message = packet(MessageType::Request, mac(1), "", None);
        message.set_giaddr([10, 0, 0, 253]).set_hops(1);
        message.set_flags(Flags::default());
        let options = message.opts_mut();
        options.insert(DhcpOption::ServerIdentifier(SERVER));
        options.insert(DhcpOption::RequestedIpAddress(wanted.into()));
        let reply = ask(&server, &message).answer.unwrap();
        let reply = Message::decode(&mut Decoder::new(&reply.bytes)).unwrap();
        assert_eq!(reply.flags().broadcast(), broadcast, "{wanted:?}");
    }
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
