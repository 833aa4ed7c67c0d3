//! Booting a machine into its installer.

use std::time::Duration;

use tokio::time::timeout;
use undercroft_model::{Evidence, InstallerReport};
use undercroft_netboot::timeline::MarkKind;

use super::{
    claim::{believable, is_of},
    job::{Done, Job, Stop},
};
use undercroft_journal::TimelineSource;

/// How long a probe waits for a report: the installer repeats it every 15 seconds, and may need a
/// few more for a controller that was away.
const REPORT_WAIT: Duration = Duration::from_secs(30);

/// Starts the machine from the network and waits for a report of another boot than any that was
/// known before. Whether it is the machine's own is found out at its approval; until then nobody
/// connects to what a report names.
pub(super) async fn act(job: &Job<'_>) -> Done {
    let name = job.name();
    let known_before: Vec<String> = job
        .order
        .facts
        .report
        .iter()
        .map(|report| report.boot_id.clone())
        .chain(job.shared.reports.boots(name))
        .collect();
    let room = &job.shared.parts.room;
    room.offer(name, true)?;
    if let Some(request) = room.boot_from_network(name).await? {
        job.mark(TimelineSource::Power, MarkKind::PowerOn, &request);
        job.shared.line(name, request);
    } else {
        job.mark(
            TimelineSource::Power,
            MarkKind::PowerOn,
            "started from the network",
        );
    }
    let report = job
        .shared
        .reports
        .wait(name, |report| {
            !known_before.contains(&report.boot_id)
                && is_of(job, report)
                && believable(report).is_ok()
        })
        .await;
    Ok(seen(report))
}

/// Listens whether an installer of this machine reports in: one that lives makes itself heard. The
/// boot that is known counts before others.
pub(super) async fn probe(job: &Job<'_>) -> Done {
    let reports = &job.shared.reports;
    let good = |report: &InstallerReport| is_of(job, report) && believable(report).is_ok();
    let known = job.order.facts.report.as_ref().map(|known| &known.boot_id);
    let mut claims = reports.claims(job.name()).into_iter();
    let same = |report: &InstallerReport| known == Some(&report.boot_id) && good(report);
    if let Some(claim) = claims.find(|claim| same(&claim.report)) {
        return Ok(seen(claim.report));
    }
    match timeout(REPORT_WAIT, reports.wait(job.name(), good)).await {
        Ok(report) => Ok(seen(report)),
        Err(_) => Err(Stop::NotDone),
    }
}

fn seen(report: InstallerReport) -> Evidence {
    Evidence::Seen {
        report: Box::new(report),
    }
}
