//! Numbers for Prometheus: its text format, written, and the socket at which it asks for them.
//!
//! What is counted is each program's own affair; how it is written, and what somebody who asks may take of the
//! program, is the same for all of them.

mod listen;
mod text;

pub use listen::{ASK_MS_MAX, ASKING_MAX, Asked, HEAD_BYTES_MAX, Numbers, serve};
pub use text::{NumberKind, Text, seconds};
