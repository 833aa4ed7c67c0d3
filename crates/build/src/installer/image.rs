//! What a built installer is, and why there is none.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use undercroft_model::advice::Advice;

use crate::{
    debian::{Arch, PartsError, hex},
    system::{NixError, UnseenError},
};

/// The installer's name and version, as it reports them; the builder follows in parentheses.
pub const INSTALLER_NAME: &str = concat!("undercroft-installer ", env!("CARGO_PKG_VERSION"));

/// A built image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct InstallerImage {
    /// The kernel's file.
    pub kernel: PathBuf,
    /// The initramfs' file.
    pub initrd: PathBuf,
    /// The machines that it is for.
    pub arch: Arch,
    /// The SHA-256 of kernel and initramfs together, in hexadecimal.
    pub digest: String,
    /// What the kernel's command line needs for this image, beside where to report and the
    /// consoles.
    pub parameters: Vec<String>,
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum InstallerError {
    /// The packages aren't to be had.
    #[error(transparent)]
    Parts(#[from] PartsError),
    /// Compressing the image failed.
    #[error("can't compress the installer image: {0}")]
    Compress(String),
    /// Nix isn't installed, or the flake doesn't build.
    #[error(transparent)]
    Nix(#[from] NixError),
    /// Nix would see more or less of the flake's folder than it should.
    #[error(transparent)]
    Unseen(#[from] UnseenError),
    /// The flake's result isn't an installer.
    #[error("{path} isn't an installer image: it has no {missing}")]
    NotAnImage {
        /// What was built.
        path: PathBuf,
        /// The file that it lacks.
        missing: &'static str,
    },
}

impl Advice for InstallerError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Parts(error) => error.hint(),
            Self::Nix(error) => error.hint(),
            Self::Unseen(error) => error.hint(),
            Self::Compress(_) | Self::NotAnImage { .. } => None,
        }
    }
}

/// The digest of an image's two files.
pub(super) fn image_digest(kernel: &Path, initrd: &Path) -> Result<String, PartsError> {
    use sha2::Digest as _;
    let mut hasher = sha2::Sha256::new();
    for file in [kernel, initrd] {
        hasher.update(fs::read(file).map_err(PartsError::io("read", file))?);
    }
    Ok(hex(&hasher.finalize()))
}
