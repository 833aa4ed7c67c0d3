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

fn name(generation: u32) -> String {
    format!("nixos-generation-{generation}.conf")
}

fn system(generation: u32) -> String {
    format!("/nix/store/gen-{generation}")
}

/// Puts a system into the boot menu, under any name.
fn enter(machine: &Machine, entry: &str, title: &str, generation: u32) {
    machine.write(
        &format!("boot/loader/entries/{entry}"),
        format!(
            "title {title}\nlinux /EFI/nixos/kernel.efi\noptions loglevel=4 init={}/init quiet\n",
            system(generation)
        ),
    );
    machine.write(&format!("{}/init", system(generation)), "");
}

/// A machine whose entries name their systems, as all of NixOS' do, and which runs one of them. Its
/// loader knows the entry that was booted and its default.
fn running(generation: u32, selected: &str, default: &str) -> Machine {
    let machine = machine();
    for each in 1..=3 {
        enter(&machine, &name(each), "NixOS", each);
    }
    runs(&machine, generation, selected);
    set_variable(&machine, "LoaderEntryDefault", default);
    machine
}

fn runs(machine: &Machine, generation: u32, selected: &str) {
    let cmdline = format!(
        "initrd=\\EFI\\initrd.efi init={}/init loglevel=4\n",
        system(generation)
    );
    machine.write("proc/cmdline", cmdline);
    set_variable(machine, "LoaderEntrySelected", selected);
}

const PROVEN: &str = "nix/var/nix/profiles/system-profiles/undercroft-proven";

/// The system that is kept as the one that proved itself.
fn proven(machine: &Machine) -> String {
    let link = std::fs::read_link(machine.path(&format!("{PROVEN}-1-link"))).unwrap();
    let profile = std::fs::read_link(machine.path(PROVEN)).unwrap();
    assert_eq!(profile.to_str(), Some("undercroft-proven-1-link"));
    link.to_str().unwrap().to_owned()
}

fn commit(machine: &Machine) {
    succeeded(&machine.run(&["boot-lib", "boot-commit"], &[]));
}

#[test]
fn what_proved_itself_is_found_by_its_system_whatever_its_entry_is_called() {
    if !programs_are_here(&["jq"]) {
        return;
    }
    let machine = running(1, &name(1), "");
    commit(&machine);
    assert_eq!(proven(&machine), system(1));
    // Its number went to another system, and its own entry has a name of a hash.
    enter(&machine, &name(1), "NixOS", 9);
    enter(&machine, "nixos-4f2a.conf", "NixOS", 1);
    set_variable(&machine, "LoaderEntryDefault", &name(1));
    succeeded(&machine.run(&["boot-lib", "boot-trial"], &[]));
    let last = || told(&machine).split_off(1);
    assert_eq!(
        last(),
        [
            "set-default nixos-4f2a.conf".to_owned(),
            format!("set-oneshot {}", name(3))
        ]
    );
    // The entry of its own profile is the one that stays.
    let own = "nixos-undercroft-proven-generation-1.conf";
    enter(&machine, own, "NixOS [undercroft-proven]", 1);
    succeeded(&machine.run(&["boot-lib", "boot-trial"], &[]));
    assert_eq!(last()[2], format!("set-default {own}"));
    // What proved itself is installed again, under another number: that is no trial.
    enter(&machine, &name(3), "NixOS", 1);
    succeeded(&machine.run(&["boot-lib", "boot-trial"], &[]));
    assert_eq!(
        last()[4..],
        [format!("set-default {own}"), "set-oneshot ".to_owned()]
    );
}

#[test]
fn a_name_that_is_used_again_makes_no_other_system_the_proven_one() {
    if !programs_are_here(&["jq"]) {
        return;
    }
    // The default's name is the one that was booted, and what it starts was another's.
    let machine = running(2, &name(2), &name(1));
    commit(&machine);
    assert_eq!(told(&machine), [format!("set-default {}", name(2))]);
    enter(&machine, "nixos-77.conf", "NixOS", 2);
    enter(&machine, &name(2), "NixOS", 9);
    runs(&machine, 9, &name(2));
    set_variable(&machine, "LoaderEntryDefault", "nixos-77.conf");
    machine.write(
        "run/undercroft/health.json",
        r#"{"checks": [{"name": "gpu", "gates": true, "ok": false, "output": "1 of 2"}]}"#,
    );
    succeeded(&machine.run(&["boot-lib", "boot-fallback"], &[]));
    assert!(machine.calls().ends_with("systemctl reboot\n"));
    let kept = machine.json("var/lib/undercroft/boot/fell-back.json");
    assert_eq!(
        (&kept["system"], &kept["to_system"]),
        (&json!(system(9)), &json!(system(2)))
    );
    // It is gone back to, and runs under one name or the other: what was left stays told.
    for selected in ["nixos-77.conf", "nixos-78.conf"] {
        enter(&machine, selected, "NixOS", 2);
        runs(&machine, 2, selected);
        commit(&machine);
        let report = machine.json("run/undercroft/boot.json");
        assert_eq!(report["fell_back"]["system"], json!(system(9)));
        assert_eq!(
            (&report["system"], &report["proven"]),
            (&json!(system(2)), &json!(system(2)))
        );
    }
    assert!(
        !machine.calls().contains("set-default nixos-7"),
        "{}",
        machine.calls()
    );
}

