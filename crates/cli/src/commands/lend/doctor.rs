//! `undercroft lend doctor`.

use clap::Args;
use undercroft_lending::owner::{Doctor, OwnerAnswer, OwnerAsk};

use super::pc::{PcArgs, other_answer};
use crate::{
    done::Done,
    error::CliError,
    style::{BAD, GOOD, paint},
    text::plain,
    ui::Ui,
};

/// Try out what lending stands on: the sandbox, control groups, the seat, the server, the clock
///
/// What isn't there narrows what is lent, never the sandbox. It ends with exit code 1 where something is in the way.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  undercroft lend doctor")]
pub(crate) struct LendDoctorArgs {
    #[command(flatten)]
    pc: PcArgs,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(ui: Ui, args: &LendDoctorArgs) -> Result<Done, CliError> {
    let OwnerAnswer::Doctor(doctor) = args.pc.ask(OwnerAsk::Doctor)? else {
        return Err(other_answer());
    };
    match args.json {
        true => ui.json(&*doctor)?,
        false => ui.print(&describe(&doctor))?,
    }
    match doctor.findings.iter().all(|finding| finding.ok) {
        true => Ok(Done::Well),
        false => Ok(Done::Failed),
    }
}

fn describe(doctor: &Doctor) -> String {
    let mut out = String::new();
    for finding in &doctor.findings {
        let mark = match finding.ok {
            true => paint(GOOD, "well"),
            false => paint(BAD, "not "),
        };
        out.push_str(&format!(
            "{mark}  {}: {}\n",
            finding.name,
            plain(&finding.found)
        ));
        if let Some(narrows) = &finding.narrows {
            out.push_str(&format!("      {}\n", plain(narrows)));
        }
    }
    out
}
