//! `undercroft lend enrol`.

use clap::Args;
use undercroft_lending::{
    device_keys::OwnKeys,
    owner::{OwnerAnswer, OwnerAsk},
};

use super::{
    offers::{describe, until},
    pc::{PcArgs, other_answer},
};
use crate::{done::Done, error::CliError, ui::Ui};

/// Make this PC's keys, and print what the operator is to accept
///
/// There are two, in files of the state folder that only you can read: the PC's own, which proves it to the
/// message system, and yours, which signs what you agree to. What is printed are their public halves, for
/// `[pcs.NAME.lend]` of the inventory. Enrolling again prints the same keys.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct EnrolArgs {
    #[command(flatten)]
    pc: PcArgs,
    /// Agree at once to lend what the policy offers
    #[arg(long)]
    grant: bool,
    /// For how long, such as 8h or 30d; without it, until you revoke it
    #[arg(long, value_name = "TIME", requires = "grant")]
    until: Option<String>,
}

const EXAMPLES: &str = "\
Example:
  undercroft lend enrol --grant --until 30d";

pub(crate) fn run(ui: Ui, args: &EnrolArgs) -> Result<Done, CliError> {
    let policy = args.pc.policy()?;
    let until_ms = args.until.as_deref().map(until).transpose()?;
    let keys = OwnKeys::read_or_make(&policy.state()).map_err(|e| CliError::from(&e))?;
    let keys = keys.public();
    ui.print(&format!(
        "[pcs.{}.lend]\nenabled = true\nnkey = \"{}\"\nowner_key = \"{}\"\n",
        policy.device, keys.device.0, keys.owner.0
    ))?;
    if args.grant {
        let OwnerAnswer::Offers(offers) = args.pc.ask(OwnerAsk::Grant { until_ms })? else {
            return Err(other_answer());
        };
        ui.stderr(&describe(&offers));
    } else {
        ui.hint("Nothing is lent yet. `undercroft lend offers grant` agrees to it.");
    }
    Ok(Done::Well)
}