#[test]
fn what_proved_itself_is_gone_back_to_though_the_firmware_forgot_its_default_but_once() {
    if !programs_are_here(&["jq"]) {
        return;
    }
    let machine = running(1, &name(1), "");
    commit(&machine);
    runs(&machine, 3, &name(3));
    set_variable(&machine, "LoaderEntryDefault", "");
    succeeded(&machine.run(&["boot-lib", "boot-fallback"], &[]));
    assert_eq!(
        told(&machine).last().unwrap(),
        &format!("set-default {}", name(1))
    );
    assert_eq!(machine.calls().matches("systemctl reboot").count(), 1);
    // It forgets again: the machine stays up.
    let said = succeeded(&machine.run(&["boot-lib", "boot-fallback"], &[]));
    assert!(said.contains("was left before"), "{said}");
    assert_eq!(machine.calls().matches("systemctl reboot").count(), 1);
}

#[test]
fn a_trial_whose_time_is_over_isnt_ended_by_nobodys_word() {
    if !programs_are_here(&["jq"]) {
        return;
    }
    let machine = running(3, &name(3), &name(1));
    machine.write(
        "run/undercroft/health.json",
        r#"{"boot_id": "0a1b", "gate": true, "unanswered": ["kubernetes"]}"#,
    );
    let said = succeeded(&machine.run(&["boot-lib", "boot-fallback"], &[]));
    assert!(said.contains("nothing was found against"), "{said}");
    assert_eq!(machine.calls(), "");
    // An earlier boot's report says nothing of this one.
    machine.write(
        "run/undercroft/health.json",
        r#"{"boot_id": "ffff", "gate": true}"#,
    );
    succeeded(&machine.run(&["boot-lib", "boot-fallback"], &[]));
    assert!(machine.calls().contains("systemctl reboot"));
}

/// With the real Nix, in a store of its own.
#[test]
fn what_proved_itself_survives_the_garbage_collector_and_every_limit() {
    if !programs_are_here(&["jq", "nix-store", "nix-env", "nix-collect-garbage"]) {
        return;
    }
    let machine = machine();
    let root = machine.root();
    let nix = |words: &[&str]| {
        let output = std::process::Command::new(words[0])
            .args(&words[1..])
            .env("NIX_STORE_DIR", format!("{root}/nix/store"))
            .env("NIX_STATE_DIR", format!("{root}/nix/var/nix"))
            .env("NIX_LOG_DIR", format!("{root}/nix/var/log"))
            .env("NIX_CONF_DIR", format!("{root}/nix/etc"))
            .env("NIX_REMOTE", "local")
            .env("HOME", &root)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words:?}: {said}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let profile = format!("{root}/nix/var/nix/profiles/system");
    let systems: Vec<String> = (1..=4)
        .map(|generation| {
            machine.write(
                &format!("made/gen-{generation}/init"),
                generation.to_string(),
            );
            let made = format!("{root}/made/gen-{generation}");
            let system = nix(&["nix-store", "--add", &made]);
            nix(&["nix-env", "--profile", &profile, "--set", &system]);
            system
        })
        .collect();
    // The store's paths are whole here, so that the scripts' root is none.
    let machine = machine.with("UNDERCROFT_ROOT", root.clone());
    let entry = format!("options init={}/init\n", systems[1]);
    machine.write(&format!("boot/loader/entries/{}", name(2)), entry);
    machine.write("proc/cmdline", format!("init={}/init\n", systems[1]));
    set_variable(&machine, "LoaderEntrySelected", &name(2));
    commit(&machine);

    nix(&["nix-collect-garbage", "--delete-old"]);
    let there = |generation: usize| std::path::Path::new(&systems[generation - 1]).exists();
    assert_eq!([1, 2, 3, 4].map(there), [false, true, false, true]);
    // Whoever writes the boot menu finds it, whatever is left of the machine's own profile: it lists
    // each profile beside that of the system.
    let listed = nix(&[
        "nix-env",
        "--list-generations",
        "--profile",
        &format!("{root}/{PROVEN}"),
    ]);
    assert_eq!(listed.lines().count(), 1, "{listed}");
    assert!(
        listed.starts_with('1') && listed.contains("(current)"),
        "{listed}"
    );
    let beside: Vec<String> = std::fs::read_dir(machine.path(PROVEN).parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.ends_with("-link"))
        .collect();
    assert_eq!(beside, ["undercroft-proven"]);
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
