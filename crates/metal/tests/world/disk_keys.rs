//! The key of an encrypted disk: where it comes to, who can read it there, and that it is nowhere
//! else and not for long; and what disko isn't let do. The SSH server is real; disko and what it
//! calls are stand-ins.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use secrecy::SecretString;
use sha2::{Digest as _, Sha256};
use undercroft_engine::World as _;
use undercroft_metal::world::EncryptionKeySource;
use undercroft_model::{Action, Evidence, FailureKind, Outcome, Work, inventory::Layout};

use crate::{bench::*, namespace_common};

const KEY: &str = "correct-horse-battery-staple-0123456789";
/// The stand-in for the disko script; the bench finds it in its folder.
const SCRIPT: &str = "/undercroft/disko";

/// Runs a test in a namespace, with a stand-in for `nix` that copies nothing: the script is on the
/// machine already. True inside of it.
fn inside(test: &str) -> bool {
    let programs = tempfile::tempdir().unwrap();
    write_program(
        &programs.path().join("nix"),
        "echo \"$*\" >>\"${0%/*}/nix-asked\"; tr '\\0' '\\n' </proc/self/environ >>\"${0%/*}/nix-asked\"",
    );
    namespace_common::inside_with(
        &format!("disk_keys::{test}"),
        || None,
        |inner| {
            let mut path = OsString::from(programs.path());
            path.push(":");
            path.push(std::env::var_os("PATH").unwrap_or_default());
            inner.env("PATH", path);
        },
    )
}

/// What the stand-in for `nix` was asked.
fn nix_asked() -> String {
    let path = std::env::var_os("PATH").unwrap();
    let first = std::env::split_paths(&path).next().unwrap();
    fs::read_to_string(first.join("nix-asked")).unwrap()
}

fn write_program(path: &Path, body: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A bench with a source of the key that counts how often it is asked, and stand-ins for what
/// reads and writes partition tables.
fn bench() -> (Bench, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let source: EncryptionKeySource = Arc::new(move |of| {
        assert_eq!(*of, node());
        count.fetch_add(1, Ordering::SeqCst);
        Ok(SecretString::from(KEY))
    });
    let bench = Bench::with_disk_keys(Some(source));
    let at = bench.dir.path().display().to_string();
    for (name, body) in [
        ("sgdisk", "echo \"${1#--disk-guid=}\" >$at/guid"),
        (
            "blkid",
            "case \"$*\" in
*zfs_member*) [ ! -e $at/pool ] || echo /dev/elsewhere ;;
*LABEL*) cat $at/pool ;;
*) cat $at/guid ;;
esac",
        ),
        ("blockdev", "echo 4096"),
        ("dd", "[ ! -e $at/trace ] || cat $at/trace"),
    ] {
        let body = body.replace("$at", &at);
        write_program(&bench.path("bin").join(name), &body);
    }
    fs::write(bench.path("mounts"), "").unwrap();
    disko(&bench, "mounted");
    (bench, asked)
}

/// The stand-in for disko: it looks at the key, and at what every process shows of itself
/// meanwhile, and then ends as the test says.
fn disko(bench: &Bench, end: &str) {
    let body = "sha256sum <$at/run/disk.key >$at/key-sum
stat -c '%a %U' $at/run/disk.key $at/run >$at/key-modes
cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' >$at/processes
echo ran >>$at/disko-ran
case $end in
    mounted) echo '/dev/vda2 /mnt zfs rw 0 0' >$at/mounts ;;
    fails) echo 'pool: no such device' >&2; exit 1 ;;
    hangs) touch $at/hanging; exec sleep 600 ;;
esac";
    let at = bench.dir.path().display().to_string();
    let body = body.replace("$at", &at).replace("$end", end);
    write_program(&bench.path("disko"), &body);
}

fn encrypted() -> Action {
    with_layout(Layout::ZfsEncrypted)
}

fn with_layout(layout: Layout) -> Action {
    with_devices(layout, Some(&["/dev/vda"]))
}

fn with_devices(layout: Layout, devices: Option<&[&str]>) -> Action {
    let owned = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect();
    Action::Partition {
        disks: vec![disk("S1")],
        layout,
        disko_script: Some(SCRIPT.into()),
        disko_mount_script: None,
        disko_devices: devices.map(owned),
    }
}

