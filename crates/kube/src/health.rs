//! What objects are, read from their status as their controllers write it.

use std::time::{Duration, Instant};

use kube::api::ListParams;
use serde_json::Value;
use undercroft_steps::{ApplicationSeen, Rollout, WorkloadKind};

use super::{
    APPLICATION, CRD, Cluster, DAEMON_SET, DEPLOYMENT, Kind, KubeError, POD, RETRY_INTERVAL,
    STATEFUL_SET, apply::text_at,
};

/// The most pods that a look at one DaemonSet's pods of one machine reads.
const PODS_MAX: u32 = 50;

/// A condition of an object's status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Whether its status is True.
    pub is_true: bool,
    /// Reason and message, as the controller gives them.
    pub why: String,
}

/// A condition by its type.
pub fn condition(object: &Value, kind: &str) -> Option<Condition> {
    let conditions = object.pointer("/status/conditions")?.as_array()?;
    let found = conditions
        .iter()
        .find(|c| c.get("type").and_then(Value::as_str) == Some(kind))?;
    let (reason, message) = (text_at(found, "/reason"), text_at(found, "/message"));
    Some(Condition {
        is_true: text_at(found, "/status") == "True",
        why: undercroft_process::printable(format!("{reason}: {message}").trim_matches([':', ' '])),
    })
}

/// The status of a workload, as its controller has written it.
pub fn rollout(kind: WorkloadKind, object: &Value) -> Rollout {
    let number = |path: &str| object.pointer(path).and_then(Value::as_i64);
    let (wanted, updated, available) = match kind {
        WorkloadKind::DaemonSet => (
            number("/status/desiredNumberScheduled").unwrap_or(0),
            number("/status/updatedNumberScheduled"),
            number("/status/numberAvailable"),
        ),
        WorkloadKind::Deployment | WorkloadKind::StatefulSet => (
            number("/spec/replicas").unwrap_or(1),
            number("/status/updatedReplicas"),
            number("/status/availableReplicas"),
        ),
    };
    let progressing = condition(object, "Progressing").filter(|c| !c.is_true);
    Rollout {
        kind,
        generation: number("/metadata/generation").unwrap_or(0),
        observed_generation: number("/status/observedGeneration").unwrap_or(0),
        wanted,
        updated: updated.unwrap_or(0),
        available: available.unwrap_or(0),
        stalled: progressing.map(|c| c.why),
    }
}

/// What Argo CD says of an Application.
pub fn application(object: &Value) -> ApplicationSeen {
    let text = |path: &str| undercroft_process::printable(&text_at(object, path));
    let conditions = object
        .pointer("/status/conditions")
        .and_then(Value::as_array);
    let errors = conditions
        .into_iter()
        .flatten()
        .filter(|condition| text_at(condition, "/type").ends_with("Error"));
    ApplicationSeen {
        sync: text("/status/sync/status"),
        health: text("/status/health/status"),
        phase: text("/status/operationState/phase"),
        phase_message: text("/status/operationState/message"),
        // With a list of sources it is a list of revisions, even where the list has one.
        revision: match text("/status/sync/revision") {
            one if one.is_empty() => text("/status/sync/revisions/0"),
            one => one,
        },
        errors: errors
            .map(|condition| undercroft_process::printable(&text_at(condition, "/message")))
            .collect(),
    }
}

fn workload(kind: WorkloadKind) -> Kind {
    match kind {
        WorkloadKind::DaemonSet => DAEMON_SET,
        WorkloadKind::StatefulSet => STATEFUL_SET,
        WorkloadKind::Deployment => DEPLOYMENT,
    }
}

