//! How far an update of the fleet is, as the journal has it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{NodeName, Wave};

/// A system that a machine has tried, and left again by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RefutedSystem {
    /// The system's toplevel.
    pub toplevel: String,
    /// Why the machine left it.
    pub reason: String,
    /// When that was seen, in milliseconds since the Unix epoch.
    pub wall_ms: u64,
}

/// How far the latest update is, and what has spoken against any.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Updates {
    /// Which update it is; see [`Wave::update`].
    pub update: Option<String>,
    /// How many waves of it were begun.
    pub waves: u32,
    /// The machines that have confirmed their system in it.
    pub confirmed: BTreeSet<NodeName>,
    /// The systems that machines have left by themselves, until they are to run another one.
    pub refuted: BTreeMap<NodeName, RefutedSystem>,
}

impl Updates {
    /// Whether a machine has confirmed its system in that update, so that others may follow it.
    pub fn is_begun(&self, update: &str) -> bool {
        self.update.as_deref() == Some(update) && !self.confirmed.is_empty()
    }

    /// The number of the wave that comes next in that update.
    pub fn next_wave(&self, update: &str) -> u32 {
        match self.update.as_deref() == Some(update) {
            true => self.waves.saturating_add(1),
            false => 1,
        }
    }

    /// A plan with a wave was accepted.
    pub(crate) fn planned(&mut self, wave: &Wave) {
        if self.update.as_ref() != Some(&wave.update) {
            self.update = Some(wave.update.clone());
            self.confirmed.clear();
        }
        self.waves = wave.number;
    }

    /// A machine runs that system, and is well with it.
    pub(crate) fn confirmed(&mut self, node: &NodeName, toplevel: &str) {
        self.confirmed.insert(node.clone());
        if self
            .refuted
            .get(node)
            .is_some_and(|refuted| refuted.toplevel == toplevel)
        {
            self.refuted.remove(node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NodeName {
        text.parse().unwrap()
    }

    fn wave(update: &str, number: u32) -> Wave {
        Wave {
            update: update.to_owned(),
            number,
        }
    }

    #[test]
    fn another_update_begins_anew_and_what_was_refuted_stays_so() {
        let mut updates = Updates::default();
        assert_eq!(updates.next_wave("a"), 1);
        updates.planned(&wave("a", 1));
        assert!(!updates.is_begun("a"));
        updates.confirmed(&name("n1"), "/nix/store/a1");
        assert!(updates.is_begun("a") && !updates.is_begun("b"));
        assert_eq!(updates.next_wave("a"), 2);
        updates.refuted.insert(
            name("n2"),
            RefutedSystem {
                toplevel: "/nix/store/a2".to_owned(),
                reason: "ill".to_owned(),
                wall_ms: 1,
            },
        );
        updates.planned(&wave("b", 1));
        assert!(!updates.is_begun("b"));
        assert_eq!(updates.next_wave("b"), 2);
        assert!(updates.refuted.contains_key(&name("n2")));
        updates.confirmed(&name("n2"), "/nix/store/b2");
        assert!(
            updates.refuted.contains_key(&name("n2")),
            "another system says nothing of it"
        );
        updates.confirmed(&name("n2"), "/nix/store/a2");
        assert!(updates.refuted.is_empty());
    }
}
