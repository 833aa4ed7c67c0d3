//! The answers to what a step of the cluster's asks.

use std::{net::Ipv4Addr, sync::Arc};

use secrecy::SecretString;
use tokio::net::TcpStream;
use undercroft_model::{
    BootstrapPart, Failure, FailureKind, NodeName,
    inventory::Distribution,
    objects::{ARGOCD_NAMESPACE, REPOSITORY_SECRET, ROOT_APPLICATION},
};

use super::{Api, Asking, machine::Machine};
use undercroft_journal::TimelineSource;
use undercroft_kube::{CONNECT_TIMEOUT, Cluster, KubeError, Manifest};
use undercroft_steps::{ClusterAnswer, ClusterAsk, Health, NodeWants, OtherServer, SecretSeen};

impl Asking<'_> {
    /// A server that was found by an earlier ask may be gone by now: where the ask changes nothing another is looked for,
    /// once.
    pub(super) async fn answer(&self, ask: &ClusterAsk) -> ClusterAnswer {
        let found_before = self.has_answering().is_some();
        let mut answer = Box::pin(self.try_to_answer(ask)).await;
        if answer.is_err() && found_before {
            self.forget_answering();
            if !ask.changes() {
                answer = Box::pin(self.try_to_answer(ask)).await;
            }
        }
        answer.unwrap_or_else(ClusterAnswer::Nothing)
    }

    async fn try_to_answer(&self, ask: &ClusterAsk) -> Result<ClusterAnswer, Failure> {
        match ask {
            ClusterAsk::Status => Ok(ClusterAnswer::Status(self.own()?.status().await?)),
            ClusterAsk::OpenApis => Ok(ClusterAnswer::Open(self.open_apis().await)),
            ClusterAsk::OtherServers => Ok(ClusterAnswer::Others(self.other_servers().await)),
            ClusterAsk::Api => Box::pin(self.find_api()).await.map(|_| ClusterAnswer::Done),
            ClusterAsk::Node => {
                let (api, name) = (Box::pin(self.find_api()).await?, self.job.name().as_str());
                let node = api
                    .cluster
                    .node(name)
                    .await
                    .map_err(KubeError::into_failure)?;
                Ok(ClusterAnswer::Node(node.map(Arc::new)))
            }
            ClusterAsk::Pods => {
                let api = Box::pin(self.find_api()).await?;
                let pods = Box::pin(api.cluster.pods_on(self.job.name().as_str())).await;
                Ok(ClusterAnswer::Pods(pods.map_err(KubeError::into_failure)?))
            }
            ClusterAsk::Evict { pods } => {
                let api = Box::pin(self.find_api()).await?;
                let evicted = Box::pin(api.cluster.evict(pods)).await;
                Ok(ClusterAnswer::Evicted(
                    evicted.map_err(KubeError::into_failure)?,
                ))
            }
            ClusterAsk::Members => {
                let members = Box::pin(self.answering_server()).await?.etcd().await?;
                Ok(ClusterAnswer::Members(members))
            }
            ClusterAsk::ReadyPod { .. }
            | ClusterAsk::Rollout(_)
            | ClusterAsk::Crd { .. }
            | ClusterAsk::RootApplication
            | ClusterAsk::Secrets => {
                let secrets = match ask {
                    ClusterAsk::Secrets => self.secrets()?,
                    _ => Vec::new(),
                };
                let (api, founder) = (Box::pin(self.find_api()).await?, &self.plan.founder);
                let answer = Box::pin(answer_of(&api.cluster, founder, &secrets, ask)).await;
                answer.map_err(KubeError::into_failure)
            }
            ClusterAsk::RemoveMember { .. }
            | ClusterAsk::ForgetNode
            | ClusterAsk::StopKubelet
            | ClusterAsk::RestartKubelet
            | ClusterAsk::HandOver
            | ClusterAsk::StartJoin
            | ClusterAsk::Dress { .. }
            | ClusterAsk::Close
            | ClusterAsk::Open
            | ClusterAsk::BringIn { .. } => {
                Box::pin(self.change(ask)).await?;
                Ok(ClusterAnswer::Done)
            }
        }
    }

    async fn change(&self, ask: &ClusterAsk) -> Result<(), Failure> {
        let name = self.job.name().as_str();
        let said = |source, text: String| self.job.note(source, text);
        match ask {
            ClusterAsk::RemoveMember { id, shown } => {
                Box::pin(self.answering_server())
                    .await?
                    .remove_member(*id)
                    .await?;
                let text = format!("its former member of etcd, {shown}, was removed");
                said(TimelineSource::Controller, text);
            }
            ClusterAsk::ForgetNode => {
                let api = Box::pin(self.find_api()).await?;
                let forgotten = Box::pin(api.cluster.forget_node(name)).await;
                forgotten.map_err(KubeError::into_failure)?;
            }
            ClusterAsk::Close | ClusterAsk::Open => {
                let api = Box::pin(self.find_api()).await?;
                let (done, text) = match ask {
                    ClusterAsk::Close => (
                        Box::pin(api.cluster.close_node(name)).await,
                        "closed for further pods",
                    ),
                    _ => (
                        Box::pin(api.cluster.open_node(name)).await,
                        "open for pods again",
                    ),
                };
                done.map_err(KubeError::into_failure)?;
                said(TimelineSource::Controller, text.to_owned());
            }
            ClusterAsk::StopKubelet => self.own()?.stop_kubelet().await?,
            ClusterAsk::RestartKubelet => {
                let text = "the cluster doesn't know it any more: its kubelet is started anew";
                said(TimelineSource::Controller, text.to_owned());
                self.own()?.restart_kubelet().await?;
            }
            ClusterAsk::HandOver => Box::pin(self.hand_over()).await?,
            ClusterAsk::StartJoin => {
                self.own()?.start_join().await?;
                let text = "its part of Kubernetes was started";
                said(TimelineSource::Ssh, text.to_owned());
            }
            ClusterAsk::Dress {
                labels,
                annotations,
                taints,
            } => {
                let wants = NodeWants {
                    labels,
                    annotations,
                    taints,
                };
                let api = Box::pin(self.find_api()).await?;
                let dressed = Box::pin(api.cluster.dress(name, &wants)).await;
                dressed.map_err(KubeError::into_failure)?;
            }
            ClusterAsk::BringIn { part } => Box::pin(self.bring_in(*part)).await?,
            _ => {}
        }
        Ok(())
    }

    /// A server whose API answers, over SSH.
    async fn answering_server(&self) -> Result<Machine, Failure> {
        let Api {
            server, address, ..
        } = Box::pin(self.find_api()).await?;
        self.machine(&server, address)
    }

    fn others(&self) -> impl Iterator<Item = (&NodeName, Ipv4Addr)> {
        let servers = self.servers().into_iter();
        servers.filter(|(name, _)| *name != self.job.name())
    }

    /// Nothing but a server of Kubernetes listens on its port on machines of the inventory.
    async fn open_apis(&self) -> Vec<NodeName> {
        let mut open = Vec::new();
        for (name, address) in self.others() {
            let connect = TcpStream::connect((address, self.parts().port()));
            let connected = tokio::time::timeout(CONNECT_TIMEOUT, connect).await;
            if matches!(connected, Ok(Ok(_))) {
                open.push(name.clone());
            }
        }
        open
    }

    async fn other_servers(&self) -> Vec<OtherServer> {
        let mut others = Vec::new();
        for (name, address) in self.others() {
            let status = match self.machine(name, address) {
                Ok(machine) => machine.status().await.ok(),
                Err(_) => None,
            };
            others.push(OtherServer {
                name: name.clone(),
                status,
            });
        }
        others
    }

    /// What only the controller knows.
    async fn hand_over(&self) -> Result<(), Failure> {
        // The one that answers, which needn't be the founder.
        let api = Box::pin(self.find_api()).await?;
        let port = self.parts().port();
        let mut env = format!("UNDERCROFT_SERVER=https://{}:{port}\n", api.address);
        if self.plan.distribution == Distribution::Kubeadm {
            let asked = self.machine(&api.server, api.address)?;
            let token = asked.kubeadm_token().await?;
            env.push_str(&format!("UNDERCROFT_TOKEN={token}\n"));
        }
        self.own()?.hand_over(SecretString::from(env)).await
    }
}

