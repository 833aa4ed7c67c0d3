//! Founding the cluster, and joining it.

use undercroft_model::{
    ClusterRole, Evidence, Failure, FailureKind, Work, inventory::Distribution,
    on_machine::JOIN_UNIT,
};

use super::{
    ask::{ClusterAnswer, ClusterAsk},
    etcd::EtcdMember,
    founding::may_found,
    status::{JoinStatus, JoinUnit, OtherServer},
    step::ClusterStep,
    talk::{BOOT_WAIT_MS_MAX, Halt, Talk, Way},
};

/// Brings the machine in; `replaces` is `None` for the founder.
pub(super) fn member(
    cx: &ClusterStep<'_>,
    role: ClusterRole,
    replaces: Option<bool>,
    talk: &mut Talk<'_>,
) -> Way<Evidence> {
    if cx.work == Work::Probe {
        return probe(cx, role, talk);
    }
    if !talk.known.started {
        begin(cx, role, replaces, talk)?;
        talk.next.started = true;
        return Err(Halt::Anew);
    }
    wait_joined(cx, role, talk).map_err(|halt| halt.or_say(not_joined))
}

fn probe(cx: &ClusterStep<'_>, role: ClusterRole, talk: &mut Talk<'_>) -> Way<Evidence> {
    // A machine that doesn't answer is no machine that isn't in.
    let status = talk.status().map_err(at_once)?;
    if !status.joined {
        return Err(Halt::NotDone("it has not joined".to_owned()));
    }
    match look(cx, status, role, talk)? {
        Some(evidence) => Ok(evidence),
        None => Err(Halt::NotDone("it has not registered".to_owned())),
    }
}

/// What isn't waited for.
fn at_once(halt: Halt) -> Halt {
    halt.for_at_most(0)
}

/// Tells the machine to join, if it may.
fn begin(
    cx: &ClusterStep<'_>,
    role: ClusterRole,
    replaces: Option<bool>,
    talk: &mut Talk<'_>,
) -> Way<()> {
    let status = talk.status();
    let status = status.map_err(|halt| halt.for_at_most(BOOT_WAIT_MS_MAX))?;
    // Where its unit is at work, what it was told for that stands.
    let idle = !status.is_at_work();
    // Its kubelet runs also where its unit was cut off before it could say that the machine is in.
    let kubeadm = cx.plan.distribution == Distribution::Kubeadm;
    let may_run = status.entered || (status.begun && !kubeadm);
    if status.joined || (idle && may_run) {
        registers_again(talk)?;
    }
    if !status.joined && idle {
        match replaces {
            None => may_found(cx, talk)?,
            Some(replaces) => prepare(cx, status, role, replaces, talk)?,
        }
    }
    // Its unit does nothing where it is in already, and goes on where it was cut off.
    if idle {
        talk.done(ClusterAsk::StartJoin).map_err(at_once)?;
    }
    Ok(())
}

/// A kubelet registers when it starts, and never again: a Node that somebody has deleted comes
/// back with a kubelet that is started anew. Where the API can't be asked, the Node may be there.
fn registers_again(talk: &mut Talk<'_>) -> Way<()> {
    match talk.ask(ClusterAsk::Node)? {
        ClusterAnswer::Node(None) => talk.done(ClusterAsk::RestartKubelet).map_err(at_once),
        _ => Ok(()),
    }
}

/// What must be so before a machine may join, and what it is told for it.
fn prepare(
    cx: &ClusterStep<'_>,
    status: &JoinStatus,
    role: ClusterRole,
    replaces: bool,
    talk: &mut Talk<'_>,
) -> Way<()> {
    // kubeadm begins anew what was cut off, and refuses a name whose Node is Ready.
    let kubeadm = cx.plan.distribution == Distribution::Kubeadm;
    let anew = kubeadm && status.begun && !status.entered;
    // What the cluster knows of an installation that has begun to join may be its own by now.
    let replaces = replaces && !status.begun;
    if (replaces || anew) && !talk.known.cleared {
        clear(cx, role, anew, talk)?;
        talk.next.cleared = true;
        return Err(Halt::Anew);
    }
    if role == ClusterRole::Server {
        settled(cx, status, talk).map_err(|halt| halt.or_say(unsettled))?;
    }
    talk.done(ClusterAsk::HandOver)
}

/// Makes the cluster forget what it knows of the machine's earlier life.
fn clear(cx: &ClusterStep<'_>, role: ClusterRole, anew: bool, talk: &mut Talk<'_>) -> Way<()> {
    if anew {
        // Not before the API answers: its etcd may need the member that this machine brings.
        talk.done(ClusterAsk::Api)?;
        // It would register again.
        talk.done(ClusterAsk::StopKubelet).map_err(at_once)?;
    }
    // First: without a Node `kubeadm reset` deletes a member's data and leaves the member.
    if role == ClusterRole::Server {
        let members = talk.members()?;
        if let Some(old) = members.of(&cx.step.node, cx.node.address) {
            if !members.keeps_quorum_without(old.id) {
                // A server that restarts is healthy again in a moment.
                return Err(Halt::insist(needed(old)));
            }
            talk.done_as(|| ClusterAsk::RemoveMember {
                id: old.id,
                shown: old.shown(),
            })?;
            // A join that was cut off may have left a second one.
            return Err(Halt::Anew);
        }
    }
    talk.done(ClusterAsk::ForgetNode)
}

