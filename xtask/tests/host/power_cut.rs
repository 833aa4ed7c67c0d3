//! What a power cut leaves behind, and what is done about it.

use crate::{
    Machine,
    cluster::{K3S, machine, state},
    failed, programs_are_here, succeeded,
};

const DATA: &str = "var/lib/rancher/k3s";

/// What k3s can make again, and what else goes with it.
const LEAVES: [(&str, &str); 9] = [
    ("agent/client-kubelet.crt", "agent/client-kubelet.key"),
    ("agent/serving-kubelet.key", "agent/serving-kubelet.crt"),
    ("agent/kubelet.kubeconfig", ""),
    ("server/tls/client-admin.crt", "server/tls/client-admin.key"),
    ("server/tls/etcd/peer-server-client.crt", ""),
    ("server/tls/kube-scheduler/kube-scheduler.crt", ""),
    ("server/tls/dynamic-cert.json", ""),
    ("server/cred/admin.kubeconfig", ""),
    ("server/cred/node-passwd", ""),
];
/// What makes the cluster what it is.
const KEPT: [&str; 9] = [
    "agent/server-ca.crt",
    "server/tls/server-ca.crt",
    "server/tls/client-ca.key",
    "server/tls/etcd/peer-ca.key",
    "server/tls/service.key",
    "server/tls/service.current.key",
    "server/cred/encryption-config.json",
    "server/cred/ipsec.psk",
    "server/db/etcd/member/wal/0.wal",
];

#[test]
fn what_is_empty_and_can_be_made_again_is_taken_away_and_nothing_else() {
    if !programs_are_here(&["find"]) {
        return;
    }
    for (empty, with_it) in LEAVES {
        let machine = Machine::new();
        machine.write(&format!("{DATA}/{empty}"), "");
        if !with_it.is_empty() {
            machine.write(&format!("{DATA}/{with_it}"), "made together");
        }
        machine.write(&format!("{DATA}/agent/other.crt"), "whole");
        machine.write("etc/rancher/node/password", "whole");
        for kept in KEPT {
            machine.write(&format!("{DATA}/{kept}"), "");
        }
        let said = succeeded(&machine.run(&["k3s-heal"], &[]));
        assert!(said.contains(&format!("{empty} was empty")), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(!machine.has(&format!("{DATA}/{empty}")));
        assert!(with_it.is_empty() || !machine.has(&format!("{DATA}/{with_it}")));
        for kept in KEPT {
            assert!(machine.has(&format!("{DATA}/{kept}")), "{kept}");
        }
        assert!(machine.has("etc/rancher/node/password"));
        // What it makes good again it leaves alone.
        assert_eq!(succeeded(&machine.run(&["k3s-heal"], &[])), "");
    }
}

#[test]
fn a_machine_without_its_password_is_known_by_no_earlier_one() {
    if !programs_are_here(&["find"]) {
        return;
    }
    let machine = Machine::new();
    let passwords = format!("{DATA}/server/cred/node-passwd");
    machine.write("etc/rancher/node/password", "");
    machine.write(&passwords, "0123,box-01,box-01,\n");
    succeeded(&machine.run(&["k3s-heal"], &[]));
    assert!(!machine.has("etc/rancher/node/password") && !machine.has(&passwords));
}

#[test]
fn health_names_every_kind_of_empty_file() {
    if !programs_are_here(&["find"]) {
        return;
    }
    let kept = KEPT.iter().filter(|kept| !kept.contains("/db/"));
    let of_k3s = LEAVES.iter().map(|(empty, _)| empty).chain(kept);
    let mut every: Vec<String> = of_k3s.map(|path| format!("{DATA}/{path}")).collect();
    every.extend(
        [
            "etc/rancher/node/password",
            "etc/kubernetes/pki/etcd/ca.key",
            "etc/kubernetes/pki/encryption-config.yaml",
            "etc/kubernetes/kubelet.conf",
            "var/lib/kubelet/pki/kubelet-client-current.pem",
        ]
        .map(str::to_owned),
    );
    for path in &every {
        let machine = Machine::new();
        for other in &every {
            machine.write(other, if other == path { "" } else { "whole" });
        }
        let output = machine.run(&["health-certificates"], &[]);
        failed(&output);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.trim_end().ends_with(path.as_str()), "{path}: {said}");
    }
    let machine = Machine::new();
    for path in &every {
        machine.write(path, "whole");
    }
    succeeded(&machine.run(&["health-certificates"], &[]));
}

