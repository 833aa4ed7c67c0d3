//! What jobs read and what they made: fetched from the server in parts into a cache, and brought to it in parts.

mod room;
mod trees;

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::PathBuf,
    time::Duration,
};

use rustix::fs::Mode;
use sha2::{Digest as _, Sha256};
use tokio::time::sleep;
use undercroft_folder::confined::{Confined, ConfinedError, Modes};
use undercroft_lend::{
    DeviceName, Digest,
    device::Hindrance,
    wire::{
        AtOut, AtWant, Bring, BringAnswer, BringSay, ContentPart, Fetch, FetchAnswer, FetchSay,
        Fetching, Holding, LOG_BYTES_MAX, Made, next_offset, part_bytes, read, read_with_bytes,
        write, write_with_bytes,
    },
};

use crate::bus::{Bus, BusError};
use room::Used;
pub(super) use room::Uses;

/// How long the answer to one part is waited for, in milliseconds: 256 KiB over a slow uplink.
const PART_MS_MAX: u64 = 30_000;
/// How often one part is tried. Beyond that the job is given back.
const PART_TRIES_MAX: u32 = 5;
/// The longest rest before a part is asked for again, in milliseconds.
const PART_REST_MS_MAX: u64 = 10_000;
/// What lent work leaves free of the owner's disk, in bytes.
pub(super) const FREE_BYTES_MIN: u64 = 1024 * 1024 * 1024;
/// The folder of artefacts, in the state folder.
const CACHE: &str = "cache";
/// The folder of what jobs made, in the state folder.
const MADE: &str = "made";

/// Why content didn't come or go.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContentError {
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error(transparent)]
    File(#[from] ConfinedError),
    #[error("can't {tried} {}: {source}", path.display())]
    Io {
        tried: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("the server doesn't give {digest}: {why}")]
    Refused { digest: Digest, why: String },
    #[error("the server doesn't take or give {digest} at the moment: {why}")]
    NotYet { digest: Digest, why: String },
    #[error("{digest} has {total} bytes, and {quota} may be kept here")]
    TooLarge {
        digest: Digest,
        total: u64,
        quota: u64,
    },
    #[error("{digest} has {total} bytes, and what jobs use now leaves less")]
    NoRoom { digest: Digest, total: u64 },
    #[error("{digest} has {total} bytes, and the disk has {free} left, of which {min} stay free")]
    DiskFull {
        digest: Digest,
        total: u64,
        free: u64,
        min: u64,
    },
    #[error("what came for {0} has another digest")]
    OtherDigest(Digest),
    #[error("the server's answer can't be taken: {0}")]
    Malformed(String),
}

impl ContentError {
    /// What keeps this device from a job for which this was to be fetched; `None` where the job can't be begun anywhere.
    pub(super) fn hindrance(&self) -> Option<Hindrance> {
        match self {
            Self::Refused { .. } => None,
            Self::TooLarge { .. } => Some(Hindrance::Fit),
            Self::Bus(_) | Self::NotYet { .. } | Self::NoRoom { .. } | Self::Malformed(_) => {
                Some(Hindrance::Passing)
            }
            // What the server has was compared when it came.
            Self::OtherDigest(_) | Self::File(_) | Self::Io { .. } | Self::DiskFull { .. } => {
                Some(Hindrance::Device)
            }
        }
    }
}

/// Where content lies, and how much of it may.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    state: Confined,
    device: DeviceName,
    quota_bytes: u64,
    free_bytes_min: u64,
    used: Used,
}

/// A digest as a file's name.
fn name_of(digest: &Digest) -> String {
    digest.to_string().replace("sha256:", "")
}

impl Content {
    pub(crate) fn new(state: Confined, device: DeviceName, quota_bytes: u64) -> Self {
        Self {
            state,
            device,
            quota_bytes,
            free_bytes_min: FREE_BYTES_MIN,
            used: Used::default(),
        }
    }

    /// The file of an artefact, fetched where it isn't there; and how many bytes came for it.
    pub(crate) async fn have(
        &self,
        bus: &Bus,
        holding: &Holding,
        digest: Digest,
    ) -> Result<(PathBuf, u64), ContentError> {
        let name = format!("{CACHE}/{}", name_of(&digest));
        if self.is_there(&name)? {
            return Ok((self.state.path(&name), 0));
        }
        let bytes = self.fetch(bus, holding, digest, &name).await?;
        Ok((self.state.path(&name), bytes))
    }

