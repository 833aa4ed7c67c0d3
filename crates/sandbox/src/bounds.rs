//! What a caller asks for: a program, what it reads, and what it may use.

use std::{path::PathBuf, time::Duration};

use crate::{BuilderSpec, FileDigest, SandboxError};

/// The longest name of a job, in bytes: it is part of the names of folders and control groups.
const NAME_BYTES_MAX: usize = 100;
/// The most arguments, and the most bytes of all of them: what a message to the sandbox can carry with room to spare.
const ARGUMENTS_MAX: usize = 4096;
/// See [`ARGUMENTS_MAX`].
const ARGUMENTS_BYTES_MAX: usize = 2 * 1024 * 1024;
/// The most files that a job reads. Each is a mount.
const INPUTS_MAX: usize = 256;
/// The least memory of a job, in MiB: what `undercroft-job` itself needs before it becomes the job.
pub const MEMORY_MB_MIN: u32 = 16;
/// The least processes: bubblewrap's two, and the job's.
pub(crate) const PIDS_MIN: u32 = 8;

/// What a program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgramKind {
    /// A static binary of this machine's kind.
    Native,
    /// A WebAssembly component with `wasi:cli/run`.
    Component,
}

/// What is run.
#[derive(Debug, Clone)]
pub struct Program {
    /// The file, absolute.
    pub file: PathBuf,
    /// What it must be. It is compared on the opened file that is then run.
    pub digest: FileDigest,
    /// How it is run.
    pub kind: ProgramKind,
}

/// What a job is.
#[derive(Debug, Clone)]
pub enum JobWork {
    /// One file, which is run.
    Program(Program),
    /// The build of a Nix derivation.
    Builder(BuilderSpec),
}

/// A file that a job reads as `/in/NAME`.
#[derive(Debug, Clone)]
pub struct InputFile {
    /// One part of a path.
    pub name: String,
    /// The file, absolute.
    pub file: PathBuf,
    /// What it must be, where that is to be compared before the job begins.
    pub digest: Option<FileDigest>,
}

/// How a job's disk space is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskBound {
    /// In memory, by the kernel: `/scratch` is a file system of that size, which counts as the job's memory, and the output
    /// is one file of at most that size.
    InMemory {
        /// Of `/scratch`, and of the output, each.
        bytes: u64,
    },
    /// On disk, by looking: nothing that needs no privilege limits a folder's size. No file grows beyond `bytes` (the
    /// kernel), and a job that has more in all, more `files`, or leaves the disk less than `free_bytes_min`, is killed
    /// at the next look, five times a second.
    Watched {
        /// Of all files together, as the disk counts them.
        bytes: u64,
        /// Files and folders.
        files: u32,
        /// What the disk keeps free, whoever fills it.
        free_bytes_min: u64,
    },
}

impl DiskBound {
    /// The largest single file.
    pub(crate) fn file_bytes(self) -> u64 {
        match self {
            Self::InMemory { bytes } | Self::Watched { bytes, .. } => bytes,
        }
    }
}

/// What a job may use. All of it is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// Processors, in percent of one.
    pub cpu_percent: u32,
    /// Memory, in MiB; nothing of it is swapped.
    pub memory_mb: u32,
    /// Processes and threads, bubblewrap's two among them.
    pub pids: u32,
    /// Files that are open in one process.
    pub open_files: u32,
    /// What is written to standard output and error together, in bytes. A job that writes more is ended.
    pub log_bytes: u64,
    /// The largest output that is taken.
    pub output_bytes: u64,
    /// From its beginning on, without the time that it was frozen.
    pub wall: Duration,
    /// Its files.
    pub disk: DiskBound,
}

/// What all jobs of a yard may use together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TotalBounds {
    /// Processors, in percent of one.
    pub cpu_percent: u32,
    /// Memory, in MiB.
    pub memory_mb: u32,
    /// Processes and threads.
    pub pids: u32,
}

