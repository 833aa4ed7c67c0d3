//! What a look has found, kind by kind. Each kind says of what it was told whether that is as it should be, or that
//! it wasn't told.

mod applications;
mod boot;
mod findings;
mod health;
mod keys;
mod nodes;
mod room;

use std::collections::BTreeMap;

use undercroft_model::{NodeName, SystemTarget, inventory::Inventory};

use super::{DriftKind, DriftLook, MachineLook};
pub use findings::FINDINGS_KIND_MAX;
use findings::Of;
pub(super) use findings::{Differs, Judged, Key};

/// Judges a look by what is wanted.
pub(super) fn judge(
    inventory: &Inventory,
    targets: &BTreeMap<NodeName, Result<SystemTarget, String>>,
    look: &DriftLook,
) -> Judged {
    let mut judged = Judged::default();
    for (name, answer) in &look.machines {
        let mut of = Of {
            node: Some(name),
            judged: &mut judged,
        };
        match answer {
            Ok(machine) => judge_machine(&mut of, targets.get(name), machine),
            Err(why) => {
                let kinds = DriftKind::ALL.into_iter().filter(|kind| !kind.is_of_api());
                of.unseen_all(kinds, why);
            }
        }
    }
    match &look.cluster {
        None => {}
        Some(Ok(cluster)) => {
            nodes::judge(&mut judged, inventory, look, cluster);
            let mut of = Of {
                node: None,
                judged: &mut judged,
            };
            applications::judge(&mut of, cluster.applications.as_ref());
        }
        Some(Err(why)) => {
            let mut of = Of {
                node: None,
                judged: &mut judged,
            };
            of.unseen_all(DriftKind::ALL.into_iter().filter(|k| k.is_of_api()), why);
        }
    }
    judged
}

fn judge_machine(
    of: &mut Of<'_>,
    target: Option<&Result<SystemTarget, String>>,
    machine: &MachineLook,
) {
    boot::judge(of, target, machine);
    health::judge(of, machine);
    keys::judge(of, machine);
    room::judge(of, target, machine);
}
