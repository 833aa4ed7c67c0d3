//! The scripts of the steps on an installer, asked with answers as machines give them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a panic is the finding"
)]

use std::collections::BTreeMap;

use undercroft_model::{
    Action, Approval, DiskIdentity, Evidence, FailedCommand, FailureKind, InstallerReport,
    MachineUuid, NoAnswer, NodeName, NodePlan, NodeState, PlannedDisk, ReportedDisk,
    ReportedFirmware, RetryPolicy, Step, StepId, System, Work,
    inventory::{DiskRole, Layout},
};
use undercroft_steps::{
    Answer, Ask, CopyFailed, Ended, InstalledLook, Look, Looked, Next, Return, Script, Unanswered,
    code, pin,
};

const TOPLEVEL: &str = "/nix/store/11111111111111111111111111111111-nixos-system-gpu-01";
const SCRIPT: &str = "/nix/store/22222222222222222222222222222222-disko";
const MOUNT: &str = "/nix/store/33333333333333333333333333333333-disko-mount";

fn report() -> InstallerReport {
    let disk = |path: &str, serial: &str| ReportedDisk {
        path: path.to_owned(),
        serial: Some(serial.to_owned()),
        wwn: None,
        size_bytes: 1 << 40,
        model: None,
        transport: None,
    };
    InstallerReport {
        version: undercroft_model::INSTALLER_REPORT_VERSION,
        nonce: String::new(),
        uuid: None,
        macs: vec!["3c:ec:ef:10:00:01".parse().unwrap()],
        address: "10.0.0.11".parse().unwrap(),
        boot_id: "installer".to_owned(),
        host_key: String::new(),
        fingerprint: "SHA256:installer".to_owned(),
        system: System::X86_64Linux,
        firmware: ReportedFirmware::Uefi,
        memory_mb: 1 << 16,
        installer: String::new(),
        token: None,
        disks: vec![disk("/dev/sda", "S1"), disk("/dev/sdb", "S2")],
    }
}

fn approval() -> Approval {
    Approval {
        fingerprint: "SHA256:installer".to_owned(),
        by: "operator ada".to_owned(),
        granted_wall_ms: 1000,
        expires_wall_ms: 2000,
    }
}

fn disk(serial: &str, guid: u8) -> PlannedDisk {
    PlannedDisk {
        identity: DiskIdentity {
            serial: Some(serial.to_owned()),
            wwn: None,
        },
        role: DiskRole::Root,
        size_bytes_min: 1 << 30,
        table_guid: MachineUuid([guid; 16]),
    }
}

fn with_disko(mount: Option<&str>) -> Action {
    Action::Partition {
        disks: vec![disk("S1", 1), disk("S2", 2)],
        layout: Layout::ZfsMirror,
        disko_script: Some(SCRIPT.to_owned()),
        disko_mount_script: mount.map(str::to_owned),
        disko_devices: Some(vec!["by-id-1".to_owned(), "by-id-2".to_owned()]),
    }
}

fn copy() -> Action {
    Action::CopyClosure {
        toplevel: TOPLEVEL.to_owned(),
        closure_bytes: Some(7),
    }
}

/// A step on an installer, with all that was asked and answered.
struct Play {
    step: Step,
    work: Work,
    answers: Vec<Answer>,
}

impl Play {
    fn new(action: Action, work: Work) -> Self {
        let destroys = match &action {
            Action::Partition { disks, .. } => disks.iter().map(|d| d.identity.clone()).collect(),
            _ => Vec::new(),
        };
        let step = Step {
            id: StepId(0),
            node: NodeName::new("gpu-01").unwrap(),
            requires: NodeState::InstallerReady,
            reaches: NodeState::Partitioned,
            action,
            after: vec![],
            after_settled: vec![],
            resource: None,
            timeout_ms: 60_000,
            retry: RetryPolicy {
                attempts_max: 1,
                backoff_ms: 0,
                backoff_ms_max: 0,
            },
            destroys,
            delivers_secrets: false,
            probe_first: false,
            restart_from: None,
        };
        Self {
            step,
            work,
            answers: Vec::new(),
        }
    }

    fn next(&self) -> Next {
        let node = NodePlan {
            macs: report().macs,
            uuid: None,
            address: report().address,
            system: System::X86_64Linux,
            target: None,
            generation: 0,
            steps: vec![StepId(0)],
            not_applicable: BTreeMap::new(),
        };
        let (report, approval) = (report(), approval());
        let pinned = pin(Some(&report), Some(&approval)).unwrap();
        let script = Script::new(&self.step, &node, self.work, pinned);
        script.next(&self.answers).unwrap()
    }

