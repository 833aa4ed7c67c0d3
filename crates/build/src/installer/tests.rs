use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use proptest::prelude::*;
use undercroft_model::{InstallerReport, ReportedFirmware};

use super::*;

/// A made-up machine: its `/sys`, `/proc` and `/run`, and the installer's programs.
struct Machine {
    dir: tempfile::TempDir,
}

impl Machine {
    fn new() -> Machine {
        let machine = Machine {
            dir: tempfile::tempdir().unwrap(),
        };
        for (name, text) in programs() {
            machine.write(&format!("undercroft/{name}"), text);
            let path = machine.path(&format!("undercroft/{name}"));
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        for (path, content) in [
            (
                "proc/cmdline",
                "quiet undercroft.report=http://10.88.0.1/v1/report undercroft.token=00ff undercroft.word=zajig-havif\n",
            ),
            (
                "proc/meminfo",
                "MemTotal:        1048576 kB\nMemFree: 1 kB\n",
            ),
            ("proc/mounts", "tmpfs /run tmpfs rw 0 0\n"),
            ("proc/uptime", "7.31 1.00\n"),
            (
                "proc/sys/kernel/random/boot_id",
                "6c0e9c5e-3b1c-4d8b-9a8e-0d6c2f4a7b11\n",
            ),
            ("run/undercroft/nonce", "0123456789abcdef0123456789abcdef\n"),
            ("run/undercroft/address", "10.88.0.11\n"),
            (
                "run/undercroft/host_key",
                "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIODWaY6I\n",
            ),
            (
                "run/undercroft/fingerprint",
                "SHA256:n1Ne3nWodsf40+H7tLnGdlNNJAmAMHkKGfNGPdeswvw\n",
            ),
            (
                "etc/undercroft-installer",
                "undercroft-installer 0.1.0 (debian)\n",
            ),
            (
                "sys/class/dmi/id/product_uuid",
                "4C4C4544-0051-3510-8052-B4C04F4A3132\n",
            ),
            ("sys/class/net/eth0/address", "52:54:00:00:00:01\n"),
            ("sys/class/net/eth0/type", "1\n"),
            ("sys/class/net/eth0/device/vendor", "0x1af4\n"),
            ("sys/class/net/lo/address", "00:00:00:00:00:00\n"),
            ("sys/class/net/lo/type", "772\n"),
            ("sys/firmware/efi/fw_platform_size", "64\n"),
        ] {
            machine.write(path, content);
        }
        machine.disk("vda", 8_388_608, &[("serial", "rack-01-a")]);
        machine.disk("loop0", 8, &[]);
        machine
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn disk(&self, name: &str, sectors: u64, files: &[(&str, &str)]) {
        self.write(&format!("sys/block/{name}/size"), format!("{sectors}\n"));
        for (file, content) in files {
            self.write(&format!("sys/block/{name}/{file}"), format!("{content}\n"));
        }
    }

    fn run(&self, program: &str, arguments: &[&str], input: &[u8]) -> Output {
        // busybox is the shell that runs them on a machine; any POSIX shell must do.
        let busybox = Path::new("/bin/busybox").is_file();
        let mut command = Command::new(if busybox { "/bin/busybox" } else { "sh" });
        if busybox {
            command.arg("sh");
        }
        let mut child = command
            .arg(self.path(&format!("undercroft/{program}")))
            .args(arguments)
            .env("UNDERCROFT_LIB", self.path("undercroft"))
            .env("UNDERCROFT_ROOT", self.dir.path())
            .env("UNDERCROFT_MNT", self.path("mnt"))
            .env("UNDERCROFT_MACHINE", "x86_64")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A program that refuses its arguments doesn't read its input.
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    }

    fn report(&self) -> InstallerReport {
        let output = self.run("report", &["--print"], b"");
        let text = String::from_utf8(output.stdout).unwrap();
        serde_json::from_str(&text).unwrap_or_else(|error| {
            panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr))
        })
    }
}

fn said(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stderr).into_owned();
    let _ = write!(text, "exit {}", output.status.code().unwrap());
    text
}

const GUID: &str = "11111111-2222-3333-4444-555555555555";