    async fn fetch(
        &self,
        bus: &Bus,
        holding: &Holding,
        digest: Digest,
        name: &str,
    ) -> Result<u64, ContentError> {
        let (mut part, mut file) = self.begin_part(name, holding)?;
        let mut hasher = Sha256::new();
        let mut at = Some(0);
        let mut whole = None;
        while let Some(offset) = at {
            let fetching = Fetching { digest, offset };
            let (total, bytes) = self.part(bus, holding, fetching).await?;
            if whole.is_none() {
                self.keep_room(digest, total, &file, &part)?;
            }
            if *whole.get_or_insert(total) != total {
                let why = format!("{digest} has another size by now");
                return Err(ContentError::Malformed(why));
            }
            hasher.update(&bytes);
            file.write_all(&bytes).map_err(part.failed("write"))?;
            at = next_offset(total, offset);
        }
        let found: String = hasher
            .finalize()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        if found != name_of(&digest) {
            return Err(ContentError::OtherDigest(digest));
        }
        // A disk may take long over a GiB.
        let closed = tokio::task::spawn_blocking(move || {
            rustix::fs::fchmod(&file, Mode::from_raw_mode(0o500))?;
            file.sync_all()
        });
        let closed = closed.await.map_err(io::Error::other).flatten();
        closed.map_err(part.failed("write"))?;
        part.keep_as(name)?;
        Ok(whole.unwrap_or(0))
    }

    /// One part, and the size of the whole.
    async fn part(
        &self,
        bus: &Bus,
        holding: &Holding,
        fetching: Fetching,
    ) -> Result<(u64, Vec<u8>), ContentError> {
        let message = write(&AtWant::Fetch(Fetch {
            holding: holding.clone(),
            fetching,
        }));
        let subject = format!("lend.want.{}", self.device);
        let mut last = None;
        for _ in 0..PART_TRIES_MAX {
            let answer = bus
                .request(subject.clone(), message.clone().into(), PART_MS_MAX)
                .await;
            let answer = match answer {
                Ok(answer) => answer,
                Err(error) => {
                    last = Some(error);
                    sleep(Duration::from_millis(1_000)).await;
                    continue;
                }
            };
            let (said, bytes) = read_with_bytes::<FetchAnswer>(&answer)
                .map_err(|e| ContentError::Malformed(e.to_string()))?;
            if said.fetching != fetching {
                return Err(ContentError::Malformed("it is of another part".to_owned()));
            }
            match said.say {
                FetchSay::Part { total } => {
                    let expected = part_bytes(total, fetching.offset)
                        .map_err(|e| ContentError::Malformed(e.to_string()))?;
                    if bytes.len() as u64 != expected {
                        let why = format!("a part has {} bytes, not {expected}", bytes.len());
                        return Err(ContentError::Malformed(why));
                    }
                    return Ok((total, bytes.to_vec()));
                }
                FetchSay::Again { after_ms } => {
                    sleep(Duration::from_millis(after_ms.min(PART_REST_MS_MAX))).await;
                }
                FetchSay::Refused { why } => {
                    let digest = fetching.digest;
                    return Err(ContentError::Refused { digest, why });
                }
            }
        }
        Err(match last {
            Some(error) => error.into(),
            None => ContentError::NotYet {
                digest: fetching.digest,
                why: "it can't be read there at the moment".to_owned(),
            },
        })
    }

    /// Removes all artefacts.
    pub(crate) fn forget(&self) -> Result<(), ContentError> {
        self.clear_trees(true)?;
        for folder in [CACHE, MADE] {
            self.state.make_folder(folder, 0o700)?;
            for entry in self.state.list(folder)? {
                self.state
                    .remove(format!("{folder}/{}", entry.name.to_string_lossy()))?;
            }
        }
        Ok(())
    }

    fn made_name(holding: &Holding, made: Made) -> String {
        let Holding { job, epoch } = holding;
        format!("{MADE}/{job}.{epoch}.{}", made.as_str())
    }

    /// Keeps what a job made, so that it outlives the daemon.
    pub(crate) fn keep_output(
        &self,
        holding: &Holding,
        from: &mut File,
    ) -> Result<(), ContentError> {
        let name = Self::made_name(holding, Made::Output);
        let failed = |source| ContentError::Io {
            tried: "write",
            path: self.state.path(&name),
            source,
        };
        let mut to = self.state.open_own(&name)?;
        to.set_len(0).map_err(failed)?;
        io::copy(from, &mut to).map_err(failed)?;
        to.sync_all().map_err(failed)
    }

