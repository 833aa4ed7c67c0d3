//! Small plans whose times can be reckoned in the head.

use undercroft_model::{
    NodePlan, NodeState, PLAN_VERSION, PlanId, PlanLimits, RetryPolicy, System,
};

use super::*;

fn name(n: usize) -> NodeName {
    NodeName::new(format!("n{n}")).unwrap()
}

/// A step of a machine after those, with a resource or none.
fn step(id: u32, node: usize, after: &[u32], resource: Option<Resource>) -> Step {
    Step {
        id: StepId(id),
        node: name(node),
        requires: NodeState::Unknown,
        reaches: NodeState::Seen,
        action: Action::NetworkBoot,
        after: after.iter().copied().map(StepId).collect(),
        after_settled: Vec::new(),
        resource,
        timeout_ms: 1,
        retry: RetryPolicy {
            attempts_max: 1,
            backoff_ms: 1,
            backoff_ms_max: 1,
        },
        destroys: Vec::new(),
        delivers_secrets: false,
        probe_first: false,
        restart_from: None,
    }
}

fn plan(steps: Vec<Step>, boots: u32) -> Plan {
    let mut nodes: BTreeMap<NodeName, NodePlan> = BTreeMap::new();
    for step in &steps {
        let node = nodes.entry(step.node.clone()).or_insert_with(|| NodePlan {
            macs: Vec::new(),
            uuid: None,
            address: [10, 0, 0, 1].into(),
            system: System::X86_64Linux,
            target: None,
            generation: 0,
            steps: Vec::new(),
            not_applicable: BTreeMap::new(),
        });
        node.steps.push(step.id);
    }
    Plan {
        id: PlanId(String::new()),
        version: PLAN_VERSION,
        parent: None,
        fleet: "cellar".to_owned(),
        inventory_digest: String::new(),
        limits: PlanLimits {
            concurrency: BTreeMap::from([(Resource::NetworkBoot, boots)]),
            failure_budget: 0,
            node_restarts_max: 0,
        },
        cluster: None,
        wave: None,
        nodes,
        steps,
    }
}

/// When each machine is done and which is done last, where a step takes as many milliseconds as
/// ten to the power of its machine's place, and its second ten times that.
fn done(steps: Vec<Step>, boots: u32) -> (Vec<u64>, u64, Option<NodeName>) {
    let estimate = estimate(&plan(steps, boots), |step| match step.id.0 {
        0 => 1,
        1 => 10,
        2 => 100,
        3 => 1_000,
        _ => 10_000,
    });
    let each = estimate.done_ms.values().copied().collect();
    (each, estimate.total_ms, estimate.last)
}

#[test]
fn steps_of_one_machine_take_one_another_s_turn_and_machines_go_side_by_side() {
    let steps = vec![
        step(0, 0, &[], None),
        step(1, 0, &[0], None),
        step(2, 1, &[], None),
        step(3, 1, &[2], None),
    ];
    assert_eq!(done(steps, 0), (vec![11, 1_100], 1_100, Some(name(1))));
    assert_eq!(done(Vec::new(), 0), (vec![], 0, None));
}

#[test]
fn a_step_begins_when_all_are_done_or_settled_that_it_waits_for() {
    let both = vec![
        step(0, 0, &[], None),
        step(1, 1, &[], None),
        step(2, 2, &[0, 1], None),
    ];
    assert_eq!(done(both.clone(), 0).0, [1, 10, 110]);
    let mut settled = both;
    settled[2].after = vec![StepId(0)];
    settled[2].after_settled = vec![StepId(1)];
    assert_eq!(done(settled.clone(), 0).0, [1, 10, 110]);
    settled[2].after.clear();
    assert_eq!(done(settled, 0).0, [1, 10, 110]);
}

#[test]
fn what_holds_a_resource_waits_its_turn_the_lowest_step_first() {
    let boot = Some(Resource::NetworkBoot);
    let steps = || {
        vec![
            step(0, 0, &[], boot),
            step(1, 1, &[], boot),
            step(2, 2, &[], boot),
            step(3, 3, &[], boot),
        ]
    };
    assert_eq!(done(steps(), 4).0, [1, 10, 100, 1_000]);
    assert_eq!(done(steps(), 3).0, [1, 10, 100, 1_001]);
    assert_eq!(done(steps(), 2).0, [1, 10, 101, 1_010]);
    assert_eq!(
        done(steps(), 1),
        (vec![1, 11, 111, 1_111], 1_111, Some(name(3)))
    );
    // One that needs nothing isn't held up by those that do.
    let mut free = steps();
    free[3].resource = None;
    assert_eq!(done(free, 1).0, [1, 11, 111, 1_000]);
}

#[test]
fn a_copy_takes_as_long_as_its_closure_is_large() {
    let copy = |closure_bytes| {
        let mut step = step(0, 0, &[], None);
        step.action = Action::CopyClosure {
            toplevel: "/nix/store/x".to_owned(),
            closure_bytes,
        };
        typical_ms(&step)
    };
    assert_eq!(copy(Some(0)), 2_000);
    assert_eq!(copy(Some(COPY_BYTES_PER_S)), 3_000);
    assert_eq!(copy(Some(COPY_BYTES_PER_S / 2)), 2_500);
    assert_eq!(copy(None), copy(Some(CLOSURE_BYTES)));
    assert!(copy(Some(u64::MAX)) > copy(None), "it doesn't overflow");
}
