//! Bringing work to the server of lending, and taking what came of it.

mod file;
mod view;

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use undercroft_lend::{
    Digest, JobId, SubmitterName,
    job::{Runtime, Submission},
    wire::{
        self, BringSay, CONTENT_BYTES_MAX, ContentPart, NotRead, PART_BYTES, next_offset,
        submit::{AtSubmit, JobLine, SubmitAnswer},
    },
};
use undercroft_model::advice::{Advice, ErrorKind, FileFailure};

use crate::{
    bus::{Bus, BusError},
    server::{Scan, Scanning},
};

pub use file::{BadJobFile, JOB_FILE_BYTES_MAX, JobFile};
pub use undercroft_lend::wire::Made;
pub use view::{LendJob, LendJobState};

/// How long one answer is waited for, in milliseconds. The server keeps what it is given before it answers.
const ANSWER_MS_MAX: u64 = 15_000;
/// Times that something is asked that can't be answered yet.
const TRIES_MAX: u32 = 20;
/// How long it rests where nobody listens: a server that is started anew is there after a second or two.
const NOBODY_REST: std::time::Duration = std::time::Duration::from_millis(500);
/// The longest rest before it is asked again, in milliseconds.
const REST_MS_MAX: u64 = 5_000;

/// Why work can't be brought, or nothing of it be taken.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// NATS doesn't carry it.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// A file can't be used.
    #[error("can't {tried} {}: {source}", path.display())]
    File {
        /// What was tried.
        tried: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is larger than what can be lent.
    #[error("{} has {bytes} bytes, and what jobs read has at most {CONTENT_BYTES_MAX}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// A file holds a secret.
    #[error("{} holds {what}", path.display())]
    Secret {
        /// The file.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// The job's file is none.
    #[error("{}: {source}", path.display())]
    JobFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: BadJobFile,
    },
    /// The server doesn't do it.
    #[error("{why}")]
    Refused {
        /// Why.
        why: String,
    },
    /// The server couldn't answer for too long.
    #[error("the server of lending couldn't answer, however often it was asked")]
    Busy,
    /// The server's answer isn't one.
    #[error("the server's answer can't be understood: {detail}")]
    Answer {
        /// Why.
        detail: String,
    },
    /// What came isn't what was said.
    #[error("what came has the digest {found}, and the server had said {said}")]
    OtherDigest {
        /// What was said.
        said: Digest,
        /// What came.
        found: Digest,
    },
}

impl Advice for SubmitError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Bus(error) => error.kind(),
            Self::File { source, .. } => undercroft_model::advice::kind_of_io(source),
            Self::TooLarge { .. } | Self::Secret { .. } | Self::JobFile { .. } => ErrorKind::Input,
            Self::Refused { .. } => ErrorKind::Input,
            Self::Busy | Self::Answer { .. } | Self::OtherDigest { .. } => ErrorKind::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Bus(error) => return error.hint(),
            Self::File { .. } | Self::TooLarge { .. } | Self::Refused { .. } => return None,
            Self::JobFile { .. } => "`undercroft lend submit --help` shows a whole file.",
            Self::Secret { .. } => {
                "Secret work is never lent: take it out, and make another where it was used."
            }
            Self::Busy => "Look into the log of `undercroft lend server`, and try again.",
            Self::Answer { .. } => "Update the older of the two programs.",
            Self::OtherDigest { .. } => "Try again; nothing was written to the file.",
        };
        Some(hint.to_owned())
    }

    fn file(&self) -> Option<FileFailure<'_>> {
        match self {
            Self::File {
                tried,
                path,
                source,
            } => Some(FileFailure {
                tried: Some(tried),
                path,
                source: Some(source),
            }),
            _ => None,
        }
    }
}

/// What is told while content goes to the server.
#[derive(Debug, Clone, Copy)]
pub struct Sending<'a> {
    /// Which file.
    pub path: &'a Path,
    /// How much of it is there, in bytes.
    pub sent: u64,
    /// Its size, in bytes.
    pub total: u64,
}

