//! The machine's health, and what is done to a data disk.

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::json;

use crate::{Machine, failed, programs_are_here, succeeded};

/// A machine with checks: name, whether it gates, and its script.
fn with_checks(checks: &[(&str, bool, &str)]) -> Machine {
    let machine = Machine::new();
    let listed: Vec<_> = checks
        .iter()
        .map(|(name, gates, script)| {
            let path = format!("checks/{name}");
            machine.write(&path, format!("#!/bin/bash\n{script}\n"));
            let path = machine.path(&path);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            json!({
                "name": name, "description": format!("About {name}."), "gates": gates,
                "timeoutSec": 4, "script": path,
            })
        })
        .collect();
    machine.write("checks.json", json!({ "checks": listed }).to_string());
    let list = machine.path("checks.json").to_str().unwrap().to_owned();
    machine
        .with("UNDERCROFT_HEALTH_CHECKS", list)
        .with("UNDERCROFT_HEALTH_PAUSE_S", "0.1")
        .with("UNDERCROFT_NODE", "box-01")
}

#[test]
fn a_machine_is_healthy_when_every_check_passes() {
    if !programs_are_here(&["jq", "timeout"]) {
        return;
    }
    let machine = with_checks(&[
        ("disks", true, "exit 0"),
        ("cards", true, "echo two; exit 0"),
    ]);
    let output = machine.run(&["health"], &["--once"]);
    succeeded(&output);
    let report = machine.json("run/undercroft/health.json");
    assert_eq!(report["healthy"], true);
    assert_eq!(report["gate"], true);
    assert_eq!(report["node"], "box-01");
    assert_eq!(report["boot_id"], "0a1b");
    assert_eq!(
        report["checks"][1],
        json!({"name": "cards", "description": "About cards.", "gates": true, "ok": true, "answered": true, "exit_code": 0, "output": "two"})
    );
    // What is printed is what is written.
    let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed, report);
}

#[test]
fn a_check_that_fails_hangs_or_shouts_is_reported_and_no_other_with_it() {
    if !programs_are_here(&["jq", "timeout"]) {
        return;
    }
    let machine = with_checks(&[
        ("fails", true, "echo card 2 is gone; exit 3"),
        ("hangs", true, "sleep 600"),
        (
            "shouts",
            true,
            "yes | head -c 100000; printf 'end\\377\\0'; exit 1",
        ),
        ("passes", true, "exit 0"),
    ]);
    failed(&machine.run(&["health"], &["--once"]));
    let report = machine.json("run/undercroft/health.json");
    assert_eq!(report["healthy"], false);
    let checks = &report["checks"];
    assert_eq!(
        (&checks[0]["exit_code"], &checks[0]["output"]),
        (&json!(3), &json!("card 2 is gone"))
    );
    assert_eq!(checks[1]["exit_code"], 124);
    assert_eq!(checks[1]["output"], "no answer within 4 s");
    let shouted = checks[2]["output"].as_str().unwrap();
    assert!(
        shouted.contains("end") && shouted.len() < 700,
        "{} bytes",
        shouted.len()
    );
    assert_eq!(checks[3]["ok"], true);
}

#[test]
fn what_the_earlier_generation_would_have_too_is_no_reason_to_leave() {
    if !programs_are_here(&["jq", "timeout"]) {
        return;
    }
    let machine = with_checks(&[
        ("mirror", false, "echo degraded; exit 1"),
        ("rest", true, "exit 0"),
    ]);
    succeeded(&machine.run(&["health"], &["--once"]));
    let report = machine.json("run/undercroft/health.json");
    assert_eq!(
        (&report["healthy"], &report["gate"]),
        (&json!(false), &json!(true))
    );
}

#[test]
fn a_machine_is_waited_for_and_given_up_in_the_end() {
    if !programs_are_here(&["jq", "timeout"]) {
        return;
    }
    // It passes at the third look.
    let machine = with_checks(&[(
        "slow",
        true,
        "echo x >>$UNDERCROFT_ROOT/looks; [ $(wc -l <$UNDERCROFT_ROOT/looks) -ge 3 ]",
    )]);
    succeeded(&machine.run(&["health"], &["--wait", "60"]));
    assert_eq!(machine.read("looks").lines().count(), 3);

    let machine = with_checks(&[("never", true, "echo no; exit 1")]);
    let said = failed(&machine.run(&["health"], &["--wait", "1"]));
    assert!(said.contains("never: no"), "{said}");
}

