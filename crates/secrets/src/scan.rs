//! Finds secrets in plain text: those that can be told by their form, and those that are known.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    io::{Read as _, Seek as _},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
};

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use regex::bytes::Regex;

/// The most of a file that is looked at, in bytes. Repositories of text have no larger ones.
pub(super) const SCAN_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// The most files that are looked at where git doesn't say which belong to the repository.
const SCAN_FILES_MAX: usize = 100_000;
/// Folders that aren't the repository's, where git doesn't say so.
const NOT_SCANNED: [&str; 6] = [
    ".git",
    ".undercroft",
    ".direnv",
    "target",
    "node_modules",
    ".cache",
];
/// The shortest known secret that is looked for, in bytes: shorter ones are found everywhere.
const NEEDLE_BYTES_MIN: usize = 8;

/// How the text of every private key of OpenSSH begins: `openssh-key-v1`, in base64.
const OPENSSH_KEY_START: &str = "b3BlbnNzaC1rZXktdjE";

/// Something that looks like a secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FoundSecret {
    /// The line, from 1.
    pub line: usize,
    /// What it looks like.
    pub what: &'static str,
}

/// The forms by which secrets are known. None of them fits what is encrypted or public.
static FORMS: LazyLock<Vec<(Regex, &'static str)>> = LazyLock::new(|| {
    [
        // The first line of the key's own text must follow: prose about keys is none.
        (
            r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----(?:\s|\\n|\\r)+[A-Za-z0-9+/]{16}",
            "a private key",
        ),
        (
            r"AGE-SECRET-KEY-(?:PQ-)?1[02-9AC-HJ-NP-Z]{50}",
            "an age identity",
        ),
        (r"K10[0-9a-f]{64}::[^\s:]+:\S+", "a k3s token"),
        (r"privkey:[0-9a-f]{64}", "a key of Headscale or Tailscale"),
        (r"\bS[OANCUX][A-Z2-7]{56}\b", "a seed of NATS"),
        (r"\btskey-[a-z]+-[A-Za-z0-9]{8,}", "a key of Tailscale"),
        (r"\bgh[pousr]_[A-Za-z0-9]{36}\b", "a token of GitHub"),
        (r"\bglpat-[A-Za-z0-9_-]{20}", "a token of GitLab"),
    ]
    .into_iter()
    .filter_map(|(form, what)| Regex::new(form).ok().map(|form| (form, what)))
    .collect()
});

/// What in these bytes looks like a secret.
pub fn scan(bytes: &[u8]) -> Vec<FoundSecret> {
    let mut found = BTreeSet::new();
    for (form, what) in FORMS.iter() {
        for hit in form.find_iter(bytes) {
            if *what == "a seed of NATS" && !is_nats_seed(hit.as_bytes()) {
                continue;
            }
            let before = bytes.get(..hit.start()).unwrap_or_default();
            found.insert(FoundSecret {
                line: before.iter().filter(|byte| **byte == b'\n').count() + 1,
                what,
            });
        }
    }
    found.into_iter().collect()
}

fn is_nats_seed(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| nkeys::KeyPair::from_seed(text).is_ok())
}

/// Known secrets, looked for as they are and as base64 and hexadecimal would show them.
pub struct Needles {
    /// Of each form the name of its secret, in the order of `any`.
    names: Vec<String>,
    /// All forms at once, so that large images are gone through only once.
    any: AhoCorasick,
    /// The longest form, in bytes: what two pieces of a stream must overlap by.
    form_bytes_max: usize,
}

impl std::fmt::Debug for Needles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Needles")
            .field("forms", &self.names.len())
            .finish()
    }
}

impl Needles {
    /// Needles of named secrets. Of one of several lines each longer line is looked for.
    ///
    /// # Errors
    /// When they are more than one automaton can hold, which are gigabytes of them.
    pub fn new<'a>(
        secrets: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, aho_corasick::BuildError> {
        let mut forms = Vec::new();
        for (name, secret) in secrets {
            for line in secret.lines().map(str::trim) {
                // Lines that say what follows are in every such file.
                let common = line.starts_with("-----") || line.starts_with(OPENSSH_KEY_START);
                if line.len() < NEEDLE_BYTES_MIN || common {
                    continue;
                }
                forms.push((name, line.to_owned()));
                forms.push((name, hex(line.as_bytes())));
                forms.extend(in_base64(line.as_bytes()).map(|form| (name, form)));
            }
        }
        Ok(Self {
            any: AhoCorasick::builder()
                .kind(Some(AhoCorasickKind::DFA))
                .build(forms.iter().map(|(_, form)| form))?,
            form_bytes_max: forms.iter().map(|(_, form)| form.len()).max().unwrap_or(0),
            names: forms.into_iter().map(|(name, _)| name.to_owned()).collect(),
        })
    }

    /// The names of those that are in these bytes, each once.
    pub fn in_bytes(&self, bytes: &[u8]) -> BTreeSet<&str> {
        self.any
            .find_overlapping_iter(bytes)
            .filter_map(|hit| self.names.get(hit.pattern().as_usize()))
            .map(String::as_str)
            .collect()
    }

