//! The scripts of the cluster's steps, asked with answers as machines, etcd and the API give them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a panic is the finding"
)]

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use undercroft_model::{
    Action, BootstrapPart, ClusterPlan, ClusterRole, Evidence, Failure, FailureKind, NodeName,
    NodePlan, NodeState, RetryPolicy, Step, StepId, System, Work, inventory::Distribution,
};
use undercroft_steps::{
    BOOT_WAIT_MS_MAX, ClusterAnswer, ClusterAsk, ClusterNext, ClusterScript, ClusterStep,
    EtcdMember, EtcdMembers, JoinStatus, JoinUnit, NodeSeen, OtherServer, PROBE_WAIT_MS_MAX,
    Rollout, SecretSeen, WorkloadKind,
};

const LIMIT_MS: u64 = 600_000;

fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

/// A step of the second of three servers, with what was answered to each ask, in order.
struct Play {
    step: Step,
    node: NodePlan,
    plan: ClusterPlan,
    members: Vec<NodeName>,
    work: Work,
    script: ClusterScript,
    at_ms: u64,
}

impl Play {
    fn new(action: Action, work: Work) -> Self {
        let server = |n: u8| (name(&format!("control-0{n}")), Ipv4Addr::new(10, 0, 0, n));
        let founds = matches!(action, Action::FoundCluster | Action::Bootstrap { .. });
        let own = server(if founds { 1 } else { 2 });
        Self {
            step: Step {
                id: StepId(0),
                node: own.0,
                requires: NodeState::Up,
                reaches: NodeState::Joined,
                action,
                after: Vec::new(),
                after_settled: Vec::new(),
                resource: None,
                timeout_ms: LIMIT_MS,
                retry: RetryPolicy {
                    attempts_max: 1,
                    backoff_ms: 0,
                    backoff_ms_max: 0,
                },
                destroys: Vec::new(),
                delivers_secrets: false,
                probe_first: false,
                restart_from: None,
            },
            node: NodePlan {
                macs: Vec::new(),
                uuid: None,
                address: own.1,
                system: System::X86_64Linux,
                target: None,
                generation: 0,
                steps: Vec::new(),
                not_applicable: BTreeMap::new(),
            },
            plan: ClusterPlan {
                distribution: Distribution::K3s,
                version: None,
                founder: name("control-01"),
                servers: (1..=3).map(server).collect(),
                members: Default::default(),
                gitops: None,
            },
            members: Vec::new(),
            work,
            script: ClusterScript::default(),
            at_ms: 0,
        }
    }

    fn next(&mut self) -> ClusterNext {
        let cx = ClusterStep {
            step: &self.step,
            node: &self.node,
            plan: &self.plan,
            members: &self.members,
            work: self.work,
            timeout_ms: LIMIT_MS,
        };
        self.script.next(&cx, self.at_ms)
    }

    /// It asks that; it is told this.
    fn tells(&mut self, ask: &ClusterAsk, answer: ClusterAnswer) -> &mut Self {
        assert_eq!(self.next(), ClusterNext::Ask(ask.clone()));
        self.script.tell(answer);
        self
    }

    /// Something is changed.
    fn changes(&mut self, ask: &ClusterAsk) -> &mut Self {
        assert!(ask.changes(), "{ask:?}");
        self.tells(ask, ClusterAnswer::Done)
    }

    fn waits(&mut self) -> String {
        match self.next() {
            ClusterNext::Wait(missing) => missing.into_owned(),
            other => panic!("{other:?}"),
        }
    }

    fn fails(&mut self) -> Failure {
        match self.next() {
            ClusterNext::Failed(failure) => failure,
            other => panic!("{other:?}"),
        }
    }

    fn is_done(&mut self) -> Evidence {
        match self.next() {
            ClusterNext::Done(evidence) => evidence,
            other => panic!("{other:?}"),
        }
    }
}

fn join(replaces: bool) -> Action {
    Action::JoinCluster {
        role: ClusterRole::Server,
        replaces,
    }
}

fn status() -> JoinStatus {
    JoinStatus {
        boot_id: "this-boot".to_owned(),
        joined: false,
        begun: false,
        entered: false,
        unit: JoinUnit::Inactive,
        reason: None,
    }
}

fn says(status: JoinStatus) -> ClusterAnswer {
    ClusterAnswer::Status(status)
}

fn joined() -> JoinStatus {
    JoinStatus {
        joined: true,
        begun: true,
        unit: JoinUnit::Active,
        ..status()
    }
}

