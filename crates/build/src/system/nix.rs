//! Runs Nix on this machine, and decides which store it builds in.
//!
//! Source: the Nix manual, "nix build", "nix path-info", "Store types", and nix.conf(5); the
//! oldest version that is used is 2.8, which Debian 12 has.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use undercroft_model::advice::Advice;

use rustix::fs::{Access, access};

use crate::debian::Progress;

/// How much of a failed command's output is shown, in lines.
const OUTPUT_LINES: usize = 20;

/// The store that a system is built in and copied from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NixStore {
    /// This machine's own, `/nix/store`, with or without a daemon.
    Default,
    /// A store in a folder, whose paths are `/nix/store/…` all the same: for a machine that has
    /// Nix but no usable `/nix/store`. Nothing outside of the folder is written. Building in it
    /// needs user namespaces, or root.
    Local {
        /// The folder that has `nix/store` below it.
        root: PathBuf,
    },
}

impl NixStore {
    /// This machine's own store where it has one that this user can use, else one below the
    /// cache folder.
    ///
    /// # Errors
    /// [`NixError::Io`] if the cache folder's absolute path can't be found.
    pub fn choose(cache_dir: &Path) -> Result<NixStore, NixError> {
        let daemon = Path::new("/nix/var/nix/daemon-socket/socket");
        let writable = access("/nix/store", Access::WRITE_OK).is_ok()
            && access("/nix/var/nix/db", Access::WRITE_OK).is_ok();
        if daemon.exists() || writable {
            return Ok(NixStore::Default);
        }
        let root = std::path::absolute(cache_dir)
            .map_err(|source| NixError::Io {
                path: cache_dir.to_owned(),
                source,
            })?
            .join("store");
        Ok(NixStore::Local { root })
    }

    /// The store below the cache folder if there is one already, else as [`NixStore::choose`].
    /// What is built again and again stays in one store that way, whatever else happens on this
    /// machine meanwhile.
    ///
    /// # Errors
    /// As [`NixStore::choose`].
    pub fn choose_kept(cache_dir: &Path) -> Result<NixStore, NixError> {
        let root = std::path::absolute(cache_dir)
            .map_err(|source| NixError::Io {
                path: cache_dir.to_owned(),
                source,
            })?
            .join("store");
        if root.join("nix/store").is_dir() {
            return Ok(NixStore::Local { root });
        }
        NixStore::choose(cache_dir)
    }

    /// The store's address for `--store` and `--from`; `None` for the default one.
    pub fn uri(&self) -> Option<String> {
        match self {
            NixStore::Default => None,
            NixStore::Local { root } => Some(format!("local?root={}", root.display())),
        }
    }

    /// The arguments that tell `nix copy` to read from it.
    pub fn from_args(&self) -> Vec<String> {
        self.uri()
            .map(|uri| vec!["--from".to_owned(), uri])
            .unwrap_or_default()
    }

    /// Where a path of the store really lies on this machine.
    pub fn physical(&self, store_path: &str) -> PathBuf {
        match self {
            NixStore::Default => PathBuf::from(store_path),
            NixStore::Local { root } => root.join(store_path.trim_start_matches('/')),
        }
    }

    /// Finds what a path of a system leads to, following symbolic links inside of the store.
    pub fn resolve(&self, path: &str) -> Option<PathBuf> {
        let mut path = path.to_owned();
        for _ in 0..MAX_LINKS {
            let real = self.physical(&path);
            match std::fs::read_link(&real) {
                Ok(target) if target.is_absolute() => path = target.to_str()?.to_owned(),
                Ok(target) => {
                    path = Path::new(&path).parent()?.join(target).to_str()?.to_owned();
                }
                Err(_) => return real.exists().then_some(real),
            }
        }
        None
    }
}

/// As many symbolic links as the kernel follows in one path, path_resolution(7).
const MAX_LINKS: usize = 40;

