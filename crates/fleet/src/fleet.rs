//! A fleet as one operator has it: its inventory, its repository, its state.

use std::collections::BTreeSet;

use undercroft_journal::{FleetJournal, StoreError};
use undercroft_metal::{
    observe::{Looking, observe},
    world::ProgressSink,
};
use undercroft_model::{
    NodeName, Observation,
    advice::{Advice, ErrorKind, FileFailure},
    view::FleetView,
};
use undercroft_planner::Rounds;
use undercroft_secrets::keys::{Consent, HostKeys, IdentitySource, KeyError, OperatorKey};

use crate::{
    settings::Settings,
    systems::{self, KeptSystems, Systems},
};

/// Why a fleet could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// A key can't be made or read.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The journal can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An option can't be done.
    #[error(transparent)]
    Option(#[from] undercroft_metal::world::OptionError),
}

impl Advice for FleetError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Key(error) => error.kind(),
            Self::Store(error) => error.kind(),
            Self::Option(_) => ErrorKind::Input,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Key(error) => error.hint(),
            Self::Store(error) => error.hint(),
            Self::Option(_) => None,
        }
    }

    fn file(&self) -> Option<FileFailure<'_>> {
        match self {
            Self::Key(error) => error.file(),
            Self::Store(error) => error.file(),
            Self::Option(_) => None,
        }
    }
}

/// A fleet's keys and systems.
#[derive(Debug)]
pub struct Prepared {
    /// The machines' host keys; each machine that was prepared, and not only looked at, has one.
    pub host_keys: HostKeys,
    /// The key to log in with.
    pub operator: OperatorKey,
    /// The machines' systems.
    pub systems: Systems,
}

/// A fleet as one operator has it.
#[derive(Debug)]
pub struct Fleet {
    settings: Settings,
    /// Who agrees to readers of the keys that are made.
    consent: Consent,
}

impl Fleet {
    /// A fleet with these settings.
    ///
    /// # Errors
    /// When an option can't be done; nothing was changed.
    pub fn new(settings: Settings) -> Result<Self, FleetError> {
        settings.options.check(&[])?;
        Ok(Self {
            settings,
            consent: Consent::default(),
        })
    }

    /// The same, with who agrees to readers of the keys that are made.
    #[must_use]
    pub fn agreeing(mut self, consent: Consent) -> Self {
        self.consent = consent;
        self
    }

    /// The same fleet, whose progress goes elsewhere.
    pub(crate) fn telling(&self, progress: ProgressSink) -> Self {
        Self {
            settings: Settings {
                progress,
                ..self.settings.clone()
            },
            consent: self.consent.clone(),
        }
    }

    /// What it was told.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Opens the journal as the only controller. `command` is what others are told, such as
    /// `undercroft up`.
    ///
    /// # Errors
    /// As [`FleetJournal::open`].
    pub fn journal(&self, command: &str) -> Result<FleetJournal, FleetError> {
        let fleet = &self.settings.inventory.fleet.name;
        Ok(FleetJournal::open(
            &self.settings.state_dir,
            fleet,
            command,
        )?)
    }

    /// The machines' host keys, and the operator's key, made where it is missing.
    ///
    /// # Errors
    /// When a key can't be made or read.
    pub fn keys(&self) -> Result<(HostKeys, OperatorKey), FleetError> {
        let settings = &self.settings;
        let host_keys = self.host_keys()?;
        let operator = OperatorKey::ensure(&settings.state_dir, &settings.inventory.fleet.name)?;
        operator.publish(&settings.repository)?;
        Ok((host_keys, operator))
    }

    pub(crate) fn host_keys(&self) -> Result<HostKeys, FleetError> {
        let settings = &self.settings;
        let secrets = &settings.inventory.secrets;
        let host_keys = HostKeys::open_in(
            &settings.repository,
            &secrets.path,
            &secrets.operators,
            IdentitySource::usual(&settings.state_dir, settings.identity_files.clone()),
        )?;
        Ok(host_keys.agreeing(self.consent.clone()))
    }

    /// Makes keys and builds systems for those machines, or for all.
    ///
    /// # Errors
    /// When a key can't be made. A system that can't be built is in [`Systems::targets`] with its
    /// reason.
    pub async fn prepare(&self, only: Option<&BTreeSet<NodeName>>) -> Result<Prepared, FleetError> {
        let (nodes, host_keys, operator) = self.make_keys(only)?;
        self.build(nodes, host_keys, operator).await
    }

