//! What is planned for the cluster, for what is seen of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a panic is the finding"
)]

mod lints;
mod members;
mod updates;

use std::collections::BTreeSet;

use proptest::prelude::*;
use undercroft_model::{
    Action, BootstrapPart, ClusterNode, ClusterObservation, Found, Installed, NodeName,
    NodeObservation, NodeState, Observation, Plan, Resource, Step, SystemTarget,
    inventory::{Inventory, parse, scale_to},
};
use undercroft_planner::{
    NodeStatus, PlanOptions, PlanReport, check, explain, node_wants, plan, plan_with,
};

const BASEMENT: &str = include_str!("../../../../examples/basement/undercroft.toml");

fn basement(nodes: usize) -> Inventory {
    let parsed = parse("undercroft.toml", BASEMENT.as_bytes());
    scale_to(&parsed.inventory.unwrap(), nodes).unwrap()
}

fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

fn toplevel(node: &NodeName) -> String {
    format!("/nix/store/0c0vdzlgl5n8kbzvxjmmdhdnjgcl7c6x-{node}")
}

/// Everything is built, and nobody has looked at a machine.
fn prepared(inventory: &Inventory) -> Observation {
    let mut observation = Observation::default();
    for (name, node) in &inventory.nodes {
        let target = SystemTarget {
            toplevel: toplevel(name),
            disko_script: None,
            disko_mount_script: None,
            disko_devices: None,
            system: node.system,
            closure_bytes: Some(1 << 30),
        };
        observation.targets.insert(name.clone(), Ok(target));
        let key = format!("SHA256:key-of-{name}");
        observation.host_keys.insert(name.clone(), key);
    }
    observation
}

fn runs(observation: &mut Observation, node: &NodeName) {
    let found = Found::Running {
        boot_id: format!("boot-of-{node}"),
        booted_system: toplevel(node),
        current_system: toplevel(node),
    };
    let age_ms = Some(0);
    let seen = NodeObservation { found, age_ms };
    observation.nodes.insert(node.clone(), seen);
    let installed = Installed {
        proved_up: true,
        ..Installed::default()
    };
    observation.installed.insert(node.clone(), installed);
}

/// Every machine runs its system, and the cluster has all of them and everything.
fn converged(inventory: &Inventory) -> Observation {
    let mut observation = prepared(inventory);
    let mut cluster = ClusterObservation {
        version: "v1.34.2+k3s1".to_owned(),
        nodes: Default::default(),
        parts: BootstrapPart::ALL.into_iter().collect(),
    };
    let servers: BTreeSet<NodeName> = inventory.servers().into_iter().cloned().collect();
    for node in inventory.nodes.keys() {
        runs(&mut observation, node);
        let installed = observation.installed.get_mut(node).unwrap();
        (installed.joined, installed.member) = (true, true);
        let seen = ClusterNode {
            boot_id: format!("boot-of-{node}"),
            ready: true,
            as_planned: true,
            etcd_voter: servers.contains(node),
            kubelet_version: "v1.34.2+k3s1".to_owned(),
            closed_by: None,
        };
        cluster.nodes.insert(node.clone(), seen);
    }
    observation.cluster = Some(cluster);
    observation
}

fn planned(
    inventory: &Inventory,
    observation: &Observation,
    options: &PlanOptions,
) -> (Plan, PlanReport) {
    let (plan, report) = plan_with(inventory, observation, None, options);
    assert_eq!(check(&plan), []);
    (plan, report)
}

fn all(inventory: &Inventory, observation: &Observation) -> (Plan, PlanReport) {
    planned(inventory, observation, &PlanOptions::default())
}

fn steps<'a>(plan: &'a Plan, node: &str) -> Vec<&'a Step> {
    let ids = plan.nodes.get(&name(node)).map_or(&[][..], |n| &n.steps);
    ids.iter().map(|id| plan.step(*id).unwrap()).collect()
}

fn verbs(plan: &Plan, node: &str) -> String {
    let verbs: Vec<&str> = steps(plan, node).iter().map(|s| s.action.verb()).collect();
    verbs.join(" ")
}

