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

mod answer;
mod bootstrap;
mod known;
mod machine;
mod parts;

use std::{
    borrow::Cow,
    net::{IpAddr, Ipv4Addr},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use undercroft_model::{
    ClusterPlan, Failure, FailureKind, NodeName, Work, on_machine::CLUSTER_LEAVE,
};

use self::known::Known;
pub(super) use self::known::KnownAccess;
pub use self::parts::{BootstrapItem, ClusterParts, SecretSource};
pub(crate) use self::{answer::part_health, machine::Machine};
use super::job::{Done, Job, Stop};
use undercroft_journal::TimelineSource;
use undercroft_kube::{Access, Cluster, KubeError};
use undercroft_steps::{ClusterNext, ClusterScript, ClusterStep, LOOK_INTERVAL_MS, MARGIN_MS};

/// The wait between two looks at something that takes its time.
const LOOK_INTERVAL: Duration = Duration::from_millis(LOOK_INTERVAL_MS);
/// The time before the step's limit at which a wait gives up.
const MARGIN: Duration = Duration::from_millis(MARGIN_MS);

/// Carries out a step of the cluster's, or looks whether it is done: what is asked, and what the answers prove, says its
/// script.
pub(super) async fn carry_out(job: &Job<'_>, work: Work) -> Done {
    let Some(plan) = &job.order.plan.cluster else {
        return Err(Stop::new(
            FailureKind::Permanent,
            "the plan has a step of a cluster and no cluster",
        ));
    };
    let asking = Asking {
        job,
        plan,
        own: machine(job, job.name(), job.address()),
        answering: Mutex::default(),
    };
    let step = ClusterStep {
        step: job.step,
        node: job.node,
        plan,
        members: &job.order.members,
        work,
        timeout_ms: job.order.timeout_ms,
    };
    let mut script = ClusterScript::default();
    let mut said = Cow::Borrowed("");
    loop {
        match script.next(&step, job.elapsed_ms()) {
            ClusterNext::Ask(ask) => script.tell(asking.answer(&ask).await),
            ClusterNext::Wait(missing) => {
                if work == Work::Act && missing != said {
                    job.note(TimelineSource::Controller, missing.clone());
                    said = missing;
                }
                // The founder is asked first again, and whoever has lost its API is found out.
                asking.forget_answering();
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
            ClusterNext::Done(evidence) => return Ok(evidence),
            ClusterNext::NotDone(missing) => {
                job.note(TimelineSource::Controller, missing);
                return Err(Stop::NotDone);
            }
            ClusterNext::Failed(failure) => return Err(failure.into()),
        }
    }
}

/// A machine of a job's plan, over SSH.
fn machine(job: &Job<'_>, name: &NodeName, address: Ipv4Addr) -> Result<Machine, Failure> {
    let parts = &job.shared.parts;
    let identity = &parts.operator.private_file;
    Machine::new(name, address, &parts.host_keys, identity)
}

/// Whoever answers a step's asks.
struct Asking<'a> {
    job: &'a Job<'a>,
    plan: &'a ClusterPlan,
    /// The machine of the step.
    own: Result<Machine, Failure>,
    /// The server that has answered in this round of asks: where the founder is silent, each ask would wait for it anew.
    answering: Mutex<Option<Api>>,
}

/// A server that answers for the cluster.
#[derive(Debug, Clone)]
struct Api {
    cluster: Cluster,
    server: NodeName,
    address: Ipv4Addr,
}

impl Asking<'_> {
    fn parts(&self) -> &ClusterParts {
        &self.job.shared.parts.cluster
    }

    /// When to stop waiting, with time left to say for what.
    fn until(&self) -> Instant {
        Instant::now() + self.job.left().saturating_sub(MARGIN)
    }

    /// A machine of the plan, over SSH.
    fn machine(&self, name: &NodeName, address: Ipv4Addr) -> Result<Machine, Failure> {
        machine(self.job, name, address)
    }

    /// The machine of this step.
    fn own(&self) -> Result<&Machine, Failure> {
        self.own.as_ref().map_err(Clone::clone)
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

    /// The server that has answered in this round, or else the first that answers.
    async fn find_api(&self) -> Result<Api, Failure> {
        if let Some(api) = self.has_answering() {
            return Ok(api);
        }
        let api = Box::pin(self.ask_servers()).await?;
        *self.answering() = Some(api.clone());
        Ok(api)
    }

    fn answering(&self) -> MutexGuard<'_, Option<Api>> {
        self.answering
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn has_answering(&self) -> Option<Api> {
        self.answering().clone()
    }

    /// Another is looked for by the next ask.
    fn forget_answering(&self) {
        *self.answering() = None;
    }

    /// Asks each server once.
    async fn ask_servers(&self) -> Result<Api, Failure> {
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
        let known = self.job.shared.cluster_access.get();
        if let Some(known) = &known {
            let cluster = connect(&known.access)?;
            match Box::pin(cluster.uid()).await {
                Ok(uid) if uid == known.uid => return Ok(cluster),
                Ok(_) => return Err(split(name, known)),
                // Credentials run out, and servers are made anew: they are read again.
                Err(KubeError::Denied { .. } | KubeError::OtherCluster { .. }) => {}
                Err(error) => return Err(error.into_failure()),
            }
        }
        let access = Box::pin(self.machine(name, address)?.access()).await;
        // Another key at a server's address is a matter of that machine's own steps: it may be in
        // its installer just now, and says nothing of the cluster.
        let access = access.map_err(|failure| Failure {
            kind: FailureKind::Transient,
            ..failure
        })?;
        let other = |known: &&Known| known.access.ca_fingerprint() != access.ca_fingerprint();
        if let Some(known) = known.as_ref().filter(other) {
            return Err(split(name, known));
        }
        let cluster = connect(&access)?;
        let uid = Box::pin(cluster.uid()).await;
        let uid = uid.map_err(KubeError::into_failure)?;
        if let Some(known) = known.as_ref().filter(|known| known.uid != uid) {
            return Err(split(name, known));
        }
        self.job.shared.cluster_access.keep(Known {
            access,
            uid,
            server: name.clone(),
        });
        Ok(cluster)
    }

    /// Does something with the API again and again while what fails it may pass, each time through
    /// a server that answers then.
    async fn with_api<T, F, Fut>(&self, until: Instant, mut act: F) -> Result<T, Failure>
    where
        F: FnMut(Api) -> Fut,
        Fut: Future<Output = Result<T, KubeError>>,
    {
        loop {
            let api = Box::pin(self.api(until)).await?;
            match act(api).await {
                Err(error) if error.is_passing() && Instant::now() < until => {
                    self.forget_answering();
                }
                done => return done.map_err(KubeError::into_failure),
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
}

/// Two servers of one fleet that answer for two clusters.
fn split(name: &NodeName, known: &Known) -> Failure {
    Failure::new(
        FailureKind::Refused,
        format!("{name} answers for another cluster than {} does: the fleet is split", known.server),
    )
    .with_hint(format!("Look which of the two holds what must not be lost; `{CLUSTER_LEAVE} --wipe` there takes the other out, with all that it holds."))
}
