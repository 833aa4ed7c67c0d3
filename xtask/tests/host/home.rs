//! What people run on their PCs: the cluster of one's own.

use crate::{Machine, failed, succeeded};

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
