//! A Nix that knows `external-builders`, which is younger than what most distributions have: Debian's own packages of its
//! testing release, unpacked into a folder that is a root of its own. Nothing is installed, and nothing of them is run here.
//!
//! apt keeps all that it needs in that folder, and checks what comes against Debian's keys; the version is whatever that
//! release has. Beside Nix there are bubblewrap, and a shell and tools without libraries, of which tests make builders.

use std::{
    env::consts::ARCH,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use super::files::{failed, make_dir, sum_line, write};
use crate::run::{Failed, Step, which};

/// What the program is called.
pub(super) const NAME: &str = "nix";
/// The release. It is fetched from where this machine's own packages come from.
const RELEASE: &str = "forky";
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// What is fetched, with what it depends on: some 45 MB.
const PACKAGES: [&str; 3] = ["nix-bin", "bubblewrap", "busybox-static"];
/// What of it isn't unpacked: nothing that tests start is written in Perl, and no account is made.
const LEFT_OUT: [&str; 6] = ["perl", "libperl", "debconf", "passwd", "login", "libdb"];
/// What of it nobody reads.
const UNREAD: [&str; 4] = ["doc", "man", "locale", "info"];
/// The folders that are links since everything lies in /usr.
const LINKS: [&str; 4] = ["bin", "sbin", "lib", "lib64"];
/// The folders that a root has for what is mounted there.
const MOUNTS: [&str; 8] = ["dev", "etc", "nix", "proc", "root", "run", "tmp", "var"];

/// The program, where it is there as it was unpacked.
pub(super) fn find(folder: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?.flatten();
    let mut found: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("nix-"))
        .map(|entry| entry.path())
        .filter(|dir| is_whole(dir))
        .collect();
    found.sort();
    found.pop().map(|dir| dir.join(NAME))
}

fn is_whole(dir: &Path) -> bool {
    let sums = fs::read_to_string(dir.join("SHA256SUMS")).unwrap_or_default();
    let program = dir.join("root/usr/bin").join(NAME);
    sum_line(&program, NAME).is_ok_and(|line| line == sums)
}

/// Fetches and unpacks it where it isn't there. Its path comes back.
pub(super) fn build(folder: &Path) -> Result<PathBuf, Failed> {
    if let Some(program) = find(folder) {
        return Ok(program);
    }
    if which("apt-get").is_none() || !Path::new(KEYS).is_file() {
        return Err(failed(format!(
            "a newer Nix is unpacked from Debian's packages, by apt and with the keys in {KEYS}"
        )));
    }
    if ARCH != "x86_64" {
        return Err(failed(format!("no newer Nix is known for {ARCH}")));
    }
    eprintln!("missing: a Nix with external-builders: asks for builds that lent PCs do");
    let side = folder.join("src/nix-apt");
    prepare(&side)?;
    apt(&side, "read Debian's list of packages")
        .args(["update", "--error-on=any"])
        .run()?;
    apt(&side, "fetch Nix")
        .args([
            "install",
            "--yes",
            "--download-only",
            "--no-install-recommends",
        ])
        .args(PACKAGES)
        .run()?;
    let (new, version) = unpack(folder, &side)?;
    let dir = folder.join(format!("{NAME}-{version}"));
    let _ = fs::remove_dir_all(&dir);
    fs::rename(&new, &dir).map_err(|e| failed(format!("{}: {e}", dir.display())))?;
    // Lists and packages are of no use any more.
    let _ = fs::remove_dir_all(&side);
    Ok(dir.join(NAME))
}

fn prepare(side: &Path) -> Result<(), Failed> {
    for name in ["lists/partial", "archives/partial", "state"] {
        make_dir(&side.join(name))?;
    }
    write(&side.join("status"), "")?;
    write(&side.join("preferences"), "")?;
    let archive = archive().ok_or_else(|| {
        failed(
            "no file below /etc/apt names an archive of Debian: a newer Nix is fetched from there",
        )
    })?;
    write(
        &side.join("sources/side.sources"),
        &format!(
            "Types: deb\nURIs: {archive}\nSuites: {RELEASE}\nComponents: main\nSigned-By: {KEYS}\n"
        ),
    )
}

