//! What has lain in the store for longer than content is kept, and how it is taken out.
//!
//! Ages are NATS' own: between the stamp that it gave something and what it says that the time is. So no server's
//! wall clock, right or wrong, makes anything old.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::{
    datetime::DateTime,
    jetstream::{
        consumer::{AckPolicy, DeliverPolicy, pull},
        kv::{Store as Bucket, UpdateErrorKind},
        response::Response,
    },
};
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::Deserialize;
use undercroft_process::clock::now;

use super::{INDEX, Kept, KeptError, PARTS, Whole, content_key, failed, write};
use undercroft_lend::{Digest, Tenant};

/// The most that one look goes through of a bucket, in entries.
const LOOK_MAX: usize = 2_000;
/// How long a look may take before NATS forgets it, in milliseconds.
const LOOK_MS_MAX: u64 = 30_000;
/// Times that content is claimed while somebody else changes what is known of it.
const CLAIM_TRIES_MAX: u32 = 5;
/// Where NATS says the size of a message of which it sends the head alone.
const SIZE_HEADER: &str = "Nats-Msg-Size";

/// What time it is for NATS, as far as was heard.
#[derive(Debug, Clone, Default)]
pub(super) struct NatsClock {
    /// NATS' milliseconds since the Unix epoch less those of this process' own clock, which never goes back; 0 before
    /// anything was heard, by which nothing is old.
    ahead_ms: Arc<AtomicU64>,
}

impl NatsClock {
    fn hear(&self, nats_ms: u64) {
        let ahead_ms = nats_ms.saturating_sub(now().mono_ms);
        self.ahead_ms.store(ahead_ms, Ordering::Relaxed);
    }

    fn now_ms(&self) -> u64 {
        let ahead_ms = self.ahead_ms.load(Ordering::Relaxed);
        ahead_ms.saturating_add(now().mono_ms)
    }
}

/// A moment of NATS' in milliseconds since the Unix epoch.
pub(super) fn millis(at: DateTime) -> u64 {
    u64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(0)
}

/// Where old things are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OldIn {
    /// What is known to be whole.
    Index,
    /// The parts.
    Parts,
}

/// Something that has lain there for longer than content is kept.
#[derive(Debug)]
pub(crate) struct Old {
    /// Under which key.
    pub(crate) key: String,
    /// Which message it is: what is written over it later is another.
    pub(crate) revision: u64,
    /// Its size, in bytes.
    pub(crate) bytes: u64,
}

/// What one look found.
#[derive(Debug)]
pub(crate) struct Looked {
    /// The old, from the oldest on.
    pub(crate) old: Vec<Old>,
    /// Where the next look begins: behind this one, or again at the beginning.
    pub(crate) next: u64,
}

#[derive(Deserialize)]
struct PartsInfo {
    /// What time it is.
    ts: String,
    state: PartsState,
}

#[derive(Deserialize)]
struct PartsState {
    bytes: u64,
}

impl Kept {
    /// How long content is kept after it was of use, in milliseconds.
    pub(crate) fn keep_ms(&self) -> u64 {
        self.keep_ms
    }

    /// Whether what was stamped then is kept no longer.
    pub(crate) fn is_over(&self, at_ms: u64) -> bool {
        self.age_ms(at_ms) > self.keep_ms
    }

    /// Whether half the time is over for which it is kept.
    pub(super) fn is_half_over(&self, at_ms: u64) -> bool {
        self.age_ms(at_ms) > self.keep_ms / 2
    }

    fn age_ms(&self, at_ms: u64) -> u64 {
        self.clock.now_ms().saturating_sub(at_ms)
    }

    /// How much room all content takes, in bytes; NATS says what time it is as well.
    pub(crate) async fn taken_bytes(&self) -> Result<u64, KeptError> {
        let subject = format!("STREAM.INFO.KV_{PARTS}");
        let answer = self.context.request(subject, &()).await;
        let answer: Response<PartsInfo> = answer.map_err(|e| failed("look at", PARTS, &e))?;
        let info = match answer {
            Response::Ok(info) => info,
            Response::Err { error } => return Err(failed("look at", PARTS, &error)),
        };
        let at = info.ts.parse::<jiff::Timestamp>();
        let at = at.map_err(|error| failed("read the time of", PARTS, &error))?;
        let at_ms = u64::try_from(at.as_millisecond()).unwrap_or(0);
        self.clock.hear(at_ms);
        Ok(info.state.bytes)
    }

