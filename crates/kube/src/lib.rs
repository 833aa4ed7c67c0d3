//! The cluster's API, as the bootstrap needs it: few operations, each idempotent, each with a time
//! limit, and each error saying which object, which owner and what to try.
//!
//! The credentials are read from a server over its pinned SSH connection and stay in memory. A
//! kubeconfig may name programs to run and files to read on the machine that uses it; those are
//! refused, so that a server can't make the operator's machine do anything.
//!
//! Objects are taken as the server's own schema judges them: sent by server-side apply with strict
//! field validation, so that a misspelt field is an error and a field that another manager owns is
//! a conflict with that manager's name, rather than something that is quietly changed.

mod access;
mod apply;
mod drain;
mod drift;
mod error;
mod etcd;
mod health;
mod helm;
mod manifest;
mod nodes;

use std::{net::IpAddr, time::Duration};

use kube::{
    Api, Client,
    api::GetParams,
    core::{ApiResource, DynamicObject, GroupVersionKind, Request},
};

pub use self::{
    access::Access,
    apply::{Applied, Apply},
    drift::{NamedApplication, NodeWithCordon},
    error::{FieldOwner, KubeError},
    etcd::etcd_members,
    health::{application, condition, rollout},
    helm::{Helm, HelmChart},
    manifest::{Manifest, parse},
};

/// The port of Kubernetes' API, on every server.
pub use undercroft_model::inventory::API_PORT;

/// The field manager of what the bootstrap brings in: Argo CD's own name, so that Argo CD takes it
/// over as its own work rather than as a conflict.
pub const BOOTSTRAP_MANAGER: &str = "argocd-controller";
/// The field manager of the labels, annotations and taints that the controller keeps on Nodes.
pub const NODE_MANAGER: &str = "undercroft";
/// How long connecting may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one request may take; the largest, a list of a thousand nodes, takes a second.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an API that doesn't answer is asked again by [`Cluster::persist`] between two tries.
pub const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// A way to a cluster's API through one of its servers.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    server: String,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// A client for the API at an address. Nothing is sent yet. Must be used within a tokio
    /// runtime.
    ///
    /// # Errors
    /// When the credentials can't be used.
    pub fn at(access: &Access, address: IpAddr, port: u16) -> Result<Self, KubeError> {
        let config = access.config(address, port)?;
        let client = Client::try_from(config).map_err(|e| KubeError::Access {
            detail: error::chain(&e),
        })?;
        Ok(Self {
            client,
            server: format!("{address} port {port}"),
        })
    }

    /// The server that is asked, for messages.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Asks whether the API is ready to serve (`/readyz`).
    ///
    /// # Errors
    /// When it isn't.
    pub async fn ready(&self) -> Result<(), KubeError> {
        let request = Request::new("").get("readyz", &GetParams::default());
        let request = request.map_err(|e| KubeError::Access {
            detail: e.to_string(),
        })?;
        self.limited("readiness", self.client.request_text(request))
            .await
            .map(drop)
    }

    /// Who the cluster is: the UID of its namespace `kube-system`, which lives as long as its
    /// datastore. It answers only where the API is ready to serve.
    ///
    /// # Errors
    /// When it isn't ready, or has no such namespace yet.
    pub async fn uid(&self) -> Result<String, KubeError> {
        self.ready().await?;
        let found = self.get(NAMESPACE, None, SYSTEM_NAMESPACE).await?;
        found
            .and_then(|namespace| namespace.metadata.uid)
            .ok_or_else(|| KubeError::NotNow {
                server: self.server.clone(),
                what: format!("Namespace {SYSTEM_NAMESPACE}"),
                message: "it isn't there yet".to_owned(),
            })
    }

    /// The API server's version, such as `v1.34.2+k3s1`.
    ///
    /// # Errors
    /// When it can't be asked.
    pub async fn version(&self) -> Result<String, KubeError> {
        let info = self
            .limited("the version", self.client.apiserver_version())
            .await?;
        Ok(info.git_version)
    }

    /// An object of a kind that stands in this program, or nothing where there is none, or where
    /// the cluster doesn't know the kind.
    async fn get(&self, kind: Kind, namespace: Option<&str>, name: &str) -> Found {
        let what = format!("{} {}", kind.kind, shown_name(namespace, name));
        let api = self.api(kind, namespace);
        match self.limited(&what, api.get_opt(name)).await {
            Err(KubeError::Absent { .. }) => Ok(None),
            found => found,
        }
    }

    fn api(&self, kind: Kind, namespace: Option<&str>) -> Api<DynamicObject> {
        let resource = kind.resource();
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }

    /// Waits for a request, no longer than [`REQUEST_TIMEOUT`].
    async fn limited<T>(
        &self,
        what: &str,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, KubeError> {
        // On the heap: the client's futures are large, and lie within those of all who wait for it.
        match Box::pin(tokio::time::timeout(REQUEST_TIMEOUT, request)).await {
            Ok(done) => done.map_err(|e| KubeError::of(e, &self.server, what)),
            Err(_) => Err(KubeError::Away {
                server: self.server.clone(),
                detail: format!(
                    "no answer within {} s when asked for {what}",
                    REQUEST_TIMEOUT.as_secs()
                ),
            }),
        }
    }
}

type Found = Result<Option<DynamicObject>, KubeError>;

/// A kind of object that this program knows by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
}

impl Kind {
    const fn new(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        plural: &'static str,
    ) -> Self {
        Self {
            group,
            version,
            kind,
            plural,
        }
    }

    fn resource(self) -> ApiResource {
        ApiResource::from_gvk_with_plural(
            &GroupVersionKind::gvk(self.group, self.version, self.kind),
            self.plural,
        )
    }
}

/// The namespace that Kubernetes itself has in every cluster.
const SYSTEM_NAMESPACE: &str = "kube-system";

const NAMESPACE: Kind = Kind::new("", "v1", "Namespace", "namespaces");
const NODE: Kind = Kind::new("", "v1", "Node", "nodes");
const POD: Kind = Kind::new("", "v1", "Pod", "pods");
const SECRET: Kind = Kind::new("", "v1", "Secret", "secrets");
const DAEMON_SET: Kind = Kind::new("apps", "v1", "DaemonSet", "daemonsets");
const DEPLOYMENT: Kind = Kind::new("apps", "v1", "Deployment", "deployments");
const STATEFUL_SET: Kind = Kind::new("apps", "v1", "StatefulSet", "statefulsets");
const CRD: Kind = Kind::new(
    "apiextensions.k8s.io",
    "v1",
    "CustomResourceDefinition",
    "customresourcedefinitions",
);
const APPLICATION: Kind = Kind::new("argoproj.io", "v1alpha1", "Application", "applications");

fn shown_name(namespace: Option<&str>, name: &str) -> String {
    match namespace {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    }
}
