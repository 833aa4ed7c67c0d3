//! The installed system: leaving the installer for it, and proving that it runs.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
    time::{Duration, Instant},
};

use undercroft_model::{Evidence, Failure, FailureKind, NodeName, Work};

use super::{
    Done, Job, Stop,
    install::final_host_key,
    installer::{Installer, exit, refused},
};
use undercroft_journal::TimelineSource;
use undercroft_ssh::{Connection, Endpoint, HostKey, RemoteCommand, SshError};

/// The wait between two looks for a machine that reboots.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long one look may take.
const LOOK_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a foreign host key may be shown after a reboot before the machine counts as somebody
/// else's. Only the installer's own key, whose SSH server may still be ending, is expected.
const FOREIGN_KEY_MAX: Duration = Duration::from_secs(30);
/// How long a probe looks for a machine that may be between two boots. The engine gives a probe
/// two minutes.
const PROBE_WAIT: Duration = Duration::from_secs(90);
/// The time before the step's limit at which a wait gives up, so that what was seen last is told
/// rather than that time ran out.
const MARGIN: Duration = Duration::from_secs(3);

/// What an installed machine says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InstalledLook {
    /// The boot.
    pub(crate) boot_id: String,
    /// The system that it booted.
    pub(crate) booted_system: String,
    /// The system that is active now.
    pub(crate) current_system: String,
}

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

