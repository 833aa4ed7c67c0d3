//! A PC with all that is real: the daemon, its sandbox, the server, NATS with TLS, and what its owner says.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use undercroft_testkit::{OrSkip as _, program, skip};

use crate::{
    site::{Process, Site, WITHIN},
    support::Ran,
};

pub(crate) const PC: &str = "desk";
/// Rests between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// What is lent: it shouts its input, or stays with twenty children that heed nothing.
const PROGRAM: &str = r#"
#include <ctype.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "nap")) {
        sleep(3);
    } else if (argc > 1) {
        for (int s = 1; s < 32; s++) signal(s, SIG_IGN);
        for (int i = 0; i < 20; i++)
            if (!fork()) { setsid(); for (;;) pause(); }
        for (;;) pause();
    }
    FILE *in = fopen("/in/text", "r"), *out = fopen("/out/result", "w");
    if (!in || !out) return 3;
    for (int c; (c = fgetc(in)) != EOF;) fputc(toupper(c), out);
    puts("shouted");
    return fclose(out);
}
"#;

pub(crate) struct Pc<'a> {
    site: &'a Site,
    config: PathBuf,
    run: PathBuf,
}

impl<'a> Pc<'a> {
    /// `None`, said openly, where something of it isn't on this machine.
    pub(crate) fn of(site: &'a Site) -> Option<Self> {
        Self::named(site, PC, 1)
    }

    /// One of several, with so many jobs at a time.
    pub(crate) fn named(site: &'a Site, name: &str, slots: u32) -> Option<Self> {
        program("bwrap", "bubblewrap").or_skip()?;
        let cc = program("cc", "gcc").or_skip()?;
        let command = Path::new(env!("CARGO_BIN_EXE_undercroft"));
        if !command.with_file_name("undercroft-job").is_file() {
            skip("undercroft-job isn't built; `cargo build -p undercroft-jobrun` makes it");
            return None;
        }
        let source = site.file("program.c");
        fs::write(&source, PROGRAM).unwrap();
        let made = Command::new(cc)
            .args(["-static", "-O1", "-o"])
            .args([&site.sandbox.dir().join("shout"), &source])
            .status();
        assert!(made.unwrap().success());
        Some(Self::placed(site, name, slots))
    }

    /// The same PC once more.
    pub(crate) fn placed(site: &'a Site, name: &str, slots: u32) -> Self {
        let config = site.file(&format!("{name}.json"));
        let run = site.file(&format!("{name}-run"));
        fs::create_dir_all(&run).unwrap();
        let policy = json!({
            "version": 1, "fleet": "cellar", "device": name, "class": "pc", "owner": "ada", "natsUrl": site.nats.url(),
            "caFile": site.nats.ca(), "stateDirectory": site.file(name), "runtimes": ["process", "nix"], "tenants": ["research"],
            "maxSensitivity": "public", "slots": slots, "cpuPercent": 100, "memoryMb": 256 * slots, "diskMb": 128 * slots, "jobWallS": 600,
            "heartbeatS": 2, "pauseS": 60, "when": { "idleAfterS": 1, "hasSeat": false },
        });
        fs::write(&config, policy.to_string()).unwrap();
        Self { site, config, run }
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.site.sandbox.command(["lend"]);
        command.args(args).arg("--config").arg(&self.config);
        command.env("XDG_RUNTIME_DIR", &self.run);
        command
    }

    /// What its owner says.
    pub(crate) fn owner(&self, args: &[&str]) -> Ran {
        let ran = self.site.sandbox.finish(&mut self.command(args));
        assert_eq!(ran.code, 0, "{args:?}: {}", ran.text());
        ran
    }

    pub(crate) fn status(&self) -> Value {
        serde_json::from_str(&self.owner(&["status", "--json"]).out).unwrap()
    }

    /// Waits until a job runs in its sandbox whose name begins so.
    pub(crate) fn wait_until_running(&self, job: &str) {
        let since = Instant::now();
        let runs = |status: &Value| {
            let jobs = status["jobs"].as_array().into_iter().flatten();
            jobs.clone().any(|held| {
                held["job"]
                    .as_str()
                    .is_some_and(|name| name.starts_with(job))
                    && held["phase"] == "runs"
            })
        };
        loop {
            // A daemon that has just begun has its folder already, and no socket yet.
            let mut status = self.command(&["status", "--json"]);
            let ran = self.site.sandbox.finish(&mut status);
            if runs(&serde_json::from_str(&ran.out).unwrap_or_default()) {
                return;
            }
            assert!(since.elapsed() < WITHIN, "{}", ran.text());
            std::thread::sleep(LOOK);
        }
    }
}

