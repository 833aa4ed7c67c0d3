//! Switching machines on and off.
//!
//! Four ways, as the inventory's `power.kind` names them: the virtual rack, Wake-on-LAN, commands
//! of the operator's, and a person. None of them proves anything: that a machine is on is shown
//! by its installer's report or its SSH server, and callers wait on that.

mod command;
mod error;
mod magic_packet;

use std::net::Ipv4Addr;
use std::path::Path;

use serde::{Deserialize, Serialize};
use undercroft_model::inventory::{Power, PowerKind};
use undercroft_model::{MacAddr, NodeName};

use command::PowerCommand;
pub use command::{POWER_COMMAND_MS, STATUS_COMMAND_MS};
pub use error::PowerError;
pub use magic_packet::{MAGIC_PACKET_BYTES, MAGIC_PACKET_REPEATS, WAKE_PORT, magic_packet};
use undercroft_rack::{NextBoot, PowerAction, PowerState, RackClient};

/// The ways by which one machine is switched.
#[derive(Debug, Clone)]
pub struct PowerControl {
    node: NodeName,
    method: Method,
}

#[derive(Debug, Clone)]
enum Method {
    Manual {
        mac: Option<MacAddr>,
    },
    WakeOnLan {
        mac: MacAddr,
        broadcast: Ipv4Addr,
    },
    Command {
        on: PowerCommand,
        off: PowerCommand,
        status: Option<PowerCommand>,
    },
    Rack(RackClient),
}

/// Who and where a machine is, as far as switching it needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PowerTarget {
    /// The machine.
    pub node: NodeName,
    /// Its address.
    pub address: Ipv4Addr,
    /// The network card that wakes it: its first.
    pub mac: Option<MacAddr>,
    /// The broadcast address of its network.
    pub broadcast: Ipv4Addr,
}

/// What a way of switching can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Capabilities {
    /// Switching on without a person.
    pub on: bool,
    /// Switching off, hard, without a person.
    pub off: bool,
    /// Making the next boot, and only that, one from the network.
    pub network_once: bool,
    /// Telling whether the machine is on.
    pub status: bool,
}

/// What became of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PowerOutcome {
    /// The switch was thrown. The machine still has to prove that it came up.
    Done,
    /// A person has to do something; this says what. The caller shows it, and waits for the
    /// machine's proof as after [`Self::Done`].
    Ask(String),
}

/// Whether a machine has power, as its way of switching sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PowerReading {
    /// It is on.
    On,
    /// It is off.
    Off,
    /// Nothing tells.
    Unknown,
}

impl PowerControl {
    /// Finds out how a machine is switched. For a machine of the rack, `rack_state_dir` is the
    /// rack's directory, and a rack must be running there.
    ///
    /// # Errors
    /// If the inventory's section lacks something, or the rack is not running.
    pub async fn new(
        power: &Power,
        target: &PowerTarget,
        rack_state_dir: Option<&Path>,
    ) -> Result<Self, PowerError> {
        let node = target.node.clone();
        let incomplete = |what: &'static str, hint: &'static str| PowerError::Incomplete {
            node: node.clone(),
            what,
            hint,
        };
        let command = |words: &[String]| PowerCommand::new(target, words);
        let method = match power.kind {
            PowerKind::Manual => Method::Manual { mac: target.mac },
            PowerKind::WakeOnLan => Method::WakeOnLan {
                mac: target.mac.ok_or_else(|| {
                    incomplete("a MAC address to wake", "Add it to the node's `macs`.")
                })?,
                broadcast: power.broadcast.unwrap_or(target.broadcast),
            },
            PowerKind::Command => {
                let missing = |key| incomplete(key, "Add it to the section `power`.");
                Method::Command {
                    on: command(&power.on).ok_or_else(|| missing("the command `on`"))?,
                    off: command(&power.off).ok_or_else(|| missing("the command `off`"))?,
                    status: command(&power.status),
                }
            }
            PowerKind::Rack => {
                let dir = rack_state_dir.ok_or_else(|| {
                    incomplete("a virtual rack", "Start it with `undercroft rack up`.")
                })?;
                let client = RackClient::connect(dir).await;
                Method::Rack(client.map_err(|source| PowerError::Rack {
                    node: target.node.clone(),
                    source: Box::new(source),
                })?)
            }
        };
        Ok(Self { node, method })
    }

    /// What this way of switching can do.
    pub fn capabilities(&self) -> Capabilities {
        match &self.method {
            Method::Manual { .. } => Capabilities {
                on: false,
                off: false,
                network_once: false,
                status: false,
            },
            Method::WakeOnLan { .. } => Capabilities {
                on: true,
                off: false,
                network_once: false,
                status: false,
            },
            Method::Command { status, .. } => Capabilities {
                on: true,
                off: true,
                network_once: false,
                status: status.is_some(),
            },
            Method::Rack(_) => Capabilities {
                on: true,
                off: true,
                network_once: true,
                status: true,
            },
        }
    }

