//! Programs of a newer Debian than most machines have: its own packages, unpacked into a folder that is a root of its
//! own, which tests run them in. Nothing is installed, and no script of a package is run.
//!
//! apt keeps all that it needs in a folder beside, and checks what comes against Debian's keys; the version is
//! whatever the release has.

use std::{
    env::consts::ARCH,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use super::files::{failed, make_dir, sum_line, write};
use crate::run::{Failed, Step, which};

/// The release. It is fetched from where this machine's own packages come from; Debian's keys say whether it is.
const RELEASE: &str = "forky";
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// What of the packages nobody reads.
const UNREAD: [&str; 4] = ["doc", "man", "locale", "info"];
/// The folders that are links since everything lies in /usr.
const LINKS: [&str; 4] = ["bin", "sbin", "lib", "lib64"];
/// What is mounted in such a root.
const MOUNTS: [&str; 8] = ["dev", "etc", "nix", "proc", "root", "run", "tmp", "var"];

/// A program that is unpacked.
pub(super) struct Unpacked {
    /// The program, and the beginning of its folder's name.
    pub(super) name: &'static str,
    /// The package that has it, and others that are unpacked with it.
    packages: &'static [&'static str],
    /// Beginnings of packages that it depends on and that tests don't need.
    left_out: &'static [&'static str],
    why: &'static str,
}

/// A compositor that says when nobody is there (`ext-idle-notify-v1`), which sway does from 1.8 on. It draws without
/// a GPU here, so that neither drivers nor their compilers are needed, nor pictures and fonts.
pub(super) const SWAY: Unpacked = Unpacked {
    name: "sway",
    packages: &["sway"],
    left_out: &[
        "debconf",
        "fonts-",
        "glycin",
        "libc-gconv",
        "libdav1d",
        "libde265",
        "libglycin",
        "libheif",
        "libjxl",
        "libllvm",
        "librsvg",
        "libz3",
        "mesa-libgallium",
        "pci.ids",
        "shared-mime",
    ],
    why: "says when an owner is away",
};

/// A Nix that knows `external-builders`, which is younger than what most distributions have. Beside it there are
/// bubblewrap, and a shell and tools without libraries, of which tests make builders. Nothing that they start is
/// written in Perl, and no account is made.
pub(super) const NIX: Unpacked = Unpacked {
    name: "nix",
    packages: &["nix-bin", "bubblewrap", "busybox-static"],
    left_out: &["perl", "libperl", "debconf", "passwd", "login", "libdb"],
    why: "asks for builds that lent PCs do",
};

impl Unpacked {
    fn is_whole(&self, dir: &Path) -> bool {
        let sums = fs::read_to_string(dir.join("SHA256SUMS")).unwrap_or_default();
        let program = dir.join("root/usr/bin").join(self.name);
        sum_line(&program, self.name).is_ok_and(|line| line == sums)
    }

    /// The program, where it is there as it was unpacked.
    fn find(&self, folder: &Path) -> Option<PathBuf> {
        let prefix = format!("{}-", self.name);
        let entries = fs::read_dir(folder).ok()?.flatten();
        let found = entries
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
            .map(|entry| entry.path())
            .filter(|dir| self.is_whole(dir));
        found.max().map(|dir| dir.join(self.name))
    }

    /// Fetches and unpacks it where it isn't there. Its path comes back.
    pub(super) fn build(&self, folder: &Path) -> Result<PathBuf, Failed> {
        if let Some(program) = self.find(folder) {
            return Ok(program);
        }
        if which("apt-get").is_none() || !Path::new(KEYS).is_file() || ARCH != "x86_64" {
            return Err(failed(format!(
                "{} is unpacked from Debian's packages for x86_64, by apt and with the keys in {KEYS}",
                self.name
            )));
        }
        eprintln!("missing: {} of Debian {RELEASE}: {}", self.name, self.why);
        let side = folder.join(format!("src/{}-apt", self.name));
        prepare(&side)?;
        apt(&side, "read Debian's list of packages")
            .args(["update", "--error-on=any"])
            .run()?;
        apt(&side, &format!("fetch {}", self.name))
            .args([
                "install",
                "--yes",
                "--download-only",
                "--no-install-recommends",
            ])
            .args(self.packages)
            .run()?;
        let (new, version) = self.unpack(folder, &side)?;
        let dir = folder.join(format!("{}-{version}", self.name));
        let _ = fs::remove_dir_all(&dir);
        fs::rename(&new, &dir).map_err(|e| failed(format!("{}: {e}", dir.display())))?;
        // Lists and packages are of no use any more.
        let _ = fs::remove_dir_all(&side);
        Ok(dir.join(self.name))
    }

    /// Unpacks what came beside its place; where, and the program's version.
    fn unpack(&self, folder: &Path, side: &Path) -> Result<(PathBuf, String), Failed> {
        let new = folder.join(format!("src/{}-new", self.name));
        let root = new.join("root");
        let _ = fs::remove_dir_all(&new);
        make_dir(&root)?;
        let archives = side.join("archives");
        let entries = fs::read_dir(&archives);
        let entries = entries.map_err(|e| failed(format!("{}: {e}", archives.display())))?;
        let own = self.packages.first().map(|package| format!("{package}_"));
        let (own, mut version) = (own.unwrap_or_default(), None);
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_out = self.left_out.iter().any(|out| name.starts_with(out));
            if is_out || !name.ends_with(".deb") {
                continue;
            }
            if let Some(rest) = name.strip_prefix(&own) {
                let upstream = rest.split(['+', '-', '_', '~']).next();
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
        let (program, link) = (root.join("usr/bin").join(self.name), new.join(self.name));
        fs::hard_link(&program, &link).map_err(|e| failed(format!("{}: {e}", link.display())))?;
        write(&new.join("SHA256SUMS"), &sum_line(&program, self.name)?)?;
        let version = version.ok_or_else(|| {
            failed(format!(
                "Debian's packages have no {} among them",
                self.name
            ))
        })?;
        Ok((new, version))
    }
}

fn prepare(side: &Path) -> Result<(), Failed> {
    for name in ["lists/partial", "archives/partial", "state", "sources"] {
        make_dir(&side.join(name))?;
    }
    write(&side.join("status"), "")?;
    write(&side.join("preferences"), "")?;
    let archive = archive().ok_or_else(|| {
        failed("no file below /etc/apt names an archive of Debian, where newer programs are fetched from")
    })?;
    let source = format!(
        "Types: deb\nURIs: {archive}\nSuites: {RELEASE}\nComponents: main\nSigned-By: {KEYS}\n"
    );
    write(&side.join("sources/side.sources"), &source)
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
