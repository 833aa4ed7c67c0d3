//! The owner's word until the machine is theirs: jobs of processes that heed nothing, revoked through the daemon's socket.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use undercroft_lending::owner::{OwnerAnswer, OwnerAsk};

use crate::{
    Outcome, Times, dispatch,
    site::{Site, WITHIN},
    tell,
};

/// How many processes a job leaves.
const SIZES: [usize; 3] = [1, 100, 400];
/// The name of each of them.
const HOSTILE: &str = "benchhostile";
/// The rest between two looks whether they are there.
const LOOK: Duration = Duration::from_millis(2);

/// Measures each size, and prints a line each.
pub(crate) async fn measure(site: &mut Site, rounds: usize) -> Outcome<()> {
    for size in SIZES {
        let mut took = Vec::new();
        for round in 0..rounds {
            took.push(one(site, size, round).await?);
        }
        let took = Times::new(took);
        tell(json!({
            "name": "revoke", "processes": size, "rounds": rounds,
            "p50_ms": took.at(50), "p90_ms": took.at(90), "p99_ms": took.at(99), "max_ms": took.at(100),
        }));
    }
    Ok(())
}

/// Milliseconds from the owner's word to the answer: all gone, all wiped, the receipt signed and kept.
async fn one(site: &mut Site, size: usize, round: usize) -> Outcome<f64> {
    let id = format!("stay-{size}-{round}");
    let file = dispatch::job(site, &id, &["stay", &size.to_string()])?;
    site.submitting
        .submit(&file, Path::new("/"), |_| None, &mut |_| ())
        .await?;
    let since = Instant::now();
    while !is_up(&site.jobs_folder) {
        if since.elapsed() > WITHIN {
            return Err(format!("{id} isn't up").into());
        }
        tokio::time::sleep(LOOK).await;
    }
    let there = hostile();
    if there < size {
        return Err(format!("{there} of {size} processes are there").into());
    }
    let begun = Instant::now();
    let answer = site.owner(OwnerAsk::Revoke).await?;
    let took_ms = begun.elapsed().as_secs_f64() * 1e3;
    let OwnerAnswer::Revoked(revoked) = answer else {
        return Err("the daemon has answered another question".into());
    };
    let left = hostile();
    let files = fs::read_dir(&site.jobs_folder)?.count();
    if revoked.ended != [id] || left + files != 0 {
        let ended = revoked.ended.join(", ");
        return Err(
            format!("{left} processes and {files} folders are left; ended: {ended}").into(),
        );
    }
    site.submitting.cancel(&file.id).await?;
    lend_again(site).await?;
    Ok(took_ms)
}

/// Whether all processes of the one job are there: it says so in a file then.
fn is_up(jobs: &Path) -> bool {
    let jobs = fs::read_dir(jobs).into_iter().flatten().flatten();
    let mut said = jobs.map(|job| fs::read_to_string(job.path().join("out/up")));
    said.any(|said| said.is_ok_and(|text| !text.trim().is_empty()))
}

/// The owner agrees anew, and the server has heard of it.
async fn lend_again(site: &mut Site) -> Outcome<()> {
    while site.said.try_recv().is_ok() {}
    site.grant().await?;
    let heard = async {
        while let Some((_, line)) = site.said.recv().await {
            let consent = line.get("event").and_then(|event| event.get("consent"));
            let record = consent.and_then(|consent| consent.get("record"));
            if record.is_some_and(Value::is_u64) {
                return;
            }
        }
    };
    let heard = tokio::time::timeout(WITHIN, heard).await;
    heard.map_err(|_| "the server hasn't heard of the consent".into())
}

/// Such processes on this machine.
fn hostile() -> usize {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            let name = fs::read_to_string(entry.path().join("comm"));
            name.is_ok_and(|name| name.trim() == HOSTILE)
        })
        .count()
}