impl Drop for Pc<'_> {
    /// What a killed daemon has left, its control groups among it, the next one ends and removes: here an owner's
    /// command without a daemon.
    fn drop(&mut self) {
        let _ = self.command(&["status"]).output();
    }
}

pub(crate) fn job(site: &Site, id: &str, more: &str) -> String {
    fs::write(site.sandbox.dir().join("text.in"), "hello").unwrap();
    let name = format!("{id}.toml");
    let text = format!(
        "id = \"{id}\"\ntenant = \"research\"\nruntime = \"process\"\nartefact = \"shout\"\nsensitivity = \"public\"\n{more}\n\
         [inputs]\ntext = \"text.in\"\n[limits]\ncpu_percent = 100\nmemory_mb = 64\ndisk_mb = 16\nwall_s = 300\n"
    );
    site.sandbox.write(&name, &text);
    name
}

#[test]
fn a_pc_works_for_others_and_is_its_owners_again_with_a_receipt_that_verifies() {
    let Some(site) = Site::new(&[PC]) else {
        return;
    };
    let Some(pc) = Pc::of(&site) else {
        return;
    };
    let server = site.server();
    // Its keys are there already, as the inventory names them: enrolling again makes no others.
    let enrolled = pc.owner(&["enrol", "--grant", "--until", "1h"]);
    assert!(
        enrolled.out.contains(&site.accounts.devices[PC]),
        "{}",
        enrolled.text()
    );
    let _daemon = Process::start(pc.command(&["run"]));
    let ran = site.lend("ci", &["submit", &job(&site, "shout-1", ""), "--wait"]);
    assert_eq!(ran.code, 0, "{}", ran.text());
    assert!(
        ran.out.contains("done: 5 bytes by desk, under its owner's"),
        "{}",
        ran.text()
    );
    let ran = site.lend("ci", &["result", "shout-1", "-o", "out"]);
    assert_eq!(ran.code, 0, "{}", ran.text());
    let out = fs::read_to_string(site.sandbox.dir().join("out")).unwrap();
    assert_eq!(out, "HELLO");
    assert_eq!(site.lend("ci", &["logs", "shout-1"]).out, "shouted\n");

    // Taken back in the middle of a job that doesn't want to end.
    let file = job(&site, "stay-1", "arguments = [\"stay\"]");
    let ran = site.lend("ci", &["submit", &file]);
    assert_eq!(ran.code, 0, "{}", ran.text());
    pc.wait_until_running("stay-1");
    let revoked = pc.owner(&["revoke"]);
    assert!(
        revoked
            .out
            .contains("No process and no file of a job is left")
            && revoked.out.contains("ended: stay-1"),
        "{}",
        revoked.text()
    );
    // That it was given back may still be on its way.
    let status = pc.status();
    let left = status["jobs"].as_array().unwrap();
    let is_over = |job: &serde_json::Value| job["phase"] == "is reported";
    assert!(left.iter().all(is_over), "{status:#}");
    server.wait_for(|line| {
        line.contains("\"queued\"") && line.contains("stay-1") && line.contains("\"desk\"")
    });

    // The ledger says so, by the PC's own file and by what the server has, which no daemon is needed for.
    let own = site.file(PC).join("entries");
    let verify = ["lend", "audit", "verify", "--device", PC];
    let mut by_file = site.sandbox.command(verify);
    let ran = site.sandbox.finish(by_file.arg(&own));
    assert_eq!(ran.code, 0, "{}", ran.text());
    assert!(
        ran.out
            .contains("2 jobs begun, 2 receipts, 0 open; its owner lends nothing"),
        "{}",
        ran.text()
    );
    // A word that was changed afterwards is named.
    let text = fs::read_to_string(&own).unwrap();
    fs::write(&own, text.replacen("shout-1", "shout-2", 1)).unwrap();
    let mut changed = site.sandbox.command(verify);
    let ran = site.sandbox.finish(changed.arg(&own));
    assert_ne!(ran.code, 0, "{}", ran.text());
}
