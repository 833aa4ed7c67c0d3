//! A new generation is booted once; the one that proved itself stays the default.

use serde_json::json;

use crate::{Machine, failed, programs_are_here, succeeded};

const VENDOR: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

/// A variable as the kernel shows it: four bytes of attributes, then UTF-16.
fn set_variable(machine: &Machine, name: &str, value: &str) {
    let mut bytes = vec![7, 0, 0, 0];
    bytes.extend(value.encode_utf16().chain([0]).flat_map(u16::to_le_bytes));
    machine.write(&format!("sys/firmware/efi/efivars/{name}-{VENDOR}"), bytes);
}

/// A machine with generations 1 to 3 in its boot menu, of which the installer wrote the last as
/// the default of loader.conf.
fn machine() -> Machine {
    let machine = Machine::new();
    for generation in 1..=3 {
        machine.write(
            &format!("boot/loader/entries/nixos-generation-{generation}.conf"),
            "title\n",
        );
    }
    machine.write(
        "boot/loader/loader.conf",
        "timeout 3\ndefault nixos-generation-3.conf\neditor 0\n",
    );
    machine.program("bootctl", "");
    machine.program("systemctl", "");
    machine
}

/// The words that bootctl was told, without the path.
fn told(machine: &Machine) -> Vec<String> {
    machine
        .calls()
        .lines()
        .filter_map(|line| line.strip_prefix("bootctl "))
        .map(|line| line.split_once(' ').unwrap().1.to_owned())
        .collect()
}

#[test]
fn a_new_generation_is_tried_once_and_the_old_one_stays() {
    let machine = machine();
    set_variable(&machine, "LoaderEntryDefault", "nixos-generation-1.conf");
    set_variable(&machine, "LoaderEntrySelected", "nixos-generation-2.conf");
    succeeded(&machine.run(&["boot-lib", "boot-trial"], &[]));
    // In this order: between the two a power cut leaves the old one.
    assert_eq!(
        told(&machine),
        [
            "set-default nixos-generation-1.conf",
            "set-oneshot nixos-generation-3.conf"
        ]
    );
}

#[test]
fn where_nothing_has_proved_itself_what_runs_is_kept() {
    for default in ["", "nixos-generation-9.conf"] {
        let machine = machine();
        if !default.is_empty() {
            set_variable(&machine, "LoaderEntryDefault", default);
        }
        set_variable(&machine, "LoaderEntrySelected", "nixos-generation-2.conf");
        succeeded(&machine.run(&["boot-lib", "boot-trial"], &[]));
        assert_eq!(
            told(&machine),
            [
                "set-default nixos-generation-2.conf",
                "set-oneshot nixos-generation-3.conf"
            ]
        );
    }
}

#[test]
fn the_proved_generation_itself_needs_no_trial() {
    let machine = machine();
    set_variable(&machine, "LoaderEntryDefault", "nixos-generation-3.conf");
    succeeded(&machine.run(&["boot-lib", "boot-trial"], &[]));
    assert_eq!(
        told(&machine),
        ["set-default nixos-generation-3.conf", "set-oneshot "]
    );
}

#[test]
fn a_new_installation_forgets_what_an_earlier_one_left() {
    let machine = machine().with("NIXOS_INSTALL_BOOTLOADER", "1");
    set_variable(&machine, "LoaderEntryDefault", "nixos-generation-2.conf");
    succeeded(&machine.run(&["boot-lib", "boot-trial"], &[]));
    assert_eq!(told(&machine), ["set-oneshot ", "set-default "]);
}

#[test]
fn without_variables_the_new_generation_is_the_default() {
    let silent = machine();
    let said = succeeded(&silent.run(&["boot-lib", "boot-trial"], &[]));
    assert!(said.contains("becomes the default at once"), "{said}");
    assert_eq!(told(&silent), Vec::<String>::new());

    // The default can be written, the one try can't: the new generation must not be left for ever.
    let machine = machine();
    set_variable(&machine, "LoaderEntryDefault", "nixos-generation-1.conf");
    machine.program("bootctl", "case $* in *set-oneshot*) exit 1 ;; esac");
    let said = succeeded(&machine.run(&["boot-lib", "boot-trial"], &[]));
    assert!(
        said.contains("can't try nixos-generation-3.conf once"),
        "{said}"
    );
    assert_eq!(told(&machine).last().unwrap(), "set-default ");
}

#[test]
fn what_came_up_healthy_becomes_the_default() {
    if !programs_are_here(&["jq"]) {
        return;
    }
    let machine = machine();
    set_variable(&machine, "LoaderEntryDefault", "nixos-generation-2.conf");
    set_variable(&machine, "LoaderEntrySelected", "nixos-generation-3.conf");
    succeeded(&machine.run(&["boot-lib", "boot-commit"], &[]));
    assert_eq!(told(&machine), ["set-default nixos-generation-3.conf"]);
    assert_eq!(machine.json("run/undercroft/boot.json")["state"], "proven");

    machine.program("bootctl", "exit 1");
    failed(&machine.run(&["boot-lib", "boot-commit"], &[]));
}

