//! What is asked for a step of the cluster's, and what is answered.

use std::{collections::BTreeMap, sync::Arc};

use undercroft_model::{BootstrapPart, Failure, NodeName};

use super::{
    etcd::EtcdMembers,
    health::{ApplicationSeen, Rollout, WorkloadKind},
    node::NodeSeen,
    status::{JoinStatus, OtherServer},
};

/// A workload of the bootstrap's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// What it is.
    pub kind: WorkloadKind,
    /// Where.
    pub namespace: &'static str,
    /// Its name.
    pub name: &'static str,
}

/// One thing that is asked, or done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterAsk {
    /// How far the machine's own part is, of the machine itself.
    Status,
    /// Which other servers take connections at the port of the API.
    OpenApis,
    /// How far the other servers of the plan are, of each of them.
    OtherServers,
    /// Whether the cluster's API answers, through any server.
    Api,
    /// The machine's Node, of the API.
    Node,
    /// The members of etcd, of a server that answers for the cluster.
    Members,
    /// Take a member off etcd's list.
    RemoveMember {
        /// Its number.
        id: u64,
        /// Its name, or where it is, for people.
        shown: String,
    },
    /// Make the cluster forget the machine: its Node, and the password by which k3s would know it again.
    ForgetNode,
    /// Stop the machine's kubelet. Its containers run on.
    StopKubelet,
    /// Start the machine's kubelet again, where it runs: it registers only when it starts.
    RestartKubelet,
    /// Tell the machine which server to join, and by which token.
    HandOver,
    /// Start the unit that joins the machine.
    StartJoin,
    /// Put what it must carry on the Node: labels, annotations, taints.
    Dress {
        /// Labels.
        labels: BTreeMap<String, String>,
        /// Annotations.
        annotations: BTreeMap<String, String>,
        /// Taints, as `key=value:Effect` or `key:Effect`.
        taints: Vec<String>,
    },
    /// Let no further pod be placed on the machine's Node, for an update.
    Close,
    /// Let pods be placed on it again, where an update has closed it.
    Open,
    /// The pods that run on it.
    Pods,
    /// Evict pods, each as its disruption budget allows.
    Evict {
        /// Which.
        pods: Vec<PodName>,
    },
    /// Bring in what of a part isn't there.
    BringIn {
        /// The part.
        part: BootstrapPart,
    },
    /// Whether a pod with these labels is ready on the founder.
    ReadyPod {
        /// The namespace.
        namespace: &'static str,
        /// The labels, as a selector.
        labels: &'static str,
    },
    /// The status of a workload.
    Rollout(Workload),
    /// Whether a CRD is there and established.
    Crd {
        /// Its name.
        name: &'static str,
    },
    /// The root application.
    RootApplication,
    /// The objects that hold secrets.
    Secrets,
}

impl ClusterAsk {
    /// Whether it changes something.
    pub fn changes(&self) -> bool {
        match self {
            Self::RemoveMember { .. }
            | Self::ForgetNode
            | Self::StopKubelet
            | Self::RestartKubelet
            | Self::HandOver
            | Self::StartJoin
            | Self::Dress { .. }
            | Self::Close
            | Self::Open
            | Self::Evict { .. }
            | Self::BringIn { .. } => true,
            Self::Status
            | Self::OpenApis
            | Self::OtherServers
            | Self::Api
            | Self::Node
            | Self::Pods
            | Self::Members
            | Self::ReadyPod { .. }
            | Self::Rollout(_)
            | Self::Crd { .. }
            | Self::RootApplication
            | Self::Secrets => false,
        }
    }
}

/// An object that holds a secret, as the cluster has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretSeen {
    /// Which it is, for people.
    pub shown: String,
    /// Whether it is there and was applied by the bootstrap, or by Argo CD in its name.
    pub is_ours: bool,
    /// Whether it holds what it is to hold now; false where it isn't ours.
    pub is_current: bool,
}

/// Which pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID: another pod of that name isn't meant.
    pub uid: String,
}

impl std::fmt::Display for PodName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A pod on a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSeen {
    /// Which.
    pub pod: PodName,
    /// What becomes of it where its machine is emptied.
    pub kind: PodKind,
}

/// What becomes of a pod where its machine is emptied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodKind {
    /// It belongs to the machine, and stays: a DaemonSet's, or one of the machine's own files.
    OfMachine,
    /// It has come to its end.
    Ended,
    /// It is ending.
    Ending,
    /// It is made anew elsewhere by whoever keeps it.
    Kept,
    /// Nobody would make it anew.
    Lone,
}

/// What has become of the eviction of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eviction {
    /// Which pod.
    pub pod: PodName,
    /// Why it wasn't evicted; `None` where it was.
    pub refused: Option<String>,
}

/// What was answered.
#[derive(Debug, Clone, PartialEq)]
pub enum ClusterAnswer {
    /// It is done, or the API answers.
    Done,
    /// How far the machine is.
    Status(JoinStatus),
    /// Servers.
    Open(Vec<NodeName>),
    /// How far other servers are.
    Others(Vec<OtherServer>),
    /// The Node, if the cluster knows one.
    Node(Option<Arc<NodeSeen>>),
    /// The members of etcd.
    Members(EtcdMembers),
    /// The pods.
    Pods(Vec<PodSeen>),
    /// What has become of each eviction.
    Evicted(Vec<Eviction>),
    /// Whether it is there.
    There(bool),
    /// A workload's status, if there is such a workload.
    Rollout(Option<Rollout>),
    /// The application, if there is one.
    Application(Option<ApplicationSeen>),
    /// The objects.
    Secrets(Vec<SecretSeen>),
    /// None, or it wasn't done.
    Nothing(Failure),
}
