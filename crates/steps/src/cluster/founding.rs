//! Whether a cluster may be founded: one fleet has one.

use undercroft_model::{Failure, FailureKind, NodeName, on_machine::CLUSTER_LEAVE};

use super::{
    ask::{ClusterAnswer, ClusterAsk},
    status::OtherServer,
    step::ClusterStep,
    talk::{Halt, Talk, Way, nothing},
};

/// A founder that holds nothing of a cluster founds one only where no other server has one: neither one that answers, nor
/// one that holds its part of it while its API is silent, nor one of which the journal knows that it was told to join and
/// that doesn't say itself that it holds nothing.
pub(super) fn may_found(cx: &ClusterStep<'_>, talk: &mut Talk<'_>) -> Way<()> {
    let own = &cx.step.node;
    let open = match talk.ask(ClusterAsk::OpenApis)? {
        ClusterAnswer::Open(open) => open,
        answer => return Err(nothing(answer)),
    };
    if let Some(other) = open.first() {
        return Err(Halt::Failed(splits(
            own,
            other,
            &format!("{other} answers for a cluster"),
        )));
    }
    let others = talk.others()?;
    let joined = others
        .iter()
        .find(|other| other.status.as_ref().is_some_and(|s| s.joined));
    if let Some(other) = joined {
        let other = &other.name;
        let why = format!("{other} is a member of a cluster whose API doesn't answer");
        // It may be starting.
        return Err(Halt::insist(splits(own, other, &why)));
    }
    // Silence proves nothing of one that has been a member.
    let silent = |other: &&OtherServer| other.status.is_none() && cx.members.contains(&other.name);
    match others.iter().find(silent) {
        Some(other) => Err(Halt::insist(unproved(own, &other.name))),
        None => Ok(()),
    }
}

fn unproved(own: &NodeName, other: &NodeName) -> Failure {
    Failure::new(
        FailureKind::Transient,
        format!(
            "{other} has been told to join a cluster and can't be asked now whether it holds its part of one: founding another might split the fleet"
        ),
    )
    .with_hint(format!(
        "Bring {other} back. If it is gone for good, take it out of the inventory; if {own} was installed anew and the others have the cluster, make one of them the founder and let {own} join it.",
    ))
}

fn splits(own: &NodeName, other: &NodeName, why: &str) -> Failure {
    Failure::new(
        FailureKind::Refused,
        format!("{why}: founding another would split the fleet"),
    )
    .with_hint(format!(
        "If {own} was installed anew, make another server the founder and let {own} join it. If {other} is left of a cluster that is gone, run `{CLUSTER_LEAVE} --wipe` there.",
    ))
}