fn step<'a>(plan: &'a Plan, node: &str, verb: &str) -> &'a Step {
    let found = steps(plan, node)
        .into_iter()
        .find(|s| s.action.verb() == verb);
    found.unwrap_or_else(|| panic!("{node} has no step {verb}"))
}

fn reasons(report: &PlanReport, node: &str) -> String {
    match &report.nodes[&name(node)].status {
        NodeStatus::Blocked { reasons } => reasons.join("; "),
        other => panic!("{node} isn't blocked: {other:?}"),
    }
}

const MACHINE: &str = "network-boot approve inspect partition copy install reboot prove";

#[test]
fn a_new_fleet_gets_a_cluster_in_order() {
    let inventory = basement(5);
    let (plan, _) = all(&inventory, &prepared(&inventory));
    let founder = format!("{MACHINE} found network ready secrets argocd sync");
    assert_eq!(verbs(&plan, "control-01"), founder);
    for node in ["control-02", "control-03", "gpu-01", "gpu-02"] {
        assert_eq!(verbs(&plan, node), format!("{MACHINE} join ready"));
        let network = step(&plan, "control-01", "network").id;
        assert!(step(&plan, node, "join").after.contains(&network));
    }
    let server_joins = ["control-02", "control-03"].map(|node| step(&plan, node, "join").id);
    assert_eq!(step(&plan, "gpu-01", "join").after_settled, server_joins);
    assert_eq!(step(&plan, "control-02", "join").after_settled, []);
    let ready =
        ["control-02", "control-03", "gpu-01", "gpu-02"].map(|n| step(&plan, n, "ready").id);
    assert_eq!(step(&plan, "control-01", "secrets").after_settled, ready);
    assert_eq!(plan.limits.concurrency[&Resource::ServerJoin], 1);
    assert_eq!(plan.limits.concurrency[&Resource::AgentJoin], 16);
    let of_cluster = plan.steps.iter().filter(|s| s.action.is_of_cluster());
    assert!(of_cluster.clone().all(|s| !s.probe_first));
    // Whoever loses its Node goes back to where it became a member, and never behind that.
    for s in of_cluster.clone() {
        let own = plan.nodes[&s.node].steps.iter();
        let membership = own
            .copied()
            .find(|id| plan.steps[id.0 as usize].action.makes_member());
        let back = membership.filter(|_| !s.action.makes_member());
        assert_eq!(s.restart_from, back, "{} of {}", s.action.verb(), s.node);
    }
    // Only the bootstrap's secrets are delivered: k3s has its token with its system's secrets.
    let secret: Vec<&str> = of_cluster
        .filter(|s| s.delivers_secrets)
        .map(|s| s.action.verb())
        .collect();
    assert_eq!(secret, ["secrets"]);
    let cluster = plan.cluster.as_ref().unwrap();
    assert_eq!(
        cluster.founder_address(),
        Some("10.20.0.11".parse().unwrap())
    );
    assert_eq!(cluster.servers.len(), 3);
}

#[test]
fn machines_that_are_no_part_of_the_cluster_end_up() {
    let inventory = basement(28);
    let (plan, _) = all(&inventory, &prepared(&inventory));
    assert_eq!(verbs(&plan, "phones-01"), MACHINE);
    assert_eq!(
        plan.nodes[&name("pi-02")].not_applicable[&NodeState::Joined],
        "its role is \"none\": it is no part of the cluster"
    );
}

#[test]
fn kubeadms_joins_deliver_secrets() {
    let mut inventory = basement(4);
    inventory.kubernetes.distribution = undercroft_model::inventory::Distribution::Kubeadm;
    let (plan, _) = all(&inventory, &prepared(&inventory));
    assert!(step(&plan, "control-02", "join").delivers_secrets);
    assert!(step(&plan, "gpu-01", "join").delivers_secrets);
}

