//! Waiting until an installer's fingerprint is confirmed.

use std::time::{Duration, Instant};

use undercroft_model::{
    Approval, ApprovalMode, Evidence, Failure, FailureKind, InstallerReport, Work,
};
use undercroft_netboot::timeline::MarkKind;

use super::{
    Done, Job, Progress, Stop,
    boot::{Unseen, boot_of},
};
use crate::{
    approval::APPROVAL_POLL_INTERVAL,
    clock::wall_ms_now,
    journal::{PendingReport, StoreError, TimelineSource},
    rack::ConsoleIdentity,
    ssh::HostKey,
};

/// How long a console may show another boot than the report before the report counts as false. A
/// machine that has just booted anew reports within it, and the engine then begins again with the
/// new report; the installer repeats its console line every 10 seconds.
const CONSOLE_SETTLE: Duration = Duration::from_secs(45);

/// How far in the future an approval may have been granted, in milliseconds: the engine's own
/// limit for a clock that was set back.
const CLOCK_BACK_MS_MAX: u64 = 60_000;

/// Waits for the approval of the reported fingerprint; a probe looks once.
pub(super) async fn wait(job: &Job<'_>, mode: ApprovalMode, expires_ms: u64, work: Work) -> Done {
    let report = job.report()?;
    HostKey::parse_with_fingerprint(&report.host_key, &report.fingerprint)
        .map_err(|e| Failure::new(FailureKind::Refused, e.to_string()))?;
    if work == Work::Act {
        let pending = PendingReport {
            node: job.name().clone(),
            report: report.clone(),
            since_wall_ms: wall_ms_now(),
        };
        job.shared
            .store()
            .set_pending(&pending)
            .map_err(store_failure)?;
        if mode == ApprovalMode::Operator {
            job.note(
                TimelineSource::Controller,
                format!("waits for the approval of {}", report.fingerprint),
            );
            job.shared.tell(Progress::WaitsForApproval {
                node: job.name().clone(),
                fingerprint: report.fingerprint.clone(),
            });
        }
    }
    let mut differs_since = None;
    loop {
        if let Some(approval) = given(job, report)? {
            return approved(job, approval);
        }
        if mode == ApprovalMode::Console {
            let room = &job.shared.parts.room;
            let shown = room.console_identity(job.name()).await?;
            match shown.as_ref().map(|identity| compare(identity, report)) {
                Some(Shown::Same) => {
                    let now = wall_ms_now();
                    return approved(
                        job,
                        Approval {
                            fingerprint: report.fingerprint.clone(),
                            by: room.console_name(job.name()),
                            granted_wall_ms: now,
                            expires_wall_ms: now.saturating_add(expires_ms),
                        },
                    );
                }
                Some(Shown::Impostor(message)) => {
                    return Err(refuse(job, report, message));
                }
                Some(Shown::OtherBoot(message)) => {
                    let since = *differs_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > CONSOLE_SETTLE {
                        return Err(refuse(job, report, message));
                    }
                }
                None => {}
            }
        }
        if work == Work::Probe {
            return Err(not_approved(job, report).await);
        }
        tokio::time::sleep(APPROVAL_POLL_INTERVAL).await;
    }
}

/// What a probe says where there is no approval: waiting on makes sense only while the installer
/// that asks for it is there.
async fn not_approved(job: &Job<'_>, report: &InstallerReport) -> Stop {
    let gone = |message: String| Stop::new(FailureKind::PreconditionLost, message);
    match boot_of(job, report).await {
        Ok(boot_id) if boot_id == report.boot_id => Stop::NotDone,
        Ok(boot_id) => gone(format!(
            "the installer in the boot {} asks for the approval, and the machine runs in the boot {boot_id}",
            report.boot_id
        )),
        Err(Unseen::Another) => gone(format!(
            "{} doesn't show the key that it reported any longer",
            report.address
        )),
        Err(Unseen::Silent(message)) => Stop::new(FailureKind::Transient, message),
        Err(Unseen::Ours(failure)) => Stop::Failed(failure),
    }
}

