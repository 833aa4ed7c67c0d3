//! Updates in waves: who goes when, and what stops them.

use undercroft_model::{ClosedBy, RefutedSystem, Wave, inventory::Firmware};

use super::*;

fn new_toplevel(node: &NodeName) -> String {
    format!("/nix/store/1n3w7gl5n8kbzvxjmmdhdnjgcl7c6x00-{node}")
}

/// Every machine runs its former system, and another was built for each.
fn outdated(inventory: &Inventory) -> Observation {
    let mut observation = converged(inventory);
    for (name, target) in &mut observation.targets {
        target.as_mut().unwrap().toplevel = new_toplevel(name);
    }
    observation
}

fn updating() -> PlanOptions {
    PlanOptions {
        update: true,
        ..PlanOptions::default()
    }
}

/// What the journal and a look say once all machines of a wave have confirmed their systems.
fn carried_out(plan: &Plan, observation: &mut Observation) {
    let wave = plan.wave.clone().unwrap();
    if observation.updates.update.as_ref() != Some(&wave.update) {
        observation.updates.confirmed.clear();
    }
    observation.updates.update = Some(wave.update);
    observation.updates.waves = wave.number;
    for (name, node) in &plan.nodes {
        let toplevel = node.target.as_ref().unwrap().toplevel.clone();
        let seen = observation.nodes.get_mut(name).unwrap();
        seen.found = Found::Running {
            boot_id: format!("boot-of-{name}"),
            booted_system: toplevel.clone(),
            current_system: toplevel,
        };
        observation.updates.confirmed.insert(name.clone());
    }
}

fn refute(plan: &Plan, observation: &mut Observation, node: &NodeName) {
    let wave = plan.wave.clone().unwrap();
    observation.updates.update = Some(wave.update);
    observation.updates.waves = wave.number;
    let refuted = RefutedSystem {
        toplevel: new_toplevel(node),
        reason: "network: no link".to_owned(),
        wall_ms: 1,
    };
    observation.updates.refuted.insert(node.clone(), refuted);
}

#[test]
fn a_machine_that_runs_another_system_is_left_alone_unless_an_update_is_asked_for() {
    let inventory = basement(28);
    let (plan, report) = all(&inventory, &outdated(&inventory));
    assert!(plan.is_empty() && plan.wave.is_none());
    assert_eq!(report.summary.differs, 28);
}

#[test]
fn waves_are_one_first_then_servers_one_by_one_then_the_others_a_few_at_a_time() {
    let inventory = basement(28);
    let mut observation = outdated(&inventory);
    let servers: BTreeSet<NodeName> = inventory.servers().into_iter().cloned().collect();
    let founder = inventory.kubernetes.founder.clone().unwrap();
    let mut waves: Vec<BTreeSet<NodeName>> = Vec::new();
    loop {
        let (plan, _) = planned(&inventory, &observation, &updating());
        let Some(wave) = &plan.wave else {
            break;
        };
        assert_eq!(usize::try_from(wave.number).unwrap(), waves.len() + 1);
        waves.push(plan.nodes.keys().cloned().collect());
        carried_out(&plan, &mut observation);
        assert!(waves.len() <= 28, "it comes to no end");
    }
    let first = waves.first().unwrap();
    assert!(first.len() == 1 && first.is_disjoint(&servers), "{first:?}");
    let of_servers: Vec<&BTreeSet<NodeName>> = waves
        .iter()
        .filter(|wave| !wave.is_disjoint(&servers))
        .collect();
    assert_eq!(of_servers.len(), servers.len());
    assert!(of_servers.iter().all(|wave| wave.len() == 1));
    assert!(of_servers.last().unwrap().contains(&founder));
    assert_eq!(
        &waves[1..=servers.len()].iter().collect::<Vec<_>>(),
        &of_servers
    );
    let may = (28 - servers.len()) / 4;
    assert!(waves.iter().all(|wave| wave.len() <= may), "{waves:?}");
    // Boards whose firmware keeps nothing to go back to are left to a person.
    let kept = inventory
        .nodes
        .values()
        .filter(|n| n.firmware != Firmware::Rpi);
    assert_eq!(waves.iter().map(BTreeSet::len).sum::<usize>(), kept.count());
    let (plan, report) = planned(&inventory, &observation, &updating());
    assert!(plan.is_empty() && report.summary.update_later == 4);
}

