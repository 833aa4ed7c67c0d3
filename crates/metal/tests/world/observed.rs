//! What a look at the fleet makes of an installer that still runs, or runs again: before a machine was ever
//! up it is taken up again, whatever key it shows.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::Ipv4Addr,
};

use undercroft_metal::observe::{Looking, observe};
use undercroft_model::{
    Approval, Entry, Evidence, Failure, FailureKind, Found, InstallerReport, NodeName, Observation,
    OpId, Outcome, Plan, Record, ReportedDisk, RunEnd, StepId, System, SystemTarget, Work,
    inventory::{Inventory, parse},
    view::FleetView,
};
use undercroft_planner::{NodeStatus, PlanReport, explain, plan};
use undercroft_secrets::keys::{HostKeys, IdentitySource, OperatorKey};

use crate::bench::*;

const RACK: &str = include_str!("../../../../examples/basement/undercroft.toml");

/// One machine of the example, where the bench's server is.
fn inventory() -> Inventory {
    let mut inventory = parse("undercroft.toml", RACK.as_bytes()).inventory.unwrap();
    inventory.nodes.retain(|name, _| *name == node());
    let machine = inventory.nodes.get_mut(&node()).unwrap();
    machine.address = Ipv4Addr::LOCALHOST;
    machine.min_memory_mb = None;
    inventory
}

fn targets() -> BTreeMap<NodeName, Result<SystemTarget, String>> {
    let target = SystemTarget {
        toplevel: TOPLEVEL.into(),
        disko_script: None,
        disko_mount_script: None,
        disko_devices: None,
        system: System::X86_64Linux,
        closure_bytes: None,
    };
    BTreeMap::from([(node(), Ok(target))])
}

/// What the bench's machine would report, were it the inventory's.
fn reported(bench: &Bench, inventory: &Inventory) -> InstallerReport {
    let machine = inventory.nodes.get(&node()).unwrap();
    let disks = machine.disks.iter().zip('a'..);
    InstallerReport {
        uuid: machine.uuid,
        macs: machine.macs.clone(),
        disks: disks
            .map(|(disk, letter)| ReportedDisk {
                path: format!("/dev/vd{letter}"),
                serial: disk.serial.clone(),
                wwn: disk.wwn.clone(),
                size_bytes: 4 << 40,
                model: None,
                transport: None,
            })
            .collect(),
        ..bench.report.clone()
    }
}

async fn look(bench: &Bench, inventory: &Inventory, view: &FleetView) -> (Found, Observation) {
    let seen = look_only(bench, inventory, view, None).await;
    (seen.nodes.get(&node()).unwrap().found.clone(), seen)
}

async fn look_only(
    bench: &Bench,
    inventory: &Inventory,
    view: &FleetView,
    only: Option<&BTreeSet<NodeName>>,
) -> Observation {
    let operator = OperatorKey::ensure(&bench.path("state"), "basement").unwrap();
    let source = IdentitySource {
        state_dir: bench.path("state"),
        identity_files: vec![],
        well_known: false,
    };
    let host_keys = HostKeys::open(&bench.path("secrets"), &[], source).unwrap();
    observe(Looking {
        inventory,
        only,
        adopt: &BTreeSet::new(),
        view,
        host_keys: &host_keys,
        identity: &operator.private_file,
        targets: &targets(),
    })
    .await
    .unwrap()
}

/// How far a journal has come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Past {
    /// It was planned, and nothing was ever heard of it.
    Planned,
    /// Its installer reported in, and nobody approved it.
    Seen,
    /// It was approved, and the inspection failed: its steps have ended.
    Failed,
    /// It was up once.
    WasUp,
}

pub(crate) fn journal(plan: &Plan, report: &InstallerReport, past: Past) -> FleetView {
    let step = |verb: &str| {
        let steps = plan.steps.iter();
        steps.clone().find(|s| s.action.verb() == verb).unwrap().id
    };
    let mut records = vec![
        Record::Opened {
            version: 1,
            fleet: plan.fleet.clone(),
        },
        Record::PlanAccepted {
            plan: std::sync::Arc::new(plan.clone()),
        },
        Record::RunStarted {
            plan: plan.id.clone(),
            undercroft: "test".to_owned(),
        },
    ];
    let mut op = 0;
    let mut done = |records: &mut Vec<Record>, step: StepId, outcome: Outcome| {
        op += 1;
        records.push(Record::OpStarted {
            op: OpId(op),
            step,
            work: Work::Act,
            attempt: 1,
        });
        records.push(Record::OpEnded {
            op: OpId(op),
            step,
            outcome,
        });
    };
    if past != Past::Planned {
        let evidence = Evidence::Seen {
            report: Box::new(report.clone()),
        };
        done(
            &mut records,
            step("network-boot"),
            Outcome::Done { evidence },
        );
    }
    if matches!(past, Past::Failed | Past::WasUp) {
        let evidence = Evidence::Approved {
            approval: Approval {
                fingerprint: report.fingerprint.clone(),
                by: "operator test".into(),
                granted_wall_ms: 0,
                expires_wall_ms: u64::MAX,
            },
            report: None,
        };
        done(&mut records, step("approve"), Outcome::Done { evidence });
    }
    match past {
        Past::Failed => {
            let failure = Failure::new(FailureKind::Refused, "no disk with serial S1");
            let outcome = Outcome::Failed {
                failure: failure.clone(),
            };
            done(&mut records, step("inspect"), outcome);
            records.push(Record::NodeFailed {
                node: node(),
                step: step("inspect"),
                failure,
            });
        }
        Past::WasUp => {
            let evidence = Evidence::Up {
                boot_id: "a-boot".to_owned(),
                booted_system: TOPLEVEL.to_owned(),
                host_key_fingerprint: "SHA256:final".to_owned(),
            };
            done(&mut records, step("prove"), Outcome::Done { evidence });
        }
        Past::Planned | Past::Seen => {}
    }
    records.push(Record::RunEnded {
        end: RunEnd::Incomplete,
    });
    let entries: Vec<Entry> = (0..)
        .zip(records)
        .map(|(seq, record)| Entry {
            seq,
            wall_ms: seq,
            record,
        })
        .collect();
    FleetView::fold(&entries)
}

