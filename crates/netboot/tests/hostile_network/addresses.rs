//! Who gets which address, from which address the answers come, and what relays change.

use std::time::Instant;

use undercroft_netboot::DropReason;

use super::*;
use crate::support::{find, in_namespace, server_of};

const STRANGER: [u8; 6] = [0x52, 0x54, 0, 0, 0, 9];
const OTHER_STRANGER: [u8; 6] = [0x52, 0x54, 0, 0, 0, 10];

#[test]
fn answers_come_from_the_servers_own_address() {
    let test = "addresses::answers_come_from_the_servers_own_address";
    in_namespace(test, &[], || {
        // The other address is the interface's first one, by which the kernel would answer.
        run("ip addr del 10.77.0.1/24 dev boot0");
        run("ip addr add 10.77.0.9/24 dev boot0");
        run("ip addr add 10.77.0.1/24 dev boot0");
        let site = Site::new();
        with_servers(site.config(60), |_| {
            let client = Client::new(KNOWN, 68);
            let source_of = |kind, port, wanted| {
                let bytes = dhcproto::Encodable::to_vec(&client.firmware(kind)).unwrap();
                let mut source = None;
                wait_for("an answer", || {
                    client.send(&bytes, SocketAddrV4::new(Ipv4Addr::BROADCAST, port));
                    let mut buffer = [0; 1500];
                    let Ok((len, from)) = client.socket.recv_from(&mut buffer) else {
                        return false;
                    };
                    source = Some(from);
                    let kind = [53, 1, wanted];
                    buffer[240..len].windows(3).any(|option| option == kind)
                });
                source.unwrap()
            };
            let offer = source_of(MessageType::Discover, 67, 2);
            assert_eq!(offer, SocketAddrV4::new(SERVER, 67).into());
            let ack = source_of(MessageType::Request, 4011, 5);
            assert_eq!(ack, SocketAddrV4::new(SERVER, 4011).into());
            // What is sent to the server's own address is heard by the socket that speaks.
            let mut inform = client.plain(MessageType::Inform);
            inform.set_ciaddr(support::CLIENT);
            let to = SocketAddrV4::new(SERVER, 67);
            let answer = client.exchange(&inform, to, |m| m.opts().has_msg_type(MessageType::Ack));
            assert_eq!(server_of(&answer), Some(SERVER));
        });
    });
}

#[test]
fn a_lease_outlives_a_restart_and_no_second_machine_gets_it() {
    let test = "addresses::a_lease_outlives_a_restart_and_no_second_machine_gets_it";
    in_namespace(test, &[], || {
        let site = Site::new();
        let mut config = site.config(51);
        config.lease_file = Some(site.folder.path().join("leases"));
        let first = Client::new(STRANGER, 68);
        let had = with_servers(config.clone(), |_| lease(&first));
        with_servers(config.clone(), |_| {
            let second = Client {
                mac: OTHER_STRANGER,
                ..first
            };
            let mut discover = second.firmware(MessageType::Discover);
            discover
                .opts_mut()
                .insert(DhcpOption::RequestedIpAddress(had));
            let offer = second.exchange(&discover, BOOT, |m| m.chaddr() == OTHER_STRANGER);
            assert_ne!(offer.yiaddr(), had);
            let first = Client {
                mac: STRANGER,
                ..second
            };
            assert_eq!(lease(&first), had);
        });
        let text = std::fs::read_to_string(site.folder.path().join("leases")).unwrap();
        assert!(text.contains(&had.to_string()), "{text}");
    });
}

#[test]
fn an_address_in_use_is_not_offered() {
    let test = "addresses::an_address_in_use_is_not_offered";
    in_namespace(test, &[], || {
        // Somebody has taken all but one of the range by hand, and answers no ping.
        for n in 50..54 {
            run(&format!("ip -n other addr add 10.77.0.{n}/24 dev eth0"));
        }
        let site = Site::new();
        with_servers(site.config(54), |netboot| {
            let mut events = netboot.events();
            let client = Client::new(STRANGER, 68);
            let mut discover = client.firmware(MessageType::Discover);
            discover
                .opts_mut()
                .insert(DhcpOption::RequestedIpAddress([10, 77, 0, 50].into()));
            let offer = client.exchange(&discover, BOOT, |m| m.chaddr() == STRANGER);
            assert_eq!(offer.yiaddr(), Ipv4Addr::new(10, 77, 0, 54));
            let told = await_event(&mut events, |e| {
                matches!(e.kind, EventKind::AddressInUse { .. })
            });
            assert!((50..54).contains(&told.address.unwrap().octets()[3]));
        });
    });
}