#[test]
fn a_member_is_emptied_before_it_restarts_and_opened_when_it_is_ready() {
    let inventory = basement(28);
    let mut observation = outdated(&inventory);
    let (plan, _) = planned(&inventory, &observation, &updating());
    let first = plan.nodes.keys().next().unwrap().to_string();
    assert_eq!(
        verbs(&plan, &first),
        "fetch drain stage restart confirm join ready release"
    );
    carried_out(&plan, &mut observation);
    // A machine that is part of no cluster has no pods.
    let apart = name(&first);
    let mut apart_inventory = inventory.clone();
    apart_inventory.nodes.get_mut(&apart).unwrap().role = undercroft_model::inventory::Role::None;
    let observation = outdated(&apart_inventory);
    let options = PlanOptions {
        only: Some(BTreeSet::from([apart.clone()])),
        ..updating()
    };
    let (plan, _) = planned(&apart_inventory, &observation, &options);
    assert_eq!(verbs(&plan, &first), "fetch stage restart confirm");
}

#[test]
fn a_system_that_was_left_stops_the_update_until_it_is_another_or_is_to_be_tried_again() {
    let inventory = basement(28);
    let mut observation = outdated(&inventory);
    let (first, _) = planned(&inventory, &observation, &updating());
    let canary = first.nodes.keys().next().unwrap().clone();
    refute(&first, &mut observation, &canary);
    let (halted, report) = planned(&inventory, &observation, &updating());
    assert!(halted.is_empty(), "{halted:?}");
    assert_eq!(report.summary.update_later, 28);
    let text = explain(&halted, &report);
    assert!(
        text.contains("no link") && text.contains(&format!("--retry {canary}")),
        "{text}"
    );
    let retry = PlanOptions {
        retry: BTreeSet::from([canary.clone()]),
        ..updating()
    };
    let (again, _) = planned(&inventory, &observation, &retry);
    assert_eq!(again.nodes.keys().collect::<Vec<_>>(), [&canary]);
    // Another system for it is another update, which begins with one machine again.
    observation
        .targets
        .get_mut(&canary)
        .unwrap()
        .as_mut()
        .unwrap()
        .toplevel = "/nix/store/mended".to_owned();
    let (mended, _) = planned(&inventory, &observation, &updating());
    assert_eq!(mended.nodes.len(), 1);
    assert_ne!(
        mended.wave.map(|Wave { update, .. }| update),
        first.wave.map(|w| w.update)
    );
}

#[test]
fn no_server_goes_while_another_is_away_and_one_machine_that_is_away_stops_no_agent() {
    let inventory = basement(28);
    let mut observation = outdated(&inventory);
    let (first, _) = planned(&inventory, &observation, &updating());
    carried_out(&first, &mut observation);
    let servers: Vec<NodeName> = inventory.servers().into_iter().cloned().collect();
    let votes = |observation: &mut Observation, votes| {
        let cluster = observation.cluster.as_mut().unwrap();
        cluster.nodes.get_mut(&servers[1]).unwrap().etcd_voter = votes;
    };
    votes(&mut observation, false);
    let (waits, report) = planned(&inventory, &observation, &updating());
    assert!(waits.is_empty(), "{waits:?}");
    let text = explain(&waits, &report);
    assert!(
        text.contains(&format!("{} is a server that isn't well", servers[1])),
        "{text}"
    );
    votes(&mut observation, true);
    // An agent that has been off for weeks, and isn't looked at as one that could be updated.
    let agent = inventory
        .nodes
        .keys()
        .find(|n| !servers.contains(n) && !first.nodes.contains_key(*n))
        .unwrap()
        .clone();
    let off = Found::Unreachable {
        reason: "no route".to_owned(),
    };
    observation.nodes.get_mut(&agent).unwrap().found = off;
    for _ in 0..servers.len() {
        let (wave, _) = planned(&inventory, &observation, &updating());
        assert!(servers.contains(wave.nodes.keys().next().unwrap()));
        carried_out(&wave, &mut observation);
    }
    let (agents, _) = planned(&inventory, &observation, &updating());
    let may = (28 - servers.len()) / 4;
    assert_eq!(agents.nodes.len(), may - 1);
}