    /// What is asked next.
    fn asks(&self) -> Ask {
        match self.next() {
            Next::Ask(ask) => ask,
            next => panic!("{next:?} after {:?}", self.answers),
        }
    }

    /// Answers what is asked next, which must be of that kind.
    fn answer(&mut self, asked: fn(&Ask) -> bool, answer: Answer) {
        let ask = self.asks();
        assert!(asked(&ask), "{ask:?}");
        self.answers.push(answer);
    }

    fn fails(&self) -> (FailureKind, String) {
        match self.next() {
            Next::Failed(failure) => (failure.kind, failure.message),
            next => panic!("{next:?} after {:?}", self.answers),
        }
    }
}

fn prints(stdout: &str) -> Answer {
    Answer::Ended(Ended {
        code: code::DONE,
        stdout: stdout.to_owned(),
        stderr_tail: String::new(),
        command: String::new(),
    })
}

fn described() -> Answer {
    Answer::Described(Box::new(report()))
}

fn lost(why: NoAnswer) -> Answer {
    Answer::Nothing(Box::new(Unanswered::new(why, "gone")))
}

fn copy_failed(said: &str) -> Answer {
    Answer::CopyFailed(Box::new(CopyFailed {
        command: FailedCommand {
            command: "nix copy".to_owned(),
            exit_code: Some(1),
            output_tail: said.to_owned(),
        },
        timed_out: false,
        connection: None,
    }))
}

/// The GUIDs as the machine prints them: named (`n`), marked (`m`) or as they came (`-`).
fn tables(states: &str, mounted: &str) -> Answer {
    let mut text = String::new();
    for (number, state) in (1u8..).zip(states.chars()) {
        let mut guid = [number; 16];
        if state == 'm' {
            guid[0] = !guid[0];
        }
        let shown = match state {
            '-' => "none".to_owned(),
            _ => MachineUuid(guid).to_string().to_uppercase(),
        };
        text += &format!("{shown}\n");
    }
    prints(&(text + mounted + "\n"))
}

#[test]
fn only_who_reported_and_was_approved_is_connected_to_and_only_in_time() {
    let (report, approval) = (report(), approval());
    let kind = |report, approval| pin(report, approval).map(|_| ()).unwrap_err().kind;
    assert_eq!(kind(None, Some(&approval)), FailureKind::PreconditionLost);
    assert_eq!(kind(Some(&report), None), FailureKind::PreconditionLost);
    let other = Approval {
        fingerprint: "SHA256:other".to_owned(),
        ..approval.clone()
    };
    assert_eq!(
        kind(Some(&report), Some(&other)),
        FailureKind::PreconditionLost
    );
    let pinned = pin(Some(&report), Some(&approval)).unwrap();
    let inspect = Action::Inspect {
        disks: vec![],
        system: System::X86_64Linux,
        memory_mb_min: 0,
    };
    assert!(pinned.may_connect(&inspect, 1999).is_ok());
    assert!(pinned.may_connect(&inspect, 2000).is_err());
    assert!(
        pinned.may_connect(&copy(), 2000).is_ok(),
        "the key was proved"
    );
}

#[test]
fn a_layout_of_several_disks_is_marked_before_it_is_named() {
    let mut play = Play::new(with_disko(Some(MOUNT)), Work::Act);
    play.answer(|ask| *ask == Ask::Describe, described());
    play.answer(
        |ask| matches!(ask, Ask::Tables { .. }),
        tables("--", "unmounted"),
    );
    play.answer(
        |ask| matches!(ask, Ask::Resolve { .. }),
        prints("/dev/sdb\n/dev/sda\n"),
    );
    play.answer(|ask| matches!(ask, Ask::OtherPools { .. }), Answer::code(0));
    play.answer(|ask| *ask == Ask::GiveDiskKeys, Answer::Done);
    play.answer(
        |ask| matches!(ask, Ask::BringScript { path } if path == SCRIPT),
        Answer::Done,
    );
    play.answer(
        |ask| matches!(ask, Ask::RunScript { path } if path == SCRIPT),
        Answer::code(0),
    );
    play.answer(|ask| *ask == Ask::TakeDiskKeys, Answer::code(0));
    for number in [!1, 1] {
        let Ask::NameTables { tables } = play.asks() else {
            panic!("{:?}", play.asks());
        };
        assert_eq!(tables[0].guid.0[0], number, "{tables:?}");
        play.answers.push(Answer::code(0));
    }
    play.answer(
        |ask| matches!(ask, Ask::Tables { .. }),
        tables("nn", "mounted"),
    );
    assert_eq!(
        play.next(),
        Next::Done(Evidence::Partitioned {
            boot_id: "installer".to_owned(),
            wiped: true,
        })
    );
}

