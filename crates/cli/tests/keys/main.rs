//! Nothing is documented that does nothing, and nothing is named that doesn't exist: each key of
//! the inventory changes what Undercroft does, and each key, command and flag that a page or a
//! message names is there.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests and their helpers"
)]

mod base;
mod effect;
mod named;
mod schema;
