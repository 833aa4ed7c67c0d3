//! The inventory as a whole: examples, findings, schema, reference page, properties.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::panic,
    reason = "these are tests, and they read their inputs from files"
)]

mod broken;
mod examples;
mod one_cause;
mod properties;
mod ranges;
mod reference;
mod scale;
mod schema;
