//! What the server tells while it works: who asked for what, where it went, and under which consent.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use undercroft_lend::server::record::{Dead, JobRecord, State};
use undercroft_model::{
    DeviceName, JobId, Tenant,
    document::{Document, Version},
    words::count,
};

/// A line of what the server tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServerLine {
    /// The version of this document.
    pub version: Version<1>,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What.
    pub event: ServerEvent,
}

impl Document for ServerLine {
    const NAME: &'static str = "lend-server";
    const VERSION: u32 = 1;
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ServerEvent {
    /// The server is ready.
    Ready {
        /// Devices that may take work.
        devices: usize,
        /// Who may bring work.
        submitters: usize,
        /// Jobs that aren't over.
        open_jobs: usize,
        /// Where its metrics are.
        metrics: Option<String>,
    },
    /// The connection to NATS is there, or not.
    Link {
        /// Whether it is there.
        is_up: bool,
        /// What was heard.
        detail: String,
    },
    /// A device was heard of for the first time, or again after a while.
    Seen {
        /// Which.
        device: DeviceName,
    },
    /// What an owner agrees to is another.
    Consent {
        /// Whose.
        device: DeviceName,
        /// The record that says so; `None` where nothing is lent any more.
        record: Option<u64>,
    },
    /// Work was taken in.
    Submitted {
        /// The job.
        job: JobId,
        /// For whom.
        tenant: Tenant,
    },
    /// A job was handed out.
    Assigned {
        /// The job.
        job: JobId,
        /// For whom.
        tenant: Tenant,
        /// To whom.
        device: DeviceName,
        /// Which time.
        epoch: u64,
        /// Under which record of its owner's consent.
        consent: u64,
    },
    /// A job came back, and waits again.
    Queued {
        /// The job.
        job: JobId,
        /// Whose it was.
        device: Option<DeviceName>,
        /// How often it has failed.
        failed: u32,
    },
    /// A job has its result.
    Done {
        /// The job.
        job: JobId,
        /// For whom.
        tenant: Tenant,
        /// Who made it.
        device: DeviceName,
        /// Under which record of its owner's consent.
        consent: u64,
        /// Its digest.
        output: String,
        /// Its size, in bytes.
        bytes: u64,
        /// Which other device came to the same, where one had to and there was one.
        verified_by: Option<DeviceName>,
    },
    /// A job has run, and another device has to come to the same.
    RunOnce {
        /// The job.
        job: JobId,
        /// Who has run it.
        device: DeviceName,
        /// The digest of what it made.
        output: String,
    },
    /// A job was given up.
    Dead {
        /// The job.
        job: JobId,
        /// For whom.
        tenant: Tenant,
        /// Why.
        why: String,
    },
    /// Somebody wants a job ended.
    Cancelled {
        /// The job.
        job: JobId,
    },
    /// A message was refused.
    Refused {
        /// On which subject.
        subject: String,
        /// For which kind of reason.
        reason: RefusedFor,
        /// Why.
        why: String,
    },
    /// The store didn't do what it was asked.
    Store {
        /// What went wrong.
        detail: String,
    },
}

/// The kinds of reasons for which messages are refused.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum RefusedFor {
    /// It is no message.
    Malformed,
    /// It is larger than may be.
    TooLarge,
    /// It is of another version of the protocol.
    OtherVersion,
    /// Whoever sent it isn't in the inventory.
    Unknown,
    /// Its answer is to go elsewhere than to its sender.
    Inbox,
    /// It is about a job that isn't the sender's.
    Holding,
    /// Its bytes aren't the part that it speaks of.
    Part,
    /// What came hasn't the digest that was said.
    Digest,
    /// It would lend a secret.
    Secret,
    /// What was said of an output that isn't there.
    NoOutput,
    /// It asks for what can't be lent.
    NotLent,
    /// Too much is under way.
    Busy,
}

impl RefusedFor {
    /// All of them, so that each is counted from the beginning.
    pub(crate) const ALL: [Self; 12] = [
        Self::Malformed,
        Self::TooLarge,
        Self::OtherVersion,
        Self::Unknown,
        Self::Inbox,
        Self::Holding,
        Self::Part,
        Self::Digest,
        Self::Secret,
        Self::NoOutput,
        Self::NotLent,
        Self::Busy,
    ];

    /// As metrics name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLarge => "too-large",
            Self::OtherVersion => "other-version",
            Self::Unknown => "unknown",
            Self::Inbox => "inbox",
            Self::Holding => "holding",
            Self::Part => "part",
            Self::Digest => "digest",
            Self::Secret => "secret",
            Self::NoOutput => "no-output",
            Self::NotLent => "not-lent",
            Self::Busy => "busy",
        }
    }
}

