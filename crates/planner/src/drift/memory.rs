//! What looks have found so far, and what a person has said of it: kept between looks.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use undercroft_model::{
    NodeName, SystemTarget, document::Version, inventory::Inventory, text::visible_line,
};

use super::{
    DriftKind, DriftLook, Fix, Unseen,
    judge::{Differs, Key, judge},
    words,
};

/// How many looks must have had a finding before it counts: what a restart shows for a moment doesn't.
pub const LOOKS_COUNT: u32 = 2;
/// The most findings that are kept: more than a person reads in a year. What is beyond begins anew with each look.
const FINDINGS_MAX: usize = 50_000;
/// The most holds that are kept.
pub const HOLDS_MAX: usize = 1024;
/// The longest reason or owner of a hold, in bytes.
pub const HOLD_BYTES_MAX: usize = 500;

/// What is kept between looks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DriftMemory {
    version: Version<1>,
    findings: Vec<Remembered>,
    holds: Vec<DriftHold>,
}

/// A finding as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    node: Option<NodeName>,
    kind: DriftKind,
    subject: String,
    /// When the first look had it, in milliseconds since 1970.
    since_ms: u64,
    /// How many looks had it.
    looks: u32,
    want: String,
    have: String,
}

/// Somebody's word that something is as it is meant, whatever the inventory says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DriftHold {
    /// The machine; `None` for what is the cluster's.
    pub node: Option<NodeName>,
    /// What is held.
    pub kind: DriftKind,
    /// Whose word it is.
    pub owner: String,
    /// Why.
    pub reason: String,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
}

/// Why something can't be held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HoldError {
    /// There are [`HOLDS_MAX`] already.
    TooMany,
    /// A reason or an owner is empty or longer than [`HOLD_BYTES_MAX`].
    Words,
}

impl std::fmt::Display for HoldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooMany => write!(f, "there are {HOLDS_MAX} holds already"),
            Self::Words => write!(
                f,
                "a hold has an owner and a reason, each of 1 to {HOLD_BYTES_MAX} bytes"
            ),
        }
    }
}

impl std::error::Error for HoldError {}

/// What of the fleet isn't as it is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct DriftReport {
    /// What was found, by machine and kind; what is the cluster's comes first.
    pub findings: Vec<DriftFinding>,
    /// What could not be seen now.
    pub unseen: Vec<Unseen>,
}

/// Something that isn't as it is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DriftFinding {
    /// What it is.
    pub kind: DriftKind,
    /// The machine; `None` for what is the cluster's.
    pub node: Option<NodeName>,
    /// Which of these: a unit, a check, a label's key. `None` where there is but one.
    pub subject: Option<String>,
    /// When the first look had it, in milliseconds since 1970.
    pub since_ms: u64,
    /// How many looks had it.
    pub looks: u32,
    /// Whether it counts: two looks had it.
    pub counts: bool,
    /// Whether this look had it. Otherwise it couldn't be seen, and stands as it was.
    pub seen: bool,
    /// What should be.
    pub want: String,
    /// What is.
    pub have: String,
    /// Who mends it.
    pub fix: Fix,
    /// The same in a sentence.
    pub sentence: String,
    /// What to try.
    pub next: String,
    /// Who has said that it is meant, where somebody has.
    pub hold: Option<DriftHold>,
}

impl DriftFinding {
    /// Whether it is drift: it counts, and nobody has said that it is meant.
    pub fn is_drift(&self) -> bool {
        self.counts && self.hold.is_none()
    }
}

impl DriftReport {
    /// Whether anything has drifted.
    pub fn is_drift(&self) -> bool {
        self.findings.iter().any(DriftFinding::is_drift)
    }

    /// How much of each kind has drifted.
    pub fn counts(&self) -> BTreeMap<DriftKind, u64> {
        let mut counts: BTreeMap<DriftKind, u64> = DriftKind::ALL.map(|kind| (kind, 0)).into();
        for finding in self.findings.iter().filter(|f| f.is_drift()) {
            *counts.entry(finding.kind).or_default() += 1;
        }
        counts
    }
}

