//! Nix archives (NAR): trees of files as one stream of bytes, the same for the same tree.
//!
//! Both ends are strangers' work: a tree that is packed was left by somebody's program, and an archive that is unpacked
//! comes from somebody else's machine. So no link is followed in either direction, what isn't a file, a folder or a link
//! is refused, and all of it has bounds. What this format has and `tar` hasn't: one way to write each tree, and nothing
//! but names, contents, links, and whether a file can be run.
//!
//! Source: the grammar in Eelco Dolstra's thesis, figure 5.2, and `src/libutil/archive.cc` of Nix.

mod pack;
mod parse;
mod unpack;

pub use pack::{PackError, pack};
pub use parse::{BadArchive, Sink, parse};
pub use unpack::{UnpackError, unpack};

/// What an archive begins with.
const MAGIC: &[u8] = b"nix-archive-1";
/// Strings are filled up to a multiple of so many bytes.
const ALIGNMENT: u64 = 8;
/// The deepest tree, in folders. Each has a file descriptor while its inside is gone through.
const DEPTH_MAX: usize = 128;
/// The longest name of a file, in bytes (path_resolution(7)).
const NAME_BYTES_MAX: u64 = 255;
/// The longest target of a link, in bytes (symlink(7)).
const TARGET_BYTES_MAX: u64 = 4095;

/// How large an archive may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveLimits {
    /// All files' contents together, in bytes.
    pub bytes: u64,
    /// Files, folders and links.
    pub entries: u64,
}

/// The bytes that fill a string of that length up.
fn padding(length: u64) -> u64 {
    (ALIGNMENT - length % ALIGNMENT) % ALIGNMENT
}

#[cfg(test)]
mod tests;