#[test]
fn what_an_update_has_closed_is_opened_again_and_what_somebody_else_has_closed_is_not() {
    let inventory = basement(28);
    let mut observation = converged(&inventory);
    let mut names = inventory.nodes.keys();
    let (ours, theirs) = (names.next().unwrap().clone(), names.next().unwrap().clone());
    let cluster = observation.cluster.as_mut().unwrap();
    cluster.nodes.get_mut(&ours).unwrap().closed_by = Some(ClosedBy::Update);
    cluster.nodes.get_mut(&theirs).unwrap().closed_by = Some(ClosedBy::Others);
    let (plan, report) = planned(&inventory, &observation, &updating());
    assert_eq!(plan.nodes.keys().collect::<Vec<_>>(), [&ours]);
    assert_eq!(verbs(&plan, ours.as_str()), "release");
    assert_eq!(report.summary.release, 1);
    assert!(plan.wave.is_none());
}

#[test]
fn nobody_is_updated_while_the_api_is_silent_or_another_minor_is_asked_for() {
    let inventory = basement(28);
    let mut observation = outdated(&inventory);
    let cluster = observation.cluster.take();
    let (plan, report) = planned(&inventory, &observation, &updating());
    assert!(plan.is_empty(), "{}", explain(&plan, &report));
    assert!(explain(&plan, &report).contains("nobody knows whether it can be spared"));
    observation.cluster = cluster;
    let mut newer = inventory.clone();
    newer.kubernetes.version = Some("1.35.0".to_owned());
    let (plan, report) = planned(&newer, &observation, &updating());
    // What is part of no cluster is none of its business.
    assert_eq!(plan.nodes.keys().collect::<Vec<_>>(), [&name("phones-01")]);
    assert!(explain(&plan, &report).contains("changes no minor version"));
}

proptest! {
    /// Whatever is away, and whichever systems were left: at most one server goes at a time, and only while all others
    /// vote; no more are away than may be; nobody goes while a system that was left is still wanted; whoever doesn't go is
    /// told why.
    #[test]
    fn no_wave_takes_more_than_can_be_spared(
        away in proptest::collection::btree_set(0usize..28, 0..6),
        refuted in proptest::option::of(0usize..28),
        updated in proptest::collection::btree_set(0usize..28, 0..28),
        begun in any::<bool>(),
    ) {
        let inventory = basement(28);
        let mut observation = outdated(&inventory);
        let names: Vec<NodeName> = inventory.nodes.keys().cloned().collect();
        let servers: BTreeSet<NodeName> = inventory.servers().into_iter().cloned().collect();
        let (first, _) = planned(&inventory, &observation, &updating());
        if begun {
            carried_out(&first, &mut observation);
        }
        for at in &updated {
            let toplevel = new_toplevel(&names[*at]);
            observation.nodes.get_mut(&names[*at]).unwrap().found = Found::Running {
                boot_id: format!("boot-of-{}", names[*at]),
                booted_system: toplevel.clone(),
                current_system: toplevel,
            };
        }
        for at in &away {
            let found = Found::Unreachable { reason: "no route".to_owned() };
            observation.nodes.get_mut(&names[*at]).unwrap().found = found;
            let cluster = observation.cluster.as_mut().unwrap();
            let node = cluster.nodes.get_mut(&names[*at]).unwrap();
            (node.ready, node.etcd_voter) = (false, false);
            // An update has closed it, and then it went away.
            node.closed_by = (at % 2 == 0).then_some(ClosedBy::Update);
        }
        if let Some(at) = refuted {
            refute(&first, &mut observation, &names[at]);
        }
        let (plan, report) = planned(&inventory, &observation, &updating());
        let wave: BTreeSet<NodeName> = match &plan.wave {
            Some(_) => plan.nodes.keys().cloned().collect(),
            None => BTreeSet::new(),
        };
        let away: BTreeSet<NodeName> = away.iter().map(|at| names[*at].clone()).collect();
        if refuted.is_some() {
            prop_assert!(wave.is_empty());
        }
        let going: Vec<&NodeName> = wave.intersection(&servers).collect();
        prop_assert!(going.is_empty() || (wave.len() == 1 && servers.is_disjoint(&away)), "{wave:?} {away:?}");
        let may = ((28 - servers.len()) / 4).max(1);
        let gone = away.difference(&servers).count();
        if going.is_empty() && !wave.is_empty() {
            prop_assert!(wave.len() + gone <= may || wave.len() == 1, "{wave:?} {away:?}");
            prop_assert!(gone <= may);
        }
        for (name, node) in &report.nodes {
            let is_left = !wave.contains(name) && matches!(node.status, NodeStatus::UpdateLater { .. });
            prop_assert!(!is_left || !node.next.is_empty(), "{name} isn't told what ends its wait");
            prop_assert!(!matches!(node.status, NodeStatus::Differs { .. }), "{name} is forgotten");
        }
    }
}
