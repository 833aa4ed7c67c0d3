//! The rules of the cluster: its order, and the votes of its etcd.

use std::collections::{BTreeMap, BTreeSet};

use undercroft_engine::Order;
use undercroft_model::{Action, BootstrapPart, ClusterRole, NodeName, Plan, StepId, Work};

use super::{Checkers, Rule};
use crate::fleet::Spec;

/// What has truly happened to the cluster.
#[derive(Debug, Default)]
pub(super) struct Watch {
    founder: Option<u32>,
    parts: BTreeSet<BootstrapPart>,
    joined: BTreeSet<u32>,
    /// The steps of the accepted plan by which servers join.
    server_joins: BTreeMap<StepId, NodeName>,
}

impl Watch {
    pub(super) fn new(specs: &[Spec]) -> Self {
        let founder = (0u32..).zip(specs).find(|(_, spec)| spec.founds);
        Self {
            founder: founder.map(|(place, _)| place),
            ..Self::default()
        }
    }

    /// A plan is accepted.
    pub(super) fn on_plan(&mut self, plan: &Plan) {
        let joins = plan.steps.iter().filter(|step| {
            matches!(
                step.action,
                Action::JoinCluster {
                    role: ClusterRole::Server,
                    ..
                }
            )
        });
        self.server_joins = joins.map(|step| (step.id, step.node.clone())).collect();
    }
}

impl Checkers {
    /// An act of the cluster is started.
    pub(super) fn check_cluster(&mut self, order: &Order, action: &Action) {
        match action {
            Action::JoinCluster { role, .. } => self.check_join(order, *role),
            Action::Bootstrap { part } => self.check_bootstrap(order, *part),
            _ => {}
        }
    }

    fn check_join(&mut self, order: &Order, role: ClusterRole) {
        let networked = self.cluster.parts.contains(&BootstrapPart::Network);
        self.require(networked, Rule::JoinOrder, || {
            format!("{} joins before the network of the pods", order.node)
        });
        match role {
            ClusterRole::Server => {
                let beside = self.ops.iter().find(|(op, live)| {
                    **op != order.op
                        && live.work == Work::Act
                        && live.started_ms.is_some()
                        && self.cluster.server_joins.contains_key(&live.step)
                });
                let beside = beside.map(|(op, _)| *op);
                self.require(beside.is_none(), Rule::JoinOrder, || {
                    format!(
                        "{} joins while {beside:?} brings another server in",
                        order.node
                    )
                });
            }
            ClusterRole::Agent => {
                let mut servers = self.cluster.server_joins.iter();
                let plan = &order.plan;
                let early = servers.find(|(step, node)| !self.is_settled(plan, **step, node));
                let early = early.map(|(_, node)| node.clone());
                self.require(early.is_none(), Rule::JoinOrder, || {
                    format!("{} joins before the server {early:?}", order.node)
                });
            }
        }
    }

    fn check_bootstrap(&mut self, order: &Order, part: BootstrapPart) {
        if part == BootstrapPart::Network {
            return;
        }
        let mut before = BootstrapPart::ALL.into_iter().filter(|other| *other < part);
        let missing = before.rfind(|other| !self.cluster.parts.contains(other));
        self.require(missing.is_none(), Rule::BootstrapOrder, || {
            format!("{part} is brought in before {missing:?}")
        });
        if part != BootstrapPart::Secrets {
            // Who is tried anew by a later run holds up nothing that was begun before.
            return;
        }
        let plan: &Plan = &order.plan;
        let early = plan
            .steps
            .iter()
            .filter(|step| matches!(step.action, Action::AwaitReady { .. }))
            .find(|step| !self.is_settled(plan, step.id, &step.node))
            .map(|step| step.node.clone());
        self.require(early.is_none(), Rule::BootstrapOrder, || {
            format!("{part} is brought in before {early:?} is Ready")
        });
    }

    /// Whether a step is done, or its machine gets no further in this run.
    fn is_settled(&self, plan: &Plan, step: StepId, node: &NodeName) -> bool {
        let ended = self
            .places
            .get(node)
            .and_then(|place| self.nodes.get(usize::try_from(*place).ok()?))
            .is_some_and(|node| node.failed || (self.stopped && !node.begun));
        self.is_done(step) || ended || self.is_stranded(plan, step)
    }

    fn is_done(&self, step: StepId) -> bool {
        let step = usize::try_from(step.0).ok();
        let step = step.and_then(|place| self.steps.get(place));
        step.is_some_and(|step| step.done)
    }

    /// Whether a step can't be done in this run, because one before it can't. Plans have no cycles.
    fn is_stranded(&self, plan: &Plan, step: StepId) -> bool {
        let before = plan.step(step).map_or(&[][..], |step| &step.after);
        before.iter().any(|id| {
            let missing = !self.is_done(*id);
            missing
                && plan
                    .step(*id)
                    .is_some_and(|s| self.is_settled(plan, *id, &s.node))
        })
    }

