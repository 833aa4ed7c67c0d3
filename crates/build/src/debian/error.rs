//! What can go wrong with packages.

use std::path::{Path, PathBuf};

use undercroft_model::advice::Advice;

/// Why packages' content isn't to be had.
#[derive(Debug, thiserror::Error)]
pub enum PartsError {
    /// A program that is needed isn't installed.
    #[error("{program} isn't installed here, and is needed to {purpose}")]
    NoProgram {
        /// Its name.
        program: String,
        /// What for.
        purpose: &'static str,
        /// What to try.
        hint: &'static str,
    },
    /// The host has no apt sources of a release that is known.
    #[error(
        "no package sources for {release:?} in {etc_apt}: the installer and the rack's system are made from Debian's packages"
    )]
    NoSources {
        /// The release's codename, from os-release.
        release: String,
        /// Where they were looked for.
        etc_apt: PathBuf,
    },
    /// A program failed.
    #[error("{command} failed ({status}):\n{output}")]
    Command {
        /// The program with its first arguments.
        command: String,
        /// Its exit status.
        status: String,
        /// The end of what it printed.
        output: String,
        /// What to try.
        hint: &'static str,
    },
    /// No suite has such a package.
    #[error("no package {package} for {arch} in the host's package sources")]
    NoPackage {
        /// Its name.
        package: String,
        /// Debian's name of the architecture.
        arch: &'static str,
        /// What to try.
        hint: &'static str,
    },
    /// A package came with another content than the signed list says.
    #[error("the package {package} doesn't have the SHA-256 {expected} of the signed list")]
    Checksum {
        /// Its name.
        package: String,
        /// The list's checksum.
        expected: String,
    },
    /// No package has a file that is needed.
    #[error("none of the packages has {path} (looked in: {packages})")]
    NoFile {
        /// The file's path inside a package.
        path: String,
        /// The packages' names.
        packages: String,
    },
    /// A program needs a library that none of the packages has.
    #[error("{program} needs the library {soname}, which none of the packages has")]
    NoLibrary {
        /// The program's path.
        program: PathBuf,
        /// The library's name.
        soname: String,
    },
    /// A file isn't what it should be.
    #[error("{path}: {problem}")]
    BadFile {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The file system refused.
    #[error("can't {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl Advice for PartsError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoProgram { hint, .. }
            | Self::Command { hint, .. }
            | Self::NoPackage { hint, .. } => hint,
            Self::NoSources { .. } => "run this on Debian, or use the nix installer and a flake",
            Self::Checksum { .. } => "again later; the mirror may be in the middle of an update",
            Self::NoFile { .. }
            | Self::NoLibrary { .. }
            | Self::BadFile { .. }
            | Self::Io { .. } => return None,
        };
        Some(hint.to_owned())
    }
}

impl PartsError {
    /// Makes a function that wraps the system's reason, for `map_err`.
    pub fn io(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(std::io::Error) -> PartsError + use<> {
        let path = path.to_owned();
        move |source| PartsError::Io {
            action,
            path,
            source,
        }
    }
}
