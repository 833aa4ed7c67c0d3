//! No older minor of Kubernetes is started on a newer one's data.

use std::{fs, os::unix::fs::PermissionsExt, process::Output};

use crate::{
    Machine,
    cluster::{K3S, KUBEADM, machine, state},
    failed, programs_are_here, succeeded,
};

const FILE: &str = "var/lib/data/undercroft-kubernetes-version";

/// A machine that ran a version on its data, or none.
fn ran(version: &str) -> Machine {
    let machine = Machine::new()
        .with("KUBERNETES_DATA", "/var/lib/data")
        .with("KUBERNETES_UNIT", "k3s.service");
    machine.write("dev/console", "");
    if !version.is_empty() {
        machine.write(FILE, version);
    }
    machine
}

fn starts(machine: Machine, own: &str) -> (Machine, Output) {
    let machine = machine.with("KUBERNETES_VERSION", own);
    let output = machine.run(&["kubernetes-version"], &["start"]);
    (machine, output)
}

#[test]
fn an_older_minor_is_left_stopped_and_says_so() {
    for (last, own) in [
        ("1.34.2+k3s1\n", "1.33.9+k3s1"),
        ("1.34.2\n", "1.33.0"),
        ("1.10.0\n", "1.9.11"),
        ("v2.0.1\n", "v1.36.3"),
        // Which one it is can't be told.
        ("1.34.2\n", ""),
        ("1.34.2\n", "custom"),
    ] {
        let (machine, output) = starts(ran(last), own);
        failed(&output);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let words = format!("{} ran on the data in /var/lib/data", last.trim());
        assert!(said.contains(&words), "{said}");
        assert!(machine.read("dev/console").contains("left stopped"));
        assert_eq!(machine.read(FILE), last);
    }
}

#[test]
fn the_same_minor_and_a_newer_one_start_and_are_written_down() {
    for (last, own) in [
        ("", "1.34.2+k3s1"),
        ("1.34.2\n", "1.34.2"),
        // Patches go either way.
        ("1.34.2\n", "1.34.0"),
        ("1.34.2\n", "1.35.0"),
        ("1.9.11\n", "1.10.0"),
        ("v1.36.3\n", "v2.0.1"),
        // A file that says nothing is nobody's word.
        ("\n", "1.33.0"),
    ] {
        let (machine, output) = starts(ran(last), own);
        succeeded(&output);
        assert_eq!(machine.read(FILE).trim(), own);
        assert_eq!(machine.read("dev/console"), "");
    }
    // A look changes nothing.
    let machine = ran("1.34.2\n").with("KUBERNETES_VERSION", "1.35.0");
    succeeded(&machine.run(&["kubernetes-version"], &["look"]));
    assert_eq!(machine.read(FILE), "1.34.2\n");
}

#[test]
fn what_cannot_be_written_down_is_not_started() {
    let machine = ran("1.34.2\n");
    machine.program("sync", "exit 1");
    let (machine, output) = starts(machine, "1.35.0");
    failed(&output);
    assert_eq!(machine.read(FILE), "1.34.2\n");
}

/// The program in a system of its own, as the other scripts call it.
fn program(machine: &Machine, own: &str) -> String {
    let script = fs::read_to_string(crate::scripts().join("kubernetes-version.sh")).unwrap();
    let text = format!(
        "#!/bin/bash\nKUBERNETES_DATA=/var/lib/data KUBERNETES_UNIT=k3s.service KUBERNETES_VERSION={own}\n{script}"
    );
    machine.write("version", text);
    let path = machine.path("version");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn health_and_a_join_say_why_kubernetes_is_stopped() {
    if !programs_are_here(&["jq"]) {
        return;
    }
    for parts in [K3S, KUBEADM] {
        let machine = machine("server", true);
        machine.write(FILE, "1.34.2");
        machine.write("var/lib/undercroft/cluster/joined", "");
        let older = program(&machine, "1.33.1");
        let machine = machine.with("UNDERCROFT_VERSION_PROGRAM", older.clone());
        failed(&machine.run(&parts, &[]));
        let (state, reason) = state(&machine);
        assert_eq!(state, "failed");
        assert!(
            reason.contains("this system has 1.33.1, and 1.34.2 ran"),
            "{reason}"
        );
        assert!(
            !machine.calls().contains("systemctl start"),
            "{}",
            machine.calls()
        );

        let machine = machine
            .with("VERSION_PROGRAM", older)
            .with("UNIT", "k3s.service")
            .with("KUBECTL", "kubectl")
            .with("KUBELET_CONFIG", "/etc/kubelet.conf")
            .with("JOINED", "/var/lib/undercroft/cluster/joined");
        let output = machine.run(&["health-kubernetes"], &[]);
        failed(&output);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("Kubernetes is left stopped"), "{said}");
    }
}
