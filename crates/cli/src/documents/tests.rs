use std::collections::{BTreeMap, BTreeSet};

use clap::CommandFactory as _;
use serde::de::DeserializeOwned;
use undercroft_model::{Severity, document::read, inventory};
use undercroft_netboot::timeline::Missing;
use undercroft_render::Change;
use undercroft_sim::{Faults, RehearseOptions, rehearse, run_seeds};

use super::*;
use crate::commands::Cli;

/// The commands that have `--json`, by their words.
fn commands_with_json(command: &clap::Command, words: &str, found: &mut BTreeSet<String>) {
    for below in command.get_subcommands() {
        let words = match words {
            "" => below.get_name().to_owned(),
            above => format!("{above}-{}", below.get_name()),
        };
        if below.get_arguments().any(|arg| arg.get_id() == "json") {
            found.insert(words.clone());
        }
        commands_with_json(below, &words, found);
    }
}

#[test]
fn every_command_with_json_has_a_schema_and_no_schema_is_of_nothing() {
    let mut commands = BTreeSet::new();
    commands_with_json(&Cli::command(), "", &mut commands);
    assert!(commands.len() > 20, "{commands:?}");
    let parts = ["progress", "serve-notice", "summary"].map(str::to_owned);
    commands.extend(parts);
    let named: BTreeSet<String> = DOCUMENTS.iter().map(|(n, _)| (*n).to_owned()).collect();
    assert_eq!(named, commands);
    assert!(DOCUMENTS.is_sorted_by_key(|(name, _)| *name));
}

#[test]
fn schemas_are_kept() {
    let mut kept = Vec::new();
    for (name, schema) in DOCUMENTS {
        let schema = schema();
        if kept.contains(&schema) {
            // The same as another's.
            continue;
        }
        kept.push(schema.clone());
        jsonschema::draft202012::meta::validate(schema.as_value()).unwrap();
        let text = serde_json::to_string_pretty(schema.as_value()).unwrap();
        insta::assert_snapshot!(*name, text);
    }
}

/// Looks at a document by its schema, reads it again, and sees it refused under another version.
fn same_again<T>(document: &T) -> String
where
    T: Document + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let text = serde_json::to_string(document).unwrap();
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let schema = schema::<T>();
    let validator = jsonschema::validator_for(schema.as_value()).unwrap();
    if let Err(error) = validator.validate(&value) {
        panic!("{}: {error} at {}", T::NAME, error.instance_path());
    }
    assert_eq!(&read::<T>(&text).unwrap(), document);
    assert!(text.starts_with("{\"version\":"), "{text}");
    value["version"] = (T::VERSION + 1).into();
    assert!(
        !validator.is_valid(&value),
        "{} of another version",
        T::NAME
    );
    let error = read::<T>(&value.to_string()).unwrap_err().to_string();
    assert!(error.contains("is of version"), "{error}");
    text
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn difference() -> Difference {
    Difference {
        path: "gitops/a.yaml".to_owned(),
        change: Change::Update,
        edited: true,
        foreign: false,
    }
}

fn changed() -> Changed {
    Changed {
        file: "secrets/servers.sops.yaml".to_owned(),
        name: "k3s/token".to_owned(),
        after: "restart it".to_owned(),
    }
}

