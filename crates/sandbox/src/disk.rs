//! How much a job's folders hold, by looking.

use std::{
    collections::BTreeSet,
    fs, io,
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use crate::{DiskBound, KillReason};
use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, statat, statvfs},
    io::Errno,
};

/// The deepest tree that a job may have, in folders: each is open while its inside is looked at.
const DEPTH_MAX: usize = 128;
/// The bytes of a block in `st_blocks` (inode(7)).
const BLOCK_BYTES: u64 = 512;

/// What a job may have on the disk.
#[derive(Debug, Clone)]
pub(crate) struct DiskWatch {
    folders: Vec<PathBuf>,
    bytes: u64,
    files: u32,
    free_bytes_min: u64,
}

#[derive(Default)]
struct Sum {
    bytes: u64,
    files: u64,
    seen: BTreeSet<(u64, u64)>,
    disks: BTreeSet<u64>,
}

impl DiskWatch {
    /// What is to be watched of a job whose files lie in a folder.
    pub(crate) fn of(folder: &Path, disk: DiskBound) -> Option<Self> {
        let DiskBound::Watched {
            bytes,
            files,
            free_bytes_min,
        } = disk
        else {
            return None;
        };
        Some(Self {
            folders: vec![folder.join("out"), folder.join("scratch")],
            bytes,
            files,
            free_bytes_min,
        })
    }

    /// Why the job is to go, if it is. `processes` are those of the job: what they hold open counts although it has
    /// no name any more.
    pub(crate) fn look(&self, processes: &[u32]) -> Option<KillReason> {
        let too_much = |why| KillReason::Disk { why };
        let mut sum = Sum::default();
        for folder in &self.folders {
            if let Some(why) = self.walk(folder, &mut sum) {
                return Some(too_much(why));
            }
            if let Some(why) = self.no_room(folder) {
                return Some(KillReason::NoRoom { why });
            }
        }
        for process in processes {
            if let Some(why) = unnamed(*process, &mut sum) {
                return Some(too_much(why));
            }
        }
        self.judge(&sum).map(too_much)
    }

    fn no_room(&self, folder: &Path) -> Option<String> {
        let free = statvfs(folder).ok()?;
        let free = free.f_bavail.saturating_mul(free.f_frsize);
        let min = self.free_bytes_min;
        (free < min).then(|| format!("the disk has {free} bytes left, and {min} are to stay free"))
    }

    fn judge(&self, sum: &Sum) -> Option<String> {
        if sum.bytes > self.bytes {
            return Some(format!(
                "its files have {} bytes, and may have {}",
                sum.bytes, self.bytes
            ));
        }
        (sum.files > self.files.into())
            .then(|| format!("it has more than {} files and folders", self.files))
    }

    fn walk(&self, folder: &Path, sum: &mut Sum) -> Option<String> {
        let mut open = match read(rustix::fs::CWD, folder) {
            Some(Ok(top)) => vec![top],
            Some(Err(why)) => return Some(why),
            None => return None,
        };
        if let Ok(stat) = rustix::fs::fstat(&open.first()?.0) {
            sum.disks.insert(stat.st_dev);
        }
        loop {
            let depth = open.len();
            let (fd, dir) = open.last_mut()?;
            let Some(entry) = dir.next() else {
                open.pop();
                continue;
            };
            let Ok(entry) = entry else { continue };
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            // What is gone since has no size.
            let Ok(stat) = statat(&*fd, name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            sum.files = sum.files.saturating_add(1);
            if sum.seen.insert((stat.st_dev, stat.st_ino)) {
                let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
                sum.bytes = sum.bytes.saturating_add(blocks.saturating_mul(BLOCK_BYTES));
            }
            if let Some(why) = self.judge(sum) {
                return Some(why);
            }
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                if depth >= DEPTH_MAX {
                    return Some(format!("its folders are more than {DEPTH_MAX} deep"));
                }
                match read(&*fd, name) {
                    Some(Ok(next)) => open.push(next),
                    Some(Err(why)) => return Some(why),
                    None => {}
                }
            }
        }
    }
}

/// Opens a folder to be looked at. `None` where it is gone.
fn read(
    at: impl std::os::fd::AsFd,
    name: impl rustix::path::Arg,
) -> Option<Result<(OwnedFd, Dir), String>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = openat(at, name, flags, Mode::empty()).and_then(|fd| {
        let dir = Dir::read_from(&fd)?;
        Ok((fd, dir))
    });
    match opened {
        Ok(pair) => Some(Ok(pair)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => None,
        Err(error) => Some(Err(format!(
            "it has a folder that can't be looked into ({error})"
        ))),
    }
}

/// Adds files that a process holds open and that have no name any more. Each thread is asked: one may have files of its
/// own, and those of the others are there when the first has ended.
fn unnamed(process: u32, sum: &mut Sum) -> Option<String> {
    let threads = fs::read_dir(format!("/proc/{process}/task"));
    for thread in threads.into_iter().flatten().flatten() {
        let entries = match fs::read_dir(thread.path().join("fd")) {
            // It could hold any number of them: one whose program can't be read is as closed as this (proc(5)).
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                if has_ended(&thread.path()) {
                    continue;
                }
                return Some(format!(
                    "it has a process whose open files can't be looked at ({error})"
                ));
            }
            entries => entries,
        };
        for entry in entries.into_iter().flatten().flatten() {
            count(&entry.path(), sum);
        }
    }
    None
}

/// Whether nothing of it is left but how it ended. It has no open files then, and can't be looked into by anybody.
fn has_ended(thread: &Path) -> bool {
    match fs::read_to_string(thread.join("stat")) {
        // The name before the state is in parentheses, and may have some of its own (proc(5)).
        Ok(stat) => stat
            .rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with(['Z', 'X'])),
        Err(_) => true,
    }
}

/// Adds an open file that has no name any more.
fn count(file: &Path, sum: &mut Sum) {
    // Through the link, as the file has no other name. Nothing is opened.
    let Ok(stat) = fs::metadata(file) else {
        return;
    };
    let is_ours = stat.is_file() && sum.disks.contains(&stat.dev());
    if is_ours && stat.nlink() == 0 && sum.seen.insert((stat.dev(), stat.ino())) {
        sum.files = sum.files.saturating_add(1);
        let bytes = stat.blocks().saturating_mul(BLOCK_BYTES);
        sum.bytes = sum.bytes.saturating_add(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_has_ended_holds_nothing_and_one_that_runs_may() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let path = format!("/proc/{0}/task/{0}", child.id());
        // Not waited for, it stays as what is left of it.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while !has_ended(Path::new(&path)) {
            assert!(std::time::Instant::now() < until, "it hasn't ended");
            std::thread::yield_now();
        }
        assert_eq!(unnamed(child.id(), &mut Sum::default()), None);
        child.wait().unwrap();
        assert!(!has_ended(Path::new("/proc/thread-self")));
    }
}
