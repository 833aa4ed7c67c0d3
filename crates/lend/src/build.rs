//! The build of a Nix derivation, as a job reads it: the artefact of a job of the runtime `nix`.
//!
//! What is built from lies in the job's inputs, each a Nix archive of a few store paths: so that a device keeps store
//! paths by their digests from one job to the next, and a large closure has no more inputs than a job may have.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// Which form of a build this is. Another isn't read.
pub const BUILD_VERSION: u32 = 1;
/// The largest build, in bytes: scripts of phases stand in its environment.
pub const BUILD_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Store paths that a build reads, at most: each is a mount, and bubblewrap takes 9,000 words. Those of nixpkgs have a
/// hundred, with few that have more than a thousand.
pub const PATHS_MAX: usize = 2_500;
/// Outputs of a build, at most. The largest of nixpkgs have a dozen.
pub const OUTPUTS_MAX: usize = 64;
/// Arguments and variables of a build, at most.
const WORDS_MAX: usize = 4096;
/// The longest argument, or variable with its name, in bytes: what the kernel takes (execve(2)).
const WORD_BYTES_MAX: usize = 128 * 1024;
/// All of them together, in bytes: a quarter of a stack of 8 MiB, as the kernel takes it.
const WORDS_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Where the store is for a build. Others are built where they are.
pub const STORE: &str = "/nix/store";
/// Where a build begins, and its own files are.
pub const BUILD_FOLDER: &str = "/build";
/// The input with the files that Nix has put into [`BUILD_FOLDER`], where there are any.
pub const FILES_INPUT: &str = "files";
/// Their name in the archive.
pub const FILES: &str = "build";

/// A build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// [`BUILD_VERSION`].
    pub version: u32,
    /// For which kind of machine, as Nix names it.
    pub system: String,
    /// What is run: a path below [`STORE`].
    pub builder: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// All of its environment.
    pub environment: BTreeMap<String, String>,
    /// What it reads: the name of each store path, and of the input that it is in.
    pub paths: BTreeMap<String, String>,
    /// What it makes: names of outputs, and the names of their store paths.
    pub outputs: BTreeMap<String, String>,
    /// What `/bin/sh` is, below [`STORE`], where it is to be there.
    pub shell: Option<String>,
}

/// Why something is no build.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadBuild {
    /// It is too large.
    #[error("the description of a build has at most {BUILD_BYTES_MAX} bytes, and this has {bytes}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// It can't be read.
    #[error("the description of the build can't be read: {detail}")]
    Unreadable {
        /// Where and why.
        detail: String,
    },
    /// It is of another version.
    #[error("the build is of version {found}, and this takes version {BUILD_VERSION}")]
    Version {
        /// Its version.
        found: u32,
    },
    /// It has too much of something.
    #[error("the build has {found} {of}, and may have {max}")]
    TooMuch {
        /// Of what.
        of: &'static str,
        /// How much it has.
        found: usize,
        /// How much it may have.
        max: usize,
    },
    /// Something doesn't lie in the store.
    #[error("{path:?} is nothing below {STORE} that could be {what}")]
    Path {
        /// What it should be.
        what: &'static str,
        /// What it is.
        path: String,
    },
    /// Something isn't named as it has to be.
    #[error("{name:?} is no name of {what}")]
    Name {
        /// Of what.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A path is read and made.
    #[error("{name} is read, and is made")]
    Both {
        /// The store path's name.
        name: String,
    },
}

impl Build {
    /// Reads one from bytes that somebody sent.
    ///
    /// # Errors
    /// When it is none, or names what can't be meant.
    pub fn read(bytes: &[u8]) -> Result<Self, BadBuild> {
        if bytes.len() > BUILD_BYTES_MAX {
            return Err(BadBuild::TooLarge { bytes: bytes.len() });
        }
        let build: Self = serde_json::from_slice(bytes).map_err(|error| BadBuild::Unreadable {
            detail: error.to_string(),
        })?;
        build.check()?;
        Ok(build)
    }

