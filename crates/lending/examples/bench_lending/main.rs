//! Measures lending as a PC's owner and a submitter feel it: what the idle daemon takes, how long a job takes from
//! submission to its record, and how fast a machine is its owner's again; beside a worker in Node that does the same
//! without consent, ledger and sandbox. Prints a line of JSON for each figure, and lines that begin with `SKIPPED: `
//! for what can't be measured here.
//!
//! `bench_lending UNDERCROFT NODE_MODULES IDLE_S JOBS ROUNDS`: the command, beside which `undercroft-job` lies; the
//! folder with nats.js, or `-`; how long idleness is watched; jobs of each kind; revocations of each size.

mod coordinator;
mod dispatch;
mod footprint;
mod revoke;
mod site;

use std::{error::Error, path::PathBuf};

use serde_json::Value;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// How much of everything is done.
struct Amount {
    idle_s: u64,
    jobs: usize,
    rounds: usize,
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [undercroft, modules, idle_s, jobs, rounds] = arguments.as_slice() else {
        return Err("usage: bench_lending UNDERCROFT NODE_MODULES IDLE_S JOBS ROUNDS".into());
    };
    let amount = Amount {
        idle_s: idle_s.parse()?,
        jobs: jobs.parse()?,
        rounds: rounds.parse()?,
    };
    let modules = (modules != "-").then(|| PathBuf::from(modules));
    let Some(mut site) = site::Site::start(&PathBuf::from(undercroft), modules.as_deref()).await?
    else {
        return Ok(());
    };
    footprint::idle(&site, amount.idle_s).await?;
    dispatch::measure(&mut site, amount.jobs).await?;
    footprint::after(&site, amount.jobs)?;
    revoke::measure(&mut site, amount.rounds).await
}

/// Prints a figure.
#[expect(clippy::needless_pass_by_value, reason = "each is made for this")]
fn tell(line: Value) {
    println!("{line}");
}

/// Some times in milliseconds, in order.
struct Times(Vec<f64>);

impl Times {
    fn new(mut all: Vec<f64>) -> Self {
        all.sort_by(f64::total_cmp);
        Self(all)
    }

    /// The time that so many of a hundred don't exceed.
    fn at(&self, percent: usize) -> f64 {
        let last = self.0.len().saturating_sub(1);
        let at = (last * percent).div_ceil(100);
        self.0.get(at).copied().unwrap_or(f64::NAN)
    }
}
