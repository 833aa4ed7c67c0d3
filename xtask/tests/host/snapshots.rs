//! Snapshots of etcd, encrypted with the real age: by a stand-in for etcdctl, and of a real etcd.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use undercroft_testkit::{OrSkip as _, peer};

use crate::{Machine, failed, programs_are_here, succeeded};

/// What etcd is waited for, until it answers.
const ETCD_LIMIT: Duration = Duration::from_secs(90);

/// A server that nobody told to whom it encrypts.
fn server_without_recipient() -> Machine {
    let machine = Machine::new();
    machine.write("db/member/snap/.keep", "");
    let path = |name: &str| machine.path(name).to_str().unwrap().to_owned();
    let (snapshots, datastore, recipient) = (path("snapshots"), path("db"), path("recipient"));
    machine
        .with("UNDERCROFT_SNAPSHOTS", snapshots)
        .with("UNDERCROFT_DATASTORE", datastore)
        .with("UNDERCROFT_RECIPIENT", recipient)
        .with("UNDERCROFT_NODE", "box-01")
        .with("UNDERCROFT_KEEP", "3")
}

/// A server with a key pair of an operator's, of which the machine has the public half alone.
fn server() -> Machine {
    let machine = server_without_recipient();
    let made = Command::new("age-keygen").output().unwrap();
    assert!(made.status.success());
    let identity = String::from_utf8(made.stdout).unwrap();
    let public = identity
        .lines()
        .find_map(|line| line.strip_prefix("# public key: "))
        .unwrap();
    // As sops-nix writes it: with no line break at its end.
    machine.write("recipient", public);
    machine.write("operators/identity", &identity);
    machine
}

fn snapshot(machine: &Machine) -> Output {
    machine.run(&["etcd-snapshot"], &[])
}

