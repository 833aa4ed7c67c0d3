//! Waiting until the fingerprint of one of those who claim to be a machine is confirmed.

use std::time::{Duration, Instant};

use tokio::time::timeout;
use undercroft_model::{
    Approval, ApprovalMode, Evidence, Failure, FailureKind, InstallerReport, Work,
};
use undercroft_netboot::timeline::MarkKind;

use super::{
    claim::{of_any_boot, takes},
    job::{Done, Job, Stop},
    progress::RunProgress,
};
use undercroft_journal::approval::APPROVAL_POLL_INTERVAL;
use undercroft_journal::{Alarm, AlarmKind, PendingReport, StoreError, TimelineSource};
use undercroft_process::clock::wall_ms_now;
use undercroft_rack::ConsoleIdentity;

/// How long a console may show what nobody has reported before that is worth a word. A machine that
/// has just booted anew reports within it; the installer repeats its console line every 10 seconds.
const CONSOLE_SETTLE: Duration = Duration::from_secs(45);
/// How long a probe listens for an installer that asks for an approval: it repeats its report every
/// 15 seconds.
const HEAR_WAIT: Duration = Duration::from_secs(20);

/// Waits until one of the reports in the machine's name is approved; a probe looks once. Nobody is
/// connected to before: what a report says is the word of whoever sent it.
pub(super) async fn wait(job: &Job<'_>, mode: ApprovalMode, expires_ms: u64, work: Work) -> Done {
    let mut told = Told::default();
    loop {
        let claims = claims(job);
        for report in &claims {
            if let Some(approval) = given(job, report, expires_ms)? {
                return approved(job, approval, report);
            }
        }
        if mode == ApprovalMode::Console {
            let facilities = &job.shared.parts.facilities;
            let shown = facilities.console_identity(job.name()).await?;
            let confirmed = |shown: &ConsoleIdentity| {
                let mut claims = claims.iter();
                claims.find(|report| is_same(shown, report)).cloned()
            };
            match shown.as_ref().map(|shown| (shown, confirmed(shown))) {
                Some((_, Some(report))) => {
                    let now = wall_ms_now();
                    let approval = Approval {
                        fingerprint: report.fingerprint.clone(),
                        by: facilities.console_name(job.name()),
                        granted_wall_ms: now,
                        expires_wall_ms: now.saturating_add(expires_ms),
                    };
                    return approved(job, approval, &report);
                }
                Some((shown, None)) => told.other(job, shown, &claims),
                None => {}
            }
        }
        if work == Work::Probe {
            return Err(not_approved(job, !claims.is_empty()).await);
        }
        told.waiting(job, mode, expires_ms, &claims)?;
        tokio::time::sleep(APPROVAL_POLL_INTERVAL).await;
    }
}

/// The reports in the machine's name that may be approved: those that are repeated, and the one
/// that the step began with until it is known whether it is.
fn claims(job: &Job<'_>) -> Vec<InstallerReport> {
    let mut claims: Vec<InstallerReport> = job
        .shared
        .reports
        .claims(job.name())
        .into_iter()
        .map(|claim| claim.report)
        .collect();
    if let Some(first) = &job.order.facts.report
        && job.started.elapsed() < super::reports::CLAIM_SILENCE
        && !claims
            .iter()
            .any(|claim| claim.fingerprint == first.fingerprint)
    {
        claims.push(first.clone());
    }
    let awaited = of_any_boot(job);
    claims.retain(|report| takes(&awaited, report));
    claims
}

/// What was said already while a step waits.
#[derive(Default)]
struct Told {
    waits_for: Vec<InstallerReport>,
    differs_since: Option<Instant>,
    differs: bool,
}

impl Told {
    /// Lists those who wait, where they have changed.
    fn waiting(
        &mut self,
        job: &Job<'_>,
        mode: ApprovalMode,
        expires_ms: u64,
        claims: &[InstallerReport],
    ) -> Result<(), Failure> {
        if self.waits_for == claims {
            return Ok(());
        }
        let pending: Vec<PendingReport> = claims
            .iter()
            .map(|report| PendingReport::new(job.name().clone(), report.clone(), wall_ms_now()))
            .collect();
        job.shared
            .store()
            .set_pending(job.name(), &pending)
            .map_err(store_failure)?;
        job.shared
            .store()
            .set_approval_term(job.name(), expires_ms)
            .map_err(store_failure)?;
        for report in claims {
            let known = |known: &InstallerReport| known.fingerprint == report.fingerprint;
            if self.waits_for.iter().any(known) || mode != ApprovalMode::Operator {
                continue;
            }
            job.note(
                TimelineSource::Controller,
                format!("waits for the approval of {}", report.fingerprint),
            );
            job.shared.tell(RunProgress::WaitsForApproval {
                node: job.name().clone(),
                fingerprint: report.fingerprint.clone(),
            });
        }
        self.waits_for = claims.to_vec();
        Ok(())
    }

