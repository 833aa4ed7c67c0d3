//! Every checker, fed with what it must not let pass.

use std::sync::Arc;

use undercroft_engine::NodeFacts;
use undercroft_model::{Failure, Observation, inventory::parse};
use undercroft_simkit::Rng;

use super::*;
use crate::{machine::Machine, profile::Profile};

struct Bench {
    checkers: Checkers,
    plan: Arc<Plan>,
    specs: Vec<Spec>,
    seq: u64,
}

const RACK: &str = include_str!("../../../../examples/rack/undercroft.toml");

impl Bench {
    fn new() -> Self {
        let inventory = parse("undercroft.toml", RACK.as_bytes()).inventory.unwrap();
        let specs = crate::fleet::specs(&inventory, &Profile::rack());
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
            specs,
            seq: 0,
        };
        bench.record(Record::PlanAccepted {
            plan: std::sync::Arc::new(plan),
        });
        bench
    }

    fn record(&mut self, record: Record) {
        self.checkers.on_entry(&Entry {
            seq: self.seq,
            wall_ms: 0,
            record,
        });
        self.seq += 1;
    }

    fn begin(&mut self, op: u64, step: u32, work: Work, attempt: u32) {
        self.record(Record::OpStarted {
            op: OpId(op),
            step: StepId(step),
            work,
            attempt,
        });
    }

    fn end(&mut self, op: u64, step: u32, outcome: Outcome) {
        self.record(Record::OpEnded {
            op: OpId(op),
            step: StepId(step),
            outcome,
        });
    }

    fn start(&mut self, op: u64, step: u32, work: Work, attempt: u32, facts: NodeFacts) {
        let node = self.plan.step(StepId(step)).unwrap().node.clone();
        self.checkers.on_start(&Order {
            op: OpId(op),
            plan: Arc::clone(&self.plan),
            step: StepId(step),
            node,
            work,
            attempt,
            timeout_ms: 1000,
            facts: facts.into(),
            members: Vec::new(),
        });
    }

    /// Journals and starts an act, as an engine does it.
    fn act(&mut self, op: u64, step: u32) {
        self.begin(op, step, Work::Act, 1);
        self.start(op, step, Work::Act, 1, NodeFacts::default());
    }

    fn done(&mut self, op: u64, step: u32) {
        let outcome = Outcome::Done {
            evidence: Evidence::Rebooted {
                boot_id: "1".to_owned(),
            },
        };
        self.end(op, step, outcome);
    }

    fn rule(&self) -> Option<Rule> {
        self.checkers.violation().map(|violation| violation.rule)
    }

    fn disk(&self) -> Disk {
        let machine = Machine::new(self.specs[0].clone(), Rng::new(1));
        machine.disks[0].clone()
    }

    fn approve(&mut self, fingerprint: &str) -> Approval {
        let approval = Approval {
            fingerprint: fingerprint.to_owned(),
            by: "operator alice".to_owned(),
            granted_wall_ms: 0,
            expires_wall_ms: 100,
        };
        self.checkers.on_approved(&approval);
        approval
    }
}

const GUID: MachineUuid = MachineUuid([7; 16]);

#[test]
fn what_is_allowed_passes() {
    let mut bench = Bench::new();
    bench.act(0, 0);
    bench.done(0, 0);
    bench.approve("SHA256:a");
    bench.checkers.on_first_contact("SHA256:a", 100);
    let disk = bench.disk();
    bench.checkers.on_wipe(0, &disk, "SHA256:a", GUID);
    bench.checkers.on_laid(0, GUID);
    bench.checkers.on_secret("SHA256:a");
    bench
        .checkers
        .on_up("rack-01", "/nix/store/x", Some("/nix/store/x"));
    bench.record(Record::RunEnded {
        end: RunEnd::Incomplete,
    });
    assert_eq!(bench.rule(), None);
}

#[test]
fn a_foreign_disk_is_not_wiped() {
    let mut bench = Bench::new();
    bench.approve("SHA256:a");
    let mut disk = bench.disk();
    disk.serial = Some("OTHER".to_owned());
    bench.checkers.on_wipe(0, &disk, "SHA256:a", GUID);
    assert_eq!(bench.rule(), Some(Rule::WipeIdentity));
}

#[test]
fn no_disk_is_wiped_without_an_approval() {
    let mut bench = Bench::new();
    let disk = bench.disk();
    bench.checkers.on_wipe(0, &disk, "SHA256:a", GUID);
    assert_eq!(bench.rule(), Some(Rule::WipeApproval));
}

