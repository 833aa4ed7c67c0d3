//! Control groups: one for all jobs of a yard, and one below it for each job.
//!
//! Freezing, killing and seeing gone is version 2's, which every kernel since 5.14 has. Limits are version 2's where the
//! controllers are delegated, and version 1's where that is what there is: each is written and read back.

mod limits;
mod own;

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

pub(crate) use self::{
    limits::{Controller, Share, Version},
    own::Own,
};
use crate::SandboxError;

/// The leaf that a daemon moves into, where its own group would otherwise have processes and children with limits, which
/// version 2 doesn't allow.
const DAEMON_LEAF: &str = "undercroft-daemon";
/// How often a group is looked at while it freezes or dies. A look is one small read.
const LOOK: Duration = Duration::from_millis(2);
/// How long a group may take to freeze: it is milliseconds, and a process in an uninterruptible wait takes longer.
pub(crate) const FREEZE_LIMIT: Duration = Duration::from_secs(2);
/// How long killed processes may take to be gone: hundreds of hostile ones take a fifth of a second on two busy
/// processors.
pub(crate) const GONE_LIMIT: Duration = Duration::from_secs(10);
/// How often a group that is empty may still refuse to be removed, while the last of its dead are buried; [`LOOK`] apart.
const REMOVE_TRIES: u32 = 500;

/// A group: the folder by which it is frozen and killed, and the folders whose limits hold it.
#[derive(Debug)]
pub(crate) struct Group {
    control: PathBuf,
    holds: Vec<(Controller, Version, PathBuf)>,
    /// What it was set to.
    share: Mutex<Option<Share>>,
    /// Whether everybody else on the machine comes first; of the group of all jobs.
    comes_last: AtomicBool,
    /// How many freeze or kill in it now.
    hurried: Mutex<u32>,
    /// The group that it is in, where that is one of ours.
    within: Option<Arc<Self>>,
}

impl Group {
    /// The group for all jobs, made below this process' own groups.
    pub(crate) fn total(own: &Own, name: &str) -> Result<Self, SandboxError> {
        let group = Self::planned(own, name)?;
        let base = group.control.parent().unwrap_or(&group.control);
        let mine = |(c, v, _): &(Controller, Version, PathBuf)| (*v == Version::Two).then_some(*c);
        let enabled: Vec<_> = group.holds.iter().filter_map(mine).collect();
        delegate(base, &enabled, true)?;
        group.create()?;
        delegate(&group.control, &enabled, false)?;
        if !group.control.join("cgroup.kill").exists() {
            return Err(SandboxError::NotHeld {
                what: "the end of every process",
                why: format!("{} has no `cgroup.kill`", group.control.display()),
                hint: "Linux 5.14 and later have it",
            });
        }
        Ok(group)
    }

    /// [`Self::total`] before anything is made.
    pub(crate) fn planned(own: &Own, name: &str) -> Result<Self, SandboxError> {
        let Some(at) = &own.unified else {
            return Err(SandboxError::NotHeld {
                what: "the end of every process",
                why: "control groups of version 2 aren't mounted".to_owned(),
                hint: "mount them: `mount -t cgroup2 none /sys/fs/cgroup/unified`, or boot without `systemd.legacy_systemd_cgroup_controller`",
            });
        };
        let base = match at.file_name() {
            Some(leaf) if leaf == DAEMON_LEAF => at.parent().unwrap_or(at),
            _ => at,
        };
        let there = words(&base.join("cgroup.controllers"));
        let mut holds = Vec::new();
        for controller in Controller::ALL {
            if there.contains(controller.name()) {
                holds.push((controller, Version::Two, base.join(name)));
            } else if let Some(dir) = own.legacy.get(&controller) {
                holds.push((controller, Version::One, dir.join(name)));
            } else {
                return Err(SandboxError::NotHeld {
                    what: controller.limit(),
                    why: format!(
                        "the controller `{}` isn't delegated to {}",
                        controller.name(),
                        base.display()
                    ),
                    hint: "start the daemon as a service with `Delegate=yes`, or with `systemd-run --user --scope -p Delegate=yes`",
                });
            }
        }
        Ok(Self::of(base.join(name), holds, None))
    }

    /// A group by its folders alone, as an earlier process left it.
    pub(crate) fn left(control: PathBuf, others: Vec<PathBuf>) -> Self {
        let holds = std::iter::once(&control).chain(&others).map(|dir| {
            // What it needs to be told apart for is its end: who has a say in processors' time.
            if dir.join("cpu.cfs_quota_us").exists() {
                (Controller::Cpu, Version::One, dir.clone())
            } else if dir.join("cpu.max").exists() {
                (Controller::Cpu, Version::Two, dir.clone())
            } else {
                (Controller::Pids, Version::One, dir.clone())
            }
        });
        let holds = holds.collect();
        Self::of(control, holds, None)
    }