    /// The console shows an installer that hasn't reported: soon it will, or others report in its
    /// place. Either way the machine itself is waited for.
    fn other(&mut self, job: &Job<'_>, shown: &ConsoleIdentity, claims: &[InstallerReport]) {
        let since = *self.differs_since.get_or_insert_with(Instant::now);
        if self.differs || since.elapsed() < CONSOLE_SETTLE {
            return;
        }
        let Some(report) = claims.first() else {
            return;
        };
        self.differs = true;
        let text = format!(
            "its console shows the fingerprint {} in the boot {} at {}, and {} was reported in the boot {} at {}",
            shown.fingerprint,
            shown.boot_id,
            shown.address,
            report.fingerprint,
            report.boot_id,
            report.address
        );
        job.note(TimelineSource::Controller, text.clone());
        let alarm = Alarm::new(AlarmKind::Console, report.address, text, wall_ms_now());
        // A help for people, as the timeline is.
        let _ = job.shared.store().note_alarm(Some(job.name()), &alarm);
    }
}

/// What a probe says where there is no approval: waiting on makes sense only while an installer
/// asks for it.
async fn not_approved(job: &Job<'_>, heard: bool) -> Stop {
    let reports = &job.shared.reports;
    let awaited = of_any_boot(job);
    let heard = heard && !reports.claims(job.name()).is_empty()
        || timeout(
            HEAR_WAIT,
            reports.wait(job.name(), |report| takes(&awaited, report)),
        )
        .await
        .is_ok();
    if heard {
        return Stop::NotDone;
    }
    Stop::Failed(
        Failure::new(
            FailureKind::Transient,
            "no installer of this machine asks for an approval any longer",
        )
        .with_hint("It has lost its power or its network, or was started from elsewhere: look at its screen."),
    )
}

fn approved(job: &Job<'_>, approval: Approval, report: &InstallerReport) -> Done {
    job.shared
        .store()
        .clear_pending(job.name())
        .map_err(store_failure)?;
    job.mark(
        TimelineSource::Controller,
        MarkKind::Approved,
        &format!("{} approved by {}", approval.fingerprint, approval.by),
    );
    let first = job.order.facts.report.as_ref();
    let report = (first != Some(report)).then(|| Box::new(report.clone()));
    Ok(Evidence::Approved { approval, report })
}

/// The approval that an operator has given from another process, if it is good now. One from the
/// future is of a clock that was set back since: when it ends can't be told.
fn given(
    job: &Job<'_>,
    report: &InstallerReport,
    expires_ms: u64,
) -> Result<Option<Approval>, Failure> {
    let now = wall_ms_now();
    let given = job
        .shared
        .store()
        .approval(job.name(), &report.fingerprint, now)
        .map_err(store_failure)?;
    let given = given.map(|approval| approval.within(expires_ms));
    Ok(given.filter(|approval| approval.is_good_at(now)))
}

/// Whether a console shows the very boot that was reported. A report without a token, or a console
/// without a word, is of an installer that knows of none.
fn is_same(console: &ConsoleIdentity, report: &InstallerReport) -> bool {
    let word = report
        .token
        .as_deref()
        .map(undercroft_netboot::token::word_of);
    console.fingerprint == report.fingerprint
        && console.nonce == report.nonce
        && console.boot_id == report.boot_id
        && (console.word.is_none() || word.is_none() || console.word == word)
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
            word: None,
        }
    }

    #[test]
    fn only_the_very_boot_that_the_console_shows_is_confirmed() {
        let same = |f, n, b| is_same(&console(f, n, b), &report());
        assert!(same("SHA256:f1", "n1", "b1"));
        assert!(!same("SHA256:f2", "n1", "b1"));
        assert!(!same("SHA256:f1", "n2", "b1"));
        assert!(!same("SHA256:f1", "n1", "b2"));
        let mut worded = console("SHA256:f1", "n1", "b1");
        worded.word = Some("lusab-babad".into());
        assert!(is_same(&worded, &report()));
        let mut tokened = report();
        tokened.token = Some("00".into());
        assert!(!is_same(&worded, &tokened), "the word of another script");
        worded.word = Some(undercroft_netboot::token::word_of("00"));
        assert!(is_same(&worded, &tokened));
    }
}
