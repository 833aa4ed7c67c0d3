//! A small HTTP/1.1 server (RFC 9110 and 9112) for boot files and installers' reports.

pub mod date;
pub mod head;
mod limits;
pub mod report;
pub mod route;
pub(crate) mod serve;

pub use head::{HeadError, Method, RequestHead, parse_head};
pub use report::{ReportRules, check_report, parse_report};
pub use route::{Route, route};

/// The longest request head, in bytes.
pub const MAX_HEAD_BYTES: usize = 16 << 10;
/// The most header fields of a request.
pub const MAX_HEADERS: usize = 64;
/// The longest report of an installer, in bytes.
pub const MAX_REPORT_BYTES: u64 = 64 << 10;
/// The most connections at once; fewer where the process may not have as many descriptors.
pub const MAX_CONNECTIONS: usize = 1024;
/// The most connections at once from one address. When all places are taken, the idlest
/// connection of the address that has most gives way to an address that has fewer.
pub const MAX_CONNECTIONS_PER_ADDRESS: usize = 128;
/// How long a connection that was served may idle, in milliseconds.
pub const IDLE_MS: u64 = 30_000;
/// How long a request's head and body may each take to arrive, in milliseconds; the first head
/// from the moment on that the connection is there.
pub const REQUEST_MS: u64 = 10_000;
/// How long a client may take nothing of a response, in milliseconds.
pub const STALL_MS: u64 = 60_000;
/// The most reports from one address in a minute.
pub const MAX_REPORTS_PER_MINUTE: u32 = 30;