#[test]
fn the_report_is_what_the_controller_reads() {
    let machine = Machine::new();
    machine.disk(
        "nvme0n1",
        4096,
        &[
            ("device/serial", "  S4EV  "),
            ("wwid", "eui.0025385b71b00c5a"),
        ],
    );
    // SCSI's page 0x80: a header of four bytes, then the number padded with blanks.
    machine.disk(
        "sda",
        2048,
        &[
            ("device/wwid", "naa.5000c500a1b2c3d4"),
            ("device/model", "ST4000  "),
        ],
    );
    machine.write("sys/block/sda/device/vpd_pg80", b"\0\x80\0\x0c    ZC123456");
    machine.disk("sdb", 2048, &[("serial", "a\"b\\c\u{7}d")]);
    let report = machine.report();
    assert_eq!(report.version, undercroft_model::INSTALLER_REPORT_VERSION);
    assert_eq!(
        report.uuid.unwrap().to_string(),
        "4c4c4544-0051-3510-8052-b4c04f4a3132"
    );
    assert_eq!(report.token.as_deref(), Some("00ff"));
    assert_eq!(report.macs.len(), 1, "the loopback interface is not a card");
    assert_eq!(report.firmware, ReportedFirmware::Uefi);
    assert_eq!(report.memory_mb, 1024);
    let disks: Vec<String> = report
        .disks
        .iter()
        .map(|d| {
            format!(
                "{} {:?} {:?} {} {:?} {:?}",
                d.path, d.serial, d.wwn, d.size_bytes, d.model, d.transport
            )
        })
        .collect();
    insta::assert_snapshot!(disks.join("\n"), @r#"
    /dev/nvme0n1 Some("S4EV") Some("eui.0025385b71b00c5a") 2097152 None Some("nvme")
    /dev/sda Some("ZC123456") Some("0x5000c500a1b2c3d4") 1048576 Some("ST4000") Some("scsi")
    /dev/sdb Some("a\"b\\cd") None 1048576 None Some("scsi")
    /dev/vda Some("rack-01-a") None 4294967296 None Some("virtio")
    "#);
}

#[test]
fn a_machine_without_smbios_or_efi_says_so() {
    let machine = Machine::new();
    fs::remove_dir_all(machine.path("sys/class/dmi")).unwrap();
    fs::remove_dir_all(machine.path("sys/firmware/efi")).unwrap();
    let report = machine.report();
    assert_eq!(report.uuid, None);
    assert_eq!(report.firmware, ReportedFirmware::Bios);
    machine.write("sys/firmware/devicetree/base/model", "Raspberry Pi");
    assert_eq!(machine.report().firmware, ReportedFirmware::DeviceTree);
}

#[test]
fn inspect_has_the_report_and_the_mounts() {
    let machine = Machine::new();
    let output = machine.run("inspect", &[], b"");
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["boot_id"], "6c0e9c5e-3b1c-4d8b-9a8e-0d6c2f4a7b11");
    assert_eq!(value["mounts"][0]["path"], "/run");
    assert_eq!(value["uptime_seconds"], 7);
}