/// What the API says, where nothing more is needed than it.
async fn answer_of(
    cluster: &Cluster,
    founder: &NodeName,
    secrets: &[Manifest],
    ask: &ClusterAsk,
) -> Result<ClusterAnswer, KubeError> {
    Ok(match ask {
        ClusterAsk::ReadyPod { namespace, labels } => {
            let founder = founder.as_str();
            ClusterAnswer::There(cluster.has_ready_pod(namespace, labels, founder).await?)
        }
        ClusterAsk::Rollout(workload) => ClusterAnswer::Rollout(
            cluster
                .rollout(workload.kind, workload.namespace, workload.name)
                .await?,
        ),
        ClusterAsk::Crd { name } => ClusterAnswer::There(cluster.knows_crd(name).await?),
        ClusterAsk::RootApplication => ClusterAnswer::Application(
            cluster
                .application(ARGOCD_NAMESPACE, ROOT_APPLICATION)
                .await?,
        ),
        ClusterAsk::Secrets => {
            let mut seen = Vec::new();
            for secret in secrets {
                seen.push(SecretSeen {
                    shown: secret.shown(),
                    is_ours: cluster.is_ours(secret, ARGOCD_NAMESPACE).await?,
                    is_current: cluster.holds(secret, ARGOCD_NAMESPACE).await?,
                });
            }
            ClusterAnswer::Secrets(seen)
        }
        _ => ClusterAnswer::Nothing(Failure::new(
            FailureKind::Ambiguous,
            "the API alone was asked for more than it knows: a fault in Undercroft itself",
        )),
    })
}

/// How far a part of the bootstrap is, as far as the API alone can tell: of the secrets, whether
/// the repository's are there. Nothing where the API can't tell.
pub(crate) async fn part_health(
    cluster: &Cluster,
    part: BootstrapPart,
    founder: &NodeName,
    distribution: Distribution,
) -> Option<Health> {
    let repository = Manifest::new(
        "secrets",
        serde_json::json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": { "name": REPOSITORY_SECRET, "namespace": ARGOCD_NAMESPACE },
        }),
    );
    let secrets = [repository.ok()?];
    let mut answers = Vec::new();
    loop {
        match undercroft_steps::part_health(part, founder, distribution, &answers) {
            Ok(health) => return Some(health),
            Err(Ok(ask)) => {
                let answer = Box::pin(answer_of(cluster, founder, &secrets, &ask)).await;
                answers.push(answer.ok()?);
            }
            Err(Err(_)) => return None,
        }
    }
}
