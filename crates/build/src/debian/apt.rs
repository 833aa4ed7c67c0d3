//! The side apt database: apt's own programs, told to keep everything in a folder of ours.
//!
//! Source: apt.conf(5), apt_preferences(5), apt-cache(8), apt-get(8).

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest as _, Sha256};

use super::control::{dependencies, paragraphs};
use super::error::PartsError;
use super::{Arch, Part, Progress, hex, remove_dir, sources};

/// The release after each that lacks something: bookworm's `ipxe` has no arm64 binary.
const NEXT_RELEASE: [(&str, &str); 1] = [("bookworm", "trixie")];
/// The packages that may come from the next release; everything else stays at the host's.
const FROM_NEXT_RELEASE: &str = "ipxe";
/// How deep library packages may depend on each other. Debian's deepest chain of those that are
/// used here is 7.
const MAX_DEPENDENCY_ROUNDS: usize = 24;
/// How much of a failed program's output is shown, in lines.
const OUTPUT_LINES: usize = 12;

const OFFLINE_HINT: &str =
    "connect this machine to its package mirror once; what is fetched is kept and reused offline";

/// A package that the side database offers.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    /// What will be recorded of it.
    pub(crate) part: Part,
    /// The size of the `.deb` in bytes.
    pub(crate) size_bytes: u64,
}

/// The side database.
#[derive(Debug)]
pub(crate) struct Apt {
    dir: PathBuf,
}

impl Apt {
    pub(crate) fn new(dir: &Path) -> Apt {
        Apt {
            dir: dir.to_owned(),
        }
    }

    /// Drops the package lists, so that they are read anew.
    pub(crate) fn forget(&self) -> Result<(), PartsError> {
        remove_dir(&self.dir)
    }

    /// The packages and, round after round, the libraries that they depend on.
    pub(crate) fn resolve(
        &self,
        packages: &[&str],
        arch: Arch,
        progress: Progress<'_>,
    ) -> Result<BTreeMap<String, Candidate>, PartsError> {
        self.prepare(progress)?;
        let mut found: BTreeMap<String, Candidate> = BTreeMap::new();
        let mut asked: BTreeSet<String> = BTreeSet::new();
        let mut wanted: BTreeSet<String> = packages.iter().map(|p| (*p).to_owned()).collect();
        for _ in 0..MAX_DEPENDENCY_ROUNDS {
            asked.extend(wanted.iter().cloned());
            let shown = self.show(&wanted, arch)?;
            let needs: BTreeSet<String> = shown
                .values()
                .flat_map(|c| c.part.needs.iter().cloned())
                .collect();
            found.extend(shown);
            wanted = needs.difference(&asked).cloned().collect();
            if wanted.is_empty() {
                break;
            }
        }
        if let Some(absent) = packages.iter().find(|name| !found.contains_key(**name)) {
            return Err(PartsError::NoPackage {
                package: (*absent).to_owned(),
                arch: arch.debian(),
                hint: "see whether `apt-cache policy` knows it; the release may be too old or too new",
            });
        }
        // A dependency may be a virtual package, or another package's alternative. Libraries
        // that are really missing are found when programs are put together.
        let names: BTreeSet<String> = found.keys().cloned().collect();
        for candidate in found.values_mut() {
            candidate.part.needs.retain(|need| names.contains(need));
        }
        Ok(found)
    }

    /// Makes the folders, the sources and the lists, where they aren't there.
    fn prepare(&self, progress: Progress<'_>) -> Result<(), PartsError> {
        let done = self.dir.join("updated");
        if done.exists() {
            return Ok(());
        }
        for folder in ["lists/partial", "archives/partial", "state", "sources"] {
            let folder = self.dir.join(folder);
            fs::create_dir_all(&folder).map_err(PartsError::io("make the folder", &folder))?;
        }
        let (text, preferences) = side_sources(Path::new("/etc/apt"), &codename())?;
        for (name, content) in [
            ("sources/side.sources", text.as_str()),
            ("preferences", preferences.as_str()),
            ("status", ""),
        ] {
            let path = self.dir.join(name);
            fs::write(&path, content).map_err(PartsError::io("write", &path))?;
        }
        progress("reading Debian's package lists into a side database (once)");
        run(
            self.command("apt-get").arg("update").arg("--error-on=any"),
            OFFLINE_HINT,
        )?;
        fs::write(&done, "").map_err(PartsError::io("write", &done))
    }

