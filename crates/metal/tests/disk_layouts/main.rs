//! The layouts of nix/lib/disks.nix, made by disko's own scripts in the installer, on virtual disks;
//! and the links by which the installer names disks.
//!
//! disko's scripts are evaluated, not built: where a closure would bring programs of nixpkgs, the
//! guest has Debian's. They run with udev as the installer has it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "this is test code, which the lints recognize only inside test functions"
)]

mod guest;
#[path = "../guest_common/mod.rs"]
mod guest_common;
mod scripts;

use std::path::Path;

use guest::{Disk, Guest};
use scripts::{evaluate, layout, scripts};
use serde_json::{Value, json};
use undercroft_build::installer::cpio::Archive;
use undercroft_steps::{Ask, Table};

const GIB: u64 = 1 << 30;
/// A file that is appended to the initial ramdisk and brings ZFS for the guest's kernel: the modules,
/// programs in /tools/zfs/bin, and /test/load-zfs, which loads them.
const ZFS_VARIABLE: &str = "UNDERCROFT_TEST_ZFS";

#[tokio::test]
async fn the_installer_names_disks_as_layouts_do() {
    let disks = [
        Disk {
            device: "virtio-blk-pci,serial=UC-A",
            size_bytes: GIB,
        },
        Disk {
            device: "nvme,serial=UC-N",
            size_bytes: GIB,
        },
        // A SCSI disk's serial number isn't its name: udev's short one is the WWN here.
        Disk {
            device: "scsi-hd,serial=UC  S1,wwn=0x5002538e40f3a1b2",
            size_bytes: GIB,
        },
    ];
    let Some(mut guest) = Guest::boot(&disks, Archive::new(), None).await else {
        return;
    };
    let report = guest.agent.ok("/undercroft/inspect").await;
    let report: Value = serde_json::from_str(report.trim()).expect(&report);
    let reported = report["disks"].as_array().unwrap();
    assert_eq!(reported.len(), disks.len(), "{reported:?}");
    for disk in reported {
        let known = json!({ "serial": disk["serial"] });
        // With what the report tells, and by the serial number alone.
        for reported in [disk.to_string(), "{}".to_owned()] {
            let Some(name) = evaluate(
                "device.nix",
                &[
                    ("--argstr", "disk", &known.to_string()),
                    ("--argstr", "reported", &reported),
                ],
            ) else {
                return;
            };
            let name = name.as_str().unwrap();
            let found = guest.agent.ok(&format!("readlink -f '{name}'")).await;
            assert_eq!(found.trim(), disk["path"], "{name} of {disk}");
        }
    }
}

fn disks() -> [Disk; 4] {
    [
        Disk {
            device: "virtio-blk-pci,serial=UC-A",
            size_bytes: 6 * GIB,
        },
        Disk {
            device: "virtio-blk-pci,serial=UC-B",
            size_bytes: 6 * GIB,
        },
        Disk {
            device: "nvme,serial=UC-N",
            size_bytes: 3 * GIB,
        },
        // A disk that no layout names.
        Disk {
            device: "virtio-blk-pci,serial=UC-OLD",
            size_bytes: 6 * GIB,
        },
    ]
}

/// One partition as lsblk sees it.
async fn partitions(guest: &mut Guest, device: &str) -> Vec<Value> {
    let command = format!(
        "/tools/util-linux/bin/lsblk --json --bytes --output \
         NAME,SIZE,START,PARTTYPE,PARTLABEL,PARTUUID,FSTYPE,LABEL,MOUNTPOINT {device}"
    );
    let listed: Value = serde_json::from_str(&guest.agent.ok(&command).await).unwrap();
    listed["blockdevices"][0]["children"]
        .as_array()
        .expect("partitions")
        .clone()
}

/// A partition that a layout promises: its label, type, size in bytes and file system.
type Expected = (String, &'static str, Option<u64>, &'static str);

/// Whether the partitions of a disk are what a layout promises: sizes, alignment, types, labels.
fn assert_partitions(found: &[Value], expected: &[Expected]) {
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (partition, (label, kind, size_bytes, file_system)) in found.iter().zip(expected) {
        assert_eq!(partition["partlabel"], **label, "{partition}");
        assert_eq!(partition["parttype"], *kind, "{partition}");
        let found = partition["fstype"].as_str().unwrap_or("");
        assert_eq!(found, *file_system, "{partition}");
        if let Some(size_bytes) = size_bytes {
            assert_eq!(partition["size"], *size_bytes, "{partition}");
        }
        // lsblk counts sectors of 512 bytes.
        let start = partition["start"].as_u64().unwrap() * 512;
        assert_eq!(start % (1 << 20), 0, "{partition} isn't aligned to a MiB");
    }
}

