//! What jobs read and what they make, in parts.
//!
//! A device can reach neither a store nor another device, so that content goes through the server: what a job
//! reads on `want`, what it made on `out`. A part is asked for or brought under a holding, and the server looks
//! whether that job is leased to that device at that epoch: content is never anybody's who just knows its digest.
//! The bytes stand raw behind the message's JSON and a line feed, because base64 would be a third more of a home's
//! uplink. Parts have one size and begin at multiples of it, so that the same part twice is the same part, and
//! whoever was cut off goes on where the server says.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Fetching, Holding, MESSAGE_BYTES_MAX, Unreadable, read, write};
use crate::ids::Digest;

/// The size of each part but the last, in bytes. With its head it is far below NATS' own limit of 1 MiB.
pub const PART_BYTES: usize = 256 * 1024;
/// The largest output of a job, and the largest thing that a job reads, in bytes.
pub const CONTENT_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// How much of the end of a job's log is kept, in bytes.
pub const LOG_BYTES_MAX: u64 = 1024 * 1024;
/// What stands between a message's JSON, which has none inside, and the bytes behind it.
const END_OF_HEAD: u8 = b'\n';

/// Reads a message that may have bytes behind it.
///
/// # Errors
/// When it is too large, of another version, or none.
pub fn read_with_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, &[u8]), Unreadable> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(Unreadable::TooLarge { bytes: bytes.len() });
    }
    let mut halves = bytes.splitn(2, |byte| *byte == END_OF_HEAD);
    let head = halves.next().unwrap_or_default();
    let behind = halves.next().unwrap_or_default();
    Ok((read(head)?, behind))
}

/// Writes a message with bytes behind it.
pub fn write_with_bytes<T: Serialize>(message: &T, behind: &[u8]) -> Vec<u8> {
    let mut bytes = write(message);
    bytes.push(END_OF_HEAD);
    bytes.extend_from_slice(behind);
    bytes
}

/// What something is of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Made {
    /// What it made.
    Output,
    /// The end of what it wrote while it ran.
    Log,
}

impl Made {
    /// As people read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Output => "output",
            Self::Log => "log",
        }
    }
}

/// A device asks for a part of what its job reads or runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fetch {
    /// Under which holding.
    pub holding: Holding,
    /// Of what.
    pub fetching: Fetching,
}

/// What a fetch is answered with. The part stands behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FetchAnswer {
    /// Of what.
    pub fetching: Fetching,
    /// What has come of it.
    pub say: FetchSay,
}

/// What has come of a fetch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum FetchSay {
    /// The part stands behind this.
    Part {
        /// The size of the whole, in bytes.
        total: u64,
    },
    /// It can't be read at the moment; ask again.
    Again {
        /// After how long, in milliseconds.
        after_ms: u64,
    },
    /// The device doesn't get it.
    Refused {
        /// Why.
        why: String,
    },
}

/// Whoever brings content brings a part of it, which stands behind this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContentPart {
    /// The digest of the whole.
    pub digest: Digest,
    /// The size of the whole, in bytes.
    pub total: u64,
    /// Where this part begins, in bytes.
    pub offset: u64,
}

/// A device brings a part of what its job made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bring {
    /// Under which holding.
    pub holding: Holding,
    /// What it is.
    pub made: Made,
    /// Which part.
    pub part: ContentPart,
}

/// What a part that was brought is answered with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BringAnswer {
    /// Which part.
    pub part: ContentPart,
    /// What has come of it.
    pub say: BringSay,
}

/// What has come of a part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum BringSay {
    /// It is kept. Another is to follow.
    Next {
        /// Where that begins.
        offset: u64,
    },
    /// The whole is kept, and has its digest. Nothing of it needs to be brought any more.
    Whole,
    /// It can't be kept at the moment; bring it again.
    Again {
        /// After how long, in milliseconds.
        after_ms: u64,
    },
    /// It isn't taken.
    Refused {
        /// Why.
        why: String,
    },
}

/// Why something is no part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoPart {
    /// The whole is larger than may be.
    #[error("it has {total} bytes, and may have {max}")]
    TooLarge {
        /// Its size.
        total: u64,
        /// What may be.
        max: u64,
    },
    /// No part begins there.
    #[error("no part of {total} bytes begins at byte {offset}")]
    Offset {
        /// The size of the whole.
        total: u64,
        /// Where it should begin.
        offset: u64,
    },
    /// The bytes aren't as many as that part has.
    #[error("the part at byte {offset} has {expected} bytes, and {found} came")]
    Length {
        /// Where it begins.
        offset: u64,
        /// How many it has.
        expected: u64,
        /// How many came.
        found: u64,
    },
}

