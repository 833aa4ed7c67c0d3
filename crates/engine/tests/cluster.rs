//! The engine's rules for machines that wait for one another: those of a cluster.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a panic is the finding"
)]

mod world;

use undercroft_engine::{Driver, Engine, Event};
use undercroft_model::{
    FailureKind, NodeState, Plan, Record, Resource, RunEnd, Work,
    view::{FleetView, NodeStatus},
};
use world::{Memory, Scripted, Twist, cluster_plan, name, next_event, run_on, run_plan};

const FREE: &str = "network_boots = 100\nclosure_copies = 100\nreboots = 100\nfailure_budget = 100";

fn verbs(world: &Scripted, node: usize) -> Vec<String> {
    world
        .log
        .iter()
        .filter(|(n, ..)| *n == name(node))
        .map(|(_, verb, work, attempt)| match work {
            Work::Act => format!("{verb} {attempt}"),
            Work::Probe => format!("{verb}?"),
        })
        .collect()
}

fn count(journal: &Memory, wanted: impl Fn(&Record) -> bool) -> usize {
    journal.entries.iter().filter(|e| wanted(&e.record)).count()
}

/// Three servers, of which the first founds, and two agents.
fn fails_at(node: usize, verb: &'static str) -> (RunEnd, Memory, Scripted) {
    let mut world = Scripted::new();
    let kind = FailureKind::Permanent;
    world.twist(node, verb, Work::Act, Twist::Fails(kind));
    let (end, journal) = run_plan(cluster_plan(5, 3, FREE), &mut world);
    (end, journal, world)
}

fn place(world: &Scripted, node: usize, verb: &str) -> Option<usize> {
    let mut log = world.log.iter();
    log.position(|(n, v, work, _)| *n == name(node) && *v == verb && *work == Work::Act)
}

#[test]
fn a_cluster_comes_up_in_order() {
    let mut world = Scripted::new();
    let (end, journal) = run_plan(cluster_plan(5, 3, FREE), &mut world);
    assert_eq!(end, RunEnd::Complete);
    let at = |node, verb| place(&world, node, verb).unwrap();
    let order = [
        at(0, "found"),
        at(0, "network"),
        at(1, "join"),
        at(2, "join"),
        at(3, "join"),
        at(0, "secrets"),
        at(0, "argocd"),
        at(0, "sync"),
    ];
    assert!(order.is_sorted(), "{order:?}");
    assert_eq!(world.most_held[&Resource::ServerJoin], 1);
    assert_eq!(world.most_held[&Resource::AgentJoin], 2);
    let view = FleetView::fold(&journal.entries);
    assert_eq!(view.nodes[&name(0)].state, NodeState::Synced);
    assert_eq!(view.nodes[&name(4)].state, NodeState::Ready);
    assert!(view.installed()[&name(4)].joined);
}

#[test]
fn a_server_that_failed_holds_up_neither_agents_nor_argo_cd() {
    for verb in ["network-boot", "prove", "join", "ready"] {
        let (end, _, world) = fails_at(1, verb);
        assert_eq!(end, RunEnd::Incomplete, "{verb}");
        assert!(world.machines[&name(2)].joined && world.machines[&name(4)].ready);
        assert_eq!(world.machines[&name(0)].parts.len(), 4, "{verb}");
    }
}

/// A server that is wiped only when another is back waits for it, and not the whole fleet for both.
#[test]
fn what_waits_for_a_machine_that_failed_holds_nobody_up_either() {
    let mut plan = cluster_plan(5, 3, FREE);
    let step = |node, verb: &str| {
        let mut steps = plan.steps.iter();
        let found = steps.find(|s| s.node == name(node) && s.action.verb() == verb);
        found.unwrap().id
    };
    let (first, before) = (step(2, "network-boot"), step(1, "ready"));
    plan.steps[first.0 as usize].after.push(before);
    plan.id = plan.content_id();
    let mut world = Scripted::new();
    let kind = FailureKind::Permanent;
    world.twist(1, "join", Work::Act, Twist::Fails(kind));
    let (end, journal) = run_plan(plan, &mut world);
    assert_eq!(end, RunEnd::Incomplete);
    assert!(place(&world, 2, "network-boot").is_none());
    assert!(world.machines[&name(4)].ready);
    assert_eq!(world.machines[&name(0)].parts.len(), 4);
    // A further run waits for it as before, and then begins the other.
    world.log.clear();
    let (end, _) = run_on(journal, &mut world);
    assert_eq!(end, RunEnd::Complete);
    assert!(place(&world, 1, "ready") < place(&world, 2, "network-boot"));
}

