//! The ground of each step is taken away while it is under way: every loss, in every step.

use undercroft_model::inventory::parse;

use super::*;
use crate::world::{Loss, TargetedLoss};

const BASEMENT: &str = include_str!("../../../../examples/basement/undercroft.toml");

const INSTALLATION: [&str; 8] = [
    "network-boot",
    "approve",
    "inspect",
    "partition",
    "copy",
    "install",
    "reboot",
    "prove",
];

/// What became of one loss.
#[derive(Debug)]
struct Outcome {
    runs: usize,
    restarts: usize,
    /// Why the machine's part of the first run ended without success.
    failed: Option<String>,
    happened: bool,
}

fn outcome_of(target: TargetedLoss) -> Outcome {
    let inventory = parse("undercroft.toml", BASEMENT.as_bytes());
    let inventory = scale_to(&inventory.inventory.unwrap(), 5).unwrap();
    let options = RehearseOptions {
        keep_journal: true,
        ..RehearseOptions::default()
    };
    let mut state = RehearsalState::new(&inventory, &options);
    state.world.targeted_loss = Some(target.clone());
    let violation = state.run_phases().err();
    let shared = state.shared.borrow();
    assert_eq!(violation, None, "{target:?}: {:?}", shared.notable);
    let first = state.runs.first().unwrap().end_ms;
    let failed = shared
        .notable
        .iter()
        .find_map(|(at_ms, record)| match record {
            Record::NodeFailed { node, failure, .. }
                if *at_ms <= first && node.as_str() == target.node =>
            {
                Some(failure.message.clone())
            }
            _ => None,
        });
    let restarted = |(_, record): &&(u64, Record)| matches!(record, Record::NodeRestarted { .. });
    Outcome {
        runs: state.runs.len(),
        restarts: shared.notable.iter().filter(restarted).count(),
        failed,
        happened: state
            .world
            .targeted_loss
            .as_ref()
            .is_some_and(|s| s.happened),
    }
}

/// Every step of a founder, of another server and of an agent.
fn places() -> Vec<(&'static str, &'static str)> {
    let founder = ["found", "network", "ready", "secrets", "argocd", "sync"];
    let mut places = Vec::new();
    for (node, own) in [
        ("control-01", &founder[..]),
        ("control-02", &["join", "ready"]),
        ("gpu-01", &["join", "ready"]),
    ] {
        places.extend(INSTALLATION.iter().chain(own).map(|verb| (node, *verb)));
    }
    places
}

/// Whether what was lost can be had again by the steps of the machine itself, so that the loss must
/// not end its part of the state.
fn is_mended_at_once(target: &TargetedLoss) -> bool {
    match target.loss {
        Loss::Node | Loss::Approvals | Loss::Mounts => true,
        // The founder is the one that brings things in.
        Loss::Part(_) => target.node == "control-01",
        _ => false,
    }
}

#[test]
fn whatever_a_step_loses_its_machine_comes_back_or_says_why_not() {
    let mut losses = Vec::new();
    for (node, verb) in places() {
        for loss in Loss::ALL {
            // Before it has got to its machine; in the middle; in what comes next.
            for delay_ms in [1, 3_000, 70_000] {
                let target = TargetedLoss::new(node, verb, delay_ms, loss);
                let became = outcome_of(target.clone());
                if !became.happened {
                    continue;
                }
                losses.push(loss);
                // No rule was broken, so that all of them came up, whatever it took. What needs
                // nobody's visit is mended in the run in which it was lost.
                if is_mended_at_once(&target) {
                    assert_eq!(became.failed, None, "{target:?}: {became:?}");
                }
                assert!(
                    became.runs <= 4 && became.restarts <= 9,
                    "{target:?}: {became:?}"
                );
                assert_ne!(became.failed.as_deref(), Some(""), "{target:?}");
            }
        }
    }
    for loss in Loss::ALL {
        let times = losses.iter().filter(|l| **l == loss).count();
        assert!(times > 1, "{loss:?} was hardly ever a loss: {times} times");
    }
}

/// The asks of a round, and of the rounds that begin at once after it.
const ASKS: usize = 14;

#[test]
fn whatever_is_lost_between_two_asks_of_the_clusters_steps_is_mended() {
    let mut times = [0; 4];
    for (node, verb) in places() {
        if INSTALLATION.contains(&verb) {
            continue;
        }
        for ask in 0..ASKS {
            for (loss, times) in [Loss::Power, Loss::Api, Loss::Node, Loss::Network]
                .into_iter()
                .zip(&mut times)
            {
                let target = TargetedLoss::before_ask(node, verb, ask, loss);
                let became = outcome_of(target.clone());
                if !became.happened {
                    continue;
                }
                *times += 1;
                assert!(
                    became.runs <= 4 && became.restarts <= 9,
                    "{target:?}: {became:?}"
                );
            }
        }
    }
    assert!(times.iter().all(|times| *times > 20), "{times:?}");
}

/// The founder has left its cluster, and nobody reaches those who are in it: silence is no proof that they hold nothing.
#[test]
fn a_founder_that_reaches_no_member_founds_nothing() {
    let lost_in = |verb| {
        let target = TargetedLoss::new("control-01", verb, 1, Loss::ClusterUnseen);
        let became = outcome_of(target);
        assert!(became.happened, "{verb}: {became:?}");
        became.failed.unwrap_or_default()
    };
    assert!(lost_in("secrets").starts_with("control-02 has been told to join"));
    assert!(lost_in("argocd").starts_with("control-02 answers for a cluster"));
    // Those who were told to join and never came to it say so themselves when they are back.
    assert_eq!(lost_in("ready"), "");
}
