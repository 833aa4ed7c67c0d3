//! Bringing objects in by server-side apply.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use kube::{
    Api,
    api::{Patch, PatchParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
    discovery::Scope,
};
use serde_json::Value;

use super::{BOOTSTRAP_MANAGER, CRD, Cluster, KubeError, Manifest, RETRY_INTERVAL, health};

/// How long a CRD that was just made may take until objects of its kind can be.
const ESTABLISHED_WAIT: Duration = Duration::from_secs(60);

/// When an object is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Apply {
    /// Each time.
    Always,
    /// Only where it isn't there with fields of [`BOOTSTRAP_MANAGER`]'s: from then on Argo CD
    /// keeps it, and what it has made of it since is right.
    WhereAbsent,
}

/// What came of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// It was sent; this is its resource version now.
    Sent {
        /// The resource version, which a second apply of the same object leaves as it is.
        resource_version: String,
    },
    /// It was there, and was left as it is.
    WasThere,
}

/// Where objects of a kind are.
#[derive(Debug, Clone)]
struct Place {
    resource: ApiResource,
    namespaced: bool,
}

/// What was asked of the cluster already, by group with version and by kind.
type Places = BTreeMap<(String, String), Place>;

impl Cluster {
    /// Applies objects, in the order in which they need each other: namespaces, then CRDs, then
    /// the rest. `namespace` is for those that name none. Objects of a kind whose CRD was just
    /// applied are sent when it is established.
    ///
    /// # Errors
    /// The first that is refused. What was applied before stays, and a further call goes on.
    pub async fn apply_all(
        &self,
        manifests: &[Manifest],
        namespace: &str,
        apply: Apply,
    ) -> Result<Vec<Applied>, KubeError> {
        let mut order: Vec<(usize, &Manifest)> = manifests.iter().enumerate().collect();
        order.sort_by_key(|(_, manifest)| manifest.rank());
        let mut places = BTreeMap::new();
        let mut done = BTreeMap::new();
        let mut crds = Vec::new();
        let mut new_kinds_until = None;
        for (index, manifest) in order {
            if manifest.kind() == "CustomResourceDefinition" {
                crds.push(manifest.name().to_owned());
                new_kinds_until = Some(Instant::now() + ESTABLISHED_WAIT);
            } else {
                self.established(&mut crds).await?;
            }
            let applied = loop {
                let applied = self
                    .apply_one(manifest, namespace, apply, &mut places)
                    .await;
                match applied {
                    // A CRD is called established a moment before its kind can be asked for.
                    Err(KubeError::UnknownKind { .. } | KubeError::Absent { .. })
                        if new_kinds_until.is_some_and(|until| Instant::now() < until) =>
                    {
                        tokio::time::sleep(RETRY_INTERVAL).await;
                    }
                    done => break done?,
                }
            };
            done.insert(index, applied);
        }
        self.established(&mut crds).await?;
        Ok(done.into_values().collect())
    }