/// Where this machine's packages of Debian come from.
fn archive() -> Option<String> {
    let parts = fs::read_dir("/etc/apt/sources.list.d");
    let parts = parts.into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = parts.map(|entry| entry.path()).collect();
    files.sort();
    files.insert(0, PathBuf::from("/etc/apt/sources.list"));
    let texts = files
        .into_iter()
        .filter_map(|file| fs::read_to_string(file).ok());
    let words = texts.flat_map(|text| {
        let lines = text
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'));
        let words = lines.flat_map(str::split_whitespace).map(str::to_owned);
        words.collect::<Vec<_>>()
    });
    words
        .map(|word| word.trim_end_matches('/').to_owned())
        .find(|word| word.starts_with("http") && word.ends_with("/debian"))
}

/// apt-get with all of its state in that folder; the machine's own settings stay in force, as they may name a proxy.
fn apt(side: &Path, name: &str) -> Step {
    let mut step = Step::new(name, "apt-get").args(["--quiet"]);
    for (key, file) in [
        ("Dir::State", "state"),
        ("Dir::State::Lists", "lists"),
        ("Dir::State::status", "status"),
        ("Dir::Cache", ""),
        ("Dir::Cache::Archives", "archives"),
        ("Dir::Etc::SourceParts", "sources"),
        ("Dir::Etc::Preferences", "preferences"),
    ] {
        let mut option = OsString::from(format!("{key}="));
        option.push(side.join(file));
        step = step.args([OsString::from("-o"), option]);
    }
    for option in [
        "Dir::Etc::SourceList=/dev/null",
        "Dir::Etc::PreferencesParts=/dev/null",
        "APT::Default-Release=",
        "Acquire::Languages=none",
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
        "Acquire::IndexTargets::deb::CNF::DefaultEnabled=false",
        "APT::Sandbox::User=root",
        "Debug::NoLocking=1",
    ] {
        step = step.args(["-o", option]);
    }
    step.env("LC_ALL", "C.UTF-8")
}

/// Unpacks what came beside its place; where, and Nix' version.
fn unpack(folder: &Path, side: &Path) -> Result<(PathBuf, String), Failed> {
    let new = folder.join("src/nix-new");
    let root = new.join("root");
    let _ = fs::remove_dir_all(&new);
    make_dir(&root)?;
    let mut version = None;
    let archives = side.join("archives");
    let entries = fs::read_dir(&archives);
    let entries = entries.map_err(|e| failed(format!("{}: {e}", archives.display())))?;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_wanted = name.ends_with(".deb") && !LEFT_OUT.iter().any(|out| name.starts_with(out));
        if !is_wanted {
            continue;
        }
        if let Some(rest) = name.strip_prefix("nix-bin_") {
            let upstream = rest.split(['+', '-', '_']).next();
            version = upstream.map(str::to_owned);
        }
        Step::new(&format!("unpack {name}"), "dpkg-deb")
            .args([
                "--extract".into(),
                entry.path().into_os_string(),
                root.clone().into(),
            ])
            .run()?;
    }
    for name in UNREAD {
        let _ = fs::remove_dir_all(root.join("usr/share").join(name));
    }
    for name in MOUNTS {
        make_dir(&root.join(name))?;
    }
    for name in LINKS {
        let link = root.join(name);
        if link.symlink_metadata().is_err() {
            std::os::unix::fs::symlink(format!("usr/{name}"), &link)
                .map_err(|e| failed(format!("{}: {e}", link.display())))?;
        }
    }
    let (program, link) = (root.join("usr/bin").join(NAME), new.join(NAME));
    fs::hard_link(&program, &link).map_err(|e| failed(format!("{}: {e}", link.display())))?;
    write(&new.join("SHA256SUMS"), &sum_line(&program, NAME)?)?;
    let version = version.ok_or_else(|| failed("Debian's packages have no nix-bin among them"))?;
    Ok((new, version))
}
