//! Jobs: as somebody submits them, and as they can be lent.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use undercroft_model::inventory::Sensitivity;

use crate::{
    Digest,
    ids::{DeviceClass, Feature, JobId, Tenant},
};

/// The largest submission, in bytes.
pub const SUBMISSION_BYTES_MAX: usize = 64 * 1024;
/// Arguments of a job, at most.
pub const ARGUMENTS_MAX: usize = 256;
/// Inputs of a job, at most.
pub const INPUTS_MAX: usize = 256;
/// The least memory of a job, in MiB. Less isn't enough for what starts a job in its sandbox.
pub const MEMORY_MB_MIN: u32 = 16;

/// What a job runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Runtime {
    /// A WebAssembly component.
    Wasm,
    /// A static program in a sandbox.
    Process,
    /// A derivation, built by Nix.
    Nix,
    /// A command on a phone.
    Adb,
}

/// What a job may use at most. All of it is set: a job without limits can't be lent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Processors, in percent of one.
    pub cpu_percent: u32,
    /// Memory, in MiB.
    pub memory_mb: u32,
    /// Disk space, in MiB.
    pub disk_mb: u32,
    /// Time from start to end, in seconds.
    pub wall_s: u32,
}

/// A job as it is asked for. Nothing of it is believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submission {
    /// The job's name, chosen by whoever submits it: the same twice is the same job.
    pub id: JobId,
    /// For whom.
    pub tenant: Tenant,
    /// What it runs in.
    pub runtime: Runtime,
    /// Which kind of device; without it, any that has what is needed.
    #[serde(default)]
    pub class: Option<DeviceClass>,
    /// What is run.
    pub artefact: Digest,
    /// Its arguments.
    #[serde(default)]
    pub arguments: Vec<String>,
    /// What it reads, by the name that it has there.
    #[serde(default)]
    pub inputs: BTreeMap<String, Digest>,
    /// What it may use.
    pub limits: Limits,
    /// What the device must have.
    #[serde(default)]
    pub needs: BTreeSet<Feature>,
    /// `public` or `internal`. Without it, or with another word, the job is taken for secret.
    #[serde(default)]
    pub sensitivity: Option<String>,
    /// Times that it may be started.
    #[serde(default)]
    pub attempts: Option<u32>,
    /// Seconds of work that are lost when it is killed; without it, all that it has done.
    #[serde(default)]
    pub loss_s: Option<u32>,
    /// How many of a hundred such jobs another owner's device runs again, before their results count.
    #[serde(default)]
    pub rerun_percent: Option<u32>,
}

/// What may be known of an artefact. It follows whatever the artefact was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Label {
    /// Anybody may see it.
    Public,
    /// Whoever belongs to the fleet may see it.
    Internal,
    /// It stays where it is.
    Secret,
}

impl Label {
    /// As what can be lent; `None` for what can't.
    pub fn lendable(self) -> Option<Sensitivity> {
        match self {
            Self::Public => Some(Sensitivity::Public),
            Self::Internal => Some(Sensitivity::Internal),
            Self::Secret => None,
        }
    }

    fn stated(word: Option<&str>) -> Self {
        match word {
            Some("public") => Self::Public,
            Some("internal") => Self::Internal,
            _ => Self::Secret,
        }
    }
}

/// A job that can be lent. There is no value of it for secret work: its sensitivity has no such case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Its name.
    pub id: JobId,
    /// For whom.
    pub tenant: Tenant,
    /// What it runs in.
    pub runtime: Runtime,
    /// Which kind of device.
    pub class: Option<DeviceClass>,
    /// What is run.
    pub artefact: Digest,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// What it reads.
    pub inputs: BTreeMap<String, Digest>,
    /// What it may use.
    pub limits: Limits,
    /// What the device must have.
    pub needs: BTreeSet<Feature>,
    /// The most sensitive of what it reads, and of what was stated. Its output has the same.
    pub sensitivity: Sensitivity,
    /// Times that it may be started before it is given up.
    pub attempts: u32,
    /// Seconds of work that a kill loses.
    pub loss_s: u32,
}

/// What may be lent, as the inventory says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Who may submit jobs.
    pub tenants: BTreeSet<Tenant>,
    /// What jobs may run in.
    pub runtimes: BTreeSet<Runtime>,
    /// The most sensitive work that is lent.
    pub max_sensitivity: Sensitivity,
    /// The longest that a job may run, in seconds.
    pub wall_s_max: u32,
    /// Times that a job may be started at most.
    pub attempts_max: u32,
}

/// Why a submission is no job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotLent {
    /// It is too large to be looked at.
    #[error("a submission has at most {SUBMISSION_BYTES_MAX} bytes, and this has {bytes}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// It can't be read.
    #[error("the submission can't be read: {detail}")]
    Unreadable {
        /// Where and why.
        detail: String,
    },
    /// Whoever submits isn't the tenant that is named.
    #[error("{submitter} may not submit work for {tenant}")]
    ForeignTenant {
        /// Whose key it came with.
        submitter: Tenant,
        /// Who is named.
        tenant: Tenant,
    },
    /// The tenant isn't one of the fleet's.
    #[error("{tenant} is none of `lending.tenants`")]
    UnknownTenant {
        /// The tenant.
        tenant: Tenant,
    },
    /// The runtime isn't offered.
    #[error("{runtime:?} is none of `lending.runtimes`")]
    NotOffered {
        /// The runtime.
        runtime: Runtime,
    },
    /// Nothing is known of something that it reads.
    #[error("nothing is known of {what} ({digest}), so it is taken for secret")]
    UnknownProvenance {
        /// The artefact, or the input's name.
        what: String,
        /// Its digest.
        digest: Digest,
    },
    /// It reads something secret, or doesn't say that it isn't.
    #[error("{what} is secret, and secret work is never lent")]
    Secret {
        /// The artefact, the input's name, or the job itself.
        what: String,
    },
    /// It is more sensitive than what this fleet lends.
    #[error("the job is {}, and `lending.max_sensitivity` is {}", found.as_str(), max.as_str())]
    TooSensitive {
        /// The job's.
        found: Sensitivity,
        /// What is lent.
        max: Sensitivity,
    },
    /// A limit is absent, or beyond what may be.
    #[error("{what} is {found}, and may be {min} to {max}")]
    OutOfRange {
        /// Which.
        what: &'static str,
        /// What it is.
        found: u64,
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// It names an input in a way that could lead out of the job's own folder.
    #[error("{name:?} is no name for an input: one part, without `/`, `..` and control characters")]
    BadInputName {
        /// The name.
        name: String,
    },
}