fn node(boot_id: &str) -> ClusterAnswer {
    ClusterAnswer::Node(Some(Arc::new(NodeSeen {
        uid: "uid".to_owned(),
        boot_id: boot_id.to_owned(),
        ready: true,
        kubelet_version: "v1.34.2".to_owned(),
        ..NodeSeen::default()
    })))
}

fn members(numbers: &[u8]) -> EtcdMembers {
    let member = |n: &u8| EtcdMember {
        id: u64::from(*n),
        name: format!("control-0{n}"),
        client_urls: Vec::new(),
        peer_urls: vec![format!("https://10.0.0.{n}:2380")],
        is_learner: false,
        healthy: Some(true),
    };
    EtcdMembers {
        members: numbers.iter().map(member).collect(),
    }
}

fn list(numbers: &[u8]) -> ClusterAnswer {
    ClusterAnswer::Members(members(numbers))
}

fn away() -> ClusterAnswer {
    let failure = Failure::new(FailureKind::Transient, "no server answers for the cluster");
    ClusterAnswer::Nothing(failure)
}

fn others(statuses: [Option<JoinStatus>; 2]) -> ClusterAnswer {
    let names = ["control-01", "control-03"].map(name);
    let others = names.into_iter().zip(statuses);
    let others = others.map(|(name, status)| OtherServer { name, status });
    ClusterAnswer::Others(others.collect())
}

fn remove(id: u64) -> ClusterAsk {
    ClusterAsk::RemoveMember {
        id,
        shown: format!("control-0{id}"),
    }
}

#[test]
fn a_server_joins_an_etcd_that_is_whole_and_is_waited_for() {
    let mut play = Play::new(join(false), Work::Act);
    play.tells(&ClusterAsk::Status, says(status()))
        .tells(&ClusterAsk::Members, list(&[1, 3]))
        .tells(&ClusterAsk::OtherServers, others([Some(joined()), None]))
        .changes(&ClusterAsk::HandOver)
        .changes(&ClusterAsk::StartJoin)
        .tells(&ClusterAsk::Status, says(status()))
        .tells(&ClusterAsk::Node, ClusterAnswer::Node(None));
    assert_eq!(play.waits(), "it has not registered yet");
    // A Node of the machine's earlier life is none of this boot.
    play.tells(&ClusterAsk::Status, says(status()))
        .tells(&ClusterAsk::Node, node("a-boot-of-long-ago"));
    play.waits();
    let mut learning = members(&[1, 2, 3]);
    learning.members[1].is_learner = true;
    play.tells(&ClusterAsk::Status, says(joined()))
        .tells(&ClusterAsk::Node, node("this-boot"))
        .tells(&ClusterAsk::Members, ClusterAnswer::Members(learning));
    assert!(play.waits().contains("doesn't vote yet"));
    play.tells(&ClusterAsk::Status, says(joined()))
        .tells(&ClusterAsk::Node, node("this-boot"))
        .tells(&ClusterAsk::Members, list(&[1, 2, 3]));
    let is = Evidence::Joined {
        boot_id: "this-boot".to_owned(),
        uid: "uid".to_owned(),
        etcd_voters: 3,
    };
    assert_eq!(play.is_done(), is);
}

/// Whoever isn't whole is waited for, and in the end it is said who that was.
#[test]
fn no_server_joins_beside_another_or_an_etcd_that_is_not_whole() {
    let joining = JoinStatus {
        begun: true,
        unit: JoinUnit::Activating,
        ..status()
    };
    let mut unstarted = members(&[1, 3]);
    unstarted.members[1].name.clear();
    let mut ill = members(&[1, 3]);
    ill.members[0].healthy = Some(false);
    for (members, beside, said) in [
        (unstarted, None, "has not started"),
        (ill, None, "control-01 isn't healthy"),
        (
            members(&[1]),
            Some(joining),
            "control-03 is in the middle of its join",
        ),
    ] {
        let mut play = Play::new(join(false), Work::Act);
        for at_ms in [0, LIMIT_MS] {
            play.at_ms = at_ms;
            play.tells(&ClusterAsk::Status, says(status())).tells(
                &ClusterAsk::Members,
                ClusterAnswer::Members(members.clone()),
            );
            if beside.is_some() {
                let answer = others([None, beside.clone()]);
                play.tells(&ClusterAsk::OtherServers, answer);
            }
            if at_ms == 0 {
                assert!(play.waits().contains(said), "{said}");
            }
        }
        let failure = play.fails();
        assert_eq!(failure.kind, FailureKind::Transient);
        assert!(failure.message.contains(said), "{failure:?}");
    }
}

