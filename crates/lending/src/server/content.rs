//! Content on its way in and out: parts are kept as they come, and count when all of them are there and have the
//! digest that was said.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use undercroft_lend::{
    Digest, JobId, SubmitterName, Tenant,
    job::Label,
    wire::{
        BringSay, ContentPart, Fetching, Holding, Made, PART_BYTES, next_offset, part_number, parts,
    },
};

use super::store::{Kept, Whole, hex};

/// After how long something is said again that the store didn't answer, in milliseconds.
pub(crate) const AGAIN_MS: u64 = 2_000;
/// How much of the part before is looked at again together with the next, in bytes, so that no secret is missed
/// that stands across both. Private keys of RSA with 16,384 bits are longer, and are told by their beginning.
const OVERLAP_BYTES: usize = 4 * 1024;

/// Looks for secrets in some bytes, and says what it found.
pub type Scan = fn(&[u8]) -> Option<String>;

/// Whose content it is, and how it counts when it is whole.
#[derive(Debug, Clone)]
pub(crate) enum Owner {
    /// Somebody brings what jobs will read.
    Submitter {
        name: SubmitterName,
        tenant: Tenant,
        label: Label,
    },
    /// A device brings what a job made.
    Device {
        holding: Holding,
        made: Made,
        tenant: Tenant,
        label: Label,
    },
}

impl Owner {
    fn tenant(&self) -> &Tenant {
        match self {
            Self::Submitter { tenant, .. } | Self::Device { tenant, .. } => tenant,
        }
    }

    fn label(&self) -> Label {
        match self {
            Self::Submitter { label, .. } | Self::Device { label, .. } => *label,
        }
    }

    /// Where its parts lie: nobody else's lie there.
    fn at(&self, digest: &Digest) -> String {
        match self {
            Self::Submitter { name, .. } => format!("in.{name}.{}", hex(digest)),
            Self::Device { holding, made, .. } => {
                format!(
                    "{}.{}.{}.{}",
                    made.as_str(),
                    holding.job,
                    holding.epoch,
                    hex(digest)
                )
            }
        }
    }
}

/// What has come of a part, and whether it was refused for what it holds.
pub(crate) enum Brought {
    Said(BringSay),
    /// It isn't what was said.
    OtherDigest(String),
    /// It holds a secret.
    Secret(String),
}

/// Keeps a part that was checked, and looks at the whole when it was the last.
pub(crate) async fn bring(
    kept: &Kept,
    owner: &Owner,
    part: &ContentPart,
    bytes: Bytes,
    scan: Scan,
) -> Brought {
    match try_bring(kept, owner, part, bytes, scan).await {
        Ok(brought) => brought,
        Err(()) => Brought::Said(BringSay::Again { after_ms: AGAIN_MS }),
    }
}

async fn try_bring(
    kept: &Kept,
    owner: &Owner,
    part: &ContentPart,
    bytes: Bytes,
    scan: Scan,
) -> Result<Brought, ()> {
    // A tenant has it already. A device has to bring it all the same: whoever just knows a digest has nothing.
    if let Owner::Submitter { tenant, label, .. } = owner
        && let Some(found) = kept.whole(tenant, &part.digest).await?
        && found.total == part.total
        && found.label >= *label
    {
        return Ok(Brought::Said(BringSay::Whole));
    }
    let at = owner.at(&part.digest);
    kept.put_part(&at, part_number(part.offset), bytes).await?;
    if let Some(offset) = next_offset(part.total, part.offset) {
        return Ok(Brought::Said(BringSay::Next { offset }));
    }
    let found = match look(kept, &at, part, owner, scan).await? {
        Looked::Absent { number } => {
            let offset = number.saturating_mul(u64::try_from(PART_BYTES).unwrap_or(u64::MAX));
            return Ok(Brought::Said(BringSay::Next { offset }));
        }
        Looked::Secret(what) => {
            kept.drop_parts(&at).await;
            return Ok(Brought::Secret(what));
        }
        Looked::Whole(found) => found,
    };
    if found != part.digest {
        kept.drop_parts(&at).await;
        return Ok(Brought::OtherDigest(format!(
            "what came has the digest {found}, and {} was said",
            part.digest
        )));
    }
    let whole = Whole {
        digest: part.digest,
        total: part.total,
        at,
        label: owner.label(),
    };
    settle(kept, owner, whole).await?;
    Ok(Brought::Said(BringSay::Whole))
}

/// Says where content lies that is whole. Of what a tenant has twice, the more sensitive label counts.
async fn settle(kept: &Kept, owner: &Owner, whole: Whole) -> Result<(), ()> {
    if let Owner::Device {
        holding,
        made: Made::Log,
        ..
    } = owner
    {
        return kept.set_log(&holding.job, &whole).await;
    }
    let tenant = owner.tenant();
    let label = match kept.whole(tenant, &whole.digest).await? {
        Some(before) => before.label.max(whole.label),
        None => whole.label,
    };
    kept.set_whole(tenant, &Whole { label, ..whole }).await
}

enum Looked {
    Absent { number: u64 },
    Secret(String),
    Whole(Digest),
}

async fn look(
    kept: &Kept,
    at: &str,
    part: &ContentPart,
    owner: &Owner,
    scan: Scan,
) -> Result<Looked, ()> {
    let mut hash = Sha256::new();
    let mut before: Vec<u8> = Vec::new();
    let is_scanned = matches!(owner, Owner::Submitter { .. });
    for number in 0..parts(part.total) {
        let Some(bytes) = kept.part(at, number).await? else {
            return Ok(Looked::Absent { number });
        };
        hash.update(&bytes);
        if is_scanned {
            before.extend_from_slice(&bytes);
            if let Some(what) = scan(&before) {
                return Ok(Looked::Secret(what));
            }
            let cut = before.len().saturating_sub(OVERLAP_BYTES);
            before.drain(..cut);
        }
    }
    let digest: [u8; 32] = hash.finalize().into();
    Ok(Looked::Whole(Digest::from_bytes(digest)))
}

/// A part of what a tenant has; `Ok(None)` where it isn't there.
pub(crate) async fn fetch(
    kept: &Kept,
    tenant: &Tenant,
    fetching: &Fetching,
) -> Result<Option<(u64, Bytes)>, ()> {
    let Some(whole) = kept.whole(tenant, &fetching.digest).await? else {
        return Ok(None);
    };
    part_of(kept, &whole, fetching.offset).await
}

/// A part of the end of a job's log, with the digest of the whole.
pub(crate) async fn fetch_log(
    kept: &Kept,
    job: &JobId,
    offset: u64,
) -> Result<Option<(Digest, u64, Bytes)>, ()> {
    let Some(whole) = kept.log(job).await? else {
        return Ok(None);
    };
    let part = part_of(kept, &whole, offset).await?;
    Ok(part.map(|(total, bytes)| (whole.digest, total, bytes)))
}

async fn part_of(kept: &Kept, whole: &Whole, offset: u64) -> Result<Option<(u64, Bytes)>, ()> {
    if undercroft_lend::wire::part_bytes(whole.total, offset).is_err() {
        return Ok(None);
    }
    let part = kept.part(&whole.at, part_number(offset)).await?;
    Ok(part.map(|bytes| (whole.total, bytes)))
}
