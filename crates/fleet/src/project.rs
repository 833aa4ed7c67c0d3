//! The folder of a fleet: its inventory and the state beside it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use undercroft_folder::{
    confined::{Confined, ConfinedError},
    state::{self, StateError},
};
use undercroft_model::{
    Diagnostic,
    advice::{Advice, ErrorKind, FileFailure, kind_of_io},
    inventory::{self, Inventory},
};

/// The inventory's file name.
pub const INVENTORY_FILE: &str = "undercroft.toml";
/// The longest inventory that is read, in bytes: a thousand machines take a tenth of it.
const INVENTORY_BYTES_MAX: u64 = 8 << 20;

/// Why a fleet's folder can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// There is nothing at that path, or it can't be looked at.
    #[error("can't use {}: {source}", path.display())]
    NoFolder {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A folder without an inventory.
    #[error("there is no {INVENTORY_FILE} in {}", path.display())]
    NoInventory {
        /// The folder.
        path: PathBuf,
    },
    /// Neither here nor above is an inventory.
    #[error("there is no {INVENTORY_FILE} here, nor in a folder above")]
    NowhereAbove,
    /// The current folder isn't known.
    #[error("can't tell the current folder")]
    NoCurrentFolder {
        /// Why.
        source: io::Error,
    },
    /// The inventory can't be read.
    #[error("can't read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The inventory lies behind somebody else's link.
    #[error(transparent)]
    Confined(#[from] ConfinedError),
    /// The state folder isn't this user's.
    #[error(transparent)]
    State(#[from] StateError),
    /// The inventory has errors.
    #[error("{file} can't be used: {}", errors(diagnostics))]
    Inventory {
        /// The file, as it was named.
        file: String,
        /// The findings, warnings included.
        diagnostics: Vec<Diagnostic>,
    },
    /// There is no folder for what can be made again.
    #[error("there is no folder for the cache: HOME isn't set")]
    NoCache,
}

fn errors(diagnostics: &[Diagnostic]) -> String {
    match diagnostics.iter().filter(|d| d.is_error()).count() {
        1 => "1 error".to_owned(),
        n => format!("{n} errors"),
    }
}

impl Advice for ProjectError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoFolder { source, .. } | Self::Unreadable { source, .. } => kind_of_io(source),
            Self::NoInventory { .. } | Self::NowhereAbove | Self::Inventory { .. } => {
                ErrorKind::Input
            }
            Self::NoCache => ErrorKind::Input,
            Self::NoCurrentFolder { .. } => ErrorKind::Failed,
            Self::Confined(error) => error.kind(),
            Self::State(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoFolder { .. } => Some(
                "Name the folder that holds undercroft.toml, or make one with `undercroft init DIR`."
                    .to_owned(),
            ),
            Self::NoInventory { path } => Some(format!(
                "Make one with `undercroft init {}`.",
                path.display()
            )),
            Self::NowhereAbove => Some(
                "Make one with `undercroft init`, or name its folder with -C DIR.".to_owned(),
            ),
            Self::NoCache => {
                Some("Set UNDERCROFT_CACHE_DIR to a folder with a few free gigabytes.".to_owned())
            }
            Self::Confined(error) => error.hint(),
            Self::State(error) => error.hint(),
            Self::NoCurrentFolder { .. } | Self::Unreadable { .. } | Self::Inventory { .. } => None,
        }
    }

    fn file(&self) -> Option<FileFailure<'_>> {
        match self {
            Self::NoFolder { path, source } => Some(FileFailure {
                tried: Some("use"),
                path,
                source: Some(source),
            }),
            Self::Unreadable { path, source } => Some(FileFailure {
                tried: Some("read"),
                path,
                source: Some(source),
            }),
            Self::Confined(error) => error.file(),
            Self::State(error) => error.file(),
            _ => None,
        }
    }
}

/// A folder with an inventory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// The folder, as a path that is good from the current folder.
    pub dir: PathBuf,
    /// The inventory, so named that messages about it are short.
    pub inventory: PathBuf,
}

