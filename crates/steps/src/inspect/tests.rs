use super::*;
use std::{collections::BTreeMap, net::Ipv4Addr};

use undercroft_model::{DiskIdentity, MacAddr, MachineUuid, ReportedFirmware, inventory::DiskRole};

fn disk(path: &str, serial: Option<&str>, size_bytes: u64) -> ReportedDisk {
    ReportedDisk {
        path: path.into(),
        serial: serial.map(str::to_owned),
        wwn: None,
        size_bytes,
        model: None,
        transport: None,
    }
}

fn planned() -> PlannedDisk {
    PlannedDisk {
        identity: DiskIdentity {
            serial: Some("S1".into()),
            wwn: None,
        },
        role: DiskRole::Root,
        size_bytes_min: 100,
        table_guid: MachineUuid([1; 16]),
    }
}

#[test]
fn the_disk_is_found_by_its_identity_and_by_nothing_else() {
    let disks = [
        disk("/dev/vda", Some("S2"), 500),
        disk("/dev/vdb", Some("S1"), 500),
    ];
    assert_eq!(find_disk(&planned(), &disks).unwrap(), "/dev/vdb");
}

#[test]
fn a_wrong_a_small_and_a_doubled_disk_are_told_apart() {
    let wrong = find_disk(&planned(), &[disk("/dev/vda", Some("S2"), 500)]).unwrap_err();
    assert_eq!(wrong.kind, FailureKind::Refused);
    insta::assert_snapshot!(wrong.message, @"no disk with serial S1 for root; the machine has /dev/vda (serial S2, 500 bytes)");
    let small = find_disk(&planned(), &[disk("/dev/vda", Some("S1"), 99)]).unwrap_err();
    assert_eq!(small.kind, FailureKind::Permanent);
    insta::assert_snapshot!(small.message, @"the root disk with serial S1 (/dev/vda) has 99 bytes, and 100 are needed");
    let twice = [
        disk("/dev/vda", Some("S1"), 500),
        disk("/dev/vdb", Some("S1"), 500),
    ];
    assert_eq!(
        find_disk(&planned(), &twice).unwrap_err().kind,
        FailureKind::Refused
    );
    assert_eq!(
        find_disk(&planned(), &[]).unwrap_err().kind,
        FailureKind::Refused
    );
}

fn node(uuid: Option<MachineUuid>, macs: Vec<MacAddr>) -> NodePlan {
    NodePlan {
        macs,
        uuid,
        address: Ipv4Addr::LOCALHOST,
        system: System::X86_64Linux,
        target: None,
        generation: 0,
        steps: Vec::new(),
        not_applicable: BTreeMap::new(),
    }
}

fn report() -> InstallerReport {
    InstallerReport {
        version: 1,
        nonce: String::new(),
        uuid: Some(MachineUuid([7; 16])),
        macs: vec![MacAddr([2, 0, 0, 0, 0, 1])],
        address: Ipv4Addr::LOCALHOST,
        boot_id: "boot".into(),
        host_key: String::new(),
        fingerprint: String::new(),
        system: System::X86_64Linux,
        firmware: ReportedFirmware::Uefi,
        memory_mb: 2048,
        installer: String::new(),
        disks: vec![disk("/dev/vda", Some("S1"), 500)],
        token: None,
    }
}

fn inspected(node: &NodePlan, found: &InstallerReport) -> Result<Evidence, Failure> {
    let disks = [planned()];
    let wanted = Wanted {
        node,
        disks: &disks,
        system: System::X86_64Linux,
        memory_mb_min: 1024,
    };
    inspect(wanted, "boot".into(), found)
}

/// It is legal in the inventory, and was refused for ever by the machine's own inspection.
#[test]
fn a_machine_that_is_known_by_its_uuid_alone_is_found() {
    let known = node(Some(MachineUuid([7; 16])), Vec::new());
    assert!(inspected(&known, &report()).is_ok());
    let other = InstallerReport {
        uuid: Some(MachineUuid([8; 16])),
        ..report()
    };
    let refused = inspected(&known, &other).unwrap_err();
    assert_eq!(refused.kind, FailureKind::Refused);
    insta::assert_snapshot!(refused.message, @"another machine answers: it names the UUID 08080808-0808-0808-0808-080808080808, not 07070707-0707-0707-0707-070707070707; it has the UUID 08080808-0808-0808-0808-080808080808 and the Ethernet addresses 02:00:00:00:00:01");
}

#[test]
fn what_is_not_as_planned_is_told_apart() {
    let known = node(None, vec![MacAddr([2, 0, 0, 0, 0, 1])]);
    let evidence = inspected(&known, &report()).unwrap();
    assert!(
        matches!(evidence, Evidence::Inspected { disk_paths, .. } if disk_paths == ["/dev/vda"])
    );
    for (found, kind) in [
        (
            InstallerReport {
                macs: vec![MacAddr([2, 0, 0, 0, 0, 9])],
                ..report()
            },
            FailureKind::Refused,
        ),
        (
            InstallerReport {
                system: System::Aarch64Linux,
                ..report()
            },
            FailureKind::Permanent,
        ),
        (
            InstallerReport {
                memory_mb: 1023,
                ..report()
            },
            FailureKind::Permanent,
        ),
        (
            InstallerReport {
                disks: Vec::new(),
                ..report()
            },
            FailureKind::Refused,
        ),
    ] {
        assert_eq!(
            inspected(&known, &found).unwrap_err().kind,
            kind,
            "{found:?}"
        );
    }
}
