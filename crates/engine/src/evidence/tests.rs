//! A table for every arm of what refutes evidence.

use std::{collections::BTreeMap, net::Ipv4Addr};

use undercroft_model::{
    ApprovalMode, BootstrapPart, CLOCK_BACK_MS_MAX, DiskIdentity, InstallerReport, MacAddr,
    MachineUuid, NodeName, NodeState, PlannedDisk, ReportedFirmware, RetryPolicy, StepId, System,
    inventory::{DiskRole, Layout},
};

use super::*;

const NOW: Now = Now {
    mono_ms: 10,
    wall_ms: 1_000_000,
};

fn mac(last: u8) -> MacAddr {
    format!("52:54:00:00:00:{last:02x}").parse().unwrap()
}

fn node(uuid: Option<u8>) -> NodePlan {
    NodePlan {
        macs: vec![mac(1), mac(2)],
        uuid: uuid.map(|byte| MachineUuid([byte; 16])),
        address: Ipv4Addr::new(10, 0, 0, 5),
        system: System::X86_64Linux,
        target: None,
        generation: 0,
        steps: vec![StepId(0)],
        not_applicable: BTreeMap::new(),
    }
}

fn step(action: Action) -> Step {
    Step {
        id: StepId(0),
        node: NodeName::new("n1").unwrap(),
        requires: NodeState::Unknown,
        reaches: NodeState::Seen,
        action,
        after: Vec::new(),
        after_settled: Vec::new(),
        resource: None,
        timeout_ms: 1000,
        retry: RetryPolicy {
            attempts_max: 3,
            backoff_ms: 1,
            backoff_ms_max: 1,
        },
        destroys: Vec::new(),
        delivers_secrets: false,
        probe_first: false,
        restart_from: None,
    }
}

fn report() -> InstallerReport {
    InstallerReport {
        version: 1,
        nonce: "0".repeat(32),
        uuid: None,
        macs: vec![mac(2)],
        address: Ipv4Addr::new(10, 0, 0, 5),
        boot_id: "installer".to_owned(),
        host_key: "ssh-ed25519 AAAA".to_owned(),
        fingerprint: "SHA256:reported".to_owned(),
        system: System::X86_64Linux,
        firmware: ReportedFirmware::Uefi,
        memory_mb: 2048,
        installer: "t".to_owned(),
        disks: Vec::new(),
        token: None,
    }
}

fn facts() -> NodeFacts {
    NodeFacts {
        report: Some(report()),
        ..NodeFacts::default()
    }
}

/// What evidence comes to: nothing against it, or the kind of the failure and a part of its words.
fn verdict(action: Action, facts: &NodeFacts, evidence: Evidence) -> Option<(FailureKind, String)> {
    let done = Outcome::Done { evidence };
    match judge(&node(None), &step(action), Work::Act, facts, done, NOW) {
        Outcome::Done { .. } => None,
        Outcome::Failed { failure } => Some((failure.kind, failure.message)),
        other => panic!("{other:?}"),
    }
}

fn is_refuted(
    action: Action,
    facts: &NodeFacts,
    evidence: Evidence,
    kind: FailureKind,
    words: &str,
) {
    let shown = format!("{action:?} {evidence:?}");
    let (found, message) = verdict(action, facts, evidence).unwrap_or_else(|| panic!("{shown}"));
    assert_eq!(found, kind, "{shown}: {message}");
    assert!(message.contains(words), "{shown}: {message}");
}

fn stands(action: Action, facts: &NodeFacts, evidence: Evidence) {
    assert_eq!(verdict(action, facts, evidence), None);
}

/// Whoever granted it, and for how long: an approval opens nothing after the plan's time.
#[test]
fn an_approval_is_good_for_no_longer_than_the_plan_says() {
    let granted = Approval {
        fingerprint: "SHA256:a".into(),
        by: "operator ada".into(),
        granted_wall_ms: 1_000_000,
        expires_wall_ms: 9_000_000,
    };
    let within = granted.clone().within(60_000);
    assert!(within.is_good_at(1_059_999));
    assert!(!within.is_good_at(1_060_000));
    assert!(!granted.clone().within(0).is_good_at(1_000_000));
    assert!(granted.is_good_at(8_999_999));
}

/// A machine may be known by its UUID alone, but not by one that its maker has put on many.
#[test]
fn a_machine_without_known_addresses_is_told_by_its_uuid() {
    let shared: MachineUuid = "03000200-0400-0500-0006-000700080009".parse().unwrap();
    let own = MachineUuid([7; 16]);
    for (planned, reported, same) in [
        (own, Some(own), true),
        (own, Some(MachineUuid([8; 16])), false),
        (own, Some(shared), false),
        (own, None, false),
        (shared, Some(shared), false),
    ] {
        let node = NodePlan {
            macs: Vec::new(),
            uuid: Some(planned),
            ..node(None)
        };
        let report = InstallerReport {
            uuid: reported,
            ..report()
        };
        assert_eq!(
            clash(&node, &report).is_none(),
            same,
            "{planned} {reported:?}"
        );
    }
}

