//! What `plan`, `up` and `serve` do first: the fleet's settings, its systems, and the way into the
//! rack's network.

use std::{
    collections::BTreeSet,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use undercroft_build::system::{NixStore, SystemBuilder};
use undercroft_fleet::{
    Fleet, InstallerChoice, Settings, gitops::refuse_versions, select::machines,
};
use undercroft_metal::world::{self, DiskKey, InstallOptions, ProgressSink};
use undercroft_model::advice::Advice as _;
use undercroft_model::{
    NodeName, NodeState,
    inventory::{Builder, Inventory, PowerKind},
};
use undercroft_rack as rack;
use undercroft_rack::RackError;

use crate::{
    complete,
    error::{CliError, Kind},
    gitops::refuse,
    project::{OwnedProject, cache_dir},
    select::WhereArgs,
    ui::Ui,
};

/// Set in the process that runs inside the rack's network: everything that needs the internet was
/// made before, outside.
const PREPARED: &str = "UNDERCROFT_PREPARED";

/// How far machines are brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Until {
    /// They run their systems; the cluster is left alone
    Up,
    /// Kubernetes calls them Ready; Argo CD is left alone
    Ready,
}

impl Until {
    pub(crate) fn state(self) -> NodeState {
        match self {
            Self::Up => NodeState::Up,
            Self::Ready => NodeState::Ready,
        }
    }
}

/// Which machines, and what they get; `plan` and `up` take the same.
#[derive(Debug, Args, Clone)]
pub(crate) struct Selection {
    /// Only these machines, as nodes, classes and patterns: gpu-01,control,'pi-*'
    #[arg(long, value_name = "NODES", value_delimiter = ',', add = ArgValueCompleter::new(complete::selectors))]
    pub(crate) only: Vec<String>,
    /// Wipe this machine and install it anew, though it was installed before
    #[arg(long, value_name = "NODE", value_delimiter = ',', add = ArgValueCompleter::new(complete::nodes))]
    pub(crate) reinstall: Vec<NodeName>,
    /// Take this machine as it is: somebody else has installed it, with its host key. It is proved to run what it
    /// should, and is never written to
    #[arg(long, value_name = "NODE", value_delimiter = ',', conflicts_with = "inspect_only", add = ArgValueCompleter::new(complete::nodes))]
    pub(crate) adopt: Vec<NodeName>,
    /// Update machines that run another system than the one that was built, wave by wave: one first, then servers one by
    /// one, then the others. Each is emptied of pods, restarted, and must be well before the next
    #[arg(long, conflicts_with_all = ["inspect_only", "until"])]
    pub(crate) update: bool,
    /// Let this machine try its system once more, which it has left by itself in an update
    #[arg(long, value_name = "NODE", value_delimiter = ',', requires = "update", add = ArgValueCompleter::new(complete::nodes))]
    pub(crate) retry: Vec<NodeName>,
    /// Boot the machines, have them approved and compare them with the inventory, and write nothing
    /// to them
    #[arg(long, conflicts_with = "reinstall")]
    pub(crate) inspect_only: bool,
    /// Stop there: at machines that run their systems, or at a cluster without Argo CD
    #[arg(
        long,
        value_enum,
        value_name = "STATE",
        conflicts_with = "inspect_only"
    )]
    pub(crate) until: Option<Until>,
    /// The flake's folder, in place of the inventory's fleet.flake
    #[arg(long, value_name = "FOLDER", value_hint = clap::ValueHint::DirPath)]
    flake: Option<PathBuf>,
    /// A disko script and a system that are built already, for the one machine of --only; `-` for
    /// the script means Undercroft's own layout
    #[arg(long, value_names = ["DISKO", "TOPLEVEL"], num_args = 2, conflicts_with = "flake")]
    store_paths: Vec<String>,
    /// With a disko script: the disks that it makes anew, as it names them; it runs only where they
    /// are the disks that the inventory means
    #[arg(
        long,
        value_name = "DEVICE",
        value_delimiter = ',',
        requires = "store_paths"
    )]
    disko_devices: Vec<String>,
    /// A file with your age identity or SSH private key, beside the usual places
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    identity: Vec<PathBuf>,
    /// With the rack's own systems: another number gives another system to install
    #[arg(long, value_name = "N", default_value_t = 1, hide_default_value = true)]
    generation: u32,
}

