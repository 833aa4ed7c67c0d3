//! Names of Kubernetes objects that several parts mean: the rendered tree has or selects them, and the
//! bootstrap makes or waits for them before Argo CD reads the tree.

/// Namespace of Argo CD and of all Applications.
pub const ARGOCD_NAMESPACE: &str = "argocd";
/// Name of the Application from which all others follow.
pub const ROOT_APPLICATION: &str = "root";
/// Secret with Argo CD's credentials for the repository.
pub const REPOSITORY_SECRET: &str = "fleet-repository";
/// Namespace of the message system, and of the server of lending beside it.
pub const NATS_NAMESPACE: &str = "nats";
/// Secret with the key of the server of lending.
pub const LENDING_SERVER_SECRET: &str = "lending-server";
/// The key of that Secret that has the seed.
pub const LENDING_SERVER_KEY: &str = "server.nk";
/// Namespace of everything that watches the cluster.
pub const MONITORING_NAMESPACE: &str = "monitoring";
/// Secret with the name and password of Grafana's administrator.
pub const GRAFANA_SECRET: &str = "grafana-admin";
/// The key of that Secret that has the name.
pub const GRAFANA_USER_KEY: &str = "admin-user";
/// The key of that Secret that has the password.
pub const GRAFANA_PASSWORD_KEY: &str = "admin-password";
/// Annotation of a Node that an update has closed for further pods, and opens again: no Node without it is opened.
pub const CLOSED_ANNOTATION: &str = "undercroft.dev/closed-by-update";
