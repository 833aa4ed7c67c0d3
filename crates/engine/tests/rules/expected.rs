//! A plan that this process has checked already.

use std::sync::Arc;

use undercroft_engine::{Engine, ResumeError, Resumption};
use undercroft_model::{Entry, Plan, Record};

use super::{FREE, Scripted, plan_of, run_plan};

#[test]
fn a_plan_that_is_expected_gives_the_same_engine_and_another_is_checked() {
    let mut world = Scripted::new();
    let (_, journal) = run_plan(plan_of(2, FREE), &mut world);
    let accepted = |entry: &Entry| match &entry.record {
        Record::PlanAccepted { plan } => Some(Arc::clone(plan)),
        _ => None,
    };
    let plan = journal.entries.iter().find_map(accepted).unwrap();
    let expected = Engine::new(Arc::clone(&plan)).unwrap();
    let mut resumption = Resumption::default();
    resumption.expect(&expected);
    for entry in &journal.entries {
        resumption.apply(entry).unwrap();
    }
    assert_eq!(
        format!("{:?}", resumption.engine()),
        format!("{:?}", Engine::resume(&journal.entries))
    );
    let mut other = Plan::clone(&plan);
    other.steps[3].destroys[0].serial = Some("OTHER".to_owned());
    other.id = other.content_id();
    let mut resumption = Resumption::default();
    resumption.expect(&expected);
    let accepted = Entry {
        seq: 0,
        wall_ms: 0,
        record: Record::PlanAccepted {
            plan: Arc::new(other),
        },
    };
    resumption.apply(&accepted).unwrap();
    let refused = resumption.engine();
    assert!(
        matches!(refused, Err(ResumeError::Refused(_))),
        "{refused:?}"
    );
}
