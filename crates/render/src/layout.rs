//! Where things stand in the tree, and what they are called.

pub use undercroft_model::objects::{ARGOCD_NAMESPACE, ROOT_APPLICATION as ROOT};

/// Name of Argo CD's component.
pub(crate) const ARGOCD: &str = "argo-cd";
/// Name of Cilium's component.
pub(crate) const CILIUM: &str = "cilium";
/// Name of the component that makes the namespaces.
pub(crate) const NAMESPACES: &str = "namespaces";
/// Project of the components.
pub(crate) const FLEET_PROJECT: &str = "fleet";
/// Project of the user's own apps.
pub(crate) const APPS_PROJECT: &str = "apps";
/// File of the projects, in the folder of Applications.
pub(crate) const PROJECTS: &str = "projects";
/// File with the digests of all rendered files, in the tree's folder.
pub const DIGESTS: &str = ".rendered";
/// File with the choices that can't be changed later, in the tree's folder.
pub(crate) const CHOICES: &str = ".choices";
/// Folder of the user's own values, beside the inventory.
pub const OVERRIDES: &str = "values";
/// Names that an app can't have, since a file or an Application has them.
pub(crate) const RESERVED: &[&str] = &[ROOT, NAMESPACES, PROJECTS];

/// The tree's folder, from the inventory's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeLayout {
    path: String,
}

impl TreeLayout {
    /// A tree in a folder.
    pub fn new(path: &str) -> Self {
        Self {
            path: path.trim_end_matches('/').to_owned(),
        }
    }

    /// A file of the tree.
    pub fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }

    /// The tree's folder.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The folder of the Applications.
    pub fn applications(&self) -> String {
        self.file("applications")
    }

    /// The file of an Application, or of the projects.
    pub fn application(&self, name: &str) -> String {
        self.file(&format!("applications/{name}.yaml"))
    }

    /// The file with a component's values.
    pub fn values(&self, component: &str) -> String {
        self.file(&format!("components/{component}/values.yaml"))
    }

    /// The folder with a component's manifests.
    pub fn manifests(&self, component: &str) -> String {
        self.file(&format!("components/{component}/manifests"))
    }

    /// The folder of all components.
    pub fn components(&self) -> String {
        self.file("components")
    }

    /// Whether Argo CD reads a folder of the tree, and so applies what is in it.
    pub fn is_read(&self, folder: &str) -> bool {
        let within = |of: &str| {
            folder
                .strip_prefix(of)
                .and_then(|rest| rest.strip_prefix('/'))
        };
        let manifests = || {
            let (_, inner) = within(&self.components())?.split_once('/')?;
            Some(inner == "manifests" || inner.starts_with("manifests/"))
        };
        let applications = self.applications();
        folder == applications || within(&applications).is_some() || manifests() == Some(true)
    }

    /// Whether a render could have made a file, in this version or an earlier one: it has a place in
    /// the tree, and a plain name.
    pub fn makes(&self, file: &str) -> bool {
        let Some(inner) = file
            .strip_prefix(&self.path)
            .and_then(|rest| rest.strip_prefix('/'))
        else {
            return false;
        };
        let parts: Vec<&str> = inner.split('/').collect();
        let yaml = |name: &str| name.strip_suffix(".yaml").is_some_and(is_plain_name);
        match parts.as_slice() {
            ["README.md" | "graph.svg" | CHOICES] => true,
            ["bootstrap" | "applications", name] => yaml(name),
            ["components", component, "values.yaml"] => is_plain_name(component),
            ["components", component, "manifests", name] => is_plain_name(component) && yaml(name),
            _ => false,
        }
    }

    /// The root Application.
    pub fn root(&self) -> String {
        self.file("bootstrap/root.yaml")
    }

    /// The file that says what the bootstrap applies, and in which order.
    pub fn order(&self) -> String {
        self.file("bootstrap/order.yaml")
    }

    /// The file with the digests.
    pub fn digests(&self) -> String {
        self.file(DIGESTS)
    }

    /// The file with the first choices.
    pub fn choices(&self) -> String {
        self.file(CHOICES)
    }

    /// The file of the user's own values for a component.
    pub fn overrides(component: &str) -> String {
        format!("{OVERRIDES}/{component}.yaml")
    }
}

/// Whether a name is one as components, Applications and their files have.
fn is_plain_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_argo_cd_reads_is_told_from_what_lies_beside_it() {
        let layout = TreeLayout::new("gitops");
        for read in [
            "gitops/applications",
            "gitops/applications/deeper",
            "gitops/components/nats/manifests",
            "gitops/components/nats/manifests/deeper",
        ] {
            assert!(layout.is_read(read), "{read}");
        }
        for made in [
            "gitops/README.md",
            "gitops/applications/cert-manager.yaml",
            "gitops/bootstrap/root.yaml",
            "gitops/components/argo-cd/values.yaml",
            "gitops/components/argo-cd/manifests/a.b.yaml",
        ] {
            assert!(layout.makes(made), "{made}");
        }
        for other in [
            "undercroft.toml",
            ".undercroft/operator-identity.txt",
            "secrets/host-keys/gpu-01.age",
            "docs/environ",
            "gitops",
            "gitops/.rendered",
            "gitops/applications/.hidden.yaml",
            "gitops/applications/../../undercroft.yaml",
            "gitops/applications/a/b.yaml",
            "gitops/components/../values.yaml",
            "gitops/components/a/manifests/b.json",
            "gitops/components/a/manifests/.yaml",
        ] {
            assert!(!layout.makes(other), "{other}");
        }
        for other in [
            "gitops",
            "gitops/applications-of-mine",
            "gitops/bootstrap",
            "gitops/components",
            "gitops/components/nats",
            "gitops/components/nats/manifests-of-mine",
            "elsewhere/applications",
        ] {
            assert!(!layout.is_read(other), "{other}");
        }
    }
}