#[test]
fn a_report_is_refuted_by_its_addresses_and_its_uuid() {
    // The plan's UUID, the report's UUID and Ethernet addresses, and whether that is a clash.
    for (planned, reported, macs, why) in [
        (None, None, vec![1], None),
        (None, None, vec![9, 2], None),
        (None, None, vec![9], Some("Ethernet")),
        (None, None, vec![], Some("Ethernet")),
        // A UUID that the plan doesn't know says nothing.
        (None, Some(7), vec![1], None),
        (None, Some(7), vec![9], Some("Ethernet")),
        (Some(7), None, vec![1], None),
        (Some(7), None, vec![9], Some("Ethernet")),
        (Some(7), Some(7), vec![9], Some("Ethernet")),
        (Some(7), Some(7), vec![1], None),
        // Its own addresses don't make up for another's UUID.
        (Some(7), Some(8), vec![1, 2], Some("UUID")),
        (Some(7), Some(8), vec![9], Some("UUID")),
    ] {
        let report = InstallerReport {
            uuid: reported.map(|byte: u8| MachineUuid([byte; 16])),
            macs: macs.iter().map(|last| mac(*last)).collect(),
            ..report()
        };
        let case = format!("{planned:?} {reported:?} {macs:?}");
        let found = clash(&node(planned), &report);
        assert_eq!(found.is_some(), why.is_some(), "{case}: {found:?}");
        if let (Some(found), Some(why)) = (found, why) {
            let found = found.to_string();
            assert!(found.contains(why), "{case}: {found}");
        }
        let seen = Outcome::Done {
            evidence: Evidence::Seen {
                report: Box::new(report),
            },
        };
        let boot = step(Action::NetworkBoot);
        let facts = NodeFacts::default();
        let judged = judge(&node(planned), &boot, Work::Act, &facts, seen, NOW);
        let refused =
            matches!(&judged, Outcome::Failed { failure } if failure.kind == FailureKind::Refused);
        assert_eq!(refused, why.is_some(), "{case}: {judged:?}");
    }
}

#[test]
fn an_approval_is_of_the_reported_fingerprint_and_still_good() {
    let approve = || Action::Approve {
        mode: ApprovalMode::Operator,
        expires_ms: 900_000,
    };
    let approved = |fingerprint: &str, granted_wall_ms, expires_wall_ms| Evidence::Approved {
        approval: Approval {
            fingerprint: fingerprint.to_owned(),
            by: "alice".to_owned(),
            granted_wall_ms,
            expires_wall_ms,
        },
        report: None,
    };
    let transient = FailureKind::Transient;
    let good = |fingerprint| approved(fingerprint, 1_000_000, 1_900_000);
    stands(approve(), &facts(), good("SHA256:reported"));
    is_refuted(
        approve(),
        &facts(),
        good("SHA256:foreign"),
        transient,
        "reported SHA256:reported",
    );
    let nobody = NodeFacts::default();
    is_refuted(
        approve(),
        &nobody,
        good("SHA256:reported"),
        transient,
        "reported nothing",
    );
    for (granted, expires, is_good) in [
        (100_000, 1_000_001, true),
        (100_000, 1_000_000, false),
        (100_000, 999_999, false),
        // The clock has gone back: a little since, or by more than clocks are corrected by.
        (1_000_000 + CLOCK_BACK_MS_MAX, 2_000_000, true),
        (1_000_001 + CLOCK_BACK_MS_MAX, 2_000_000, false),
    ] {
        let evidence = approved("SHA256:reported", granted, expires);
        let found = verdict(approve(), &facts(), evidence);
        assert_eq!(found.is_none(), is_good, "{granted} {expires}: {found:?}");
    }
}

