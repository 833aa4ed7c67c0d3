//! A place for jobs, and the hostile program.

use std::{
    fs::{self, File},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Duration,
};

use tempfile::TempDir;
use undercroft_sandbox::{
    Bounds, DiskBound, FileDigest, InputFile, JobSpec, JobWork, Program, ProgramKind, SandboxError,
    Tools, TotalBounds, Yard,
};
use undercroft_testkit::{OrSkip as _, program, skip};

/// A yard in a folder of its own.
pub(crate) struct Site {
    pub(crate) yard: Yard,
    pub(crate) folder: TempDir,
    hostile: PathBuf,
}

impl Site {
    /// `None`, said openly, where this machine can't confine.
    pub(crate) async fn open() -> Option<Self> {
        let hostile = hostile()?;
        program("bwrap", "bubblewrap").or_skip()?;
        let folder = tempfile::tempdir().unwrap();
        let yard = match Yard::open(&folder.path().join("yard"), tools().await, &total()).await {
            Ok((yard, _)) => yard,
            Err(error @ SandboxError::NotHeld { .. }) => {
                skip(error);
                return None;
            }
            Err(error) => panic!("{error}"),
        };
        // Tests beside it would otherwise come first, all of them.
        yard.come_last(false);
        Some(Self {
            yard,
            folder,
            hostile,
        })
    }

    /// The hostile program with these arguments, and modest bounds.
    pub(crate) fn spec(&self, name: &str, arguments: &[&str]) -> JobSpec {
        JobSpec {
            name: name.to_owned(),
            work: JobWork::Program(native(&self.hostile)),
            arguments: arguments.iter().map(|one| (*one).to_owned()).collect(),
            inputs: Vec::new(),
            bounds: bounds(),
            landlock_abi_min: 1,
        }
    }

    /// A file that a job reads.
    pub(crate) fn input(&self, name: &str, text: &str) -> InputFile {
        let file = self.folder.path().join(format!("input-{name}"));
        fs::write(&file, text).unwrap();
        InputFile {
            name: name.to_owned(),
            digest: Some(digest(&file)),
            file,
        }
    }

    /// Where a job's files lie.
    pub(crate) fn job_folder(&self, name: &str) -> PathBuf {
        self.folder.path().join("yard/jobs").join(name)
    }
}

pub(crate) async fn tools() -> Tools {
    let job = Path::new(env!("CARGO_BIN_EXE_undercroft-job"));
    Tools::find(None, Some(job)).await.unwrap()
}

pub(crate) fn total() -> TotalBounds {
    TotalBounds {
        cpu_percent: 400,
        memory_mb: 2048,
        pids: 2048,
    }
}

pub(crate) fn bounds() -> Bounds {
    Bounds {
        cpu_percent: 200,
        memory_mb: 256,
        pids: 64,
        open_files: 64,
        log_bytes: 1024 * 1024,
        output_bytes: 1024 * 1024,
        wall: Duration::from_secs(60),
        disk: DiskBound::Watched {
            bytes: 64 * 1024 * 1024,
            files: 1000,
            free_bytes_min: 0,
        },
    }
}

pub(crate) fn native(file: &Path) -> Program {
    Program {
        file: file.to_owned(),
        digest: digest(file),
        kind: ProgramKind::Native,
    }
}

pub(crate) fn digest(file: &Path) -> FileDigest {
    FileDigest::of(File::open(file).unwrap(), u64::MAX)
        .unwrap()
        .0
}

pub(crate) fn text(file: File) -> String {
    std::io::read_to_string(file).unwrap()
}

/// The hostile program, compiled once; `None`, said openly, where no static program can be made.
fn hostile() -> Option<PathBuf> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(std::process::id().to_string());
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .unwrap();
        let program = folder.join("hostile");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sandbox/hostile.c");
        let made = Command::new("cc")
            .args(["-static", "-O1", "-o"])
            .args([&program, &source])
            .output();
        match made {
            Ok(made) if made.status.success() => Some(program),
            Ok(made) => panic!("{}", String::from_utf8_lossy(&made.stderr)),
            Err(_) => None,
        }
    });
    if built.is_none() {
        skip("no C compiler (`cc`) with a static C library; install gcc and libc6-dev");
    }
    built.clone()
}
