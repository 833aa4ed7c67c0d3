//! A fleet as one operator has it: its inventory, its repository, its state.

use std::{collections::BTreeSet, ops::RangeInclusive, path::PathBuf, sync::Arc};
use undercroft_model::advice::{Advice, ErrorKind, FileFailure};

use undercroft_model::{
    Action, Failure, FailureKind, NodeName, Observation, Plan,
    inventory::{Inventory, Layout, SecretsBackend},
    view::FleetView,
};
use undercroft_planner::Rounds;

use crate::{
    netboot::InstallerChoice,
    run::{RunError, tell},
    systems::{self, KeptSystems, Systems},
};
use undercroft_build::system::SystemBuilder;
use undercroft_journal::{FleetJournal, StoreError};
use undercroft_metal::{
    observe::{Looking, observe},
    world::{EncryptionKeySource, InstallOptions, ProgressSink},
};
use undercroft_secrets::keys::{Consent, HostKeys, IdentitySource, KeyError, OperatorKey};
use undercroft_secrets::{ExposeSecret as _, Vault};

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

/// The lengths of a passphrase that ZFS takes, in bytes (zfs-load-key(8), Encryption).
const ZFS_PASSPHRASE_BYTES: RangeInclusive<usize> = 8..=512;

/// A source of the keys of encrypted disks, once each of them was found to be there and good.
fn disk_keys_of(vault: Vault, nodes: &[&NodeName]) -> Result<EncryptionKeySource, RunError> {
    for node in nodes {
        let secret = format!("disks/{node}");
        let node = (*node).clone();
        let Some(key) = vault.get(&secret)? else {
            return Err(RunError::NoDiskKey { node, secret });
        };
        let bytes = key.expose_secret().len();
        let detail = if !ZFS_PASSPHRASE_BYTES.contains(&bytes) {
            format!(
                "it has {bytes} bytes, and ZFS takes {} to {}",
                ZFS_PASSPHRASE_BYTES.start(),
                ZFS_PASSPHRASE_BYTES.end()
            )
        } else if key.expose_secret().contains(['\n', '\r', '\0']) {
            // ZFS reads the first line of the file, and the console takes no second one.
            "it has several lines".to_owned()
        } else {
            continue;
        };
        return Err(RunError::BadDiskKey {
            node,
            secret,
            detail,
        });
    }
    Ok(Arc::new(move |node| {
        let refused = |detail: String| Failure::new(FailureKind::Permanent, detail);
        let key = vault.get(&format!("disks/{node}"));
        key.map_err(|e| refused(e.to_string()))?
            .ok_or_else(|| refused(format!("the fleet's secrets have no disks/{node}")))
    }))
}

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

    /// The keys of the encrypted disks that a plan lays out, each found to be there before any disk
    /// is wiped. `None` where the command line names the keys, or the fleet's secrets don't hold
    /// them.
    pub(crate) fn encryption_keys(
        &self,
        plan: &Plan,
    ) -> Result<Option<EncryptionKeySource>, RunError> {
        let settings = &self.settings;
        let inventory = &settings.inventory;
        let encrypted = plan.steps.iter().filter(|step| {
            matches!(
                &step.action,
                Action::Partition {
                    layout: Layout::ZfsEncrypted,
                    ..
                }
            )
        });
        let encrypted: Vec<&NodeName> = encrypted.map(|step| &step.node).collect();
        if encrypted.is_empty()
            || !settings.options.disk_keys.is_empty()
            || inventory.secrets.backend != SecretsBackend::Sops
        {
            return Ok(None);
        }
        let source = IdentitySource::usual(&settings.state_dir, settings.identity_files.clone());
        let vault = Vault::open(&settings.repository, inventory, source)?;
        disk_keys_of(vault, &encrypted).map(Some)
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
            tell(
                &self.settings,
                format!("made {keys} for machines in {folder}: commit what is new there"),
            );
        }
        if let Some(made) = host_keys.made_identity() {
            tell(
                &self.settings,
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
        Ok(observe(Looking {
            inventory: &self.settings.inventory,
            only,
            view,
            host_keys: &prepared.host_keys,
            identity: &prepared.operator.private_file,
            targets: &prepared.systems.targets,
        })
        .await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use undercroft_secrets::SecretString;

    const NOW_S: u64 = 1_795_397_506;

    fn vault(dir: &std::path::Path) -> Vault {
        let text = r#"
[fleet]
name = "cellar"
[network]
node_cidr = "10.0.0.0/24"
server_address = "10.0.0.2"
[classes.box]
kind = "plain"
layout = "zfs-encrypted"
[nodes.box-01]
class = "box"
macs = ["3c:ec:ef:10:00:01"]
address = "10.0.0.11"
disks = [{ serial = "S1" }]
"#;
        let parsed = undercroft_model::inventory::parse("undercroft.toml", text.as_bytes());
        let source = IdentitySource {
            state_dir: dir.join(".undercroft"),
            identity_files: vec![],
            well_known: false,
        };
        Vault::open(dir, &parsed.inventory.unwrap(), source).unwrap()
    }

    #[test]
    fn a_disks_key_is_there_and_good_before_anything_is_wiped() {
        let dir = tempfile::tempdir().unwrap();
        let node = NodeName::new("box-01").unwrap();
        let refused = || {
            let error = disk_keys_of(vault(dir.path()), &[&node]).err().unwrap();
            format!("{error}\n{}", error.hint().unwrap())
        };
        assert!(refused().starts_with(
            "box-01's disks are to be encrypted, and the fleet's secrets have no disks/box-01\n"
        ));
        vault(dir.path()).init(NOW_S).unwrap();
        let source = disk_keys_of(vault(dir.path()), &[&node]).unwrap();
        let made = vault(dir.path()).get("disks/box-01").unwrap().unwrap();
        assert_eq!(source(&node).unwrap().expose_secret(), made.expose_secret());
        for (bad, why) in [
            ("1234567", "it has 7 bytes, and ZFS takes 8 to 512"),
            ("12345678\n12345678", "it has several lines"),
        ] {
            let given = Some(SecretString::from(bad));
            vault(dir.path())
                .rotate("disks/box-01", given, NOW_S)
                .unwrap();
            let said = refused();
            assert!(said.contains(why) && !said.contains(bad), "{said}");
        }
    }
}
