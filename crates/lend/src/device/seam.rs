//! What goes into a device's state machine and what comes out, and its limits.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    consent::{Keys, Ledger, Record},
    ids::{DeviceName, Digest},
    offer::Offer,
    wire::{Assignment, Beat, BeatAnswer, Ended, Holding, Out, OutAnswer, Want, WantAnswer},
};

/// How long an answer is waited for before it is asked again, in milliseconds. A request for work waits longer,
/// by what the server keeps it.
pub const ANSWER_MS_MAX: u64 = 5_000;
/// After how long something is asked again that had no answer, in milliseconds; it doubles from there.
pub const RETRY_MS_MIN: u64 = 1_000;
/// The longest rest between two tries, in milliseconds.
pub const RETRY_MS_MAX: u64 = 60_000;
/// How far a device's wall clock may be from the server's, in milliseconds. A consent ends at a moment of it.
pub const CLOCK_MS_MAX: u64 = 5 * 60 * 1000;
/// The least that has to be left of a lease for a job to be begun, in milliseconds.
pub const LEASE_LEFT_MS_MIN: u64 = 2_000;

/// How long a device whose disk couldn't be written takes no work, in milliseconds.
pub const DISK_REST_MS: u64 = 60_000;
/// How long a device that couldn't begin a job takes no other, in milliseconds; it doubles with each one in a row. What
/// is wrong with it would else go through all that waits.
pub const UNBEGUN_REST_MS_MIN: u64 = 60_000;
/// The longest such rest, in milliseconds. A disk that was full has room again, and nobody tells the device.
pub const UNBEGUN_REST_MS_MAX: u64 = 16 * 60_000;

/// What a device goes by.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The public keys of its ledger.
    pub keys: Keys,
    /// Time between two renewals of a lease, in milliseconds.
    pub beat_ms: u64,
    /// How long a job may stay frozen before it is given back, in milliseconds.
    pub pause_ms: u64,
}

/// Names something that is to be made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// What is kept on the device.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Entry {
    /// The daemon was started, for the how manieth time.
    Began {
        /// Which time.
        start: u64,
    },
    /// A record of the ledger.
    Record(Record),
    /// A job has ended by itself, and what it made lies in its scratch folder.
    Ended {
        /// Of what.
        holding: Holding,
        /// How.
        ended: Ended,
    },
}

/// What the entries of earlier starts say.
#[derive(Debug, Clone)]
pub struct Restored {
    /// How often the daemon was started.
    pub starts: u64,
    /// The ledger.
    pub ledger: Ledger,
    /// Jobs that had ended by themselves.
    pub ended: BTreeMap<Holding, Ended>,
}

impl Restored {
    /// Nothing: a device that has never lent.
    pub fn nothing(name: DeviceName) -> Self {
        Self {
            starts: 0,
            ledger: Ledger::new(name),
            ended: BTreeMap::new(),
        }
    }
}

/// How a job ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// It has a result.
    Done {
        /// The output's digest.
        output: Digest,
        /// The output's size, in bytes.
        bytes: u64,
    },
    /// It failed, and would on another device.
    Failed {
        /// Its exit code and the end of what it wrote, or what is wrong with it.
        why: String,
    },
    /// This device couldn't begin it, or go on with it. Another may.
    Returned {
        /// What was in the way.
        why: String,
        /// How long it is going to be.
        hindrance: Hindrance,
    },
}

/// What kept a device from a job. A job alone must not be able to make it the device's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hindrance {
    /// The device's own fault, which the next job would meet, too: it takes none for a while.
    Device,
    /// The job is too much for this device: it isn't to be handed to it again.
    Fit,
    /// It may be over when the job is handed out again.
    Passing,
}

/// What an owner says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnerSays {
    /// This is lent.
    Grant {
        /// What.
        offer: Box<Offer>,
        /// Until when, in milliseconds since the Unix epoch.
        until_ms: Option<u64>,
    },
    /// Less is lent.
    Narrow {
        /// What is left.
        offer: Box<Offer>,
    },
    /// Not now.
    Pause,
    /// Go on.
    Resume,
    /// Nothing any more: whatever runs is killed.
    Revoke,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// An entry is durable.
    Kept(Ticket),
    /// An entry could not be made durable, and is not there.
    NotKept(Ticket),
    /// The server has answered.
    WantAnswered(WantAnswer),
    /// The server has answered.
    BeatAnswered(BeatAnswer),
    /// The server has answered.
    OutAnswered(OutAnswer),
    /// A job has ended by itself: none of its processes is left.
    Ended {
        /// Of what.
        holding: Holding,
        /// How.
        exit: Exit,
    },
    /// No process of a job is left: it was to be killed, or couldn't be frozen or let go on.
    Gone(Holding),
    /// No file of a job is left.
    Wiped(Holding),
    /// Whether the device may work now: the reasons why not, of which none is yes.
    May(BTreeSet<String>),
    /// The owner has spoken.
    Owner(OwnerSays),
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Make an entry durable.
    Keep {
        /// What the answer names.
        ticket: Ticket,
        /// What.
        entry: Box<Entry>,
    },
    /// Ask for work.
    Want {
        /// What is said. Its records are still to be filled in:
        want: Want,
        /// those of the ledger from this number on, as many as a message takes.
        records_from: u64,
    },
    /// Renew a lease.
    Beat(Beat),
    /// Say how a job ended.
    Out(Out),
    /// Run a job.
    Run(Box<Assignment>),
    /// Stop all processes of a job where they are.
    Freeze(Holding),
    /// Let them go on.
    Thaw(Holding),
    /// Kill all processes of a job, also if there are none; and see that they are gone.
    Kill(Holding),
    /// Delete all files of a job, also if there are none.
    Wipe(Holding),
}