impl Project {
    /// Finds the project: at a path that was given, be it the folder's or the inventory's, or from the current
    /// folder upwards. Whoever works with it looks at its state folder before that ([`Project::verify_state`]).
    ///
    /// # Errors
    /// When there is none.
    pub fn find(given: Option<&Path>) -> Result<Self, ProjectError> {
        match given {
            Some(path) => Self::at(path),
            None => Self::upwards(),
        }
    }

    /// Refuses a state folder that this user didn't make: whatever is done, it would be believed.
    ///
    /// # Errors
    /// When it is somebody else's.
    pub fn verify_state(&self) -> Result<(), ProjectError> {
        let dir = self.state();
        if state::verify(&dir)? {
            state::mend_ignore(&dir);
        }
        Ok(())
    }

    fn at(path: &Path) -> Result<Self, ProjectError> {
        // The path of the folder is the user's own; an inventory that is a link is refused when it is
        // read.
        let found = fs::metadata(path)
            .or_else(|_| fs::symlink_metadata(path))
            .map_err(|source| ProjectError::NoFolder {
                path: path.to_owned(),
                source,
            })?;
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
            return Err(ProjectError::NoInventory {
                path: path.to_owned(),
            });
        }
        Ok(Self {
            dir: path.to_owned(),
            inventory,
        })
    }

    fn upwards() -> Result<Self, ProjectError> {
        let here =
            std::env::current_dir().map_err(|source| ProjectError::NoCurrentFolder { source })?;
        let Some(dir) = here.ancestors().find(|d| is_there(&d.join(INVENTORY_FILE))) else {
            return Err(ProjectError::NowhereAbove);
        };
        let (dir, inventory) = if dir == here {
            (PathBuf::from("."), PathBuf::from(INVENTORY_FILE))
        } else {
            (dir.to_owned(), dir.join(INVENTORY_FILE))
        };
        Ok(Self { dir, inventory })
    }

    /// The inventory's bytes.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn read(&self) -> Result<Vec<u8>, ProjectError> {
        let name = self.inventory.file_name().unwrap_or_default();
        let read = self.files().read(name, INVENTORY_BYTES_MAX)?;
        read.ok_or_else(|| ProjectError::Unreadable {
            path: self.inventory.clone(),
            source: io::ErrorKind::NotFound.into(),
        })
    }

    /// The files of the repository: none of them is followed out of it.
    pub fn files(&self) -> Confined {
        Confined::new(&self.dir)
    }

    /// The inventory, good enough to work with, and the warnings about it.
    ///
    /// # Errors
    /// When it can't be read, or has errors; all of them are in [`ProjectError::Inventory`].
    pub fn load(&self) -> Result<(Inventory, Vec<Diagnostic>), ProjectError> {
        let file = self.inventory.display().to_string();
        let parsed = inventory::parse(&file, &self.read()?);
        let diagnostics = parsed.diagnostics;
        match parsed.inventory {
            Some(inventory) => Ok((inventory, diagnostics)),
            None => Err(ProjectError::Inventory { file, diagnostics }),
        }
    }

    /// The folder of the project's rack.
    pub fn rack_dir(&self) -> PathBuf {
        self.state().join("rack")
    }

    /// The folder with what Undercroft knows; it may not be there yet.
    pub fn state(&self) -> PathBuf {
        if self.dir == Path::new(".") {
            PathBuf::from(state::STATE_FOLDER)
        } else {
            self.dir.join(state::STATE_FOLDER)
        }
    }

    /// The same, made if it wasn't there: closed to others, and unknown to git.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn make_state(&self) -> Result<PathBuf, ProjectError> {
        let dir = self.state();
        state::make(&dir)?;
        Ok(dir)
    }
}

/// Whether anything is at a path, be it a link to nothing.
fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// The folder for what can be made again: packages, installers, systems. It is shared by all
/// fleets of a user.
///
/// # Errors
/// When the environment names none.
pub fn cache_dir() -> Result<PathBuf, ProjectError> {
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
        .ok_or(ProjectError::NoCache)
}
