//! Undercroft's DHCP, proxyDHCP, TFTP and HTTP boot servers.
//!
//! [`decision::decide`] is the one place that says what a machine gets to boot; DHCP, proxyDHCP,
//! port 4011, TFTP, HTTP and the Raspberry Pi's routes all ask it. The packet codecs
//! ([`dhcp`], [`tftp`], [`http`]) are pure functions over bytes; [`server`] puts thin sockets
//! around them, and [`timeline`] reads the resulting events back to say which packet is missing.
//!
//! Nothing here moves a machine's state on: a file that was served proves nothing. The caller
//! changes a machine's [`table::BootIntent`] when the machine itself has proved where it is.

pub mod arch;
pub mod boots;
pub mod decision;
pub mod dhcp;
pub mod error;
pub mod event;
pub mod http;
pub mod pi;
pub mod script;
pub mod server;
pub mod site;
pub mod table;
pub mod tftp;
pub mod timeline;
pub mod token;

pub use arch::ClientArch;
pub use decision::{BootAction, BootDecision, BootProtocol, BootRequest, decide};
pub use error::NetbootError;
pub use event::{DropReason, EventKind, NetbootEvent};
pub use server::{Mode, Netboot, NetbootConfig};
pub use site::Site;
pub use table::{BootIntent, BootMachine, BootTable};
