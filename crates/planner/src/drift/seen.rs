//! What a look at the fleet has shown. What wasn't answered is absent, and never empty.

use std::collections::{BTreeMap, BTreeSet};

use undercroft_model::NodeName;

/// What a look has shown of the machines and the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DriftLook {
    /// The machines that were asked for. Of others nothing begins or ends.
    pub asked: BTreeSet<NodeName>,
    /// What each machine has answered, or why it hasn't. Machines that were never up aren't here.
    pub machines: BTreeMap<NodeName, Result<MachineLook, String>>,
    /// What the cluster's API has answered, or why it hasn't; `None` where the inventory has no cluster.
    pub cluster: Option<Result<ClusterLook, String>>,
}

/// What a machine says of itself over SSH.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MachineLook {
    /// The boot.
    pub boot_id: String,
    /// Its clock, in seconds since 1970, when it answered.
    pub time_s: Option<u64>,
    /// When it was asked, and when it had answered, by the controller's clock, in milliseconds.
    pub asked_ms: u64,
    /// See [`Self::asked_ms`].
    pub answered_ms: u64,
    /// The system that is active.
    pub current: Option<String>,
    /// The system that was booted.
    pub booted: Option<String>,
    /// The system of the boot menu's default entry.
    pub default_system: Option<String>,
    /// The system that last proved itself.
    pub proven_system: Option<String>,
    /// Its report of how it was booted, or why that can't be read.
    pub boot: Option<Result<BootReport, String>>,
    /// Its report of its health, or why that can't be read.
    pub health: Option<Result<HealthReport, String>>,
    /// Units that have failed.
    pub failed_units: Option<Vec<String>>,
    /// Who may log in by which key.
    pub keys: Option<FoundKeys>,
    /// The file system of the Nix store.
    pub store: Option<Room>,
    /// The EFI system partition.
    pub esp: Option<Room>,
    /// What the kernel and the initrd of the active system take, in bytes.
    pub boot_files_bytes: Option<u64>,
}

/// The room of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// All of it, in KiB.
    pub total_kib: u64,
    /// What is free, in KiB.
    pub free_kib: u64,
}

/// What of `boot.json` is read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BootReport {
    /// The generation that was left last, unless another has proved itself since.
    pub fell_back: Option<FellBack>,
}

/// A generation that was left.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FellBack {
    /// Its system.
    pub system: String,
    /// The system that was gone back to.
    pub to_system: String,
    /// The checks that had failed.
    pub failed: Vec<String>,
}

/// What of `health.json` is read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HealthReport {
    /// The boot that it is of.
    pub boot_id: String,
    /// When it was written, in seconds since 1970, by the machine's clock.
    pub checked_at_s: u64,
    /// The checks.
    pub checks: Vec<CheckLook>,
}

/// A check of a machine's health.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckLook {
    /// Its name.
    pub name: String,
    /// Whether it holds.
    pub ok: bool,
    /// Whether whoever it asked has answered.
    pub answered: bool,
    /// The end of what it said.
    pub output: String,
}

/// The keys of a machine's users.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FoundKeys {
    /// Those that the active system names, as user and fingerprint.
    pub named: BTreeSet<(String, String)>,
    /// Those that let somebody in.
    pub authorized: Vec<AuthorizedKey>,
}

/// A key that lets somebody in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizedKey {
    /// The account.
    pub user: String,
    /// The file.
    pub file: String,
    /// The key's fingerprint, as `SHA256:…`.
    pub fingerprint: String,
    /// Its comment.
    pub comment: String,
}

/// What the cluster's API says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterLook {
    /// The API server's version.
    pub version: String,
    /// The Nodes that have a name of the inventory.
    pub nodes: BTreeMap<NodeName, NodeLook>,
    /// Argo CD's applications, or why they can't be asked for; `None` where the inventory has no Argo CD.
    pub applications: Option<Result<Vec<ApplicationLook>, String>>,
}

/// A Node as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeLook {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its taints, as `key=value:Effect` or `key:Effect`.
    pub taints: Vec<String>,
    /// Whether it is cordoned.
    pub cordoned: bool,
    /// Its kubelet's version; empty where it has reported none.
    pub kubelet_version: String,
}

/// An application as Argo CD sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ApplicationLook {
    /// `NAMESPACE/NAME`.
    pub name: String,
    /// `Synced`, `OutOfSync` or `Unknown`.
    pub sync: String,
    /// `Healthy`, `Degraded`, `Progressing`, …
    pub health: String,
    /// What is wrong, where Argo CD says it.
    pub message: String,
}