#[test]
fn a_disk_with_another_serial_is_never_touched() {
    let machine = Machine::new();
    let arguments = [
        "--serial",
        "rack-02-a",
        "--layout",
        "ext4",
        "--disk-guid",
        GUID,
    ];
    let output = machine.run("partition", &arguments, b"");
    insta::assert_snapshot!(said(&output), @r"
    partition: no disk has the serial number 'rack-02-a'; this machine has: /dev/vda(serial=rack-01-a,wwn=none)
    exit 20
    ");
    // A part of a serial number isn't that serial number.
    let arguments = [
        "--serial",
        "rack-01",
        "--layout",
        "ext4",
        "--disk-guid",
        GUID,
    ];
    assert_eq!(
        machine.run("partition", &arguments, b"").status.code(),
        Some(20)
    );
}

#[test]
fn partition_refuses_what_is_not_certain() {
    let machine = Machine::new();
    machine.disk("vdb", 8_388_608, &[("serial", "rack-01-a")]);
    machine.disk("vdc", 1024, &[("serial", "small")]);
    machine.disk(
        "vdd",
        8_388_608,
        &[("serial", "raid"), ("vdd1/holders/md0/dev", "9:0")],
    );
    let code = |disk: &str, layout: &str, guid: &str| {
        let arguments = ["--serial", disk, "--layout", layout, "--disk-guid", guid];
        machine
            .run("partition", &arguments, b"")
            .status
            .code()
            .unwrap()
    };
    assert_eq!(
        code("rack-01-a", "ext4", GUID),
        21,
        "two disks with one serial"
    );
    assert_eq!(code("small", "ext4", GUID), 22, "too small");
    assert_eq!(code("raid", "ext4", GUID), 23, "part of an array");
    assert_eq!(code("small", "btrfs", GUID), 64, "unknown layout");
    assert_eq!(code("small", "ext4", "not-a-guid"), 64, "no GUID");
    assert_eq!(code("", "ext4", GUID), 64, "no disk named");
    machine.write("proc/mounts", "/dev/vdd1 /data ext4 rw 0 0\n");
    fs::remove_dir_all(machine.path("sys/block/vdd/vdd1")).unwrap();
    machine.write("sys/block/vdd/vdd1/partition", "1\n");
    assert_eq!(code("raid", "ext4", GUID), 23, "mounted elsewhere");
}

/// The table of `DiskIdentity::matches`, as far as the machine's program goes by it: each disk is too small (22), once it
/// is found.
#[test]
fn a_disk_is_the_one_whose_serial_and_wwn_are_both_as_meant() {
    let machine = Machine::new();
    machine.disk("vdb", 1024, &[("serial", "twin"), ("wwid", "naa.50Ab01")]);
    machine.disk("vdc", 1024, &[("serial", "twin"), ("wwid", "naa.50ab02")]);
    let code = |identity: &[&str]| {
        let rest = ["--layout", "ext4", "--disk-guid", GUID];
        let arguments = [identity, &rest].concat();
        machine.run("partition", &arguments, b"").status.code()
    };
    for (identity, want) in [
        (&["--serial", "twin"][..], 21),
        (&["--serial", "twin", "--wwn", "0x50ab01"], 22),
        (&["--serial", "twin", "--wwn", "0x50AB02"], 22),
        (&["--wwn", "0x50ab02"], 22),
        (&["--serial", "twin", "--wwn", "0x50ab03"], 20),
        (&["--serial", "other", "--wwn", "0x50ab02"], 20),
        (&["--serial", "TWIN", "--wwn", "0x50ab02"], 20),
    ] {
        assert_eq!(code(identity), Some(want), "{identity:?}");
    }
}

#[test]
fn a_disk_whose_name_goes_on_is_another_disk() {
    let machine = Machine::new();
    machine.disk(
        "nvme0n1",
        8_388_608,
        &[("serial", "first"), ("nvme0n1p1/partition", "1")],
    );
    machine.disk(
        "nvme0n10",
        8_388_608,
        &[("serial", "tenth"), ("nvme0n10p1/partition", "1")],
    );
    machine.write("proc/mounts", "/dev/nvme0n10p1 /data ext4 rw 0 0\n");
    let probe = |disk: &str| {
        let arguments = [
            "--serial",
            disk,
            "--layout",
            "ext4",
            "--disk-guid",
            GUID,
            "--probe",
        ];
        machine.run("partition", &arguments, b"").status.code()
    };
    assert_eq!(
        probe("first"),
        Some(10),
        "not partitioned yet, and not in use"
    );
    assert_eq!(probe("tenth"), Some(23), "mounted elsewhere");
}

#[test]
fn delivery_is_whole_private_and_inside() {
    let machine = Machine::new();
    fs::create_dir_all(machine.path("mnt/etc")).unwrap();
    let path = "/etc/ssh/ssh_host_ed25519_key";
    let output = machine.run("deliver", &[path, "0600"], b"secret\n");
    assert!(output.status.success(), "{}", said(&output));
    assert!(!String::from_utf8_lossy(&output.stdout).contains("secret"));
    let target = machine.path("mnt/etc/ssh/ssh_host_ed25519_key");
    assert_eq!(fs::read(&target).unwrap(), b"secret\n");
    assert_eq!(
        fs::metadata(&target).unwrap().permissions().mode() & 0o7777,
        0o600
    );
    let names = fs::read_dir(target.parent().unwrap()).unwrap().count();
    assert_eq!(names, 1, "no temporary file is left");

    let sum = "b37e50cedcd3e3f1ff64f4afc0422084ae694253cf399326868e07a35f4a45fb";
    let probe = |path: &str, sum: &str| {
        machine
            .run("deliver", &["--probe", path, sum], b"")
            .status
            .code()
    };
    assert_eq!(probe(path, sum), Some(0));
    assert_eq!(probe(path, &sum.replace('b', "c")), Some(10));
    assert_eq!(probe("/etc/absent", sum), Some(10));

    symlink("/tmp", machine.path("mnt/etc/out")).unwrap();
    for bad in [
        "/etc/out/a",
        "/etc/../../a",
        "/etc//a",
        "/./a",
        "/etc/ssh",
        "/etc/ssh/ssh_host_ed25519_key/a",
    ] {
        let output = machine.run("deliver", &[bad, "0600"], b"x");
        assert_eq!(output.status.code(), Some(40), "{bad}: {}", said(&output));
    }
    for (path, mode) in [("relative", "0600"), ("/etc/a", "rw"), ("/etc/a", "8888")] {
        assert_eq!(
            machine.run("deliver", &[path, mode], b"x").status.code(),
            Some(64)
        );
    }
}

#[test]
fn install_wants_a_store_path_and_a_mounted_disk() {
    let machine = Machine::new();
    for arguments in [&["/etc"][..], &[], &["/nix/store/short"], &["--what"]] {
        assert_eq!(
            machine.run("install", arguments, b"").status.code(),
            Some(64)
        );
    }
    let system = "/nix/store/00000000000000000000000000000000-nixos-system-rack-01";
    assert_eq!(
        machine.run("install", &[system], b"").status.code(),
        Some(41)
    );
}

#[test]
fn every_program_is_an_asset_and_parses() {
    for (name, text) in programs() {
        let mut child = Command::new("sh")
            .arg("-n")
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        assert!(child.wait().unwrap().success(), "{name}");
    }
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/installer/assets/undercroft");
    if let Ok(entries) = fs::read_dir(assets) {
        assert_eq!(entries.count(), programs().len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    // Whatever a disk says that it is called, the report stays JSON.
    #[test]
    fn any_serial_number_gives_a_report(serial in prop::collection::vec(1u8..=255, 0..30)) {
        let machine = Machine::new();
        machine.write("sys/block/vda/serial", &serial);
        let report = machine.report();
        prop_assert_eq!(report.disks.len(), 1);
    }
}