/// How long somebody waits for the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For one answer, in milliseconds.
    pub answer_ms: u64,
    /// Times that something is asked.
    pub tries: u32,
}

/// Somebody who brings work.
#[derive(Debug)]
pub struct Submitting {
    bus: Bus,
    subject: String,
    patience: Patience,
    /// Whether the server was there: where it never was, nobody waits for it.
    was_heard: AtomicBool,
}

impl Submitting {
    /// By that connection, under that name.
    pub fn new(bus: Bus, name: &SubmitterName) -> Self {
        Self {
            bus,
            subject: format!("lend.submit.{name}"),
            was_heard: AtomicBool::new(false),
            patience: Patience {
                answer_ms: ANSWER_MS_MAX,
                tries: TRIES_MAX,
            },
        }
    }

    /// With another patience: somebody waits for what this is for.
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// Brings a file that a job reads, and says its digest.
    ///
    /// # Errors
    /// When it can't be read or holds a secret, or the server doesn't take it.
    pub async fn bring_file(
        &self,
        path: PathBuf,
        scan: Scan,
        tell: &mut (dyn FnMut(Sending<'_>) + Send),
    ) -> Result<Digest, SubmitError> {
        let mut content = Content::open(path, scan)?;
        self.bring(&mut content, tell).await?;
        Ok(content.digest)
    }

    /// How many devices wait for such work now. Those that just ask anew aren't among them for a moment.
    ///
    /// # Errors
    /// When the server can't be asked.
    pub async fn lenders(&self, runtime: Runtime) -> Result<u32, SubmitError> {
        match self
            .ask(wire::write(&AtSubmit::Lenders { runtime }))
            .await?
            .0
        {
            SubmitAnswer::Lenders { waiting } => Ok(waiting),
            other => Err(unexpected(&other)),
        }
    }

    /// Which of these the tenant has at the server. [`HAVE_MAX`] at most are asked for.
    ///
    /// # Errors
    /// When the server can't be asked.
    pub async fn have(&self, digests: Vec<Digest>) -> Result<BTreeSet<Digest>, SubmitError> {
        match self.ask(wire::write(&AtSubmit::Have { digests })).await?.0 {
            SubmitAnswer::Have { digests } => Ok(digests.into_iter().collect()),
            other => Err(unexpected(&other)),
        }
    }

    /// Submits work whose content is there.
    ///
    /// # Errors
    /// When the server refuses, or can't be asked.
    pub async fn submit_as(&self, submission: Submission) -> Result<JobLine, SubmitError> {
        self.job(&AtSubmit::Submit(Box::new(submission))).await
    }

    /// Brings all that a job reads, and then the job. Paths are relative to `folder`.
    ///
    /// # Errors
    /// When a file can't be read or holds a secret, or the server refuses.
    pub async fn submit(
        &self,
        file: &JobFile,
        folder: &Path,
        scan: Scan,
        tell: &mut (dyn FnMut(Sending<'_>) + Send),
    ) -> Result<JobLine, SubmitError> {
        // Nothing leaves this machine of work that would be refused for its own words.
        if !matches!(file.sensitivity.as_deref(), Some("public" | "internal")) {
            return Err(SubmitError::Refused {
                why: "a job that doesn't say `sensitivity = \"public\"` or \"internal\" is secret, and secret work is never lent".to_owned(),
            });
        }
        let mut contents = Vec::new();
        for path in file.paths() {
            let path = folder.join(path);
            contents.push(Content::open(path, scan)?);
        }
        for content in &mut contents {
            self.bring(content, tell).await?;
        }
        let mut digests = contents.iter().map(|content| content.digest);
        self.submit_as(file.submission(&mut digests)).await
    }

    async fn bring(
        &self,
        content: &mut Content,
        tell: &mut (dyn FnMut(Sending<'_>) + Send),
    ) -> Result<(), SubmitError> {
        let mut offset = 0;
        loop {
            let bytes = content.part(offset)?;
            let part = ContentPart {
                digest: content.digest,
                total: content.bytes,
                offset,
            };
            let message = wire::write_with_bytes(&AtSubmit::Bring(part), &bytes);
            tell(Sending {
                path: &content.path,
                sent: offset,
                total: content.bytes,
            });
            match self.ask(message).await?.0 {
                SubmitAnswer::Brought(BringSay::Next { offset: next }) => offset = next,
                SubmitAnswer::Brought(BringSay::Whole) => return Ok(()),
                SubmitAnswer::Brought(BringSay::Refused { why }) => {
                    let why = format!("{}: {why}", content.path.display());
                    return Err(SubmitError::Refused { why });
                }
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// How a job stands.
    ///
    /// # Errors
    /// When there is no such job of this tenant's, or the server can't be asked.
    pub async fn show(&self, job: &JobId) -> Result<JobLine, SubmitError> {
        self.job(&AtSubmit::Show { job: job.clone() }).await
    }

    /// Says that a job isn't wanted any more.
    ///
    /// # Errors
    /// When it is over, or the server can't be asked.
    pub async fn cancel(&self, job: &JobId) -> Result<JobLine, SubmitError> {
        self.job(&AtSubmit::Cancel { job: job.clone() }).await
    }

    /// All jobs of this tenant's, by name.
    ///
    /// # Errors
    /// When the server can't be asked.
    pub async fn jobs(&self) -> Result<Vec<JobLine>, SubmitError> {
        let mut all: Vec<JobLine> = Vec::new();
        loop {
            let after = all.last().map(|job| job.id.clone());
            match self.ask(wire::write(&AtSubmit::List { after })).await?.0 {
                SubmitAnswer::Jobs { jobs, more } => {
                    let is_stuck = jobs.is_empty();
                    all.extend(jobs);
                    if !more || is_stuck {
                        return Ok(all);
                    }
                }
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// Writes what a job made to `to`; its digest is compared. Its size is given back.
    ///
    /// # Errors
    /// When it made nothing yet, what comes isn't what was said, or `to` can't be written.
    pub async fn fetch(
        &self,
        job: &JobId,
        made: Made,
        to: &mut impl Write,
        path: &Path,
    ) -> Result<u64, SubmitError> {
        let mut hash = Sha256::new();
        let mut offset = 0;
        loop {
            let asked = AtSubmit::Fetch {
                job: job.clone(),
                made,
                offset,
            };
            let (answer, bytes) = self.ask(wire::write(&asked)).await?;
            let SubmitAnswer::Part { fetching, total } = answer else {
                return Err(unexpected(&answer));
            };
            hash.update(&bytes);
            to.write_all(&bytes).map_err(|source| SubmitError::File {
                tried: "write",
                path: path.to_owned(),
                source,
            })?;
            if let Some(next) = next_offset(total, offset) {
                offset = next;
                continue;
            }
            let found = Digest::from_bytes(hash.finalize().into());
            if found != fetching.digest {
                return Err(SubmitError::OtherDigest {
                    said: fetching.digest,
                    found,
                });
            }
            return Ok(total);
        }
    }

    async fn job(&self, asked: &AtSubmit) -> Result<JobLine, SubmitError> {
        match self.ask(wire::write(asked)).await?.0 {
            SubmitAnswer::Job(job) => Ok(*job),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks until there is an answer. All that is asked may be asked twice.
    async fn ask(&self, message: Vec<u8>) -> Result<(SubmitAnswer, Bytes), SubmitError> {
        let message = Bytes::from(message);
        let mut last = None;
        for _ in 0..self.patience.tries {
            let subject = self.subject.clone();
            let answer = match self
                .bus
                .request(subject, message.clone(), self.patience.answer_ms)
                .await
            {
                Ok(answer) => answer,
                // It is started anew, or NATS is.
                Err(error @ BusError::Silent { .. }) => {
                    last = Some(error);
                    continue;
                }
                Err(error @ BusError::Nobody { .. }) if self.was_heard.load(Ordering::Relaxed) => {
                    last = Some(error);
                    tokio::time::sleep(NOBODY_REST).await;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            last = None;
            self.was_heard.store(true, Ordering::Relaxed);
            let (said, after_ms) = match wire::read_with_bytes::<SubmitAnswer>(&answer) {
                Ok((SubmitAnswer::Refused { why }, _)) => return Err(SubmitError::Refused { why }),
                Ok((SubmitAnswer::Again { after_ms }, _)) => (None, after_ms),
                Ok((SubmitAnswer::Brought(BringSay::Again { after_ms }), _)) => (None, after_ms),
                Ok((said, behind)) => (Some((said, answer.slice_ref(behind))), 0),
                Err(error) => {
                    return Err(match wire::read::<NotRead>(&answer) {
                        Ok(NotRead { why }) => SubmitError::Refused { why },
                        Err(_) => SubmitError::Answer {
                            detail: error.to_string(),
                        },
                    });
                }
            };
            match said {
                Some(said) => return Ok(said),
                None => {
                    let rest = std::time::Duration::from_millis(after_ms.min(REST_MS_MAX));
                    tokio::time::sleep(rest).await;
                }
            }
        }
        Err(last.map_or(SubmitError::Busy, SubmitError::from))
    }
}

fn unexpected(answer: &SubmitAnswer) -> SubmitError {
    let what = match answer {
        SubmitAnswer::Brought(_) => "a part that was brought",
        SubmitAnswer::Job(_) => "a job",
        SubmitAnswer::Jobs { .. } => "a list of jobs",
        SubmitAnswer::Part { .. } => "a part of content",
        SubmitAnswer::Lenders { .. } => "devices that wait",
        SubmitAnswer::Have { .. } => "digests",
        SubmitAnswer::Again { .. } | SubmitAnswer::Refused { .. } => "no answer",
    };
    SubmitError::Answer {
        detail: format!("it is about {what}, which wasn't asked for"),
    }
}

/// A file that a job reads. It stays open, so that what was looked at is what goes.
struct Content {
    path: PathBuf,
    file: File,
    bytes: u64,
    digest: Digest,
}

impl Content {
    fn open(path: PathBuf, scan: Scan) -> Result<Self, SubmitError> {
        let failed = |tried| {
            let path = path.clone();
            move |source| SubmitError::File {
                tried,
                path,
                source,
            }
        };
        let file = File::open(&path).map_err(failed("open"))?;
        let meta = file.metadata().map_err(failed("look at"))?;
        if !meta.is_file() {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "it is no file");
            return Err(failed("read")(source));
        }
        if meta.len() > CONTENT_BYTES_MAX {
            return Err(SubmitError::TooLarge {
                path,
                bytes: meta.len(),
            });
        }
        let mut hash = Sha256::new();
        let mut scanning = Scanning::new(scan);
        let mut bytes = 0;
        loop {
            let mut chunk = Vec::new();
            let part = u64::try_from(PART_BYTES).unwrap_or(u64::MAX);
            let read = (&file).take(part).read_to_end(&mut chunk);
            let read = read.map_err(failed("read"))?;
            if read == 0 {
                break;
            }
            if let Some(what) = scanning.find(&chunk) {
                return Err(SubmitError::Secret { path, what });
            }
            hash.update(&chunk);
            bytes += u64::try_from(read).unwrap_or(u64::MAX);
        }
        let digest = Digest::from_bytes(hash.finalize().into());
        Ok(Self {
            path,
            file,
            bytes,
            digest,
        })
    }

    fn part(&mut self, offset: u64) -> Result<Vec<u8>, SubmitError> {
        let part = wire::part_bytes(self.bytes, offset).map_err(|error| SubmitError::Answer {
            detail: error.to_string(),
        })?;
        let mut bytes = Vec::new();
        let read = self.file.seek(SeekFrom::Start(offset));
        read.and_then(|_| (&self.file).take(part).read_to_end(&mut bytes))
            .map_err(|source| SubmitError::File {
                tried: "read",
                path: self.path.clone(),
                source,
            })?;
        Ok(bytes)
    }
}