    /// The same for a service: what was built in an earlier round from the same is not built again, and what
    /// couldn't be built is tried again when `rounds` says so.
    ///
    /// # Errors
    /// As [`Fleet::prepare`].
    pub async fn prepare_kept(
        &self,
        only: Option<&BTreeSet<NodeName>>,
        kept: &mut KeptSystems,
        rounds: &mut Rounds,
        now_ms: u64,
    ) -> Result<Prepared, FleetError> {
        let (nodes, host_keys, operator) = self.make_keys(only)?;
        let inventory = &self.settings.inventory;
        let authorized = inventory.authorized_keys(&operator.authorized_key);
        let systems = kept
            .build(&self.settings, &nodes, authorized, rounds, now_ms)
            .await;
        Ok(Prepared {
            host_keys,
            operator,
            systems,
        })
    }

    /// Makes the keys that are missing of those machines, or of all.
    fn make_keys(
        &self,
        only: Option<&BTreeSet<NodeName>>,
    ) -> Result<(Vec<NodeName>, HostKeys, OperatorKey), FleetError> {
        let (host_keys, operator) = self.keys()?;
        let nodes = self.nodes(only);
        let mut made = 0_usize;
        for name in &nodes {
            made += usize::from(host_keys.public(name)?.is_none());
            host_keys.ensure(name)?;
        }
        if made > 0 {
            let folder = &self.settings.inventory.secrets.path;
            let keys = match made {
                1 => "a host key".to_owned(),
                _ => format!("{made} host keys"),
            };
            self.settings.tell(format!(
                "made {keys} for machines in {folder}: commit what is new there"
            ));
        }
        if let Some(made) = host_keys.made_identity() {
            self.settings.tell(
                format!(
                    "made the fleet's own identity, {}, in {}: keep a copy, as nobody opens its secrets without it",
                    made.recipient,
                    made.path.display()
                ),
            );
        }
        Ok((nodes, host_keys, operator))
    }

    /// Builds systems for those machines, or for all, to look at. No key is made, and nothing is
    /// written in the repository or the state directory: a machine without a host key stays without,
    /// and systems let in whoever has a key by now.
    ///
    /// # Errors
    /// When a key can't be read.
    pub async fn look(&self, only: Option<&BTreeSet<NodeName>>) -> Result<Prepared, FleetError> {
        let state = &self.settings.state_dir;
        let operator = OperatorKey::find(state)?.unwrap_or_else(|| OperatorKey::none(state));
        self.build(self.nodes(only), self.host_keys()?, operator)
            .await
    }

    fn nodes(&self, only: Option<&BTreeSet<NodeName>>) -> Vec<NodeName> {
        let names = self.settings.inventory.nodes.keys();
        names
            .filter(|name| only.is_none_or(|only| only.contains(*name)))
            .cloned()
            .collect()
    }

    async fn build(
        &self,
        nodes: Vec<NodeName>,
        host_keys: HostKeys,
        operator: OperatorKey,
    ) -> Result<Prepared, FleetError> {
        let inventory = &self.settings.inventory;
        let authorized = inventory.authorized_keys(&operator.authorized_key);
        let systems = systems::build(&self.settings, &nodes, authorized).await;
        Ok(Prepared {
            host_keys,
            operator,
            systems,
        })
    }

    /// Looks at those machines, or at all.
    ///
    /// # Errors
    /// When a host key's file can't be read.
    pub async fn observe(
        &self,
        only: Option<&BTreeSet<NodeName>>,
        prepared: &Prepared,
        view: &FleetView,
    ) -> Result<Observation, FleetError> {
        self.observe_adopting(only, &BTreeSet::new(), prepared, view)
            .await
    }

    /// The same, and looks at those of `adopt` also where no plan ever had them.
    ///
    /// # Errors
    /// When a host key's file can't be read.
    pub async fn observe_adopting(
        &self,
        only: Option<&BTreeSet<NodeName>>,
        adopt: &BTreeSet<NodeName>,
        prepared: &Prepared,
        view: &FleetView,
    ) -> Result<Observation, FleetError> {
        Ok(observe(Looking {
            inventory: &self.settings.inventory,
            only,
            adopt,
            view,
            host_keys: &prepared.host_keys,
            identity: &prepared.operator.private_file,
            targets: &prepared.systems.targets,
        })
        .await?)
    }
}
