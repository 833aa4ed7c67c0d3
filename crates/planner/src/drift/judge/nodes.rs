//! What the inventory asks of the cluster's Nodes, and what they carry.

use std::collections::BTreeMap;

use undercroft_model::{
    NodeName,
    inventory::{Inventory, Taint},
    kubernetes_minor,
};

use super::findings::{Judged, Of};
use crate::{
    drift::{ClusterLook, DriftKind, DriftLook, NodeLook},
    members::role,
    node_wants,
};

/// How many minors a kubelet may be behind the API.
const MINORS_BEHIND_MAX: u32 = 1;
/// What is said of what isn't there.
const ABSENT: &str = "absent";

pub(super) fn judge(
    judged: &mut Judged,
    inventory: &Inventory,
    look: &DriftLook,
    cluster: &ClusterLook,
) {
    for name in &look.asked {
        // A machine that was never up, or isn't of the cluster, has no Node to look for.
        let Some(machine) = inventory.nodes.get(name) else {
            continue;
        };
        if role(inventory, machine).is_none() || !look.machines.contains_key(name) {
            continue;
        }
        let mut of = Of {
            node: Some(name),
            judged,
        };
        match cluster.nodes.get(name) {
            Some(node) => {
                carries(&mut of, inventory, name, node);
                kubelet(&mut of, &cluster.version, node);
            }
            None => {
                let kinds = DriftKind::ALL.into_iter();
                let of_nodes = kinds.filter(|k| k.is_of_api() && *k != DriftKind::Application);
                of.unseen_all(of_nodes, "the cluster knows no Node of that name");
            }
        }
    }
}

fn carries(of: &mut Of<'_>, inventory: &Inventory, name: &NodeName, node: &NodeLook) {
    let wants = node_wants(inventory, name);
    pairs(of, DriftKind::Label, &wants.labels, &node.labels);
    pairs(
        of,
        DriftKind::Annotation,
        &wants.annotations,
        &node.annotations,
    );
    for text in &wants.taints {
        let taint = Taint::parse(text).map_or_else(|| text.clone(), |taint| taint.to_string());
        if !node.taints.contains(&taint) {
            of.found(DriftKind::Taint, &taint, &taint, ABSENT);
        }
    }
    if node.cordoned {
        of.found(DriftKind::Cordon, "", "schedulable", "cordoned");
    }
}

fn pairs(
    of: &mut Of<'_>,
    kind: DriftKind,
    wants: &BTreeMap<String, String>,
    have: &BTreeMap<String, String>,
) {
    for (key, want) in wants {
        match have.get(key) {
            Some(have) if have == want => {}
            Some(have) => of.found(kind, key, want, have),
            None => of.found(kind, key, want, ABSENT),
        }
    }
}

fn kubelet(of: &mut Of<'_>, api: &str, node: &NodeLook) {
    let (Some(of_api), Some(of_kubelet)) = (
        kubernetes_minor(api),
        kubernetes_minor(&node.kubelet_version),
    ) else {
        let why = "the version of its kubelet, or of the API, can't be told";
        return of.unseen(DriftKind::Kubelet, None, why);
    };
    let too_old =
        of_kubelet.0 != of_api.0 || of_api.1.saturating_sub(of_kubelet.1) > MINORS_BEHIND_MAX;
    if of_kubelet > of_api || too_old {
        of.found(DriftKind::Kubelet, "", api, &node.kubelet_version);
    }
}