#[test]
fn a_converged_fleet_and_cluster_give_an_empty_plan() {
    let inventory = basement(28);
    let (plan, report) = all(&inventory, &converged(&inventory));
    assert!(plan.is_empty() && plan.nodes.is_empty() && report.is_converged());
    assert_eq!(plan.cluster, None);
}

#[test]
fn an_unknown_cluster_is_looked_at_first() {
    let inventory = basement(5);
    let mut observation = converged(&inventory);
    observation.cluster = None;
    let (plan, report) = all(&inventory, &observation);
    assert_eq!(report.summary.join, 5);
    assert_eq!(
        verbs(&plan, "control-01"),
        "prove found network ready secrets argocd sync"
    );
    assert_eq!(verbs(&plan, "gpu-01"), "prove join ready");
    assert!(
        plan.steps
            .iter()
            .all(|step| step.probe_first && step.destroys.is_empty())
    );
}

#[test]
fn a_node_that_is_not_ready_is_taken_up_alone() {
    let inventory = basement(5);
    let mut observation = converged(&inventory);
    let cluster = observation.cluster.as_mut().unwrap();
    cluster.nodes.get_mut(&name("gpu-02")).unwrap().as_planned = false;
    let (plan, report) = all(&inventory, &observation);
    assert_eq!(plan.nodes.len(), 1);
    assert_eq!(verbs(&plan, "gpu-02"), "prove join ready");
    assert_eq!(report.nodes[&name("gpu-02")].status, NodeStatus::Join);

    // Whatever is missing of the bootstrap is the founder's to bring in.
    let mut observation = converged(&inventory);
    let cluster = observation.cluster.as_mut().unwrap();
    cluster.parts.remove(&BootstrapPart::RootApp);
    let (plan, _) = all(&inventory, &observation);
    assert_eq!(plan.nodes.len(), 1);
    assert!(verbs(&plan, "control-01").ends_with("argocd sync"));
}

#[test]
fn without_a_founder_nobody_joins_and_the_report_says_why() {
    let inventory = basement(5);
    let options = PlanOptions {
        only: Some(BTreeSet::from([name("gpu-01")])),
        ..PlanOptions::default()
    };
    let (plan, report) = planned(&inventory, &prepared(&inventory), &options);
    assert_eq!(verbs(&plan, "gpu-01"), MACHINE);
    insta::assert_snapshot!(
        plan.nodes[&name("gpu-01")].not_applicable[&NodeState::Joined],
        @"no cluster with a network answers, and control-01, which founds it, was not asked for"
    );
    assert!(report.nodes[&name("gpu-01")].notes[0].starts_with("it doesn't join: "));

    // The cluster is there: the new machine joins it without the founder's doing.
    let mut observation = converged(&inventory);
    observation.nodes.remove(&name("gpu-01"));
    observation.installed.remove(&name("gpu-01"));
    let cluster = observation.cluster.as_mut().unwrap();
    cluster.nodes.remove(&name("gpu-01"));
    let (plan, _) = planned(&inventory, &observation, &options);
    assert_eq!(verbs(&plan, "gpu-01"), format!("{MACHINE} join ready"));
    assert_eq!(plan.cluster.unwrap().servers.len(), 3);
}

#[test]
fn until_up_leaves_the_cluster_and_until_ready_argo_cd_out() {
    let inventory = basement(5);
    let until = |state| PlanOptions {
        until: Some(state),
        ..PlanOptions::default()
    };
    let (plan, _) = planned(&inventory, &prepared(&inventory), &until(NodeState::Up));
    assert_eq!(
        (verbs(&plan, "control-01").as_str(), &plan.cluster),
        (MACHINE, &None)
    );
    let (plan, _) = planned(&inventory, &prepared(&inventory), &until(NodeState::Ready));
    assert_eq!(
        verbs(&plan, "control-01"),
        format!("{MACHINE} found network ready")
    );
    for (state, parts) in [
        (NodeState::SecretsReady, "secrets"),
        (NodeState::ArgoCdReady, "secrets argocd"),
        (NodeState::Synced, "secrets argocd sync"),
    ] {
        let (plan, _) = planned(&inventory, &prepared(&inventory), &until(state));
        let want = format!("{MACHINE} found network ready {parts}");
        assert_eq!(verbs(&plan, "control-01"), want, "{state:?}");
    }
    let mut observation = converged(&inventory);
    observation.cluster = None;
    let (plan, _) = planned(&inventory, &observation, &until(NodeState::Up));
    assert!(plan.is_empty());
}

