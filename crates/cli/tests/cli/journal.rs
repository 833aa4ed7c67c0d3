//! Commands that read the journal, on one that a controller has written.

use undercroft_journal::{FleetJournal, PendingReport, Store};
use undercroft_model::{
    Evidence, Failure, FailureKind, InstallerReport, NodeName, Observation, OpId, Outcome, Plan,
    Record, ReportedFirmware, RunEnd, StepId, System, SystemTarget, Work, inventory,
};

use crate::support::Sandbox;

const FINGERPRINT: &str = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU";

pub(crate) fn report() -> InstallerReport {
    InstallerReport {
        version: 1,
        nonce: "00112233445566778899aabbccddeeff".to_owned(),
        uuid: None,
        macs: vec!["52:54:00:88:00:11".parse().unwrap()],
        address: "10.88.0.11".parse().unwrap(),
        boot_id: "5a1c3a54-5b2c-4c0e-9c71-000000000001".to_owned(),
        host_key: "ssh-ed25519 AAAA".to_owned(),
        fingerprint: FINGERPRINT.to_owned(),
        system: System::X86_64Linux,
        firmware: ReportedFirmware::Uefi,
        memory_mb: 1024,
        installer: "undercroft-installer 0.1.0".to_owned(),
        token: None,
        disks: Vec::new(),
    }
}

fn node() -> NodeName {
    NodeName::new("vm-01").unwrap()
}

pub(crate) fn waiting(sandbox: &Sandbox) {
    Store::create(&sandbox.dir().join(".undercroft"), "demo")
        .unwrap()
        .set_pending(&node(), &[PendingReport::new(node(), report(), 1)])
        .unwrap();
}