/// Reads a submission from bytes that somebody sent.
///
/// # Errors
/// When it is too large, or is none.
pub fn read_submission(bytes: &[u8]) -> Result<Submission, NotLent> {
    if bytes.len() > SUBMISSION_BYTES_MAX {
        return Err(NotLent::TooLarge { bytes: bytes.len() });
    }
    serde_json::from_slice(bytes).map_err(|error| NotLent::Unreadable {
        detail: error.to_string(),
    })
}

/// Makes a job that can be lent of a submission. `submitter` is whose key it came with, and `label` says what may
/// be known of an artefact: it is never the submitter's word.
///
/// # Errors
/// Why it can't be lent.
pub fn admit(
    submission: Submission,
    submitter: &Tenant,
    rules: &Rules,
    label: impl Fn(&Digest) -> Option<Label>,
) -> Result<Job, NotLent> {
    if submission.tenant != *submitter {
        return Err(NotLent::ForeignTenant {
            submitter: submitter.clone(),
            tenant: submission.tenant,
        });
    }
    if !rules.tenants.contains(&submission.tenant) {
        return Err(NotLent::UnknownTenant {
            tenant: submission.tenant,
        });
    }
    if !rules.runtimes.contains(&submission.runtime) {
        return Err(NotLent::NotOffered {
            runtime: submission.runtime,
        });
    }
    let attempts = submission.attempts.unwrap_or(rules.attempts_max);
    check_ranges(&submission, attempts, rules)?;
    if let Some(name) = submission.inputs.keys().find(|name| !is_plain_name(name)) {
        return Err(NotLent::BadInputName { name: name.clone() });
    }
    let sensitivity = sensitivity(&submission, rules, label)?;
    Ok(Job {
        loss_s: submission.loss_s.unwrap_or(submission.limits.wall_s),
        id: submission.id,
        tenant: submission.tenant,
        runtime: submission.runtime,
        class: submission.class,
        artefact: submission.artefact,
        arguments: submission.arguments,
        inputs: submission.inputs,
        limits: submission.limits,
        needs: submission.needs,
        sensitivity,
        attempts,
    })
}

fn check_ranges(submission: &Submission, attempts: u32, rules: &Rules) -> Result<(), NotLent> {
    let limits = &submission.limits;
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    for (what, found, min, max) in [
        ("limits.cpu_percent", limits.cpu_percent.into(), 1, 6400),
        (
            "limits.memory_mb",
            limits.memory_mb.into(),
            MEMORY_MB_MIN.into(),
            16_777_216,
        ),
        ("limits.disk_mb", limits.disk_mb.into(), 1, 16_777_216),
        (
            "limits.wall_s",
            limits.wall_s.into(),
            1,
            rules.wall_s_max.into(),
        ),
        ("attempts", attempts.into(), 1, rules.attempts_max.into()),
        (
            "rerun_percent",
            submission.rerun_percent.unwrap_or(0).into(),
            0,
            100,
        ),
        (
            "the number of arguments",
            count(submission.arguments.len()),
            0,
            count(ARGUMENTS_MAX),
        ),
        (
            "the number of inputs",
            count(submission.inputs.len()),
            0,
            count(INPUTS_MAX),
        ),
    ] {
        if !(min..=max).contains(&found) {
            return Err(NotLent::OutOfRange {
                what,
                found,
                min,
                max,
            });
        }
    }
    Ok(())
}

fn sensitivity(
    submission: &Submission,
    rules: &Rules,
    label: impl Fn(&Digest) -> Option<Label>,
) -> Result<Sensitivity, NotLent> {
    let mut all = vec![(
        "a job that doesn't say `sensitivity = \"public\"` or \"internal\"".to_owned(),
        Label::stated(submission.sensitivity.as_deref()),
    )];
    let inputs = submission.inputs.iter();
    let inputs = inputs.map(|(name, digest)| (format!("the input {name}"), digest));
    for (what, digest) in inputs.chain([("the artefact".to_owned(), &submission.artefact)]) {
        match label(digest) {
            Some(found) => all.push((what, found)),
            None => {
                return Err(NotLent::UnknownProvenance {
                    what,
                    digest: *digest,
                });
            }
        }
    }
    let mut most = Sensitivity::Public;
    for (what, found) in all {
        match found.lendable() {
            None => return Err(NotLent::Secret { what }),
            Some(Sensitivity::Internal) => most = Sensitivity::Internal,
            Some(Sensitivity::Public) => {}
        }
    }
    if most == Sensitivity::Internal && rules.max_sensitivity == Sensitivity::Public {
        return Err(NotLent::TooSensitive {
            found: most,
            max: rules.max_sensitivity,
        });
    }
    Ok(most)
}

/// Whether a name is one part of a path, and no way up.
fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && !matches!(name, "." | "..")
        && !name.chars().any(|c| c == '/' || c.is_control())
}
