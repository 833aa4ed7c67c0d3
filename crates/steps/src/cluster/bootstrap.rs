//! What makes a cluster of servers into one that a repository keeps.

use undercroft_model::{
    BootstrapPart, Evidence, Failure, FailureKind, NodeName, Work, inventory::Distribution,
    objects::ARGOCD_NAMESPACE,
};

use super::{
    ask::{ClusterAnswer, ClusterAsk, SecretSeen, Workload},
    health::{Health, Rollout, WorkloadKind},
    step::ClusterStep,
    talk::{GROUND_LOOKS, Halt, Known, Talk, Way, lost, nothing},
};

/// Where the network's components are.
const NETWORK_NAMESPACE: &str = "kube-system";
/// The kind that Cilium's operator makes itself.
const NETWORK_CRD: &str = "ciliumnodes.cilium.io";
/// The kind that Argo CD brings.
const ARGOCD_CRD: &str = "applications.argoproj.io";
/// The labels of Cilium's pods.
const NETWORK_PODS: &str = "k8s-app=cilium";

const fn workload(kind: WorkloadKind, namespace: &'static str, name: &'static str) -> Workload {
    Workload {
        kind,
        namespace,
        name,
    }
}

const NETWORK_OPERATOR: Workload = workload(
    WorkloadKind::Deployment,
    NETWORK_NAMESPACE,
    "cilium-operator",
);
const DNS: Workload = workload(WorkloadKind::Deployment, NETWORK_NAMESPACE, "coredns");
/// What Argo CD consists of, as its chart names it with the release `argocd`.
const ARGOCD_WORKLOADS: [Workload; 4] = [
    workload(
        WorkloadKind::StatefulSet,
        ARGOCD_NAMESPACE,
        "argocd-application-controller",
    ),
    workload(
        WorkloadKind::Deployment,
        ARGOCD_NAMESPACE,
        "argocd-repo-server",
    ),
    workload(WorkloadKind::Deployment, ARGOCD_NAMESPACE, "argocd-server"),
    workload(WorkloadKind::Deployment, ARGOCD_NAMESPACE, "argocd-redis"),
];

/// Brings a part in and waits until it is healthy.
pub(super) fn bootstrap(
    cx: &ClusterStep<'_>,
    part: BootstrapPart,
    talk: &mut Talk<'_>,
) -> Way<Evidence> {
    if talk.known.looks.is_multiple_of(GROUND_LOOKS) {
        stands_on(cx, part, talk)?;
    }
    if cx.work == Work::Act && !talk.known.brought_in {
        talk.done(ClusterAsk::Api)?;
        // Whoever brings it in waits for the API itself, and knows what else may pass.
        let brought_in = talk.done(ClusterAsk::BringIn { part });
        brought_in.map_err(|halt| halt.for_at_most(0))?;
        talk.next.brought_in = true;
    }
    talk.next.looks += 1;
    let health = health(part, &cx.plan.founder, cx.plan.distribution, talk);
    let health = match cx.work {
        Work::Act => health.map_err(|halt| halt.or_say(not_healthy))?,
        Work::Probe => health?,
    };
    match (health, cx.work) {
        (Health::Good(shown), _) => Ok(Evidence::Bootstrapped { part, shown }),
        (Health::Missing(missing), Work::Act) => Err(Halt::wait(missing, not_healthy)),
        (Health::Missing(missing), Work::Probe) => Err(Halt::NotDone(missing)),
    }
}

fn not_healthy(missing: &str) -> Failure {
    Failure::new(
        FailureKind::Transient,
        format!("it was brought in and isn't healthy: {missing}"),
    )
}

/// Whether what a part of the bootstrap comes after is there.
fn stands_on(cx: &ClusterStep<'_>, part: BootstrapPart, talk: &mut Talk<'_>) -> Way<()> {
    if talk.node()?.is_none() {
        return Err(lost("the cluster doesn't know its Node any more"));
    }
    is_still_member(cx, talk)?;
    let mut earlier = BootstrapPart::ALL.into_iter().filter(|e| *e < part);
    earlier.try_for_each(|earlier| still_brought_in(&[earlier], talk))
}

/// Whether a server is a member of etcd still. One that can't be asked says nothing of it.
pub(super) fn is_still_member(cx: &ClusterStep<'_>, talk: &mut Talk<'_>) -> Way<()> {
    if cx.plan.servers.contains_key(&cx.step.node)
        && let ClusterAnswer::Members(members) = talk.ask(ClusterAsk::Members)?
        && members.of(&cx.step.node, cx.node.address).is_none()
    {
        return Err(lost("etcd has no member of it any more"));
    }
    Ok(())
}

/// Whether parts of the bootstrap that were brought in are there, healthy or not: what is only unhealthy comes back by
/// itself, and is waited for.
pub(super) fn still_brought_in(parts: &[BootstrapPart], talk: &mut Talk<'_>) -> Way<()> {
    for part in parts {
        if let Some(missing) = absent(*part, talk)? {
            return Err(lost(format!(
                "{part} was brought in, and {missing} isn't there any more"
            )));
        }
    }
    Ok(())
}

/// The first thing of a part that isn't there.
fn absent(part: BootstrapPart, talk: &mut Talk<'_>) -> Way<Option<String>> {
    match part {
        BootstrapPart::Network => absent_workload(NETWORK_OPERATOR, talk),
        BootstrapPart::Secrets => {
            let mut secrets = secrets(talk)?.iter();
            let missing = secrets.find(|secret| !secret.is_ours);
            Ok(missing.map(|secret| secret.shown.clone()))
        }
        BootstrapPart::ArgoCd => {
            if !there(ClusterAsk::Crd { name: ARGOCD_CRD }, talk)? {
                return Ok(Some("the CRD of its applications".to_owned()));
            }
            for workload in ARGOCD_WORKLOADS {
                if let Some(missing) = absent_workload(workload, talk)? {
                    return Ok(Some(missing));
                }
            }
            Ok(None)
        }
        BootstrapPart::RootApp => Ok(None),
    }
}

