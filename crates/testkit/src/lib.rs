//! What the tests of several crates share: where the programs and published files of others lie
//! that they hold Undercroft against, and how a test skips openly where one isn't there.
//!
//! ```no_run
//! use undercroft_testkit::{OrSkip as _, peer};
//!
//! # fn test() {
//! let Some(sops) = peer("sops").or_skip() else {
//!     return;
//! };
//! # }
//! ```

use std::{
    env,
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    process::Command,
};

/// Something of others that this machine hasn't got. It is said with what would bring it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {hint}")]
pub struct Missing {
    what: String,
    hint: String,
}

impl Missing {
    /// `what` is a clause that says what isn't there, `hint` one that says how to get it.
    pub fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            hint: hint.into(),
        }
    }
}

/// Turns what is missing into an open skip.
pub trait OrSkip<T> {
    /// `None`, after the line by which `cargo xtask test` counts a skipped test.
    fn or_skip(self) -> Option<T>;
}

impl<T> OrSkip<T> for Result<T, Missing> {
    fn or_skip(self) -> Option<T> {
        self.map_err(skip).ok()
    }
}

/// Says that the test which runs now is skipped, and why.
pub fn skip(why: impl std::fmt::Display) {
    println!("SKIPPED: {why}");
}

/// The folder of the workspace.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The files below a folder of the repository that are its own: those that git tracks, relative to the
/// repository, sorted. What somebody made while trying the examples is no part of what is tested. Where
/// there is no git, as in an archive of the sources, every file counts.
pub fn tracked(folder: &str) -> Vec<PathBuf> {
    tracked_in(&repository(), folder)
}

fn tracked_in(repository: &Path, folder: &str) -> Vec<PathBuf> {
    let listed = Command::new("git")
        .arg("-C")
        .arg(repository)
        .args(["ls-files", "-z", "--", folder])
        .output();
    let mut files: Vec<PathBuf> = match listed {
        Ok(output) if output.status.success() => output
            .stdout
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
            .map(|name| PathBuf::from(OsStr::from_bytes(name)))
            // One that was removed and isn't committed yet.
            .filter(|file| repository.join(file).is_file())
            .collect(),
        _ => below(repository, Path::new(folder)),
    };
    files.sort();
    files
}

fn below(root: &Path, folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(root.join(folder))
        .into_iter()
        .flatten()
        .flatten()
    {
        let path = folder.join(entry.file_name());
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files.extend(below(root, &path)),
            Ok(kind) if kind.is_file() => files.push(path),
            _ => {}
        }
    }
    files
}

/// Copies a folder of the repository as [`tracked`] has it to `to`, which is made.
///
/// # Errors
///
/// Where a file can't be copied.
pub fn copy_tracked(folder: &str, to: &Path) -> std::io::Result<()> {
    let root = repository();
    for file in tracked(folder) {
        let below = file.strip_prefix(folder).unwrap_or(&file);
        let target = to.join(below);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::copy(root.join(&file), target)?;
    }
    Ok(())
}

/// A program that `cargo xtask peers` built: `NAME-VERSION/NAME` below `UNDERCROFT_PEERS`, else
/// below `.cache/peers` of the repository.
///
/// # Errors
///
/// Where no version of it is there.
pub fn peer(name: &str) -> Result<PathBuf, Missing> {
    let folder = named("UNDERCROFT_PEERS").unwrap_or_else(|| repository().join(".cache/peers"));
    newest(&folder, name).ok_or_else(|| {
        Missing::new(
            format!("there is no {name} in {}", folder.display()),
            format!("`cargo xtask peers {name}` builds it"),
        )
    })
}

/// The newest version of a program in a folder of peers.
fn newest(folder: &Path, name: &str) -> Option<PathBuf> {
    let version = |folder: &Path| -> Option<Vec<u64>> {
        let folder = folder.file_name()?.to_str()?;
        let version = folder.strip_prefix(name)?.strip_prefix('-')?;
        version.split('.').map(|part| part.parse().ok()).collect()
    };
    let found = fs::read_dir(folder).ok()?.flatten().filter_map(|entry| {
        let program = entry.path().join(name);
        let version = version(&entry.path())?;
        program.is_file().then_some((version, program))
    });
    found.max().map(|(_, program)| program)
}

/// A program on PATH, or in the folders where Debian keeps root's programs.
///
/// # Errors
///
/// Where it is in none of them.
pub fn program(name: &str, package: &str) -> Result<PathBuf, Missing> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| {
            Missing::new(
                format!("there is no {name} here"),
                format!("Debian's package {package} has it"),
            )
        })
}

