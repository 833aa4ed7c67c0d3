//! What the server and a device say to each other.
//!
//! A device asks on three subjects and is answered in its inbox: `want` (work, a long poll), `beat` (a lease goes
//! on) and `out` (how a job ended). It never acknowledges anything and has no consumer: a message that is lost is
//! asked again, and a lease that nobody renews runs out. What a job reads comes in parts on `want`, and what it
//! made goes in parts on `out`. Whoever has work says so on a subject of their own ([`submit`]).

mod parts;
pub mod submit;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    consent::{Head, Record},
    ids::{Digest, Epoch, JobId, Turn},
    job::Job,
};

pub use parts::{
    Bring, BringAnswer, BringSay, CONTENT_BYTES_MAX, ContentPart, Fetch, FetchAnswer, FetchSay,
    LOG_BYTES_MAX, Made, NoPart, PART_BYTES, next_offset, part_bytes, part_number, parts,
    read_with_bytes, write_with_bytes,
};

/// The version that this program speaks.
pub const VERSION: u32 = 1;
/// The largest message, in bytes. NATS' own limit is 1 MiB as it comes.
pub const MESSAGE_BYTES_MAX: usize = 512 * 1024;
/// Records of a ledger in one message, at most.
pub const RECORDS_MAX: usize = 64;
/// The longest text that a device may say of a failure, in bytes.
pub const TEXT_BYTES_MAX: usize = 4096;

/// Why a message can't be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is too large to be looked at.
    #[error("a message has at most {MESSAGE_BYTES_MAX} bytes, and this has {bytes}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Whoever sent it speaks another version.
    #[error(
        "it is written in version {found} of the protocol, and this program speaks {VERSION}: update the older of the two"
    )]
    OtherVersion {
        /// Its version.
        found: u64,
    },
    /// It is no message.
    #[error("it can't be read: {detail}")]
    Malformed {
        /// Where and why.
        detail: String,
    },
}

#[derive(Deserialize)]
struct Envelope {
    version: u64,
    message: serde_json::Value,
}

/// Reads a message.
///
/// # Errors
/// When it is too large, of another version, or none.
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Unreadable> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(Unreadable::TooLarge { bytes: bytes.len() });
    }
    let malformed = |error: serde_json::Error| Unreadable::Malformed {
        detail: error.to_string(),
    };
    let envelope: Envelope = serde_json::from_slice(bytes).map_err(malformed)?;
    if envelope.version != u64::from(VERSION) {
        return Err(Unreadable::OtherVersion {
            found: envelope.version,
        });
    }
    serde_json::from_value(envelope.message).map_err(malformed)
}

/// Writes a message.
pub fn write<T: Serialize>(message: &T) -> Vec<u8> {
    #[derive(Serialize)]
    struct Written<'a, T> {
        version: u32,
        message: &'a T,
    }
    let written = Written {
        version: VERSION,
        message,
    };
    // Strings, numbers and maps with keys of text can always be written.
    serde_json::to_vec(&written).unwrap_or_default()
}

/// A job that a device holds, and which time that it was handed out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holding {
    /// The job.
    pub job: JobId,
    /// Which time.
    pub epoch: Epoch,
}

/// What a device says on its `want` subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum AtWant {
    /// It asks for work.
    Want(Want),
    /// It asks for a part of what its job reads.
    Fetch(Fetch),
}

/// What a device says on its `out` subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum AtOut {
    /// How a job ended.
    Out(Out),
    /// A part of what it made stands behind this.
    Bring(Bring),
}

/// A part of some content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fetching {
    /// The digest of the whole.
    pub digest: Digest,
    /// Where the part begins, in bytes.
    pub offset: u64,
}

/// A device asks for work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Want {
    /// Which request it is. The answer names it.
    pub turn: Turn,
    /// All that the device holds. What the server has leased to it beside that was never heard of.
    pub holds: Vec<Holding>,
    /// What it knows to be the end of its ledger.
    pub head: Option<Head>,
    /// The records that the server doesn't have yet, as far as they fit.
    pub records: Vec<Record>,
    /// Whether it takes work now, or only tells what it has.
    pub takes_work: bool,
}