    /// Applies one object.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn apply(
        &self,
        manifest: &Manifest,
        namespace: &str,
        apply: Apply,
    ) -> Result<Applied, KubeError> {
        self.apply_one(manifest, namespace, apply, &mut BTreeMap::new())
            .await
    }

    async fn apply_one(
        &self,
        manifest: &Manifest,
        namespace: &str,
        apply: Apply,
        places: &mut Places,
    ) -> Result<Applied, KubeError> {
        let what = manifest.shown();
        let api = self.api_of(manifest, namespace, places).await?;
        if apply == Apply::WhereAbsent {
            let there = self.limited(&what, api.get_opt(manifest.name())).await?;
            if there.is_some_and(|object| manifest.is_bare() || is_ours(&object)) {
                return Ok(Applied::WasThere);
            }
        }
        // Without force: an object that somebody else has made with other values is a conflict.
        let params = PatchParams::apply(BOOTSTRAP_MANAGER).validation_strict();
        let patch = Patch::Apply(&manifest.object);
        let sent = self
            .limited(&what, api.patch(manifest.name(), &params, &patch))
            .await?;
        Ok(Applied::Sent {
            resource_version: sent.metadata.resource_version.unwrap_or_default(),
        })
    }

    /// Whether an object is there and was applied by the bootstrap, or by Argo CD in its name.
    ///
    /// # Errors
    /// When the API can't be asked.
    pub async fn is_ours(&self, manifest: &Manifest, namespace: &str) -> Result<bool, KubeError> {
        let api = self
            .api_of(manifest, namespace, &mut BTreeMap::new())
            .await?;
        let there = self
            .limited(&manifest.shown(), api.get_opt(manifest.name()))
            .await?;
        Ok(there.is_some_and(|object| is_ours(&object)))
    }

    /// Whether a Secret is there, was applied by the bootstrap, and holds the values of the given
    /// one's `stringData`.
    ///
    /// # Errors
    /// When the API can't be asked.
    pub async fn holds(&self, secret: &Manifest, namespace: &str) -> Result<bool, KubeError> {
        let api = self.api_of(secret, namespace, &mut BTreeMap::new()).await?;
        let there = self
            .limited(&secret.shown(), api.get_opt(secret.name()))
            .await?;
        Ok(there.is_some_and(|object| is_ours(&object) && has_values(&object.data, secret)))
    }

    /// Where an object is, or is to be.
    async fn api_of(
        &self,
        manifest: &Manifest,
        namespace: &str,
        places: &mut Places,
    ) -> Result<Api<DynamicObject>, KubeError> {
        let key = (
            manifest.api_version().to_owned(),
            manifest.kind().to_owned(),
        );
        let place = match places.get(&key) {
            Some(place) => place.clone(),
            None => {
                let place = self.place(manifest).await?;
                places.insert(key, place.clone());
                place
            }
        };
        Ok(if place.namespaced {
            let namespace = manifest.namespace().unwrap_or(namespace);
            Api::namespaced_with(self.client.clone(), namespace, &place.resource)
        } else {
            Api::all_with(self.client.clone(), &place.resource)
        })
    }

    /// Asks the cluster where objects of a kind are.
    async fn place(&self, manifest: &Manifest) -> Result<Place, KubeError> {
        let (group, version) = match manifest.api_version().split_once('/') {
            Some((group, version)) => (group, version),
            None => ("", manifest.api_version()),
        };
        let gvk = GroupVersionKind::gvk(group, version, manifest.kind());
        let found = self
            .limited(
                &manifest.shown(),
                kube::discovery::pinned_kind(&self.client, &gvk),
            )
            .await;
        let unknown = || KubeError::UnknownKind {
            what: manifest.shown(),
            kind: manifest.kind().to_owned(),
            api_version: manifest.api_version().to_owned(),
        };
        match found {
            Ok((resource, capabilities)) => Ok(Place {
                resource,
                namespaced: capabilities.scope == Scope::Namespaced,
            }),
            // The group isn't there, or the kind isn't in it.
            Err(KubeError::Absent { .. }) => Err(unknown()),
            Err(error) => Err(error),
        }
    }

    /// Waits until each of the CRDs is established, and empties the list.
    async fn established(&self, crds: &mut Vec<String>) -> Result<(), KubeError> {
        let until = Instant::now() + ESTABLISHED_WAIT;
        while let Some(name) = crds.last() {
            let there = self.get(CRD, None, name).await?;
            let established = there.is_some_and(|crd| {
                health::condition(&crd.data, "Established").is_some_and(|c| c.is_true)
            });
            if established {
                crds.pop();
            } else if Instant::now() > until {
                return Err(KubeError::NotNow {
                    server: self.server.clone(),
                    what: format!("CustomResourceDefinition {name}"),
                    message: "it is not established".to_owned(),
                });
            } else {
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
        }
        Ok(())
    }
}

/// Whether an object has fields that the bootstrap, or Argo CD in its name, has applied.
fn is_ours(object: &DynamicObject) -> bool {
    let managed = object.metadata.managed_fields.as_deref().unwrap_or(&[]);
    managed.iter().any(|fields| {
        fields.manager.as_deref() == Some(BOOTSTRAP_MANAGER)
            && fields.operation.as_deref() == Some("Apply")
    })
}

/// Whether a Secret's `data` has what another's `stringData` says.
fn has_values(data: &Value, secret: &Manifest) -> bool {
    let wanted = secret.object.get("stringData").and_then(Value::as_object);
    wanted.into_iter().flatten().all(|(key, value)| {
        let there = data.get("data").and_then(|data| data.get(key));
        let there = there.and_then(Value::as_str).map(|text| BASE64.decode(text));
        matches!((there, value.as_str()), (Some(Ok(there)), Some(value)) if there == value.as_bytes())
    })
}

/// An object's path as text, or nothing.
pub(super) fn text_at(object: &Value, path: &str) -> String {
    let text = object.pointer(path).and_then(Value::as_str);
    text.unwrap_or_default().to_owned()
}