/// How to install, as nixos-anywhere has it.
#[derive(Debug, Args, Clone, Default)]
pub(crate) struct InstallArgs {
    /// A folder whose files are put into the new systems, at the same paths below /
    #[arg(long, value_name = "FOLDER", value_hint = clap::ValueHint::DirPath)]
    extra_files: Option<PathBuf>,
    /// A key for an encrypted disk: where the disko script looks for it, and the file that holds it
    #[arg(long, value_names = ["PATH", "FILE"], num_args = 2)]
    disk_encryption_keys: Vec<String>,
    /// The phases of an installation; only disko,install,reboot together can be had yet
    #[arg(long, value_name = "PHASES", value_delimiter = ',')]
    phases: Vec<world::InstallPhase>,
}

impl InstallArgs {
    /// The options, found good before any machine is touched.
    pub(crate) fn options(&self) -> Result<InstallOptions, CliError> {
        let options = InstallOptions {
            extra_files: self.extra_files.clone(),
            disk_keys: self
                .disk_encryption_keys
                .chunks_exact(2)
                .filter_map(|pair| match pair {
                    [path, file] => Some(DiskKey {
                        path_on_machine: path.clone(),
                        file: PathBuf::from(file),
                    }),
                    _ => None,
                })
                .collect(),
        };
        options
            .check(&self.phases)
            .map_err(|e| CliError::from_error(Kind::Input, &e))?;
        Ok(options)
    }
}

/// What a command that plans begins with.
pub(crate) struct Begun {
    pub(crate) project: OwnedProject,
    pub(crate) inventory: Inventory,
    /// The words for machines.
    pub(crate) words: Vec<String>,
    /// The machines that they and `--only` mean; `None` for all.
    pub(crate) only: Option<BTreeSet<NodeName>>,
}

impl Selection {
    /// What a command selects that looks at machines and plans nothing.
    pub(crate) fn to_look(flake: Option<PathBuf>, identity: Vec<PathBuf>, generation: u32) -> Self {
        Self {
            only: Vec::new(),
            reinstall: Vec::new(),
            adopt: Vec::new(),
            update: false,
            retry: Vec::new(),
            inspect_only: false,
            until: None,
            flake,
            store_paths: Vec::new(),
            disko_devices: Vec::new(),
            identity,
            generation,
        }
    }

    /// The machines that `--only` and the command's own words name; `None` for all. Whatever is named
    /// must be there.
    fn only(
        &self,
        project: &OwnedProject,
        inventory: &Inventory,
        words: &[String],
    ) -> Result<Option<BTreeSet<NodeName>>, CliError> {
        for name in self.reinstall.iter().chain(&self.adopt).chain(&self.retry) {
            project.node(inventory, name)?;
        }
        let words: Vec<String> = self.only.iter().chain(words).cloned().collect();
        let only =
            machines(&project.inventory, inventory, &words).map_err(|e| CliError::from(&e))?;
        let count = only.as_ref().map_or(inventory.nodes.len(), BTreeSet::len);
        if !self.store_paths.is_empty() && count != 1 {
            return Err(CliError::usage(
                "--store-paths is of one machine, and there is more than one",
            )
            .hint("Name it with --only NODE."));
        }
        let script = self.store_paths.first().is_some_and(|disko| disko != "-");
        if script == self.disko_devices.is_empty() {
            return Err(CliError::usage(
                "--store-paths with a disko script and --disko-devices belong together",
            )
            .hint("Name the disks that the script makes anew, as `disko.devices.disk.NAME.device` has them; on the machine they are compared with the inventory's."));
        }
        let left_out = |name: &&NodeName| only.as_ref().is_some_and(|only| !only.contains(*name));
        if let Some(name) = self.reinstall.iter().find(left_out) {
            return Err(CliError::usage(format!(
                "--reinstall names {name}, which --only leaves out"
            )));
        }
        if let Some(name) = self.adopt.iter().find(left_out) {
            return Err(CliError::usage(format!(
                "--adopt names {name}, which --only leaves out"
            )));
        }
        if let Some(name) = self.adopt.iter().find(|name| self.reinstall.contains(name)) {
            return Err(CliError::usage(format!(
                "--adopt and --reinstall both name {name}: it is taken as it is, or wiped"
            )));
        }
        Ok(only)
    }

    /// Finds the project, and reads its inventory and which machines are meant.
    pub(crate) fn begin(
        &self,
        ui: Ui,
        at: Option<&Path>,
        place: &WhereArgs,
    ) -> Result<Begun, CliError> {
        let named = place.split(at)?;
        let project = OwnedProject::find(named.folder.as_deref())?;
        let (inventory, only) = self.read(ui, &project, &named.machines)?;
        Ok(Begun {
            project,
            inventory,
            words: named.machines,
            only,
        })
    }

