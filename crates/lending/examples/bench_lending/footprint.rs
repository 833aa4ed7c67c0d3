//! What a process takes while it waits: memory, wake-ups, processor time.

use std::{fs, time::Duration};

use serde_json::json;

use crate::{Outcome, site::Site, tell};

/// How long processes are left alone before they are watched: what they do at their start is over then.
const SETTLE: Duration = Duration::from_secs(10);

/// What was taken up to a moment.
#[derive(Clone, Copy, Default)]
struct Taken {
    wakeups: u64,
    cpu_ns: u64,
    threads: u64,
}

impl Taken {
    /// Of all threads of a process. A wake-up is a switch to a thread that had waited of its own will.
    fn of(pid: u32) -> Outcome<Self> {
        let mut taken = Self::default();
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let task = task?.path();
            let status = fs::read_to_string(task.join("status"))?;
            taken.wakeups += number(&status, "voluntary_ctxt_switches:");
            let ran = fs::read_to_string(task.join("schedstat"))?;
            let ran_ns = ran.split_whitespace().next().and_then(|ns| ns.parse().ok());
            taken.cpu_ns += ran_ns.unwrap_or(0);
            taken.threads += 1;
        }
        Ok(taken)
    }
}

/// The number behind a word of a file in /proc.
fn number(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let word = line.and_then(|rest| rest.split_whitespace().next());
    word.and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// Memory in KiB: all that is resident, and what of it can't be read again from a file. Pages of a program that others
/// run as well count whole, as a PC runs neither of the two twice.
fn memory(pid: u32) -> Outcome<[u64; 2]> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(["VmRSS:", "RssAnon:"].map(|key| number(&text, key)))
}

fn watched(site: &Site) -> Vec<(&'static str, u32)> {
    let node = site.node.as_ref().map(|node| ("node", node.id()));
    [("ours", site.daemon.id())]
        .into_iter()
        .chain(node)
        .collect()
}

/// Watches both at once while they wait for work.
pub(crate) async fn idle(site: &Site, seconds: u64) -> Outcome<()> {
    tokio::time::sleep(SETTLE).await;
    let watched = watched(site);
    let mut before = Vec::new();
    for (_, pid) in &watched {
        before.push(Taken::of(*pid)?);
    }
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    for ((who, pid), before) in watched.into_iter().zip(before) {
        let after = Taken::of(pid)?;
        let [rss, anonymous] = memory(pid)?;
        let cpu_us = after.cpu_ns.saturating_sub(before.cpu_ns) / 1000;
        tell(json!({
            "name": "idle", "who": who, "seconds": seconds, "rss_kib": rss, "anonymous_kib": anonymous,
            "wakeups": after.wakeups.saturating_sub(before.wakeups), "cpu_us": cpu_us, "threads": after.threads,
        }));
    }
    Ok(())
}

/// What is kept of memory when so many jobs were done.
pub(crate) fn after(site: &Site, jobs: usize) -> Outcome<()> {
    for (who, pid) in watched(site) {
        let [rss, anonymous] = memory(pid)?;
        tell(json!({
            "name": "after", "who": who, "jobs": jobs, "rss_kib": rss, "anonymous_kib": anonymous,
        }));
    }
    Ok(())
}