/// What a step asks, as one line of shell.
fn shell(ask: &Ask) -> String {
    let words = ask.words().unwrap();
    let quoted = words.iter().map(|word| undercroft_ssh::quote(word));
    quoted.collect::<Vec<_>>().join(" ")
}

const ESP: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
const LINUX: &str = "0fc63daf-8483-4772-8e79-3d69d8477de4";

#[tokio::test]
async fn an_ext4_layout_is_made_and_made_again_and_nothing_else_is_touched() {
    let layouts = json!({ "ext4": layout("ext4", &["UC-A"]) });
    let Some((files, made)) = scripts(&layouts) else {
        return;
    };
    let Some(mut guest) = Guest::boot(&disks(), files, None).await else {
        return;
    };
    let mib = 1u64 << 20;
    let old = "/dev/disk/by-serial/UC-OLD";
    let agent = &mut guest.agent;
    agent.ok("/test/ext4/diskoScript").await;
    let expected = [
        ("disk-root0-ESP".to_owned(), ESP, Some(128 * mib), "vfat"),
        (
            "disk-root0-longhorn".to_owned(),
            LINUX,
            Some(2 * GIB),
            "xfs",
        ),
        ("disk-root0-root".to_owned(), LINUX, None, "ext4"),
    ];
    let found = partitions(&mut guest, "/dev/disk/by-serial/UC-A").await;
    assert_partitions(&found, &expected);
    let found = partitions(&mut guest, "/dev/disk/by-serial/UC-N").await;
    assert_partitions(
        &found,
        &[("disk-longhorn0-longhorn".to_owned(), LINUX, None, "xfs")],
    );
    // What the installed system mounts is what is mounted now, from the same devices.
    let agent = &mut guest.agent;
    for (at, file) in made["ext4"]["fileSystems"].as_object().unwrap() {
        let device = file["device"].as_str().unwrap();
        let real = agent.ok(&format!("readlink -f {device}")).await;
        let at = if at == "/" {
            "/mnt"
        } else {
            &format!("/mnt{at}")
        };
        let mounted = agent
            .ok(&format!(
                "/tools/util-linux/bin/findmnt -n -o SOURCE,FSTYPE {at}"
            ))
            .await;
        let mounted: Vec<&str> = mounted.split_whitespace().collect();
        assert_eq!(
            mounted,
            [real.trim(), file["fsType"].as_str().unwrap()],
            "{at}"
        );
    }
    let longhorn = made["ext4"]["longhornMounts"].as_array().unwrap();
    for mount in longhorn {
        let path = mount["path"].as_str().unwrap();
        assert_eq!(mount["device"], made["ext4"]["fileSystems"][path]["device"]);
    }
    let fat = agent
        .ok("blkid -p -s VERSION -s LABEL -o value /dev/disk/by-partlabel/disk-root0-ESP")
        .await;
    assert_eq!(fat.split_whitespace().collect::<Vec<_>>(), ["ESP", "FAT32"]);

    // The disk's GUID is the mark of a plan that was carried out; it is written while the disk is in
    // use.
    let guid = "6c9ee1a3-3c1e-4c5c-8f43-0d8f8f4b2f11";
    // As the step that lays disks out does it and looks at it.
    let serial = |name: &str| format!("/dev/disk/by-serial/{name}");
    let devices = vec![serial("UC-A"), serial("UC-OLD")];
    let named = Ask::NameTables {
        tables: vec![Table {
            device: serial("UC-A"),
            guid: guid.parse().unwrap(),
        }],
    };
    agent.ok(&shell(&named)).await;
    let look = shell(&Ask::Tables { devices });
    assert_eq!(agent.ok(&look).await, format!("{guid}\nnone\nmounted\n"));

    // Formatting alone keeps what is there, and mounts it.
    agent
        .ok("for at in /mnt /mnt/boot /mnt/var/lib/longhorn; do echo 1 >$at/kept; done; sync")
        .await;
    agent.ok("/undercroft/finish").await;
    let unmounted = format!("{guid}\nnone\nunmounted\n");
    assert_eq!(agent.ok(&look).await, unmounted);
    agent.ok("/test/ext4/formatScript").await;
    agent.ok("/test/ext4/mountScript").await;
    agent
        .ok("cat /mnt/kept /mnt/boot/kept /mnt/var/lib/longhorn/kept")
        .await;

    // An installation wipes it, while it is mounted.
    agent.ok("/test/ext4/diskoScript").await;
    agent
        .ok("! ls /mnt/kept || ! ls /mnt/boot/kept || ! ls /mnt/var/lib/longhorn/kept")
        .await;

    // A disk whose table alone was taken away shows its old file systems again under the new one.
    agent
        .ok("for at in /mnt /mnt/boot /mnt/var/lib/longhorn; do echo 1 >$at/kept; done; sync")
        .await;
    agent.ok("/undercroft/finish").await;
    agent
        .ok("sgdisk --zap-all /dev/disk/by-serial/UC-A && /test/settle")
        .await;
    agent.ok("/test/ext4/diskoScript").await;
    let kept = "ls /mnt/kept /mnt/boot/kept /mnt/var/lib/longhorn/kept 2>/dev/null";
    let (_, left) = agent.run(kept).await;
    assert_eq!(left, "", "an earlier file system was taken for the new one");

    // So it does with a member of a RAID, which is running.
    agent.ok("/undercroft/finish").await;
    agent
        .ok("insmod /test/md-mod.ko && insmod /test/raid1.ko")
        .await;
    agent
        .ok(
            "/tools/mdadm/bin/mdadm --create /dev/md0 --run --level=1 --metadata=1.2 \
             --raid-devices=2 /dev/disk/by-partlabel/disk-root0-root missing",
        )
        .await;
    agent.ok("/test/ext4/diskoScript").await;
    agent.ok("! grep -q active /proc/mdstat").await;
    let found = partitions(&mut guest, "/dev/disk/by-serial/UC-A").await;
    assert_partitions(&found, &expected);

    // A copy of the disk has partitions of the same labels and GUIDs. Whichever of the two the links
    // lead to, the copy stays as it is.
    let agent = &mut guest.agent;
    agent.ok("/undercroft/finish").await;
    agent
        .ok(&format!(
            "sgdisk --replicate=$(readlink -f {old}) /dev/disk/by-serial/UC-A && /test/settle"
        ))
        .await;
    agent
        .ok(&format!(
            "mkfs.ext4 -q -F $(readlink -f {old})3 && /test/settle"
        ))
        .await;
    // The table, and where the file system keeps its own.
    let sum = format!("(head -c 8M {old}; head -c 8M $(readlink -f {old})3) | sha256sum");
    let before = agent.ok(&sum).await;
    let (code, said) = agent.run("/test/ext4/diskoScript 2>&1").await;
    assert_eq!(
        agent.ok(&sum).await,
        before,
        "the copy was written to:\n{said}"
    );
    assert!(
        code == 0 || said.contains("another disk is a copy of it"),
        "{said}"
    );
}

