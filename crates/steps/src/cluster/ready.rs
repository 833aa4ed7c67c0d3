//! A machine's Node: dressed as the inventory asks, and Ready.

use std::borrow::Cow;

use undercroft_model::{BootstrapPart, Evidence, Failure, FailureKind, Work};

use super::{
    ask::ClusterAsk,
    bootstrap::{is_still_member, still_brought_in},
    node::{Lack, NodeWants},
    step::ClusterStep,
    talk::{BOOT_WAIT_MS_MAX, GROUND_LOOKS, Halt, Talk, Way, lost},
};

pub(super) fn ready(
    cx: &ClusterStep<'_>,
    wants: &NodeWants<'_>,
    talk: &mut Talk<'_>,
) -> Way<Evidence> {
    let probe = cx.work == Work::Probe;
    // Which boot is meant, the machine itself says: a Node stays as it was last reported.
    let boot_id = match &talk.known.boot_id {
        Some(boot_id) => boot_id,
        None => {
            let wait_ms = if probe { 0 } else { BOOT_WAIT_MS_MAX };
            let status = talk.status();
            &status.map_err(|halt| halt.for_at_most(wait_ms))?.boot_id
        }
    };
    let unknown = || lost("the cluster doesn't know its Node any more");
    // It was there when the machine joined.
    let mut node = talk.node()?.ok_or_else(unknown)?;
    if !probe && !talk.known.dressed {
        talk.done_as(|| dress(wants))?;
        talk.next.dressed = true;
        // It is looked at again as it is now.
        node = talk.node()?.ok_or_else(unknown)?;
    }
    talk.next.boot_id = Some(boot_id.clone());
    let missing: Cow<'static, str> = match node.lacks(boot_id, wants) {
        None => {
            return Ok(Evidence::Ready {
                boot_id: node.boot_id.clone(),
                kubelet_version: node.kubelet_version.clone(),
            });
        }
        Some(Lack::Report) => {
            // It may have booted again since it was asked.
            talk.next.boot_id = None;
            "its kubelet has not reported since it booted".into()
        }
        Some(Lack::Ready) => node.why_not.clone().into(),
        Some(Lack::Dress) => {
            // Somebody has made the Node anew, or takes them off.
            talk.next.dressed = false;
            "it lacks labels, annotations or taints of the inventory".into()
        }
    };
    // What it waits for may have been taken away, and then it never comes.
    if talk.known.looks.is_multiple_of(GROUND_LOOKS) {
        is_still_member(cx, talk)?;
        if cx.step.node == cx.plan.founder {
            still_brought_in(&[BootstrapPart::Network], talk)?;
        }
    }
    talk.next.looks += 1;
    if probe {
        return Err(Halt::NotDone(missing.into_owned()));
    }
    Err(Halt::wait(missing, not_ready))
}

fn dress(wants: &NodeWants<'_>) -> ClusterAsk {
    ClusterAsk::Dress {
        labels: wants.labels.clone(),
        annotations: wants.annotations.clone(),
        taints: wants.taints.to_vec(),
    }
}

fn not_ready(missing: &str) -> Failure {
    Failure::new(
        FailureKind::Transient,
        format!("Kubernetes doesn't call the machine Ready: {missing}"),
    )
    .with_hint(
        "See `journalctl --unit k3s --unit kubelet` on the machine, and `kubectl describe node`.",
    )
}
