//! What a timeline is put together from.

use serde::{Deserialize, Serialize};

/// How long a machine may be silent at a stage before the next packet counts as missing, in
/// milliseconds: longer than the last pause of a PXE ROM's retries (32 s), and than a slow
/// machine takes from its kernel to its report.
pub const PATIENCE_MS: u64 = 90_000;

/// What others than the boot servers learnt of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MarkKind {
    /// Its power was switched on.
    PowerOn,
    /// Its installer was approved.
    Approved,
    /// An SSH connection with the pinned key came about.
    SshReached,
    /// An SSH connection failed.
    SshFailed,
}

/// What others than the boot servers learnt of a machine, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Mark {
    /// When, in milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
    /// What.
    pub kind: MarkKind,
    /// More about it, for people; may be empty.
    #[serde(default)]
    pub detail: String,
}

/// The stages of a boot, in order.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum BootStage {
    /// Power.
    Power,
    /// DHCP, proxyDHCP and port 4011.
    Dhcp,
    /// TFTP.
    Tftp,
    /// HTTP.
    Http,
    /// The installer's report.
    Installer,
    /// SSH.
    Ssh,
}

/// One line of a timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TimelineEntry {
    /// When, in milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
    /// The stage it belongs to.
    pub stage: BootStage,
    /// What happened, in a few words.
    pub text: String,
    /// How often it happened in a row, with nothing else in between.
    pub count: u32,
}

/// What is missing, in the words of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Missing {
    /// Nothing: the machine got where it was meant to.
    Nothing,
    /// Not long enough ago to say.
    TooEarly,
    /// Any packet.
    DhcpDiscover,
    /// An offer of ours.
    Offer,
    /// A file name in our offer.
    BootFile,
    /// A DHCPREQUEST, or a request on port 4011.
    Request,
    /// The first TFTP or HTTP request.
    BootRequest,
    /// The last block of the boot file.
    BootFileEnd,
    /// iPXE's request for its script.
    BootScript,
    /// The kernel and the initial RAM disk.
    Kernel,
    /// The installer's report.
    Report,
    /// An SSH connection.
    Ssh,
}

/// The first thing that is missing, and what to try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Diagnosis {
    /// What is missing.
    pub missing: Missing,
    /// What was seen and what was not.
    pub summary: String,
    /// What to try, the likeliest first.
    pub hints: Vec<String>,
}