/// What is left of a machine's earlier life goes before it joins, the member first, and each look
/// begins from the beginning.
#[test]
fn a_machine_that_was_installed_anew_is_forgotten_first() {
    let mut play = Play::new(join(true), Work::Act);
    play.tells(&ClusterAsk::Status, says(status()))
        .tells(&ClusterAsk::Members, list(&[1, 2, 3]))
        .changes(&remove(2))
        .tells(&ClusterAsk::Status, says(status()))
        .tells(&ClusterAsk::Members, list(&[1, 3]))
        .changes(&ClusterAsk::ForgetNode)
        .tells(&ClusterAsk::Status, says(status()))
        .tells(&ClusterAsk::Members, away());
    play.waits();
    // It isn't forgotten again.
    play.tells(&ClusterAsk::Status, says(status()))
        .tells(&ClusterAsk::Members, list(&[1, 3]))
        .tells(&ClusterAsk::OtherServers, others([None, None]))
        .changes(&ClusterAsk::HandOver);
    assert_eq!(play.next(), ClusterNext::Ask(ClusterAsk::StartJoin));
}

#[test]
fn a_member_that_the_others_need_is_not_removed() {
    let mut short = members(&[1, 2, 3]);
    short.members[2].healthy = Some(false);
    let mut play = Play::new(join(true), Work::Act);
    for at_ms in [0, LIMIT_MS] {
        play.at_ms = at_ms;
        play.tells(&ClusterAsk::Status, says(status()))
            .tells(&ClusterAsk::Members, ClusterAnswer::Members(short.clone()));
        if at_ms == 0 {
            assert!(play.waits().contains("would lose its majority"));
        }
    }
    assert_eq!(play.fails().kind, FailureKind::Refused);
}

/// What a join that was cut off has added is this installation's own: neither removed, nor a reason
/// to wait, nor taken for the member of a machine that has lost its data.
#[test]
fn what_a_join_that_was_cut_off_has_added_is_its_own() {
    let begun = JoinStatus {
        begun: true,
        ..status()
    };
    for replaces in [false, true] {
        let mut own = members(&[1, 2, 3]);
        own.members[1].name.clear();
        own.members[1].is_learner = true;
        own.members[1].healthy = Some(false);
        let mut play = Play::new(join(replaces), Work::Act);
        play.tells(&ClusterAsk::Status, says(begun.clone()))
            .tells(&ClusterAsk::Node, ClusterAnswer::Node(None))
            .changes(&ClusterAsk::RestartKubelet)
            .tells(&ClusterAsk::Members, ClusterAnswer::Members(own.clone()))
            .tells(&ClusterAsk::OtherServers, others([None, None]))
            .changes(&ClusterAsk::HandOver);
        assert_eq!(play.next(), ClusterNext::Ask(ClusterAsk::StartJoin));
        // Nothing of it is there, and nobody said that it may come anew.
        let mut play = Play::new(join(false), Work::Act);
        play.tells(&ClusterAsk::Status, says(status()))
            .tells(&ClusterAsk::Members, ClusterAnswer::Members(own));
        let lost = play.fails();
        assert_eq!(lost.kind, FailureKind::Permanent);
        assert!(lost.message.contains("holds nothing of it"), "{lost:?}");
    }
}

/// kubeadm begins anew what was cut off: its member goes first, and not before the API answers.
#[test]
fn kubeadm_begins_anew_what_was_cut_off() {
    let begun = JoinStatus {
        begun: true,
        unit: JoinUnit::Failed,
        ..status()
    };
    let mut play = Play::new(join(false), Work::Act);
    play.plan.distribution = Distribution::Kubeadm;
    play.tells(&ClusterAsk::Status, says(begun.clone()))
        .tells(&ClusterAsk::Api, away());
    play.waits();
    play.tells(&ClusterAsk::Status, says(begun.clone()))
        .tells(&ClusterAsk::Api, ClusterAnswer::Done)
        .changes(&ClusterAsk::StopKubelet)
        .tells(&ClusterAsk::Members, list(&[1, 2]))
        .changes(&remove(2));
    assert_eq!(play.next(), ClusterNext::Ask(ClusterAsk::Status));
    let entered = JoinStatus {
        entered: true,
        ..begun
    };
    let mut play = Play::new(join(false), Work::Act);
    play.plan.distribution = Distribution::Kubeadm;
    play.tells(&ClusterAsk::Status, says(entered))
        .tells(&ClusterAsk::Node, away());
    assert_eq!(play.next(), ClusterNext::Ask(ClusterAsk::Members));
}