/// Servers join one by one: every other member of etcd votes and is healthy, and no other server is
/// in the middle of its join, begun perhaps by a run before this one.
fn settled(cx: &ClusterStep<'_>, status: &JoinStatus, talk: &mut Talk<'_>) -> Way<()> {
    let (name, address) = (&cx.step.node, cx.node.address);
    let members = talk.members()?;
    if let Some(member) = members.of(name, address).filter(|_| !status.begun) {
        return Err(Halt::Failed(lost_its_data(member)));
    }
    if let Some(why) = members.unsettled(name, address) {
        return Err(Halt::wait(why, unsettled));
    }
    // One that can't be asked isn't waited for; etcd itself knows of what it has begun.
    let joins = |other: &&OtherServer| other.status.as_ref().is_some_and(JoinStatus::is_joining);
    match talk.others()?.iter().find(joins) {
        Some(other) => {
            let why = format!("{} is in the middle of its join", other.name);
            Err(Halt::wait(why, unsettled))
        }
        None => Ok(()),
    }
}

fn wait_joined(cx: &ClusterStep<'_>, role: ClusterRole, talk: &mut Talk<'_>) -> Way<Evidence> {
    let status = talk.status()?;
    if status.unit == JoinUnit::Failed {
        return Err(Halt::Failed(failed(status)));
    }
    match look(cx, status, role, talk)? {
        Some(evidence) => Ok(evidence),
        None => Err(Halt::wait("it has not registered yet", not_joined)),
    }
}

/// Whether the cluster knows the machine in the boot that it is in; nothing where it doesn't yet.
fn look(
    cx: &ClusterStep<'_>,
    status: &JoinStatus,
    role: ClusterRole,
    talk: &mut Talk<'_>,
) -> Way<Option<Evidence>> {
    let (name, address) = (&cx.step.node, cx.node.address);
    let server = role == ClusterRole::Server;
    let node = talk.node()?;
    let Some(node) = node.filter(|node| node.is_of_boot(&status.boot_id)) else {
        // k3s takes a server's member out of etcd with its Node: then no start brings it back. A server that can't be
        // asked says nothing of it.
        if status.joined
            && server
            && let ClusterAnswer::Members(members) = talk.ask(ClusterAsk::Members)?
            && members.of(name, address).is_none()
        {
            return Err(Halt::Failed(removed()));
        }
        return Ok(None);
    };
    let etcd_voters = if server {
        let members = talk.members()?;
        match members.of(name, address) {
            Some(member) if member.votes() => members.voters(),
            // One that has joined and is none any more was removed.
            None if status.joined => return Err(Halt::Failed(removed())),
            _ => {
                let missing = "it has registered, and its member of etcd doesn't vote yet";
                return Err(Halt::wait(missing, |missing| {
                    Failure::new(FailureKind::Transient, missing)
                }));
            }
        }
    } else {
        0
    };
    Ok(Some(Evidence::Joined {
        boot_id: node.boot_id.clone(),
        uid: node.uid.clone(),
        etcd_voters,
    }))
}

/// The member can't be spared.
fn needed(old: &EtcdMember) -> Failure {
    Failure::new(
        FailureKind::Refused,
        format!(
            "etcd would lose its majority without its member {}: too few of the others are healthy",
            old.shown()
        ),
    )
    .with_hint("Bring the other servers back first.")
}

fn unsettled(why: &str) -> Failure {
    Failure::new(
        FailureKind::Transient,
        format!("etcd takes no further member: {why}"),
    )
    .with_hint("Servers join one by one. Bring that member back, or remove it with `etcdctl member remove`.")
}

fn not_joined(missing: &str) -> Failure {
    Failure::new(
        FailureKind::Transient,
        format!("the machine has not joined: {missing}"),
    )
    .with_hint(format!(
        "See `journalctl --unit {JOIN_UNIT}` on the machine."
    ))
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

/// Its unit has ended without success; it may the next time, as servers come and go.
fn failed(status: &JoinStatus) -> Failure {
    let reason = status
        .reason
        .as_deref()
        .unwrap_or("its unit says no reason");
    Failure::new(
        FailureKind::Transient,
        format!("the machine could not join: {reason}"),
    )
    .with_hint(format!(
        "See `journalctl --unit {JOIN_UNIT}` on the machine."
    ))
}
