//! What the server keeps, in four buckets of JetStream that it alone may touch.
//!
//! | bucket | what | under |
//! | --- | --- | --- |
//! | `lend-state` | jobs, and where ledgers stand | `job.NAME`, `ledger.DEVICE` |
//! | `lend-records` | the records of ledgers | `DEVICE.NUMBER.DIGEST` |
//! | `lend-index` | which content is whole, and whose | `TENANT.DIGEST`, `_log.JOB` |
//! | `lend-parts` | the content, in parts | `in.SUBMITTER.DIGEST.N`, `output.JOB.EPOCH.DIGEST.N`, `log.JOB.EPOCH.DIGEST.N` |
//!
//! A record of a ledger lies under its own digest, so that none is ever replaced by another; which of them count
//! follows from the head in `lend-state`, which is set only if what lies there is what it was made from.

mod names;
mod old;

use std::time::Duration;

use async_nats::jetstream::{
    self,
    context::CreateKeyValueErrorKind,
    kv::{Config, Entry, Operation, Store as Bucket, UpdateErrorKind, Watch},
    stream::StorageType,
};
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use undercroft_lend::{
    DeviceName, Digest, JobId, Tenant,
    consent::{Ledger, Record},
    job::Label,
    server::{Key, Stored, Value, record::JobRecord},
    wire::PART_BYTES,
};

use names::{content_key, key_of, log_key, name_of, record_key};
use old::{NatsClock, millis};

pub(crate) use names::{IndexKey, PartsOf, hex};
pub(crate) use old::OldIn;

/// The version of what is kept.
const VERSION: u32 = 1;
/// How long an answer of JetStream is waited for, in milliseconds. What isn't answered by then may have happened
/// or not.
const ANSWER_MS_MAX: u64 = 5_000;
/// The largest value beside content, in bytes: a job has at most 64 KiB of its submitter's words.
const VALUE_BYTES_MAX: i32 = 256 * 1024;
/// The most that all records of ledgers may take, in bytes: a million of them. What is left of the store belongs to the
/// jobs, whose renewals have to have room whoever else writes.
const RECORDS_BYTES_MAX: i64 = 512 * 1024 * 1024;
/// The most that may be kept of which content is whole, in bytes: 400,000 files.
const INDEX_BYTES_MAX: i64 = 128 * 1024 * 1024;
/// How long content is kept after the last job that needs it has ended, as it comes, in milliseconds: a week.
pub const KEEP_MS: u64 = 7 * 24 * 3600 * 1000;

/// Why the store can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// JetStream doesn't do what is asked.
    #[error("can't {tried} the bucket {bucket}: {detail}")]
    Bucket {
        /// What was tried.
        tried: &'static str,
        /// Which.
        bucket: String,
        /// What was answered.
        detail: String,
    },
    /// Something in it isn't what this program writes.
    #[error("{key} in the bucket {bucket} can't be read: {detail}")]
    Unreadable {
        /// Which bucket.
        bucket: &'static str,
        /// What.
        key: String,
        /// Why.
        detail: String,
    },
}

impl undercroft_model::advice::Advice for KeptError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Bucket { .. } => {
                "The server's own key needs all of its account, with JetStream enabled there, and `max_file_store` has to have room for --content-gib: look into NATS' log.".to_owned()
            }
            Self::Unreadable { .. } => {
                "A newer version wrote it, or somebody else did. Nothing was changed: update this program, or put back a backup of JetStream's folder.".to_owned()
            }
        })
    }
}

/// How the buckets are made where they aren't there yet.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// On how many servers of a NATS cluster each bucket lies.
    pub replicas: usize,
    /// The most that all content may take, in bytes.
    pub content_bytes_max: i64,
    /// How long content is kept after the last job that needs it has ended, or after it was brought for none, in
    /// milliseconds. What is brought for longer than half of that is brought anew.
    pub keep_ms: u64,
}

/// Where content lies that is whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Whole {
    /// Its digest.
    pub(crate) digest: Digest,
    /// Its size, in bytes.
    pub(crate) total: u64,
    /// The beginning of its parts' keys.
    pub(crate) at: String,
    /// How sensitive it is.
    pub(crate) label: Label,
}

/// What the index says.
struct Indexed {
    whole: Whole,
    revision: u64,
    /// When it was written last, by NATS' clock.
    at_ms: u64,
}

/// What the server keeps.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    context: jetstream::Context,
    clock: NatsClock,
    keep_ms: u64,
    state: Bucket,
    records: Bucket,
    index: Bucket,
    parts: Bucket,
}

