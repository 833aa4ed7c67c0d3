//! The `undercroft` command: arguments, wiring, and what people read.
//!
//! The crates beneath never talk to the user; all input and output is here. Each command is one
//! file, `cmd_NAME.rs`, with its arguments, its help and what it does.

mod access;
mod alarms;
mod args;
mod bug;
mod busy;
mod cluster;
mod cmd_approve;
mod cmd_check;
mod cmd_completions;
mod cmd_console;
mod cmd_dev;
mod cmd_doctor;
mod cmd_events;
mod cmd_init;
mod cmd_installer;
mod cmd_journal;
mod cmd_man;
mod cmd_plan;
mod cmd_power;
mod cmd_rack;
mod cmd_rehearse;
mod cmd_render;
mod cmd_schema;
mod cmd_secrets;
mod cmd_secrets_check;
mod cmd_secrets_desk;
mod cmd_secrets_edit;
mod cmd_serve;
mod cmd_ssh;
mod cmd_status;
mod cmd_up;
mod cmd_update;
mod complete;
mod error;
mod gitops;
mod guard;
mod interrupt;
mod journal;
mod narrate;
mod owner;
mod people;
mod ports;
mod prepare;
mod progress;
mod project;
mod rack_spec;
mod registry;
mod rehearse_seeds;
mod select;
mod style;
mod summary;
mod terminal;
mod text;
mod ui;
mod verdict;

use std::process::ExitCode;

use clap::{Parser as _, error::ErrorKind};

use crate::{
    args::{Cli, Command},
    error::{CliError, Kind},
    ui::Ui,
};

/// How a command that could do its work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Done {
    /// All is well.
    Well,
    /// There are changes to make.
    Changes,
    /// The report says what failed.
    Failed,
    /// The report says what is wrong with what was given.
    BadInput,
    /// As the program ended that was run in the user's stead.
    Code(u8),
}

impl Done {
    fn exit_code(self) -> u8 {
        match self {
            Self::Well => 0,
            Self::Failed => Kind::Failed.exit_code(),
            Self::Changes => 2,
            Self::Code(code) => code,
            Self::BadInput => Kind::Input.exit_code(),
        }
    }
}

fn main() -> ExitCode {
    guard::no_core_files();
    bug::install_hook();
    // The rack's supervisor makes its own runtime and speaks to nobody.
    let mut words = std::env::args_os().skip(1);
    if words
        .next()
        .is_some_and(|word| word == cmd_rack::SUPERVISOR)
    {
        return undercroft_rack::supervisor_main(words);
    }
    guard::keep_memory_private();
    cmd_secrets_desk::wipe_what_was_left();
    // A shell asks for completions by a variable; then nothing else is done.
    clap_complete::CompleteEnv::with_factory(<Cli as clap::CommandFactory>::command)
        .var(complete::VARIABLE)
        .complete();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.kind() == ErrorKind::MissingSubcommand => {
            let error = CliError::usage("no command was given")
                .hint("`undercroft --help` lists the commands.");
            Ui::new(true).stderr(&error.render());
            return ExitCode::from(error.kind.exit_code());
        }
        Err(error) => return usage(&error),
    };
    cli.global.color.apply();
    let ui = Ui::new(cli.global.quiet);
    if cli.global.verbose > 0 {
        let whole = cli.global.verbose > 1;
        undercroft_process::trace::listen(move |command| ui.command(command, whole));
    }
    owner::begin(cli.command.need(), cli.command.uses_state());
    match run(ui, cli) {
        Ok(done) => ExitCode::from(done.exit_code()),
        Err(error) => {
            if error.kind != Kind::BrokenPipe {
                ui.stderr(&error.render());
            }
            ExitCode::from(error.kind.exit_code())
        }
    }
}

fn run(ui: Ui, cli: Cli) -> Result<Done, CliError> {
    let at = cli.global.directory.as_deref();
    match cli.command {
        Command::Init(args) => cmd_init::run(ui, at, &args),
        Command::Check(args) => cmd_check::run(ui, at, &args),
        Command::Schema => cmd_schema::run(ui),
        Command::Plan(args) => cmd_plan::run(ui, at, &args),
        Command::Rehearse(args) => cmd_rehearse::run(ui, at, &args),
        Command::Render(args) => cmd_render::run(ui, at, &args),
        Command::Update(args) => cmd_update::run(ui, at, &args),
        Command::Dev(args) => cmd_dev::run(ui, at, &args),
        Command::Up(args) => cmd_up::run(ui, at, &args),
        Command::Serve(args) => cmd_serve::run(ui, at, &args),
        Command::Status(args) => cmd_status::run(ui, at, &args),
        Command::Events(args) => cmd_events::run(ui, at, &args),
        Command::Journal(args) => cmd_journal::run(ui, at, &args),
        Command::Approve(args) => cmd_approve::run(ui, at, &args),
        Command::Power(args) => cmd_power::run(ui, at, &args),
        Command::Console(args) => cmd_console::run(ui, at, &args),
        Command::Ssh(args) => cmd_ssh::run(ui, at, &args),
        Command::Secrets(args) => cmd_secrets::run(ui, at, &args),
        Command::Doctor(args) => cmd_doctor::run(ui, at, &args),
        Command::Rack(args) => cmd_rack::run(ui, at, &args),
        Command::Installer(args) => cmd_installer::run(ui, &args),
        Command::Completions(args) => cmd_completions::run(ui, &args),
        Command::Man(args) => cmd_man::run(ui, &args),
        Command::Bug => cmd_bug(),
    }
}

/// Runs what waits for several things at once.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| CliError::failed("can't start the threads that do the work").because(&e))?;
    let result = runtime.block_on(work);
    if interrupt::is_insisted() {
        // What is called off ends the programs that it has started.
        runtime.shutdown_timeout(interrupt::INSISTED_MAX);
    } else {
        // A read of the terminal can't be called off; nothing waits for it.
        runtime.shutdown_background();
    }
    undercroft_process::end_programs();
    result
}

/// Prints what clap has to say: help and version are answers, the rest is a mistake in the
/// command line.
fn usage(error: &clap::Error) -> ExitCode {
    let answered = !error.use_stderr();
    match error.print() {
        Ok(()) if answered => ExitCode::SUCCESS,
        Err(e) if answered && e.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        _ => ExitCode::from(Kind::Usage.exit_code()),
    }
}

/// Shows what a bug looks like; a test keeps it.
#[expect(clippy::panic, reason = "the command exists to panic")]
fn cmd_bug() -> Result<Done, CliError> {
    panic!("the command `bug` always does this");
}