#[test]
fn reports_are_read_as_they_were_written() {
    let node = NodeName::new("gpu-01").unwrap();
    same_again(&Approvals {
        version: Version,
        waiting: Vec::new(),
    });
    let broken = inventory::parse("undercroft.toml", b"[fleet]\nnam = 1\n");
    assert!(!broken.diagnostics.is_empty());
    same_again(&Checked {
        version: Version,
        file: "undercroft.toml".to_owned(),
        ok: false,
        fleet: None,
        digest: some("abc"),
        nodes: 0,
        diagnostics: broken.diagnostics,
    });
    same_again(&DevConfig {
        version: Version,
        cluster: "cellar-ada".to_owned(),
        context: "k3d-cellar-ada".to_owned(),
        create: vec!["cluster".to_owned()],
        files: 3,
        waves: vec![vec!["cilium".to_owned()], Vec::new()],
        changes: vec![difference()],
    });
    same_again(&Doctor {
        version: Version,
        node: node.clone(),
        state: NodeState::Approved,
        diagnosis: Diagnosis {
            missing: Missing::BootScript,
            summary: "no script was asked for".to_owned(),
            hints: vec!["look at the cable".to_owned()],
        },
        verdict: "it waits".to_owned(),
        next: vec!["wait".to_owned()],
        alarms: Vec::new(),
        timeline: Vec::new(),
    });
    for head in [None, some("abc")] {
        same_again(&Journal {
            version: Version,
            entries: 7,
            head,
        });
    }
    same_again(&Power {
        version: Version,
        node,
        power: PowerReading::Unknown,
    });
    same_again(&Rendered {
        version: Version,
        fleet: "cellar".to_owned(),
        files: 1,
        waves: Vec::new(),
        written: true,
        changes: vec![difference()],
    });
    same_again(&Updated {
        version: Version,
        written: false,
        components: vec![ComponentUpdate {
            name: "cilium".to_owned(),
            from: "1.18.1".to_owned(),
            to: some("1.18.2"),
            app_version: None,
            held: None,
            next: some("1.19.0"),
            note: None,
        }],
    });
}

#[test]
fn reports_on_secrets_are_read_as_they_were_written() {
    same_again(&SecretsCheck {
        version: Version,
        ok: false,
        findings: vec![SecretsFinding {
            severity: Severity::Error,
            code: "missing".into(),
            file: "secrets/servers.sops.yaml".to_owned(),
            line: Some(3),
            message: "it lacks k3s/token".to_owned(),
            hint: None,
        }],
    });
    for identity in [
        None,
        Some(Identity {
            path: "/home/ada/key".into(),
            recipient: "age1".to_owned(),
        }),
    ] {
        same_again(&SecretsInit {
            version: Version,
            identity,
            host_keys: vec![NodeName::new("gpu-01").unwrap()],
            made: vec![changed()],
            asked: Vec::new(),
            rules_written: true,
        });
    }
    same_again(&SecretsList {
        version: Version,
        secrets: vec![SecretRow {
            name: "k3s/token".to_owned(),
            file: "secrets/servers.sops.yaml".to_owned(),
            readers: "servers".to_owned(),
            state: "there".to_owned(),
            about: "it lets servers join".to_owned(),
        }],
    });
    for after in [None, Some("look at it".into())] {
        same_again(&SecretsRekey {
            version: Version,
            files: vec![Rekeyed {
                file: "secrets/servers.sops.yaml".to_owned(),
                added: vec!["gpu-01".to_owned()],
                removed: Vec::new(),
                rotate: Vec::new(),
                after,
            }],
        });
    }
    same_again(&SecretsRotate {
        version: Version,
        changed: vec![changed()],
    });
}

#[test]
fn rehearsals_are_read_as_they_were_written() {
    for example in [
        include_str!("../../../../examples/basement/undercroft.toml"),
        include_str!("../../../../examples/rack/undercroft.toml"),
    ] {
        let inventory = inventory::parse("undercroft.toml", example.as_bytes());
        let inventory = inventory.inventory.unwrap();
        for faults in [Faults::None, Faults::Many] {
            let options = RehearseOptions {
                seed: 7,
                faults,
                trace: true,
                ..RehearseOptions::default()
            };
            let rehearsal = rehearse(&inventory, &options).unwrap();
            same_again(&Rehearsed::from(rehearsal));
            let seeds = run_seeds(&inventory, &options, 1..=2, &mut |_| {}).unwrap();
            let text = same_again(&Rehearsed::Seeds(seeds.into()));
            let kinds: BTreeMap<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
            assert!(kinds.contains_key("faults"), "{text}");
        }
    }
}
