//! The documents that an owner gets.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use undercroft_model::document::{Document, Version};

/// Declares documents, each with its name.
macro_rules! documents {
    ($( $name:literal $(#[$meta:meta])* $type:ident {
        $( $(#[$of_field:meta])* $field:ident: $of:ty, )*
    } )*) => { $(
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        pub struct $type {
            /// The version of this document.
            pub version: Version<1>,
            $( $(#[$of_field])* pub $field: $of, )*
        }

        impl Document for $type {
            const NAME: &'static str = $name;
            const VERSION: u32 = 1;
        }
    )* };
}

documents! {
    "lend-status"
    /// Whether a PC works for others, and why.
    Status {
        /// The PC.
        device: String,
        /// The fleet.
        fleet: String,
        /// Whether the daemon runs. Without it nothing is lent.
        running: bool,
        /// What the owner agrees to; null where they lend nothing.
        consent: Option<ConsentView>,
        /// Since when the owner has paused it.
        paused: Option<Paused>,
        /// Why it takes no work now; none where it does.
        why_not: Vec<String>,
        /// The server.
        server: BusView,
        /// What it holds.
        jobs: Vec<JobView>,
        /// The ledger.
        ledger: LedgerView,
    }

    "lend-revoke"
    /// Nothing is lent any more.
    Revoked {
        /// The PC.
        device: String,
        /// From the word to when nothing was left and all was signed, in milliseconds.
        after_ms: u64,
        /// Jobs that were ended for it.
        ended: Vec<String>,
        /// The ledger, which says so.
        ledger: LedgerView,
    }

    "lend-offers"
    /// What a PC lends.
    Offers {
        /// The PC.
        device: String,
        /// What the fleet's repository lets it offer.
        policy: OfferView,
        /// What the owner agrees to; null where they lend nothing.
        consent: Option<ConsentView>,
        /// The parts of the day in which it lends; all of them have to be now.
        hours: Vec<String>,
        /// How long the owner has to be away, in seconds.
        idle_after_s: u32,
        /// Programs beside which nothing is lent.
        exclusive: Vec<String>,
    }

    "lend-log"
    /// What a PC has done for others.
    LendLog {
        /// The PC.
        device: String,
        /// From when on, in milliseconds since the Unix epoch.
        since_ms: u64,
        /// Jobs, the oldest first.
        jobs: Vec<LogLine>,
        /// For whom.
        tenants: Vec<TenantHours>,
        /// Hours of work in all.
        hours: f64,
        /// Bytes that were fetched.
        bytes_in: u64,
        /// Bytes that were brought.
        bytes_out: u64,
        /// What it took, in watt-hours; null where nobody knows.
        energy_wh: Option<f64>,
        /// Where that is from.
        energy_from: String,
    }

    "lend-doctor"
    /// What a PC can lend, and what is in the way.
    Doctor {
        /// The PC.
        device: String,
        /// Each thing that lending stands on.
        findings: Vec<Finding>,
    }
}

/// What is offered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OfferView {
    /// What jobs may run in.
    pub runtimes: Vec<String>,
    /// For whom; null for all of the fleet's tenants.
    pub tenants: Option<Vec<String>>,
    /// The most sensitive work.
    pub max_sensitivity: String,
    /// What jobs may use of the PC beside that.
    pub features: Vec<String>,
    /// Jobs at a time.
    pub slots: u32,
    /// Processors, in percent of one.
    pub cpu_percent: u32,
    /// Memory, in MiB.
    pub memory_mb: u32,
    /// Disk space, in MiB.
    pub disk_mb: u32,
    /// The longest that a job may run, in seconds.
    pub wall_s: u32,
}

/// What an owner agrees to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ConsentView {
    /// The record of the ledger that says so.
    pub record: u64,
    /// Until when, in milliseconds since the Unix epoch; null until it is revoked.
    pub until_ms: Option<u64>,
    /// What.
    pub offer: OfferView,
}

/// A pause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Paused {
    /// Since when, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// Until when; null until the owner says otherwise.
    pub until_ms: Option<u64>,
}

/// The server, as the PC sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BusView {
    /// Its address.
    pub url: String,
    /// Whether there is a connection.
    pub connected: bool,
    /// Why there is none.
    pub why_not: Option<String>,
}

/// A job that a PC holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobView {
    /// Its name.
    pub job: String,
    /// Which time that it was handed out.
    pub epoch: u64,
    /// For whom; null for one of before the daemon was started.
    pub tenant: Option<String>,
    /// How far it has come.
    pub phase: String,
    /// The record of the consent under which it runs.
    pub consent: Option<u64>,
    /// Since when, in milliseconds since the Unix epoch.
    pub since_ms: Option<u64>,
    /// Processor time so far, in milliseconds.
    pub cpu_ms: Option<u64>,
    /// The most memory at once, in bytes.
    pub memory_peak_bytes: Option<u64>,
}

/// The ledger's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LedgerView {
    /// How many records it has.
    pub records: u64,
    /// The digest of the last, and through it of all before.
    pub head: Option<String>,
}

/// A job that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogLine {
    /// Its name.
    pub job: String,
    /// Which time that it was handed out.
    pub epoch: u64,
    /// For whom.
    pub tenant: String,
    /// What it ran in.
    pub runtime: String,
    /// When it came, in milliseconds since the Unix epoch.
    pub began_ms: u64,
    /// When it was over.
    pub ended_ms: u64,
    /// How it ended.
    pub how: String,
    /// How long it ran, without the time that it was frozen, in milliseconds.
    pub ran_ms: u64,
    /// Processor time, in milliseconds.
    pub cpu_ms: u64,
    /// Bytes that were fetched for it.
    pub bytes_in: u64,
    /// Bytes that it made.
    pub bytes_out: u64,
    /// What the processors took in the meantime, in joules, where they count it.
    pub joules: Option<u64>,
}

/// What was done for one tenant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TenantHours {
    /// Who.
    pub tenant: String,
    /// How many jobs.
    pub jobs: u64,
    /// For how many hours.
    pub hours: f64,
}

/// One thing that lending stands on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// What.
    pub name: String,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What was found, as a sentence.
    pub found: String,
    /// What can't be lent without it, and what to try.
    pub narrows: Option<String>,
}
