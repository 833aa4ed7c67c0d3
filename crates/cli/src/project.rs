//! The folder of a fleet: its inventory and the state beside it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use undercroft_folder::confined::Confined;
use undercroft_folder::state;
use undercroft_model::{
    NodeName,
    inventory::{self, Inventory, Node},
};

use crate::{error::CliError, owner, ui::Ui};

/// The inventory's file name.
pub(crate) const INVENTORY_FILE: &str = "undercroft.toml";
/// The name of the folder with what Undercroft knows.
pub(crate) const STATE_FOLDER: &str = state::STATE_FOLDER;
/// The longest inventory that is read, in bytes: a thousand machines take a tenth of it.
const INVENTORY_BYTES_MAX: u64 = 8 << 20;

/// A folder with an inventory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Project {
    /// The folder, as a path that is good from the current folder.
    pub(crate) dir: PathBuf,
    /// The inventory, so named that messages about it are short.
    pub(crate) inventory: PathBuf,
}

impl Project {
    /// Finds the project: at a path that was given, or from the current folder upwards. From here on
    /// this is its owner, where it was root before.
    pub(crate) fn find(given: Option<&Path>) -> Result<Self, CliError> {
        let project = match given {
            Some(path) => Self::at(path),
            None => Self::upwards(),
        }?;
        owner::settle(&project.dir)?;
        project.verify_state()?;
        Ok(project)
    }

    /// Refuses a state folder that this user didn't make: whatever a command does, it would be
    /// believed.
    fn verify_state(&self) -> Result<(), CliError> {
        let dir = self.state();
        if state::verify(&dir).map_err(|e| CliError::from(&e))? {
            state::mend_ignore(&dir);
        }
        Ok(())
    }

    fn at(path: &Path) -> Result<Self, CliError> {
        // The path of the folder is the user's own; an inventory that is a link is refused when it is
        // read.
        let found = fs::metadata(path)
            .or_else(|_| fs::symlink_metadata(path))
            .map_err(|e| CliError::file("use", path, &e).hint(
                "Name the folder that holds undercroft.toml, or make one with `undercroft init DIR`.",
            ))?;
        if !found.is_dir() {
            let dir = match path.parent() {
                Some(parent) if parent != Path::new("") => parent.to_owned(),
                _ => PathBuf::from("."),
            };
            return Ok(Self {
                dir,
                inventory: path.to_owned(),
            });
        }
        let inventory = if path == Path::new(".") {
            PathBuf::from(INVENTORY_FILE)
        } else {
            path.join(INVENTORY_FILE)
        };
        if !is_there(&inventory) {
            return Err(CliError::input(format!(
                "there is no {INVENTORY_FILE} in {}",
                path.display()
            ))
            .hint(format!(
                "Make one with `undercroft init {}`.",
                path.display()
            )));
        }
        Ok(Self {
            dir: path.to_owned(),
            inventory,
        })
    }

    fn upwards() -> Result<Self, CliError> {
        let here = std::env::current_dir()
            .map_err(|e| CliError::failed("can't tell the current folder").because(&e))?;
        let Some(dir) = here.ancestors().find(|d| is_there(&d.join(INVENTORY_FILE))) else {
            return Err(CliError::input(format!(
                "there is no {INVENTORY_FILE} here, nor in a folder above"
            ))
            .hint("Make one with `undercroft init`, or name its folder with -C DIR."));
        };
        let (dir, inventory) = if dir == here {
            (PathBuf::from("."), PathBuf::from(INVENTORY_FILE))
        } else {
            (dir.to_owned(), dir.join(INVENTORY_FILE))
        };
        Ok(Self { dir, inventory })
    }

    /// The inventory's bytes.
    pub(crate) fn read(&self) -> Result<Vec<u8>, CliError> {
        let name = self.inventory.file_name().unwrap_or_default();
        let read = self.files().read(name, INVENTORY_BYTES_MAX);
        read.map_err(|e| CliError::from(&e))?.ok_or_else(|| {
            let missing = std::io::ErrorKind::NotFound.into();
            CliError::file("read", &self.inventory, &missing)
        })
    }

    /// The files of the repository: none of them is followed out of it.
    pub(crate) fn files(&self) -> Confined {
        Confined::new(&self.dir)
    }

    /// The inventory, good enough to work with. Warnings about it are shown.
    pub(crate) fn load(&self, ui: Ui) -> Result<Inventory, CliError> {
        let file = self.inventory.display().to_string();
        let parsed = inventory::parse(&file, &self.read()?);
        match parsed.inventory {
            Some(inventory) => {
                for finding in &parsed.diagnostics {
                    ui.note(&crate::style::diagnostic(finding));
                }
                Ok(inventory)
            }
            None => {
                let errors = parsed.diagnostics.iter().filter(|d| d.is_error()).count();
                Err(CliError::diagnostics(
                    format!(
                        "{file} can't be used: {}",
                        crate::text::count(errors, "error")
                    ),
                    parsed.diagnostics,
                ))
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

    /// The folder of the project's rack.
    pub(crate) fn rack_dir(&self) -> PathBuf {
        self.state().join("rack")
    }

    /// The folder with what Undercroft knows; it may not be there yet.
    pub(crate) fn state(&self) -> PathBuf {
        if self.dir == Path::new(".") {
            PathBuf::from(STATE_FOLDER)
        } else {
            self.dir.join(STATE_FOLDER)
        }
    }

    /// The same, made if it wasn't there: closed to others, and unknown to git.
    pub(crate) fn make_state(&self) -> Result<PathBuf, CliError> {
        let dir = self.state();
        state::make(&dir).map_err(|e| CliError::from(&e))?;
        Ok(dir)
    }
}

/// Whether anything is at a path, be it a link to nothing.
fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// The folder for what can be made again: packages, installers, systems. It is shared by all
/// fleets of a user.
pub(crate) fn cache_dir() -> Result<PathBuf, CliError> {
    let var = |name: &str| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    if let Some(dir) = var("UNDERCROFT_CACHE_DIR") {
        return Ok(dir);
    }
    if let Some(dir) = var("XDG_CACHE_HOME").filter(|d| d.is_absolute()) {
        return Ok(dir.join("undercroft"));
    }
    var("HOME")
        .map(|home| home.join(".cache/undercroft"))
        .ok_or_else(|| {
            CliError::input("there is no folder for the cache: HOME isn't set")
                .hint("Set UNDERCROFT_CACHE_DIR to a folder with a few free gigabytes.")
        })
}
