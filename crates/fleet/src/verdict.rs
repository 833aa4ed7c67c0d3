//! What is the matter with one machine, and what comes next: one verdict for every command that
//! says so.

pub use undercroft_journal::PendingReport;
use undercroft_model::{
    NodeName,
    view::{NodeStatus, NodeView},
};
pub use undercroft_netboot::timeline::{Diagnosis, Missing};

/// A verdict on one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether all is well.
    pub good: bool,
    /// What is the matter.
    pub summary: String,
    /// What to do next; never empty.
    pub next: Vec<String>,
}

fn verdict(good: bool, summary: String, next: Vec<String>) -> Verdict {
    Verdict {
        good,
        summary,
        next,
    }
}

/// The verdict on a machine in whose name somebody waits.
fn approval(name: &NodeName, claims: usize, running: bool) -> Verdict {
    let who = match claims {
        1 => "An installer has reported in and waits for approval.".to_owned(),
        many => format!("{many} installers claim to be {name}; one of them at most is."),
    };
    let mut next = vec![format!(
        "compare with the machine's own screen, then `undercroft approve {name} FINGERPRINT`"
    )];
    if !running {
        next.push("`undercroft up`, which goes on with what was approved".to_owned());
    }
    verdict(false, who, next)
}

/// Where a machine is, or where it failed.
fn at(node: &NodeView) -> &str {
    let action = node.current.as_ref().map(|current| current.action.as_ref());
    let failed = node
        .failed
        .as_ref()
        .and_then(|failed| failed.action.as_deref());
    failed.or(action).unwrap_or("its first step")
}

/// Why a machine failed, and what to try.
fn why(node: &NodeView) -> (&str, Option<String>) {
    let failure = node.failed.as_ref().map(|failed| &failed.failure);
    let failure = failure.or(node.last_failure.as_ref());
    let message = failure.map_or("its step gave no reason", |f| f.message.as_str());
    (message, failure.and_then(|f| f.hint.clone()))
}

/// Judges a machine by those who wait in its name, by the journal, and only where these say nothing
/// by what was seen of its boot. `running` says whether a controller is at work.
pub fn judge(
    name: &NodeName,
    node: Option<&NodeView>,
    waiting: &[PendingReport],
    running: bool,
    diagnosis: &Diagnosis,
) -> Verdict {
    let claims = waiting.iter().filter(|waiting| waiting.node == *name);
    let claims = claims.count();
    if claims > 0 {
        return approval(name, claims, running);
    }
    let up = |what: &str| format!("`undercroft up --only {name}` {what}");
    match node.map(|node| (node, node.status)) {
        Some((_, NodeStatus::Done)) => verdict(
            true,
            "All its steps are done.".to_owned(),
            vec!["nothing".to_owned()],
        ),
        Some((node, NodeStatus::Quarantined)) => {
            let (message, hint) = why(node);
            let summary = format!("It was refused at {}: {message}.", at(node));
            let mut next = Vec::from_iter(hint);
            next.push(format!(
                "put right what it says; then {}",
                up("looks at the machine anew, as it is then")
            ));
            verdict(false, summary, next)
        }
        Some((node, NodeStatus::Failed)) => {
            let (message, hint) = why(node);
            let summary = format!("It failed at {}: {message}.", at(node));
            let mut next = Vec::from_iter(hint);
            next.push(up("tries it again"));
            verdict(false, summary, next)
        }
        Some((node, NodeStatus::Running | NodeStatus::Waiting)) if !running => verdict(
            false,
            format!("It is at {}, and no controller is at work.", at(node)),
            vec![
                "`undercroft up` goes on; an installer that still runs reports in again by itself"
                    .to_owned(),
            ],
        ),
        // What was seen of its boot says most while it boots, and what its steps do afterwards.
        Some((node, _)) if running && booted(diagnosis) => verdict(
            false,
            format!("It is at {}.", at(node)),
            vec![format!(
                "wait; `undercroft events --follow` shows how it goes on, and `undercroft status` what it waits for"
            )],
        ),
        _ => {
            let mut next = diagnosis.hints.clone();
            if !running {
                next.push(up("starts it and listens for it"));
            } else if next.is_empty() {
                next.push("wait: a controller is at work".to_owned());
            }
            let summary = if booted(diagnosis) {
                "Its installer has reported in, and nobody works on it now.".to_owned()
            } else {
                diagnosis.summary.clone()
            };
            verdict(false, summary, next)
        }
    }
}

