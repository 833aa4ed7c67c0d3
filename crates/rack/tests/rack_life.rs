//! A rack comes up, its machines reach their firmware's network boot, and nothing is left of it.

mod rack_common;

use rack_common::{TestRack, machine, name, processes_of, rack_of};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use undercroft_rack as rack;
use undercroft_rack::{
    Disks, EmulatedBus, NextBoot, PowerAction, PowerState, RackClient, RackDisk, RackError,
    StopReason,
};

#[test]
fn rack_supervisor() {
    rack_common::be_supervisor();
}

#[tokio::test]
async fn two_machines_reach_network_boot_and_down_leaves_nothing() {
    let mut second = machine("gpu-02", 2);
    second.disks = vec![RackDisk {
        bus: EmulatedBus::Nvme,
        serial: "UC-NVME".into(),
        size_bytes: 64 << 20,
    }];
    let Some(rack) = TestRack::start(&rack_of(vec![machine("gpu-01", 1), second])).await else {
        return;
    };
    let status = rack.client.status().await.unwrap();
    assert_eq!(status.machines.len(), 2);
    assert!(
        status
            .machines
            .iter()
            .all(|m| m.power == PowerState::Off && m.launches == 0)
    );

    let again = rack::up(
        rack.dir.path(),
        &rack_of(vec![]),
        &rack_common::supervisor(),
    )
    .await;
    assert!(matches!(again, Err(RackError::AlreadyRunning { pid, .. }) if pid == status.pid));

    for label in ["gpu-01", "gpu-02"] {
        rack.client
            .power(&name(label), PowerAction::On)
            .await
            .unwrap();
    }
    for label in ["gpu-01", "gpu-02"] {
        rack.printed(label, "Start PXE over IPv4", 0).await;
        let now = rack.machine(label).await;
        assert_eq!((now.power, now.launches), (PowerState::On, 1));
        assert!(now.serial_bytes > 0);
    }

    rack.client
        .set_plugged(&name("gpu-02"), false)
        .await
        .unwrap();
    assert!(!rack.machine("gpu-02").await.plugged);

    rack.client
        .power(&name("gpu-01"), PowerAction::Cut)
        .await
        .unwrap();
    let cut = rack.machine("gpu-01").await;
    assert_eq!(cut.power, PowerState::Off);
    assert_eq!(cut.last_stop.unwrap().reason, StopReason::Cut);
    assert_eq!(
        rack.machine("gpu-02").await.power,
        PowerState::On,
        "the other one runs on"
    );

    let error = rack
        .client
        .power(&name("gpu-01"), PowerAction::Reset)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("gpu-01 is off"), "{error}");
    let error = rack
        .client
        .power(&name("gpu-09"), PowerAction::On)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("no machine gpu-09"), "{error}");

    let dir = rack.dir.path().to_owned();
    assert!(!processes_of(&dir).is_empty());
    rack.end().await;
    assert_eq!(processes_of(&dir), [""; 0]);
    assert!(matches!(
        RackClient::connect(&dir).await,
        Err(RackError::NotRunning { .. })
    ));
}

#[tokio::test]
async fn commands_enter_the_network_and_the_host_does_not_see_it() {
    let Some(rack) = TestRack::start(&rack_of(vec![machine("gpu-01", 1)])).await else {
        return;
    };
    let dir = rack.dir.path();
    assert!(!rack::is_inside(dir));
    let output = rack::enter_command(dir, "sh", ["-c", "ip -o address show br0; id -u; pwd"])
        .unwrap()
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(said.contains("10.88.0.1/24"), "{said}");
    let here = std::env::current_dir().unwrap();
    assert!(
        said.ends_with(&format!("\n0\n{}\n", here.display())),
        "{said}"
    );
    let links = std::process::Command::new("ip")
        .args(["-o", "link"])
        .output()
        .unwrap();
    let links = String::from_utf8_lossy(&links.stdout);
    assert!(
        !links.contains("uc0"),
        "the host has the rack's tap: {links}"
    );
    rack.end().await;
}

#[tokio::test]
async fn machines_come_and_go_and_a_killed_supervisor_takes_them_along() {
    let Some(rack) = TestRack::start(&rack_of(vec![])).await else {
        return;
    };
    let dir = rack.dir.path();
    rack.client
        .add_machine(machine("late-01", 7))
        .await
        .unwrap();
    let error = rack
        .client
        .add_machine(machine("late-01", 8))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("twice"), "{error}");
    rack.client
        .add_machine(machine("late-02", 8))
        .await
        .unwrap();
    rack.client
        .next_boot(&name("late-02"), NextBoot::NetworkOnce)
        .await
        .unwrap();
    assert_eq!(
        rack.machine("late-02").await.next_boot,
        NextBoot::NetworkOnce
    );
    rack.client.remove_machine(&name("late-02")).await.unwrap();
    assert!(!dir.join("machines/late-02").exists());

    rack.client
        .power(&name("late-01"), PowerAction::On)
        .await
        .unwrap();
    let mut console = rack.client.console(&name("late-01"), 4096).await.unwrap();
    console.write_all(b"x").await.unwrap();
    let mut first = [0; 1];
    tokio::time::timeout(rack_common::FIRMWARE, console.read_exact(&mut first))
        .await
        .expect("the firmware prints something")
        .unwrap();

    let pid = rack.client.status().await.unwrap().pid;
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let deadline = tokio::time::Instant::now() + rack_common::FIRMWARE;
    while !processes_of(dir).is_empty() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "left: {:?}",
            processes_of(dir)
        );
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    // The same directory goes on, with the machine that was added.
    let spec = rack_of(vec![machine("late-01", 7)]);
    let client = rack::up(dir, &spec, &rack_common::supervisor())
        .await
        .unwrap();
    assert_eq!(client.status().await.unwrap().machines.len(), 1);
    rack::down(dir, Disks::Delete).await.unwrap();
    rack::down(dir, Disks::Delete).await.unwrap();
}