/// What was told to a unit that is at work stands, and one that has failed says why.
#[test]
fn a_unit_that_is_at_work_is_left_at_it() {
    let mut play = Play::new(join(true), Work::Act);
    let mut at_work = status();
    at_work.unit = JoinUnit::Activating;
    let mut failed = status();
    (failed.unit, failed.reason) = (JoinUnit::Failed, Some("no token".to_owned()));
    play.tells(&ClusterAsk::Status, says(at_work))
        .tells(&ClusterAsk::Status, says(failed));
    let failure = play.fails();
    assert_eq!(failure.kind, FailureKind::Transient);
    assert!(failure.message.ends_with("no token"), "{failure:?}");
}

/// A founder that holds nothing founds no second cluster: not beside one that answers, and not
/// beside one that is only silent.
#[test]
fn a_fleet_has_one_cluster() {
    let mut play = Play::new(Action::FoundCluster, Work::Act);
    let open = ClusterAnswer::Open(vec![name("control-03")]);
    play.tells(&ClusterAsk::Status, says(status()))
        .tells(&ClusterAsk::OpenApis, open);
    let refused = play.fails();
    assert_eq!(refused.kind, FailureKind::Refused);
    assert!(
        refused.message.contains("control-03 answers"),
        "{refused:?}"
    );

    let none = || ClusterAnswer::Open(Vec::new());
    let silent = || {
        let names = ["control-02", "control-03"].map(name);
        let others = names.into_iter().zip([None, Some(joined())]);
        let others = others.map(|(name, status)| OtherServer { name, status });
        ClusterAnswer::Others(others.collect())
    };
    let mut play = Play::new(Action::FoundCluster, Work::Act);
    for at_ms in [0, LIMIT_MS] {
        play.at_ms = at_ms;
        play.tells(&ClusterAsk::Status, says(status()))
            .tells(&ClusterAsk::OpenApis, none())
            .tells(&ClusterAsk::OtherServers, silent());
        if at_ms == 0 {
            assert!(play.waits().contains("control-03 is a member"));
        }
    }
    assert_eq!(play.fails().kind, FailureKind::Refused);

    // Nobody has joined yet: that is how each cluster begins.
    let mut play = Play::new(Action::FoundCluster, Work::Act);
    play.tells(&ClusterAsk::Status, says(status()))
        .tells(&ClusterAsk::OpenApis, none())
        .tells(&ClusterAsk::OtherServers, others([Some(status()), None]));
    assert_eq!(play.next(), ClusterNext::Ask(ClusterAsk::StartJoin));
}

/// That nobody answers is no proof that there is nobody: those who have joined, or were told to, are waited for until they
/// say themselves that they hold nothing.
#[test]
fn a_member_that_is_silent_is_a_member() {
    let play = |members: [&str; 1], statuses: [Option<JoinStatus>; 2]| {
        let mut play = Play::new(Action::FoundCluster, Work::Act);
        play.members = members.map(name).to_vec();
        for at_ms in [0, LIMIT_MS] {
            play.at_ms = at_ms;
            let names = ["control-02", "control-03"].map(name);
            let others = names.into_iter().zip(statuses.clone());
            let others = others.map(|(name, status)| OtherServer { name, status });
            play.tells(&ClusterAsk::Status, says(status()))
                .tells(&ClusterAsk::OpenApis, ClusterAnswer::Open(Vec::new()))
                .tells(
                    &ClusterAsk::OtherServers,
                    ClusterAnswer::Others(others.collect()),
                );
            if at_ms == 0 && matches!(play.next(), ClusterNext::Ask(_)) {
                break;
            }
        }
        play
    };
    let unproved = play(["control-03"], [Some(status()), None]).fails();
    assert_eq!(unproved.kind, FailureKind::Transient);
    assert!(
        unproved
            .message
            .starts_with("control-03 has been told to join"),
        "{unproved:?}"
    );
    assert!(
        unproved
            .hint
            .unwrap()
            .contains("take it out of the inventory")
    );
    // One that was wiped and says so is nobody's member; one that never joined may be off.
    for (member, statuses) in [
        ("control-03", [None, Some(status())]),
        ("control-02", [Some(status()), None]),
    ] {
        let mut play = play([member], statuses);
        assert_eq!(play.next(), ClusterNext::Ask(ClusterAsk::StartJoin));
    }
}

