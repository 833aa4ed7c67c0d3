//! `undercroft rack`.

use std::path::Path;

use clap::{Args, Subcommand, ValueEnum};
use clap_complete::engine::ArgValueCompleter;
use undercroft_model::NodeName;
use undercroft_rack as rack;
use undercroft_rack::{
    Accelerator, AcceleratorChoice, Disks, MachineStatus, NextBoot, PowerAction, PowerState,
    RackClient, RackError, SupervisorCommand,
};

use crate::{
    args::DirArg,
    complete,
    documents::Rack,
    done::Done,
    error::CliError,
    owner::Need,
    project::OwnedProject,
    rack_spec::{self, Override},
    style::{DIM, GOOD, WARN, paint},
    text::{Table, count, list},
    ui::Ui,
};

/// The hidden subcommand that a rack's supervisor runs as.
pub(crate) const SUPERVISOR: &str = "rack-supervisor";
/// How much of what a machine has printed a console shows first, in bytes.
const HISTORY_BYTES: u64 = 8 * 1024;

/// The virtual rack: the inventory's machines under QEMU, on this computer
///
/// Each node whose power is `{ kind = "rack" }` becomes a virtual machine with real UEFI firmware
/// and disks of its own. They are on a network in a namespace of its own: nothing on this
/// computer's network changes, and no root is needed where the kernel allows that. `undercroft up`
/// finds a running rack by itself.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RackArgs {
    #[command(subcommand)]
    command: RackCommand,
}

impl RackArgs {
    /// What the command needs that an ordinary user may not have.
    pub(crate) fn need(&self) -> Need {
        match self.command {
            RackCommand::Up(_) => Need::Namespaces,
            _ => Need::Nothing,
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  undercroft rack up && undercroft up    the machines, and what is to run on them
  undercroft rack console vm-01          watch one boot; leave it with Ctrl-]
  undercroft rack cut vm-02              pull its plug in the middle of something
  undercroft rack down                   end the rack; its disks stay";

#[derive(Debug, Subcommand)]
enum RackCommand {
    Up(UpArgs),
    Status(StatusArgs),
    Console(ConsoleArgs),
    Power(PowerArgs),
    Cut(CutArgs),
    Cable(CableArgs),
    Down(DownArgs),
}

/// Make the rack; its machines are off
///
/// Disks that are there from before are kept.
#[derive(Debug, Args)]
#[command(after_help = UP_EXAMPLES)]
struct UpArgs {
    #[command(flatten)]
    dir: DirArg,
    /// How machines of this computer's own architecture are run
    #[arg(long, value_name = "HOW", value_enum, default_value_t = How::Auto)]
    accelerator: How,
    /// Make a machine other than the inventory says: NODE.KEY=VALUE
    ///
    /// Keys are serial, mac, uuid, memory_mb, cpus, disk_gb, disk_bus, firmware and system.
    #[arg(long, value_name = "NODE.KEY=VALUE")]
    set: Vec<Override>,
    /// Say nothing if the rack is up already
    #[arg(long)]
    if_down: bool,
}

const UP_EXAMPLES: &str = "\
Examples:
  undercroft rack up
  undercroft rack up --set vm-02.serial=ANOTHER    `undercroft up` must refuse this disk";

/// How machines are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum How {
    /// KVM where a probe shows that it works, else emulation
    Auto,
    /// Emulation
    Tcg,
    /// KVM, or an error
    Kvm,
}

/// Show the rack's machines
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  undercroft rack status --json | jq '.machines[].power'")]
struct StatusArgs {
    #[command(flatten)]
    dir: DirArg,
    /// Print the status as JSON
    #[arg(long)]
    json: bool,
}

/// Use a machine's serial console; Ctrl-] leaves it
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  undercroft rack console vm-01\n  undercroft rack console vm-01 --watch | tee boot.log"
)]
pub(crate) struct ConsoleArgs {
    /// The machine
    #[arg(add = ArgValueCompleter::new(complete::nodes))]
    pub(crate) node: NodeName,
    /// Only watch: nothing that is typed is sent
    #[arg(long)]
    pub(crate) watch: bool,
}

