//! Whether evidence proves what it is given for. The journal keeps the verdict, not the claim.

use std::collections::BTreeSet;

use undercroft_model::{
    Action, Approval, ClusterRole, Evidence, Failure, FailureKind, InstallerReport, NodePlan,
    NotTheMachine, Now, Outcome, Step, Work,
};

use crate::NodeFacts;

/// What an operation's outcome comes to, after its evidence was compared with what is known.
pub(crate) fn judge(
    node: &NodePlan,
    step: &Step,
    work: Work,
    facts: &NodeFacts,
    outcome: Outcome,
    now: Now,
) -> Outcome {
    match outcome {
        Outcome::Done { evidence } => match refute(node, step, facts, &evidence, now) {
            None => Outcome::Done { evidence },
            Some(failure) => Outcome::Failed { failure },
        },
        Outcome::NotDone if work == Work::Act => Outcome::Failed {
            failure: Failure::new(FailureKind::Transient, "it ended without having been done"),
        },
        // Only a controller can orphan an operation; a world that says so doesn't know its outcome.
        Outcome::Orphaned => Outcome::Failed {
            failure: Failure::new(FailureKind::Ambiguous, "its outcome was lost"),
        },
        other => other,
    }
}

/// What speaks against evidence of a step; nothing, where it is proved.
fn refute(
    node: &NodePlan,
    step: &Step,
    facts: &NodeFacts,
    evidence: &Evidence,
    now: Now,
) -> Option<Failure> {
    match (&step.action, evidence) {
        (Action::NetworkBoot, Evidence::Seen { report }) => refute_report(node, report),
        (Action::Approve { .. }, Evidence::Approved { approval, report }) => {
            refute_approval(node, facts, approval, report.as_deref(), now)
        }
        (
            Action::Inspect { disks, .. },
            Evidence::Inspected {
                boot_id,
                disk_paths,
            },
        ) => same_boot(facts, boot_id).or_else(|| refute_devices(disks.len(), disk_paths)),
        (Action::Partition { .. }, Evidence::Partitioned { boot_id, .. })
        | (Action::CopyClosure { .. }, Evidence::Copied { boot_id, .. })
        | (Action::Install { .. }, Evidence::Installed { boot_id, .. }) => {
            same_boot(facts, boot_id)
        }
        (Action::Reboot { .. }, Evidence::Rebooted { boot_id }) => refute_reboot(facts, boot_id),
        (
            Action::Prove {
                toplevel,
                host_key_fingerprint,
            },
            Evidence::Up {
                booted_system,
                host_key_fingerprint: shown,
                boot_id,
            },
        ) => refute_key(host_key_fingerprint, shown)
            .or_else(|| refute_system(toplevel, booted_system))
            .or_else(|| still_the_installer(facts, boot_id)),
        (action, evidence) if action.updates() => refute_update(action, facts, evidence),
        (
            action @ (Action::FoundCluster | Action::JoinCluster { .. }),
            Evidence::Joined {
                boot_id,
                etcd_voters,
                ..
            },
        ) => installers(facts, boot_id).or_else(|| refute_membership(action, *etcd_voters)),
        (Action::AwaitReady { .. }, Evidence::Ready { boot_id, .. }) => installers(facts, boot_id),
        (Action::Bootstrap { part }, Evidence::Bootstrapped { part: shown, .. })
            if part == shown =>
        {
            None
        }
        (action, _) => Some(of_another_step(action)),
    }
}

/// The same of a machine that is updated.
fn refute_update(action: &Action, facts: &NodeFacts, evidence: &Evidence) -> Option<Failure> {
    match (action, evidence) {
        (Action::Fetch { .. }, Evidence::Fetched { .. })
        | (Action::Drain, Evidence::Drained { .. })
        | (Action::Stage { .. }, Evidence::Staged { .. })
        | (Action::Release, Evidence::Released { .. }) => None,
        (Action::Restart { .. }, Evidence::Restarted { boot_id }) => refute_restart(facts, boot_id),
        (
            Action::Confirm {
                toplevel,
                host_key_fingerprint,
            },
            Evidence::Up {
                booted_system,
                host_key_fingerprint: shown,
                boot_id,
            },
        ) => refute_key(host_key_fingerprint, shown)
            .or_else(|| refute_system(toplevel, booted_system))
            .or_else(|| refute_restart(facts, boot_id)),
        _ => Some(of_another_step(action)),
    }
}

fn of_another_step(action: &Action) -> Failure {
    let verb = action.verb();
    Failure::new(
        FailureKind::Permanent,
        format!("the evidence is of another step than {verb}"),
    )
}

fn refute_report(node: &NodePlan, report: &InstallerReport) -> Option<Failure> {
    let why = clash(node, report)?;
    Some(Failure::new(
        FailureKind::Refused,
        format!("the installer's report {why}"),
    ))
}

