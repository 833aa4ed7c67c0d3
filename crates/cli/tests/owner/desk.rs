//! A folder of Ada's, and commands as one or another user.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;
use undercroft_testkit::skip;

/// Whose folder it is.
pub(crate) const ADA: u32 = 60_123;
/// Somebody else.
pub(crate) const BOB: u32 = 60_124;

const INVENTORY: &str = r#"
[fleet]
name = "cellar"

[network]
node_cidr = "10.77.0.0/24"
server_address = "10.77.0.2"
interface = "cellar0"
dhcp_range = { first = "10.77.0.100", last = "10.77.0.120" }

[classes.box]
kind = "plain"

[nodes.box-01]
class = "box"
macs = ["3c:ec:ef:10:00:01"]
address = "10.77.0.11"
disks = [{ serial = "S1" }]
"#;

/// Says on whose behalf it was started, and fails: nothing is built here.
const NIX: &str = r#"#!/bin/sh
cat /proc/$PPID/status > "$SEEN/parent.$$"
cat /proc/self/status > "$SEEN/own.$$"
echo "HOME=$HOME USER=$USER" > "$SEEN/env.$$"
exit 1
"#;

pub(crate) struct Desk {
    root: TempDir,
    program: PathBuf,
}

pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) text: String,
}

impl Desk {
    /// A folder of Ada's with an inventory; `None` after the line of an open skip.
    pub(crate) fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            skip("these tests become other users, for which they must be root");
            return None;
        }
        if !Path::new("/usr/bin/setpriv").exists() {
            skip("there is no setpriv; install util-linux");
            return None;
        }
        let root = tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir()
            .unwrap();
        for folder in ["fleet", "cache", "seen", "bin", "home"] {
            let path = root.path().join(folder);
            fs::create_dir(&path).unwrap();
            if folder != "bin" {
                chown(&path, Some(ADA), Some(ADA)).unwrap();
            }
        }
        let mut desk = Self {
            program: PathBuf::from(env!("CARGO_BIN_EXE_undercroft")),
            root,
        };
        desk.write("undercroft.toml", INVENTORY);
        desk.write("flake.nix", "{ outputs = _: { }; }\n");
        desk.write(".gitignore", ".undercroft/\n");
        let facts = desk.fleet().join("facts");
        fs::create_dir(&facts).unwrap();
        chown(&facts, Some(ADA), Some(ADA)).unwrap();
        desk.write("facts/operators.pub", "");
        for words in [&["init", "-q"][..], &["add", "-A"]] {
            let mut git = desk.command(Path::new("git"));
            let ended = git.args(words).uid(ADA).gid(ADA).status();
            if !ended.is_ok_and(|status| status.success()) {
                skip("git can't `init` a repository of another user's here");
                return None;
            }
        }
        desk.program_named("nix", NIX);
        // A checkout may lie where only root can go.
        if desk.as_user(ADA, &["--version"]).code != 0 {
            let copy = desk.root.path().join("bin/undercroft");
            fs::copy(&desk.program, &copy).unwrap();
            desk.program = copy;
        }
        Some(desk)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn fleet(&self) -> PathBuf {
        self.path("fleet")
    }

    /// Writes a file of Ada's into her folder.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.fleet().join(name);
        fs::write(&path, text).unwrap();
        chown(&path, Some(ADA), Some(ADA)).unwrap();
    }

    /// A program that is found before the system's.
    pub(crate) fn program_named(&self, name: &str, text: &str) {
        let path = self.path("bin").join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// A program with an environment of its own, in Ada's folder.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        let path = format!(
            "{}:{}",
            self.path("bin").display(),
            std::env::var("PATH").unwrap_or_default()
        );
        command
            .current_dir(self.fleet())
            .env_clear()
            .env("PATH", path)
            .env("SEEN", self.path("seen"))
            .env("UNDERCROFT_CACHE_DIR", self.path("cache"))
            .env("HOME", self.path("home"))
            .stdin(Stdio::null());
        command
    }

    /// Runs a command as a user, with these words of setpriv's beside.
    pub(crate) fn with(&self, uid: u32, more: &[&str], args: &[&str]) -> Ran {
        let uid = uid.to_string();
        let mut command = self.command(Path::new("/usr/bin/setpriv"));
        command
            .args(["--reuid", &uid, "--regid", &uid, "--clear-groups"])
            .args(more)
            .arg(&self.program)
            .args(args);
        finish(&mut command)
    }

    pub(crate) fn as_user(&self, uid: u32, args: &[&str]) -> Ran {
        self.with(uid, &[], args)
    }

    /// Runs a command as `sudo` does, for a user.
    pub(crate) fn sudo(&self, uid: u32, args: &[&str]) -> Ran {
        finish(&mut self.sudo_command(uid, args))
    }

    pub(crate) fn sudo_command(&self, uid: u32, args: &[&str]) -> Command {
        let mut command = self.command(&self.program);
        command
            .args(args)
            .env("SUDO_UID", uid.to_string())
            .env("SUDO_GID", uid.to_string())
            .env("HOME", "/root")
            .env("USER", "root");
        command
    }

    /// What in a folder isn't Ada's.
    pub(crate) fn not_adas(&self, folder: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                let metadata = fs::symlink_metadata(&path).unwrap();
                if (metadata.uid(), metadata.gid()) != (ADA, ADA) {
                    found.push(path.clone());
                }
                if metadata.is_dir() {
                    folders.push(path);
                }
            }
        }
        found
    }

    /// What the programs have seen of whom they were started by: a line of /proc/PID/status, of the
    /// command (`parent`) or of themselves (`own`).
    pub(crate) fn seen(&self, whose: &str, line: &str) -> Vec<String> {
        let mut seen = Vec::new();
        for entry in fs::read_dir(self.path("seen")).unwrap() {
            let path = entry.unwrap().path();
            if path
                .file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with(whose)
            {
                let text = fs::read_to_string(&path).unwrap();
                let found = text.lines().find_map(|l| l.strip_prefix(line));
                seen.push(found.unwrap_or_default().trim().to_owned());
            }
        }
        assert!(!seen.is_empty(), "no program was started");
        seen
    }
}

/// Gives everything below a path to a user.
pub(crate) fn give(path: &Path, uid: u32) {
    chown(path, Some(uid), Some(uid)).unwrap();
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            give(&entry.unwrap().path(), uid);
        }
    }
}

pub(crate) fn finish(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        text: format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ),
    }
}