fn absent_workload(workload: Workload, talk: &mut Talk<'_>) -> Way<Option<String>> {
    let missing = rollout(workload, talk)?.is_none();
    let (kind, name) = (workload.kind.as_str(), workload.name);
    Ok(missing.then(|| format!("the {kind} {name}")))
}

/// How far a part of the bootstrap is, outside of a step: what to ask next, by what was answered so far, or how far it
/// is. A failure to answer ends it.
///
/// # Errors
/// What to ask next, or else why nothing can be told.
pub fn part_health(
    part: BootstrapPart,
    founder: &NodeName,
    distribution: Distribution,
    answers: &[ClusterAnswer],
) -> Result<Health, Result<ClusterAsk, Failure>> {
    let known = Known::default();
    let mut talk = Talk::new(answers, &known);
    health(part, founder, distribution, &mut talk).map_err(|halt| match halt {
        Halt::Ask(ask) => Ok(ask),
        Halt::Failed(failure) => Err(failure),
        Halt::Wait(wait) => Err(Failure::new(FailureKind::Transient, wait.missing)),
        Halt::NotDone(missing) => Err(Failure::new(FailureKind::Transient, missing)),
        Halt::Anew => Err(Failure::new(FailureKind::Transient, "it begins anew")),
    })
}

fn health(
    part: BootstrapPart,
    founder: &NodeName,
    distribution: Distribution,
    talk: &mut Talk<'_>,
) -> Way<Health> {
    match part {
        BootstrapPart::Network => network(founder, distribution, talk),
        BootstrapPart::Secrets => {
            // Each has been applied by the bootstrap and holds what it is to hold now.
            let secrets = secrets(talk)?;
            let missing = secrets.iter().find(|s| !(s.is_ours && s.is_current));
            Ok(match missing {
                Some(secret) => Health::Missing(format!(
                    "{} isn't there, or holds something else",
                    secret.shown
                )),
                None => Health::Good(format!("{} objects", secrets.len())),
            })
        }
        BootstrapPart::ArgoCd => argocd(talk),
        BootstrapPart::RootApp => match talk.ask(ClusterAsk::RootApplication)? {
            ClusterAnswer::Application(Some(application)) => Ok(application.health()),
            ClusterAnswer::Application(None) => Ok(Health::Missing("it isn't there".to_owned())),
            answer => Err(nothing(answer)),
        },
    }
}

/// The network is there where the founder's own pod is ready: other machines may not be up.
fn network(founder: &NodeName, distribution: Distribution, talk: &mut Talk<'_>) -> Way<Health> {
    let pod = ClusterAsk::ReadyPod {
        namespace: NETWORK_NAMESPACE,
        labels: NETWORK_PODS,
    };
    if !there(pod, talk)? {
        let missing = format!("Cilium's pod on {founder} isn't ready");
        return Ok(Health::Missing(missing));
    }
    // k3s brings its own DNS.
    let dns = (distribution == Distribution::Kubeadm).then_some(DNS);
    for workload in [Some(NETWORK_OPERATOR), dns].into_iter().flatten() {
        if let Some(missing) = unhealthy(workload, talk)? {
            return Ok(Health::Missing(missing));
        }
    }
    // Cilium's operator makes its CRDs itself; what comes next has objects of them.
    if !there(ClusterAsk::Crd { name: NETWORK_CRD }, talk)? {
        let missing = "Cilium's operator has not made its CRDs";
        return Ok(Health::Missing(missing.to_owned()));
    }
    Ok(Health::Good(format!("Cilium is ready on {founder}")))
}

fn argocd(talk: &mut Talk<'_>) -> Way<Health> {
    if !there(ClusterAsk::Crd { name: ARGOCD_CRD }, talk)? {
        return Ok(Health::Missing("Argo CD's CRDs aren't there".to_owned()));
    }
    for workload in ARGOCD_WORKLOADS {
        if let Some(missing) = unhealthy(workload, talk)? {
            return Ok(Health::Missing(missing));
        }
    }
    Ok(Health::Good(format!(
        "{} parts available",
        ARGOCD_WORKLOADS.len()
    )))
}

/// What a workload lacks.
fn unhealthy(workload: Workload, talk: &mut Talk<'_>) -> Way<Option<String>> {
    let health = match rollout(workload, talk)? {
        Some(rollout) => rollout.health(),
        None => Health::Missing("it isn't there".to_owned()),
    };
    Ok(match health {
        Health::Good(_) => None,
        Health::Missing(why) => Some(format!("{}: {why}", workload.name)),
    })
}

fn rollout<'a>(workload: Workload, talk: &mut Talk<'a>) -> Way<Option<&'a Rollout>> {
    match talk.ask(ClusterAsk::Rollout(workload))? {
        ClusterAnswer::Rollout(rollout) => Ok(rollout.as_ref()),
        answer => Err(nothing(answer)),
    }
}

fn secrets<'a>(talk: &mut Talk<'a>) -> Way<&'a [SecretSeen]> {
    match talk.ask(ClusterAsk::Secrets)? {
        ClusterAnswer::Secrets(secrets) => Ok(secrets),
        answer => Err(nothing(answer)),
    }
}

fn there(ask: ClusterAsk, talk: &mut Talk<'_>) -> Way<bool> {
    match talk.ask(ask)? {
        ClusterAnswer::There(there) => Ok(*there),
        answer => Err(nothing(answer)),
    }
}
