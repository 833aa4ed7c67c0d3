//! What breaks without anybody meaning it.

use undercroft_netboot::DropReason;
use undercroft_netboot::timeline::{Missing, timeline};

use super::*;
use crate::support::in_namespace;

#[test]
fn an_interface_that_is_made_anew_is_noticed_and_served() {
    let test = "faults::an_interface_that_is_made_anew_is_noticed_and_served";
    in_namespace(test, &[], || {
        let site = Site::new();
        with_servers(site.config(60), |netboot| {
            let mut events = netboot.events();
            let client = Client::new(KNOWN, 68);
            assert_eq!(lease(&client), FIXED);
            run("ip link del boot0");
            await_event(&mut events, |e| says(e, "boot0 is gone or was made anew"));
            for line in [
                "ip link add boot0 type bridge",
                "ip addr add 10.77.0.1/24 dev boot0",
                "ip link set boot0 up",
                "ip link set c0 master boot0",
                "ip link set o0 master boot0",
            ] {
                run(line);
            }
            await_event(&mut events, |e| says(e, "boot0 is there again, and served"));
            assert_eq!(lease(&client), FIXED);
            assert!(fetch_tftp(&udp_at("other", Ipv4Addr::UNSPECIFIED)) == site.content);
        });
    });
}

#[test]
fn a_packet_that_can_not_be_read_is_shown_with_its_machine() {
    let test = "faults::a_packet_that_can_not_be_read_is_shown_with_its_machine";
    in_namespace(test, &[], || {
        let site = Site::new();
        with_servers(site.config(60), |netboot| {
            let mut events = netboot.events();
            let client = Client::new(KNOWN, 68);
            let whole =
                dhcproto::Encodable::to_vec(&client.firmware(MessageType::Discover)).unwrap();
            client.send(&whole[..whole.len() - 5], BOOT);
            let dropped = await_event(&mut events, |e| matches!(e.kind, EventKind::Dropped { .. }));
            assert_eq!(dropped.mac, Some(MacAddr(KNOWN)));
            assert_eq!(dropped.node.as_ref().unwrap().as_str(), "gpu-01");
            assert!(matches!(
                dropped.kind,
                EventKind::Dropped {
                    reason: DropReason::Truncated,
                    ..
                }
            ));
            let seen = timeline(&[dropped], &[], u64::MAX).diagnosis;
            assert_eq!(seen.missing, Missing::DhcpDiscover);
            insta::assert_snapshot!(seen.summary, @"Packets came with its Ethernet address that can't be read: truncated.");
        });
    });
}
