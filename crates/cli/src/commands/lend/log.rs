//! `undercroft lend log`.

use clap::Args;
use undercroft_lending::owner::{LendLog, OwnerAnswer, OwnerAsk};
use undercroft_process::clock::wall_ms_now;

use super::pc::{PcArgs, other_answer};
use crate::{
    done::Done,
    error::CliError,
    text::{Table, clock, count, duration},
    ui::Ui,
};

/// Milliseconds of a day.
const DAY_MS: u64 = 24 * 3600 * 1000;
/// Bytes of a MiB.
const MIB: u64 = 1024 * 1024;

/// Show what this PC has done for others, and what it took
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  undercroft lend log --week")]
pub(crate) struct LogArgs {
    #[command(flatten)]
    pc: PcArgs,
    /// Of the last seven days alone
    #[arg(long)]
    week: bool,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(ui: Ui, args: &LogArgs) -> Result<Done, CliError> {
    let since_ms = match args.week {
        true => wall_ms_now().saturating_sub(7 * DAY_MS),
        false => 0,
    };
    let OwnerAnswer::Log(log) = args.pc.ask(OwnerAsk::Log { since_ms })? else {
        return Err(other_answer());
    };
    match args.json {
        true => ui.json(&*log)?,
        false => ui.print(&describe(&log))?,
    }
    Ok(Done::Well)
}

fn describe(log: &LendLog) -> String {
    let mut table = Table::new(&["ENDED", "JOB", "FOR", "IN", "HOW", "RAN"]);
    for job in &log.jobs {
        table.row([
            clock(job.ended_ms),
            job.job.clone(),
            job.tenant.clone(),
            job.runtime.clone(),
            job.how.clone(),
            duration(job.ran_ms),
        ]);
    }
    let mut out = match log.jobs.is_empty() {
        true => String::new(),
        false => table.render(),
    };
    out.push_str(&format!(
        "{}: {}, {:.2} hours, {} MiB fetched, {} MiB brought\n",
        log.device,
        count(log.jobs.len(), "job"),
        log.hours,
        log.bytes_in / MIB,
        log.bytes_out / MIB
    ));
    for tenant in &log.tenants {
        out.push_str(&format!(
            "for {}: {}, {:.2} hours\n",
            tenant.tenant,
            count(usize::try_from(tenant.jobs).unwrap_or(usize::MAX), "job"),
            tenant.hours
        ));
    }
    out.push_str(&match log.energy_wh {
        Some(wh) => format!("energy: {wh:.1} Wh, from {}\n", log.energy_from),
        None => format!("energy: unknown; {}\n", log.energy_from),
    });
    out
}