#[test]
fn silence_is_reported_and_holds_nothing_against_the_machine() {
    if !programs_are_here(&["jq", "timeout"]) {
        return;
    }
    let checks = [
        ("disks", true, "exit 0"),
        ("api", true, "echo nobody answered; exit 75"),
    ];
    let machine = with_checks(&checks);
    succeeded(&machine.run(&["health"], &["--once"]));
    let report = machine.json("run/undercroft/health.json");
    assert_eq!(
        (
            &report["healthy"],
            &report["gate"],
            &report["unanswered"],
            &report["checks"][1]["answered"]
        ),
        (&json!(false), &json!(true), &json!(["api"]), &json!(false))
    );
    // It is waited for while there is time, and said in the end.
    let said = succeeded(&machine.run(&["health"], &["--wait", "1"]));
    assert!(said.contains("api: nobody answered"), "{said}");
    // Whoever answers before that ends the wait.
    let third =
        "echo x >>$UNDERCROFT_ROOT/looks; [ $(wc -l <$UNDERCROFT_ROOT/looks) -ge 3 ] || exit 75";
    let machine = with_checks(&[("api", true, third)]);
    succeeded(&machine.run(&["health"], &["--wait", "60"]));
    assert_eq!(machine.read("looks").lines().count(), 3);
    assert_eq!(machine.json("run/undercroft/health.json")["healthy"], true);
    // What the machine knows by itself counts beside it.
    let machine = with_checks(&[("api", true, "exit 75"), ("disks", true, "exit 1")]);
    failed(&machine.run(&["health"], &["--once"]));
}

#[test]
fn wrong_usage_is_told() {
    let machine = with_checks(&[]);
    for arguments in [
        &[] as &[&str],
        &["--wait"],
        &["--wait", "1x"],
        &["--once", "more"],
    ] {
        let output = machine.run(&["health"], arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
    }
}

/// A file that stands for a disk, of so many MiB of zeros.
fn disk(machine: &Machine, mib: u64) -> String {
    let path = machine.path("disk");
    fs::File::create(&path).unwrap().set_len(mib << 20).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn an_empty_data_disk_gets_a_file_system_once() {
    if !programs_are_here(&["wipefs", "mkfs.ext4", "blkid"]) {
        return;
    }
    let machine = Machine::new();
    let path = disk(&machine, 64);
    let first = succeeded(&machine.run(&["data-disk"], &[&path, "undercroft-data"]));
    assert!(first.contains("making a file system"), "{first}");
    let made = fs::read(&path).unwrap();
    let second = succeeded(&machine.run(&["data-disk"], &[&path, "undercroft-data"]));
    assert_eq!(second, "");
    assert!(
        made == fs::read(&path).unwrap(),
        "the second run wrote to the disk"
    );
}

#[test]
fn a_data_disk_with_anything_on_it_is_left_alone() {
    if !programs_are_here(&["wipefs", "mkfs.ext4", "mkswap", "sfdisk"]) {
        return;
    }
    let shell = |command: String| {
        let done = std::process::Command::new("bash")
            .args(["-c", &command])
            .output()
            .unwrap();
        assert!(
            done.status.success(),
            "{command}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
    };
    for (what, make) in [
        ("another file system", "mkswap DISK"),
        (
            "a partition table without partitions",
            "echo 'label: gpt' | sfdisk DISK",
        ),
        (
            "data without a signature",
            "echo hello | dd of=DISK conv=notrunc",
        ),
        (
            "data at its very end",
            "echo hello | dd of=DISK conv=notrunc bs=1 seek=67108800",
        ),
    ] {
        let machine = Machine::new();
        let path = disk(&machine, 64);
        shell(format!(
            "PATH=$PATH:/sbin:/usr/sbin; {}",
            make.replace("DISK", &path)
        ));
        let before = fs::read(&path).unwrap();
        let said = failed(&machine.run(&["data-disk"], &[&path, "undercroft-data"]));
        assert!(said.contains("isn't touched"), "{what}: {said}");
        assert!(before == fs::read(&path).unwrap(), "{what} was overwritten");
    }
}
