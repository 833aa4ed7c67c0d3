//! `undercroft lend`: what PCs lend, and who asks them for it. One file a command, in `lend/`.

mod audit;
mod key;
mod reach;
mod server;
mod submit;

use std::path::Path;

use clap::{Args, Subcommand};

use crate::{done::Done, error::CliError, ui::Ui};

/// Lent PCs: what the cluster asks of them, and what their owners let them do
///
/// A developer's PC takes work from a queue of NATS while its owner lets it, and is never a node of the
/// cluster. What may be lent, by whom and for whom stands under `[lending]` and `[pcs.NAME.lend]` of the
/// inventory.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct LendArgs {
    #[command(subcommand)]
    command: LendCommand,
}

const EXAMPLES: &str = "\
Examples:
  undercroft lend key --out ~/.config/undercroft/submit.nk    a key to submit work with
  undercroft lend submit job.toml --wait                      bring work, and wait for it
  undercroft lend server --key server.nk                      hand work out, beside NATS";

#[derive(Debug, Subcommand)]
enum LendCommand {
    Submit(submit::SubmitArgs),
    Jobs(submit::JobsArgs),
    Logs(submit::LogsArgs),
    Cancel(submit::CancelArgs),
    Result(submit::ResultArgs),
    Server(server::ServerArgs),
    Audit(audit::AuditArgs),
    Key(key::KeyArgs),
}

pub(crate) fn run(ui: Ui, at: Option<&Path>, args: &LendArgs) -> Result<Done, CliError> {
    match &args.command {
        LendCommand::Submit(args) => submit::submit(ui, at, args),
        LendCommand::Jobs(args) => submit::jobs(ui, at, args),
        LendCommand::Logs(args) => submit::logs(ui, at, args),
        LendCommand::Cancel(args) => submit::cancel(ui, at, args),
        LendCommand::Result(args) => submit::result(ui, at, args),
        LendCommand::Server(args) => server::run(ui, at, args),
        LendCommand::Audit(args) => audit::run(ui, at, args),
        LendCommand::Key(args) => key::run(ui, args),
    }
}
