//! Where a service stands: written by its rounds, read by all who tell of it.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::watch, time::Instant};
use undercroft_journal::{AlarmKind, Store};
use undercroft_model::{
    Entry, NodeName, NodeState,
    inventory::Inventory,
    text::visible_line,
    view::{self, FleetView},
};
use undercroft_planner::{
    Rounds, Waiting, Waits,
    drift::{DriftKind, DriftReport},
};

use crate::{documents::installed_state, pulse::Pulse};

/// Machines that a sentence names; of the others it says how many they are.
const NAMED_MAX: usize = 3;
/// What a machine waits for that an installer was heard of and nobody has approved.
pub(crate) const APPROVAL: &str = "approval";

/// What a service is about, in one word.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Default,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Course {
    /// Nothing is decided yet.
    #[default]
    Starting,
    /// Everything that is asked for is as it should be.
    Well,
    /// A plan is carried out.
    Working,
    /// Nothing can be done now, and not all is well.
    Waiting,
    /// The latest round could not be done.
    Failing,
}

impl Course {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Starting,
        Self::Well,
        Self::Working,
        Self::Waiting,
        Self::Failing,
    ];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Well => "well",
            Self::Working => "working",
            Self::Waiting => "waiting",
            Self::Failing => "failing",
        }
    }
}

/// What is known after the latest part of a round.
#[derive(Debug, Clone, Default)]
pub(crate) struct Standing {
    pub(crate) course: Course,
    /// Of the latest decision or failure.
    pub(crate) sentence: String,
    /// The machines that are left alone, by the latest decision.
    pub(crate) waits: Waits,
    pub(crate) inventory: Option<Arc<Inventory>>,
    /// Rounds that have ended, and how many of them could not be done.
    pub(crate) rounds: u64,
    pub(crate) rounds_failed: u64,
    /// Rounds that could not be done, in a row.
    pub(crate) failures: u32,
    /// When the latest round was done.
    pub(crate) good_at: Option<Instant>,
    /// Machines whose systems can't be built now, and builds that have failed in all.
    pub(crate) builds_failing: u64,
    pub(crate) builds_failed: u64,
    /// Promises that the engine broke.
    pub(crate) faults: u64,
    /// Senders that were seen at work on the boot network within a day, by kind.
    pub(crate) alarms: BTreeMap<AlarmKind, u64>,
    /// Size of the journal's files.
    pub(crate) journal_bytes: u64,
    /// What has drifted by kind, by the latest look that could be taken in; nothing before the first.
    pub(crate) drift: BTreeMap<DriftKind, u64>,
    /// Findings that are held, and parts that could not be seen.
    pub(crate) drift_held: u64,
    pub(crate) drift_unseen: u64,
}

/// A machine that isn't gone on with.
#[derive(
    Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub struct ToldWait {
    /// The machine.
    pub node: NodeName,
    /// What for, in a word: `approval`, or why a plan leaves it alone.
    #[serde(rename = "for")]
    pub waits_for: String,
    /// The same in a sentence.
    pub reason: String,
}

/// What is told of a service at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) course: Course,
    /// One sentence: why nothing moves, or what does.
    pub(crate) sentence: String,
    pub(crate) waits: Vec<ToldWait>,
    /// What has drifted, by the words of its kinds; kinds of which nothing has aren't there.
    pub(crate) drift: BTreeMap<String, u64>,
}

/// Where the rounds write down how they stand.
#[derive(Debug)]
pub(crate) struct Board {
    /// When the service was started.
    pub(crate) began: Instant,
    standing: watch::Sender<Standing>,
    /// What the journal says, up to its latest entry also while a plan is carried out.
    view: Mutex<FleetView>,
    pub(crate) pulse: Pulse,
}

impl Default for Board {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            standing: watch::Sender::default(),
            view: Mutex::default(),
            pulse: Pulse::default(),
        }
    }
}

