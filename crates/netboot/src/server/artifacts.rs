//! The served set: the only files that TFTP and HTTP can reach.
//!
//! A request's path is looked up in this map whole, and is never joined to a folder, so no path
//! can lead outside.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use undercroft_model::System;

use crate::error::NetbootError;
use crate::server::config::NetbootConfig;
use crate::site::{PI_FOLDER, ServedInstaller};

/// The served set: names, and the files behind them, each open from the start. So a request opens
/// nothing that could be missing by then, and no number of requests runs out of descriptors.
#[derive(Debug, Clone, Default)]
pub struct Artifacts(BTreeMap<String, Arc<File>>);

impl Artifacts {
    /// Collects all files of a configuration, and checks that each is a file that can be read.
    ///
    /// # Errors
    /// Names the first file that can't.
    pub fn collect(config: &NetbootConfig) -> Result<Self, NetbootError> {
        let mut all: BTreeMap<String, PathBuf> = BTreeMap::new();
        for (system, files) in &config.installers {
            all.insert(kernel_name(*system), files.kernel.clone());
            all.insert(initrd_name(*system), files.initrd.clone());
        }
        for (binary, path) in &config.ipxe {
            all.insert(binary.file_name().to_owned(), path.clone());
        }
        for (name, path) in &config.raspberry_pi {
            all.insert(format!("{PI_FOLDER}/{name}"), path.clone());
        }
        for (name, path) in &config.artifacts {
            all.insert(name.clone(), path.clone());
        }
        let mut open = BTreeMap::new();
        for (name, path) in all {
            let opened = File::open(&path).and_then(|file| {
                let meta = file.metadata()?;
                if meta.is_file() {
                    Ok(file)
                } else {
                    Err(std::io::Error::other("not a regular file"))
                }
            });
            match opened {
                Ok(file) => open.insert(name, Arc::new(file)),
                Err(source) => return Err(NetbootError::Artifact { path, source }),
            };
        }
        Ok(Self(open))
    }

    /// The names of all files.
    pub fn names(&self) -> BTreeSet<String> {
        self.0.keys().cloned().collect()
    }

    /// The file behind a name. Many read it at once, so it is read by offset alone.
    pub fn file(&self, name: &str) -> Option<Arc<File>> {
        self.0.get(name).cloned()
    }
}

fn kernel_name(system: System) -> String {
    format!("{system}/kernel")
}

fn initrd_name(system: System) -> String {
    format!("{system}/initrd")
}

/// The installers of a configuration, under the names that [`Artifacts::collect`] gives them.
pub fn installer_images(config: &NetbootConfig) -> BTreeMap<System, ServedInstaller> {
    config
        .installers
        .iter()
        .map(|(system, files)| {
            let image = ServedInstaller {
                kernel: kernel_name(*system),
                initrd: initrd_name(*system),
                params: files.params.clone(),
            };
            (*system, image)
        })
        .collect()
}
