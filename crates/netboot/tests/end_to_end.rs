//! The servers with real clients and a real DHCP server beside them, each test in namespaces of
//! its own.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of tests may fail as tests may"
)]

#[path = "end_to_end/http.rs"]
mod http;
mod support;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::{Path, PathBuf};

use dhcproto::v4::{DhcpOption, MessageType, OptionCode};
use support::{
    BRIDGE, CLIENT, Client, OTHER, SERVER, dnsmasq, file_of, in_namespace, in_netns, server_of,
    wait_for,
};
use undercroft_model::{MacAddr, NodeName, System};
use undercroft_netboot::arch::IpxeBinary;
use undercroft_netboot::event::Service;
use undercroft_netboot::server::{DhcpSettings, InstallerFiles};
use undercroft_netboot::table::UnknownPolicy;
use undercroft_netboot::{
    BootIntent, BootMachine, BootTable, DropReason, EventKind, Mode, Netboot, NetbootConfig,
    NetbootEvent,
};

const KNOWN: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
const BOOT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::BROADCAST, 67);

struct Site {
    folder: tempfile::TempDir,
    content: Vec<u8>,
}

impl Site {
    fn new() -> Self {
        let content: Vec<u8> = (0..3_000_001u32)
            .map(|n| (n.wrapping_mul(31) >> 7) as u8)
            .collect();
        let folder = tempfile::tempdir().unwrap();
        for name in ["kernel", "initrd", "ipxe.efi", "config.txt"] {
            std::fs::write(folder.path().join(name), &content).unwrap();
        }
        Self { folder, content }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self, mode: Mode) -> NetbootConfig {
        let mut config = NetbootConfig::new(BRIDGE, SERVER, 24, mode);
        config.installers = BTreeMap::from([(
            System::X86_64Linux,
            InstallerFiles {
                kernel: self.file("kernel"),
                initrd: self.file("initrd"),
                params: vec!["console=ttyS0".into()],
            },
        )]);
        config.ipxe = BTreeMap::from([(IpxeBinary::X64, self.file("ipxe.efi"))]);
        config.raspberry_pi = BTreeMap::from([("config.txt".into(), self.file("config.txt"))]);
        config.authorized_keys = "ssh-ed25519 AAAA operator\n".into();
        config
    }
}

fn server_mode() -> Mode {
    Mode::Server(DhcpSettings::range(
        Ipv4Addr::new(10, 77, 0, 50),
        Ipv4Addr::new(10, 77, 0, 60),
    ))
}

fn table(intent: BootIntent) -> BootTable {
    let name = NodeName::new("gpu-01").unwrap();
    let machine = BootMachine {
        address: Some(Ipv4Addr::new(10, 77, 0, 11)),
        pi_serial: Some(0xa1b2_c3d4),
        ..BootMachine::new(name, vec![MacAddr(KNOWN)], System::X86_64Linux, intent)
    };
    BootTable::new([machine], UnknownPolicy::Discover).unwrap()
}

/// Starts the servers on a runtime of their own, and stops them when the body is done.
fn with_servers(config: NetbootConfig, table: BootTable, body: impl FnOnce(&Netboot)) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let netboot = {
        let _inside = runtime.enter();
        Netboot::start(config, table).unwrap()
    };
    body(&netboot);
    runtime.block_on(netboot.stop());
}