#[test]
fn an_authority_that_was_cut_off_is_placed_again() {
    if !programs_are_here(&["jq"]) {
        return;
    }
    let machine = machine("server", true);
    let tls = format!("{DATA}/server/tls");
    machine.write("var/lib/undercroft/cluster/began", "");
    machine.write(&format!("{tls}/server-ca.key"), "");
    machine.write(&format!("{tls}/client-ca.key"), "k3s' own by now");
    // The power goes in the middle of the first write: nothing stands under the file's own name.
    let cut = "cp \"${@: -2:1}\" \"${@: -1}\"; kill -KILL $PPID; exit 1";
    machine.program("install", cut);
    assert_eq!(machine.run(&K3S, &[]).status.code(), None);
    assert!(!machine.has(&format!("{tls}/server-ca.crt")));
    std::fs::remove_file(machine.path("bin/install")).unwrap();
    succeeded(&machine.run(&K3S, &[]));
    assert_eq!(machine.read(&format!("{tls}/server-ca.key")), "server-ca");
    assert_eq!(machine.read(&format!("{tls}/server-ca.crt")), "server-ca");
    assert_eq!(
        machine.read(&format!("{tls}/client-ca.key")),
        "k3s' own by now"
    );
}

const NO_DATA: &str = "echo 'level=fatal msg=\"Error: preparing server: failed to bootstrap cluster data: no bootstrap data found in datastore - check server token value and verify datastore integrity\"'";

/// A founder whose k3s was cut off in its first seconds: it won't go on with the datastore that is there.
fn cut_off() -> Machine {
    let machine = machine("server", true);
    machine.write("var/lib/undercroft/cluster/began", "");
    machine.write(&format!("{DATA}/server/db/etcd/cut-off"), "");
    let datastore = format!("$root/{DATA}/server/db/etcd/cut-off");
    machine.program("k3s", &format!("[ ! -e {datastore} ]"));
    machine.program("journalctl", NO_DATA);
    machine
}

#[test]
fn a_datastore_that_never_served_is_begun_again_once() {
    if !programs_are_here(&["jq"]) {
        return;
    }
    let machine = cut_off().with("UNDERCROFT_JOIN_LIMIT_S", "60");
    let said = succeeded(&machine.run(&K3S, &[]));
    assert!(said.contains("begins with a new one"), "{said}");
    assert!(machine.has(&format!("{DATA}/server/undercroft-served")));

    // It doesn't help: once in a boot is enough.
    let machine = cut_off().with("UNDERCROFT_JOIN_LIMIT_S", "3");
    machine.program("k3s", "exit 1");
    let said = failed(&machine.run(&K3S, &[]));
    assert_eq!(
        machine.calls().matches("systemctl stop").count(),
        1,
        "{said}"
    );
}

#[test]
fn a_datastore_that_served_or_says_something_else_is_kept() {
    if !programs_are_here(&["jq"]) {
        return;
    }
    let served = cut_off();
    served.write(&format!("{DATA}/server/undercroft-served"), "");
    let other_words = cut_off();
    other_words.program(
        "journalctl",
        "echo 'bootstrap data already found and encrypted with different token'",
    );
    let joined = cut_off();
    joined.write("var/lib/undercroft/cluster/joined", "");
    // Another server answers: what is there is part of a cluster.
    let not_alone = cut_off();
    not_alone.write("answering", "10.0.0.13\n");
    for machine in [served, other_words, joined, not_alone] {
        failed(&machine.run(&K3S, &[]));
        assert!(machine.has(&format!("{DATA}/server/db/etcd/cut-off")));
        assert_eq!(state(&machine).0, "failed");
    }
}

/// File systems as `df` shows them: where, and how full.
fn space(fullness: &[(&str, u8)], wanted: &str) -> std::process::Output {
    let machine = Machine::new().with("SPACE", wanted);
    let arms: String = fullness
        .iter()
        .map(|(at, percent)| format!("*/{at}) echo ' {percent}% {at}' ;;\n"))
        .collect();
    for each in wanted.split(' ') {
        let (at, _) = each.split_once('=').unwrap();
        std::fs::create_dir_all(machine.path(at)).unwrap();
    }
    machine.program(
        "df",
        &format!("echo 'Use% Mounted on'; case $2 in {arms} esac"),
    );
    machine.run(&["health-space"], &[])
}

#[test]
fn a_file_system_of_pods_is_full_before_the_kubelet_finds_it_so() {
    let wanted = "/=95 /boot=95 /var/lib/kubelet=80 /missing=1";
    for (fullness, words) in [
        (
            &[("boot", 94_u8), ("var/lib/kubelet", 79)] as &[(&str, u8)],
            "",
        ),
        (
            &[("var/lib/kubelet", 80)],
            "var/lib/kubelet is 80% full; 80% is too much\n",
        ),
        (&[("boot", 95)], "boot is 95% full; 95% is too much\n"),
    ] {
        let output = space(fullness, wanted);
        assert_eq!(String::from_utf8_lossy(&output.stdout), words);
        assert_eq!(output.status.success(), words.is_empty());
    }
    // On one file system the lowest limit counts, however they are named.
    let machine = Machine::new();
    std::fs::create_dir_all(machine.path("a")).unwrap();
    std::fs::create_dir_all(machine.path("b")).unwrap();
    machine.program("df", "printf 'Use%% Mounted on\\n 85%% /\\n'");
    let output = machine
        .with("SPACE", "/a=95 /b=80")
        .run(&["health-space"], &[]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said, "/ is 85% full; 80% is too much\n");
}
