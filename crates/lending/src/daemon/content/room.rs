//! What the cache of artefacts may hold, and what of it stays.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use rustix::fs::{Timespec, Timestamps, UTIME_NOW};
use undercroft_folder::confined::{Confined, ConfinedError};
use undercroft_lend::{
    Digest,
    job::Job,
    wire::{CONTENT_BYTES_MAX, Holding},
};

use super::{CACHE, Content, ContentError, name_of};

/// What a file's name has while it is fetched.
const PART: &str = ".part-";

/// Something that takes room, and may go.
pub(super) struct Kept {
    pub(super) used: Option<SystemTime>,
    pub(super) bytes: u64,
    /// Nothing where it is still being made.
    pub(super) digest: String,
    pub(super) path: PathBuf,
}

/// How many jobs use which artefacts, of all jobs at any time.
#[derive(Debug, Clone, Default)]
pub(super) struct Used(Arc<Mutex<BTreeMap<String, usize>>>);

impl Used {
    /// Counts are good whoever has panicked.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The artefacts of one job. They stay until this is dropped.
#[derive(Debug)]
pub(in crate::daemon) struct Uses {
    used: Used,
    names: Vec<String>,
}

impl Drop for Uses {
    fn drop(&mut self) {
        let mut used = self.used.lock();
        for name in &self.names {
            if let Some(jobs) = used.get_mut(name) {
                *jobs = jobs.saturating_sub(1);
            }
        }
        used.retain(|_, jobs| *jobs > 0);
    }
}

/// A file that is fetched. It is removed where it doesn't become an artefact, whatever ends the fetch.
pub(super) struct Part<'a> {
    state: &'a Confined,
    name: String,
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        // What can't be removed now is when the daemon starts.
        let _ = self.state.remove(&self.name);
    }
}

impl Part<'_> {
    pub(super) fn failed(&self, tried: &'static str) -> impl FnOnce(io::Error) -> ContentError {
        let path: PathBuf = self.state.path(&self.name);
        move |source| ContentError::Io {
            tried,
            path,
            source,
        }
    }

    /// It is whole. Another job may have been first with the same.
    pub(super) fn keep_as(&mut self, name: &str) -> Result<(), ContentError> {
        let renamed = std::fs::rename(self.state.path(&self.name), self.state.path(name));
        renamed.map_err(self.failed("rename"))
    }
}

impl Content {
    /// Artefacts that a job uses aren't removed to make room, from now on.
    pub(crate) fn uses(&self, job: &Job) -> Uses {
        let names: Vec<_> = job.inputs.values().chain([&job.artefact]).collect();
        let names: Vec<_> = names.into_iter().map(name_of).collect();
        let mut used = self.used.lock();
        for name in &names {
            let jobs = used.entry(name.clone()).or_default();
            *jobs = jobs.saturating_add(1);
        }
        let used = self.used.clone();
        Uses { used, names }
    }

