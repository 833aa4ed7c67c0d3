//! A new generation is tried once, and left or kept: with systemd-boot, the firmware's variables,
//! bootctl, systemd, the units of nix/modules and their scripts, on a machine of the rack.
//!
//! The machine isn't NixOS: its initial ramdisk is its whole system, of Debian's programs. The units
//! are those that NixOS' module system makes of boot.nix and health.nix, from a golden file. Every
//! generation has the same kernel and ramdisk; what makes one panic or fall ill is a word of its
//! entry.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "this is test code, which the lints recognize only inside test functions"
)]

mod guest_common;
#[path = "../../rack/tests/rack_common/mod.rs"]
mod rack_common;

use std::fs;
use std::path::{Path, PathBuf};

use guest_common::{
    AGENT, Agent, add_programs, cache_dir, let_there_be, packages, read_module, run,
};
use rack_common::{TestRack, machine, name, rack_of};
use serde_json::{Value, json};
use undercroft_build::debian::{Arch, Kernel, KernelFlavour, PartSet, Parts};
use undercroft_build::installer::cpio::Archive;
use undercroft_rack::{Console, EmulatedBus, PowerAction, RackDisk, StopReason};

#[test]
fn rack_supervisor() {
    rack_common::be_supervisor();
}

const MACHINE: &str = "trial-01";
const MIB: u64 = 1 << 20;
/// Where the EFI system partition and the one that keeps /var/lib begin and end, in MiB.
const PARTITIONS: [(u64, u64); 2] = [(1, 129), (129, 161)];
const VENDOR: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

const PACKAGES: [&str; 8] = [
    "bash",
    "busybox-static",
    "coreutils",
    "jq",
    "sed",
    "systemd",
    "systemd-boot",
    "systemd-boot-efi",
];
/// Programs with the names under which the units' scripts call them.
const PROGRAMS: [&str; 22] = [
    "usr/bin/bash",
    "usr/bin/bootctl",
    "usr/bin/cat",
    "usr/bin/date",
    "usr/bin/jq",
    "usr/bin/ln",
    "usr/bin/mkdir",
    "usr/bin/mktemp",
    "usr/bin/mv",
    "usr/bin/readlink",
    "usr/bin/rm",
    "usr/bin/sed",
    "usr/bin/sleep",
    "usr/bin/sync",
    "usr/bin/systemctl",
    "usr/bin/tail",
    "usr/bin/timeout",
    "usr/bin/tr",
    "usr/bin/uname",
    "usr/lib/systemd/systemd",
    "usr/lib/systemd/systemd-executor",
    "usr/lib/systemd/systemd-shutdown",
];

