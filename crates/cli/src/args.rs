//! The command line as a whole.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    cmd_approve, cmd_check, cmd_completions, cmd_dev, cmd_doctor, cmd_events, cmd_init,
    cmd_installer, cmd_journal, cmd_man, cmd_plan, cmd_power, cmd_rack, cmd_rehearse, cmd_render,
    cmd_secrets, cmd_serve, cmd_ssh, cmd_status, cmd_up, cmd_update, error::CliError, owner::Need,
};

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
interrupted at any moment and run again: it goes on where it was.";

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

/// What every command understands.
#[derive(Debug, Args)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Global {
    /// Folder with undercroft.toml, or the file itself [default: the nearest one upwards]
    #[arg(short = 'C', long = "directory", value_name = "DIR", global = true, value_hint = clap::ValueHint::DirPath)]
    pub(crate) directory: Option<PathBuf>,
    /// No notes and no progress: only what was asked for
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Show each program that is run, with its arguments; twice (-vv): also the long ones whole
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    pub(crate) verbose: u8,
    /// Colours: auto, always or never; `auto` respects NO_COLOR and CLICOLOR
    #[arg(
        long,
        value_name = "WHEN",
        global = true,
        default_value = "auto",
        value_enum,
        hide_possible_values = true,
        hide_default_value = true
    )]
    pub(crate) color: Color,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl Color {
    /// Makes this the choice for all that is printed from now on.
    pub(crate) fn apply(self) {
        match self {
            Self::Auto => anstream::ColorChoice::Auto,
            Self::Always => anstream::ColorChoice::Always,
            Self::Never => anstream::ColorChoice::Never,
        }
        .write_global();
    }
}

/// The folder as a command's own argument; `-C` says the same.
#[derive(Debug, Args)]
pub(crate) struct DirArg {
    /// Folder with undercroft.toml; the same as -C
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub(crate) at: Option<PathBuf>,
}

impl DirArg {
    /// The folder that was given, here or by `-C`.
    pub(crate) fn or<'a>(&'a self, global: Option<&'a Path>) -> Result<Option<&'a Path>, CliError> {
        one_folder(self.at.as_deref(), global)
    }
}

/// The folder that was given one way or the other, but not both.
pub(crate) fn one_folder<'a>(
    own: Option<&'a Path>,
    global: Option<&'a Path>,
) -> Result<Option<&'a Path>, CliError> {
    match (own, global) {
        (Some(own), Some(global)) => Err(CliError::usage(format!(
            "two folders are given: {} and -C {}",
            own.display(),
            global.display()
        ))
        .hint("Give one of them.")),
        (own, global) => Ok(own.or(global)),
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Init(cmd_init::InitArgs),
    Check(cmd_check::CheckArgs),
    /// Print the JSON Schema of undercroft.toml, for editors
    #[command(after_help = crate::cmd_schema::EXAMPLES)]
    Schema,
    Plan(cmd_plan::PlanArgs),
    Rehearse(cmd_rehearse::RehearseArgs),
    Render(cmd_render::RenderArgs),
    Update(cmd_update::UpdateArgs),
    Dev(cmd_dev::DevArgs),
    Up(cmd_up::UpArgs),
    Serve(cmd_serve::ServeArgs),
    Status(cmd_status::StatusArgs),
    Events(cmd_events::EventsArgs),
    Journal(cmd_journal::JournalArgs),
    Approve(cmd_approve::ApproveArgs),
    Power(cmd_power::PowerArgs),
    /// Use a machine's console
    #[command(after_help = crate::cmd_console::EXAMPLES)]
    Console(cmd_rack::ConsoleArgs),
    Ssh(cmd_ssh::SshArgs),
    Secrets(cmd_secrets::SecretsArgs),
    Doctor(cmd_doctor::DoctorArgs),
    Rack(cmd_rack::RackArgs),
    Installer(cmd_installer::InstallerArgs),
    Completions(cmd_completions::CompletionsArgs),
    Man(cmd_man::ManArgs),
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
            Self::Check(_) | Self::Render(_) | Self::Update(_) | Self::Rehearse(_) | Self::Dev(_)
        )
    }
}
