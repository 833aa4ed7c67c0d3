//! The file format of [SOPS](https://github.com/getsops/sops), with age.
//!
//! A file's keys are readable and its values are encrypted, so that a diff shows what changed and
//! not to what. The values are encrypted with a data key of the file's own, and that to each
//! recipient with age. What is written here is read by `sops` and sops-nix, and the other way
//! round; the tests have both do it.
//!
//! - [`Encrypted`] is a file as it lies in a repository, [`Opened`] one in memory.
//! - [`Recipient`] is who can open it: `age1…`, an SSH key, or a machine by its host key.
//!
//! Only age's keys and YAML are understood. A file that has keys of another kind is refused
//! rather than written without them. There is no clock here, and entropy is an argument; age
//! alone takes its own from the operating system. Plain values are wiped from memory when they
//! are dropped, and are shown by no `Debug` and no error.

mod cipher;
mod error;
mod file;
mod metadata;
mod moment;
mod recipient;
mod value;
mod yaml;

#[cfg(test)]
mod tests;

pub use self::{
    error::SopsError,
    file::{Encrypted, Opened, Seal, encrypt_new, parse_plain, to_plain},
    recipient::{Recipient, identity_of_ssh_host_key},
    value::{Comment, Element, MapEntry, Value},
};

/// The largest file of secrets, in bytes.
pub const FILE_BYTES_MAX: usize = 1024 * 1024;
