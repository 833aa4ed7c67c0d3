//! What is to be known of a machine to build its system.

use std::path::PathBuf;

use crate::debian::Arch;

/// What a node's system needs to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSystem {
    /// The node's name, which is its host name.
    pub name: String,
    /// Its architecture.
    pub arch: Arch,
    /// The public keys that may log in as root, in OpenSSH's format. Only the rack's own system
    /// takes them from here; a flake has its own.
    pub authorized_keys: Vec<String>,
    /// The encrypted files of secrets that the rack's own system opens when it starts, with the
    /// programs for that. A flake has its own way, sops-nix.
    pub secrets: Option<SystemSecrets>,
}

/// What a system of the rack opens its secrets with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemSecrets {
    /// A folder with statically linked `sops` and `ssh-to-age` for the machine.
    pub programs: PathBuf,
    /// The encrypted files.
    pub files: Vec<PathBuf>,
}
