//! Machines of other kinds: BIOS and arm64.

mod rack_common;

use rack_common::{TestRack, machine, name, rack_of};
use undercroft_model::System;
use undercroft_rack::{BootPath, NextBoot, PowerAction, RackFirmware};

#[test]
fn rack_supervisor() {
    rack_common::be_supervisor();
}

#[tokio::test]
async fn a_bios_machine_falls_through_to_its_card_s_ipxe() {
    let mut old = machine("old-01", 1);
    old.firmware = RackFirmware::Bios;
    let Some(rack) = TestRack::start(&rack_of(vec![old])).await else {
        return;
    };
    rack.client
        .power(&name("old-01"), PowerAction::On)
        .await
        .unwrap();
    rack.printed("old-01", "SeaBIOS", 0).await;
    rack.printed("old-01", "iPXE", 0).await;
    rack.printed("old-01", "Boot failed", 0).await;
    rack.client
        .next_boot(&name("old-01"), NextBoot::NetworkOnce)
        .await
        .unwrap();
    rack.client
        .power(&name("old-01"), PowerAction::Cycle)
        .await
        .unwrap();
    assert_eq!(
        rack.machine("old-01").await.booted,
        Some(BootPath::BootIndex)
    );
    rack.end().await;
}

#[tokio::test]
async fn an_arm64_machine_reaches_network_boot() {
    let mut pi = machine("pi-01", 1);
    pi.system = System::Aarch64Linux;
    let Some(rack) = TestRack::start(&rack_of(vec![pi])).await else {
        return;
    };
    rack.client
        .power(&name("pi-01"), PowerAction::On)
        .await
        .unwrap();
    rack.printed("pi-01", "Start PXE over IPv4", 0).await;
    let order = rack.client.boot_order(&name("pi-01")).unwrap();
    assert!(
        order
            .iter()
            .any(|entry| entry.description.contains("PXEv4")),
        "{order:?}"
    );
    rack.end().await;
}