#[test]
fn no_disk_is_wiped_twice() {
    let mut bench = Bench::new();
    bench.approve("SHA256:a");
    let disk = bench.disk();
    bench.checkers.on_wipe(0, &disk, "SHA256:a", GUID);
    bench.checkers.on_laid(0, GUID);
    assert_eq!(bench.rule(), None);
    bench.checkers.on_wipe(0, &disk, "SHA256:a", GUID);
    assert_eq!(bench.rule(), Some(Rule::SecondWipe));
}

#[test]
fn a_disk_that_was_laid_out_half_is_wiped_again() {
    let mut bench = Bench::new();
    bench.approve("SHA256:a");
    let mut disk = bench.disk();
    bench.checkers.on_wipe(0, &disk, "SHA256:a", GUID);
    disk.table = Table::Cleared;
    bench.checkers.on_wipe(0, &disk, "SHA256:a", GUID);
    assert_eq!(bench.rule(), None);
}

#[test]
fn no_secret_goes_to_an_unapproved_key() {
    let mut bench = Bench::new();
    bench.approve("SHA256:a");
    bench.checkers.on_secret("SHA256:b");
    assert_eq!(bench.rule(), Some(Rule::SecretApproval));
}

#[test]
fn an_approval_runs_out() {
    let mut bench = Bench::new();
    bench.approve("SHA256:a");
    bench.checkers.on_first_contact("SHA256:a", 101);
    assert_eq!(bench.rule(), Some(Rule::ContactApproval));
}

#[test]
fn an_approval_that_is_not_in_the_journal_is_none() {
    let mut bench = Bench::new();
    for (op, step) in [(0, 0), (1, 1)] {
        bench.act(op, step);
        bench.done(op, step);
    }
    let approval = bench.approve("SHA256:a");
    bench.begin(2, 2, Work::Act, 1);
    let facts = NodeFacts {
        approval: Some(approval),
        ..NodeFacts::default()
    };
    bench.start(2, 2, Work::Act, 1, facts);
    assert_eq!(bench.rule(), Some(Rule::ContactApproval));
}

#[test]
fn limits_of_concurrency_hold() {
    let mut bench = Bench::new();
    bench.checkers.limits.insert(Resource::NetworkBoot, 1);
    bench.act(0, 0);
    assert_eq!(bench.rule(), None);
    bench.act(1, 8);
    assert_eq!(bench.rule(), Some(Rule::Concurrency));
}

#[test]
fn nothing_starts_before_its_record() {
    let mut bench = Bench::new();
    bench.start(0, 0, Work::Act, 1, NodeFacts::default());
    assert_eq!(bench.rule(), Some(Rule::JournalFirst));
}

#[test]
fn nothing_starts_as_something_else_than_its_record_says() {
    let mut bench = Bench::new();
    bench.begin(0, 0, Work::Probe, 1);
    bench.start(0, 0, Work::Act, 1, NodeFacts::default());
    assert_eq!(bench.rule(), Some(Rule::JournalFirst));
}

#[test]
fn nothing_is_called_off_before_its_end_is_on_record() {
    let mut bench = Bench::new();
    bench.act(0, 0);
    bench.checkers.on_cancel(OpId(0));
    assert_eq!(bench.rule(), Some(Rule::JournalFirst));
}

#[test]
fn an_operation_starts_once() {
    let mut bench = Bench::new();
    bench.act(0, 0);
    bench.start(0, 0, Work::Act, 1, NodeFacts::default());
    assert_eq!(bench.rule(), Some(Rule::OncePerOp));
}

#[test]
fn an_operation_ends_once() {
    let mut bench = Bench::new();
    bench.act(0, 0);
    bench.done(0, 0);
    bench.done(0, 0);
    assert_eq!(bench.rule(), Some(Rule::OncePerOp));
}

#[test]
fn no_operation_id_is_used_twice() {
    let mut bench = Bench::new();
    bench.act(4, 0);
    bench.end(4, 0, Outcome::NotDone);
    bench.begin(4, 0, Work::Act, 1);
    assert_eq!(bench.rule(), Some(Rule::OncePerOp));
}

#[test]
fn a_machine_is_worked_on_by_one_operation() {
    let mut bench = Bench::new();
    bench.checkers.limits.insert(Resource::NetworkBoot, 9);
    bench.act(0, 0);
    bench.begin(1, 0, Work::Probe, 1);
    bench.start(1, 0, Work::Probe, 1, NodeFacts::default());
    assert_eq!(bench.rule(), Some(Rule::OneAtATime));
}

#[test]
fn no_step_overtakes_another() {
    let mut bench = Bench::new();
    bench.begin(0, 1, Work::Act, 1);
    assert_eq!(bench.rule(), Some(Rule::StepOrder));
}