#[test]
fn an_agent_that_failed_is_taken_up_by_the_next_run() {
    let (end, journal, mut world) = fails_at(4, "join");
    assert_eq!(end, RunEnd::Incomplete);
    assert_eq!(world.machines[&name(0)].parts.len(), 4);
    world.log.clear();
    let (end, _) = run_on(journal, &mut world);
    assert_eq!(end, RunEnd::Complete);
    assert_eq!(verbs(&world, 4), ["join?", "join 1", "ready 1"]);
    assert_eq!(verbs(&world, 0), Vec::<String>::new());
}

#[test]
fn without_its_founder_a_cluster_waits_and_no_machine_is_lost() {
    let (end, journal, world) = fails_at(0, "network");
    assert_eq!(end, RunEnd::Incomplete);
    for n in 1..5 {
        assert!(world.machines[&name(n)].up && !world.machines[&name(n)].joined);
    }
    let view = FleetView::fold(&journal.entries);
    assert_eq!(view.nodes[&name(1)].status, NodeStatus::Waiting);
    let waits = |n| {
        let step = view.waits_on(&name(n)).unwrap();
        format!("{} {}", step.node, step.action.verb())
    };
    assert_eq!(waits(1), "n00000 network");
    assert_eq!(waits(4), "n00000 network");
}

#[test]
fn machines_that_a_stopped_rollout_does_not_begin_hold_nobody_up() {
    let mut world = Scripted::new();
    let limits = "network_boots = 1\nfailure_budget = 0";
    let kind = FailureKind::Permanent;
    world.twist(2, "network-boot", Work::Act, Twist::Fails(kind));
    let (end, journal) = run_plan(cluster_plan(5, 3, limits), &mut world);
    assert_eq!(end, RunEnd::Incomplete);
    assert_eq!(
        count(&journal, |r| matches!(r, Record::RolloutStopped { .. })),
        1
    );
    assert!(place(&world, 4, "network-boot").is_none());
    assert!(world.machines[&name(1)].ready);
    assert_eq!(world.machines[&name(0)].parts.len(), 4);
}

#[test]
fn a_server_that_may_be_half_way_in_keeps_its_turn() {
    let mut world = Scripted::new();
    world.twist(1, "join", Work::Act, Twist::Fails(FailureKind::Transient));
    let (end, _) = run_plan(cluster_plan(3, 3, FREE), &mut world);
    assert_eq!(end, RunEnd::Complete);
    let joins: Vec<_> = world
        .log
        .iter()
        .filter(|(_, verb, ..)| *verb == "join")
        .map(|(node, _, _, attempt)| (node.clone(), *attempt))
        .collect();
    assert_eq!(joins, [(name(1), 1), (name(1), 2), (name(2), 1)]);
}

#[test]
fn a_report_does_not_take_a_member_of_the_cluster_back() {
    let mut world = Scripted::new();
    let plan = cluster_plan(1, 1, FREE);
    let mut driver = Driver::new(Engine::new(plan.clone()).unwrap(), Memory::default());
    let mut event = Event::Begin;
    while place(&world, 0, "found").is_none() {
        driver.handle(world.now, event, &mut world).unwrap();
        event = next_event(&mut world, driver.next_deadline()).unwrap();
    }
    let mut report = world.report(&plan, &name(0));
    report.boot_id = "another".to_owned();
    report.fingerprint = "SHA256:another".to_owned();
    let claim = Event::Reported {
        node: name(0),
        report: Box::new(report),
    };
    driver.handle(world.now, claim, &mut world).unwrap();
    while driver
        .handle(world.now, event, &mut world)
        .unwrap()
        .is_none()
    {
        event = next_event(&mut world, driver.next_deadline()).unwrap();
    }
    let journal = driver.into_journal();
    assert_eq!(
        count(&journal, |r| matches!(r, Record::NodeRestarted { .. })),
        0
    );
    assert!(world.machines[&name(0)].ready);
}

/// Where machines began again, and why those failed that did.
fn went(journal: &Memory, plan: &Plan) -> (Vec<&'static str>, Vec<String>) {
    let (mut from, mut failed) = (Vec::new(), Vec::new());
    for entry in &journal.entries {
        match &entry.record {
            Record::NodeRestarted { from: step, .. } => {
                from.push(plan.step(*step).unwrap().action.verb());
            }
            Record::NodeFailed { failure, .. } => failed.push(failure.message.clone()),
            _ => {}
        }
    }
    (from, failed)
}

#[test]
fn whatever_step_has_lost_its_ground_its_machine_goes_back_to_where_it_was_lost() {
    let plan = cluster_plan(5, 3, FREE);
    for step in &plan.steps {
        let verb = step.action.verb();
        let mut world = Scripted::new();
        let n = plan.nodes.keys().position(|name| *name == step.node);
        let lost = Twist::Fails(FailureKind::PreconditionLost);
        world.twist(n.unwrap(), verb, Work::Act, lost);
        let (end, journal) = run_plan(plan.clone(), &mut world);
        let (from, failed) = went(&journal, &plan);
        match verb {
            "network-boot" | "found" | "join" => {
                assert_eq!(
                    (end, from.len(), failed.len()),
                    (RunEnd::Incomplete, 0, 1),
                    "{verb}"
                );
                // Said once, and gone on with by the next run.
                assert_eq!(run_on(journal, &mut world).0, RunEnd::Complete, "{verb}");
            }
            _ => {
                let back = match (step.action.is_of_cluster(), n) {
                    (false, _) => "network-boot",
                    (true, Some(0)) => "found",
                    (true, _) => "join",
                };
                assert_eq!((end, from), (RunEnd::Complete, vec![back]), "{verb}");
                assert_eq!(failed, Vec::<String>::new(), "{verb}");
            }
        }
    }
}

