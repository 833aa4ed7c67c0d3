//! Whether objects are what they should be, read from their status as their controllers write it.

use std::time::{Duration, Instant};

use kube::api::ListParams;
use serde_json::Value;

use super::{
    APPLICATION, CRD, Cluster, DAEMON_SET, DEPLOYMENT, Kind, KubeError, POD, RETRY_INTERVAL,
    STATEFUL_SET, apply::text_at,
};

/// The most pods that a look at one DaemonSet's pods of one machine reads.
const PODS_MAX: u32 = 50;

/// How far something is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// It is as it should be; in a few words.
    Done(String),
    /// It isn't yet; what is missing.
    Waiting(String),
}

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

/// How far the rollout of a DaemonSet, Deployment or StatefulSet is.
pub fn rollout(kind: &str, object: &Value) -> Progress {
    let number = |path: &str| object.pointer(path).and_then(Value::as_i64).unwrap_or(0);
    if number("/status/observedGeneration") < number("/metadata/generation") {
        return Progress::Waiting("its controller has not seen it yet".to_owned());
    }
    let (wanted, updated, there) = match kind {
        "DaemonSet" => (
            number("/status/desiredNumberScheduled"),
            number("/status/updatedNumberScheduled"),
            number("/status/numberAvailable"),
        ),
        _ => (
            object
                .pointer("/spec/replicas")
                .and_then(Value::as_i64)
                .unwrap_or(1),
            number("/status/updatedReplicas"),
            number("/status/availableReplicas"),
        ),
    };
    let shown = format!("{there} of {wanted} available");
    if kind == "DaemonSet" && wanted == 0 {
        return Progress::Waiting("it has been given no machine yet".to_owned());
    }
    if updated < wanted || there < wanted {
        let why = condition(object, "Progressing")
            .filter(|c| !c.is_true)
            .map(|c| format!(" ({})", c.why))
            .unwrap_or_default();
        return Progress::Waiting(format!("{shown}{why}"));
    }
    Progress::Done(shown)
}

/// How far an Application of Argo CD's is: synced, healthy, and with no operation under way.
pub fn application(object: &Value) -> Progress {
    let sync = text_at(object, "/status/sync/status");
    let health = text_at(object, "/status/health/status");
    let phase = text_at(object, "/status/operationState/phase");
    // With a list of sources it is a list of revisions, even where the list has one.
    let revision = match text_at(object, "/status/sync/revision") {
        one if one.is_empty() => text_at(object, "/status/sync/revisions/0"),
        one => one,
    };
    let or_unknown = |text: &str| match text {
        "" => "unknown".to_owned(),
        text => text.to_owned(),
    };
    if sync == "Synced"
        && health == "Healthy"
        && !matches!(phase.as_str(), "Running" | "Terminating")
    {
        let short: String = revision.chars().take(7).collect();
        return Progress::Done(match short.as_str() {
            "" => "synced and healthy".to_owned(),
            short => format!("synced to {short}, healthy"),
        });
    }
    let mut said = format!("{}, {}", or_unknown(&sync), or_unknown(&health));
    if matches!(phase.as_str(), "Running" | "Failed" | "Error") {
        let message = text_at(object, "/status/operationState/message");
        said.push_str(&format!(
            "; the sync is {}: {message}",
            phase.to_lowercase()
        ));
    }
    let conditions = object
        .pointer("/status/conditions")
        .and_then(Value::as_array);
    for condition in conditions.into_iter().flatten() {
        if text_at(condition, "/type").ends_with("Error") {
            said.push_str(&format!("; {}", text_at(condition, "/message")));
        }
    }
    Progress::Waiting(undercroft_process::printable(&said))
}

fn workload(kind: &str) -> Kind {
    match kind {
        "DaemonSet" => DAEMON_SET,
        "StatefulSet" => STATEFUL_SET,
        _ => DEPLOYMENT,
    }
}

impl Cluster {
    /// Whether a workload is there, whatever its health.
    ///
    /// # Errors
    /// When the API can't be asked.
    pub async fn has(&self, kind: &str, namespace: &str, name: &str) -> Result<bool, KubeError> {
        let found = self.get(workload(kind), Some(namespace), name).await?;
        Ok(found.is_some())
    }

    /// How far the rollout of a workload is.
    ///
    /// # Errors
    /// When the API can't be asked.
    pub async fn rollout(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Progress, KubeError> {
        Ok(
            match self.get(workload(kind), Some(namespace), name).await? {
                Some(object) => rollout(kind, &whole(&object)),
                None => Progress::Waiting("it isn't there".to_owned()),
            },
        )
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

    /// How far an Application of Argo CD's is.
    ///
    /// # Errors
    /// When the API can't be asked.
    pub async fn application(&self, namespace: &str, name: &str) -> Result<Progress, KubeError> {
        // Without Argo CD the kind is unknown, which reads as an object that isn't there.
        Ok(match self.get(APPLICATION, Some(namespace), name).await? {
            Some(object) => application(&object.data),
            None => Progress::Waiting("it isn't there".to_owned()),
        })
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

    #[test]
    fn a_rollout_counts_only_when_its_controller_has_seen_the_newest() {
        let mut set = json!({
            "metadata": { "generation": 2 },
            "status": { "observedGeneration": 1, "desiredNumberScheduled": 3,
                        "updatedNumberScheduled": 3, "numberAvailable": 3 },
        });
        assert!(matches!(rollout("DaemonSet", &set), Progress::Waiting(_)));
        set["status"]["observedGeneration"] = json!(2);
        assert_eq!(
            rollout("DaemonSet", &set),
            Progress::Done("3 of 3 available".into())
        );
        set["status"]["numberAvailable"] = json!(2);
        assert_eq!(
            rollout("DaemonSet", &set),
            Progress::Waiting("2 of 3 available".into())
        );
        set["status"]["desiredNumberScheduled"] = json!(0);
        assert!(matches!(rollout("DaemonSet", &set), Progress::Waiting(_)));
        // A Deployment that is being replaced has old replicas available.
        let half = json!({
            "metadata": { "generation": 1 }, "spec": { "replicas": 2 },
            "status": { "observedGeneration": 1, "updatedReplicas": 1, "availableReplicas": 2 },
        });
        assert!(matches!(rollout("Deployment", &half), Progress::Waiting(_)));
    }

    #[test]
    fn an_application_that_still_syncs_is_not_done() {
        let mut app = json!({ "status": {
            "sync": { "status": "Synced", "revision": "3f2a91c8d0" },
            "health": { "status": "Healthy" },
            "operationState": { "phase": "Running", "message": "waiting for healthy state" },
        }});
        assert_eq!(
            application(&app),
            Progress::Waiting(
                "Synced, Healthy; the sync is running: waiting for healthy state".into()
            )
        );
        app["status"]["operationState"]["phase"] = json!("Succeeded");
        assert_eq!(
            application(&app),
            Progress::Done("synced to 3f2a91c, healthy".into())
        );
        app["status"]["sync"] = json!({ "status": "Synced", "revisions": ["77aa01b5c3"] });
        assert_eq!(
            application(&app),
            Progress::Done("synced to 77aa01b, healthy".into())
        );
        app["status"]["conditions"] =
            json!([{ "type": "ComparisonError", "message": "no such branch" }]);
        app["status"]["sync"]["status"] = json!("Unknown");
        assert_eq!(
            application(&app),
            Progress::Waiting("Unknown, Healthy; no such branch".into())
        );
        assert_eq!(
            application(&json!({})),
            Progress::Waiting("unknown, unknown".into())
        );
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
