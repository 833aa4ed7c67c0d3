//! What the checkers find when the controller's side is broken on purpose.

use undercroft_model::inventory::parse;

use super::*;
use crate::world::{Loss, Sabotage, TargetedLoss};

const BASEMENT: &str = include_str!("../../../../examples/basement/undercroft.toml");

/// The rules that seeds break, one after the other, when the world is sabotaged in that way.
fn broken_rules(sabotage: Option<Sabotage>) -> impl Iterator<Item = Rule> {
    let inventory = parse("undercroft.toml", BASEMENT.as_bytes())
        .inventory
        .unwrap();
    let inventory = scale_to(&inventory, 5).unwrap();
    (1..=60).filter_map(move |seed| {
        let options = RehearseOptions {
            seed,
            faults: Faults::Many,
            ..RehearseOptions::default()
        };
        let mut state = RehearsalState::new(&inventory, &options);
        state.world.sabotage = sabotage;
        state.run_phases().err().map(|violation| violation.rule)
    })
}

/// Whether one of the first seeds breaks the rule when the world is sabotaged in that way.
fn is_seen(sabotage: Sabotage, rule: Rule) -> bool {
    broken_rules(Some(sabotage)).any(|broken| broken == rule)
}

#[test]
fn a_sound_world_breaks_no_rule() {
    assert_eq!(broken_rules(None).collect::<Vec<_>>(), []);
}

/// Somebody reports in as every machine, from the first moment on and for good, under the very
/// address, with fresh boots and with the machine's own: what comes of it is what would have come
/// without, some time later.
#[test]
fn an_impostor_with_any_number_of_reports_costs_nothing_but_time() {
    let inventory = parse("undercroft.toml", BASEMENT.as_bytes())
        .inventory
        .unwrap();
    let inventory = scale_to(&inventory, 5).unwrap();
    for seed in 1..=40 {
        let options = RehearseOptions {
            seed,
            ..RehearseOptions::default()
        };
        let mut state = RehearsalState::new(&inventory, &options);
        for node in 0..5 {
            state.world.machine(node).impersonated = true;
            state.world.impostor_comes(node);
        }
        state.run_phases().unwrap();
        assert_eq!(state.runs.len(), 1, "seed {seed}");
        assert_eq!(state.runs[0].end, Some(RunEnd::Complete), "seed {seed}");
        let forged: u32 = state.world.machines.iter().map(|m| m.forged_reports).sum();
        assert!(forged > 100, "seed {seed}: {forged}");
        let shared = state.shared.borrow();
        let spent = |record: &Record| {
            !matches!(record, Record::Quarantined { .. } | Record::RunEnded { .. })
        };
        let spent: Vec<_> = shared.notable.iter().filter(|(_, r)| spent(r)).collect();
        assert!(spent.is_empty(), "seed {seed}: {spent:?}");
        let disks: BTreeSet<_> = state.world.wiped.iter().collect();
        assert_eq!(state.world.wiped.len(), disks.len(), "seed {seed}");
    }
}

#[test]
fn a_second_wipe_is_seen() {
    assert!(is_seen(Sabotage::WipesAgain, Rule::SecondWipe));
}

#[test]
fn a_connection_without_approval_is_seen() {
    assert!(is_seen(Sabotage::ApprovesAnyone, Rule::ContactApproval));
}

#[test]
fn a_machine_that_is_called_up_and_is_not_is_seen() {
    assert!(is_seen(Sabotage::CallsAnythingUp, Rule::UpIsTrue));
}

#[test]
fn a_report_that_is_believed_is_seen() {
    assert!(is_seen(Sabotage::BelievesReports, Rule::ReportIsAHint));
}

#[test]
fn a_fleet_that_never_gets_up_is_seen() {
    assert!(is_seen(Sabotage::LosesReports, Rule::Liveness));
}

#[test]
fn a_server_that_joins_an_etcd_that_is_not_whole_is_seen() {
    let inventory = parse("undercroft.toml", BASEMENT.as_bytes());
    let inventory = scale_to(&inventory.inventory.unwrap(), 5).unwrap();
    let options = RehearseOptions {
        keep_journal: true,
        ..RehearseOptions::default()
    };
    for sabotage in [None, Some(Sabotage::JoinsBlindly)] {
        let mut state = RehearsalState::new(&inventory, &options);
        state.world.sabotage = sabotage;
        // Others join from then on.
        let founder = TargetedLoss::new("control-01", "ready", 1, Loss::Network);
        state.world.targeted_loss = Some(founder);
        let broken = state.run_phases().err().map(|violation| violation.rule);
        assert_eq!(broken, sabotage.map(|_| Rule::EtcdQuorum));
    }
}

#[test]
fn a_second_cluster_is_seen() {
    assert!(is_seen(Sabotage::FoundsAgain, Rule::OneCluster));
}

#[test]
fn a_machine_that_is_called_ready_and_is_not_is_seen() {
    assert!(is_seen(Sabotage::CallsAnythingReady, Rule::ReadyIsTrue));
}

#[test]
fn a_node_that_was_deleted_and_never_comes_back_is_seen() {
    let inventory = parse("undercroft.toml", BASEMENT.as_bytes());
    let inventory = scale_to(&inventory.inventory.unwrap(), 5).unwrap();
    let options = RehearseOptions {
        keep_journal: true,
        ..RehearseOptions::default()
    };
    for sabotage in [None, Some(Sabotage::WaitsForTheDeleted)] {
        let mut state = RehearsalState::new(&inventory, &options);
        state.world.sabotage = sabotage;
        state.world.targeted_loss = Some(TargetedLoss::new("gpu-01", "ready", 1, Loss::Node));
        let broken = state.run_phases().err().map(|violation| violation.rule);
        assert_eq!(broken, sabotage.map(|_| Rule::Liveness));
    }
}

#[test]
fn a_member_that_is_never_replaced_is_seen() {
    assert!(is_seen(Sabotage::ReplacesNobody, Rule::Liveness));
}

/// Another machine answers for a server that was installed anew while it joins, at whichever moment.
#[test]
fn a_member_that_is_removed_while_it_joins_is_seen() {
    let inventory = parse("undercroft.toml", BASEMENT.as_bytes());
    let inventory = scale_to(&inventory.inventory.unwrap(), 5).unwrap();
    let options = RehearseOptions {
        keep_journal: true,
        ..RehearseOptions::default()
    };
    let broken = |sabotage, delay_ms| {
        let mut state = RehearsalState::new(&inventory, &options);
        state.world.sabotage = sabotage;
        let mut target = TargetedLoss::new("control-03", "ready", 1, Loss::Disks);
        let then = TargetedLoss::new("control-03", "join", delay_ms, Loss::Address);
        target.then = Some(Box::new(then));
        state.world.targeted_loss = Some(target);
        state.run_phases().err().map(|violation| violation.rule)
    };
    let mut seen = false;
    for delay_ms in (1..=30).map(|step| step * 10_000) {
        assert_eq!(broken(None, delay_ms), None, "{delay_ms}");
        let sabotage = Some(Sabotage::RemovesWhatJoins);
        seen |= broken(sabotage, delay_ms) == Some(Rule::EtcdQuorum);
    }
    assert!(seen, "a member that joined was removed, and nobody noticed");
}

#[test]
fn a_cluster_whose_network_never_works_is_seen() {
    assert!(is_seen(Sabotage::NetworkNeverReady, Rule::Liveness));
}