    /// As it is sent.
    pub fn write(&self) -> Vec<u8> {
        // Strings and maps of strings can always be written.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Whether it can be meant.
    ///
    /// # Errors
    /// When not.
    pub fn check(&self) -> Result<(), BadBuild> {
        if self.version != BUILD_VERSION {
            return Err(BadBuild::Version {
                found: self.version,
            });
        }
        let variables = self.environment.iter().map(|(name, value)| {
            // The `=` between, and the zero byte behind.
            name.len() + value.len() + 2
        });
        let words: Vec<usize> = variables
            .chain(self.arguments.iter().map(|word| word.len() + 1))
            .collect();
        for (of, found, max) in [
            ("store paths", self.paths.len(), PATHS_MAX),
            ("outputs", self.outputs.len(), OUTPUTS_MAX),
            ("arguments and variables", words.len(), WORDS_MAX),
            (
                "bytes in one argument or variable",
                words.iter().copied().max().unwrap_or(0),
                WORD_BYTES_MAX,
            ),
            (
                "bytes in its arguments and variables",
                words.iter().sum(),
                WORDS_BYTES_MAX,
            ),
        ] {
            if found > max {
                return Err(BadBuild::TooMuch { of, found, max });
            }
        }
        self.check_names()
    }

    fn check_names(&self) -> Result<(), BadBuild> {
        let bad = |what, name: &str| {
            let name = name.chars().take(80).collect();
            Err(BadBuild::Name { what, name })
        };
        let shell = self.shell.iter().map(|path| ("its shell", path));
        for (what, path) in [("a builder", &self.builder)].into_iter().chain(shell) {
            let name = in_store(path).and_then(|inside| inside.split('/').next());
            if !name.is_some_and(|name| self.paths.contains_key(name)) {
                let path = path.chars().take(80).collect();
                return Err(BadBuild::Path { what, path });
            }
        }
        if let Some(name) = self.paths.keys().find(|name| !is_store_name(name)) {
            return bad("a store path", name);
        }
        for (name, path) in &self.outputs {
            if !is_output_name(name) {
                return bad("an output", name);
            }
            if !is_store_name(path) {
                return bad("a store path", path);
            }
            if self.paths.contains_key(path) {
                return Err(BadBuild::Both { name: path.clone() });
            }
        }
        let made: BTreeSet<&String> = self.outputs.values().collect();
        if made.len() != self.outputs.len() || made.is_empty() {
            return bad("outputs of their own", "");
        }
        let words = self.environment.iter();
        let words = words.flat_map(|(name, value)| [name, value]);
        if words.chain(&self.arguments).any(|word| word.contains('\0')) {
            return bad("an argument or variable: there is a zero byte within", "");
        }
        let is_variable = |name: &&String| !name.is_empty() && !name.contains('=');
        match self.environment.keys().find(|name| !is_variable(name)) {
            Some(name) => bad("a variable", name),
            None => Ok(()),
        }
    }
}

/// What stands behind [`STORE`] in a path that doesn't lead out of it.
pub fn in_store(path: &str) -> Option<&str> {
    let inside = path.strip_prefix(STORE)?.strip_prefix('/')?;
    let is_part = |part: &str| !part.is_empty() && part != "." && part != "..";
    (inside.split('/').all(is_part) && !inside.contains('\0')).then_some(inside)
}

/// Whether something is the name of a store path: 32 digits of Nix' base 32, a `-`, and what it is called
/// (`src/libstore/path.cc` of Nix).
pub fn is_store_name(name: &str) -> bool {
    let Some((digits, called)) = name.split_at_checked(32) else {
        return false;
    };
    let is_digit = |b: u8| b.is_ascii_digit() || (b.is_ascii_lowercase() && !b"eotu".contains(&b));
    let Some(called) = called.strip_prefix('-') else {
        return false;
    };
    digits.bytes().all(is_digit) && is_called(called)
}

/// Whether something is the name of an output.
fn is_output_name(name: &str) -> bool {
    is_called(name)
}

fn is_called(name: &str) -> bool {
    let is_letter = |b: u8| b.is_ascii_alphanumeric() || b"+-._?=".contains(&b);
    !name.is_empty() && name.len() <= 211 && !name.starts_with('.') && name.bytes().all(is_letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SH: &str = "m90kwfahv5nkg2dgl8hqm6g54mzgng74-bash";
    const OUT: &str = "pk0n059cxqsyllnn70c58snwlk8b2w2f-one";

    fn build() -> Build {
        let one = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        Build {
            version: BUILD_VERSION,
            system: "x86_64-linux".to_owned(),
            builder: format!("{STORE}/{SH}/bin/bash"),
            arguments: vec!["-e".to_owned()],
            environment: one("out", &format!("{STORE}/{OUT}")),
            paths: one(SH, "store-0"),
            outputs: one("out", OUT),
            shell: None,
        }
    }

    #[test]
    fn a_build_is_read_as_it_is_written() {
        let build = build();
        assert_eq!(Build::read(&build.write()), Ok(build));
        assert!(matches!(
            Build::read(&vec![b' '; BUILD_BYTES_MAX + 1]),
            Err(BadBuild::TooLarge { .. })
        ));
    }

    #[test]
    fn what_leads_elsewhere_is_refused() {
        let error = |change: &dyn Fn(&mut Build)| {
            let mut changed = build();
            change(&mut changed);
            Build::read(&changed.write()).unwrap_err().to_string()
        };
        let all = [
            error(&|b| b.version = 2),
            error(&|b| b.builder = "/bin/sh".to_owned()),
            error(&|b| b.builder = format!("{STORE}/{SH}/../../../bin/sh")),
            error(&|b| b.builder = format!("{STORE}/{OUT}/bin/sh")),
            error(&|b| b.shell = Some("/bin/sh".to_owned())),
            error(&|b| {
                b.paths.insert("../x".to_owned(), "store-0".to_owned());
            }),
            error(&|b| {
                b.outputs.insert("dev".to_owned(), "../x".to_owned());
            }),
            error(&|b| {
                b.outputs.insert("a/b".to_owned(), OUT.to_owned());
            }),
            error(&|b| {
                b.outputs.insert("dev".to_owned(), OUT.to_owned());
            }),
            error(&|b| {
                b.outputs.insert("dev".to_owned(), SH.to_owned());
            }),
            error(&|b| {
                b.outputs.clear();
            }),
            error(&|b| {
                b.environment.insert("a=b".to_owned(), String::new());
            }),
            error(&|b| {
                b.environment.insert("a".to_owned(), "\0".to_owned());
            }),
            error(&|b| b.arguments = vec![String::new(); 5000]),
            error(&|b| b.arguments = vec!["a".repeat(WORD_BYTES_MAX)]),
            Build::read(b"{}").unwrap_err().to_string(),
        ];
        insta::assert_snapshot!(all.join("\n"));
    }

    #[test]
    fn names_of_store_paths_are_told_from_others() {
        assert!(is_store_name(SH) && is_store_name(OUT));
        for wrong in [
            "",
            "-",
            "m90kwfahv5nkg2dgl8hqm6g54mzgng74",
            "m90kwfahv5nkg2dgl8hqm6g54mzgng74-",
            "m90kwfahv5nkg2dgl8hqm6g54mzgng74-.x",
            "m90kwfahv5nkg2dgl8hqm6g54mzgng74-a/b",
            "e90kwfahv5nkg2dgl8hqm6g54mzgng74-bash",
            "ä90kwfahv5nkg2dgl8hqm6g54mzgng7-bash",
        ] {
            assert!(!is_store_name(wrong), "{wrong}");
        }
    }
}
