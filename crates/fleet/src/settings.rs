//! What a run is told.

use std::{path::PathBuf, sync::Arc};

use undercroft_build::system::SystemBuilder;
use undercroft_metal::world::{InstallOptions, ProgressSink, RunProgress};
use undercroft_model::inventory::{Builder, Inventory, PowerKind};

/// Which installer is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstallerChoice {
    /// Made from Debian's packages, for virtual machines.
    DebianCloud,
    /// Made from Debian's packages, for any machine.
    DebianGeneric,
    /// The flake's.
    Flake,
}

impl InstallerChoice {
    /// Which installer fits a fleet: the flake's where there is one, else Debian's, with drivers for real
    /// machines where there are any.
    pub fn of(inventory: &Inventory) -> Self {
        let mut nodes = inventory.nodes.values();
        let all_in_rack = nodes.all(|n| n.power.kind == PowerKind::Rack);
        match inventory.fleet.builder {
            Builder::Flake => Self::Flake,
            Builder::DebianRack if all_in_rack => Self::DebianCloud,
            Builder::DebianRack => Self::DebianGeneric,
        }
    }
}

/// Everything that a run is told.
#[derive(Clone)]
pub struct Settings {
    /// The inventory.
    pub inventory: Arc<Inventory>,
    /// The folder that it stands in.
    pub repository: PathBuf,
    /// The fleet's state directory.
    pub state_dir: PathBuf,
    /// Where packages, images and stores are kept.
    pub cache_dir: PathBuf,
    /// Identity files to decrypt secrets with, beside those in the usual places.
    pub identity_files: Vec<PathBuf>,
    /// The virtual rack's directory, where it has machines of the fleet.
    pub rack_state_dir: Option<PathBuf>,
    /// Which installer is served; `None`: what fits the inventory.
    pub installer: Option<InstallerChoice>,
    /// Who builds the systems; `None`: as the inventory says.
    pub system_builder: Option<SystemBuilder>,
    /// A number that goes into systems of the `debian-rack` builder, so that another one gives
    /// another system to update to.
    pub generation: u32,
    /// How to install.
    pub options: InstallOptions,
    /// Where progress goes.
    pub progress: ProgressSink,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("fleet", &self.inventory.fleet.name)
            .field("repository", &self.repository)
            .field("state_dir", &self.state_dir)
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// Tells a line that belongs to no machine.
    pub(crate) fn tell(&self, text: impl Into<String>) {
        (self.progress)(RunProgress::Line {
            node: None,
            text: text.into(),
        });
    }
}
