//! Repositories that somebody made to harm whoever uses them, and the state folder in every way in
//! which it may not be believed: the built command on each, in a folder of its own.
//!
//! What is told apart here is said in docs/security.md, "The repository".

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers end the test where something is missing"
)]

#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "other suites use more of it")]
mod support;

mod files;
mod leftovers;
mod rendered;
mod state;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// How long a command may take on a hostile repository: each takes a fraction of a second, and one
/// that waits for a FIFO would take for ever.
const COMMAND_MAX: Duration = Duration::from_secs(60);

/// What must never be printed, nor written anywhere.
const SECRET: &str = "correct-horse-battery-staple";

const INVENTORY: &str = r#"[fleet]
name = "cellar"

[network]
node_cidr = "10.0.0.0/24"
server_address = "10.0.0.2"

[kubernetes]
distribution = "k3s"
version = "1.34"
founder = "control-01"

[gitops]
repository = "https://git.example/fleet.git"
components = ["cilium", "cert-manager"]

[classes.control]
kind = "control"
layout = "ext4"

[nodes.control-01]
class = "control"
macs = ["3c:ec:ef:10:00:01"]
address = "10.0.0.11"
disks = [{ serial = "S6S2NS0T834821" }]
"#;

/// A victim: a home with something to steal and to lose, and the repository beside it.
struct Victim {
    root: TempDir,
}

impl Victim {
    /// A repository with an inventory alone.
    fn new() -> Self {
        let victim = Self {
            root: TempDir::new().unwrap(),
        };
        for folder in ["home", "outside/inner", "repository"] {
            fs::create_dir_all(victim.root.path().join(folder)).unwrap();
        }
        for file in [
            "outside/key",
            "outside/inner/key.yaml",
            "outside/key.sops.yaml",
        ] {
            fs::write(
                victim.root.path().join(file),
                format!("key: {SECRET}\nother: [{SECRET}\n"),
            )
            .unwrap();
        }
        victim.write("undercroft.toml", INVENTORY);
        victim
    }

    /// One that was used already: rendered, with secrets and a state.
    fn in_use() -> Self {
        let victim = Self::new();
        for words in [["render"].as_slice(), &["secrets", "init"]] {
            let ran = victim.run(words);
            assert_eq!(ran.code, 0, "{}", ran.text());
        }
        victim
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join("repository")
    }

    fn outside(&self) -> PathBuf {
        self.root.path().join("outside")
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.dir().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Puts a link in the place of whatever is there.
    fn link(&self, name: &str, target: &Path) {
        let path = self.place(name);
        std::os::unix::fs::symlink(target, path).unwrap();
    }

    /// Makes room at a name.
    fn place(&self, name: &str) -> PathBuf {
        let path = self.dir().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => fs::remove_dir_all(&path).unwrap(),
            Ok(_) => fs::remove_file(&path).unwrap(),
            Err(_) => {}
        }
        path
    }

    /// The command, ready to be run.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_undercroft"));
        command
            .args(words)
            .current_dir(self.dir())
            .env_clear()
            .env("HOME", self.root.path().join("home"))
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            // What a link to /proc/self/environ would show.
            .env("UNDERCROFT_TEST_SECRET", SECRET)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs the command to its end, which must come soon.
    fn run(&self, words: &[&str]) -> support::Ran {
        let mut child = self.command(words).spawn().unwrap();
        let begun = Instant::now();
        let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let read = |from: &mut dyn std::io::Read| {
            let mut text = Vec::new();
            from.read_to_end(&mut text).unwrap();
            String::from_utf8_lossy(&text).into_owned()
        };
        std::thread::scope(|scope| {
            let out = scope.spawn(move || read(&mut out));
            let err = scope.spawn(move || read(&mut err));
            let status = loop {
                if let Some(status) = child.try_wait().unwrap() {
                    break status;
                }
                if begun.elapsed() > COMMAND_MAX {
                    child.kill().unwrap();
                    panic!("`undercroft {}` doesn't end", words.join(" "));
                }
                std::thread::sleep(Duration::from_millis(5));
            };
            support::Ran {
                code: status.code().expect("the command wasn't killed"),
                out: out.join().unwrap(),
                err: err.join().unwrap(),
            }
        })
    }

    /// Everything beneath a folder: by path what it is, whose, and its bytes.
    fn picture(&self, folder: &Path) -> BTreeMap<PathBuf, (u32, u64, Vec<u8>)> {
        let mut found = BTreeMap::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let meta = fs::symlink_metadata(&path).unwrap();
                let bytes = if meta.is_file() && meta.len() < 1 << 24 {
                    fs::read(&path).unwrap()
                } else {
                    Vec::new()
                };
                if meta.is_dir() {
                    folders.push(path.clone());
                }
                found.insert(path, (meta.mode(), meta.ino(), bytes));
            }
        }
        found
    }

    /// Makes the repository one of git's, with these files committed by force.
    fn commit(&self, forced: &[&str]) {
        for words in [
            ["init", "-q"].as_slice(),
            &["add", "-A"],
            &[&["add", "-f", "--"], forced].concat(),
            &["commit", "-q", "-m", "x"],
        ] {
            if words.len() == 3 && words.last() == Some(&"--") {
                continue;
            }
            self.git(words);
        }
    }

    fn git(&self, words: &[&str]) -> String {
        let output = Command::new("git")
            .args(["-c", "user.name=a", "-c", "user.email=a@example.org"])
            .args(words)
            .current_dir(self.dir())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("HOME", self.root.path().join("home"))
            .output()
            .unwrap();
        assert!(output.status.success(), "git {words:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// Whether git is here; a test that needs it is skipped openly where it isn't.
fn has_git() -> bool {
    let there = Command::new("git")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !there {
        undercroft_testkit::skip("git isn't here; `apt-get install git` brings it");
    }
    there
}

/// Nothing of what was to be stolen is in what a command printed.
fn tells_nothing(ran: &support::Ran, what: &str) {
    let text = ran.text();
    assert!(!text.contains(SECRET), "{what}: {text}");
    assert!(!text.contains("AGE-SECRET-KEY-"), "{what}: {text}");
    assert!(!text.contains("root:x:0:0"), "{what}: {text}");
    assert_ne!(ran.code, 70, "{what}: {text}");
}

/// Every command that reads something of a repository and needs no machine; those that write come
/// last.
const COMMANDS: &[&[&str]] = &[
    &["check"],
    &["check", "--json"],
    &["render", "--check"],
    &["secrets", "list"],
    &["secrets", "check"],
    &["status"],
    &["events"],
    &["plan"],
    &["doctor", "control-01"],
    &["approve"],
    &["update", "--dry-run", "nothing-by-that-name"],
    &["rehearse", "--seeds", "1"],
    &["render"],
    &["render", "--force"],
    &["dev", "config"],
    &["dev", "config", "--force"],
    &["secrets", "init"],
    &["secrets", "rekey", "--yes"],
    &["secrets", "rotate", "k3s-token", "--yes"],
];
