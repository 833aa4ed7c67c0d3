//! What somebody who has work says to the server, each on a subject of their own, and what is answered.

use serde::{Deserialize, Serialize};
use undercroft_model::{DeviceName, inventory::Sensitivity};

use super::{BringSay, ContentPart, Fetching, Made};
use crate::{
    ids::{Digest, Epoch, JobId, Tenant},
    job::{Runtime, Submission},
    server::record::{Dead, JobRecord, State},
};

/// Jobs in one answer, at most. More are asked for from where an answer ends.
pub const LISTED_MAX: usize = 200;
/// Digests that are asked for at once, at most. Each is looked up.
pub const HAVE_MAX: usize = 256;

/// What is asked. The subject says by whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum AtSubmit {
    /// A part of what a job will read or run stands behind this.
    Bring(ContentPart),
    /// Work.
    Submit(Box<Submission>),
    /// It isn't wanted any more.
    Cancel {
        /// Which.
        job: JobId,
    },
    /// How a job stands.
    Show {
        /// Which.
        job: JobId,
    },
    /// The tenant's jobs, by name.
    List {
        /// Those after this one.
        after: Option<JobId>,
    },
    /// Whether a device waits for such work now: what a job reads may be large, and nobody may be there for it.
    Lenders {
        /// What it runs in.
        runtime: Runtime,
    },
    /// Which of these the tenant has, so that they needn't be brought.
    Have {
        /// [`HAVE_MAX`] at most.
        digests: Vec<Digest>,
    },
    /// A part of what a job made.
    Fetch {
        /// Which job.
        job: JobId,
        /// What of it.
        made: Made,
        /// Where the part begins, in bytes.
        offset: u64,
    },
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum SubmitAnswer {
    /// To a part that was brought.
    Brought(BringSay),
    /// How the job stands.
    Job(Box<JobLine>),
    /// Jobs.
    Jobs {
        /// Of the tenant, by name.
        jobs: Vec<JobLine>,
        /// Whether there are further ones.
        more: bool,
    },
    /// Devices that wait for such work.
    Lenders {
        /// How many.
        waiting: u32,
    },
    /// What the tenant has of what was asked for.
    Have {
        /// In no order.
        digests: Vec<Digest>,
    },
    /// The part stands behind this.
    Part {
        /// Of what.
        fetching: Fetching,
        /// The size of the whole, in bytes.
        total: u64,
    },
    /// It isn't known yet; ask again.
    Again {
        /// After how long, in milliseconds.
        after_ms: u64,
    },
    /// It isn't done.
    Refused {
        /// Why.
        why: String,
    },
}

/// A job, as whoever submitted it sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobLine {
    /// Its name.
    pub id: JobId,
    /// For whom.
    pub tenant: Tenant,
    /// What it runs in.
    pub runtime: Runtime,
    /// How sensitive it is.
    pub sensitivity: Sensitivity,
    /// When it was submitted, in milliseconds since the Unix epoch.
    pub submitted_ms: u64,
    /// Which time it was handed out last.
    pub epoch: Epoch,
    /// How often it has failed, or its device was lost with it.
    pub failed: u32,
    /// Whether it is to end.
    pub is_cancelled: bool,
    /// Devices that didn't want it.
    pub declined: Vec<DeviceName>,
    /// Who has a result that another device has to come to.
    pub first: Option<DeviceName>,
    /// Where it stands.
    pub stands: Stands,
}

/// Where a job stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Stands {
    /// It waits for a device.
    Queued,
    /// A device has it.
    Leased {
        /// Which.
        device: DeviceName,
        /// Under which record of its owner's consent.
        consent: u64,
    },
    /// It has its result.
    Done {
        /// Who made it.
        device: DeviceName,
        /// Under which record of its owner's consent.
        consent: u64,
        /// Its digest.
        output: Digest,
        /// Its size, in bytes.
        bytes: u64,
        /// Which other device came to the same, where one had to.
        verified_by: Option<DeviceName>,
    },
    /// It was given up.
    Dead {
        /// Why.
        why: String,
    },
}

impl From<&JobRecord> for JobLine {
    fn from(record: &JobRecord) -> Self {
        let job = &record.job;
        let stands = match &record.state {
            State::Queued => Stands::Queued,
            State::Leased(lease) => Stands::Leased {
                device: lease.device.clone(),
                consent: lease.consent,
            },
            State::Done {
                device,
                consent,
                output,
                bytes,
                verified_by,
            } => Stands::Done {
                device: device.clone(),
                consent: *consent,
                output: *output,
                bytes: *bytes,
                verified_by: verified_by.clone(),
            },
            State::Dead(dead) => Stands::Dead {
                why: dead.to_string(),
            },
        };
        Self {
            id: job.id.clone(),
            tenant: job.tenant.clone(),
            runtime: job.runtime,
            sensitivity: job.sensitivity,
            submitted_ms: record.submitted_ms,
            epoch: record.epoch,
            failed: record.failed,
            is_cancelled: record.is_cancelled,
            declined: record.declined.iter().cloned().collect(),
            first: record
                .first()
                .filter(|_| !record.is_over())
                .map(|first| first.device.clone()),
            stands,
        }
    }
}

impl std::fmt::Display for Dead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Attempts { last } => {
                write!(f, "it failed as often as it may; the last time: {last}")
            }
            Self::Handouts => write!(
                f,
                "it was handed out {} times, and no device kept it long enough",
                crate::server::record::HANDOUTS_MAX
            ),
            Self::Cancelled => f.write_str("it was cancelled"),
            Self::Differs {
                devices: [first, second],
                ..
            } => write!(
                f,
                "{first} and {second} came to two results: one of them is wrong, or the job makes another one each time"
            ),
        }
    }
}