fn names(machine: &Machine, folder: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(machine.path(folder))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn newest(machine: &Machine) -> PathBuf {
    let names = names(machine, "snapshots");
    machine.path("snapshots").join(names.last().unwrap())
}

/// What docs/secrets.md has an operator do.
fn decrypt(machine: &Machine, snapshot: &Path) -> Output {
    Command::new("age")
        .args(["--decrypt", "--identity"])
        .arg(machine.path("operators/identity"))
        .arg(snapshot)
        .output()
        .unwrap()
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

const AGE: [&str; 2] = ["age", "age-keygen"];

#[test]
fn snapshots_leave_encrypted_are_kept_in_number_and_none_by_half() {
    if !programs_are_here(&AGE) {
        return;
    }
    let machine = server();
    for day in 1..=4 {
        let name = format!("snapshots/etcd-box-01-2026010{day}T000000Z.db.age");
        machine.write(&name, "old");
    }
    machine.program(
        "etcdctl",
        r#"echo data-of-etcd >"${@: -1}"; stat -c %a "${@: -1}" "$(dirname "${@: -1}")" >$root/modes"#,
    );
    succeeded(&snapshot(&machine));
    let kept = names(&machine, "snapshots");
    assert_eq!(kept.len(), 3, "{kept:?}");
    assert_eq!(kept[0], "etcd-box-01-20260103T000000Z.db.age");
    let plain = decrypt(&machine, &newest(&machine));
    assert_eq!(
        (plain.status.success(), plain.stdout.as_slice()),
        (true, b"data-of-etcd\n".as_slice())
    );
    let sealed = fs::read(newest(&machine)).unwrap();
    assert!(sealed.starts_with(b"age-encryption.org/v1"));
    assert_eq!(mode(&newest(&machine)), 0o600);
    // The plain one was root's alone, in the datastore's folder, and is gone.
    assert_eq!(machine.read("modes"), "600\n700\n");
    assert_eq!(names(&machine, "db"), ["member"]);

    // One that fails pushes no good one out, and leaves nothing in plain text behind.
    for broken in [
        r#"echo half >"${@: -1}"; exit 1"#,
        // The member's disk is full once etcdctl has written.
        r#"echo whole >"${@: -1}"; printf '#!/bin/sh\necho half >"$5"\nexit 1\n' >$root/bin/age; chmod 755 $root/bin/age"#,
    ] {
        machine.program("etcdctl", broken);
        failed(&snapshot(&machine));
        let whole = |name: &&String| name.ends_with(".age");
        assert_eq!(names(&machine, "snapshots").iter().filter(whole).count(), 3);
        assert_eq!(names(&machine, "db"), ["member"]);
    }
}

#[test]
fn what_a_power_cut_left_is_taken_away() {
    if !programs_are_here(&AGE) {
        return;
    }
    let machine = server();
    machine.write("db/undercroft-snapshot/etcd.db", "left in plain text");
    machine.write("snapshots/etcd-box-01-20260103T000000Z.db.age.part", "half");
    machine.program("etcdctl", r#"echo data-of-etcd >"${@: -1}""#);
    succeeded(&snapshot(&machine));
    assert_eq!(names(&machine, "db"), ["member"]);
    let kept = names(&machine, "snapshots");
    assert!(kept.len() == 1 && kept[0].ends_with(".age"), "{kept:?}");
}

#[test]
fn without_a_recipient_there_is_no_snapshot() {
    let machine = server_without_recipient();
    machine.program("etcdctl", r#"echo data >"${@: -1}""#);
    let said = failed(&snapshot(&machine));
    assert!(said.contains("no snapshot was taken"), "{said}");
    assert!(!machine.has("snapshots") && !machine.calls().contains("etcdctl"));
}

/// A real etcd on a port of loopback; it ends with the test.
struct Etcd(Child);

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_real_etcd_comes_back_from_its_snapshot_whole() {
    let (Some(etcd), Some(etcdctl)) = (peer("etcd").or_skip(), peer("etcdctl").or_skip()) else {
        return;
    };
    if !programs_are_here(&AGE) {
        return;
    }
    let machine = server();
    let free = || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let client = format!("http://127.0.0.1:{}", free());
    let peers = format!("http://127.0.0.1:{}", free());
    let child = Command::new(etcd)
        .arg("--data-dir")
        .arg(machine.path("db"))
        .args(["--listen-client-urls", &client])
        .args(["--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peers])
        .args(["--initial-advertise-peer-urls", &peers])
        .args(["--initial-cluster", &format!("default={peers}")])
        .stdout(Stdio::null())
        .stderr(fs::File::create(machine.path("etcd.log")).unwrap())
        .spawn()
        .unwrap();
    let _etcd = Etcd(child);
    std::os::unix::fs::symlink(&etcdctl, machine.path("bin/etcdctl")).unwrap();
    let machine = machine.with("ETCDCTL_ENDPOINTS", client.as_str());
    let put = || {
        Command::new(&etcdctl)
            .args([
                "--endpoints",
                &client,
                "put",
                "/registry/secret",
                "hunter2-in-etcd",
            ])
            .output()
            .unwrap()
    };
    let until = Instant::now() + ETCD_LIMIT;
    while !put().status.success() {
        assert!(Instant::now() < until, "{}", machine.read("etcd.log"));
        std::thread::sleep(Duration::from_millis(50));
    }
    succeeded(&snapshot(&machine));
    let sealed = fs::read(newest(&machine)).unwrap();
    let has = |bytes: &[u8]| bytes.windows(15).any(|w| w == b"hunter2-in-etcd");
    assert!(!has(&sealed));
    let plain = decrypt(&machine, &newest(&machine));
    assert!(plain.status.success());
    assert!(has(&plain.stdout));
    // etcd ends a snapshot with its SHA-256, which it checks when it is restored.
    let (data, sum) = plain.stdout.split_at(plain.stdout.len() - 32);
    machine.write("data", data);
    let computed = Command::new("sha256sum")
        .arg(machine.path("data"))
        .output()
        .unwrap();
    let computed = String::from_utf8(computed.stdout).unwrap();
    let wanted: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(computed.starts_with(&wanted), "{computed} isn't {wanted}");
    assert!(!machine.has("db/undercroft-snapshot"));
}
