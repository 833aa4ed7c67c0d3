//! Limits, in both versions' files and units.

use std::{fs, path::Path};

use crate::SandboxError;

/// What limits a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Controller {
    Cpu,
    Memory,
    Pids,
}

impl Controller {
    pub(crate) const ALL: [Self; 3] = [Self::Cpu, Self::Memory, Self::Pids];

    /// As the kernel calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Pids => "pids",
        }
    }

    /// What it limits, for people.
    pub(crate) fn limit(self) -> &'static str {
        match self {
            Self::Cpu => "a limit on processors",
            Self::Memory => "a limit on memory",
            Self::Pids => "a limit on processes",
        }
    }
}

/// Whose files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    One,
    Two,
}

/// What a group may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) cpu_percent: u32,
    pub(crate) memory_mb: u32,
    pub(crate) pids: u32,
    /// Whether all of the group ends when its memory is used up: a job does, all jobs together don't.
    pub(crate) ends_whole: bool,
}

/// The period in which processor time is handed out, in microseconds: the kernel's own default.
const PERIOD_US: u64 = 100_000;

/// Writes the limits of a controller, and reads each back.
pub(super) fn set(
    controller: Controller,
    version: Version,
    dir: &Path,
    share: &Share,
) -> Result<(), SandboxError> {
    let quota = u64::from(share.cpu_percent) * PERIOD_US / 100;
    let bytes = (u64::from(share.memory_mb) * 1024 * 1024).to_string();
    match (controller, version) {
        (Controller::Cpu, Version::Two) => {
            held(&dir.join("cpu.max"), &format!("{quota} {PERIOD_US}"))?;
        }
        (Controller::Cpu, Version::One) => {
            held(&dir.join("cpu.cfs_period_us"), &PERIOD_US.to_string())?;
            held(&dir.join("cpu.cfs_quota_us"), &quota.to_string())?;
        }
        (Controller::Memory, Version::Two) => {
            held(&dir.join("memory.max"), &bytes)?;
            let swap = dir.join("memory.swap.max");
            if swap.exists() || has_swap() {
                held(&swap, "0")?;
            }
            let whole = if share.ends_whole { "1" } else { "0" };
            held(&dir.join("memory.oom.group"), whole)?;
        }
        (Controller::Memory, Version::One) => {
            let hierarchy = dir.join("memory.use_hierarchy");
            if hierarchy.exists() {
                expect(&hierarchy, "1")?;
            }
            let with_swap = dir.join("memory.memsw.limit_in_bytes");
            // The limit with swap is never below the one without, in whatever order they are moved.
            if with_swap.exists() {
                kindly(&with_swap, "-1");
            }
            held(&dir.join("memory.limit_in_bytes"), &bytes)?;
            if with_swap.exists() || has_swap() {
                held(&with_swap, &bytes)?;
            }
        }
        (Controller::Pids, _) => held(&dir.join("pids.max"), &share.pids.to_string())?,
    }
    Ok(())
}

/// Lets a group have its turn after everybody else, or like everybody else. Unlike a process' own idle class, that can be
/// taken back without privileges, which its end needs: see [`hurry`].
pub(super) fn rank(version: Version, dir: &Path, is_last: bool) {
    if !is_last {
        kindly(&dir.join("cpu.idle"), "0");
    }
    match version {
        Version::Two => kindly(&dir.join("cpu.weight"), "100"),
        Version::One => kindly(&dir.join("cpu.shares"), "1024"),
    }
    if is_last {
        kindly(&dir.join("cpu.idle"), "1");
    }
}

/// Lets a group come first, and without a limit on its time: processes that are to stop or to die need some for that, and
/// one that comes last on a busy machine would get it after seconds.
pub(super) fn hurry(version: Version, dir: &Path) {
    kindly(&dir.join("cpu.idle"), "0");
    match version {
        Version::Two => {
            kindly(&dir.join("cpu.weight"), "10000");
            kindly(&dir.join("cpu.max"), "max");
        }
        Version::One => {
            kindly(&dir.join("cpu.shares"), "262144");
            kindly(&dir.join("cpu.cfs_quota_us"), "-1");
        }
    }
}

/// Writes a limit and reads it back.
fn held(file: &Path, text: &str) -> Result<(), SandboxError> {
    fs::write(file, text).map_err(SandboxError::file("write to", file))?;
    expect(file, text)
}

fn expect(file: &Path, text: &str) -> Result<(), SandboxError> {
    let read = fs::read_to_string(file).map_err(SandboxError::file("read", file))?;
    if read.trim() == text {
        return Ok(());
    }
    Err(SandboxError::ReadBack {
        file: file.to_owned(),
        wrote: text.to_owned(),
        read: read.trim().to_owned(),
    })
}

/// Writes what isn't a limit: a kernel without it does without.
fn kindly(file: &Path, text: &str) {
    if file.exists() {
        // Manners, not bounds: the limits beside it hold in either case.
        let _ = fs::write(file, text);
    }
}

/// Whether this machine swaps at all. What can't be read counts as a yes.
fn has_swap() -> bool {
    fs::read_to_string("/proc/swaps").map_or(true, |text| text.lines().count() > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARE: Share = Share {
        cpu_percent: 150,
        memory_mb: 64,
        pids: 20,
        ends_whole: true,
    };

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            fs::write(dir.path().join(file), "max\n").unwrap();
        }
        dir
    }

    #[test]
    fn both_versions_get_the_same_share_in_their_own_units() {
        let two = tree(&["cpu.max", "memory.max", "memory.swap.max", "pids.max"]);
        let one = tree(&["cpu.cfs_quota_us", "memory.memsw.limit_in_bytes"]);
        for controller in Controller::ALL {
            set(controller, Version::Two, two.path(), &SHARE).unwrap();
            set(controller, Version::One, one.path(), &SHARE).unwrap();
        }
        let mut shown = String::new();
        for dir in [&two, &one] {
            let mut files: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().collect();
            files.sort_by_key(fs::DirEntry::file_name);
            for file in files {
                let text = fs::read_to_string(file.path()).unwrap();
                shown += &format!("{} = {text}\n", file.file_name().to_string_lossy());
            }
        }
        assert_eq!(
            shown,
            "cpu.max = 150000 100000\nmemory.max = 67108864\nmemory.oom.group = 1\n\
             memory.swap.max = 0\npids.max = 20\n\
             cpu.cfs_period_us = 100000\ncpu.cfs_quota_us = 150000\nmemory.limit_in_bytes = 67108864\n\
             memory.memsw.limit_in_bytes = 67108864\npids.max = 20\n"
        );
    }

    #[test]
    fn a_limit_that_reads_otherwise_is_refused() {
        let dir = tree(&["memory.use_hierarchy"]);
        let error = set(Controller::Memory, Version::One, dir.path(), &SHARE).unwrap_err();
        let text = error.to_string();
        assert!(
            text.ends_with("memory.use_hierarchy was set to 1, and reads max"),
            "{text}"
        );
    }
}
