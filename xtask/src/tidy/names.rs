//! Names that mean one thing here and another there.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    face::{face, item},
    source::Modules,
};

/// The same word in two languages: each crate's is the name that its own field has for the thing.
const FIELDS: &str = "each is its field's own name";
/// Two things that should be told apart by their names.
const OLD: &str = "to be told apart";

/// Names that several crates may define, each with the crates and why.
#[rustfmt::skip]
const ALLOWED: &[(&str, &[&str], &str)] = &[
    ("Answer", &["lend", "steps"], OLD),
    ("Ask", &["secrets", "steps"], OLD),
    ("Clock", &["netboot", "simkit"], FIELDS),
    ("Component", &["model", "render"], FIELDS),
    ("Consent", &["lend", "secrets"], OLD),
    ("Effect", &["engine", "lend"], OLD),
    ("Ended", &["lend", "steps"], OLD),
    ("Entry", &["lend", "model"], OLD),
    ("Finished", &["fleet", "process"], OLD),
    ("Fleet", &["fleet", "model"], FIELDS),
    ("Head", &["journal", "lend"], OLD),
    ("Held", &["lend", "planner"], OLD),
    ("Input", &["lend", "process"], OLD),
    ("Kind", &["model", "simkit"], OLD),
    ("Limits", &["lend", "model"], OLD),
    ("Misfit", &["lend", "model"], OLD),
    ("Missing", &["netboot", "testkit"], FIELDS),
    ("Netboot", &["model", "netboot"], FIELDS),
    ("Next", &["planner", "steps"], OLD),
    ("NodeStatus", &["model", "planner"], OLD),
    ("NodeWants", &["planner", "steps"], OLD),
    ("Part", &["build", "netboot"], FIELDS),
    ("Phase", &["lend", "model"], OLD),
    ("Record", &["lend", "model"], OLD),
    ("Refusal", &["netboot", "rack"], FIELDS),
    ("Reply", &["lend", "netboot", "rack"], OLD),
    ("Runtime", &["lend", "model"], OLD),
    ("Service", &["fleet", "netboot"], FIELDS),
    ("Settings", &["fleet", "lend"], OLD),
    ("Step", &["model", "netboot"], FIELDS),
    ("Value", &["lend", "sops"], OLD),
    ("Waits", &["model", "planner"], OLD),
];

/// Adds a finding for each name of a type that several crates define in their public faces, and for each permission that
/// nobody needs.
pub(crate) fn check(crates: &BTreeMap<String, Modules>, findings: &mut Vec<String>) {
    compare(crates, ALLOWED, findings);
}

fn compare(
    crates: &BTreeMap<String, Modules>,
    allowed: &[(&str, &[&str], &str)],
    findings: &mut Vec<String>,
) {
    let mut homes: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for (name, modules) in crates {
        for (at, names) in face(modules) {
            if item(modules, &at).is_some_and(|item| item.is_type) {
                for of in names {
                    homes.entry(of).or_default().insert(name);
                }
            }
        }
    }
    homes.retain(|_, crates| crates.len() > 1);
    for (name, crates) in &homes {
        let may = |(of, several, _): &&(&str, &[&str], &str)| {
            of == name && crates.iter().all(|one| several.contains(one))
        };
        if !allowed.iter().any(|one| may(&one)) {
            let crates: Vec<_> = crates.iter().map(|name| format!("crates/{name}")).collect();
            findings.push(format!(
                "`{name}` is a type in each of {}",
                crates.join(", ")
            ));
        }
    }
    for (name, several, _) in allowed {
        let there = homes.get(*name).into_iter().flatten();
        if there.filter(|one| several.contains(one)).count() < 2 {
            findings.push(format!(
                "`{name}` has one home among those: take it from the list of names"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::face::tests::modules, *};

    #[test]
    fn a_name_with_two_homes_is_found_once() {
        let one = "pub struct Finding; pub struct Own; pub(crate) enum Kind {} pub fn check() {}";
        let two = "mod a; pub use a::Finding as Renamed; pub enum Finding {} pub use one::Own; pub enum Kind {}";
        let crates = BTreeMap::from([
            ("one".to_owned(), modules(&[("", one)])),
            (
                "two".to_owned(),
                modules(&[("", two), ("a", "pub struct Finding; pub fn check() {}")]),
            ),
        ]);
        let found = |allowed: &[(&str, &[&str], &str)]| {
            let mut findings = Vec::new();
            compare(&crates, allowed, &mut findings);
            findings
        };
        assert_eq!(
            found(&[]),
            ["`Finding` is a type in each of crates/one, crates/two"]
        );
        assert_eq!(found(&[("Finding", &["two", "one"], OLD)]), [""; 0]);
        assert_eq!(
            found(&[
                ("Finding", &["one", "two"], OLD),
                ("Own", &["one", "two"], OLD)
            ])
            .len(),
            1
        );
    }

    #[test]
    fn every_permission_has_its_reason() {
        for (name, _, why) in ALLOWED {
            assert!([FIELDS, OLD].contains(why), "{name}");
        }
    }
}