/// What a job's new record tells beside the old; `None` for a renewal.
pub(crate) fn of_job(before: Option<&JobRecord>, after: &JobRecord) -> Option<ServerEvent> {
    let job = after.job.id.clone();
    let tenant = after.job.tenant.clone();
    let Some(before) = before else {
        return Some(ServerEvent::Submitted { job, tenant });
    };
    match &after.state {
        State::Leased(_) if before.is_cancelled != after.is_cancelled => {
            Some(ServerEvent::Cancelled { job })
        }
        State::Leased(_) if before.epoch == after.epoch => None,
        State::Leased(lease) => Some(ServerEvent::Assigned {
            job,
            tenant,
            device: lease.device.clone(),
            epoch: after.epoch.0,
            consent: lease.consent,
        }),
        _ if before.state == after.state => None,
        State::Queued if before.first() != after.first() => {
            let first = after.first()?;
            Some(ServerEvent::RunOnce {
                job,
                device: first.device.clone(),
                output: first.output.to_string(),
            })
        }
        State::Queued => Some(ServerEvent::Queued {
            job,
            device: before.lease().map(|lease| lease.device.clone()),
            failed: after.failed,
        }),
        State::Done {
            device,
            consent,
            output,
            bytes,
            verified_by,
        } => Some(ServerEvent::Done {
            job,
            tenant,
            device: device.clone(),
            consent: *consent,
            output: output.to_string(),
            bytes: *bytes,
            verified_by: verified_by.clone(),
        }),
        State::Dead(Dead::Cancelled) => Some(ServerEvent::Cancelled { job }),
        State::Dead(dead) => Some(ServerEvent::Dead {
            job,
            tenant,
            why: dead.to_string(),
        }),
    }
}

impl fmt::Display for ServerEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready {
                devices,
                submitters,
                open_jobs,
                metrics,
            } => {
                let (devices, jobs) = (count(*devices, "device"), count(*open_jobs, "job"));
                let are = if *open_jobs == 1 { "is" } else { "are" };
                write!(
                    f,
                    "ready: {devices} may take work, {submitters} may bring it, {jobs} {are} open"
                )?;
                match metrics {
                    Some(at) => write!(f, "; metrics at http://{at}/metrics"),
                    None => Ok(()),
                }
            }
            Self::Link { is_up, detail } if *is_up => write!(f, "connected to {detail}"),
            Self::Link { detail, .. } => write!(f, "not connected: {detail}"),
            Self::Seen { device } => write!(f, "{device} is there"),
            Self::Consent { device, record } => match record {
                Some(record) => write!(f, "{device} lends by record {record} of its ledger"),
                None => write!(f, "{device} lends nothing any more"),
            },
            Self::Refused {
                subject,
                reason,
                why,
            } => write!(f, "refused on {subject} ({}): {why}", reason.as_str()),
            Self::Store { detail } => write!(f, "the store: {detail}"),
            of_job => of_job.fmt_job(f),
        }
    }
}

impl ServerEvent {
    /// What happened to a job.
    fn fmt_job(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Submitted { job, tenant } => write!(f, "{job} was submitted for {tenant}"),
            Self::Assigned {
                job,
                tenant,
                device,
                epoch,
                consent,
            } => write!(
                f,
                "{job} of {tenant} goes to {device}, as number {epoch}, under its consent {consent}"
            ),
            Self::Queued {
                job,
                device,
                failed,
            } => {
                write!(f, "{job} ")?;
                if let Some(device) = device {
                    write!(f, "is back from {device} and ")?;
                }
                write!(f, "waits; ")?;
                match failed {
                    0 => write!(f, "it hasn't failed"),
                    1 => write!(f, "failed once"),
                    times => write!(f, "failed {times} times"),
                }
            }
            Self::Done {
                job,
                tenant,
                device,
                consent,
                bytes,
                verified_by,
                ..
            } => {
                write!(
                    f,
                    "{job} of {tenant} is done: {bytes} bytes by {device}, under its consent {consent}"
                )?;
                match verified_by {
                    Some(other) => write!(f, "; {other} came to the same"),
                    None => Ok(()),
                }
            }
            Self::RunOnce { job, device, .. } => {
                write!(f, "{job} was run by {device}, and is to be run by another")
            }
            Self::Dead { job, tenant, why } => write!(f, "{job} of {tenant} is given up: {why}"),
            Self::Cancelled { job } => write!(f, "{job} is cancelled"),
            _ => Ok(()),
        }
    }
}