    /// Where a tenant's content lies, for somebody who goes by it from now on: it is of use, and kept for as long again.
    /// What isn't claimed may be taken out between a look at it and its use.
    pub(crate) async fn claim(
        &self,
        tenant: &Tenant,
        digest: &Digest,
    ) -> Result<Option<Whole>, KeptError> {
        let key = content_key(tenant, digest);
        for _ in 0..CLAIM_TRIES_MAX {
            let Some(found) = self.indexed(&key).await? else {
                return Ok(None);
            };
            // What is far from being taken out needn't be written each time.
            if !self.is_half_over(found.at_ms) {
                return Ok(Some(found.whole));
            }
            let bytes = write(&found.whole);
            match self.index.update(&key, bytes, found.revision).await {
                Ok(_) => return Ok(Some(found.whole)),
                Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => {}
                Err(error) => return Err(failed("write", INDEX, &error)),
            }
        }
        Err(KeptError::Bucket {
            tried: "write",
            bucket: INDEX.to_owned(),
            detail: format!("{key} was changed at each of {CLAIM_TRIES_MAX} tries"),
        })
    }

    /// Looks at some of what lies there, from that message on. What has lain there longest comes first, so that a look
    /// ends at the first that isn't old.
    pub(crate) async fn look_at_old(&self, place: OldIn, from: u64) -> Result<Looked, KeptError> {
        let (bucket, name) = self.bucket(place);
        let config = pull::Config {
            deliver_policy: match from {
                0 => DeliverPolicy::All,
                from => DeliverPolicy::ByStartSequence {
                    start_sequence: from,
                },
            },
            ack_policy: AckPolicy::None,
            headers_only: true,
            memory_storage: true,
            num_replicas: 1,
            inactive_threshold: Duration::from_millis(LOOK_MS_MAX),
            ..pull::Config::default()
        };
        let consumer = bucket.stream.create_consumer(config).await;
        let consumer = consumer.map_err(|e| failed("look through", name, &e))?;
        // What is there comes at once, and where there is nothing, that is said.
        let fetch = consumer.fetch().max_messages(LOOK_MAX);
        let mut messages = fetch
            .messages()
            .await
            .map_err(|e| failed("look through", name, &e))?;
        let mut looked = Looked {
            old: Vec::new(),
            next: 0,
        };
        let mut is_last = false;
        while !is_last && let Some(message) = messages.next().await {
            let message = message.map_err(|e| failed("look through", name, e.as_ref()))?;
            let info = message.info();
            let info = info.map_err(|e| failed("look through", name, e.as_ref()))?;
            if !self.is_over(millis(info.published)) {
                looked.next = 0;
                break;
            }
            is_last = info.pending == 0;
            looked.next = match is_last {
                true => 0,
                false => info.stream_sequence.saturating_add(1),
            };
            let key = message.subject.strip_prefix(bucket.prefix.as_str());
            let size = message.headers.as_ref().and_then(|h| h.get(SIZE_HEADER));
            looked.old.extend(key.map(|key| Old {
                key: key.to_owned(),
                revision: info.stream_sequence,
                bytes: size.and_then(|s| s.as_str().parse().ok()).unwrap_or(0),
            }));
        }
        // NATS forgets it by itself; so it does at once.
        let _ = bucket
            .stream
            .delete_consumer(&consumer.cached_info().name)
            .await;
        Ok(looked)
    }

    /// Takes out the very thing that was found; says whether it was there still. What was written over it stays.
    pub(crate) async fn take_out(&self, place: OldIn, old: &Old) -> Result<bool, KeptError> {
        let (bucket, name) = self.bucket(place);
        // A key has one message, so that up to and with this one is this one. A bucket lets none be deleted by its
        // number alone.
        let purge = bucket.stream.purge();
        let subject = format!("{}{}", bucket.prefix, old.key);
        let purge = purge
            .filter(subject)
            .sequence(old.revision.saturating_add(1));
        let done = purge.await.map_err(|e| failed("purge", name, &e))?;
        Ok(done.purged > 0)
    }

    fn bucket(&self, place: OldIn) -> (&Bucket, &'static str) {
        match place {
            OldIn::Index => (&self.index, INDEX),
            OldIn::Parts => (&self.parts, PARTS),
        }
    }

    /// A part of something that isn't whole yet; `None` where it isn't there, or so old that it may be taken out before
    /// the whole counts. It is brought again then.
    pub(crate) async fn fresh_part(
        &self,
        at: &str,
        number: u64,
    ) -> Result<Option<Bytes>, KeptError> {
        let found = self.parts.entry(format!("{at}.{number}")).await;
        let found = found.map_err(|error| failed("read", PARTS, &error))?;
        let found = found.filter(|entry| !self.is_half_over(millis(entry.created)));
        Ok(found.map(|entry| entry.value))
    }
}