fn judged(inventory: &Inventory, observation: &Observation) -> (Plan, PlanReport) {
    let (plan, report) = plan(inventory, observation, None);
    assert_eq!(undercroft_planner::check(&plan), []);
    (plan, report)
}

#[tokio::test]
async fn a_machine_that_never_was_up_is_planned_again_and_not_quarantined() {
    if !inside("observed::a_machine_that_never_was_up_is_planned_again_and_not_quarantined") {
        return;
    }
    let bench = Bench::new();
    let inventory = inventory();
    let own = reported(&bench, &inventory);
    let mut observation = Observation {
        targets: targets(),
        ..Observation::default()
    };
    let final_key = bench.final_key.fingerprint();
    observation.host_keys.insert(node(), final_key);
    let (first, _) = judged(&inventory, &observation);

    // The key and the boot that the journal knows may be those of the installer that runs, or those of one
    // before it: it was restarted in the meantime, and what runs has not reported in yet.
    let mut earlier = own.clone();
    let key = keygen(&bench.path("earlier"));
    earlier.boot_id = "an-earlier-boot".to_owned();
    earlier.host_key = key.to_string();
    earlier.fingerprint = key.fingerprint();
    let mut same_key = own.clone();
    same_key.boot_id = "an-earlier-boot".to_owned();
    for (known, which) in [
        (&own, "own"),
        (&earlier, "earlier"),
        (&same_key, "same key"),
    ] {
        for past in [Past::Planned, Past::Seen, Past::Failed] {
            let case = format!("{which} {past:?}");
            let view = journal(&first, known, past);
            let (found, observation) = look(&bench, &inventory, &view).await;
            let (plan, report) = judged(&inventory, &observation);
            let status = &report.nodes.get(&node()).unwrap().status;
            assert_eq!(*status, NodeStatus::Install, "{case}: {found:?}");
            assert!(!plan.is_empty(), "{case}");
            let known_to_run = past != Past::Planned && which != "earlier";
            assert_eq!(
                matches!(found, Found::Installer { .. }),
                known_to_run,
                "{case}: {found:?}"
            );
            // What runs is looked at before it is booted anew; who was approved isn't believed for it.
            assert_eq!(
                plan.steps.first().unwrap().probe_first,
                known_to_run,
                "{case}"
            );
            assert!(
                plan.steps
                    .iter()
                    .any(|step| step.action.verb() == "approve"),
                "{case}"
            );
        }
    }

    // A machine that was up is another matter: what shows a key there may be anybody, and its disks hold
    // something. It is left alone, and a person learns what to do.
    let view = journal(&first, &earlier, Past::WasUp);
    // Nobody connects to a machine that wasn't asked for.
    let nobody = BTreeSet::new();
    let seen = look_only(&bench, &inventory, &view, Some(&nobody)).await;
    assert!(seen.nodes.is_empty() && seen.host_keys.contains_key(&node()));
    let (found, observation) = look(&bench, &inventory, &view).await;
    assert!(matches!(found, Found::ForeignHostKey { .. }), "{found:?}");
    let (plan, report) = judged(&inventory, &observation);
    assert!(matches!(
        report.nodes.get(&node()).unwrap().status,
        NodeStatus::Quarantined { .. }
    ));
    let text = explain(&plan, &report);
    assert!(text.contains(&bench.report.fingerprint), "{text}");
    assert!(text.contains("next: find out what it is"), "{text}");
    // Its own installer, which was approved, is no stranger there either.
    let view = journal(&first, &own, Past::WasUp);
    let (found, _) = look(&bench, &inventory, &view).await;
    assert!(matches!(found, Found::Installer { .. }), "{found:?}");
    // Nobody was let in by all this looking but by keys that were approved.
    assert!(!fs::exists(bench.path("asked")).unwrap());
}
