//! A PC's daemon is killed (SIGKILL) at each step of a job, with all that is real around it, and NATS and the server
//! with it now and then: nothing is lost, doubled, or left.

use std::{
    fs,
    time::{Duration, Instant},
};

use async_nats::{ConnectOptions, Subscriber};
use futures_util::StreamExt as _;
use secrecy::ExposeSecret as _;
use serde_json::Value;
use undercroft_lending::keys::UserKey;
use undercroft_testkit::skip;

use crate::{
    pc::{PC, Pc, job},
    site::{Process, Site, WITHIN},
};

/// Jobs at a time: what a killed daemon had is this PC's until its lease runs out, and nothing waits for that here.
const SLOTS: u32 = 16;
/// Rests between two looks at the ledger.
const LOOK: Duration = Duration::from_millis(2);

/// A step of a job on a PC, by what it is seen by.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// It has asked for a part of what the job reads.
    Fetch,
    /// The ledger says that the job was begun.
    Started,
    /// Its owner's word for it is that it runs.
    Runs,
    /// It runs no more, as its owner has paused the PC.
    Paused,
    /// It brings what the job made.
    Brings,
    /// It has kept how the job ended.
    Ended,
    /// It has said how the job ended.
    Said,
    /// The ledger has the receipt.
    Receipt,
}

/// What is killed with the daemon.
#[derive(Debug, Clone, Copy, PartialEq)]
enum With {
    Nothing,
    Nats,
    Server,
}

const KILLS: [(Step, With); 14] = [
    (Step::Fetch, With::Nothing),
    (Step::Started, With::Nothing),
    (Step::Runs, With::Nothing),
    (Step::Paused, With::Nothing),
    (Step::Brings, With::Nothing),
    (Step::Ended, With::Nothing),
    (Step::Said, With::Nothing),
    (Step::Receipt, With::Nothing),
    (Step::Fetch, With::Nats),
    (Step::Brings, With::Nats),
    (Step::Said, With::Nats),
    (Step::Started, With::Server),
    (Step::Said, With::Server),
    (Step::Receipt, With::Server),
];

/// What the PC says to the server, heard beside it.
async fn heard(site: &Site) -> Subscriber {
    let key = UserKey::read(&site.file("server.nk")).unwrap();
    let client = ConnectOptions::with_nkey(key.seed().expose_secret().to_owned())
        .add_root_certificates(site.nats.ca())
        .require_tls(true)
        .connect(site.nats.url())
        .await
        .unwrap();
    let heard = client.subscribe("lend.>").await.unwrap();
    client.flush().await.unwrap();
    heard
}

/// Waits until a step of a job is seen.
async fn seen(pc: &Pc<'_>, site: &Site, heard: &mut Subscriber, step: Step, job: &str) {
    let has = |text: &str, word: &str| text.contains(job) && text.contains(&format!("\"{word}\""));
    let in_message = match step {
        Step::Fetch => "fetch",
        Step::Brings => "bring",
        Step::Said => "out",
        Step::Runs | Step::Paused => {
            pc.wait_until_running(job);
            if let Step::Paused = step {
                pc.owner(&["pause"]);
            }
            return;
        }
        Step::Started | Step::Ended | Step::Receipt => {
            let word = format!("{step:?}").to_lowercase();
            let since = Instant::now();
            let entries = site.file(PC).join("entries");
            loop {
                let text = fs::read_to_string(&entries).unwrap();
                if text.lines().any(|line| has(line, &word)) {
                    return;
                }
                assert!(since.elapsed() < WITHIN, "{job}: {step:?}: {text}");
                tokio::time::sleep(LOOK).await;
            }
        }
    };
    said_by_pc(heard, &format!("{step:?} of {job}"), |text| {
        has(text, in_message)
    })
    .await;
}

/// Waits until the PC says something.
async fn said_by_pc(heard: &mut Subscriber, what: &str, is: impl Fn(&str) -> bool) {
    let found = async {
        while let Some(message) = heard.next().await {
            if is(&String::from_utf8_lossy(&message.payload)) {
                return;
            }
        }
    };
    let found = tokio::time::timeout(WITHIN, found).await;
    found.unwrap_or_else(|_| panic!("the PC never said {what}"));
}

/// Processes of this PC's sandboxes: their bubblewraps name its folder.
fn sandboxes(site: &Site) -> usize {
    let folder = site.file(PC).display().to_string();
    let is_one = |process: &fs::DirEntry| {
        fs::read(process.path().join("cmdline")).is_ok_and(|words| {
            let words = String::from_utf8_lossy(&words);
            words.contains("bwrap") && words.contains(&folder)
        })
    };
    let all = fs::read_dir("/proc").unwrap().flatten();
    all.filter(is_one).count()
}

fn jobs(site: &Site) -> Vec<Value> {
    let ran = site.lend("ci", &["jobs", "--json"]);
    let document: Value = serde_json::from_str(&ran.out).unwrap_or_default();
    document["jobs"].as_array().cloned().unwrap_or_default()
}

