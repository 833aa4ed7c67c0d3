//! The cluster that has answered, so that another is told from it.

use std::sync::{Mutex, PoisonError};

use undercroft_kube::Access;
use undercroft_model::NodeName;

/// The cluster as it was seen last.
#[derive(Default)]
pub(in super::super) struct KnownAccess(Mutex<Option<Known>>);

/// A cluster that has answered.
#[derive(Clone)]
pub(super) struct Known {
    pub(super) access: Access,
    /// Who the cluster is. Its authority doesn't say: that comes from the fleet's secrets, and a
    /// second cluster of the fleet has the same.
    pub(super) uid: String,
    /// The server that told.
    pub(super) server: NodeName,
}

impl KnownAccess {
    pub(super) fn get(&self) -> Option<Known> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.clone()
    }

    pub(super) fn keep(&self, known: Known) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
    }
}