impl DriftMemory {
    /// Takes a look in, and says what has drifted by now of the machines that were asked for.
    ///
    /// `targets` are the systems that the machines should run, or why one couldn't be built; `now_ms` is in
    /// milliseconds since 1970.
    pub fn take_in(
        &mut self,
        inventory: &Inventory,
        targets: &BTreeMap<NodeName, Result<SystemTarget, String>>,
        look: &DriftLook,
        now_ms: u64,
    ) -> DriftReport {
        let mut judged = judge(inventory, targets, look);
        let mut kept = BTreeMap::new();
        for mut old in std::mem::take(&mut self.findings) {
            let key = old.key();
            let gone = old
                .node
                .as_ref()
                .is_some_and(|n| !inventory.nodes.contains_key(n));
            if gone {
                continue;
            }
            match judged.found.remove(&key) {
                Some(Differs { want, have }) => {
                    (old.want, old.have) = (want, have);
                    old.looks = old.looks.saturating_add(1);
                    kept.insert(key, (old, true));
                }
                None if is_looked_at(look, &key) && judged.saw(&key) => {}
                None => drop(kept.insert(key, (old, false))),
            }
        }
        for (key, Differs { want, have }) in std::mem::take(&mut judged.found) {
            let new = Remembered {
                node: key.node.clone(),
                kind: key.kind,
                subject: key.subject.clone(),
                since_ms: now_ms,
                looks: 1,
                want,
                have,
            };
            kept.insert(key, (new, true));
        }
        self.holds.retain(|hold| {
            let node = hold.node.as_ref();
            node.is_none_or(|node| inventory.nodes.contains_key(node))
        });
        let asked = |key: &Key| {
            key.node
                .as_ref()
                .is_none_or(|node| look.asked.contains(node))
        };
        let shown = kept.iter().filter(|(key, _)| asked(key));
        let findings = shown
            .map(|(_, (old, seen))| self.finding(old, *seen))
            .collect();
        let kept = kept.into_values().map(|(old, _)| old);
        self.findings = kept.take(FINDINGS_MAX).collect();
        DriftReport {
            findings,
            unseen: judged.unseen,
        }
    }

    fn finding(&self, old: &Remembered, seen: bool) -> DriftFinding {
        let mut holds = self.holds.iter();
        let hold = holds.find(|hold| hold.node == old.node && hold.kind == old.kind);
        DriftFinding {
            kind: old.kind,
            node: old.node.clone(),
            subject: Some(old.subject.clone()).filter(|subject| !subject.is_empty()),
            since_ms: old.since_ms,
            looks: old.looks,
            counts: old.looks >= LOOKS_COUNT,
            seen,
            want: old.want.clone(),
            have: old.have.clone(),
            fix: old.kind.fix(),
            sentence: words::sentence(old.kind, &old.subject, &old.want, &old.have),
            next: words::next(old.kind, old.node.as_ref(), &old.subject),
            hold: hold.cloned(),
        }
    }

    /// The holds.
    pub fn holds(&self) -> &[DriftHold] {
        &self.holds
    }

    /// Keeps somebody's word that something is meant, in place of an earlier one.
    ///
    /// # Errors
    /// When there are too many, or it has no words.
    pub fn hold(&mut self, mut hold: DriftHold) -> Result<(), HoldError> {
        for words in [&mut hold.owner, &mut hold.reason] {
            *words = visible_line(words.trim());
            if words.is_empty() || words.len() > HOLD_BYTES_MAX {
                return Err(HoldError::Words);
            }
        }
        self.holds
            .retain(|old| (&old.node, old.kind) != (&hold.node, hold.kind));
        if self.holds.len() >= HOLDS_MAX {
            return Err(HoldError::TooMany);
        }
        self.holds.push(hold);
        self.holds
            .sort_by(|a, b| (&a.node, a.kind).cmp(&(&b.node, b.kind)));
        Ok(())
    }

    /// Takes a hold back; whether there was one.
    pub fn release(&mut self, node: Option<&NodeName>, kind: DriftKind) -> bool {
        let before = self.holds.len();
        self.holds
            .retain(|hold| (hold.node.as_ref(), hold.kind) != (node, kind));
        self.holds.len() < before
    }
}

impl Remembered {
    fn key(&self) -> Key {
        Key {
            node: self.node.clone(),
            kind: self.kind,
            subject: self.subject.clone(),
        }
    }
}

/// Whether whoever tells of it was asked at all. An inventory without a cluster asks no API, and nothing of it
/// can be amiss.
fn is_looked_at(look: &DriftLook, key: &Key) -> bool {
    if key.kind.is_of_api() && look.cluster.is_none() {
        return true;
    }
    match &key.node {
        None => true,
        Some(node) => look.asked.contains(node) && look.machines.contains_key(node),
    }
}
