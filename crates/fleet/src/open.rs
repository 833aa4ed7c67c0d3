//! A fleet by its folder, and what can be told of it without a look at any machine.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};

use undercroft_journal::{ControllerLock, Head, Store, StoreError};
use undercroft_metal::world::InstallOptions;
use undercroft_model::{
    Observation,
    advice::{Advice, ErrorKind, FileFailure},
    inventory::{Inventory, PowerKind},
    view::FleetView,
};
use undercroft_planner::{FaultyPlan, Next, Scope, next};

use crate::{
    documents::Status,
    fleet::{Fleet, FleetError},
    project::{Project, ProjectError, cache_dir},
    settings::{InstallerChoice, Settings},
};

/// Why a fleet can't be opened by its folder.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder or its inventory can't be used.
    #[error(transparent)]
    Project(#[from] ProjectError),
    /// The fleet can't be used.
    #[error(transparent)]
    Fleet(#[from] FleetError),
}

impl Advice for OpenError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Project(error) => error.kind(),
            Self::Fleet(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Project(error) => error.hint(),
            Self::Fleet(error) => error.hint(),
        }
    }

    fn file(&self) -> Option<FileFailure<'_>> {
        match self {
            Self::Project(error) => error.file(),
            Self::Fleet(error) => error.file(),
        }
    }
}

impl Fleet {
    /// Opens the fleet of a folder, or of the path of its `undercroft.toml`, with the settings that the
    /// `undercroft` command has without flags. Nothing is made, and no machine is asked.
    ///
    /// # Errors
    /// When there is no inventory, it has errors, or the state beside it isn't this user's own.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        let project = Project::find(Some(path.as_ref()))?;
        project.verify_state()?;
        let (inventory, _) = project.load()?;
        let mut nodes = inventory.nodes.values();
        let has_rack = nodes.any(|node| node.power.kind == PowerKind::Rack);
        let fleet = Self::new(Settings {
            installer: Some(InstallerChoice::of(&inventory)),
            inventory: Arc::new(inventory),
            state_dir: project.state(),
            cache_dir: cache_dir().unwrap_or_else(|_| PathBuf::from(".cache/undercroft")),
            identity_files: Vec::new(),
            rack_state_dir: has_rack.then(|| project.rack_dir()),
            system_builder: None,
            generation: 1,
            options: InstallOptions::default(),
            progress: Arc::new(|_| {}),
            repository: project.dir,
        })?;
        Ok(fleet)
    }

    /// Its inventory.
    pub fn inventory(&self) -> &Inventory {
        &self.settings().inventory
    }

    /// What the journal says of it, without being the controller: an empty view where nothing was ever
    /// carried out.
    ///
    /// # Errors
    /// When the journal can't be read or believed.
    pub fn view(&self) -> Result<FleetView, FleetError> {
        let mut view = FleetView::default();
        if let Some(store) = self.store()? {
            store.for_each_entry(0, |entry| {
                view.apply(&entry);
                ControlFlow::Continue(())
            })?;
        }
        Ok(view)
    }

    /// How far each machine has come, who is at work, and who waits for an approval: what
    /// `undercroft status` shows.
    ///
    /// # Errors
    /// When the journal can't be read or believed.
    pub fn status(&self) -> Result<Status, FleetError> {
        let mut view = FleetView::default();
        let (mut head, mut pending): (Option<Head>, _) = (None, Vec::new());
        if let Some(store) = self.store()? {
            head = store.for_all_entries(|entry| view.apply(entry))?;
            pending = store.pending()?;
        }
        let holder = ControllerLock::holder(&self.settings().state_dir);
        Ok(Status::of(
            Some(self.inventory()),
            &view,
            head,
            holder,
            pending,
        ))
    }

    fn store(&self) -> Result<Option<Store>, FleetError> {
        let settings = self.settings();
        match Store::open(&settings.state_dir, Some(&settings.inventory.fleet.name)) {
            Ok(store) => Ok(Some(store)),
            Err(StoreError::Missing { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What is known without a look at any machine and without a build: the systems of the accepted plan, and
    /// what was installed before. No machine is well by it, since none was looked at.
    ///
    /// # Errors
    /// When a host key's file can't be read.
    pub fn known(&self, view: &FleetView) -> Result<Observation, FleetError> {
        let host_keys = self.host_keys()?;
        let mut known = Observation {
            installed: view.installed().clone(),
            ..Observation::default()
        };
        for name in self.inventory().nodes.keys() {
            if let Some(key) = host_keys.public(name)? {
                known.host_keys.insert(name.clone(), key.fingerprint());
            }
        }
        for (name, node) in view.plan().into_iter().flat_map(|plan| &plan.nodes) {
            if let Some(target) = &node.target {
                known.targets.insert(name.clone(), Ok(target.clone()));
            }
        }
        Ok(known)
    }

    /// What comes next by what is known ([`Fleet::known`]), or by what was seen ([`Fleet::observe`]).
    ///
    /// # Errors
    /// When the plan that would be carried out has a fault, which is a bug.
    pub fn next(
        &self,
        view: &FleetView,
        observation: &Observation,
        scope: &Scope,
    ) -> Result<Next, FaultyPlan> {
        next(view, observation, self.inventory(), scope)
    }
}