#[test]
fn what_an_interrupted_layout_left_is_gone_on_with_or_left_alone() {
    let begun = |states: &str, mount, work| {
        let mut play = Play::new(with_disko(mount), work);
        play.answer(|ask| *ask == Ask::Describe, described());
        let shown = tables(states, "unmounted");
        play.answer(|ask| matches!(ask, Ask::Tables { .. }), shown);
        play
    };
    // Each is named or marked: nothing is wiped.
    for states in ["mm", "nm", "mn"] {
        let play = begun(states, None, Work::Act);
        assert!(matches!(play.asks(), Ask::NameTables { .. }), "{states}");
        assert_eq!(begun(states, None, Work::Probe).next(), Next::NotDone);
    }
    // None is named: it was never whole.
    for states in ["--", "-m", "m-"] {
        let play = begun(states, None, Work::Act);
        assert!(matches!(play.asks(), Ask::Resolve { .. }), "{states}");
    }
    // One is named and the other as it came, and the script would wipe both.
    for states in ["n-", "-n"] {
        for work in [Work::Act, Work::Probe] {
            let (kind, message) = begun(states, Some(MOUNT), work).fails();
            assert_eq!(kind, FailureKind::Refused);
            assert!(message.ends_with("would wipe both"), "{message}");
        }
    }
    // Laid out and not mounted any longer.
    let (kind, _) = begun("nn", None, Work::Act).fails();
    assert_eq!(kind, FailureKind::Permanent);
    assert_eq!(begun("nn", Some(MOUNT), Work::Probe).next(), Next::NotDone);
    {
        let mut play = begun("nn", Some(MOUNT), Work::Act);
        let there = prints("/dev/sda\n/dev/sdb\n");
        play.answer(|ask| matches!(ask, Ask::Resolve { .. }), there);
        play.answer(|ask| *ask == Ask::GiveDiskKeys, Answer::Done);
        play.answer(
            |ask| matches!(ask, Ask::BringScript { path } if path == MOUNT),
            Answer::Done,
        );
        play.answer(
            |ask| matches!(ask, Ask::RunScript { path } if path == MOUNT),
            Answer::code(0),
        );
        play.answer(|ask| *ask == Ask::TakeDiskKeys, Answer::code(0));
        play.answer(
            |ask| matches!(ask, Ask::Tables { .. }),
            tables("nn", "mounted"),
        );
        assert!(
            matches!(
                play.next(),
                Next::Done(Evidence::Partitioned { wiped: false, .. })
            ),
            "{:?}",
            play.next()
        );
    }
}

#[test]
fn the_keys_are_taken_away_whatever_becomes_of_the_script() {
    for (brought, ran) in [
        (copy_failed("error: no"), None),
        (Answer::Done, Some(Answer::code(1))),
        (Answer::Done, Some(lost(NoAnswer::Interrupted))),
    ] {
        let mut play = Play::new(with_disko(None), Work::Act);
        play.answer(|ask| *ask == Ask::Describe, described());
        play.answer(
            |ask| matches!(ask, Ask::Tables { .. }),
            tables("--", "unmounted"),
        );
        let there = prints("/dev/sda\n/dev/sdb\n");
        play.answer(|ask| matches!(ask, Ask::Resolve { .. }), there);
        play.answer(|ask| matches!(ask, Ask::OtherPools { .. }), Answer::code(0));
        play.answer(|ask| *ask == Ask::GiveDiskKeys, Answer::Done);
        play.answer(|ask| matches!(ask, Ask::BringScript { .. }), brought);
        if let Some(ran) = ran {
            play.answer(|ask| matches!(ask, Ask::RunScript { .. }), ran);
        }
        play.answer(|ask| *ask == Ask::TakeDiskKeys, lost(NoAnswer::Unreachable));
        // The script's own failure says more than one to clean up.
        let (kind, message) = play.fails();
        assert_ne!(kind, FailureKind::PreconditionLost, "{message}");
    }
}

