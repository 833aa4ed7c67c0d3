//! The folder of a fleet as commands use it: its owner works there, and what is wrong with its inventory is
//! shown.

use std::{
    ops::Deref,
    path::{Path, PathBuf},
};

use undercroft_fleet::ProjectError;
use undercroft_folder::state;
use undercroft_model::{
    NodeName,
    inventory::{Inventory, Node},
};

use crate::{error::CliError, owner, ui::Ui};

pub(crate) use undercroft_fleet::INVENTORY_FILE;

/// The name of the folder with what Undercroft knows.
pub(crate) const STATE_FOLDER: &str = state::STATE_FOLDER;

/// A folder with an inventory, and this process is its owner or may do what its owner may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwnedProject(undercroft_fleet::Project);

impl Deref for OwnedProject {
    type Target = undercroft_fleet::Project;

    fn deref(&self) -> &undercroft_fleet::Project {
        &self.0
    }
}

impl OwnedProject {
    /// Finds the project: at a path that was given, or from the current folder upwards. From here on
    /// this is its owner, where it was root before.
    pub(crate) fn find(given: Option<&Path>) -> Result<Self, CliError> {
        let project = undercroft_fleet::Project::find(given).map_err(|e| CliError::from(&e))?;
        owner::settle(&project.dir)?;
        project.verify_state().map_err(|e| CliError::from(&e))?;
        Ok(Self(project))
    }

    /// The inventory's bytes.
    pub(crate) fn read(&self) -> Result<Vec<u8>, CliError> {
        self.0.read().map_err(|e| CliError::from(&e))
    }

    /// The inventory, good enough to work with. Warnings about it are shown.
    pub(crate) fn load(&self, ui: Ui) -> Result<Inventory, CliError> {
        match self.0.load() {
            Ok((inventory, warnings)) => {
                for finding in &warnings {
                    ui.note(&crate::style::diagnostic(finding));
                }
                Ok(inventory)
            }
            Err(error) => {
                let message = error.to_string();
                match error {
                    ProjectError::Inventory { diagnostics, .. } => {
                        Err(CliError::diagnostics(message, diagnostics))
                    }
                    error => Err(CliError::from(&error)),
                }
            }
        }
    }

    /// A node of the inventory, or an error that names the nearest.
    pub(crate) fn node<'a>(
        &self,
        inventory: &'a Inventory,
        name: &NodeName,
    ) -> Result<&'a Node, CliError> {
        inventory.nodes.get(name).ok_or_else(|| {
            let names: Vec<&str> = inventory.nodes.keys().map(NodeName::as_str).collect();
            CliError::usage(format!("{} has no node {name}", self.inventory.display()))
                .hint(format!("It has {}.", crate::text::list(&names)))
        })
    }

    /// The folder with what Undercroft knows, made if it wasn't there: closed to others, and unknown to git.
    pub(crate) fn make_state(&self) -> Result<PathBuf, CliError> {
        self.0.make_state().map_err(|e| CliError::from(&e))
    }
}

/// The folder for what can be made again: packages, installers, systems. It is shared by all
/// fleets of a user.
pub(crate) fn cache_dir() -> Result<PathBuf, CliError> {
    undercroft_fleet::cache_dir().map_err(|e| CliError::from(&e))
}
