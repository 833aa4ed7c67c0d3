//! Looking at a cluster before planning, from before there is one until there is nothing to plan.

use std::{collections::BTreeMap, fs};

use undercroft_kube::API_PORT;
use undercroft_model::{
    Action, BootstrapPart, Entry, Evidence, Found, NodeName, Observation, Plan, Record,
    SystemTarget, Work,
    inventory::{Inventory, parse},
    view::FleetView,
};
use undercroft_planner::{PlanReport, node_wants, plan};

use crate::{
    bring_in_argocd, bring_in_network, bring_in_secrets, evidence,
    machines::{MACHINES, Site, inside, name},
    part, parts, play_synced, set_ready,
};

const BASEMENT: &str = include_str!("../../../../examples/basement/undercroft.toml");
const OBSERVED: [&str; 2] = ["control-01", "gpu-01"];

/// A server and an agent of the example, at the addresses of the test's machines.
fn inventory() -> Inventory {
    let parsed = parse("undercroft.toml", BASEMENT.as_bytes());
    let mut inventory = parsed.inventory.unwrap();
    inventory
        .nodes
        .retain(|name, _| OBSERVED.contains(&name.as_str()));
    for (machine, address) in MACHINES {
        if let Some(node) = inventory.nodes.get_mut(&name(machine)) {
            node.address = address;
        }
    }
    inventory
}

/// What the machines run, as if it had been built.
fn targets(site: &Site, inventory: &Inventory) -> BTreeMap<NodeName, Result<SystemTarget, String>> {
    let target = |machine: &NodeName| {
        let toplevel = fs::canonicalize(site.machine(machine.as_str()).join("system")).unwrap();
        SystemTarget {
            toplevel: toplevel.display().to_string(),
            disko_script: None,
            disko_mount_script: None,
            disko_devices: None,
            system: inventory.nodes[machine].system,
            closure_bytes: Some(1 << 30),
        }
    };
    let machines = inventory.nodes.keys();
    machines.map(|m| (m.clone(), Ok(target(m)))).collect()
}

fn planned(inventory: &Inventory, observation: &Observation) -> (Plan, PlanReport) {
    let (plan, report) = plan(inventory, observation, None);
    assert_eq!(undercroft_planner::check(&plan), []);
    (plan, report)
}

/// The journal of a fleet that is installed by a plan.
fn journal(plan: &Plan) -> FleetView {
    let fleet = plan.fleet.clone();
    let plan = std::sync::Arc::new(plan.clone());
    let entries = [
        Record::Opened { version: 1, fleet },
        Record::PlanAccepted { plan },
    ];
    let entries: Vec<Entry> = (0..)
        .zip(entries)
        .map(|(seq, record)| Entry {
            seq,
            wall_ms: seq,
            record,
        })
        .collect();
    FleetView::fold(&entries)
}

fn verbs(plan: &Plan, machine: &str) -> Vec<&'static str> {
    let steps = plan.steps.iter().filter(|s| s.node == name(machine));
    steps.map(|step| step.action.verb()).collect()
}

#[tokio::test]
async fn a_cluster_is_observed_until_nothing_is_left_to_plan() {
    if !inside("observed::a_cluster_is_observed_until_nothing_is_left_to_plan") {
        return;
    }
    let mut site = Site::at_port(parts(), API_PORT).await;
    let inventory = inventory();
    let targets = targets(&site, &inventory);

    // Nothing was ever installed: there is no cluster to ask.
    let unknown = site
        .observe(&inventory, &FleetView::default(), &targets)
        .await;
    assert_eq!(unknown.cluster, None);
    let (install, _) = planned(&inventory, &unknown);
    let view = journal(&install);

    // The machines run their systems, and no server has credentials of a cluster.
    let running = site.observe(&inventory, &view, &targets).await;
    assert_eq!(running.cluster, None);
    assert!(
        matches!(running.nodes[&name("gpu-01")].found, Found::Running { .. }),
        "{running:?}"
    );
    let (found, _) = planned(&inventory, &running);
    assert!(found.steps.iter().all(|step| step.probe_first), "{found:?}");
    let whole = [
        "prove", "found", "network", "ready", "secrets", "argocd", "sync",
    ];
    assert_eq!(verbs(&found, "control-01"), whole);
    assert_eq!(verbs(&found, "gpu-01"), ["prove", "join", "ready"]);

    // Joined, and nothing more.
    for machine in OBSERVED {
        site.play_join(machine).await;
    }
    let joined = site.observe(&inventory, &view, &targets).await;
    let cluster = joined.cluster.clone().unwrap();
    assert!(cluster.version.starts_with("v1."), "{cluster:?}");
    assert!(cluster.parts.is_empty(), "{cluster:?}");
    for machine in OBSERVED {
        let node = &cluster.nodes[&name(machine)];
        assert_eq!(node.boot_id, format!("boot-of-{machine}"));
        assert_eq!(node.kubelet_version, "v1.34.4");
        assert!(!node.ready && !node.as_planned, "{machine}: {node:?}");
        assert_eq!(node.etcd_voter, machine == "control-01");
    }
    let (_, report) = planned(&inventory, &joined);
    assert!(!report.is_converged());

    for machine in OBSERVED {
        let wants = node_wants(&inventory, &name(machine));
        let ready = Action::AwaitReady {
            labels: wants.labels,
            annotations: wants.annotations,
            taints: wants.taints,
        };
        site.start(machine, ready, Work::Act);
        set_ready(&site, machine).await;
        let ready = evidence(site.ended().await);
        assert!(matches!(ready, Evidence::Ready { .. }), "{ready:?}");
    }
    evidence(bring_in_network(&mut site).await);
    evidence(bring_in_secrets(&mut site).await);
    evidence(bring_in_argocd(&mut site).await);
    let partly = site.observe(&inventory, &view, &targets).await;
    let mut expected: Vec<BootstrapPart> = BootstrapPart::ALL.to_vec();
    expected.retain(|part| *part != BootstrapPart::RootApp);
    let seen = partly.cluster.unwrap();
    assert_eq!(seen.parts.into_iter().collect::<Vec<_>>(), expected);
    assert!(
        seen.nodes
            .values()
            .all(|node| node.ready && node.as_planned)
    );

    site.start("control-01", part(BootstrapPart::RootApp), Work::Act);
    play_synced(&site).await;
    evidence(site.ended().await);
    let mut whole = site.observe(&inventory, &view, &targets).await;
    // No run has proved the machines, which this test let come up by itself: that is all that is left.
    let (proofs, _) = planned(&inventory, &whole);
    for machine in OBSERVED {
        assert_eq!(verbs(&proofs, machine), ["prove"]);
    }
    for installed in whole.installed.values_mut() {
        installed.proved_up = true;
    }
    let (nothing, report) = planned(&inventory, &whole);
    assert_eq!(nothing.steps, []);
    assert!(report.is_converged(), "{report:?}");

    // The API is away: what was done is not taken for undone, it is looked at step by step.
    site.api.stop_kube();
    let away = site.observe(&inventory, &view, &targets).await;
    assert_eq!(away.cluster, None);
    assert!(
        matches!(away.nodes[&name("gpu-01")].found, Found::Running { .. }),
        "{away:?}"
    );
    let (probes, _) = planned(&inventory, &away);
    assert!(!probes.steps.is_empty());
    assert!(
        probes.steps.iter().all(|step| step.probe_first),
        "{probes:?}"
    );
}
