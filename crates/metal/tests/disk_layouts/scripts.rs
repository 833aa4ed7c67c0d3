//! disko's scripts of our layouts, and the programs that they call.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use undercroft_build::debian::{Arch, KernelFlavour, Parts};
use undercroft_build::installer::cpio::Archive;
use undercroft_testkit::OrSkip as _;

use crate::guest_common::{add_programs, cache_dir, let_there_be, packages, read_module};

/// The programs that disko's scripts take of each of nixpkgs' packages, where Debian's have them.
const TOOLS: [(&str, &[&str]); 13] = [
    ("bash", &["usr/bin/bash"]),
    (
        "coreutils-full",
        &[
            "usr/bin/basename",
            "usr/bin/cat",
            "usr/bin/cut",
            "usr/bin/dd",
            "usr/bin/dirname",
            "usr/bin/mkdir",
            "usr/bin/mktemp",
            "usr/bin/realpath",
            "usr/bin/rm",
            "usr/bin/true",
        ],
    ),
    ("dosfstools", &["usr/sbin/mkfs.vfat"]),
    ("e2fsprogs", &["usr/sbin/mkfs.ext4"]),
    ("gawk", &["usr/bin/gawk"]),
    ("gnugrep", &["usr/bin/grep"]),
    ("gnused", &["usr/bin/sed"]),
    ("gptfdisk", &["usr/sbin/sgdisk"]),
    ("jq", &["usr/bin/jq"]),
    ("mdadm", &["usr/sbin/mdadm"]),
    ("parted", &["usr/sbin/partprobe"]),
    (
        "util-linux",
        &[
            "usr/bin/findmnt",
            "usr/bin/lsblk",
            "usr/bin/mount",
            "usr/bin/umount",
            "usr/sbin/blkid",
            "usr/sbin/swapoff",
            "usr/sbin/wipefs",
        ],
    ),
    ("xfsprogs", &["usr/sbin/mkfs.xfs"]),
];
const PACKAGES: [&str; 16] = [
    "bash",
    "coreutils",
    "dosfstools",
    "e2fsprogs",
    "gawk",
    "gdisk",
    "grep",
    "jq",
    "mdadm",
    "mount",
    "parted",
    "sed",
    "udev",
    "util-linux",
    "xfsprogs",
    "zlib1g",
];
/// A machine that has no ZFS: what is asked of it is written down, and there is never a pool.
const ZFS_STAND_IN: &str = r#"#!/bin/sh
echo "${0##*/} $*" >>/run/zfs.calls
case "${0##*/} $*" in
"zpool import"* | "zpool list"* | "zfs get type"*) exit 1 ;;
"zfs get -H mounted"*) printf 'zroot\tmounted\tno\t-\n' ;;
esac
"#;

/// Runs `nix-instantiate --eval` over a file of nix/tests; `None`, after it said why, without Nix.
pub(crate) fn evaluate(file: &str, arguments: &[(&str, &str, &str)]) -> Option<Value> {
    let mut command = Command::new("nix-instantiate");
    command
        .args(["--eval", "--strict", "--json", "--readonly-mode"])
        .arg(
            undercroft_testkit::repository()
                .join("nix/tests")
                .join(file),
        )
        .env("NIX_CONFIG", "build-users-group =");
    for (kind, name, value) in arguments {
        command.args([*kind, *name, *value]);
    }
    match command.output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{file}: {said}");
            Some(serde_json::from_slice(&output.stdout).unwrap())
        }
        Err(error) => {
            undercroft_testkit::skip(format!("nix-instantiate can't be run: {error}"));
            None
        }
    }
}

/// The trees of disko and of nixpkgs' lib; `None`, after it said why, where they aren't there.
fn trees() -> Option<(PathBuf, PathBuf)> {
    let folder = undercroft_testkit::trees().or_skip()?;
    let lib = ["nixpkgs-lib/lib", "nixpkgs/lib"].map(|path| folder.join(path));
    let lib = lib.into_iter().find(|path| path.is_dir());
    let disko = folder.join("disko");
    let Some(lib) = lib.filter(|_| disko.is_dir()) else {
        let folder = folder.display();
        undercroft_testkit::skip(format!("{folder} has no disko or no lib of nixpkgs"));
        return None;
    };
    Some((disko.canonicalize().unwrap(), lib.canonicalize().unwrap()))
}

/// The scripts of layouts with the programs that they need, and what disko says of them.
pub(crate) fn scripts(layouts: &Value) -> Option<(Archive, Value)> {
    let (disko, lib) = trees()?;
    let evaluated = evaluate(
        "disko.nix",
        &[
            ("--arg", "disko", disko.to_str().unwrap()),
            ("--arg", "nixpkgsLib", lib.to_str().unwrap()),
            ("--argstr", "layouts", &layouts.to_string()),
        ],
    )?;
    let mut archive = Archive::new();
    for (layout, made) in evaluated["layouts"].as_object().unwrap() {
        for script in [
            "diskoScript",
            "destroyScript",
            "formatScript",
            "mountScript",
        ] {
            let text = made[script].as_str().unwrap();
            archive.file(&format!("test/{layout}/{script}"), 0o755, text);
        }
    }
    let deactivate = evaluated["deactivate"].as_str().unwrap();
    for entry in fs::read_dir(disko.join("disk-deactivate")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        archive.file(
            &format!("{deactivate}/{}", name.to_str().unwrap()),
            0o755,
            fs::read(entry.path()).unwrap(),
        );
    }
    let set = packages(&PACKAGES)?;
    let tools = TOOLS.iter().flat_map(|(package, programs)| {
        programs.iter().map(move |program| {
            let name = Path::new(program).file_name().unwrap().to_str().unwrap();
            (*program, format!("tools/{package}/bin/{name}"))
        })
    });
    add_programs(&mut archive, &set, tools);
    archive.link("tools/gawk/bin/awk", "gawk");
    archive.link("tools/systemdMinimal/bin/udevadm", "/usr/bin/udevadm");
    for name in ["zpool", "zfs"] {
        archive.file(&format!("tools/zfs/bin/{name}"), 0o755, ZFS_STAND_IN);
    }
    let parts = Parts::open(&cache_dir()).unwrap();
    let (kernel, set) =
        let_there_be(parts.kernel(KernelFlavour::Cloud, Arch::X86_64, &mut |_| {}))?;
    for name in ["md-mod", "raid1"] {
        let path = format!("lib/modules/{}/kernel/drivers/md/{name}.ko", kernel.release);
        let file = set.file(&path).or_else(|_| set.file(&format!("{path}.xz")));
        let module = read_module(&file.unwrap());
        archive.file(&format!("test/{name}.ko"), 0o644, module);
    }
    Some((archive, evaluated["layouts"].clone()))
}

fn disk(device: &str, serial: &str) -> Value {
    json!({ "device": device, "serial": serial, "wwn": null, "sizeGb": null })
}

/// `undercroft.disks` of a machine with two disks for the system and one for Longhorn.
pub(crate) fn layout(name: &str, root: &[&str]) -> Value {
    let root: Vec<Value> = root
        .iter()
        .map(|serial| disk(&format!("/dev/disk/by-serial/{serial}"), serial))
        .collect();
    json!({
        "layout": name,
        "espMb": 128,
        "root": root,
        "longhorn": [disk("/dev/disk/by-id/nvme-QEMU_NVMe_Ctrl_UC-N", "UC-N")],
        "data": [],
        "longhornPartitionGb": 2,
        "longhornFsType": "xfs",
        "encryptionKeyFile": "/run/undercroft/disk.key",
    })
}
