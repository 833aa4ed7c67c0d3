//! The journal in sentences, one a record.

use std::sync::Arc;

use undercroft_model::{
    Action, BootstrapPart, Entry, Evidence, Failure, FailureKind, NodeName, Outcome, Plan, Record,
    RunEnd, Step, StepId, Work,
    text::visible_line,
    view::FleetView,
    words::{bytes, count, duration, list},
};

/// How a sentence is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Something begins.
    Begin,
    /// Something is done.
    Good,
    /// To be looked at; work goes on.
    Warn,
    /// Something has failed for good.
    Bad,
    /// None of these.
    Note,
}

/// A record in a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentence {
    /// The machine that it is about.
    pub node: Option<NodeName>,
    /// The sentence, without the machine's name; one line, fit for a terminal.
    pub text: String,
    /// How to take it.
    pub tone: Tone,
}

impl Sentence {
    fn of(node: &NodeName, tone: Tone, text: impl Into<String>) -> Self {
        Self {
            node: Some(node.clone()),
            text: text.into(),
            tone,
        }
    }

    fn all(tone: Tone, text: impl Into<String>) -> Self {
        Self {
            node: None,
            text: text.into(),
            tone,
        }
    }
}

/// Tells records in the order of the journal; it remembers the plan that they speak of.
#[derive(Debug, Default)]
pub struct Narrator {
    plan: Option<Arc<Plan>>,
}

impl Narrator {
    /// Takes note of what was there before the records that are told.
    pub fn past(&mut self, view: &FleetView) {
        self.plan = view.shared_plan().cloned();
    }

    /// The sentence for the next record.
    pub fn tell(&mut self, entry: &Entry) -> Sentence {
        let sentence = self.sentence(&entry.record);
        if let Record::PlanAccepted { plan } = &entry.record {
            self.plan = Some(Arc::clone(plan));
        }
        // Reports come from whoever can reach the boot network.
        Sentence {
            text: visible_line(&sentence.text.replace(['\n', '\t'], " ")),
            ..sentence
        }
    }

    fn step(&self, id: StepId) -> Option<&Step> {
        self.plan.as_ref()?.step(id)
    }

    fn sentence(&self, record: &Record) -> Sentence {
        match record {
            Record::Opened { fleet, version } => Sentence::all(
                Tone::Note,
                format!("the journal of {fleet} begins (version {version})"),
            ),
            Record::PlanAccepted { plan } => Sentence::all(
                Tone::Note,
                format!(
                    "plan {} accepted: {}, {}",
                    short(&plan.id.0),
                    count(plan.nodes.len(), "machine"),
                    count(plan.steps.len(), "step"),
                ),
            ),
            Record::RunStarted { plan, undercroft } => Sentence::all(
                Tone::Note,
                format!(
                    "undercroft {undercroft} carries out plan {}",
                    short(&plan.0)
                ),
            ),
            Record::OpStarted {
                step,
                work,
                attempt,
                ..
            } => self.about(*step, |step| started(step, *work, *attempt)),
            Record::OpEnded { step, outcome, .. } => self.about(*step, |step| ended(step, outcome)),
            Record::NodeRestarted {
                node,
                from,
                failure,
                count,
            } => {
                let from = self
                    .step(*from)
                    .map_or("its first step", |step| step.action.verb());
                Sentence::of(
                    node,
                    Tone::Warn,
                    format!(
                        "begins again at {from} ({count}. time): {}",
                        failure.message
                    ),
                )
            }
            Record::NodeFailed {
                node,
                step,
                failure,
            } => {
                let verb = self.step(*step).map_or("a step", |step| step.action.verb());
                Sentence::of(
                    node,
                    Tone::Bad,
                    format!("gave up at {verb}: {}", why(failure)),
                )
            }
            Record::Quarantined {
                node,
                reason,
                report,
            } => Sentence::of(
                node,
                Tone::Bad,
                format!(
                    "quarantined: an installer with fingerprint {} at {} took its place: {reason}",
                    report.fingerprint, report.address
                ),
            ),
            Record::RolloutStopped {
                failed,
                failure_budget,
            } => Sentence::all(
                Tone::Bad,
                format!(
                    "no further machine is begun: {failed} failed, and {failure_budget} may \
                     (fleet.limits.failure_budget)"
                ),
            ),
            Record::RunEnded { end } => match end {
                RunEnd::Complete => Sentence::all(Tone::Good, "the plan is carried out"),
                RunEnd::Incomplete => Sentence::all(
                    Tone::Bad,
                    "nothing more can be done now, and some machines aren't up",
                ),
                RunEnd::Interrupted => {
                    Sentence::all(Tone::Warn, "interrupted; `undercroft up` goes on from here")
                }
            },
        }
    }