/// `report` is the one that was approved, where it isn't the one that the step began with.
fn refute_approval(
    node: &NodePlan,
    facts: &NodeFacts,
    approval: &Approval,
    report: Option<&InstallerReport>,
    now: Now,
) -> Option<Failure> {
    let transient = |message: String| Some(Failure::new(FailureKind::Transient, message));
    if let Some(why) = report.and_then(|report| clash(node, report)) {
        return transient(format!("the report of the approved installer {why}"));
    }
    let reported = report
        .or(facts.report.as_ref())
        .map(|report| report.fingerprint.as_str());
    if reported != Some(approval.fingerprint.as_str()) {
        return transient(format!(
            "the approval is for {}, and the installer reported {}",
            approval.fingerprint,
            reported.unwrap_or("nothing")
        ));
    }
    if expired(approval, now, None) {
        return transient("the approval had run out when it arrived".to_owned());
    }
    None
}

/// Each planned disk needs a device of its own.
fn refute_devices(planned: usize, found: &[String]) -> Option<Failure> {
    let distinct = found.iter().collect::<BTreeSet<_>>().len();
    (found.len() != planned || distinct != planned).then(|| {
        Failure::new(
            FailureKind::Refused,
            format!("{planned} disks are planned, and {distinct} devices were found for them"),
        )
    })
}

fn refute_reboot(facts: &NodeFacts, boot_id: &str) -> Option<Failure> {
    is_installers_boot(facts, boot_id).then(|| {
        Failure::new(
            FailureKind::Transient,
            format!("the machine still shows the installer's boot id {boot_id}"),
        )
    })
}

/// Only in another boot than the one in which it was staged can a machine run what was staged.
fn refute_restart(facts: &NodeFacts, boot_id: &str) -> Option<Failure> {
    match facts.staged_boot_id.as_deref() {
        Some(staged) if staged != boot_id => None,
        Some(staged) => Some(Failure::new(
            FailureKind::Transient,
            format!("the machine still shows the boot id {staged}, in which its system was staged"),
        )),
        None => Some(Failure::new(
            FailureKind::PreconditionLost,
            "nobody knows in which boot its system was staged",
        )),
    }
}

fn refute_key(planned: &str, shown: &str) -> Option<Failure> {
    (shown != planned).then(|| {
        Failure::new(
            FailureKind::Refused,
            format!("it showed the host key {shown}, not {planned}"),
        )
    })
}

fn refute_system(planned: &str, booted: &str) -> Option<Failure> {
    (booted != planned).then(|| {
        Failure::new(
            FailureKind::Permanent,
            format!("it booted {booted}, not {planned}"),
        )
    })
}

fn still_the_installer(facts: &NodeFacts, boot_id: &str) -> Option<Failure> {
    is_installers_boot(facts, boot_id).then(|| {
        Failure::new(
            FailureKind::PreconditionLost,
            format!("it shows the installer's boot id {boot_id}"),
        )
    })
}

/// A server has joined only when etcd has a member that votes.
fn refute_membership(action: &Action, etcd_voters: u32) -> Option<Failure> {
    let server = matches!(
        action,
        Action::FoundCluster
            | Action::JoinCluster {
                role: ClusterRole::Server,
                ..
            }
    );
    (server && etcd_voters == 0).then(|| {
        Failure::new(
            FailureKind::Transient,
            "it has registered, and etcd has no member that votes",
        )
    })
}

/// Whether a boot is that of the installer which the machine's steps stand on.
fn is_installers_boot(facts: &NodeFacts, boot_id: &str) -> bool {
    let installer = facts.report.as_ref().map(|report| report.boot_id.as_str());
    installer == Some(boot_id)
}

/// No installer has a kubelet: a boot that was its own can't be the cluster's member.
fn installers(facts: &NodeFacts, boot_id: &str) -> Option<Failure> {
    is_installers_boot(facts, boot_id).then(|| {
        Failure::new(
            FailureKind::Transient,
            format!("the cluster names the installer's boot id {boot_id}"),
        )
    })
}

/// Everything up to the reboot must be seen in the boot whose fingerprint was approved.
fn same_boot(facts: &NodeFacts, boot_id: &str) -> Option<Failure> {
    let approved = facts.report.as_ref().map(|r| r.boot_id.as_str());
    (approved != Some(boot_id)).then(|| {
        Failure::new(
            FailureKind::PreconditionLost,
            format!(
                "the machine shows boot id {boot_id}, and {} was approved",
                approved.unwrap_or("none")
            ),
        )
    })
}

/// Why a report can't be this machine's, if it can't.
pub(crate) fn clash(node: &NodePlan, report: &InstallerReport) -> Option<NotTheMachine> {
    node.identity().refute(report.uuid, &report.macs)
}

/// Whether the first connection may no longer be made on an approval's strength. The wall clock
/// may have jumped either way; where this process saw the approval arrive (`seen_mono_ms`), the
/// clock that doesn't jump decides as well.
pub(crate) fn expired(approval: &Approval, now: Now, seen_mono_ms: Option<u64>) -> bool {
    let good_for_ms = approval
        .expires_wall_ms
        .saturating_sub(approval.granted_wall_ms);
    let elapsed = |seen: u64| now.mono_ms.saturating_sub(seen) >= good_for_ms;
    !approval.is_good_at(now.wall_ms) || seen_mono_ms.is_some_and(elapsed)
}

#[cfg(test)]
mod tests;