    /// Whether an artefact is there; it counts as used just now.
    pub(super) fn is_there(&self, name: &str) -> Result<bool, ContentError> {
        let Some(file) = self.state.open(name)? else {
            return Ok(false);
        };
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        };
        let times = Timestamps {
            last_access: now,
            last_modification: now,
        };
        // Where that isn't known it may be fetched once more than needed.
        let _ = rustix::fs::futimens(&file, &times);
        Ok(true)
    }

    /// A file to fetch into: another for each job, as two may fetch the same at once.
    pub(super) fn begin_part(
        &self,
        name: &str,
        holding: &Holding,
    ) -> Result<(Part<'_>, File), ContentError> {
        let Holding { job, epoch } = holding;
        let part = Part {
            state: &self.state,
            name: format!("{name}{PART}{job}.{epoch}"),
        };
        let file = self.state.open_own(&part.name)?;
        file.set_len(0).map_err(part.failed("write"))?;
        Ok((part, file))
    }

    /// Removes what was used longest ago until so much more fits.
    pub(super) fn make_room(&self, digest: Digest, total: u64) -> Result<(), ContentError> {
        let quota = self.quota_bytes.min(CONTENT_BYTES_MAX);
        if total > quota {
            return Err(ContentError::TooLarge {
                digest,
                total,
                quota,
            });
        }
        self.clear_trees(false)?;
        let mut all = self.trees()?;
        all.extend(self.artefacts()?);
        all.sort_by_key(|kept| kept.used);
        let mut sum: u64 = all.iter().map(|kept| kept.bytes).sum();
        let mut free = self.free_bytes()?;
        let used = self.used.lock();
        let wanted = total.saturating_add(self.free_bytes_min);
        for kept in all {
            if sum.saturating_add(total) <= self.quota_bytes && free >= wanted {
                break;
            }
            if kept.digest.is_empty() || used.contains_key(&kept.digest) {
                continue;
            }
            let removed = match kept.path.is_dir() {
                true => fs::remove_dir_all(&kept.path),
                false => fs::remove_file(&kept.path),
            };
            removed.map_err(|source| ContentError::Io {
                tried: "remove",
                path: kept.path,
                source,
            })?;
            sum = sum.saturating_sub(kept.bytes);
            free = self.free_bytes()?;
        }
        if sum.saturating_add(total) > self.quota_bytes {
            return Err(ContentError::NoRoom { digest, total });
        }
        if free < wanted {
            let min = self.free_bytes_min;
            return Err(ContentError::DiskFull {
                digest,
                total,
                free,
                min,
            });
        }
        Ok(())
    }

    /// [`Self::make_room`] for a file, which has that room from then on, whatever else is fetched beside it.
    pub(super) fn keep_room(
        &self,
        digest: Digest,
        total: u64,
        file: &File,
        part: &Part<'_>,
    ) -> Result<(), ContentError> {
        self.make_room(digest, total)?;
        file.set_len(total).map_err(part.failed("write"))
    }

    /// The files of the cache.
    fn artefacts(&self) -> Result<Vec<Kept>, ContentError> {
        let mut found = Vec::new();
        for entry in self.state.list(CACHE)? {
            let name = entry.name.to_string_lossy().into_owned();
            let path = format!("{CACHE}/{name}");
            let Some(file) = self.state.open(&path)? else {
                continue;
            };
            if let Ok(meta) = file.metadata() {
                found.push(Kept {
                    used: meta.modified().ok(),
                    bytes: meta.len(),
                    digest: match name.contains(PART) {
                        true => String::new(),
                        false => name,
                    },
                    path: self.state.path(&path),
                });
            }
        }
        Ok(found)
    }

    fn free_bytes(&self) -> Result<u64, ContentError> {
        let path = self.state.path(CACHE);
        match rustix::fs::statvfs(&path) {
            Ok(disk) => Ok(disk.f_bavail.saturating_mul(disk.f_frsize)),
            Err(error) => Err(ContentError::Io {
                tried: "look at",
                path,
                source: error.into(),
            }),
        }
    }

    /// Removes what an earlier daemon was fetching.
    pub(crate) fn clear_parts(&self) -> Result<(), ConfinedError> {
        for entry in self.state.list(CACHE)? {
            let name = entry.name.to_string_lossy();
            if name.contains(PART) {
                self.state.remove(format!("{CACHE}/{name}"))?;
            }
        }
        Ok(())
    }

    /// Removes artefacts of a job that nobody else uses: one of them may be damaged.
    pub(crate) fn fetch_anew(&self, job: &Job) {
        let used = self.used.lock();
        for digest in job.inputs.values().chain([&job.artefact]) {
            let name = name_of(digest);
            if used.get(&name).is_none_or(|jobs| *jobs <= 1) {
                // What stays is refused once more.
                let _ = self.state.remove(format!("{CACHE}/{name}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn content(dir: &tempfile::TempDir) -> Content {
        let state = Confined::new(dir.path());
        state.make_folder(CACHE, 0o700).unwrap();
        let mut content = Content::new(state, "pc".parse().unwrap(), 10 * MIB);
        content.free_bytes_min = 0;
        content
    }

    fn holding(job: &str) -> Holding {
        Holding {
            job: job.parse().unwrap(),
            epoch: undercroft_lend::Epoch(1),
        }
    }

    /// Something that was used so many seconds after the epoch.
    fn put(dir: &tempfile::TempDir, text: &[u8], used_s: u64) -> String {
        let name = format!("{CACHE}/{}", name_of(&Digest::of(text)));
        let file = File::create(dir.path().join(&name)).unwrap();
        file.set_len(4 * MIB).unwrap();
        let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(used_s);
        file.set_modified(at).unwrap();
        name
    }

    fn job(artefact: &[u8]) -> Job {
        let job = serde_json::json!({
            "id": "a", "tenant": "t", "runtime": "wasm", "artefact": Digest::of(artefact),
            "arguments": [], "inputs": {}, "sensitivity": "public", "attempts": 1, "loss_s": 0,
            "class": null, "needs": [],
            "limits": { "cpu_percent": 1, "memory_mb": 1, "disk_mb": 1, "wall_s": 1 },
        });
        serde_json::from_value(job).unwrap()
    }

    fn room(content: &Content, of: &str, total: u64) -> Result<(), ContentError> {
        let digest = Digest::of(of.as_bytes());
        let (part, file) =
            content.begin_part(&format!("{CACHE}/{}", name_of(&digest)), &holding(of))?;
        content.keep_room(digest, total, &file, &part)
    }

    #[test]
    fn two_jobs_fetch_the_same_each_into_a_file_of_its_own_and_leave_none() {
        let dir = tempfile::tempdir().unwrap();
        let content = content(&dir);
        let name = format!("{CACHE}/{}", name_of(&Digest::of(b"x")));
        let (mut one, _) = content.begin_part(&name, &holding("one")).unwrap();
        let (mut two, _) = content.begin_part(&name, &holding("two")).unwrap();
        let (three, _) = content.begin_part(&name, &holding("three")).unwrap();
        assert_eq!(content.state.list(CACHE).unwrap().len(), 3);
        one.keep_as(&name).unwrap();
        two.keep_as(&name).unwrap();
        drop((one, two, three));
        assert_eq!(content.state.list(CACHE).unwrap().len(), 1);
        assert!(content.is_there(&name).unwrap());
        std::mem::forget(content.begin_part(&name, &holding("killed")).unwrap());
        assert_eq!(content.state.list(CACHE).unwrap().len(), 2);
        content.clear_parts().unwrap();
        assert_eq!(content.state.list(CACHE).unwrap().len(), 1);
    }

    #[test]
    fn what_was_used_longest_ago_goes_and_what_a_job_uses_stays() {
        let dir = tempfile::tempdir().unwrap();
        let content = content(&dir);
        let (old, new) = (put(&dir, b"old", 1), put(&dir, b"new", 2));
        room(&content, "more", 2 * MIB).unwrap();
        assert!(content.is_there(&old).unwrap() && content.is_there(&new).unwrap());
        // Used again, so the other one is the older now.
        put(&dir, b"new", 3);
        assert!(content.is_there(&old).unwrap());
        room(&content, "more", 4 * MIB).unwrap();
        assert!(content.is_there(&old).unwrap() && !content.is_there(&new).unwrap());
        let uses = content.uses(&job(b"old"));
        let full = room(&content, "more", 8 * MIB).unwrap_err();
        assert!(matches!(full, ContentError::NoRoom { .. }), "{full}");
        drop(uses);
        room(&content, "more", 8 * MIB).unwrap();
        assert!(!content.is_there(&old).unwrap());
        let large = room(&content, "more", 11 * MIB).unwrap_err();
        assert!(matches!(large, ContentError::TooLarge { .. }), "{large}");
    }

    #[test]
    fn what_is_being_fetched_counts_whole_and_the_disk_keeps_room() {
        let dir = tempfile::tempdir().unwrap();
        let mut content = content(&dir);
        let digest = Digest::of(b"first");
        let (part, file) = content
            .begin_part("cache/first", &holding("first"))
            .unwrap();
        content.keep_room(digest, 6 * MIB, &file, &part).unwrap();
        let full = room(&content, "second", 5 * MIB).unwrap_err();
        assert!(matches!(full, ContentError::NoRoom { .. }), "{full}");
        room(&content, "second", 4 * MIB).unwrap();
        drop(part);
        content.free_bytes_min = u64::MAX / 2;
        let full = room(&content, "second", MIB).unwrap_err();
        assert!(matches!(full, ContentError::DiskFull { .. }), "{full}");
        assert_eq!(
            full.hindrance(),
            Some(undercroft_lend::device::Hindrance::Device)
        );
    }
}