#[test]
fn a_member_whose_node_was_deleted_registers_again() {
    let mut play = Play::new(join(false), Work::Act);
    play.tells(&ClusterAsk::Status, says(joined()))
        .tells(&ClusterAsk::Node, ClusterAnswer::Node(None))
        .changes(&ClusterAsk::RestartKubelet)
        .changes(&ClusterAsk::StartJoin)
        .tells(&ClusterAsk::Status, says(joined()))
        .tells(&ClusterAsk::Node, ClusterAnswer::Node(None))
        .tells(&ClusterAsk::Members, list(&[1, 2, 3]));
    play.waits();
    // Its member went with its Node.
    play.tells(&ClusterAsk::Status, says(joined()))
        .tells(&ClusterAsk::Node, ClusterAnswer::Node(None))
        .tells(&ClusterAsk::Members, list(&[1, 3]));
    let removed = play.fails();
    assert_eq!(removed.kind, FailureKind::Permanent);
    assert!(removed.hint.unwrap().contains("--reinstall"));
}

/// Its unit was cut off after its kubelet had registered, and its Node was deleted then: a kubelet that runs never
/// registers again, and a unit that waits for it would wait for ever.
#[test]
fn a_kubelet_that_runs_registers_again_also_where_its_unit_was_cut_off() {
    let begun = JoinStatus {
        begun: true,
        ..status()
    };
    let mut play = Play::new(Action::FoundCluster, Work::Act);
    play.tells(&ClusterAsk::Status, says(begun.clone()))
        .tells(&ClusterAsk::Node, ClusterAnswer::Node(None))
        .changes(&ClusterAsk::RestartKubelet);
    assert_eq!(play.next(), ClusterNext::Ask(ClusterAsk::OpenApis));

    // One whose Node is there is left alone, and so is one whose unit is at work.
    let at_work = JoinStatus {
        unit: JoinUnit::Activating,
        ..begun
    };
    let mut play = Play::new(Action::FoundCluster, Work::Act);
    play.tells(&ClusterAsk::Status, says(at_work));
    assert_eq!(play.next(), ClusterNext::Ask(ClusterAsk::Status));
}

/// How long is waited: an act for a machine that boots, a probe for a cluster that restarts.
#[test]
fn waits_have_limits() {
    let silent = || {
        let failure = Failure::new(FailureKind::Transient, "nobody answers");
        ClusterAnswer::Nothing(failure)
    };
    let mut play = Play::new(join(false), Work::Act);
    play.at_ms = BOOT_WAIT_MS_MAX - 1;
    play.tells(&ClusterAsk::Status, silent());
    play.waits();
    play.at_ms += 1;
    play.tells(&ClusterAsk::Status, silent());
    assert_eq!(play.fails().kind, FailureKind::Transient);
    let foreign = Failure::new(FailureKind::Refused, "another key");
    let mut play = Play::new(join(false), Work::Act);
    play.tells(&ClusterAsk::Status, ClusterAnswer::Nothing(foreign));
    assert_eq!(play.fails().kind, FailureKind::Refused);
    let mut play = Play::new(join(false), Work::Probe);
    play.tells(&ClusterAsk::Status, silent());
    assert_eq!(play.fails().kind, FailureKind::Transient);

    let mut play = Play::new(join(false), Work::Probe);
    for at_ms in [0, PROBE_WAIT_MS_MAX] {
        play.at_ms = at_ms;
        play.tells(&ClusterAsk::Status, says(joined()))
            .tells(&ClusterAsk::Node, away());
        if at_ms == 0 {
            play.waits();
        }
    }
    assert_eq!(play.fails().kind, FailureKind::Transient);
    let mut play = Play::new(join(false), Work::Probe);
    play.tells(&ClusterAsk::Status, says(status()));
    assert!(matches!(play.next(), ClusterNext::NotDone(_)));
}

fn ready() -> Action {
    Action::AwaitReady {
        labels: BTreeMap::from([("class".to_owned(), "gpu".to_owned())]),
        annotations: BTreeMap::new(),
        taints: Vec::new(),
    }
}