const STATE: &str = "lend-state";
const RECORDS: &str = "lend-records";
const INDEX: &str = "lend-index";
const PARTS: &str = "lend-parts";

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    version: u32,
    value: T,
}

impl Kept {
    /// Opens the buckets as they are.
    pub(crate) async fn open_existing(client: async_nats::Client) -> Result<Self, KeptError> {
        let context = jetstream::new(client);
        let open = async |name: &str| {
            let bucket = context.get_key_value(name).await;
            bucket.map_err(|error| KeptError::Bucket {
                tried: "open",
                bucket: name.to_owned(),
                detail: error.to_string(),
            })
        };
        Ok(Self {
            state: open(STATE).await?,
            records: open(RECORDS).await?,
            index: open(INDEX).await?,
            parts: open(PARTS).await?,
            context: context.clone(),
            clock: NatsClock::default(),
            keep_ms: u64::MAX,
        })
    }

    /// Opens the buckets, and makes those that aren't there.
    pub(crate) async fn open(
        client: async_nats::Client,
        settings: &StoreSettings,
    ) -> Result<Self, KeptError> {
        let limit = Duration::from_millis(ANSWER_MS_MAX);
        let context = jetstream::ContextBuilder::new()
            .timeout(limit)
            .ack_timeout(limit)
            .build(client);
        let part_bytes = i32::try_from(PART_BYTES).unwrap_or(i32::MAX);
        let open = async |name: &str, value_bytes, bytes_max| {
            open_bucket(&context, name, value_bytes, bytes_max, settings.replicas).await
        };
        Ok(Self {
            state: open(STATE, VALUE_BYTES_MAX, -1).await?,
            records: open(RECORDS, VALUE_BYTES_MAX, RECORDS_BYTES_MAX).await?,
            index: open(INDEX, VALUE_BYTES_MAX, INDEX_BYTES_MAX).await?,
            parts: open(PARTS, part_bytes, settings.content_bytes_max).await?,
            context: context.clone(),
            clock: NatsClock::default(),
            keep_ms: settings.keep_ms,
        })
    }

    /// All that is kept of jobs and ledgers, and then what changes there.
    pub(crate) async fn load(&self) -> Result<(Vec<Changed>, Watch), KeptError> {
        let failed = |detail: String| KeptError::Bucket {
            tried: "read",
            bucket: STATE.to_owned(),
            detail,
        };
        let mut stream = self.state.stream.clone();
        let info = stream.info().await.map_err(|e| failed(e.to_string()))?;
        let is_empty = info.state.messages == 0;
        let mut watch = self.watch().await?;
        let mut all = Vec::new();
        if is_empty {
            return Ok((all, watch));
        }
        loop {
            let Some(entry) = watch.next().await else {
                return Err(failed("it ended while it was read".to_owned()));
            };
            let entry = entry.map_err(|e| failed(e.to_string()))?;
            all.extend(read_entry(&entry)?);
            if entry.seen_current {
                break;
            }
        }
        Ok((all, watch))
    }

    /// What changes of jobs and ledgers, from what lies there on.
    pub(crate) async fn watch(&self) -> Result<Watch, KeptError> {
        self.state
            .watch_with_history(">")
            .await
            .map_err(|e| KeptError::Bucket {
                tried: "watch",
                bucket: STATE.to_owned(),
                detail: e.to_string(),
            })
    }

    /// Sets a value if what lies there is what it was made from; `records` are kept first.
    pub(crate) async fn set(
        &self,
        key: &Key,
        value: &Value,
        records: &[Record],
        expect: Option<u64>,
    ) -> (Stored, Option<KeptError>) {
        for record in records {
            if let Err(error) = self.keep_record(record).await {
                return (Stored::Unknown, Some(error));
            }
        }
        let bytes = match value {
            Value::Job(record) => write(record),
            Value::Ledger(ledger) => write(ledger),
        };
        let name = name_of(key);
        // Revision 0 is that of what isn't there. A key that was purged has the revision of its grave, and is never
        // made anew: jobs that were taken out stay out.
        let set = self.state.update(name, bytes, expect.unwrap_or(0));
        match set.await {
            Ok(revision) => (Stored::Yes(revision), None),
            Err(error) => match error.kind() {
                UpdateErrorKind::WrongLastRevision => (Stored::Conflict, None),
                UpdateErrorKind::InvalidKey
                | UpdateErrorKind::TimedOut
                | UpdateErrorKind::Other => (Stored::Unknown, Some(failed("write", STATE, &error))),
            },
        }
    }