/// Leaves the installer and waits for the installed system; a probe looks for it.
pub(super) async fn reboot(job: &Job<'_>, host_key_fingerprint: &str, work: Work) -> Done {
    let key = final_host_key(job, host_key_fingerprint)?;
    if work == Work::Probe {
        return probe_reboot(job, key).await;
    }
    let installer = Installer::of(job)?;
    // From here on the boot servers send the machine to its own disk, whatever it asks.
    job.shared.parts.room.offer(job.name(), false)?;
    let output = installer.run(&["/undercroft/finish"]).await?;
    if output.code != exit::DONE {
        return Err(refused(&output).into());
    }
    match installer.run(&["/undercroft/reboot"]).await {
        Ok(output) if output.code != exit::DONE => return Err(refused(&output).into()),
        // A connection that the reboot itself has cut off is no failure: what counts is whether
        // the machine comes back.
        Err(failure) if failure.kind != FailureKind::Ambiguous => return Err(failure.into()),
        _ => {}
    }
    job.note(TimelineSource::Ssh, "told to reboot from its disk");
    let mut foreign_since = None;
    loop {
        let look = look(job, key.clone()).await;
        match look {
            Ok(seen) if seen.boot_id != installer.boot_id() => return rebooted(job, seen),
            Ok(_) => {}
            Err(SshError::HostKeyMismatch { ref shown, .. }) if is_installers(job, shown) => {}
            Err(ref error @ SshError::HostKeyMismatch { .. }) => {
                let since = *foreign_since.get_or_insert_with(Instant::now);
                if since.elapsed() > FOREIGN_KEY_MAX {
                    let kind = if is_claimed(job, error) {
                        FailureKind::PreconditionLost
                    } else {
                        FailureKind::Refused
                    };
                    return Err(Failure::new(kind, error.to_string()).into());
                }
            }
            Err(error @ (SshError::AuthRefused { .. } | SshError::Local { .. })) => {
                return Err(error.into_failure().into());
            }
            Err(_) => {}
        }
        if job.left() < MARGIN {
            let last = match look {
                Ok(_) => "the installer still runs".to_owned(),
                Err(error) => error.to_string(),
            };
            return Err(Stop::Failed(
                Failure::new(
                    FailureKind::Ambiguous,
                    format!("the machine has not come back from its reboot: {last}"),
                )
                .with_hint("Look at its console: it may wait in its firmware or boot loader."),
            ));
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

fn rebooted(job: &Job<'_>, seen: InstalledLook) -> Done {
    job.note(
        TimelineSource::Ssh,
        format!("answers under its own host key, boot id {}", seen.boot_id),
    );
    Ok(Evidence::Rebooted {
        boot_id: seen.boot_id,
    })
}

async fn look(job: &Job<'_>, key: HostKey) -> Result<InstalledLook, SshError> {
    let limit = LOOK_TIMEOUT.min(job.left());
    let identity = &job.shared.parts.operator.private_file;
    look_at_installed(job.name(), job.address(), key, identity, limit).await
}

/// Whether a fingerprint that was shown is that of the installer which the steps stand on.
fn is_installers(job: &Job<'_>, shown: &Option<String>) -> bool {
    let report = job.order.facts.report.as_ref();
    report.is_some_and(|report| Some(&report.fingerprint) == shown.as_ref())
}

/// Whether the key that is shown at the machine's address is one that an installer has reported
/// from there: then the machine is in its installer again, rather than somebody else's.
fn is_claimed(job: &Job<'_>, error: &SshError) -> bool {
    let SshError::HostKeyMismatch {
        shown: Some(shown), ..
    } = error
    else {
        return false;
    };
    let claims = job.shared.reports.claims(job.name());
    claims
        .iter()
        .any(|claim| claim.report.fingerprint == *shown)
}

async fn probe_reboot(job: &Job<'_>, key: HostKey) -> Done {
    loop {
        let last = match look(job, key.clone()).await {
            Ok(seen) => return rebooted(job, seen),
            Err(error @ (SshError::AuthRefused { .. } | SshError::Local { .. })) => {
                return Err(error.into_failure().into());
            }
            Err(SshError::HostKeyMismatch { ref shown, .. }) if is_installers(job, shown) => {
                // The installer answers: it has not rebooted, or it has booted the network again.
                let installer = Installer::of(job)?;
                let output = installer.run(&["true"]).await?;
                return match output.code {
                    exit::DONE => Err(Stop::NotDone),
                    _ => Err(refused(&output).into()),
                };
            }
            Err(error @ SshError::HostKeyMismatch { .. }) => {
                if job.order.facts.report.is_none() {
                    return Err(error.into_failure().into());
                }
                // An installer that has booted anew has a new key.
                error
            }
            Err(error) => error,
        };
        if job.started.elapsed() > PROBE_WAIT || job.left() < MARGIN {
            let kind = match last {
                SshError::HostKeyMismatch { .. } => FailureKind::PreconditionLost,
                _ => FailureKind::Transient,
            };
            return Err(Failure::new(kind, last.to_string()).into());
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Compares what the machine runs with what was built. It changes nothing, so that it is its own
/// probe.
pub(super) async fn prove(job: &Job<'_>, toplevel: &str, host_key_fingerprint: &str) -> Done {
    let key = final_host_key(job, host_key_fingerprint)?;
    let limit = PROBE_WAIT.min(job.left().saturating_sub(MARGIN));
    let seen = loop {
        match look(job, key.clone()).await {
            Ok(seen) => break seen,
            Err(SshError::HostKeyMismatch { ref shown, .. }) if is_installers(job, shown) => {
                return Err(Stop::new(
                    FailureKind::PreconditionLost,
                    "the machine runs the installer, not what was installed",
                ));
            }
            Err(error) => {
                let retry = matches!(
                    error,
                    SshError::Unreachable { .. }
                        | SshError::SessionLost { .. }
                        | SshError::TimedOut { .. }
                );
                if !retry || job.started.elapsed() > limit {
                    return Err(proof_failure(error).into());
                }
            }
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    };
    if seen.booted_system != toplevel {
        return Err(Stop::Failed(
            Failure::new(
                FailureKind::Permanent,
                format!(
                    "the machine booted {}, not {toplevel}",
                    or_nothing(&seen.booted_system)
                ),
            )
            .with_hint(
                "Look at its boot menu: an older generation, or another disk, may come first.",
            ),
        ));
    }
    Ok(Evidence::Up {
        boot_id: seen.boot_id,
        booted_system: seen.booted_system,
        host_key_fingerprint: key.fingerprint(),
    })
}

/// A look changes nothing, so that none of its failures is ambiguous.
fn proof_failure(error: SshError) -> Failure {
    let mut failure = error.into_failure();
    if failure.kind == FailureKind::Ambiguous {
        failure.kind = FailureKind::Transient;
    }
    failure
}

fn or_nothing(path: &str) -> &str {
    if path.is_empty() {
        "something that isn't NixOS"
    } else {
        path
    }
}
