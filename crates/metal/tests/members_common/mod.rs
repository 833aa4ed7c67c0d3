//! What the tests of the two distributions share: machines of namespaces that become members of a
//! cluster, and the controller before them. What differs is a [`System`] that each gives its machines.

#![allow(dead_code, reason = "each distribution uses a part of this")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "this is test code, which the lints recognize only inside test functions"
)]

mod controller;
mod machine;
mod no_facilities;

pub(crate) use controller::{Controller, Member, until};
pub(crate) use machine::{Service, System};