fn approved(job: &Job<'_>, approval: Approval) -> Done {
    job.shared
        .store()
        .clear_pending(job.name(), &approval.fingerprint)
        .map_err(store_failure)?;
    job.mark(
        TimelineSource::Controller,
        MarkKind::Approved,
        &format!("{} approved by {}", approval.fingerprint, approval.by),
    );
    Ok(Evidence::Approved { approval })
}

/// The approval that an operator has given from another process, if it is good now. One from the
/// future is of a clock that was set back since: when it ends can't be told.
fn given(job: &Job<'_>, report: &InstallerReport) -> Result<Option<Approval>, Failure> {
    let now = wall_ms_now();
    let given = job
        .shared
        .store()
        .approval(job.name(), &report.fingerprint, now)
        .map_err(store_failure)?;
    Ok(given.filter(|a| a.granted_wall_ms <= now.saturating_add(CLOCK_BACK_MS_MAX)))
}

fn refuse(job: &Job<'_>, report: &InstallerReport, message: String) -> Stop {
    // Best effort: a report that is refused must not stay on the list of those to approve.
    let _ = job
        .shared
        .store()
        .clear_pending(job.name(), &report.fingerprint);
    Stop::Failed(Failure::new(FailureKind::Refused, message).with_hint(
        "Something else on the boot network may report in this machine's place. Find it before you go on.",
    ))
}

enum Shown {
    Same,
    OtherBoot(String),
    Impostor(String),
}

fn compare(console: &ConsoleIdentity, report: &InstallerReport) -> Shown {
    let same_key = console.fingerprint == report.fingerprint;
    if same_key && console.nonce == report.nonce && console.boot_id == report.boot_id {
        return Shown::Same;
    }
    let message = format!(
        "the machine's console shows the fingerprint {} in the boot {}, and {} was reported in the boot {}",
        console.fingerprint, console.boot_id, report.fingerprint, report.boot_id
    );
    if console.boot_id == report.boot_id || same_key {
        Shown::Impostor(message)
    } else {
        Shown::OtherBoot(message)
    }
}

// By value, because `map_err` hands it over.
#[expect(clippy::needless_pass_by_value, reason = "it is given to `map_err`")]
fn store_failure(error: StoreError) -> Failure {
    Failure::new(FailureKind::Transient, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use undercroft_model::{INSTALLER_REPORT_VERSION, ReportedFirmware, System};

    fn report() -> InstallerReport {
        InstallerReport {
            version: INSTALLER_REPORT_VERSION,
            nonce: "n1".into(),
            uuid: None,
            macs: vec![],
            address: "10.88.0.11".parse().unwrap(),
            boot_id: "b1".into(),
            host_key: String::new(),
            fingerprint: "SHA256:f1".into(),
            system: System::X86_64Linux,
            firmware: ReportedFirmware::Uefi,
            memory_mb: 1024,
            installer: "test".into(),
            token: None,
            disks: vec![],
        }
    }

    fn console(fingerprint: &str, nonce: &str, boot_id: &str) -> ConsoleIdentity {
        ConsoleIdentity {
            fingerprint: fingerprint.into(),
            nonce: nonce.into(),
            boot_id: boot_id.into(),
            address: "10.88.0.11".parse().unwrap(),
        }
    }

    #[test]
    fn only_the_very_boot_that_the_console_shows_is_confirmed() {
        let compared = |f, n, b| compare(&console(f, n, b), &report());
        assert!(matches!(compared("SHA256:f1", "n1", "b1"), Shown::Same));
        assert!(matches!(
            compared("SHA256:f2", "n1", "b1"),
            Shown::Impostor(_)
        ));
        assert!(matches!(
            compared("SHA256:f1", "n2", "b1"),
            Shown::Impostor(_)
        ));
        assert!(matches!(
            compared("SHA256:f1", "n1", "b2"),
            Shown::Impostor(_)
        ));
        assert!(matches!(
            compared("SHA256:f2", "n2", "b2"),
            Shown::OtherBoot(_)
        ));
    }
}