#[test]
fn a_declined_fixed_address_is_told_with_who_holds_it() {
    let test = "addresses::a_declined_fixed_address_is_told_with_who_holds_it";
    in_namespace(test, &[], || {
        run(&format!("ip -n other addr add {FIXED}/24 dev eth0"));
        let site = Site::new();
        with_servers(site.config(60), |netboot| {
            let mut events = netboot.events();
            let client = Client::new(KNOWN, 68);
            let discover = client.firmware(MessageType::Discover);
            let offer = client.exchange(&discover, BOOT, |m| m.chaddr() == KNOWN);
            assert_eq!(offer.yiaddr(), FIXED);
            let mut decline = client.plain(MessageType::Decline);
            let options = decline.opts_mut();
            options.insert(DhcpOption::RequestedIpAddress(FIXED));
            options.insert(DhcpOption::ServerIdentifier(SERVER));
            client.broadcast(&decline);
            let told = await_event(&mut events, |e| {
                matches!(e.kind, EventKind::AddressInUse { .. })
            });
            assert_eq!(told.node.unwrap().as_str(), "gpu-01");
            assert_eq!(told.address, Some(FIXED));
            let links = support::in_netns("other", "ip", &["-o", "link", "show", "eth0"]);
            let links = String::from_utf8_lossy(&links.stdout).into_owned();
            let EventKind::AddressInUse { by } = told.kind else {
                panic!()
            };
            assert!(links.contains(&by.to_string()), "{by} is not of {links}");
            while client.receive().is_some() {}
            client.broadcast(&discover);
            await_event(&mut events, |e| {
                matches!(
                    e.kind,
                    EventKind::Dropped {
                        reason: DropReason::AddressInUse,
                        ..
                    }
                )
            });
        });
    });
}

/// A relay between a client's link and ours. The client's link has the boot network's addresses
/// too; the relay's own address on our link is of another network.
fn lay_out_relay() {
    for line in [
        "ip addr add 10.78.0.1/24 dev boot0",
        "ip netns add relay",
        "ip link add r0 type veth peer name uplink netns relay",
        "ip link set r0 master boot0 up",
        "ip netns add far",
        "ip -n far link add eth0 type veth peer name downlink netns relay",
        "ip -n relay link set lo up",
        "ip -n relay link set uplink up",
        "ip -n relay link set downlink up",
        "ip -n relay addr add 10.78.0.2/24 dev uplink",
        "ip -n relay addr add 10.77.0.254/24 dev downlink",
        "ip -n relay route add 10.77.0.1/32 dev uplink",
        "ip -n far link set lo up",
        "ip -n far link set eth0 up",
    ] {
        run(line);
    }
    let script = "for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $f; done";
    let _ = support::in_netns("relay", "sh", &["-c", script]);
}

fn boot_by_relay(site: &Site) {
    let mut config = site.config(60);
    config.prefix_bits = 24;
    with_servers(config, |_| {
        let client = Client::in_namespace("far", KNOWN, 68);
        let began = Instant::now();
        assert_eq!(lease(&client), FIXED);
        assert!(began.elapsed() < support::PATIENCE);
    });
}

#[test]
fn a_real_relay_with_link_selection_serves_machines_of_a_far_link() {
    let test = "addresses::a_real_relay_with_link_selection_serves_machines_of_a_far_link";
    in_namespace(test, &["dhcrelay"], || {
        lay_out_relay();
        let program = find("dhcrelay").unwrap();
        let leases = tempfile::tempdir().unwrap();
        let _relay = support::Running::start(
            Command::new("ip")
                .args(["netns", "exec", "relay"])
                .arg(program)
                .args([
                    "-4",
                    "-d",
                    "-a",
                    "--no-pid",
                    "-id",
                    "downlink",
                    "-iu",
                    "uplink",
                    "-U",
                    "uplink",
                    "10.77.0.1",
                ])
                .current_dir(leases.path()),
        );
        boot_by_relay(&Site::new());
    });
}

#[test]
fn a_relay_of_dnsmasq_serves_machines_of_a_far_link() {
    let test = "addresses::a_relay_of_dnsmasq_serves_machines_of_a_far_link";
    in_namespace(test, &["dnsmasq"], || {
        lay_out_relay();
        run("ip route add 10.77.0.254/32 via 10.78.0.2 dev boot0");
        let _relay = support::Running::start(
            Command::new("ip")
                .args([
                    "netns",
                    "exec",
                    "relay",
                    "dnsmasq",
                    "-k",
                    "--conf-file=/dev/null",
                ])
                .args([
                    "--port=0",
                    "--user=root",
                    "--group=",
                    "--log-facility=-",
                    "--pid-file=",
                ])
                .arg("--dhcp-relay=10.77.0.254,10.77.0.1"),
        );
        boot_by_relay(&Site::new());
    });
}
