//! DHCP, proxyDHCP and the PXE boot server of port 4011.
//!
//! Sources: RFC 2131 and 2132 (DHCP), RFC 3046 (relay information), RFC 3527 (link selection),
//! RFC 5107 (server identifier override), RFC 8357 (relays' ports), RFC 3396 (long options),
//! RFC 4578 (options 93, 94, 97), the PXE specification 2.1 (options 43 and 60, port 4011), and
//! UEFI 2.10, chapter 24 (`HTTPClient`).

pub mod handle;
pub(crate) mod lease_file;
pub mod leases;
pub(crate) mod probe;
pub mod relay;
pub mod reply;
pub(crate) mod serve;
pub mod wire;

pub use handle::{Handled, Incoming, Port, ServerView, handle};
pub use lease_file::restore_leases;
pub use leases::LeaseStore;
pub use probe::neighbours_in;
pub use reply::{Destination, Reply};
pub use wire::{DhcpPacket, decode};

#[cfg(test)]
mod lease_times;
