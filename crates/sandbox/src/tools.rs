//! The programs of this machine that a sandbox is made of.

use std::{
    env,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::process::Command;
use undercroft_process::{Input, run};

use crate::{
    SandboxError,
    order::{NEEDS, Needs, ORDER_VERSION},
};

/// How long a program may take to say what it is. It reads one file.
const ASK_LIMIT: Duration = Duration::from_secs(20);
/// The name of the program that runs inside.
const JOB: &str = "undercroft-job";

/// Where they are, and what `undercroft-job` needs of this machine's libraries.
#[derive(Debug, Clone)]
pub struct Tools {
    pub(crate) bwrap: PathBuf,
    pub(crate) job: PathBuf,
    pub(crate) needs: Needs,
    /// Makes what it starts wait for everybody else's disk; a machine without it does without.
    pub(crate) ionice: Option<PathBuf>,
}

impl Tools {
    /// Finds bubblewrap in `PATH`, and `undercroft-job` beside this program, in the folder above it, or in `PATH`; or each
    /// where it is said to be.
    ///
    /// # Errors
    /// When one isn't there, or `undercroft-job` is another version's.
    pub async fn find(bwrap: Option<&Path>, job: Option<&Path>) -> Result<Self, SandboxError> {
        let bwrap = bwrap.map(Path::to_owned).or_else(|| in_path("bwrap"));
        let bwrap = bwrap.ok_or(SandboxError::NoProgram {
            program: "bubblewrap (`bwrap`)",
            hint: "install your distribution's package `bubblewrap`; without it nothing can be lent",
        })?;
        let job = job.map(Path::to_owned).or_else(beside);
        let job = job
            .or_else(|| in_path(JOB))
            .ok_or(SandboxError::NoProgram {
                program: JOB,
                hint: "it belongs beside the command `undercroft`: install both",
            })?;
        let needs = needs(&job).await?;
        Ok(Self {
            bwrap,
            job,
            needs,
            ionice: in_path("ionice"),
        })
    }
}

/// Asks the program which files of this machine it is made of.
async fn needs(job: &Path) -> Result<Needs, SandboxError> {
    let other = |why: String| SandboxError::Refused {
        why: format!("{} {why}", job.display()),
        hint: Some("it belongs beside the command `undercroft`, of the same release".to_owned()),
    };
    let mut command = Command::new(job);
    command.arg(NEEDS).env_clear();
    let ended = run(command, Input::Nothing, ASK_LIMIT, &mut |_| {})
        .await
        .map_err(SandboxError::file("start", job))?;
    if ended.code != Some(0) {
        return Err(other(format!(
            "doesn't say what it needs: {}",
            ended.stderr_tail
        )));
    }
    let needs: Needs = serde_json::from_slice(&ended.stdout)
        .map_err(|error| other(format!("says what it needs in other words: {error}")))?;
    if needs.version != ORDER_VERSION {
        return Err(other(format!(
            "takes orders of version {}, and this sends version {ORDER_VERSION}",
            needs.version
        )));
    }
    Ok(needs)
}

fn beside() -> Option<PathBuf> {
    let own = env::current_exe().ok()?;
    let folder = own.parent()?;
    // Tests lie in a folder below the programs.
    let folders = [Some(folder), folder.parent()];
    let mut found = folders.into_iter().flatten().map(|folder| folder.join(JOB));
    found.find(|file| file.is_file())
}

fn in_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}
