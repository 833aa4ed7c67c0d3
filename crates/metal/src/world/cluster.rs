//! The steps by which machines become a cluster.
//!
//! What happens on a machine is asked for over SSH, pinned to the machine's own host key; what
//! happens in the cluster, of its API, with the credentials that a server keeps for its
//! administrator. Those are read over the same SSH and kept in memory. Whoever answers is asked,
//! the founder first.
//!
//! An API that is away for a while is waited for within the step's limit: servers restart while
//! others join. Everything can be repeated, so that what was begun and not seen to end is begun
//! again rather than guessed about.

mod bootstrap;
mod join;
mod machine;
mod ready;

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use undercroft_model::{
    Action, BootstrapPart, ClusterPlan, ClusterRole, Failure, FailureKind, NodeName, Work,
};

pub(crate) use self::{bootstrap::part_health, machine::Machine};
use super::{Done, Job, Stop};
use crate::kube::{API_PORT, Access, Chart, Cluster, Helm, KubeError, Manifest};

/// The wait between two looks at something that takes its time.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a probe looks for a cluster that may be restarting. The engine gives a probe two
/// minutes.
const PROBE_WAIT: Duration = Duration::from_secs(90);
/// The time before the step's limit at which a wait gives up, so that what was seen last is told
/// rather than that time ran out.
const MARGIN: Duration = Duration::from_secs(3);

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
    Chart(Chart),
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

    fn port(&self) -> u16 {
        self.api_port.unwrap_or(API_PORT)
    }
}

/// The cluster's credentials as they were read last.
#[derive(Default)]
pub(super) struct KnownAccess(Mutex<Option<Access>>);

impl KnownAccess {
    fn get(&self) -> Option<Access> {
        let access = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        access.clone()
    }

    fn keep(&self, access: Access) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(access);
    }
}

/// Carries out a step of the cluster's, or looks whether it is done.
pub(super) async fn carry_out(job: &Job<'_>, work: Work) -> Done {
    let Some(plan) = &job.order.plan.cluster else {
        return Err(Stop::new(
            FailureKind::Permanent,
            "the plan has a step of a cluster and no cluster",
        ));
    };
    let step = ClusterStep { job, plan, work };
    match &job.step.action {
        Action::FoundCluster => Box::pin(step.member(ClusterRole::Server, None)).await,
        Action::JoinCluster { role, replaces } => {
            Box::pin(step.member(*role, Some(*replaces))).await
        }
        Action::AwaitReady {
            labels,
            annotations,
            taints,
        } => Box::pin(step.ready(labels, annotations, taints)).await,
        Action::Bootstrap { part } => Box::pin(step.bootstrap(*part)).await,
        _ => Err(Stop::new(
            FailureKind::Permanent,
            "this is no step of the cluster's",
        )),
    }
}

/// A step of the cluster's under way.
struct ClusterStep<'a> {
    job: &'a Job<'a>,
    plan: &'a ClusterPlan,
    work: Work,
}

/// A server that answers for the cluster.
#[derive(Debug)]
struct Api {
    cluster: Cluster,
    server: NodeName,
    address: Ipv4Addr,
}

impl ClusterStep<'_> {
    fn parts(&self) -> &ClusterParts {
        &self.job.shared.parts.cluster
    }

    /// When to stop waiting, with time left to say for what.
    fn until(&self) -> Instant {
        let left = self.job.left().saturating_sub(MARGIN);
        let wait = match self.work {
            Work::Act => left,
            Work::Probe => left.min(PROBE_WAIT),
        };
        Instant::now() + wait
    }

    /// A machine of the plan, over SSH.
    fn machine(&self, name: &NodeName, address: Ipv4Addr) -> Result<Machine, Failure> {
        let parts = &self.job.shared.parts;
        Machine::new(
            name,
            address,
            &parts.host_keys,
            &parts.operator.private_file,
        )
    }

    /// The machine of this step.
    fn own_machine(&self) -> Result<Machine, Failure> {
        self.machine(self.job.name(), self.job.address())
    }

    /// The servers, the founder first.
    fn servers(&self) -> Vec<(&NodeName, Ipv4Addr)> {
        let founder = self.plan.founder_address();
        let founder = founder.map(|address| (&self.plan.founder, address));
        let others = self.plan.servers.iter().map(|(name, a)| (name, *a));
        founder
            .into_iter()
            .chain(others.filter(|(name, _)| **name != self.plan.founder))
            .collect()
    }

    /// A server whose API answers, waited for until a moment.
    async fn api(&self, until: Instant) -> Result<Api, Failure> {
        loop {
            let error = match Box::pin(self.find_api()).await {
                Ok(api) => return Ok(api),
                Err(failure) if failure.kind != FailureKind::Transient => return Err(failure),
                Err(failure) => failure,
            };
            if Instant::now() >= until {
                return Err(error);
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Asks each server once.
    async fn find_api(&self) -> Result<Api, Failure> {
        let mut said = Vec::new();
        for (name, address) in self.servers() {
            match Box::pin(self.try_server(name, address)).await {
                Ok(cluster) => {
                    return Ok(Api {
                        cluster,
                        server: name.clone(),
                        address,
                    });
                }
                // Somebody else's cluster behind one of our addresses: not to be passed over.
                Err(failure) if failure.kind == FailureKind::Refused => return Err(failure),
                Err(failure) => said.push(format!("{name}: {}", failure.message)),
            }
        }
        Err(Failure::new(
            FailureKind::Transient,
            format!("no server answers for the cluster: {}", said.join("; ")),
        ))
    }

    async fn try_server(&self, name: &NodeName, address: Ipv4Addr) -> Result<Cluster, Failure> {
        let connect = |access: &Access| {
            Cluster::at(access, IpAddr::V4(address), self.parts().port())
                .map_err(KubeError::into_failure)
        };
        if let Some(access) = self.job.shared.cluster_access.get() {
            let cluster = connect(&access)?;
            match Box::pin(cluster.ready()).await {
                Ok(()) => return Ok(cluster),
                // Credentials run out, and servers are made anew: they are read again.
                Err(KubeError::Denied { .. } | KubeError::OtherCluster { .. }) => {}
                Err(error) => return Err(error.into_failure()),
            }
        }
        let access = Box::pin(self.machine(name, address)?.access()).await?;
        let known = self.job.shared.cluster_access.get();
        if known.is_some_and(|known| known.ca_fingerprint() != access.ca_fingerprint())
            && *name != self.plan.founder
        {
            return Err(Failure::new(
                FailureKind::Refused,
                format!("{name} belongs to another cluster than the founder {}", self.plan.founder),
            )
            .with_hint("Look which of the two holds what must not be lost; `/etc/undercroft/cluster-leave --wipe` there takes the other out, with all that it holds."));
        }
        let cluster = connect(&access)?;
        cluster.ready().await.map_err(KubeError::into_failure)?;
        self.job.shared.cluster_access.keep(access);
        Ok(cluster)
    }

    /// Does something with the API again and again while what fails it may pass.
    async fn persist<T, F, Fut>(&self, until: Instant, act: F) -> Result<T, Failure>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, KubeError>>,
    {
        Cluster::persist(until, act)
            .await
            .map_err(KubeError::into_failure)
    }
}