    /// One of apt's programs with all of its state in our folder. The host's apt.conf stays in
    /// force, for it may name a proxy.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
        let mut option = |key: &str, value: OsString| {
            let mut text = OsString::from(key);
            text.push("=");
            text.push(value);
            command.arg("-o").arg(text);
        };
        for (key, folder) in [
            ("Dir::State", "state"),
            ("Dir::State::Lists", "lists"),
            ("Dir::State::status", "status"),
            ("Dir::Cache", ""),
            ("Dir::Cache::Archives", "archives"),
            ("Dir::Etc::SourceParts", "sources"),
            ("Dir::Etc::Preferences", "preferences"),
        ] {
            option(key, self.dir.join(folder).into_os_string());
        }
        for (key, value) in [
            ("Dir::Etc::SourceList", "/dev/null"),
            ("Dir::Etc::PreferencesParts", "/dev/null"),
            ("APT::Default-Release", ""),
            (
                "APT::Architecture",
                Arch::host().unwrap_or(Arch::X86_64).debian(),
            ),
            ("APT::Architectures::", Arch::X86_64.debian()),
            ("APT::Architectures::", Arch::Aarch64.debian()),
            ("Acquire::Languages", "none"),
            (
                "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled",
                "false",
            ),
            ("Acquire::IndexTargets::deb::CNF::DefaultEnabled", "false"),
            ("Acquire::Retries", "3"),
            ("Acquire::http::Timeout", "30"),
            // As root apt would hand downloads to the user `_apt`, who can't reach a cache in a
            // home folder. What comes is checked against the signed lists either way.
            ("APT::Sandbox::User", "root"),
        ] {
            option(key, value.into());
        }
        command
    }

    /// What the database offers of these names; names that it doesn't have are left out.
    fn show(
        &self,
        names: &BTreeSet<String>,
        arch: Arch,
    ) -> Result<BTreeMap<String, Candidate>, PartsError> {
        let mut command = self.command("apt-cache");
        command.args(["show", "--no-all-versions", "--quiet"]);
        command.args(names.iter().map(|name| qualified(name, arch)));
        // apt-cache fails when one name of many is unknown; what it does know is printed all the
        // same, so its status says nothing.
        undercroft_process::trace::started(&command);
        let output = command
            .output()
            .map_err(|error| start_error(&command, error))?;
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(paragraphs(&text).iter().filter_map(candidate).collect())
    }

    /// Downloads into `debs`; returns the files by checksum.
    pub(crate) fn download(
        &self,
        candidates: &[&Candidate],
        arch: Arch,
        debs: &Path,
    ) -> Result<BTreeMap<String, PathBuf>, PartsError> {
        remove_dir(debs)?;
        fs::create_dir_all(debs).map_err(PartsError::io("make the folder", debs))?;
        let mut command = self.command("apt-get");
        command.current_dir(debs).args(["--quiet", "download"]);
        command.args(candidates.iter().map(|candidate| {
            format!(
                "{}={}",
                qualified(&candidate.part.name, arch),
                candidate.part.version
            )
        }));
        run(&mut command, OFFLINE_HINT)?;
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(debs).map_err(PartsError::io("read", debs))? {
            let path = entry.map_err(PartsError::io("read", debs))?.path();
            files.insert(sha256_of(&path)?, path);
        }
        Ok(files)
    }
}

/// A name that says which architecture is meant. The native one needs none, and packages for
/// all architectures are known under it alone.
fn qualified(name: &str, arch: Arch) -> String {
    if Arch::host() == Some(arch) {
        name.to_owned()
    } else {
        format!("{name}:{}", arch.debian())
    }
}

fn candidate(paragraph: &super::control::Paragraph) -> Option<(String, Candidate)> {
    let name = paragraph.get("Package")?.to_owned();
    let mut needs = BTreeSet::new();
    for field in ["Pre-Depends", "Depends"] {
        for alternatives in dependencies(paragraph.get(field).unwrap_or_default()) {
            needs.extend(alternatives.into_iter().find(|other| is_followed(other)));
        }
    }
    let part = Part {
        name: name.clone(),
        version: paragraph.get("Version")?.to_owned(),
        sha256: paragraph
            .get("SHA256")
            .filter(|sum| sum.len() == 64)?
            .to_owned(),
        needs: needs.into_iter().collect(),
    };
    let size_bytes = paragraph
        .get("Size")
        .and_then(|size| size.parse().ok())
        .unwrap_or(0);
    Some((name, Candidate { part, size_bytes }))
}

/// Libraries and kernels are followed; maintainer scripts' helpers, perl and the like are not,
/// for no maintainer script is ever run.
fn is_followed(name: &str) -> bool {
    let library = name.starts_with("lib") || name == "zlib1g";
    (library && !name.ends_with("-perl")) || name.starts_with("linux-image-")
}

/// The side database's sources and preferences, from the host's.
fn side_sources(etc_apt: &Path, codename: &str) -> Result<(String, String), PartsError> {
    let host = sources::read_host_sources(etc_apt).map_err(PartsError::io("read", etc_apt))?;
    let own = sources::of_release(&host, codename);
    if own.is_empty() {
        return Err(PartsError::NoSources {
            release: codename.to_owned(),
            etc_apt: etc_apt.to_owned(),
        });
    }
    let native = Arch::host().unwrap_or(Arch::X86_64).debian();
    let both = [Arch::X86_64.debian(), Arch::Aarch64.debian()];
    let mut texts: Vec<String> = own
        .iter()
        .map(|source| sources::print(source, &both))
        .collect();
    let mut preferences = String::new();
    let next = NEXT_RELEASE
        .iter()
        .find(|(release, _)| *release == codename);
    if let Some((_, next)) = next {
        let source = sources::with_suite(&own, codename, next);
        texts.extend(source.map(|source| sources::print(&source, &[native])));
        preferences = format!(
            "Package: *\nPin: release n={next}\nPin-Priority: -1\n\n\
             Package: {FROM_NEXT_RELEASE}\nPin: release n={next}\nPin-Priority: 900\n"
        );
    }
    Ok((texts.join("\n"), preferences))
}