    /// A server has founded a cluster. `before`: there was one already.
    pub(crate) fn on_founded(&mut self, node: u32, before: bool) {
        let meant = self.cluster.founder == Some(node);
        self.require(meant && !before, Rule::OneCluster, || {
            let nth = if before { "second" } else { "first" };
            format!("the machine in place {node} founds a {nth} cluster")
        });
    }

    /// A server's etcd is added to the others'. `whole`: all of them are healthy and vote.
    pub(crate) fn on_member(&mut self, node: u32, whole: bool) {
        self.require(whole, Rule::EtcdQuorum, || {
            format!("the machine in place {node} comes to an etcd that isn't whole")
        });
    }

    /// We take a member of etcd from the others.
    pub(crate) fn on_member_lost(&mut self, node: &NodeName, how: &str) {
        self.broken(
            Rule::EtcdQuorum,
            format!("{node} is a member of etcd and is {how}"),
        );
    }

    /// A member is taken off etcd's list, for a machine that was installed anew. `whole`: those that
    /// stay and are healthy are a majority.
    pub(crate) fn on_member_removed(&mut self, node: u32, whole: bool) {
        self.require(whole, Rule::EtcdQuorum, || {
            format!("the member in place {node} is removed from an etcd that can't spare it")
        });
    }

    /// A server is told to join. `settled`: all other members of etcd are healthy and vote; `beside`: another server is
    /// in the middle of its join, and says so.
    pub(crate) fn on_server_told(&mut self, node: u32, settled: bool, beside: Option<NodeName>) {
        self.require(settled, Rule::EtcdQuorum, || {
            format!("the machine in place {node} is told to join an etcd that isn't whole")
        });
        self.require(beside.is_none(), Rule::JoinOrder, || {
            format!("the machine in place {node} is told to join beside {beside:?}")
        });
    }

    /// The controller is told that a part of the bootstrap is healthy.
    pub(crate) fn on_part_claim(&mut self, part: BootstrapPart, truth: bool) {
        self.require(truth, Rule::ReadyIsTrue, || {
            format!("{part} is called healthy and isn't")
        });
    }

    /// A machine has lost what was on its disks: they may be laid out as they were.
    pub(crate) fn on_disk_lost(&mut self, node: u32) {
        self.laid.retain(|(place, _)| *place != node);
    }

    /// A part of the bootstrap is brought in.
    pub(crate) fn on_part(&mut self, part: BootstrapPart) {
        self.cluster.parts.insert(part);
    }

