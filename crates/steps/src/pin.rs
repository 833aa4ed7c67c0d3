//! Which installer may be connected to.

use undercroft_model::{Action, Approval, Failure, FailureKind, InstallerReport};

use crate::approval::still_approved;

/// How long an installer may be out of reach before its machine counts as gone, in milliseconds: longer than a switch
/// needs to bring a port up again, shorter than a machine needs to boot. Nothing is run while it is, so that trying again
/// is safe.
pub const SILENCE_MS_MAX: u64 = 60_000;
/// How long a command waits on the machine for the one before it to end, in milliseconds. An interrupted `mkfs` of a large
/// disk ends well within it.
pub const PREDECESSOR_WAIT_MS: u64 = 90_000;

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

impl Pinned<'_> {
    /// Whether a connection may be made now for a step that does that. The inspection makes the first one, on the
    /// approval's strength; later steps go to a key that was proved by then.
    ///
    /// # Errors
    /// When the approval isn't good any more for a first connection.
    pub fn may_connect(&self, action: &Action, wall_ms: u64) -> Result<(), Failure> {
        match action {
            Action::Inspect { .. } => still_approved(self.approval, wall_ms),
            _ => Ok(()),
        }
    }
}