/// The folder of published schemas, CRDs and values files: `UNDERCROFT_SCHEMAS`, else
/// `../shared/schemas` beside the repository.
///
/// # Errors
///
/// Where there is no such folder.
pub fn schemas() -> Result<PathBuf, Missing> {
    let folder =
        named("UNDERCROFT_SCHEMAS").unwrap_or_else(|| repository().join("../shared/schemas"));
    there(
        folder,
        "published schemas",
        "UNDERCROFT_SCHEMAS names another folder",
    )
}

/// The folder of CustomResourceDefinitions that the folder of schemas hasn't got: `UNDERCROFT_CRDS`.
///
/// # Errors
///
/// Where it is unset, or not a folder.
pub fn crds() -> Result<PathBuf, Missing> {
    by_name_only("UNDERCROFT_CRDS", "CustomResourceDefinitions")
}

/// The folder of charts, packed as `NAME-VERSION.tgz` or unpacked into `NAME-VERSION`:
/// `UNDERCROFT_CHARTS`.
///
/// # Errors
///
/// Where it is unset, or not a folder.
pub fn charts() -> Result<PathBuf, Missing> {
    by_name_only("UNDERCROFT_CHARTS", "charts")
}

/// The folder of source trees (nixpkgs, disko and others): `UNDERCROFT_TREES`, else `../trees`
/// beside the repository.
///
/// # Errors
///
/// Where there is no such folder.
pub fn trees() -> Result<PathBuf, Missing> {
    let folder = named("UNDERCROFT_TREES").unwrap_or_else(|| repository().join("../trees"));
    there(
        folder,
        "trees of Nix sources",
        "UNDERCROFT_TREES names another folder",
    )
}

fn named(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).map(PathBuf::from)
}

fn by_name_only(variable: &str, what: &str) -> Result<PathBuf, Missing> {
    let Some(folder) = named(variable) else {
        return Err(Missing::new(
            format!("no folder of {what} is at hand"),
            format!("{variable} names one"),
        ));
    };
    there(folder, what, &format!("{variable} names this one"))
}

fn there(folder: PathBuf, what: &str, hint: &str) -> Result<PathBuf, Missing> {
    if folder.is_dir() {
        return Ok(folder);
    }
    Err(Missing::new(
        format!("no folder of {what} is at {}", folder.display()),
        hint,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_of_a_peer_is_taken_and_no_other_program() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["etcd-3.6.4", "etcd-3.6.10", "etcd-new", "etcdctl-9.0.0"] {
            let folder = dir.path().join(folder);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("etcd"), "").unwrap();
        }
        fs::create_dir(dir.path().join("etcd-4.0.0")).unwrap();
        assert_eq!(
            newest(dir.path(), "etcd"),
            Some(dir.path().join("etcd-3.6.10/etcd"))
        );
        assert_eq!(newest(dir.path(), "etcdctl"), None);
        assert_eq!(newest(&dir.path().join("none"), "etcd"), None);
    }

    #[test]
    fn what_is_missing_is_said_with_what_brings_it() {
        assert_eq!(
            program("no-such-program", "no-such-package")
                .unwrap_err()
                .to_string(),
            "there is no no-such-program here; Debian's package no-such-package has it"
        );
        assert!(program("sh", "dash").or_skip().is_some());
    }

    #[test]
    fn what_somebody_made_in_a_checkout_is_no_part_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        };
        write("examples/a/undercroft.toml");
        write("examples/a/facts/b.json");
        let names = || -> Vec<String> {
            tracked_in(dir.path(), "examples/a")
                .iter()
                .map(|path| path.display().to_string())
                .collect()
        };
        let all = ["examples/a/facts/b.json", "examples/a/undercroft.toml"];
        // A folder of its own within no repository: everything counts.
        let alone = Command::new("git")
            .arg("-C")
            .arg(dir.path())
            .args(["rev-parse", "--git-dir"])
            .output();
        if alone.is_ok_and(|output| !output.status.success()) {
            assert_eq!(names(), all);
        }
        let git = |args: &[&str]| {
            let ran = Command::new("git")
                .arg("-C")
                .arg(dir.path())
                .args(args)
                .status();
            ran.is_ok_and(|status| status.success())
        };
        if !git(&["init", "--quiet"]) {
            skip("git isn't installed");
            return;
        }
        assert!(git(&["add", "examples/a/undercroft.toml"]));
        assert_eq!(names(), ["examples/a/undercroft.toml"]);
        fs::remove_file(dir.path().join("examples/a/undercroft.toml")).unwrap();
        assert_eq!(names(), [""; 0]);
    }
}
