//! What is kept of a job, and how it changes. The record is the only truth about who holds a job: it is kept
//! under one key of a store that compares before it sets, so that of two changes at once only one happens.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{
    ids::{DeviceName, Digest, Epoch, Turn},
    job::Job,
    wire::{Ended, tail},
};

/// Times that a job is handed out before it is given up, whatever came of it. Attempts count only what was the
/// job's own doing; this counts owners who want their machines back, too.
pub const HANDOUTS_MAX: u64 = 200;

/// Whose a job is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// Whose.
    pub device: DeviceName,
    /// The device's request that it was the answer to.
    pub turn: Turn,
    /// The record of the device's ledger that allows it.
    pub consent: u64,
    /// How often it was renewed. It changes the record, so that a server that hasn't heard of a renewal can't
    /// end the lease.
    pub renewals: u64,
}

/// Why a job was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Dead {
    /// It failed as often as it may.
    Attempts {
        /// What it said the last time.
        last: String,
    },
    /// It was handed out [`HANDOUTS_MAX`] times.
    Handouts,
    /// Whoever submitted it doesn't want it any more.
    Cancelled,
    /// Two devices came to two results.
    Differs {
        /// Which.
        devices: [DeviceName; 2],
        /// The digests of what they made.
        outputs: [Digest; 2],
    },
}

/// A result that counts when another device has come to the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirstResult {
    /// Who made it.
    pub device: DeviceName,
    /// Under which consent.
    pub consent: u64,
    /// Which time that the job was handed out.
    pub epoch: Epoch,
    /// Its digest.
    pub output: Digest,
    /// Its size.
    pub bytes: u64,
}

/// How many devices have to come to a result before it counts. No device is told: whoever lies doesn't know when
/// somebody looks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Runs {
    /// The first result counts.
    #[default]
    Once,
    /// Another owner's device runs it again.
    Twice,
    /// It has run once, and waits for that other device.
    Again(FirstResult),
}

/// Where a job stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum State {
    /// It waits for a device.
    Queued,
    /// A device has it.
    Leased(Lease),
    /// It has its result.
    Done {
        /// Who made it.
        device: DeviceName,
        /// Under which consent.
        consent: u64,
        /// Its digest.
        output: Digest,
        /// Its size.
        bytes: u64,
        /// Who came to the same, where that was asked for and there was somebody.
        #[serde(default)]
        verified_by: Option<DeviceName>,
    },
    /// It was given up.
    Dead(Dead),
}

/// All that is kept of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobRecord {
    /// The job.
    pub job: Job,
    /// When it was submitted, in milliseconds since the Unix epoch: the oldest is handed out first.
    pub submitted_ms: u64,
    /// Where it stands.
    pub state: State,
    /// Which time it was handed out last.
    pub epoch: Epoch,
    /// How often it has failed, or its device was lost with it.
    pub failed: u32,
    /// Devices that don't want it.
    pub declined: BTreeSet<DeviceName>,
    /// Whether it is to end.
    pub is_cancelled: bool,
    /// How many devices have to come to its result.
    #[serde(default)]
    pub runs: Runs,
}

/// What may happen to a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is handed out.
    Assign {
        device: DeviceName,
        turn: Turn,
        consent: u64,
    },
    /// Its device goes on.
    Renew { device: DeviceName, epoch: Epoch },
    /// Its device says how it ended.
    End {
        device: DeviceName,
        epoch: Epoch,
        ended: Ended,
    },
    /// Its device has never heard of it.
    NeverHeard,
    /// Nobody has renewed its lease.
    Expire,
    /// No other device has run it again in time.
    NobodyElse,
    /// It is to end.
    Cancel,
}

/// Why a change doesn't happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unchanged {
    /// It has happened already.
    Already,
    /// The job isn't where the change begins.
    No(String),
}

impl JobRecord {
    /// A job that was submitted just now.
    pub fn new(job: Job, submitted_ms: u64, runs: Runs) -> Self {
        Self {
            job,
            submitted_ms,
            state: State::Queued,
            epoch: Epoch::default(),
            failed: 0,
            declined: BTreeSet::new(),
            is_cancelled: false,
            runs,
        }
    }