#[test]
fn an_inspection_finds_as_many_devices_as_disks_each_its_own() {
    let disk = |serial: &str| PlannedDisk {
        identity: DiskIdentity {
            serial: Some(serial.to_owned()),
            wwn: None,
        },
        role: DiskRole::Root,
        size_bytes_min: 0,
        table_guid: MachineUuid([1; 16]),
    };
    let inspect = |disks: &[&str]| Action::Inspect {
        disks: disks.iter().map(|serial| disk(serial)).collect(),
        system: System::X86_64Linux,
        memory_mb_min: 0,
    };
    for (planned, found, words) in [
        (&["a"][..], &["/dev/sda"][..], None),
        (&["a", "b"], &["/dev/sda", "/dev/sdb"], None),
        (
            &["a", "b"],
            &["/dev/sda", "/dev/sda"],
            Some("2 disks are planned, and 1 devices"),
        ),
        (
            &["a", "b"],
            &["/dev/sda"],
            Some("2 disks are planned, and 1 devices"),
        ),
        (
            &["a"],
            &["/dev/sda", "/dev/sdb"],
            Some("1 disks are planned, and 2 devices"),
        ),
        // One more device, and two of them the same: distinct ones are as many as disks.
        (
            &["a", "b"],
            &["/dev/sda", "/dev/sdb", "/dev/sda"],
            Some("2 disks are planned, and 2"),
        ),
        (&["a"], &[], Some("1 disks are planned, and 0 devices")),
    ] {
        let evidence = Evidence::Inspected {
            boot_id: "installer".to_owned(),
            disk_paths: found.iter().map(|path| (*path).to_owned()).collect(),
        };
        match words {
            None => stands(inspect(planned), &facts(), evidence),
            Some(words) => {
                let refused = FailureKind::Refused;
                is_refuted(inspect(planned), &facts(), evidence, refused, words);
            }
        }
    }
}

/// Every step that works in the installer, with evidence of a boot.
fn of_the_installer(boot_id: &str) -> Vec<(Action, Evidence)> {
    let boot_id = || boot_id.to_owned();
    vec![
        (
            Action::Inspect {
                disks: Vec::new(),
                system: System::X86_64Linux,
                memory_mb_min: 0,
            },
            Evidence::Inspected {
                boot_id: boot_id(),
                disk_paths: Vec::new(),
            },
        ),
        (
            Action::Partition {
                disks: Vec::new(),
                layout: Layout::Ext4,
                disko_script: None,
                disko_mount_script: None,
                disko_devices: None,
            },
            Evidence::Partitioned {
                boot_id: boot_id(),
                wiped: true,
            },
        ),
        (
            Action::CopyClosure {
                toplevel: "/nix/store/a".to_owned(),
                closure_bytes: None,
            },
            Evidence::Copied {
                boot_id: boot_id(),
                closure_bytes: 1,
            },
        ),
        (
            Action::Install {
                toplevel: "/nix/store/a".to_owned(),
                host_key_fingerprint: "SHA256:own".to_owned(),
            },
            Evidence::Installed {
                boot_id: boot_id(),
                default_entry: "a.conf".to_owned(),
            },
        ),
    ]
}

#[test]
fn what_is_done_in_an_installer_is_done_in_the_boot_that_was_approved() {
    for (action, evidence) in of_the_installer("installer") {
        stands(action, &facts(), evidence);
    }
    let lost = FailureKind::PreconditionLost;
    for (action, evidence) in of_the_installer("another") {
        is_refuted(action, &facts(), evidence, lost, "installer was approved");
    }
    for (action, evidence) in of_the_installer("installer") {
        is_refuted(
            action,
            &NodeFacts::default(),
            evidence,
            lost,
            "none was approved",
        );
    }
}

#[test]
fn a_reboot_is_over_when_another_boot_answers() {
    let reboot = || Action::Reboot {
        host_key_fingerprint: "SHA256:own".to_owned(),
    };
    let rebooted = |boot_id: &str| Evidence::Rebooted {
        boot_id: boot_id.to_owned(),
    };
    stands(reboot(), &facts(), rebooted("own"));
    let transient = FailureKind::Transient;
    is_refuted(
        reboot(),
        &facts(),
        rebooted("installer"),
        transient,
        "still shows",
    );
}

#[test]
fn a_machine_is_up_under_its_key_with_its_closure_in_its_own_boot() {
    let prove = || Action::Prove {
        toplevel: "/nix/store/built".to_owned(),
        host_key_fingerprint: "SHA256:own".to_owned(),
    };
    let up = |system: &str, key: &str, boot_id: &str| Evidence::Up {
        boot_id: boot_id.to_owned(),
        booted_system: system.to_owned(),
        host_key_fingerprint: key.to_owned(),
    };
    let (built, own) = ("/nix/store/built", "SHA256:own");
    stands(prove(), &facts(), up(built, own, "own"));
    // A machine that ran already has no installer.
    stands(prove(), &NodeFacts::default(), up(built, own, "own"));
    for (evidence, kind, words) in [
        (
            up(built, "SHA256:other", "own"),
            FailureKind::Refused,
            "host key SHA256:other",
        ),
        (
            up("/nix/store/other", own, "own"),
            FailureKind::Permanent,
            "booted /nix/store/other",
        ),
        (
            up("", own, "own"),
            FailureKind::Permanent,
            "not /nix/store/built",
        ),
        (
            up(built, own, "installer"),
            FailureKind::PreconditionLost,
            "installer's boot id",
        ),
        // Whose key it isn't has nothing to say of what it runs.
        (
            up("/nix/store/other", "SHA256:other", "installer"),
            FailureKind::Refused,
            "host key",
        ),
    ] {
        is_refuted(prove(), &facts(), evidence, kind, words);
    }
}