    async fn keep_record(&self, record: &Record) -> Result<(), KeptError> {
        let key = record_key(record);
        match self.records.update(&key, write(record), 0).await {
            Ok(_) => Ok(()),
            // It lies there already, under its own digest.
            Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => Ok(()),
            Err(error) => Err(failed("write", RECORDS, &error)),
        }
    }

    /// What lies there; `None` where the store doesn't answer.
    pub(crate) async fn get(&self, key: &Key) -> Option<Option<(Value, u64)>> {
        let entry = self.state.entry(name_of(key)).await.ok()?;
        match entry {
            None => Some(None),
            Some(entry) => Some(read_entry(&entry).ok()?.and_then(|changed| changed.found)),
        }
    }

    /// The records of a ledger, from the first to its head.
    pub(crate) async fn ledger(
        &self,
        device: &DeviceName,
    ) -> Result<Option<Vec<Record>>, KeptError> {
        let failed = |detail: String| KeptError::Bucket {
            tried: "read",
            bucket: RECORDS.to_owned(),
            detail,
        };
        let key = Key::Ledger(device.clone());
        let found = self.get(&key).await;
        let found = found.ok_or_else(|| failed("no answer".to_owned()))?;
        let Some((Value::Ledger(ledger), _)) = found else {
            return Ok(None);
        };
        let mut records = Vec::new();
        let mut at = ledger.head();
        while let Some(head) = at {
            let key = format!("{device}.{}.{}", head.number, hex(&head.digest));
            let entry = self.records.get(&key).await;
            let Some(bytes) = entry.map_err(|e| failed(e.to_string()))? else {
                return Err(failed(format!("record {} isn't there", head.number)));
            };
            let record: Record = read(RECORDS, &key, &bytes)?;
            at = match (record.claim.previous, head.number.checked_sub(1)) {
                (Some(digest), Some(number)) => {
                    Some(undercroft_lend::consent::Head { number, digest })
                }
                _ => None,
            };
            records.push(record);
        }
        records.reverse();
        Ok(Some(records))
    }

    /// Where a tenant's content lies, for a look at it.
    pub(crate) async fn whole(
        &self,
        tenant: &Tenant,
        digest: &Digest,
    ) -> Result<Option<Whole>, KeptError> {
        let found = self.indexed(&content_key(tenant, digest)).await?;
        Ok(found.map(|found| found.whole))
    }

    /// Whether what counts as whole is still there: parts can be taken out by hand, from the first on.
    pub(crate) async fn is_there(&self, whole: &Whole) -> Result<bool, KeptError> {
        Ok(self.part(&whole.at, 0).await?.is_some())
    }

    /// Where the end of a job's log lies.
    pub(crate) async fn log(&self, job: &JobId) -> Result<Option<Whole>, KeptError> {
        let found = self.indexed(&log_key(job)).await?;
        Ok(found.map(|found| found.whole))
    }

    async fn indexed(&self, key: &str) -> Result<Option<Indexed>, KeptError> {
        let entry = self.index.entry(key).await;
        let entry = entry.map_err(|error| failed("read", INDEX, &error))?;
        match entry.filter(|entry| entry.operation == Operation::Put) {
            Some(entry) => Ok(Some(Indexed {
                whole: read(INDEX, key, &entry.value)?,
                revision: entry.revision,
                at_ms: millis(entry.created),
            })),
            None => Ok(None),
        }
    }

    /// Says where a tenant's content lies. What counts already is left where it is; of two labels the more sensitive
    /// counts. Whether it is this one that counts.
    pub(crate) async fn set_whole(
        &self,
        tenant: &Tenant,
        whole: &Whole,
    ) -> Result<bool, KeptError> {
        let key = content_key(tenant, &whole.digest);
        let found = self.indexed(&key).await?;
        let revision = found.as_ref().map_or(0, |found| found.revision);
        let next = match found {
            Some(found) if self.is_there(&found.whole).await? => {
                let label = found.whole.label.max(whole.label);
                if label == found.whole.label && !self.is_half_over(found.at_ms) {
                    return Ok(found.whole.at == whole.at);
                }
                Whole {
                    label,
                    ..found.whole
                }
            }
            _ => whole.clone(),
        };
        // Whoever was faster with another label has it said again.
        let set = self.index.update(&key, write(&next), revision).await;
        set.map_err(|error| failed("write", INDEX, &error))?;
        Ok(next.at == whole.at)
    }

    /// Says where the end of a job's log lies.
    pub(crate) async fn set_log(&self, job: &JobId, whole: &Whole) -> Result<(), KeptError> {
        let set = self.index.put(log_key(job), write(whole)).await;
        set.map(|_| ())
            .map_err(|error| failed("write", INDEX, &error))
    }

