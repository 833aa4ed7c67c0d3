//! What commands print with `--json` is what `undercroft schema --of` says.

use std::collections::BTreeMap;

use jsonschema::Validator;

use super::{journal, render, secrets};
use crate::support::Sandbox;

/// Runs commands with `--json`, and looks at what they print by the schema of their name.
#[derive(Default)]
struct Looks {
    schemas: BTreeMap<String, Validator>,
    /// How many documents of each name were seen.
    seen: BTreeMap<String, usize>,
}

impl Looks {
    fn look(&mut self, sandbox: &Sandbox, args: &[&str]) {
        let words = args.iter().take_while(|word| !word.starts_with('-'));
        let words: Vec<&str> = words.copied().collect();
        let name = match words.as_slice() {
            ["secrets" | "dev" | "rack", below, ..] => format!("{}-{below}", words[0]),
            [name, ..] => (*name).to_owned(),
            [] => panic!("{args:?}"),
        };
        let validator = self.schemas.entry(name.clone()).or_insert_with(|| {
            let printed = sandbox.run(["schema", "--of", &name]);
            assert_eq!(printed.code, 0, "{}", printed.text());
            let schema = serde_json::from_str(&printed.out).unwrap();
            jsonschema::draft202012::new(&schema).unwrap()
        });
        let ran = sandbox.run(args.iter().chain(&["--json"]));
        let documents = serde_json::Deserializer::from_str(&ran.out).into_iter();
        for document in documents {
            let document: serde_json::Value = document.unwrap();
            let errors: Vec<String> = validator
                .iter_errors(&document)
                .map(|e| format!("{e} at {}", e.instance_path()))
                .collect();
            assert!(errors.is_empty(), "{args:?}: {errors:#?}\n{document:#}");
            *self.seen.entry(name.clone()).or_default() += 1;
        }
        assert!(self.seen.contains_key(&name), "{args:?}: {}", ran.text());
    }
}

#[test]
fn what_is_printed_is_what_its_schema_says() {
    let mut looks = Looks::default();
    // A fleet before anything was done with it, and with a broken inventory.
    let sandbox = Sandbox::rack();
    for args in [
        &["check"][..],
        &["status"],
        &["journal"],
        &["approve"],
        &["doctor", "vm-01"],
        &["drift", "--no-build"],
        &["rehearse", "--faults", "many", "--trace"],
        &["rehearse", "--seeds", "2"],
    ] {
        looks.look(&sandbox, args);
    }
    // One with a journal, and somebody who waits.
    journal::history(&sandbox);
    journal::waiting(&sandbox);
    for args in [
        &["status"][..],
        &["status", "vm-01"],
        &["events"],
        &["journal"],
        &["approve"],
        &["doctor", "vm-01"],
    ] {
        looks.look(&sandbox, args);
    }
    assert_eq!(looks.seen["status"], 3);
    assert!(looks.seen["events"] > 5);
    sandbox.write("undercroft.toml", "[fleet]\nnam = 1\n");
    looks.look(&sandbox, &["check"]);
    // Rendered files.
    let sandbox = render::cellar();
    for args in [
        &["render"][..],
        &["render", "--check"],
        &["dev", "config", "--pc", "laptop"],
    ] {
        looks.look(&sandbox, args);
    }
    // Secrets.
    let sandbox = secrets::fleet();
    for args in [
        &["secrets", "init"][..],
        &["secrets", "list"],
        &["secrets", "check"],
        &["secrets", "rekey", "--dry-run"],
    ] {
        looks.look(&sandbox, args);
    }
    let listed = sandbox.run(["secrets", "list", "--json"]).out;
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let there = listed["secrets"].as_array().unwrap().iter();
    let mut there = there.filter(|secret| secret["state"] == "there");
    let name = there.next().unwrap()["name"].as_str().unwrap();
    looks.look(&sandbox, &["secrets", "rotate", name]);
}

/// Without Nix no system can be built: the plan says so, of each machine.
#[test]
fn a_plan_and_what_up_tells_are_what_their_schemas_say() {
    let mut looks = Looks::default();
    let sandbox = render::cellar();
    looks.look(&sandbox, &["plan"]);
}

#[test]
fn a_schema_of_nothing_is_refused_with_what_there_is() {
    let sandbox = Sandbox::new();
    let ran = sandbox.run(["schema", "--of", "state"]);
    assert_eq!(ran.code, 64, "{}", ran.text());
    assert!(ran.err.contains("status") && ran.err.contains("inventory"));
    let plain = sandbox.run(["schema"]).out;
    assert_eq!(plain, sandbox.run(["schema", "--of", "inventory"]).out);
}