    /// The controller is told that a machine is joined, or Ready.
    pub(crate) fn on_member_claim(&mut self, node: u32, ready: bool, truth: bool) {
        let joined = self.cluster.joined.contains(&node);
        self.require(truth && (joined || !ready), Rule::ReadyIsTrue, || {
            let what = if ready { "Ready" } else { "joined" };
            format!("the machine in place {node} is called {what} and isn't")
        });
        self.cluster.joined.insert(node);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use undercroft_engine::NodeFacts;
    use undercroft_model::{
        Entry, Evidence, Observation, OpId, Outcome, Record,
        inventory::{parse, scale_to},
    };

    use super::*;
    use crate::profile::Profile;

    const BASEMENT: &str = include_str!("../../../../examples/basement/undercroft.toml");

    /// Three servers and an agent, all of them up as far as the journal says.
    struct Bench {
        checkers: Checkers,
        plan: Arc<Plan>,
        next: u64,
    }

    impl Bench {
        fn new() -> Self {
            let parsed = parse("undercroft.toml", BASEMENT.as_bytes());
            let inventory = scale_to(&parsed.inventory.unwrap(), 4).unwrap();
            let specs = crate::fleet::specs(&inventory, &Profile::metal());
            let observation = Observation {
                targets: specs
                    .iter()
                    .map(|spec| (spec.name.clone(), Ok(spec.target.clone())))
                    .collect(),
                host_keys: specs
                    .iter()
                    .map(|spec| (spec.name.clone(), spec.host_key.clone()))
                    .collect(),
                ..Observation::default()
            };
            let (plan, _) = undercroft_planner::plan(&inventory, &observation, None);
            let mut bench = Self {
                checkers: Checkers::new(&specs),
                plan: Arc::new(plan.clone()),
                next: 0,
            };
            bench.record(Record::PlanAccepted {
                plan: std::sync::Arc::new(plan),
            });
            let machines = bench.plan.steps.iter();
            let machines = machines.filter(|step| !step.action.is_of_cluster());
            for id in machines.map(|step| step.id).collect::<Vec<_>>() {
                let op = bench.act(id);
                bench.done(op, id);
            }
            bench
        }

        fn record(&mut self, record: Record) {
            self.checkers.on_entry(&Entry {
                seq: 0,
                wall_ms: 0,
                record,
            });
        }

        fn step(&self, node: &str, verb: &str) -> StepId {
            let mut steps = self.plan.steps.iter();
            let found = steps.find(|s| s.node.as_str() == node && s.action.verb() == verb);
            found.unwrap().id
        }

        fn act(&mut self, step: StepId) -> OpId {
            let op = OpId(self.next);
            self.next += 1;
            self.record(Record::OpStarted {
                op,
                step,
                work: Work::Act,
                attempt: 1,
            });
            let planned = self.plan.step(step).unwrap();
            let node = planned.node.clone();
            if !planned.action.is_of_cluster() {
                // What comes before the cluster is other tests' business.
                return op;
            }
            self.checkers.on_start(&Order {
                op,
                plan: Arc::clone(&self.plan),
                step,
                node,
                work: Work::Act,
                attempt: 1,
                timeout_ms: 1000,
                facts: NodeFacts::default().into(),
                members: Vec::new(),
            });
            op
        }

        fn done(&mut self, op: OpId, step: StepId) {
            let evidence = Evidence::Rebooted {
                boot_id: "1".to_owned(),
            };
            let outcome = Outcome::Done { evidence };
            self.record(Record::OpEnded { op, step, outcome });
        }

        fn does(&mut self, node: &str, verb: &str) {
            let step = self.step(node, verb);
            let op = self.act(step);
            if let Some(Action::Bootstrap { part }) = self.plan.step(step).map(|s| &s.action) {
                self.checkers.on_part(*part);
            }
            self.done(op, step);
        }

        fn begins(&mut self, node: &str, verb: &str) {
            self.act(self.step(node, verb));
        }

        fn rule(&self) -> Option<Rule> {
            let violation = self.checkers.violation();
            violation.map(|violation| violation.rule)
        }
    }

    fn networked() -> Bench {
        let mut bench = Bench::new();
        bench.does("control-01", "found");
        bench.does("control-01", "network");
        bench.does("control-01", "ready");
        bench
    }

    #[test]
    fn the_order_of_a_bring_up_passes() {
        let mut bench = networked();
        for server in ["control-02", "control-03"] {
            bench.does(server, "join");
            bench.does(server, "ready");
        }
        bench.does("gpu-01", "join");
        bench.does("gpu-01", "ready");
        for part in ["secrets", "argocd", "sync"] {
            bench.does("control-01", part);
        }
        assert_eq!(bench.checkers.violation(), None);
    }

    #[test]
    fn two_servers_do_not_join_at_once() {
        let mut bench = networked();
        bench.checkers.limits.clear();
        bench.begins("control-02", "join");
        assert_eq!(bench.rule(), None);
        bench.begins("control-03", "join");
        assert_eq!(bench.rule(), Some(Rule::JoinOrder));
    }

    #[test]
    fn no_agent_overtakes_a_server_that_can_still_join() {
        let mut bench = networked();
        bench.does("control-02", "join");
        bench.begins("gpu-01", "join");
        assert_eq!(bench.rule(), Some(Rule::JoinOrder));
    }

    #[test]
    fn an_agent_does_not_wait_for_a_server_that_failed() {
        let mut bench = networked();
        bench.does("control-02", "join");
        let step = bench.step("control-03", "join");
        let kind = undercroft_model::FailureKind::Permanent;
        bench.record(Record::NodeFailed {
            node: NodeName::new("control-03").unwrap(),
            step,
            failure: undercroft_model::Failure::new(kind, "it is dead"),
        });
        bench.begins("gpu-01", "join");
        assert_eq!(bench.rule(), None);
    }

    #[test]
    fn nothing_is_brought_in_before_everybody_is_ready() {
        let mut bench = networked();
        bench.begins("control-01", "secrets");
        assert_eq!(bench.rule(), Some(Rule::BootstrapOrder));
    }

    #[test]
    fn nobody_is_ready_who_has_not_joined() {
        let mut bench = networked();
        bench.checkers.on_member_claim(1, true, true);
        assert_eq!(bench.rule(), Some(Rule::ReadyIsTrue));
    }

    #[test]
    fn a_member_of_etcd_is_not_taken_from_it() {
        let mut bench = networked();
        let name = NodeName::new("control-02").unwrap();
        bench.checkers.on_member_lost(&name, "wiped");
        assert_eq!(bench.rule(), Some(Rule::EtcdQuorum));
    }

    #[test]
    fn only_the_founder_founds() {
        let mut bench = Bench::new();
        bench.checkers.on_founded(0, false);
        assert_eq!(bench.rule(), None);
        bench.checkers.on_founded(1, false);
        assert_eq!(bench.rule(), Some(Rule::OneCluster));
    }
}
