//! A machine's Node: dressed as the inventory asks, and Ready.

use std::{collections::BTreeMap, time::Instant};

use undercroft_model::{Evidence, Failure, FailureKind, Work};

use super::{
    super::{Done, Stop},
    ClusterStep, LOOK_INTERVAL,
};
use crate::kube::{KubeError, NodeWants};

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
        let boot_id = self.own_machine()?.status().await?.boot_id;
        let api = self.api(until).await?;
        if self.work == Work::Act {
            self.persist(until, || api.cluster.dress(name, &wants))
                .await?;
        }
        loop {
            let missing = match api.cluster.node(name).await {
                Ok(None) => "the cluster doesn't know it".to_owned(),
                Ok(Some(node)) if node.boot_id != boot_id => {
                    "its kubelet has not reported since it booted".to_owned()
                }
                Ok(Some(node)) if !node.ready => node.why_not,
                Ok(Some(node)) if !node.carries(&wants) => {
                    "it lacks labels, annotations or taints of the inventory".to_owned()
                }
                Ok(Some(node)) => {
                    return Ok(Evidence::Ready {
                        boot_id: node.boot_id,
                        kubelet_version: node.kubelet_version,
                    });
                }
                Err(error) if error.is_passing() => error.to_string(),
                Err(error) => return Err(KubeError::into_failure(error).into()),
            };
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
}
