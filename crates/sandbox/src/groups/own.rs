//! In which control groups this process is, as folders.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use super::limits::Controller;
use crate::SandboxError;

/// The folders of this process' groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Own {
    /// Of version 2, where it is mounted.
    pub(crate) unified: Option<PathBuf>,
    /// Of version 1, by controller.
    pub(crate) legacy: BTreeMap<Controller, PathBuf>,
}

impl Own {
    /// As the kernel says.
    pub(crate) fn look() -> Result<Self, SandboxError> {
        let read = |path: &'static str| {
            fs::read_to_string(path).map_err(SandboxError::file("read", Path::new(path)))
        };
        Ok(Self::read(
            &read("/proc/self/mountinfo")?,
            &read("/proc/self/cgroup")?,
        ))
    }

    /// From the text of `/proc/self/mountinfo` (proc(5)) and `/proc/self/cgroup` (cgroups(7)).
    fn read(mounts: &str, groups: &str) -> Self {
        let mut own = Self {
            unified: None,
            legacy: BTreeMap::new(),
        };
        for line in groups.lines() {
            let mut parts = line.splitn(3, ':');
            let (Some(_), Some(names), Some(path)) = (parts.next(), parts.next(), parts.next())
            else {
                continue;
            };
            if names.is_empty() {
                own.unified = folder(mounts, "cgroup2", None, path);
            }
            for controller in Controller::ALL {
                let name = controller.name();
                if names.split(',').any(|one| one == name)
                    && let Some(dir) = folder(mounts, "cgroup", Some(name), path)
                {
                    own.legacy.insert(controller, dir);
                }
            }
        }
        own
    }
}

/// Where a group is in the file system: a mount may show a part of the hierarchy only.
fn folder(mounts: &str, kind: &str, controller: Option<&str>, path: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split(' ');
        if right.next()? != kind {
            return None;
        }
        if let Some(name) = controller {
            let options = right.nth(1)?;
            options.split(',').find(|one| *one == name)?;
        }
        let mut left = left.split(' ').skip(3);
        let (root, point) = (left.next()?, left.next()?);
        let below = Path::new(path).strip_prefix(root).ok()?;
        Some(Path::new(point).join(below))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PURE: &str = "\
22 1 0:20 / /sys rw - sysfs sysfs rw
30 22 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate
";
    const HYBRID: &str = "\
40 35 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
41 35 0:32 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct
42 35 0:33 /docker/ab /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
43 35 0:34 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
";

    #[test]
    fn both_versions_are_found() {
        let slice = "/user.slice/user-1000.slice/user@1000.service/app.slice/a.service";
        let own = Own::read(PURE, &format!("0::{slice}\n"));
        assert_eq!(
            own.unified,
            Some(PathBuf::from(format!("/sys/fs/cgroup{slice}")))
        );
        assert!(own.legacy.is_empty());

        let groups = "9:pids:/\n4:memory:/docker/ab/x\n2:cpu,cpuacct:/a\n1:name=systemd:/\n0::/\n";
        let own = Own::read(HYBRID, groups);
        assert_eq!(own.unified, Some(PathBuf::from("/sys/fs/cgroup/unified/")));
        let dirs: Vec<_> = own.legacy.values().map(|p| p.to_str().unwrap()).collect();
        assert_eq!(
            dirs,
            [
                "/sys/fs/cgroup/cpu,cpuacct/a",
                "/sys/fs/cgroup/memory/x",
                "/sys/fs/cgroup/pids/"
            ]
        );
    }

    #[test]
    fn what_is_not_mounted_is_not_there() {
        let own = Own::read("", "0::/\n3:memory:/x\nnonsense\n");
        assert_eq!((own.unified, own.legacy.len()), (None, 0));
        // A group outside of what the mount shows.
        let own = Own::read(HYBRID, "4:memory:/elsewhere\n");
        assert!(own.legacy.is_empty());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_to_its_end(mounts in "([a-z0-9:/ ,-]|\\n){0,200}", groups in "([a-z0-9:/,.]|\\n){0,200}") {
            let own = Own::read(&mounts, &groups);
            proptest::prop_assert!(own.legacy.len() <= Controller::ALL.len());
            // Also beside what is right.
            let own = Own::read(&format!("{mounts}\n{PURE}"), &format!("{groups}\n0::/user.slice\n"));
            proptest::prop_assert!(own.unified.is_some() || mounts.contains("cgroup2"));
        }
    }
}
