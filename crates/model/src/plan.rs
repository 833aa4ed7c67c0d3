//! What will be done: a plan is decided once, whole, and carried out without further choices.

mod disk;
mod state;

use std::{collections::BTreeMap, fmt, io, net::Ipv4Addr};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    BootstrapPart, ClusterPlan, ClusterRole, MacAddr, MachineIdentity, MachineUuid, NodeName,
    System, inventory::Layout, tagged::tagged,
};

pub use disk::{DiskIdentity, PlannedDisk};
pub use state::NodeState;

/// The version of [`Plan`]'s written form.
pub const PLAN_VERSION: u32 = 1;

/// The digest of a plan's content, in hexadecimal; two plans with the same id are the same plan.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(transparent)]
pub struct PlanId(pub String);

impl fmt::Display for PlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// How much of a plan's JSON is hashed at a time, in bytes: more than any step's, and little beside the plan.
const HASHED_AT_ONCE_BYTES: usize = 16 * 1024;

/// A step's place in [`Plan::steps`].
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(transparent)]
pub struct StepId(pub u32);

impl StepId {
    /// Its place as an index into what is kept for each step of a plan, as [`Plan::steps`] is.
    pub fn index(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// Something of which only so many may be in use at once, whatever the number of machines.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Resource {
    /// Machines between power-on and their installer's report: firmware loads from our TFTP and HTTP.
    NetworkBoot,
    /// Closures under way from the operator's store to a machine.
    ClosureCopy,
    /// Machines that were told to reboot and aren't back.
    Reboot,
    /// Servers that join the control plane. etcd takes one new member at a time, so that the limit
    /// of every plan is 1.
    ServerJoin,
    /// Agents that join the cluster: each draws its images over the same line.
    AgentJoin,
}

impl Resource {
    /// All resources.
    pub const ALL: [Self; 5] = [
        Self::NetworkBoot,
        Self::ClosureCopy,
        Self::Reboot,
        Self::ServerJoin,
        Self::AgentJoin,
    ];
}

/// The system that a machine is to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SystemTarget {
    /// The store path of the system's toplevel.
    pub toplevel: String,
    /// The store path of its disko script, where the layout is disko's business.
    #[serde(default)]
    pub disko_script: Option<String>,
    /// The store path of disko's other script, which mounts what is laid out; `None` where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disko_mount_script: Option<String>,
    /// The devices that the disko script makes anew, as it names them; `None` where that can't be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disko_devices: Option<Vec<String>>,
    /// What it runs on.
    pub system: System,
    /// The size of the whole closure in bytes, where known: for progress and for the disk's size.
    #[serde(default)]
    pub closure_bytes: Option<u64>,
}

/// How an installer's fingerprint may be confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ApprovalMode {
    /// By `undercroft approve`, by a person who reads the machine's screen.
    Operator,
    /// By a console that only the machine can write to and only the operator can read: a virtual
    /// machine's serial port, a BMC's serial-over-LAN.
    Console,
}

