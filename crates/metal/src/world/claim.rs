//! Which of the reports in a machine's name can be its own.

use undercroft_model::InstallerReport;
use undercroft_ssh::HostKey;

use super::job::Job;

/// Whether a report can be the machine's by what it says of itself.
pub(super) fn is_of(job: &Job<'_>, report: &InstallerReport) -> bool {
    let identity = job.node.identity();
    identity.refute(report.uuid, &report.macs).is_none()
}

/// The key of a report, where its fingerprint is the key's own.
pub(super) fn believable(
    report: &InstallerReport,
) -> Result<HostKey, undercroft_ssh::HostKeyError> {
    HostKey::parse_with_fingerprint(&report.host_key, &report.fingerprint)
}
