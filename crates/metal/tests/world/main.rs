//! The world's actions against a real OpenSSH server with a made-up installer behind it: what is
//! sent when, and what each way of failing is called.
//!
//! The server needs port 22, so each test runs in a network namespace of its own; that takes root.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that can't go on stops"
)]

mod bench;
mod disk_keys;
mod drift;
mod identity;
#[path = "../namespace_common/mod.rs"]
mod namespace_common;
mod observed;

use std::{
    fs,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use secrecy::ExposeSecret;
use undercroft_engine::{NodeFacts, World};
use undercroft_journal::{Store, approval};
use undercroft_model::{Action, Approval, ApprovalMode, Evidence, FailureKind, Outcome, Work};
use undercroft_process::clock;
use undercroft_rack::ConsoleIdentity;
use undercroft_secrets::keys::{HostKeys, IdentitySource};

use bench::*;

#[tokio::test]
async fn a_machine_is_booted_approved_by_its_console_and_inspected() {
    if !inside("a_machine_is_booted_approved_by_its_console_and_inspected") {
        return;
    }
    let mut bench = Bench::new();
    // An installer of an earlier boot still reports; it is not what the step waits for.
    let mut earlier = bench.report.clone();
    earlier.boot_id = "an-earlier-boot".into();
    bench.world.reported(&node(), earlier);
    let order = bench.order(Action::NetworkBoot, Work::Act, NodeFacts::default());
    bench.world.start(order);
    let until = Instant::now() + LIMIT;
    while *bench.facilities.boots.lock().unwrap() == 0 {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(bench.world.reported(&node(), bench.report.clone()));
    assert!(!bench.world.reported(&node(), bench.report.clone()));
    let (_, outcome) = tokio::time::timeout(LIMIT, bench.outcomes.recv())
        .await
        .unwrap()
        .unwrap();
    let Evidence::Seen { report } = evidence(outcome) else {
        panic!("not seen");
    };
    assert_eq!(*report, bench.report);
    assert_eq!(*bench.facilities.offered.lock().unwrap(), [true]);

    *bench.facilities.console.lock().unwrap() = Some(ConsoleIdentity {
        fingerprint: report.fingerprint.clone(),
        nonce: report.nonce.clone(),
        boot_id: report.boot_id.clone(),
        address: Ipv4Addr::LOCALHOST.into(),
        word: None,
    });
    let Evidence::Approved { approval, .. } = evidence(bench.act(approve()).await) else {
        panic!("not approved");
    };
    assert_eq!(approval.by, "test console");
    let Evidence::Inspected { disk_paths, .. } = evidence(bench.act(inspect()).await) else {
        panic!("not inspected");
    };
    assert_eq!(disk_paths, ["/dev/vda"]);
}

#[tokio::test]
async fn an_operators_approval_from_another_process_is_picked_up() {
    if !inside("an_operators_approval_from_another_process_is_picked_up") {
        return;
    }
    let mut bench = Bench::new();
    let state = bench.path("state");
    let action = Action::Approve {
        mode: ApprovalMode::Operator,
        expires_ms: 60_000,
    };
    let facts = bench.facts();
    assert!(bench.world.reported(&node(), bench.report.clone()));
    let probed = bench
        .carry_out(action.clone(), Work::Probe, facts.clone())
        .await;
    assert_eq!(probed, Outcome::NotDone);
    let order = bench.order(action.clone(), Work::Act, facts);
    bench.world.start(order);
    let until = Instant::now() + LIMIT;
    let waiting = loop {
        let pending = approval::pending(&state).unwrap();
        if let Some(waiting) = pending.into_iter().next() {
            break waiting;
        }
        assert!(Instant::now() < until, "nothing waits for an approval");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let approve = |fingerprint: &str| {
        approval::approve(&state, &node(), fingerprint, "ada", clock::wall_ms_now())
    };
    assert!(approve("SHA256:another").is_err());
    approve(&waiting.report.fingerprint).unwrap();
    let (_, outcome) = tokio::time::timeout(LIMIT, bench.outcomes.recv())
        .await
        .unwrap()
        .unwrap();
    let Evidence::Approved { approval, .. } = evidence(outcome) else {
        panic!("not approved");
    };
    assert_eq!(approval.by, "operator ada");
    assert_eq!(approval::pending(&state).unwrap(), []);
}

/// Whoever wrote the approval down, and for however long: the plan says how long it is good.
#[tokio::test]
async fn an_approval_is_good_for_as_long_as_the_plan_says_whoever_gave_it() {
    if !inside("an_approval_is_good_for_as_long_as_the_plan_says_whoever_gave_it") {
        return;
    }
    let mut bench = Bench::new();
    assert!(bench.world.reported(&node(), bench.report.clone()));
    let state = bench.path("state");
    let action = Action::Approve {
        mode: ApprovalMode::Operator,
        expires_ms: 60_000,
    };
    let order = bench.order(action, Work::Act, bench.facts());
    bench.world.start(order);
    let until = Instant::now() + LIMIT;
    while approval::pending(&state).unwrap().is_empty() {
        assert!(Instant::now() < until, "nothing waits for an approval");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let granted_wall_ms = clock::wall_ms_now();
    let day = Approval {
        fingerprint: bench.report.fingerprint.clone(),
        by: "operator ada".to_owned(),
        granted_wall_ms,
        expires_wall_ms: granted_wall_ms + 24 * 3_600_000,
    };
    let mut store = Store::open(&state, None).unwrap();
    store.approve(&node(), day).unwrap();
    let (_, outcome) = tokio::time::timeout(LIMIT, bench.outcomes.recv())
        .await
        .unwrap()
        .unwrap();
    let Evidence::Approved { approval, .. } = evidence(outcome) else {
        panic!("not approved");
    };
    assert_eq!(approval.expires_wall_ms, granted_wall_ms + 60_000);
}

#[tokio::test]
async fn an_installer_that_is_heard_no_longer_has_nothing_left_to_approve() {
    if !inside("an_installer_that_is_heard_no_longer_has_nothing_left_to_approve") {
        return;
    }
    let mut bench = Bench::new();
    // The controller was started anew, and nobody has reported to it. That something listens at the
    // address is nothing: nobody connects to it before its approval.
    let facts = bench.facts();
    let gone = failure(bench.carry_out(approve(), Work::Probe, facts).await);
    assert_eq!(gone.kind, FailureKind::Transient, "{gone:?}");
    assert!(gone.hint.is_some());
    assert!(!bench.was_connected_to(), "{}", bench.log());
}

/// Whoever reports in a machine's name gets nothing done: the machine itself is waited for, is
/// approved when its screen shows it, and nobody else was connected to.
#[tokio::test]
async fn of_those_who_claim_to_be_a_machine_its_console_chooses() {
    if !inside("of_those_who_claim_to_be_a_machine_its_console_chooses") {
        return;
    }
    let mut bench = Bench::new();
    let forged = |number: u32| {
        let key = keygen(&bench.path(&format!("forged-{number}")));
        let mut forged = bench.report.clone();
        forged.boot_id = format!("forged-{number}");
        forged.host_key = key.to_string();
        forged.fingerprint = key.fingerprint();
        forged
    };
    let all: Vec<_> = (0..12).map(forged).collect();
    bench.world.reported(&node(), all[0].clone());
    let mut facts = bench.facts();
    facts.report = Some(all[0].clone());
    facts.approval = None;
    let order = bench.order(approve(), Work::Act, facts);
    bench.world.start(order);
    *bench.facilities.console.lock().unwrap() = Some(ConsoleIdentity {
        fingerprint: bench.report.fingerprint.clone(),
        nonce: bench.report.nonce.clone(),
        boot_id: bench.report.boot_id.clone(),
        address: Ipv4Addr::LOCALHOST.into(),
        word: None,
    });
    let state = bench.path("state");
    let until = Instant::now() + LIMIT;
    while approval::pending(&state).unwrap().is_empty() {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for report in &all {
        bench.world.reported(&node(), report.clone());
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(bench.outcomes.try_recv().is_err(), "nobody was approved");
    assert!(!bench.was_connected_to(), "{}", bench.log());
    bench.world.reported(&node(), bench.report.clone());
    let (_, outcome) = tokio::time::timeout(LIMIT, bench.outcomes.recv())
        .await
        .unwrap()
        .unwrap();
    let Evidence::Approved { approval, report } = evidence(outcome) else {
        panic!("not approved");
    };
    assert_eq!(approval.fingerprint, bench.report.fingerprint);
    assert_eq!(*report.unwrap(), bench.report);
    assert_eq!(approval::pending(&state).unwrap(), []);
}

#[tokio::test]
async fn a_wrong_serial_is_refused_before_anything_that_writes_is_run() {
    if !inside("a_wrong_serial_is_refused_before_anything_that_writes_is_run") {
        return;
    }
    let mut bench = Bench::new();
    let refused = failure(bench.act(partition("S2")).await);
    assert_eq!(refused.kind, FailureKind::Refused, "{refused:?}");
    assert!(!bench.asked().contains("partition"), "{}", bench.asked());
    let done = evidence(bench.act(partition("S1")).await);
    assert!(matches!(done, Evidence::Partitioned { wiped: true, .. }));
    assert!(
        bench
            .asked()
            .contains("partition --serial S1 --layout ext4 --disk-guid 07070707-")
    );
}

#[tokio::test]
async fn another_boot_and_another_key_than_approved_are_a_lost_precondition() {
    if !inside("another_boot_and_another_key_than_approved_are_a_lost_precondition") {
        return;
    }
    let mut bench = Bench::new();
    let mut facts = bench.facts();
    facts.report.as_mut().unwrap().boot_id = "the-boot-that-was-approved".into();
    let lost = failure(bench.carry_out(partition("S1"), Work::Act, facts).await);
    assert_eq!(lost.kind, FailureKind::PreconditionLost, "{lost:?}");

    let stranger = keygen(&bench.path("stranger"));
    let mut facts = bench.facts();
    let (report, approval) = (
        facts.report.as_mut().unwrap(),
        facts.approval.as_mut().unwrap(),
    );
    report.host_key = stranger.to_string();
    report.fingerprint = stranger.fingerprint();
    approval.fingerprint = stranger.fingerprint();
    let lost = failure(bench.carry_out(partition("S1"), Work::Act, facts).await);
    assert_eq!(lost.kind, FailureKind::PreconditionLost, "{lost:?}");
    assert!(!bench.asked().contains("partition"), "{}", bench.asked());
}

#[tokio::test]
async fn an_installed_machine_that_shows_another_host_key_is_refused() {
    if !inside("an_installed_machine_that_shows_another_host_key_is_refused") {
        return;
    }
    let mut bench = Bench::new();
    let prove = Action::Prove {
        toplevel: TOPLEVEL.into(),
        host_key_fingerprint: bench.final_key.fingerprint(),
    };
    // Without a report of an installer the key that is shown is a stranger's.
    let outcome = bench
        .carry_out(prove.clone(), Work::Act, NodeFacts::default())
        .await;
    let refused = failure(outcome);
    assert_eq!(refused.kind, FailureKind::Refused, "{refused:?}");
    let both = [&bench.final_key.fingerprint(), &bench.report.fingerprint];
    assert!(both.iter().all(|f| refused.message.contains(*f)));
    // With one it is the installer's own, which has not been left.
    let lost = failure(bench.act(prove).await);
    assert_eq!(lost.kind, FailureKind::PreconditionLost, "{lost:?}");
}

#[tokio::test]
async fn no_secret_is_sent_before_the_approval_and_none_is_kept_afterwards() {
    if !inside("no_secret_is_sent_before_the_approval_and_none_is_kept_afterwards") {
        return;
    }
    let mut bench = Bench::new();
    let action = install(&bench);
    let mut facts = bench.facts();
    facts.approval = None;
    let lost = failure(bench.carry_out(action.clone(), Work::Act, facts).await);
    assert_eq!(lost.kind, FailureKind::PreconditionLost);
    let mut facts = bench.facts();
    facts.approval.as_mut().unwrap().fingerprint = "SHA256:another".into();
    failure(bench.carry_out(action.clone(), Work::Act, facts).await);
    assert_eq!(bench.asked(), "");

    let facts = bench.facts();
    let probed = bench.carry_out(action.clone(), Work::Probe, facts).await;
    assert_eq!(probed, Outcome::NotDone);
    let done = evidence(bench.act(action).await);
    assert!(
        matches!(done, Evidence::Installed { default_entry, .. } if default_entry == "nixos-generation-1.conf")
    );

    // The key arrived whole, and is nowhere else: not in the database, not in what was told, not
    // in a command, and not in the outcome.
    let delivered = fs::read_to_string(bench.path("delivered-ssh_host_ed25519_key")).unwrap();
    let private = HostKeys::open(
        &bench.path("secrets"),
        &[],
        IdentitySource {
            state_dir: bench.path("state"),
            identity_files: vec![],
            well_known: false,
        },
    )
    .unwrap()
    .private(&node())
    .unwrap();
    assert_eq!(delivered, private.expose_secret());
    let secret = delivered.lines().nth(3).unwrap().to_owned();
    let told = format!("{:?}", bench.told.lock().unwrap());
    assert!(!told.contains(&secret) && !bench.asked().contains(&secret));
    for file in fs::read_dir(bench.path("state")).unwrap() {
        let path = file.unwrap().path();
        if path.is_file() {
            let bytes = fs::read(&path).unwrap();
            let found = bytes.windows(secret.len()).any(|w| w == secret.as_bytes());
            assert!(!found, "{}", path.display());
        }
    }
}

#[tokio::test]
async fn a_cancelled_operation_gives_no_outcome_and_the_next_waits_for_its_command() {
    if !inside("a_cancelled_operation_gives_no_outcome_and_the_next_waits_for_its_command") {
        return;
    }
    let mut bench = Bench::new();
    // The command outlives its connection, as on a machine whose network went away.
    let slow = format!(
        "#!/bin/sh\ntrap '' HUP PIPE\ntouch {0}/begun\nsleep 3\ntouch {0}/ended\necho state=created\n",
        bench.dir.path().display()
    );
    fs::write(bench.path("partition"), slow).unwrap();
    let facts = bench.facts();
    let order = bench.order(partition("S1"), Work::Act, facts);
    let op = order.op;
    bench.world.start(order);
    let until = Instant::now() + LIMIT;
    while !bench.path("begun").exists() {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bench.world.cancel(op);
    let done = bench.act(inspect()).await;
    assert!(
        bench.path("ended").exists(),
        "the next command ran beside the one before it"
    );
    assert!(matches!(evidence(done), Evidence::Inspected { .. }));
    assert!(bench.outcomes.try_recv().is_err());
}
