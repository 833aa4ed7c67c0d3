//! The tree of manifests that Argo CD keeps a cluster equal to, as a pure function of the
//! inventory, the lock file and the user's own folders.
//!
//! [`render`] takes what was read and gives every file of the tree, or everything that is wrong.
//! What a component is (its Helm values, its manifests, what it needs) is said in `components`,
//! one file each; order, owners, Applications and the drawing follow from that here.

mod component;
mod components;
mod context;
mod lock;
mod problem;
pub mod yaml;

pub use component::{Chart, Component, DevUse, HealthCheck, Manifest, ObjectId};
pub use context::Context;
pub use lock::{Lock, Locked};
pub use problem::Problem;