/// A job to be started.
#[derive(Debug, Clone)]
pub struct JobSpec {
    /// Its name: letters, digits, `-`, `_` and `.`. No two of one name run at once.
    pub name: String,
    /// What is run.
    pub work: JobWork,
    /// With which arguments, the program's own name not among them.
    pub arguments: Vec<String>,
    /// What it reads.
    pub inputs: Vec<InputFile>,
    /// What it may use.
    pub bounds: Bounds,
    /// The least version of Landlock that has to hold it; a kernel with less is a refusal. 0 does without.
    pub landlock_abi_min: u32,
}

/// Whether a name is one part of a path, and plain.
pub(crate) fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// Whether a name is one part of a path. It may have any letters.
fn is_one_part(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && !matches!(name, "." | "..")
        && !name.chars().any(|c| c == '/' || c.is_control())
}

impl JobSpec {
    /// Refuses what can't be meant.
    pub(crate) fn check(&self) -> Result<(), SandboxError> {
        let refuse = |why: String| Err(SandboxError::Spec { why });
        if !is_plain(&self.name) {
            return refuse(format!(
                "{:?} is no name for a job: up to {NAME_BYTES_MAX} letters, digits, `-`, `_` and `.`",
                self.name
            ));
        }
        let bytes: usize = self.arguments.iter().map(String::len).sum();
        if self.arguments.len() > ARGUMENTS_MAX || bytes > ARGUMENTS_BYTES_MAX {
            return refuse(format!(
                "it has {} arguments of {bytes} bytes; at most {ARGUMENTS_MAX} of {ARGUMENTS_BYTES_MAX} are taken",
                self.arguments.len()
            ));
        }
        if self.arguments.iter().any(|one| one.contains('\0')) {
            return refuse("an argument has a zero byte within".to_owned());
        }
        if self.inputs.len() > INPUTS_MAX {
            return refuse(format!("more than {INPUTS_MAX} files to read"));
        }
        if let Some(input) = self.inputs.iter().find(|input| !is_one_part(&input.name)) {
            return refuse(format!("{:?} is no name for an input", input.name));
        }
        let mut names: Vec<_> = self.inputs.iter().map(|input| &input.name).collect();
        names.sort();
        names.dedup();
        if names.len() < self.inputs.len() {
            return refuse("two inputs have one name".to_owned());
        }
        let mut files: Vec<_> = self.inputs.iter().map(|input| &input.file).collect();
        match &self.work {
            JobWork::Program(program) => files.push(&program.file),
            JobWork::Builder(builder) => {
                builder.check(self.bounds.disk)?;
                files.extend(builder.files());
            }
        }
        if let Some(file) = files.iter().find(|file| !file.is_absolute()) {
            return refuse(format!("{} is no absolute path", file.display()));
        }
        self.bounds.check()
    }
}

impl Bounds {
    fn check(&self) -> Result<(), SandboxError> {
        for (what, found, least) in [
            ("cpu_percent", u64::from(self.cpu_percent), 1),
            ("memory_mb", self.memory_mb.into(), MEMORY_MB_MIN.into()),
            ("pids", self.pids.into(), PIDS_MIN.into()),
            ("open_files", self.open_files.into(), 8),
            ("log_bytes", self.log_bytes, 1),
            ("disk bytes", self.disk.file_bytes(), 1),
        ] {
            if found < least {
                return Err(SandboxError::Spec {
                    why: format!("{what} is {found}, and at least {least} is needed"),
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in ["a", "render-1.2_x", "A"] {
            assert!(is_plain(name), "{name}");
        }
        for name in [
            "",
            ".",
            "..",
            ".a",
            "a/b",
            "a b",
            "ä",
            "a\n",
            &"a".repeat(101),
        ] {
            assert!(!is_plain(name), "{name}");
        }
        assert!(is_one_part("ein Bild.png") && !is_one_part("../x") && !is_one_part(".."));
    }
}
