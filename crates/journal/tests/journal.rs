//! The journal under SIGKILL: a process that is killed at any moment loses nothing that it was
//! told is durable, leaves nothing torn, and leaves no lock.

#![expect(clippy::unwrap_used, reason = "a test that can't go on stops")]

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use undercroft_journal::{FleetJournal, LockError, Store, StoreError};
use undercroft_model::{Record, RunEnd};

const CHILD_DIR: &str = "UNDERCROFT_TEST_JOURNAL_DIR";
/// How often the writer is killed. Each round lets it live a little longer than the one before, so
/// that it dies while it opens, while it makes the tables, between and within appends.
const ROUNDS: u32 = 24;
/// Records per append, so that a torn append would be seen.
const BATCH: usize = 3;

fn records() -> Vec<Record> {
    (0..BATCH)
        .map(|_| Record::RunEnded {
            end: RunEnd::Incomplete,
        })
        .collect()
}

/// Not a test of its own: the process that the tests below start and kill.
#[test]
fn writer_process() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else {
        return;
    };
    let mut journal = FleetJournal::open(Path::new(&dir), "basement", "the writer").unwrap();
    println!("\nopen");
    loop {
        let entries = journal.append_records(1, records()).unwrap();
        println!("durable {}", entries.last().unwrap().seq);
    }
}

fn writer(dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "writer_process",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(CHILD_DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Kills the writer after `life`, counted from its first line where `from_open`, and gives the
/// last sequence number that it called durable.
fn live_and_die(dir: &Path, life: Duration, from_open: bool) -> Option<u64> {
    let mut child = writer(dir);
    let stdout = child.stdout.take().unwrap();
    let (send, receive) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut durable = None;
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if line == "open" {
                let _ = send.send(());
            }
            if let Some(seq) = line.strip_prefix("durable ") {
                durable = seq.parse().ok();
            }
        }
        durable
    });
    if from_open {
        receive.recv_timeout(Duration::from_secs(60)).unwrap();
    }
    std::thread::sleep(life);
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap()
}

#[test]
fn a_writer_killed_at_any_moment_loses_nothing_durable_and_leaves_no_lock() {
    let dir = tempfile::tempdir().unwrap();
    let mut appended = false;
    for round in 0..ROUNDS {
        // The first third of the rounds dies before or while it opens.
        let from_open = round >= ROUNDS / 3;
        let life = Duration::from_micros(u64::from(round) * 1700);
        let durable = live_and_die(dir.path(), life, from_open);
        appended |= durable.is_some();
        let journal = FleetJournal::open(dir.path(), "basement", "the test").unwrap();
        let entries = journal.store().entries(0, usize::MAX).unwrap();
        assert!(matches!(entries[0].record, Record::Opened { .. }));
        if let Some(seq) = durable {
            assert!(
                entries.len() as u64 > seq,
                "round {round}: {seq} was durable"
            );
        }
        assert_eq!(
            entries.len() % BATCH,
            1,
            "round {round}: an append was kept in part"
        );
    }
    assert!(appended, "no round lived long enough to append anything");
}

#[test]
fn a_second_controller_is_told_the_process_id_of_the_first_and_readers_read_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = writer(dir.path());
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while !lines.next().unwrap().unwrap().starts_with("durable") {}
    // The writer's pipe is drained so that it goes on writing while this process reads.
    std::thread::spawn(move || lines.count());

    match FleetJournal::open(dir.path(), "basement", "the test") {
        Err(StoreError::Lock(LockError::Held { holder })) => {
            assert_eq!(holder.pid, Some(child.id()));
            assert_eq!(holder.command.as_deref(), Some("the writer"));
        }
        other => panic!("{other:?}"),
    }
    let store = Store::open(dir.path(), Some("basement")).unwrap();
    let before = store.entries(0, usize::MAX).unwrap().len();
    let until = Instant::now() + Duration::from_secs(60);
    while store.entry_count().unwrap() < before as u64 + 10 {
        assert!(
            Instant::now() < until,
            "the writer stands still while it is read"
        );
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    FleetJournal::open(dir.path(), "basement", "the test").unwrap();
}