/// What a mirror's disks have, but for the size of the pool's part.
fn mirrored(place: usize, pool: &'static str) -> Vec<Expected> {
    let esp = Some(128 << 20);
    let mut expected = vec![(format!("disk-root{place}-ESP"), ESP, esp, "vfat")];
    if place == 0 {
        expected.push((
            format!("disk-root{place}-longhorn"),
            LINUX,
            Some(2 * GIB),
            "xfs",
        ));
    }
    expected.push((format!("disk-root{place}-root"), LINUX, None, pool));
    expected
}

/// Where there is no ZFS, all but the pool is made for real, and what would make the pool is read.
#[tokio::test]
async fn a_mirror_has_a_boot_partition_on_each_disk_and_asks_for_its_pool() {
    let layouts = json!({ "mirror": layout("zfs-mirror", &["UC-A", "UC-B"]) });
    let Some((files, made)) = scripts(&layouts) else {
        return;
    };
    let Some(mut guest) = Guest::boot(&disks(), files, None).await else {
        return;
    };
    guest.agent.ok("/test/mirror/destroyScript").await;
    guest.agent.ok("/test/mirror/formatScript").await;
    for (place, serial) in ["UC-A", "UC-B"].into_iter().enumerate() {
        let device = format!("/dev/disk/by-serial/{serial}");
        let found = partitions(&mut guest, &device).await;
        // Nobody made a pool: its part has no file system.
        assert_partitions(&found, &mirrored(place, ""));
        let path = if place == 0 { "/boot" } else { "/boot-2" };
        let esp = &made["mirror"]["fileSystems"][path];
        let device = esp["device"].as_str().unwrap();
        let options = esp["options"].as_array().unwrap();
        let options: Vec<&str> = options.iter().map(|o| o.as_str().unwrap()).collect();
        // Either disk may be gone, and the machine boots from the other.
        assert!(options.contains(&"nofail"), "{path}: {options:?}");
        let agent = &mut guest.agent;
        agent
            .ok(&format!("mount -t vfat {device} /mnt && umount /mnt"))
            .await;
    }
    let calls = guest.agent.ok("cat /run/zfs.calls").await;
    insta::assert_snapshot!(calls.trim());
}

