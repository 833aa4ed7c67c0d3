//! Seeds with faults, on every example: a thousand of each, and those that once broke a rule.
//!
//! `UNDERCROFT_SEEDS_FROM` is the first seed; `cargo xtask test` takes it from the date. Without it the seeds are the same each time.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "in a test a panic is the finding; it reads its examples and its first seed, and says it"
)]

use undercroft_model::inventory::{Inventory, PowerKind, parse};
use undercroft_sim::{FaultKind, Faults, Profile, RehearseOptions, rehearse, run_seeds};

/// Seeds of each example in one run of the tests.
const SEEDS: u64 = 1000;

/// Seeds that once broke a rule: the example, the seed, and what it had found.
const KEPT: [(&str, u64, &str); 18] = [
    ("basement", 578, "a Node deleted while `ready` waited"),
    ("basement", 648, "a Node deleted while `ready` waited"),
    ("basement", 968, "a Node deleted while `ready` waited"),
    ("kubeadm", 590, "a Node deleted and a disk lost in `ready`"),
    ("kubeadm", 941, "a Node deleted while `ready` waited"),
    ("kubeadm", 951, "a Node deleted while `ready` waited"),
    (
        "basement",
        9_000_074,
        "a machine that a stopped rollout never began",
    ),
    ("workshop", 251, "a Node deleted while `ready` waited"),
    ("basement", 31_003_195, NOT_BOOTED),
    ("kubeadm", 31_002_445, NOT_BOOTED),
    ("rack", 31_000_246, NOT_BOOTED),
    ("workshop", 31_001_189, NOT_BOOTED),
    (
        "basement",
        64_000_057,
        "two servers wiped while the founder had something left to do",
    ),
    ("basement", 76_002_175, STOPPED_KUBELET),
    ("kubeadm", 76_001_178, STOPPED_KUBELET),
    (
        "basement",
        76_006_553,
        "a kubelet that ran while its join waited for it to register",
    ),
    ("basement", 76_003_534, LEFT_OUT),
    ("kubeadm", 76_009_055, LEFT_OUT),
];
/// A kubelet that was being started anew registered before it ran.
const STOPPED_KUBELET: &str = "a Node of a kubelet that didn't run";
/// The failure budget had stopped a rollout, and what stood in a machine's way was gone by then.
const LEFT_OUT: &str = "a machine that was left out and never tried again";
/// Only somebody else reported in, and nobody booted the machine itself again.
const NOT_BOOTED: &str = "an approval waited for on a machine that didn't run its installer";

fn example(name: &str) -> Inventory {
    let path = format!(
        "{}/../../examples/{name}/undercroft.toml",
        env!("CARGO_MANIFEST_DIR")
    );
    let bytes = std::fs::read(&path).unwrap();
    parse(&path, &bytes).inventory.unwrap()
}

/// As `undercroft rehearse` does it.
fn options(inventory: &Inventory) -> RehearseOptions {
    let mut machines = inventory.nodes.values();
    let profile = if machines.all(|node| node.power.kind == PowerKind::Rack) {
        Profile::rack()
    } else {
        Profile::metal()
    };
    RehearseOptions {
        faults: Faults::Many,
        profile,
        ..RehearseOptions::default()
    }
}

fn first_seed() -> u64 {
    std::env::var("UNDERCROFT_SEEDS_FROM").map_or(1, |from| from.parse().unwrap())
}

/// Runs seeds of an example, with fewer machines where it says so, and gives the kinds of faults
/// that never happened.
fn no_rule_is_broken(name: &str, nodes: Option<usize>, seeds: u64) -> Vec<FaultKind> {
    let inventory = example(name);
    let options = RehearseOptions {
        nodes,
        ..options(&inventory)
    };
    let from = first_seed();
    println!("{name}: {seeds} seeds; UNDERCROFT_SEEDS_FROM={from} repeats them");
    let report = run_seeds(&inventory, &options, from..=from + seeds - 1, &mut |_| {}).unwrap();
    if let Some(failed) = report.failed {
        panic!("examples/{name}, which belongs into KEPT: {failed}");
    }
    assert_eq!(report.seeds, seeds);
    let kinds = FaultKind::ALL.iter();
    let never = kinds.filter(|kind| !report.faults.contains_key(kind));
    never.copied().collect()
}

/// With fewer machines than it has, so that a thousand seeds are through in the time that a test
/// may take.
#[test]
fn a_thousand_seeds_of_the_basement_break_no_rule() {
    let never = no_rule_is_broken("basement", Some(5), SEEDS);
    assert_eq!(never, [], "the seeds show what they are meant to show");
}

#[test]
fn seeds_of_the_whole_basement_break_no_rule() {
    no_rule_is_broken("basement", None, SEEDS / 20);
}

#[test]
fn a_thousand_seeds_of_kubeadm_break_no_rule() {
    no_rule_is_broken("kubeadm", None, SEEDS);
}

#[test]
fn a_thousand_seeds_of_the_workshop_break_no_rule() {
    no_rule_is_broken("workshop", None, SEEDS);
}

#[test]
fn a_thousand_seeds_of_the_rack_break_no_rule() {
    no_rule_is_broken("rack", None, SEEDS);
}

#[test]
fn a_thousand_seeds_of_a_class_of_ones_own_break_no_rule() {
    no_rule_is_broken("own-class", None, SEEDS);
}

#[test]
fn every_example_has_its_seeds() {
    let examples = format!("{}/../../examples", env!("CARGO_MANIFEST_DIR"));
    let entries = std::fs::read_dir(examples).unwrap().map(Result::unwrap);
    let mut names: Vec<String> = entries
        .filter(|entry| entry.path().join("undercroft.toml").is_file())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    let tested = ["basement", "kubeadm", "own-class", "rack", "workshop"];
    assert_eq!(names, tested, "a new example needs a test above");
}

#[test]
fn seeds_that_once_broke_a_rule_break_none() {
    for (name, seed, found) in KEPT {
        let inventory = example(name);
        let options = RehearseOptions {
            seed,
            ..options(&inventory)
        };
        let violation = rehearse(&inventory, &options).unwrap().violation;
        assert_eq!(violation, None, "{name}, seed {seed}: {found}");
    }
}
