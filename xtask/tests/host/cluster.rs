//! Founding and joining a cluster, with stand-ins for k3s, kubeadm and systemd.

use std::process::Command;

use crate::{Machine, failed, programs_are_here, succeeded};

pub(crate) const K3S: [&str; 2] = ["cluster-lib", "cluster-join-k3s"];
pub(crate) const KUBEADM: [&str; 2] = ["cluster-lib", "cluster-join-kubeadm"];

/// A machine on which the distribution's programs do what they are asked, and servers answer at
/// the addresses that are listed in the file `answering`.
pub(crate) fn machine(role: &str, founder: bool) -> Machine {
    let machine = Machine::new();
    machine.write("answering", "");
    // The last word is the URL.
    machine.program(
        "curl",
        r#"url=${@: -1}; host=${url#https://}; grep -qx "${host%%:*}" $root/answering"#,
    );
    machine.program(
        "systemctl",
        "case $* in *start*k3s*) mkdir -p $root/var/lib/rancher/k3s/server/db ;; esac",
    );
    machine.program("journalctl", "echo the last words of the unit");
    machine.program("k3s", "[ ! -e $root/api-is-down ]");
    machine.program("kubectl", "[ ! -e $root/api-is-down ]");
    machine.program(
        "kubeadm",
        "case $1 in
            reset) rm -rf $root/etc/kubernetes/pki $root/etc/kubernetes/*.conf ;;
            *) for each in \"$@\"; do [ ! -f \"$each\" ] || cp \"$each\" $root/given-to-kubeadm; done
               [ ! -e $root/kubeadm-fails ] && mkdir -p $root/etc/kubernetes && : >$root/etc/kubernetes/kubelet.conf ;;
        esac",
    );
    machine.write("run/secrets/k3s/server_token", "K10aa::server:secret");
    for name in [
        "server-ca",
        "client-ca",
        "request-header-ca",
        "etcd-server-ca",
        "etcd-peer-ca",
    ] {
        machine.write(&format!("run/secrets/k3s/tls/{name}.crt"), name);
        machine.write(&format!("run/secrets/k3s/tls/{name}.key"), name);
    }
    machine.write("run/secrets/k3s/tls/service.key", "service");
    machine.write("run/secrets/k3s/encryption-config.json", "{}");
    for name in ["ca", "front-proxy-ca", "etcd-ca"] {
        machine.write(&format!("run/secrets/kubeadm/pki/{name}.crt"), name);
        machine.write(&format!("run/secrets/kubeadm/pki/{name}.key"), name);
    }
    machine.write("run/secrets/kubeadm/pki/sa.pub", "sa");
    machine.write("run/secrets/kubeadm/pki/sa.key", "sa");
    machine.write("run/secrets/kubeadm/encryption-config.yaml", "{}");
    machine.write("run/secrets/kubeadm/ca_cert_hash", "sha256:abc");
    machine.write("etc/undercroft/kubeadm/init.yaml", "{}");
    machine.write(
        "etc/undercroft/kubeadm/join.json",
        r#"{"kind": "JoinConfiguration", "nodeRegistration": {"name": "box-02"}}"#,
    );
    let server = if founder {
        ""
    } else {
        "https://10.0.0.11:6443"
    };
    machine
        .with("UNDERCROFT_NODE", if founder { "box-01" } else { "box-02" })
        .with(
            "UNDERCROFT_ADDRESS",
            if founder { "10.0.0.11" } else { "10.0.0.12" },
        )
        .with("UNDERCROFT_ROLE", role)
        .with("UNDERCROFT_FOUNDER", if founder { "1" } else { "" })
        .with("UNDERCROFT_OTHERS", "box-03=10.0.0.13 box-04=10.0.0.14")
        .with("UNDERCROFT_SERVER", server)
        .with("UNDERCROFT_SECRETS", "/run/secrets")
        .with("UNDERCROFT_TOKEN_FILE", "/run/secrets/k3s/server_token")
        .with("UNDERCROFT_JOIN_LIMIT_S", "1")
        .with("UNDERCROFT_PAUSE_S", "0.1")
}

pub(crate) fn state(machine: &Machine) -> (String, String) {
    let report = machine.json("run/undercroft/cluster.json");
    let text = |key: &str| report[key].as_str().unwrap().to_owned();
    (text("state"), text("reason"))
}

const JOINED: &str = "var/lib/undercroft/cluster/joined";

#[test]
fn a_founder_founds_with_the_authorities_of_the_secrets() {
    if !programs_are_here(&["jq"]) {
        return;
    }
    let machine = machine("server", true);
    succeeded(&machine.run(&K3S, &[]));
    assert!(machine.has(JOINED));
    assert_eq!(state(&machine).0, "joined");
    let tls = "var/lib/rancher/k3s/server/tls";
    assert_eq!(machine.read(&format!("{tls}/server-ca.key")), "server-ca");
    assert_eq!(
        machine.read(&format!("{tls}/etcd/peer-ca.crt")),
        "etcd-peer-ca"
    );
    assert!(machine.has("var/lib/rancher/k3s/server/cred/encryption-config.json"));
    assert!(!machine.has("run/undercroft/cluster/starting"));

    // Once more: nothing is placed again, nobody is asked, and it is a member still.
    let calls = machine.calls();
    succeeded(&machine.run(&K3S, &[]));
    let all = machine.calls();
    let more = all.strip_prefix(&calls).unwrap();
    assert!(!more.contains("curl"), "{more}");
}

#[test]
fn a_second_cluster_is_never_founded() {
    if !programs_are_here(&["jq"]) {
        return;
    }
    for parts in [K3S, KUBEADM] {
        let machine = machine("server", true);
        machine.write("answering", "10.0.0.14\n");
        let said = failed(&machine.run(&parts, &[]));
        assert!(
            said.contains("box-04 (10.0.0.14) answers for a cluster already"),
            "{said}"
        );
        assert_eq!(state(&machine).0, "failed");
        assert!(!machine.has(JOINED));
        let calls = machine.calls();
        assert!(
            !calls.contains("start") && !calls.contains("kubeadm"),
            "{calls}"
        );
    }
}

#[test]
fn a_joiner_waits_for_its_server_and_founds_nothing() {
    if !programs_are_here(&["jq"]) {
        return;
    }
    for parts in [K3S, KUBEADM] {
        let machine = machine("server", false).with("UNDERCROFT_TOKEN", "abcdef.0123456789abcdef");
        let said = failed(&machine.run(&parts, &[]));
        assert!(
            said.contains("https://10.0.0.11:6443 doesn't answer"),
            "{said}"
        );
        assert!(
            !machine.calls().contains("systemctl start"),
            "{}",
            machine.calls()
        );
        // Now it does.
        machine.write("answering", "10.0.0.11\n");
        machine.write(
            "run/undercroft/cluster/join.env",
            "UNDERCROFT_TOKEN=abcdef\n",
        );
        succeeded(&machine.run(&parts, &[]));
        assert!(machine.has(JOINED));
        assert!(!machine.has("run/undercroft/cluster/join.env"));
        assert!(!machine.has("var/lib/rancher/k3s/server/tls/server-ca.key"));
    }
}

#[test]
fn what_is_left_of_another_cluster_is_neither_joined_nor_wiped() {
    if !programs_are_here(&["jq"]) {
        return;
    }
    let k3s = machine("server", false);
    k3s.write("var/lib/rancher/k3s/server/db/state", "old");
    let said = failed(&k3s.run(&K3S, &[]));
    assert!(said.contains("what is left of another cluster"), "{said}");
    assert_eq!(k3s.read("var/lib/rancher/k3s/server/db/state"), "old");

    let kubeadm = machine("server", false).with("UNDERCROFT_TOKEN", "abcdef.0123456789abcdef");
    kubeadm.write("var/lib/etcd/member/wal", "old");
    let said = failed(&kubeadm.run(&KUBEADM, &[]));
    assert!(said.contains("what is left of another cluster"), "{said}");
    assert!(!kubeadm.calls().contains("reset"));
}

#[test]
fn a_join_that_was_cut_off_goes_on() {
    if !programs_are_here(&["jq"]) {
        return;
    }
    // k3s goes on by itself, with its own half of a datastore.
    let k3s = machine("server", false);
    k3s.write("answering", "10.0.0.11\n");
    k3s.write("api-is-down", "");
    let said = failed(&k3s.run(&K3S, &[]));
    assert!(said.contains("the last words of the unit"), "{said}");
    std::fs::remove_file(k3s.path("api-is-down")).unwrap();
    succeeded(&k3s.run(&K3S, &[]));

    // kubeadm begins again from nothing.
    let kubeadm = machine("agent", false).with("UNDERCROFT_TOKEN", "abcdef.0123456789abcdef");
    kubeadm.write("answering", "10.0.0.11\n");
    kubeadm.write("kubeadm-fails", "");
    failed(&kubeadm.run(&KUBEADM, &[]));
    std::fs::remove_file(kubeadm.path("kubeadm-fails")).unwrap();
    succeeded(&kubeadm.run(&KUBEADM, &[]));
    let calls = kubeadm.calls();
    assert_eq!(calls.matches("kubeadm reset").count(), 1, "{calls}");
    assert_eq!(calls.matches("kubeadm join").count(), 2, "{calls}");
}

#[test]
fn a_kubeadm_that_was_cut_off_counts_as_nothing_though_an_api_answers() {
    if !programs_are_here(&["jq"]) {
        return;
    }
    let machine = machine("server", true);
    let kubeadm = std::fs::read_to_string(machine.path("bin/kubeadm")).unwrap();
    // What joiners need of the cluster it makes last, long after its API answers.
    machine.program(
        "kubeadm",
        "mkdir -p $root/etc/kubernetes; : >$root/etc/kubernetes/kubelet.conf; kill -KILL $PPID",
    );
    assert_eq!(machine.run(&KUBEADM, &[]).status.code(), None);
    machine.write("bin/kubeadm", kubeadm);
    succeeded(&machine.run(&KUBEADM, &[]));
    let calls = machine.calls();
    assert_eq!(calls.matches("kubeadm reset").count(), 1, "{calls}");
    assert_eq!(calls.matches("kubeadm init").count(), 2, "{calls}");
}

#[test]
fn a_kubeadm_that_came_to_its_end_is_not_begun_again() {
    if !programs_are_here(&["jq"]) {
        return;
    }
    let machine = machine("agent", false).with("UNDERCROFT_TOKEN", "abcdef.0123456789abcdef");
    machine.write("answering", "10.0.0.11\n");
    machine.write("api-is-down", "");
    let said = failed(&machine.run(&KUBEADM, &[]));
    assert!(said.contains("the kubelet: not within 1 s"), "{said}");
    std::fs::remove_file(machine.path("api-is-down")).unwrap();
    succeeded(&machine.run(&KUBEADM, &[]));
    let calls = machine.calls();
    assert_eq!(calls.matches("kubeadm join").count(), 1, "{calls}");
    assert!(!calls.contains("kubeadm reset"), "{calls}");
}

#[test]
fn the_reason_is_what_kubeadm_says_and_what_to_try() {
    if !programs_are_here(&["jq"]) {
        return;
    }
    for (says, hint) in [
        (
            "error: could not find a JWS signature in the cluster-info ConfigMap for token ID \\\"abcdef\\\"",
            "undercroft up makes a new one",
        ),
        (
            "error: none of the public keys \\\"sha256:0\\\" are pinned",
            "undercroft secrets check",
        ),
        (
            "\t[ERROR Swap]: running with swap on is not supported",
            "swap",
        ),
    ] {
        let machine = machine("agent", false).with("UNDERCROFT_TOKEN", "abcdef.0123456789abcdef");
        machine.write("answering", "10.0.0.11\n");
        machine.program(
            "kubeadm",
            &format!(
                "echo '[preflight] Running pre-flight checks'; printf \"{says}\\n\" >&2
                 echo 'To see the stack trace of this error execute with --v=5 or higher' >&2; exit 1"
            ),
        );
        failed(&machine.run(&KUBEADM, &[]));
        let (state, reason) = state(&machine);
        assert_eq!(state, "failed");
        let begins = reason.starts_with("kubeadm join failed with exit code 1: ");
        assert!(begins && reason.contains(hint), "{reason}");
        assert!(
            !reason.contains("pre-flight") && !reason.contains("stack"),
            "{reason}"
        );
        assert!(!machine.has("run/undercroft/cluster/join.yaml"));
    }
}

#[test]
fn a_join_that_systemd_ends_says_how_far_it_was() {
    if !programs_are_here(&["jq"]) {
        return;
    }
    let machine = machine("server", true);
    machine.program(
        "kubeadm",
        "echo '[preflight] Pulling images'; kill -TERM $PPID; exit 143",
    );
    failed(&machine.run(&KUBEADM, &[]));
    let (state, reason) = state(&machine);
    assert_eq!(state, "failed");
    assert!(
        reason.contains("stopped after") && reason.contains("Pulling images"),
        "{reason}"
    );
}

#[test]
fn kubeadm_is_given_the_token_in_a_file_that_goes_away() {
    if !programs_are_here(&["jq"]) {
        return;
    }
    let token = "abcdef.0123456789abcdef";
    let machine = machine("server", false).with("UNDERCROFT_TOKEN", token);
    machine.write("answering", "10.0.0.11\n");
    succeeded(&machine.run(&KUBEADM, &[]));
    let given = machine.json("given-to-kubeadm");
    assert_eq!(given["nodeRegistration"]["name"], "box-02");
    let discovery = &given["discovery"]["bootstrapToken"];
    assert_eq!(discovery["token"], token);
    assert_eq!(discovery["apiServerEndpoint"], "10.0.0.11:6443");
    assert_eq!(discovery["caCertHashes"][0], "sha256:abc");
    assert!(!machine.calls().contains(token), "{}", machine.calls());
    assert!(!machine.has("run/undercroft/cluster/join.yaml"));
    // Every server has the authorities of its own.
    assert_eq!(machine.read("etc/kubernetes/pki/etcd/ca.key"), "etcd-ca");
}

#[test]
fn without_a_token_nothing_is_tried() {
    if !programs_are_here(&["jq"]) {
        return;
    }
    for (token, reason) in [("", "kubeadm token create"), ("abcdef", "isn't a token")] {
        let kubeadm = machine("agent", false).with("UNDERCROFT_TOKEN", token);
        kubeadm.write("answering", "10.0.0.11\n");
        let said = failed(&kubeadm.run(&KUBEADM, &[]));
        assert!(said.contains(reason), "{said}");
        assert!(!kubeadm.calls().contains("kubeadm join"));
    }

    let k3s = machine("agent", false);
    k3s.write("run/secrets/k3s/server_token", "");
    let said = failed(&k3s.run(&K3S, &[]));
    assert!(said.contains("server_token is missing or empty"), "{said}");
}

#[test]
fn the_virtual_address_belongs_to_the_founders_own_kubeconfig_until_it_has_founded() {
    if !programs_are_here(&["jq"]) {
        return;
    }
    let machine = machine("server", true)
        .with("UNDERCROFT_VIP", "/kube-vip.json")
        .with("UNDERCROFT_VIP_FOUNDING", "/kube-vip-founding.json");
    let link = "etc/kubernetes/manifests/kube-vip.json";
    let root = machine.root();
    machine.program(
        "kubeadm",
        &format!("readlink {root}/{link} >{root}/during; mkdir -p $root/etc/kubernetes; : >$root/etc/kubernetes/kubelet.conf"),
    );
    succeeded(&machine.run(&KUBEADM, &[]));
    assert_eq!(machine.read("during"), "/kube-vip-founding.json\n");
    let after = std::fs::read_link(machine.path(link)).unwrap();
    assert_eq!(after.to_str().unwrap(), "/kube-vip.json");
}

#[test]
fn a_server_that_leaves_takes_its_member_out_of_etcd_before_its_data_go() {
    if !programs_are_here(&["jq"]) {
        return;
    }
    let parts = ["cluster-lib", "cluster-leave-kubeadm"];
    let own = "aa1, started, box-02, https://10.0.0.12:2380, https://10.0.0.12:2379, false";
    let other = "bb2, started, box-01, https://10.0.0.11:2380, https://10.0.0.11:2379, false";
    let leaves = |list: &str, spares: bool| {
        let machine = machine("server", false);
        machine.write("etc/kubernetes/manifests/etcd.yaml", "");
        machine.program(
            "etcdctl",
            &format!("case $* in *list) printf '{list}' ;; *) {spares} ;; esac"),
        );
        let output = machine.run(&parts, &["--wipe"]);
        (machine.calls(), output)
    };
    let (calls, output) = leaves(&format!("{other}\\n{own}\\n"), true);
    succeeded(&output);
    let removed = calls.find("member remove aa1").unwrap();
    assert!(removed < calls.find("kubeadm reset").unwrap(), "{calls}");
    // Without the others' majority nothing is deleted.
    let (calls, output) = leaves(&format!("{other}\\n{own}\\n"), false);
    assert!(failed(&output).contains("can't spare"));
    assert!(!calls.contains("kubeadm reset"), "{calls}");
    // The last one has nobody to leave.
    let (calls, output) = leaves(&format!("{own}\\n"), true);
    succeeded(&output);
    assert!(!calls.contains("member remove"), "{calls}");
}

#[test]
fn leaving_wants_to_be_told() {
    if !programs_are_here(&["jq"]) {
        return;
    }
    let machine = machine("server", false);
    machine.write("var/lib/rancher/k3s/server/db/state", "data");
    machine.write("etc/rancher/k3s/k3s.yaml", "credentials");
    machine.write("etc/rancher/k3s/registries.yaml", "{}");
    machine.write(JOINED, "");
    machine.program("systemd-tmpfiles", "echo \"$*\" >$root/tmpfiles");
    let parts = ["cluster-lib", "cluster-leave-k3s"];
    assert_eq!(machine.run(&parts, &[]).status.code(), Some(64));
    assert!(machine.has("var/lib/rancher/k3s/server/db/state"));
    succeeded(&machine.run(&parts, &["--wipe"]));
    assert!(!machine.has("var/lib/rancher/k3s") && !machine.has(JOINED));
    // The credentials go, the system's own settings stay, and its static pods come back.
    assert!(!machine.has("etc/rancher/k3s/k3s.yaml"));
    assert!(machine.has("etc/rancher/k3s/registries.yaml"));
    assert_eq!(
        machine.read("tmpfiles"),
        "--create --prefix=/var/lib/rancher\n"
    );
    assert_eq!(state(&machine).0, "left");
}

/// The check of the kernel's settings, in a network namespace of its own with given ones.
fn marks(settings: &str) -> std::process::Output {
    let script = std::fs::read_to_string(crate::scripts().join("marks.sh")).unwrap();
    Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "bash", "-c"])
        .arg(format!(
            "set -e\ncd /proc/sys/net/ipv4/conf\n{settings}\nset +e\n{script}"
        ))
        .output()
        .unwrap()
}

#[test]
fn marks_that_the_kernel_heeds_are_found_where_it_takes_no_sender_of_its_own() {
    if !programs_are_here(&["unshare", "bash"]) {
        return;
    }
    if !marks("true").status.success() {
        println!("SKIPPED: no network namespace can be made here");
        return;
    }
    let both = "echo 1 >all/src_valid_mark; echo 1 >all/accept_local";
    succeeded(&marks(both));
    // What tailscaled does by itself, on a machine without the setting.
    let out = marks("echo 1 >all/src_valid_mark; echo 0 >all/accept_local");
    failed(&out);
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(said.contains("all.src_valid_mark is on"), "{said}");
}
