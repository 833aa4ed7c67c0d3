//! A machine's Node: whose it is, what it must carry, and whether it is Ready.

use std::collections::BTreeMap;

use undercroft_model::{ClosedBy, inventory::Taint, objects::CLOSED_ANNOTATION};

/// What a Node's object says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeSeen {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The boot that its kubelet reported; empty where it has reported none yet.
    pub boot_id: String,
    /// Its kubelet's version.
    pub kubelet_version: String,
    /// Whether it is Ready. One that is cordoned is Ready all the same: that is a person's doing, and theirs to undo.
    pub ready: bool,
    /// Why it isn't.
    pub why_not: String,
    /// Whether no further pod is placed on it.
    pub closed: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its taints, as `key=value:Effect` or `key:Effect`.
    pub taints: Vec<String>,
}

/// What a Node must carry.
#[derive(Debug, Clone, Copy)]
pub struct NodeWants<'a> {
    /// Labels.
    pub labels: &'a BTreeMap<String, String>,
    /// Annotations.
    pub annotations: &'a BTreeMap<String, String>,
    /// Taints, as `key=value:Effect` or `key:Effect`.
    pub taints: &'a [String],
}

impl NodeSeen {
    /// Who has closed it for further pods, if anybody has.
    pub fn closed_by(&self) -> Option<ClosedBy> {
        let by_update = self.annotations.contains_key(CLOSED_ANNOTATION);
        self.closed.then_some(match by_update {
            true => ClosedBy::Update,
            false => ClosedBy::Others,
        })
    }

    /// Whether its kubelet has reported in that boot of its machine. What it says of another boot is old: Kubernetes
    /// calls a machine that has just lost its power Ready for some while, and one that was installed anew by what it was.
    pub(crate) fn is_of_boot(&self, boot_id: &str) -> bool {
        !boot_id.is_empty() && self.boot_id == boot_id
    }

    /// Whether it carries all of that.
    pub fn carries(&self, wants: &NodeWants<'_>) -> bool {
        let has = |have: &BTreeMap<String, String>, wants: &BTreeMap<String, String>| {
            wants
                .iter()
                .all(|(key, value)| have.get(key) == Some(value))
        };
        has(&self.labels, wants.labels)
            && has(&self.annotations, wants.annotations)
            && wants.taints.iter().all(|taint| self.has_taint(taint))
    }

    /// Whether it has a taint, whichever of the ways to write one it is written in.
    pub fn has_taint(&self, text: &str) -> bool {
        let taint = Taint::parse(text).map_or_else(|| text.to_owned(), |taint| taint.to_string());
        self.taints.contains(&taint)
    }

    /// What it lacks to be its machine's, Ready and as the inventory asks, where `boot_id` is the boot that the machine
    /// is in.
    pub(crate) fn lacks(&self, boot_id: &str, wants: &NodeWants<'_>) -> Option<Lack> {
        if !self.is_of_boot(boot_id) {
            Some(Lack::Report)
        } else if !self.ready {
            Some(Lack::Ready)
        } else if !self.carries(wants) {
            Some(Lack::Dress)
        } else {
            None
        }
    }
}

/// What a Node lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lack {
    /// A report of its kubelet since its machine booted.
    Report,
    /// The condition Ready.
    Ready,
    /// Labels, annotations or taints.
    Dress,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> NodeSeen {
        NodeSeen {
            boot_id: "this-boot".to_owned(),
            ready: true,
            labels: BTreeMap::from([("class".to_owned(), "gpu".to_owned())]),
            taints: vec!["gpu:NoSchedule".to_owned()],
            ..NodeSeen::default()
        }
    }

    #[test]
    fn a_node_is_its_machines_only_in_the_boot_that_the_machine_is_in() {
        let (none, taints) = (BTreeMap::new(), ["gpu=:NoSchedule".to_owned()]);
        let wants = NodeWants {
            labels: &node().labels,
            annotations: &none,
            taints: &taints,
        };
        assert_eq!(node().lacks("this-boot", &wants), None);
        assert_eq!(node().lacks("next-boot", &wants), Some(Lack::Report));
        // A kubelet that has reported nothing, and a machine that says nothing of its boot, are no match.
        let mut silent = node();
        silent.boot_id.clear();
        assert_eq!(silent.lacks("", &wants), Some(Lack::Report));
        let mut down = node();
        down.ready = false;
        assert_eq!(down.lacks("this-boot", &wants), Some(Lack::Ready));
    }

    #[test]
    fn a_node_that_was_cordoned_is_ready_and_dressed() {
        let none = BTreeMap::new();
        let wants = NodeWants {
            labels: &none,
            annotations: &none,
            taints: &["gpu:NoSchedule".to_owned()],
        };
        let mut cordoned = node();
        let by_kubernetes = "node.kubernetes.io/unschedulable:NoSchedule";
        cordoned.taints.push(by_kubernetes.to_owned());
        assert_eq!(cordoned.lacks("this-boot", &wants), None);
        cordoned.taints.remove(0);
        assert_eq!(cordoned.lacks("this-boot", &wants), Some(Lack::Dress));
    }
}
