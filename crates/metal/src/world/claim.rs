//! Which of the reports in a machine's name are taken: the rule is [`AwaitedReport`]'s.

use undercroft_model::InstallerReport;
use undercroft_ssh::HostKey;
use undercroft_steps::AwaitedReport;

use super::job::Job;

/// Any boot's report of the machine that the job is about.
pub(super) fn of_any_boot<'j>(job: &'j Job<'_>) -> AwaitedReport<'j> {
    AwaitedReport::of_any_boot(job.node.identity())
}

/// Whether a report is taken.
pub(super) fn takes(awaited: &AwaitedReport<'_>, report: &InstallerReport) -> bool {
    awaited.refuses(report, has_its_key(report)).is_none()
}

/// Whether the report's fingerprint is that of its host key.
pub(super) fn has_its_key(report: &InstallerReport) -> bool {
    HostKey::parse_with_fingerprint(&report.host_key, &report.fingerprint).is_ok()
}
