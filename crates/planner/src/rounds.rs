//! The rounds of a service: when it looks again, what it tries again and when, and what it says. No clock of
//! its own: each call is told the time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use undercroft_model::NodeName;

use crate::Held;

/// The longest wait before what failed is tried again, in milliseconds: long enough that a hundred failures
/// are no load, short enough that what a person has mended is noticed over a cup of coffee.
pub const RETRY_MS_MAX: u64 = 15 * 60 * 1000;
/// The shortest wait before what failed is tried again, in milliseconds, however short the interval is.
pub const RETRY_MS_MIN: u64 = 5 * 1000;
/// How long the same sentence isn't said again, in milliseconds: a log of months stays one that is read.
pub const REMIND_MS: u64 = 60 * 60 * 1000;
/// How many faults of the engine are kept to be named at the end; all of them are said when they happen.
pub const FAULTS_KEPT_MAX: usize = 16;
/// The most bytes of a reason that are kept.
const REASON_BYTES_MAX: usize = 2000;

/// How often something failed in a row, and when it is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Retry {
    failures: u32,
    due_ms: u64,
    reason: String,
}

impl Retry {
    fn after(before: Option<&Self>, now_ms: u64, interval_ms: u64, reason: &str) -> Self {
        let failures = before.map_or(1, |before| before.failures.saturating_add(1));
        Self {
            failures,
            due_ms: now_ms.saturating_add(wait_ms(interval_ms, failures)),
            reason: bounded(reason),
        }
    }
}

/// The wait after so many failures in a row: the interval, doubled with each.
fn wait_ms(interval_ms: u64, failures: u32) -> u64 {
    let first = interval_ms.max(RETRY_MS_MIN);
    let doubled = first.saturating_mul(1 << failures.saturating_sub(1).min(20));
    // An interval of a day stays one.
    doubled.min(RETRY_MS_MAX.max(first))
}