fn key_file(bench: &Bench) -> PathBuf {
    bench.path("run/disk.key")
}

/// The key is in nothing that stays: not in a command, not in what was told, in no file of the
/// controller's or the machine's.
fn assert_nowhere(bench: &Bench, outcome: &Outcome) {
    let told = format!("{:?}{outcome:?}", bench.told.lock().unwrap());
    assert!(!told.contains(KEY));
    assert!(!nix_asked().contains(KEY));
    let mut folders = vec![bench.dir.path().to_owned()];
    let mut looked_at = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else if let Ok(bytes) = fs::read(entry.path()) {
                looked_at += 1;
                let found = bytes.windows(KEY.len()).any(|w| w == KEY.as_bytes());
                assert!(!found, "{}", entry.path().display());
            }
        }
    }
    // The database, the server's log, and what the stand-ins wrote down are among them.
    assert!(looked_at > 10, "{looked_at} files");
}

#[tokio::test]
async fn it_comes_whole_to_root_alone_and_is_gone_once_the_disks_are_laid_out() {
    if !inside("it_comes_whole_to_root_alone_and_is_gone_once_the_disks_are_laid_out") {
        return;
    }
    let (mut bench, asked) = bench();
    // A file that somebody else can read is not written into.
    fs::create_dir_all(bench.path("run")).unwrap();
    fs::set_permissions(bench.path("run"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(key_file(&bench), "old").unwrap();
    fs::set_permissions(key_file(&bench), fs::Permissions::from_mode(0o666)).unwrap();

    let outcome = bench.act(encrypted()).await;
    let read = |name: &str| fs::read_to_string(bench.path(name)).unwrap();
    let sum: String = Sha256::digest(KEY)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert!(read("key-sum").starts_with(&sum));
    assert_eq!(read("key-modes"), "600 root\n700 root\n");
    assert!(read("processes").contains("disko") && !read("processes").contains(KEY));
    assert!(!key_file(&bench).exists());
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert_nowhere(&bench, &outcome);
    assert!(matches!(
        evidence(outcome),
        Evidence::Partitioned { wiped: true, .. }
    ));

    // Laid out and mounted: the key isn't as much as decrypted again.
    let again = evidence(bench.act(encrypted()).await);
    assert!(matches!(again, Evidence::Partitioned { wiped: false, .. }));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn it_is_gone_too_where_the_disks_could_not_be_laid_out() {
    if !inside("it_is_gone_too_where_the_disks_could_not_be_laid_out") {
        return;
    }
    let (mut bench, _) = bench();
    disko(&bench, "fails");
    let outcome = bench.act(encrypted()).await;
    assert!(!key_file(&bench).exists());
    assert_nowhere(&bench, &outcome);
    let failed = failure(outcome);
    assert_eq!(failed.kind, FailureKind::Permanent);
    assert!(
        failed
            .message
            .contains("disko script failed with exit code 1")
    );
    assert!(
        failed
            .command
            .unwrap()
            .output_tail
            .contains("no such device")
    );
}

#[tokio::test]
async fn a_power_cut_takes_it_with_the_memory_and_the_next_try_brings_it_again() {
    if !inside("a_power_cut_takes_it_with_the_memory_and_the_next_try_brings_it_again") {
        return;
    }
    let (mut bench, asked) = bench();
    disko(&bench, "hangs");
    let facts = bench.facts();
    let order = bench.order(encrypted(), Work::Act, facts);
    let op = order.op;
    bench.world.start(order);
    let until = Instant::now() + LIMIT;
    while !bench.path("hanging").exists() {
        assert!(Instant::now() < until);
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    // The controller stops as well. On the machine everything ends that ran, and what was in
    // memory is gone: the key's folder, which command ran.
    bench.world.cancel(op);
    let running = fs::read_to_string(bench.path("now")).unwrap();
    let ended = std::process::Command::new("kill")
        .args(["-KILL", running.trim()])
        .status();
    assert!(ended.unwrap().success());
    fs::remove_dir_all(bench.path("run")).unwrap();
    fs::remove_file(bench.path("now")).unwrap();

    let facts = bench.facts();
    let probed = bench.carry_out(encrypted(), Work::Probe, facts).await;
    assert_eq!(probed, Outcome::NotDone);
    assert_eq!(asked.load(Ordering::SeqCst), 1, "a probe needs no key");
    disko(&bench, "mounted");
    let outcome = bench.act(encrypted()).await;
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    assert!(!key_file(&bench).exists());
    assert_nowhere(&bench, &outcome);
    assert!(matches!(
        evidence(outcome),
        Evidence::Partitioned { wiped: true, .. }
    ));
}

#[tokio::test]
async fn a_disk_that_isnt_encrypted_gets_none() {
    if !inside("a_disk_that_isnt_encrypted_gets_none") {
        return;
    }
    let (mut bench, asked) = bench();
    let outcome = bench.act(with_layout(Layout::Zfs)).await;
    assert!(matches!(
        evidence(outcome),
        Evidence::Partitioned { wiped: true, .. }
    ));
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    assert!(bench.path("disko-ran").exists() && !bench.path("key-sum").exists());
}

/// disko clears the labels of pools by their names, whichever disk they lead to.
#[tokio::test]
async fn a_pool_on_another_disk_whose_name_a_wiped_disk_knows_is_spared() {
    if !inside("a_pool_on_another_disk_whose_name_a_wiped_disk_knows_is_spared") {
        return;
    }
    let (mut bench, asked) = bench();
    fs::write(bench.path("pool"), "tank").unwrap();
    fs::write(bench.path("trace"), b"\0\x01name\0\0tank\0\xff\0").unwrap();
    let failed = failure(bench.act(with_layout(Layout::ZfsEncrypted)).await);
    assert_eq!(failed.kind, FailureKind::Refused);
    assert!(
        failed
            .message
            .starts_with("/dev/elsewhere, which isn't wiped, has a ZFS pool named tank, and /dev/"),
        "{failed:?}"
    );
    assert!(failed.hint.unwrap().contains("zpool labelclear -f /dev/"));
    assert!(!bench.path("disko-ran").exists());
    assert_eq!(asked.load(Ordering::SeqCst), 0, "the key wasn't brought");

    fs::write(bench.path("trace"), b"\0\x01name\0\0zroot\0\xff\0").unwrap();
    evidence(bench.act(with_layout(Layout::ZfsEncrypted)).await);
    assert!(bench.path("disko-ran").exists());
}

/// The plan's disks are found by their serial numbers; the script has names of its own.
#[tokio::test]
async fn a_script_that_would_make_another_disk_anew_is_not_run() {
    if !inside("a_script_that_would_make_another_disk_anew_is_not_run") {
        return;
    }
    let (mut bench, asked) = bench();
    let by_id = bench.path("by-id-of-s1").display().to_string();
    std::os::unix::fs::symlink("/dev/vda", &by_id).unwrap();
    for (devices, kind, says) in [
        (
            Some(&["/dev/vdb"][..]),
            FailureKind::Refused,
            "the disko script would make /dev/vdb anew, which is /dev/vdb on this machine, and the plan wipes only /dev/vda",
        ),
        (
            Some(&[&by_id, "/dev/vdb"]),
            FailureKind::Refused,
            "would make /dev/vdb anew",
        ),
        (
            Some(&["/dev/disk/by-id/nowhere"]),
            FailureKind::Refused,
            "/dev/disk/by-id/nowhere",
        ),
        (None, FailureKind::Permanent, "it can't be told which disks"),
    ] {
        let failed = failure(bench.act(with_devices(Layout::ZfsEncrypted, devices)).await);
        assert_eq!(failed.kind, kind, "{failed:?}");
        assert!(failed.message.contains(says), "{failed:?}");
        assert!(failed.hint.is_some(), "{failed:?}");
    }
    assert!(!bench.path("disko-ran").exists());
    assert_eq!(asked.load(Ordering::SeqCst), 0, "the key wasn't brought");

    evidence(
        bench
            .act(with_devices(Layout::ZfsEncrypted, Some(&[&by_id])))
            .await,
    );
    assert!(bench.path("disko-ran").exists());
}