    fn about(&self, id: StepId, tell: impl FnOnce(&Step) -> Sentence) -> Sentence {
        match self.step(id) {
            Some(step) => tell(step),
            None => Sentence::all(
                Tone::Warn,
                format!("step {} of a plan that the journal doesn't hold", id.0),
            ),
        }
    }
}

fn started(step: &Step, work: Work, attempt: u32) -> Sentence {
    let verb = step.action.verb();
    let mut text = match work {
        Work::Probe => format!("{verb}: looking whether it is done already"),
        Work::Act => match &step.action {
            Action::NetworkBoot => format!("{verb}: starting it from the network"),
            Action::Approve { .. } => format!("{verb}: waiting for its fingerprint to be approved"),
            Action::Inspect { .. } => format!("{verb}: comparing it with the inventory"),
            Action::Partition { layout, .. } => {
                let disks: Vec<String> = step.destroys.iter().map(ToString::to_string).collect();
                format!("{verb}: laying out {layout} on {}", list(&disks))
            }
            Action::CopyClosure { closure_bytes, .. } => match closure_bytes {
                Some(size) => format!("{verb}: sending the system, {}", bytes(*size)),
                None => format!("{verb}: sending the system"),
            },
            Action::Install { .. } => format!("{verb}: host key, profile and boot loader"),
            Action::Reboot { .. } => format!("{verb}: into the installed system"),
            Action::Prove { .. } => format!("{verb}: does it run what was built?"),
            Action::Fetch { closure_bytes, .. } => match closure_bytes {
                Some(size) => format!("{verb}: what it lacks of {}", bytes(*size)),
                None => format!("{verb}: what it lacks of its new system"),
            },
            Action::Drain => format!("{verb}: closing it for further pods and evicting its own"),
            Action::Stage { .. } => format!("{verb}: making its new system the next one to boot"),
            Action::Restart { .. } => format!("{verb}: into its new system"),
            Action::Confirm { .. } => {
                format!("{verb}: waiting until it says that it is well with its new system")
            }
            Action::Release => format!("{verb}: opening it for pods again"),
            Action::FoundCluster => format!("{verb}: starting the cluster's first server"),
            Action::JoinCluster {
                role,
                replaces: true,
            } => format!("{verb}: as {role}, in place of what it was before"),
            Action::JoinCluster { role, .. } => format!("{verb}: as {role}"),
            Action::AwaitReady { .. } => format!("{verb}: waiting until Kubernetes calls it Ready"),
            Action::Bootstrap { part } => match part {
                BootstrapPart::Network => format!("{verb}: bringing in the network of the pods"),
                BootstrapPart::Secrets => format!("{verb}: bringing in the cluster's secrets"),
                BootstrapPart::ArgoCd => format!("{verb}: bringing in Argo CD"),
                BootstrapPart::RootApp => format!("{verb}: waiting for the root application"),
            },
        },
    };
    if attempt > 1 {
        text.push_str(&format!(" (try {attempt} of {})", step.retry.attempts_max));
    }
    Sentence::of(&step.node, Tone::Begin, text)
}

fn ended(step: &Step, outcome: &Outcome) -> Sentence {
    let verb = step.action.verb();
    match outcome {
        Outcome::Done { evidence } => {
            let tone = match evidence {
                Evidence::Up { .. }
                | Evidence::Ready { .. }
                | Evidence::Bootstrapped {
                    part: BootstrapPart::RootApp,
                    ..
                } => Tone::Good,
                _ => Tone::Note,
            };
            Sentence::of(&step.node, tone, proof(evidence))
        }
        Outcome::NotDone => Sentence::of(&step.node, Tone::Begin, format!("{verb}: not done yet")),
        Outcome::Failed { failure } => Sentence::of(
            &step.node,
            match failure.kind {
                FailureKind::Refused | FailureKind::Refuted | FailureKind::Permanent => Tone::Bad,
                _ => Tone::Warn,
            },
            format!("{verb} failed: {}", why(failure)),
        ),
        Outcome::TimedOut => Sentence::of(
            &step.node,
            Tone::Warn,
            format!(
                "{verb} took longer than {} and was called off",
                duration(step.timeout_ms)
            ),
        ),
        Outcome::Orphaned => Sentence::of(
            &step.node,
            Tone::Warn,
            format!("{verb} was under way when undercroft ended"),
        ),
    }
}

