//! Brings in what makes a cluster of servers into one that a repository keeps.

use std::time::Instant;

use undercroft_model::{BootstrapPart, Failure, FailureKind, objects::ARGOCD_NAMESPACE};

use super::{Asking, parts::BootstrapItem};
use undercroft_journal::TimelineSource;
use undercroft_kube::{Applied, Apply, KubeError, Manifest};

impl Asking<'_> {
    /// Brings in what of a part isn't there; an API that is away for a while is waited for.
    pub(super) async fn bring_in(&self, part: BootstrapPart) -> Result<(), Failure> {
        let (until, mut new) = (self.until(), 0);
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
}
