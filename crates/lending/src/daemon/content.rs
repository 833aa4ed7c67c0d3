//! What jobs read and what they made: fetched from the server in parts into a cache, and brought to it in parts.

mod trees;

use std::{
    collections::BTreeSet,
    fs::{self, File},
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
    wire::{
        AtOut, AtWant, Bring, BringAnswer, BringSay, CONTENT_BYTES_MAX, ContentPart, Fetch,
        FetchAnswer, FetchSay, Fetching, Holding, LOG_BYTES_MAX, Made, next_offset, part_bytes,
        read, read_with_bytes, write, write_with_bytes,
    },
};

use crate::bus::{Bus, BusError};

/// How long the answer to one part is waited for, in milliseconds: 256 KiB over a slow uplink.
const PART_MS_MAX: u64 = 30_000;
/// How often one part is tried. Beyond that the job is given back.
const PART_TRIES_MAX: u32 = 5;
/// The longest rest before a part is asked for again, in milliseconds.
const PART_REST_MS_MAX: u64 = 10_000;
/// The folder of artefacts, in the state folder.
const CACHE: &str = "cache";
/// The folder of what jobs made, in the state folder.
const MADE: &str = "made";

pub(crate) use trees::Using;
use trees::{InUse, Kept};

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
    #[error("{digest} has {total} bytes, and {quota} may be kept here")]
    TooLarge {
        digest: Digest,
        total: u64,
        quota: u64,
    },
    #[error("what came for {0} has another digest")]
    OtherDigest(Digest),
    #[error("the server's answer can't be taken: {0}")]
    Malformed(String),
}

/// Where content lies, and how much of it may.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    state: Confined,
    device: DeviceName,
    quota_bytes: u64,
    in_use: InUse,
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
            in_use: InUse::default(),
        }
    }

    /// The file of an artefact, fetched where it isn't there; and how many bytes came for it.
    pub(crate) async fn have(
        &self,
        bus: &Bus,
        holding: &Holding,
        digest: Digest,
        keep: &BTreeSet<Digest>,
    ) -> Result<(PathBuf, u64), ContentError> {
        let name = format!("{CACHE}/{}", name_of(&digest));
        if self.state.is_file(&name)? {
            return Ok((self.state.path(&name), 0));
        }
        let bytes = self.fetch(bus, holding, digest, &name, keep).await?;
        Ok((self.state.path(&name), bytes))
    }

    async fn fetch(
        &self,
        bus: &Bus,
        holding: &Holding,
        digest: Digest,
        name: &str,
        keep: &BTreeSet<Digest>,
    ) -> Result<u64, ContentError> {
        let part_name = format!("{name}.part-{}", holding.epoch);
        let failed = |tried| {
            let path = self.state.path(&part_name);
            move |source| ContentError::Io {
                tried,
                path,
                source,
            }
        };
        let mut file = self.state.open_own(&part_name)?;
        file.set_len(0).map_err(failed("write"))?;
        let mut hasher = Sha256::new();
        let mut at = Some(0);
        let mut all = 0;
        while let Some(offset) = at {
            let fetching = Fetching { digest, offset };
            let (total, bytes) = self.part(bus, holding, fetching).await?;
            if offset == 0 {
                if total > self.quota_bytes.min(CONTENT_BYTES_MAX) {
                    let quota = self.quota_bytes;
                    return Err(ContentError::TooLarge {
                        digest,
                        total,
                        quota,
                    });
                }
                self.make_room(total, keep)?;
            }
            hasher.update(&bytes);
            file.write_all(&bytes).map_err(failed("write"))?;
            all = total;
            at = next_offset(total, offset);
        }
        let found: String = hasher
            .finalize()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        if found != name_of(&digest) {
            self.state.remove(&part_name)?;
            return Err(ContentError::OtherDigest(digest));
        }
        rustix::fs::fchmod(&file, Mode::from_raw_mode(0o500))
            .map_err(|e| failed("close")(e.into()))?;
        file.sync_all().map_err(failed("write"))?;
        std::fs::rename(self.state.path(&part_name), self.state.path(name))
            .map_err(failed("rename"))?;
        Ok(all)
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
            None => ContentError::Refused {
                digest: fetching.digest,
                why: "it can't be read there at the moment".to_owned(),
            },
        })
    }

    /// Removes what was used longest ago until so much more fits.
    fn make_room(&self, bytes: u64, keep: &BTreeSet<Digest>) -> Result<(), ContentError> {
        let keep: BTreeSet<String> = keep.iter().map(name_of).collect();
        self.clear_trees(false)?;
        let mut all = self.trees()?;
        for entry in self.state.list(CACHE)? {
            let name = entry.name.to_string_lossy().into_owned();
            let path = format!("{CACHE}/{name}");
            let Some(file) = self.state.open(&path)? else {
                continue;
            };
            if let Ok(meta) = file.metadata() {
                all.push(Kept {
                    used: meta.modified().ok(),
                    bytes: meta.len(),
                    digest: name,
                    path: self.state.path(&path),
                });
            }
        }
        all.sort_by_key(|kept| kept.used);
        let mut sum: u64 = all.iter().map(|kept| kept.bytes).sum();
        for kept in all {
            if sum.saturating_add(bytes) <= self.quota_bytes {
                break;
            }
            // What is still fetched or unpacked isn't named by a digest alone.
            let is_used = keep.contains(&kept.digest) || self.in_use.has(&kept.digest);
            if is_used || kept.digest.len() != 64 {
                continue;
            }
            let removed = match kept.path.is_dir() {
                true => fs::remove_dir_all(&kept.path),
                false => fs::remove_file(&kept.path),
            };
            removed.map_err(|source| ContentError::Io {
                tried: "remove",
                path: kept.path,
                source,
            })?;
            sum = sum.saturating_sub(kept.bytes);
        }
        Ok(())
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

    /// Brings what a job made to the server.
    pub(crate) async fn bring(
        &self,
        bus: &Bus,
        holding: &Holding,
        made: Made,
    ) -> Result<u64, ContentError> {
        let name = Self::made_name(holding, made);
        let failed = |source| ContentError::Io {
            tried: "read",
            path: self.state.path(&name),
            source,
        };
        let Some(mut file) = self.state.open(&name)? else {
            return Ok(0);
        };
        let mut hasher = Sha256::new();
        let total = io::copy(&mut file, &mut hasher).map_err(failed)?;
        let hex: String = hasher
            .finalize()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        let digest: Digest = format!("sha256:{hex}")
            .parse()
            .map_err(|_| ContentError::Malformed("no digest".to_owned()))?;
        let mut offset = 0;
        let mut sent = 0;
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
            sent += bytes.len() as u64;
            match self.bring_part(bus, holding, made, part, &bytes).await? {
                BringSay::Whole => return Ok(sent),
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
        Err(ContentError::Refused {
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
