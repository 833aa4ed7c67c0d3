//! `undercroft lend`: what PCs lend, and who asks them for it. One file a command, in `lend/`.

mod key;

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
  undercroft lend key --out ~/.config/undercroft/submit.nk    a key to submit work with";

#[derive(Debug, Subcommand)]
enum LendCommand {
    Key(key::KeyArgs),
}

pub(crate) fn run(ui: Ui, _at: Option<&Path>, args: &LendArgs) -> Result<Done, CliError> {
    match &args.command {
        LendCommand::Key(args) => key::run(ui, args),
    }
}