#[test]
fn without_a_repository_there_is_no_argo_cd() {
    let mut inventory = basement(5);
    inventory.gitops.repository = None;
    let (plan, report) = all(&inventory, &prepared(&inventory));
    assert!(verbs(&plan, "control-01").ends_with("found network ready"));
    insta::assert_snapshot!(
        report.nodes[&name("control-01")].notes.join("; "),
        @"`gitops.repository` isn't set: no Argo CD is brought in"
    );
    let mut observation = converged(&inventory);
    observation.cluster.as_mut().unwrap().parts = BTreeSet::from([BootstrapPart::Network]);
    assert!(all(&inventory, &observation).0.is_empty());
}

#[test]
fn versions_that_the_skew_policy_forbids_are_not_installed() {
    let inventory = basement(5);
    let mut observation = converged(&inventory);
    observation.nodes.remove(&name("gpu-01"));
    observation.installed.remove(&name("gpu-01"));
    let mut blocked = |version: &str| {
        observation.cluster.as_mut().unwrap().version = version.to_owned();
        reasons(&all(&inventory, &observation).1, "gpu-01")
    };
    insta::assert_snapshot!(
        blocked("v1.33.5+k3s1"),
        @"the inventory asks for Kubernetes 1.34, and the cluster's API is v1.33.5+k3s1: a kubelet is never newer than its API server; update the servers first"
    );
    insta::assert_snapshot!(
        blocked("v1.38.0+k3s1"),
        @"the inventory asks for Kubernetes 1.34, and the cluster's API is v1.38.0+k3s1: a kubelet is at most 3 minor versions older"
    );
    // By minor versions of the same major one: the same, and up to three newer.
    for (version, installs) in [
        ("v1.34.0", true),
        ("v1.35.9+k3s1", true),
        ("v1.37.0", true),
        ("v1.38.0", false),
        ("v1.33.99", false),
        ("v2.34.0", false),
        ("v0.34.0", false),
        // What can't be read forbids nothing: the machine's own step finds out.
        ("devel", true),
    ] {
        observation.cluster.as_mut().unwrap().version = version.to_owned();
        let status = &all(&inventory, &observation).1.nodes[&name("gpu-01")].status;
        assert_eq!(status.is_installed(), installs, "{version}: {status:?}");
    }
}

