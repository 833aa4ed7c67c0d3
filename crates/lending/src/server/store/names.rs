//! What stands under which key, and back.

use undercroft_lend::{DeviceName, Digest, JobId, Tenant, consent::Record, server::Key};

/// The first word of the key of a job's log, in the index. No tenant's name has a `_` in it.
const LOG: &str = "_log";

/// What the index says something of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum IndexKey {
    /// What a tenant has.
    Content {
        /// Who.
        tenant: Tenant,
        /// What.
        digest: Digest,
    },
    /// The end of a job's log.
    Log(JobId),
}

impl IndexKey {
    /// What a key names; `None` where it is of another program.
    pub(crate) fn parse(key: &str) -> Option<Self> {
        match key.split_once('.')? {
            (LOG, job) => Some(Self::Log(job.parse().ok()?)),
            (tenant, digest) => Some(Self::Content {
                tenant: tenant.parse().ok()?,
                digest: from_hex(digest)?,
            }),
        }
    }
}

/// What a part is a part of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PartsOf {
    /// The beginning of its parts' keys.
    pub(crate) at: String,
    /// Its digest.
    pub(crate) digest: Digest,
    /// Of which job it is the log, if it is one.
    pub(crate) log_of: Option<JobId>,
}

impl PartsOf {
    /// What a part's key names; `None` where it is of another program.
    pub(crate) fn parse(key: &str) -> Option<Self> {
        let (at, number) = key.rsplit_once('.')?;
        number.parse::<u64>().ok()?;
        let words: Vec<&str> = at.split('.').collect();
        let (digest, log_of) = match words.as_slice() {
            ["in", _, digest] | ["output", _, _, digest] => (digest, None),
            ["log", job, _, digest] => (digest, Some(job.parse().ok()?)),
            _ => return None,
        };
        Some(Self {
            at: at.to_owned(),
            digest: from_hex(digest)?,
            log_of,
        })
    }
}

pub(super) fn name_of(key: &Key) -> String {
    match key {
        Key::Job(id) => format!("job.{id}"),
        Key::Ledger(device) => format!("ledger.{device}"),
    }
}

/// What a key of the jobs' bucket names; `None` where it is of another program.
pub(super) fn key_of(name: &str) -> Option<Key> {
    match name.split_once('.')? {
        ("job", id) => Some(Key::Job(id.parse::<JobId>().ok()?)),
        ("ledger", device) => Some(Key::Ledger(device.parse::<DeviceName>().ok()?)),
        _ => None,
    }
}

pub(super) fn content_key(tenant: &Tenant, digest: &Digest) -> String {
    format!("{tenant}.{}", hex(digest))
}

pub(super) fn log_key(job: &JobId) -> String {
    format!("{LOG}.{job}")
}

pub(super) fn record_key(record: &Record) -> String {
    let claim = &record.claim;
    format!(
        "{}.{}.{}",
        claim.device,
        claim.number,
        hex(&record.digest())
    )
}

/// A digest without its algorithm: a key of JetStream has no colon.
pub(crate) fn hex(digest: &Digest) -> String {
    let text = digest.to_string();
    text.strip_prefix("sha256:").unwrap_or(&text).to_owned()
}

fn from_hex(hex: &str) -> Option<Digest> {
    format!("sha256:{hex}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_name_what_they_were_made_of_and_others_nothing() {
        let digest = Digest::of(b"x");
        let hex = hex(&digest);
        let tenant: Tenant = "research".parse().unwrap();
        let job: JobId = "render-1".parse().unwrap();
        assert_eq!(
            IndexKey::parse(&content_key(&tenant, &digest)),
            Some(IndexKey::Content { tenant, digest })
        );
        assert_eq!(
            IndexKey::parse(&log_key(&job)),
            Some(IndexKey::Log(job.clone()))
        );
        let part = |key: &str| PartsOf::parse(key).map(|of| (of.at, of.digest, of.log_of));
        for (at, log_of) in [
            (format!("in.ci.{hex}"), None),
            (format!("output.render-1.3.{hex}"), None),
            (format!("log.render-1.3.{hex}"), Some(job.clone())),
        ] {
            assert_eq!(part(&format!("{at}.17")), Some((at, digest, log_of)));
        }
        for other in [
            "",
            "research",
            "research.abc",
            "_log.",
            "_other.x",
            &format!("a.b.{hex}"),
        ] {
            assert_eq!(IndexKey::parse(other), None, "{other}");
        }
        for other in [
            "",
            &format!("in.ci.{hex}"),
            &format!("in.ci.{hex}.x"),
            &format!("in.{hex}.1"),
            &format!("new.ci.{hex}.1"),
            "in.ci.abc.1",
        ] {
            assert_eq!(part(other), None, "{other}");
        }
    }
}
