//! `undercroft lend revoke`.

use clap::Args;
use undercroft_lending::owner::{OwnerAnswer, OwnerAsk, Revoked};

use super::pc::{PcArgs, other_answer};
use crate::{done::Done, error::CliError, ui::Ui};

/// Take back all that you lend: whatever runs is killed and wiped at once
///
/// It needs no network and no running daemon. It ends when no process and no file of a job is left on this PC, and
/// the ledger says so, signed.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  undercroft lend revoke")]
pub(crate) struct RevokeArgs {
    #[command(flatten)]
    pc: PcArgs,
    /// Print what came of it as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(ui: Ui, args: &RevokeArgs) -> Result<Done, CliError> {
    let OwnerAnswer::Revoked(revoked) = args.pc.ask(OwnerAsk::Revoke)? else {
        return Err(other_answer());
    };
    match args.json {
        true => ui.json(&*revoked)?,
        false => ui.print(&describe(&revoked))?,
    }
    Ok(Done::Well)
}

fn describe(revoked: &Revoked) -> String {
    let mut out = format!(
        "{} lends nothing any more. No process and no file of a job is left; that took {} ms.\n",
        revoked.device, revoked.after_ms
    );
    for job in &revoked.ended {
        out.push_str(&format!("ended: {job}\n"));
    }
    if let Some(head) = &revoked.ledger.head {
        out.push_str(&format!(
            "ledger: {} records, head {head}\n",
            revoked.ledger.records
        ));
    }
    out
}
