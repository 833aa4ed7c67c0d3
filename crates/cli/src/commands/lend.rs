//! `undercroft lend`: what PCs lend, and who asks them for it. One file a command, in `lend/`.

mod audit;
mod build;
mod demo;
mod doctor;
mod enrol;
mod key;
mod log;
mod offers;
mod pc;
mod reach;
mod revoke;
mod run;
mod server;
mod status;
mod submit;

use std::path::Path;

use clap::{Args, Subcommand};

pub(crate) use run::{DAEMON, daemon_main};

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
  undercroft lend demo lending        try it on this machine, with a NATS of its own
  undercroft lend key --out ~/.config/undercroft/submit.nk    a key to submit work with
  undercroft lend submit job.toml --wait                      bring work, and wait for it
  undercroft lend server --key server.nk                      hand work out, beside NATS
  undercroft lend enrol --grant      on a PC: its keys, and its owner's word
  undercroft lend status             whether it works for others, and why
  undercroft lend revoke             it's the owner's again, at once";

#[derive(Debug, Subcommand)]
enum LendCommand {
    Submit(submit::SubmitArgs),
    Jobs(submit::JobsArgs),
    Logs(submit::LogsArgs),
    Cancel(submit::CancelArgs),
    Result(submit::ResultArgs),
    Build(build::BuildArgs),
    Server(server::ServerArgs),
    Audit(audit::AuditArgs),
    Key(key::KeyArgs),
    Demo(demo::DemoArgs),
    Enrol(enrol::EnrolArgs),
    Run(run::RunArgs),
    Status(status::LendStatusArgs),
    Pause(status::PauseArgs),
    Resume(status::ResumeArgs),
    Revoke(revoke::RevokeArgs),
    Offers(offers::OffersArgs),
    Log(log::LogArgs),
    Doctor(doctor::LendDoctorArgs),
}

pub(crate) fn run(ui: Ui, at: Option<&Path>, args: &LendArgs) -> Result<Done, CliError> {
    match &args.command {
        LendCommand::Submit(args) => submit::submit(ui, at, args),
        LendCommand::Jobs(args) => submit::jobs(ui, at, args),
        LendCommand::Logs(args) => submit::logs(ui, at, args),
        LendCommand::Cancel(args) => submit::cancel(ui, at, args),
        LendCommand::Result(args) => submit::result(ui, at, args),
        LendCommand::Build(args) => build::run(ui, args),
        LendCommand::Server(args) => server::run(ui, at, args),
        LendCommand::Audit(args) => audit::run(ui, at, args),
        LendCommand::Key(args) => key::run(ui, args),
        LendCommand::Demo(args) => demo::run(ui, at, args),
        LendCommand::Enrol(args) => enrol::run(ui, args),
        LendCommand::Run(args) => run::run(ui, args),
        LendCommand::Status(args) => status::status(ui, args),
        LendCommand::Pause(args) => status::pause(ui, args),
        LendCommand::Resume(args) => status::resume(ui, args),
        LendCommand::Revoke(args) => revoke::run(ui, args),
        LendCommand::Offers(args) => offers::run(ui, args),
        LendCommand::Log(args) => log::run(ui, args),
        LendCommand::Doctor(args) => doctor::run(ui, args),
    }
}
