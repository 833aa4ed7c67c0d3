//! Booting a machine into its installer.

use std::time::Duration;

use tokio::time::timeout;
use undercroft_model::{Evidence, InstallerReport};
use undercroft_netboot::timeline::MarkKind;

use super::{
    claim::{has_its_key, of_any_boot, takes},
    job::{Done, Job, Stop},
};
use undercroft_journal::TimelineSource;
use undercroft_steps::{AwaitedReport, earlier_boots};

/// How long a probe waits for a report: the installer repeats it every 15 seconds, and may need a
/// few more for a controller that was away.
const REPORT_WAIT: Duration = Duration::from_secs(30);

/// Starts the machine from the network and waits for a report of another boot than any that was
/// known before. Whether it is the machine's own is found out at its approval; until then nobody
/// connects to what a report names.
pub(super) async fn act(job: &Job<'_>) -> Done {
    let name = job.name();
    let heard = job.shared.reports.boots(name);
    let earlier = earlier_boots(job.order.facts.report.as_ref(), heard);
    let awaited = AwaitedReport::of_new_boot(job.node.identity(), &earlier);
    let facilities = &job.shared.parts.facilities;
    facilities.offer(name, true)?;
    if let Some(request) = facilities.boot_from_network(name).await? {
        job.mark(TimelineSource::Power, MarkKind::PowerOn, &request);
        job.shared.line(name, request);
    } else {
        job.mark(
            TimelineSource::Power,
            MarkKind::PowerOn,
            "started from the network",
        );
    }
    let reports = &job.shared.reports;
    let report = reports.wait(name, |report| takes(&awaited, report)).await;
    Ok(seen(report))
}

/// Listens whether an installer of this machine reports in: one that lives makes itself heard. The
/// boot that is known counts before others.
pub(super) async fn probe(job: &Job<'_>) -> Done {
    let reports = &job.shared.reports;
    let awaited = of_any_boot(job);
    let known = job.order.facts.report.as_ref();
    let claims = reports.claims(job.name());
    let heard = claims.iter().map(|claim| &claim.report);
    if let Some(report) = awaited.choose(heard, known, has_its_key) {
        return Ok(seen(report.clone()));
    }
    let good = |report: &InstallerReport| takes(&awaited, report);
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