#[test]
fn a_node_is_ready_in_the_boot_that_its_machine_is_in() {
    let mut play = Play::new(ready(), Work::Act);
    let ClusterNext::Ask(_) = play.next() else {
        panic!();
    };
    play.tells(&ClusterAsk::Status, says(joined()))
        .tells(&ClusterAsk::Node, node("this-boot"));
    let dress = ClusterAsk::Dress {
        labels: BTreeMap::from([("class".to_owned(), "gpu".to_owned())]),
        annotations: BTreeMap::new(),
        taints: Vec::new(),
    };
    play.changes(&dress)
        .tells(&ClusterAsk::Node, node("boot-before"))
        .tells(&ClusterAsk::Members, list(&[1, 2]));
    assert!(play.waits().contains("has not reported"));
    // The machine is asked again which boot it is in; somebody has taken the labels off.
    play.tells(&ClusterAsk::Status, says(joined()))
        .tells(&ClusterAsk::Node, node("this-boot"));
    assert!(play.waits().contains("lacks labels"));
    let labelled = NodeSeen {
        boot_id: "this-boot".to_owned(),
        ready: true,
        labels: BTreeMap::from([("class".to_owned(), "gpu".to_owned())]),
        ..NodeSeen::default()
    };
    play.tells(&ClusterAsk::Node, node("this-boot"))
        .changes(&dress)
        .tells(
            &ClusterAsk::Node,
            ClusterAnswer::Node(Some(Arc::new(labelled))),
        );
    assert!(matches!(play.is_done(), Evidence::Ready { .. }));
}

#[test]
fn what_a_step_stands_on_is_looked_at() {
    for work in [Work::Act, Work::Probe] {
        let mut play = Play::new(ready(), work);
        play.tells(&ClusterAsk::Status, says(joined()))
            .tells(&ClusterAsk::Node, ClusterAnswer::Node(None));
        assert_eq!(play.fails().kind, FailureKind::PreconditionLost);
        let mut play = Play::new(ready(), work);
        play.tells(&ClusterAsk::Status, says(joined()))
            .tells(&ClusterAsk::Node, node("boot-before"));
        if work == Work::Act {
            let ClusterNext::Ask(dress) = play.next() else {
                panic!();
            };
            play.changes(&dress)
                .tells(&ClusterAsk::Node, node("boot-before"));
        }
        play.tells(&ClusterAsk::Members, list(&[1, 3]));
        assert_eq!(play.fails().kind, FailureKind::PreconditionLost);

        // The founder was taken out of etcd while it brings things in.
        let part = BootstrapPart::Network;
        let mut play = Play::new(Action::Bootstrap { part }, work);
        play.tells(&ClusterAsk::Node, node("this-boot"))
            .tells(&ClusterAsk::Members, list(&[2, 3]));
        assert_eq!(play.fails().kind, FailureKind::PreconditionLost);
    }
}

#[test]
fn a_part_comes_after_those_before_it_and_is_healthy_only_when_it_is_whole() {
    let rollout = |available| {
        Some(Rollout {
            kind: WorkloadKind::Deployment,
            generation: 1,
            observed_generation: 1,
            wanted: 1,
            updated: 1,
            available,
            stalled: None,
        })
    };
    let part = BootstrapPart::Secrets;
    let mut play = Play::new(Action::Bootstrap { part }, Work::Act);
    play.tells(&ClusterAsk::Node, node("this-boot"))
        .tells(&ClusterAsk::Members, list(&[1]));
    let ClusterNext::Ask(network) = play.next() else {
        panic!();
    };
    play.tells(&network, ClusterAnswer::Rollout(None));
    let lost = play.fails();
    assert_eq!(lost.kind, FailureKind::PreconditionLost);
    assert!(lost.message.contains("cilium-operator"), "{lost:?}");

    let secret = |is_ours, is_current| {
        ClusterAnswer::Secrets(vec![SecretSeen {
            shown: "Secret argocd/fleet-repository".to_owned(),
            is_ours,
            is_current,
        }])
    };
    let mut play = Play::new(Action::Bootstrap { part }, Work::Act);
    play.tells(&ClusterAsk::Node, node("this-boot"))
        .tells(&ClusterAsk::Members, list(&[1]))
        .tells(&network, ClusterAnswer::Rollout(rollout(0)))
        .tells(&ClusterAsk::Api, ClusterAnswer::Done)
        .changes(&ClusterAsk::BringIn { part })
        .tells(&ClusterAsk::Secrets, secret(true, false));
    assert!(play.waits().contains("holds something else"));
    // It isn't brought in twice by one try.
    play.tells(&ClusterAsk::Secrets, secret(true, true));
    assert!(matches!(play.is_done(), Evidence::Bootstrapped { .. }));
}
