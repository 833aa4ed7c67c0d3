//! What an owner says to their PC, and what it answers: one line of JSON each, over a socket of their own.

mod documents;
mod socket;

use serde::{Deserialize, Serialize};
use undercroft_model::document::Version;

pub use documents::{
    BusView, ConsentView, Doctor, Finding, JobView, LedgerView, LendLog, LogLine, OfferView,
    Offers, Paused, Revoked, Status, TenantHours,
};
pub use socket::{Call, CallError, SOCKET_NAME, call, default_path};
pub(crate) use socket::{Listener, Question};

/// Less than what is lent, by the owner's word. What isn't named stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Narrow {
    /// These runtimes alone.
    pub runtimes: Option<Vec<String>>,
    /// For these tenants alone.
    pub tenants: Option<Vec<String>>,
    /// Jobs at a time.
    pub slots: Option<u32>,
    /// Processors, in percent of one.
    pub cpu_percent: Option<u32>,
    /// Memory, in MiB.
    pub memory_mb: Option<u32>,
    /// Disk space, in MiB.
    pub disk_mb: Option<u32>,
    /// In this part of the day alone.
    pub hours: Option<String>,
    /// How long the owner has to be away, in seconds.
    pub idle_after_s: Option<u32>,
    /// Programs beside which nothing is lent.
    pub exclusive: Vec<String>,
}

/// What an owner asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum OwnerAsk {
    /// How it stands.
    Status,
    /// Not now.
    Pause {
        /// For how long, in seconds; without it, until the owner says otherwise.
        for_s: Option<u64>,
    },
    /// Go on.
    Resume,
    /// Nothing any more.
    Revoke,
    /// What is lent.
    Offers,
    /// Lend what the policy offers.
    Grant {
        /// Until when, in milliseconds since the Unix epoch.
        until_ms: Option<u64>,
    },
    /// Lend less.
    Narrow(Box<Narrow>),
    /// What was done for others.
    Log {
        /// From when on, in milliseconds since the Unix epoch.
        since_ms: u64,
    },
    /// What this PC can.
    Doctor,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum OwnerAnswer {
    /// To everything that changes whether it lends now, and to `Status`.
    Status(Box<Status>),
    /// To `Revoke`.
    Revoked(Box<Revoked>),
    /// To `Offers`, `Grant` and `Narrow`.
    Offers(Box<Offers>),
    /// To `Log`.
    Log(Box<LendLog>),
    /// To `Doctor`.
    Doctor(Box<Doctor>),
    /// It can't be done.
    Refused {
        /// Why.
        why: String,
        /// What to try.
        hint: Option<String>,
    },
}

/// A question on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    version: Version<1>,
    ask: OwnerAsk,
}

/// An answer on the wire.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answered {
    version: Version<1>,
    answer: OwnerAnswer,
}
