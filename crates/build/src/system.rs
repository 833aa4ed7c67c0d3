//! The systems that are installed: built on this machine, and checked to be systems before any
//! machine is touched.

use self::flake::Built;
use std::fs;
use std::path::PathBuf;

use crate::debian::{Arch, Progress};

mod error;
mod flake;
mod nix;
mod node;
mod rack;
mod seen;

pub use error::SystemError;
pub(crate) use nix::{Nix, built_path};
pub use nix::{NixError, NixStore};
pub use node::{NodeSystem, SystemSecrets};
pub use seen::UnseenError;
pub(crate) use seen::check_for_installers;

/// Where a node's system comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SystemBuilder {
    /// `nixosConfigurations.NAME` of a flake.
    Flake {
        /// The flake's folder.
        dir: PathBuf,
        /// Where a store is made if this machine has none.
        cache_dir: PathBuf,
    },
    /// Built already, as `nixos-anywhere --store-paths` takes them.
    StorePaths {
        /// The system.
        toplevel: String,
        /// The script that partitions, formats and mounts; `None` for undercroft's own layout.
        disko_script: Option<String>,
        /// The devices that the script makes anew, as it names them, where that is known.
        disko_devices: Option<Vec<String>>,
        /// The store that they are in.
        store: NixStore,
    },
    /// The rack's own small system, made from Debian's packages.
    RackDebian {
        /// The cache folder, for packages and, where this machine has none, the store.
        cache_dir: PathBuf,
        /// Any number; another one gives another closure.
        generation: u32,
        /// Makes a system that doesn't come up, for trying what happens then.
        broken: bool,
    },
}

/// A system that is ready to be copied to a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltSystem {
    /// The system's store path.
    pub toplevel: String,
    /// The disko script's store path, if the system brings one.
    pub disko_script: Option<String>,
    /// The store path of disko's script that mounts alone, if the system brings one.
    pub disko_mount_script: Option<String>,
    /// The devices that the script makes anew, as it names them; `None` where that can't be told.
    pub disko_devices: Option<Vec<String>>,
    /// The architecture that it is for.
    pub arch: Arch,
    /// The store that it is in, on this machine.
    pub store: NixStore,
    /// The size of the system with everything that it refers to, in bytes.
    pub closure_bytes: u64,
}

impl SystemBuilder {
    /// Builds a node's system and checks that it is one, for the node's architecture.
    ///
    /// # Errors
    /// [`SystemError`]: what is missing, foreign, for another machine, or doesn't build.
    pub fn build(
        &self,
        node: &NodeSystem,
        progress: Progress<'_>,
    ) -> Result<BuiltSystem, SystemError> {
        let (built, store) = match self {
            SystemBuilder::Flake { dir, cache_dir } => {
                let store = NixStore::choose(cache_dir)?;
                let built = flake::build(dir, &node.name, &store, progress)?;
                (built, store)
            }
            SystemBuilder::StorePaths {
                toplevel,
                disko_script,
                disko_devices,
                store,
            } => {
                let built = Built {
                    toplevel: toplevel.clone(),
                    disko_script: disko_script.clone(),
                    disko_mount_script: None,
                    disko_devices: disko_devices.clone(),
                };
                (built, store.clone())
            }
            SystemBuilder::RackDebian {
                cache_dir,
                generation,
                broken,
            } => {
                let store = NixStore::choose_kept(cache_dir)?;
                let toplevel =
                    rack::build(cache_dir, node, *generation, *broken, &store, progress)?;
                let built = Built {
                    toplevel,
                    disko_script: None,
                    disko_mount_script: None,
                    disko_devices: None,
                };
                (built, store)
            }
        };
        let Built {
            toplevel,
            disko_script,
            disko_mount_script,
            disko_devices,
        } = built;
        check_system(&toplevel, &store, node)?;
        for script in disko_script.iter().chain(&disko_mount_script) {
            check_path(script, &store)?;
        }
        let closure_bytes = nix::closure_bytes(&store, &toplevel)?;
        progress(&format!(
            "{toplevel} ({:.1} MB)",
            closure_bytes as f64 / 1e6
        ));
        Ok(BuiltSystem {
            toplevel,
            disko_script,
            disko_mount_script,
            disko_devices,
            arch: node.arch,
            store,
            closure_bytes,
        })
    }
}

/// The files that every system has; see nixpkgs, `nixos/modules/system/activation/top-level.nix`.
const SYSTEM_FILES: [&str; 4] = ["init", "kernel", "initrd", "bin/switch-to-configuration"];

fn check_path(path: &str, store: &NixStore) -> Result<(), SystemError> {
    let name = path
        .strip_prefix("/nix/store/")
        .filter(|name| !name.contains('/'));
    if name.is_some_and(|name| name.len() > 33) && store.physical(path).exists() {
        return Ok(());
    }
    Err(SystemError::NoPath {
        path: path.to_owned(),
        store: store.uri().map(|uri| format!(" {uri}")).unwrap_or_default(),
    })
}

fn check_system(path: &str, store: &NixStore, node: &NodeSystem) -> Result<(), SystemError> {
    check_path(path, store)?;
    for missing in SYSTEM_FILES {
        if store.resolve(&format!("{path}/{missing}")).is_none() {
            return Err(SystemError::NotASystem {
                path: path.to_owned(),
                missing,
            });
        }
    }
    let system = store.physical(path).join("system");
    let found = fs::read_to_string(&system).unwrap_or_default();
    let found = found.trim();
    if !found.is_empty() && found != node.arch.nix_system() {
        return Err(SystemError::OtherArch {
            path: path.to_owned(),
            found: found.to_owned(),
            name: node.name.clone(),
            wanted: node.arch,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
