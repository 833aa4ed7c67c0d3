//! Reports of installers that come whether a step waits for one or not.

use undercroft_model::{
    Failure, FailureKind, InstallerReport, NodeName, NodeState, Record, Step, Work,
};

use crate::{Effect, Engine, engine::record, evidence, schedule::NodeIndex};

/// How many reports of one machine's are quarantined in one run. Anybody on the boot network can
/// send reports; the first few say what there is to say, and the journal must not grow by them.
const QUARANTINED_MAX: u32 = 8;

/// What a report means for the steps that stand on an earlier one.
enum Meaning {
    /// Nothing: it is the same boot's, or a late one of an earlier boot.
    Nothing,
    /// The machine has booted its installer anew: what was done to the memory of the former one is
    /// gone, and its key.
    NewBoot,
    /// It is not to be believed, for that reason.
    Clash(String),
}

impl Engine {
    /// A report is a claim: it can take a machine back to its network boot, where a new approval
    /// is needed, and it can be quarantined. It never takes a machine forward.
    pub(crate) fn reported(
        &mut self,
        name: &NodeName,
        report: InstallerReport,
        out: &mut Vec<Effect>,
    ) {
        let Ok(n) = self.nodes.binary_search_by(|node| node.name.cmp(name)) else {
            return;
        };
        match self.meaning(n, &report) {
            Meaning::Nothing => {}
            Meaning::Clash(reason) => self.quarantine(n, report, reason, out),
            Meaning::NewBoot => {
                let failure = Failure::new(
                    FailureKind::PreconditionLost,
                    format!(
                        "the machine has booted its installer anew: {}",
                        report.boot_id
                    ),
                );
                let plan = std::sync::Arc::clone(&self.plan);
                let Some(step) = self
                    .nodes
                    .get(n)
                    .and_then(|node| plan.step(self.current(node)?.id))
                else {
                    return;
                };
                self.call_off(n, &failure, out);
                self.restart(n, step, failure, out);
                // The new installer is there already: look before the machine is reset for it.
                if let Some(node) = self.nodes.get_mut(n) {
                    node.progress.next = Work::Probe;
                }
            }
        }
    }

    fn meaning(&self, n: NodeIndex, report: &InstallerReport) -> Meaning {
        let Some((node, planned)) = self
            .nodes
            .get(n)
            .and_then(|node| Some((node, self.plan.nodes.get(&node.name)?)))
        else {
            return Meaning::Nothing;
        };
        let progress = &node.progress;
        if !self.begun || progress.failed.is_some() || self.current(node).is_none() {
            return Meaning::Nothing;
        }
        let beyond = |step: &Step| step.requires >= NodeState::Up;
        if self.current(node).is_some_and(beyond) {
            // The machine runs its own system as far as is known. Its steps ask it under its own
            // key, and need nobody's word for it: a report could be anybody's.
            return Meaning::Nothing;
        }
        if let Some(why) = evidence::clash(planned, report) {
            return Meaning::Clash(format!("the report {why}"));
        }
        let Some(known) = &progress.facts.report else {
            return Meaning::Nothing;
        };
        let same_key = known.fingerprint == report.fingerprint;
        if known.boot_id == report.boot_id {
            if same_key {
                Meaning::Nothing
            } else {
                Meaning::Clash(format!(
                    "it claims the boot {} with another key than {}",
                    known.boot_id, known.fingerprint
                ))
            }
        } else if progress.past_boots.contains(&report.boot_id) {
            Meaning::Nothing
        } else if same_key {
            Meaning::Clash(format!(
                "it claims the key of the boot {}, and a key is made anew at each boot",
                known.boot_id
            ))
        } else {
            Meaning::NewBoot
        }
    }

    fn quarantine(
        &mut self,
        n: NodeIndex,
        report: InstallerReport,
        reason: String,
        out: &mut Vec<Effect>,
    ) {
        let Some(node) = self.nodes.get_mut(n) else {
            return;
        };
        if node.progress.quarantined >= QUARANTINED_MAX {
            return;
        }
        node.progress.quarantined += 1;
        record(
            out,
            Record::Quarantined {
                node: node.name.clone(),
                report: Box::new(report),
                reason,
            },
        );
    }
}
