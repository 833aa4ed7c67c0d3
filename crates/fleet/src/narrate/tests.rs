//! The sentences, on a real plan.

use undercroft_model::{
    Approval, FailedCommand, InstallerReport, Observation, OpId, ReportedFirmware, System,
    SystemTarget, inventory,
};

use super::*;

fn plan() -> Plan {
    let text = include_str!("../../../cli/templates/rack.toml").replace("@FLEET@", "demo");
    let inventory = inventory::parse("", text.as_bytes()).inventory.unwrap();
    let target = SystemTarget {
        toplevel: "/nix/store/00000000000000000000000000000000-system".to_owned(),
        disko_script: None,
        disko_mount_script: None,
        disko_devices: None,
        system: System::X86_64Linux,
        closure_bytes: Some(101_711_872),
    };
    let names = || inventory.nodes.keys().cloned();
    let observation = Observation {
        targets: names().map(|name| (name, Ok(target.clone()))).collect(),
        host_keys: names()
            .map(|name| (name, "SHA256:final".to_owned()))
            .collect(),
        ..Observation::default()
    };
    undercroft_planner::plan(&inventory, &observation, None).0
}

fn report() -> InstallerReport {
    InstallerReport {
        version: 1,
        nonce: "00".repeat(16),
        uuid: None,
        macs: Vec::new(),
        address: "10.88.0.11".parse().unwrap(),
        boot_id: "boot-1".to_owned(),
        host_key: "ssh-ed25519 AAAA".to_owned(),
        fingerprint: "SHA256:abc\u{1b}[2J".to_owned(),
        system: System::X86_64Linux,
        firmware: ReportedFirmware::Uefi,
        memory_mb: 1024,
        installer: "test".to_owned(),
        token: None,
        disks: Vec::new(),
    }
}

/// Evidence for each state of a machine that is brought up.
fn evidence(action: &Action) -> Evidence {
    let boot_id = "boot-1".to_owned();
    match action {
        Action::NetworkBoot => Evidence::Seen {
            report: Box::new(report()),
        },
        Action::Approve { .. } => Evidence::Approved {
            approval: Approval {
                fingerprint: "SHA256:abc".to_owned(),
                by: "operator ada".to_owned(),
                granted_wall_ms: 0,
                expires_wall_ms: 1,
            },
            report: None,
        },
        Action::Inspect { .. } => Evidence::Inspected {
            boot_id,
            disk_paths: vec!["/dev/vda".to_owned()],
        },
        Action::Partition { .. } => Evidence::Partitioned {
            boot_id,
            wiped: true,
        },
        Action::CopyClosure { .. } => Evidence::Copied {
            boot_id,
            closure_bytes: 101_711_872,
        },
        Action::Install { .. } => Evidence::Installed {
            boot_id,
            default_entry: "nixos-generation-1.conf".to_owned(),
        },
        Action::Reboot { .. } => Evidence::Rebooted {
            boot_id: "boot-2".to_owned(),
        },
        Action::Prove { toplevel, .. } => Evidence::Up {
            boot_id: "boot-2".to_owned(),
            booted_system: toplevel.clone(),
            host_key_fingerprint: "SHA256:final".to_owned(),
        },
        Action::Fetch { .. } => Evidence::Fetched { boot_id },
        Action::Drain => Evidence::Drained { evicted: 3 },
        Action::Stage { .. } => Evidence::Staged {
            boot_id,
            goes_back_to: Some("/nix/store/old".to_owned()),
        },
        Action::Restart { .. } => Evidence::Restarted {
            boot_id: "boot-2".to_owned(),
        },
        Action::Confirm { toplevel, .. } => Evidence::Up {
            boot_id: "boot-2".to_owned(),
            booted_system: toplevel.clone(),
            host_key_fingerprint: "SHA256:final".to_owned(),
        },
        Action::Release => Evidence::Released {
            still_closed: false,
        },
        Action::FoundCluster | Action::JoinCluster { .. } => Evidence::Joined {
            boot_id: "boot-2".to_owned(),
            uid: "6f1c".to_owned(),
            etcd_voters: 1,
        },
        Action::AwaitReady { .. } => Evidence::Ready {
            boot_id: "boot-2".to_owned(),
            kubelet_version: "v1.34.2+k3s1".to_owned(),
        },
        Action::Bootstrap { part } => Evidence::Bootstrapped {
            part: *part,
            shown: "all of it is healthy".to_owned(),
        },
    }
}