impl Board {
    /// Changes what stands there.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Standing)) {
        self.standing.send_modify(change);
    }

    pub(crate) fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    pub(crate) fn view(&self) -> MutexGuard<'_, FleetView> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over a view that has come further.
    pub(crate) fn saw(&self, view: &FleetView) {
        let mut own = self.view();
        if own.next_seq != view.next_seq {
            own.clone_from(view);
        }
    }

    /// Takes from the database what isn't in its entries. It is a help for people: what can't be read stays as it
    /// was.
    pub(crate) fn looked_up(&self, store: &Store, now_wall_ms: u64) {
        let alarms = store.all_alarms(now_wall_ms);
        let bytes = size(store.path());
        self.change(|standing| {
            standing.journal_bytes = bytes;
            if let Ok(alarms) = alarms {
                standing.alarms.clear();
                for (_, alarm) in alarms {
                    *standing.alarms.entry(alarm.kind).or_default() += 1;
                }
            }
        });
    }

    /// What a look at what has drifted came to.
    pub(crate) fn drifted(&self, report: &DriftReport) {
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let held = report.findings.iter().filter(|f| f.hold.is_some()).count();
        self.change(|standing| {
            standing.drift = report.counts();
            standing.drift_held = count(held);
            standing.drift_unseen = count(report.unseen.len());
        });
    }

    /// An entry of a run is durable.
    pub(crate) fn entry(&self, entry: &Entry) {
        self.view().apply(entry);
    }

    /// The round is over; `failed` is why it could not be done.
    pub(crate) fn over(&self, rounds: &Rounds, failed: Option<&str>) {
        let (failing, failed_builds) = rounds.builds();
        self.change(|standing| {
            standing.rounds = standing.rounds.saturating_add(1);
            standing.failures = rounds.failures();
            standing.builds_failing = failing;
            standing.builds_failed = failed_builds;
            standing.faults = rounds.faults().1;
            match failed {
                None => standing.good_at = Some(Instant::now()),
                Some(why) => {
                    standing.rounds_failed = standing.rounds_failed.saturating_add(1);
                    standing.course = Course::Failing;
                    standing.sentence = why.to_owned();
                    standing.waits.clear();
                }
            }
        });
    }

    /// How many machines of the inventory are in each state.
    pub(crate) fn states(&self) -> BTreeMap<NodeState, u64> {
        let inventory = self.standing.borrow().inventory.clone();
        let view = self.view();
        let mut states: BTreeMap<NodeState, u64> = NodeState::ALL.map(|state| (state, 0)).into();
        for name in inventory
            .iter()
            .flat_map(|inventory| inventory.nodes.keys())
        {
            let planned = view.nodes.get(name).map(|node| node.state);
            let state = planned.unwrap_or_else(|| installed_state(&view, name));
            *states.entry(state).or_default() += 1;
        }
        states
    }

    /// What is told now.
    pub(crate) fn told(&self) -> Told {
        let standing = self.standing.borrow().clone();
        let mut waits: Vec<ToldWait> = Vec::new();
        let sentence = match standing.course {
            Course::Starting => "the fleet is looked at for the first time".to_owned(),
            Course::Well => standing.sentence,
            Course::Failing => format!(
                "{}: {}",
                match standing.failures {
                    0 | 1 => "a round could not be done".to_owned(),
                    many => format!("{many} rounds in a row could not be done"),
                },
                standing.sentence
            ),
            Course::Waiting => {
                waits.extend(standing.waits.iter().map(left_alone));
                sentence("nothing can be done now", &waits)
            }
            Course::Working => {
                let view = self.view();
                waits.extend(approvals(&view));
                waits.extend(standing.waits.iter().map(left_alone));
                sentence(&working(&view), &waits)
            }
        };
        Told {
            course: standing.course,
            sentence: visible_line(&sentence.replace('\n', " ")),
            waits,
            drift: standing
                .drift
                .iter()
                .filter(|(_, n)| **n > 0)
                .map(|(k, n)| (k.to_string(), *n))
                .collect(),
        }
    }
}