/// Why Nix didn't do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum NixError {
    /// Nix isn't installed.
    #[error("nix isn't installed here")]
    NotInstalled,
    /// A command failed.
    #[error("{command} failed ({status}):\n{output}")]
    Failed {
        /// The command and its arguments.
        command: String,
        /// Its exit status.
        status: String,
        /// The end of what it printed.
        output: String,
        /// What to try.
        hint: String,
    },
    /// A command printed something that isn't its documented output.
    #[error("{command} printed something else than expected: {output}")]
    Output {
        /// The command.
        command: String,
        /// What it printed.
        output: String,
    },
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// On what.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl Advice for NixError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NotInstalled => Some("install the package nix-bin, or Nix itself".to_owned()),
            Self::Failed { hint, .. } => Some(hint.clone()),
            Self::Output { .. } | Self::Io { .. } => None,
        }
    }
}

/// One run of Nix.
#[derive(Debug)]
pub(crate) struct Nix {
    program: &'static str,
    arguments: Vec<OsString>,
    substituters: bool,
    hint: String,
}

impl Nix {
    /// A run of `nix`, or of another of its programs.
    pub(crate) fn new(program: &'static str) -> Nix {
        Nix {
            program,
            arguments: Vec::new(),
            substituters: true,
            hint: "read the output above".to_owned(),
        }
    }

    pub(crate) fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(mut self, args: I) -> Nix {
        self.arguments
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    pub(crate) fn store(self, store: &NixStore) -> Nix {
        match store.uri() {
            Some(uri) => self.args(["--store".to_owned(), uri]),
            None => self,
        }
    }

    /// Builds everything here: no substituter is asked.
    pub(crate) fn without_substituters(mut self) -> Nix {
        self.substituters = false;
        self
    }

    pub(crate) fn hint(mut self, hint: &str) -> Nix {
        hint.clone_into(&mut self.hint);
        self
    }

    /// Runs it; what it prints on its standard error becomes progress, and what it prints on its
    /// standard output is returned.
    pub(crate) fn run(&self, progress: Progress<'_>) -> Result<String, NixError> {
        let mut command = Command::new(self.program);
        command.args(&self.arguments);
        command.env("NIX_CONFIG", self.config());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        undercroft_process::trace::started(&command);
        let mut child = command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => NixError::NotInstalled,
            _ => NixError::Io {
                path: self.program.into(),
                source: error,
            },
        })?;
        let _noted = undercroft_process::UnderWay::note(&child);
        // The output is a few paths, far below a pipe's size: reading one stream to its end and
        // then the other can't block.
        let mut said: Vec<String> = Vec::new();
        // From an error on it isn't progress but the failure, which is told as such, and once.
        let mut failure: Option<usize> = None;
        if let Some(stderr) = child.stderr.take() {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if failure.is_none() && line.trim_start().starts_with("error:") {
                    failure = Some(said.len());
                }
                if failure.is_none() {
                    progress(&line);
                }
                said.push(line);
            }
        }
        let output = child.wait_with_output().map_err(|source| NixError::Io {
            path: self.program.into(),
            source,
        })?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let mut told = failure.unwrap_or(said.len());
        if output.status.success() {
            for line in said.iter().skip(told) {
                progress(line);
            }
            return Ok(text);
        }
        // Where no line calls itself an error, the end of it all is the best there is.
        if failure.is_none() {
            told = 0;
        }
        let end = said
            .get(told.max(said.len().saturating_sub(OUTPUT_LINES))..)
            .unwrap_or_default();
        Err(NixError::Failed {
            command: self.describe(),
            status: output.status.to_string(),
            output: end.join("\n"),
            hint: self.hint.clone(),
        })
    }

    fn describe(&self) -> String {
        let words = self.arguments.iter().map(|arg| arg.to_string_lossy());
        std::iter::once(self.program.into())
            .chain(words)
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// The user's own settings stay; ours come after them.
    fn config(&self) -> String {
        let mut config = std::env::var("NIX_CONFIG").unwrap_or_default();
        config.push_str("\nexperimental-features = nix-command flakes\n");
        // Debian's nix has no build users. A daemon's own setting is not affected by this.
        config.push_str("build-users-group =\n");
        if !self.substituters {
            config.push_str("substituters =\n");
        }
        config
    }
}

