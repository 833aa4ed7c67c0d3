//! A journal of a million entries takes seconds to read: no command reads an entry of it twice.

use std::sync::Arc;

use undercroft_journal::{FleetJournal, Store};
use undercroft_model::{Record, RunEnd};

use super::{
    journal::{history, plan, waiting},
    signals,
};
use crate::support::Sandbox;

/// How many entries of the journal a command says that it has read, with `-vv`.
fn read(said: &str) -> u64 {
    let line = said.lines().find(|line| line.starts_with("read "));
    let count = line.and_then(|line| line.split(' ').nth(1));
    count.map_or(0, |count| count.parse().unwrap())
}

fn entries(sandbox: &Sandbox) -> u64 {
    let state = sandbox.dir().join(".undercroft");
    Store::open(&state, None).unwrap().entry_count().unwrap()
}

#[test]
fn commands_that_look_read_each_entry_once() {
    let sandbox = Sandbox::rack();
    history(&sandbox);
    waiting(&sandbox);
    let all = entries(&sandbox);
    assert!(all > 5);
    for command in [
        &["status"][..],
        &["status", "vm-01"],
        &["events"],
        &["events", "vm-*"],
        &["events", "--json"],
        &["journal"],
        &["doctor", "vm-01"],
        &["approve", "vm-02"],
    ] {
        let ran = sandbox.run(command.iter().chain(&["-vv"]));
        assert_eq!(read(&ran.err), all, "{command:?}: {}", ran.text());
    }
    // Those who wait stand beside the entries.
    let ran = sandbox.run(["approve", "-vv"]);
    assert_eq!(read(&ran.err), 0, "{}", ran.text());
}

#[test]
fn commands_that_plan_read_each_entry_once() {
    let Some(sandbox) = signals::fleet() else {
        return;
    };
    let plan = Arc::new(plan(&sandbox));
    let state = sandbox.dir().join(".undercroft");
    let mut journal = FleetJournal::open(&state, "demo", "a test").unwrap();
    for _ in 0..5 {
        let records = vec![
            Record::PlanAccepted {
                plan: Arc::clone(&plan),
            },
            Record::RunStarted {
                plan: plan.id.clone(),
                undercroft: "0.1.0".to_owned(),
            },
            Record::RunEnded {
                end: RunEnd::Incomplete,
            },
        ];
        journal.append_records(1, records).unwrap();
    }
    drop(journal);
    let all = entries(&sandbox);
    // A service is told to end while it builds for the second time.
    let mut child = signals::command(&sandbox, "serve")
        .arg("-vv")
        .spawn()
        .unwrap();
    signals::nix_of(&sandbox, &mut child);
    signals::send("INT", &child);
    signals::wait(&mut child, "serve");
    let said = signals::said(&sandbox);
    assert_eq!(read(&said), all, "{said}");
    // From here on nothing can be built, and so nothing is begun.
    sandbox.write("bin/nix", "#!/bin/sh\nexit 1\n");
    for command in ["plan", "up"] {
        signals::command(&sandbox, command)
            .arg("-vv")
            .status()
            .unwrap();
        let said = signals::said(&sandbox);
        assert_eq!(read(&said), entries(&sandbox), "{command}: {said}");
    }
    assert_eq!(entries(&sandbox), all, "nothing was begun");
}