/// Mounts what an installed system has mounted when its units start.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bb
export PATH=/usr/bin:/bb
mkdir -p /proc /sys /dev /run /boot /var/lib /tmp
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
case $(cat /proc/cmdline) in
*undercroft.test=panic*) echo c >/proc/sysrq-trigger ;;
esac
for module in /modules/*.ko; do insmod "$module"; done
mount -t efivarfs efivarfs /sys/firmware/efi/efivars
until [ -b /dev/vda2 ]; do usleep 20000; done
mount -t vfat -o umask=0077 /dev/vda1 /boot
mount -t ext4 /dev/vda2 /var/lib
mkdir -p /var/lib/nix-var /nix/var
mount -o bind /var/lib/nix-var /nix/var
exec /usr/lib/systemd/systemd
"#;
/// The one check of the machine's health.
const CHECK: &str = r#"#!/bin/bash
case $(</proc/cmdline) in
*undercroft.test=ill*) echo "ill, as the test wants it"; exit 1 ;;
esac
"#;
/// bootctl, which says that it is about to write the default or has written it, and then waits for
/// the power to be cut, where the entry says so.
const BOOTCTL: &str = r#"#!/bin/bash
stand_still() {
    [[ $* == *" set-default "* && $(</proc/cmdline) == *undercroft.test=stop-$moment* ]] || return
    echo "bootctl: $moment the default is written" >/dev/ttyS0
    sleep infinity
}
moment=before
stand_still "$@"
/usr/bin/bootctl "$@"
code=$?
moment=after
stand_still "$@"
exit $code
"#;
const AGENT_UNIT: &str = "\
    [Unit]\nAfter=basic.target\n[Service]\n\
    Environment=PATH=/usr/bin:/bb\nExecStart=/test/agent /dev/ttyS0\n";

fn in_repository(path: &str) -> PathBuf {
    undercroft_testkit::repository().join(path)
}

fn script(name: &str) -> String {
    fs::read_to_string(in_repository(&format!("nix/modules/scripts/{name}.sh"))).unwrap()
}

/// The scripts as boot.nix and health.nix put them together, at the paths that the units have.
fn add_scripts(archive: &mut Archive) {
    let begin = "#!/bin/bash\nexport PATH=/test/bin:/usr/bin\n";
    for name in ["boot-trial", "boot-commit", "boot-fallback"] {
        let text = format!(
            "{begin}export UNDERCROFT_ESP=/boot\n{}{}",
            script("boot-lib"),
            script(name)
        );
        archive.file(&format!("nix/store/undercroft-{name}"), 0o755, text);
    }
    archive.file(
        "nix/store/undercroft-health/bin/undercroft-health",
        0o755,
        format!(
            "{begin}export UNDERCROFT_HEALTH_CHECKS=/test/checks.json UNDERCROFT_HEALTH_PAUSE_S=1\n{}",
            script("health")
        ),
    );
    let checks = json!({ "checks": [{
        "name": "thermometer",
        "description": "The room's thermometer answers.",
        "gates": true,
        "timeoutSec": 20,
        "script": "/test/check",
    }] });
    archive.file("test/checks.json", 0o644, checks.to_string());
    archive.file("test/check", 0o755, CHECK);
    archive.file("test/bin/bootctl", 0o755, BOOTCTL);
    archive.file("test/agent", 0o755, AGENT);
    for generation in GENERATIONS {
        let init = format!("{}/init", system(generation).trim_start_matches('/'));
        archive.file(&init, 0o755, "");
    }
}

/// systemd's own units, ours, and those that bring the agent.
fn add_units(archive: &mut Archive, set: &PartSet) {
    let systemd = set.part("systemd").unwrap();
    let dir = set.dir(systemd);
    let own = ["lib/systemd/system", "usr/lib/systemd/system"].map(|path| dir.join(path));
    let own = own.iter().find(|path| path.is_dir()).unwrap();
    for entry in fs::read_dir(own).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_file() && (name.ends_with(".target") || name == "systemd-reboot.service") {
            let content = fs::read(&path).unwrap();
            archive.file(&format!("usr/lib/systemd/system/{name}"), 0o644, content);
        }
    }
    archive.link(
        "etc/systemd/system/default.target",
        "/usr/lib/systemd/system/multi-user.target",
    );
    archive.file("etc/systemd/system/agent.service", 0o644, AGENT_UNIT);
    let want = "etc/systemd/system/multi-user.target.wants";
    archive.link(
        &format!("{want}/agent.service"),
        "/etc/systemd/system/agent.service",
    );

    let golden = fs::read_to_string(in_repository("nix/tests/golden/units.json")).unwrap();
    let golden: Value = serde_json::from_str(&golden).unwrap();
    for (name, unit) in golden.as_object().unwrap() {
        let text = unit["text"].as_str().unwrap();
        // Ten minutes is long for a test.
        let text = text.replace(" --wait 600", " --wait 3");
        let path = if name == "boot-complete.target" {
            // NixOS adds to the unit that systemd ships.
            format!("etc/systemd/system/{name}.d/overrides.conf")
        } else {
            format!("etc/systemd/system/{name}")
        };
        archive.file(&path, 0o644, text);
        for (kind, folder) in [("wantedBy", "wants"), ("requiredBy", "requires")] {
            for other in unit[kind].as_array().unwrap() {
                let other = other.as_str().unwrap();
                let link = format!("etc/systemd/system/{other}.{folder}/{name}");
                archive.link(&link, &format!("/{path}"));
            }
        }
    }
}

fn initrd(set: &PartSet, kernel: &Kernel) -> Vec<u8> {
    let mut archive = Archive::new();
    for path in ["proc", "sys", "dev", "run", "boot", "bb", "var/lib"] {
        archive.dir(path, 0o755);
    }
    archive.dir("tmp", 0o1777);
    archive.char_device("dev/console", 5, 1);
    archive.char_device("dev/null", 1, 3);
    let busybox = fs::read(set.file("usr/bin/busybox").unwrap()).unwrap();
    archive.file("bin/busybox", 0o755, busybox);
    archive.link("bin/sh", "busybox");
    archive.link("bin/bash", "/usr/bin/bash");
    let programs = PROGRAMS.iter().filter(|path| {
        // systemd-executor came with systemd 255.
        set.file(path).is_ok() || !path.ends_with("systemd-executor")
    });
    add_programs(
        &mut archive,
        set,
        programs.map(|path| (*path, (*path).to_owned())),
    );
    // Debian's older releases have systemd's programs in /lib.
    archive.link("lib/systemd", "/usr/lib/systemd");
    archive.file("etc/os-release", 0o644, "ID=undercroft-test\n");
    archive.file(
        "etc/machine-id",
        0o644,
        "0123456789abcdef0123456789abcdef\n",
    );
    archive.file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\n");
    archive.file("etc/group", 0o644, "root:x:0:\n");
    archive.file(
        "etc/systemd/system.conf",
        0o644,
        "[Manager]\nDefaultStandardOutput=kmsg\nDefaultStandardError=kmsg\n",
    );
    add_scripts(&mut archive);
    add_units(&mut archive, set);
    let wanted = [
        "virtio_pci",
        "virtio_blk",
        "vfat",
        "nls_cp437",
        "nls_ascii",
        "ext4",
        "efivarfs",
    ];
    let mut needed: Vec<&str> = wanted.to_vec();
    // They come in an order in which each is after those that it needs.
    for module in kernel.modules.iter().rev() {
        if needed.contains(&module.name.as_str()) {
            needed.extend(module.needs.iter().map(String::as_str));
        }
    }
    let modules = kernel
        .modules
        .iter()
        .filter(|m| needed.contains(&m.name.as_str()));
    for (place, module) in modules.enumerate() {
        let path = format!("modules/{place:02}-{}.ko", module.name);
        archive.file(&path, 0o644, read_module(&module.file));
    }
    archive.file("init", 0o755, INIT);
    archive.write()
}

/// What the machine is said to have in its store; all of them are this one ramdisk.
const GENERATIONS: std::ops::RangeInclusive<u32> = 1..=5;

fn system(generation: u32) -> String {
    format!("/nix/store/nixos-system-{generation}")
}

fn entry(generation: u32, test: &str) -> String {
    let system = system(generation);
    format!(
        "title Generation {generation}\nlinux /kernel\ninitrd /initrd\n\
         options init={system}/init console=ttyS0 quiet loglevel=1 panic=1 systemd.show_status=no \
         systemd.log_target=kmsg undercroft.test={test}\n"
    )
}

/// Lays the disk out: boot loader and the first generation on one partition, and one for /var/lib.
/// `false`, after it said why, where programs for that are missing.
fn make_disk(disk: &Path, folder: &Path, set: &PartSet, kernel: &Kernel) -> bool {
    let image = disk.to_str().unwrap();
    let plain = folder.join("initrd.plain");
    let packed = folder.join("initrd");
    fs::write(&plain, initrd(set, kernel)).unwrap();
    fs::write(folder.join("entry"), entry(1, "well")).unwrap();
    fs::write(
        folder.join("loader.conf"),
        "timeout 0\ndefault nixos-generation-1.conf\n",
    )
    .unwrap();
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let loader = set
        .file("usr/lib/systemd/boot/efi/systemd-bootx64.efi")
        .unwrap();

    let mut table = vec!["--clear".to_owned()];
    for (number, ((start, end), kind)) in PARTITIONS.iter().zip(["ef00", "8300"]).enumerate() {
        let number = number + 1;
        table.push(format!("--new={number}:{start}M:{}", end * MIB / 512 - 1));
        table.push(format!("--typecode={number}:{kind}"));
    }
    table.push(image.to_owned());
    let table: Vec<&str> = table.iter().map(String::as_str).collect();
    let [(esp, esp_end), (state, state_end)] = PARTITIONS;
    let at = format!("{image}@@{}", esp * MIB);
    let kib = ((esp_end - esp) * 1024).to_string();
    let state_kib = ((state_end - state) * 1024).to_string();
    let files = [
        (
            loader.to_str().unwrap().to_owned(),
            "::/EFI/BOOT/BOOTX64.EFI",
        ),
        (kernel.image.to_str().unwrap().to_owned(), "::/kernel"),
        (path("initrd"), "::/initrd"),
        (path("entry"), "::/loader/entries/nixos-generation-1.conf"),
        (path("loader.conf"), "::/loader/loader.conf"),
    ];
    run(
        "zstd",
        &[
            "-3",
            "-q",
            "-f",
            "-o",
            packed.to_str().unwrap(),
            plain.to_str().unwrap(),
        ],
    ) && run("sgdisk", &table)
        && run(
            "mkfs.vfat",
            &[
                "-F",
                "32",
                "--offset",
                &(esp * 2048).to_string(),
                image,
                &kib,
            ],
        )
        && run(
            "mkfs.ext4",
            &[
                "-q",
                "-F",
                "-E",
                &format!("offset={}", state * MIB),
                image,
                &state_kib,
            ],
        )
        && run(
            "mmd",
            &[
                "-i",
                &at,
                "::/EFI",
                "::/EFI/BOOT",
                "::/loader",
                "::/loader/entries",
            ],
        )
        && files
            .iter()
            .all(|(from, to)| run("mcopy", &["-i", &at, from, to]))
}

/// The machine under test, between boots and in them.
struct Trial {
    rack: TestRack,
    agent: Agent<Console>,
}

impl Trial {
    /// Waits until the machine has booted a generation and its boot is judged; gives the report.
    async fn booted(&mut self, generation: u32, state: &str) -> Value {
        let entry = format!("nixos-generation-{generation}.conf");
        self.booted_by(&entry, generation, state).await
    }

    /// The same, of a generation whose entry has a name of its own.
    async fn booted_by(&mut self, entry: &str, generation: u32, state: &str) -> Value {
        self.agent.ready().await;
        let selected = format!(
            "tail -c +5 /sys/firmware/efi/efivars/LoaderEntrySelected-{VENDOR} | tr -d '\\000'"
        );
        assert_eq!(
            self.agent.ok(&selected).await,
            entry,
            "{}",
            self.agent.transcript()
        );
        let report = "/run/undercroft/boot.json";
        let wait = format!(
            "timeout 180 sh -c 'until [ -s {report} ]; do sleep 0.1; done' || dmesg; cat {report}"
        );
        let report = self.agent.ok(&wait).await;
        let report: Value = serde_json::from_str(&report).expect(&report);
        assert_eq!(report["selected"], entry, "{report}");
        assert_eq!(report["state"], state, "{report}");
        assert_eq!(report["system"], system(generation), "{report}");
        assert_eq!(report["proven"], system(generation), "{report}");
        report
    }

    /// Installs a generation as NixOS' installer does, which ends with our hook, and reboots.
    async fn install(&mut self, generation: u32, test: &str) {
        for (path, text) in [
            (
                format!("/boot/loader/entries/nixos-generation-{generation}.conf"),
                entry(generation, test),
            ),
            (
                "/boot/loader/loader.conf".to_owned(),
                format!("timeout 0\ndefault nixos-generation-{generation}.conf\n"),
            ),
        ] {
            let text = text.replace('\n', "\\n");
            self.agent.ok(&format!("printf '{text}' >{path}")).await;
        }
        let said = self.agent.ok("/nix/store/undercroft-boot-trial 2>&1").await;
        assert!(said.contains("is booted once"), "{said}");
        self.agent.send("sync; systemctl reboot").await;
    }

    /// Cuts the power when the commit of the default is at a moment, and switches the machine on.
    async fn cut(&mut self, moment: &str) {
        self.agent
            .until(&format!("bootctl: {moment} the default is written"))
            .await;
        let machine = name(MACHINE);
        let client = &self.rack.client;
        client.power(&machine, PowerAction::Cut).await.unwrap();
        let stopped = self.rack.machine(MACHINE).await.last_stop.unwrap();
        assert_eq!(stopped.reason, StopReason::Cut);
        client.power(&machine, PowerAction::On).await.unwrap();
    }
}

#[tokio::test]
async fn a_generation_is_tried_once_and_kept_only_when_it_came_up_healthy() {
    let Some(set) = packages(&PACKAGES) else {
        return;
    };
    let parts = Parts::open(&cache_dir()).unwrap();
    let kernel = parts.kernel(KernelFlavour::Cloud, Arch::X86_64, &mut |_| {});
    let Some((kernel, _)) = let_there_be(kernel) else {
        return;
    };
    let mut on_trial = machine(MACHINE, 1);
    on_trial.memory_mb = 768;
    on_trial.disks = vec![RackDisk {
        bus: EmulatedBus::Virtio,
        serial: "UC-TRIAL".into(),
        size_bytes: 168 * MIB,
    }];
    let Some(rack) = TestRack::start(&rack_of(vec![on_trial])).await else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let disk = rack
        .dir
        .path()
        .join(format!("machines/{MACHINE}/disk0.img"));
    if !make_disk(&disk, folder.path(), &set, &kernel) {
        return;
    }
    let machine = name(MACHINE);
    let console = rack.client.console(&machine, 0).await.unwrap();
    rack.client.power(&machine, PowerAction::On).await.unwrap();
    let mut trial = Trial {
        rack,
        agent: Agent::new(console),
    };

    // The installation's own generation becomes the default when it came up.
    let report = trial.booted(1, "proven").await;
    assert_eq!(report["default"], "nixos-generation-1.conf");
    assert_eq!(report["fell_back"], Value::Null);

    // One that panics is left by the kernel's own reset.
    trial.install(2, "panic").await;
    let report = trial.booted(1, "proven").await;
    assert_eq!(report["default"], "nixos-generation-1.conf");
    let stopped = trial.rack.machine(MACHINE).await.last_stop.unwrap();
    assert_eq!(stopped.reason, StopReason::GuestReset);
    assert_eq!(
        trial.rack.machine(MACHINE).await.launches,
        3,
        "it was tried"
    );

    // One that fails its check is left by a reboot, and why it was is kept.
    trial.install(3, "ill").await;
    trial.agent.ready().await;
    let report = trial.booted(1, "proven").await;
    let left = &report["fell_back"];
    assert_eq!(left["entry"], "nixos-generation-3.conf");
    assert_eq!(left["failed"][0]["name"], "thermometer");
    assert_eq!(left["failed"][0]["output"], "ill, as the test wants it");

    // What proved itself is known by its system: its entry gets another name before the next one is
    // tried, and it is gone back to all the same.
    let (usual, renamed) = ("nixos-generation-1.conf", "nixos-4f2a.conf");
    let rename = |from, to| format!("cd /boot/loader/entries && mv {from} {to}");
    trial.agent.ok(&rename(usual, renamed)).await;
    trial.install(5, "ill").await;
    trial.agent.ready().await;
    let report = trial.booted_by(renamed, 1, "proven").await;
    assert_eq!(report["default"], renamed);
    assert_eq!(report["fell_back"]["system"], system(5));
    trial.agent.ok(&rename(renamed, usual)).await;

    // The power goes before the default is written: the old one comes up, and the new one can be
    // tried again.
    trial.install(4, "stop-before").await;
    trial.cut("before").await;
    let report = trial.booted(1, "proven").await;
    assert_eq!(report["default"], "nixos-generation-1.conf");
    // The power goes right after: the new one comes up and is the default, and what was left before
    // it is history.
    trial.install(4, "stop-after").await;
    trial.cut("after").await;
    let report = trial.booted(4, "proven").await;
    assert_eq!(report["default"], "nixos-generation-4.conf");
    assert_eq!(report["fell_back"], Value::Null);
    trial.rack.end().await;
}
