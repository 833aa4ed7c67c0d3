//! A machine's Node: dressed as the inventory asks, and Ready.

use std::{collections::BTreeMap, time::Instant};

use undercroft_model::{BootstrapPart, Evidence, Failure, FailureKind, Work};

use super::{
    super::job::{Done, Stop},
    ClusterStep, LOOK_INTERVAL,
    ground::{GROUND_LOOKS, lost},
};
use undercroft_kube::{NodeSeen, NodeWants};

impl ClusterStep<'_> {
    pub(super) async fn ready(
        &self,
        labels: &BTreeMap<String, String>,
        annotations: &BTreeMap<String, String>,
        taints: &[String],
    ) -> Done {
        let wants = NodeWants {
            labels,
            annotations,
            taints,
        };
        let until = self.until();
        let name = self.job.name().as_str();
        // Which boot is meant, the machine itself says: a Node stays as it was last reported.
        let machine = self.own_machine()?;
        let mut boot_id = self.status(&machine).await?.boot_id;
        let (mut dressed, wants) = (self.work == Work::Probe, &wants);
        let mut looks = 0;
        loop {
            let node = self.node(name, until).await?;
            if node.is_some() && !dressed {
                self.with_api(
                    until,
                    |api| async move { api.cluster.dress(name, wants).await },
                )
                .await?;
                dressed = true;
                // It is looked at again as it is now.
                continue;
            }
            let missing = match node {
                // It was there when the machine joined.
                None => return Err(lost("the cluster doesn't know its Node any more").into()),
                Some(node) if node.boot_id != boot_id => {
                    // It may have booted again since it was asked.
                    boot_id = self.status(&machine).await?.boot_id;
                    "its kubelet has not reported since it booted".to_owned()
                }
                Some(node) if !node.ready => node.why_not,
                Some(node) if !node.carries(wants) => {
                    // Somebody has made the Node anew, or takes them off.
                    dressed = self.work == Work::Probe;
                    "it lacks labels, annotations or taints of the inventory".to_owned()
                }
                Some(node) => {
                    return Ok(Evidence::Ready {
                        boot_id: node.boot_id,
                        kubelet_version: node.kubelet_version,
                    });
                }
            };
            // What it waits for may have been taken away, and then it never comes.
            if looks % GROUND_LOOKS == 0 {
                if self.is_removed().await {
                    return Err(lost("etcd has no member of it any more").into());
                }
                if *self.job.name() == self.plan.founder {
                    self.still_brought_in(&[BootstrapPart::Network], until)
                        .await?;
                }
            }
            looks += 1;
            if self.work == Work::Probe {
                return Err(Stop::NotDone);
            }
            if Instant::now() >= until {
                return Err(Stop::Failed(
                    Failure::new(
                        FailureKind::Transient,
                        format!("Kubernetes doesn't call the machine Ready: {missing}"),
                    )
                    .with_hint(
                        "See `journalctl --unit k3s --unit kubelet` on the machine, and `kubectl describe node`.",
                    ),
                ));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// A Node, as whoever answers knows it.
    pub(super) async fn node(
        &self,
        name: &str,
        until: Instant,
    ) -> Result<Option<NodeSeen>, Failure> {
        self.with_api(until, |api| async move { api.cluster.node(name).await })
            .await
    }
}