#[test]
fn a_member_that_goes_back_looks_before_it_does_anything_again() {
    let mut world = Scripted::new();
    let lost = Twist::Fails(FailureKind::PreconditionLost);
    world.twist(0, "argocd", Work::Act, lost);
    let (end, journal) = run_plan(cluster_plan(2, 1, FREE), &mut world);
    assert_eq!(end, RunEnd::Complete);
    let verbs = verbs(&world, 0);
    let back = verbs.iter().position(|verb| verb == "argocd 1").unwrap();
    let again = [
        "found?", "network?", "ready?", "secrets?", "argocd?", "argocd 1", "sync 1",
    ];
    assert_eq!(verbs[back + 1..], again);
    assert_eq!(
        world.machines[&name(0)].boots,
        2,
        "its installer's boot and its own"
    );
    // What a controller knows that comes after this one.
    let view = FleetView::fold(&journal.entries);
    assert!(
        view.installed()[&name(0)].joined,
        "it was a member all the time"
    );
}

#[test]
fn ground_that_is_lost_again_and_again_ends_with_a_word() {
    let mut world = Scripted::new();
    let plan = cluster_plan(2, 1, FREE);
    for _ in 0..20 {
        for work in [Work::Act, Work::Probe] {
            world.twist(
                1,
                "ready",
                work,
                Twist::Fails(FailureKind::PreconditionLost),
            );
        }
    }
    let (end, journal) = run_plan(plan.clone(), &mut world);
    let (from, failed) = went(&journal, &plan);
    assert_eq!(end, RunEnd::Incomplete);
    let max = plan.limits.node_restarts_max as usize;
    assert_eq!(from, vec!["join"; max]);
    let said = format!("it has begun again {max} times, as often as the plan allows");
    assert!(
        failed.len() == 1 && failed[0].ends_with(&said),
        "{failed:?}"
    );
    assert_eq!(world.machines[&name(1)].wipes, 1);
}

#[test]
fn a_look_tells_whether_the_ground_is_gone_before_a_machine_is_given_up() {
    for (verb, back) in [("copy", "network-boot"), ("ready", "join")] {
        for gone in [true, false] {
            let mut world = Scripted::new();
            let plan = cluster_plan(2, 1, FREE);
            let tries = plan.steps[0].retry.attempts_max;
            for _ in 0..tries {
                world.twist(1, verb, Work::Act, Twist::Fails(FailureKind::Transient));
            }
            if gone {
                let lost = Twist::Fails(FailureKind::PreconditionLost);
                world.twist(1, verb, Work::Probe, lost);
            }
            let (end, journal) = run_plan(plan.clone(), &mut world);
            let (from, failed) = went(&journal, &plan);
            if gone {
                assert_eq!((end, from), (RunEnd::Complete, vec![back]), "{verb}");
            } else {
                assert_eq!((end, from.len()), (RunEnd::Incomplete, 0), "{verb}");
                assert_eq!(failed, ["as the script says"], "{verb}");
            }
        }
    }
}

/// A run that goes on waits for what was under way, as the one before did.
#[test]
fn agents_join_after_servers_wherever_a_controller_died() {
    for events in 1.. {
        let mut world = Scripted::new();
        let plan = cluster_plan(4, 3, FREE);
        let mut driver = Driver::new(Engine::new(plan).unwrap(), Memory::default());
        let mut event = Event::Begin;
        let mut ended = false;
        for _ in 0..events {
            ended = driver
                .handle(world.now, event, &mut world)
                .unwrap()
                .is_some();
            if ended {
                break;
            }
            event = next_event(&mut world, driver.next_deadline()).unwrap();
        }
        if ended {
            assert!(events > 30, "{events}");
            return;
        }
        let (end, _) = run_on(driver.into_journal(), &mut world);
        assert_eq!(end, RunEnd::Complete);
        let joins = |node: usize| {
            let log = world.log.iter().enumerate();
            log.filter(move |(_, (n, verb, ..))| *n == name(node) && *verb == "join")
                .map(|(at, _)| at)
        };
        let agent = joins(3).min().unwrap();
        for server in [1, 2] {
            assert!(joins(server).max().unwrap() < agent, "{events}: {server}");
        }
    }
}
