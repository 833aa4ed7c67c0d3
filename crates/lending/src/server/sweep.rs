//! Content that nobody needs any more is taken out.
//!
//! It goes in two steps that know nothing of each other. What the index says of content goes first, when it was claimed
//! by nobody for as long as content is kept and no job needs it; a part goes when it is as old and the index doesn't
//! say that it belongs to anything. So a server that ends between the two leaves parts that the next one finds, and
//! whoever was told that content is there, or just brings it, has made it young by that: each change names the
//! message that was looked at, and what was written over it stays.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};
use undercroft_lend::{
    Digest, JobId, Tenant,
    server::{Key, Value, record::JobRecord},
    wire::Made,
};

use super::{
    Back, Hub,
    store::{Changed, IndexKey, Kept, KeptError, OldIn, PartsOf},
};

/// Time between two sweeps, in milliseconds. Each looks at some of the oldest of all there is.
const SWEEP_MS: u64 = 60_000;
/// The shortest time between two, where content is kept for less than minutes.
const SWEEP_MS_MIN: u64 = 250;

/// What one sweep did.
#[derive(Debug)]
pub(super) struct Swept {
    /// How much room all content takes, in bytes.
    pub(super) kept_bytes: u64,
    /// How much of it was taken out, in bytes.
    pub(super) removed_bytes: u64,
}

/// What a sweep asks of those who know the jobs.
pub(super) struct Judge {
    /// What would go.
    old: BTreeSet<IndexKey>,
    answer: oneshot::Sender<Judged>,
}

/// The answer.
struct Judged {
    /// What of it jobs need.
    needed: BTreeSet<IndexKey>,
    /// All whose content there can be.
    tenants: BTreeSet<Tenant>,
}

/// Where the next looks begin.
#[derive(Debug, Default)]
struct From {
    index: u64,
    parts: u64,
}

/// The server has ended.
struct Ended;

/// When jobs have ended, by NATS' clock.
#[derive(Debug, Default)]
pub(super) struct Ends(BTreeMap<JobId, u64>);

impl Ends {
    /// Takes in how something stands in the store. Nothing happens to a job that is over, so that its record is as old as
    /// its end.
    pub(super) fn note(&mut self, changed: &Changed) {
        let Key::Job(id) = &changed.key else { return };
        match &changed.found {
            Some((Value::Job(record), _)) if record.is_over() => {
                self.0.insert(id.clone(), changed.at_ms);
            }
            _ => {
                self.0.remove(id);
            }
        }
    }
}

impl Hub {
    /// Whether what a job read and made isn't kept for it any more.
    pub(super) fn is_long_over(&self, record: &JobRecord) -> bool {
        // One whose end wasn't heard of yet has ended just now.
        let ended_ms = self.ends.0.get(&record.job.id);
        record.is_over() && ended_ms.is_some_and(|at_ms| self.kept.is_over(*at_ms))
    }

    pub(super) fn judge(&self, judge: Judge) {
        let mut needed = BTreeSet::new();
        let mut tenants = self.fleet.rules.tenants.clone();
        for record in self.machine.jobs() {
            tenants.insert(record.job.tenant.clone());
            if self.is_long_over(record) {
                continue;
            }
            let log = IndexKey::Log(record.job.id.clone());
            let contents = digests(record);
            let contents = contents.map(|digest| IndexKey::Content {
                tenant: record.job.tenant.clone(),
                digest,
            });
            needed.extend(contents.chain([log]).filter(|key| judge.old.contains(key)));
        }
        // A sweep that nobody waits for has ended.
        let _ = judge.answer.send(Judged { needed, tenants });
    }

    pub(super) fn swept(&mut self, swept: &Swept) {
        self.counts.kept_bytes = swept.kept_bytes;
        self.counts.removed_bytes += swept.removed_bytes;
    }

    /// Why there is nothing of a job that there could be.
    pub(super) fn nothing_of(&self, record: &JobRecord, made: Made) -> String {
        let (job, made) = (&record.job.id, made.as_str());
        match self.is_long_over(record) {
            true => format!(
                "the {made} of {job} is gone: it was kept for {} after the job had ended",
                undercroft_model::words::duration(self.kept.keep_ms())
            ),
            false => format!("{job} has no {made} there"),
        }
    }
}

