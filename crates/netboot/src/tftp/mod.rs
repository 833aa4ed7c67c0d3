//! TFTP: RFC 1350, with the options of RFC 2347, 2348 (`blksize`), 2349 (`timeout`, `tsize`) and
//! 7440 (`windowsize`).

pub mod packet;
pub(crate) mod serve;
pub mod transfer;

pub use packet::{ClientPacket, ReadRequest, parse};
pub use transfer::{Step, Transfer};

/// The block size without an option, in bytes (RFC 1350).
pub const DEFAULT_BLOCK_BYTES: usize = 512;
/// The largest block size that is agreed to where the machine's class says no other: what EDK2
/// asks for, and what fits an Ethernet frame with 4 octets of TFTP, 8 of UDP and 20 of IP.
pub const MAX_BLOCK_BYTES: usize = 1468;
/// The largest window that is agreed to, in blocks.
pub const MAX_WINDOW_BLOCKS: u16 = 64;
/// How long to wait for an acknowledgement when the client doesn't say, in milliseconds.
pub const DEFAULT_TIMEOUT_MS: u64 = 1000;
/// The longest waiting time that a client may ask for, in seconds. RFC 2349 has it taken as it is
/// or not at all, so that a longer one is left out of the answer.
pub const MAX_TIMEOUT_S: u64 = 10;
/// How long a transfer lives of which nothing was ever acknowledged, in milliseconds: whoever
/// sends requests under false addresses acknowledges none.
pub const NEVER_ACKED_MS: u64 = 5_000;
/// How long a client may be silent in a transfer that it has acknowledged something of, in
/// milliseconds: longer than [`MAX_TIMEOUT_S`] twice.
pub const MAX_SILENCE_MS: u64 = 30_000;
/// How often a window is sent again before the transfer is given up.
pub const MAX_RETRIES: u32 = 5;
/// The largest file that is sent, in bytes. Larger ones go over HTTP.
pub const MAX_FILE_BYTES: u64 = 4 << 30;
/// How many transfers run at once; fewer where the process may not have as many descriptors.
/// When all places are taken, the oldest transfer that was never acknowledged gives way.
pub const MAX_TRANSFERS: usize = 512;
/// How many transfers of one address run at once: more than any boot ROM has, and little enough
/// that eight addresses are needed to fill all places.
pub const MAX_TRANSFERS_PER_ADDRESS: usize = 64;
/// The longest request or acknowledgement that is looked at (RFC 2347 limits requests to 512).
pub const MAX_REQUEST_BYTES: usize = 512;
