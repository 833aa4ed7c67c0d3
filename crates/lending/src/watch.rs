//! What else lets a PC make way for its owner: each rule with its reason, as the owner reads it.
//!
//! What can't be seen counts as busy. The load of the processor is no reason: lent work makes it itself.

mod bus;
mod machine;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use jiff::tz::TimeZone;

pub use bus::Buses;

use crate::policy::{Narrowed, When};

/// Where the kernel shows what it knows. Tests have folders of their own.
#[derive(Debug, Clone)]
pub struct Roots {
    /// `/sys`
    pub sys: PathBuf,
    /// `/proc`
    pub proc: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self {
            sys: PathBuf::from("/sys"),
            proc: PathBuf::from("/proc"),
        }
    }
}

/// Why nothing is lent now, as far as files say it.
pub fn reasons(roots: &Roots, when: &When, narrowed: &Narrowed, wall_ms: u64) -> BTreeSet<String> {
    let mut reasons = BTreeSet::new();
    for hours in narrowed.all_hours(when) {
        let zone = TimeZone::try_system();
        let is_now = zone
            .as_ref()
            .ok()
            .and_then(|zone| hours.contains(wall_ms, zone));
        match is_now {
            Some(true) => {}
            Some(false) => {
                reasons.insert(format!("it lends from {hours} alone"));
            }
            None => {
                reasons.insert(format!(
                    "it lends from {hours} alone, and the time zone of this PC isn't known"
                ));
            }
        }
    }
    let sys: &Path = &roots.sys;
    let proc: &Path = &roots.proc;
    if when.mains_only {
        reasons.extend(machine::power(sys));
    }
    if !when.lid_closed {
        reasons.extend(machine::lid(proc));
    }
    reasons.extend(machine::temperature(sys, when.max_temperature_c));
    reasons.extend(machine::microphone(proc));
    reasons.extend(machine::camera(sys, proc));
    let exclusive: BTreeSet<&str> = narrowed.exclusive(when).collect();
    reasons.extend(machine::programs(proc, &exclusive));
    reasons
}

/// Whether the disk that a folder is on has as much room left as is kept for its owner.
pub fn room(folder: &Path, free_bytes_min: u64) -> Option<String> {
    let disk = match rustix::fs::statvfs(folder) {
        Ok(disk) => disk,
        Err(error) => {
            return Some(format!("nobody knows how much room its disk has: {error}"));
        }
    };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let mb = |bytes: u64| bytes / (1024 * 1024);
    (free < free_bytes_min).then(|| {
        let (free, min) = (mb(free), mb(free_bytes_min));
        format!("its disk has {free} MiB left, and {min} MiB are its owner's")
    })
}