    /// Switches the machine on; without effect if it is on.
    ///
    /// # Errors
    /// If the command, the socket or the rack fails.
    pub async fn on(&self) -> Result<PowerOutcome, PowerError> {
        match &self.method {
            Method::Manual { .. } => Ok(self.ask("Switch {} on.")),
            Method::WakeOnLan { mac, broadcast } => {
                magic_packet::send(*mac, *broadcast)
                    .await
                    .map_err(|source| PowerError::Wake {
                        node: self.node.clone(),
                        broadcast: *broadcast,
                        source,
                    })?;
                Ok(PowerOutcome::Done)
            }
            Method::Command { on, .. } => on.switch("on").await,
            Method::Rack(rack) => self.rack(rack, PowerAction::On).await,
        }
    }

    /// Switches the machine off, hard; without effect if it is off.
    ///
    /// # Errors
    /// As [`Self::on`]; and Wake-on-LAN cannot do it.
    pub async fn off(&self) -> Result<PowerOutcome, PowerError> {
        match &self.method {
            Method::Manual { .. } => Ok(self.ask("Switch {} off.")),
            Method::WakeOnLan { .. } => Err(PowerError::Unsupported {
                node: self.node.clone(),
                what: "off",
                hint: "Wake-on-LAN only wakes: shut the machine down over SSH, or give it \
                       commands (`power.kind = \"command\"`) for a switched socket or a BMC.",
            }),
            Method::Command { off, .. } => off.switch("off").await,
            Method::Rack(rack) => self.rack(rack, PowerAction::Off).await,
        }
    }

    /// Switches the machine off and on again.
    ///
    /// # Errors
    /// As [`Self::off`].
    pub async fn cycle(&self) -> Result<PowerOutcome, PowerError> {
        match &self.method {
            Method::Manual { .. } => Ok(self.ask("Switch {} off and on again.")),
            Method::Rack(rack) => self.rack(rack, PowerAction::Cycle).await,
            Method::WakeOnLan { .. } | Method::Command { .. } => {
                self.off().await?;
                self.on().await
            }
        }
    }

    /// Starts the machine so that it boots from the network, as far as this way of switching can
    /// see to it.
    ///
    /// The rack does it for this boot only. With commands the machine is cycled and with
    /// Wake-on-LAN woken: both rely on a firmware that tries the network, and a machine that is
    /// on doesn't hear a magic packet.
    ///
    /// # Errors
    /// As [`Self::on`].
    pub async fn start_from_network(&self) -> Result<PowerOutcome, PowerError> {
        match &self.method {
            Method::Manual { mac } => {
                let card = mac.map(|mac| format!(" (card {mac})")).unwrap_or_default();
                Ok(self.ask(&format!("Start {{}} from the network{card}.")))
            }
            Method::WakeOnLan { .. } => self.on().await,
            Method::Command { .. } => self.cycle().await,
            Method::Rack(rack) => {
                let set = rack.next_boot(&self.node, NextBoot::NetworkOnce).await;
                set.map_err(|source| self.rack_error(source))?;
                self.rack(rack, PowerAction::Cycle).await
            }
        }
    }

    /// Whether the machine has power, as far as this way of switching can tell.
    ///
    /// # Errors
    /// If the command or the rack fails.
    pub async fn status(&self) -> Result<PowerReading, PowerError> {
        match &self.method {
            Method::Manual { .. } | Method::WakeOnLan { .. } => Ok(PowerReading::Unknown),
            Method::Command { status: None, .. } => Ok(PowerReading::Unknown),
            Method::Command {
                status: Some(status),
                ..
            } => status.read().await,
            Method::Rack(rack) => {
                let machine = rack.machine(&self.node).await;
                let machine = machine.map_err(|source| self.rack_error(source))?;
                Ok(match machine.power {
                    PowerState::Off => PowerReading::Off,
                    PowerState::On | PowerState::Paused { .. } => PowerReading::On,
                })
            }
        }
    }

    fn ask(&self, sentence: &str) -> PowerOutcome {
        PowerOutcome::Ask(sentence.replace("{}", self.node.as_str()))
    }

    async fn rack(
        &self,
        rack: &RackClient,
        action: PowerAction,
    ) -> Result<PowerOutcome, PowerError> {
        let done = rack.power(&self.node, action).await;
        done.map(|()| PowerOutcome::Done)
            .map_err(|source| self.rack_error(source))
    }

    fn rack_error(&self, source: undercroft_rack::RackError) -> PowerError {
        PowerError::Rack {
            node: self.node.clone(),
            source: Box::new(source),
        }
    }
}

#[cfg(test)]
mod tests;
