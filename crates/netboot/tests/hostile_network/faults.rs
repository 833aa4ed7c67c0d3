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

/// Bidirectional and control characters in all that a client may say of itself in words: options 12, 60, 66,
/// 67 and 77, and the file that it asks TFTP for.
#[test]
fn what_a_client_calls_itself_is_no_command_to_a_terminal() {
    const HOSTILE: &str = "owned\u{1b}[2J\u{7}\u{9b}\u{202e}\u{2066}\u{200b}\n\r\u{8}";
    let test = "faults::what_a_client_calls_itself_is_no_command_to_a_terminal";
    in_namespace(test, &[], || {
        let site = Site::new();
        with_servers(site.config(60), |netboot| {
            let mut events = netboot.events();
            let client = Client::new(KNOWN, 68);
            let own = |m: &Message, kind| m.chaddr() == client.mac && m.opts().has_msg_type(kind);
            let mut seen = Vec::new();
            for class in [&b"PXEClient:Arch:00007:UNDI:003016"[..], HOSTILE.as_bytes()] {
                let mut discover = client.firmware(MessageType::Discover);
                let options = discover.opts_mut();
                options.insert(DhcpOption::ClassIdentifier(
                    [class, HOSTILE.as_bytes()].concat(),
                ));
                options.insert(DhcpOption::Hostname(HOSTILE.to_owned()));
                options.insert(DhcpOption::UserClass(HOSTILE.as_bytes().to_vec()));
                options.insert(DhcpOption::TFTPServerName(HOSTILE.as_bytes().to_vec()));
                options.insert(DhcpOption::BootfileName(HOSTILE.as_bytes().to_vec()));
                client.exchange(&discover, BOOT, |m| own(m, MessageType::Offer));
                seen.push(await_event(&mut events, |e| {
                    matches!(e.kind, EventKind::DhcpDiscover { .. })
                }));
                seen.push(await_event(&mut events, |e| {
                    matches!(e.kind, EventKind::DhcpOffer { .. })
                }));
            }
            // None of these words is anything that a person is shown.
            let kept = serde_json::to_string(&seen).unwrap();
            assert!(!kept.contains("owned"), "{kept}");

            let socket = udp_at("other", Ipv4Addr::UNSPECIFIED);
            let request = [b"\0\x01", HOSTILE.as_bytes(), b"\0octet\0"].concat();
            socket.send_to(&request, (SERVER, 69)).unwrap();
            seen.push(await_event(&mut events, |e| {
                matches!(
                    e.kind,
                    EventKind::TftpRefused { .. } | EventKind::Dropped { .. }
                )
            }));
            let shown = timeline(&seen, &[], u64::MAX);
            let texts = shown.entries.iter().map(|entry| entry.text.as_str());
            for text in texts.chain([shown.diagnosis.summary.as_str()]) {
                let bad: Vec<char> = text
                    .chars()
                    .filter(|c| undercroft_model::text::is_unseen(*c))
                    .collect();
                assert!(bad.is_empty(), "{bad:?} in {text:?}");
            }
        });
    });
}