fn bounded(text: &str) -> String {
    let mut end = text.len().min(REASON_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

/// How a machine's part of a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MachineEnd {
    /// All of its steps are done.
    Done,
    /// It failed, for this reason.
    Failed(String),
}

/// The rounds of a service. What it keeps is bounded by the number of machines.
#[derive(Debug)]
pub struct Rounds {
    interval_ms: u64,
    /// Rounds that failed as a whole, in a row.
    whole: Option<Retry>,
    /// Machines whose systems can't be built, with what they were to be built from.
    builds: BTreeMap<NodeName, Retry>,
    builds_failed: u64,
    /// Machines that failed in runs.
    machines: BTreeMap<NodeName, Retry>,
    inventory: Option<String>,
    inputs: Option<String>,
    said: BTreeMap<&'static str, (String, u64)>,
    faults: VecDeque<String>,
    faults_total: u64,
}

impl Rounds {
    /// Rounds that are `interval_ms` apart while nothing fails.
    pub fn new(interval_ms: u64) -> Self {
        Self {
            interval_ms,
            whole: None,
            builds: BTreeMap::new(),
            builds_failed: 0,
            machines: BTreeMap::new(),
            inventory: None,
            inputs: None,
            said: BTreeMap::new(),
            faults: VecDeque::new(),
            faults_total: 0,
        }
    }

    /// A round begins with this inventory; whether it is another than the round before had. What failed
    /// under the former is tried again at once, and machines that are gone are forgotten.
    pub fn inventory(&mut self, digest: &str, nodes: &BTreeSet<NodeName>) -> bool {
        let changed = self.inventory.as_deref() != Some(digest);
        let first = self.inventory.is_none();
        if changed {
            self.inventory = Some(digest.to_owned());
            self.machines.clear();
            self.builds.clear();
        }
        self.machines.retain(|name, _| nodes.contains(name));
        self.builds.retain(|name, _| nodes.contains(name));
        changed && !first
    }

    /// What systems are built from is this now: a failed build of something else says nothing. `None` where
    /// it can't be told.
    pub fn inputs(&mut self, inputs: Option<&str>) {
        if inputs.is_none() || self.inputs.as_deref() != inputs {
            self.inputs = inputs.map(str::to_owned);
            if inputs.is_some() {
                self.builds.clear();
            }
        }
    }

    /// Whether a machine's system may be built now; not soon after it couldn't be, from the same.
    pub fn build_is_due(&self, node: &NodeName, now_ms: u64) -> bool {
        let retry = self.builds.get(node);
        retry.is_none_or(|retry| retry.due_ms <= now_ms)
    }

    /// A machine's system was built, or couldn't be.
    pub fn built(&mut self, node: &NodeName, now_ms: u64, failed: Option<&str>) {
        match failed {
            None => drop(self.builds.remove(node)),
            Some(why) => {
                self.builds_failed = self.builds_failed.saturating_add(1);
                let before = self.builds.get(node);
                let retry = Retry::after(before, now_ms, self.interval_ms, why);
                self.builds.insert(node.clone(), retry);
            }
        }
    }

    /// How many machines' systems can't be built now, and how many builds have failed in all.
    pub fn builds(&self) -> (u64, u64) {
        let now = u64::try_from(self.builds.len()).unwrap_or(u64::MAX);
        (now, self.builds_failed)
    }

    /// The machines that failed lately and aren't tried again yet.
    pub fn held(&self, now_ms: u64) -> BTreeMap<NodeName, Held> {
        let waits = self.machines.iter().filter(|(_, r)| r.due_ms > now_ms);
        waits
            .map(|(name, retry)| {
                let held = Held {
                    reason: retry.reason.clone(),
                    left_ms: retry.due_ms.saturating_sub(now_ms),
                };
                (name.clone(), held)
            })
            .collect()
    }

    /// A run has ended.
    pub fn ran(&mut self, now_ms: u64, ends: impl IntoIterator<Item = (NodeName, MachineEnd)>) {
        for (node, end) in ends {
            match end {
                MachineEnd::Done => drop(self.machines.remove(&node)),
                MachineEnd::Failed(why) => {
                    let before = self.machines.get(&node);
                    let retry = Retry::after(before, now_ms, self.interval_ms, &why);
                    self.machines.insert(node, retry);
                }
            }
        }
    }

    /// The engine broke a promise of its own.
    pub fn fault(&mut self, fault: &str) {
        self.faults_total = self.faults_total.saturating_add(1);
        if self.faults.len() < FAULTS_KEPT_MAX {
            self.faults.push_back(bounded(fault));
        }
    }

    /// The engine's own faults so far, the first of them, and how many there were.
    pub fn faults(&self) -> (&VecDeque<String>, u64) {
        (&self.faults, self.faults_total)
    }

    /// The round is over: how long to rest until the next, in milliseconds. `failed` says why it could not be
    /// done, where that is so; then the rests become longer.
    pub fn over(&mut self, now_ms: u64, failed: Option<&str>) -> u64 {
        match failed {
            None => {
                self.whole = None;
                self.interval_ms
            }
            Some(why) => {
                let retry = Retry::after(self.whole.as_ref(), now_ms, self.interval_ms, why);
                let rest_ms = retry.due_ms.saturating_sub(now_ms);
                self.whole = Some(retry);
                rest_ms
            }
        }
    }

    /// How many rounds in a row could not be done.
    pub fn failures(&self) -> u32 {
        self.whole.as_ref().map_or(0, |retry| retry.failures)
    }

    /// Whether this is to be said now about that: it is another sentence than the last, or that was long ago.
    pub fn says(&mut self, about: &'static str, text: &str, now_ms: u64) -> bool {
        if let Some((last, at_ms)) = self.said.get(about)
            && last == text
            && now_ms.saturating_sub(*at_ms) < REMIND_MS
        {
            return false;
        }
        self.said.insert(about, (text.to_owned(), now_ms));
        true
    }

    /// Nothing is to be said about that any more.
    pub fn settled(&mut self, about: &'static str) {
        self.said.remove(about);
    }

    /// How many things are kept in all; it doesn't grow with time.
    pub fn kept(&self) -> usize {
        self.builds.len() + self.machines.len() + self.said.len() + self.faults.len()
    }
}