    /// Keeps a part.
    pub(crate) async fn put_part(
        &self,
        at: &str,
        number: u64,
        bytes: Bytes,
    ) -> Result<(), KeptError> {
        let set = self.parts.put(format!("{at}.{number}"), bytes).await;
        set.map(|_| ())
            .map_err(|error| failed("write", PARTS, &error))
    }

    /// A part; `None` where it isn't there.
    pub(crate) async fn part(&self, at: &str, number: u64) -> Result<Option<Bytes>, KeptError> {
        let found = self.parts.get(format!("{at}.{number}")).await;
        found.map_err(|error| failed("read", PARTS, &error))
    }

    /// Takes the parts of something out.
    pub(crate) async fn drop_parts(&self, at: &str) {
        // What stays costs room and harms nobody.
        let _ = self
            .parts
            .stream
            .purge()
            .filter(format!("$KV.{PARTS}.{at}.*"))
            .await;
    }
}

fn failed(tried: &'static str, bucket: &str, error: &dyn std::error::Error) -> KeptError {
    // JetStream's own word, such as that its disk is full, is what the outer error came from.
    let detail =
        std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string);
    KeptError::Bucket {
        tried,
        bucket: bucket.to_owned(),
        detail: detail.collect::<Vec<_>>().join(": "),
    }
}

async fn open_bucket(
    context: &jetstream::Context,
    name: &str,
    value_bytes: i32,
    bytes_max: i64,
    replicas: usize,
) -> Result<Bucket, KeptError> {
    let failed = |tried, detail: String| KeptError::Bucket {
        tried,
        bucket: name.to_owned(),
        detail,
    };
    if let Ok(bucket) = context.get_key_value(name).await {
        return Ok(bucket);
    }
    let config = Config {
        bucket: name.to_owned(),
        description: "Undercroft: lending".to_owned(),
        max_value_size: value_bytes,
        history: 1,
        max_bytes: bytes_max,
        storage: StorageType::File,
        num_replicas: replicas,
        ..Config::default()
    };
    match context.create_key_value(config).await {
        Ok(bucket) => Ok(bucket),
        // Another server has made it at the same time.
        Err(error) if error.kind() == CreateKeyValueErrorKind::BucketCreate => context
            .get_key_value(name)
            .await
            .map_err(|_| failed("make", error.to_string())),
        Err(error) => Err(failed("make", error.to_string())),
    }
}

fn write<T: Serialize>(value: &T) -> Bytes {
    // Strings, numbers and maps with keys of text can always be written.
    serde_json::to_vec(&Versioned {
        version: VERSION,
        value,
    })
    .unwrap_or_default()
    .into()
}

fn read<T: DeserializeOwned>(
    bucket: &'static str,
    key: &str,
    bytes: &[u8],
) -> Result<T, KeptError> {
    let unreadable = |detail: String| KeptError::Unreadable {
        bucket,
        key: key.to_owned(),
        detail,
    };
    let found: Versioned<serde_json::Value> =
        serde_json::from_slice(bytes).map_err(|e| unreadable(e.to_string()))?;
    if found.version != VERSION {
        let detail = format!(
            "it is of version {}, and this program writes {VERSION}",
            found.version
        );
        return Err(unreadable(detail));
    }
    serde_json::from_value(found.value).map_err(|e| unreadable(e.to_string()))
}

/// What lies under a key now.
#[derive(Debug)]
pub(crate) struct Changed {
    pub(crate) key: Key,
    /// What, with its revision; `None` for nothing any more.
    pub(crate) found: Option<(Value, u64)>,
    /// Since when, by NATS' clock, in milliseconds since the Unix epoch.
    pub(crate) at_ms: u64,
}

/// What an entry says; `None` where its key is somebody else's.
pub(crate) fn read_entry(entry: &Entry) -> Result<Option<Changed>, KeptError> {
    let key = key_of(&entry.key);
    let Some(key) = key else { return Ok(None) };
    let value = match &key {
        _ if entry.operation != Operation::Put => None,
        Key::Job(_) => {
            let record: JobRecord = read(STATE, &entry.key, &entry.value)?;
            Some(Value::Job(Box::new(record)))
        }
        Key::Ledger(_) => {
            let ledger: Ledger = read(STATE, &entry.key, &entry.value)?;
            Some(Value::Ledger(Box::new(ledger)))
        }
    };
    Ok(Some(Changed {
        key,
        found: value.map(|value| (value, entry.revision)),
        at_ms: millis(entry.created),
    }))
}
