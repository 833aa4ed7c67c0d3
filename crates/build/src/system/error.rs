//! Why there is no system to install.

use std::path::PathBuf;

use undercroft_model::advice::Advice;

use super::{nix::NixError, seen::UnseenError};
use crate::{
    debian::{Arch, PartsError},
    installer::InstallerError,
};

/// Why there is no system to install.
#[derive(Debug, thiserror::Error)]
pub enum SystemError {
    /// The packages aren't to be had.
    #[error(transparent)]
    Parts(#[from] PartsError),
    /// Nix failed.
    #[error(transparent)]
    Nix(#[from] NixError),
    /// The system's initramfs or the installer's couldn't be made.
    #[error(transparent)]
    Image(#[from] InstallerError),
    /// A flake can't be read at all, whichever machine is asked for.
    #[error(transparent)]
    UnreadableFlake(NixError),
    /// A flake isn't where it should be.
    #[error("{dir} has no flake.nix")]
    NoFlake {
        /// The folder.
        dir: PathBuf,
    },
    /// Nix would see more or less of a flake's folder than it should.
    #[error(transparent)]
    Unseen(#[from] UnseenError),
    /// A flake has no configuration for a node.
    #[error("the flake {dir} has no nixosConfigurations.{name}; it has: {known}")]
    NotInFlake {
        /// The flake's folder.
        dir: PathBuf,
        /// The node.
        name: String,
        /// The configurations that it has.
        known: String,
    },
    /// A store path isn't there.
    #[error("{path} isn't in the store{store}")]
    NoPath {
        /// The path.
        path: String,
        /// Which store, if not the default one; with a leading blank.
        store: String,
    },
    /// A store path isn't a system.
    #[error("{path} isn't a NixOS system: it has no {missing}")]
    NotASystem {
        /// The path.
        path: String,
        /// The file that it lacks.
        missing: &'static str,
    },
    /// A system is for another architecture.
    #[error("{path} is for {found}, and {name} is {wanted}")]
    OtherArch {
        /// The path.
        path: String,
        /// The architecture that it is for.
        found: String,
        /// The node.
        name: String,
        /// The node's architecture.
        wanted: Arch,
    },
}

impl Advice for SystemError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Parts(error) => return error.hint(),
            Self::Nix(error) | Self::UnreadableFlake(error) => return error.hint(),
            Self::Image(error) => return error.hint(),
            Self::Unseen(error) => return error.hint(),
            Self::NoFlake { .. } => {
                "`undercroft init` makes one, or name another folder with --flake"
            }
            Self::NotInFlake { .. } => {
                "let the flake read undercroft.toml, as the one of `undercroft init` does"
            }
            Self::NoPath { .. } => "build it, or copy it there with `nix copy`",
            Self::NotASystem { .. } => {
                "name `config.system.build.toplevel` of a NixOS configuration"
            }
            Self::OtherArch { .. } => {
                "set nixpkgs.hostPlatform of that configuration, or the node's system in undercroft.toml"
            }
        };
        Some(hint.to_owned())
    }
}

impl SystemError {
    /// Whether every other machine of the same flake would fail in the same way.
    pub fn concerns_the_flake(&self) -> bool {
        matches!(
            self,
            Self::UnreadableFlake(_) | Self::NoFlake { .. } | Self::Unseen(_)
        )
    }
}
