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

fn refute(
    node: &NodePlan,
    step: &Step,
    facts: &NodeFacts,
    evidence: &Evidence,
    now: Now,
) -> Option<Failure> {
    match (&step.action, evidence) {
        (Action::NetworkBoot, Evidence::Seen { report }) => clash(node, report).map(|why| {
            Failure::new(
                FailureKind::Refused,
                format!("the installer's report {why}"),
            )
        }),
        (Action::Approve { .. }, Evidence::Approved { approval, report }) => {
            if let Some(why) = report.as_ref().and_then(|report| clash(node, report)) {
                return Some(Failure::new(
                    FailureKind::Transient,
                    format!("the report of the approved installer {why}"),
                ));
            }
            let wanted = report.as_deref().or(facts.report.as_ref());
            let wanted = wanted.map(|r| r.fingerprint.as_str());
            if wanted != Some(approval.fingerprint.as_str()) {
                return Some(Failure::new(
                    FailureKind::Transient,
                    format!(
                        "the approval is for {}, and the installer reported {}",
                        approval.fingerprint,
                        wanted.unwrap_or("nothing")
                    ),
                ));
            }
            expired(approval, now, None).then(|| {
                Failure::new(
                    FailureKind::Transient,
                    "the approval had run out when it arrived",
                )
            })
        }
        (
            Action::Inspect { disks, .. },
            Evidence::Inspected {
                boot_id,
                disk_paths,
            },
        ) => same_boot(facts, boot_id).or_else(|| {
            let distinct: BTreeSet<&String> = disk_paths.iter().collect();
            (disk_paths.len() != disks.len() || distinct.len() != disks.len()).then(|| {
                Failure::new(
                    FailureKind::Refused,
                    format!(
                        "{} disks are planned, and {} devices were found for them",
                        disks.len(),
                        distinct.len()
                    ),
                )
            })
        }),
        (Action::Partition { .. }, Evidence::Partitioned { boot_id, .. })
        | (Action::CopyClosure { .. }, Evidence::Copied { boot_id, .. })
        | (Action::Install { .. }, Evidence::Installed { boot_id, .. }) => {
            same_boot(facts, boot_id)
        }
        (Action::Reboot { .. }, Evidence::Rebooted { boot_id }) => {
            let installer = facts.report.as_ref().map(|r| r.boot_id.as_str());
            (installer == Some(boot_id.as_str())).then(|| {
                Failure::new(
                    FailureKind::Transient,
                    format!("the machine still shows the installer's boot id {boot_id}"),
                )
            })
        }
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
        ) => {
            let installer = facts.report.as_ref().map(|r| r.boot_id.as_str());
            if shown != host_key_fingerprint {
                Some(Failure::new(
                    FailureKind::Refused,
                    format!("it showed the host key {shown}, not {host_key_fingerprint}"),
                ))
            } else if booted_system != toplevel {
                Some(Failure::new(
                    FailureKind::Permanent,
                    format!("it booted {booted_system}, not {toplevel}"),
                ))
            } else if installer == Some(boot_id.as_str()) {
                Some(Failure::new(
                    FailureKind::PreconditionLost,
                    format!("it shows the installer's boot id {boot_id}"),
                ))
            } else {
                None
            }
        }
        (
            Action::FoundCluster | Action::JoinCluster { .. },
            Evidence::Joined {
                boot_id,
                etcd_voters,
                ..
            },
        ) => installers(facts, boot_id).or_else(|| {
            let server = matches!(
                step.action,
                Action::FoundCluster
                    | Action::JoinCluster {
                        role: ClusterRole::Server,
                        ..
                    }
            );
            (server && *etcd_voters == 0).then(|| {
                Failure::new(
                    FailureKind::Transient,
                    "it has registered, and etcd has no member that votes",
                )
            })
        }),
        (Action::AwaitReady { .. }, Evidence::Ready { boot_id, .. }) => installers(facts, boot_id),
        (Action::Bootstrap { part }, Evidence::Bootstrapped { part: shown, .. })
            if part == shown =>
        {
            None
        }
        _ => Some(Failure::new(
            FailureKind::Permanent,
            format!(
                "the evidence is of another step than {}",
                step.action.verb()
            ),
        )),
    }
}

/// No installer has a kubelet: a boot that was its own can't be the cluster's member.
fn installers(facts: &NodeFacts, boot_id: &str) -> Option<Failure> {
    let installer = facts.report.as_ref().map(|r| r.boot_id.as_str());
    (installer == Some(boot_id)).then(|| {
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
