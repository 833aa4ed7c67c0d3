//! What makes a cluster of servers into one that a repository keeps.

use std::time::Instant;

use undercroft_model::{
    BootstrapPart, Evidence, Failure, FailureKind, NodeName, Work, inventory::Distribution,
};

use super::{
    super::job::{Done, Stop},
    BootstrapItem, ClusterStep, LOOK_INTERVAL,
    ground::GROUND_LOOKS,
};
use undercroft_journal::TimelineSource;
use undercroft_kube::{Applied, Apply, Cluster, KubeError, Manifest, Progress};
pub(super) use undercroft_model::objects::ARGOCD_NAMESPACE;
use undercroft_model::objects::{REPOSITORY_SECRET, ROOT_APPLICATION};

/// Where the network's components are.
pub(super) const NETWORK_NAMESPACE: &str = "kube-system";
/// What Argo CD consists of, as its chart names it with the release `argocd`.
pub(super) const ARGOCD_WORKLOADS: [(&str, &str); 4] = [
    ("StatefulSet", "argocd-application-controller"),
    ("Deployment", "argocd-repo-server"),
    ("Deployment", "argocd-server"),
    ("Deployment", "argocd-redis"),
];

impl ClusterStep<'_> {
    /// Brings a part in and waits until it is healthy.
    pub(super) async fn bootstrap(&self, part: BootstrapPart) -> Done {
        let until = self.until();
        self.stands_on(part, until).await?;
        if self.work == Work::Act {
            Box::pin(self.bring_in(part, until)).await?;
        }
        let (mut said, mut looks) = (String::new(), 0);
        loop {
            looks += 1;
            if looks % GROUND_LOOKS == 0 {
                self.stands_on(part, until).await?;
            }
            let missing = match Box::pin(self.health(part, until)).await {
                Ok(Progress::Done(shown)) => return Ok(Evidence::Bootstrapped { part, shown }),
                Ok(Progress::Waiting(missing)) if self.work == Work::Probe => {
                    self.job.note(TimelineSource::Controller, missing);
                    return Err(Stop::NotDone);
                }
                Ok(Progress::Waiting(missing)) => missing,
                Err(failure) if failure.kind == FailureKind::Transient => failure.message,
                Err(failure) => return Err(failure.into()),
            };
            if missing != said {
                self.job.note(TimelineSource::Controller, missing.clone());
                said = missing;
            }
            if Instant::now() >= until {
                return Err(Stop::new(
                    FailureKind::Transient,
                    format!("it was brought in and isn't healthy: {said}"),
                ));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    async fn bring_in(&self, part: BootstrapPart, until: Instant) -> Result<(), Failure> {
        let mut new = 0;
        if part == BootstrapPart::Secrets {
            let secrets = self.secrets()?;
            // Each time: what was rotated reaches the cluster this way, too.
            new += self
                .apply(&secrets, ARGOCD_NAMESPACE, Apply::Always, until)
                .await?;
        }
        let items = self.parts().items.iter();
        for item in items.filter(|(of, _)| *of == part).map(|(_, item)| item) {
            let (objects, namespace) = match item {
                BootstrapItem::Objects {
                    manifests,
                    namespace,
                } => (manifests.clone(), namespace),
                BootstrapItem::Chart(chart) => {
                    let helm = self.parts().helm.as_ref().ok_or_else(|| {
                        Failure::new(
                            FailureKind::Permanent,
                            format!("there is no Helm to render the chart {} with", chart.name),
                        )
                        .with_hint("Install Helm 3 and see that `helm` is on PATH.")
                    })?;
                    let version = self
                        .with_api(until, |api| async move { api.cluster.version().await })
                        .await?;
                    let objects = helm.render(chart, &version).await;
                    (objects.map_err(KubeError::into_failure)?, &chart.namespace)
                }
            };
            new += self
                .apply(&objects, namespace, Apply::WhereAbsent, until)
                .await?;
        }
        self.job.note(
            TimelineSource::Controller,
            format!("{part}: {new} objects were applied, the others were there"),
        );
        Ok(())
    }

    async fn apply(
        &self,
        objects: &[Manifest],
        namespace: &str,
        apply: Apply,
        until: Instant,
    ) -> Result<usize, Failure> {
        let applied = self
            .with_api(until, |api| async move {
                api.cluster.apply_all(objects, namespace, apply).await
            })
            .await?;
        Ok(applied
            .iter()
            .filter(|a| matches!(a, Applied::Sent { .. }))
            .count())
    }

    /// The objects that hold secrets, and their namespaces.
    pub(super) fn secrets(&self) -> Result<Vec<Manifest>, Failure> {
        let Some(source) = &self.parts().secrets else {
            return Ok(Vec::new());
        };
        source()
    }

    async fn health(&self, part: BootstrapPart, until: Instant) -> Result<Progress, Failure> {
        if part == BootstrapPart::Secrets {
            let secrets = &self.secrets()?;
            return self
                .with_api(until, |api| async move {
                    secrets_there(&api.cluster, secrets).await
                })
                .await;
        }
        let (founder, distribution) = (&self.plan.founder, self.plan.distribution);
        self.with_api(until, |api| async move {
            part_health(&api.cluster, part, founder, distribution).await
        })
        .await
    }
}

/// Secrets are there where each has been applied by this name and holds what it is to hold now.
async fn secrets_there(cluster: &Cluster, secrets: &[Manifest]) -> Result<Progress, KubeError> {
    for secret in secrets {
        if !cluster.holds(secret, ARGOCD_NAMESPACE).await? {
            let missing = format!("{} isn't there, or holds something else", secret.shown());
            return Ok(Progress::Waiting(missing));
        }
    }
    Ok(Progress::Done(format!("{} objects", secrets.len())))
}

/// How far a part of the bootstrap is, as far as the API alone can tell: of the secrets, whether
/// the repository's are there.
///
/// # Errors
/// When the API can't be asked.
pub(crate) async fn part_health(
    cluster: &Cluster,
    part: BootstrapPart,
    founder: &NodeName,
    distribution: Distribution,
) -> Result<Progress, KubeError> {
    match part {
        BootstrapPart::Network => network(cluster, founder.as_str(), distribution).await,
        BootstrapPart::Secrets => {
            let secret = Manifest::new(
                "secrets",
                serde_json::json!({
                    "apiVersion": "v1", "kind": "Secret",
                    "metadata": { "name": REPOSITORY_SECRET, "namespace": ARGOCD_NAMESPACE },
                }),
            )?;
            Ok(if cluster.is_ours(&secret, ARGOCD_NAMESPACE).await? {
                Progress::Done("the repository's credentials are there".to_owned())
            } else {
                Progress::Waiting(format!("{} isn't there", secret.shown()))
            })
        }
        BootstrapPart::ArgoCd => argocd(cluster).await,
        BootstrapPart::RootApp => {
            cluster
                .application(ARGOCD_NAMESPACE, ROOT_APPLICATION)
                .await
        }
    }
}

/// The network is there where the founder's own pod is ready: other machines may not be up.
async fn network(
    cluster: &Cluster,
    founder: &str,
    distribution: Distribution,
) -> Result<Progress, KubeError> {
    let namespace = NETWORK_NAMESPACE;
    if !cluster
        .has_ready_pod(namespace, "k8s-app=cilium", founder)
        .await?
    {
        return Ok(Progress::Waiting(format!(
            "Cilium's pod on {founder} isn't ready"
        )));
    }
    let mut deployments = vec!["cilium-operator"];
    if distribution == Distribution::Kubeadm {
        // k3s brings its own.
        deployments.push("coredns");
    }
    for name in deployments {
        if let Progress::Waiting(why) = cluster.rollout("Deployment", namespace, name).await? {
            return Ok(Progress::Waiting(format!("{name}: {why}")));
        }
    }
    // Cilium's operator makes its CRDs itself; what comes next has objects of them.
    if !cluster.knows_crd("ciliumnodes.cilium.io").await? {
        return Ok(Progress::Waiting(
            "Cilium's operator has not made its CRDs".to_owned(),
        ));
    }
    Ok(Progress::Done(format!("Cilium is ready on {founder}")))
}

async fn argocd(cluster: &Cluster) -> Result<Progress, KubeError> {
    if !cluster.knows_crd("applications.argoproj.io").await? {
        return Ok(Progress::Waiting("Argo CD's CRDs aren't there".to_owned()));
    }
    for (kind, name) in ARGOCD_WORKLOADS {
        if let Progress::Waiting(why) = cluster.rollout(kind, ARGOCD_NAMESPACE, name).await? {
            return Ok(Progress::Waiting(format!("{name}: {why}")));
        }
    }
    Ok(Progress::Done(format!(
        "{} parts available",
        ARGOCD_WORKLOADS.len()
    )))
}
