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

use super::store::{Kept, KeptError, Whole, hex};

/// After how long something is said again that the store didn't answer, in milliseconds.
pub(crate) const AGAIN_MS: u64 = 2_000;
/// How much of the part before is looked at again together with the next, in bytes, so that no secret is missed
/// that stands across both. Private keys of RSA with 16,384 bits are longer, and are told by their beginning.
const OVERLAP_BYTES: usize = 4 * 1024;

/// Looks for secrets in some bytes, and says what it found.
pub type Scan = fn(&[u8]) -> Option<String>;

/// Looks for secrets in something that comes part by part.
pub(crate) struct Scanning {
    scan: Scan,
    before: Vec<u8>,
}

impl Scanning {
    pub(crate) fn new(scan: Scan) -> Self {
        Self {
            scan,
            before: Vec::new(),
        }
    }

    /// What is found in the next part, and where it meets the one before.
    pub(crate) fn find(&mut self, part: &[u8]) -> Option<String> {
        self.before.extend_from_slice(part);
        let found = (self.scan)(&self.before);
        let cut = self.before.len().saturating_sub(OVERLAP_BYTES);
        self.before.drain(..cut);
        found
    }
}

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
    /// The store didn't do what it was asked; it is to be said again.
    NotKept(KeptError),
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
        Err(error) => Brought::NotKept(error),
    }
}

async fn try_bring(
    kept: &Kept,
    owner: &Owner,
    part: &ContentPart,
    bytes: Bytes,
    scan: Scan,
) -> Result<Brought, KeptError> {
    let at = owner.at(&part.digest);
    let known = match owner {
        Owner::Device {
            holding,
            made: Made::Log,
            ..
        } => kept.log(&holding.job).await?,
        _ => kept.claim(owner.tenant(), &part.digest).await?,
    };
    if let Some(found) = known.filter(|found| found.total == part.total) {
        // Where it counts already nothing is written over it. A device has to bring what another brought all the
        // same: whoever just knows a digest has nothing.
        let is_same = found.at == at && found.digest == part.digest;
        let is_tenants = matches!(owner, Owner::Submitter { .. });
        let counts = (is_same || is_tenants) && found.label >= owner.label();
        if counts && kept.is_there(&found).await? {
            return Ok(Brought::Said(BringSay::Whole));
        }
    }
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

/// Says where content lies that is whole. What a tenant has twice is kept once.
async fn settle(kept: &Kept, owner: &Owner, whole: Whole) -> Result<(), KeptError> {
    if let Owner::Device {
        holding,
        made: Made::Log,
        ..
    } = owner
    {
        return kept.set_log(&holding.job, &whole).await;
    }
    let counts = kept.set_whole(owner.tenant(), &whole).await?;
    if !counts {
        kept.drop_parts(&whole.at).await;
    }
    Ok(())
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
) -> Result<Looked, KeptError> {
    let mut hash = Sha256::new();
    let mut scanning = match owner {
        Owner::Submitter { .. } => Some(Scanning::new(scan)),
        Owner::Device { .. } => None,
    };
    for number in 0..parts(part.total) {
        let Some(bytes) = kept.fresh_part(at, number).await? else {
            return Ok(Looked::Absent { number });
        };
        hash.update(&bytes);
        let found = scanning.as_mut().and_then(|scanning| scanning.find(&bytes));
        if let Some(what) = found {
            return Ok(Looked::Secret(what));
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
) -> Result<Option<(u64, Bytes)>, KeptError> {
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
) -> Result<Option<(Digest, u64, Bytes)>, KeptError> {
    let Some(whole) = kept.log(job).await? else {
        return Ok(None);
    };
    let part = part_of(kept, &whole, offset).await?;
    Ok(part.map(|(total, bytes)| (whole.digest, total, bytes)))
}

async fn part_of(
    kept: &Kept,
    whole: &Whole,
    offset: u64,
) -> Result<Option<(u64, Bytes)>, KeptError> {
    if undercroft_lend::wire::part_bytes(whole.total, offset).is_err() {
        return Ok(None);
    }
    let part = kept.part(&whole.at, part_number(offset)).await?;
    Ok(part.map(|bytes| (whole.total, bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_where_two_parts_meet() {
        let scan: Scan = |bytes| {
            let found = bytes.windows(6).any(|some| some == b"SECRET");
            found.then(|| "a secret".to_owned())
        };
        let mut scanning = Scanning::new(scan);
        assert_eq!(scanning.find(&[b'x'; PART_BYTES]), None);
        assert_eq!(scanning.find(b"and SEC"), None);
        assert!(scanning.find(b"RET").is_some());
    }
}
