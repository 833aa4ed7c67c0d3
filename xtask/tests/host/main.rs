//! The shell that NixOS machines run for Undercroft, run for real: nix/modules/scripts against
//! folders that stand for a machine, and stand-ins for the programs that would change one.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that can't go on stops"
)]

mod boot;
mod cluster;
mod hardware;
mod health;
mod home;
mod overlay;
mod power_cut;
mod silence;
mod snapshots;
mod versions;

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

/// Whether the programs that the scripts call are here. Where they aren't, the test says so.
fn programs_are_here(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    for program in programs {
        if !std::env::split_paths(&path).any(|folder| folder.join(program).is_file()) {
            println!("SKIPPED: {program} isn't here");
            return false;
        }
    }
    true
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../nix/modules/scripts")
}

/// A folder that stands for a machine: its root, and before everything else on PATH the programs
/// that a test gives it.
struct Machine {
    folder: tempfile::TempDir,
    variables: Vec<(String, String)>,
}

impl Machine {
    fn new() -> Self {
        let machine = Self {
            folder: tempfile::tempdir().unwrap(),
            variables: Vec::new(),
        };
        fs::create_dir(machine.path("bin")).unwrap();
        machine.write("proc/sys/kernel/random/boot_id", "0a1b\n");
        let root = machine.root();
        machine.with("UNDERCROFT_ROOT", root)
    }

    fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    fn root(&self) -> String {
        self.folder.path().to_str().unwrap().to_owned()
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path.trim_start_matches('/'))
    }

    fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, path: &str) -> String {
        let path = self.path(path);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn has(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.read(path)).unwrap()
    }

    /// A program that stands before the real one. What it is called with goes to the file `calls`.
    fn program(&self, name: &str, body: &str) {
        let root = self.root();
        let script =
            format!("#!/bin/bash\nroot={root}\necho \"{name} $*\" >>{root}/calls\n{body}\n");
        let path = format!("bin/{name}");
        self.write(&path, script);
        fs::set_permissions(self.path(&path), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn calls(&self) -> String {
        fs::read_to_string(self.path("calls")).unwrap_or_default()
    }

    /// Runs scripts of nix/modules/scripts as one, as the modules put them together.
    fn run(&self, parts: &[&str], arguments: &[&str]) -> Output {
        let text: String = parts
            .iter()
            .map(|part| fs::read_to_string(scripts().join(format!("{part}.sh"))).unwrap())
            .collect();
        let file = self.path("script.sh");
        fs::write(&file, text).unwrap();
        let mut path = self.path("bin").into_os_string();
        path.push(OsStr::new(":"));
        path.push(std::env::var_os("PATH").unwrap_or_default());
        Command::new("bash")
            .arg(file)
            .args(arguments)
            .env("PATH", path)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .output()
            .unwrap()
    }
}

/// What a run that must succeed wrote to its standard error.
#[track_caller]
fn succeeded(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{:?}: {said}", output.status);
    said
}

/// What a run that must fail wrote to its standard error.
#[track_caller]
fn failed(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    said
}

/// Debian's shellcheck reads every script as the modules put it together.
#[test]
fn shellcheck_finds_nothing() {
    if !programs_are_here(&["shellcheck"]) {
        return;
    }
    let machine = Machine::new();
    for (library, prefix) in [("boot-lib", "boot-"), ("cluster-lib", "cluster-"), ("", "")] {
        for entry in fs::read_dir(scripts()).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap();
            let has_library = ["boot-", "cluster-"]
                .iter()
                .any(|one| name.starts_with(one));
            if name.ends_with("-lib")
                || !name.starts_with(prefix)
                || (library.is_empty() && has_library)
            {
                continue;
            }
            let mut text = String::new();
            if !library.is_empty() {
                text = fs::read_to_string(scripts().join(format!("{library}.sh"))).unwrap();
            }
            text += &fs::read_to_string(&path).unwrap();
            machine.write("checked.sh", text);
            // A library has variables and functions that not every script of it uses.
            let output = Command::new("shellcheck")
                .args(["--shell=bash", "--exclude=SC2034,SC2317"])
                .arg(machine.path("checked.sh"))
                .output()
                .unwrap();
            assert!(
                output.status.success(),
                "{name}: {}",
                String::from_utf8_lossy(&output.stdout)
            );
        }
    }
}
