//! What the steps of a member stand on, and how it comes out that it is gone.
//!
//! A Node is deleted, a member is removed from etcd, what was brought in is taken out again: a step
//! that waits for what comes after that would wait for ever. What is only unhealthy comes back by
//! itself, and is waited for.

use std::time::Instant;

use undercroft_model::{BootstrapPart, Failure, FailureKind};

use super::{
    ClusterStep,
    bootstrap::{ARGOCD_NAMESPACE, ARGOCD_WORKLOADS, NETWORK_NAMESPACE},
};
use undercroft_kube::{Cluster, KubeError, Manifest};

/// How many looks at what a step waits for come to one look at what it stands on: that one asks for
/// more.
pub(super) const GROUND_LOOKS: u32 = 15;

/// What the machine goes back for.
pub(super) fn lost(what: impl Into<String>) -> Failure {
    Failure::new(FailureKind::PreconditionLost, what)
}

impl ClusterStep<'_> {
    /// Whether a server that has joined is no member of etcd any more. One that can't be asked says
    /// nothing of it.
    pub(super) async fn is_removed(&self) -> bool {
        let server = self.plan.servers.contains_key(self.job.name());
        server
            && Box::pin(self.etcd())
                .await
                .is_ok_and(|(_, members)| self.member_of(&members).is_none())
    }

    /// Whether what a part of the bootstrap comes after is there.
    pub(super) async fn stands_on(
        &self,
        part: BootstrapPart,
        until: Instant,
    ) -> Result<(), Failure> {
        let name = self.job.name().as_str();
        if self.node(name, until).await?.is_none() {
            return Err(lost("the cluster doesn't know its Node any more"));
        }
        let earlier: Vec<BootstrapPart> = BootstrapPart::ALL
            .into_iter()
            .filter(|earlier| *earlier < part)
            .collect();
        self.still_brought_in(&earlier, until).await
    }

    /// Whether parts of the bootstrap that were brought in are there, healthy or not.
    pub(super) async fn still_brought_in(
        &self,
        parts: &[BootstrapPart],
        until: Instant,
    ) -> Result<(), Failure> {
        for part in parts {
            let secrets = match part {
                BootstrapPart::Secrets => self.secrets()?,
                _ => Vec::new(),
            };
            let secrets = &secrets;
            let missing = self
                .with_api(until, |api| async move {
                    missing(&api.cluster, *part, secrets).await
                })
                .await?;
            if let Some(missing) = missing {
                return Err(lost(format!(
                    "{part} was brought in, and {missing} isn't there any more"
                )));
            }
        }
        Ok(())
    }
}

/// The first thing of a part that isn't there.
async fn missing(
    cluster: &Cluster,
    part: BootstrapPart,
    secrets: &[Manifest],
) -> Result<Option<String>, KubeError> {
    match part {
        BootstrapPart::Network => {
            let there = cluster
                .has("Deployment", NETWORK_NAMESPACE, "cilium-operator")
                .await?;
            Ok((!there).then(|| "the Deployment cilium-operator".to_owned()))
        }
        BootstrapPart::Secrets => {
            for secret in secrets {
                if !cluster.is_ours(secret, ARGOCD_NAMESPACE).await? {
                    return Ok(Some(secret.shown()));
                }
            }
            Ok(None)
        }
        BootstrapPart::ArgoCd => {
            if !cluster.knows_crd("applications.argoproj.io").await? {
                return Ok(Some("the CRD of its applications".to_owned()));
            }
            for (kind, name) in ARGOCD_WORKLOADS {
                if !cluster.has(kind, ARGOCD_NAMESPACE, name).await? {
                    return Ok(Some(format!("the {kind} {name}")));
                }
            }
            Ok(None)
        }
        BootstrapPart::RootApp => Ok(None),
    }
}