tagged! {
"do", ActionRead;
/// One thing to do to one machine. Each is idempotent, and each has a probe that tells whether it
/// is done already.
pub enum Action {
    /// Start the machine from the network, and wait for its installer's report.
    NetworkBoot,
    /// Wait until the reported fingerprint is approved.
    Approve {
        /// Who may approve.
        mode: ApprovalMode,
        /// How long an approval is good for, in milliseconds.
        expires_ms: u64,
    },
    /// Connect, pinned to the approved key, and compare the machine with the inventory.
    Inspect {
        /// Disks that must be there, by identity.
        disks: Vec<PlannedDisk>,
        /// What the machine must be able to run.
        system: System,
        /// The least memory, in MiB.
        memory_mb_min: u64,
    },
    /// Lay out and mount the disks.
    Partition {
        /// The disks, first the one that holds the root.
        disks: Vec<PlannedDisk>,
        /// The inventory's name of the layout.
        layout: Layout,
        /// The disko script to use in place of our own layout.
        #[serde(default)]
        disko_script: Option<String>,
        /// Disko's other script, which mounts what is laid out already: where a machine lost its power after its disks
        /// were laid out, nothing else can be done but to wipe them again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        disko_mount_script: Option<String>,
        /// The devices that the disko script makes anew, as it names them; `None` where that can't be told, and then
        /// it isn't run.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        disko_devices: Option<Vec<String>>,
    },
    /// Copy the closure onto the mounted disk.
    CopyClosure {
        /// The system's toplevel.
        toplevel: String,
        /// The closure's size in bytes, where known.
        closure_bytes: Option<u64>,
    },
    /// Deliver the machine's host key, set the profile, install the boot loader, read it back.
    Install {
        /// The system's toplevel.
        toplevel: String,
        /// The fingerprint of the host key that is delivered.
        host_key_fingerprint: String,
    },
    /// Leave the installer: unmount, reboot from the disk, wait until the boot id is another.
    Reboot {
        /// The fingerprint under which the machine must come back.
        host_key_fingerprint: String,
    },
    /// Over SSH pinned to the machine's own host key, compare the booted closure with the built.
    Prove {
        /// The system's toplevel.
        toplevel: String,
        /// The fingerprint that the machine must show.
        host_key_fingerprint: String,
    },
    /// Copy the closure to the machine's own store, while it runs the system that it has.
    Fetch {
        /// The system's toplevel.
        toplevel: String,
        /// The closure's size in bytes, where known.
        closure_bytes: Option<u64>,
        /// The fingerprint that the machine must show.
        host_key_fingerprint: String,
    },
    /// Let no further pod be placed on the machine, and evict those that run there: each as its disruption budget
    /// allows. What this step has closed it opens again where it comes to no end.
    Drain,
    /// Make the system the next one to boot: where the machine tries its systems, for one boot. Read back.
    Stage {
        /// The system's toplevel.
        toplevel: String,
        /// The fingerprint that the machine must show.
        host_key_fingerprint: String,
    },
    /// Reboot the machine into what was staged, and wait until its boot id is another than at the staging.
    Restart {
        /// The fingerprint under which the machine must come back.
        host_key_fingerprint: String,
    },
    /// Wait until the machine itself has found that it is well with the system, or has left it.
    Confirm {
        /// The system's toplevel.
        toplevel: String,
        /// The fingerprint that the machine must show.
        host_key_fingerprint: String,
    },
    /// Let pods be placed on the machine again, unless somebody else has closed it.
    Release,
    /// Start the cluster's first server and wait until its API answers and etcd has it as its one
    /// member that votes. Refused where another server of the inventory already answers for a
    /// cluster.
    FoundCluster,
    /// Start the machine's part of Kubernetes, so that it joins the cluster that is there, and
    /// wait until its kubelet of this boot has registered; a server, until etcd has it as a member
    /// that votes. A server begins only while every member of etcd is healthy and votes.
    JoinCluster {
        /// What it is in the cluster.
        role: ClusterRole,
        /// Whether the machine was installed anew under a name that the cluster may know: its
        /// old member of etcd, its Node and k3s' node-password secret are removed first.
        replaces: bool,
    },
    /// Put the labels, annotations and taints of the inventory on the machine's Node, and wait
    /// until Kubernetes calls it Ready.
    AwaitReady {
        /// Labels that it must have.
        labels: BTreeMap<String, String>,
        /// Annotations that it must have.
        annotations: BTreeMap<String, String>,
        /// Taints that it must have, as `key=value:Effect` or `key:Effect`.
        taints: Vec<String>,
    },
    /// Bring a part of the bootstrap into the cluster, and wait until it is healthy.
    Bootstrap {
        /// Which part.
        part: BootstrapPart,
    },
}
}