#[test]
fn a_copy_that_finds_a_damaged_store_begins_it_again_a_few_times() {
    let damaged = "error: '/mnt/nix/var/nix/db/schema' is corrupt\ncannot connect to 'root@x'";
    for said in [
        damaged,
        "error: executing SQLite statement: database disk image is malformed",
    ] {
        let mut play = Play::new(copy(), Work::Act);
        play.answer(|ask| *ask == Ask::Mounted, Answer::code(0));
        for _ in 0..3 {
            play.answer(|ask| matches!(ask, Ask::Copy { .. }), copy_failed(said));
            play.answer(|ask| *ask == Ask::ForgetStore, Answer::code(0));
        }
        assert_eq!(play.fails().0, FailureKind::Permanent);
    }
    let mut play = Play::new(copy(), Work::Act);
    play.answer(|ask| *ask == Ask::Mounted, Answer::code(0));
    play.answer(|ask| matches!(ask, Ask::Copy { .. }), Answer::Done);
    // A part of it is damaged, and was dropped.
    play.answer(
        |ask| matches!(ask, Ask::IsInstalled { .. }),
        Answer::code(code::NO_CLOSURE),
    );
    play.answer(|ask| matches!(ask, Ask::Copy { .. }), Answer::Done);
    play.answer(
        |ask| matches!(ask, Ask::IsInstalled { .. }),
        Answer::code(code::NOT_YET),
    );
    play.answer(|ask| *ask == Ask::Sync, Answer::code(0));
    assert!(matches!(play.next(), Next::Done(Evidence::Copied { .. })));
}

#[test]
fn why_a_copy_failed_is_told_by_what_is_most_certain() {
    let failed = |said: &str, room: Option<Answer>| {
        let mut play = Play::new(copy(), Work::Act);
        play.answer(|ask| *ask == Ask::Mounted, Answer::code(0));
        play.answer(|ask| matches!(ask, Ask::Copy { .. }), copy_failed(said));
        if let Some(room) = room {
            play.answer(|ask| *ask == Ask::FreeRoom { at: "/mnt" }, room);
        }
        play.fails()
    };
    let df = |free: &str| {
        prints(&format!(
            "Filesystem 1K Used Available\n/dev/a 9 9 {free} 1% /mnt"
        ))
    };
    let full = "error: writing to file: No space left on device";
    let (kind, message) = failed(full, Some(df("12")));
    assert_eq!(kind, FailureKind::Permanent);
    assert!(
        message.starts_with("the machine's disk is full: 12 KiB"),
        "{message}"
    );
    let (kind, message) = failed(full, Some(df("999999")));
    assert_eq!(kind, FailureKind::Permanent);
    assert!(message.starts_with("a disk of this machine"), "{message}");
    let unknown = failed(full, Some(lost(NoAnswer::Unreachable)));
    assert_eq!(unknown.0, FailureKind::Transient);
    assert_eq!(
        failed("error: path '/nix/store/x' is not valid", None).0,
        FailureKind::Permanent
    );
    assert_eq!(failed("error: something", None).0, FailureKind::Transient);
}

#[test]
fn what_a_lost_connection_means_depends_on_what_may_have_been_done() {
    for (why, kind) in [
        (NoAnswer::Unreachable, FailureKind::PreconditionLost),
        (NoAnswer::OtherKey, FailureKind::PreconditionLost),
        (NoAnswer::AuthRefused, FailureKind::Transient),
        (NoAnswer::Interrupted, FailureKind::Ambiguous),
        (NoAnswer::NotInTime { begun: true }, FailureKind::Ambiguous),
        (NoAnswer::NotInTime { begun: false }, FailureKind::Transient),
        (NoAnswer::Local, FailureKind::Permanent),
    ] {
        let mut play = Play::new(copy(), Work::Act);
        play.answers.push(lost(why));
        assert_eq!(play.fails().0, kind, "{why:?}");
    }
    // A connection that the reboot itself cuts off is no failure.
    let reboot = Action::Reboot {
        host_key_fingerprint: "SHA256:own".to_owned(),
    };
    for (why, failed) in [
        (NoAnswer::Interrupted, false),
        (NoAnswer::Unreachable, true),
    ] {
        let mut play = Play::new(reboot.clone(), Work::Act);
        play.answer(|ask| *ask == Ask::OfferDisk, Answer::Done);
        play.answer(|ask| *ask == Ask::Finish, Answer::code(0));
        play.answer(|ask| *ask == Ask::Reboot, lost(why));
        assert_eq!(matches!(play.next(), Next::Failed(_)), failed, "{why:?}");
        assert_eq!(play.next() == Next::AwaitReturn, !failed, "{why:?}");
    }
}

