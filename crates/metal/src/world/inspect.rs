//! Comparing a machine with the inventory.

use undercroft_model::{Failure, FailureKind, InstallerReport, PlannedDisk, System};
use undercroft_netboot::timeline::MarkKind;
use undercroft_steps as steps;

use super::{
    Done, Job,
    installer::{Installer, exit, refused},
};
use undercroft_journal::TimelineSource;
use undercroft_process::clock::wall_ms_now;

/// Compares the machine with the plan. It changes nothing, so that it is its own probe.
pub(super) async fn inspect(
    job: &Job<'_>,
    disks: &[PlannedDisk],
    system: System,
    memory_mb_min: u64,
) -> Done {
    let installer = Installer::of(job)?;
    if let Some(approval) = &job.order.facts.approval {
        steps::still_approved(approval, wall_ms_now())?;
    }
    let found = ask(&installer).await?;
    job.mark(
        TimelineSource::Ssh,
        MarkKind::SshReached,
        "connected under the approved key",
    );
    let wanted = steps::Wanted {
        node: job.node,
        disks,
        system,
        memory_mb_min,
    };
    Ok(steps::inspect(wanted, installer.boot_id(), &found)?)
}

/// Asks the machine what it is.
pub(super) async fn ask(installer: &Installer<'_>) -> Result<InstallerReport, Failure> {
    let output = installer.run(&["/undercroft/inspect"]).await?;
    if output.code != exit::DONE {
        return Err(refused(&output));
    }
    serde_json::from_str(&output.stdout).map_err(|e| {
        Failure::new(
            FailureKind::Permanent,
            format!("the installer's description of the machine can't be understood: {e}"),
        )
        .with_command(output.failed_command())
    })
}