/// Waits until a job has its result.
fn wait_until_done(site: &Site, job: &str, what: &str) {
    let since = Instant::now();
    loop {
        let jobs = jobs(site);
        let is_ours = |found: &&Value| found["id"] == job;
        if jobs
            .iter()
            .find(is_ours)
            .is_some_and(|j| j["state"]["done"].is_object())
        {
            return;
        }
        assert!(since.elapsed() < WITHIN, "{what}: {jobs:#?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pc_is_killed_at_each_step_of_a_job() {
    if std::env::var_os("UNDERCROFT_LEND_PC_KILLS").is_none() {
        skip(
            "it takes a minute; UNDERCROFT_LEND_PC_KILLS=1 kills a PC's daemon at each step of a job",
        );
        return;
    }
    let Some(mut site) = Site::new(&[PC]) else {
        return;
    };
    // It holds a borrow of the site, and NATS is killed in between: so its words are made anew for each kill.
    {
        let Some(pc) = Pc::named(&site, PC, SLOTS) else {
            return;
        };
        pc.owner(&["enrol", "--grant", "--until", "1h"]);
    }
    let mut server = site.server();
    let mut said = Vec::new();
    let mut heard = heard(&site).await;
    for (n, (step, with)) in KILLS.into_iter().enumerate() {
        let began = Instant::now();
        let (id, what) = (format!("nap-{n}"), format!("{step:?}, with {with:?}"));
        {
            let pc = Pc::placed(&site, PC, SLOTS);
            let mut daemon = Process::start(pc.command(&["run"]));
            // What is brought while a killed daemon's request waits would be given to that one, and lost for a lease.
            said_by_pc(&mut heard, "that it takes work", |text| {
                text.contains("\"takes_work\":true")
            })
            .await;
            let file = job(&site, &id, "arguments = [\"nap\"]");
            // What a PC has already isn't fetched again.
            fs::write(site.sandbox.dir().join("text.in"), &id).unwrap();
            let ran = site.lend("ci", &["submit", &file]);
            assert_eq!(ran.code, 0, "{what}: {}", ran.text());
            seen(&pc, &site, &mut heard, step, &id).await;
            daemon.kill();
        }
        match with {
            With::Nothing => {}
            With::Nats => {
                site.nats.kill();
                site.nats.begin();
            }
            With::Server => {
                server.kill();
                said.extend(server.lines());
                server = site.server();
            }
        }
        let pc = Pc::placed(&site, PC, SLOTS);
        // Without a daemon, the owner's own command ends what was left.
        let status = pc.status();
        assert_eq!(sandboxes(&site), 0, "{what}");
        let is_paused = matches!(step, Step::Paused);
        assert_eq!(
            status["paused"].is_object(),
            is_paused,
            "{what}: {status:#}"
        );
        if is_paused {
            pc.owner(&["resume"]);
        }
        println!("{what}: {:?}", began.elapsed());
    }
    // Whoever had a job when it was killed may have it until its lease runs out; the others went on meanwhile.
    let pc = Pc::placed(&site, PC, SLOTS);
    let _daemon = Process::start(pc.command(&["run"]));
    for (n, (step, with)) in KILLS.into_iter().enumerate() {
        let (id, what) = (format!("nap-{n}"), format!("{step:?}, with {with:?}"));
        wait_until_done(&site, &id, &what);
        let ran = site.lend("ci", &["result", &id, "-o", "out"]);
        assert_eq!(ran.code, 0, "{what}: {}", ran.text());
        let out = fs::read_to_string(site.sandbox.dir().join("out")).unwrap();
        assert_eq!(out, id.to_uppercase(), "{what}");
    }
    said.extend(server.lines());
    settled(&site, &said);
}

/// Each job has one result, was handed out under a number of its own each time, and has its receipts.
fn settled(site: &Site, said: &[String]) {
    let since = Instant::now();
    let verdict = loop {
        let mut verify = site
            .sandbox
            .command(["lend", "audit", "verify", "--device", PC, "--json"]);
        let ran = site
            .sandbox
            .finish(verify.arg(site.file(PC).join("entries")));
        assert_eq!(ran.code, 0, "{}", ran.text());
        let verdict: Value = serde_json::from_str(&ran.out).unwrap();
        if verdict["open"].as_array().unwrap().is_empty() {
            break verdict;
        }
        assert!(since.elapsed() < WITHIN, "{verdict:#}");
        std::thread::sleep(Duration::from_millis(100));
    };
    assert_eq!(verdict["begun"], verdict["receipts"], "{verdict:#}");
    println!("{} jobs: {verdict}", KILLS.len());
    for n in 0..KILLS.len() {
        let of = |kind: &str| -> Vec<Value> {
            let lines = said
                .iter()
                .filter_map(|l| serde_json::from_str::<Value>(l).ok());
            let events = lines.map(|line| line["event"][kind].clone());
            events.filter(|e| e["job"] == format!("nap-{n}")).collect()
        };
        // A server that is killed between its word to the store and its line has said nothing.
        assert!(of("done").len() <= 1, "nap-{n}: {:#?}", of("done"));
        let epochs = of("assigned");
        let mut epochs: Vec<u64> = epochs
            .iter()
            .map(|e| e["epoch"].as_u64().unwrap())
            .collect();
        let count = epochs.len();
        epochs.sort_unstable();
        epochs.dedup();
        assert_eq!(
            epochs.len(),
            count,
            "nap-{n} was handed out twice under one number"
        );
    }
}
