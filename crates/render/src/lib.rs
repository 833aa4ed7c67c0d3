//! The tree of manifests that Argo CD keeps a cluster equal to, as a pure function of the
//! inventory, the lock file and the user's own folders.
//!
//! [`render`] takes what was read and gives every file of the tree, or everything that is wrong.
//! What a component is (its Helm values, its manifests, what it needs) is said in `components`,
//! one file each; order, owners, Applications and the drawing follow from that here.

mod app;
mod applications;
mod choices;
mod compare;
mod component;
mod components;
mod context;
mod dev;
mod fixed;
mod graph;
mod layout;
mod lint;
mod lock;
mod minor;
pub mod oci;
mod order;
mod problem;
mod readme;
mod render;
mod skew;
mod steps;
mod tree;
mod update;
mod values;
pub mod yaml;

pub use app::{APP_FILE, APP_NAME_MAX, App, AppChart, AppForm, AppSettings, check_app_name};
pub use choices::{CLUSTER, Choices};
pub use compare::{Change, Difference, compare, is_applied};
pub use component::{Chart, Component, DevUse, HealthCheck, ManifestObject, ObjectId};
pub use context::Context;
pub use dev::{DevCluster, K3D_FILE, K3D_MOUNTS, dev_cluster};
pub use layout::{ARGOCD_NAMESPACE, DIGESTS, OVERRIDES, ROOT, TreeLayout};
pub use lock::{LOCK_FILE, LOCK_VERSION, Lock, Locked};
pub use minor::{Minor, allows};
pub use problem::{INVENTORY_FILE, Problem, Spot, toml_problem};
pub use render::{RenderInput, render};
pub use skew::check_versions;
pub use steps::{TooFar, check_step, check_steps};
pub use tree::{BootstrapStep, FIELD_MANAGER, Tree, digest, parse_digests};
pub use update::{ChartIndexError, Choice, Index, Release, is_major_step, is_version, newer_tags};
pub use values::{KnownValues, merge};