#[test]
fn an_installation_is_done_when_the_boot_entry_was_read_back() {
    let install = || Action::Install {
        toplevel: TOPLEVEL.to_owned(),
        host_key_fingerprint: "SHA256:own".to_owned(),
    };
    let mut play = Play::new(install(), Work::Act);
    play.answer(|ask| *ask == Ask::GiveHostKey, Answer::code(0));
    play.answer(|ask| *ask == Ask::GiveExtraFiles, Answer::Done);
    play.answer(
        |ask| matches!(ask, Ask::Install { .. }),
        prints("state=installed\n"),
    );
    assert_eq!(play.fails().0, FailureKind::Transient);
    play.answers.pop();
    play.answers.push(prints("entry=nixos-generation-1.conf\n"));
    assert!(matches!(
        play.next(),
        Next::Done(Evidence::Installed { .. })
    ));
    // A probe that finds another key asks nothing further.
    let mut play = Play::new(install(), Work::Probe);
    play.answer(|ask| *ask == Ask::HasHostKey, Answer::code(code::NOT_YET));
    assert_eq!(play.next(), Next::NotDone);
}

#[test]
fn a_script_that_asks_without_end_is_ended() {
    let mut play = Play::new(copy(), Work::Act);
    play.answers = vec![Answer::Done; undercroft_steps::ASKS_MAX];
    assert_eq!(play.fails().0, FailureKind::Permanent);
}

fn shows(fingerprint: &str) -> Look {
    let shown = Some(fingerprint.to_owned());
    let unanswered = Unanswered::new(NoAnswer::OtherKey, "another key").showing(shown);
    Err(Box::new(unanswered))
}

fn runs(boot_id: &str, booted_system: &str) -> Look {
    Ok(InstalledLook {
        boot_id: boot_id.to_owned(),
        booted_system: booted_system.to_owned(),
        current_system: String::new(),
    })
}

#[test]
fn a_machine_has_returned_when_its_own_key_shows_another_boot() {
    let report = report();
    let mut awaited = Return::from(Some(&report));
    let mut look = |look: &Look, at_ms, claimed| awaited.told_to_reboot(look, at_ms, |_| claimed);
    let silent: Look = Err(Box::new(Unanswered::new(NoAnswer::Unreachable, "gone")));
    assert_eq!(look(&shows("SHA256:installer"), 0, false), Looked::Again);
    assert_eq!(look(&silent, 1000, false), Looked::Again);
    assert_eq!(look(&runs("installer", ""), 2000, false), Looked::Again);
    assert_eq!(look(&shows("SHA256:other"), 3000, false), Looked::Again);
    assert_eq!(look(&shows("SHA256:other"), 33_000, false), Looked::Again);
    for (claimed, kind) in [
        (false, FailureKind::Refused),
        (true, FailureKind::PreconditionLost),
    ] {
        let Looked::Failed(failure) = look(&shows("SHA256:other"), 33_001, claimed) else {
            panic!("a foreign key is shown for too long");
        };
        assert_eq!(failure.kind, kind);
    }
    assert!(matches!(
        look(&runs("own", ""), 40_000, false),
        Looked::Done(Evidence::Rebooted { boot_id }) if boot_id == "own"
    ));
}

#[test]
fn a_machine_is_up_with_the_system_that_was_built_and_no_other() {
    let report = report();
    let awaited = Return::from(Some(&report));
    let kind = |look: &Look| match awaited.proved(look, TOPLEVEL, "SHA256:own") {
        Looked::Failed(failure) => Some(failure.kind),
        _ => None,
    };
    assert_eq!(kind(&runs("own", TOPLEVEL)), None);
    assert_eq!(
        kind(&runs("own", "/nix/store/older")),
        Some(FailureKind::Permanent)
    );
    assert_eq!(kind(&runs("own", "")), Some(FailureKind::Permanent));
    let installer = shows("SHA256:installer");
    assert_eq!(kind(&installer), Some(FailureKind::PreconditionLost));
    assert_eq!(kind(&shows("SHA256:other")), Some(FailureKind::Refused));
    assert_eq!(awaited.probed(&installer), Looked::InInstaller);
    assert_eq!(awaited.probed(&shows("SHA256:other")), Looked::Again);
}
