//! `undercroft power`.

use std::path::Path;

use clap::{Args, ValueEnum};
use clap_complete::engine::ArgValueCompleter;
use undercroft_metal::power::{PowerControl, PowerOutcome, PowerReading, PowerTarget};
use undercroft_model::NodeName;

use undercroft_model::document::Version;

use crate::{
    complete,
    documents::Power,
    done::Done,
    error::CliError,
    project::OwnedProject,
    style::{DIM, GOOD, WARN, paint},
    ui::Ui,
};

/// Switch a machine, in the way that the inventory's `power` says
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PowerArgs {
    /// The machine
    #[arg(add = ArgValueCompleter::new(complete::nodes))]
    node: NodeName,
    /// What to do
    #[arg(value_enum, default_value_t = Action::Status)]
    action: Action,
    /// Print the machine's power as JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  undercroft power server-01             is it on?
  undercroft power server-01 on
  undercroft power server-01 network     start it from the network

With --json: {\"node\", \"power\": \"on\" | \"off\" | \"unknown\"}, as it is afterwards.";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Action {
    /// Say whether it is on
    Status,
    /// Switch it on
    On,
    /// Switch it off, hard
    Off,
    /// Off, then on
    Cycle,
    /// Start it from the network, where its power provider can
    Network,
}

pub(crate) fn run(ui: Ui, at: Option<&Path>, args: &PowerArgs) -> Result<Done, CliError> {
    let project = OwnedProject::find(at)?;
    let inventory = project.load(ui)?;
    let node = project.node(&inventory, &args.node)?;
    let target = PowerTarget {
        node: args.node.clone(),
        address: node.address,
        mac: node.macs.first().copied(),
        broadcast: inventory.network.node_cidr.broadcast(),
    };
    crate::runtime::block_on(async {
        let control = PowerControl::new(&node.power, &target, Some(&project.rack_dir()))
            .await
            .map_err(|e| CliError::from(&e))?;
        let outcome = match args.action {
            Action::Status => Ok(PowerOutcome::Done),
            Action::On => control.on().await,
            Action::Off => control.off().await,
            Action::Cycle => control.cycle().await,
            Action::Network => control.start_from_network().await,
        };
        let outcome = outcome.map_err(|e| CliError::from(&e))?;
        if let PowerOutcome::Ask(sentence) = outcome {
            ui.stderr(&format!("{} {sentence}", paint(WARN, "By hand:")));
        }
        let reading = control.status().await.map_err(|e| CliError::from(&e))?;
        if args.json {
            ui.json(&Power {
                version: Version,
                node: args.node.clone(),
                power: reading,
            })?;
            return Ok(Done::Well);
        }
        let words = match reading {
            PowerReading::On => paint(GOOD, "on"),
            PowerReading::Off => paint(DIM, "off"),
            PowerReading::Unknown => "nothing tells whether it is on".to_owned(),
        };
        ui.line(&format!("{}: {words}", args.node))?;
        Ok(Done::Well)
    })
}
