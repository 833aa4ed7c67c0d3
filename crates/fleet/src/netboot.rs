//! The boot servers of a run: what they serve, and to whom.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    process::Command,
    sync::Arc,
};
use undercroft_model::advice::Advice;

use tokio::sync::broadcast;
use undercroft_model::{
    Action, NodeName, NodeState, Plan, System,
    inventory::{Dhcp, Firmware, Inventory, Node, PowerKind},
    view::FleetView,
};
use undercroft_netboot::{
    BootIntent, BootMachine, BootTable, EventKind, Mode, Netboot, NetbootConfig, NetbootError,
    NetbootEvent,
    arch::IpxeBinary,
    server::{DhcpSettings, InstallerFiles, Ports},
    table::{FirmwareKind, MachineSwitches, Pxe4011, UnknownPolicy},
};

use crate::pi_files::{PiError, pi_files};
use crate::{
    fleet::Fleet,
    settings::{InstallerChoice, Settings},
};
use undercroft_build::debian::{Arch, Ipxe, KernelFlavour, Parts, PartsError};
use undercroft_build::installer::{InstallerBuilder, InstallerError, InstallerImage};
use undercroft_metal::world::RunProgress;
use undercroft_secrets::keys::{KeyError, OperatorKey};

/// The file of the state directory in which leases are kept across restarts.
const LEASE_FILE: &str = "leases";

/// Why the boot servers could not be started.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The installer's image could not be made.
    #[error(transparent)]
    Installer(#[from] InstallerError),
    /// iPXE could not be had.
    #[error(transparent)]
    Parts(#[from] PartsError),
    /// The servers refused.
    #[error(transparent)]
    Netboot(#[from] NetbootError),
    /// A Raspberry Pi's files can't be served.
    #[error(transparent)]
    Pi(#[from] PiError),
    /// The key of boot tokens can't be had.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// No interface has the address that the inventory names.
    #[error(
        "no network interface of this machine has the address {address}, which is the inventory's network.server_address"
    )]
    NoInterface {
        /// The address.
        address: Ipv4Addr,
    },
    /// Part of the work stopped.
    #[error("making the installer stopped because of a fault in Undercroft itself")]
    Stopped,
}

impl Advice for BootError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Installer(error) => error.hint(),
            Self::Parts(error) | Self::Pi(PiError::Parts(error)) => error.hint(),
            Self::Key(error) => error.hint(),
            Self::Pi(PiError::Confined(error)) => error.hint(),
            Self::NoInterface { .. } => Some(
                "Give the machine that address on the nodes' network, or name the interface as network.interface.".to_owned(),
            ),
            _ => None,
        }
    }
}

/// Boot servers that run, to be shared by several runs. Dropping the last one stops them.
#[derive(Debug, Clone)]
pub struct BootServers {
    pub(crate) netboot: Arc<Netboot>,
}

impl BootServers {
    /// Starts them for all machines of the inventory, each of which boots its own disk until a run
    /// says otherwise.
    ///
    /// # Errors
    /// When the installer can't be had, or a socket can't be bound.
    pub async fn start(fleet: &Fleet, operator: &OperatorKey) -> Result<Self, BootError> {
        let settings = fleet.settings();
        let systems = settings.inventory.nodes.values().map(|node| node.system);
        start_servers(settings, operator, systems.collect(), None, None).await
    }
}

/// Makes what is served to machines of those systems, and starts the servers.
pub(crate) async fn start_servers(
    settings: &Settings,
    operator: &OperatorKey,
    systems: BTreeSet<System>,
    plan: Option<&Plan>,
    view: Option<&FleetView>,
) -> Result<BootServers, BootError> {
    let table = table(&settings.inventory, plan, view)?;
    let config = config(settings, operator, systems).await?;
    let netboot = Netboot::start(config, table)?;
    tokio::spawn(say_what_servers_say(
        netboot.events(),
        Arc::clone(&settings.progress),
    ));
    Ok(BootServers {
        netboot: Arc::new(netboot),
    })
}