    /// The names of those that are in a file of any size. Holes of a sparse file are passed over.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn in_file(&self, path: &Path) -> std::io::Result<BTreeSet<&str>> {
        const PIECE_BYTES: u64 = 4 * 1024 * 1024;
        let mut file = std::fs::File::open(path)?;
        let mut found = BTreeSet::new();
        let mut window: Vec<u8> = Vec::new();
        let mut at = 0;
        loop {
            match rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(at)) {
                Ok(data) if data > at => {
                    window.clear();
                    at = data;
                }
                // No data is left, or the file system doesn't know of holes.
                Err(rustix::io::Errno::NXIO) => return Ok(found),
                Ok(_) | Err(_) => {
                    file.seek(std::io::SeekFrom::Start(at))?;
                }
            }
            let kept = window.len().min(self.form_bytes_max);
            window.drain(..window.len() - kept);
            let read = file.by_ref().take(PIECE_BYTES).read_to_end(&mut window)?;
            if read == 0 {
                return Ok(found);
            }
            at += read as u64;
            found.extend(self.in_bytes(&window));
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The three ways in which bytes show in base64, by where they begin; ends that depend on what is
/// around them are left out.
fn in_base64(bytes: &[u8]) -> impl Iterator<Item = String> {
    (0..3_usize).filter_map(move |shift| {
        let padded = [vec![0; shift], bytes.to_vec()].concat();
        let text = BASE64.encode(&padded);
        let from = (shift * 8).div_ceil(6);
        let until = padded.len() * 8 / 6;
        text.get(from..until)
            .filter(|form| form.len() >= NEEDLE_BYTES_MIN)
            .map(ToOwned::to_owned)
    })
}

/// The files that belong to a repository: those that git tracks or would track, or all but a few
/// known folders where git doesn't say.
///
/// # Errors
/// When the folder can't be read.
pub fn repository_files(repository: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut git = Command::new("git");
    git.arg("-C")
        .arg(repository)
        // An archive may bring git's folder along, with a program of its own to ask for changes.
        .args(["-c", "core.fsmonitor=false"])
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    undercroft_process::trace::started(&git);
    if let Ok(output) = git.output()
        && output.status.success()
    {
        let mut files: Vec<PathBuf> = output
            .stdout
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
            .map(|name| repository.join(OsStr::from_bytes(name)))
            // git keeps where a link leads, and not what is there.
            .filter(|path| std::fs::symlink_metadata(path).is_ok_and(|m| m.is_file()))
            .collect();
        files.sort();
        files.dedup();
        return Ok(files);
    }
    let mut files = Vec::new();
    let mut folders = vec![repository.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            let name = entry.file_name();
            if kind.is_dir() && !NOT_SCANNED.iter().any(|skipped| name == *skipped) {
                folders.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
            if files.len() >= SCAN_FILES_MAX {
                return Err(std::io::Error::other(format!(
                    "there are more than {SCAN_FILES_MAX} files; make it a git repository"
                )));
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_known_by_their_form() {
        let key = "MC4CAQAwBQYDK2VwBCIEIA";
        let seed = nkeys::KeyPair::new_user().seed().unwrap();
        for (text, what) in [
            (
                format!("a\n-----BEGIN {}PRIVATE KEY-----\n{key}", "OPENSSH "),
                "a private key",
            ),
            (
                format!("a\nx: \"-----BEGIN {}PRIVATE KEY-----\\n{key}", "EC "),
                "a private key",
            ),
            (
                format!("\nAGE-SECRET-KEY-1{}", "Q".repeat(58)),
                "an age identity",
            ),
            (format!("\nK10{}::server:x", "a".repeat(64)), "a k3s token"),
            (
                format!("\nprivkey:{}", "0".repeat(64)),
                "a key of Headscale or Tailscale",
            ),
            (format!("\n{seed}"), "a seed of NATS"),
        ] {
            assert_eq!(
                scan(text.as_bytes()),
                [FoundSecret { line: 2, what }],
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_secret_is_let_be() {
        for text in [
            "-----BEGIN PRIVATE KEY-----",
            "scans for `-----BEGIN … PRIVATE KEY-----` and `AGE-SECRET-KEY-1…`",
            "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA",
            "-----BEGIN AGE ENCRYPTED FILE-----\nYWdlLWVuY3J5cHRpb24ub3Jn",
            "K10<hash>::server:<password>",
            "ENC[AES256_GCM,data:ZRo=,iv:MnT2EON=,tag:8aVkKj5=,type:int]",
        ] {
            assert_eq!(scan(text.as_bytes()), [], "{text}");
        }
    }

    #[test]
    fn known_secrets_are_found_however_they_are_written() {
        let needles =
            Needles::new([("a", "correct-horse-battery"), ("b", "another one\n")]).unwrap();
        let hidden = |text: &str| format!("before {text} after").into_bytes();
        let secret = "correct-horse-battery";
        assert!(needles.in_bytes(&hidden(secret)).contains("a"));
        for around in ["", "x", "xy", "xyz"] {
            let encoded = BASE64.encode(format!("{around}{secret}{around}"));
            let found = needles.in_bytes(encoded.as_bytes());
            assert!(found.contains("a"), "{around}");
        }
        assert!(
            needles
                .in_bytes(&hidden(&hex(secret.as_bytes())))
                .contains("a")
        );
        assert!(needles.in_bytes(&hidden("nothing here")).is_empty());
        assert_eq!(
            needles
                .in_bytes(b"x another one x")
                .into_iter()
                .collect::<Vec<_>>(),
            ["b"]
        );
    }

    #[test]
    fn a_secret_between_two_pieces_of_a_large_file_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("large");
        let mut bytes = vec![b'.'; 4 * 1024 * 1024 - 5];
        bytes.extend_from_slice(b"correct-horse-battery");
        bytes.extend(vec![b'.'; 100]);
        std::fs::write(&path, &bytes).unwrap();
        let needles = Needles::new([("a", "correct-horse-battery")]).unwrap();
        assert!(needles.in_file(&path).unwrap().contains("a"));
    }
}
