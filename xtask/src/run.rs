//! Starting programs, and saying which one failed.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Instant,
};

/// Why a task ended early.
#[derive(Debug)]
pub(crate) struct Failed {
    task: String,
    why: String,
}

impl Failed {
    pub(crate) fn new(task: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            task: task.into(),
            why: why.into(),
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.task, self.why)
    }
}

/// The folder of the workspace.
pub(crate) fn repo_root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// The folder, ignored by git, for what is costly to make.
pub(crate) fn cache_dir() -> PathBuf {
    repo_root().join(".cache")
}

/// One program with its arguments, run in the workspace's folder.
pub(crate) struct Step {
    name: String,
    command: Command,
}

impl Step {
    pub(crate) fn new(name: &str, program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        command.current_dir(repo_root()).stdin(Stdio::null());
        Self {
            name: name.to_owned(),
            command,
        }
    }

    pub(crate) fn args<I, S>(mut self, args: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.command.args(args);
        self
    }

    /// Runs it in another folder than the workspace's.
    pub(crate) fn within(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    pub(crate) fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    pub(crate) fn envs(mut self, all: impl IntoIterator<Item = (String, OsString)>) -> Self {
        self.command.envs(all);
        self
    }

    /// Lets the program read the terminal.
    pub(crate) fn interactive(mut self) -> Self {
        self.command.stdin(Stdio::inherit());
        self
    }

    /// Puts folders in front of PATH.
    pub(crate) fn path_first(mut self, folders: &[PathBuf]) -> Self {
        if folders.is_empty() {
            return self;
        }
        let old = std::env::var_os("PATH").unwrap_or_default();
        let all = folders.iter().cloned().chain(std::env::split_paths(&old));
        if let Ok(path) = std::env::join_paths(all) {
            self.command.env("PATH", path);
        }
        self
    }

    fn shown(&self) -> String {
        let words = std::iter::once(self.command.get_program()).chain(self.command.get_args());
        let words: Vec<OsString> = words.map(OsStr::to_os_string).collect();
        words.join(OsStr::new(" ")).to_string_lossy().into_owned()
    }

    /// Runs it with the terminal's output.
    pub(crate) fn run(mut self) -> Result<(), Failed> {
        let shown = self.shown();
        eprintln!("==> {}: {shown}", self.name);
        let begun = Instant::now();
        let status = self
            .command
            .status()
            .map_err(|error| Failed::new(&self.name, format!("can't start `{shown}`: {error}")))?;
        if status.success() {
            eprintln!(
                "    {} in {:.1} s",
                self.name,
                begun.elapsed().as_secs_f64()
            );
            Ok(())
        } else {
            Err(Failed::new(
                &self.name,
                format!("`{shown}` ended with {status}"),
            ))
        }
    }

    /// Starts it with its standard output in a pipe.
    pub(crate) fn spawn_piped(mut self) -> Result<Child, Failed> {
        let shown = self.shown();
        eprintln!("==> {}: {shown}", self.name);
        self.command
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| Failed::new(&self.name, format!("can't start `{shown}`: {error}")))
    }

    /// Starts it with the terminal's output.
    pub(crate) fn spawn(mut self) -> Result<Child, Failed> {
        let shown = self.shown();
        eprintln!("==> {}: {shown}", self.name);
        self.command
            .spawn()
            .map_err(|error| Failed::new(&self.name, format!("can't start `{shown}`: {error}")))
    }

    /// [`Self::output`], and nobody reads what it complains about.
    pub(crate) fn quiet_output(mut self) -> Result<String, Failed> {
        self.command.stderr(Stdio::null());
        self.captured()
    }

    /// Runs it and returns what it printed to its standard output.
    pub(crate) fn output(mut self) -> Result<String, Failed> {
        self.command.stderr(Stdio::inherit());
        self.captured()
    }

    fn captured(mut self) -> Result<String, Failed> {
        let shown = self.shown();
        let output = self
            .command
            .output()
            .map_err(|error| Failed::new(&self.name, format!("can't start `{shown}`: {error}")))?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(Failed::new(
                &self.name,
                format!("`{shown}` ended with {}", output.status),
            ))
        }
    }
}

/// The first program of that name on PATH, or in the folders where Debian keeps root's programs.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}