fn curl(arguments: &[&str]) -> String {
    let arguments = [["-sS", "--max-time", "20"].as_slice(), arguments].concat();
    let output = in_netns("client", "curl", &arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    format!("{}{errors}", String::from_utf8_lossy(&output.stdout))
}

/// Waits for an event that `wanted` likes.
fn await_event(
    events: &mut tokio::sync::broadcast::Receiver<NetbootEvent>,
    mut wanted: impl FnMut(&NetbootEvent) -> bool,
) -> NetbootEvent {
    let mut found = None;
    wait_for("an event", || {
        while let Ok(event) = events.try_recv() {
            if wanted(&event) {
                found = Some(event);
                return true;
            }
        }
        false
    });
    found.unwrap()
}

#[test]
fn own_dhcp_server_boots_a_known_machine() {
    in_namespace("own_dhcp_server_boots_a_known_machine", &[], || {
        let site = Site::new();
        with_servers(
            site.config(server_mode()),
            table(BootIntent::Install),
            |netboot| {
                let mut events = netboot.events();
                let client = Client::new(KNOWN, 68);
                let offer =
                    client.exchange(&client.firmware(MessageType::Discover), BOOT, |_| true);
                assert_eq!(offer.opts().msg_type(), Some(MessageType::Offer));
                assert_eq!(offer.yiaddr(), Ipv4Addr::new(10, 77, 0, 11));
                assert_eq!(offer.siaddr(), SERVER);
                assert_eq!(server_of(&offer), Some(SERVER));
                assert_eq!(file_of(&offer).as_deref(), Some("ipxe-x64.efi"));

                let mut request = client.firmware(MessageType::Request);
                request
                    .opts_mut()
                    .insert(DhcpOption::ServerIdentifier(SERVER));
                request
                    .opts_mut()
                    .insert(DhcpOption::RequestedIpAddress(offer.yiaddr()));
                let ack =
                    client.exchange(&request, BOOT, |m| m.opts().has_msg_type(MessageType::Ack));
                assert_eq!(ack.yiaddr(), offer.yiaddr());
                let told =
                    await_event(&mut events, |e| matches!(e.kind, EventKind::DhcpAck { .. }));
                assert_eq!(told.node.unwrap().as_str(), "gpu-01");

                // The same request again for an address that is not its own.
                request
                    .opts_mut()
                    .insert(DhcpOption::RequestedIpAddress([10, 77, 0, 55].into()));
                client.exchange(&request, BOOT, |m| m.opts().has_msg_type(MessageType::Nak));

                // An unknown machine gets an address of the range, and discovery.
                let stranger = Client {
                    mac: [0x52, 0x54, 0, 0, 0, 9],
                    ..client
                };
                let offer =
                    stranger.exchange(&stranger.firmware(MessageType::Discover), BOOT, |m| {
                        m.chaddr() == [0x52, 0x54, 0, 0, 0, 9]
                    });
                assert!((50..=60).contains(&offer.yiaddr().octets()[3]));
                assert!(file_of(&offer).is_some());
            },
        );
    });
}

#[test]
fn a_proxy_adds_the_file_to_another_servers_address() {
    let test = "a_proxy_adds_the_file_to_another_servers_address";
    in_namespace(test, &["dnsmasq"], || {
        let site = Site::new();
        let _dnsmasq = dnsmasq(Some("other"), "eth0", site.folder.path(), &[]);
        with_servers(
            site.config(Mode::Proxy),
            table(BootIntent::Install),
            |netboot| {
                let client = Client::new(KNOWN, 68);
                let discover = client.firmware(MessageType::Discover);
                let (mut address, mut file) = (None, None);
                client.exchange(&discover, BOOT, |offer| {
                    match server_of(offer) {
                        Some(OTHER) => address = Some(offer.yiaddr()),
                        Some(SERVER) => {
                            assert_eq!(offer.yiaddr(), Ipv4Addr::UNSPECIFIED);
                            assert_eq!(offer.siaddr(), SERVER);
                            file = file_of(offer);
                        }
                        other => panic!("an offer from {other:?}"),
                    }
                    address.is_some() && file.is_some()
                });
                assert_eq!(file.as_deref(), Some("ipxe-x64.efi"));

                // The client chooses dnsmasq's address: only dnsmasq may answer.
                let mut request = client.firmware(MessageType::Request);
                request
                    .opts_mut()
                    .insert(DhcpOption::ServerIdentifier(OTHER));
                request
                    .opts_mut()
                    .insert(DhcpOption::RequestedIpAddress(address.unwrap()));
                client.exchange(&request, BOOT, |answer| {
                    if answer.opts().has_msg_type(MessageType::Ack) {
                        assert_eq!(server_of(answer), Some(OTHER));
                        return true;
                    }
                    false
                });
                // The other server may have answered before ours has read the packet.
                wait_for("the other server's request to be dropped", || {
                    netboot.drops().get(Service::Dhcp, DropReason::OtherServer) > 0
                });

                // A running system is none of a proxy's business.
                client.broadcast(&client.plain(MessageType::Discover));
                wait_for("the drop", || {
                    netboot
                        .drops()
                        .get(Service::Dhcp, DropReason::NotABootClient)
                        > 0
                });

                ask_4011(&client);
            },
        );
    });
}

#[test]
fn port_4011_answers_beside_a_dhcp_server_on_the_same_machine() {
    let test = "port_4011_answers_beside_a_dhcp_server_on_the_same_machine";
    in_namespace(test, &["dnsmasq"], || {
        let site = Site::new();
        let option_60 = "--dhcp-option-force=60,PXEClient";
        let _dnsmasq = dnsmasq(None, BRIDGE, site.folder.path(), &[option_60]);
        // Our own DHCP server can't have port 67 then, and says what to do.
        wait_for("dnsmasq", || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let _inside = runtime.enter();
            let error =
                Netboot::start(site.config(server_mode()), table(BootIntent::Install)).err();
            error.is_some_and(|e| {
                assert_eq!(
                    e.to_string(),
                    "DHCP cannot listen on udp port 67: it is in use; another DHCP server runs on \
                     this machine: stop it, or use proxy or 4011-only mode"
                );
                true
            })
        });
        with_servers(
            site.config(Mode::Port4011Only),
            table(BootIntent::Install),
            |_| {
                ask_4011(&Client::new(KNOWN, 68));
            },
        );
    });
}

