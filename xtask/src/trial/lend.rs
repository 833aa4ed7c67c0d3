//! `cargo xtask try --lend`: lending on one machine, from nothing to a PC that is its owner's again.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Child,
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    packages, peers,
    run::{Failed, Step, cache_dir},
};

/// How long something may take that takes seconds at most.
const WITHIN: Duration = Duration::from_secs(60);
/// How long a server and a daemon may take to end in order, before they are killed.
const ENDS_WITHIN: Duration = Duration::from_secs(15);
/// Rests between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// Whoever brings work.
const BRINGS: [&str; 4] = ["--key", "you.nk", "--ca", "ca.crt"];
/// The PC's owner.
const OWNS: [&str; 2] = ["--config", "desk.json"];

pub(super) fn run() -> Result<(), Failed> {
    packages::ensure_named(&["gcc", "libc6-dev", "bubblewrap"])?;
    let nats = peers::program("nats-server")?;
    Step::new("build undercroft and undercroft-job", "cargo")
        .args(["build", "--quiet", "--package", "undercroft"])
        .args(["--package", "undercroft-jobrun"])
        .run()?;
    let begun = Instant::now();
    let folder = cache_dir().join("try-lend");
    let failed =
        |error: std::io::Error| Failed::new("try", format!("{}: {error}", folder.display()));
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(failed)?;
    }
    fs::create_dir_all(&folder).map_err(failed)?;
    let mut desk = Desk {
        undercroft: super::target_dir().join("debug/undercroft"),
        folder,
        runs: Vec::new(),
    };
    let tried = desk.show(&nats);
    let ended = desk.end();
    tried?;
    ended?;
    println!(
        "\nDone in {:.0} s. Nothing of it runs any more; its files are in {}.",
        begun.elapsed().as_secs_f64(),
        super::relative(&desk.folder)
    );
    println!("  docs/lend-your-pc.md        # the same by hand, and what your PC goes by");
    println!("  docs/lending-security.md    # what a job can't do, and which test shows it");
    Ok(())
}

/// The folder, and what runs in it.
struct Desk {
    undercroft: PathBuf,
    folder: PathBuf,
    runs: Vec<(&'static str, Child)>,
}

impl Desk {
    fn step(&self, name: &str, words: &[&str], who: &[&str]) -> Step {
        Step::new(name, &self.undercroft)
            .within(&self.folder)
            .args(["lend"])
            .args(words)
            .args(who)
            // A socket of its own, whatever daemon this user has.
            .env("XDG_RUNTIME_DIR", &self.folder)
    }

    fn show(&mut self, nats: &Path) -> Result<(), Failed> {
        let demo = self
            .step(
                "NATS with TLS, and a server of lending",
                &["demo", "."],
                &[],
            )
            .args(["--nats-server"])
            .args([nats])
            .spawn()?;
        self.runs.push(("the servers", demo));
        self.wait("the server", |desk| {
            let jobs = desk.step("look", &["jobs", "--json"], &BRINGS);
            Ok(jobs.quiet_output().is_ok())
        })?;
        self.step(
            "the owner agrees, for an hour",
            &["enrol", "--grant", "--until", "1h"],
            &OWNS,
        )
        .run()?;
        let daemon = self.step("the PC's daemon", &["run"], &OWNS).spawn()?;
        self.runs.push(("the daemon", daemon));
        self.step(
            "somebody brings a job",
            &["submit", "first-job.toml", "--wait"],
            &BRINGS,
        )
        .run()?;
        self.step(
            "and takes its result",
            &["result", "first-job", "-o", "first-job.out"],
            &BRINGS,
        )
        .run()?;
        let result = self.folder.join("first-job.out");
        let text = fs::read_to_string(&result)
            .map_err(|e| Failed::new("try", format!("{}: {e}", result.display())))?;
        println!("\n    {}", text.trim_end());
        self.step(
            "somebody brings a job without an end",
            &["submit", "endless-job.toml"],
            &BRINGS,
        )
        .run()?;
        self.wait("endless-job in its sandbox", |desk| {
            let status = desk
                .step("look", &["status", "--json"], &OWNS)
                .quiet_output()?;
            let status: Value = serde_json::from_str(&status).unwrap_or_default();
            let phase = status.pointer("/jobs/0/phase").and_then(Value::as_str);
            Ok(phase == Some("runs"))
        })?;
        self.step("the owner has the PC back", &["revoke"], &OWNS)
            .run()?;
        self.step(
            "the ledger, by public keys alone",
            &["audit", "verify", "desk/entries", "--device", "desk"],
            &[],
        )
        .run()?;
        self.step("what it came to", &["log", "--week"], &OWNS)
            .run()
    }

    /// Waits until something is so.
    fn wait(
        &mut self,
        what: &str,
        is_so: impl Fn(&Self) -> Result<bool, Failed>,
    ) -> Result<(), Failed> {
        let since = Instant::now();
        loop {
            for (name, child) in &mut self.runs {
                if let Ok(Some(status)) = child.try_wait() {
                    return Err(Failed::new("try", format!("{name} ended with {status}")));
                }
            }
            if is_so(self)? {
                return Ok(());
            }
            if since.elapsed() > WITHIN {
                let why = format!("{what} isn't there within {} s", WITHIN.as_secs());
                return Err(Failed::new("try", why));
            }
            sleep(LOOK);
        }
    }

    /// Ends all that was started, the last first.
    fn end(&mut self) -> Result<(), Failed> {
        let mut fault = None;
        for (name, mut child) in self.runs.drain(..).rev() {
            let told = Step::new(&format!("end {name}"), "kill")
                .args(["-TERM", &child.id().to_string()])
                .run();
            let since = Instant::now();
            while told.is_ok() && since.elapsed() < ENDS_WITHIN {
                if let Ok(Some(_)) = child.try_wait() {
                    break;
                }
                sleep(LOOK);
            }
            if !matches!(child.try_wait(), Ok(Some(_))) {
                let _ = child.kill();
                let _ = child.wait();
                fault = Some(Failed::new("try", format!("{name} had to be killed")));
            }
        }
        fault.map_or(Ok(()), Err)
    }
}
