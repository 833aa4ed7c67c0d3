//! The folder of a fleet: its inventory and the state beside it.

use std::{
    fs::{self, DirBuilder},
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use undercroft_model::{
    NodeName,
    inventory::{self, Inventory, Node},
};

use crate::{error::CliError, ui::Ui};

/// The inventory's file name.
pub(crate) const INVENTORY_FILE: &str = "undercroft.toml";
/// The name of the folder with what Undercroft knows.
pub(crate) const STATE_FOLDER: &str = ".undercroft";

/// A folder with an inventory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Project {
    /// The folder, as a path that is good from the current folder.
    pub(crate) dir: PathBuf,
    /// The inventory, so named that messages about it are short.
    pub(crate) inventory: PathBuf,
}

impl Project {
    /// Finds the project: at a path that was given, or from the current folder upwards.
    pub(crate) fn find(given: Option<&Path>) -> Result<Self, CliError> {
        match given {
            Some(path) => Self::at(path),
            None => Self::upwards(),
        }
    }

    fn at(path: &Path) -> Result<Self, CliError> {
        let found = fs::metadata(path)
            .map_err(|e| CliError::file("use", path, &e).hint(
                "Name the folder that holds undercroft.toml, or make one with `undercroft init DIR`.",
            ))?;
        if found.is_file() {
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
        if !inventory.is_file() {
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
        let Some(dir) = here.ancestors().find(|d| d.join(INVENTORY_FILE).is_file()) else {
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
        fs::read(&self.inventory).map_err(|e| CliError::file("read", &self.inventory, &e))
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
        let state = self.state();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&state)
            .map_err(|e| CliError::file("make the folder", &state, &e))?;
        // The folder may be older than this program, or copied: its mode matters, since keys are
        // in it.
        fs::set_permissions(&state, fs::Permissions::from_mode(0o700))
            .map_err(|e| CliError::file("close to others", &state, &e))?;
        let ignore = state.join(".gitignore");
        if !ignore.exists() {
            write_new(
                &ignore,
                "# What Undercroft knows of this fleet. It holds private keys.\n*\n",
            )?;
        }
        Ok(state)
    }
}

/// Writes a file that must not be there yet.
pub(crate) fn write_new(path: &Path, text: &str) -> Result<(), CliError> {
    let mut file = fs::File::create_new(path).map_err(|e| CliError::file("make", path, &e))?;
    file.write_all(text.as_bytes())
        .map_err(|e| CliError::file("write", path, &e))
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