fn ask_4011(client: &Client) {
    let mut request = client.firmware(MessageType::Request);
    request.set_ciaddr(CLIENT);
    let ack = client.exchange(&request, SocketAddrV4::new(SERVER, 4011), |answer| {
        answer.opts().has_msg_type(MessageType::Ack) && server_of(answer) == Some(SERVER)
    });
    assert_eq!(file_of(&ack).as_deref(), Some("ipxe-x64.efi"));
    assert_eq!(
        ack.opts().get(OptionCode::ClassIdentifier),
        Some(&DhcpOption::ClassIdentifier(b"PXEClient".to_vec()))
    );
}

#[test]
fn tftp_clients_get_the_files() {
    in_namespace("tftp_clients_get_the_files", &["curl", "tftp"], || {
        let site = Site::new();
        with_servers(
            site.config(Mode::Proxy),
            table(BootIntent::Install),
            |netboot| {
                let mut events = netboot.events();
                let got = site.file("got");
                let got_text = got.to_str().unwrap();
                let same = || std::fs::read(&got).unwrap() == site.content;
                for block in ["512", "1468", "65464"] {
                    let _ = std::fs::remove_file(&got);
                    let url = "tftp://10.77.0.1/ipxe-x64.efi";
                    let text = curl(&["--tftp-blksize", block, "-o", got_text, url]);
                    assert!(same(), "blksize {block}: {text}");
                }
                let _ = std::fs::remove_file(&got);
                let arguments = [
                    "-m",
                    "binary",
                    "10.77.0.1",
                    "-c",
                    "get",
                    "ipxe-x64.efi",
                    got_text,
                ];
                in_netns("client", "tftp", &arguments);
                assert!(same(), "tftp-hpa");
                let done = await_event(&mut events, |e| {
                    matches!(e.kind, EventKind::TftpDone { .. })
                });
                assert!(matches!(
                    done.kind,
                    EventKind::TftpDone {
                        bytes: 3_000_001,
                        ..
                    }
                ));

                let script = curl(&["tftp://10.77.0.1/autoexec.ipxe"]);
                assert!(
                    script.starts_with("#!ipxe\n") && script.contains("10.77.0.1:8080/boot.ipxe")
                );
                let missing = curl(&["--path-as-is", "tftp://10.77.0.1/../../etc/passwd"]);
                // curl's exit code for TFTP's "file not found".
                assert!(missing.contains("curl: (68)"), "{missing}");
                let pi = curl(&["-o", got_text, "tftp://10.77.0.1/a1b2c3d4/config.txt"]);
                assert!(same(), "{pi}");
                curl(&["-T", got_text, "tftp://10.77.0.1/new"]);
                await_event(&mut events, |e| {
                    matches!(&e.kind, EventKind::TftpRefused { path, reason }
                        if path == "new" && reason == "a write request")
                });

                windowed(&site);
            },
        );
    });
}

