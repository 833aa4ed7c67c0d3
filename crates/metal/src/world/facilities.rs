//! What is around the machines: their power, their consoles, and what they boot.

use std::{collections::BTreeMap, future::Future, path::Path, pin::Pin, sync::Arc, time::Duration};
use undercroft_model::advice::Advice as _;

use tokio::process::Command;
use undercroft_model::{
    Failure, FailureKind, NodeName,
    inventory::{Inventory, Node, PowerKind},
};
use undercroft_netboot::{BootIntent, Netboot};

use crate::power::{PowerControl, PowerError, PowerOutcome, PowerTarget};
use undercroft_process as process;
use undercroft_process::Input;
use undercroft_rack::{ConsoleIdentity, ConsoleScanner, RackClient};

/// How long a console command is listened to at a time. The installer repeats its line every 10
/// seconds.
const CONSOLE_LISTEN: Duration = Duration::from_secs(12);

/// An answer that takes time.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The surroundings of the machines, as operations use them.
pub trait Facilities: Send + Sync {
    /// Lets the boot servers offer the installer to a machine from now on, or its own disk.
    ///
    /// # Errors
    /// When the boot servers don't know the machine.
    fn offer(&self, node: &NodeName, installer: bool) -> Result<(), Failure>;

    /// Starts a machine anew from the network, whatever it does now; returns once that is under
    /// way. Gives what a person has to do where the machine's power isn't ours to switch.
    fn boot_from_network<'a>(
        &'a self,
        node: &'a NodeName,
    ) -> Pending<'a, Result<Option<String>, Failure>>;

    /// The identity that the installer shows on a console that only the machine can write to and
    /// only the operator can read; `None` where it shows none (yet), or there is no such console.
    fn console_identity<'a>(
        &'a self,
        node: &'a NodeName,
    ) -> Pending<'a, Result<Option<ConsoleIdentity>, Failure>>;

    /// What to call the console in the journal.
    fn console_name(&self, node: &NodeName) -> String;
}

/// What a [`RealFacilities`] is made of.
#[derive(Debug)]
pub struct FacilitiesParts<'a> {
    /// The machines.
    pub inventory: &'a Inventory,
    /// Those of them that are switched.
    pub nodes: &'a [NodeName],
    /// The rack's directory, where machines of a rack are among them.
    pub rack_state_dir: Option<&'a Path>,
    /// The boot servers.
    pub netboot: Arc<Netboot>,
}

/// The real power, consoles and boot servers.
#[derive(Debug)]
pub struct RealFacilities {
    netboot: Arc<Netboot>,
    rack: Option<RackClient>,
    machines: BTreeMap<NodeName, Switched>,
}

#[derive(Debug)]
struct Switched {
    power: PowerControl,
    in_rack: bool,
    console: Vec<String>,
}

impl RealFacilities {
    /// Finds out how each machine is switched.
    ///
    /// # Errors
    /// When the inventory lacks something for it, or the rack isn't running.
    pub async fn new(parts: FacilitiesParts<'_>) -> Result<Self, PowerError> {
        let mut machines = BTreeMap::new();
        for name in parts.nodes {
            let Some(node) = parts.inventory.nodes.get(name) else {
                continue;
            };
            let target = power_target(parts.inventory, name, node);
            let power = PowerControl::new(&node.power, &target, parts.rack_state_dir).await?;
            let console = node.power.console.iter().map(|word| fill(word, &target));
            machines.insert(
                name.clone(),
                Switched {
                    power,
                    in_rack: node.power.kind == PowerKind::Rack,
                    console: console.collect(),
                },
            );
        }
        // That a rack runs was found out for its machines above.
        let rack = match parts.rack_state_dir {
            Some(dir) => RackClient::connect(dir).await.ok(),
            None => None,
        };
        Ok(Self {
            netboot: parts.netboot,
            rack,
            machines,
        })
    }

    fn machine(&self, node: &NodeName) -> Result<&Switched, Failure> {
        self.machines.get(node).ok_or_else(|| {
            Failure::new(
                FailureKind::Permanent,
                format!("the inventory has no machine {node} any longer"),
            )
        })
    }
}

/// Who and where a machine is, for switching it.
pub(crate) fn power_target(inventory: &Inventory, name: &NodeName, node: &Node) -> PowerTarget {
    PowerTarget {
        node: name.clone(),
        address: node.address,
        mac: node.macs.first().copied(),
        broadcast: inventory.network.node_cidr.broadcast(),
    }
}

fn fill(word: &str, target: &PowerTarget) -> String {
    let mac = target.mac.map(|mac| mac.to_string()).unwrap_or_default();
    word.replace("{node}", target.node.as_str())
        .replace("{address}", &target.address.to_string())
        .replace("{mac}", &mac)
}

fn power_failure(error: &PowerError) -> Failure {
    let kind = match error {
        PowerError::Incomplete { .. } | PowerError::Unsupported { .. } => FailureKind::Permanent,
        _ => FailureKind::Transient,
    };
    let failure = Failure::new(kind, error.to_string());
    match error.hint() {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
}

impl Facilities for RealFacilities {
    fn offer(&self, node: &NodeName, installer: bool) -> Result<(), Failure> {
        let intent = if installer {
            BootIntent::Install
        } else {
            BootIntent::Local
        };
        self.netboot
            .set_intent(node, intent)
            .map(drop)
            .map_err(|e| Failure::new(FailureKind::Permanent, e.to_string()))
    }

    fn boot_from_network<'a>(
        &'a self,
        node: &'a NodeName,
    ) -> Pending<'a, Result<Option<String>, Failure>> {
        Box::pin(async move {
            let switched = self.machine(node)?;
            match switched.power.start_from_network().await {
                Ok(PowerOutcome::Done) => Ok(None),
                Ok(PowerOutcome::Ask(request)) => Ok(Some(request)),
                Err(error) => Err(power_failure(&error)),
            }
        })
    }

    fn console_identity<'a>(
        &'a self,
        node: &'a NodeName,
    ) -> Pending<'a, Result<Option<ConsoleIdentity>, Failure>> {
        Box::pin(async move {
            let switched = self.machine(node)?;
            if let (true, Some(rack)) = (switched.in_rack, &self.rack) {
                return rack.console_fingerprint(node).await.map_err(|e| {
                    Failure::new(
                        FailureKind::Transient,
                        format!("the console can't be read: {e}"),
                    )
                });
            }
            match switched.console.split_first() {
                Some((program, args)) => listen(program, args).await,
                None => Ok(None),
            }
        })
    }

    fn console_name(&self, node: &NodeName) -> String {
        match self.machines.get(node) {
            Some(switched) if switched.in_rack => format!("serial console of {node}"),
            _ => format!("console of {node}"),
        }
    }
}

/// Listens to the operator's console command for as long as the installer takes to repeat itself.
async fn listen(program: &str, args: &[String]) -> Result<Option<ConsoleIdentity>, Failure> {
    let mut command = Command::new(program);
    command.args(args);
    let finished = process::run(command, Input::Nothing, CONSOLE_LISTEN, &mut |_| {})
        .await
        .map_err(|e| {
            Failure::new(
                FailureKind::Permanent,
                format!("the console command `{program}` can't be run: {e}"),
            )
            .with_hint("Run it by hand; it stands in the node's section `power`.")
        })?;
    let mut scanner = ConsoleScanner::new();
    scanner.feed(&finished.stdout);
    Ok(scanner.identity().cloned())
}
