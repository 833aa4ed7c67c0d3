//! The image that machines boot over the network to be installed: a kernel and an initramfs with
//! an SSH server, disk tools and Nix.
//!
//! Two builders make it from the same programs (`installer/assets`): `nix` from a flake that
//! imports this project's module, where nixpkgs is to be had; `debian` from Debian's packages.
//! Neither puts a secret into it: the host key is made at each boot, and the public keys that may
//! log in are fetched from the controller.

use std::path::PathBuf;

use crate::debian::{Arch, KernelFlavour, Progress};

mod assets;
pub mod cpio;
mod debian;
mod image;
mod nix;

pub use assets::{programs, system_release};
pub(crate) use debian::{compress, module_files};
pub use image::{INSTALLER_NAME, InstallerError, InstallerImage};

/// How the image is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstallerBuilder {
    /// From Debian's packages, which are kept below the cache folder.
    Debian {
        /// The cache folder; the image is kept in it too.
        cache_dir: PathBuf,
        /// Which kernel: [`KernelFlavour::Cloud`] for virtual machines.
        kernel: KernelFlavour,
    },
    /// From a flake that exposes `packages.SYSTEM.undercroft-installer`, as the one that
    /// `undercroft init` writes does.
    Nix {
        /// The flake's folder or reference.
        flake: String,
        /// Where the link to the result is kept, so that it isn't collected as garbage.
        cache_dir: PathBuf,
    },
}

impl InstallerBuilder {
    /// Makes the image, or finds the one that was made from the same inputs.
    ///
    /// # Errors
    /// [`InstallerError`]: packages or nixpkgs that can't be had, a full disk.
    pub fn build(
        &self,
        arch: Arch,
        progress: Progress<'_>,
    ) -> Result<InstallerImage, InstallerError> {
        match self {
            InstallerBuilder::Debian { cache_dir, kernel } => {
                debian::build(cache_dir, *kernel, arch, progress)
            }
            InstallerBuilder::Nix { flake, cache_dir } => {
                nix::build(flake, cache_dir, arch, progress)
            }
        }
    }
}

#[cfg(test)]
mod tests;