/// Neither curl nor tftp-hpa asks for a window, so the test does it by hand, and loses packets.
fn windowed(site: &Site) {
    let client = Client::new(KNOWN, 0).socket;
    let ask = b"\0\x01ipxe-x64.efi\0octet\0blksize\x001468\0tsize\x000\0windowsize\x0064\0";
    client.send_to(ask, SocketAddrV4::new(SERVER, 69)).unwrap();
    let mut buffer = [0; 2000];
    let mut got = Vec::new();
    let mut next = 0u64;
    let mut lost = 0;
    loop {
        let Ok((len, from)) = client.recv_from(&mut buffer) else {
            continue;
        };
        match &buffer[..len] {
            [0, 6, options @ ..] => {
                assert_eq!(
                    options,
                    b"blksize\x001468\0tsize\x003000001\0windowsize\x0064\0"
                );
                client.send_to(&[0, 4, 0, 0], from).unwrap();
                next = 1;
            }
            [0, 3, high, low, data @ ..] => {
                let number = u64::from(u16::from_be_bytes([*high, *low]));
                if number == 100 && lost < 2 {
                    lost += 1;
                    continue;
                }
                let in_order = number == next & 0xffff;
                if in_order {
                    got.extend_from_slice(data);
                    next += 1;
                }
                let last = in_order && data.len() < 1468;
                if last || !in_order || (next - 1).is_multiple_of(64) {
                    let [.., h, l] = (next - 1).to_be_bytes();
                    client.send_to(&[0, 4, h, l], from).unwrap();
                }
                if last {
                    break;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(lost, 2);
    assert!(got == site.content);
}

#[test]
fn garbage_is_dropped_and_counted() {
    in_namespace("garbage_is_dropped_and_counted", &[], || {
        let site = Site::new();
        with_servers(
            site.config(server_mode()),
            table(BootIntent::Install),
            |netboot| {
                let client = Client::new(KNOWN, 0);
                let mut reply = client.firmware(MessageType::Offer);
                reply.set_opcode(dhcproto::v4::Opcode::BootReply);
                let mut looped = client.firmware(MessageType::Discover);
                looped.set_hops(17);
                let bytes = |m: &dhcproto::v4::Message| dhcproto::Encodable::to_vec(m).unwrap();
                let whole = bytes(&client.firmware(MessageType::Discover));
                let packets = [
                    (whole[..100].to_vec(), DropReason::Truncated),
                    (whole[..whole.len() - 5].to_vec(), DropReason::Truncated),
                    (
                        [whole.clone(), vec![0; 1400]].concat(),
                        DropReason::Oversized,
                    ),
                    (bytes(&reply), DropReason::NotARequest),
                    (bytes(&looped), DropReason::TooManyHops),
                ];
                let mut expected: BTreeMap<DropReason, u64> = BTreeMap::new();
                for (packet, reason) in packets {
                    *expected.entry(reason).or_default() += 2;
                    client.send(&packet, SocketAddrV4::new(SERVER, 67));
                    client.send(&packet, SocketAddrV4::new(SERVER, 4011));
                }
                for (reason, count) in expected {
                    wait_for("the counters", || {
                        let drops = netboot.drops();
                        drops.get(Service::Dhcp, reason) + drops.get(Service::Pxe4011, reason)
                            == count
                    });
                }
                for packet in [
                    &b"\0"[..],
                    b"\0\x09abc",
                    b"\0\x01x",
                    &[0; 600],
                    b"\0\x04\0\x01",
                ] {
                    client.send(packet, SocketAddrV4::new(SERVER, 69));
                }
                wait_for("TFTP's counters", || {
                    let drops = netboot.drops();
                    drops
                        .iter()
                        .filter(|(s, ..)| *s == Service::Tftp)
                        .map(|(.., n)| n)
                        .sum::<u64>()
                        == 5
                });
                let long = netboot.drops().get(Service::Tftp, DropReason::Oversized);
                assert_eq!(long, 1, "a packet isn't cut to what fits");
                assert!(client.receive().is_none(), "garbage was answered");
                let mut stream = std::net::TcpStream::connect((SERVER, 8080)).unwrap();
                stream
                    .write_all(b"\x16\x03\x01 not HTTP at all\r\n\r\n")
                    .unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).unwrap();
                assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
                who_waits_is_told_to_go_on();
            },
        );
    });
}

#[test]
fn what_can_not_be_started_says_why() {
    in_namespace("what_can_not_be_started_says_why", &[], || {
        let site = Site::new();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _inside = runtime.enter();
        let error = |config: NetbootConfig| {
            Netboot::start(config, table(BootIntent::Install))
                .unwrap_err()
                .to_string()
        };
        let good = site.config(server_mode());
        let mut all = vec![
            error(NetbootConfig {
                interface: "nope0".into(),
                ..good.clone()
            }),
            error(NetbootConfig {
                address: Ipv4Addr::new(10, 77, 0, 99),
                ..good.clone()
            }),
            error(NetbootConfig {
                prefix_bits: 31,
                ..good.clone()
            }),
            error(NetbootConfig {
                mode: Mode::Server(DhcpSettings::range(
                    [10, 78, 0, 5].into(),
                    [10, 78, 0, 9].into(),
                )),
                ..good.clone()
            }),
        ];
        let mut missing = good.clone();
        missing.ipxe =
            BTreeMap::from([(IpxeBinary::X64, Path::new("/nonexistent/ipxe.efi").into())]);
        all.push(error(missing));
        let mut escaping = good.clone();
        escaping.artifacts = BTreeMap::from([("../x".into(), site.file("kernel"))]);
        all.push(error(escaping));
        for port in [67, 69, 4011] {
            let _taken = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
            all.push(error(good.clone()));
        }
        let _taken = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080)).unwrap();
        all.push(error(good));
        insta::assert_snapshot!(all.join("\n"));
    });
}

/// Only who waits for it gets a `100 Continue`, and only while something is to come (RFC 9110,
/// section 10.1.1).
fn who_waits_is_told_to_go_on() {
    let head = "POST /v1/report HTTP/1.1\r\nHost: h\r\nConnection: close\r\n";
    for (expect, begun, goes_on) in [
        ("Expect: 100-continue\r\n", "", true),
        ("Expect: 100-continue\r\n", "{", true),
        ("Expect: 100-continue\r\n", "{}", false),
        ("", "", false),
        ("", "{", false),
        ("", "{}", false),
    ] {
        let mut stream = std::net::TcpStream::connect((SERVER, 8080)).unwrap();
        stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
        let begin = format!("{head}{expect}Content-Length: 2\r\n\r\n{begun}");
        stream.write_all(begin.as_bytes()).unwrap();
        let mut answer = vec![0; 25];
        if goes_on {
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(answer, b"HTTP/1.1 100 Continue\r\n\r\n");
        } else {
            // A moment in which it would have been sent.
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        stream.write_all(&b"{}"[begun.len()..]).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 400 "),
            "{expect}{begun}: {answer}"
        );
    }
}
