//! The command line as a whole, and one file a command: its arguments, its help and what it does.

mod approve;
mod check;
mod completions;
mod console;
mod dev;
mod doctor;
mod drift;
mod events;
mod init;
mod installer;
mod journal;
pub(crate) mod lend;
mod man;
mod plan;
mod power;
pub(crate) mod rack;
mod rehearse;
mod render;
mod schema;
mod secrets;
mod serve;
mod ssh;
mod status;
mod up;
mod update;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::{args::Global, done::Done, error::CliError, owner::Need, ui::Ui};

const LONG_ABOUT: &str = "\
Brings a rack of machines from powered off to a running NixOS fleet, from one file.

The file is `undercroft.toml`: it names the machines, their addresses and the serial numbers of \
their disks. Undercroft boots them over the network, has you approve each one's fingerprint, \
installs their systems over SSH, and proves that each machine runs what was built.";

const AFTER_HELP: &str = "\
A first try, without any hardware:
  undercroft init --template rack demo    a folder with an inventory of three virtual machines
  undercroft rehearse demo                the whole bring-up, simulated, in a moment
  undercroft rack up demo                 the machines, powered off, under QEMU
  undercroft up demo                      bring them up for real

Exit codes:
  0   done                     64  the command line is wrong
  1   failed                   65  a file that was given is wrong
  2   there are changes        70  a bug in undercroft

Commands look for undercroft.toml in the current folder and in those above it. What Undercroft \
knows of the fleet is kept beside it, in .undercroft/. Every command that changes machines can be \
interrupted at any moment and run again: it goes on where it was.

With --json, what is printed has a `version`, and `undercroft schema --of COMMAND` says its form.";

/// One file brings a rack from powered off to a running NixOS fleet.
#[derive(Debug, Parser)]
#[command(
    name = "undercroft",
    version,
    long_about = LONG_ABOUT,
    after_long_help = AFTER_HELP,
    styles = crate::style::HELP,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Init(init::InitArgs),
    Check(check::CheckArgs),
    Schema(schema::SchemaArgs),
    Plan(plan::PlanArgs),
    Rehearse(rehearse::RehearseArgs),
    Render(render::RenderArgs),
    Update(update::UpdateArgs),
    Dev(dev::DevArgs),
    Up(up::UpArgs),
    Serve(serve::ServeArgs),
    Status(status::StatusArgs),
    Events(events::EventsArgs),
    Journal(journal::JournalArgs),
    Approve(approve::ApproveArgs),
    Power(power::PowerArgs),
    /// Use a machine's console
    #[command(after_help = console::EXAMPLES)]
    Console(rack::ConsoleArgs),
    Ssh(ssh::SshArgs),
    Secrets(secrets::SecretsArgs),
    Doctor(doctor::DoctorArgs),
    Drift(drift::DriftArgs),
    Lend(lend::LendArgs),
    Rack(rack::RackArgs),
    Installer(installer::InstallerArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
    /// Panic, to show what a bug looks like
    #[command(hide = true)]
    Bug,
}

impl Command {
    /// What it needs that an ordinary user may not have.
    pub(crate) fn need(&self) -> Need {
        match self {
            Self::Up(_) | Self::Serve(_) => Need::Ports,
            Self::Rack(args) => args.need(),
            _ => Need::Nothing,
        }
    }

    /// Whether it uses what is known of the fleet, beside the folder's own files.
    pub(crate) fn uses_state(&self) -> bool {
        !matches!(
            self,
            Self::Check(_)
                | Self::Render(_)
                | Self::Update(_)
                | Self::Rehearse(_)
                | Self::Dev(_)
                | Self::Lend(_)
        )
    }
}

/// Carries out what the command line asks for.
pub(crate) fn run(ui: Ui, cli: Cli) -> Result<Done, CliError> {
    let at = cli.global.directory.as_deref();
    match cli.command {
        Command::Init(args) => init::run(ui, at, &args),
        Command::Check(args) => check::run(ui, at, &args),
        Command::Schema(args) => schema::run(ui, &args),
        Command::Plan(args) => plan::run(ui, at, &args),
        Command::Rehearse(args) => rehearse::run(ui, at, &args),
        Command::Render(args) => render::run(ui, at, &args),
        Command::Update(args) => update::run(ui, at, &args),
        Command::Dev(args) => dev::run(ui, at, &args),
        Command::Up(args) => up::run(ui, at, &args),
        Command::Serve(args) => serve::run(ui, at, &args),
        Command::Status(args) => status::run(ui, at, &args),
        Command::Events(args) => events::run(ui, at, &args),
        Command::Journal(args) => journal::run(ui, at, &args),
        Command::Approve(args) => approve::run(ui, at, &args),
        Command::Power(args) => power::run(ui, at, &args),
        Command::Console(args) => console::run(ui, at, &args),
        Command::Ssh(args) => ssh::run(ui, at, &args),
        Command::Secrets(args) => secrets::run(ui, at, &args),
        Command::Doctor(args) => doctor::run(ui, at, &args),
        Command::Drift(args) => drift::run(ui, at, &args),
        Command::Lend(args) => lend::run(ui, at, &args),
        Command::Rack(args) => rack::run(ui, at, &args),
        Command::Installer(args) => installer::run(ui, &args),
        Command::Completions(args) => completions::run(ui, &args),
        Command::Man(args) => man::run(ui, &args, Cli::command()),
        Command::Bug => panic_as_a_bug_does(),
    }
}

/// Shows what a bug looks like; a test keeps it.
#[expect(clippy::panic, reason = "the command exists to panic")]
fn panic_as_a_bug_does() -> Result<Done, CliError> {
    panic!("the command `bug` always does this");
}