#[test]
fn what_is_done_is_not_done_again() {
    let mut bench = Bench::new();
    bench.act(0, 0);
    bench.done(0, 0);
    bench.begin(1, 0, Work::Act, 1);
    assert_eq!(bench.rule(), Some(Rule::NoRepetition));
}

#[test]
fn what_may_have_happened_is_probed_first() {
    for outcome in [
        Outcome::TimedOut,
        Outcome::Orphaned,
        Outcome::Failed {
            failure: Failure::new(FailureKind::Ambiguous, "the connection was lost"),
        },
    ] {
        let mut bench = Bench::new();
        bench.act(0, 0);
        bench.end(0, 0, outcome);
        bench.begin(1, 0, Work::Act, 2);
        assert_eq!(bench.rule(), Some(Rule::ProbeFirst));
    }
}

#[test]
fn a_probe_that_could_not_tell_settles_nothing() {
    let mut bench = Bench::new();
    bench.act(0, 0);
    bench.end(0, 0, Outcome::TimedOut);
    bench.begin(1, 0, Work::Probe, 1);
    bench.end(1, 0, Outcome::TimedOut);
    bench.begin(2, 0, Work::Act, 2);
    assert_eq!(bench.rule(), Some(Rule::ProbeFirst));
}

#[test]
fn tries_have_a_limit() {
    let mut bench = Bench::new();
    bench.begin(0, 0, Work::Act, 1000);
    assert_eq!(bench.rule(), Some(Rule::Bounded));
}

#[test]
fn restarts_have_a_limit() {
    let mut bench = Bench::new();
    let node = bench.specs[0].name.clone();
    for count in 1..=bench.plan.limits.node_restarts_max + 1 {
        assert_eq!(bench.rule(), None);
        bench.record(Record::NodeRestarted {
            node: node.clone(),
            from: StepId(0),
            failure: Failure::new(FailureKind::PreconditionLost, "it rebooted"),
            count,
        });
    }
    assert_eq!(bench.rule(), Some(Rule::Bounded));
}

#[test]
fn time_limits_hold() {
    let mut bench = Bench::new();
    bench.act(0, 0);
    let limit_ms = bench.plan.steps[0].timeout_ms;
    bench.checkers.at(limit_ms + 2);
    bench.end(0, 0, Outcome::TimedOut);
    assert_eq!(bench.rule(), Some(Rule::TimeLimit));
}

#[test]
fn after_the_budget_nobody_is_begun() {
    let mut bench = Bench::new();
    bench.record(Record::RolloutStopped {
        failed: 2,
        failure_budget: 1,
    });
    bench.begin(0, 0, Work::Act, 1);
    assert_eq!(bench.rule(), Some(Rule::FailureBudget));
}

#[test]
fn who_has_failed_is_left_alone() {
    let mut bench = Bench::new();
    let node = bench.specs[0].name.clone();
    bench.record(Record::NodeFailed {
        node,
        step: StepId(0),
        failure: Failure::new(FailureKind::Refused, "the serial is another"),
    });
    bench.begin(0, 0, Work::Probe, 1);
    assert_eq!(bench.rule(), Some(Rule::FailedStaysFailed));
}

#[test]
fn who_is_called_up_runs_what_was_built() {
    for ran in [None, Some("/nix/store/old")] {
        let mut bench = Bench::new();
        bench.checkers.on_up("rack-01", "/nix/store/new", ran);
        assert_eq!(bench.rule(), Some(Rule::UpIsTrue));
    }
}

#[test]
fn a_run_is_complete_only_when_all_is_done() {
    let mut bench = Bench::new();
    bench.record(Record::RunEnded {
        end: RunEnd::Complete,
    });
    assert_eq!(bench.rule(), Some(Rule::EndIsTrue));
}

#[test]
fn a_run_does_not_end_while_something_goes_on() {
    let mut bench = Bench::new();
    bench.act(0, 0);
    bench.record(Record::RunEnded {
        end: RunEnd::Interrupted,
    });
    assert_eq!(bench.rule(), Some(Rule::EndIsTrue));
}

#[test]
fn a_plan_destroys_only_what_the_inventory_gives_up() {
    let mut bench = Bench::new();
    let mut plan = Plan::clone(&bench.plan);
    let step = plan.steps.iter_mut().find(|s| !s.destroys.is_empty());
    step.unwrap().destroys[0].serial = Some("OTHER".to_owned());
    bench.record(Record::PlanAccepted {
        plan: std::sync::Arc::new(plan),
    });
    assert_eq!(bench.rule(), Some(Rule::PlanMatchesInventory));
}