/// The host's release, from os-release(5).
fn codename() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .map(|value| value.trim_matches('"').to_owned())
        .unwrap_or_default()
}

/// Unpacks a package's files without running anything of it.
pub(crate) fn unpack(deb: &Path, target: &Path) -> Result<(), PartsError> {
    let mut command = Command::new("dpkg-deb");
    command
        .arg("--extract")
        .arg(deb)
        .arg(target)
        .stdin(Stdio::null());
    run(&mut command, "see whether the disk is full")
}

fn run(command: &mut Command, hint: &'static str) -> Result<(), PartsError> {
    undercroft_process::trace::started(command);
    let output = command
        .output()
        .map_err(|error| start_error(command, error))?;
    if output.status.success() {
        return Ok(());
    }
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let end = lines
        .get(lines.len().saturating_sub(OUTPUT_LINES)..)
        .unwrap_or_default();
    let action = command
        .get_args()
        .map(|arg| arg.to_string_lossy().into_owned());
    let action = action.filter(|arg| matches!(arg.as_str(), "update" | "download" | "--extract"));
    Err(PartsError::Command {
        command: format!(
            "{} {}",
            command.get_program().to_string_lossy(),
            action.collect::<Vec<_>>().join(" ")
        ),
        status: output.status.to_string(),
        output: end.join("\n"),
        hint,
    })
}

fn start_error(command: &Command, error: std::io::Error) -> PartsError {
    let program = command.get_program().to_string_lossy().into_owned();
    if error.kind() == std::io::ErrorKind::NotFound {
        return PartsError::NoProgram {
            program,
            purpose: "read Debian's packages",
            hint: "run this on Debian, or use the nix installer and a flake",
        };
    }
    PartsError::Io {
        action: "start",
        path: program.into(),
        source: error,
    }
}

/// The SHA-256 of a file in hexadecimal.
pub(crate) fn sha256_of(path: &Path) -> Result<String, PartsError> {
    let mut file = fs::File::open(path).map_err(PartsError::io("open", path))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = file
            .read(&mut buffer)
            .map_err(PartsError::io("read", path))?;
        let Some(filled) = buffer.get(..count).filter(|filled| !filled.is_empty()) else {
            return Ok(hex(&hasher.finalize()));
        };
        hasher.update(filled);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use undercroft_model::advice::with_hint;

    #[test]
    fn the_side_sources_come_from_the_host_and_pin_the_next_release() {
        let etc = tempfile::tempdir().unwrap();
        fs::create_dir(etc.path().join("sources.list.d")).unwrap();
        fs::write(
            etc.path().join("sources.list.d/debian.sources"),
            "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\nComponents: main\nSigned-By: /k.gpg\n",
        )
        .unwrap();
        let (text, preferences) = side_sources(etc.path(), "bookworm").unwrap();
        assert!(text.contains(
            "Suites: bookworm bookworm-updates\nComponents: main\nArchitectures: amd64 arm64"
        ));
        assert!(text.contains("Suites: trixie\n"));
        assert!(preferences.contains("Pin-Priority: -1"));
        let error = with_hint(&side_sources(etc.path(), "jammy").unwrap_err());
        assert!(error.contains("jammy") && error.contains("try:"), "{error}");
    }

    #[test]
    fn libraries_are_followed_and_script_helpers_are_not() {
        let text = "Package: nix-bin\nVersion: 2.8.0\nSHA256: 0000000000000000000000000000000000000000000000000000000000000000\nSize: 12\nPre-Depends: libc6 (>= 2.3)\nDepends: perl, libdbd-sqlite3-perl, curl, libsodium23 | libnacl, zlib1g\n";
        let (name, got) = candidate(&paragraphs(text)[0]).unwrap();
        assert_eq!(name, "nix-bin");
        assert_eq!(got.part.needs, ["libc6", "libsodium23", "zlib1g"]);
        assert_eq!(got.size_bytes, 12);
    }

    #[test]
    fn a_missing_program_is_named_with_a_way_on() {
        let mut command = Command::new("undercroft-no-such-program");
        let error = with_hint(&run(&mut command, "x").unwrap_err());
        insta::assert_snapshot!(error, @r"
        undercroft-no-such-program isn't installed here, and is needed to read Debian's packages
          try: run this on Debian, or use the nix installer and a flake
        ");
    }
}
