//! A PC whose disk is full: nothing is begun, nothing is forgotten, and it goes on when there is room again.

use std::{
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::{Child, Command},
    time::Instant,
};

use serde_json::Value;
use undercroft_testkit::{OrSkip as _, program, skip};

use crate::{
    pc::{PC, Pc, job},
    site::{Site, WITHIN},
};

/// Gives the daemon a disk of its own, in a mount namespace that ends with it.
const DISK: &str = r#"
side=$1; state=$2; shift 2
mkdir "$side" && mount -t tmpfs -o size=1100m,mode=700 none "$side" && cp -a "$state/." "$side/" &&
mount --move "$side" "$state" && exec "$@"
"#;
/// Takes all of it but so many KiB.
const FILL: &str = r#"
cd "$1" && rm -f filler && free=$(df -k --output=avail . | tail -n 1) && fallocate -l $((free - $2))K filler
"#;

/// The daemon.
struct Daemon<'a> {
    child: Child,
    state: &'a Path,
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl<'a> Daemon<'a> {
    fn start(pc: &Pc<'_>, state: &'a Path, side: &Path) -> Self {
        let run = pc.command(&["run"]);
        let mut command = Command::new("unshare");
        command
            .args([
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                DISK,
                "sh",
            ])
            .args([side, state])
            .arg(run.get_program())
            .args(run.get_args())
            .current_dir(run.get_current_dir().unwrap())
            .env_clear();
        for (name, value) in run.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        let child = command.spawn().unwrap();
        Self { child, state }
    }

    /// Runs something where its disk is.
    fn inside(&self, script: &str, free_kb: u32) -> String {
        let output = Command::new("nsenter")
            .args(["--mount", "--target", &self.child.id().to_string()])
            .args(["sh", "-c", script, "sh"])
            .arg(self.state)
            .arg(free_kb.to_string())
            .output()
            .unwrap();
        assert!(output.status.success(), "{script}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

/// Waits until the PC says something of itself.
fn until(pc: &Pc<'_>, site: &Site, what: &str, is: impl Fn(&Value) -> bool) {
    let since = Instant::now();
    loop {
        let ran = site.sandbox.finish(&mut pc.command(&["status", "--json"]));
        if serde_json::from_str(&ran.out).is_ok_and(|status| is(&status)) {
            return;
        }
        assert!(since.elapsed() < WITHIN, "{what}: {}", ran.text());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn a_full_disk_begins_nothing_and_forgets_nothing() {
    let Some(site) = Site::new(&[PC]) else {
        return;
    };
    let Some(pc) = Pc::of(&site) else {
        return;
    };
    for (name, package) in [("unshare", "util-linux"), ("fallocate", "util-linux")] {
        if program(name, package).or_skip().is_none() {
            return;
        }
    }
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        return skip("a disk of its own takes root to mount");
    }
    let server = site.server();
    pc.owner(&["enrol", "--grant", "--until", "1h"]);
    let state = site.file(PC);
    let daemon = Daemon::start(&pc, &state, &site.file("side"));
    let takes_work = |status: &Value| {
        status["running"] == true && status["why_not"].as_array().is_some_and(Vec::is_empty)
    };
    until(&pc, &site, "takes work", takes_work);
    // No room for a line in the ledger, and then none for what the job runs.
    for (n, free_kb) in [0, 100].into_iter().enumerate() {
        daemon.inside(FILL, free_kb);
        let id = format!("full-{n}");
        let ran = site.lend("ci", &["submit", &job(&site, &id, "")]);
        assert_eq!(ran.code, 0, "{}", ran.text());
        let back = server.wait_for(|line| line.contains("\"queued\"") && line.contains(&id));
        println!("{free_kb} KiB free: {back}");
        daemon.inside("rm \"$1/filler\"", 0);
        server.wait_for(|line| line.contains("\"done\"") && line.contains(&id));
    }
    until(&pc, &site, "has nothing left", |status| {
        status["jobs"].as_array().is_some_and(Vec::is_empty)
    });
    // The ledger holds, with a receipt for whatever was begun.
    let entries = daemon.inside("cat \"$1/entries\"", 0);
    let copy = site.file("entries.copy");
    std::fs::write(&copy, entries).unwrap();
    let mut verify = site
        .sandbox
        .command(["lend", "audit", "verify", "--device", PC, "--json"]);
    let ran = site.sandbox.finish(verify.arg(&copy));
    assert_eq!(ran.code, 0, "{}", ran.text());
    let verdict: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(verdict["begun"], verdict["receipts"], "{verdict:#}");
}
