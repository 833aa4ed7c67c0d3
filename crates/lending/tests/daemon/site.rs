//! A PC, its owner and a real nats-server.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nkeys::KeyPair;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::watch;
use undercroft_folder::confined::Confined;
use undercroft_lend::{consent::Said, device::Entry, wire::Ended};
use undercroft_lending::{
    daemon::{Daemon, DaemonSettings, Told},
    device_keys::OwnKeys,
    idle::Session,
    owner::{Call, OwnerAnswer, OwnerAsk, Status, call},
    policy::Policy,
    watch::Roots,
};
use undercroft_testkit::{OrSkip as _, peer, program, skip};

use crate::played::Played;

pub(crate) const DEVICE: &str = "ada-pc";
/// How long anything here may take that takes a second or two.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Rests between two looks.
const LOOK: Duration = Duration::from_millis(20);
/// Names the folder of a PC to a test that is to be its daemon.
const BE: &str = "UNDERCROFT_TEST_DAEMON_OF";
/// What jobs run here: one copies its input, one exits, and one stays with twenty children that heed nothing.
const PROGRAM: &str = r#"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv) {
    if (argc > 2 && !strcmp(argv[1], "exit")) return atoi(argv[2]);
    if (argc > 1 && !strcmp(argv[1], "stay")) {
        for (int i = 0; i < 20; i++)
            if (!fork()) { setsid(); for (int s = 1; s < 32; s++) signal(s, SIG_IGN); for (;;) pause(); }
        for (;;) pause();
    }
    FILE *in = fopen("/in/text", "r"), *out = fopen("/out/result", "w");
    if (!in || !out) return 3;
    for (int c; (c = fgetc(in)) != EOF;) fputc(c, out);
    return fclose(out);
}
"#;

/// The server, with the accounts of one PC and one server of lending.
pub(crate) struct Nats {
    program: PathBuf,
    config: PathBuf,
    port: u16,
    pub(crate) server_seed: String,
    child: Option<Child>,
}

impl Nats {
    fn new(program: PathBuf, folder: &Path, device: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let server = KeyPair::new_user();
        let config = json!({
            "listen": format!("127.0.0.1:{port}"),
            "accounts": { "LEND": { "users": [
                { "nkey": server.public_key() },
                { "nkey": device, "permissions": {
                    "publish": { "allow": [format!("lend.want.{DEVICE}"), format!("lend.beat.{DEVICE}"), format!("lend.out.{DEVICE}.>")] },
                    "subscribe": { "allow": [format!("_INBOX_{DEVICE}.>")] },
                } },
            ] } },
        });
        let path = folder.join("nats.conf");
        fs::write(&path, config.to_string()).unwrap();
        let mut nats = Self {
            program,
            config: path,
            port,
            server_seed: server.seed().unwrap(),
            child: None,
        };
        nats.begin();
        nats
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub(crate) fn begin(&mut self) {
        let child = Command::new(&self.program)
            .arg("-c")
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        let since = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(since.elapsed() < PATIENCE, "nats-server doesn't listen");
            std::thread::sleep(LOOK);
        }
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) struct Site {
    pub(crate) played: Played,
    pub(crate) nats: Nats,
    daemon: Option<Child>,
    folder: TempDir,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.kill();
        // What a killed daemon has left, its control groups among it, the next one ends and removes.
        let settings = settings(self.folder.path());
        let swept = std::thread::spawn(|| {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            drop(runtime.block_on(Daemon::open(settings)));
        });
        let _ = swept.join();
    }
}

fn policy(folder: &Path) -> Policy {
    Policy::read(&folder.join("lending.json")).unwrap()
}

fn settings(folder: &Path) -> DaemonSettings {
    DaemonSettings {
        policy: policy(folder),
        roots: Roots {
            sys: folder.join("sys"),
            proc: folder.join("proc"),
        },
        job_program: None,
        told: watch::Sender::new(Told::default()),
    }
}