/// All that a job reads and has made.
fn digests(record: &JobRecord) -> impl Iterator<Item = Digest> {
    use undercroft_lend::server::record::State;

    let made = match &record.state {
        State::Done { output, .. } => Some(*output),
        State::Queued | State::Leased(_) | State::Dead(_) => None,
    };
    let first = record.first().map(|first| first.output);
    let reads = record.job.inputs.values().copied();
    reads.chain([record.job.artefact]).chain(made).chain(first)
}

/// Sweeps for as long as the server runs.
pub(super) async fn sweep_on(kept: Kept, back: mpsc::Sender<Back>) {
    let every = (kept.keep_ms() / 4).clamp(SWEEP_MS_MIN, SWEEP_MS);
    let mut from = From::default();
    loop {
        tokio::time::sleep(Duration::from_millis(every)).await;
        let told = match sweep(&kept, &back, &mut from).await {
            Ok(Ok(swept)) => Back::Swept(swept),
            Ok(Err(Ended)) => return,
            Err(error) => Back::NotKept(error),
        };
        if back.send(told).await.is_err() {
            return;
        }
    }
}

async fn sweep(
    kept: &Kept,
    back: &mpsc::Sender<Back>,
    from: &mut From,
) -> Result<Result<Swept, Ended>, KeptError> {
    // It says what time it is, too.
    kept.taken_bytes().await?;
    let looked = kept.look_at_old(OldIn::Index, from.index).await?;
    let named = looked.old.iter().filter_map(|old| {
        let key = IndexKey::parse(&old.key)?;
        Some((key, old))
    });
    let named: Vec<_> = named.collect();
    let (answer, answered) = oneshot::channel();
    let judge = Judge {
        old: named.iter().map(|(key, _)| key.clone()).collect(),
        answer,
    };
    if back.send(Back::Judge(judge)).await.is_err() {
        return Ok(Err(Ended));
    }
    let Ok(judged) = answered.await else {
        return Ok(Err(Ended));
    };
    for (key, old) in named {
        if !judged.needed.contains(&key) {
            kept.take_out(OldIn::Index, old).await?;
        }
    }
    from.index = looked.next;
    let removed_bytes = sweep_parts(kept, &judged.tenants, from).await?;
    let kept_bytes = kept.taken_bytes().await?;
    Ok(Ok(Swept {
        kept_bytes,
        removed_bytes,
    }))
}

/// Takes out old parts that belong to nothing that is whole.
async fn sweep_parts(
    kept: &Kept,
    tenants: &BTreeSet<Tenant>,
    from: &mut From,
) -> Result<u64, KeptError> {
    let looked = kept.look_at_old(OldIn::Parts, from.parts).await?;
    let mut belongs: BTreeMap<PartsOf, bool> = BTreeMap::new();
    let mut removed_bytes = 0;
    for old in &looked.old {
        let Some(of) = PartsOf::parse(&old.key) else {
            continue;
        };
        let belongs = match belongs.get(&of) {
            Some(known) => *known,
            None => {
                let found = is_part_of_whole(kept, tenants, &of).await?;
                belongs.insert(of, found);
                found
            }
        };
        if !belongs && kept.take_out(OldIn::Parts, old).await? {
            removed_bytes += old.bytes;
        }
    }
    from.parts = looked.next;
    Ok(removed_bytes)
}

async fn is_part_of_whole(
    kept: &Kept,
    tenants: &BTreeSet<Tenant>,
    of: &PartsOf,
) -> Result<bool, KeptError> {
    if let Some(job) = &of.log_of {
        let whole = kept.log(job).await?;
        return Ok(whole.is_some_and(|whole| whole.at == of.at));
    }
    for tenant in tenants {
        let whole = kept.whole(tenant, &of.digest).await?;
        if whole.is_some_and(|whole| whole.at == of.at) {
            return Ok(true);
        }
    }
    Ok(false)
}
