//! What people run on their PCs: the word on lending, and the cluster of one's own.

use crate::{Machine, failed, succeeded};

fn said(machine: &Machine, word: &str) -> String {
    let output = machine.run(&["../../home/fleet-lending"], &[word]);
    succeeded(&output);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn pc() -> Machine {
    let machine = Machine::new();
    let state = format!("{}/lending", machine.root());
    machine.program("daemon", "");
    machine
        .with("STATE", state)
        .with("START", "daemon start")
        .with("STOP", "daemon stop")
}

#[test]
fn nothing_is_lent_before_the_owner_says_so() {
    let machine = pc();
    assert!(said(&machine, "status").starts_with("not allowed"));
    let refusal = failed(&machine.run(&["../../home/fleet-lending"], &["resume"]));
    assert!(refusal.contains("isn't allowed"), "{refusal}");
    assert_eq!(machine.calls(), "");
}

#[test]
fn the_owner_pauses_resumes_and_revokes() {
    let machine = pc();
    said(&machine, "allow");
    assert!(machine.has("lending/allowed"));
    let since = machine.read("lending/allowed");
    said(&machine, "pause");
    assert!(machine.has("lending/paused"));
    assert!(said(&machine, "status").contains("paused since"));
    said(&machine, "resume");
    assert!(!machine.has("lending/paused"));
    said(&machine, "allow");
    assert_eq!(machine.read("lending/allowed"), since);
    said(&machine, "revoke");
    assert!(!machine.has("lending/allowed"));
    assert_eq!(
        machine.calls(),
        "daemon start\ndaemon stop\ndaemon start\ndaemon start\ndaemon stop\n"
    );
}

#[test]
fn a_pause_without_a_daemon_is_kept() {
    let machine = Machine::new();
    let state = format!("{}/lending", machine.root());
    let machine = machine.with("STATE", state);
    assert!(said(&machine, "allow").contains("no lending daemon is installed"));
    assert!(machine.has("lending/allowed"));
    said(&machine, "pause");
    assert!(machine.has("lending/paused"));
}

#[test]
fn an_unknown_word_changes_nothing() {
    let machine = pc();
    let output = machine.run(&["../../home/fleet-lending"], &["stop"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(!machine.has("lending/paused"));
}

fn dev() -> Machine {
    let machine = Machine::new();
    let (home, repository) = (machine.root(), format!("{}/fleet", machine.root()));
    machine.write("fleet/undercroft.toml", "");
    machine.program("k3d", "");
    machine.program(
        "undercroft",
        r#"touch "$root/state/undercroft/dev/k3d.yaml""#,
    );
    let state = format!("{home}/state");
    machine
        .with("HOME", home)
        .with("XDG_STATE_HOME", state)
        .with("PC_NAME", "ada-laptop")
        .with("DEFAULT_REPOSITORY", repository)
}

#[test]
fn a_cluster_of_ones_own_comes_from_the_fleets_repository() {
    let machine = dev();
    succeeded(&machine.run(&["../../home/fleet-dev"], &["up"]));
    let state = format!("{}/state/undercroft/dev", machine.root());
    assert_eq!(
        machine.calls(),
        format!(
            "undercroft dev config --pc ada-laptop --out {state}\n\
             k3d cluster create --config {state}/k3d.yaml\n"
        )
    );
}

#[test]
fn a_folder_without_a_fleet_is_refused() {
    let machine = dev();
    let folder = machine.root();
    let output = machine.run(&["../../home/fleet-dev"], &["up", &folder]);
    assert_eq!(output.status.code(), Some(64));
    assert_eq!(machine.calls(), "");
}

#[test]
fn a_config_that_was_not_written_starts_nothing() {
    let machine = dev();
    machine.program("undercroft", "");
    failed(&machine.run(&["../../home/fleet-dev"], &["up"]));
    assert!(!machine.calls().contains("k3d"));
}