/// Switch a machine
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  undercroft rack power vm-01 on\n  undercroft rack power vm-01 on --network    boot from the network once"
)]
struct PowerArgs {
    /// The machine
    #[arg(add = ArgValueCompleter::new(complete::nodes))]
    node: NodeName,
    /// What to do
    #[arg(value_enum)]
    action: Action,
    /// Let it boot from the network at its next start, once
    #[arg(long)]
    network: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Action {
    /// Switch it on
    On,
    /// Switch it off at once
    Off,
    /// Press its power button: a system that listens shuts down
    PressButton,
    /// Off, then on
    Cycle,
    /// Press its reset button
    Reset,
}

/// Pull a machine's plug, in the middle of whatever it does
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  undercroft rack cut vm-01")]
struct CutArgs {
    /// The machine
    #[arg(add = ArgValueCompleter::new(complete::nodes))]
    node: NodeName,
}

/// Unplug a machine's network cables, or plug them in again
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  undercroft rack cable vm-01 out\n  undercroft rack cable vm-01 in"
)]
struct CableArgs {
    /// The machine
    #[arg(add = ArgValueCompleter::new(complete::nodes))]
    node: NodeName,
    /// Whether the cables are in
    #[arg(value_enum)]
    cable: Cable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Cable {
    /// Plugged in
    In,
    /// Unplugged
    Out,
}

/// End the rack
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  undercroft rack down            its disks stay: `rack up` goes on with them\n  undercroft rack down --delete   nothing stays"
)]
struct DownArgs {
    #[command(flatten)]
    dir: DirArg,
    /// Delete its disks and logs too
    #[arg(long)]
    delete: bool,
}

pub(crate) fn run(ui: Ui, at: Option<&Path>, args: &RackArgs) -> Result<Done, CliError> {
    crate::runtime::block_on(async {
        match &args.command {
            RackCommand::Up(args) => up(ui, at, args).await,
            RackCommand::Status(args) => status(ui, at, args).await,
            RackCommand::Console(args) => {
                let client = connect(&OwnedProject::find(at)?).await?;
                console(ui, &client, args).await
            }
            RackCommand::Power(args) => power(ui, at, args).await,
            RackCommand::Cut(args) => {
                let client = connect(&OwnedProject::find(at)?).await?;
                client
                    .power(&args.node, PowerAction::Cut)
                    .await
                    .map_err(|e| CliError::from(&e))?;
                ui.note(&format!("{}: its plug is pulled", args.node));
                Ok(Done::Well)
            }
            RackCommand::Cable(args) => {
                let client = connect(&OwnedProject::find(at)?).await?;
                let plugged = args.cable == Cable::In;
                client
                    .set_plugged(&args.node, plugged)
                    .await
                    .map_err(|e| CliError::from(&e))?;
                let what = if plugged { "plugged in" } else { "unplugged" };
                ui.note(&format!("{}: its network cables are {what}", args.node));
                Ok(Done::Well)
            }
            RackCommand::Down(args) => {
                let project = OwnedProject::find(args.dir.or(at)?)?;
                let disks = if args.delete {
                    Disks::Delete
                } else {
                    Disks::Keep
                };
                rack::down(&project.rack_dir(), disks)
                    .await
                    .map_err(|e| CliError::from(&e))?;
                ui.note(if args.delete {
                    "The rack is down, and its disks are deleted."
                } else {
                    "The rack is down. Its disks are kept: `undercroft rack up` goes on with them."
                });
                Ok(Done::Well)
            }
        }
    })
}

pub(crate) async fn connect(project: &OwnedProject) -> Result<RackClient, CliError> {
    RackClient::connect(&project.rack_dir())
        .await
        .map_err(|e| CliError::from(&e))
}

async fn up(ui: Ui, at: Option<&Path>, args: &UpArgs) -> Result<Done, CliError> {
    let project = OwnedProject::find(args.dir.or(at)?)?;
    let inventory = project.load(ui)?;
    let accelerator = match args.accelerator {
        How::Auto => AcceleratorChoice::Auto,
        How::Tcg => AcceleratorChoice::Tcg,
        How::Kvm => AcceleratorChoice::Kvm,
    };
    let spec = rack_spec::spec(&inventory, accelerator, &args.set)?;
    project.make_state()?;
    let supervisor = SupervisorCommand::current_exe(SUPERVISOR).map_err(|e| CliError::from(&e))?;
    let dir = project.rack_dir();
    let up = rack::tracing_supervisor(&dir, true, rack::up(&dir, &spec, &supervisor));
    let client = match up.await {
        Ok(client) => client,
        Err(RackError::AlreadyRunning { .. }) if args.if_down => return Ok(Done::Well),
        Err(error) => return Err(CliError::from(&error)),
    };
    let status = client.status().await.map_err(|e| CliError::from(&e))?;
    let names: Vec<&str> = status.machines.iter().map(|m| m.name.as_str()).collect();
    ui.note(&format!(
        "The rack is up with {}, all off: {} ({}).",
        count(names.len(), "machine"),
        list(&names),
        accelerator_words(status.accelerator),
    ));
    ui.note("Next: `undercroft up` installs them; `undercroft rack console NODE` shows one.");
    Ok(Done::Well)
}