impl Cluster {
    /// The status of a workload, or nothing where there is none of that name.
    ///
    /// # Errors
    /// When the API can't be asked.
    pub async fn rollout(
        &self,
        kind: WorkloadKind,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Rollout>, KubeError> {
        let found = self.get(workload(kind), Some(namespace), name).await?;
        Ok(found.map(|object| rollout(kind, &whole(&object))))
    }

    /// Whether a DaemonSet has a ready pod on one machine.
    ///
    /// # Errors
    /// When the API can't be asked.
    pub async fn has_ready_pod(
        &self,
        namespace: &str,
        labels: &str,
        node: &str,
    ) -> Result<bool, KubeError> {
        let params = ListParams::default()
            .labels(labels)
            .fields(&format!("spec.nodeName={node}"))
            .limit(PODS_MAX);
        let api = self.api(POD, Some(namespace));
        let pods = self
            .limited(&format!("the pods {labels}"), api.list(&params))
            .await?;
        Ok(pods
            .items
            .iter()
            .any(|pod| condition(&pod.data, "Ready").is_some_and(|c| c.is_true)))
    }

    /// Whether a CRD is there and established.
    ///
    /// # Errors
    /// When the API can't be asked.
    pub async fn knows_crd(&self, name: &str) -> Result<bool, KubeError> {
        let crd = self.get(CRD, None, name).await?;
        Ok(crd.is_some_and(|crd| condition(&crd.data, "Established").is_some_and(|c| c.is_true)))
    }

    /// What Argo CD says of an Application, or nothing where there is none of that name.
    ///
    /// # Errors
    /// When the API can't be asked.
    pub async fn application(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<ApplicationSeen>, KubeError> {
        // Without Argo CD the kind is unknown, which reads as an object that isn't there.
        let found = self.get(APPLICATION, Some(namespace), name).await?;
        Ok(found.map(|object| application(&object.data)))
    }

    /// Does something again and again while what fails it may pass, until a moment.
    ///
    /// # Errors
    /// What doesn't pass, or what failed it last.
    pub async fn persist<T, F, Fut>(until: Instant, mut act: F) -> Result<T, KubeError>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, KubeError>>,
    {
        loop {
            match act().await {
                Err(error) if error.is_passing() && Instant::now() < until => {}
                done => return done,
            }
            let left = until.saturating_duration_since(Instant::now());
            tokio::time::sleep(left.min(RETRY_INTERVAL).max(Duration::from_millis(1))).await;
        }
    }
}

/// An object with the parts of its metadata that [`rollout`] reads.
fn whole(object: &kube::core::DynamicObject) -> Value {
    let mut value = object.data.clone();
    if let Some(map) = value.as_object_mut() {
        let generation = object.metadata.generation.unwrap_or(0);
        map.insert(
            "metadata".to_owned(),
            serde_json::json!({ "generation": generation }),
        );
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use undercroft_steps::Health;

    #[test]
    fn a_status_is_read_as_its_controller_writes_it() {
        let mut set = json!({
            "metadata": { "generation": 2 },
            "status": { "observedGeneration": 1, "desiredNumberScheduled": 3,
                        "updatedNumberScheduled": 3, "numberAvailable": 3 },
        });
        let missing = |health| matches!(health, Health::Missing(_));
        assert!(missing(rollout(WorkloadKind::DaemonSet, &set).health()));
        set["status"]["observedGeneration"] = json!(2);
        let good = Health::Good("3 of 3 available".into());
        assert_eq!(rollout(WorkloadKind::DaemonSet, &set).health(), good);
        // A Deployment that is being replaced has old replicas available; without a number it has one.
        let half = json!({
            "metadata": { "generation": 1 }, "spec": { "replicas": 2 },
            "status": { "observedGeneration": 1, "updatedReplicas": 1, "availableReplicas": 2 },
        });
        assert!(missing(rollout(WorkloadKind::Deployment, &half).health()));
        let none = rollout(WorkloadKind::StatefulSet, &json!({}));
        assert_eq!((none.wanted, none.available), (1, 0));
    }

    #[test]
    fn an_application_is_read_with_one_source_or_several() {
        let mut app = json!({ "status": {
            "sync": { "status": "Synced", "revision": "3f2a91c8d0" },
            "health": { "status": "Healthy" },
            "operationState": { "phase": "Running", "message": "waiting for healthy state" },
        }});
        assert_eq!(
            application(&app).health(),
            Health::Missing(
                "Synced, Healthy; the sync is running: waiting for healthy state".into()
            )
        );
        app["status"]["operationState"]["phase"] = json!("Succeeded");
        app["status"]["sync"] = json!({ "status": "Synced", "revisions": ["77aa01b5c3"] });
        assert_eq!(
            application(&app).health(),
            Health::Good("synced to 77aa01b, healthy".into())
        );
        app["status"]["conditions"] = json!([
            { "type": "ComparisonError", "message": "no such branch" },
            { "type": "SharedResourceWarning", "message": "no matter" },
        ]);
        app["status"]["sync"]["status"] = json!("Unknown");
        assert_eq!(
            application(&app).health(),
            Health::Missing("Unknown, Healthy; no such branch".into())
        );
        assert_eq!(application(&json!({})), ApplicationSeen::default());
    }

    #[test]
    fn no_condition_steers_a_terminal() {
        let hostile = "A\u{1b}[2J\u{7}\u{202e}\u{2066}\u{200b}\r\u{8}Z";
        let object = json!({ "status": { "conditions": [
            { "type": "Ready", "status": "False", "reason": hostile, "message": hostile }
        ]}});
        let why = condition(&object, "Ready").unwrap().why;
        assert!(
            !why.chars().any(undercroft_model::text::is_unseen),
            "{why:?}"
        );
        assert!(why.contains("\\u{202e}"), "{why:?}");
    }
}