impl Action {
    /// The action's name as people read it.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::NetworkBoot => "network-boot",
            Self::Approve { .. } => "approve",
            Self::Inspect { .. } => "inspect",
            Self::Partition { .. } => "partition",
            Self::CopyClosure { .. } => "copy",
            Self::Install { .. } => "install",
            Self::Reboot { .. } => "reboot",
            Self::Prove { .. } => "prove",
            Self::Fetch { .. } => "fetch",
            Self::Drain => "drain",
            Self::Stage { .. } => "stage",
            Self::Restart { .. } => "restart",
            Self::Confirm { .. } => "confirm",
            Self::Release => "release",
            Self::FoundCluster => "found",
            Self::JoinCluster { .. } => "join",
            Self::AwaitReady { .. } => "ready",
            Self::Bootstrap { part } => part.as_str(),
        }
    }

    /// Whether it works on the cluster: through its API, or on a machine as a member of it.
    pub fn is_of_cluster(&self) -> bool {
        matches!(
            self,
            Self::FoundCluster
                | Self::JoinCluster { .. }
                | Self::AwaitReady { .. }
                | Self::Bootstrap { .. }
                | Self::Drain
                | Self::Release
        )
    }

    /// Whether it is done to a machine that has a system of its own, which is another by the end of its steps.
    pub fn updates(&self) -> bool {
        matches!(
            self,
            Self::Fetch { .. }
                | Self::Drain
                | Self::Stage { .. }
                | Self::Restart { .. }
                | Self::Confirm { .. }
                | Self::Release
        )
    }

    /// Whether it makes a machine a member of the cluster.
    pub fn makes_member(&self) -> bool {
        matches!(self, Self::FoundCluster | Self::JoinCluster { .. })
    }
}

/// How often, and how far apart, a step is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RetryPolicy {
    /// The number of tries in all, at least 1.
    pub attempts_max: u32,
    /// The wait before the second try, in milliseconds; it doubles with each further one.
    pub backoff_ms: u64,
    /// The longest wait, in milliseconds.
    pub backoff_ms_max: u64,
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Step {
    /// Its place in [`Plan::steps`].
    pub id: StepId,
    /// The machine.
    pub node: NodeName,
    /// The state that the machine must have reached before: the step's precondition.
    pub requires: NodeState,
    /// The state that the machine has reached when the step has succeeded.
    pub reaches: NodeState,
    /// What to do.
    pub action: Action,
    /// Steps that must have succeeded before, of this machine and of others.
    pub after: Vec<StepId>,
    /// Steps of other machines that must have succeeded before, unless their machine's part of the
    /// plan has ended without success, or won't be begun in this run: what the step would rather
    /// wait for than fail for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after_settled: Vec<StepId>,
    /// What the step holds while it runs.
    pub resource: Option<Resource>,
    /// How long one try may take, in milliseconds.
    pub timeout_ms: u64,
    /// How often it is tried.
    pub retry: RetryPolicy,
    /// The disks whose content is lost.
    pub destroys: Vec<DiskIdentity>,
    /// Whether secrets are sent to the machine.
    pub delivers_secrets: bool,
    /// Whether the planner has seen signs that the step is done already, so that the first thing
    /// to do is to find out.
    #[serde(default)]
    pub probe_first: bool,
    /// Where this machine's steps begin again when it turns out not to be in the state that this
    /// step requires: the network boot (it lost its power, say), or, for what a member of the
    /// cluster does, where it became one (its Node was deleted, say). `None`: that ends the machine's
    /// part of the plan.
    pub restart_from: Option<StepId>,
}

/// A machine's part of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct NodePlan {
    /// All of its Ethernet addresses.
    pub macs: Vec<MacAddr>,
    /// Its SMBIOS UUID, where the inventory gives one.
    pub uuid: Option<MachineUuid>,
    /// Its address.
    pub address: Ipv4Addr,
    /// What its processor and operating system are.
    pub system: System,
    /// What it is to run; `None` where it is only looked at.
    #[serde(default)]
    pub target: Option<SystemTarget>,
    /// How often it was deliberately installed anew, this plan's doing included. It is part of
    /// what the GUIDs of its partition tables are derived from.
    #[serde(default)]
    pub generation: u32,
    /// Its steps, in order.
    pub steps: Vec<StepId>,
    /// States that it will not be brought to, each with the reason.
    pub not_applicable: BTreeMap<NodeState, String>,
}

