//! The systems that are installed: built on this machine, and checked to be systems before any
//! machine is touched.
mod nix;

pub(crate) use nix::{Nix, built_path};
pub use nix::{NixError, NixStore};
