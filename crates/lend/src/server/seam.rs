//! What goes into a server's state machine and what comes out, and its limits.

use std::collections::BTreeMap;

use super::record::{JobRecord, Runs, State};
use crate::{
    consent::{Keys, Ledger, Record},
    ids::{DeviceName, JobId},
    job::Job,
    wire::{Beat, BeatAnswer, Out, OutAnswer, Want, WantAnswer},
};

/// How long a device's request for work waits for a job, in milliseconds. Each end of it wakes the device.
pub const WANT_MS_MAX: u64 = 55_000;
/// After how long a device that takes no work asks again, in milliseconds. It asks at once when it takes some.
pub const ASK_AGAIN_MS: u64 = 60_000;
/// After how long something is said again that the store hadn't answered yet, in milliseconds.
pub const BUSY_MS: u64 = 500;
/// How long a job rests after it came back for the first time, in milliseconds, so that it doesn't go to the same
/// device at once; it doubles from there.
pub const RETURN_REST_MS_MIN: u64 = 1_000;
/// The longest that a job rests, in milliseconds.
pub const RETURN_REST_MS_MAX: u64 = 60_000;
/// How long a job that is to run twice waits for a second device, in milliseconds. Its result counts then, and says
/// that nobody else has come to it.
pub const ANOTHER_MS_MAX: u64 = 3_600_000;
/// Jobs of one tenant that aren't over, at most. Each lies in the store with up to 64 KiB, beside those of the others.
pub const OPEN_JOBS_MAX: usize = 2_000;
/// After how long the store is asked again when it couldn't be reached, in milliseconds.
pub const RELOAD_MS: u64 = 2_000;
/// How much longer than its device a server waits before it takes a lease for over, in milliseconds: the time
/// in which a device kills what runs, and what two clocks may drift apart within a lease.
pub const GRACE_MS: u64 = 5_000;

/// What a server goes by.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long a lease holds without renewal, in milliseconds.
    pub lease_ms: u64,
    /// The devices that may take work, and the keys that their ledgers are signed with.
    pub devices: BTreeMap<DeviceName, Keys>,
}

/// Names a request that is to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reply(pub u64);

/// Names something that the store was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// Where something lies in the store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// A job.
    Job(JobId),
    /// Where a device's ledger stands.
    Ledger(DeviceName),
}

/// What lies there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A job.
    Job(Box<JobRecord>),
    /// Where a device's ledger stands.
    Ledger(Box<Ledger>),
}

/// What has become of something that was to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// It lies there, as this revision.
    Yes(u64),
    /// Something else lies there.
    Conflict,
    /// There was no answer: it may lie there or not.
    Unknown,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The store has answered.
    Stored {
        /// To what.
        ticket: Ticket,
        /// What.
        how: Stored,
    },
    /// Something was read, or has changed by another's hand.
    Loaded {
        /// Where.
        key: Key,
        /// What lies there, with its revision; `None` for nothing.
        found: Option<(Value, u64)>,
    },
    /// The store could not be read.
    NotLoaded {
        /// Where.
        key: Key,
    },
    /// Somebody has work. It was admitted already.
    Submit {
        /// Who waits.
        reply: Reply,
        /// The work.
        job: Box<Job>,
        /// How many devices have to come to its result.
        runs: Runs,
    },
    /// Somebody doesn't want their work any more.
    Cancel {
        /// Who waits.
        reply: Reply,
        /// The job.
        job: JobId,
    },
    /// A device asks for work.
    Want {
        /// Who waits.
        reply: Reply,
        /// On whose subject.
        device: DeviceName,
        /// What it says.
        want: Want,
    },
    /// A device renews a lease.
    Beat {
        /// Who waits.
        reply: Reply,
        /// On whose subject.
        device: DeviceName,
        /// What it says.
        beat: Beat,
    },
    /// A device says how a job ended. What it made was compared with its digest already.
    Out {
        /// Who waits.
        reply: Reply,
        /// On whose subject.
        device: DeviceName,
        /// What it says.
        out: Out,
    },
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Store something, if what lies there is what it was made from.
    Store {
        /// What the answer names.
        ticket: Ticket,
        /// Where.
        key: Key,
        /// What.
        value: Value,
        /// Records of a device's ledger that are to be kept first. They may lie there already.
        records: Vec<Record>,
        /// The revision that has to lie there; `None` for nothing at all.
        expect: Option<u64>,
    },
    /// Read something.
    Load {
        /// Where.
        key: Key,
    },
    /// Answer a request.
    Answer {
        /// Which.
        reply: Reply,
        /// What.
        answer: Answer,
    },
}

/// An answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To a device that asks for work.
    Want(WantAnswer),
    /// To a device that renews a lease.
    Beat(BeatAnswer),
    /// To a device that says how a job ended.
    Out(OutAnswer),
    /// To whoever submits or cancels.
    Job(JobSay),
}

/// What has become of a submission, or of its cancelling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobSay {
    /// It is kept, and stands here.
    Kept(State),
    /// It isn't known yet; say it again.
    Again {
        /// After how long, in milliseconds.
        after_ms: u64,
    },
    /// There is another job of that name.
    OtherJob,
    /// Its tenant has as many as may be that aren't over.
    TooMany {
        /// So many.
        max: usize,
    },
    /// There is no such job.
    Unknown,
    /// Nothing can be done with it any more.
    Over {
        /// Why.
        why: String,
    },
}
