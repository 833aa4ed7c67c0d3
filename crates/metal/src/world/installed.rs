//! The installed system: leaving the installer for it, and proving that it runs.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
    time::{Duration, Instant},
};

use undercroft_model::{Evidence, FailureKind, NodeName, Work};

use super::{
    host_key::final_host_key,
    installer::{Installer, unanswered},
    job::{Done, Job, Stop},
};
use undercroft_journal::TimelineSource;
use undercroft_ssh::{Connection, Endpoint, HostKey, RemoteCommand, SshError};
use undercroft_steps::{
    Answer, InstalledLook, LOOK_MS_MAX, Look, Looked, Return, code, pin, refused,
};

/// The wait between two looks for a machine that reboots.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long one look may take.
const LOOK_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a probe or a proof looks for the machine.
const PROBE_WAIT: Duration = Duration::from_millis(LOOK_MS_MAX);
/// The time before the step's limit at which a wait gives up, so that what was seen last is told
/// rather than that time ran out.
const MARGIN: Duration = Duration::from_secs(3);

/// Asks an installed machine what it runs, pinned to its own host key.
pub(crate) async fn look_at_installed(
    node: &NodeName,
    address: Ipv4Addr,
    host_key: HostKey,
    identity: &Path,
    limit: Duration,
) -> Result<InstalledLook, SshError> {
    let endpoint = Endpoint::root(node.as_str(), IpAddr::V4(address), host_key);
    let connection = Connection::prepare(endpoint, identity)?;
    // A system that isn't NixOS-shaped has no such links; their lines are empty then.
    let question = "cat /proc/sys/kernel/random/boot_id
readlink -f /run/booted-system || echo
readlink -f /run/current-system || echo";
    let command = RemoteCommand::new(["sh", "-c", question], limit).shown_as(&[
        "readlink",
        "-f",
        "/run/booted-system",
        "/run/current-system",
    ]);
    let output = connection.run(command).await?;
    let mut lines = output
        .stdout
        .lines()
        .map(|line| undercroft_process::printable(line.trim()));
    let mut next = || lines.next().unwrap_or_default();
    Ok(InstalledLook {
        boot_id: next(),
        booted_system: next(),
        current_system: next(),
    })
}

/// Waits for the installed system of a machine that was told to reboot.
pub(super) async fn await_return(job: &Job<'_>, key: Option<HostKey>) -> Done {
    let Some(key) = key else {
        return Err(Stop::new(FailureKind::Permanent, "this is no reboot"));
    };
    job.note(TimelineSource::Ssh, "told to reboot from its disk");
    let mut awaited = Return::from(job.order.facts.report.as_ref());
    let began = Instant::now();
    loop {
        let look = look(job, key.clone()).await;
        let at_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let looked = awaited.told_to_reboot(&look, at_ms, |shown| is_claimed(job, shown));
        match concluded(job, looked) {
            Some(done) => return done,
            None if job.left() < MARGIN => return Err(awaited.has_not_returned(&look).into()),
            None => tokio::time::sleep(LOOK_INTERVAL).await,
        }
    }
}

/// Looks whether a machine has left its installer.
pub(super) async fn probe_reboot(job: &Job<'_>, host_key_fingerprint: &str) -> Done {
    let key = final_host_key(job, host_key_fingerprint)?;
    let awaited = Return::from(job.order.facts.report.as_ref());
    loop {
        let look = look(job, key.clone()).await;
        let looked = awaited.probed(&look);
        if looked == Looked::InInstaller {
            return is_in_installer(job).await;
        }
        if let Some(done) = concluded(job, looked) {
            return done;
        }
        if job.started.elapsed() > PROBE_WAIT || job.left() < MARGIN {
            return Err(match look {
                Ok(_) => Stop::NotDone,
                Err(last) => awaited.not_found(*last).into(),
            });
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Whether the installer that a machine's steps stand on is there: it has not left it, or it has booted the network
/// again.
async fn is_in_installer(job: &Job<'_>) -> Done {
    let facts = &job.order.facts;
    let pinned = pin(facts.report.as_ref(), facts.approval.as_ref())?;
    let installer = Installer::of(job, pinned)?;
    match installer.greet().await? {
        Answer::Ended(ended) if ended.code != code::DONE => Err(refused(&ended).into()),
        Answer::Nothing(unanswered) => Err(unanswered.of_installer().into()),
        _ if job.order.work == Work::Probe => Err(Stop::NotDone),
        _ => Err(Stop::new(
            FailureKind::Ambiguous,
            "the installer still runs",
        )),
    }
}

/// Compares what the machine runs with what was built.
pub(super) async fn prove(job: &Job<'_>, toplevel: &str, host_key_fingerprint: &str) -> Done {
    let key = final_host_key(job, host_key_fingerprint)?;
    let limit = PROBE_WAIT.min(job.left().saturating_sub(MARGIN));
    let awaited = Return::from(job.order.facts.report.as_ref());
    loop {
        let look = look(job, key.clone()).await;
        let looked = awaited.proved(&look, toplevel, &key.fingerprint());
        if let Some(done) = concluded(job, looked) {
            return done;
        }
        if job.started.elapsed() > limit {
            return Err(match look {
                Ok(_) => Stop::NotDone,
                Err(unanswered) => unanswered.of_look().into(),
            });
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// What a look has brought, where it has brought anything for good.
fn concluded(job: &Job<'_>, looked: Looked) -> Option<Done> {
    match looked {
        Looked::Again | Looked::InInstaller => None,
        Looked::Done(evidence) => {
            if let Evidence::Rebooted { boot_id } = &evidence {
                let text = format!("answers under its own host key, boot id {boot_id}");
                job.note(TimelineSource::Ssh, text);
            }
            Some(Ok(evidence))
        }
        Looked::Failed(failure) => Some(Err(failure.into())),
    }
}

async fn look(job: &Job<'_>, key: HostKey) -> Look {
    let limit = LOOK_TIMEOUT.min(job.left());
    let identity = &job.shared.parts.operator.private_file;
    look_at_installed(job.name(), job.address(), key, identity, limit)
        .await
        .map_err(|error| Box::new(unanswered(error)))
}

/// Whether the key that is shown at the machine's address is one that an installer has reported
/// from there: then the machine is in its installer again, rather than somebody else's.
fn is_claimed(job: &Job<'_>, shown: &str) -> bool {
    let claims = job.shared.reports.claims(job.name());
    claims.iter().any(|claim| claim.report.fingerprint == shown)
}