/// Whether the machine's network boot is through, so that what it lacks is no packet.
fn booted(diagnosis: &Diagnosis) -> bool {
    matches!(diagnosis.missing, Missing::Nothing | Missing::Ssh)
}

#[cfg(test)]
mod tests {
    use super::*;
    use undercroft_model::{
        Entry, Failure, FailureKind, InstallerReport, Observation, Record, ReportedFirmware,
        StepId, System, SystemTarget, inventory, view::FleetView,
    };

    const RACK: &str = include_str!("../../../examples/rack/undercroft.toml");

    fn report() -> InstallerReport {
        InstallerReport {
            version: 1,
            nonce: String::new(),
            uuid: None,
            macs: vec![],
            address: "10.88.0.11".parse().unwrap(),
            boot_id: "b".into(),
            host_key: String::new(),
            fingerprint: "SHA256:f".into(),
            system: System::X86_64Linux,
            firmware: ReportedFirmware::Uefi,
            memory_mb: 1,
            installer: String::new(),
            token: None,
            disks: vec![],
        }
    }

    fn view() -> (NodeName, NodeView) {
        let inventory = inventory::parse("", RACK.as_bytes()).inventory.unwrap();
        let target = SystemTarget {
            toplevel: "/nix/store/00000000000000000000000000000000-system".into(),
            disko_script: None,
            disko_mount_script: None,
            disko_devices: None,
            system: System::X86_64Linux,
            closure_bytes: None,
        };
        let names = || inventory.nodes.keys().cloned();
        let observation = Observation {
            targets: names().map(|name| (name, Ok(target.clone()))).collect(),
            host_keys: names().map(|name| (name, "SHA256:f".into())).collect(),
            ..Observation::default()
        };
        let (plan, _) = undercroft_planner::plan(&inventory, &observation, None);
        let entry = Entry {
            seq: 0,
            wall_ms: 0,
            record: Record::PlanAccepted {
                plan: std::sync::Arc::new(plan),
            },
        };
        let view = FleetView::fold(&[entry]);
        let (name, node) = view.nodes.iter().next().unwrap();
        (name.clone(), node.clone())
    }

    #[test]
    fn every_state_has_one_verdict_and_a_next_step() {
        let (name, base) = view();
        let mut judged = 0;
        for status in [
            None,
            Some(NodeStatus::Planned),
            Some(NodeStatus::Running),
            Some(NodeStatus::Waiting),
            Some(NodeStatus::Done),
            Some(NodeStatus::Failed),
            Some(NodeStatus::Quarantined),
        ] {
            for missing in [
                Missing::Nothing,
                Missing::TooEarly,
                Missing::DhcpDiscover,
                Missing::Offer,
                Missing::BootFile,
                Missing::Request,
                Missing::BootRequest,
                Missing::BootFileEnd,
                Missing::BootScript,
                Missing::Kernel,
                Missing::Report,
                Missing::Ssh,
            ] {
                for (claims, running, failed) in [
                    (0, false, false),
                    (0, true, true),
                    (1, true, false),
                    (3, false, true),
                ] {
                    let mut node = base.clone();
                    if let Some(status) = status {
                        node.status = status;
                    }
                    if failed {
                        node.failed = Some(undercroft_model::view::Failed {
                            step: StepId(0),
                            action: Some("inspect".into()),
                            failure: Failure::new(FailureKind::Refused, "no disk with serial S1"),
                            wall_ms: 0,
                        });
                    }
                    let waiting: Vec<_> = (0..claims)
                        .map(|_| PendingReport::new(name.clone(), report(), 0))
                        .collect();
                    let diagnosis = Diagnosis {
                        missing,
                        summary: "The installer reported in and waits for approval.".into(),
                        hints: vec![],
                    };
                    let node = status.map(|_| &node);
                    let verdict = judge(&name, node, &waiting, running, &diagnosis);
                    let what = format!("{status:?} {missing:?} {claims} {running}: {verdict:?}");
                    assert!(!verdict.summary.is_empty(), "{what}");
                    assert!(verdict.next.iter().all(|next| !next.is_empty()), "{what}");
                    assert!(!verdict.next.is_empty(), "{what}");
                    let approves = verdict.next.iter().any(|next| next.contains("approve"));
                    assert_eq!(approves, claims > 0, "{what}");
                    let good = status == Some(NodeStatus::Done) && claims == 0;
                    assert_eq!(verdict.good, good, "{what}");
                    judged += 1;
                }
            }
        }
        assert_eq!(judged, 7 * 12 * 4);
    }
}
