//! What the cluster's steps need beside the plan.

use std::sync::Arc;

use undercroft_kube::{API_PORT, Helm, HelmChart, Manifest};
use undercroft_model::{BootstrapPart, Failure};

/// Something that the bootstrap brings in.
#[derive(Debug, Clone, PartialEq)]
pub enum BootstrapItem {
    /// Objects that were rendered already.
    Objects {
        /// The objects.
        manifests: Vec<Manifest>,
        /// The namespace of those that name none.
        namespace: String,
    },
    /// A chart that Helm renders.
    Chart(HelmChart),
}

/// Gives the objects that hold secrets, each time anew.
pub type SecretSource = Arc<dyn Fn() -> Result<Vec<Manifest>, Failure> + Send + Sync>;

/// What the cluster's steps need beside the plan.
#[derive(Default)]
pub struct ClusterParts {
    /// What each part of the bootstrap brings in, in order. [`BootstrapPart::Secrets`] comes from
    /// `secrets`.
    pub items: Vec<(BootstrapPart, BootstrapItem)>,
    /// Who renders charts; `None` where there is none to render.
    pub helm: Option<Helm>,
    /// The objects that hold secrets.
    pub secrets: Option<SecretSource>,
    /// The port of the API; `None`: [`API_PORT`].
    pub api_port: Option<u16>,
}

impl std::fmt::Debug for ClusterParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterParts")
            .field("items", &self.items.len())
            .finish_non_exhaustive()
    }
}

impl ClusterParts {
    /// The parts of a plan that brings something in, with the API at its usual port.
    #[must_use]
    pub fn new(
        items: Vec<(BootstrapPart, BootstrapItem)>,
        helm: Option<Helm>,
        secrets: Option<SecretSource>,
    ) -> Self {
        Self {
            items,
            helm,
            secrets,
            api_port: None,
        }
    }

    pub(super) fn port(&self) -> u16 {
        self.api_port.unwrap_or(API_PORT)
    }
}