    /// Keeps the end of what a job wrote.
    pub(crate) fn keep_log(&self, holding: &Holding, log: &str) -> Result<(), ContentError> {
        let cut = log.len().saturating_sub(LOG_BYTES_MAX as usize);
        let bytes = log.as_bytes().get(cut..).unwrap_or_default();
        let name = Self::made_name(holding, Made::Log);
        Ok(self.state.replace(name, bytes, Modes::PRIVATE)?)
    }

    /// Removes what a job made.
    pub(crate) fn wipe(&self, holding: &Holding) -> Result<(), ConfinedError> {
        for made in [Made::Output, Made::Log] {
            self.state.remove(Self::made_name(holding, made))?;
        }
        Ok(())
    }

    /// Brings a job's output to the server. Its digest is known from when it was taken.
    pub(crate) async fn bring_output(
        &self,
        bus: &Bus,
        holding: &Holding,
        digest: Digest,
        bytes: u64,
    ) -> Result<(), ContentError> {
        let Some(file) = self.state.open(Self::made_name(holding, Made::Output))? else {
            return Ok(());
        };
        self.bring(bus, holding, Made::Output, (file, digest, bytes))
            .await
    }

    /// Brings the end of what a job wrote.
    pub(crate) async fn bring_log(&self, bus: &Bus, holding: &Holding) -> Result<(), ContentError> {
        let name = Self::made_name(holding, Made::Log);
        let Some(text) = self.state.read(&name, LOG_BYTES_MAX)? else {
            return Ok(());
        };
        let Some(file) = self.state.open(&name)? else {
            return Ok(());
        };
        let log = (file, Digest::of(&text), text.len() as u64);
        self.bring(bus, holding, Made::Log, log).await
    }

    async fn bring(
        &self,
        bus: &Bus,
        holding: &Holding,
        made: Made,
        (mut file, digest, total): (File, Digest, u64),
    ) -> Result<(), ContentError> {
        let failed = |source| ContentError::Io {
            tried: "read",
            path: self.state.path(Self::made_name(holding, made)),
            source,
        };
        let mut offset = 0;
        let mut rests = 0;
        // Each part is tried a few times, so that this ends.
        let messages_max = undercroft_lend::wire::parts(total) + u64::from(PART_TRIES_MAX);
        for _ in 0..messages_max {
            let mut bytes = Vec::new();
            let part =
                part_bytes(total, offset).map_err(|e| ContentError::Malformed(e.to_string()))?;
            file.seek(SeekFrom::Start(offset)).map_err(failed)?;
            (&file).take(part).read_to_end(&mut bytes).map_err(failed)?;
            let part = ContentPart {
                digest,
                total,
                offset,
            };
            match self.bring_part(bus, holding, made, part, &bytes).await? {
                BringSay::Whole => return Ok(()),
                BringSay::Next { offset: next } => offset = next,
                BringSay::Again { after_ms } => {
                    rests += 1;
                    if rests >= PART_TRIES_MAX {
                        break;
                    }
                    sleep(Duration::from_millis(after_ms.min(PART_REST_MS_MAX))).await;
                }
                BringSay::Refused { why } => return Err(ContentError::Refused { digest, why }),
            }
        }
        Err(ContentError::NotYet {
            digest,
            why: "it isn't whole there after all its parts".to_owned(),
        })
    }

    async fn bring_part(
        &self,
        bus: &Bus,
        holding: &Holding,
        made: Made,
        part: ContentPart,
        bytes: &[u8],
    ) -> Result<BringSay, ContentError> {
        let message = AtOut::Bring(Bring {
            holding: holding.clone(),
            made,
            part: part.clone(),
        });
        let Holding { job, epoch } = holding;
        let subject = format!("lend.out.{}.{job}.{epoch}", self.device);
        let message = write_with_bytes(&message, bytes);
        let answer = bus.request(subject, message.into(), PART_MS_MAX).await?;
        let said: BringAnswer =
            read(&answer).map_err(|e| ContentError::Malformed(e.to_string()))?;
        match said.part == part {
            true => Ok(said.say),
            false => Err(ContentError::Malformed("it is of another part".to_owned())),
        }
    }
}
