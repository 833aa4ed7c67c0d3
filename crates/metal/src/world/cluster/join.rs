//! Founding the cluster, and joining it.

use std::{net::Ipv4Addr, time::Instant};

use secrecy::SecretString;
use tokio::net::TcpStream;
use undercroft_model::{
    ClusterRole, Evidence, Failure, FailureKind, Work, inventory::Distribution,
};

use super::{
    super::job::{Done, Stop},
    Api, ClusterStep, LOOK_INTERVAL,
    machine::{Machine, Status},
};
use undercroft_journal::TimelineSource;
use undercroft_kube::{CONNECT_TIMEOUT, EtcdMember, EtcdMembers, KubeError, NodeSeen};

impl ClusterStep<'_> {
    /// Brings the machine in; `replaces` is `None` for the founder.
    pub(super) async fn member(&self, role: ClusterRole, replaces: Option<bool>) -> Done {
        let machine = self.own_machine()?;
        if self.work == Work::Probe {
            return Box::pin(self.probe_member(&machine, role)).await;
        }
        let until = self.until();
        let status = self.status(&machine).await?;
        // Where its unit is at work, what it was told for that stands.
        let idle = status.unit != "activating";
        if status.joined {
            self.registers_again(&machine).await?;
        } else if idle {
            match replaces {
                None => self.refuse_second_cluster().await?,
                Some(replaces) => {
                    let replaces = replaces && !status.begun;
                    Box::pin(self.prepare(&machine, &status, role, replaces, until)).await?;
                }
            }
        }
        // Its unit does nothing where it is in already, and goes on where it was cut off.
        if idle {
            machine.start_join().await?;
        }
        self.job
            .note(TimelineSource::Ssh, "its part of Kubernetes was started");
        Box::pin(self.wait_joined(&machine, role, until)).await
    }

    /// A founder that finds another server answering would make a second cluster of one fleet.
    async fn refuse_second_cluster(&self) -> Result<(), Failure> {
        let own = self.job.name();
        for (name, address) in self.servers().into_iter().filter(|(n, _)| *n != own) {
            if answers(address, self.parts().port()).await {
                return Err(Failure::new(
                    FailureKind::Refused,
                    format!("{name} answers for a cluster: founding another would split the fleet"),
                )
                .with_hint(format!(
                    "If {own} was installed anew, make another server the founder and let {own} join it. If {name} is left of a cluster that is gone, run `/etc/undercroft/cluster-leave --wipe` there.",
                )));
            }
        }
        Ok(())
    }

    /// A kubelet registers when it starts, and never again: a Node that somebody has deleted comes
    /// back with a kubelet that is started anew.
    async fn registers_again(&self, machine: &Machine) -> Result<(), Failure> {
        let Ok(api) = Box::pin(self.find_api()).await else {
            return Ok(());
        };
        if !matches!(api.cluster.node(self.job.name().as_str()).await, Ok(None)) {
            return Ok(());
        }
        let note = "the cluster doesn't know it any more: its kubelet is started anew";
        self.job.note(TimelineSource::Controller, note);
        machine.restart_kubelet().await
    }

    /// What must be so before a machine may join, and what it is told for it. `replaces` is false
    /// for an installation that has begun to join: what the cluster knows may be its own by now.
    async fn prepare(
        &self,
        machine: &Machine,
        status: &Status,
        role: ClusterRole,
        replaces: bool,
        until: Instant,
    ) -> Result<(), Failure> {
        let name = self.job.name().as_str();
        // kubeadm begins anew what was cut off, and refuses a name whose Node is Ready.
        let anew =
            self.plan.distribution == Distribution::Kubeadm && status.begun && !status.entered;
        if anew {
            // Not before the API answers: its etcd may need the member that this machine brings.
            self.api(until).await?;
            // It would register again.
            machine.stop_kubelet().await?;
        }
        if replaces || anew {
            // First: without a Node `kubeadm reset` deletes a member's data and leaves the member.
            if role == ClusterRole::Server {
                self.remove_member(until).await?;
            }
            self.with_api(
                until,
                |api| async move { api.cluster.forget_node(name).await },
            )
            .await?;
        }
        if role == ClusterRole::Server {
            Box::pin(self.wait_settled(status, until)).await?;
        }
        let api = self.api(until).await?;
        // The one that answers, which needn't be the founder.
        let port = self.parts().port();
        let mut env = format!("UNDERCROFT_SERVER=https://{}:{port}\n", api.address);
        if self.plan.distribution == Distribution::Kubeadm {
            let asked = self.machine(&api.server, api.address)?;
            let token = asked.kubeadm_token().await?;
            env.push_str(&format!("UNDERCROFT_TOKEN={token}\n"));
        }
        machine.hand_over(SecretString::from(env)).await
    }

    /// The members of etcd, as a server knows them that answers for the cluster.
    pub(super) async fn etcd(&self) -> Result<(Machine, EtcdMembers), Failure> {
        let api = Box::pin(self.find_api()).await?;
        let asked = self.machine(&api.server, api.address)?;
        let members = asked.etcd().await?;
        Ok((asked, members))
    }

    /// Removes the member that the machine was before it was installed anew, if the others are a
    /// majority without it.
    async fn remove_member(&self, until: Instant) -> Result<(), Failure> {
        loop {
            let failure = match self.etcd().await {
                Ok((asked, members)) => {
                    let Some(old) = self.member_of(&members) else {
                        return Ok(());
                    };
                    if members.keeps_quorum_without(old.id) {
                        asked.remove_member(&old.hex_id()).await?;
                        let note =
                            format!("its former member of etcd, {}, was removed", old.shown());
                        self.job.note(TimelineSource::Controller, note);
                        // A join that was cut off may have left a second one.
                        Failure::new(FailureKind::Transient, "its former member was just removed")
                    } else {
                        Failure::new(
                        FailureKind::Refused,
                        format!(
                            "etcd would lose its majority without its member {}: too few of the others are healthy",
                            old.shown()
                        ),
                    )
                    .with_hint("Bring the other servers back first.")
                    }
                }
                Err(failure) if failure.kind == FailureKind::Transient => failure,
                Err(failure) => return Err(failure),
            };
            // A server that restarts is healthy again in a moment.
            if Instant::now() >= until {
                return Err(failure);
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    pub(super) fn member_of<'m>(&self, members: &'m EtcdMembers) -> Option<&'m EtcdMember> {
        let address = self.job.address().to_string();
        let name = self.job.name().as_str();
        members.members.iter().find(|m| m.is_of(name, &address))
    }

    /// Servers join one by one: waits until every other member of etcd votes and is healthy, and no
    /// other server is in the middle of its join, begun perhaps by a run before this one.
    async fn wait_settled(&self, status: &Status, until: Instant) -> Result<(), Failure> {
        let (name, address) = (self.job.name().as_str(), self.job.address().to_string());
        loop {
            let unsettled = match self.etcd().await {
                Ok((_, members)) => {
                    if let Some(member) = self.member_of(&members).filter(|_| !status.begun) {
                        return Err(lost_its_data(member));
                    }
                    members.unsettled(name, &address)
                }
                Err(failure) if failure.kind == FailureKind::Transient => Some(failure.message),
                Err(failure) => return Err(failure),
            };
            let unsettled = match unsettled {
                None => self.another_joins().await,
                some => some,
            };
            let Some(why) = unsettled else {
                return Ok(());
            };
            if Instant::now() >= until {
                return Err(Failure::new(
                    FailureKind::Transient,
                    format!("etcd takes no further member: {why}"),
                )
                .with_hint("Servers join one by one. Bring that member back, or remove it with `etcdctl member remove`."));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    async fn another_joins(&self) -> Option<String> {
        let own = self.job.name();
        for (name, address) in self.servers().into_iter().filter(|(n, _)| *n != own) {
            let Ok(machine) = self.machine(name, address) else {
                continue;
            };
            // One that can't be reached can't be asked; etcd itself knows of what it has begun.
            if let Ok(status) = machine.status().await
                && !status.joined
                && status.unit == "activating"
            {
                return Some(format!("{name} is in the middle of its join"));
            }
        }
        None
    }

    async fn wait_joined(&self, machine: &Machine, role: ClusterRole, until: Instant) -> Done {
        let mut said = String::new();
        loop {
            let missing = match machine.status().await {
                Ok(status) if status.unit == "failed" => return Err(failed(&status).into()),
                Ok(status) => match Box::pin(self.look(&status, role)).await {
                    Ok(evidence) => return Ok(evidence),
                    Err(Stop::NotDone) => "it has not registered yet".to_owned(),
                    Err(Stop::Failed(failure)) if failure.kind == FailureKind::Transient => {
                        failure.message
                    }
                    Err(stop) => return Err(stop),
                },
                Err(failure) if failure.kind == FailureKind::Transient => failure.message,
                Err(failure) => return Err(failure.into()),
            };
            if missing != said {
                self.job.note(TimelineSource::Controller, missing.clone());
                said = missing;
            }
            if Instant::now() >= until {
                return Err(Stop::Failed(
                    Failure::new(
                        FailureKind::Transient,
                        format!("the machine has not joined: {said}"),
                    )
                    .with_hint("See `journalctl --unit undercroft-cluster-join` on the machine."),
                ));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    async fn probe_member(&self, machine: &Machine, role: ClusterRole) -> Done {
        let status = machine.status().await?;
        if !status.joined {
            return Err(Stop::NotDone);
        }
        let until = self.until();
        loop {
            match Box::pin(self.look(&status, role)).await {
                Err(Stop::Failed(failure))
                    if failure.kind == FailureKind::Transient && Instant::now() < until => {}
                done => return done,
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Whether the cluster knows the machine in the boot that it is in.
    async fn look(&self, status: &Status, role: ClusterRole) -> Done {
        let api = Box::pin(self.find_api()).await?;
        let name = self.job.name().as_str();
        let node = api.cluster.node(name).await;
        let node: Option<NodeSeen> = node.map_err(KubeError::into_failure)?;
        let Some(node) = node.filter(|node| node.boot_id == status.boot_id) else {
            // k3s takes a server's member out of etcd with its Node: then no start brings it back.
            return Err(if status.joined && self.is_removed().await {
                Stop::Failed(removed())
            } else {
                Stop::NotDone
            });
        };
        let etcd_voters = match role {
            ClusterRole::Agent => 0,
            ClusterRole::Server => self.votes(&api, status.joined).await?,
        };
        Ok(Evidence::Joined {
            boot_id: node.boot_id,
            uid: node.uid,
            etcd_voters,
        })
    }

    /// How many members of etcd vote, this machine's among them.
    /// One that has joined and is none any more was removed.
    async fn votes(&self, api: &Api, joined: bool) -> Result<u32, Stop> {
        let members = self.machine(&api.server, api.address)?.etcd().await?;
        match self.member_of(&members) {
            Some(member) if !member.is_learner && !member.name.is_empty() => Ok(members.voters()),
            None if joined => Err(Stop::Failed(removed())),
            _ => Err(Stop::new(
                FailureKind::Transient,
                "it has registered, and its member of etcd doesn't vote yet",
            )),
        }
    }
}

/// A member that comes to etcd with nothing of what it had acknowledged could undo it.
fn lost_its_data(member: &EtcdMember) -> Failure {
    Failure::new(
        FailureKind::Permanent,
        format!(
            "etcd has a member {} that the machine was, and the machine holds nothing of it any more",
            member.shown()
        ),
    )
    .with_hint("`undercroft up --reinstall NODE` removes the member and installs the machine anew; `etcdctl member remove` on another server removes it alone.")
}

/// What a member that was removed holds can't be brought back into etcd.
fn removed() -> Failure {
    Failure::new(
        FailureKind::Permanent,
        "it has joined, and etcd has no member of it any more: somebody has removed it",
    )
    .with_hint("`undercroft up --reinstall NODE` installs it anew, and it joins again.")
}

fn failed(status: &Status) -> Failure {
    let reason = status
        .reason
        .as_deref()
        .unwrap_or("its unit says no reason");
    Failure::new(
        FailureKind::Transient,
        format!("the machine could not join: {reason}"),
    )
    .with_hint("See `journalctl --unit undercroft-cluster-join` on the machine.")
}

/// Whether something takes connections there. Nothing but a server of Kubernetes listens on its
/// port on machines of the inventory.
async fn answers(address: Ipv4Addr, port: u16) -> bool {
    let connect = TcpStream::connect((address, port));
    matches!(
        tokio::time::timeout(CONNECT_TIMEOUT, connect).await,
        Ok(Ok(_))
    )
}
