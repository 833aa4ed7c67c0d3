//! Whole rehearsals: the same seed gives the same bytes, many seeds break no rule, and the report
//! reads as it should.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the finding")]

use undercroft_model::inventory::{Inventory, parse};
use undercroft_sim::{Faults, Profile, RehearseOptions, rehearse, run_seeds};

fn example(name: &str) -> Inventory {
    let path = format!(
        "{}/../../examples/{name}/undercroft.toml",
        env!("CARGO_MANIFEST_DIR")
    );
    #[expect(clippy::disallowed_methods, reason = "a test reads its example")]
    let bytes = std::fs::read(&path).unwrap();
    parse(&path, &bytes).inventory.unwrap()
}

fn options(seed: u64, faults: Faults) -> RehearseOptions {
    RehearseOptions {
        seed,
        faults,
        ..RehearseOptions::default()
    }
}

#[test]
fn the_same_seed_gives_the_same_journal_byte_for_byte() {
    let basement = example("basement");
    for faults in Faults::ALL {
        let keep = RehearseOptions {
            keep_journal: true,
            nodes: Some(12),
            ..options(7, faults)
        };
        let first = rehearse(&basement, &keep).unwrap();
        let again = rehearse(&basement, &keep).unwrap();
        assert_eq!(first.violation, None, "{faults}");
        assert_eq!(first.digest, again.digest, "{faults}");
        assert_eq!(first.journal, again.journal, "{faults}");
        assert!(first.journal.is_some_and(|bytes| bytes.len() > 10_000));
        assert_eq!(first.report, again.report, "{faults}");
        // What is kept or shown on the way changes nothing.
        let bare = RehearseOptions {
            keep_journal: false,
            trace: true,
            ..keep
        };
        assert_eq!(first.digest, rehearse(&basement, &bare).unwrap().digest);
    }
}

#[test]
fn other_seeds_give_other_journals() {
    let rack = example("rack");
    let digests: std::collections::BTreeSet<String> = (0..5)
        .map(|seed| {
            rehearse(&rack, &options(seed, Faults::None))
                .unwrap()
                .digest
        })
        .collect();
    assert_eq!(digests.len(), 5);
}

#[test]
fn without_faults_everything_is_up_after_one_run() {
    for (name, profile) in [("basement", Profile::metal()), ("rack", Profile::rack())] {
        let inventory = example(name);
        let rehearsal = rehearse(
            &inventory,
            &RehearseOptions {
                profile,
                ..options(1, Faults::None)
            },
        )
        .unwrap();
        assert_eq!(rehearsal.violation, None);
        let report = rehearsal.report;
        assert_eq!((report.up, report.runs.len()), (report.nodes, 1), "{name}");
        assert!(report.phases.iter().all(|phase| phase.not_done == 0));
        assert!(report.limits.iter().all(|limit| limit.peak <= limit.limit));
    }
}

/// Small fleets, so that they are through in the time that a test may take. Those of many faults are
/// in `seeds.rs`.
#[test]
fn seeds_of_an_ordinary_day_break_no_rule() {
    let options = RehearseOptions {
        nodes: Some(6),
        ..options(0, Faults::Some)
    };
    let report = run_seeds(&example("basement"), &options, 1001..=1200, &mut |_| {}).unwrap();
    assert_eq!(report.failed.map(|failed| failed.to_string()), None);
    assert_eq!(report.seeds, 200);
}

#[test]
fn what_is_broken_for_good_is_reported_and_stops_no_other() {
    let basement = example("basement");
    let mut broken = 0;
    for seed in 1..=40 {
        let options = RehearseOptions {
            nodes: Some(6),
            ..options(seed, Faults::Many)
        };
        let report = rehearse(&basement, &options).unwrap().report;
        for failed in report.failures.iter().filter(|failed| !failed.up_later) {
            assert!(
                !failed.reason.is_empty() && failed.phase != "?",
                "{failed:?}"
            );
            broken += 1;
        }
    }
    assert!(broken > 0, "no seed had a machine that stays broken");
}

#[test]
fn the_report_without_faults_reads_well() {
    let report = rehearse(&example("basement"), &options(7, Faults::None))
        .unwrap()
        .report;
    insta::assert_snapshot!(report.to_string());
}

#[test]
fn the_report_with_faults_reads_well() {
    let report = rehearse(&example("basement"), &options(7, Faults::Some))
        .unwrap()
        .report;
    insta::assert_snapshot!(report.to_string());
}

#[test]
fn no_line_of_a_report_is_wider_than_a_terminal() {
    for seed in 1..=10 {
        for faults in Faults::ALL {
            let report = rehearse(&example("basement"), &options(seed, faults))
                .unwrap()
                .report;
            for line in report.to_string().lines() {
                assert!(line.chars().count() <= 100, "{line}");
            }
        }
    }
}

#[test]
fn a_fleet_of_another_size_is_rehearsed() {
    let rack = example("rack");
    for nodes in [1, 3, 40] {
        let options = RehearseOptions {
            nodes: Some(nodes),
            ..options(3, Faults::None)
        };
        let report = rehearse(&rack, &options).unwrap().report;
        assert_eq!((report.nodes, report.up), (nodes, nodes));
    }
    let none = RehearseOptions {
        nodes: Some(0),
        ..options(3, Faults::None)
    };
    assert_eq!(
        rehearse(&rack, &none).unwrap_err().to_string(),
        "the inventory has no nodes, so there is nothing to rehearse"
    );
}
