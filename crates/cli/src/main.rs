//! The `undercroft` command: arguments, wiring, and what people read.
//!
//! The crates beneath never talk to the user; all input and output is here. Each command is one
//! file of `commands`, with its arguments, its help and what it does.

mod access;
mod alarms;
mod args;
mod bug;
mod busy;
mod commands;
mod complete;
mod consent;
mod documents;
mod done;
mod error;
mod gitops;
mod guard;
mod interrupt;
mod journal;
mod memory_scratch;
mod owner;
mod people;
mod ports;
mod prepare;
mod progress;
mod project;
mod rack_spec;
mod rehearse_seeds;
mod runtime;
mod select;
mod style;
mod summary;
mod terminal;
mod text;
mod ui;

use std::process::ExitCode;

use clap::{Parser as _, error::ErrorKind};

use crate::{
    commands::Cli,
    error::{CliError, Kind},
    ui::Ui,
};

/// A rehearsal and a long journal are millions of small values, made by one thread and often dropped by another:
/// a tenth of their time is the C library's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    guard::no_core_files();
    bug::install_hook();
    // The rack's supervisor makes its own runtime and speaks to nobody.
    let mut words = std::env::args_os().skip(1);
    let first = words.next().unwrap_or_default();
    if first == commands::rack::SUPERVISOR {
        return undercroft_rack::supervisor_main(words);
    }
    guard::keep_memory_private();
    if first == commands::lend::DAEMON {
        return commands::lend::daemon_main(words);
    }
    memory_scratch::wipe_what_was_left();
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
    let verbose = cli.global.verbose;
    let ran = commands::run(ui, cli);
    let read = undercroft_journal::entries_read();
    if verbose > 1 && read > 0 {
        let noun = if read == 1 { "entry" } else { "entries" };
        ui.note(&format!("read {read} {noun} of the journal"));
    }
    match ran {
        Ok(done) => ExitCode::from(done.exit_code()),
        Err(error) => {
            if error.kind != Kind::BrokenPipe {
                ui.stderr(&error.render());
            }
            ExitCode::from(error.kind.exit_code())
        }
    }
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