/// Tells what the boot servers say of themselves, such as that their interface is gone, for as
/// long as they run; between the runs of a service too.
async fn say_what_servers_say(
    mut events: broadcast::Receiver<NetbootEvent>,
    progress: undercroft_metal::world::ProgressSink,
) {
    loop {
        match events.recv().await {
            Ok(NetbootEvent {
                kind: EventKind::Server { text },
                ..
            }) => progress(RunProgress::Line { node: None, text }),
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

/// All machines of the inventory. Only a machine that the plan installs, and that isn't installed
/// yet, is given an installer; all others boot their disks.
///
/// # Errors
/// When two machines share what should tell them apart.
pub fn table(
    inventory: &Inventory,
    plan: Option<&Plan>,
    view: Option<&FleetView>,
) -> Result<BootTable, NetbootError> {
    let machines = inventory.nodes.iter().map(|(name, node)| BootMachine {
        uuid: node.uuid,
        address: Some(node.address),
        firmware: match node.firmware {
            Firmware::Uefi | Firmware::UefiHttp => FirmwareKind::Uefi,
            Firmware::Bios => FirmwareKind::Bios,
            Firmware::Rpi => FirmwareKind::RaspberryPi,
        },
        switches: MachineSwitches {
            pxe_4011: match (node.netboot.answer_4011, node.netboot.ask_4011) {
                (false, _) => Pxe4011::Never,
                (true, true) => Pxe4011::Only,
                (true, false) => Pxe4011::Both,
            },
            snponly: node.netboot.snponly,
            tftp_block_bytes: node.netboot.tftp_block_bytes,
        },
        kernel_params: kernel_params(node),
        ..BootMachine::new(
            name.clone(),
            node.macs.clone(),
            node.system,
            plan.map_or(BootIntent::Local, |plan| intent(name, plan, view)),
        )
    });
    let unknown = match inventory.network.dhcp_range {
        Some(_) => UnknownPolicy::Discover,
        None => UnknownPolicy::AddressOnly,
    };
    BootTable::new(machines, unknown)
}

fn intent(name: &NodeName, plan: &Plan, view: Option<&FleetView>) -> BootIntent {
    let planned = plan.nodes.get(name).is_some_and(|node| {
        let steps = node.steps.iter().filter_map(|id| plan.step(*id));
        steps
            .into_iter()
            .any(|step| step.action == Action::NetworkBoot)
    });
    // The view is of this very plan only when a run goes on with it.
    let reached = view
        .filter(|view| view.plan_id.as_ref() == Some(&plan.id))
        .and_then(|view| view.nodes.get(name))
        .map_or(NodeState::Unknown, |node| node.state);
    if planned && reached < NodeState::Installed {
        BootIntent::Install
    } else {
        BootIntent::Local
    }
}

/// A machine of the rack shows everything on its serial port, which is its console.
fn kernel_params(node: &Node) -> Vec<String> {
    let mut params = node.kernel_params.clone();
    if node.power.kind == PowerKind::Rack && !params.iter().any(|p| p.starts_with("console=")) {
        params.push(format!("console={}", node.system.serial_console()));
    }
    params
}

async fn config(
    settings: &Settings,
    operator: &OperatorKey,
    systems: BTreeSet<System>,
) -> Result<NetbootConfig, BootError> {
    let inventory = &settings.inventory;
    let network = &inventory.network;
    let interface = match &network.interface {
        Some(name) => name.clone(),
        None => interface_of(network.server_address).ok_or(BootError::NoInterface {
            address: network.server_address,
        })?,
    };
    let mut config = config_of(inventory, interface);
    let keys = inventory.authorized_keys(&operator.authorized_key);
    config.authorized_keys = format!("{}\n", keys.join("\n"));
    config.lease_file = Some(settings.state_dir.join(LEASE_FILE));
    config.token_key = Some(operator.token_key()?);

    let (installers, ipxe) = images(settings, systems).await?;
    let pi = pi_files(
        inventory,
        &settings.repository,
        &settings.cache_dir,
        &installers,
    )?;
    if let Some(lacks) = pi.lacks {
        settings.tell(lacks);
    }
    config.raspberry_pi = pi.files;
    for (system, image) in installers {
        config.installers.insert(
            system,
            InstallerFiles {
                kernel: image.kernel,
                initrd: image.initrd,
                params: image.parameters,
            },
        );
    }
    if let Some(ipxe) = ipxe {
        config.ipxe = BTreeMap::from([
            (IpxeBinary::X64, ipxe.x86_64_efi),
            (IpxeBinary::SnponlyX64, ipxe.x86_64_snponly_efi),
            (IpxeBinary::Undionly, ipxe.x86_bios),
            (IpxeBinary::Arm64, ipxe.aarch64_efi),
        ]);
    }
    Ok(config)
}

/// What the inventory alone says of the boot servers.
pub fn config_of(inventory: &Inventory, interface: String) -> NetbootConfig {
    let network = &inventory.network;
    let mode = match network.dhcp {
        Dhcp::Server => Mode::Server(dhcp(inventory)),
        Dhcp::Proxy => Mode::Proxy,
        // Without DHCP of ours the network's own server names the boot file; answering on the
        // boot server port is harmless and helps firmware that asks there.
        Dhcp::Port4011 | Dhcp::Off => Mode::Port4011Only,
    };
    let mut config = NetbootConfig::new(
        interface,
        network.server_address,
        network.node_cidr.prefix_len(),
        mode,
    );
    config.ports = Ports {
        http: network.http_port,
        ..Ports::default()
    };
    config
}

fn dhcp(inventory: &Inventory) -> DhcpSettings {
    let network = &inventory.network;
    let (first, last) = match &network.dhcp_range {
        Some(range) => (range.first, range.last),
        // Machines that nobody knows get no address where the inventory has none for them; the
        // server's own address can't be handed out, so that this range is empty.
        None => (network.server_address, network.server_address),
    };
    DhcpSettings {
        gateway: network.gateway,
        dns: network.dns.clone(),
        domain: inventory.fleet.domain.clone(),
        ..DhcpSettings::range(first, last)
    }
}

/// The installer of each of those systems, and iPXE. Nothing is made where nothing will boot from
/// the network.
pub(crate) async fn images(
    settings: &Settings,
    systems: BTreeSet<System>,
) -> Result<(BTreeMap<System, InstallerImage>, Option<Ipxe>), BootError> {
    if systems.is_empty() {
        return Ok((BTreeMap::new(), None));
    }
    settings.tell("preparing the installer");
    let choice = settings
        .installer
        .unwrap_or_else(|| InstallerChoice::of(&settings.inventory));
    let debian = |kernel| InstallerBuilder::Debian {
        cache_dir: settings.cache_dir.clone(),
        kernel,
    };
    let builder = match choice {
        InstallerChoice::DebianCloud => debian(KernelFlavour::Cloud),
        InstallerChoice::DebianGeneric => debian(KernelFlavour::Generic),
        InstallerChoice::Flake => InstallerBuilder::Nix {
            flake: settings
                .repository
                .join(&settings.inventory.fleet.flake)
                .display()
                .to_string(),
            cache_dir: settings.cache_dir.clone(),
        },
    };
    let progress = settings.progress.clone();
    let cache_dir = settings.cache_dir.clone();
    let work = move || -> Result<_, BootError> {
        let mut say = |line: &str| {
            progress(RunProgress::Line {
                node: None,
                text: line.to_owned(),
            });
        };
        let mut images = BTreeMap::new();
        for system in systems {
            if let Some(arch) = Arch::of_system(system) {
                images.insert(system, builder.build(arch, &mut say)?);
            }
        }
        let ipxe = Parts::open(&cache_dir)?.ipxe(&mut say)?;
        Ok((images, Some(ipxe)))
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| BootError::Stopped)?
}

/// The interface that has an address, as `ip` of iproute2 tells.
fn interface_of(address: Ipv4Addr) -> Option<String> {
    let mut ip = Command::new("ip");
    ip.args(["-4", "-o", "address", "show"]);
    undercroft_process::trace::started(&ip);
    let output = ip.output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let name = words.nth(1)?;
        let shown = words.nth(1)?.split('/').next()?;
        (shown.parse() == Ok(address)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An installer that left out the people whom the machines let in couldn't be helped by them.
    #[tokio::test]
    async fn an_installer_lets_in_whom_the_machines_let_in() {
        let dir = tempfile::tempdir().unwrap();
        let text = "[fleet]\nname = \"cellar\"\nadmin_keys = [\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB fleet\"]\n\
            [network]\nnode_cidr = \"10.0.0.0/24\"\nserver_address = \"10.0.0.2\"\ninterface = \"boot0\"\n\
            [users.ada]\nrole = \"admin\"\nssh_keys = [\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCC ada\"]\n\
            [users.kim]\nssh_keys = [\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDD kim\"]\n";
        let parsed = undercroft_model::inventory::parse("undercroft.toml", text.as_bytes());
        let inventory = Arc::new(parsed.inventory.unwrap());
        let settings = Settings {
            inventory: Arc::clone(&inventory),
            repository: dir.path().to_owned(),
            state_dir: dir.path().join("state"),
            cache_dir: dir.path().join("cache"),
            identity_files: vec![],
            rack_state_dir: None,
            installer: None,
            system_builder: None,
            generation: 0,
            options: undercroft_metal::world::InstallOptions::default(),
            progress: Arc::new(|_| ()),
        };
        let operator = OperatorKey::ensure(&settings.state_dir, "cellar").unwrap();
        let config = config(&settings, &operator, BTreeSet::new()).await.unwrap();
        let keys: Vec<&str> = config.authorized_keys.lines().collect();
        assert_eq!(keys, inventory.authorized_keys(&operator.authorized_key));
        let whose = keys.iter().filter_map(|key| key.split(' ').nth(2));
        assert_eq!(whose.collect::<Vec<_>>(), ["undercroft", "fleet", "ada"]);
    }
}
