//! `undercroft lend status`, `pause` and `resume`: whether the PC works for others now.

use clap::Args;
use undercroft_lending::owner::{JobView, OwnerAnswer, OwnerAsk, Status};
use undercroft_process::clock::wall_ms_now;

use super::{
    offers::{moment, offer_line},
    pc::{PcArgs, other_answer},
};
use crate::{
    done::Done,
    error::CliError,
    style::{BOLD, GOOD, WARN, paint},
    text::{ago, duration, plain},
    ui::Ui,
};

/// Show whether this PC works for others now, and why or why not
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  undercroft lend status --json | jq -r '.why_not[]'")]
pub(crate) struct LendStatusArgs {
    #[command(flatten)]
    pc: PcArgs,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// Not now: what runs is frozen, and given back after a while
///
/// It holds over restarts of the daemon and of the PC, until you resume it, or for as long as you say here.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  undercroft lend pause --for 2h")]
pub(crate) struct PauseArgs {
    #[command(flatten)]
    pc: PcArgs,
    /// For how long, such as 90m, 2h or 3d
    #[arg(long = "for", value_name = "TIME")]
    duration: Option<String>,
    /// Print how it stands then as JSON
    #[arg(long)]
    json: bool,
}

/// Go on after a pause
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  undercroft lend resume")]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    pc: PcArgs,
    /// Print how it stands then as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn status(ui: Ui, args: &LendStatusArgs) -> Result<Done, CliError> {
    show(ui, &args.pc, OwnerAsk::Status, args.json)
}

pub(crate) fn pause(ui: Ui, args: &PauseArgs) -> Result<Done, CliError> {
    let for_ms = args.duration.as_deref().map(super::offers::span_ms);
    let for_s = for_ms.transpose()?.map(|ms| ms / 1000);
    show(ui, &args.pc, OwnerAsk::Pause { for_s }, args.json)
}

pub(crate) fn resume(ui: Ui, args: &ResumeArgs) -> Result<Done, CliError> {
    show(ui, &args.pc, OwnerAsk::Resume, args.json)
}

fn show(ui: Ui, pc: &PcArgs, ask: OwnerAsk, json: bool) -> Result<Done, CliError> {
    let OwnerAnswer::Status(status) = pc.ask(ask)? else {
        return Err(other_answer());
    };
    match json {
        true => ui.json(&*status)?,
        false => ui.print(&describe(&status, wall_ms_now()))?,
    }
    Ok(Done::Well)
}

fn describe(status: &Status, now_ms: u64) -> String {
    let head = format!("{} of {}", status.device, status.fleet);
    let state = match (status.why_not.is_empty(), status.jobs.is_empty()) {
        (true, true) => paint(GOOD, "takes work"),
        (true, false) => paint(GOOD, "works"),
        (false, _) => paint(WARN, "takes no work"),
    };
    let mut out = format!("{}: {state}\n", paint(BOLD, &head));
    for why in &status.why_not {
        out.push_str(&format!("  {}\n", plain(why)));
    }
    match &status.consent {
        None => out.push_str("lends: nothing\n"),
        Some(consent) => {
            out.push_str(&format!(
                "lends: {} (record {}, {})\n",
                offer_line(&consent.offer),
                consent.record,
                moment(consent.until_ms)
            ));
        }
    }
    if let Some(paused) = &status.paused {
        let since = ago(now_ms.saturating_sub(paused.since_ms));
        let until = match paused.until_ms {
            Some(until_ms) => format!("for {} more", duration(until_ms.saturating_sub(now_ms))),
            None => "until you resume it".to_owned(),
        };
        out.push_str(&format!("paused: {since}, {until}\n"));
    }
    for job in &status.jobs {
        out.push_str(&job_line(job, now_ms));
    }
    let ledger = &status.ledger;
    if let Some(digest) = &ledger.head {
        out.push_str(&format!(
            "ledger: {} records, head {digest}\n",
            ledger.records
        ));
    }
    out
}

fn job_line(job: &JobView, now_ms: u64) -> String {
    let mut line = format!("job {} (epoch {}) {}", job.job, job.epoch, job.phase);
    if let Some(tenant) = &job.tenant {
        line.push_str(&format!(", for {tenant}"));
    }
    if let Some(consent) = job.consent {
        line.push_str(&format!(", under record {consent}"));
    }
    if let Some(since_ms) = job.since_ms {
        line.push_str(&format!(
            ", since {}",
            duration(now_ms.saturating_sub(since_ms))
        ));
    }
    if let Some(cpu_ms) = job.cpu_ms {
        line.push_str(&format!(", {} of processor time", duration(cpu_ms)));
    }
    if let Some(bytes) = job.memory_peak_bytes {
        line.push_str(&format!(", {} MiB at most", bytes / (1024 * 1024)));
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use undercroft_lending::owner::{BusView, ConsentView, LedgerView, OfferView, Paused};
    use undercroft_model::document::Version;

    use super::*;

    pub(crate) fn sample() -> Status {
        Status {
            version: Version,
            device: "ada-pc".to_owned(),
            fleet: "cellar".to_owned(),
            running: true,
            consent: Some(ConsentView {
                record: 3,
                until_ms: None,
                offer: OfferView {
                    runtimes: vec!["process".to_owned(), "wasm".to_owned()],
                    tenants: Some(vec!["batch".to_owned()]),
                    max_sensitivity: "public".to_owned(),
                    features: Vec::new(),
                    slots: 2,
                    cpu_percent: 400,
                    memory_mb: 2048,
                    disk_mb: 4096,
                    wall_s: 3600,
                },
            }),
            paused: None,
            why_not: Vec::new(),
            server: BusView {
                url: "tls://nats.cellar.example:4222".to_owned(),
                connected: true,
                why_not: None,
            },
            jobs: vec![JobView {
                job: "render-1".to_owned(),
                epoch: 2,
                tenant: Some("batch".to_owned()),
                phase: "runs".to_owned(),
                consent: Some(3),
                since_ms: Some(10_000),
                cpu_ms: Some(61_000),
                memory_peak_bytes: Some(300 * 1024 * 1024),
            }],
            ledger: LedgerView {
                records: 12,
                head: Some(format!("sha256:{}", "7e".repeat(32))),
            },
        }
    }

    #[test]
    fn an_owner_reads_what_runs_for_whom_and_why_nothing_does() {
        let mut status = sample();
        let works = describe(&status, 75_000);
        status.jobs.clear();
        status.why_not = vec![
            "its owner is there".to_owned(),
            "a game is running (GameMode)".to_owned(),
        ];
        status.paused = Some(Paused {
            since_ms: 15_000,
            until_ms: Some(3_675_000),
        });
        let rests = describe(&status, 75_000);
        status.consent = None;
        status.paused = None;
        status.why_not = vec!["its owner lends nothing".to_owned()];
        let nothing = describe(&status, 75_000);
        let all = format!("{works}---\n{rests}---\n{nothing}");
        insta::assert_snapshot!(anstream::adapter::strip_str(&all).to_string());
    }
}
