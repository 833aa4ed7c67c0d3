use std::time::Duration;
use undercroft_model::advice::Advice as _;

use proptest::prelude::*;
use tokio::net::UdpSocket;

use super::*;

fn target() -> PowerTarget {
    PowerTarget {
        node: NodeName::new("gpu-01").unwrap(),
        address: Ipv4Addr::new(10, 0, 0, 11),
        mac: Some(MacAddr([0x52, 0x54, 0, 0, 0, 1])),
        broadcast: Ipv4Addr::new(10, 0, 0, 255),
    }
}

fn nothing() -> Power {
    Power {
        kind: PowerKind::Manual,
        on: Vec::new(),
        off: Vec::new(),
        status: Vec::new(),
        broadcast: None,
        console: Vec::new(),
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.into()).collect()
}

async fn control(power: &Power) -> PowerControl {
    PowerControl::new(power, &target(), None).await.unwrap()
}

#[tokio::test]
async fn a_person_is_asked() {
    let manual = control(&nothing()).await;
    assert!(!manual.capabilities().on);
    let asked = PowerOutcome::Ask("Start gpu-01 from the network (card 52:54:00:00:00:01).".into());
    assert_eq!(manual.start_from_network().await.unwrap(), asked);
    assert_eq!(manual.status().await.unwrap(), PowerReading::Unknown);
}

#[tokio::test]
async fn commands_are_run_with_their_placeholders_and_without_a_shell() {
    let temp = tempfile::tempdir().unwrap();
    let log = temp.path().join("log");
    let script = format!("echo \"$@\" >> {}", log.display());
    let power = Power {
        kind: PowerKind::Command,
        on: words(&["sh", "-c", &script, "sh", "on {node} {mac}; $(id)"]),
        off: words(&["sh", "-c", &script, "sh", "off {address}"]),
        status: words(&["printf", "On\\n"]),
        ..nothing()
    };
    let command = control(&power).await;
    assert_eq!(
        command.start_from_network().await.unwrap(),
        PowerOutcome::Done
    );
    let log = std::fs::read_to_string(log).unwrap();
    assert_eq!(log, "off 10.0.0.11\non gpu-01 52:54:00:00:00:01; $(id)\n");
    assert_eq!(command.status().await.unwrap(), PowerReading::On);
}

#[tokio::test]
async fn a_command_that_fails_says_how() {
    let power = Power {
        kind: PowerKind::Command,
        on: words(&["sh", "-c", "echo no such outlet >&2; exit 3"]),
        off: words(&["/nonexistent/undercroft-switch"]),
        status: words(&["echo", "perhaps"]),
        ..nothing()
    };
    let command = control(&power).await;
    let error = command.on().await.unwrap_err();
    insta::assert_snapshot!(error, @r"
    gpu-01, power on: `sh -c echo no such outlet >&2; exit 3` failed with exit code 3; it said:
    no such outlet
    ");
    assert!(error.hint().unwrap().contains("by hand"));
    let error = command.off().await.unwrap_err().to_string();
    assert!(error.contains("cannot be run"), "{error}");
    let error = command.status().await.unwrap_err().to_string();
    assert!(
        error.contains("neither `on` nor `off`") && error.contains("perhaps"),
        "{error}"
    );
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let no_rack = Power {
        kind: PowerKind::Rack,
        ..nothing()
    };
    let error = PowerControl::new(&no_rack, &target(), None)
        .await
        .unwrap_err();
    assert!(error.hint().unwrap().contains("rack up"));
    let no_command = Power {
        kind: PowerKind::Command,
        ..nothing()
    };
    let error = PowerControl::new(&no_command, &target(), None)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("`on`"), "{error}");
    let wake = Power {
        kind: PowerKind::WakeOnLan,
        ..nothing()
    };
    let wake_nobody = PowerTarget {
        mac: None,
        ..target()
    };
    assert!(PowerControl::new(&wake, &wake_nobody, None).await.is_err());
    let error = control(&wake).await.cycle().await.unwrap_err();
    assert!(
        error.to_string().contains("cannot be switched off"),
        "{error}"
    );
}

#[tokio::test]
async fn a_magic_packet_arrives() {
    let listener = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mac = MacAddr([0x52, 0x54, 0, 0, 0, 1]);
    magic_packet::send_to(mac, Ipv4Addr::LOCALHOST, port)
        .await
        .unwrap();
    let mut packet = [0; 200];
    for _ in 0..MAGIC_PACKET_REPEATS {
        let received = listener.recv(&mut packet);
        let length = tokio::time::timeout(Duration::from_secs(10), received)
            .await
            .unwrap();
        assert_eq!(packet[..length.unwrap()], magic_packet(mac));
    }
}

proptest! {
    #[test]
    fn a_magic_packet_is_six_ones_and_sixteen_addresses(octets in any::<[u8; 6]>()) {
        let packet = magic_packet(MacAddr(octets));
        prop_assert_eq!(&packet[..6], &[0xff; 6]);
        let parts: Vec<&[u8]> = packet[6..].chunks(6).collect();
        prop_assert_eq!(parts, vec![&octets[..]; 16]);
    }
}