    fn of(
        control: PathBuf,
        holds: Vec<(Controller, Version, PathBuf)>,
        within: Option<Arc<Self>>,
    ) -> Self {
        Self {
            control,
            holds,
            share: Mutex::default(),
            comes_last: AtomicBool::new(within.is_none()),
            hurried: Mutex::default(),
            within,
        }
    }

    /// A group below this one.
    pub(crate) fn child(self: &Arc<Self>, name: &str) -> Result<Self, SandboxError> {
        let group = self.below(name);
        group.create()?;
        Ok(group)
    }

    fn below(self: &Arc<Self>, name: &str) -> Self {
        let holds = self.holds.iter();
        let holds = holds.map(|(c, v, dir)| (*c, *v, dir.join(name)));
        let within = Some(Arc::clone(self));
        Self::of(self.control.join(name), holds.collect(), within)
    }

    /// The groups below this one.
    pub(crate) fn children(self: &Arc<Self>) -> Vec<Self> {
        let mut names = BTreeSet::new();
        for dir in self.folders() {
            let entries = fs::read_dir(dir).into_iter().flatten().flatten();
            let entries = entries.filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()));
            names.extend(entries.filter_map(|entry| entry.file_name().into_string().ok()));
        }
        names.iter().map(|name| self.below(name)).collect()
    }

    /// The folder by which it is frozen and killed.
    pub(crate) fn control(&self) -> &Path {
        &self.control
    }

    /// All its folders, the one of [`Self::control`] first.
    pub(crate) fn folders(&self) -> Vec<&Path> {
        let mut all: Vec<&Path> = vec![&self.control];
        for (_, _, dir) in &self.holds {
            if !all.contains(&dir.as_path()) {
                all.push(dir);
            }
        }
        all
    }

    fn create(&self) -> Result<(), SandboxError> {
        for dir in self.folders() {
            match fs::create_dir(dir) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(SandboxError::file("make the control group", dir)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Sets the limits, and reads each back.
    pub(crate) fn set(&self, share: &Share) -> Result<(), SandboxError> {
        for (controller, version, dir) in &self.holds {
            limits::set(*controller, *version, dir, share)?;
        }
        *lock(&self.share) = Some(*share);
        self.calm_down();
        Ok(())
    }

    /// Whether everybody else on the machine comes first. A group below this one comes last with it.
    pub(crate) fn come_last(&self, does: bool) {
        self.comes_last.store(does, Ordering::Relaxed);
        self.calm_down();
    }

    /// Takes its place among others again.
    fn calm_down(&self) {
        for (controller, version, dir) in &self.holds {
            if *controller == Controller::Cpu {
                limits::rank(*version, dir, self.comes_last.load(Ordering::Relaxed));
            }
        }
    }

    /// Lets it come first until what is returned is dropped, and the group that it is in.
    fn hurry(&self) -> Hurry<'_> {
        let mut count = lock(&self.hurried);
        *count = count.saturating_add(1);
        for (controller, version, dir) in &self.holds {
            if *controller == Controller::Cpu {
                limits::hurry(*version, dir);
            }
        }
        drop(count);
        Hurry {
            group: self,
            _within: self
                .within
                .as_deref()
                .map(|within| Box::new(within.hurry())),
        }
    }

    /// Which version holds what, for people.
    pub(crate) fn held_by(&self) -> Vec<(Controller, Version)> {
        let holds = self.holds.iter();
        holds.map(|(c, version, _)| (*c, *version)).collect()
    }

    /// Stops every process of it, and returns when all have stopped.
    pub(crate) async fn freeze(&self) -> Result<Duration, SandboxError> {
        let start = Instant::now();
        let _hurry = self.hurry();
        self.control_by("cgroup.freeze", "1")?;
        while event(&self.control, "frozen") != Some(1) {
            if start.elapsed() > FREEZE_LIMIT {
                return Err(SandboxError::NotHeld {
                    what: "a frozen group",
                    why: format!(
                        "{} hasn't frozen within {} s",
                        self.control.display(),
                        FREEZE_LIMIT.as_secs()
                    ),
                    hint: "a process waits for a device or a file system; killing it works as soon as that answers",
                });
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(start.elapsed())
    }

    /// Lets them go on.
    pub(crate) fn thaw(&self) -> Result<(), SandboxError> {
        self.control_by("cgroup.freeze", "0")
    }

    /// Kills every process of it, frozen or not, without waiting.
    pub(crate) fn kill(&self) -> Result<(), SandboxError> {
        self.control_by("cgroup.kill", "1")
    }

    /// Kills every process of it, and returns when none is left.
    pub(crate) async fn kill_and_see(&self) -> Result<Duration, SandboxError> {
        let start = Instant::now();
        if !self.control.exists() {
            return Ok(Duration::ZERO);
        }
        let _hurry = self.hurry();
        self.kill()?;
        while self.is_populated() {
            if start.elapsed() > GONE_LIMIT {
                return Err(SandboxError::StillThere {
                    group: self.control.clone(),
                    after_ms: millis(start.elapsed()),
                });
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(start.elapsed())
    }

    /// Whether a process is left. A group that isn't there has none; one that can't be read is taken for populated.
    pub(crate) fn is_populated(&self) -> bool {
        self.control.exists() && event(&self.control, "populated") != Some(0)
    }

    /// Removes it where it is empty, without waiting.
    pub(crate) fn remove_now(&self) {
        for dir in self.folders() {
            // An empty group that stays costs nothing, and is used again.
            let _ = fs::remove_dir(dir);
        }
    }

    /// Removes it. It has to be empty.
    pub(crate) async fn remove(&self) -> Result<(), SandboxError> {
        for dir in self.folders() {
            let mut tries = 0;
            loop {
                match fs::remove_dir(dir) {
                    Ok(()) => break,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                    Err(error) if tries >= REMOVE_TRIES => {
                        return Err(SandboxError::file("remove the control group", dir)(error));
                    }
                    Err(_) => tries += 1,
                }
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(())
    }

    /// Processor time of all its processes, those that have ended among them, in milliseconds.
    pub(crate) fn cpu_ms(&self) -> u64 {
        value(&self.control.join("cpu.stat"), "usage_usec").unwrap_or(0) / 1000
    }

    /// The most memory that it had at once, in bytes; `None` where the kernel doesn't say.
    pub(crate) fn memory_peak(&self) -> Option<u64> {
        let (_, version, dir) = self.memory()?;
        let file = match version {
            Version::Two => "memory.peak",
            Version::One => "memory.max_usage_in_bytes",
        };
        fs::read_to_string(dir.join(file)).ok()?.trim().parse().ok()
    }

    /// Processes that were killed because the memory was used up.
    pub(crate) fn oom_kills(&self) -> u64 {
        let Some((_, version, dir)) = self.memory() else {
            return 0;
        };
        let file = match version {
            Version::Two => "memory.events",
            Version::One => "memory.oom_control",
        };
        value(&dir.join(file), "oom_kill").unwrap_or(0)
    }

    fn memory(&self) -> Option<&(Controller, Version, PathBuf)> {
        let mut holds = self.holds.iter();
        holds.find(|(controller, ..)| *controller == Controller::Memory)
    }

    /// The processes that are in it now.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let text = fs::read_to_string(self.control.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    fn control_by(&self, file: &str, text: &str) -> Result<(), SandboxError> {
        let path = self.control.join(file);
        fs::write(&path, text).map_err(SandboxError::file("write to", path))
    }
}

/// While it is there, a group comes first.
struct Hurry<'a> {
    group: &'a Group,
    _within: Option<Box<Hurry<'a>>>,
}

impl Drop for Hurry<'_> {
    fn drop(&mut self) {
        let mut count = lock(&self.group.hurried);
        *count = count.saturating_sub(1);
        if *count > 0 {
            return;
        }
        let share = *lock(&self.group.share);
        for (controller, version, dir) in &self.group.holds {
            if let (Controller::Cpu, Some(share)) = (controller, &share) {
                // A group that is gone needs no limit; one that isn't was set before to the same.
                let _ = limits::set(*controller, *version, dir, share);
            }
        }
        self.group.calm_down();
    }
}

/// A lock whose holder panicked is as good as any here: each value is replaced whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets children of a group have limits of these controllers. Where the group has processes itself, this one moves aside.
fn delegate(dir: &Path, controllers: &[Controller], is_own: bool) -> Result<(), SandboxError> {
    let file = dir.join("cgroup.subtree_control");
    let missing: Vec<_> = {
        let there = words(&file);
        let all = controllers.iter();
        all.filter(|c| !there.contains(c.name()))
            .map(|c| format!("+{}", c.name()))
            .collect()
    };
    if missing.is_empty() {
        return Ok(());
    }
    let text = missing.join(" ");
    let failed = match fs::write(&file, &text) {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    if is_own && failed.kind() == io::ErrorKind::ResourceBusy {
        let leaf = dir.join(DAEMON_LEAF);
        let moved = fs::create_dir_all(&leaf)
            .and_then(|()| fs::write(leaf.join("cgroup.procs"), "0"))
            .and_then(|()| fs::write(&file, &text));
        if moved.is_ok() {
            return Ok(());
        }
    }
    Err(SandboxError::NotHeld {
        what: "limits of jobs",
        why: format!("{} can't be written to: {failed}", file.display()),
        hint: "start the daemon as a service with `Delegate=yes`, or with `systemd-run --user --scope -p Delegate=yes`",
    })
}

/// The words of a file; none where it can't be read.
fn words(file: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

/// A number of `cgroup.events`.
fn event(dir: &Path, name: &str) -> Option<u64> {
    value(&dir.join("cgroup.events"), name)
}

/// The number after a name, in a file with a pair on each line.
fn value(file: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// A duration in whole milliseconds.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