const PART_BYTES_U64: u64 = PART_BYTES as u64;

impl ContentPart {
    /// Whether the bytes behind it are that part.
    ///
    /// # Errors
    /// When there is no such part, or it has another length.
    pub fn check(&self, behind: &[u8], total_max: u64) -> Result<(), NoPart> {
        if self.total > total_max {
            return Err(NoPart::TooLarge {
                total: self.total,
                max: total_max,
            });
        }
        let expected = part_bytes(self.total, self.offset)?;
        let found = u64::try_from(behind.len()).unwrap_or(u64::MAX);
        if expected != found {
            return Err(NoPart::Length {
                offset: self.offset,
                expected,
                found,
            });
        }
        Ok(())
    }
}

/// How many bytes the part has that begins there, of a whole of that size. What is empty has one part without
/// bytes.
///
/// # Errors
/// When no part begins there.
pub fn part_bytes(total: u64, offset: u64) -> Result<u64, NoPart> {
    let is_first = offset == 0;
    if !offset.is_multiple_of(PART_BYTES_U64) || (offset >= total && !is_first) {
        return Err(NoPart::Offset { total, offset });
    }
    Ok(total.saturating_sub(offset).min(PART_BYTES_U64))
}

/// Where the part after the one at `offset` begins; `None` after the last.
pub fn next_offset(total: u64, offset: u64) -> Option<u64> {
    let next = offset.saturating_add(PART_BYTES_U64);
    (next < total).then_some(next)
}

/// Which part, counted from 0, begins there.
pub fn part_number(offset: u64) -> u64 {
    offset / PART_BYTES_U64
}

/// How many parts a whole of that size has.
pub fn parts(total: u64) -> u64 {
    total.div_ceil(PART_BYTES_U64).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::{Epoch, JobId};

    fn bring() -> Bring {
        Bring {
            holding: Holding {
                job: "render-1".parse::<JobId>().unwrap(),
                epoch: Epoch(3),
            },
            made: Made::Log,
            part: ContentPart {
                digest: Digest::of(b"a\nb"),
                total: 3,
                offset: 0,
            },
        }
    }

    #[test]
    fn bytes_stand_raw_behind_the_head() {
        let written = write_with_bytes(&bring(), b"a\nb");
        let text = String::from_utf8(written.clone()).unwrap();
        insta::assert_snapshot!(text, @r#"
        {"version":1,"message":{"holding":{"job":"render-1","epoch":3},"made":"log","part":{"digest":"sha256:7e18f737311b2dc3b2f269dd78396b0351f14fb66efa879f768cb23181883c78","total":3,"offset":0}}}
        a
        b
        "#);
        let (read, behind) = read_with_bytes::<Bring>(&written).unwrap();
        assert_eq!((read, behind), (bring(), b"a\nb".as_slice()));
        let large = vec![b'\n'; MESSAGE_BYTES_MAX + 1];
        assert!(matches!(
            read_with_bytes::<Bring>(&large),
            Err(Unreadable::TooLarge { .. })
        ));
    }

    #[test]
    fn a_part_has_its_place_and_its_length() {
        let part = |total, offset| ContentPart {
            total,
            offset,
            ..bring().part
        };
        let error = |part: ContentPart, bytes: usize| {
            let behind = vec![0; bytes];
            part.check(&behind, 1_000_000).unwrap_err().to_string()
        };
        assert_eq!(part(0, 0).check(b"", 10), Ok(()));
        assert_eq!(part(3, 0).check(b"abc", 3), Ok(()));
        assert_eq!(
            error(part(2_000_000, 0), 0),
            "it has 2000000 bytes, and may have 1000000"
        );
        assert_eq!(error(part(3, 1), 2), "no part of 3 bytes begins at byte 1");
        assert_eq!(
            error(part(262_144, 262_144), 0),
            "no part of 262144 bytes begins at byte 262144"
        );
        assert_eq!(
            error(part(3, 0), 2),
            "the part at byte 0 has 3 bytes, and 2 came"
        );
        assert_eq!(
            error(part(300_000, 0), 300_000),
            "the part at byte 0 has 262144 bytes, and 300000 came"
        );
    }

    proptest! {
        #[test]
        fn parts_make_up_the_whole(total in 0..5_000_000_u64) {
            let (mut sum, mut count, mut offset) = (0, 0, Some(0));
            while let Some(at) = offset {
                prop_assert_eq!(part_number(at), count);
                sum += part_bytes(total, at).unwrap();
                count += 1;
                offset = next_offset(total, at);
            }
            prop_assert_eq!((sum, count), (total, parts(total)));
        }

        #[test]
        fn no_bytes_make_it_fall_over(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read_with_bytes::<Bring>(&bytes);
        }
    }
}
