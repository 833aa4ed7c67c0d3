//! Booting a machine into its installer.

use std::{net::IpAddr, time::Duration};

use tokio::{net::TcpStream, time::timeout};
use undercroft_model::{Evidence, Failure, FailureKind, InstallerReport};
use undercroft_netboot::timeline::MarkKind;

use super::{Done, Job, Stop};
use crate::{
    journal::TimelineSource,
    ssh::{Connection, Endpoint, HostKey, RemoteCommand, SshError},
};

/// How long the SSH server of an installer that has reported in may stay out of reach.
const PORT_WAIT: Duration = Duration::from_secs(60);
/// The wait between two looks at it.
const PORT_INTERVAL: Duration = Duration::from_millis(500);
/// How long one connection attempt may take.
const PORT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a probe waits for a report: the installer repeats it every 15 seconds, and may need a
/// few more for a controller that was away.
const REPORT_WAIT: Duration = Duration::from_secs(30);
/// How long a probe may take to find out whether an installer is alive.
const ALIVE_TIMEOUT: Duration = Duration::from_secs(30);
/// The port of the installer's SSH server.
const SSH_PORT: u16 = 22;

/// Starts the machine from the network and waits for a report of another boot than any that was
/// known before.
pub(super) async fn act(job: &Job<'_>) -> Done {
    let name = job.name();
    let known_before: Vec<String> = job
        .order
        .facts
        .report
        .iter()
        .map(|report| report.boot_id.clone())
        .chain(job.shared.reports.latest(name).map(|report| report.boot_id))
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
            !known_before.contains(&report.boot_id) && believable(report).is_ok()
        })
        .await;
    wait_for_port(job, &report).await?;
    Ok(seen(report))
}

/// Looks whether an installer of this machine is alive now. A controller that has just started
/// knows no report yet: one that lives makes itself heard.
pub(super) async fn probe(job: &Job<'_>) -> Done {
    let known = job.shared.reports.latest(job.name());
    let known = known.or_else(|| job.order.facts.report.clone());
    if let Some(report) = &known
        && is_alive(job, report).await?
    {
        return Ok(seen(report.clone()));
    }
    let another = job.shared.reports.wait(job.name(), |report| {
        Some(&report.boot_id) != known.as_ref().map(|known| &known.boot_id)
    });
    match timeout(REPORT_WAIT, another).await {
        Ok(report) if is_alive(job, &report).await? => Ok(seen(report)),
        _ => Err(Stop::NotDone),
    }
}

/// Whether the installer of that report still runs, in the same boot.
async fn is_alive(job: &Job<'_>, report: &InstallerReport) -> Result<bool, Failure> {
    match boot_of(job, report).await {
        Ok(boot_id) => Ok(boot_id == report.boot_id),
        Err(Unseen::Ours(failure)) => Err(failure),
        Err(Unseen::Another | Unseen::Silent(_)) => Ok(false),
    }
}

/// Why a boot id was not seen.
pub(super) enum Unseen {
    /// Something answers that has not the reported key.
    Another,
    /// Nothing answers, or not in time.
    Silent(String),
    /// It couldn't be asked, for a reason on this side.
    Ours(Failure),
}

/// Asks the installer of a report which boot it runs in. Its fingerprint may not be approved yet:
/// nothing is sent to it but a question whose answer is compared with what is known.
pub(super) async fn boot_of(job: &Job<'_>, report: &InstallerReport) -> Result<String, Unseen> {
    let key = believable(report).map_err(|_| Unseen::Another)?;
    let endpoint = Endpoint::root(job.name().as_str(), IpAddr::V4(report.address), key);
    let connection = Connection::prepare(endpoint, &job.shared.parts.operator.private_file)
        .map_err(|error| Unseen::Ours(error.into_failure()))?;
    let question = RemoteCommand::new(["cat", "/proc/sys/kernel/random/boot_id"], ALIVE_TIMEOUT);
    match connection.run(question).await {
        Ok(output) => Ok(output.stdout.trim().to_owned()),
        Err(SshError::HostKeyMismatch { .. }) => Err(Unseen::Another),
        Err(error @ SshError::Local { .. }) => Err(Unseen::Ours(error.into_failure())),
        Err(error) => Err(Unseen::Silent(error.to_string())),
    }
}

fn seen(report: InstallerReport) -> Evidence {
    Evidence::Seen {
        report: Box::new(report),
    }
}

/// The key of a report, where its fingerprint is the key's own.
fn believable(report: &InstallerReport) -> Result<HostKey, crate::ssh::HostKeyError> {
    HostKey::parse_with_fingerprint(&report.host_key, &report.fingerprint)
}

async fn wait_for_port(job: &Job<'_>, report: &InstallerReport) -> Result<(), Failure> {
    let address = (report.address, SSH_PORT);
    let mut last = String::from("no answer");
    let reach = async {
        loop {
            match timeout(PORT_TIMEOUT, TcpStream::connect(address)).await {
                Ok(Ok(_)) => return,
                Ok(Err(e)) => last = e.to_string(),
                Err(_) => {}
            }
            tokio::time::sleep(PORT_INTERVAL).await;
        }
    };
    if timeout(PORT_WAIT, reach).await.is_ok() {
        return Ok(());
    }
    let message = format!(
        "the installer reported in from {}, and its port {SSH_PORT} can't be reached: {last}",
        report.address
    );
    job.mark(TimelineSource::Ssh, MarkKind::SshFailed, &message);
    Err(Failure::new(FailureKind::Transient, message).with_hint(
        "Look for a firewall or a missing route between this machine and the boot network.",
    ))
}