/// The first output path of `nix build --json`.
pub(crate) fn built_path(json: &str) -> Result<String, NixError> {
    let bad = || NixError::Output {
        command: "nix build --json".to_owned(),
        output: json.to_owned(),
    };
    let value: serde_json::Value = serde_json::from_str(json).map_err(|_| bad())?;
    let path = value
        .pointer("/0/outputs/out")
        .and_then(serde_json::Value::as_str);
    path.map(str::to_owned).ok_or_else(bad)
}

/// The size of a path with all that it refers to, in bytes.
pub(crate) fn closure_bytes(store: &NixStore, path: &str) -> Result<u64, NixError> {
    let text = Nix::new("nix")
        .args(["path-info", "--closure-size", path])
        .store(store)
        .hint("see whether the path is valid in this store: nix path-info PATH")
        .run(&mut |_| {})?;
    text.split_whitespace()
        .last()
        .and_then(|size| size.parse().ok())
        .ok_or_else(|| NixError::Output {
            command: "nix path-info --closure-size".to_owned(),
            output: text.clone(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_below_the_cache_is_kept_once_it_is_there() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("store/nix/store")).unwrap();
        let kept = NixStore::choose_kept(dir.path()).unwrap();
        assert_eq!(
            kept,
            NixStore::Local {
                root: dir.path().join("store")
            }
        );
    }

    #[test]
    fn a_failure_is_told_as_one_and_not_as_progress_too() {
        let run = |script: &str| {
            let mut told = Vec::new();
            let result = Nix::new("sh")
                .args(["-c", script])
                .run(&mut |line| told.push(line.to_owned()));
            (result.map_err(|error| error.to_string()), told)
        };
        let failing = "echo building x >&2; echo 'error: no x' >&2; echo '  at line 3' >&2; exit 1";
        let (result, told) = run(failing);
        assert_eq!(told, ["building x"]);
        let error = result.unwrap_err();
        assert_eq!(
            error.matches("error: no x\n  at line 3").count(),
            1,
            "{error}"
        );
        assert!(!error.contains("\nbuilding x"), "{error}");
        // What calls itself an error and isn't one in the end is progress.
        let (result, told) = run("echo 'error: tried again' >&2; echo y");
        assert_eq!(
            (result.unwrap().as_str(), told),
            ("y", vec!["error: tried again".to_owned()])
        );
    }

    #[test]
    fn reads_what_nix_build_prints() {
        let json = r#"[{"drvPath":"/nix/store/x.drv","outputs":{"out":"/nix/store/y"}}]"#;
        assert_eq!(built_path(json).unwrap(), "/nix/store/y");
        assert!(built_path("[]").is_err());
        assert!(built_path("warning").is_err());
    }

    #[test]
    fn links_are_followed_inside_of_a_store_in_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let store = NixStore::Local {
            root: dir.path().to_owned(),
        };
        let real = dir.path().join("nix/store");
        std::fs::create_dir_all(real.join("a")).unwrap();
        std::fs::write(real.join("a/kernel"), "k").unwrap();
        std::os::unix::fs::symlink("/nix/store/a/kernel", real.join("b")).unwrap();
        std::os::unix::fs::symlink("b", real.join("c")).unwrap();
        std::os::unix::fs::symlink("/nix/store/loop", real.join("loop")).unwrap();
        assert_eq!(
            store.resolve("/nix/store/c").unwrap(),
            real.join("a/kernel")
        );
        assert_eq!(store.resolve("/nix/store/loop"), None);
        assert_eq!(store.resolve("/nix/store/absent"), None);
    }
}
