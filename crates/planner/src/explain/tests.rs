//! How counts, sizes and times are written, at each of their edges.

use undercroft_model::PlanId;

use super::*;
use crate::PlanSummary;

#[test]
fn sizes_are_rounded_up_to_megabytes_and_down_to_tenths_of_gigabytes() {
    for (bytes, text) in [
        (0, "0 MB"),
        (1, "1 MB"),
        (1_000_000, "1 MB"),
        (1_000_001, "2 MB"),
        (312_000_000, "312 MB"),
        (999_999_999, "1000 MB"),
        (1_000_000_000, "1.0 GB"),
        (1_099_999_999, "1.0 GB"),
        (1_100_000_000, "1.1 GB"),
        (25_340_000_000, "25.3 GB"),
    ] {
        assert_eq!(size(bytes), text, "{bytes}");
    }
}

#[test]
fn times_are_in_seconds_then_in_minutes_then_in_hours() {
    for (ms, text) in [
        (0, "0 s"),
        (1, "1 s"),
        (1000, "1 s"),
        (119_000, "119 s"),
        (119_001, "2 min"),
        (120_000, "2 min"),
        (121_000, "3 min"),
        (7_199_000, "120 min"),
        (7_200_000, "2 h 0 min"),
        (9_059_000, "2 h 30 min"),
        (86_460_000, "24 h 1 min"),
    ] {
        assert_eq!(duration(ms), text, "{ms}");
    }
}

#[test]
fn one_machine_has_and_others_have() {
    let said = [0, 1, 2].map(machines);
    assert_eq!(
        said,
        ["0 machines have", "1 machine has", "2 machines have"]
    );
}

fn report(summary: PlanSummary) -> PlanReport {
    PlanReport {
        plan: PlanId(String::new()),
        nodes: Default::default(),
        unknown: Vec::new(),
        summary,
        estimate_ms: 0,
    }
}

#[test]
fn the_headline_counts_what_there_is_and_nothing_else() {
    assert_eq!(headline(&report(PlanSummary::default())), "no machines");
    let all = PlanSummary {
        install: 1,
        reinstall: 2,
        join: 3,
        adopt: 10,
        update: 11,
        update_later: 12,
        release: 13,
        converged: 4,
        differs: 5,
        unreachable: 6,
        quarantined: 7,
        blocked: 8,
        left_out: 9,
    };
    assert_eq!(
        headline(&report(all)),
        "1 to install, 2 to wipe and install anew, 3 to take their part in the cluster, \
         10 to prove, which run what they should, 11 to update, 12 to update later, 13 to open for pods again, 4 up to date, 5 running another system, 6 not answering, 7 quarantined, 8 blocked, 9 not asked for"
    );
    let one = PlanSummary {
        blocked: 1,
        ..PlanSummary::default()
    };
    assert_eq!(headline(&report(one)), "1 blocked");
}

#[test]
fn whatever_is_left_alone_is_said_with_its_reason() {
    let reason = || "the reason".to_owned();
    let differs = |current: &str| NodeStatus::Differs {
        booted: "/a".to_owned(),
        current: current.to_owned(),
        target: "/c".to_owned(),
    };
    for (status, said) in [
        (NodeStatus::Install, None),
        (NodeStatus::Reinstall, None),
        (NodeStatus::Adopt, None),
        (NodeStatus::Join, None),
        (NodeStatus::Converged, None),
        (differs("/a"), Some("it runs /a, and /c was built")),
        (
            differs("/b"),
            Some("it booted /a and runs /b, and /c was built"),
        ),
        (
            NodeStatus::Unreachable { reason: reason() },
            Some("it doesn't answer: the reason"),
        ),
        (
            NodeStatus::Quarantined { reason: reason() },
            Some("quarantined: the reason"),
        ),
        (
            NodeStatus::Blocked {
                reasons: vec![reason(), "another".to_owned()],
            },
            Some("the reason; another"),
        ),
    ] {
        let found = left_alone(&status);
        match (&found, said) {
            (Some(found), Some(said)) => assert!(found.contains(said), "{found}"),
            (found, said) => assert_eq!(found.is_some(), said.is_some(), "{status:?}"),
        }
    }
}
