//! What machines, networks and files say of themselves never steers the terminal that shows it.

use undercroft_journal::{FleetJournal, PendingReport, Store, TimelineRow, TimelineSource};
use undercroft_model::{
    FailedCommand, Failure, FailureKind, NodeName, OpId, Outcome, Record, ReportedDisk, StepId,
    Work, text::is_unseen,
};

use crate::{
    cli::journal::{plan, report},
    support::Sandbox,
};

/// A cursor that moves, a title, colours that hide, overrides and isolates, what has no width, separators,
/// tags, C1 and DEL.
const HOSTILE: &str = "A\u{1b}[2J\u{1b}]0;owned\u{7}\u{1b}[8m\u{9b}31m\u{7f}\u{202e}\u{2066}\u{2069}\u{200b}\u{2028}\u{2029}\u{feff}\u{e0041}\u{61c}\r\u{8}Z";
/// All that the command's own styles write.
const OURS: [&str; 7] = ["0", "1", "2", "31", "32", "33", "36"];

pub(crate) fn assert_fit(what: &str, text: &str, coloured: bool) {
    let mut text = text.to_owned();
    if coloured {
        for code in OURS {
            text = text.replace(&format!("\u{1b}[{code}m"), "");
        }
    }
    let bad: Vec<char> = text
        .chars()
        .filter(|c| *c != '\n' && is_unseen(*c))
        .collect();
    assert!(bad.is_empty(), "{what}: {bad:?} in\n{text:?}");
}

/// A journal, a timeline and a waiting report that are full of it.
fn hostile_history(sandbox: &Sandbox) {
    let plan = plan(sandbox);
    let state = sandbox.dir().join(".undercroft");
    let mut report = report();
    report.boot_id = HOSTILE.to_owned();
    report.installer = HOSTILE.to_owned();
    report.disks = vec![ReportedDisk {
        path: format!("/dev/{HOSTILE}"),
        serial: Some(HOSTILE.to_owned()),
        wwn: Some(HOSTILE.to_owned()),
        size_bytes: 1,
        model: Some(HOSTILE.to_owned()),
        transport: Some(HOSTILE.to_owned()),
    }];
    let name = |name: &str| NodeName::new(name).unwrap();
    let first = |node: &str| plan.nodes[&name(node)].steps[0];
    let started = |op: u64, step: StepId| Record::OpStarted {
        op: OpId(op),
        step,
        work: Work::Act,
        attempt: 1,
    };
    let failure = Failure::new(FailureKind::Permanent, format!("it said {HOSTILE}"))
        .with_hint(HOSTILE)
        .with_command(FailedCommand {
            command: HOSTILE.to_owned(),
            exit_code: Some(1),
            output_tail: format!("{HOSTILE}\n{HOSTILE}"),
        });
    report.fingerprint = HOSTILE.to_owned();
    let mut journal = FleetJournal::open(&state, "demo", "undercroft up").unwrap();
    journal
        .append_records(
            1_767_225_600_000,
            vec![
                Record::PlanAccepted {
                    plan: std::sync::Arc::new(plan.clone()),
                },
                Record::RunStarted {
                    plan: plan.id.clone(),
                    undercroft: HOSTILE.to_owned(),
                },
                started(0, first("vm-01")),
                started(1, first("vm-02")),
                Record::OpEnded {
                    op: OpId(1),
                    step: first("vm-02"),
                    outcome: Outcome::Failed {
                        failure: failure.clone(),
                    },
                },
                Record::NodeFailed {
                    node: name("vm-02"),
                    step: first("vm-02"),
                    failure,
                },
                Record::Quarantined {
                    node: name("vm-03"),
                    report: Box::new(report.clone()),
                    reason: HOSTILE.to_owned(),
                },
            ],
        )
        .unwrap();
    let store = journal.store();
    for node in ["vm-01", "vm-02"] {
        for source in [TimelineSource::Dhcp, TimelineSource::Ssh] {
            let row = TimelineRow::new(2, source, format!("DISCOVER from {HOSTILE}"));
            store.note(&name(node), &row).unwrap();
        }
    }
    Store::create(&state, "demo")
        .unwrap()
        .set_pending(
            &name("vm-01"),
            &[PendingReport::new(name("vm-01"), report, 1)],
        )
        .unwrap();
}

#[test]
fn no_machine_steers_the_terminal_by_any_command() {
    let sandbox = Sandbox::rack();
    hostile_history(&sandbox);
    let commands: [&[&str]; 8] = [
        &["status"],
        &["events"],
        &["approve"],
        &["approve", "vm-01"],
        &["doctor", "vm-01"],
        &["doctor", "vm-02", "--all"],
        &["doctor", "vm-03"],
        &["journal"],
    ];
    let mut shown = 0;
    for command in commands {
        for more in [&[][..], &["--json"], &["--color", "always"]] {
            if more == ["--json"] && command == ["approve", "vm-01"] {
                continue;
            }
            let ran = sandbox.run(command.iter().chain(more));
            let what = format!("{command:?} {more:?}");
            let coloured = more.contains(&"always");
            assert_fit(&what, &ran.out, coloured);
            assert_fit(&what, &ran.err, coloured);
            shown += ran.text().matches("\\u{202e}").count();
            if more == ["--json"] {
                // The data are the same.
                let lines: Vec<&str> = match command {
                    ["events"] => ran.out.lines().collect(),
                    _ => vec![&ran.out],
                };
                let mut whole = String::new();
                for line in lines {
                    let value: serde_json::Value = serde_json::from_str(line).unwrap();
                    texts(&value, &mut whole);
                }
                if matches!(command, ["status"] | ["events"] | ["approve"]) {
                    assert!(whole.contains(HOSTILE), "{what}");
                }
            }
        }
    }
    assert!(shown > 10, "hardly anything was shown: {shown}");
}

/// All texts of a value.
fn texts(value: &serde_json::Value, out: &mut String) {
    match value {
        serde_json::Value::String(text) => out.push_str(text),
        serde_json::Value::Array(values) => values.iter().for_each(|v| texts(v, out)),
        serde_json::Value::Object(values) => values.values().for_each(|v| texts(v, out)),
        _ => {}
    }
}

#[test]
fn no_file_of_the_repository_steers_the_terminal() {
    let hostile = HOSTILE.replace(['\r', '\u{2028}', '\u{2029}'], "");
    let escaped: String = hostile
        .chars()
        .map(|c| match c.is_control() {
            true => format!("\\u{:04x}", u32::from(c)),
            false => c.to_string(),
        })
        .collect();
    for (file, text) in [
        (
            "undercroft.toml",
            format!("[fleet]\nname = \"{escaped}\"\n"),
        ),
        ("undercroft.toml", format!("[fleet]\nname = \"{hostile}\n")),
        ("undercroft.toml", format!("[\"{escaped}\"]\nx = 1\n")),
        ("undercroft.lock", format!("{hostile}\n")),
        (
            "undercroft.lock",
            format!("[\"{escaped}\"]\nversion = \"{escaped}\"\n"),
        ),
    ] {
        let sandbox = Sandbox::rack();
        sandbox.write(file, &text);
        for command in [&["check"][..], &["status"], &["render"], &["plan"]] {
            let ran = sandbox.run(command);
            assert_fit(&format!("{command:?} {file} {text:?}"), &ran.text(), false);
        }
    }
}
