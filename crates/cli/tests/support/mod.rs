//! Runs the built command in a folder and an environment of its own.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

/// A folder that a test's commands run in.
pub(crate) struct Sandbox {
    root: TempDir,
}

impl Sandbox {
    /// An empty folder.
    pub(crate) fn new() -> Self {
        let root = TempDir::new().unwrap();
        std::fs::create_dir(root.path().join("home")).unwrap();
        std::fs::create_dir(root.path().join("work")).unwrap();
        Self { root }
    }

    /// A folder with what `undercroft init` makes for a virtual rack.
    pub(crate) fn rack() -> Self {
        let sandbox = Self::new();
        let made = sandbox.run(["init", "--template", "rack", "--fleet", "demo"]);
        assert_eq!(made.code, 0, "{}", made.text());
        sandbox
    }

    /// The folder that commands run in.
    pub(crate) fn dir(&self) -> PathBuf {
        self.root.path().join("work")
    }

    /// Writes a file.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.dir().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// The command, ready to be changed and run.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.in_here(env!("CARGO_BIN_EXE_undercroft"));
        command.args(args);
        command
    }

    /// A shell where the command would run.
    pub(crate) fn shell(&self) -> Command {
        self.in_here("sh")
    }

    fn in_here(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.dir())
            .env_clear()
            .env("HOME", self.root.path().join("home"))
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::null());
        command
    }

    /// Runs the command to its end.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Ran {
        self.finish(&mut self.command(args))
    }

    /// Runs a command to its end.
    pub(crate) fn finish(&self, command: &mut Command) -> Ran {
        let output = command.output().unwrap();
        let clean = |bytes: &[u8]| self.clean(std::str::from_utf8(bytes).unwrap());
        Ran {
            code: output.status.code().expect("the command wasn't killed"),
            out: clean(&output.stdout),
            err: clean(&output.stderr),
        }
    }

    /// A text without what is different on every machine.
    fn clean(&self, text: &str) -> String {
        let canonical = self.root.path().canonicalize().unwrap();
        let mut text = text.to_owned();
        for path in [canonical.as_path(), self.root.path()] {
            text = text.replace(&path.display().to_string(), "[root]");
        }
        text
    }
}

/// What a command did.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// All of it, for a snapshot.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("exit code {}\n", self.code);
        for (name, stream) in [("stdout", &self.out), ("stderr", &self.err)] {
            if !stream.is_empty() {
                text.push_str(&format!("-- {name}\n{stream}"));
            }
        }
        text
    }
}

/// The names of the files in a folder, sorted.
pub(crate) fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