async fn status(ui: Ui, at: Option<&Path>, args: &StatusArgs) -> Result<Done, CliError> {
    let project = OwnedProject::find(args.dir.or(at)?)?;
    let client = connect(&project).await?;
    let status = client.status().await.map_err(|e| CliError::from(&e))?;
    if args.json {
        ui.json(&Rack::from(status))?;
        return Ok(Done::Well);
    }
    let mut table = Table::new(&[
        "MACHINE",
        "POWER",
        "STARTS",
        "CABLE",
        "NEXT BOOT",
        "LAST STOP",
    ]);
    for machine in &status.machines {
        table.row(row(machine));
    }
    ui.print(&table.render())?;
    ui.note(&format!(
        "\nOn {}, address {}/{}; run by {}.",
        status.network.bridge,
        status.network.address,
        status.network.prefix_len,
        accelerator_words(status.accelerator)
    ));
    Ok(Done::Well)
}

fn accelerator_words(accelerator: Accelerator) -> &'static str {
    match accelerator {
        Accelerator::Tcg => "QEMU's emulation",
        Accelerator::Kvm => "KVM",
    }
}

fn row(machine: &MachineStatus) -> [String; 6] {
    let power = match &machine.power {
        PowerState::On => paint(GOOD, "on"),
        PowerState::Off => paint(DIM, "off"),
        PowerState::Paused { reason } => paint(WARN, &format!("paused ({reason})")),
    };
    let next = match machine.next_boot {
        NextBoot::Firmware => "as its firmware decides",
        NextBoot::NetworkOnce => "network, once",
    };
    let stop = machine.last_stop.as_ref().map_or_else(String::new, |stop| {
        let reason = serde_json::to_value(stop.reason)
            .ok()
            .and_then(|v| v.as_str().map(|s| s.replace('-', " ")))
            .unwrap_or_default();
        match &stop.detail {
            Some(detail) => {
                let first = detail.lines().next().unwrap_or_default();
                format!("{reason}: {}", crate::text::plain(first))
            }
            None => reason,
        }
    });
    [
        machine.name.to_string(),
        power,
        machine.launches.to_string(),
        if machine.plugged { "in" } else { "out" }.to_owned(),
        next.to_owned(),
        stop,
    ]
}

/// Joins the terminal with a machine's serial console.
pub(crate) async fn console(
    ui: Ui,
    client: &RackClient,
    args: &ConsoleArgs,
) -> Result<Done, CliError> {
    let console = client
        .console(&args.node, HISTORY_BYTES)
        .await
        .map_err(|e| CliError::from(&e))?;
    if !args.watch {
        ui.note(&format!("The console of {}; Ctrl-] leaves it.", args.node));
    }
    crate::terminal::join(console, args.watch).await?;
    Ok(Done::Well)
}

async fn power(ui: Ui, at: Option<&Path>, args: &PowerArgs) -> Result<Done, CliError> {
    let project = OwnedProject::find(at)?;
    let client = connect(&project).await?;
    if args.network {
        client
            .next_boot(&args.node, NextBoot::NetworkOnce)
            .await
            .map_err(|e| CliError::from(&e))?;
    }
    let (action, said) = match args.action {
        Action::On => (PowerAction::On, "on"),
        Action::Off => (PowerAction::Off, "off"),
        Action::PressButton => (PowerAction::PressButton, "its power button is pressed"),
        Action::Cycle => (PowerAction::Cycle, "off and on again"),
        Action::Reset => (PowerAction::Reset, "reset"),
    };
    let done = client.power(&args.node, action);
    rack::tracing_supervisor(&project.rack_dir(), false, done)
        .await
        .map_err(|e| CliError::from(&e))?;
    ui.note(&format!("{}: {said}", args.node));
    Ok(Done::Well)
}
