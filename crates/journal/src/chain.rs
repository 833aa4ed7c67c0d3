//! The digests that tie the entries of a journal together.

use sha2::{Digest as _, Sha256};

/// The digest of an entry and, through the one before it, of all that came before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chain(pub [u8; 32]);

impl Chain {
    pub(crate) fn beginning(fleet: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"undercroft journal\0");
        hash.update(fleet.as_bytes());
        Self(hash.finalize().into())
    }

    pub(crate) fn next(self, seq: u64, wall_ms: u64, record: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(self.0);
        hash.update(seq.to_le_bytes());
        hash.update(wall_ms.to_le_bytes());
        hash.update(record.as_bytes());
        Self(hash.finalize().into())
    }
}
