//! Whether a cluster may be founded: one fleet has one.

use undercroft_model::{Failure, FailureKind, NodeName, on_machine::CLUSTER_LEAVE};

use super::{
    ask::{ClusterAnswer, ClusterAsk},
    step::ClusterStep,
    talk::{Halt, Talk, Way, nothing},
};

/// A founder that holds nothing of a cluster founds one only where no other server has one: neither one that answers, nor
/// one that holds its part of it and is silent just now.
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
    let mut others = talk.others()?.iter();
    let joined = others.find(|other| other.status.as_ref().is_some_and(|s| s.joined));
    if let Some(other) = joined {
        let other = &other.name;
        let why = format!("{other} is a member of a cluster whose API doesn't answer");
        // It may be starting.
        return Err(Halt::insist(splits(own, other, &why)));
    }
    Ok(())
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
