//! Everything of a run that needs the internet, made ahead.

use std::collections::BTreeSet;

use undercroft_model::{
    NodeName,
    advice::{Advice, ErrorKind, FileFailure},
};

use crate::{
    fleet::{Fleet, FleetError},
    netboot::{BootError, images},
};

/// Why what a run needs could not be made ahead.
#[derive(Debug, thiserror::Error)]
pub enum PrefetchError {
    /// Keys or the state folder can't be used.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// The installer, or what boots it, can't be had.
    #[error(transparent)]
    Boot(#[from] BootError),
}

impl Advice for PrefetchError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Fleet(error) => error.kind(),
            Self::Boot(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Fleet(error) => error.hint(),
            Self::Boot(error) => error.hint(),
        }
    }

    fn file(&self) -> Option<FileFailure<'_>> {
        match self {
            Self::Fleet(error) => error.file(),
            Self::Boot(error) => error.file(),
        }
    }
}

impl Fleet {
    /// Makes keys, systems, the installer and the files that boot it, for a process that will reach nothing
    /// but its machines. All of it is kept in the cache, where that process finds it.
    ///
    /// # Errors
    /// When a key, the installer or iPXE can't be had. A system that can't be built is no error here.
    pub async fn prefetch(&self, only: Option<&BTreeSet<NodeName>>) -> Result<(), PrefetchError> {
        let prepared = self.prepare(only).await?;
        let targets = prepared.systems.targets.values().flatten();
        let systems = targets.map(|target| target.system).collect();
        images(self.settings(), systems).await?;
        Ok(())
    }
}