#[test]
fn a_member_has_joined_in_its_own_boot_and_a_server_has_a_vote() {
    let joined = |boot_id: &str, etcd_voters| Evidence::Joined {
        boot_id: boot_id.to_owned(),
        uid: "1".to_owned(),
        etcd_voters,
    };
    let join = |role| Action::JoinCluster {
        role,
        replaces: false,
    };
    let transient = FailureKind::Transient;
    for server in [Action::FoundCluster, join(ClusterRole::Server)] {
        stands(server.clone(), &facts(), joined("own", 1));
        is_refuted(
            server.clone(),
            &facts(),
            joined("own", 0),
            transient,
            "no member that votes",
        );
        is_refuted(
            server,
            &facts(),
            joined("installer", 1),
            transient,
            "installer's boot id",
        );
    }
    let agent = || join(ClusterRole::Agent);
    stands(agent(), &facts(), joined("own", 0));
    is_refuted(
        agent(),
        &facts(),
        joined("installer", 0),
        transient,
        "installer's boot id",
    );
    let wanted = || Action::AwaitReady {
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        taints: Vec::new(),
    };
    let ready = |boot_id: &str| Evidence::Ready {
        boot_id: boot_id.to_owned(),
        kubelet_version: "v1".to_owned(),
    };
    stands(wanted(), &facts(), ready("own"));
    is_refuted(
        wanted(),
        &facts(),
        ready("installer"),
        transient,
        "installer's boot id",
    );
}

#[test]
fn evidence_of_another_step_proves_nothing() {
    let part = |part| Action::Bootstrap { part };
    let shown = |part| Evidence::Bootstrapped {
        part,
        shown: "well".to_owned(),
    };
    for one in BootstrapPart::ALL {
        for other in BootstrapPart::ALL {
            let found = verdict(part(one), &facts(), shown(other));
            assert_eq!(found.is_none(), one == other, "{one} {other}: {found:?}");
        }
    }
    let mut pairs = of_the_installer("installer");
    pairs.push((part(BootstrapPart::Network), shown(BootstrapPart::Network)));
    pairs.push((
        Action::NetworkBoot,
        Evidence::Seen {
            report: Box::new(report()),
        },
    ));
    let permanent = FailureKind::Permanent;
    for (a, (action, _)) in pairs.iter().enumerate() {
        for (b, (_, evidence)) in pairs.iter().enumerate() {
            if a == b {
                stands(action.clone(), &facts(), evidence.clone());
            } else {
                let (action, evidence) = (action.clone(), evidence.clone());
                is_refuted(action, &facts(), evidence, permanent, "of another step");
            }
        }
    }
}

#[test]
fn what_did_not_end_well_is_taken_for_what_it_is() {
    let judged = |work, outcome| {
        let boot = step(Action::NetworkBoot);
        match judge(&node(None), &boot, work, &facts(), outcome, NOW) {
            Outcome::Failed { failure } => Some(failure.kind),
            _ => None,
        }
    };
    // An act that says it did nothing has failed; a look that says so has found out.
    assert_eq!(
        judged(Work::Act, Outcome::NotDone),
        Some(FailureKind::Transient)
    );
    assert_eq!(judged(Work::Probe, Outcome::NotDone), None);
    for work in [Work::Act, Work::Probe] {
        assert_eq!(
            judged(work, Outcome::Orphaned),
            Some(FailureKind::Ambiguous)
        );
        assert_eq!(judged(work, Outcome::TimedOut), None);
    }
}

#[test]
fn an_approval_ends_by_either_clock() {
    let approval = Approval {
        fingerprint: "SHA256:a".to_owned(),
        by: "operator".to_owned(),
        granted_wall_ms: 1_000_000,
        expires_wall_ms: 1_900_000,
    };
    let at = |mono_ms, wall_ms| Now { mono_ms, wall_ms };
    assert!(!expired(&approval, at(10, 1_000_000), Some(10)));
    assert!(!expired(&approval, at(10, 1_899_999), Some(10)));
    assert!(expired(&approval, at(10, 1_900_000), Some(10)));
    assert!(expired(&approval, at(900_010, 1_000_500), Some(10)));
    assert!(!expired(&approval, at(900_010, 1_000_500), None));
    assert!(!expired(&approval, at(10, 950_000), Some(10)));
    assert!(expired(&approval, at(10, 900_000), Some(10)));
}