    /// Whether nothing happens to it any more.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Done { .. } | State::Dead(_))
    }

    /// The lease, if a device has it.
    pub fn lease(&self) -> Option<&Lease> {
        match &self.state {
            State::Leased(lease) => Some(lease),
            _ => None,
        }
    }

    /// The record after a change.
    pub(crate) fn after(&self, change: Change) -> Result<Self, Unchanged> {
        match change {
            Change::Assign {
                device,
                turn,
                consent,
            } => self.assigned(device, turn, consent),
            Change::Renew { device, epoch } => {
                let lease = self.held_by(&device, epoch)?;
                if self.is_cancelled {
                    return Err(Unchanged::No("it was cancelled".to_owned()));
                }
                let lease = Lease {
                    renewals: lease.renewals.saturating_add(1),
                    ..lease.clone()
                };
                Ok(self.with(State::Leased(lease)))
            }
            Change::End {
                device,
                epoch,
                ended,
            } => self.ended(&device, epoch, ended),
            Change::NeverHeard => match &self.state {
                State::Leased(_) => Ok(self.queued_again()),
                _ => Err(Unchanged::No("nobody has it".to_owned())),
            },
            Change::Expire => match &self.state {
                // That a second device was lost says nothing of the first one's result.
                State::Leased(_) if self.first().is_some() => Ok(self.queued_again()),
                State::Leased(lease) => {
                    let why = format!("{} was not heard of any more", lease.device);
                    Ok(self.failed_once(why))
                }
                _ => Err(Unchanged::No("nobody has it".to_owned())),
            },
            Change::NobodyElse => match (&self.state, self.first()) {
                (State::Queued, Some(first)) => Ok(self.with_result(first, None)),
                _ => Err(Unchanged::No("it doesn't wait for another".to_owned())),
            },
            Change::Cancel => match &self.state {
                State::Queued => Ok(self.with(State::Dead(Dead::Cancelled))),
                State::Leased(_) if self.is_cancelled => Err(Unchanged::Already),
                State::Leased(_) => Ok(Self {
                    is_cancelled: true,
                    ..self.clone()
                }),
                State::Dead(Dead::Cancelled) => Err(Unchanged::Already),
                State::Done { .. } | State::Dead(_) => {
                    Err(Unchanged::No("it is over already".to_owned()))
                }
            },
        }
    }

    fn assigned(&self, device: DeviceName, turn: Turn, consent: u64) -> Result<Self, Unchanged> {
        if self.state != State::Queued {
            return Err(Unchanged::No("it isn't waiting".to_owned()));
        }
        let lease = Lease {
            device,
            turn,
            consent,
            renewals: 0,
        };
        Ok(Self {
            epoch: self.epoch.next(),
            ..self.with(State::Leased(lease))
        })
    }

    fn ended(&self, device: &DeviceName, epoch: Epoch, ended: Ended) -> Result<Self, Unchanged> {
        if let Ended::Done { output, .. } = &ended
            && self.has_result_of(device, epoch, output)
        {
            return Err(Unchanged::Already);
        }
        let lease = self.held_by(device, epoch)?;
        Ok(match ended {
            Ended::Done { output, bytes } => self.with_output_of(FirstResult {
                device: lease.device.clone(),
                consent: lease.consent,
                epoch,
                output,
                bytes,
            }),
            Ended::Failed { why } => self.failed_once(tail(&why)),
            Ended::Returned { .. } => self.queued_again(),
            Ended::Declined { .. } => {
                let mut next = self.queued_again();
                next.declined.insert(device.clone());
                next
            }
        })
    }

    /// Whether that result was taken already, and the answer to it was lost.
    fn has_result_of(&self, device: &DeviceName, epoch: Epoch, output: &Digest) -> bool {
        let said = (device, epoch, output);
        let first = self
            .first()
            .is_some_and(|first| (&first.device, first.epoch, &first.output) == said);
        first
            || matches!(
                &self.state,
                State::Done { device, output, verified_by, .. }
                    if (verified_by.as_ref().unwrap_or(device), self.epoch, output) == said
            )
    }

    /// What becomes of it when a device has made that of it.
    fn with_output_of(&self, made: FirstResult) -> Self {
        match &self.runs {
            // What is done is done, also if somebody has cancelled it meanwhile.
            Runs::Twice if !self.is_cancelled && self.epoch.0 < HANDOUTS_MAX => Self {
                runs: Runs::Again(made),
                ..self.with(State::Queued)
            },
            Runs::Once | Runs::Twice => self.with_result(&made, None),
            Runs::Again(first) if first.output == made.output => {
                self.with_result(first, Some(made.device))
            }
            Runs::Again(first) => self.with(State::Dead(Dead::Differs {
                devices: [first.device.clone(), made.device],
                outputs: [first.output, made.output],
            })),
        }
    }

    fn with_result(&self, made: &FirstResult, verified_by: Option<DeviceName>) -> Self {
        self.with(State::Done {
            device: made.device.clone(),
            consent: made.consent,
            output: made.output,
            bytes: made.bytes,
            verified_by,
        })
    }

    /// The result that it has, and that another device has to come to.
    pub fn first(&self) -> Option<&FirstResult> {
        match &self.runs {
            Runs::Again(first) => Some(first),
            Runs::Once | Runs::Twice => None,
        }
    }

    pub(super) fn held_by(&self, device: &DeviceName, epoch: Epoch) -> Result<&Lease, Unchanged> {
        match &self.state {
            State::Leased(lease) if lease.device == *device && self.epoch == epoch => Ok(lease),
            State::Leased(_) => Err(Unchanged::No(format!(
                "it was handed out again since, as number {}",
                self.epoch
            ))),
            State::Queued => Err(Unchanged::No("its lease has run out".to_owned())),
            State::Done { .. } => Err(Unchanged::No("it has its result".to_owned())),
            State::Dead(_) => Err(Unchanged::No("it was given up".to_owned())),
        }
    }

    fn with(&self, state: State) -> Self {
        Self {
            state,
            ..self.clone()
        }
    }

    fn queued_again(&self) -> Self {
        if self.is_cancelled {
            return self.with(State::Dead(Dead::Cancelled));
        }
        if self.epoch.0 < HANDOUTS_MAX {
            return self.with(State::Queued);
        }
        match self.first() {
            Some(first) => self.with_result(first, None),
            None => self.with(State::Dead(Dead::Handouts)),
        }
    }

    fn failed_once(&self, last: String) -> Self {
        let failed = self.failed.saturating_add(1);
        let next = Self {
            failed,
            ..self.queued_again()
        };
        if next.state == State::Queued && failed >= self.job.attempts {
            next.with(State::Dead(Dead::Attempts { last }))
        } else {
            next
        }
    }
}
