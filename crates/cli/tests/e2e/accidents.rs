//! What goes wrong, and what must hold then.

use crate::{
    bring_up::{assert_up, evidence, wipes},
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
    wait_until("the journal is there", 120, || {
        fleet.folder.join(".undercroft/journal.db").exists()
    });
    let mut records = fleet.follow();
    let mut cut_copy = false;
    let mut cut_loader = false;
    while !(cut_copy && cut_loader) {
        let record = records.wait_for("a copy or an installation", |plan, record| {
            record["record"] == "op-started"
                && record["work"] == "act"
                && (step_is(plan, record, "cut-copy", "copy")
                    || step_is(plan, record, "cut-loader", "install"))
        });
        let copy = fleet
            .records()
            .iter()
            .find(|r| r["record"] == "plan-accepted")
            .is_some_and(|r| step_is(&r["plan"], &record, "cut-copy", "copy"));
        if copy && !cut_copy {
            let before = fleet.disk_written_bytes(&nodes[0]);
            wait_until("some of the closure is on the disk", BRING_UP_S, || {
                fleet.disk_written_bytes(&nodes[0]) > before + (8 << 20)
            });
            let cut = fleet.call(&["rack", "cut", "cut-copy"]);
            assert!(cut.status.success(), "{}", cut.text);
            cut_copy = true;
        } else if !copy && !cut_loader {
            // The step has begun: the machine writes keys, profile and loader from now on.
            let cut = fleet.call(&["rack", "cut", "cut-loader"]);
            assert!(cut.status.success(), "{}", cut.text);
            cut_loader = true;
        }
    }
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
    let mut killed = Vec::new();
    for phase in phases {
        let mut up = fleet.spawn(&["up", "--yes"]);
        wait_until("the journal is there", 120, || {
            fleet.folder.join(".undercroft/journal.db").exists()
        });
        let from = fleet.records().len() as u64;
        let mut records = fleet.follow();
        let record = records.wait_for(phase, |plan, record| {
            record["record"] == "run-ended"
                || record["seq"].as_u64() >= Some(from)
                    && record["record"] == "op-started"
                    && step_is(plan, record, "killed", phase)
        });
        assert_ne!(
            record["record"],
            "run-ended",
            "ended before {phase}: {}",
            up.text()
        );
        up.kill();
        killed.push(phase);
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
    assert_eq!(killed.len(), phases.len());
}