pub(crate) fn plan(sandbox: &Sandbox) -> Plan {
    let text = std::fs::read(sandbox.dir().join("undercroft.toml")).unwrap();
    let inventory = inventory::parse("", &text).inventory.unwrap();
    let target = SystemTarget {
        toplevel: "/nix/store/00000000000000000000000000000000-system".to_owned(),
        disko_script: None,
        disko_mount_script: None,
        disko_devices: None,
        system: System::X86_64Linux,
        closure_bytes: None,
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

/// A journal of a run in which vm-01 was seen and vm-02 failed.
pub(crate) fn history(sandbox: &Sandbox) {
    let plan = plan(sandbox);
    let state = sandbox.dir().join(".undercroft");
    let mut journal = FleetJournal::open(&state, "demo", "undercroft up").unwrap();
    let first = |name: &str| plan.nodes[&NodeName::new(name).unwrap()].steps[0];
    let started = |op: u64, step: StepId| Record::OpStarted {
        op: OpId(op),
        step,
        work: Work::Act,
        attempt: 1,
    };
    let failure =
        Failure::new(FailureKind::Permanent, "it has no network card").with_hint("Put one in.");
    let records = vec![
        Record::PlanAccepted {
            plan: std::sync::Arc::new(plan.clone()),
        },
        Record::RunStarted {
            plan: plan.id.clone(),
            undercroft: "0.1.0".to_owned(),
        },
        started(0, first("vm-01")),
        started(1, first("vm-02")),
        Record::OpEnded {
            op: OpId(0),
            step: first("vm-01"),
            outcome: Outcome::Done {
                evidence: Evidence::Seen {
                    report: Box::new(report()),
                },
            },
        },
        Record::OpEnded {
            op: OpId(1),
            step: first("vm-02"),
            outcome: Outcome::Failed {
                failure: failure.clone(),
            },
        },
        Record::NodeFailed {
            node: NodeName::new("vm-02").unwrap(),
            step: first("vm-02"),
            failure,
        },
        Record::RunEnded {
            end: RunEnd::Interrupted,
        },
    ];
    journal.append_records(1_767_225_600_000, records).unwrap();
}

#[test]
fn status_and_events_tell_what_the_journal_says() {
    let sandbox = Sandbox::rack();
    history(&sandbox);
    let status = sandbox.run(["status"]);
    let text = status.text();
    let ago = text.find(": the last run ended ").unwrap();
    let end = ago + text.get(ago..).unwrap().find('\n').unwrap();
    let head = text.split("head ").nth(1).unwrap();
    let head = head.get(..16).unwrap();
    insta::assert_snapshot!(
        "status",
        text.replace(text.get(ago..end).unwrap(), ": the last run ended [ago]")
            .replace(head, "[head]")
    );
    let json: serde_json::Value =
        serde_json::from_str(&sandbox.run(["status", "--json"]).out).unwrap();
    assert_eq!(json["nodes"]["vm-01"]["state"], "seen");
    assert_eq!(json["nodes"]["vm-02"]["status"], "failed");
    assert_eq!(json["run"]["end"], "interrupted");
    // The same head in all places, whole where a program reads it.
    let whole: serde_json::Value =
        serde_json::from_str(&sandbox.run(["journal", "--json"]).out).unwrap();
    let of_status = serde_json::json!({ "entries": whole["entries"], "head": whole["head"] });
    assert_eq!(json["journal"], of_status);
    assert!(whole["head"].as_str().unwrap().starts_with(head));

    let plan = plan(&sandbox).id.0;
    let events = sandbox
        .run(["events"])
        .text()
        .replace(plan.get(..10).unwrap(), "[plan]");
    // The first record is written when the journal is made: its time is now.
    let events = events
        .lines()
        .filter(|line| !line.contains("the journal of"))
        .collect::<Vec<_>>();
    insta::assert_snapshot!("events", events.join("\n"));
    let of_one = sandbox.run(["events", "--node", "vm-02", "--json"]);
    let records: Vec<serde_json::Value> = of_one
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(records.len(), 3, "{}", of_one.out);
    assert!(
        records
            .iter()
            .all(|r| r["seq"].is_u64() && r["wall_ms"].is_u64())
    );
    let late = sandbox.run([
        "events",
        "--since",
        &records[2]["seq"].to_string(),
        "--json",
    ]);
    assert_eq!(late.out.lines().count(), 2, "{}", late.out);
}

#[test]
fn a_fingerprint_is_approved_only_if_it_is_the_one_that_waits() {
    let sandbox = Sandbox::rack();
    waiting(&sandbox);
    let listed: serde_json::Value =
        serde_json::from_str(&sandbox.run(["approve", "--json"]).out).unwrap();
    assert_eq!(listed["waiting"][0]["node"], "vm-01");
    assert_eq!(listed["waiting"][0]["report"]["fingerprint"], FINGERPRINT);
    insta::assert_snapshot!(
        "approve_another_fingerprint",
        sandbox.run(["approve", "vm-01", "SHA256:another"]).text()
    );
    insta::assert_snapshot!(
        "approve_another_node",
        sandbox.run(["approve", "vm-02", FINGERPRINT]).text()
    );
    insta::assert_snapshot!(
        "approve_unattended",
        sandbox.run(["approve", "vm-01"]).text()
    );
    let done = sandbox.finish(
        sandbox
            .command(["approve", "vm-01", FINGERPRINT])
            .env("USER", "ada"),
    );
    insta::assert_snapshot!("approve_done", done.text());
    let store = Store::open(&sandbox.dir().join(".undercroft"), Some("demo")).unwrap();
    let now = undercroft_process::clock::wall_ms_now();
    let approval = store.approval(&node(), FINGERPRINT, now).unwrap().unwrap();
    assert_eq!(approval.by, "operator ada");
}

#[test]
fn a_journal_of_another_fleet_is_refused() {
    let sandbox = Sandbox::rack();
    drop(Store::create(&sandbox.dir().join(".undercroft"), "attic").unwrap());
    let ran = sandbox.run(["status"]);
    insta::assert_snapshot!("journal_of_another_fleet", ran.text());
    assert_eq!(ran.code, 65);
}

#[test]
fn a_running_controller_is_named() {
    let sandbox = Sandbox::rack();
    history(&sandbox);
    let state = sandbox.dir().join(".undercroft");
    let running = FleetJournal::open(&state, "demo", "undercroft up").unwrap();
    let status = sandbox.run(["status"]);
    let expected = format!("undercroft up is running (process {})", std::process::id());
    assert!(status.out.contains(&expected), "{}", status.out);
    drop(running);
    assert!(!sandbox.run(["status"]).out.contains("is running"));
}

/// Cuts the last entries off, as an older copy of the database alone would.
fn cut(sandbox: &Sandbox, entries: u64) {
    let file = sandbox.dir().join(".undercroft/journal.db");
    let connection = rusqlite::Connection::open(file).unwrap();
    connection
        .execute_batch(&format!(
            "DELETE FROM entries WHERE seq > (SELECT MAX(seq) FROM entries) - {entries}"
        ))
        .unwrap();
}

#[test]
fn a_journal_that_was_cut_is_refused_by_every_command_until_it_is_accepted() {
    for entries in [1, 3] {
        let sandbox = Sandbox::rack();
        history(&sandbox);
        let before = sandbox.run(["journal", "--json"]).out;
        cut(&sandbox, entries);
        let commands: [&[&str]; 9] = [
            &["status"],
            &["status", "--json"],
            &["events"],
            &["journal"],
            &["approve", "vm-01"],
            &["approve", "vm-01", FINGERPRINT],
            &["doctor", "vm-01"],
            &["doctor", "vm-01", "--json"],
            &["ssh", "vm-01", "true"],
        ];
        for command in commands {
            let ran = sandbox.run(command);
            let text = ran.text();
            if command == ["ssh", "vm-01", "true"] && !text.contains("journal") {
                // It asks nothing of the journal of a machine that has no key.
                continue;
            }
            assert_eq!(ran.code, 65, "{command:?}: {text}");
            assert_eq!(ran.out, "", "{command:?}");
            assert!(
                text.contains("the last ones were cut off"),
                "{command:?}: {text}"
            );
            assert!(
                text.contains("undercroft journal --accept"),
                "{command:?}: {text}"
            );
        }
        // Nobody at a terminal says yes by being silent.
        let asked = sandbox.run(["journal", "--accept"]);
        assert_ne!(asked.code, 0, "{}", asked.text());
        let accepted = sandbox.run(["journal", "--accept", "--yes", "--json"]);
        assert_eq!(accepted.code, 0, "{}", accepted.text());
        let count = |json: &str| {
            let value: serde_json::Value = serde_json::from_str(json).unwrap();
            value["entries"].as_u64().unwrap()
        };
        assert_eq!(count(&accepted.out) + entries, count(&before));
        assert_eq!(sandbox.run(["status"]).code, 0);
    }
}

/// What `doctor` and `approve` say of a machine at the same moment.
#[test]
fn doctor_and_approve_say_the_same() {
    type Prepare = fn(&Sandbox);
    let states: [(&str, Prepare); 4] = [
        ("nothing was ever seen", |_| {}),
        ("it waits", waiting),
        ("a run has ended", history),
        ("a run has ended, and it waits", |sandbox| {
            history(sandbox);
            waiting(sandbox);
        }),
    ];
    for (state, prepare) in states {
        let sandbox = Sandbox::rack();
        prepare(&sandbox);
        for name in ["vm-01", "vm-02", "vm-03"] {
            let what = format!("{state}: {name}");
            let listed = sandbox.run(["approve", "--json"]).out;
            let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
            let waits = listed["waiting"]
                .as_array()
                .unwrap()
                .iter()
                .any(|w| w["node"] == name);
            let doctor = sandbox.run(["doctor", name, "--json"]).out;
            let doctor: serde_json::Value = serde_json::from_str(&doctor).unwrap();
            let verdict = doctor["verdict"].as_str().unwrap();
            let next: Vec<&str> = doctor["next"]
                .as_array()
                .unwrap()
                .iter()
                .map(|next| next.as_str().unwrap())
                .collect();
            assert!(!next.is_empty(), "{what}");
            let advised = next.iter().any(|next| next.contains("undercroft approve"));
            assert_eq!(advised, waits, "{what}: {next:?}");
            assert_eq!(
                verdict.contains("waits for approval"),
                waits,
                "{what}: {verdict}"
            );
            let approve = sandbox.run(["approve", name, "SHA256:another"]);
            assert_eq!(approve.code, 1, "{what}");
            if waits {
                assert!(approve.err.contains(FINGERPRINT), "{what}: {}", approve.err);
            } else {
                assert!(
                    approve.err.contains("isn't waiting"),
                    "{what}: {}",
                    approve.err
                );
                // The same verdict, and every step that `doctor` names.
                let flat = approve.err.split_whitespace().collect::<Vec<_>>().join(" ");
                assert!(flat.contains(verdict), "{what}: {flat}");
                for next in &next {
                    assert!(flat.contains(next), "{what}: {flat}");
                }
            }
            let text = sandbox.run(["doctor", name]).out;
            assert_eq!(text.matches("next:").count(), next.len(), "{what}: {text}");
            assert!(text.contains(verdict), "{what}: {text}");
        }
    }
}

#[test]
fn only_one_controller_at_a_time() {
    let sandbox = Sandbox::new();
    sandbox.run(["init", "--fleet", "demo"]);
    let state = sandbox.dir().join(".undercroft");
    let _running = FleetJournal::open(&state, "demo", "undercroft up").unwrap();
    for command in ["up", "serve"] {
        let ran = sandbox.run([command, "--yes"]);
        let text = ran.text().replace(&std::process::id().to_string(), "[pid]");
        insta::assert_snapshot!(format!("second_{command}"), text);
    }
}

#[test]
fn what_up_refuses_before_it_begins() {
    let sandbox = Sandbox::rack();
    insta::assert_snapshot!("up_without_a_rack", sandbox.run(["up", "--yes"]).text());
    for (name, args) in [
        ("unknown_node", &["--only", "vm-01,vm-09"][..]),
        (
            "reinstall_left_out",
            &["--only", "vm-01", "--reinstall", "vm-02"],
        ),
        (
            "store_paths_of_many",
            &["--store-paths", "-", "/nix/store/x"],
        ),
        (
            "store_paths_of_unnamed_disks",
            &[
                "--only",
                "vm-01",
                "--store-paths",
                "/nix/store/a-disko",
                "/nix/store/b-nixos",
            ],
        ),
        ("phases", &["--phases", "kexec"]),
        ("extra_files", &["--extra-files", "nowhere"]),
    ] {
        let ran = sandbox.run(["up"].iter().chain(args));
        insta::assert_snapshot!(format!("up_{name}"), ran.text());
    }
    assert!(!sandbox.dir().join(".undercroft/journal.db").exists());
}