impl NodePlan {
    /// What tells the machine from all others.
    pub fn identity(&self) -> MachineIdentity<'_> {
        MachineIdentity {
            uuid: self.uuid,
            macs: &self.macs,
        }
    }
}

/// The wave of an update that a plan is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Wave {
    /// The digest of the systems that all machines are to run: another one is another update, which begins with a machine
    /// that is tried first.
    pub update: String,
    /// Which wave of it this is, from 1.
    pub number: u32,
}

/// The limits that hold for a plan as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PlanLimits {
    /// How many steps may hold a resource at once.
    pub concurrency: BTreeMap<Resource, u32>,
    /// How many machines may fail before no further machine is begun.
    pub failure_budget: u32,
    /// How often one machine's steps may begin again.
    pub node_restarts_max: u32,
}

/// A decided plan. Carrying it out needs no further choice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Plan {
    /// The digest of all the rest.
    pub id: PlanId,
    /// [`PLAN_VERSION`].
    pub version: u32,
    /// The plan that this one replaces.
    pub parent: Option<PlanId>,
    /// The fleet's name.
    pub fleet: String,
    /// The digest of the inventory that it was made from.
    pub inventory_digest: String,
    /// The limits that hold for all of it.
    pub limits: PlanLimits,
    /// The cluster that its machines form; `None` where no step is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterPlan>,
    /// Which wave of an update it is; `None` where no machine is updated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wave: Option<Wave>,
    /// The machines that it is about.
    pub nodes: BTreeMap<NodeName, NodePlan>,
    /// All steps; a step's id is its index.
    pub steps: Vec<Step>,
}

impl Plan {
    /// The step of that id.
    pub fn step(&self, id: StepId) -> Option<&Step> {
        self.steps.get(id.index())
    }

    /// The id that the plan's content gives it: SHA-256, in hexadecimal, of its JSON without the
    /// id. All of its maps are ordered, so that the same plan always has the same JSON.
    pub fn content_id(&self) -> PlanId {
        let unnamed = Unnamed {
            version: self.version,
            parent: self.parent.as_ref(),
            fleet: &self.fleet,
            inventory_digest: &self.inventory_digest,
            limits: &self.limits,
            cluster: self.cluster.as_ref(),
            wave: self.wave.as_ref(),
            nodes: &self.nodes,
            steps: &self.steps,
        };
        // serde_json writes each key, quote and comma by itself.
        let mut hash = io::BufWriter::with_capacity(HASHED_AT_ONCE_BYTES, Digest::default());
        let written = serde_json::to_writer(&mut hash, &unnamed).map_err(io::Error::from);
        match written.and_then(|()| hash.into_inner().map_err(io::IntoInnerError::into_error)) {
            Ok(hash) => PlanId(
                hash.0
                    .finalize()
                    .iter()
                    .map(|b| format!("{b:02x}"))
                    .collect(),
            ),
            // Neither the hash nor the types can fail; if they did, the id would match no plan.
            Err(error) => PlanId(format!("without id: {error}")),
        }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

/// A plan's content, without its id.
#[derive(Serialize)]
struct Unnamed<'a> {
    version: u32,
    parent: Option<&'a PlanId>,
    fleet: &'a str,
    inventory_digest: &'a str,
    limits: &'a PlanLimits,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<&'a ClusterPlan>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wave: Option<&'a Wave>,
    nodes: &'a BTreeMap<NodeName, NodePlan>,
    steps: &'a [Step],
}

/// A hash that JSON can be written to, without keeping the JSON.
#[derive(Default)]
struct Digest(Sha256);

impl io::Write for Digest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