/// With ZFS itself, where somebody brings it for the guest's kernel.
#[tokio::test]
async fn pools_are_made_anew_and_one_elsewhere_is_never_taken() {
    let Some(zfs) = std::env::var_os(ZFS_VARIABLE) else {
        undercroft_testkit::skip(format!(
            "{ZFS_VARIABLE} names no ZFS for the guest's kernel"
        ));
        return;
    };
    let layouts = json!({
        "mirror": layout("zfs-mirror", &["UC-A", "UC-B"]),
        "encrypted": layout("zfs-encrypted", &["UC-A"]),
    });
    let Some((files, made)) = scripts(&layouts) else {
        return;
    };
    let Some(mut guest) = Guest::boot(&disks(), files, Some(Path::new(&zfs))).await else {
        return;
    };
    let agent = &mut guest.agent;
    agent.ok("/test/load-zfs").await;
    agent.ok("/test/mirror/diskoScript").await;
    for (place, serial) in ["UC-A", "UC-B"].into_iter().enumerate() {
        let device = format!("/dev/disk/by-serial/{serial}");
        let found = partitions(&mut guest, &device).await;
        assert_partitions(&found, &mirrored(place, "zfs_member"));
    }
    let agent = &mut guest.agent;
    for at in made["mirror"]["fileSystems"].as_object().unwrap().keys() {
        let at = format!("/mnt{}", at.trim_end_matches('/'));
        agent.ok(&format!("grep -q ' {at} ' /proc/mounts")).await;
    }
    let zfs = "PATH=/tools/zfs/bin:$PATH;";
    let said = agent.ok(&format!("{zfs} zpool status zroot")).await;
    assert!(
        said.contains("mirror-0") && said.contains("No known data errors"),
        "{said}"
    );
    let said = agent
        .ok(&format!(
            "{zfs} zpool get -H -o value ashift,autotrim zroot; \
             zfs get -H -o value compression,acltype,mountpoint,canmount zroot; \
             zfs get -H -o value mountpoint zroot/root; zfs get -H -o value refreservation zroot/reserved"
        ))
        .await;
    let said: Vec<&str> = said.split_whitespace().collect();
    let expected = ["12", "on", "zstd", "posix", "none", "off", "legacy", "1G"];
    assert_eq!(said, expected);

    // Let go of as after an installation, and mounted again with what is in it.
    let finish = format!("{zfs} /undercroft/finish");
    agent.ok("echo 1 >/mnt/var/kept").await;
    agent.ok(&finish).await;
    agent.ok("/test/mirror/formatScript").await;
    agent.ok("/test/mirror/mountScript").await;
    agent.ok("cat /mnt/var/kept").await;
    // Made anew while it is in use, and after a table that was taken away.
    agent.ok("/test/mirror/diskoScript").await;
    agent.ok("! cat /mnt/var/kept").await;
    agent.ok("echo 1 >/mnt/var/kept").await;
    agent.ok(&finish).await;
    agent
        .ok("for disk in A B; do sgdisk --zap-all /dev/disk/by-serial/UC-$disk; done; /test/settle")
        .await;
    agent.ok("/test/mirror/diskoScript").await;
    agent.ok("! cat /mnt/var/kept").await;
    agent.ok(&finish).await;

    // A pool of the same name on a disk that isn't of the layout. disko itself clears that pool's label
    // where it finds its name on a disk that it wipes, so there is none.
    agent
        .ok(&format!(
            "{zfs} for disk in 0 1; do \
             zpool labelclear -f $(readlink -f /dev/disk/by-partlabel/disk-root$disk-root) || exit; \
             done; /test/settle"
        ))
        .await;
    let elsewhere = "zpool create -f -m none zroot $(readlink -f /dev/disk/by-serial/UC-OLD) && zpool export zroot";
    agent
        .ok(&format!("{zfs} {elsewhere} && /test/settle"))
        .await;
    let (code, said) = agent.run("/test/encrypted/diskoScript 2>&1").await;
    assert!(
        code != 0 && said.contains("isn't of this layout"),
        "exit {code}: {said}"
    );
    agent
        .ok(&format!(
            "{zfs} zpool import -N zroot && zpool destroy zroot && wipefs -q -a $(readlink -f /dev/disk/by-serial/UC-OLD)1 && wipefs -q -a /dev/disk/by-serial/UC-OLD && /test/settle"
        ))
        .await;
    agent
        .ok("mkdir -p /run/undercroft && printf 0123456789abcdef >/run/undercroft/disk.key")
        .await;
    agent.ok("/test/encrypted/diskoScript").await;
    let said = agent
        .ok(&format!(
            "{zfs} zfs get -H -o value encryption,keyformat,keylocation,keystatus zroot zroot/root"
        ))
        .await;
    let said: Vec<&str> = said.split_whitespace().collect();
    // A dataset has its parent's key.
    let dataset = ["aes-256-gcm", "passphrase", "none", "available"];
    let pool = ["aes-256-gcm", "passphrase", "prompt", "available"];
    assert_eq!(said, [pool, dataset].concat());
}