/// The bytes of a database and of what isn't in it yet.
fn size(path: &Path) -> u64 {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let files = [path, Path::new(&log)];
    let sizes = files.map(|file| std::fs::metadata(file).map_or(0, |metadata| metadata.len()));
    sizes.into_iter().sum()
}

fn left_alone((node, waiting): (&NodeName, &Waiting)) -> ToldWait {
    ToldWait {
        node: node.clone(),
        waits_for: waiting.word().to_owned(),
        reason: waiting.sentence(),
    }
}

/// The machines of a run whose installers wait for somebody's word.
fn approvals(view: &FleetView) -> impl Iterator<Item = ToldWait> {
    let waiting = |node: &view::NodeView| matches!(node.waits, Some(view::Waits::Approval { .. }));
    let nodes = view.nodes.iter().filter(move |(_, node)| waiting(node));
    nodes.map(|(name, _)| ToldWait {
        node: name.clone(),
        waits_for: APPROVAL.to_owned(),
        reason: format!(
            "its installer waits for an approval: compare with its screen, then `undercroft approve {name} FINGERPRINT`"
        ),
    })
}

fn working(view: &FleetView) -> String {
    let counts = view.counts();
    let mut parts = Vec::new();
    for (count, what) in [
        (counts.running, "at work"),
        (counts.waiting, "waiting"),
        (counts.done, "done"),
        (counts.failed, "failed"),
        (counts.quarantined, "refused"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    let of = match view.nodes.len() {
        1 => "one machine".to_owned(),
        many => format!("{many} machines"),
    };
    format!("a plan of {of} is carried out: {}", parts.join(", "))
}

/// A sentence with the first of those who wait.
fn sentence(head: &str, waits: &[ToldWait]) -> String {
    let mut out = head.to_owned();
    for wait in waits.iter().take(NAMED_MAX) {
        out.push_str(&format!("; {}: {}", wait.node, wait.reason));
    }
    if waits.len() > NAMED_MAX {
        out.push_str(&format!("; and {} more", waits.len() - NAMED_MAX));
    }
    out
}

#[cfg(test)]
mod tests {
    use undercroft_planner::Held;

    use super::*;

    fn waits(count: usize) -> Waits {
        let held = Held {
            reason: "no such machine".to_owned(),
            left_ms: 60_000,
        };
        (1..=count)
            .map(|n| {
                let name = NodeName::new(format!("box-{n}")).unwrap();
                (name, Waiting::NextTry(held.clone()))
            })
            .collect()
    }

    #[test]
    fn why_nothing_moves_is_one_line_that_names_some_and_counts_the_rest() {
        let board = Board::default();
        assert_eq!(board.told().course, Course::Starting);
        board.change(|standing| {
            standing.course = Course::Waiting;
            standing.waits = waits(5);
        });
        let told = board.told();
        assert_eq!(
            told.sentence,
            "nothing can be done now; box-1: it failed, and is tried again later: no such machine; \
             box-2: it failed, and is tried again later: no such machine; \
             box-3: it failed, and is tried again later: no such machine; and 2 more"
        );
        assert_eq!(told.waits.len(), 5);
        assert_eq!(told.waits[4].waits_for, "next-try");
    }

    #[test]
    fn a_round_that_could_not_be_done_is_counted_and_said_until_one_is_done() {
        let board = Board::default();
        let mut rounds = Rounds::new(60_000);
        for n in 1..=3 {
            rounds.over(n, Some("the inventory\nhas an error"));
            board.over(&rounds, Some("the inventory\nhas an error"));
        }
        let told = board.told();
        assert_eq!(told.course, Course::Failing);
        assert_eq!(
            told.sentence,
            "3 rounds in a row could not be done: the inventory has an error"
        );
        assert_eq!(board.standing().good_at, None);
        rounds.over(4, None);
        board.over(&rounds, None);
        let standing = board.standing();
        assert_eq!((standing.rounds, standing.rounds_failed), (4, 3));
        assert_eq!(standing.failures, 0);
        assert!(standing.good_at.is_some());
    }
}