/// Runs a daemon until it is killed, where the tests have started themselves for that.
pub(crate) async fn be_a_daemon() {
    let Some(folder) = std::env::var_os(BE).map(PathBuf::from) else {
        return;
    };
    let daemon = Daemon::open(settings(&folder)).await.unwrap();
    let session = Session {
        runtime_dir: None,
        display: None,
    };
    let socket = folder.join("socket");
    let ran = daemon.run(&socket, session, std::future::pending()).await;
    ran.unwrap();
}

impl Site {
    /// `None`, said openly, where something of it isn't on this machine.
    pub(crate) async fn open() -> Option<Self> {
        let nats = peer("nats-server").or_skip()?;
        program("bwrap", "bubblewrap").or_skip()?;
        let cc = program("cc", "gcc").or_skip()?;
        let own = std::env::current_exe().unwrap();
        if !own
            .ancestors()
            .any(|above| above.join("undercroft-job").is_file())
        {
            skip("undercroft-job isn't built; `cargo build -p undercroft-jobrun` makes it");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let source = at.join("job.c");
        fs::write(&source, PROGRAM).unwrap();
        let made = Command::new(cc)
            .args(["-static", "-O1", "-o"])
            .args([&at.join("job"), &source])
            .status();
        assert!(made.unwrap().success());
        fs::create_dir_all(at.join("sys")).unwrap();
        fs::create_dir_all(at.join("proc")).unwrap();
        let keys = OwnKeys::read_or_make(&Confined::new(at.join("state")))
            .unwrap()
            .public();
        let nats = Nats::new(nats, at, &keys.device.0);
        let policy = json!({
            "version": 1, "fleet": "cellar", "device": DEVICE, "class": "pc", "owner": "ada", "natsUrl": nats.url(),
            "stateDirectory": at.join("state"), "runtimes": ["process"], "tenants": ["batch"], "maxSensitivity": "public",
            "slots": 2, "cpuPercent": 100, "memoryMb": 512, "diskMb": 256, "jobWallS": 600, "heartbeatS": 1, "pauseS": 60,
            "when": { "idleAfterS": 1, "hasSeat": false },
        });
        fs::write(at.join("lending.json"), policy.to_string()).unwrap();
        let job = fs::read(at.join("job")).unwrap();
        let played = Played::new(&nats, keys, job).await;
        let site = Self {
            played,
            nats,
            daemon: None,
            folder,
        };
        let OwnerAnswer::Status(status) = site.ask_alone(OwnerAsk::Status).await else {
            panic!("no status");
        };
        assert!(status.consent.is_none());
        Some(site)
    }

    /// Starts the daemon as a process of its own.
    pub(crate) fn start(&mut self) {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_daemon_of_its_own", "--nocapture"])
            .env(BE, self.folder.path())
            .env_remove("DBUS_SESSION_BUS_ADDRESS")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.daemon = Some(child);
    }

    /// Kills the daemon as a power cut would, as far as a process can tell.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// Asks the daemon, which may just be starting.
    pub(crate) async fn ask(&self, ask: OwnerAsk) -> OwnerAnswer {
        let since = Instant::now();
        loop {
            match call(&self.socket(), ask.clone()).await {
                Ok(Call::Answer(answer)) => return *answer,
                Ok(Call::NotRunning) | Err(_) => {
                    assert!(since.elapsed() < PATIENCE, "the daemon doesn't listen");
                    tokio::time::sleep(LOOK).await;
                }
            }
        }
    }

    /// Asks without a daemon.
    pub(crate) async fn ask_alone(&self, ask: OwnerAsk) -> OwnerAnswer {
        let daemon = Daemon::open(settings(self.folder.path())).await.unwrap();
        daemon.answer(ask).await.unwrap()
    }

    pub(crate) async fn grant(&self) {
        let answer = self.ask_alone(OwnerAsk::Grant { until_ms: None }).await;
        assert!(matches!(answer, OwnerAnswer::Offers(_)), "{answer:?}");
    }

    pub(crate) fn begin_to_revoke(&self) {
        let socket = self.socket();
        tokio::spawn(async move { call(&socket, OwnerAsk::Revoke).await });
    }

    pub(crate) async fn until(&self, what: &str, is: impl Fn(&Status) -> bool) {
        let since = Instant::now();
        loop {
            let OwnerAnswer::Status(status) = self.ask(OwnerAsk::Status).await else {
                panic!("no status");
            };
            if is(&status) {
                return;
            }
            assert!(since.elapsed() < PATIENCE, "it isn't {what}: {status:#?}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until a job runs: its processes are there.
    pub(crate) async fn runs(&self, job: &str) {
        self.until("at work", |status| {
            status
                .jobs
                .iter()
                .any(|j| j.job == job && j.phase == "runs" && j.cpu_ms.is_some())
        })
        .await;
        let since = Instant::now();
        while self.processes() < 20 {
            assert!(since.elapsed() < PATIENCE, "{} processes", self.processes());
            tokio::time::sleep(LOOK).await;
        }
    }

    pub(crate) async fn ended(&self, job: &str) -> Ended {
        let since = Instant::now();
        loop {
            if let Some(ended) = self.played.ended(job) {
                return ended;
            }
            assert!(
                since.elapsed() < PATIENCE,
                "{job} hasn't ended: {:#?}",
                self.ask(OwnerAsk::Status).await
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Processes of jobs that are there: those in the control group of this PC's jobs.
    pub(crate) fn processes(&self) -> usize {
        let record = self.folder.path().join("state/jobs/groups.json");
        let record: serde_json::Value = match fs::read(record) {
            Ok(text) => serde_json::from_slice(&text).unwrap(),
            Err(_) => return 0,
        };
        let control = Path::new(record["control"].as_str().unwrap());
        let group = format!("/{}/", control.file_name().unwrap().to_string_lossy());
        // What has ended stays in the list until its parent has asked how: it is no process any more.
        let is_dead = |process: &fs::DirEntry| {
            fs::read_to_string(process.path().join("status")).map_or(true, |text| {
                text.contains("State:\tZ") || text.contains("State:\tX")
            })
        };
        let is_below = |process: &fs::DirEntry| {
            fs::read_to_string(process.path().join("cgroup"))
                .is_ok_and(|text| text.contains(&group) && !is_dead(process))
        };
        fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter(is_below)
            .count()
    }

    /// Whether nothing of a job is left on the disk.
    pub(crate) fn is_wiped(&self) -> bool {
        ["state/jobs/jobs", "state/cache", "state/made"]
            .iter()
            .all(|name| fs::read_dir(self.folder.path().join(name)).map_or(0, Iterator::count) == 0)
    }

    /// What the last records of the ledger say.
    pub(crate) fn said_last(&self, count: usize) -> Vec<Said> {
        let text = fs::read_to_string(self.folder.path().join("state/entries")).unwrap();
        let entries = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Entry>(&line[9..]).ok());
        let said: Vec<Said> = entries
            .filter_map(|entry| match entry {
                Entry::Record(record) => Some(record.claim.said),
                _ => None,
            })
            .collect();
        said[said.len().saturating_sub(count)..].to_vec()
    }

    pub(crate) fn on_battery(&self) {
        let supply = self.folder.path().join("sys/class/power_supply/AC");
        fs::create_dir_all(&supply).unwrap();
        fs::write(supply.join("type"), "Mains").unwrap();
        fs::write(supply.join("online"), "0").unwrap();
        let battery = self.folder.path().join("sys/class/power_supply/BAT0");
        fs::create_dir_all(&battery).unwrap();
        fs::write(battery.join("type"), "Battery").unwrap();
        fs::write(battery.join("status"), "Discharging").unwrap();
    }

    pub(crate) fn on_mains(&self) {
        fs::remove_dir_all(self.folder.path().join("sys/class")).unwrap();
    }
}