#[test]
fn a_generation_on_trial_that_is_unhealthy_is_left_and_says_why() {
    if !programs_are_here(&["jq"]) {
        return;
    }
    let machine = machine();
    set_variable(&machine, "LoaderEntryDefault", "nixos-generation-2.conf");
    set_variable(&machine, "LoaderEntrySelected", "nixos-generation-3.conf");
    machine.write(
        "run/undercroft/health.json",
        r#"{"checks": [{"name": "gpu", "ok": false, "output": "1 of 2"}, {"name": "mounts", "ok": true, "output": ""},
            {"name": "mirror", "ok": false, "gates": false, "output": "degraded"},
            {"name": "kubernetes", "ok": false, "gates": true, "answered": false, "output": "nobody"}]}"#,
    );
    succeeded(&machine.run(&["boot-lib", "boot-fallback"], &[]));
    assert!(
        machine.calls().ends_with("systemctl reboot\n"),
        "{}",
        machine.calls()
    );
    let kept = machine.json("var/lib/undercroft/boot/fell-back.json");
    assert_eq!(kept["entry"], "nixos-generation-3.conf");
    assert_eq!(kept["failed"], json!([{"name": "gpu", "output": "1 of 2"}]));
    // After the reboot it is told where the controller looks.
    set_variable(&machine, "LoaderEntrySelected", "nixos-generation-2.conf");
    succeeded(&machine.run(&["boot-lib", "boot-commit"], &[]));
    let report = machine.json("run/undercroft/boot.json");
    assert_eq!(report["fell_back"]["entry"], "nixos-generation-3.conf");
    // The next generation that proves itself ends that.
    set_variable(&machine, "LoaderEntrySelected", "nixos-generation-1.conf");
    succeeded(&machine.run(&["boot-lib", "boot-commit"], &[]));
    assert!(machine.json("run/undercroft/boot.json")["fell_back"].is_null());
}

#[test]
fn a_machine_that_runs_its_default_never_reboots_for_its_health() {
    if !programs_are_here(&["jq"]) {
        return;
    }
    // The default itself; nothing known; a default that was cleaned away.
    for (default, selected) in [
        ("nixos-generation-3.conf", "nixos-generation-3.conf"),
        ("", ""),
        ("nixos-generation-9.conf", "nixos-generation-3.conf"),
    ] {
        let machine = machine();
        set_variable(&machine, "LoaderEntryDefault", default);
        set_variable(&machine, "LoaderEntrySelected", selected);
        succeeded(&machine.run(&["boot-lib", "boot-fallback"], &[]));
        assert_eq!(machine.calls(), "", "{default:?}, {selected:?}");
    }
}

/// A machine whose mounts are what a file says: `MOUNTPOINT DEVICE`, a line each.
fn mirrored(mounts: &str) -> Machine {
    let machine = Machine::new();
    let root = machine.root();
    let machine = machine
        .with("ESP", format!("{root}/boot"))
        .with("MIRRORS", format!("{root}/boot-2 {root}/boot-3"));
    machine.write("mounts", mounts);
    machine.program("mountpoint", "grep --quiet \"^${2#$root} \" $root/mounts");
    machine.program(
        "findmnt",
        "grep \"^${5#$root} \" $root/mounts | cut --delimiter=' ' --fields=2",
    );
    machine.program("mount", "");
    machine
}

fn mounted(machine: &Machine) -> Vec<String> {
    let calls = machine.calls();
    let mounts = calls.lines().filter_map(|line| line.strip_prefix("mount "));
    mounts
        .map(|words| words.split(' ').nth(4).unwrap().to_owned())
        .collect()
}

#[test]
fn a_living_disks_boot_partition_takes_the_place_of_a_dead_ones() {
    if !programs_are_here(&["grep", "cut"]) {
        return;
    }
    let whole = mirrored("/boot /dev/sda1\n/boot-2 /dev/sdb1\n");
    succeeded(&whole.run(&["boot-mirror"], &[]));
    assert_eq!(mounted(&whole), Vec::<String>::new());
    // The first disk is dead, and of the others the second lives.
    for (mounts, device) in [
        ("/boot-2 /dev/sdb1\n/boot-3 /dev/sdc1\n", "/dev/sdb1"),
        ("/boot-3 /dev/sdc1\n", "/dev/sdc1"),
    ] {
        let machine = mirrored(mounts);
        succeeded(&machine.run(&["boot-mirror"], &[]));
        assert_eq!(mounted(&machine), [device]);
    }
    let none = mirrored("/ /dev/sda2\n");
    failed(&none.run(&["boot-mirror"], &[]));
    assert_eq!(mounted(&none), Vec::<String>::new());
}