#[test]
fn a_node_wants_what_the_inventory_says() {
    let inventory = basement(28);
    let wants = node_wants(&inventory, &name("gpu-17"));
    assert_eq!(
        wants.taints,
        ["basement.example/training=yes:PreferNoSchedule"]
    );
    assert!(
        wants
            .labels
            .contains_key("node.longhorn.io/create-default-disk")
    );
    let (plan, _) = all(&inventory, &prepared(&inventory));
    match &step(&plan, "gpu-17", "ready").action {
        Action::AwaitReady { labels, taints, .. } => {
            assert_eq!((labels, taints), (&wants.labels, &wants.taints));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(node_wants(&inventory, &name("pi-02")), Default::default());
}

#[test]
fn a_plan_of_a_cluster_reads_well() {
    let inventory = basement(4);
    let (plan, report) = all(&inventory, &prepared(&inventory));
    let text = explain(&plan, &report);
    let id: String = plan.id.0.chars().take(12).collect();
    insta::assert_snapshot!(text.replace(&id, "PLAN"));
}

proptest! {
    /// Whatever is seen, the plan is sound: it passes the lints, wipes no member of etcd without
    /// being told to, and planning what it leads to gives nothing.
    #[test]
    fn every_plan_of_a_cluster_is_sound(
        seen in proptest::collection::vec((any::<bool>(), any::<bool>(), any::<bool>()), 6),
        known in any::<bool>(),
        parts in proptest::collection::btree_set(proptest::sample::select(&BootstrapPart::ALL[..]), 0..4),
        only in proptest::option::of(proptest::collection::btree_set(0..6usize, 1..4)),
    ) {
        let inventory = basement(6);
        let names: Vec<NodeName> = inventory.nodes.keys().cloned().collect();
        let mut observation = converged(&inventory);
        let cluster = observation.cluster.as_mut().unwrap();
        cluster.parts = parts;
        for (node, (runs, registered, ready)) in names.iter().zip(&seen) {
            if !runs {
                observation.nodes.remove(node);
                observation.installed.remove(node);
            }
            if !(*runs && *registered) {
                cluster.nodes.remove(node);
                if let Some(installed) = observation.installed.get_mut(node) {
                    (installed.joined, installed.member) = (false, false);
                }
            } else {
                cluster.nodes.get_mut(node).unwrap().ready = *ready;
            }
        }
        if !known {
            observation.cluster = None;
        }
        let options = PlanOptions {
            only: only.map(|only| only.into_iter().map(|n| names[n].clone()).collect()),
            ..PlanOptions::default()
        };
        let (plan, _) = plan_with(&inventory, &observation, None, &options);
        prop_assert_eq!(check(&plan), []);
        for (node, (runs, ..)) in names.iter().zip(&seen) {
            let destroys = plan.steps.iter().any(|s| s.node == *node && !s.destroys.is_empty());
            prop_assert!(!(destroys && *runs), "{} runs and is wiped", node);
        }
        let founds = plan.steps.iter().filter(|s| s.action == Action::FoundCluster).count();
        prop_assert!(founds <= 1);
        prop_assert!(plan_with(&inventory, &converged(&inventory), None, &options).0.is_empty());
    }
}

#[test]
fn planning_is_repeatable() {
    let inventory = basement(28);
    let observation = prepared(&inventory);
    assert_eq!(
        plan(&inventory, &observation, None),
        plan(&inventory, &observation, None)
    );
}

/// A Node goes on being Ready for some while after its machine has lost its power.
#[test]
fn what_the_cluster_says_of_an_earlier_boot_is_old() {
    let inventory = basement(28);
    let mut observation = converged(&inventory);
    let (plan, _) = planned(&inventory, &observation, &PlanOptions::default());
    assert!(plan.is_empty());
    let cluster = observation.cluster.as_mut().unwrap();
    let (name, node) = cluster.nodes.iter_mut().next().unwrap();
    node.boot_id = "the boot before".to_owned();
    let name = name.clone();
    let (plan, _) = planned(&inventory, &observation, &PlanOptions::default());
    assert!(!plan.is_empty());
    assert!(
        plan.steps
            .iter()
            .all(|step| step.node == name && step.probe_first)
    );
}

#[test]
fn a_fleet_that_is_as_far_as_it_was_asked_for_gives_an_empty_plan() {
    let inventory = basement(5);
    let mut observation = converged(&inventory);
    observation.cluster.as_mut().unwrap().parts = BTreeSet::from([BootstrapPart::Network]);
    let until = |until| PlanOptions {
        until: Some(until),
        ..PlanOptions::default()
    };
    let (plan, report) = planned(&inventory, &observation, &until(NodeState::Ready));
    assert!(plan.is_empty() && report.is_converged());
    for (part, state) in [
        (BootstrapPart::Secrets, NodeState::SecretsReady),
        (BootstrapPart::ArgoCd, NodeState::ArgoCdReady),
    ] {
        let (plan, _) = planned(&inventory, &observation, &until(state));
        assert!(!plan.is_empty(), "{state:?}");
        observation.cluster.as_mut().unwrap().parts.insert(part);
        let (plan, report) = planned(&inventory, &observation, &until(state));
        assert!(plan.is_empty() && report.is_converged(), "{state:?}");
    }
    assert!(!all(&inventory, &observation).0.is_empty());
}
