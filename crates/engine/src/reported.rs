//! Reports of installers that come whether a step waits for one or not.

use undercroft_model::{Action, InstallerReport, NodeName, NodeState, Record, Step, Work};

use crate::{
    Effect, Engine,
    engine::{NodePhase, record},
    evidence,
    schedule::NodeIndex,
};

/// How many reports of one machine's are quarantined in one run. Anybody on the boot network can
/// send reports; the first few say what there is to say, and the journal must not grow by them.
const QUARANTINED_MAX: u32 = 8;

/// What a report means for the steps that stand on an earlier one.
enum Meaning {
    /// Nothing: it is the same boot's, or a late one of an earlier boot.
    Nothing,
    /// Somebody says that the machine has booted its installer anew. If that is so, what was done
    /// to the memory of the former one is gone, and its key.
    NewBoot,
    /// It is not to be believed, for that reason.
    Clash(String),
}

impl Engine {
    /// A report is a hint, and anybody on the boot network can send one: it takes a machine neither
    /// forward nor back, calls off nothing, spends no try and no restart, and fails nothing. What
    /// has become of a machine is found out under the key that is pinned; all that a report can do
    /// is to have a look that is due anyway taken now.
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
            Meaning::NewBoot => self.look_now(n),
        }
    }

    /// Takes a look that a machine waits to be given without its wait, once for each step: never
    /// the last of those that may fail to tell, so that no hint brings a restart nearer.
    fn look_now(&mut self, n: NodeIndex) {
        let Some((id, tries)) = self
            .current(n)
            // Before the first connection nothing is pinned that could be looked at.
            .filter(|step| !matches!(step.action, Action::Inspect { .. }))
            .map(|step| (step.id, step.retry.attempts_max))
        else {
            return;
        };
        let Some(node) = self.nodes.get_mut(n) else {
            return;
        };
        let spare = node.progress.inconclusive_probes.saturating_add(1) < tries;
        if let NodePhase::Backoff(at) = node.phase
            && node.progress.next == Work::Probe
            && node.hinted != Some(id)
            && spare
        {
            node.hinted = Some(id);
            self.timers.remove(&(at, n));
            node.phase = NodePhase::Idle;
            self.todo.push_back(n);
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
        if !self.begun || progress.failed.is_some() || self.current(n).is_none() {
            return Meaning::Nothing;
        }
        let beyond = |step: &Step| step.requires >= NodeState::Up;
        if self.current(n).is_some_and(beyond) {
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