    /// Reads the inventory as it stands, and which of its machines are meant.
    pub(crate) fn read(
        &self,
        ui: Ui,
        project: &OwnedProject,
        words: &[String],
    ) -> Result<(Inventory, Option<BTreeSet<NodeName>>), CliError> {
        let inventory = project.load(ui)?;
        refuse_versions(&project.files(), &inventory)
            .map_err(|error| refuse(ui, project, error))?;
        let only = self.only(project, &inventory, words)?;
        Ok((inventory, only))
    }

    /// The builder that the command line asks for; `None`: as the inventory says.
    fn builder(
        &self,
        inventory: &Inventory,
        cache_dir: &Path,
    ) -> Result<Option<SystemBuilder>, CliError> {
        if let [disko, toplevel] = self.store_paths.as_slice() {
            let store = NixStore::choose(cache_dir).map_err(|e| {
                CliError::failed("can't find the Nix store")
                    .because(&e)
                    .maybe_hint(e.hint())
            })?;
            return Ok(Some(SystemBuilder::StorePaths {
                toplevel: toplevel.clone(),
                disko_script: (disko != "-").then(|| disko.clone()),
                disko_devices: (disko != "-").then(|| self.disko_devices.clone()),
                store,
            }));
        }
        if let Some(dir) = &self.flake {
            return Ok(Some(SystemBuilder::Flake {
                dir: dir.clone(),
                cache_dir: cache_dir.to_owned(),
            }));
        }
        let flake = &inventory.fleet.flake;
        if inventory.fleet.builder == Builder::Flake && flake.contains(':') {
            return Err(CliError::input(format!(
                "fleet.flake is {flake:?}, and only a folder can be built from"
            ))
            .hint("Clone the flake and name its folder, or give --store-paths."));
        }
        Ok(None)
    }

    /// The fleet with these settings. Nothing is made.
    pub(crate) fn fleet(
        &self,
        project: &OwnedProject,
        inventory: Inventory,
        options: InstallOptions,
        progress: ProgressSink,
    ) -> Result<Fleet, CliError> {
        let cache_dir = cache_dir()?;
        let has_rack = any_in_rack(&inventory, None);
        let system_builder = self.builder(&inventory, &cache_dir)?;
        let installer = InstallerChoice::of(&inventory);
        Fleet::new(Settings {
            repository: project.dir.clone(),
            state_dir: project.state(),
            cache_dir,
            identity_files: self.identity.clone(),
            rack_state_dir: has_rack.then(|| project.rack_dir()),
            installer: Some(installer),
            system_builder,
            generation: self.generation,
            options,
            progress,
            inventory: Arc::new(inventory),
        })
        .map_err(|e| CliError::from(&e))
    }
}

fn any_in_rack(inventory: &Inventory, only: Option<&BTreeSet<NodeName>>) -> bool {
    inventory
        .nodes
        .iter()
        .filter(|(name, _)| only.is_none_or(|only| only.contains(*name)))
        .any(|(_, node)| node.power.kind == PowerKind::Rack)
}

/// Where a command must run to reach the machines.
pub(crate) enum Place {
    /// Here.
    Here,
    /// Inside the network of a rack that is up.
    InRack(PathBuf),
}

/// Where to run for these machines. A rack that isn't up is an error where `needed`.
pub(crate) fn place(
    project: &OwnedProject,
    inventory: &Inventory,
    only: Option<&BTreeSet<NodeName>>,
    needed: bool,
) -> Result<Place, CliError> {
    let rack = project.rack_dir();
    if !any_in_rack(inventory, only) || rack::is_inside(&rack) {
        return Ok(Place::Here);
    }
    match rack::enter_command(&rack, "true", [] as [&str; 0]) {
        Ok(_) => Ok(Place::InRack(rack)),
        Err(RackError::NotRunning { .. }) if !needed => Ok(Place::Here),
        Err(error) => Err(CliError::from(&error)),
    }
}

/// Whether this process is the one inside the rack, for which everything was made outside.
pub(crate) fn is_prepared() -> bool {
    std::env::var_os(PREPARED).is_some()
}

/// Goes on as the same command inside the rack's network. It returns only if that fails.
pub(crate) fn enter(rack: &Path) -> CliError {
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(e) => return CliError::failed("can't find the running program").because(&e),
    };
    match rack::enter_command(rack, program, std::env::args_os().skip(1)) {
        Ok(mut command) => {
            let error = command.env(PREPARED, "1").exec();
            CliError::failed("can't enter the rack's network").because(&error)
        }
        Err(error) => CliError::from(&error),
    }
}
