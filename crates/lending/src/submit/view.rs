//! A job as `--json` prints it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use undercroft_lend::wire::submit::{JobLine, Stands};
use undercroft_model::{DeviceName, JobId, Tenant};

/// A lent job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LendJob {
    /// Its name.
    pub id: JobId,
    /// For whom.
    pub tenant: Tenant,
    /// When it was submitted, in milliseconds since the Unix epoch.
    pub submitted_ms: u64,
    /// How sensitive it is: `public` or `internal`.
    pub sensitivity: String,
    /// Where it stands.
    pub state: LendJobState,
    /// How often it was handed out.
    pub handed_out: u64,
    /// How often it has failed, or its device was lost with it.
    pub failed: u32,
    /// Whether it is to end.
    pub is_cancelled: bool,
    /// Devices that didn't want it.
    pub declined: Vec<DeviceName>,
    /// Who has a result that another device has to come to before it counts.
    pub first: Option<DeviceName>,
}

/// Where a lent job stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LendJobState {
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
        output: String,
        /// Its size, in bytes.
        bytes: u64,
        /// Which other device came to the same, where one had to and there was one.
        verified_by: Option<DeviceName>,
    },
    /// It was given up.
    Dead {
        /// Why.
        why: String,
    },
}

impl From<JobLine> for LendJob {
    fn from(line: JobLine) -> Self {
        Self {
            id: line.id,
            tenant: line.tenant,
            submitted_ms: line.submitted_ms,
            sensitivity: line.sensitivity.as_str().to_owned(),
            state: match line.stands {
                Stands::Queued => LendJobState::Queued,
                Stands::Leased { device, consent } => LendJobState::Leased { device, consent },
                Stands::Done {
                    device,
                    consent,
                    output,
                    bytes,
                    verified_by,
                } => LendJobState::Done {
                    device,
                    consent,
                    output: output.to_string(),
                    bytes,
                    verified_by,
                },
                Stands::Dead { why } => LendJobState::Dead { why },
            },
            handed_out: line.epoch.0,
            failed: line.failed,
            is_cancelled: line.is_cancelled,
            declined: line.declined,
            first: line.first,
        }
    }
}