#[test]
fn a_bring_up_reads_as_a_story() {
    let plan = plan();
    let node = plan.nodes.keys().next().unwrap().clone();
    let mut records = vec![
        Record::Opened {
            version: 1,
            fleet: "demo".to_owned(),
        },
        Record::PlanAccepted {
            plan: std::sync::Arc::new(plan.clone()),
        },
        Record::RunStarted {
            plan: plan.id.clone(),
            undercroft: "0.1.0".to_owned(),
        },
    ];
    let steps = plan.nodes[&node].steps.clone();
    for id in &steps {
        let op = OpId(u64::from(id.0));
        records.push(Record::OpStarted {
            op,
            step: *id,
            work: Work::Act,
            attempt: 1,
        });
        records.push(Record::OpEnded {
            op,
            step: *id,
            outcome: Outcome::Done {
                evidence: evidence(&plan.step(*id).unwrap().action),
            },
        });
    }
    let failure = Failure::new(FailureKind::Transient, "nobody answers at the address")
        .with_command(FailedCommand {
            command: "ssh root@10.88.0.11 true".to_owned(),
            exit_code: Some(255),
            output_tail: "Connection refused".to_owned(),
        })
        .with_hint("Look at its console.");
    let last = *steps.last().unwrap();
    let ended = |outcome| Record::OpEnded {
        op: OpId(99),
        step: last,
        outcome,
    };
    records.extend([
        Record::OpStarted {
            op: OpId(99),
            step: last,
            work: Work::Probe,
            attempt: 2,
        },
        ended(Outcome::NotDone),
        ended(Outcome::TimedOut),
        ended(Outcome::Orphaned),
        ended(Outcome::Failed {
            failure: failure.clone(),
        }),
        Record::NodeRestarted {
            node: node.clone(),
            from: steps[0],
            failure: failure.clone(),
            count: 1,
        },
        Record::NodeFailed {
            node: node.clone(),
            step: last,
            failure,
        },
        Record::Quarantined {
            node,
            report: Box::new(report()),
            reason: "its key isn't the one that was approved".to_owned(),
        },
        Record::RolloutStopped {
            failed: 2,
            failure_budget: 1,
        },
        Record::RunEnded {
            end: RunEnd::Incomplete,
        },
    ]);
    let mut narrator = Narrator::default();
    let story: Vec<String> = records
        .into_iter()
        .enumerate()
        .map(|(seq, record)| {
            let sentence = narrator.tell(&Entry {
                seq: seq as u64,
                wall_ms: 0,
                record,
            });
            assert!(
                !sentence.text.contains(['\n', '\u{1b}']),
                "{}",
                sentence.text
            );
            let line = match &sentence.node {
                Some(node) => format!("{node}: {}", sentence.text),
                None => sentence.text,
            };
            line.replace(short(&plan.id.0), "[plan]")
        })
        .collect();
    insta::assert_snapshot!("story", story.join("\n"));
}

#[test]
fn a_record_of_an_unknown_plan_is_told_all_the_same() {
    let sentence = Narrator::default().tell(&Entry {
        seq: 0,
        wall_ms: 0,
        record: Record::OpEnded {
            op: OpId(0),
            step: StepId(7),
            outcome: Outcome::NotDone,
        },
    });
    assert!(sentence.text.contains("step 7"), "{}", sentence.text);
}
