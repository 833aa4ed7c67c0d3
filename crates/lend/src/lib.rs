//! Lending: devices take opt-in work while their owners let them, and are never nodes of the cluster.
//!
//! All of it is state machines and data. The [`server`] is the one process of the cluster that owns the store;
//! a [`device`] is a developer's PC, or a phone's host with many slots. They speak over [`wire`]; what an owner
//! agrees to, and what was done under it, stands in the ledger of [`consent`]; a [`job`] that can be lent cannot
//! be secret, as its type has no such case. Sockets, files, processes and keys are others' business.
//!
//! ```text
//! submission ─admit▶ job ─▶ Server ─want/assigned▶ Device ─▶ Run, Freeze, Kill, Wipe
//!                            │  ▲                     │
//!                     compare and set           ledger of consent
//!                            ▼  │                     ▼
//!                          store                 entries on disk
//! ```

pub mod accounts;
pub mod build;
pub mod consent;
pub mod device;
pub mod fleet;
mod ids;
pub mod job;
pub mod offer;
pub mod server;
pub mod wire;

pub use ids::{
    DeviceClass, DeviceName, Digest, Epoch, Feature, JobId, SubmitterName, Tenant, Turn,
};