/// What a `want` is answered with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WantAnswer {
    /// Of which request.
    pub turn: Turn,
    /// The server's time, in milliseconds since the Unix epoch.
    pub wall_ms: u64,
    /// The end of the device's ledger as the server has it.
    pub have: Option<Head>,
    /// What is to be done.
    pub say: WantSay,
}

/// What is to be done after a `want`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum WantSay {
    /// A job.
    Assigned(Box<Assignment>),
    /// There is none; ask again.
    Nothing {
        /// After how long, in milliseconds.
        again_ms: u64,
    },
    /// The server lacks records of the ledger, or has just got some; ask again at once.
    Ledger,
    /// The device gets nothing until a person has looked.
    Refused {
        /// Why.
        why: String,
    },
}

/// A job, handed out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assignment {
    /// The job.
    pub job: Job,
    /// Which time that it is handed out.
    pub epoch: Epoch,
    /// How long it is the device's, in milliseconds from when the device asked.
    pub lease_ms: u64,
    /// The record of the device's ledger that allows it.
    pub consent: u64,
}

/// A device renews a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Beat {
    /// Which request it is.
    pub turn: Turn,
    /// Of what.
    pub holding: Holding,
}

/// What a `beat` is answered with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BeatAnswer {
    /// Of which request.
    pub turn: Turn,
    /// What is to be done.
    pub say: BeatSay,
}

/// What is to be done after a `beat`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum BeatSay {
    /// The lease goes on.
    Go {
        /// How long, in milliseconds from when the device asked.
        lease_ms: u64,
    },
    /// It isn't known yet whether it does; ask again.
    Again {
        /// After how long, in milliseconds.
        after_ms: u64,
    },
    /// It is over: the job is to be killed.
    Stop {
        /// Why.
        why: String,
    },
}

/// A device says how a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Out {
    /// Which request it is.
    pub turn: Turn,
    /// Of what.
    pub holding: Holding,
    /// How.
    pub ended: Ended,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Ended {
    /// It has a result.
    Done {
        /// The output's digest.
        output: Digest,
        /// The output's size.
        bytes: u64,
    },
    /// It failed by itself.
    Failed {
        /// Its exit code, or why there is none, and the end of what it wrote.
        why: String,
    },
    /// The device gives it back: its owner wants the machine, or the lease ran out.
    Returned {
        /// Why.
        why: String,
    },
    /// The device doesn't want it at all.
    Declined {
        /// Why.
        why: String,
    },
}

/// What an `out` is answered with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutAnswer {
    /// Of which request.
    pub turn: Turn,
    /// What has become of it.
    pub say: OutSay,
}

/// What has become of an `out`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum OutSay {
    /// It is recorded, once and for good.
    Recorded,
    /// It isn't known yet; say it again.
    Again {
        /// After how long, in milliseconds.
        after_ms: u64,
    },
    /// It isn't taken: the job was somebody else's by then.
    Stale {
        /// Why.
        why: String,
    },
}

/// What a message is answered with that can't be read, or comes from nobody who is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotRead {
    /// Why it isn't taken.
    pub why: String,
}

/// A text as it may stand in a message: its end, since that is where programs say what failed.
pub fn tail(text: &str) -> String {
    let cut = text.len().saturating_sub(TEXT_BYTES_MAX);
    let from = (cut..=text.len()).find(|at| text.is_char_boundary(*at));
    text.get(from.unwrap_or(text.len())..)
        .unwrap_or_default()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_told_apart_from_no_message() {
        let error = |text: &str| read::<Beat>(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(
            error(r#"{"version":2,"message":{"anything":1}}"#),
            "it is written in version 2 of the protocol, and this program speaks 1: update the older of the two"
        );
        assert!(error("[]").starts_with("it can't be read: "));
        assert!(error(r#"{"version":1,"message":{"turn":{"start":1,"request":1},"holding":{"job":"A","epoch":1}}}"#).contains("DNS label"));
        let large = vec![b' '; MESSAGE_BYTES_MAX + 1];
        assert_eq!(
            read::<Beat>(&large),
            Err(Unreadable::TooLarge { bytes: large.len() })
        );
    }

    #[test]
    fn a_tail_is_the_end_and_cuts_no_character() {
        let long = "é".repeat(TEXT_BYTES_MAX);
        let kept = tail(&long);
        assert!(kept.len() <= TEXT_BYTES_MAX && kept.ends_with('é'));
        assert_eq!(tail("short"), "short");
    }
}
