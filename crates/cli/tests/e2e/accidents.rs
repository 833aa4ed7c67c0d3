//! What goes wrong, and what must hold then.

use crate::{
    bring_up::{accepted_plan, assert_up, evidence, wipes},
    fleet::{BRING_UP_S, Fleet, Node, inventory, missing, step_is, wait_until},
};

#[test]
fn a_disk_with_another_serial_is_left_alone() {
    if let Some(reason) = missing(&[]) {
        println!("SKIPPED: {reason}");
        return;
    }
    let nodes = [Node::uefi("swapped", 51)];
    let mut fleet = Fleet::start(
        "serial",
        &inventory("server", &nodes),
        &["--set", "swapped.serial=SOMEBODYELSES"],
    );
    let up = fleet.call(&["up", "--yes"]);
    assert_eq!(up.status.code(), Some(1), "{}", up.text);
    for told in ["swapped", "E2E0051ROOT", "SOMEBODYELSES"] {
        assert!(up.text.contains(told), "{told} is not named: {}", up.text);
    }
    assert!(evidence(&fleet, "swapped", "partitioned").is_empty());
    assert_eq!(
        fleet.disk_written_bytes(&nodes[0]),
        0,
        "the disk was written to"
    );
}

#[test]
fn power_cuts_in_the_copy_and_in_the_boot_loader_step_are_recovered() {
    if let Some(reason) = missing(&[]) {
        println!("SKIPPED: {reason}");
        return;
    }
    let nodes = [Node::uefi("cut-copy", 61), Node::uefi("cut-loader", 62)];
    let mut fleet = Fleet::start("cuts", &inventory("server", &nodes), &[]);
    let mut up = fleet.spawn(&["up", "--yes"]);
    // One is cut when a part of its closure has arrived, the other when its boot partition is
    // being written to, whichever comes first.
    let mut to_cut = vec!["cut-copy", "cut-loader"];
    let mut before_loader = None;
    wait_until("both were cut", BRING_UP_S, || {
        let told = up.text();
        let has = |text: &str| told.lines().any(|line| line.starts_with(text));
        assert!(
            !to_cut.contains(&"cut-copy") || !has("cut-copy: copied"),
            "the copy was over before it was cut: {told}"
        );
        assert!(
            !to_cut.contains(&"cut-loader") || !has("cut-loader: installed"),
            "the installation was over before it was cut: {told}"
        );
        let copying = told
            .lines()
            .any(|line| line.starts_with("cut-copy: copy: ") && line.contains(" MiB of "));
        let mut installing = false;
        if has("cut-loader: install: ") {
            let written = fleet.disk_written_bytes(&nodes[1]);
            let before = *before_loader.get_or_insert(written);
            installing = written > before + (1 << 20);
        }
        for (node, now) in [("cut-copy", copying), ("cut-loader", installing)] {
            if now && to_cut.contains(&node) {
                let cut = fleet.call(&["rack", "cut", node]);
                assert!(cut.status.success(), "{}", cut.text);
                to_cut.retain(|other| *other != node);
            }
        }
        to_cut.is_empty()
    });
    let status = up.wait(2 * BRING_UP_S);
    assert!(status.success(), "{}", up.text());
    assert_up(&fleet, &nodes);
    for node in &nodes {
        let restarts = fleet
            .records()
            .iter()
            .filter(|r| r["record"] == "node-restarted" && r["node"] == node.name)
            .count();
        assert!(restarts >= 1, "{} did not begin again", node.name);
        assert_eq!(wipes(&fleet, node.name), 1, "{} was wiped again", node.name);
    }
}

#[test]
fn kill_9_in_each_phase_is_recovered() {
    if let Some(reason) = missing(&[]) {
        println!("SKIPPED: {reason}");
        return;
    }
    let nodes = [Node::uefi("killed", 71)];
    let mut fleet = Fleet::start("kill", &inventory("server", &nodes), &[]);
    let phases = [
        "network-boot",
        "approve",
        "inspect",
        "partition",
        "copy",
        "install",
        "reboot",
        "prove",
    ];
    let mut hit = Vec::new();
    for phase in phases {
        if hit.contains(&phase) {
            continue;
        }
        let mut up = fleet.spawn(&["up", "--yes"]);
        // The line is printed when the record is durable, and before the operation is started.
        let begins = format!("killed: {phase}: ");
        wait_until(&begins, BRING_UP_S, || {
            let told = up.text();
            assert!(
                !told.contains("is carried out"),
                "ended before {phase}: {told}"
            );
            told.lines()
                .any(|line| line.starts_with(&begins) && !line.contains("looking whether"))
        });
        up.kill();
        // An approval by console takes milliseconds: the kill may hit the inspection after it. The
        // journal tells, since a step may have begun whose line wasn't printed any more.
        let (plan, records) = (accepted_plan(&fleet), fleet.records());
        let begun = |phase: &&&str| {
            records
                .iter()
                .any(|r| r["record"] == "op-started" && step_is(&plan, r, "killed", phase))
        };
        hit.extend(phases.iter().rfind(begun));
    }
    let up = fleet.call(&["up", "--yes"]);
    assert!(up.status.success(), "{}", up.text);
    assert_up(&fleet, &nodes);
    assert!(wipes(&fleet, "killed") <= 1, "the disk was wiped again");
    let numbers: Vec<u64> = fleet
        .records()
        .iter()
        .map(|r| r["seq"].as_u64().unwrap())
        .collect();
    let whole: Vec<u64> = (0..numbers.len() as u64).collect();
    assert_eq!(numbers, whole, "the journal has gaps");
    let plan = accepted_plan(&fleet);
    for phase in phases.iter().filter(|phase| **phase != "approve") {
        let orphaned = fleet.records().iter().any(|record| {
            record["record"] == "op-ended"
                && record["outcome"]["ended"] == "orphaned"
                && step_is(&plan, record, "killed", phase)
        });
        assert!(orphaned, "{phase} was never under way when `up` was killed");
    }
}
