//! What machines boot from: their own order, the network once, and again after a restart.

mod rack_common;

use rack_common::efi::{Then, make_bootable};
use rack_common::{TestRack, machine, name, rack_of};
use undercroft_rack::{BootPath, NextBoot, PowerAction, PowerState, StopReason};

#[test]
fn rack_supervisor() {
    rack_common::be_supervisor();
}

const PXE: &str = "Start PXE over IPv4";
const IDENTITY: &str = "undercroft-installer: fingerprint \
    SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU nonce 00112233445566778899aabbccddeeff \
    boot-id 9be33fce-43a5-4a8c-873a-b71f7dd52e89 address 10.88.0.11";

#[tokio::test]
async fn the_network_is_booted_once_and_the_firmware_s_order_stays() {
    let Some(rack) = TestRack::start(&rack_of(vec![machine("gpu-01", 1)])).await else {
        return;
    };
    let gpu = name("gpu-01");
    let disk = rack.dir.path().join("machines/gpu-01/disk0.img");
    let text = format!("\r\n{IDENTITY}\r\nfrom the disk\r\n");
    if !make_bootable(&disk, &text, Then::StandStill) {
        return;
    }
    rack.client.power(&gpu, PowerAction::On).await.unwrap();
    rack.printed("gpu-01", "from the disk", 0).await;
    let identity = rack
        .client
        .console_fingerprint(&gpu)
        .await
        .unwrap()
        .expect("an identity");
    assert_eq!(identity.to_string(), IDENTITY);
    let order = rack.client.boot_order(&gpu).unwrap();
    assert!(
        order
            .iter()
            .any(|entry| entry.description.contains("PXEv4")),
        "{order:?}"
    );
    let network_boots = rack.serial("gpu-01").matches(PXE).count();

    rack.client
        .next_boot(&gpu, NextBoot::NetworkOnce)
        .await
        .unwrap();
    rack.client.power(&gpu, PowerAction::Cycle).await.unwrap();
    let now = rack.machine("gpu-01").await;
    assert_eq!(now.booted, Some(BootPath::BootNext));
    assert_eq!(now.next_boot, NextBoot::Firmware, "it holds for one launch");
    assert_eq!(
        now.identity, None,
        "the identity was that of the launch before"
    );
    rack.printed("gpu-01", PXE, network_boots).await;
    assert_eq!(rack.client.boot_order(&gpu).unwrap(), order);

    rack.client.power(&gpu, PowerAction::Cycle).await.unwrap();
    assert_eq!(
        rack.machine("gpu-01").await.booted,
        Some(BootPath::FirmwareOrder)
    );
    rack.printed("gpu-01", "from the disk", 1).await;
    rack.end().await;
}

#[tokio::test]
async fn a_guest_that_restarts_is_launched_again_and_one_that_shuts_down_is_off() {
    let machines = vec![machine("again-01", 1), machine("off-01", 2)];
    let Some(rack) = TestRack::start(&rack_of(machines)).await else {
        return;
    };
    for (label, then) in [("again-01", Then::Reset), ("off-01", Then::ShutDown)] {
        let disk = rack
            .dir
            .path()
            .join("machines")
            .join(label)
            .join("disk0.img");
        if !make_bootable(&disk, "\r\nfrom the disk\r\n", then) {
            return;
        }
        rack.client
            .power(&name(label), PowerAction::On)
            .await
            .unwrap();
    }
    rack.until("off-01", "off", |m| m.power == PowerState::Off)
        .await;
    let off = rack.machine("off-01").await;
    assert_eq!(off.launches, 1);
    assert_eq!(off.last_stop.unwrap().reason, StopReason::GuestShutdown);
    rack.until("again-01", "launched again", |m| m.launches >= 2)
        .await;
    let again = rack.machine("again-01").await;
    assert_eq!(again.last_stop.unwrap().reason, StopReason::GuestReset);
    rack.printed("again-01", "from the disk", 1).await;
    rack.end().await;
}
