//! What was done for others, kept for the owner: a line for each job that is over.

use std::{collections::BTreeMap, fs, path::Path};

use undercroft_folder::confined::Confined;
use undercroft_model::document::Version;

use crate::{
    lines::{Lines, LinesError},
    owner::{LendLog, LogLine, TenantHours},
};

/// The file, in the state folder.
const USAGE_FILE: &str = "usage";
/// Jobs that are listed, at most: the newest.
const LISTED_MAX: usize = 10_000;
/// Milliseconds of an hour.
const HOUR_MS: f64 = 3_600_000.0;
/// Joules of a watt-hour.
const WATT_HOUR_J: f64 = 3_600.0;

/// The file, open to be added to.
#[derive(Debug)]
pub(super) struct Usage(Lines);

impl Usage {
    pub(super) fn open(state: &Confined) -> Result<Self, LinesError> {
        Ok(Self(Lines::open(
            state,
            USAGE_FILE,
            |_, _: LogLine| Ok(()),
        )?))
    }

    pub(super) fn add(&mut self, line: &LogLine) -> Result<(), LinesError> {
        self.0.add(line).map(|_| ())
    }

    /// What was done from a moment on.
    pub(super) fn since(
        &self,
        device: String,
        since_ms: u64,
        watts: Option<u32>,
    ) -> Result<LendLog, LinesError> {
        let mut jobs = Vec::new();
        self.0.again(0, |line: LogLine| {
            if line.ended_ms >= since_ms {
                jobs.push(line);
            }
            true
        })?;
        let excess = jobs.len().saturating_sub(LISTED_MAX);
        jobs.drain(..excess);
        Ok(summed(device, since_ms, jobs, watts))
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "hours and watt-hours, for people"
)]
fn summed(device: String, since_ms: u64, jobs: Vec<LogLine>, watts: Option<u32>) -> LendLog {
    let mut tenants: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for job in &jobs {
        let (count, ran_ms) = tenants.entry(&job.tenant).or_default();
        *count += 1;
        *ran_ms += job.ran_ms;
    }
    let sum = |of: fn(&LogLine) -> u64| jobs.iter().map(of).sum::<u64>();
    let hours = sum(|job| job.ran_ms) as f64 / HOUR_MS;
    let joules: Option<u64> = jobs.iter().map(|job| job.joules).sum();
    let (energy_wh, energy_from) = match (joules, watts) {
        (Some(joules), _) if !jobs.is_empty() => (
            Some(joules as f64 / WATT_HOUR_J),
            "the processors' own counters, with what else ran meanwhile".to_owned(),
        ),
        (_, Some(watts)) => (
            Some(hours * f64::from(watts)),
            format!("{watts} W as the policy says, times the hours"),
        ),
        _ => (
            None,
            "nothing measures it here, and the policy has no `watts`".to_owned(),
        ),
    };
    let tenants = tenants
        .into_iter()
        .map(|(tenant, (jobs, ran_ms))| TenantHours {
            tenant: tenant.to_owned(),
            jobs,
            hours: ran_ms as f64 / HOUR_MS,
        });
    LendLog {
        version: Version,
        device,
        since_ms,
        tenants: tenants.collect(),
        hours,
        bytes_in: sum(|job| job.bytes_in),
        bytes_out: sum(|job| job.bytes_out),
        energy_wh,
        energy_from,
        jobs,
    }
}

/// What all processors have taken so far, in joules (RAPL); `None` where that can't be read, as by most users.
pub(super) fn joules(sys: &Path) -> Option<u64> {
    let mut all = None;
    for zone in fs::read_dir(sys.join("class/powercap")).ok()?.flatten() {
        let name = zone.file_name();
        let is_package = name
            .to_string_lossy()
            .strip_prefix("intel-rapl:")
            .is_some_and(|rest| !rest.contains(':'));
        if is_package {
            let text = fs::read_to_string(zone.path().join("energy_uj")).ok()?;
            let microjoules: u64 = text.trim().parse().ok()?;
            all = Some(all.unwrap_or(0) + microjoules / 1_000_000);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(job: &str, tenant: &str, ended_ms: u64, joules: Option<u64>) -> LogLine {
        LogLine {
            job: job.to_owned(),
            epoch: 1,
            tenant: tenant.to_owned(),
            runtime: "wasm".to_owned(),
            began_ms: ended_ms - 1,
            ended_ms,
            how: "done".to_owned(),
            ran_ms: 1_800_000,
            cpu_ms: 5,
            bytes_in: 10,
            bytes_out: 3,
            joules,
        }
    }

    #[test]
    fn a_week_is_what_ended_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let state = Confined::new(dir.path());
        let mut usage = Usage::open(&state).unwrap();
        usage.add(&line("old", "batch", 100, Some(1))).unwrap();
        usage.add(&line("a", "batch", 200, Some(7200))).unwrap();
        usage.add(&line("b", "ci", 300, Some(0))).unwrap();
        drop(usage);
        let usage = Usage::open(&state).unwrap();
        let log = usage.since("pc-1".to_owned(), 200, Some(50)).unwrap();
        assert_eq!(log.jobs.len(), 2);
        assert!((log.hours - 1.0).abs() < 1e-9 && (log.energy_wh.unwrap() - 2.0).abs() < 1e-9);
        assert_eq!((log.bytes_in, log.bytes_out, log.tenants.len()), (20, 6, 2));
    }

    #[test]
    fn energy_is_measured_or_reckoned_or_unknown() {
        let of = |joules, watts| {
            let jobs = vec![line("a", "batch", 200, joules)];
            summed("pc-1".to_owned(), 0, jobs, watts)
        };
        assert!((of(None, Some(40)).energy_wh.unwrap() - 20.0).abs() < 1e-9);
        assert_eq!(of(None, None).energy_wh, None);
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(joules(dir.path()), None);
        for (zone, uj) in [
            ("intel-rapl:0", "5000000"),
            ("intel-rapl:0:1", "9"),
            ("dtpm", "1"),
        ] {
            let at = dir.path().join("class/powercap").join(zone);
            fs::create_dir_all(&at).unwrap();
            fs::write(at.join("energy_uj"), uj).unwrap();
        }
        assert_eq!(joules(dir.path()), Some(5));
    }
}
