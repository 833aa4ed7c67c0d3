//! Cards, phones, AI boards and the Raspberry Pi's boot partition.

use std::fs;

use crate::{Machine, failed, succeeded};

fn said(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

const TWO_CARDS: &str = "echo 'GPU 0: NVIDIA A100 (UUID: GPU-1)'
echo '  MIG 1g.10gb     Device  0: (UUID: MIG-1)'
echo 'GPU 1: NVIDIA A100 (UUID: GPU-2)'";

#[test]
fn cards_are_counted_and_their_instances_are_not() {
    let machine = Machine::new().with("GPU_COUNT", "2");
    machine.program("nvidia-smi", TWO_CARDS);
    succeeded(&machine.run(&["gpu-count"], &[]));

    let machine = Machine::new().with("GPU_COUNT", "4");
    machine.program("nvidia-smi", TWO_CARDS);
    let output = machine.run(&["gpu-count"], &[]);
    failed(&output);
    assert!(said(&output).starts_with("2 of 4 cards answer"));
}

#[test]
fn a_driver_that_does_not_answer_is_said_to() {
    let machine = Machine::new().with("GPU_COUNT", "2");
    machine.program("nvidia-smi", "echo 'No devices were found'; exit 6");
    let output = machine.run(&["gpu-count"], &[]);
    failed(&output);
    assert!(said(&output).contains("No devices were found"));
}

#[test]
fn cdi_must_name_devices_by_uuid() {
    if !crate::programs_are_here(&["jq"]) {
        return;
    }
    for (devices, healthy) in [
        (r#"[{"name":"GPU-1"},{"name":"all"}]"#, true),
        (r#"[{"name":"MIG-1"}]"#, true),
        (r#"[{"name":"0"},{"name":"all"}]"#, false),
    ] {
        let machine = Machine::new();
        let file = format!("{}/cdi.json", machine.root());
        machine.write("cdi.json", format!(r#"{{"devices":{devices}}}"#));
        let output = machine.with("CDI_FILE", file).run(&["gpu-cdi"], &[]);
        assert_eq!(output.status.success(), healthy, "{devices}");
    }
}

fn mig(parted: &str) -> Machine {
    let machine = Machine::new()
        .with("MIG_CONFIG_FILE", "/etc/undercroft/mig-parted.yaml")
        .with("MIG_CONFIG", "all-1g.10gb")
        .with("DRIVER_WAIT_S", "1");
    machine.program("nvidia-smi", "");
    machine.program("systemctl", "");
    machine.program("nvidia-mig-parted", parted);
    machine
}

#[test]
fn cards_that_are_divided_are_left_alone() {
    let machine = mig("exit 0");
    succeeded(&machine.run(&["mig"], &[]));
    assert!(!machine.calls().contains(" apply "));
    assert!(!machine.calls().contains("systemctl stop"));
}

#[test]
fn the_persistence_daemon_is_out_of_the_way_and_back_again() {
    let machine = mig(r#"case $1 in
  assert) [ -e "$root/divided" ] ;;
  apply) touch "$root/divided" ;;
esac"#);
    succeeded(&machine.run(&["mig"], &[]));
    let calls = machine.calls();
    let at = |part: &str| {
        calls
            .find(part)
            .unwrap_or_else(|| panic!("{part}: {calls}"))
    };
    assert!(at("systemctl stop") < at("nvidia-mig-parted apply"));
    assert!(at("nvidia-mig-parted apply") < at("systemctl start"));
}

#[test]
fn a_division_that_fails_leaves_the_persistence_daemon_running() {
    let machine = mig("exit 1");
    assert!(failed(&machine.run(&["mig"], &[])).contains("reboot the machine"));
    assert!(
        machine
            .calls()
            .contains("systemctl start nvidia-persistenced.service")
    );
}

#[test]
fn a_driver_that_never_comes_is_not_waited_for_for_ever() {
    let machine = mig("exit 0");
    machine.program("nvidia-smi", "exit 9");
    assert!(failed(&machine.run(&["mig"], &[])).contains("doesn't answer after 1 s"));
}

#[test]
fn missing_phones_are_named_and_those_that_all_are_say_nothing_of_their_host() {
    let machine = Machine::new().with("devices", "R5CC9B0DZWC R5C3CTLK4LB R5C0E3XETSB");
    machine.program(
        "adb",
        "printf 'List of devices attached\\nR5CC9B0DZWC\\tdevice\\nR5C3CTLK4LB\\tunauthorized\\n'",
    );
    let adb = format!("{}/bin/adb", machine.root());
    let machine = machine.with("adb_path", adb.clone());
    let output = machine.run(&["phones"], &[]);
    succeeded(&output);
    assert_eq!(
        said(&output),
        "R5C3CTLK4LB is unauthorized\nR5C0E3XETSB is missing\n1 of 3 phones\n"
    );

    machine.program("adb", "echo 'List of devices attached'");
    assert_eq!(machine.run(&["phones"], &[]).status.code(), Some(75));
    machine.program("adb", "exit 1");
    failed(&machine.run(&["phones"], &[]));
}

#[test]
fn a_look_at_the_phones_starts_no_adb_server() {
    if !crate::programs_are_here(&["adb"]) {
        return;
    }
    // Nothing listens at the port of a listener that was let go.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let machine = Machine::new()
        .with("devices", "R5CC9B0DZWC")
        .with("adb_path", "adb")
        .with("ADB_SERVER_SOCKET", format!("tcp:127.0.0.1:{port}"));
    let output = machine.run(&["phones"], &[]);
    failed(&output);
    assert!(
        said(&output).contains("adb devices failed"),
        "{}",
        said(&output)
    );
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
}

/// A machine with a board, by its numbers on the PCI bus.
fn board(name: &str, vendor: &str, device: &str) -> Machine {
    let machine = Machine::new();
    let at = |path: &str| format!("{}/{path}", machine.root());
    let (dev, sys) = (at("dev"), at("sys"));
    machine.write("sys/bus/pci/devices/0000:01:00.0/vendor", vendor);
    machine.write("sys/bus/pci/devices/0000:01:00.0/device", device);
    machine
        .with("BOARD", name)
        .with("DEV", dev)
        .with("SYS", sys)
        .with("HAILO_VERSION", "4.23.0")
}

#[test]
fn a_hailo_needs_its_device_and_one_version_throughout() {
    let machine = board("hailo-8", "0x1e60\n", "0x2864\n");
    let output = machine.run(&["hat"], &[]);
    failed(&output);
    assert!(
        said(&output).contains("hailo0 isn't there"),
        "{}",
        said(&output)
    );

    machine.write("dev/hailo0", "");
    succeeded(&machine.run(&["hat"], &[]));

    machine.write("sys/module/hailo_pci/version", "4.20.0\n");
    let output = machine.run(&["hat"], &[]);
    failed(&output);
    assert!(said(&output).contains("is 4.20.0"), "{}", said(&output));
}

#[test]
fn the_firmware_tells_a_hailo_8_from_an_8l() {
    let machine = board("hailo-8l", "0x1e60\n", "0x2864\n");
    machine.write("dev/hailo0", "");
    machine.program("hailortcli", "echo 'Device Architecture: HAILO8'");
    let output = machine.run(&["hat"], &[]);
    failed(&output);
    assert!(said(&output).contains("HAILO8, the inventory a hailo-8l"));
    machine.program("hailortcli", "echo 'Device Architecture: HAILO8L'");
    succeeded(&machine.run(&["hat"], &[]));
}

#[test]
fn a_coral_by_pcie_needs_small_pages() {
    let machine = board("coral-pcie", "0x1ac1\n", "0x089a\n");
    machine.write("dev/apex_0", "");
    machine.program("getconf", "echo 16384");
    let output = machine.run(&["hat"], &[]);
    failed(&output);
    assert!(said(&output).contains("16384 bytes"));
    machine.program("getconf", "echo 4096");
    succeeded(&machine.run(&["hat"], &[]));
}

#[test]
fn a_coral_by_usb_is_there_before_and_after_its_firmware() {
    for (vendor, product) in [("1a6e\n", "089a\n"), ("18d1\n", "9302\n")] {
        let machine = board("coral-usb", "", "");
        machine.write("sys/bus/usb/devices/1-1/idVendor", vendor);
        machine.write("sys/bus/usb/devices/1-1/idProduct", product);
        succeeded(&machine.run(&["hat"], &[]));
    }
    let output = board("coral-usb", "", "").run(&["hat"], &[]);
    failed(&output);
    assert!(said(&output).contains("no Coral on the USB bus"));
}

#[test]
fn the_boot_partition_is_written_once_and_config_txt_last() {
    let machine = Machine::new();
    for file in ["bcm2712-rpi-5-b.dtb", "start4.elf", "overlays/hat.dtbo"] {
        machine.write(&format!("firmware/{file}"), file);
    }
    for file in ["config.txt", "u-boot.bin"] {
        machine.write(&format!("ours/{file}"), file);
    }
    let at = |path: &str| format!("{}/{path}", machine.root());
    let (firmware, ours, boot) = (at("firmware"), at("ours"), at("boot"));
    let machine = machine
        .with("FIRMWARE", firmware)
        .with("BOOT_FILES", ours)
        .with("TARGET", boot)
        .with("MODEL", "5");

    let output = machine.run(&["pi-firmware"], &[]);
    succeeded(&output);
    assert!(said(&output).trim_end().ends_with("boot/config.txt"));
    assert_eq!(
        machine.read("boot/bcm2712-rpi-5-b.dtb"),
        "bcm2712-rpi-5-b.dtb"
    );
    assert!(machine.has("boot/overlays/hat.dtbo"));
    // A Pi 5 has that part of the firmware in its EEPROM.
    assert!(!machine.has("boot/start4.elf"));

    let again = machine.run(&["pi-firmware"], &[]);
    succeeded(&again);
    assert_eq!(said(&again), "");

    fs::write(machine.path("ours/config.txt"), "changed").unwrap();
    let output = machine.run(&["pi-firmware"], &[]);
    assert_eq!(said(&output).lines().count(), 1);
    assert_eq!(machine.read("boot/config.txt"), "changed");
    assert!(!machine.has("boot/config.txt.new"));
}
