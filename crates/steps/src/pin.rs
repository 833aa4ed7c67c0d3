//! Which installer may be connected to.

use undercroft_model::{Approval, Failure, FailureKind, InstallerReport};

/// An installer that was approved: the key that it must show, and the boot that it must be in.
#[derive(Debug, Clone, Copy)]
pub struct Pinned<'a> {
    /// The report that was approved.
    pub report: &'a InstallerReport,
    /// The approval.
    pub approval: &'a Approval,
}

/// Pins the installer that a machine's steps stand on. What a report says is the word of whoever sent it; an approval
/// makes one key of it good.
///
/// # Errors
/// When none has reported in, or another was approved than has reported.
pub fn pin<'a>(
    report: Option<&'a InstallerReport>,
    approval: Option<&'a Approval>,
) -> Result<Pinned<'a>, Failure> {
    let lost = |message: String| Failure::new(FailureKind::PreconditionLost, message);
    let report =
        report.ok_or_else(|| lost("no installer of this machine has reported in".to_owned()))?;
    let approval =
        approval.ok_or_else(|| lost("the installer's fingerprint isn't approved".to_owned()))?;
    if approval.fingerprint != report.fingerprint {
        return Err(lost(format!(
            "{} was approved, and the installer reported {}",
            approval.fingerprint, report.fingerprint
        )));
    }
    Ok(Pinned { report, approval })
}