fn proof(evidence: &Evidence) -> String {
    match evidence {
        Evidence::Seen { report } => format!(
            "seen: its installer runs at {} with fingerprint {}",
            report.address, report.fingerprint
        ),
        Evidence::Approved { approval, .. } => {
            format!("approved: {} by {}", approval.fingerprint, approval.by)
        }
        Evidence::Inspected { disk_paths, .. } => {
            if disk_paths.is_empty() {
                "installer-ready: it is the machine that is meant".to_owned()
            } else {
                format!(
                    "installer-ready: it is the machine that is meant, with {}",
                    list(disk_paths)
                )
            }
        }
        Evidence::Partitioned { wiped: true, .. } => "partitioned".to_owned(),
        Evidence::Partitioned { wiped: false, .. } => {
            "partitioned: this plan's layout was there, nothing was wiped".to_owned()
        }
        Evidence::Copied { closure_bytes, .. } => format!("copied: {}", bytes(*closure_bytes)),
        Evidence::Installed { default_entry, .. } => {
            format!("installed: the boot loader's default is {default_entry}")
        }
        Evidence::Rebooted { boot_id } => format!("rebooted: boot {boot_id}"),
        Evidence::Fetched { .. }
        | Evidence::Drained { .. }
        | Evidence::Staged { .. }
        | Evidence::Restarted { .. }
        | Evidence::Released { .. } => proof_of_update(evidence),
        Evidence::Up {
            booted_system,
            host_key_fingerprint,
            ..
        } => format!("up: it runs {booted_system} under host key {host_key_fingerprint}"),
        Evidence::Joined { etcd_voters: 0, .. } => "joined: its kubelet has registered".to_owned(),
        Evidence::Joined { etcd_voters: 1, .. } => {
            "joined: its API answers, and it is etcd's one member".to_owned()
        }
        Evidence::Joined { etcd_voters, .. } => {
            format!("joined: its kubelet has registered, and etcd has {etcd_voters} members")
        }
        Evidence::Ready {
            kubelet_version, ..
        } => format!("ready: kubelet {kubelet_version}"),
        Evidence::Bootstrapped { part, shown } => {
            let state = match part {
                BootstrapPart::Network => "networked",
                BootstrapPart::Secrets => "secrets-ready",
                BootstrapPart::ArgoCd => "argocd-ready",
                BootstrapPart::RootApp => "synced",
            };
            format!("{state}: {shown}")
        }
    }
}

fn proof_of_update(evidence: &Evidence) -> String {
    match evidence {
        Evidence::Fetched { .. } => "fetched: its store has the new system".to_owned(),
        Evidence::Drained { evicted: 1 } => "drained: 1 pod was evicted".to_owned(),
        Evidence::Drained { evicted } => format!("drained: {evicted} pods were evicted"),
        Evidence::Staged {
            goes_back_to: Some(system),
            ..
        } => format!(
            "staged: it tries its new system once, and goes back to {system} where it isn't well"
        ),
        Evidence::Staged {
            goes_back_to: None, ..
        } => "staged: its new system is what it boots from now on".to_owned(),
        Evidence::Restarted { boot_id } => format!("restarted: boot {boot_id}"),
        Evidence::Released {
            still_closed: false,
        } => "released: it takes pods again".to_owned(),
        Evidence::Released { still_closed: true } => {
            "released: it stays closed for pods, as somebody else wants it".to_owned()
        }
        _ => String::new(),
    }
}

/// A failure in one line: what, by which command, what to try.
fn why(failure: &Failure) -> String {
    let mut text = failure.message.clone();
    if let Some(command) = &failure.command {
        let exit = command.exit_code.map_or_else(
            || "was ended".to_owned(),
            |code| format!("exit code {code}"),
        );
        text.push_str(&format!(" (`{}`: {exit})", command.command));
    }
    if let Some(hint) = &failure.hint {
        text.push_str(&format!(". {hint}"));
    }
    text
}

/// The first digits of a digest, as many as tell plans apart for a person.
pub fn short(digest: &str) -> &str {
    digest.get(..10).unwrap_or(digest)
}

#[cfg(test)]
mod tests;
